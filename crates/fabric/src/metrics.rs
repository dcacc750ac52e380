//! `loco_fabric_*` for Prometheus, computed from the newest status when somebody asks: no second set of books.
use prometheus::{
    IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::sync::watch;

use crate::{FabricError, FabricStatus};

pub(crate) fn register(registry: &Registry, status: watch::Receiver<FabricStatus>) -> Result<(), FabricError> {
    registry.register(Box::new(StatusCollector { template: Reading::new(), status })).map_err(FabricError::Metrics)
}

struct StatusCollector {
    /// Never filled; lends its descriptions.
    template: Reading,
    status: watch::Receiver<FabricStatus>,
}

/// One reading: fresh metrics, filled from one status.
struct Reading {
    passes: IntCounter,
    writes: IntCounter,
    problems: IntGauge,
    frames: IntCounterVec,
    bytes: IntCounterVec,
    dropped: IntCounterVec,
}

impl Reading {
    fn new() -> Self {
        let per_port = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let valid = "names and labels are constants that Prometheus takes";
        Self {
            passes: IntCounter::new("loco_fabric_passes_total", "Passes of observe, plan and apply.").expect(valid),
            writes: IntCounter::new("loco_fabric_writes_total", "Changes written to the kernel.").expect(valid),
            problems: IntGauge::new("loco_fabric_problems", "Reasons why the LAN is not as desired.").expect(valid),
            frames: per_port(
                "loco_fabric_port_frames_total",
                "Frames at a guest's port; tx = sent by the guest.",
                &["instance", "direction"],
            )
            .expect(valid),
            bytes: per_port(
                "loco_fabric_port_bytes_total",
                "Bytes at a guest's port; tx = sent by the guest.",
                &["instance", "direction"],
            )
            .expect(valid),
            dropped: per_port(
                "loco_fabric_port_dropped_total",
                "Frames for the guest that the kernel dropped at its tap.",
                &["instance"],
            )
            .expect(valid),
        }
    }

    fn parts(&self) -> [&(dyn Collector + '_); 6] {
        [&self.passes, &self.writes, &self.problems, &self.frames, &self.bytes, &self.dropped]
    }

    fn fill(&self, status: &FabricStatus) {
        self.passes.inc_by(status.passes);
        self.writes.inc_by(status.netlink_writes);
        self.problems.set(i64::try_from(status.problems.len()).unwrap_or(i64::MAX));
        for (instance, port) in &status.ports {
            let Some(counters) = port.counters else { continue };
            let id = instance.as_str();
            self.frames.with_label_values(&[id, "tx"]).inc_by(counters.tx_frames);
            self.frames.with_label_values(&[id, "rx"]).inc_by(counters.rx_frames);
            self.bytes.with_label_values(&[id, "tx"]).inc_by(counters.tx_bytes);
            self.bytes.with_label_values(&[id, "rx"]).inc_by(counters.rx_bytes);
            self.dropped.with_label_values(&[id]).inc_by(counters.rx_dropped);
        }
    }
}

impl Collector for StatusCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.template.parts().iter().flat_map(|part| part.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let reading = Reading::new();
        reading.fill(&self.status.borrow());
        reading.parts().iter().flat_map(|part| part.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use model::{MacAddr, Seat};

    use super::*;
    use crate::{PortCounters, PortStatus};

    #[test]
    fn what_is_exported_is_the_newest_status() {
        let registry = Registry::new();
        let (sender, status) = watch::channel(FabricStatus::default());
        register(&registry, status.clone()).unwrap();
        assert!(register(&registry, status).is_err(), "a second fabric would count into the first one's series");
        let port = PortStatus {
            lan: "party".parse().unwrap(),
            seat: Seat(0),
            mac: MacAddr::ZERO,
            tap: "locot001068-0".to_owned(),
            exists: true,
            carrier: Some(true),
            counters: Some(PortCounters { tx_frames: 7, rx_dropped: 2, ..PortCounters::default() }),
            address_in_use: None,
        };
        let absent = PortStatus { exists: false, counters: None, ..port.clone() };
        sender.send_replace(FabricStatus {
            ports: [("instance-0".parse().unwrap(), port), ("instance-1".parse().unwrap(), absent)].into(),
            problems: vec!["something".to_owned()],
            passes: 3,
            ..FabricStatus::default()
        });
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for want in [
            "loco_fabric_passes_total 3",
            "loco_fabric_problems 1",
            "loco_fabric_writes_total 0",
            r#"loco_fabric_port_frames_total{direction="tx",instance="instance-0"} 7"#,
            r#"loco_fabric_port_dropped_total{instance="instance-0"} 2"#,
        ] {
            assert!(text.contains(want), "{want} is not in\n{text}");
        }
        // A port that was not read has no series, rather than zeros.
        assert!(!text.contains("instance-1"));
    }
}
