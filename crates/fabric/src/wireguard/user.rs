//! WireGuard in this process, for kernels without: GotaTun between a TUN device and a UDP socket, on a thread of its own.
//!
//! ```text
//!   VXLAN ─> TUN, in the tunnel's namespace ─> this thread ─> UDP socket, in the node's namespace
//! ```
//! **Queues.** The device's ring holds 2,000 packets, the socket's buffer 4 MiB, and GotaTun 4,000 packets between its tasks each way.
//! When the tasks' queues are full, nothing is read; when the kernel's are full, it drops the newest.
//!
//! **Invariant.** When this process dies, its tunnel is away: what VXLAN sends meanwhile is dropped at the device, never sent plain.
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    net::{IpAddr, SocketAddrV4},
    os::fd::OwnedFd,
    sync::Arc,
    thread,
    time::Duration,
};

use gotatun::{
    device::{self, Device, Peer},
    packet::{Ip, Packet, PacketBufPool},
    tun::{IpRecv, IpSend, MtuWatcher},
};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
};
use tokio::{
    io::unix::AsyncFd,
    runtime,
    sync::{mpsc, oneshot},
};

use super::{
    KeyPair, PublicKey,
    gate::{Doors, Gate},
    plan::{Change, MTU_MAX, PeerConfig},
};
use crate::FabricError;

/// Orders that may wait for the thread. The fabric gives one at a time and waits for its answer.
const ORDERS_MAX: usize = 4;
/// Packets that are read from the device at once, so that neither direction starves the other.
const BATCH: usize = 64;

/// What is known about one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PeerSeen {
    /// Since the last handshake.
    pub(crate) handshake: Option<Duration>,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_bytes: u64,
}

/// What is read back from either datapath.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    pub(crate) peers: BTreeMap<PublicKey, (PeerConfig, PeerSeen)>,
    pub(crate) refused: BTreeMap<&'static str, u64>,
}

enum Order {
    Apply(Vec<Change>, oneshot::Sender<Result<(), String>>),
    Read(oneshot::Sender<Seen>),
}

/// The running tunnel. Dropping it ends the thread and lets go of device and port.
#[derive(Debug)]
pub(crate) struct UserTunnel {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl UserTunnel {
    /// `device` is an attached TUN device, `node` the namespace that has `listen`.
    pub(crate) async fn start(
        device: OwnedFd,
        node: File,
        listen: SocketAddrV4,
        keys: &KeyPair,
    ) -> Result<Self, String> {
        let (orders, waiting) = mpsc::channel(ORDERS_MAX);
        let (ready, started) = oneshot::channel();
        let keys = keys.clone();
        let thread = thread::Builder::new()
            .name("wireguard".to_owned())
            .spawn(move || run(device, &node, listen, &keys, waiting, ready))
            .map_err(|error| FabricError::SpawnThread(error).to_string())?;
        let tunnel = Self { orders: Some(orders), thread: Some(thread) };
        started.await.unwrap_or_else(|_| Err("the WireGuard thread ended at once; see the agent's log".to_owned()))?;
        Ok(tunnel)
    }

    /// Whether it has ended, which it does when its device was deleted.
    pub(crate) fn has_ended(&self) -> bool {
        self.orders.as_ref().is_none_or(mpsc::Sender::is_closed)
    }

    pub(crate) async fn apply(&self, changes: Vec<Change>) -> Result<(), String> {
        let ended = || "the WireGuard tunnel has ended; it is started again".to_owned();
        let (reply, answer) = oneshot::channel();
        let orders = self.orders.as_ref().ok_or_else(ended)?;
        orders.send(Order::Apply(changes, reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    pub(crate) async fn read(&self) -> Option<Seen> {
        let (reply, answer) = oneshot::channel();
        self.orders.as_ref()?.send(Order::Read(reply)).await.ok()?;
        answer.await.ok()
    }
}

impl Drop for UserTunnel {
    fn drop(&mut self) {
        drop(self.orders.take());
        // The port is free for the next agent when this returns.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the WireGuard thread had panicked");
        }
    }
}

type Tunnel = Device<(Doors, Tun, Tun)>;

fn run(
    tun: OwnedFd,
    node: &File,
    listen: SocketAddrV4,
    keys: &KeyPair,
    orders: mpsc::Receiver<Order>,
    ready: oneshot::Sender<Result<(), String>>,
) {
    let start = || -> io::Result<(runtime::Runtime, Tun)> {
        setns(node, CloneFlags::CLONE_NEWNET)?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let tun = runtime.block_on(async { Tun::new(tun) })?;
        Ok((runtime, tun))
    };
    let (runtime, tun) = match start() {
        Ok(started) => started,
        Err(error) => return drop(ready.send(Err(format!("could not start WireGuard in user space: {error}")))),
    };
    runtime.block_on(async {
        let gate = Arc::new(Gate::default());
        let device = device::build()
            .with_udp(Doors { address: *listen.ip(), gate: Arc::clone(&gate) })
            .with_ip(tun)
            .with_private_key(keys.secret().clone())
            .with_listen_port(listen.port())
            .build()
            .await;
        match device {
            Ok(device) => {
                drop(ready.send(Ok(())));
                serve(device, &gate, listen, orders).await;
            }
            Err(error) => drop(ready.send(Err(bind_problem(listen, &error)))),
        }
    });
}

async fn serve(mut tunnel: Tunnel, gate: &Gate, listen: SocketAddrV4, mut orders: mpsc::Receiver<Order>) {
    let mut peers = BTreeMap::new();
    let mut first = true;
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            () = tunnel.wait() => None,
        };
        match order {
            None => return tunnel.stop().await,
            Some(Order::Read(reply)) => drop(reply.send(read(&tunnel, gate, &peers).await)),
            Some(Order::Apply(changes, reply)) => {
                for change in &changes {
                    match *change {
                        Change::Remove(key) => _ = peers.remove(&key),
                        Change::Add(key, peer) => _ = peers.insert(key, peer),
                    }
                }
                gate.admit(peers.values().map(|peer| peer.address).collect());
                let done = apply(&tunnel, &changes, first).await;
                first = false;
                // Without a socket there is no tunnel: the fabric starts the next one.
                let failed = done.is_err();
                drop(reply.send(done.map_err(|error| bind_problem(listen, &error))));
                if failed {
                    return tunnel.stop().await;
                }
            }
        }
    }
}

/// GotaTun opens its socket when it is told to, which is needed once.
async fn apply(tunnel: &Tunnel, changes: &[Change], first: bool) -> Result<(), device::Error> {
    tunnel
        .write(async |device| {
            if first {
                device.clear_peers();
            }
            for change in changes {
                match *change {
                    Change::Remove(key) => _ = device.remove_peer(&key.0.into()).await,
                    Change::Add(key, peer) => {
                        let inner = IpAddr::V4(peer.address).into();
                        let peer = Peer::new(key.0.into()).with_endpoint(peer.endpoint.into()).with_allowed_ip(inner);
                        device.add_or_update_peer(peer).await;
                    }
                }
            }
        })
        .await
}

async fn read(tunnel: &Tunnel, gate: &Gate, configured: &BTreeMap<PublicKey, PeerConfig>) -> Seen {
    let octets = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let mut seen = Seen { peers: BTreeMap::new(), refused: gate.refused().into() };
    for told in tunnel.peers().await {
        let key = PublicKey(told.peer.public_key.to_bytes());
        let Some(config) = configured.get(&key) else { continue };
        let stats = PeerSeen {
            handshake: told.stats.last_handshake,
            tx_bytes: octets(told.stats.tx_bytes),
            rx_bytes: octets(told.stats.rx_bytes),
        };
        seen.peers.insert(key, (*config, stats));
    }
    seen
}

fn bind_problem(listen: SocketAddrV4, error: &device::Error) -> String {
    match error {
        device::Error::Bind(error, _) if error.kind() == io::ErrorKind::AddrInUse => super::port_taken(listen.port()),
        device::Error::Bind(error, _) => format!("could not listen at UDP {listen} for WireGuard: {error}"),
        other => format!("WireGuard in user space: {other}"),
    }
}

/// The inner end: whole IP packets from and to the kernel.
#[derive(Clone)]
struct Tun(Arc<AsyncFd<OwnedFd>>);

impl Tun {
    fn new(device: OwnedFd) -> io::Result<Self> {
        // SAFETY: the `AsyncFd` owns the open fd, and nothing replaces it while it does.
        #[expect(unsafe_code, reason = "tokio has no safe constructor any more")]
        let device = unsafe { AsyncFd::register(device) }?;
        Ok(Self(Arc::new(device)))
    }

    /// What waits, `BATCH` at the most; an error only when there was nothing before it.
    fn drain(&self, pool: &PacketBufPool) -> io::Result<Vec<Packet<Ip>>> {
        let mut packets = Vec::new();
        while packets.len() < BATCH {
            let mut packet = pool.get();
            match nix::unistd::read(&self.0, &mut packet) {
                Ok(len) => {
                    packet.truncate(len);
                    // What is no IP packet is for nobody.
                    packets.extend(packet.try_into_ip().ok());
                }
                Err(_) if !packets.is_empty() => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(packets)
    }
}

impl IpRecv for Tun {
    async fn recv<'a>(
        &'a mut self,
        pool: &mut PacketBufPool,
    ) -> io::Result<impl Iterator<Item = Packet<Ip>> + Send + 'a> {
        loop {
            let mut guard = self.0.readable().await?;
            if let Ok(packets) = guard.try_io(|_| self.drain(pool)) {
                return packets.map(Vec::into_iter);
            }
        }
    }

    fn mtu(&self) -> MtuWatcher {
        // How far packets are padded at the most; the kernel keeps them to the device's MTU.
        MtuWatcher::new(u16::try_from(MTU_MAX).unwrap_or(u16::MAX))
    }
}

impl IpSend for Tun {
    async fn send(&mut self, packet: Packet<Ip>) -> io::Result<()> {
        match nix::unistd::write(&self.0, &packet.into_bytes()) {
            // Down for a moment, or out of memory: the packet is lost, as on a wire. A device that is gone ends the tunnel.
            Err(Errno::EIO | Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => Ok(()),
            written => Ok(written.map(drop)?),
        }
    }
}
