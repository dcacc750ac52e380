//! The node's eyes: what `crates/traffic` sees at the taps goes into one model per LAN, and into counts per instance.
//!
//! ```text
//! fabric status ─> devices wanted ─> traffic (eBPF) ─┬─ events ─> observe::Observer of the LAN ─> observed ─┐
//! directory ─────> names of cards ───────────────────┘  counts ──────────────────────────────────────────┼─> Seen
//! instances ─────> when each was switched on                                                               ┘
//! ```
//! **Invariants.** What cannot be seen costs nothing else: the agent runs on, and `ObserverHealth` says why and what to do.
//! A model is fed each frame once: as it enters this node's part of the LAN. Nothing of another node is known here.
mod memory;
mod metrics;
pub(crate) mod seen;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use directory::Directory;
use fabric::FabricStatus;
use model::{Identity, InstanceId, LanName, MacAddr, NetworkMode, Snapshot};
use observe::{Frame, Limits, Observer, PortId};
use telemetry::Heartbeat;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use traffic::{Event, Point, Report, Traffic, TrafficConfig, Wanted};

pub(crate) use metrics::register;
pub(crate) use seen::Seen;

use self::memory::Memories;
use crate::{config, seats::Instances};

/// What was seen is told this often, if it changed.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Events that are taken at a time.
const EVENTS_AT_ONCE: usize = 1024;
/// Machines that this agent remembers the start of; a LAN has at most some hundred seats on a node.
const POWERED_MAX: usize = 4096;

/// Everything that the task needs.
#[derive(Debug)]
pub(crate) struct Watching {
    /// `None`: this agent has no devices in the kernel.
    pub(crate) netns: Option<PathBuf>,
    /// Of the agent: what is pinned, and what the next agent is to know, is below it.
    pub(crate) run_dir: PathBuf,
    pub(crate) directory: watch::Receiver<Directory>,
    pub(crate) fabric: watch::Receiver<FabricStatus>,
    pub(crate) instances: watch::Receiver<Instances>,
    /// What the agent's own switch moves.
    pub(crate) switched: Switched,
    /// Where programs that were put back are counted.
    pub(crate) repairs: Option<fabric::Repairs>,
    /// Becomes true once ports are watched, or it is known that they cannot be.
    pub(crate) watched: watch::Sender<bool>,
    pub(crate) seen: watch::Sender<Arc<Seen>>,
    pub(crate) heartbeat: Heartbeat,
    /// Runners are in pods: a process id of theirs is a number in their own PID namespace, and means somebody else here.
    pub(crate) pods: bool,
}

/// What was seen at the ports of the agent's own switch.
#[derive(Debug)]
pub(crate) struct Switched {
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) report: watch::Receiver<Report>,
}

/// Watches until the agent ends. Returns only when a part that it needs has ended, and says which.
pub(crate) async fn watch(watching: Watching) -> anyhow::Error {
    let (wanted, wishes) = watch::channel(None);
    let started = match watching.netns.clone() {
        Some(netns) => {
            let config = TrafficConfig { netns, bpffs: config::bpffs(&watching.run_dir), attach: None };
            Some(Traffic::start(config, wishes).await)
        }
        None => None,
    };
    let (taps, problem) = match started {
        Some(Ok((traffic, events))) => (Some(Taps { report: traffic.report(), _traffic: traffic, events }), None),
        Some(Err(error)) => {
            let problem = error.to_string();
            tracing::warn!(problem, "this node sees nothing of its taps");
            (None, Some(problem))
        }
        None => (None, None),
    };
    watching.watched.send_replace(true);
    Task::new(watching, wanted).run(taps, problem).await
}

/// What is seen at the taps. Dropping it ends the watching.
struct Taps {
    _traffic: Traffic,
    events: mpsc::Receiver<Event>,
    report: watch::Receiver<Report>,
}

impl Taps {
    /// The next events at the taps; never where there are none to watch.
    async fn receive(taps: &mut Option<Self>, into: &mut Vec<Event>) -> usize {
        match taps {
            Some(taps) => taps.events.recv_many(into, EVENTS_AT_ONCE).await,
            None => std::future::pending().await,
        }
    }
}

/// One report of taps and switch.
fn both(taps: Report, switch: &Report) -> Report {
    let mut all = taps;
    all.ports.extend(switch.ports.iter().map(|(id, port)| (id.clone(), port.clone())));
    all.tunnels.extend(switch.tunnels.iter().map(|(lan, counts)| (lan.clone(), *counts)));
    for (reason, count) in &switch.lost {
        *all.lost.entry(reason).or_default() += count;
    }
    all.events += switch.events;
    all
}

struct Lan {
    observer: Observer,
    edge: MacAddr,
    /// Seats of this node.
    ports: BTreeMap<InstanceId, PortId>,
    /// Instances of all nodes, as their cards were named to the model.
    names: BTreeMap<MacAddr, InstanceId>,
}

struct Task {
    watching: Watching,
    wanted: watch::Sender<Option<Wanted>>,
    lans: BTreeMap<LanName, Lan>,
    /// LAN of each instance of this node.
    homes: BTreeMap<InstanceId, LanName>,
    /// QEMU of each instance whose start was told to the model: a pod's next one may have the same number. A guest that goes to another
    /// LAN is not switched on there.
    powered: BTreeMap<InstanceId, (u32, Option<SystemTime>)>,
    /// Programs put back, as far as they are counted.
    mended: u64,
    memories: Memories,
}

impl Task {
    fn new(watching: Watching, wanted: watch::Sender<Option<Wanted>>) -> Self {
        let memories = Memories::at(config::games(&watching.run_dir));
        let (lans, homes, powered) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { watching, wanted, lans, homes, powered, mended: 0, memories }
    }

    /// `problem`: why there is nothing to be seen at the taps.
    async fn run(mut self, mut taps: Option<Taps>, problem: Option<String>) -> anyhow::Error {
        let mut tell = interval(TELL_EVERY);
        tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut taken, mut switched) = (Vec::with_capacity(EVENTS_AT_ONCE), Vec::with_capacity(EVENTS_AT_ONCE));
        self.follow();
        loop {
            tokio::select! {
                biased;
                _ = tell.tick() => {
                    self.watching.heartbeat.tick();
                    self.follow();
                    self.switch_on();
                    let of_taps = taps.as_ref().map(|taps| taps.report.borrow().clone());
                    let of_taps = of_taps.unwrap_or_else(|| Report { problem: problem.clone(), ..Report::default() });
                    let report = both(of_taps, &self.watching.switched.report.borrow());
                    if let Some(repairs) = &self.watching.repairs {
                        repairs.programs(report.repairs.saturating_sub(self.mended));
                        self.mended = report.repairs;
                    }
                    self.tell(&report);
                }
                changed = self.watching.fabric.changed() => match changed {
                    Ok(()) => self.follow(),
                    Err(_) => return anyhow::anyhow!("the fabric's thread has ended"),
                },
                count = Taps::receive(&mut taps, &mut taken) => {
                    if count == 0 {
                        return anyhow::anyhow!("the observer's thread has ended");
                    }
                    taken.drain(..).for_each(|event| self.event(&event));
                }
                count = self.watching.switched.events.recv_many(&mut switched, EVENTS_AT_ONCE) => {
                    if count == 0 {
                        return anyhow::anyhow!("the switch's thread has ended");
                    }
                    switched.drain(..).for_each(|event| self.event(&event));
                }
            }
        }
    }

    /// Takes over what fabric and directory say: which devices there are, whose cards, on which LAN.
    fn follow(&mut self) {
        let fabric = self.watching.fabric.borrow_and_update().clone();
        // Before its first pass the fabric knows no ports, which does not mean that there are none.
        if fabric.passes == 0 {
            return;
        }
        let wanted = wanted(&fabric);
        self.wanted.send_if_modified(|old| {
            let differs = old.as_ref() != Some(&wanted);
            *old = Some(wanted);
            differs
        });
        self.homes.retain(|id, _| fabric.ports.contains_key(id));
        for (id, port) in &fabric.ports {
            // Until it is plugged in there, what it says is heard where it was.
            if port.exists || !self.homes.contains_key(id) {
                self.homes.insert(id.clone(), port.lan.clone());
            }
        }
        let directory = self.watching.directory.borrow().clone();
        let snapshot = &directory.snapshot;
        self.lans.retain(|name, _| snapshot.lan(name).is_some());
        for (name, ours) in &mut self.lans {
            for (mac, id) in moved_away(&ours.names, name, snapshot) {
                if self.homes.get(&id) == Some(name) {
                    continue;
                }
                // Said again each time: frames of before may have been under way.
                ours.observer.moved_away(mac, now());
                ours.ports.remove(&id);
            }
        }
        for lan in snapshot.lans().filter(|lan| fabric.ports.values().any(|port| port.lan == *lan.name())) {
            let ours = self.lans.entry(lan.name().clone()).or_insert_with(|| {
                let mut observer = Observer::new(Limits::default());
                if let Some(memory) = self.memories.of(lan.name().as_str()) {
                    observer.recall(&memory, now());
                }
                Lan { observer, edge: lan.edge_mac(), ports: BTreeMap::new(), names: BTreeMap::new() }
            });
            for placed in snapshot.instances().filter(|placed| placed.lan == *lan.name()) {
                let Some(identity) = snapshot.identity(placed) else { continue };
                if ours.names.get(&identity.mac) != Some(&placed.id) {
                    ours.observer.name(identity.mac, placed.id.as_str());
                    ours.names.insert(identity.mac, placed.id.clone());
                }
                let port = PortId(placed.seat.0.into());
                if fabric.ports.contains_key(&placed.id) && ours.ports.get(&placed.id) != Some(&port) {
                    ours.observer.name_port(port, placed.id.as_str());
                    ours.ports.insert(placed.id.clone(), port);
                }
            }
        }
    }

    /// Tells the models of machines that were switched on since the last time.
    fn switch_on(&mut self) {
        let instances = self.watching.instances.borrow().clone();
        self.powered.retain(|id, _| instances.contains_key(id));
        for (id, instance) in instances.iter() {
            let report = instance.report();
            let Some(pid) = report.qemu_pid else { continue };
            if self.powered.get(id) == Some(&(pid, report.qemu_since)) || self.powered.len() >= POWERED_MAX {
                continue;
            }
            let Some(lan) = self.lans.get_mut(&instance.spec.lan) else { continue };
            // An agent that has just started meets machines that have long been running.
            let said = || report.qemu_since?.duration_since(UNIX_EPOCH).ok();
            if let Some(at) = if self.watching.pods { said() } else { started(pid) } {
                lan.observer.power(instance.spec.identity.mac, at);
            }
            self.powered.insert(id.clone(), (pid, report.qemu_since));
        }
    }

    fn event(&mut self, event: &Event) {
        let (lan, point) = match &event.point {
            Point::FromGuest(id) | Point::ToGuest(id) => {
                let Some(lan) = self.homes.get(&**id).and_then(|name| self.lans.get_mut(name)) else { return };
                let Some(port) = lan.ports.get(&**id).copied() else { return };
                let point = match &event.point {
                    Point::FromGuest(_) => observe::Point::FromGuest(port),
                    // The edge speaks to one guest at its tap: nowhere else does that frame enter the LAN.
                    _ if event.bytes.get(6..12) == Some(&lan.edge.0) => observe::Point::Edge,
                    _ => observe::Point::ToGuest(port),
                };
                (lan, point)
            }
            Point::Overlay(name) => {
                let Some(lan) = self.lans.get_mut(&**name) else { return };
                (lan, observe::Point::Overlay)
            }
            Point::Relay(name) => {
                let Some(lan) = self.lans.get_mut(&**name) else { return };
                (lan, observe::Point::Relay)
            }
        };
        lan.observer.frame(&Frame { at: event.at, point, bytes: &event.bytes, wire_len: event.wire_len });
    }

    fn tell(&mut self, report: &Report) {
        let now = now();
        let observed = self.lans.iter_mut().map(|(name, lan)| {
            lan.observer.tick(now);
            (name.to_string(), lan.observer.observed())
        });
        let seen = Seen::new(observed.collect(), report.clone());
        self.watching.seen.send_if_modified(|old| {
            let differs = **old != seen;
            *old = Arc::new(seen);
            differs
        });
        self.remember();
    }

    /// For the agent after this one: the games that guests of this node are in.
    fn remember(&mut self) {
        let directory = self.watching.directory.borrow().clone();
        let snapshot = &directory.snapshot;
        let games = self.lans.iter().map(|(name, lan)| {
            let here = self.homes.iter().filter(|(_, home)| *home == name);
            let ours: Vec<Identity> = here.filter_map(|(id, _)| snapshot.identity(snapshot.instance(id)?)).collect();
            let is_ours = |card, address| ours.iter().any(|it| Some(it.mac) == card || Some(it.ip) == address);
            (name.to_string(), lan.observer.memory(is_ours))
        });
        self.memories.keep(games.collect());
    }
}

impl Drop for Task {
    /// What was seen since the last second.
    fn drop(&mut self) {
        self.remember();
    }
}

/// The devices of this node that are to be watched.
fn wanted(fabric: &FabricStatus) -> Wanted {
    // What is at the agent's own switch is seen, and guarded, there.
    let taps = || fabric.ports.iter().filter(|(_, port)| !port.tap.is_empty());
    let lans = || fabric.lans.iter().filter(|(_, lan)| lan.mode != Some(NetworkMode::Socket));
    Wanted {
        ports: taps().map(|(id, port)| (id.clone(), port.tap.clone())).collect(),
        turned: taps().filter(|(_, port)| fabric::is_macvtap(&port.tap)).map(|(id, _)| id.clone()).collect(),
        tunnels: lans().map(|(name, lan)| (name.clone(), fabric::tunnel_name(lan.vni))).collect(),
        // Where no relay runs there is no such device, and nothing to watch.
        relays: lans().map(|(name, lan)| (name.clone(), fabric::station_name(lan.vni))).collect(),
        guards: taps().map(|(id, port)| (id.clone(), (port.mac, port.guard))).collect(),
        answers: lans().map(|(name, lan)| (name.clone(), lan.bridge_mac)).collect(),
    }
}

/// Since the epoch.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Cards that were named to the model of `lan` and are now in another LAN. One that the directory does not list is not said to be gone: it
/// may be listed again.
fn moved_away(names: &BTreeMap<MacAddr, InstanceId>, lan: &LanName, snapshot: &Snapshot) -> Vec<(MacAddr, InstanceId)> {
    let is_elsewhere = |(mac, id): &(&MacAddr, &InstanceId)| {
        let placed = snapshot.instance(id).filter(|placed| placed.lan != *lan);
        placed.and_then(|placed| snapshot.identity(placed)).is_some_and(|identity| identity.mac == **mac)
    };
    names.iter().filter(is_elsewhere).map(|(mac, id)| (*mac, id.clone())).collect()
}

/// When a process of this machine was started, since the epoch (`proc_pid_stat(5)`, field 22).
fn started(pid: u32) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let since_boot = fs::read_to_string("/proc/uptime").ok()?;
    let since_boot: f64 = since_boot.split(' ').next()?.parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    let after_boot = start_ticks(&stat)? / f64::from(i32::try_from(ticks).ok()?);
    now.checked_sub(Duration::try_from_secs_f64(since_boot - after_boot).ok()?)
}

fn start_ticks(stat: &str) -> Option<f64> {
    // The second field is a name in brackets, which may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use testkit::directory;

    use super::*;

    #[test]
    fn this_process_started_a_moment_ago() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let ago = now.checked_sub(started(std::process::id()).unwrap()).unwrap_or_default();
        assert!(ago < Duration::from_mins(30), "{ago:?}");
        assert_eq!(started(u32::MAX), None);
    }

    #[test]
    fn a_name_with_brackets_is_no_field() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(start_ticks(stat), Some(4711.0));
    }

    #[test]
    fn only_who_is_in_another_lan_now_has_moved_away() {
        let lan = |name, vni| directory::lan(name, vni, NetworkMode::Vxlan, "10.98.0.0/24");
        let node = directory::node("a", std::net::Ipv4Addr::new(10, 99, 0, 11));
        let placed = |id, seat| directory::guest(id, "party", seat, "a");
        let (party, other) = ("party".parse().unwrap(), "other".parse().unwrap());
        let mut snapshot =
            Snapshot::new([lan("party", 1), lan("other", 2)], [node], [placed("i-0", 0), placed("i-1", 1)]).unwrap();
        let cards = |snapshot: &Snapshot| -> BTreeMap<MacAddr, InstanceId> {
            snapshot.instances().map(|it| (snapshot.identity(it).unwrap().mac, it.id.clone())).collect()
        };
        let mut names = cards(&snapshot);
        // One that the directory does not list at the moment.
        names.insert(MacAddr([2, 9, 9, 9, 9, 9]), "i-2".parse().unwrap());
        assert_eq!(moved_away(&names, &party, &snapshot), []);
        snapshot.move_to(&"i-0".parse().unwrap(), &other, None).unwrap();
        assert_eq!(moved_away(&names, &party, &snapshot), [(MacAddr([2, 0x4c, 0, 0, 1, 1]), "i-0".parse().unwrap())]);
        assert_eq!(
            moved_away(&cards(&snapshot), &other, &snapshot),
            [(MacAddr([2, 0x4c, 0, 0, 1, 2]), "i-1".parse().unwrap())]
        );
    }

    #[test]
    fn taps_and_tunnels_are_wanted_by_their_names_in_the_kernel() {
        let vni = model::Vni::new(4200).unwrap();
        let port = fabric::PortStatus {
            lan: "party".parse().unwrap(),
            seat: model::Seat(3),
            mac: MacAddr::ZERO,
            guard: model::Rules::default(),
            tap: "locot001068-3".into(),
            exists: true,
            carrier: None,
            counters: None,
            address_in_use: None,
        };
        let lan = fabric::LanStatus { vni, mode: None, encryption: None, seats: 9, bridge_mac: MacAddr([6; 6]) };
        let status = FabricStatus {
            ports: [("i-3".parse().unwrap(), port)].into(),
            lans: [("party".parse().unwrap(), lan)].into(),
            ..FabricStatus::default()
        };
        let wanted = wanted(&status);
        assert_eq!(wanted.ports.values().collect::<Vec<_>>(), ["locot001068-3"]);
        assert_eq!(wanted.tunnels.values().collect::<Vec<_>>(), ["locovx001068"]);
        assert_eq!(wanted.relays.values().collect::<Vec<_>>(), ["locoix001068"]);
    }
}
