//! The encrypted underlay: VXLAN's packets go through WireGuard, and there is no other way for them.
//!
//! ```text
//!  fabric's namespace          tunnel's namespace                      node's namespace
//!  tap ─ bridge ─ locovx… ──── VXLAN's UDP socket ─ route ─ locowg0 ──── WireGuard's UDP socket ── other nodes
//!                              10.99.0.11:14789      (kernel, or TUN)    10.99.0.11:51820
//! ```
//! **Addresses.** A node has inside the tunnel the address it has outside. That one is unique among the nodes already, the forwarding
//! tables stay what they are, and the two are in different namespaces, so they cannot be confused.
//!
//! **Invariants.** VXLAN's sockets are in a namespace whose only link is WireGuard's: a frame that cannot be encrypted is dropped there,
//! never sent plain. Each peer may send from, and is sent to, its own address only. Guests cannot reach the namespace: no frame of theirs
//! is in it but inside VXLAN. A peer whose key is not known gets nothing. The kernel's WireGuard outlives this process; the one in
//! user space does not.
mod gate;
mod kernel;
mod key;
mod place;
mod plan;
mod user;

use std::{
    collections::BTreeMap,
    fs::File,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use model::NodeName;
use rtnetlink::Handle;
use tokio::sync::{Notify, watch};

use crate::{FabricError, FabricSpec};
use kernel::Wires;
use place::Place;
use plan::{Change, Device, Peers, Wanted};
use user::{Seen, UserTunnel};

pub use key::{KeyPair, NotAKey, PublicKey};
pub(crate) use place::{path, remove_device};
pub use plan::Datapath;

/// The device, in the tunnel's namespace.
const DEVICE: &str = "locowg0";
/// WireGuard's usual UDP port.
pub const PORT: u16 = 51820;
/// After this long without a new handshake a session is dead (whitepaper, 6.1: Reject-After-Time).
const SESSION_MAX: Duration = Duration::from_mins(3);
/// A handshake that nobody answers is begun anew this often. WireGuard itself waits 5 s, and nodes are to be back sooner.
const RETRY: Duration = Duration::from_secs(2);
/// So long may the first handshake take before it is a problem.
const FIRST_MAX: Duration = Duration::from_secs(5);
/// Ages of one handshake that are read at different times differ by less than this; two handshakes by more.
const SAME: Duration = Duration::from_secs(2);
/// Of an underlay whose MTU is not known.
const USUAL_MTU: u32 = 1500;

/// What a peer publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerKey {
    pub key: PublicKey,
    /// UDP, at the node's underlay address.
    pub port: u16,
}

/// What is known of another node's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// `answers`: its agent was there when it was last asked.
    Key { key: PeerKey, answers: bool },
    /// It never answered. That is no problem: nodes come and go.
    Nothing,
    /// It answers, and can be no peer; in words, with the remedy.
    Wrong(String),
}

/// The other nodes' keys, by underlay address. Absent: not asked yet.
pub type Keys = BTreeMap<Ipv4Addr, Known>;

/// How the underlay is to be encrypted.
#[derive(Debug, Clone)]
pub struct WireguardConfig {
    pub keys: KeyPair,
    /// UDP, at this node's underlay address.
    pub port: u16,
    /// Followed for as long as the fabric runs.
    pub known: watch::Receiver<Keys>,
}

/// The tunnel as it is, read back from the kernel or from the thread that is the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelStatus {
    pub datapath: Datapath,
    pub key: PublicKey,
    pub port: u16,
    /// Of inner packets, in octets; VXLAN's packets that are longer go in two.
    pub mtu: u32,
    pub peers: Vec<TunnelPeer>,
    /// Datagrams at the port that were dropped, by reason: `form`, `stranger` (in user space), `kernel`.
    pub refused: BTreeMap<&'static str, u64>,
}

/// One other node in the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelPeer {
    pub node: NodeName,
    pub address: Ipv4Addr,
    pub key: PublicKey,
    /// Since the last handshake; `None`: there was none.
    pub handshake: Option<Duration>,
    /// Handshakes since this process knows the peer.
    pub handshakes: u64,
    /// Since the peer was last set up, WireGuard's own included.
    pub tx_bytes: u64,
    pub rx_bytes: u64,
}

/// What this process remembers about a peer.
#[derive(Debug, Clone, Copy)]
struct Page {
    known_since: Instant,
    begun: Instant,
    last: Option<Instant>,
    handshakes: u64,
}

/// This node's end of the encrypted underlay. Lives on the fabric's thread.
#[derive(Debug)]
pub(crate) struct Wireguard {
    config: WireguardConfig,
    address: Ipv4Addr,
    place: Place,
    wires: Wires,
    node: File,
    /// Found out at the first pass.
    datapath: Option<Datapath>,
    user: Option<UserTunnel>,
    pages: BTreeMap<PublicKey, Page>,
    device: Option<Device>,
    seen: Seen,
    wanted: Peers,
}

/// What one pass did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Changes written to the kernel.
    pub(crate) writes: u64,
    /// Whether a link, address or route of the tunnel's namespace had to be put right.
    pub(crate) mended: bool,
    /// Whether the namespace had to be mounted again.
    pub(crate) mounted: bool,
    pub(crate) problems: Vec<String>,
}

impl Wireguard {
    /// Makes or adopts the tunnel's namespace and leaves the calling thread in it. `node` is the node's namespace, with a netlink
    /// socket in it. Wakes `news` when keys come.
    pub(crate) fn open(
        config: WireguardConfig,
        fabric: &Path,
        address: Ipv4Addr,
        node: (File, Handle),
        news: Arc<Notify>,
    ) -> Result<Self, FabricError> {
        let path = path(fabric);
        let file = place::open(&path)?;
        crate::netns::enter(&path)?;
        let handle = crate::kernel::connect()?;
        let wires = Wires::open().map_err(FabricError::OpenNetlink)?;
        let mut known = config.known.clone();
        tokio::spawn(async move {
            while known.changed().await.is_ok() {
                news.notify_one();
            }
        });
        let (node, asked_from) = node;
        Ok(Self {
            config,
            address,
            place: Place::new(path, file, handle, asked_from),
            wires,
            node,
            datapath: None,
            user: None,
            pages: BTreeMap::new(),
            device: None,
            seen: Seen::default(),
            wanted: Peers::new(),
        })
    }

    pub(crate) const fn namespace(&self) -> &File {
        self.place.namespace()
    }

    /// A netlink socket in the tunnel's namespace: VXLAN devices that are asked for over it have their UDP sockets there.
    pub(crate) const fn handle(&self) -> &Handle {
        self.place.handle()
    }

    /// Brings device and peers to what they must be.
    pub(crate) async fn pass(&mut self, spec: &FabricSpec, underlay_mtu: Option<u32>) -> Done {
        let mut done = Done::default();
        match self.place.keep_mounted() {
            Ok(mounted) => done.mounted = mounted,
            Err(problem) => done.problems.push(problem),
        }
        if let Err(problem) = self.bring_up(underlay_mtu, &mut done).await {
            done.problems.push(problem);
            return done;
        }
        let (wanted, problems) = plan::peers(spec, &self.config.known.borrow(), self.config.keys.public());
        done.problems.extend(problems);
        self.wanted = wanted;
        self.read().await;
        let changes = plan::changes(&self.configured(), &self.wanted);
        if let Err(problem) = self.apply(&changes, &mut done).await {
            done.problems.push(problem);
        }
        self.read().await;
        done.problems.extend(self.silent(spec));
        done
    }

    async fn bring_up(&mut self, underlay_mtu: Option<u32>, done: &mut Done) -> Result<(), String> {
        let unreadable = |error: &rtnetlink::Error| {
            format!(
                "could not read the tunnel's namespace: {}; the agent needs CAP_NET_ADMIN",
                crate::kernel::io_error(error)
            )
        };
        let datapath = match self.datapath {
            Some(known) => known,
            None => self.find_datapath().await,
        };
        let seen = self.place.observe().await.map_err(|error| unreadable(&error))?;
        let wanted = Wanted { datapath, mtu: plan::mtu(underlay_mtu.unwrap_or(USUAL_MTU)), address: self.address };
        let steps = wanted.steps(seen.as_ref());
        if steps.contains(&plan::Step::Create(datapath)) {
            // It may still hold a device that somebody deleted.
            self.user = None;
        }
        let mends = !steps.is_empty() && self.device.is_some();
        for step in steps {
            tracing::debug!(?step, "step of the tunnel");
            self.place.perform(step).await?;
            done.writes += 1;
        }
        done.mended = mends;
        if datapath == Datapath::User && self.user.as_ref().is_none_or(UserTunnel::has_ended) {
            self.user = None;
            let node = self.node.try_clone().map_err(|error| format!("the node's namespace: {error}"))?;
            let listen = SocketAddrV4::new(self.address, self.config.port);
            self.user = Some(UserTunnel::start(self.place.open_tun()?, node, listen, &self.config.keys).await?);
        }
        self.device = self.place.observe().await.map_err(|error| unreadable(&error))?;
        Ok(())
    }

    async fn find_datapath(&mut self) -> Datapath {
        let found = if self.place.kernel_has_it().await { Datapath::Kernel } else { Datapath::User };
        tracing::info!(datapath = found.as_str(), key = %self.config.keys.public(), "the underlay is encrypted by WireGuard");
        self.datapath = Some(found);
        found
    }

    fn configured(&self) -> Peers {
        self.seen.peers.iter().map(|(key, (peer, _))| (*key, *peer)).collect()
    }

    async fn apply(&mut self, changes: &[Change], done: &mut Done) -> Result<(), String> {
        match self.datapath {
            Some(Datapath::Kernel) => {
                let failed = |error: std::io::Error| match error.raw_os_error() {
                    Some(nix::libc::EADDRINUSE) => port_taken(self.config.port),
                    _ => format!("could not set up `{DEVICE}`: {error}; the agent needs CAP_NET_ADMIN"),
                };
                let told = self.wires.read().await.map_err(failed)?;
                let orders = told.orders(&self.config.keys, self.config.port, changes);
                if !orders.is_empty() {
                    self.wires.apply(orders).await.map_err(failed)?;
                    done.writes += 1;
                }
            }
            Some(Datapath::User) if !changes.is_empty() => {
                if let Some(user) = &self.user {
                    user.apply(changes.to_vec()).await?;
                }
            }
            _ => {}
        }
        let now = Instant::now();
        for change in changes {
            if let Change::Add(key, _) = change {
                let page = Page { known_since: now, begun: now, last: None, handshakes: 0 };
                self.pages.entry(*key).or_insert(page).begun = now;
            }
        }
        self.pages.retain(|key, _| self.wanted.contains_key(key));
        Ok(())
    }

    /// Reads the tunnel back, and counts handshakes.
    async fn read(&mut self) {
        self.seen = match self.datapath {
            Some(Datapath::Kernel) => self.wires.read().await.map(|told| told.seen()).unwrap_or_default(),
            Some(Datapath::User) => match &self.user {
                Some(user) => user.read().await.unwrap_or_default(),
                None => Seen::default(),
            },
            None => Seen::default(),
        };
        let now = Instant::now();
        for (key, (_, peer)) in &self.seen.peers {
            let Some(page) = self.pages.get_mut(key) else { continue };
            let Some(at) = peer.handshake.and_then(|age| now.checked_sub(age)) else { continue };
            if page.last.is_none_or(|last| at.saturating_duration_since(last) > SAME) {
                page.handshakes += 1;
                page.last = Some(at);
            }
        }
    }

    /// Once a second: reads back, and begins handshakes anew that nobody answered. `false`: something is not as it was left.
    pub(crate) async fn glance(&mut self, spec: &FabricSpec, underlay_mtu: Option<u32>) -> bool {
        let Some(datapath) = self.datapath else { return false };
        let Ok(device) = self.place.observe().await else { return false };
        let wanted = Wanted { datapath, mtu: plan::mtu(underlay_mtu.unwrap_or(USUAL_MTU)), address: self.address };
        let is_whole = wanted.steps(device.as_ref()).is_empty();
        self.device = device;
        self.read().await;
        if !is_whole || !self.is_up() || self.configured() != self.wanted {
            return false;
        }
        let now = Instant::now();
        let dead = self.seen.peers.iter().filter(|(key, (_, peer))| {
            let is_due = self.pages.get(*key).is_none_or(|page| now.saturating_duration_since(page.begun) >= RETRY);
            is_due && peer.handshake.is_none_or(|age| age > SESSION_MAX)
        });
        let again: Vec<_> =
            dead.flat_map(|(key, (peer, _))| [Change::Remove(*key), Change::Add(*key, *peer)]).collect();
        let told = again.is_empty() || self.apply(&again, &mut Done::default()).await.is_ok();
        told && self.silent(spec).is_empty()
    }

    /// Nodes whose agents answer and with which no handshake completes. One that is away altogether is no problem of this node.
    fn silent(&self, spec: &FabricSpec) -> Vec<String> {
        let now = Instant::now();
        let nodes = plan::neighbours(spec);
        let known = self.config.known.borrow();
        let silent = self.seen.peers.iter().filter(|(key, (peer, _))| {
            let (since, limit) = match self.pages.get(*key) {
                Some(Page { last: Some(last), .. }) => (*last, SESSION_MAX),
                Some(page) => (page.known_since, FIRST_MAX),
                None => return false,
            };
            let answers = matches!(known.get(&peer.address), Some(Known::Key { answers: true, .. }));
            answers && now.saturating_duration_since(since) > limit
        });
        silent
            .filter_map(|(_, (peer, _))| Some((nodes.get(&peer.address)?, peer.endpoint)))
            .map(|(node, endpoint)| {
                format!(
                    "no WireGuard handshake completes with node `{node}`: let UDP pass to {endpoint} and back; if it passes, that node's agent has not read this node's key, which its own problems tell"
                )
            })
            .collect()
    }

    /// Whether packets can pass: the device is up, and who moves them lives.
    pub(crate) fn is_up(&self) -> bool {
        let alive = match self.datapath {
            Some(Datapath::Kernel) => true,
            Some(Datapath::User) => self.user.as_ref().is_some_and(|user| !user.has_ended()),
            None => false,
        };
        alive && self.device.as_ref().is_some_and(|device| device.up && device.routed && device.kind == self.datapath)
    }

    /// `None` while there is no tunnel.
    pub(crate) fn status(&self, spec: &FabricSpec) -> Option<TunnelStatus> {
        let (datapath, device) = (self.datapath?, self.device.as_ref()?);
        let nodes = plan::neighbours(spec);
        let peers = self.seen.peers.iter().filter_map(|(key, (peer, seen))| {
            Some(TunnelPeer {
                node: nodes.get(&peer.address)?.clone(),
                address: peer.address,
                key: *key,
                handshake: seen.handshake,
                handshakes: self.pages.get(key).map_or(0, |page| page.handshakes),
                tx_bytes: seen.tx_bytes,
                rx_bytes: seen.rx_bytes,
            })
        });
        let mut refused = self.seen.refused.clone();
        if datapath == Datapath::Kernel {
            refused.insert("kernel", device.refused);
        }
        let (key, port) = (self.config.keys.public(), self.config.port);
        Some(TunnelStatus { datapath, key, port, mtu: device.mtu, peers: peers.collect(), refused })
    }
}

fn port_taken(port: u16) -> String {
    format!("UDP port {port} of this node is in use; free it (`ss -lunp`), or give all agents another --wireguard-port")
}
