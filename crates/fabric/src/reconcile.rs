//! The fabric's thread: one loop that looks at the kernel, computes what to change, changes it, and says how it is.
//!
//! ```text
//!   set_spec ─┐
//!   news from the kernel (settled for 20 ms) ─┤
//!   tap asked for and missing ─┤── pass: observe -> plan -> apply -> observe if changed -> follow -> publish
//!   30 s, or 2 s after a problem ─┘
//!   1 s ── observe -> publish (counters, carriers, books)
//! ```
use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use model::{InstanceId, LanName, NetworkMode};
use tokio::{
    runtime,
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use crate::{
    FabricConfig, FabricError, FabricSpec, FabricStatus, LanStatus, PortStatus,
    edge::Edge,
    fabric::{OpenTap, Whose, Wish},
    kernel::{Kernel, io_error},
    netns,
    observed::{LinkKind, Observed, OurName, station_name},
    plan::{Vtep, plan},
    tap::{self, TapError},
};

/// Looks again although nobody said anything.
const RESYNC: Duration = Duration::from_secs(30);
/// The same while something is wrong.
const RETRY: Duration = Duration::from_secs(2);
/// News come in bursts, also from our own writes: one pass for a burst.
const SETTLE: Duration = Duration::from_millis(20);
/// Counters and carriers are read this often.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until the fabric's handle is dropped. Changes nothing at its end: frames flow on.
pub(crate) fn run(
    config: &FabricConfig,
    requests: mpsc::Receiver<OpenTap>,
    wishes: watch::Receiver<Wish>,
    status: &watch::Sender<FabricStatus>,
    ready: oneshot::Sender<Result<(), FabricError>>,
) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(FabricError::SpawnThread(error)))),
    };
    runtime.block_on(async {
        match Reconciler::open(config, status) {
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
    vtep: Vtep,
    edge: Edge,
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
    fn open(config: &FabricConfig, status: &'a watch::Sender<FabricStatus>) -> Result<Self, FabricError> {
        let made = netns::ensure(&config.netns)?;
        let kernel = Kernel::open(&config.netns, config.underlay_netns.as_deref(), config.vxlan_port)?;
        tracing::info!(netns = %config.netns.display(), made, "fabric namespace is ours");
        let news = Arc::new(Notify::new());
        Kernel::watch(Arc::clone(&news))?;
        Ok(Self {
            kernel,
            vtep: Vtep { local: config.underlay_ip, port: config.vxlan_port },
            edge: Edge::default(),
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
                    "the kernel reported a change"
                }
                () = sleep_until(next_pass) => "it was time to look again",
                _ = glance.tick() => {
                    self.glance().await;
                    continue;
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
        let (sysctls, mut problems) = netns::settle_sysctls();
        (0..sysctls).for_each(|_| self.kernel.count_write());
        let mut observed = match self.kernel.observe().await {
            Ok(observed) => observed,
            Err(error) => {
                problems.push(format!(
                    "could not read the links of the fabric: {}; the agent needs CAP_NET_ADMIN",
                    io_error(&error)
                ));
                return self.tell(problems);
            }
        };
        let plan = plan(&spec, self.vtep, &observed);
        problems.extend(plan.problems);
        if !plan.steps.is_empty() {
            tracing::info!(reason, steps = plan.steps.len(), "changing the fabric");
            for step in &plan.steps {
                tracing::debug!(?step, "step");
                if let Err(problem) = self.kernel.perform(step).await {
                    problems.push(problem);
                }
            }
            if let Ok(after) = self.kernel.observe().await {
                observed = after;
            }
        }
        problems.extend(self.edge.follow(&spec, &observed));
        self.seen = observed;
        self.tell(problems);
    }

    /// Refreshes the status without changing anything.
    async fn glance(&mut self) {
        if self.spec.is_none() {
            return;
        }
        if let Ok(observed) = self.kernel.observe().await {
            self.seen = observed;
            self.publish();
        }
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
            let state = LanStatus { vni: lan.vni, mode: mode(lan.vni, observed), seats: lan.seats };
            status.lans.insert(lan.name.clone(), state);
            for (seat, port) in &lan.ports {
                let name = OurName::Tap(lan.vni, *seat);
                let link = observed.our(name);
                let state = PortStatus {
                    lan: lan.name.clone(),
                    seat: *seat,
                    mac: port.identity.mac,
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
        drop(books);
        self.status.send_if_modified(|old| {
            let differs = *old != status;
            *old = status;
            differs
        });
    }

    async fn open_tap(&mut self, instance: &InstanceId) -> Result<OwnedFd, FabricError> {
        let no_port = || FabricError::NoPort(instance.clone());
        let spec = self.spec.clone().ok_or_else(no_port)?;
        let (lan, seat, _) = spec.port(instance).ok_or_else(no_port)?;
        let name = OurName::Tap(lan.vni, seat);
        let tap = name.text();
        let plugged = |observed: &Observed| observed.our(name).is_some_and(|link| link.up && link.master.is_some());
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
        attach(tap)
    }

    async fn open_station(&mut self, lan: &LanName) -> Result<OwnedFd, FabricError> {
        let no_lan = |problem: &str| FabricError::NoLan { lan: lan.clone(), problem: problem.to_owned() };
        let known = self.spec.as_ref().and_then(|spec| spec.lans.values().find(|known| known.name == *lan));
        let vni = known.ok_or_else(|| no_lan("the directory does not know it; add it, or give another name"))?.vni;
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
            Ok(fd)
        } else {
            Err(no_lan(self.problems.first().map_or("its port could not be plugged in", |p| p)))
        }
    }
}

/// Opens a tap of this namespace, which is made if it does not exist.
fn attach(tap: String) -> Result<OwnedFd, FabricError> {
    tap::attach(&tap).map_err(|error| match error {
        TapError::NoTun(source) => FabricError::NoTun(source),
        TapError::Busy => FabricError::TapBusy { tap },
        TapError::Io(source) => FabricError::OpenTap { tap, source },
    })
}

/// How the LAN's guests are joined, by what the kernel has: a bridge that is up with a tunnel of that VNI that is up.
fn mode(vni: model::Vni, observed: &Observed) -> Option<NetworkMode> {
    let bridge = OurName::Bridge(vni);
    observed.our(bridge).filter(|link| link.up)?;
    let tunnel = |kind: &LinkKind| matches!(kind, LinkKind::Vxlan(tunnel) if tunnel.vni == vni.get());
    observed
        .links
        .values()
        .any(|link| tunnel(&link.kind) && link.up && link.master.as_ref() == Some(&bridge.text()))
        .then_some(NetworkMode::Vxlan)
}
