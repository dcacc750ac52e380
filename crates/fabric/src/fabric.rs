//! The handle that others hold: it sends wishes to the fabric's thread and reads its status.
use std::{
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{InstanceId, LanName, NodeName};
use tokio::sync::{oneshot, watch};

use crate::{
    FabricError, FabricSpec, FabricStatus, Repairs, Station, metrics, netns, reconcile,
    wireguard::{self, WireguardConfig},
    worker::{Unanswered, Worker},
};

/// Requests that may wait for the thread. Full = [`FabricError::Busy`]: a runner asks once per start and retries.
const REQUESTS_MAX: usize = 16;

/// Where a node's fabric lives.
#[derive(Debug, Clone)]
pub struct FabricConfig {
    pub node: NodeName,
    /// Where the fabric's namespace is bind-mounted; adopted when it is there.
    pub netns: PathBuf,
    /// Local VTEP address.
    pub underlay_ip: Ipv4Addr,
    /// UDP port of VXLAN on all nodes.
    pub vxlan_port: u16,
    /// The namespace that has `underlay_ip`; `None` = the one this process runs in.
    pub underlay_netns: Option<PathBuf>,
    /// The node's card under LANs of mode `macvlan`; `None` = the one with `underlay_ip`.
    pub macvlan_parent: Option<String>,
    /// `None`: frames between nodes are not encrypted.
    pub encryption: Option<WireguardConfig>,
}

/// What QEMU is given of a guest's port.
#[derive(Debug)]
pub struct OpenPort {
    /// A tap's or macvtap's descriptor.
    pub net: OwnedFd,
    /// For a macvtap: to be kept open for as long as `net` is. By it everybody sees that the port is held.
    pub hold: Option<OwnedFd>,
}

impl OpenPort {
    pub(crate) const fn of_tap(net: OwnedFd) -> Self {
        Self { net, hold: None }
    }
}

/// A request to the thread: a tap.
#[derive(Debug)]
pub(crate) struct OpenTap {
    pub(crate) whose: Whose,
    pub(crate) reply: oneshot::Sender<Result<OpenPort, FabricError>>,
}

#[derive(Debug)]
pub(crate) enum Whose {
    Guest(InstanceId),
    /// A program of this node, in that LAN.
    Station(LanName),
}

/// A spec and its number; `None` until the first one, so that nothing is removed before anybody said what is wanted.
pub(crate) type Wish = (u64, Option<Arc<FabricSpec>>);

/// A running fabric. Dropping it ends the thread and changes nothing in the kernel: frames flow on.
#[derive(Debug)]
pub struct Fabric {
    thread: Worker<OpenTap>,
    wishes: watch::Sender<Wish>,
    status: watch::Receiver<FabricStatus>,
    repairs: Repairs,
}

impl Fabric {
    /// Creates or adopts the namespace and starts the thread. Changes nothing else until [`Fabric::set_spec`].
    pub async fn start(config: FabricConfig, registry: &prometheus::Registry) -> Result<Self, FabricError> {
        let (wishes, wishes_rx) = watch::channel((0, None));
        let (status_tx, status) = watch::channel(FabricStatus::default());
        let (ready, started) = oneshot::channel();
        metrics::register(registry, status.clone())?;
        let repairs = Repairs::register(registry)?;
        let counted = repairs.clone();
        let work = move |requests| reconcile::run(&config, requests, wishes_rx, &status_tx, counted, ready);
        // Waiting for its end keeps a successor from meeting two answers to one DHCP request.
        let thread = Worker::start("fabric", REQUESTS_MAX, work).map_err(FabricError::SpawnThread)?;
        started.await.map_err(|_| FabricError::Ended)??;
        Ok(Self { thread, wishes, status, repairs })
    }

    /// What the node must have from now on. Returns at once; the outcome is in the status (`spec_seen`).
    pub fn set_spec(&self, spec: FabricSpec) {
        self.wishes.send_modify(|(number, wish)| {
            *number += 1;
            *wish = Some(Arc::new(spec));
        });
    }

    /// The newest status. The channel closes when the fabric's thread has ended, which happens before the drop only after a panic.
    pub fn status(&self) -> watch::Receiver<FabricStatus> {
        self.status.clone()
    }

    /// What was mended, for whoever mends something of the LAN outside of the fabric.
    pub fn repairs(&self) -> Repairs {
        self.repairs.clone()
    }

    /// Opens the tap or macvtap of `instance` for QEMU: non-blocking, close-on-exec, with a virtio header in front of each frame
    /// (`IFF_VNET_HDR`), as QEMU's `-netdev tap,fd=` expects. Makes a pass first if the device is missing.
    pub async fn open_tap(&self, instance: &InstanceId) -> Result<OpenPort, FabricError> {
        self.ask(Whose::Guest(instance.clone())).await
    }

    /// Makes this process a station of the LAN, with a port of its own at the LAN's bridge on this node; one per LAN and
    /// node. The port stays plugged in for as long as the station lives, also when the bridge is made anew.
    ///
    /// # Errors
    /// [`FabricError::NoLan`] while no instance of the LAN has its seat here, so that there is no bridge.
    pub async fn open_station(&self, lan: &LanName) -> Result<Station, FabricError> {
        Station::of(self.ask(Whose::Station(lan.clone())).await?.net)
    }

    async fn ask(&self, whose: Whose) -> Result<OpenPort, FabricError> {
        let answer = self.thread.ask(|reply| OpenTap { whose, reply }).await;
        answer.unwrap_or_else(|unanswered| {
            Err(match unanswered {
                Unanswered::Full => FabricError::Busy { limit: REQUESTS_MAX },
                Unanswered::Ended => FabricError::Ended,
            })
        })
    }

    /// Ends the thread and waits for it, while others still hold the fabric: whoever asks for something then is told
    /// [`FabricError::Ended`]. Nothing changes in the kernel. A second call does nothing.
    pub async fn end(&self) {
        self.thread.end().await;
    }
}

/// Makes the namespace at `path`, unless it is there, the one for an encrypted underlay beside it, and sets what must be set inside; for a program with more rights than the
/// agent that comes after it. The problems are sentences: a namespace with them can be used.
///
/// # Errors
/// When there is no namespace in the end.
pub fn prepare(path: &Path) -> Result<Vec<String>, FabricError> {
    let tunnels = wireguard::path(path);
    netns::ensure(path)?;
    netns::ensure(&tunnels)?;
    let mut problems = netns::settle(path)?;
    problems.extend(netns::settle(&tunnels)?);
    Ok(problems)
}

/// Whether a namespace stands at `path`: then an agent needs no right to mount.
pub fn is_prepared(path: &Path) -> bool {
    netns::is_mounted(path)
}

/// Removes all that the fabric of `config` made: links, mount, namespace. Blocks for some milliseconds.
/// Guests that still run are cut off. Nothing there is a success.
pub fn uninstall(config: &FabricConfig) -> Result<(), FabricError> {
    netns::uninstall(&config.netns)
}
