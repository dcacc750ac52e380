//! The thread: all LANs of the node that have the mode `socket`, and the tasks around them.
use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use fabric::{
    FabricSpec, LanSpec, PortCounters,
    desk::{Books, Desk, Round},
};
use model::{InstanceId, LanName, Seat, Vni};
use tokio::{
    net::UdpSocket,
    runtime,
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, LocalSet, spawn_local, yield_now},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    LanStatus, PeerStatus, Plug, PortStatus, SwitchConfig, SwitchError, SwitchStatus,
    port::{GuestSocket, Sent},
};
use crate::{
    FRAME_LEN_MAX,
    guard::{Guard, Rules},
    mesh,
    probe::{self, Liveness, Probe},
    table::{Port, Table, Targets},
};

/// How often every guest is asked whether it is there.
const QUESTION_INTERVAL: Duration = Duration::from_secs(2);
/// Counters are published this often.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Frames of one port at a time, before the others have their turn.
const FRAMES_AT_ONCE: u32 = 64;
/// Pause after a socket error, before it is used again.
const ERROR_PAUSE: Duration = Duration::from_millis(200);
/// One more than a frame may have, so that a longer one is seen to be longer.
const BUFFER_LEN: usize = FRAME_LEN_MAX + 1;

/// Runs until the handle is dropped.
pub(super) fn run(
    config: SwitchConfig,
    plugs: mpsc::Receiver<Plug>,
    wishes: watch::Receiver<Arc<FabricSpec>>,
    status: &watch::Sender<SwitchStatus>,
    ready: oneshot::Sender<Result<(), SwitchError>>,
) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(SwitchError::Thread(error)))),
    };
    LocalSet::new().block_on(&runtime, async {
        let udp = match UdpSocket::bind(config.underlay).await {
            Ok(udp) => Rc::new(udp),
            Err(source) => {
                let error = SwitchError::Listen { address: config.underlay, source };
                return drop(ready.send(Err(error)));
            }
        };
        drop(ready.send(Ok(())));
        let node = Rc::new(RefCell::new(Node::new(config, Rc::clone(&udp))));
        let listening = spawn_local(listen(Rc::clone(&node), udp));
        live(&node, plugs, wishes, status).await;
        listening.abort();
    });
}

async fn live(
    node: &Rc<RefCell<Node>>,
    mut plugs: mpsc::Receiver<Plug>,
    mut wishes: watch::Receiver<Arc<FabricSpec>>,
    status: &watch::Sender<SwitchStatus>,
) {
    let ticker = |every| {
        let mut ticker = interval(every);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticker
    };
    let (mut questions, mut probes, mut publish) =
        (ticker(QUESTION_INTERVAL), ticker(probe::INTERVAL), ticker(STATUS_INTERVAL));
    loop {
        tokio::select! {
            plug = plugs.recv() => {
                let Some(Plug { instance, socket, reply }) = plug else { return };
                node.borrow_mut().follow(&wishes.borrow_and_update());
                let socket = GuestSocket::new(socket)
                    .map_err(|source| SwitchError::Socket { instance: instance.clone(), source });
                // The asker may have gone: the socket stays all the same.
                drop(reply.send(socket.and_then(|socket| plug_in(node, &instance, socket))));
            }
            Ok(()) = wishes.changed() => node.borrow_mut().follow(&wishes.borrow_and_update()),
            _ = questions.tick() => { node.borrow_mut().ask(); continue }
            _ = probes.tick() => { node.borrow_mut().probe(); continue }
            _ = publish.tick() => {}
        }
        let news = node.borrow_mut().status();
        status.send_if_modified(|old| {
            let differs = *old != news;
            *old = news;
            differs
        });
    }
}

/// Frames of the other nodes.
async fn listen(node: Rc<RefCell<Node>>, udp: Rc<UdpSocket>) {
    let mut buffer = [0; mesh::HEADER_LEN + BUFFER_LEN];
    let mut in_a_row = 0;
    loop {
        match udp.recv_from(&mut buffer).await {
            Ok((len, from)) => node.borrow_mut().datagram(from, &buffer[..len]),
            // An ICMP error of an earlier datagram, or no memory: neither is about the next one.
            Err(error) => {
                tracing::debug!(%error, "the mesh's socket");
                sleep(ERROR_PAUSE).await;
            }
        }
        in_a_row += 1;
        if in_a_row >= FRAMES_AT_ONCE {
            in_a_row = 0;
            yield_now().await;
        }
    }
}

fn plug_in(node: &Rc<RefCell<Node>>, instance: &InstanceId, socket: GuestSocket) -> Result<(), SwitchError> {
    let socket = Rc::new(socket);
    let mut borrowed = node.borrow_mut();
    let (vni, seat) = borrowed.place(instance).ok_or_else(|| SwitchError::NoPort(instance.clone()))?;
    let reader = spawn_local(read(Rc::clone(node), vni, seat, Rc::clone(&socket)));
    if let Some(port) = borrowed.port(vni, seat) {
        port.plugged = Some(Plugged { socket, reader: reader.abort_handle() });
    }
    Ok(())
}

/// Frames of one guest, until it is unplugged.
async fn read(node: Rc<RefCell<Node>>, vni: Vni, seat: Seat, socket: Rc<GuestSocket>) {
    let mut buffer = [0; BUFFER_LEN];
    let mut in_a_row = 0;
    while let Ok(len @ 1..) = socket.receive(&mut buffer).await {
        node.borrow_mut().take_from_guest(vni, seat, &buffer[..len]);
        in_a_row += 1;
        if in_a_row >= FRAMES_AT_ONCE {
            in_a_row = 0;
            yield_now().await;
        }
    }
    node.borrow_mut().unplug(vni, seat, &socket);
}

/// A guest at its port. Dropping it ends the task that reads.
struct Plugged {
    socket: Rc<GuestSocket>,
    reader: AbortHandle,
}

impl Drop for Plugged {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

struct GuestPort {
    instance: InstanceId,
    guard: Guard,
    desk: Desk,
    plugged: Option<Plugged>,
    counters: PortCounters,
}

struct Lan {
    spec: LanSpec,
    table: Table,
    round: Round,
    ports: BTreeMap<Seat, GuestPort>,
    peers: BTreeMap<Ipv4Addr, Liveness>,
}

struct Node {
    rules: Rules,
    port: u16,
    udp: Rc<UdpSocket>,
    /// Times of the pure parts count from here.
    start: Instant,
    lans: BTreeMap<Vni, Lan>,
    books: Books,
    strays: u64,
    /// Frames for other nodes that the kernel did not take.
    unsent: u64,
}

impl Node {
    fn new(config: SwitchConfig, udp: Rc<UdpSocket>) -> Self {
        Self {
            rules: config.rules,
            port: config.underlay.port(),
            udp,
            start: Instant::now(),
            lans: BTreeMap::new(),
            books: Books::default(),
            strays: 0,
            unsent: 0,
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn place(&self, instance: &InstanceId) -> Option<(Vni, Seat)> {
        self.lans.iter().find_map(|(vni, lan)| {
            let (seat, _) = lan.ports.iter().find(|(_, port)| port.instance == *instance)?;
            Some((*vni, *seat))
        })
    }

    fn port(&mut self, vni: Vni, seat: Seat) -> Option<&mut GuestPort> {
        self.lans.get_mut(&vni)?.ports.get_mut(&seat)
    }

    /// Makes LANs and ports those of the directory; what stays keeps its guest and its counters.
    fn follow(&mut self, spec: &FabricSpec) {
        let (now, instant, rules) = (self.now(), Instant::now(), self.rules);
        self.lans.retain(|vni, _| spec.lans.contains_key(vni));
        for (vni, wanted) in &spec.lans {
            let lan = self.lans.entry(*vni).or_insert_with(|| Lan {
                spec: wanted.clone(),
                table: Table::default(),
                round: Round::of(wanted),
                ports: BTreeMap::new(),
                peers: BTreeMap::new(),
            });
            let readdressed = lan.spec.edge_ip != wanted.edge_ip;
            lan.ports.retain(|seat, port| {
                wanted.ports.get(seat).is_some_and(|wanted| wanted.instance == port.instance) && !readdressed
            });
            for (seat, port) in &wanted.ports {
                lan.ports.entry(*seat).or_insert_with(|| GuestPort {
                    instance: port.instance.clone(),
                    guard: Guard::new(port.identity.mac, rules, now),
                    desk: Desk::new(wanted, port, instant),
                    plugged: None,
                    counters: PortCounters::default(),
                });
            }
            lan.peers.retain(|address, _| wanted.peers.contains_key(address));
            for address in wanted.peers.keys() {
                lan.peers.entry(*address).or_default();
            }
            lan.table.set(cards(wanted));
            lan.round = Round::of(wanted);
            lan.spec = wanted.clone();
        }
        self.forget();
    }

    fn forget(&mut self) {
        let Self { lans, books, .. } = self;
        let is_plugged = |instance: &InstanceId| {
            lans.values()
                .flat_map(|lan| lan.ports.values())
                .any(|port| port.instance == *instance && port.plugged.is_some())
        };
        let is_asked = |lan: &LanName, instance: &InstanceId| lans.values().any(|ours| ours.round.asks(lan, instance));
        books.forget(is_plugged, is_asked);
    }

    fn take_from_guest(&mut self, vni: Vni, seat: Seat, frame: &[u8]) {
        let (now, instant) = (self.now(), Instant::now());
        let Some(port) = self.lans.get_mut(&vni).and_then(|lan| lan.ports.get_mut(&seat)) else { return };
        if port.guard.judge(now, frame).is_err() {
            return;
        }
        port.counters.tx_frames += 1;
        port.counters.tx_bytes += frame.len() as u64;
        if let Some(answer) = port.desk.hear(frame, instant, &mut self.books) {
            port.give(&answer);
        }
        self.forward(vni, Port::Seat(seat), frame);
    }

    /// Sends a frame on to wherever it goes. What comes from a guest has been judged.
    fn forward(&mut self, vni: Vni, from: Port, frame: &[u8]) {
        let now = self.now();
        let Self { lans, udp, port: udp_port, books, unsent, .. } = self;
        let Some(lan) = lans.get_mut(&vni) else { return };
        let mut out = |to: Port, ports: &mut BTreeMap<Seat, GuestPort>| match to {
            Port::Seat(seat) => {
                if let Some(port) = ports.get_mut(&seat) {
                    port.give(frame);
                }
            }
            Port::Edge => lan.round.note(frame, Instant::now(), SystemTime::now(), books),
            Port::Peer(address) => {
                if !send(udp, vni, SocketAddrV4::new(address, *udp_port), frame) {
                    *unsent += 1;
                }
            }
        };
        match lan.table.forward(now, from, frame) {
            Targets::Nobody => {}
            Targets::One(to) => out(to, &mut lan.ports),
            Targets::Flood { peers } => lan.table.flood(from, peers).for_each(|to| out(to, &mut lan.ports)),
        }
    }

    fn datagram(&mut self, from: SocketAddr, datagram: &[u8]) {
        let sender = match from.ip() {
            IpAddr::V4(address) if from.port() == self.port => Some(address),
            _ => None,
        };
        let parsed = sender.and_then(|sender| {
            let (vni, frame) = mesh::parse(datagram)?;
            let known = self.lans.get(&vni)?.peers.contains_key(&sender) && frame.len() <= FRAME_LEN_MAX;
            known.then_some((sender, vni, frame))
        });
        let Some((sender, vni, frame)) = parsed else {
            self.strays += 1;
            return;
        };
        match Probe::parse(frame) {
            Some(probe) => self.probed(vni, sender, &probe, frame.len()),
            None => self.forward(vni, Port::Peer(sender), frame),
        }
    }

    /// A question of another node's switch is answered in full length; an answer goes into the book.
    fn probed(&mut self, vni: Vni, sender: Ipv4Addr, probe: &Probe, len: usize) {
        let now = self.now();
        let Some(lan) = self.lans.get_mut(&vni) else { return };
        if probe.to != lan.spec.bridge_mac {
            return;
        }
        if !probe.is_answer {
            let to = SocketAddrV4::new(sender, self.port);
            self.unsent += u64::from(!send(&self.udp, vni, to, &probe.answer().frame(len)));
        } else if let Some(book) = lan.peers.get_mut(&sender) {
            book.hear(probe.number, now);
        }
    }

    fn probe(&mut self) {
        let now = self.now();
        for (vni, lan) in &mut self.lans {
            for (address, book) in &mut lan.peers {
                let Some(peer) = lan.spec.peers.get(address) else { continue };
                let number = book.ask(now);
                let probe = Probe { to: peer.bridge_mac, from: lan.spec.bridge_mac, is_answer: false, number };
                // One that cannot leave is a question without an answer, which is what it says.
                self.unsent +=
                    u64::from(!send(&self.udp, *vni, SocketAddrV4::new(*address, self.port), &probe.frame(60)));
            }
        }
    }

    /// Asks every guest whether it is there.
    fn ask(&mut self) {
        let now = Instant::now();
        let rounds: Vec<_> = self.lans.iter().map(|(vni, lan)| (*vni, lan.round.clone())).collect();
        for (vni, round) in rounds {
            let mut questions = Vec::new();
            round.ask(now, &mut self.books, |frame| {
                questions.push(frame.to_vec());
                true
            });
            for frame in &questions {
                self.forward(vni, Port::Edge, frame);
            }
        }
    }

    fn unplug(&mut self, vni: Vni, seat: Seat, socket: &Rc<GuestSocket>) {
        if let Some(port) = self.port(vni, seat)
            // Another guest may have been plugged in since.
            && port.plugged.as_ref().is_some_and(|plugged| Rc::ptr_eq(&plugged.socket, socket))
        {
            tracing::info!(instance = %port.instance, "unplugged");
            port.plugged = None;
        }
        self.forget();
    }

    fn status(&mut self) -> SwitchStatus {
        let now = self.now();
        let mut status =
            SwitchStatus { reachability: self.books.reachability(), strays: self.strays, ..SwitchStatus::default() };
        status.problems.extend(self.books.problems());
        for (vni, lan) in &mut self.lans {
            lan.table.age(now);
            let peers = lan.spec.peers.iter().filter_map(|(address, peer)| {
                let book = lan.peers.get(address)?;
                let told = PeerStatus { address: *address, alive: book.is_alive(), rtt: book.rtt(), loss: book.loss() };
                Some((peer.node.clone(), told))
            });
            let told = LanStatus { vni: *vni, seats: lan.spec.seats, peers: peers.collect() };
            status.lans.insert(lan.spec.name.clone(), told);
            for (seat, port) in &lan.ports {
                let told = PortStatus {
                    lan: lan.spec.name.clone(),
                    seat: *seat,
                    plugged: port.plugged.is_some(),
                    counters: port.counters,
                    refused: port.guard.refused().filter(|(_, count)| *count > 0).collect(),
                    address_in_use: self.books.addresses.get(&port.instance).copied(),
                };
                status.ports.insert(port.instance.clone(), told);
            }
        }
        if self.unsent > 0 {
            status.problems.push(format!(
                "{} frames for other nodes were not taken by the kernel; look at the underlay's link and routes",
                self.unsent
            ));
        }
        status
    }
}

impl GuestPort {
    /// A frame for the guest. Nobody plugged in: it goes nowhere, as on a cable without a card.
    fn give(&mut self, frame: &[u8]) {
        let Some(plugged) = &self.plugged else { return };
        match plugged.socket.send(frame) {
            Sent::Taken => {
                self.counters.rx_frames += 1;
                self.counters.rx_bytes += frame.len() as u64;
            }
            Sent::Dropped => self.counters.rx_dropped += 1,
            // Its reader sees the same and says so.
            Sent::Gone => {}
        }
    }
}

/// `false`: the kernel did not take it, as its queue is full or there is no way there.
fn send(udp: &UdpSocket, vni: Vni, to: SocketAddrV4, frame: &[u8]) -> bool {
    let mut datagram = [0; mesh::HEADER_LEN + FRAME_LEN_MAX];
    let Some(place) = datagram.get_mut(..mesh::HEADER_LEN + frame.len()) else { return false };
    let (header, body) = place.split_at_mut(mesh::HEADER_LEN);
    header.copy_from_slice(&mesh::header(vni));
    body.copy_from_slice(frame);
    udp.try_send_to(place, to.into()).is_ok()
}

/// Which card is where, as the directory says.
fn cards(lan: &LanSpec) -> impl Iterator<Item = (model::MacAddr, Port)> {
    let here = lan.ports.iter().map(|(seat, port)| (port.identity.mac, Port::Seat(*seat)));
    let elsewhere = lan.remote.values().map(|guest| (guest.identity.mac, Port::Peer(guest.vtep)));
    let nodes = lan.peers.iter().map(|(address, peer)| (peer.bridge_mac, Port::Peer(*address)));
    here.chain(elsewhere).chain(nodes).chain([(lan.edge_mac, Port::Edge), (lan.bridge_mac, Port::Edge)])
}
