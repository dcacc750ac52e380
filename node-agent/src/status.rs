//! What one agent knows, put together from the directory, the fabric and the instances.
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use api::{
    agent::{AgentStatus, InstanceStatus, LanOnNode, Picture, StreamLag, Tunnel, TunnelPeer, Viewers},
    lan::{ForeignMachine, PortCounters, Reachability},
};
use directory::Directory;
use fabric::{FabricStatus, PortStatus, ReachStatus, wireguard::TunnelStatus};
use model::{InstanceId, LanName, NetworkMode, NodeName};
use stream::Tier;
use switch::SwitchStatus;
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use crate::{
    instance::Instance,
    seats::Instances,
    traffic::{Seen, seen},
};

/// A new status is published at least this often: counters and times move all the while.
const PUBLISH_EVERY: Duration = Duration::from_secs(2);
/// And at most this often, however much happens: five times a second.
const PUBLISH_GAP: Duration = Duration::from_millis(200);

/// Where the status comes from. Cheap to clone; putting one together takes microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) node: NodeName,
    pub(crate) directory: watch::Receiver<Directory>,
    pub(crate) fabric: watch::Receiver<FabricStatus>,
    /// Of the LANs that the agent itself switches.
    pub(crate) switch: watch::Receiver<SwitchStatus>,
    pub(crate) instances: watch::Receiver<Instances>,
    /// What the frames said, and how many there were.
    pub(crate) seen: watch::Receiver<Arc<Seen>>,
    /// Bumped by instances at each change worth showing.
    pub(crate) changed: watch::Receiver<u64>,
}

impl Source {
    /// The status of now.
    pub(crate) fn status(&self) -> AgentStatus {
        let fabric = self.fabric.borrow();
        let instances = self.instances.borrow();
        let seen = self.seen.borrow().clone();
        AgentStatus {
            node: self.node.to_string(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: seconds(SystemTime::now()),
            instances: instances
                .values()
                .map(|i| Arc::new(instance_status(&self.node, i, fabric.ports.get(&i.id), &seen)))
                .collect(),
            lans: fabric
                .lans
                .iter()
                .filter_map(|(name, lan)| {
                    let mode = lan.mode.or_else(|| alone(name, &instances));
                    // Of a LAN that has no part here there is nothing to say, and a thousand agents would each say it of a thousand.
                    (mode.is_some() || instances.values().any(|i| i.spec.lan == *name)).then(|| LanOnNode {
                        name: name.to_string(),
                        vni: lan.vni.get(),
                        mode: mode.map(|mode| mode.to_string()),
                        encryption: lan.encryption.map(|kind| kind.as_str().to_owned()),
                        seats: lan.seats,
                    })
                })
                .collect(),
            reachability: fabric.reachability.iter().map(|reach| reachability(&self.node, reach)).collect(),
            fabric_problems: fabric.problems.clone(),
            tunnel: fabric.tunnel.as_ref().map(tunnel),
            snapshot_problem: self.directory.borrow().problem.clone(),
            foreign: foreign(&self.node, &self.switch.borrow()),
            observed: seen.observed.clone(),
            observer: Some(seen.health()),
        }
    }

    /// The status of one instance, if it is here.
    pub(crate) fn instance(&self, id: &InstanceId) -> Option<InstanceStatus> {
        let fabric = self.fabric.borrow();
        let seen = self.seen.borrow();
        self.instances.borrow().get(id).map(|i| instance_status(&self.node, i, fabric.ports.get(id), &seen))
    }

    /// Publishes the status as JSON: when something that people watch for has changed (at most five times a second), and each 2 s.
    pub(crate) async fn publish(mut self, sender: watch::Sender<Arc<str>>, heartbeat: telemetry::Heartbeat) {
        loop {
            heartbeat.tick();
            let status = self.status();
            match serde_json::to_string(&status) {
                Ok(text) => drop(sender.send_replace(text.into())),
                Err(error) => tracing::error!(%error, "the status could not be written as JSON"),
            }
            let shown = still(status);
            let next = Instant::now() + PUBLISH_EVERY;
            time::sleep(PUBLISH_GAP).await;
            // The clock is asked as well: a change that is there already is told even when the time is over, and under a running game there
            // always is one.
            while Instant::now() < next && time::timeout_at(next, self.any_change()).await.is_ok() {
                if shown != still(self.status()) {
                    break;
                }
                // A change of counters only; not worth an event of its own, nor a busy loop.
                time::sleep(PUBLISH_GAP).await;
            }
        }
    }

    async fn any_change(&mut self) {
        // A closed channel is a part that has ended; the 2 s beat goes on without it.
        let changed = tokio::select! {
            changed = self.changed.changed() => changed,
            changed = self.fabric.changed() => changed,
            changed = self.switch.changed() => changed,
            changed = self.directory.changed() => changed,
            changed = self.instances.changed() => changed,
            changed = self.seen.changed() => changed,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// `status` without what moves all the time, to tell whether something happened.
fn still(mut status: AgentStatus) -> AgentStatus {
    status.at = 0.0;
    for peer in status.tunnel.iter_mut().flat_map(|tunnel| &mut tunnel.peers) {
        peer.handshake_age = peer.handshake_age.map(|_| 0);
    }
    status.observed.values_mut().for_each(seen::still);
    if let Some(observer) = &mut status.observer {
        observer.events_lost = 0;
    }
    for instance in &mut status.instances {
        let instance = Arc::make_mut(instance);
        instance.counters = None;
        instance.classes.clear();
        instance.pairs.clear();
        if let Some(picture) = &mut instance.picture {
            picture.changes = 0;
            picture.still_for = 0.0;
        }
    }
    for machine in &mut status.foreign {
        machine.counters = PortCounters::default();
        machine.refused.clear();
    }
    for reach in &mut status.reachability {
        *reach = Reachability { rtt_ms: None, last_seen: None, asked: 0, answered: 0, ..reach.clone() };
    }
    status
}

fn tunnel(told: &TunnelStatus) -> Tunnel {
    let peers = told.peers.iter().map(|peer| TunnelPeer {
        node: peer.node.to_string(),
        address: peer.address,
        public_key: peer.key.to_string(),
        handshake_age: peer.handshake.map(|age| age.as_secs()),
    });
    Tunnel {
        datapath: told.datapath.as_str().to_owned(),
        public_key: told.key.to_string(),
        port: told.port,
        mtu: told.mtu,
        peers: peers.collect(),
    }
}

fn instance_status(node: &NodeName, instance: &Instance, port: Option<&PortStatus>, seen: &Seen) -> InstanceStatus {
    let report = instance.report();
    let size = *instance.screen.size().borrow();
    let changes = instance.screen.generation().saturating_sub(report.picture_base);
    let picture = size.zip(report.picture_changed).map(|(size, at)| Picture {
        width: size.width,
        height: size.height,
        changes,
        still_for: at.elapsed().unwrap_or_default().as_secs_f64(),
    });
    let spec = &instance.spec;
    InstanceStatus {
        id: instance.id.to_string(),
        lan: spec.lan.to_string(),
        seat: spec.seat.0,
        node: node.to_string(),
        mac: spec.identity.mac.to_string(),
        ip: spec.identity.ip,
        host_name: spec.identity.host_name.clone(),
        state: report.state.into(),
        since: seconds(report.since),
        detail: report.detail.or_else(|| cut_off(report.qemu_pid, port).map(str::to_owned)).or(report.notice),
        link: port.and_then(|port| port.carrier),
        address_in_use: port.and_then(|port| port.address_in_use),
        counters: port.and_then(|port| port.counters).map(counters),
        picture,
        accelerator: report.accelerator,
        qemu_pid: report.qemu_pid,
        runner_pid: report.runner_pid,
        lease: instance.stream.lease().map(|session| session.to_string()),
        viewers: viewers(instance),
        stream: instance.stream.lag().map(stream_lag),
        classes: seen.classes(&instance.id),
        pairs: seen.pairs(&instance.id),
    }
}

const fn counters(c: fabric::PortCounters) -> PortCounters {
    PortCounters {
        tx_frames: c.tx_frames,
        tx_bytes: c.tx_bytes,
        rx_frames: c.rx_frames,
        rx_bytes: c.rx_bytes,
        rx_dropped: c.rx_dropped,
    }
}

pub(crate) fn foreign(node: &NodeName, switch: &SwitchStatus) -> Vec<ForeignMachine> {
    let machines = switch.lans.iter().flat_map(|(name, lan)| lan.foreign.iter().map(move |machine| (name, machine)));
    machines
        .map(|(lan, machine)| ForeignMachine {
            lan: lan.to_string(),
            node: node.to_string(),
            mac: machine.card.map(|card| card.to_string()),
            ip: machine.address_in_use,
            remote: machine.remote.clone(),
            since: seconds(machine.since),
            counters: counters(machine.counters),
            refused: machine.refused.iter().map(|(refusal, count)| (refusal.name().to_owned(), *count)).collect(),
        })
        .collect()
}

/// The mode of a LAN that nothing of this node joins: that of its guests, if a QEMU says that its card is on a network of its own.
fn alone(lan: &LanName, instances: &Instances) -> Option<NetworkMode> {
    let is_alone =
        |instance: &Arc<Instance>| instance.spec.lan == *lan && instance.report().netdev.as_deref() == Some("user");
    instances.values().any(is_alone).then_some(NetworkMode::User)
}

/// A guest whose picture is fine and whose card leads nowhere: its tap was removed and made anew beneath it, or its LAN got another
/// mode.
fn cut_off(qemu_pid: Option<u32>, port: Option<&PortStatus>) -> Option<&'static str> {
    let cut = qemu_pid.is_some() && port.is_some_and(|port| port.carrier == Some(false));
    cut.then_some("QEMU runs but is not at this seat's port, so the guest is cut off from its LAN; restart its runner")
}

fn stream_lag(lag: stream::StreamLag) -> StreamLag {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    StreamLag {
        rtt_ms: ms(lag.round_trip),
        error_ms: ms(lag.error),
        making_ms: lag.making.map(ms),
        samples: lag.samples,
    }
}

fn viewers(instance: &Instance) -> Viewers {
    let count = |tier| u32::try_from(instance.stream.watching(tier)).unwrap_or(u32::MAX);
    Viewers { thumb: count(Tier::Thumb), full: count(Tier::Full) }
}

fn reachability(node: &NodeName, reach: &ReachStatus) -> Reachability {
    Reachability {
        from: node.to_string(),
        to: reach.instance.to_string(),
        lan: reach.lan.to_string(),
        reachable: reach.reachable,
        rtt_ms: reach.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
        last_seen: reach.last_seen.map(seconds),
        asked: reach.asked,
        answered: reach.answered,
    }
}

/// Seconds since the epoch. A clock before 1970 reads as 0.
fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn status(tx_frames: u64, problem: &str) -> AgentStatus {
        let counters = PortCounters { tx_frames, ..PortCounters::default() };
        AgentStatus {
            node: "a".into(),
            pid: 1,
            version: "0".into(),
            at: 5.0,
            instances: vec![Arc::new(InstanceStatus {
                id: "i-0".into(),
                lan: "party".into(),
                seat: 0,
                node: "a".into(),
                mac: "02:4c:00:10:68:01".into(),
                ip: std::net::Ipv4Addr::new(10, 98, 0, 1),
                host_name: "LOCO1068-1".into(),
                state: api::agent::State::Live,
                since: 1.0,
                detail: None,
                link: Some(true),
                address_in_use: None,
                counters: Some(counters),
                picture: Some(Picture { width: 640, height: 480, changes: tx_frames, still_for: 0.1 }),
                accelerator: None,
                qemu_pid: None,
                runner_pid: None,
                lease: None,
                viewers: Viewers::default(),
                stream: None,
                classes: BTreeMap::new(),
                pairs: Vec::new(),
            })],
            lans: Vec::new(),
            reachability: Vec::new(),
            fabric_problems: vec![problem.into()],
            tunnel: None,
            snapshot_problem: None,
            foreign: Vec::new(),
            observed: BTreeMap::new(),
            observer: None,
        }
    }

    #[test]
    fn counters_are_no_news_and_everything_else_is() {
        assert_eq!(still(status(1, "x")), still(status(2, "x")));
        assert_ne!(still(status(1, "x")), still(status(1, "y")));
        let mut resized = status(1, "x");
        Arc::make_mut(&mut resized.instances[0]).picture.as_mut().unwrap().width = 800;
        assert_ne!(still(resized), still(status(1, "x")));
    }

    #[tokio::test]
    async fn counters_that_never_rest_do_not_hold_the_beat_back() {
        let (directory, fabric, switch) =
            (watch::Sender::default(), watch::Sender::default(), watch::Sender::default());
        let (instances, seen) = (watch::Sender::default(), watch::Sender::new(Arc::new(Seen::default())));
        let changed = watch::Sender::new(0);
        let source = Source {
            node: "node-a".parse().unwrap(),
            directory: directory.subscribe(),
            fabric: fabric.subscribe(),
            switch: switch.subscribe(),
            instances: instances.subscribe(),
            seen: seen.subscribe(),
            changed: changed.subscribe(),
        };
        let (published, mut events) = watch::channel(Arc::from(""));
        let heartbeat = telemetry::Health::new().heartbeat("status", PUBLISH_EVERY);
        tokio::spawn(source.publish(published, heartbeat));
        // A running game: each look at it has other counters, and nothing that is news.
        tokio::spawn(async move {
            loop {
                seen.send_modify(|_| ());
                time::sleep(PUBLISH_GAP / 10).await;
            }
        });
        for _ in 0..3 {
            time::timeout(PUBLISH_EVERY * 5, events.changed()).await.expect("a beat").unwrap();
        }
    }

    #[test]
    fn a_guest_without_its_tap_is_told_to_be_restarted() {
        let port = |carrier| PortStatus {
            lan: "party".parse().unwrap(),
            seat: model::Seat(0),
            mac: model::MacAddr([2, 0, 0, 0, 0, 1]),
            tap: "t".into(),
            exists: true,
            carrier,
            counters: None,
            address_in_use: None,
            guard: model::Rules::default(),
        };
        assert!(cut_off(Some(7), Some(&port(Some(false)))).is_some_and(|text| text.contains("restart its runner")));
        assert_eq!(cut_off(Some(7), Some(&port(Some(true)))), None);
        assert_eq!(cut_off(Some(7), Some(&port(None))), None);
        assert_eq!(cut_off(None, Some(&port(Some(false)))), None);
    }
}
