//! What the peer holds: its port, its counts, its flows.
//!
//! **Invariants.** A frame's number is taken when the tap has taken the frame, so numbers have no holes. One flow at a time
//! for each kind and addressee. The tap stays open from the first welcome to the end, whatever the agent does.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_tests::peer::{Epoch, Flow, Kind, Lease, Port, Report, Sent};
use testkit::Tap;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{
    frames::{self, Card},
    ledger::{Ledger, Stage},
};

/// The cable: the tap, and who this is.
#[derive(Debug)]
pub(crate) struct Plug {
    pub(crate) tap: Tap,
    pub(crate) card: Card,
    pub(crate) port: Port,
}

/// What flows: a kind of frame, to one seat or to all.
type FlowKey = (Kind, Option<u8>);

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) instance: String,
    plug: watch::Sender<Option<Arc<Plug>>>,
    state: Mutex<State>,
    /// Locked over the start and end of flows, which takes an await.
    flows: tokio::sync::Mutex<BTreeMap<FlowKey, JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct State {
    ledger: Ledger,
    sent: BTreeMap<FlowKey, Tally>,
    attached: bool,
    attachments: u32,
    problem: Option<String>,
    lease: Option<Lease>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    frames: u32,
    refused: u32,
}

impl Peer {
    pub(crate) fn new(instance: String) -> Self {
        Self { instance, plug: watch::Sender::new(None), state: Mutex::default(), flows: tokio::sync::Mutex::default() }
    }

    /// Nobody panics while holding it; if somebody did, the counts are still the best there is.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn plug(&self) -> Option<Arc<Plug>> {
        self.plug.borrow().clone()
    }

    /// Waits for the first welcome.
    pub(crate) async fn plugged(&self) -> Arc<Plug> {
        let mut watched = self.plug.subscribe();
        loop {
            if let Some(plug) = watched.borrow_and_update().clone() {
                return plug;
            }
            watched.changed().await.expect("the sender lives in self");
        }
    }

    pub(crate) fn plug_in(&self, plug: Plug) -> Arc<Plug> {
        let plug = Arc::new(plug);
        self.plug.send_replace(Some(Arc::clone(&plug)));
        plug
    }

    pub(crate) fn attached(&self) {
        let mut state = self.state();
        state.attached = true;
        state.attachments += 1;
        state.problem = None;
    }

    pub(crate) fn detached(&self, reason: String) {
        let mut state = self.state();
        state.attached = false;
        state.problem = Some(reason);
    }

    pub(crate) fn leased(&self, lease: Lease) {
        self.state().lease = Some(lease);
    }

    pub(crate) fn lease(&self) -> Option<Lease> {
        self.state().lease.clone()
    }

    pub(crate) fn count(&self, frame: &[u8], card: Card) {
        self.state().ledger.count(frame, card.mac.0, Instant::now());
    }

    pub(crate) fn stage(&self, seat: u8) -> Option<Stage> {
        self.state().ledger.stage(seat)
    }

    pub(crate) async fn report(&self) -> Report {
        let flows = self.flows.lock().await.values().filter(|flow| !flow.is_finished()).count();
        let state = self.state();
        let sent = |(&(kind, to), tally): (&(Kind, Option<u8>), &Tally)| Sent {
            kind,
            to,
            frames: tally.frames,
            refused: tally.refused,
        };
        Report {
            instance: self.instance.clone(),
            epoch: state.ledger.epoch(),
            attached: state.attached,
            attachments: state.attachments,
            problem: state.problem.clone(),
            port: self.plug().map(|plug| plug.port.clone()),
            lease: state.lease.clone(),
            flows,
            sent: state.sent.iter().map(sent).collect(),
            received: state.ledger.received(),
            others: state.ledger.others,
            strays: state.ledger.strays,
        }
    }

    /// Ends all flows; afterwards the counts of what was sent stand still.
    pub(crate) async fn stop(&self) {
        for (_, flow) in std::mem::take(&mut *self.flows.lock().await) {
            flow.abort();
            // It ended, or was ended: both are what is wanted.
            flow.await.ok();
        }
    }

    pub(crate) async fn reset(&self, epoch: Epoch) {
        self.stop().await;
        let mut state = self.state();
        state.ledger = Ledger::new(epoch);
        state.sent.clear();
    }

    /// Begins a flow, in place of the one of the same kind and addressee.
    pub(crate) async fn start(self: &Arc<Self>, flow: Flow) {
        let key = (flow.kind, flow.to.filter(|_| flow.kind.is_unicast()));
        let mut flows = self.flows.lock().await;
        if let Some(before) = flows.remove(&key) {
            before.abort();
            before.await.ok();
        }
        let peer = Arc::clone(self);
        let task = tokio::spawn(async move {
            let plug = peer.plugged().await;
            let mut pace = interval(Duration::from_secs_f64(1.0 / flow.rate));
            // A sender that was late does not make up for it in a burst, which would be lost for reasons of its own.
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for _ in 0..flow.count.unwrap_or(u32::MAX) {
                pace.tick().await;
                peer.send(&plug, key.0, key.1).await;
            }
        });
        flows.insert(key, task);
    }

    /// Sends the next frame of a kind. A frame that the tap refuses gives its number to the next one.
    pub(crate) async fn send(&self, plug: &Plug, kind: Kind, to: Option<u8>) {
        let (epoch, sequence) = {
            let state = self.state();
            (state.ledger.epoch(), state.sent.get(&(kind, to)).map_or(0, |tally| tally.frames))
        };
        let addressee = plug.card.neighbour(to.unwrap_or(plug.card.seat));
        let taken = plug.tap.send(&frames::build(kind, plug.card, addressee, epoch, sequence)).await.is_ok();
        // No await between the tap's answer and here: an aborted flow cannot leave a sent frame uncounted.
        let mut state = self.state();
        let tally = state.sent.entry((kind, to)).or_default();
        if taken {
            tally.frames += 1;
        } else {
            tally.refused += 1;
        }
    }
}
