//! Some nodes with a fabric each, and a LAN `party` (VNI 4200) whose seats are placed as the test says.
use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use fabric::{
    Fabric, FabricConfig, FabricSpec, FabricStatus, OpenPort,
    wireguard::{self, KeyPair, Keys, Known, PeerKey, WireguardConfig},
};
use model::{InstanceId, Lan, MacAddr, NetworkMode, Node, NodeName, Seat, Snapshot, Vni};
use prometheus::Registry;
use testkit::{NetNs, Tap, Underlay, directory, eventually};
use tokio::sync::watch;

pub(crate) const VXLAN_PORT: u16 = 14789;
/// Longest wait for anything that should be there within milliseconds, on a machine that may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(5);

pub(crate) struct Cluster {
    pub(crate) fabrics: Vec<Option<Fabric>>,
    pub(crate) configs: Vec<FabricConfig>,
    pub(crate) underlay: Underlay,
    /// What each node knows of the others' WireGuard keys; empty without encryption.
    pub(crate) known: Vec<watch::Sender<Keys>>,
    /// Node of each seat, in order.
    places: Vec<usize>,
    mode: NetworkMode,
}

pub(crate) fn node_name(index: usize) -> NodeName {
    format!("node-{index}").parse().unwrap()
}

pub(crate) fn instance(seat: usize) -> InstanceId {
    format!("instance-{seat}").parse().unwrap()
}

pub(crate) fn party() -> Lan {
    party_of(NetworkMode::Vxlan)
}

fn party_of(mode: NetworkMode) -> Lan {
    let subnet = "10.98.0.0/24".parse().unwrap();
    Lan::new("party".parse().unwrap(), Vni::new(4200).unwrap(), mode, subnet, 9).unwrap()
}

pub(crate) fn mac(seat: usize) -> MacAddr {
    party().identity(Seat(u8::try_from(seat).unwrap())).unwrap().mac
}

pub(crate) fn ip(seat: usize) -> Ipv4Addr {
    party().identity(Seat(u8::try_from(seat).unwrap())).unwrap().ip
}

/// With its address on the underlay.
pub(crate) fn node_at(index: usize) -> Node {
    directory::node(node_name(index).as_str(), Underlay::address(u8::try_from(index).unwrap()))
}

pub(crate) fn snapshot(nodes: usize, places: &[usize]) -> Snapshot {
    snapshot_of(NetworkMode::Vxlan, nodes, places)
}

fn snapshot_of(mode: NetworkMode, nodes: usize, places: &[usize]) -> Snapshot {
    let instances = places.iter().enumerate().map(|(seat, at)| {
        directory::guest(instance(seat).as_str(), "party", u8::try_from(seat).unwrap(), node_name(*at).as_str())
    });
    Snapshot::new([party_of(mode)], (0..nodes).map(node_at), instances.collect::<Vec<_>>()).unwrap()
}

impl Cluster {
    /// `places[seat]` = node. Every fabric is in force when this returns.
    pub(crate) async fn new(nodes: usize, places: &[usize]) -> Self {
        Self::of_mode(NetworkMode::Vxlan, nodes, places, None).await
    }

    /// With a LAN of that mode; `parent`: what guests of mode `macvlan` are put on.
    pub(crate) async fn of_mode(mode: NetworkMode, nodes: usize, places: &[usize], parent: Option<&str>) -> Self {
        let mut cluster = Self::stopped(mode, nodes, places, parent);
        cluster.start_all().await;
        cluster
    }

    /// With WireGuard between the nodes, which know each other's keys.
    pub(crate) async fn encrypted(nodes: usize, places: &[usize]) -> Self {
        let mut cluster = Self::stopped(NetworkMode::Vxlan, nodes, places, None);
        cluster.known = (0..nodes).map(|_| watch::Sender::default()).collect();
        for index in 0..nodes {
            cluster.new_key(index);
        }
        cluster.start_all().await;
        cluster
    }

    async fn start_all(&mut self) {
        for index in 0..self.fabrics.len() {
            self.start(index).await;
            self.set_spec(index).await;
        }
    }

    /// Another key pair for the node, in force at its next start, and known to the others at once.
    pub(crate) fn new_key(&mut self, index: usize) {
        let keys = KeyPair::make();
        let known = self.known[index].subscribe();
        let published = PeerKey { key: keys.public(), port: wireguard::PORT };
        self.configs[index].encryption = Some(WireguardConfig { keys, port: wireguard::PORT, known });
        let address = self.configs[index].underlay_ip;
        for (_, other) in self.known.iter().enumerate().filter(|(other, _)| *other != index) {
            other.send_modify(|known| _ = known.insert(address, Known::Key { key: published, answers: true }));
        }
    }

    fn stopped(mode: NetworkMode, nodes: usize, places: &[usize], parent: Option<&str>) -> Self {
        let underlay = Underlay::new(u8::try_from(nodes).unwrap()).unwrap();
        let config = |index: usize| FabricConfig {
            node: node_name(index),
            netns: NetNs::free_path(&format!("fabric{index}")),
            underlay_ip: Underlay::address(u8::try_from(index).unwrap()),
            vxlan_port: VXLAN_PORT,
            underlay_netns: Some(underlay.node(index).path().to_owned()),
            macvlan_parent: parent.map(str::to_owned),
            encryption: None,
        };
        let configs = (0..nodes).map(config).collect();
        let fabrics = (0..nodes).map(|_| None).collect();
        Self { fabrics, configs, underlay, known: Vec::new(), places: places.to_vec(), mode }
    }

    pub(crate) async fn start(&mut self, index: usize) {
        let fabric = Fabric::start(self.configs[index].clone(), &Registry::new()).await.unwrap();
        self.fabrics[index] = Some(fabric);
    }

    /// Hands the node its spec and waits until a pass has seen it.
    pub(crate) async fn set_spec(&self, index: usize) {
        let snapshot = snapshot_of(self.mode, self.fabrics.len(), &self.places);
        let spec = FabricSpec::from_snapshot(&snapshot, &node_name(index));
        let seen = self.status(index).spec_seen;
        self.fabric(index).set_spec(spec);
        self.until(index, |status| status.spec_seen > seen).await;
    }

    /// Another placement; takes effect at the next [`Cluster::set_spec`].
    pub(crate) fn place(&mut self, places: &[usize]) {
        self.places = places.to_vec();
    }

    pub(crate) fn fabric(&self, index: usize) -> &Fabric {
        self.fabrics[index].as_ref().unwrap()
    }

    pub(crate) fn status(&self, index: usize) -> FabricStatus {
        self.fabric(index).status().borrow().clone()
    }

    pub(crate) fn netns(&self, index: usize) -> &PathBuf {
        &self.configs[index].netns
    }

    #[track_caller]
    pub(crate) fn until(
        &self,
        index: usize,
        mut holds: impl FnMut(&FabricStatus) -> bool,
    ) -> impl Future<Output = FabricStatus> {
        let status = self.fabric(index).status();
        let caller = std::panic::Location::caller();
        async move {
            let probe = || {
                let now = status.borrow().clone();
                holds(&now).then_some(now)
            };
            eventually(SOON, probe).await.unwrap_or_else(|error| panic!("{caller}: {error}; {:#?}", *status.borrow()))
        }
    }

    /// The tap of a seat, as QEMU would hold it.
    pub(crate) async fn tap(&self, seat: usize) -> Tap {
        Tap::from_fd(self.port(seat).await.net).unwrap()
    }

    /// All that a runner is given of a seat's port.
    pub(crate) async fn port(&self, seat: usize) -> OpenPort {
        self.fabric(self.places[seat]).open_tap(&instance(seat)).await.unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.fabrics.clear();
        for config in &self.configs {
            if let Err(error) = fabric::uninstall(config) {
                eprintln!("{}: {error}", config.netns.display());
            }
        }
    }
}

/// `ip`-free access to a namespace's links and tables.
pub(crate) mod netlink {
    use std::path::Path;

    use futures_util::TryStreamExt;
    use rtnetlink::Handle;
    use testkit::NetNs;

    /// Runs `work` with a netlink handle inside the namespace.
    pub(crate) fn inside<T: Send>(netns: &Path, work: impl AsyncFnOnce(Handle) -> T + Send) -> T {
        let connect = || {
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            handle
        };
        NetNs::run_at(netns, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { work(connect()).await })
        })
        .unwrap()
    }

    pub(crate) async fn index(handle: &Handle, name: &str) -> u32 {
        let mut links = Box::pin(handle.link().get().match_name(name).execute());
        links.try_next().await.unwrap().unwrap().header.index
    }
}
