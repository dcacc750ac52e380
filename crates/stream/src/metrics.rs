//! What Prometheus sees of the streams. Labels come from enums and from instance ids, so their number is bounded.
use prometheus::{
    CounterVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector,
};

use crate::Tier;

/// All metrics of the crate; registered once a process.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) frames: IntCounterVec,
    pub(crate) bytes: IntCounterVec,
    pub(crate) key_frames: IntCounterVec,
    pub(crate) rows: IntCounterVec,
    pub(crate) dropped: IntCounterVec,
    pub(crate) encode_seconds: HistogramVec,
    pub(crate) encode_busy: CounterVec,
    pub(crate) sessions: IntGaugeVec,
    pub(crate) target: IntGaugeVec,
    pub(crate) encoders: IntGaugeVec,
    pub(crate) offers: IntCounterVec,
    pub(crate) audio_packets: IntCounterVec,
    pub(crate) bad_messages: IntCounter,
    pub(crate) held_timeouts: IntCounterVec,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help, labels: &[&str]| keep(registry, IntCounterVec::new(opts(name, help), labels)?);
        let gauge = |name, help, labels: &[&str]| keep(registry, IntGaugeVec::new(opts(name, help), labels)?);
        let tier = ["instance", "tier"];
        let buckets = vec![0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.25, 1.0];
        let histogram =
            HistogramOpts::new("loco_stream_encode_seconds", "Damage picked up to H.264 frame ready").buckets(buckets);
        Ok(Self {
            frames: counter("frames_total", "Frames encoded, once however many viewers", &tier)?,
            bytes: counter("encoded_bytes_total", "Bytes of H.264 encoded", &tier)?,
            key_frames: counter("key_frames_total", "Frames that a newcomer can start with", &tier)?,
            rows: counter("converted_rows_total", "Rows converted because the screen changed there", &tier)?,
            dropped: counter("dropped_frames_total", "Frames that a slow viewer missed", &tier)?,
            encode_seconds: keep(registry, HistogramVec::new(histogram, &tier)?)?,
            encode_busy: keep(
                registry,
                CounterVec::new(opts("convert_seconds_total", "Time spent on converting"), &tier)?,
            )?,
            sessions: gauge("sessions", "WebRTC sessions, connecting ones too", &["instance"])?,
            target: gauge("target_bitrate_bps", "What the encoder was told to make", &tier)?,
            encoders: gauge("encoders", "Encoders that run: one per tier that is watched", &["tier"])?,
            offers: counter("offers_total", "Offers by their outcome", &["outcome"])?,
            audio_packets: counter("audio_packets_total", "Opus packets encoded", &["instance"])?,
            bad_messages: keep(
                registry,
                IntCounter::with_opts(opts("bad_messages_total", "Data channel messages refused"))?,
            )?,
            held_timeouts: counter(
                "held_timeouts_total",
                "Times that everything held was released for want of reports",
                &["instance"],
            )?,
        })
    }

    /// Forgets an instance, so that a deleted one does not stay in the exposition.
    pub(crate) fn forget(&self, instance: &str) {
        for tier in Tier::ALL {
            let labels = [instance, tier.as_str()];
            for vec in [&self.frames, &self.bytes, &self.key_frames, &self.rows, &self.dropped] {
                // An error only says that there was no such series.
                vec.remove_label_values(&labels).ok();
            }
            self.encode_seconds.remove_label_values(&labels).ok();
            self.encode_busy.remove_label_values(&labels).ok();
            self.target.remove_label_values(&labels).ok();
        }
        self.sessions.remove_label_values(&[instance]).ok();
        self.audio_packets.remove_label_values(&[instance]).ok();
        self.held_timeouts.remove_label_values(&[instance]).ok();
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("loco_stream_{name}"), help)
}

fn keep<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_instance_leaves_no_series() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        metrics.frames.with_label_values(&["instance-0", "full"]).inc();
        metrics.sessions.with_label_values(&["instance-0"]).set(2);
        assert_eq!(registry.gather().iter().filter(|f| !f.get_metric().is_empty()).count(), 3);
        metrics.forget("instance-0");
        let left: Vec<_> =
            registry.gather().iter().filter(|f| !f.get_metric().is_empty()).map(|f| f.name().to_owned()).collect();
        assert_eq!(left, ["loco_stream_bad_messages_total"]);
        assert!(Metrics::register(&registry).is_err(), "twice on one registry");
    }
}
