//! The thread: all LANs of the node that have the mode `socket`, and the tasks around them.
use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use fabric::{
    FabricSpec, LanSpec, PortCounters,
    desk::{Books, Desk, Round},
};
use model::{InstanceId, LanName, Seat, Vni};
use tokio::{
    runtime,
    sync::{Notify, mpsc, oneshot, watch},
    task::{AbortHandle, LocalSet, spawn_local, yield_now},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    LanStatus, PeerStatus, Plug, PortStatus, Sight, SwitchConfig, SwitchError, SwitchStatus, Way, Wish,
    mesh_socket::MeshSocket,
    outlet::{Gave, Outlet, Wake},
    port::GuestSocket,
};
use crate::{
    FRAME_LEN_MAX,
    guard::Guard,
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

/// Pause before the mesh's port is tried again: a predecessor may be about to end.
const LISTEN_AGAIN: Duration = Duration::from_millis(50);

/// Runs until the handle is dropped.
pub(super) fn run(
    config: SwitchConfig,
    sight: Box<dyn Sight>,
    plugs: mpsc::Receiver<Plug>,
    wishes: watch::Receiver<Wish>,
    status: &watch::Sender<SwitchStatus>,
    ready: oneshot::Sender<Result<(), SwitchError>>,
) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(SwitchError::Thread(error)))),
    };
    LocalSet::new().block_on(&runtime, async {
        drop(ready.send(Ok(())));
        let node = Rc::new(RefCell::new(Node::new(config, sight)));
        live(&node, plugs, wishes, status).await;
        node.borrow_mut().mesh = None;
    });
}

async fn live(
    node: &Rc<RefCell<Node>>,
    mut plugs: mpsc::Receiver<Plug>,
    mut wishes: watch::Receiver<Wish>,
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
        let (is_idle, listens_not) = {
            let node = node.borrow();
            (node.lans.is_empty(), node.problem.is_some())
        };
        tokio::select! {
            plug = plugs.recv() => {
                let Some(Plug { instance, socket, reply }) = plug else { return };
                follow(node, &wishes.borrow_and_update());
                let socket = GuestSocket::new(socket)
                    .map_err(|source| SwitchError::Socket { instance: instance.clone(), source });
                // The asker may have gone: the socket stays all the same.
                drop(reply.send(socket.and_then(|socket| plug_in(node, &instance, socket))));
            }
            Ok(()) = wishes.changed() => follow(node, &wishes.borrow_and_update()),
            _ = questions.tick(), if !is_idle => { node.borrow_mut().ask(); continue }
            _ = probes.tick(), if !is_idle => { node.borrow_mut().probe(); continue }
            () = sleep(LISTEN_AGAIN), if listens_not => { listen(node); if node.borrow().problem.is_some() { continue } }
            _ = publish.tick(), if !is_idle => node.borrow_mut().sight.tick(),
        }
        let news = node.borrow_mut().status();
        status.send_if_modified(|old| {
            let differs = *old != news;
            *old = news;
            differs
        });
    }
}

/// Takes a spec over, and listens for the other nodes if there is a LAN to share with them.
fn follow(node: &Rc<RefCell<Node>>, (number, spec): &Wish) {
    if node.borrow().spec_seen != *number {
        node.borrow_mut().follow(*number, spec);
        listen(node);
    }
}

fn listen(node: &Rc<RefCell<Node>>) {
    let mut borrowed = node.borrow_mut();
    if borrowed.lans.is_empty() {
        (borrowed.mesh, borrowed.problem) = (None, None);
    } else if borrowed.mesh.is_none() {
        let address = borrowed.underlay;
        match MeshSocket::bind(address) {
            Ok(socket) => {
                let socket = Rc::new(socket);
                let listening = spawn_local(hear(Rc::clone(node), Rc::clone(&socket))).abort_handle();
                (borrowed.mesh, borrowed.problem) = (Some(Mesh { socket, listening }), None);
                tracing::info!(%address, "the switch listens for the other nodes");
            }
            Err(error) => {
                let problem = format!(
                    "could not listen on UDP {address} for the other nodes' switches: {error}; end another agent or whatever uses \
                     that port (`ss -lunp` shows it), or give all agents another by --switch-port"
                );
                if borrowed.problem.is_none() {
                    tracing::warn!(problem, "guests of LANs of mode socket reach this node's own only");
                }
                borrowed.problem = Some(problem);
            }
        }
    }
}

/// Frames of the other nodes.
async fn hear(node: Rc<RefCell<Node>>, udp: Rc<MeshSocket>) {
    let mut buffer = [0; mesh::HEADER_LEN + BUFFER_LEN];
    let mut in_a_row = 0;
    loop {
        match udp.receive(&mut buffer).await {
            Ok((len, from)) => node.borrow_mut().datagram(from, &buffer[..len]),
            // An ICMP error of an earlier datagram is not about the next one.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
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
    let wake = Wake::new(Notify::new());
    let reader = spawn_local(read(Rc::clone(node), vni, seat, Rc::clone(&socket)));
    let writer = spawn_local(write(Rc::clone(node), vni, seat, Rc::clone(&socket), Rc::clone(&wake)));
    if let Some(port) = borrowed.port(vni, seat) {
        port.outlet.plugged();
        wake.notify_one();
        port.plugged = Some(Plugged { socket, wake, tasks: [reader.abort_handle(), writer.abort_handle()] });
        tracing::info!(%instance, "plugged in");
    }
    Ok(())
}

/// Frames for one guest that did not find room at once.
async fn write(node: Rc<RefCell<Node>>, vni: Vni, seat: Seat, socket: Rc<GuestSocket>, wake: Wake) {
    loop {
        wake.notified().await;
        let drained = socket.when_writable(|socket| {
            let mut node = node.borrow_mut();
            let Some(GuestPort { outlet, counters, .. }) = node.port(vni, seat) else { return super::port::Sent::Gone };
            outlet.drain(socket, |len| {
                counters.rx_frames += 1;
                counters.rx_bytes += len as u64;
            })
        });
        if drained.await.is_err() {
            return;
        }
    }
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

/// A guest at its port. Dropping it ends its tasks.
struct Plugged {
    socket: Rc<GuestSocket>,
    wake: Wake,
    tasks: [AbortHandle; 2],
}

impl Drop for Plugged {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// The way to the other nodes.
struct Mesh {
    socket: Rc<MeshSocket>,
    listening: AbortHandle,
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

struct GuestPort {
    instance: InstanceId,
    guard: Guard,
    desk: Desk,
    plugged: Option<Plugged>,
    outlet: Outlet,
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
    underlay: SocketAddrV4,
    sight: Box<dyn Sight>,
    spec_seen: u64,
    mesh: Option<Mesh>,
    /// Why there is no mesh.
    problem: Option<String>,
    /// Times of the pure parts count from here.
    start: Instant,
    lans: BTreeMap<Vni, Lan>,
    books: Books,
    strays: u64,
    /// Frames for other nodes that the kernel did not take.
    unsent: u64,
}

impl Node {
    fn new(config: SwitchConfig, sight: Box<dyn Sight>) -> Self {
        Self {
            underlay: config.underlay,
            sight,
            spec_seen: 0,
            mesh: None,
            problem: None,
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
    fn follow(&mut self, number: u64, spec: &FabricSpec) {
        self.spec_seen = number;
        let (now, instant) = (self.now(), Instant::now());
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
                    guard: Guard::new(port.identity.mac, wanted.guard, now),
                    desk: Desk::new(wanted, port, instant),
                    plugged: None,
                    outlet: Outlet::new(now),
                    counters: PortCounters::default(),
                });
            }
            if lan.spec.guard != wanted.guard {
                for (seat, port) in &mut lan.ports {
                    if let Some(wish) = wanted.ports.get(seat) {
                        port.guard = Guard::new(wish.identity.mac, wanted.guard, now);
                    }
                }
            }
            lan.peers.retain(|address, _| wanted.peers.contains_key(address));
            for address in wanted.peers.keys() {
                lan.peers.entry(*address).or_default();
            }
            lan.table.set(cards(wanted));
            lan.round = Round::of(wanted);
            lan.spec = wanted.clone();
        }
        let ports = self.lans.values().flat_map(|lan| lan.ports.values()).map(|port| port.instance.clone()).collect();
        let lans = self.lans.values().map(|lan| lan.spec.name.clone()).collect();
        self.sight.keep(&ports, &lans);
        self.sight.tick();
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
        let Self { lans, sight, books, .. } = self;
        let Some(port) = lans.get_mut(&vni).and_then(|lan| lan.ports.get_mut(&seat)) else { return };
        sight.guest(&port.instance, Way::In, frame);
        if port.guard.judge(now, frame).is_err() {
            return;
        }
        port.counters.tx_frames += 1;
        port.counters.tx_bytes += frame.len() as u64;
        if let Some(answer) = port.desk.hear(frame, instant, books) {
            port.give(now, &answer, &mut **sight);
        }
        self.forward(vni, Port::Seat(seat), frame);
    }

    /// Sends a frame on to wherever it goes. What comes from a guest has been judged.
    fn forward(&mut self, vni: Vni, from: Port, frame: &[u8]) {
        let now = self.now();
        let Self { lans, mesh, underlay, sight, books, unsent, .. } = self;
        let Some(lan) = lans.get_mut(&vni) else { return };
        let mut is_shown = false;
        let mut out = |to: Port, ports: &mut BTreeMap<Seat, GuestPort>| match to {
            Port::Seat(seat) => {
                if let Some(port) = ports.get_mut(&seat) {
                    port.give(now, frame, &mut **sight);
                }
            }
            Port::Edge => lan.round.note(frame, Instant::now(), SystemTime::now(), books),
            Port::Peer(address) => {
                if !std::mem::replace(&mut is_shown, true) {
                    sight.node(&lan.spec.name, Way::Out, frame);
                }
                let to = SocketAddrV4::new(address, underlay.port());
                *unsent += u64::from(!mesh.as_ref().is_some_and(|mesh| mesh.socket.send(vni, to, frame)));
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
            IpAddr::V4(address) if from.port() == self.underlay.port() => Some(address),
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
        if let Some(probe) = Probe::parse(frame) {
            return self.probed(vni, sender, &probe, frame.len());
        }
        if let Some(lan) = self.lans.get(&vni) {
            self.sight.node(&lan.spec.name, Way::In, frame);
        }
        self.forward(vni, Port::Peer(sender), frame);
    }

    /// A question of another node's switch is answered in full length; an answer goes into the book.
    fn probed(&mut self, vni: Vni, sender: Ipv4Addr, probe: &Probe, len: usize) {
        let now = self.now();
        let Some(lan) = self.lans.get_mut(&vni) else { return };
        if probe.to != lan.spec.bridge_mac {
            return;
        }
        if !probe.is_answer {
            let to = SocketAddrV4::new(sender, self.underlay.port());
            let answer = probe.answer().frame(len);
            self.unsent += u64::from(!self.mesh.as_ref().is_some_and(|mesh| mesh.socket.send(vni, to, &answer)));
        } else if let Some(book) = lan.peers.get_mut(&sender) {
            book.hear(probe.number, now);
        }
    }

    fn probe(&mut self) {
        let now = self.now();
        // Without the mesh nobody is asked, so nobody counts as away.
        let Some(mesh) = &self.mesh else { return };
        for (vni, lan) in &mut self.lans {
            for (address, book) in &mut lan.peers {
                let Some(peer) = lan.spec.peers.get(address) else { continue };
                let number = book.ask(now);
                let probe = Probe { to: peer.bridge_mac, from: lan.spec.bridge_mac, is_answer: false, number };
                // One that cannot leave is a question without an answer, which is what it says.
                let to = SocketAddrV4::new(*address, self.underlay.port());
                self.unsent += u64::from(!mesh.socket.send(*vni, to, &probe.frame(60)));
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
            port.outlet.unplugged();
        }
        self.forget();
    }

    fn status(&mut self) -> SwitchStatus {
        let now = self.now();
        let overruns = self.mesh.as_ref().map_or(0, |mesh| mesh.socket.overruns());
        let mut status = SwitchStatus {
            spec_seen: self.spec_seen,
            reachability: self.books.reachability(),
            strays: self.strays,
            overruns,
            unsent: self.unsent,
            ..SwitchStatus::default()
        };
        status.problems.extend(self.problem.clone());
        status.problems.extend(self.books.problems());
        for (vni, lan) in &mut self.lans {
            lan.table.age(now);
            let peers = lan.spec.peers.iter().filter_map(|(address, peer)| {
                let book = lan.peers.get(address)?;
                let told = PeerStatus { address: *address, alive: book.is_alive(), rtt: book.rtt(), loss: book.loss() };
                Some((peer.node.clone(), told))
            });
            let meshed = self.mesh.is_some();
            let told = LanStatus { vni: *vni, seats: lan.spec.seats, meshed, peers: peers.collect() };
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
        status
    }
}

impl GuestPort {
    /// A frame for the guest.
    fn give(&mut self, now: Duration, frame: &[u8], sight: &mut dyn Sight) {
        let socket = self.plugged.as_ref().map(|plugged| &*plugged.socket);
        match self.outlet.give(now, socket, frame) {
            Gave::There => {
                self.counters.rx_frames += 1;
                self.counters.rx_bytes += frame.len() as u64;
            }
            Gave::Waits => {
                if let Some(plugged) = &self.plugged {
                    plugged.wake.notify_one();
                }
            }
            Gave::Lost => {
                self.counters.rx_dropped += 1;
                return;
            }
            // If its socket has ended, its reader sees the same and says so.
            Gave::Nowhere => return,
        }
        sight.guest(&self.instance, Way::Out, frame);
    }
}

/// Which card is where, as the directory says.
fn cards(lan: &LanSpec) -> impl Iterator<Item = (model::MacAddr, Port)> {
    let here = lan.ports.iter().map(|(seat, port)| (port.identity.mac, Port::Seat(*seat)));
    let elsewhere = lan.remote.values().map(|guest| (guest.identity.mac, Port::Peer(guest.vtep)));
    let nodes = lan.peers.iter().map(|(address, peer)| (peer.bridge_mac, Port::Peer(*address)));
    here.chain(elsewhere).chain(nodes).chain([(lan.edge_mac, Port::Edge), (lan.bridge_mac, Port::Edge)])
}
