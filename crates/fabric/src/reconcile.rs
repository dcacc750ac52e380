//! The fabric's thread: one loop that looks at the kernel, computes what to change, changes it, and says how it is.
//!
//! ```text
//!   set_spec ─┐
//!   news from the kernel (settled for 20 ms) ─┤
//!   tap asked for and missing ─┤── pass: observe -> plan -> apply -> observe if changed -> follow -> publish
//!   another node went silent, or answered ─┤
//!   30 s, or 1 s after a problem ─┘
//!   1 s ── observe -> not as desired? a pass; publish (counters, carriers, books)
//! ```
use std::{fs::File, path::PathBuf, sync::Arc, time::Duration};

use model::{InstanceId, LanName, NetworkMode, Vni};
use tokio::{
    runtime,
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use crate::{
    Encryption, FabricConfig, FabricError, FabricSpec, FabricStatus, LanSpec, LanStatus, OpenPort, PortStatus, Repairs,
    UnderlayStatus,
    edge::Edge,
    fabric::{OpenTap, Whose, Wish},
    kernel::{self, Kernel, Sought, io_error},
    macvtap::{self, MacvtapError},
    netns,
    observed::{Link, LinkKind, Observed, OurName, Submode, station_name},
    peers::{self, Peers},
    plan::{Vtep, mended, plan},
    spec::Away,
    tap::{self, TapError},
    wireguard::{self, Wireguard},
};

/// Looks again although nobody said anything.
const RESYNC: Duration = Duration::from_secs(30);
/// The same while something is wrong.
const RETRY: Duration = Duration::from_secs(1);
/// News come in bursts, also from our own writes: one pass for a burst.
const SETTLE: Duration = Duration::from_millis(20);
/// Counters and carriers are read this often; what the kernel sends no news of, such as sysctls and mounts, is looked at as well.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until the fabric's handle is dropped. Changes nothing at its end: frames flow on.
pub(crate) fn run(
    config: &FabricConfig,
    requests: mpsc::Receiver<OpenTap>,
    wishes: watch::Receiver<Wish>,
    status: &watch::Sender<FabricStatus>,
    repairs: Repairs,
    ready: oneshot::Sender<Result<(), FabricError>>,
) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(FabricError::SpawnThread(error)))),
    };
    runtime.block_on(async {
        match Reconciler::open(config, status, repairs) {
            Ok(reconciler) => {
                drop(ready.send(Ok(())));
                reconciler.live(requests, wishes).await;
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    });
}

struct Reconciler<'a> {
    kernel: Kernel,
    netns: PathBuf,
    /// The namespace itself, wherever it is mounted.
    own: File,
    wireguard: Option<Wireguard>,
    vtep: Vtep,
    /// As the agent was told; `None`: the card with the underlay's address.
    macvlan_parent: Option<String>,
    edge: Edge,
    peers: Peers,
    repairs: Repairs,
    /// What the last pass arrived at, if it did: what differs from it later was damaged. `None` before the first.
    settled: Option<(Arc<FabricSpec>, Away)>,
    underlay: Option<UnderlayStatus>,
    news: Arc<Notify>,
    status: &'a watch::Sender<FabricStatus>,
    spec: Option<Arc<FabricSpec>>,
    spec_seen: u64,
    passes: u64,
    /// Of the last pass.
    problems: Vec<String>,
    /// The kernel as it was last read. A read that fails says nothing about the links, so what was seen stays said.
    seen: Observed,
}

impl<'a> Reconciler<'a> {
    /// Leaves the calling thread inside the fabric's namespace.
    fn open(
        config: &FabricConfig,
        status: &'a watch::Sender<FabricStatus>,
        repairs: Repairs,
    ) -> Result<Self, FabricError> {
        let made = netns::ensure(&config.netns)?;
        let news = Arc::new(Notify::new());
        let node = match &config.underlay_netns {
            Some(path) => netns::enter(path)?,
            None => netns::here().map_err(FabricError::OpenNetlink)?,
        };
        let asked_from = kernel::connect()?;
        let open = |namespace: &File| namespace.try_clone().map_err(FabricError::OpenNetlink);
        let wireguard = if let Some(wanted) = config.encryption.clone() {
            let node = (open(&node)?, asked_from.clone());
            Some(Wireguard::open(wanted, &config.netns, config.underlay_ip, node, Arc::clone(&news))?)
        } else {
            // Of an earlier agent that encrypted; its tunnels are made anew on the node.
            if let Err(problem) = wireguard::remove_device(&wireguard::path(&config.netns)) {
                tracing::warn!(problem, "the tunnel of an earlier agent stays");
            }
            None
        };
        let home = match &wireguard {
            Some(wireguard) => Some((open(wireguard.namespace())?, wireguard.handle().clone())),
            None => None,
        };
        let kernel = Kernel::open(&config.netns, (node, asked_from), home, config.vxlan_port)?;
        let own = netns::here().map_err(FabricError::OpenNetlink)?;
        tracing::info!(netns = %config.netns.display(), made, "fabric namespace is ours");
        Kernel::watch(Arc::clone(&news))?;
        Ok(Self {
            kernel,
            netns: config.netns.clone(),
            own,
            wireguard,
            vtep: Vtep { local: config.underlay_ip, port: config.vxlan_port },
            macvlan_parent: config.macvlan_parent.clone(),
            edge: Edge::default(),
            peers: Peers::new(Arc::clone(&news)),
            repairs,
            settled: None,
            underlay: None,
            news,
            status,
            spec: None,
            spec_seen: 0,
            passes: 0,
            problems: Vec::new(),
            seen: Observed::default(),
        })
    }

    async fn live(mut self, mut requests: mpsc::Receiver<OpenTap>, mut wishes: watch::Receiver<Wish>) {
        let news = Arc::clone(&self.news);
        let mut glance = interval(STATUS_INTERVAL);
        glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_pass = Instant::now() + RESYNC;
        loop {
            let reason = tokio::select! {
                request = requests.recv() => {
                    let Some(OpenTap { whose, reply }) = request else { return };
                    self.take_wish(&mut wishes);
                    // The asker may have gone; then the fd closes and the tap is free again.
                    drop(reply.send(match whose {
                        Whose::Guest(instance) => self.open_tap(&instance).await,
                        Whose::Station(lan) => self.open_station(&lan).await,
                    }));
                    continue;
                }
                // The sender is dropped after the requests' sender, which ends this loop.
                Ok(()) = wishes.changed() => "the directory changed",
                () = news.notified() => {
                    sleep(SETTLE).await;
                    "the kernel reported a change, or another node went or came"
                }
                () = sleep_until(next_pass) => "it was time to look again",
                _ = glance.tick() => {
                    if self.glance().await {
                        continue;
                    }
                    "something was found altered"
                }
            };
            self.take_wish(&mut wishes);
            self.pass(reason).await;
            next_pass = Instant::now() + if self.problems.is_empty() { RESYNC } else { RETRY };
        }
    }

    fn take_wish(&mut self, wishes: &mut watch::Receiver<Wish>) {
        let (number, spec) = wishes.borrow_and_update().clone();
        self.spec_seen = number;
        self.spec = spec;
    }

    /// Observe, plan, apply. A failed step is a problem, and the rest is still done.
    async fn pass(&mut self, reason: &'static str) {
        let Some(spec) = self.spec.clone() else { return };
        self.passes += 1;
        let mut problems = self.keep_mounted();
        problems.extend(self.settle_sysctls());
        problems.extend(self.look_at_underlay().await);
        problems.extend(self.keep_tunnel(&spec).await);
        let mut observed = match self.look().await {
            Ok(observed) => observed,
            Err(error) => {
                problems.push(format!(
                    "could not read the links of the fabric: {}; the agent needs CAP_NET_ADMIN",
                    io_error(&error)
                ));
                return self.tell(problems);
            }
        };
        let away = self.peers.away();
        let plan = plan(&spec, self.vtep, &observed, &away);
        problems.extend(plan.problems);
        let mut failures = Vec::new();
        if !plan.steps.is_empty() {
            tracing::info!(reason, steps = plan.steps.len(), "changing the fabric");
            let mut done = Vec::new();
            for step in plan.steps {
                tracing::debug!(?step, "step");
                match self.kernel.perform(&step).await {
                    Ok(()) => done.push(step),
                    Err(problem) => failures.push(problem),
                }
            }
            // The same was arrived at before, so somebody else has altered it since.
            if self.settled.as_ref().is_some_and(|(known, gone)| **known == *spec && *gone == away) {
                for object in mended(&done) {
                    tracing::warn!(object, "somebody altered or removed a part of the fabric; it was put right");
                    self.repairs.count(object, 1);
                }
            }
            if let Ok(after) = self.look().await {
                observed = after;
            }
        }
        self.settled = failures.is_empty().then(|| (Arc::clone(&spec), away));
        problems.extend(failures);
        problems.extend(self.peers.follow(&spec, &observed));
        problems.extend(peers::full_frame_problems(&self.peers.status(&spec)));
        problems.extend(self.edge.follow(&spec, &observed));
        self.seen = observed;
        self.tell(problems);
    }

    /// The links, and the node's card where guests are put on it.
    async fn look(&self) -> Result<Observed, rtnetlink::Error> {
        let mut observed = self.kernel.observe().await?;
        let over_card = |lan: &LanSpec| lan.mode == NetworkMode::Macvlan && !lan.ports.is_empty();
        if self.spec.as_ref().is_some_and(|spec| spec.lans.values().any(over_card)) {
            let sought = Sought { name: self.macvlan_parent.as_deref(), local: self.vtep.local };
            observed.parent = self.kernel.parent(sought).await?;
        }
        Ok(observed)
    }

    /// The namespace must outlive this process: its mount is looked at like a link. Returns the problem.
    fn keep_mounted(&self) -> Vec<String> {
        if netns::is_at(&self.netns, &self.own) {
            return Vec::new();
        }
        match netns::mount_again(&self.netns, &self.own) {
            Ok(()) => {
                self.count_mount();
                Vec::new()
            }
            Err(problem) => vec![problem],
        }
    }

    fn count_mount(&self) {
        tracing::warn!(netns = %self.netns.display(), "somebody unmounted a namespace of the fabric; it was mounted again");
        self.repairs.count("namespace", 1);
        self.kernel.count_write();
    }

    /// The encrypted underlay, where there is to be one. Returns the problems.
    async fn keep_tunnel(&mut self, spec: &FabricSpec) -> Vec<String> {
        let Some(wireguard) = &mut self.wireguard else { return Vec::new() };
        let done = wireguard.pass(spec, self.underlay.as_ref().map(|link| link.mtu)).await;
        (0..done.writes).for_each(|_| self.kernel.count_write());
        if done.mended {
            tracing::warn!("somebody altered or removed a part of the encrypted tunnel; it was put right");
            self.repairs.count("wireguard", 1);
        }
        if done.mounted {
            self.count_mount();
        }
        done.problems
    }

    fn settle_sysctls(&self) -> Vec<String> {
        let (writes, problems) = netns::settle_sysctls();
        (0..writes).for_each(|_| self.kernel.count_write());
        if self.settled.is_some() && problems.is_empty() {
            self.repairs.count("sysctl", writes);
        }
        problems
    }

    /// Returns the problem. A read that fails says nothing about the address.
    async fn look_at_underlay(&mut self) -> Option<String> {
        if let Ok(underlay) = self.kernel.underlay(self.vtep.local).await {
            self.underlay = underlay;
        }
        self.underlay.is_none().then(|| {
            format!(
                "no link of this node has the address {}, so the other nodes cannot be reached; give it back, or start the agent with the node's new one",
                self.vtep.local
            )
        })
    }

    /// Refreshes the status without changing anything. `false`: something is not as it was left, and a pass is due.
    async fn glance(&mut self) -> bool {
        let Some(spec) = self.spec.clone() else { return true };
        let Ok(observed) = self.look().await else { return true };
        self.seen = observed;
        let problem = self.look_at_underlay().await;
        let tunnel_stands = match &mut self.wireguard {
            Some(wireguard) => wireguard.glance(&spec, self.underlay.as_ref().map(|link| link.mtu)).await,
            None => true,
        };
        self.publish();
        // With a problem there is a pass each second anyway.
        !self.problems.is_empty()
            || problem.is_none()
                && tunnel_stands
                && netns::is_at(&self.netns, &self.own)
                && netns::is_settled()
                && peers::full_frame_problems(&self.peers.status(&spec)).next().is_none()
                && plan(&spec, self.vtep, &self.seen, &self.peers.away()).steps.is_empty()
    }

    fn tell(&mut self, mut problems: Vec<String>) {
        problems.dedup();
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            tracing::warn!(problem, "the fabric is not as desired");
        }
        self.problems = problems;
        self.publish();
    }

    fn publish(&self) {
        let Some(spec) = &self.spec else { return };
        let observed = &self.seen;
        let books = self.edge.books().lock();
        let mut status = FabricStatus {
            problems: self.problems.clone(),
            passes: self.passes,
            netlink_writes: self.kernel.writes(),
            spec_seen: self.spec_seen,
            ..FabricStatus::default()
        };
        for lan in spec.lans.values() {
            let mode = mode(lan.vni, observed);
            let encryption = mode.and_then(|_| self.encryption(lan.vni));
            let state = LanStatus { vni: lan.vni, mode, encryption, seats: lan.seats, bridge_mac: lan.bridge_mac };
            status.lans.insert(lan.name.clone(), state);
            for (seat, port) in &lan.ports {
                let name = OurName::port(lan, port);
                // One that is plugged in elsewhere is no port of this LAN.
                let link = observed.our(name).filter(|link| link.is_in(lan));
                let state = PortStatus {
                    lan: lan.name.clone(),
                    seat: *seat,
                    mac: port.identity.mac,
                    guard: lan.guard,
                    tap: name.text(),
                    exists: link.is_some(),
                    carrier: link.map(|link| link.carrier),
                    counters: link.map(|link| link.counters),
                    address_in_use: books
                        .addresses
                        .get(&port.instance)
                        .copied()
                        .filter(|_| link.is_some_and(|link| link.carrier)),
                };
                status.ports.insert(port.instance.clone(), state);
            }
        }
        status.reachability = books.reachability();
        status.peers = self.peers.status(spec);
        status.underlay.clone_from(&self.underlay);
        status.tunnel = self.wireguard.as_ref().and_then(|wireguard| wireguard.status(spec));
        drop(books);
        self.status.send_if_modified(|old| {
            let differs = *old != status;
            *old = status;
            differs
        });
    }

    /// By where the kernel has the socket of the LAN's tunnel: on the node, or where only WireGuard leads out.
    fn encryption(&self, vni: Vni) -> Option<Encryption> {
        let LinkKind::Vxlan(tunnel) = self.seen.our(OurName::Vxlan(vni))?.kind else { return None };
        match &self.wireguard {
            _ if !tunnel.at_home => None,
            None => Some(Encryption::None),
            Some(wireguard) => wireguard.is_up().then_some(Encryption::Wireguard),
        }
    }

    async fn open_tap(&mut self, instance: &InstanceId) -> Result<OpenPort, FabricError> {
        let no_port = || FabricError::NoPort(instance.clone());
        let spec = self.spec.clone().ok_or_else(no_port)?;
        let (lan, _, port) = spec.port(instance).ok_or_else(no_port)?;
        let name = OurName::port(lan, port);
        let (tap, over_card) = (name.text(), lan.mode == NetworkMode::Macvlan);
        let plugged = |observed: &Observed| observed.our(name).is_some_and(|link| link.up && link.is_in(lan));
        // Attaching to a name that is not there would make a tap outside the bridge: the guest would be deaf.
        let mut ready = self.kernel.observe().await.is_ok_and(|observed| plugged(&observed));
        if !ready {
            self.pass("a tap was asked for that is missing").await;
            ready = self.kernel.observe().await.is_ok_and(|observed| plugged(&observed));
        }
        if !ready {
            let problem = self
                .problems
                .first()
                .cloned()
                .unwrap_or_else(|| "no reason is known; look at the agent's log".to_owned());
            return Err(FabricError::NoTap { instance: instance.clone(), tap, problem });
        }
        if !over_card {
            return attach(tap).map(OpenPort::of_tap);
        }
        let opened = macvtap::open(&tap).map_err(|error| match error {
            MacvtapError::Busy => FabricError::TapBusy { tap: tap.clone() },
            MacvtapError::Io(doing, source) => FabricError::OpenMacvtap { tap: tap.clone(), doing, source },
        })?;
        // The kernel has no news of who holds it.
        self.news.notify_one();
        Ok(OpenPort { net: opened.net, hold: Some(opened.hold) })
    }

    async fn open_station(&mut self, lan: &LanName) -> Result<OpenPort, FabricError> {
        let no_lan = |problem: &str| FabricError::NoLan { lan: lan.clone(), problem: problem.to_owned() };
        let known = self.spec.as_ref().and_then(|spec| spec.lans.values().find(|known| known.name == *lan));
        let known = known.ok_or_else(|| no_lan("the directory does not know it; add it, or give another name"))?;
        if known.mode == NetworkMode::Macvlan {
            return Err(no_lan(
                "it has the mode macvlan, in which nothing of ours is on it but guests; give it the mode vxlan",
            ));
        }
        let vni = known.vni;
        let there = |observed: &Observed, name: &str| observed.links.get(name).is_some_and(|link| link.up);
        let bridge = OurName::Bridge(vni).text();
        if !self.kernel.observe().await.is_ok_and(|observed| there(&observed, &bridge)) {
            return Err(no_lan("it has no bridge here; place one of its instances on this node"));
        }
        let name = station_name(vni);
        let fd = attach(name.clone())?;
        // The pass finds the new link and plugs it in.
        self.pass("a station was opened").await;
        let plugged = self.seen.links.get(&name).is_some_and(|link| link.up && link.master.as_ref() == Some(&bridge));
        if plugged {
            Ok(OpenPort::of_tap(fd))
        } else {
            Err(no_lan(self.problems.first().map_or("its port could not be plugged in", |p| p)))
        }
    }
}

/// Opens a tap of this namespace, which is made if it does not exist.
fn attach(tap: String) -> Result<std::os::fd::OwnedFd, FabricError> {
    tap::attach(&tap).map_err(|error| match error {
        TapError::NoTun(source) => FabricError::NoTun(source),
        TapError::Busy => FabricError::TapBusy { tap },
        TapError::Io(source) => FabricError::OpenTap { tap, source },
    })
}

/// How the LAN's guests are joined, by what the kernel has: macvtaps in bridge mode that are up, or a bridge that is up with a tunnel of that
/// VNI that is up.
fn mode(vni: Vni, observed: &Observed) -> Option<NetworkMode> {
    let over_card = |(name, link): (OurName, &Link)| {
        name.vni() == vni && link.up && matches!(link.kind, LinkKind::Macvtap { submode: Submode::Bridge, .. })
    };
    if observed.ours().any(over_card) {
        return Some(NetworkMode::Macvlan);
    }
    let bridge = OurName::Bridge(vni);
    observed.our(bridge).filter(|link| link.up)?;
    let tunnel = |kind: &LinkKind| matches!(kind, LinkKind::Vxlan(tunnel) if tunnel.vni == vni.get());
    observed
        .links
        .values()
        .any(|link| tunnel(&link.kind) && link.up && link.master.as_ref() == Some(&bridge.text()))
        .then_some(NetworkMode::Vxlan)
}
