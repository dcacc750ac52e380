//! The running switch of a node: sockets around the decisions of this crate. Needs no capability and no kernel device.
//!
//! ```text
//!  set_spec, plug ──> thread: one task a port, one for the other nodes, all on one core and one state ──> SwitchStatus
//! ```
//! **Invariants.** One thread owns all state, so frames of a port keep their order and nothing is locked. It never waits for a
//! receiver: a queue that is full loses the newest frame, and that is counted. It ends with its handle; the guests' ends of the
//! sockets are the runners', so a successor that is given them goes on where this one stopped. It listens for the other nodes
//! only while there is a LAN for it.
mod mesh_socket;
mod node;
mod outlet;
mod port;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use fabric::{FabricSpec, PortCounters, ReachStatus};
use model::{InstanceId, LanName, NetworkMode, NodeName, Seat, Vni};
use tokio::sync::{mpsc, oneshot, watch};

use crate::guard::Refusal;

/// Guests that may wait to be plugged in. Full = [`SwitchError::Busy`]: a runner asks once per start and retries.
const PLUGS_MAX: usize = 64;

/// Where a switch listens for those of the other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwitchConfig {
    /// This node's address, and the UDP port that all nodes use.
    pub underlay: SocketAddrV4,
}

/// Why there is no switch.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    #[error("could not start the switch's thread; raise the limit of processes")]
    Thread(#[source] io::Error),
    #[error("the directory has no port for `{0}` on this node in a LAN of mode `socket`")]
    NoPort(InstanceId),
    #[error("the network socket of `{instance}` cannot be used: {source}; give one end of a SOCK_SEQPACKET pair")]
    Socket {
        instance: InstanceId,
        #[source]
        source: io::Error,
    },
    #[error("{PLUGS_MAX} guests wait to be plugged in; try again")]
    Busy,
    #[error("the switch has ended")]
    Ended,
}

/// What the switch says about itself: what it did, never what it was told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SwitchStatus {
    /// How often [`Switch::set_spec`] was called, as far as the thread knew.
    pub spec_seen: u64,
    /// LANs of mode `socket` with a seat here.
    pub lans: BTreeMap<LanName, LanStatus>,
    pub ports: BTreeMap<InstanceId, PortStatus>,
    /// Guests of those LANs, as asked by ARP.
    pub reachability: Vec<ReachStatus>,
    /// Datagrams from addresses that are no node of their LAN, or that are no VXLAN.
    pub strays: u64,
    /// Datagrams of other nodes that the kernel dropped: this thread was too slow.
    pub overruns: u64,
    /// Frames for other nodes that the kernel did not take.
    pub unsent: u64,
    /// In words, with the remedy.
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LanStatus {
    pub vni: Vni,
    pub seats: u8,
    /// The switch listens for the other nodes: the LAN is more than this node's guests.
    pub meshed: bool,
    /// Other nodes with a seat in the LAN.
    pub peers: BTreeMap<NodeName, PeerStatus>,
}

/// Another node, as its switch answers over the mesh.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeerStatus {
    pub address: Ipv4Addr,
    /// `None` until it is known.
    pub alive: Option<bool>,
    pub rtt: Option<Duration>,
    /// Share of the last questions without an answer, 0 to 1.
    pub loss: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortStatus {
    pub lan: LanName,
    pub seat: Seat,
    /// A guest's QEMU is at the other end.
    pub plugged: bool,
    pub counters: PortCounters,
    /// What the guest sent and was not taken, by reason; only what there was.
    pub refused: BTreeMap<Refusal, u64>,
    /// The address the guest was seen to use; forgotten when it is unplugged.
    pub address_in_use: Option<Ipv4Addr>,
}

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Into the switch: from a guest, from another node.
    In,
    /// Out of it.
    Out,
}

/// Who looks at the frames: counts them, shows them, keeps them. Called on the switch's own thread, so it must not wait.
pub trait Sight: Send {
    /// What there is from now on. Nothing else will be shown.
    fn keep(&mut self, ports: &BTreeSet<InstanceId>, lans: &BTreeSet<LanName>);
    /// A frame at a guest's port: all that it sends, also what its guard refuses; of what is for it, what it can still get.
    fn guest(&mut self, instance: &InstanceId, way: Way, frame: &[u8]);
    /// A frame from another node, or one to other nodes: once, to however many.
    fn node(&mut self, lan: &LanName, way: Way, frame: &[u8]);
    /// About once a second.
    fn tick(&mut self);
}

/// Nobody looks.
impl Sight for () {
    fn keep(&mut self, _: &BTreeSet<InstanceId>, _: &BTreeSet<LanName>) {}
    fn guest(&mut self, _: &InstanceId, _: Way, _: &[u8]) {}
    fn node(&mut self, _: &LanName, _: Way, _: &[u8]) {}
    fn tick(&mut self) {}
}

/// A spec and its number.
type Wish = (u64, Arc<FabricSpec>);

/// A guest's end for its port.
#[derive(Debug)]
struct Plug {
    instance: InstanceId,
    socket: OwnedFd,
    reply: oneshot::Sender<Result<(), SwitchError>>,
}

/// A running switch. Dropping it ends the thread.
#[derive(Debug)]
pub struct Switch {
    /// `None` once it was told to end.
    running: Mutex<Option<Running>>,
    wishes: watch::Sender<Wish>,
    status: watch::Receiver<SwitchStatus>,
}

#[derive(Debug)]
struct Running {
    plugs: mpsc::Sender<Plug>,
    thread: thread::JoinHandle<()>,
}

impl Running {
    /// Closing the queue is the signal to end.
    fn end(self) {
        drop(self.plugs);
        if self.thread.join().is_err() {
            tracing::error!("the switch's thread had panicked");
        }
    }
}

impl Switch {
    /// Starts the thread. It has no port, and listens for nobody, until [`Switch::set_spec`] names a LAN.
    pub async fn start(config: SwitchConfig, sight: Box<dyn Sight>) -> Result<Self, SwitchError> {
        let (plugs, plugs_rx) = mpsc::channel(PLUGS_MAX);
        let (wishes, wishes_rx) = watch::channel(Wish::default());
        let (status_tx, status) = watch::channel(SwitchStatus::default());
        let (ready, started) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("switch".to_owned())
            .spawn(move || node::run(config, sight, plugs_rx, wishes_rx, &status_tx, ready))
            .map_err(SwitchError::Thread)?;
        started.await.map_err(|_| SwitchError::Ended)??;
        Ok(Self { running: Mutex::new(Some(Running { plugs, thread })), wishes, status })
    }

    /// What the node must have from now on; LANs of another mode than `socket` are somebody else's. Returns at once.
    pub fn set_spec(&self, spec: &FabricSpec) {
        let mut ours = spec.clone();
        ours.lans.retain(|_, lan| lan.mode == NetworkMode::Socket && !lan.ports.is_empty());
        self.wishes.send_modify(|(number, wish)| {
            *number += 1;
            *wish = Arc::new(ours);
        });
    }

    /// Plugs a guest into its port: `socket` is the other end of QEMU's `-netdev dgram` and gives whole frames. One that was
    /// plugged in before is unplugged.
    pub async fn plug(&self, instance: &InstanceId, socket: OwnedFd) -> Result<(), SwitchError> {
        let (reply, answer) = oneshot::channel();
        let plugs = self.running().as_ref().map(|running| running.plugs.clone()).ok_or(SwitchError::Ended)?;
        plugs.try_send(Plug { instance: instance.clone(), socket, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SwitchError::Busy,
            mpsc::error::TrySendError::Closed(_) => SwitchError::Ended,
        })?;
        drop(plugs);
        answer.await.map_err(|_| SwitchError::Ended)?
    }

    /// The newest status, at most a second old. The channel closes when the thread has ended.
    pub fn status(&self) -> watch::Receiver<SwitchStatus> {
        self.status.clone()
    }

    /// Ends the thread and waits for it, while others still hold the switch. What guests send from then on waits in their cables.
    pub async fn end(&self) {
        let running = self.running().take();
        if let Some(running) = running {
            // It cannot fail but by a panic, which ends the thread's business as well.
            tokio::task::spawn_blocking(move || running.end()).await.ok();
        }
    }

    /// Nothing that can panic is done while it is locked.
    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if let Some(running) = self.running().take() {
            running.end();
        }
    }
}
