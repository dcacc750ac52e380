//! Our own LANs on two nodes: one of the kernel's devices alone, one with the programs at its taps, one of the agents' switch.
use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    net::SocketAddrV4,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use fabric::{Fabric, FabricConfig, FabricSpec};
use model::{InstanceId, Lan, NetworkMode, Node, PlacedInstance, Seat, Snapshot, Vni};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use switch::{Switch, SwitchConfig};
use testkit::{NetNs, Underlay, eventually};
use tokio::sync::watch;
use traffic::{Event, Traffic, TrafficConfig, Wanted};

const SWITCH_PORT: u16 = 14790;
/// Node of each seat, of each LAN: pairs (0, 1) on one node, (2, 3) on two, and the same again for QEMUs.
const PLACES: [usize; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
const LIMIT: Duration = Duration::from_secs(20);

/// The LANs, by name and VNI.
#[derive(Clone, Copy)]
pub(crate) enum Of {
    /// Bridge, tunnel and taps.
    Kernel,
    /// The same with what an agent attaches: counters, events, guard.
    Guarded,
    Switch,
}

impl Of {
    const ALL: [Self; 3] = [Self::Kernel, Self::Guarded, Self::Switch];

    const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Guarded => "guarded",
            Self::Switch => "switch",
        }
    }

    fn lan(self) -> anyhow::Result<Lan> {
        let (vni, mode, subnet) = match self {
            Self::Kernel => (4200, NetworkMode::Vxlan, "10.98.0.0/24"),
            Self::Guarded => (4201, NetworkMode::Vxlan, "10.98.1.0/24"),
            Self::Switch => (4202, NetworkMode::Socket, "10.98.2.0/24"),
        };
        Ok(Lan::new(self.name().parse()?, Vni::new(vni)?, mode, subnet.parse()?, 9)?)
    }

    fn instance(self, seat: usize) -> anyhow::Result<InstanceId> {
        Ok(format!("{}-{seat}", self.name()).parse()?)
    }

    /// Of a seat's card: the guard lets no other send.
    pub(crate) fn mac(self, seat: u8) -> anyhow::Result<[u8; 6]> {
        Ok(self.lan()?.identity(Seat(seat))?.mac.0)
    }
}

pub(crate) struct Ours {
    switches: Vec<Switch>,
    /// With what they tell, which nobody reads: a queue that is full loses the newest.
    watchers: Vec<(Traffic, watch::Sender<Option<Wanted>>, tokio::sync::mpsc::Receiver<Event>)>,
    fabrics: Vec<Fabric>,
    configs: Vec<FabricConfig>,
    pins: Vec<std::path::PathBuf>,
}

impl Ours {
    pub(crate) async fn new(underlay: &Underlay) -> anyhow::Result<Self> {
        let node = |index: u8| Node {
            name: format!("node-{index}").parse().expect("a name"),
            underlay_ip: Underlay::address(index),
            agent_url: String::new(),
        };
        let mut placed = Vec::new();
        for of in Of::ALL {
            for (seat, at) in (0u8..).zip(PLACES) {
                let node = format!("node-{at}").parse()?;
                placed.push(PlacedInstance {
                    id: of.instance(seat.into())?,
                    lan: of.name().parse()?,
                    seat: Seat(seat),
                    node,
                    card: None,
                });
            }
        }
        let lans = Of::ALL.map(Of::lan).into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let snapshot = Snapshot::new(lans, [node(0), node(1)], placed)?;
        let mut ours = Self {
            switches: Vec::new(),
            watchers: Vec::new(),
            fabrics: Vec::new(),
            configs: Vec::new(),
            pins: Vec::new(),
        };
        for index in 0..2u8 {
            ours.start_node(index, underlay.node(usize::from(index)), &snapshot).await?;
        }
        Ok(ours)
    }

    async fn start_node(&mut self, index: u8, netns: &NetNs, snapshot: &Snapshot) -> anyhow::Result<()> {
        let config = FabricConfig {
            node: format!("node-{index}").parse()?,
            netns: NetNs::free_path(&format!("bench{index}")),
            underlay_ip: Underlay::address(index),
            vxlan_port: 14789,
            underlay_netns: Some(netns.path().to_owned()),
            macvlan_parent: None,
            encryption: None,
        };
        self.configs.push(config.clone());
        let spec = FabricSpec::from_snapshot(snapshot, &config.node);
        let fabric = Fabric::start(config.clone(), &prometheus::Registry::new()).await?;
        let mut kernels = spec.clone();
        kernels.lans.retain(|_, lan| lan.mode.needs_kernel());
        fabric.set_spec(kernels);
        let mut status = fabric.status();
        let settled = status.wait_for(|status| status.spec_seen > 0).await?.clone();
        ensure!(settled.problems.is_empty(), "the fabric has problems: {}", settled.problems.join("; "));
        self.fabrics.push(fabric);

        let guarded =
            spec.lans.values().find(|lan| lan.name.as_str() == Of::Guarded.name()).context("the LAN is there")?;
        let mut wanted = Wanted::default();
        for port in guarded.ports.values() {
            let tap = settled.ports.get(&port.instance).context("each seat has a port")?.tap.clone();
            wanted.ports.insert(port.instance.clone(), tap);
            wanted.guards.insert(port.instance.clone(), (port.identity.mac, guarded.guard));
        }
        wanted.tunnels.insert(guarded.name.clone(), fabric::tunnel_name(guarded.vni));
        wanted.answers = BTreeMap::from([(guarded.name.clone(), guarded.bridge_mac)]);
        let ports = wanted.ports.len();
        let bpffs = NetNs::free_path(&format!("bpf{index}"));
        self.pins.push(bpffs.clone());
        let (told, wants) = watch::channel(Some(wanted));
        let config = TrafficConfig { netns: config.netns, bpffs, attach: None };
        let (traffic, events) = Traffic::start(config, wants).await?;
        let mut report = traffic.report();
        let watched = report.wait_for(|report| report.refused.len() == ports);
        tokio::time::timeout(LIMIT, watched).await.context("the guard is not at all taps")??;
        self.watchers.push((traffic, told, events));

        // Its sockets are of the namespace in which it was started.
        let underlay = SocketAddrV4::new(Underlay::address(index), SWITCH_PORT);
        let switch = netns.block_on(Switch::start(SwitchConfig { underlay }, Box::new(())))??;
        switch.set_spec(&spec);
        self.switches.push(switch);
        Ok(())
    }

    pub(crate) async fn tap(&self, of: Of, seat: usize) -> anyhow::Result<OwnedFd> {
        Ok(self.fabrics[PLACES[seat]].open_tap(&of.instance(seat)?).await?.net)
    }

    /// The guest's end of a cable whose other end is at the seat's port of the switch.
    pub(crate) async fn cable(&self, seat: usize) -> anyhow::Result<OwnedFd> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        self.switches[PLACES[seat]].plug(&Of::Switch.instance(seat)?, theirs).await?;
        Ok(ours)
    }

    /// Until the switches of both nodes hear each other.
    pub(crate) async fn meshed(&self) -> anyhow::Result<()> {
        for switch in &self.switches {
            let alive = || {
                let status = switch.status().borrow().clone();
                status
                    .lans
                    .values()
                    .flat_map(|lan| lan.peers.values())
                    .any(|peer| peer.alive == Some(true))
                    .then_some(())
            };
            eventually(LIMIT, alive).await?;
        }
        Ok(())
    }
}

/// A cable's end as what the bench sends and receives at.
pub(crate) fn cable_end(cable: OwnedFd) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::from(cable);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.switches.clear();
        self.watchers.clear();
        self.fabrics.clear();
        for config in &self.configs {
            if let Err(error) = fabric::uninstall(config) {
                drop(writeln!(io::stderr(), "{error}"));
            }
        }
        for pins in &self.pins {
            if let Err(error) = traffic::uninstall(pins) {
                drop(writeln!(io::stderr(), "{error}"));
            }
            std::fs::remove_dir(pins).ok();
        }
    }
}
