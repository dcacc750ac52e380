//! `loco_ipx_relay_*` for Prometheus, computed from the newest report when somebody asks. A client's series end with it; at
//! most [`crate::Settings::clients_max`] are there at a time.
use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::sync::watch;

use crate::{Drop, Report, segment::FORMATS, settings::word};

/// Shows the newest report of a relay.
///
/// # Errors
/// When a name is taken, that is when two relays share a registry.
pub fn register(registry: &Registry, reports: watch::Receiver<Report>) -> prometheus::Result<()> {
    registry.register(Box::new(ReportCollector { template: Reading::new(), reports }))
}

struct ReportCollector {
    /// Never filled; lends its descriptions.
    template: Reading,
    reports: watch::Receiver<Report>,
}

/// One reading: fresh metrics, filled from one report.
struct Reading {
    clients: IntGauge,
    plugged: IntGauge,
    framings: IntGaugeVec,
    packets: IntCounterVec,
    bytes: IntCounterVec,
    client_dropped: IntCounterVec,
    dropped: IntCounterVec,
    segment_packets: IntCounterVec,
    segment_bytes: IntCounterVec,
}

impl Reading {
    fn new() -> Self {
        let valid = "names and labels are constants that Prometheus takes";
        let gauge = |name, help| IntGauge::new(name, help).expect(valid);
        let counters = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels).expect(valid);
        let (both, way) = (["client", "direction"], ["direction"]);
        Self {
            clients: gauge("loco_ipx_relay_clients", "Clients of the IPX tunnel."),
            plugged: gauge("loco_ipx_relay_plugged", "1 while the relay has its port in the LAN."),
            framings: IntGaugeVec::new(
                Opts::new("loco_ipx_relay_framing", "1 for each framing that broadcasts go to the LAN in."),
                &["framing"],
            )
            .expect(valid),
            packets: counters("loco_ipx_relay_packets_total", "Packets of a client; tx = sent by it.", &both),
            bytes: counters("loco_ipx_relay_bytes_total", "Bytes of IPX of a client; tx = sent by it.", &both),
            client_dropped: counters(
                "loco_ipx_relay_client_dropped_total",
                "Packets of a client not passed on.",
                &["client"],
            ),
            dropped: counters(
                "loco_ipx_relay_dropped_total",
                "Packets and frames not passed on, by reason.",
                &["reason"],
            ),
            segment_packets: counters(
                "loco_ipx_relay_segment_packets_total",
                "Packets between tunnel and LAN; in = from the LAN, out = to it, each framing counted.",
                &way,
            ),
            segment_bytes: counters(
                "loco_ipx_relay_segment_bytes_total",
                "Bytes of IPX between tunnel and LAN; in = from the LAN, out = to it, each framing counted.",
                &way,
            ),
        }
    }

    fn parts(&self) -> [&(dyn Collector + '_); 9] {
        [
            &self.clients,
            &self.plugged,
            &self.framings,
            &self.packets,
            &self.bytes,
            &self.client_dropped,
            &self.dropped,
            &self.segment_packets,
            &self.segment_bytes,
        ]
    }

    fn fill(&self, report: &Report) {
        let add = |counter: IntCounter, value| counter.inc_by(value);
        self.clients.set(i64::try_from(report.clients.len()).unwrap_or(i64::MAX));
        self.plugged.set(report.plugged.into());
        for format in FORMATS {
            self.framings.with_label_values(&[word(format)]).set(report.framings.contains(&format).into());
        }
        for client in &report.clients {
            let name = client.node.to_string();
            for (direction, traffic) in [("tx", client.sent), ("rx", client.received)] {
                add(self.packets.with_label_values(&[&name, direction]), traffic.packets);
                add(self.bytes.with_label_values(&[&name, direction]), traffic.bytes);
            }
            add(self.client_dropped.with_label_values(&[&name]), client.dropped);
        }
        for reason in Drop::ALL {
            add(self.dropped.with_label_values(&[reason.word()]), report.drops.of(reason));
        }
        for (direction, traffic) in [("in", report.from_segment), ("out", report.to_segment)] {
            add(self.segment_packets.with_label_values(&[direction]), traffic.packets);
            add(self.segment_bytes.with_label_values(&[direction]), traffic.bytes);
        }
    }
}

impl Collector for ReportCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.template.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let reading = Reading::new();
        reading.fill(&self.reports.borrow());
        reading.parts().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::TextEncoder;

    use super::*;
    use crate::{ClientReport, Traffic};

    #[test]
    fn a_clients_series_come_and_go_with_it() {
        let registry = Registry::new();
        let client = ClientReport {
            node: wire::MacAddr([10, 0, 0, 9, 0x80, 1]),
            address: "10.0.0.9:32769".parse().unwrap(),
            connected_for: Duration::ZERO,
            silent_for: Duration::ZERO,
            sent: Traffic { packets: 3, bytes: 120 },
            received: Traffic { packets: 5, bytes: 200 },
            dropped: 1,
        };
        let (reports, watching) = watch::channel(Report { clients: vec![client], plugged: true, ..Report::default() });
        register(&registry, watching).unwrap();
        let text = || TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let line = r#"loco_ipx_relay_packets_total{client="0a:00:00:09:80:01",direction="rx"} 5"#;
        assert!(text().contains(line) && text().contains("loco_ipx_relay_plugged 1"), "{}", text());
        reports.send_replace(Report::default());
        let text = text();
        assert!(
            !text.contains("client=") && text.contains(r#"loco_ipx_relay_dropped_total{reason="loop"} 0"#),
            "{text}"
        );
    }
}
