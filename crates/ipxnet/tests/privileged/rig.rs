//! Nodes on one underlay with a fabric and a relay each, and stations that the test holds itself.
use std::{
    collections::VecDeque,
    net::{SocketAddr, SocketAddrV4},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use fabric::{Fabric, FabricConfig, FabricSpec};
use ipxnet::{Report, Settings, serve};
use model::{InstanceId, Lan, NetworkMode, NodeName, Seat, Snapshot, Vni};
use testkit::{NetNs, Tap, Underlay, directory, eventually};
use tokio::{net::UdpSocket, sync::watch, task::JoinHandle, time::timeout};
use wire::{
    MacAddr,
    frame::{Class, Frame, FrameFormat},
    ipx::{Address, Packet},
    ipxnet::{Message, SOCKET},
};

/// Long enough for a busy machine; what it waits for takes milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const PORT: u16 = 213;
/// The socket of the test's own packets.
pub(crate) const GAME: u16 = 0x5100;

pub(crate) struct Rig {
    pub(crate) underlay: Underlay,
    configs: Vec<FabricConfig>,
    fabrics: Vec<Arc<Fabric>>,
    relays: Vec<(JoinHandle<()>, watch::Receiver<Report>)>,
}

fn node_name(index: u8) -> NodeName {
    format!("node-{index}").parse().unwrap()
}

fn instance(seat: u8) -> InstanceId {
    format!("instance-{seat}").parse().unwrap()
}

pub(crate) fn lan() -> Lan {
    let subnet = "10.98.0.0/24".parse().unwrap();
    Lan::new("party".parse().unwrap(), Vni::new(4200).unwrap(), NetworkMode::Vxlan, subnet, 9).unwrap()
}

/// MAC and node of the guest in a seat.
pub(crate) fn guest(seat: u8) -> MacAddr {
    lan().identity(Seat(seat)).unwrap().mac
}

impl Rig {
    /// `machines` on the underlay; the first `nodes` of them have a seat of the LAN (the node's number) and a relay.
    pub(crate) async fn new(machines: u8, nodes: u8, settings: impl Fn(u8) -> Settings) -> Self {
        let underlay = Underlay::new(machines).unwrap();
        let node = |index| directory::node(node_name(index).as_str(), Underlay::address(index));
        let seats =
            (0..nodes).map(|n| directory::guest(instance(n).as_str(), lan().name().as_str(), n, node_name(n).as_str()));
        let snapshot = Snapshot::new([lan()], (0..nodes).map(node), seats.collect::<Vec<_>>()).unwrap();
        let mut rig = Self { underlay, configs: Vec::new(), fabrics: Vec::new(), relays: Vec::new() };
        for index in 0..nodes {
            let config = FabricConfig {
                node: node_name(index),
                netns: NetNs::free_path(&format!("relay{index}")),
                underlay_ip: Underlay::address(index),
                vxlan_port: 14789,
                underlay_netns: Some(rig.underlay.node(index.into()).path().to_owned()),
                macvlan_parent: None,
                encryption: None,
            };
            rig.configs.push(config.clone());
            let fabric = Arc::new(Fabric::start(config, &prometheus::Registry::new()).await.unwrap());
            fabric.set_spec(FabricSpec::from_snapshot(&snapshot, &node_name(index)));
            rig.fabrics.push(Arc::clone(&fabric));
            let socket = rig.socket(index, PORT);
            let (tell, reports) = watch::channel(Report::default());
            let settings = settings(index);
            let task =
                tokio::spawn(async move { match serve(socket, fabric, lan().name().clone(), settings, tell).await {} });
            rig.relays.push((task, reports));
        }
        for index in 0..nodes {
            rig.until(index, |report| report.plugged).await;
        }
        rig
    }

    /// A UDP socket of a machine.
    pub(crate) fn socket(&self, machine: u8, port: u16) -> UdpSocket {
        let bind = || std::net::UdpSocket::bind((Underlay::address(machine), port));
        let socket = self.underlay.node(machine.into()).run(bind).unwrap().unwrap();
        socket.set_nonblocking(true).unwrap();
        UdpSocket::from_std(socket).unwrap()
    }

    /// Where the relay of a node listens.
    pub(crate) fn relay(node: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Underlay::address(node), PORT)
    }

    pub(crate) fn report(&self, node: u8) -> Report {
        self.relays[usize::from(node)].1.borrow().clone()
    }

    #[track_caller]
    pub(crate) fn until(&self, node: u8, mut holds: impl FnMut(&Report) -> bool) -> impl Future<Output = Report> {
        let reports = self.relays[usize::from(node)].1.clone();
        let caller = std::panic::Location::caller();
        async move {
            let probe = || {
                let report = reports.borrow().clone();
                holds(&report).then_some(report)
            };
            eventually(SOON, probe).await.unwrap_or_else(|error| panic!("{caller}: {error}; {:#?}", *reports.borrow()))
        }
    }

    /// The guest in the seat of a node, as QEMU would hold its tap.
    pub(crate) async fn station(&self, node: u8, format: FrameFormat) -> Station {
        let fd = self.fabrics[usize::from(node)].open_tap(&instance(node)).await.unwrap().net;
        Station { tap: Tap::from_fd(fd).unwrap(), mac: guest(node), format }
    }

    pub(crate) fn netns(&self, node: u8) -> &PathBuf {
        &self.configs[usize::from(node)].netns
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for (task, _) in &self.relays {
            task.abort();
        }
        self.fabrics.clear();
        for config in &self.configs {
            if let Err(error) = fabric::uninstall(config) {
                eprintln!("{}: {error}", config.netns.display());
            }
        }
    }
}

/// A guest that speaks IPX in one framing and hears no other, as they do.
pub(crate) struct Station {
    tap: Tap,
    pub(crate) mac: MacAddr,
    pub(crate) format: FrameFormat,
}

/// What somebody said: from which node, to which, what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) from: MacAddr,
    pub(crate) to: MacAddr,
    pub(crate) text: Vec<u8>,
}

pub(crate) fn packet(from: MacAddr, to: MacAddr, payload: &[u8]) -> Packet<'_> {
    let address = |node| Address { network: 0, node, socket: GAME };
    Packet { checksum: 0xffff, hops: 0, packet_type: 4, destination: address(to), source: address(from), payload }
}

fn heard(packet: &Packet<'_>) -> Heard {
    Heard { from: packet.source.node, to: packet.destination.node, text: packet.payload.to_vec() }
}

impl Station {
    /// As the guest's own driver would frame it.
    pub(crate) async fn say(&self, to: MacAddr, text: &[u8]) {
        let mut buffer = [0; 1500];
        let len = packet(self.mac, to, text).write(&mut buffer).unwrap();
        let header: &[u8] = match self.format {
            FrameFormat::EthernetII => &[0x81, 0x37],
            FrameFormat::Raw8023 => &[],
            FrameFormat::Llc => &[0xe0, 0xe0, 3],
            FrameFormat::Snap => &[0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0x37],
        };
        let mut frame = [to.0, self.mac.0].concat();
        if self.format != FrameFormat::EthernetII {
            frame.extend(u16::try_from(header.len() + len).unwrap().to_be_bytes());
        }
        frame.extend(header);
        frame.extend(&buffer[..len]);
        frame.resize(frame.len().max(60), 0);
        self.tap.send(&frame).await.unwrap();
    }

    /// The next packet in the station's framing. Frames of others, and packets that raw 802.3 stacks would not take, fail
    /// the test.
    pub(crate) async fn hear(&self) -> Heard {
        let next = async {
            loop {
                let bytes = self.tap.receive().await.unwrap();
                let frame = Frame::parse(&bytes).unwrap();
                if frame.class == Class::Ipx(self.format) {
                    let packet = frame.ipx().unwrap();
                    assert_eq!((packet.checksum, packet.source.node), (0xffff, frame.source));
                    return heard(&packet);
                }
                assert!(!matches!(frame.class, Class::Ipx(_)), "in a framing that nobody here uses: {frame:?}");
            }
        };
        timeout(SOON, next).await.expect("the station hears something")
    }
}

/// A tunnel client made of a socket.
pub(crate) struct Client {
    socket: UdpSocket,
    relay: SocketAddr,
    pub(crate) node: MacAddr,
    waiting: VecDeque<Heard>,
}

impl Client {
    pub(crate) async fn connect(socket: UdpSocket, relay: SocketAddrV4) -> Self {
        let mut client = Self { socket, relay: relay.into(), node: MacAddr::ZERO, waiting: VecDeque::new() };
        let mut buffer = [0; 30];
        let len = Message::Registration.write(&mut buffer).unwrap();
        client.socket.send_to(&buffer[..len], client.relay).await.unwrap();
        let bytes = client.receive().await;
        let Some(Message::Answer { node, server }) = Message::parse(&bytes) else { panic!("{bytes:?}") };
        assert_eq!(server.socket, SOCKET);
        client.node = node;
        client
    }

    async fn receive(&self) -> Vec<u8> {
        let mut buffer = [0; 2000];
        let (len, from) = timeout(SOON, self.socket.recv_from(&mut buffer)).await.expect("a datagram comes").unwrap();
        assert_eq!(from, self.relay);
        buffer[..len].to_vec()
    }

    pub(crate) async fn say(&self, to: MacAddr, text: &[u8]) {
        let mut buffer = [0; 1500];
        let len = packet(self.node, to, text).write(&mut buffer).unwrap();
        self.socket.send_to(&buffer[..len], self.relay).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> Heard {
        if let Some(heard) = self.waiting.pop_front() {
            return heard;
        }
        let bytes = self.receive().await;
        let Some(Message::Packet(packet)) = Message::parse(&bytes) else { panic!("{bytes:?}") };
        heard(&packet)
    }
}
