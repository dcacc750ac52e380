//! `loco_fabric_*` for Prometheus, computed from the newest status when somebody asks: no second set of books.
use prometheus::{
    GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::sync::watch;

use crate::{FabricError, FabricStatus, PeerMetrics, wireguard::TunnelStatus};

/// What may have to be mended, as `loco_fabric_repairs_total` calls it.
const OBJECTS: [&str; 11] =
    ["bridge", "flood", "link", "mac", "master", "mtu", "namespace", "program", "sysctl", "unicast", "wireguard"];

/// What was found altered or removed, and mended, since the start. A clone counts into the same series.
#[derive(Debug, Clone)]
pub struct Repairs(IntCounterVec);

impl Repairs {
    /// # Errors
    /// When the registry has a fabric already.
    pub(crate) fn register(registry: &Registry) -> Result<Self, FabricError> {
        let opts = Opts::new(
            "loco_fabric_repairs_total",
            "What somebody removed or altered and the agent put right; object = link, master, mtu, mac, bridge (its settings), flood, unicast, sysctl, namespace, program (at a port or tunnel), wireguard (device, address or route of the encrypted underlay).",
        );
        let counts = IntCounterVec::new(opts, &["object"]).map_err(FabricError::Metrics)?;
        registry.register(Box::new(counts.clone())).map_err(FabricError::Metrics)?;
        // So that the first repair is a step, too.
        for object in OBJECTS {
            counts.with_label_values(&[object]);
        }
        Ok(Self(counts))
    }

    /// A program of a port or tunnel was put back `times`.
    pub fn programs(&self, times: u64) {
        self.count("program", times);
    }

    pub(crate) fn count(&self, object: &'static str, times: u64) {
        debug_assert!(OBJECTS.contains(&object), "{object} has no series");
        self.0.with_label_values(&[object]).inc_by(times);
    }

    /// So far.
    pub fn get(&self, object: &str) -> u64 {
        self.0.with_label_values(&[object]).get()
    }
}

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
    underlay_mtu: IntGaugeVec,
    peers: PeerMetrics,
    handshakes: IntCounterVec,
    handshake_age: GaugeVec,
    tunnel_bytes: IntCounterVec,
    tunnel_refused: IntCounterVec,
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
            underlay_mtu: IntGaugeVec::new(
                Opts::new(
                    "loco_fabric_underlay_mtu_bytes",
                    "MTU of the link with this node's address; below 1550 full frames are sent in fragments.",
                ),
                &["link"],
            )
            .expect(valid),
            peers: PeerMetrics::new("loco_fabric", "it is out of the flood list"),
            handshakes: IntCounterVec::new(
                Opts::new("loco_wireguard_handshakes_total", "WireGuard handshakes with the other node that completed."),
                &["peer"],
            )
            .expect(valid),
            handshake_age: GaugeVec::new(
                Opts::new(
                    "loco_wireguard_handshake_age_seconds",
                    "Since the last WireGuard handshake with the other node; above 180 nothing passes.",
                ),
                &["peer"],
            )
            .expect(valid),
            tunnel_bytes: IntCounterVec::new(
                Opts::new(
                    "loco_wireguard_bytes_total",
                    "Octets of WireGuard's packets to (tx) and from the other node, since the peer was set up.",
                ),
                &["direction", "peer"],
            )
            .expect(valid),
            tunnel_refused: IntCounterVec::new(
                Opts::new(
                    "loco_wireguard_refused_total",
                    "Datagrams at WireGuard's port that were dropped; reason = stranger (from no peer's address), form (not WireGuard's), kernel (the kernel's WireGuard did not take them).",
                ),
                &["reason"],
            )
            .expect(valid),
        }
    }

    fn parts(&self) -> Vec<&dyn Collector> {
        let own: [&dyn Collector; 11] = [
            &self.passes,
            &self.writes,
            &self.problems,
            &self.frames,
            &self.bytes,
            &self.dropped,
            &self.underlay_mtu,
            &self.handshakes,
            &self.handshake_age,
            &self.tunnel_bytes,
            &self.tunnel_refused,
        ];
        own.into_iter().chain(self.peers.parts()).collect()
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
        if let Some(underlay) = &status.underlay {
            self.underlay_mtu.with_label_values(&[&underlay.link]).set(underlay.mtu.into());
        }
        for peer in &status.peers {
            let labels = [peer.lan.as_str(), peer.node.as_str()];
            self.peers.fill(labels, peer.alive, peer.rtt, peer.loss, peer.full_frames);
        }
        if let Some(tunnel) = &status.tunnel {
            self.fill_tunnel(tunnel);
        }
    }

    fn fill_tunnel(&self, tunnel: &TunnelStatus) {
        for peer in &tunnel.peers {
            let node = peer.node.as_str();
            self.handshakes.with_label_values(&[node]).inc_by(peer.handshakes);
            if let Some(age) = peer.handshake {
                self.handshake_age.with_label_values(&[node]).set(age.as_secs_f64());
            }
            for (direction, octets) in [("tx", peer.tx_bytes), ("rx", peer.rx_bytes)] {
                self.tunnel_bytes.with_label_values(&[direction, node]).inc_by(octets);
            }
        }
        for (reason, count) in &tunnel.refused {
            self.tunnel_refused.with_label_values(&[reason]).inc_by(*count);
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
    use crate::{PeerStatus, PortCounters, PortStatus};

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
            guard: model::Rules::default(),
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
            peers: vec![PeerStatus {
                lan: "party".parse().unwrap(),
                node: "node-b".parse().unwrap(),
                vtep: std::net::Ipv4Addr::new(10, 99, 0, 12),
                alive: Some(true),
                rtt: Some(std::time::Duration::from_micros(250)),
                loss: Some(0.25),
                full_frames: None,
            }],
            ..FabricStatus::default()
        });
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for want in [
            "loco_fabric_passes_total 3",
            "loco_fabric_problems 1",
            "loco_fabric_writes_total 0",
            r#"loco_fabric_port_frames_total{direction="tx",instance="instance-0"} 7"#,
            r#"loco_fabric_port_dropped_total{instance="instance-0"} 2"#,
            r#"loco_fabric_peer_up{lan="party",peer="node-b"} 1"#,
            r#"loco_fabric_peer_rtt_seconds{lan="party",peer="node-b"} 0.00025"#,
            r#"loco_fabric_peer_loss_ratio{lan="party",peer="node-b"} 0.25"#,
        ] {
            assert!(text.contains(want), "{want} is not in\n{text}");
        }
        // A port that was not read has no series, rather than zeros.
        assert!(!text.contains("instance-1") && !text.contains("peer_full_frames{"));
    }
}
