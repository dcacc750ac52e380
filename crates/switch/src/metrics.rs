//! `loco_switch_*` for Prometheus, computed from the newest status when somebody asks.
use fabric::PeerMetrics;
use prometheus::{
    IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::sync::watch;

use crate::SwitchStatus;

/// # Errors
/// When a name is taken.
pub fn register(registry: &Registry, status: watch::Receiver<SwitchStatus>) -> prometheus::Result<()> {
    registry.register(Box::new(StatusCollector { template: Reading::new(), status }))
}

struct StatusCollector {
    /// Never filled; lends its descriptions.
    template: Reading,
    status: watch::Receiver<SwitchStatus>,
}

/// One reading: fresh metrics, filled from one status.
struct Reading {
    frames: IntCounterVec,
    bytes: IntCounterVec,
    dropped: IntCounterVec,
    refused: IntCounterVec,
    strays: IntCounter,
    overruns: IntCounter,
    unsent: IntCounter,
    foreign: IntGaugeVec,
    foreign_frames: IntCounterVec,
    foreign_dropped: IntCounterVec,
    foreign_refused: IntCounterVec,
    peers: PeerMetrics,
}

const VALID: &str = "names and labels are constants that Prometheus takes";

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(VALID)
}

impl Reading {
    fn new() -> Self {
        let way = ["instance", "direction"];
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect(VALID);
        Self {
            frames: counters(
                "loco_switch_port_frames_total",
                "Frames at a guest's port; tx = sent by the guest.",
                &way,
            ),
            bytes: counters("loco_switch_port_bytes_total", "Bytes at a guest's port; tx = sent by the guest.", &way),
            dropped: counters(
                "loco_switch_port_dropped_total",
                "Frames for the guest that found 1,024 waiting for it and were lost.",
                &["instance"],
            ),
            refused: counters(
                "loco_switch_port_refused_total",
                "Frames of the guest that its port did not let through, by reason.",
                &["instance", "reason"],
            ),
            strays: counter("loco_switch_strays_total", "Datagrams that are of no node or LAN of ours."),
            overruns: counter(
                "loco_switch_overruns_total",
                "Datagrams of other nodes that the kernel had no room for.",
            ),
            unsent: counter("loco_switch_unsent_total", "Frames for other nodes that the kernel did not take."),
            foreign: IntGaugeVec::new(
                Opts::new("loco_switch_foreign_machines", "Machines outside of the cluster that are plugged in here."),
                &["lan"],
            )
            .expect(VALID),
            foreign_frames: counters(
                "loco_switch_foreign_frames_total",
                "Frames of foreign machines, all of a LAN together; tx = sent by one.",
                &["lan", "direction"],
            ),
            foreign_dropped: counters(
                "loco_switch_foreign_dropped_total",
                "Frames for foreign machines that found 1,024 waiting and were lost.",
                &["lan"],
            ),
            foreign_refused: counters(
                "loco_switch_foreign_refused_total",
                "Frames of foreign machines that their ports did not let through, by reason.",
                &["lan", "reason"],
            ),
            peers: PeerMetrics::new("loco_switch", "its guests and this node's do not hear each other"),
        }
    }

    fn parts(&self) -> Vec<&dyn Collector> {
        let own: [&dyn Collector; 11] = [
            &self.frames,
            &self.bytes,
            &self.dropped,
            &self.refused,
            &self.strays,
            &self.overruns,
            &self.unsent,
            &self.foreign,
            &self.foreign_frames,
            &self.foreign_dropped,
            &self.foreign_refused,
        ];
        own.into_iter().chain(self.peers.parts()).collect()
    }

    fn fill(&self, status: &SwitchStatus) {
        self.strays.inc_by(status.strays);
        self.overruns.inc_by(status.overruns);
        self.unsent.inc_by(status.unsent);
        for (instance, port) in &status.ports {
            let id = instance.as_str();
            self.frames.with_label_values(&[id, "tx"]).inc_by(port.counters.tx_frames);
            self.frames.with_label_values(&[id, "rx"]).inc_by(port.counters.rx_frames);
            self.bytes.with_label_values(&[id, "tx"]).inc_by(port.counters.tx_bytes);
            self.bytes.with_label_values(&[id, "rx"]).inc_by(port.counters.rx_bytes);
            self.dropped.with_label_values(&[id]).inc_by(port.counters.rx_dropped);
            for (reason, count) in &port.refused {
                self.refused.with_label_values(&[id, reason.name()]).inc_by(*count);
            }
        }
        for (name, lan) in &status.lans {
            let (name, foreign) = (name.as_str(), &lan.foreign_totals);
            self.foreign.with_label_values(&[name]).set(foreign.plugged.into());
            self.foreign_frames.with_label_values(&[name, "tx"]).inc_by(foreign.counters.tx_frames);
            self.foreign_frames.with_label_values(&[name, "rx"]).inc_by(foreign.counters.rx_frames);
            self.foreign_dropped.with_label_values(&[name]).inc_by(foreign.counters.rx_dropped);
            for (reason, count) in &foreign.refused {
                self.foreign_refused.with_label_values(&[name, reason.name()]).inc_by(*count);
            }
            for (node, peer) in &lan.peers {
                self.peers.fill([name, node.as_str()], peer.alive, peer.rtt, peer.loss, peer.full_frames);
            }
        }
    }
}

impl Collector for StatusCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.template.parts().into_iter().flat_map(|part| part.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let reading = Reading::new();
        reading.fill(&self.status.borrow());
        reading.parts().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_has_no_series() {
        let registry = Registry::new();
        let peer = crate::PeerStatus {
            address: [10, 99, 0, 12].into(),
            alive: Some(true),
            rtt: None,
            loss: Some(0.25),
            full_frames: None,
        };
        let lan = crate::LanStatus {
            vni: model::Vni::new(7).unwrap(),
            seats: 9,
            meshed: true,
            peers: [("node-b".parse().unwrap(), peer)].into(),
            foreign: Vec::new(),
            foreign_totals: crate::ForeignTotals { plugged: 2, ..crate::ForeignTotals::default() },
        };
        let status =
            SwitchStatus { strays: 5, lans: [("party".parse().unwrap(), lan)].into(), ..SwitchStatus::default() };
        let (_sender, status) = watch::channel(status);
        register(&registry, status).unwrap();
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for want in [
            "loco_switch_strays_total 5",
            r#"loco_switch_foreign_machines{lan="party"} 2"#,
            r#"loco_switch_peer_up{lan="party",peer="node-b"} 1"#,
            r#"loco_switch_peer_loss_ratio{lan="party",peer="node-b"} 0.25"#,
        ] {
            assert!(text.contains(want), "{want} is not in {text}");
        }
        assert!(!text.contains("peer_rtt_seconds{"));
    }
}
