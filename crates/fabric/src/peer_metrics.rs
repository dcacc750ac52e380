//! What is measured of the other nodes, as metrics: the same of the kernel's tunnel and of the switch in user space.
use std::time::Duration;

use prometheus::{GaugeVec, IntGaugeVec, Opts, core::Collector};

/// One reading of all peers: fresh metrics.
pub struct PeerMetrics {
    up: IntGaugeVec,
    rtt: GaugeVec,
    loss: GaugeVec,
    full: IntGaugeVec,
}

impl PeerMetrics {
    /// `prefix`: whose they are, such as `loco_fabric`; `away`: what a node that does not answer means.
    ///
    /// # Panics
    /// When `prefix` is none of Prometheus's names.
    pub fn new(prefix: &str, away: &str) -> Self {
        let valid = "names and labels are constants that Prometheus takes";
        let labels = ["lan", "peer"];
        let opts = |name: &str, help: &str| Opts::new(format!("{prefix}_{name}"), help);
        let whole = |name: &str, help: &str| IntGaugeVec::new(opts(name, help), &labels).expect(valid);
        let real = |name: &str, help: &str| GaugeVec::new(opts(name, help), &labels).expect(valid);
        Self {
            up: whole("peer_up", &format!("1: the other node answers over the LAN's tunnel; 0: {away}.")),
            rtt: real("peer_rtt_seconds", "Round trip to the other node over the LAN's tunnel, at the last answer."),
            loss: real(
                "peer_loss_ratio",
                "Share of the last questions to the other node (64 at most) without an answer.",
            ),
            full: whole("peer_full_frames", "1: frames of 1514 octets get to the other node and back."),
        }
    }

    pub fn parts(&self) -> [&dyn Collector; 4] {
        [&self.up, &self.rtt, &self.loss, &self.full]
    }

    /// What was not measured has no series.
    pub fn fill(
        &self,
        [lan, peer]: [&str; 2],
        alive: Option<bool>,
        rtt: Option<Duration>,
        loss: Option<f64>,
        full: Option<bool>,
    ) {
        let labels = [lan, peer];
        if let Some(alive) = alive {
            self.up.with_label_values(&labels).set(alive.into());
        }
        if let Some(rtt) = rtt {
            self.rtt.with_label_values(&labels).set(rtt.as_secs_f64());
        }
        if let Some(loss) = loss {
            self.loss.with_label_values(&labels).set(loss);
        }
        if let Some(full) = full {
            self.full.with_label_values(&labels).set(full.into());
        }
    }
}

impl std::fmt::Debug for PeerMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerMetrics")
    }
}
