//! `loco_tap_*`, `loco_dplay_*` and others, computed from what was last seen when somebody asks. Labels are instances of this
//! node, its LANs, and words of this program: never addresses or names that a guest can choose.
use std::sync::Arc;

use api::observe::{Certainty, Observed};
use prometheus::{
    GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::sync::watch;
use traffic::{ClassCounts, Directions};

use super::Seen;

/// # Errors
/// When a name is taken.
pub(crate) fn register(registry: &Registry, seen: watch::Receiver<Arc<Seen>>) -> prometheus::Result<()> {
    registry.register(Box::new(SeenCollector { template: Reading::new(), seen }))
}

struct SeenCollector {
    /// Never filled; lends its descriptions.
    template: Reading,
    seen: watch::Receiver<Arc<Seen>>,
}

/// One reading: fresh metrics, filled once.
struct Reading {
    tap_frames: IntCounterVec,
    tap_bytes: IntCounterVec,
    overlay_frames: IntCounterVec,
    overlay_bytes: IntCounterVec,
    refused: IntCounterVec,
    events: IntCounter,
    lost: IntCounterVec,
    taps: IntGauge,
    problem: IntGauge,
    sessions: IntGaugeVec,
    players: IntGaugeVec,
    queries: IntCounterVec,
    replies: IntCounterVec,
    dplay8_queries: IntCounterVec,
    netbios_hosts: IntGaugeVec,
    machines: IntGaugeVec,
    anomalies: IntGaugeVec,
    duplicate_macs: IntGaugeVec,
    elections: IntCounterVec,
    player_rtt: GaugeVec,
    guest_response: GaugeVec,
}

const VALID: &str = "names and labels are constants that Prometheus takes";

fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(VALID)
}

fn gauge(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect(VALID)
}

fn seconds(name: &str, help: &str) -> GaugeVec {
    GaugeVec::new(Opts::new(name, help), &["instance"]).expect(VALID)
}

impl Reading {
    fn new() -> Self {
        let (at_tap, in_lan) = (["instance", "direction", "class"], ["lan", "direction", "class"]);
        Self {
            tap_frames: counter("loco_tap_frames_total", "Frames at a guest's tap; tx = sent by the guest.", &at_tap),
            tap_bytes: counter("loco_tap_bytes_total", "Bytes at a guest's tap; tx = sent by the guest.", &at_tap),
            overlay_frames: counter(
                "loco_overlay_frames_total",
                "Frames in a LAN's tunnel; tx = to other nodes.",
                &in_lan,
            ),
            overlay_bytes: counter(
                "loco_overlay_bytes_total",
                "Bytes in a LAN's tunnel; tx = to other nodes.",
                &in_lan,
            ),
            refused: counter(
                "loco_tap_refused_total",
                "Frames of a guest that the guard at its tap dropped; reason = runt, too_long, foreign_source, dhcp_server, router_advertisement, storm.",
                &["instance", "reason"],
            ),
            events: IntCounter::new("loco_events_total", "Frames that were handed to the observer.").expect(VALID),
            lost: counter(
                "loco_events_lost_total",
                "Frames that were to be counted or shown to the observer and were not, by reason.",
                &["source"],
            ),
            taps: IntGauge::new("loco_observer_taps", "Taps that are watched.").expect(VALID),
            problem: IntGauge::new("loco_observer_problem", "1 while not all frames can be seen.").expect(VALID),
            sessions: gauge(
                "loco_dplay_sessions",
                "DirectPlay sessions that are open, as seen at this node.",
                &["lan"],
            ),
            players: gauge("loco_dplay_players", "Players in open sessions, as seen at this node.", &["lan"]),
            queries: counter("loco_dplay_enum_queries_total", "Session queries that were seen.", &["lan"]),
            replies: counter("loco_dplay_enum_replies_total", "Answers to session queries that were seen.", &["lan"]),
            dplay8_queries: counter(
                "loco_dplay8_enum_queries_total",
                "DirectPlay 8 host queries that were seen.",
                &["lan"],
            ),
            netbios_hosts: gauge("loco_netbios_hosts", "Hosts with NetBIOS names, as seen at this node.", &["lan"]),
            machines: gauge("loco_lan_machines", "Cards that sent a frame, as seen at this node.", &["lan"]),
            anomalies: gauge("loco_lan_anomalies", "Kinds of things that no healthy program sends.", &["lan"]),
            duplicate_macs: gauge("loco_duplicate_mac", "MAC addresses that two cards have.", &["lan"]),
            elections: counter(
                "loco_netbios_elections_total",
                "Election frames of NetBIOS browsers that were seen.",
                &["lan"],
            ),
            player_rtt: seconds(
                "loco_player_rtt_seconds",
                "Median round trip from the instance to the player that it takes longest to, as game connections show it.",
            ),
            guest_response: seconds(
                "loco_guest_response_seconds",
                "Median time that the instance itself takes to acknowledge, the longest of its players'.",
            ),
        }
    }

    fn parts(&self) -> [&(dyn Collector + '_); 21] {
        [
            &self.tap_frames,
            &self.tap_bytes,
            &self.overlay_frames,
            &self.overlay_bytes,
            &self.refused,
            &self.events,
            &self.lost,
            &self.taps,
            &self.problem,
            &self.sessions,
            &self.players,
            &self.queries,
            &self.replies,
            &self.dplay8_queries,
            &self.netbios_hosts,
            &self.machines,
            &self.anomalies,
            &self.duplicate_macs,
            &self.elections,
            &self.player_rtt,
            &self.guest_response,
        ]
    }

    fn fill(&self, seen: &Seen) {
        let report = &seen.report;
        for (id, port) in &report.ports {
            let Directions { ingress, egress } = &port.classes;
            add(&self.tap_frames, &self.tap_bytes, id.as_str(), [("tx", ingress), ("rx", egress)]);
        }
        for (lan, Directions { ingress, egress }) in &report.tunnels {
            add(&self.overlay_frames, &self.overlay_bytes, lan.as_str(), [("rx", ingress), ("tx", egress)]);
        }
        for (id, reasons) in &report.refused {
            for (reason, count) in reasons {
                self.refused.with_label_values(&[id.as_str(), reason]).inc_by(*count);
            }
        }
        self.events.inc_by(report.events);
        for (reason, count) in &report.lost {
            self.lost.with_label_values(&[*reason]).inc_by(*count);
        }
        self.taps.set(number(report.ports.len()));
        self.problem.set(report.problem.is_some().into());
        for (lan, observed) in &seen.observed {
            self.fill_lan(lan, observed);
        }
    }

    fn fill_lan(&self, lan: &str, observed: &Observed) {
        let lan = &[lan];
        let here = |certainty: Certainty| matches!(certainty, Certainty::Announced | Certainty::Inferred);
        let sessions = observed.sessions.iter().filter(|session| here(session.certainty)).count();
        let players = observed.players.iter().filter(|player| here(player.certainty)).count();
        self.sessions.with_label_values(lan).set(number(sessions));
        self.players.with_label_values(lan).set(number(players));
        let command = |name: &str| observed.dplay_commands.get(name).copied().unwrap_or_default();
        self.queries.with_label_values(lan).inc_by(command("ENUMSESSIONS"));
        self.replies.with_label_values(lan).inc_by(command("ENUMSESSIONSREPLY"));
        self.dplay8_queries.with_label_values(lan).inc_by(observed.dplay8.queries);
        self.netbios_hosts.with_label_values(lan).set(number(observed.netbios.hosts.len()));
        self.machines.with_label_values(lan).set(number(observed.machines.len()));
        self.anomalies.with_label_values(lan).set(number(observed.anomalies.len()));
        let duplicates = observed.anomalies.iter().filter(|anomaly| anomaly.kind == "duplicate-mac");
        self.duplicate_macs.with_label_values(lan).set(number(duplicates.count()));
        self.elections.with_label_values(lan).inc_by(observed.netbios.elections);
        self.fill_lags(observed);
    }

    /// Of instances only: a stranger's address is no label.
    fn fill_lags(&self, observed: &Observed) {
        let instance = |ip: &String| {
            let mut machines = observed.machines.iter().filter(|machine| machine.ips.first() == Some(ip));
            machines.find_map(|machine| machine.instance.as_deref())
        };
        for lag in &observed.lags {
            for (metric, end, ms) in
                [(&self.player_rtt, &lag.from, lag.rtt_ms), (&self.guest_response, &lag.to, lag.guest_ms)]
            {
                if let (Some(instance), Some(ms)) = (instance(end), ms) {
                    let metric = metric.with_label_values(&[instance]);
                    metric.set(metric.get().max(ms / 1000.0));
                }
            }
        }
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn add(frames: &IntCounterVec, bytes: &IntCounterVec, who: &str, directions: [(&str, &ClassCounts); 2]) {
    for (direction, counts) in directions {
        for (class, count) in counts.seen() {
            let labels = &[who, direction, class.name()];
            frames.with_label_values(labels).inc_by(count.frames);
            bytes.with_label_values(labels).inc_by(count.bytes);
        }
    }
}

impl Collector for SeenCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.template.parts().iter().flat_map(|part| part.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let reading = Reading::new();
        let seen = self.seen.borrow().clone();
        reading.fill(&seen);
        reading.parts().iter().flat_map(|part| part.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use api::observe::{Anomaly, Lag, Machine, Netbios, Session};
    use traffic::Report;

    use super::*;

    #[test]
    fn what_is_exported_is_what_was_last_seen() {
        let registry = Registry::new();
        let (sender, seen) = watch::channel(Arc::default());
        register(&registry, seen.clone()).unwrap();
        assert!(register(&registry, seen).is_err());
        let session = |certainty| Session { certainty, ..Session::default() };
        let observed = Observed {
            sessions: vec![session(Certainty::Announced), session(Certainty::GoneByFin)],
            dplay_commands: [("ENUMSESSIONS".to_owned(), 7)].into(),
            netbios: Netbios { elections: 3, ..Netbios::default() },
            anomalies: vec![Anomaly { kind: "duplicate-mac".to_owned(), ..Anomaly::default() }],
            machines: vec![Machine {
                ips: vec!["10.98.0.1".to_owned()],
                instance: Some("i-0".to_owned()),
                ..Machine::default()
            }],
            lags: ["10.98.0.2", "10.98.0.3", "10.98.0.4"]
                .iter()
                .zip([Some(4.0), Some(20.0), None])
                .flat_map(|(other, ms)| {
                    let (us, other) = ("10.98.0.1".to_owned(), (*other).to_owned());
                    [
                        Lag { from: us.clone(), to: other.clone(), rtt_ms: ms, ..Lag::default() },
                        Lag { from: other, to: us, guest_ms: ms.map(|ms| ms / 2.0), ..Lag::default() },
                    ]
                })
                .collect(),
            ..Observed::default()
        };
        let report = Report {
            ports: [("i-0".parse().unwrap(), traffic::PortReport::default())].into(),
            lost: [("ring_full", 2)].into(),
            problem: Some("x".to_owned()),
            ..Report::default()
        };
        sender.send_replace(Arc::new(Seen::new([("party".to_owned(), observed)].into(), report)));
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for want in [
            r#"loco_dplay_sessions{lan="party"} 1"#,
            r#"loco_dplay_enum_queries_total{lan="party"} 7"#,
            r#"loco_events_lost_total{source="ring_full"} 2"#,
            r#"loco_netbios_elections_total{lan="party"} 3"#,
            r#"loco_duplicate_mac{lan="party"} 1"#,
            r#"loco_player_rtt_seconds{instance="i-0"} 0.02"#,
            r#"loco_guest_response_seconds{instance="i-0"} 0.01"#,
            "loco_observer_taps 1",
            "loco_observer_problem 1",
        ] {
            assert!(text.contains(want), "{want} is not in\n{text}");
        }
    }
}
