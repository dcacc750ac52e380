//! The running switch of a node: sockets around the decisions of this crate. Needs no capability and no kernel device.
//!
//! ```text
//!  set_spec, plug, trace ──> thread: one task a port, one for the other nodes, all on one core and one state ──> SwitchStatus
//! ```
//! **Invariants.** One thread owns all state, so frames of a port keep their order and nothing is locked. It never waits for a
//! receiver: a queue that is full loses the newest frame, and that is counted. It ends with its handle; the guests' ends of the
//! sockets are the runners', so a successor that is given them goes on where this one stopped. It listens for the other nodes
//! only while there is a LAN for it.
mod flow;
mod foreign;
mod jack;
mod mesh_socket;
mod node;
mod outlet;
mod port;
#[cfg(test)]
mod tests;
mod trace;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fabric::{
    FabricSpec, PortCounters, ReachStatus,
    trace::Sighting,
    worker::{Unanswered, Worker},
};
use model::{InstanceId, LanName, MacAddr, NetworkMode, NodeName, Seat, Vni};
use tokio::sync::{oneshot, watch};

pub use self::{foreign::FOREIGN_MAX, port::FrameSocket, trace::MESH};
use crate::guard::Refusal;

/// Requests that may wait for the thread. Full = [`SwitchError::Busy`]: a runner asks once per start and retries.
const REQUESTS_MAX: usize = 64;

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
    #[error("the socket of a foreign machine cannot be used; give one end of a SOCK_SEQPACKET pair")]
    Foreign(#[source] io::Error),
    #[error(
        "LAN `{0}` has no switch on this node; plug in at a node where a guest has its seat in the LAN, and which has the mode `socket`"
    )]
    NoLan(LanName),
    #[error("{FOREIGN_MAX} foreign machines are plugged into LAN `{0}` at this node; unplug one, or use another node")]
    Full(LanName),
    #[error("the switch is asked too much at a time; try again")]
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
    /// Machines outside of the cluster that are plugged in at this node.
    pub foreign: Vec<ForeignStatus>,
    pub foreign_totals: ForeignTotals,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignStatus {
    /// Who plugged it in, as [`ForeignPlug::remote`] said.
    pub remote: String,
    pub since: SystemTime,
    /// `None` until it has sent a frame.
    pub card: Option<MacAddr>,
    /// The address it was seen to use.
    pub address_in_use: Option<Ipv4Addr>,
    pub counters: PortCounters,
    pub refused: BTreeMap<Refusal, u64>,
}

/// Of all foreign machines of one LAN, also those that left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForeignTotals {
    /// That are plugged in now.
    pub plugged: u32,
    pub counters: PortCounters,
    pub refused: BTreeMap<Refusal, u64>,
}

/// A machine outside of the cluster that is to be plugged into a LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignPlug {
    pub lan: LanName,
    /// Which it is, as its own side says: one that comes again takes the place of itself.
    pub machine: String,
    /// Who brings it, to be shown.
    pub remote: String,
}

/// Why a foreign machine was unplugged, in words for who brought it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForeignEnd {
    #[error(
        "somebody else of LAN `{lan}` has the card {card}; give the machine another, such as 52:54:00 and three octets of your own"
    )]
    CardTaken { card: MacAddr, lan: LanName },
    #[error("the machine's first frame is from {card}, which is no card's address; look at its network card")]
    NoCard { card: MacAddr },
    #[error(
        "the card {card} was just heard from the node at {node}; if another machine has it, give this one another, else wait some seconds"
    )]
    Elsewhere { card: MacAddr, node: Ipv4Addr },
    #[error("LAN `{0}` has left this node")]
    NoLan(LanName),
    #[error("the same machine was plugged in again")]
    Replaced,
}

impl ForeignEnd {
    /// Whether it would be the same again.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::CardTaken { .. } | Self::NoCard { .. })
    }
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
    /// Frames of 1514 octets get there and back.
    pub full_frames: Option<bool>,
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

/// To the thread.
#[derive(Debug)]
enum Request {
    /// A guest's end for its port.
    Plug {
        instance: InstanceId,
        socket: OwnedFd,
        reply: oneshot::Sender<Result<(), SwitchError>>,
    },
    Foreign {
        plug: ForeignPlug,
        socket: OwnedFd,
        reply: oneshot::Sender<Result<oneshot::Receiver<ForeignEnd>, SwitchError>>,
    },
    Trace(TraceRequest),
}

#[derive(Debug)]
struct TraceRequest {
    lan: LanName,
    ask: Option<(InstanceId, Vec<u8>)>,
    mark: Vec<u8>,
    limit: Duration,
    reply: oneshot::Sender<Result<Vec<Sighting>, SwitchError>>,
}

/// A running switch. Dropping it ends the thread.
#[derive(Debug)]
pub struct Switch {
    thread: Worker<Request>,
    wishes: watch::Sender<Wish>,
    status: watch::Receiver<SwitchStatus>,
}

impl Switch {
    /// Starts the thread. It has no port, and listens for nobody, until [`Switch::set_spec`] names a LAN.
    pub async fn start(config: SwitchConfig, sight: Box<dyn Sight>) -> Result<Self, SwitchError> {
        let (wishes, wishes_rx) = watch::channel(Wish::default());
        let (status_tx, status) = watch::channel(SwitchStatus::default());
        let (ready, started) = oneshot::channel();
        let work = move |requests| node::run(config, sight, requests, wishes_rx, &status_tx, ready);
        let thread = Worker::start("switch", REQUESTS_MAX, work).map_err(SwitchError::Thread)?;
        started.await.map_err(|_| SwitchError::Ended)??;
        Ok(Self { thread, wishes, status })
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
        self.ask(|reply| Request::Plug { instance: instance.clone(), socket, reply }).await
    }

    /// Plugs a machine outside of the cluster into its LAN: `socket` is one end of a [`FrameSocket::pair`]. It is unplugged when the
    /// other end is closed. What is returned says why, when it is unplugged by the switch; its sender goes without a word when
    /// the switch ends.
    ///
    /// # Errors
    /// When the LAN is not switched here, or has no port left.
    pub async fn plug_foreign(
        &self,
        plug: ForeignPlug,
        socket: OwnedFd,
    ) -> Result<oneshot::Receiver<ForeignEnd>, SwitchError> {
        self.ask(|reply| Request::Foreign { plug, socket, reply }).await
    }

    /// Looks for frames of the LAN with `mark` for as long as `limit` says, and meanwhile gives `ask` to its guest: where they were
    /// seen, a port by its instance's name, the way to the other nodes as [`MESH`].
    pub async fn trace(
        &self,
        lan: &LanName,
        ask: Option<(InstanceId, Vec<u8>)>,
        mark: Vec<u8>,
        limit: Duration,
    ) -> Result<Vec<Sighting>, SwitchError> {
        self.ask(|reply| Request::Trace(TraceRequest { lan: lan.clone(), ask, mark, limit, reply })).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, SwitchError>>) -> Request,
    ) -> Result<T, SwitchError> {
        self.thread.ask(request).await.unwrap_or_else(|unanswered| {
            Err(match unanswered {
                Unanswered::Full => SwitchError::Busy,
                Unanswered::Ended => SwitchError::Ended,
            })
        })
    }

    /// The newest status, at most a second old. The channel closes when the thread has ended.
    pub fn status(&self) -> watch::Receiver<SwitchStatus> {
        self.status.clone()
    }

    /// Ends the thread and waits for it, while others still hold the switch. What guests send from then on waits in their cables.
    pub async fn end(&self) {
        self.thread.end().await;
    }
}
