//! One instance that is placed here: its runner, its guest's monitors, picture and sound.
//!
//! ```text
//! runner ──seat socket──> doors ──Candidate──> actor ──Wish───> control, poke (QMP)
//!                                               │ ^──Report──────┘
//!                                               ├──attach──> stream::display, stream::audio
//!                                               └──Report (what others may know)──> status, HTTP
//! ```
//! **Invariants.** One actor task owns all that changes. Dropping the [`Instance`] ends its tasks and closes its sockets and
//! sessions; QEMU, the tap and the runner's own process are not touched, so a restart of the agent costs no frame.
mod actor;
mod greet;
mod input;
mod monitors;
mod orders;
mod refresh;
mod releases;
mod state;

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use fabric::{FabricError, FabricStatus, OpenPort};
use model::{InstanceId, InstanceState};
use stream::{AudioTap, InstanceStream, Screen, Streams};
use switch::SwitchError;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

pub(crate) use greet::{Candidate, Refusal, refuse};
pub(crate) use monitors::Power;

use crate::{desired::SeatSpec, doors::DoorState, lans::Lans, metrics::Metrics};

/// Injections that may wait for QMP. Each is one message of a browser; QEMU takes thousands a second. Full = the
/// stream waits: input is never dropped while there is a guest to take it.
const INJECTIONS_MAX: usize = 64;

/// How long a guest's start waits for the observer, whose programs the kernel takes a second or two to check.
const WATCHED_LIMIT: Duration = Duration::from_secs(4);

/// Opens the tap or macvtap of an instance. A function and not the fabric itself, as a fabric needs root and a kernel of its own.
#[derive(Clone)]
pub(crate) struct Taps(Arc<dyn Fn(InstanceId) -> OpeningTap + Send + Sync>);

type OpeningTap = Pin<Box<dyn Future<Output = Result<OpenPort, FabricError>> + Send>>;

impl Taps {
    pub(crate) fn new<F>(open: impl Fn(InstanceId) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<OpenPort, FabricError>> + Send + 'static,
    {
        Self(Arc::new(move |id| Box::pin(open(id))))
    }

    /// `watched`: the observer's programs are there, or will not be. What a guest says before is seen by nobody, and who has joined a game
    /// does not say so again.
    pub(crate) fn of(lans: Arc<Lans>, watched: watch::Receiver<bool>) -> Self {
        Self::new(move |id| {
            let (lans, mut watched) = (Arc::clone(&lans), watched.clone());
            async move {
                // A guest that is seen late is better than none.
                drop(tokio::time::timeout(WATCHED_LIMIT, watched.wait_for(|watched| *watched)).await);
                lans.open_tap(&id).await
            }
        })
    }

    async fn open(&self, id: &InstanceId) -> Result<OpenPort, FabricError> {
        (self.0)(id.clone()).await
    }
}

impl std::fmt::Debug for Taps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Taps")
    }
}

/// Plugs a guest's cable into the LAN's user-space switch. A function for the same reason.
#[derive(Clone)]
pub(crate) struct Cables(Arc<dyn Fn(InstanceId, OwnedFd) -> Plugging + Send + Sync>);

type Plugging = Pin<Box<dyn Future<Output = Result<(), SwitchError>> + Send>>;

impl Cables {
    pub(crate) fn new<F>(plug: impl Fn(InstanceId, OwnedFd) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), SwitchError>> + Send + 'static,
    {
        Self(Arc::new(move |id, cable| Box::pin(plug(id, cable))))
    }

    pub(crate) fn of(lans: Arc<Lans>) -> Self {
        Self::new(move |id, cable| {
            let lans = Arc::clone(&lans);
            async move { lans.plug(&id, cable).await }
        })
    }

    async fn plug(&self, id: &InstanceId, cable: OwnedFd) -> Result<(), SwitchError> {
        (self.0)(id.clone(), cable).await
    }
}

impl std::fmt::Debug for Cables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cables")
    }
}

/// What every instance of this node shares.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) taps: Taps,
    pub(crate) cables: Cables,
    /// How the ports are, as last read from the kernel.
    pub(crate) fabric: watch::Receiver<FabricStatus>,
    pub(crate) streams: Arc<Streams>,
    pub(crate) metrics: Metrics,
    pub(crate) health: telemetry::Health,
    /// Bumped at each change that somebody who watches the status should see.
    pub(crate) changed: Arc<watch::Sender<u64>>,
    /// Parent of the seat directories.
    pub(crate) seats_dir: PathBuf,
    /// KVM was proven to run guests on this node.
    pub(crate) kvm: bool,
}

impl Shared {
    fn announce(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// What the actor lets others know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) state: InstanceState,
    pub(crate) since: SystemTime,
    pub(crate) detail: Option<String>,
    pub(crate) accelerator: Option<String>,
    /// What QEMU says that the guest's card is on: `tap`, `dgram` or `user`.
    pub(crate) netdev: Option<String>,
    /// As its runner calls it: in a pod, a number in the pod's own PID namespace.
    pub(crate) qemu_pid: Option<u32>,
    /// When QEMU was said to have started; `None` when it ran before this agent knew it.
    pub(crate) qemu_since: Option<SystemTime>,
    pub(crate) runner_pid: Option<u32>,
    /// The screen's generation when the display that stands was connected.
    pub(crate) picture_base: u64,
    /// When the picture was last seen to have changed.
    pub(crate) picture_changed: Option<SystemTime>,
    /// What its runner says of its disk while it plays on, with the remedy.
    pub(crate) notice: Option<String>,
}

/// Handle of a running instance.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) spec: SeatSpec,
    pub(crate) screen: Arc<Screen>,
    pub(crate) stream: Arc<InstanceStream>,
    report: watch::Receiver<Report>,
    power: mpsc::Sender<monitors::PowerRequest>,
    orders: mpsc::Sender<orders::OrderRequest>,
    candidates: mpsc::Sender<Candidate>,
    shared: Shared,
    /// Emptied by [`Self::let_go`]; dropping them aborts them.
    tasks: Mutex<JoinSet<()>>,
}

/// Why an instance's power could not be switched, or an order was not carried out.
#[derive(Debug, thiserror::Error)]
#[error("{id} did not take it: {reason}")]
pub(crate) struct PowerError {
    id: InstanceId,
    reason: String,
}

impl Instance {
    /// Waits for its runner. `door`: how its own door stands, if it has one; a door that is shut is said in the report.
    pub(crate) fn start(
        id: InstanceId,
        spec: SeatSpec,
        door: Option<watch::Receiver<Option<DoorState>>>,
        shared: Shared,
    ) -> Self {
        let (screen, audio) = (Screen::new(), AudioTap::new());
        let (injections, injections_rx) = mpsc::channel(INJECTIONS_MAX);
        let stream = shared.streams.instance(id.clone(), Arc::clone(&screen), Arc::clone(&audio), injections);
        let (control, control_rx) = watch::channel(monitors::Wish::none());
        let (poke, poke_rx) = watch::channel(monitors::Wish::none());
        let (power, power_rx) = mpsc::channel(monitors::POWER_MAX);
        let (reports, reports_rx) = mpsc::channel(monitors::REPORTS_MAX);
        let (orders, orders_rx) = mpsc::channel(orders::ORDERS_MAX);
        let (candidates, candidates_rx) = mpsc::channel(greet::CANDIDATES_MAX);
        let (inputs, inputs_rx) = watch::channel(None);
        let (actor, report) = actor::Actor::new(actor::Parts {
            id: id.clone(),
            spec: spec.clone(),
            shared: shared.clone(),
            screen: Arc::clone(&screen),
            audio,
            stream: Arc::clone(&stream),
            control,
            poke,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(
            monitors::Control {
                instance: id.clone(),
                wishes: control_rx,
                power: power_rx,
                injections: injections_rx,
                reports: reports.clone(),
                inputs,
                metrics: shared.metrics.clone(),
            }
            .run(),
        );
        tasks.spawn(
            monitors::Poke {
                instance: id.clone(),
                wishes: poke_rx,
                reports,
                inputs: inputs_rx,
                screen: Arc::clone(&screen),
                stream: Arc::clone(&stream),
                metrics: shared.metrics.clone(),
            }
            .run(),
        );
        let inbox = actor::Inbox { reports: reports_rx, orders: orders_rx, candidates: candidates_rx, door };
        tasks.spawn(actor.run(inbox));
        Self { id, spec, screen, stream, report, power, orders, candidates, shared, tasks: Mutex::new(tasks) }
    }

    /// Brings a runner that came in by the instance's door. One that is being taken down drops it: that ends the connection.
    pub(crate) async fn meet(&self, candidate: Candidate) {
        if self.candidates.send(candidate).await.is_err() {
            tracing::debug!(instance = %self.id, "a runner came while the instance was taken down");
        }
    }

    pub(crate) fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    /// Presses the power button or the reset line.
    pub(crate) async fn power(&self, action: Power) -> Result<(), PowerError> {
        let error = |reason: &str| PowerError { id: self.id.clone(), reason: reason.to_owned() };
        let (reply, answer) = oneshot::channel();
        self.power.send(monitors::PowerRequest { action, reply }).await.map_err(|_| error("it is being taken down"))?;
        answer.await.map_err(|_| error("it is being taken down"))?.map_err(|reason| error(&reason))
    }

    /// Has its runner restart the guest, on the same disk or on a fresh one. `Ok` = the runner has taken the order on.
    pub(crate) async fn order(&self, order: seat::Order) -> Result<(), PowerError> {
        let error = |reason: &str| PowerError { id: self.id.clone(), reason: reason.to_owned() };
        let (reply, answer) = oneshot::channel();
        self.orders.send(orders::OrderRequest { order, reply }).await.map_err(|_| error("it is being taken down"))?;
        tokio::time::timeout(orders::ANSWER_LIMIT, answer)
            .await
            .map_err(|_| error("its runner does not answer"))?
            .map_err(|_| error("it is being taken down"))?
            .map_err(|reason| error(&reason))
    }

    /// Ends the sessions of its viewers; the guest runs on.
    pub(crate) async fn close_sessions(&self) {
        self.stream.close_all().await;
    }

    /// Ends its tasks, and with them the connections to its runner and to QEMU.
    pub(crate) async fn let_go(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }

    /// Ends it because it is no longer placed here.
    pub(crate) async fn leave(&self) {
        self.close_sessions().await;
        self.let_go().await;
        self.shared.metrics.forget(self.id.as_str());
        self.shared.announce();
    }
}

#[cfg(test)]
mod tests;
