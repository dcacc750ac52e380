//! The running switch of a node: sockets around the decisions of this crate. Needs no capability and no kernel device.
//!
//! ```text
//!  set_spec, plug ──> thread: one task a port, one for the other nodes, all on one core and one state ──> SwitchStatus
//! ```
//! **Invariants.** One thread owns all state, so frames of a port keep their order and nothing is locked. It never waits for a
//! receiver: a queue that is full loses the newest frame, and that is counted. It ends with its handle; the guests' ends of the
//! sockets are the runners', so a successor that is given them goes on where this one stopped.
mod node;
mod port;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    sync::Arc,
    thread,
    time::Duration,
};

use fabric::{FabricSpec, PortCounters, ReachStatus};
use model::{InstanceId, LanName, NetworkMode, NodeName, Seat, Vni};
use tokio::sync::{mpsc, oneshot, watch};

use crate::guard::{Refusal, Rules};

/// Guests that may wait to be plugged in. Full = [`SwitchError::Busy`]: a runner asks once per start and retries.
const PLUGS_MAX: usize = 64;

/// Where a switch listens for those of the other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwitchConfig {
    /// This node's address, and the UDP port that all nodes use.
    pub underlay: SocketAddrV4,
    /// What guests may send.
    pub rules: Rules,
}

/// Why there is no switch.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    #[error("could not start the switch's thread; raise the limit of processes")]
    Thread(#[source] io::Error),
    #[error(
        "could not listen on UDP {address} for the other nodes' switches; is another agent running, or the port in use?"
    )]
    Listen {
        address: SocketAddrV4,
        #[source]
        source: io::Error,
    },
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
    /// LANs of mode `socket` with a seat here.
    pub lans: BTreeMap<LanName, LanStatus>,
    pub ports: BTreeMap<InstanceId, PortStatus>,
    /// Guests of those LANs, as asked by ARP.
    pub reachability: Vec<ReachStatus>,
    /// Datagrams from addresses that are no node of their LAN, or that are no VXLAN.
    pub strays: u64,
    /// In words, with the remedy.
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LanStatus {
    pub vni: Vni,
    pub seats: u8,
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
    plugs: Option<mpsc::Sender<Plug>>,
    wishes: watch::Sender<Arc<FabricSpec>>,
    status: watch::Receiver<SwitchStatus>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Switch {
    /// Listens for the other nodes and starts the thread. It has no port until [`Switch::set_spec`].
    pub async fn start(config: SwitchConfig) -> Result<Self, SwitchError> {
        let (plugs, plugs_rx) = mpsc::channel(PLUGS_MAX);
        let (wishes, wishes_rx) = watch::channel(Arc::default());
        let (status_tx, status) = watch::channel(SwitchStatus::default());
        let (ready, started) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("switch".to_owned())
            .spawn(move || node::run(config, plugs_rx, wishes_rx, &status_tx, ready))
            .map_err(SwitchError::Thread)?;
        started.await.map_err(|_| SwitchError::Ended)??;
        Ok(Self { plugs: Some(plugs), wishes, status, thread: Some(thread) })
    }

    /// What the node must have from now on; LANs of another mode than `socket` are somebody else's. Returns at once.
    pub fn set_spec(&self, spec: &FabricSpec) {
        let mut ours = spec.clone();
        ours.lans.retain(|_, lan| lan.mode == NetworkMode::Socket && !lan.ports.is_empty());
        self.wishes.send_if_modified(|wish| {
            let differs = **wish != ours;
            *wish = Arc::new(ours);
            differs
        });
    }

    /// Plugs a guest into its port: `socket` is the other end of QEMU's `-netdev dgram` and gives whole frames. One that was
    /// plugged in before is unplugged.
    pub async fn plug(&self, instance: &InstanceId, socket: OwnedFd) -> Result<(), SwitchError> {
        let (reply, answer) = oneshot::channel();
        let plugs = self.plugs.as_ref().ok_or(SwitchError::Ended)?;
        plugs.try_send(Plug { instance: instance.clone(), socket, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SwitchError::Busy,
            mpsc::error::TrySendError::Closed(_) => SwitchError::Ended,
        })?;
        answer.await.map_err(|_| SwitchError::Ended)?
    }

    /// The newest status, at most a second old. The channel closes when the thread has ended.
    pub fn status(&self) -> watch::Receiver<SwitchStatus> {
        self.status.clone()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // Closing the queue is the signal to end.
        self.plugs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the switch's thread had panicked");
        }
    }
}
