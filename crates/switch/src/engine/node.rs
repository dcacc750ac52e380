//! The thread: all LANs of the node that have the mode `socket`, and the tasks around them.
use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    rc::Rc,
    time::{Duration, Instant},
};

use fabric::{
    FabricSpec, LanSpec,
    desk::{Books, Desk, Round},
};
use model::{InstanceId, LanName, Seat, Vni};
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, LocalSet, spawn_local, yield_now},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    ForeignTotals, LanStatus, PeerStatus, PortStatus, Request, Sight, SwitchConfig, SwitchError, SwitchStatus, Way,
    Wish,
    foreign::{self, ForeignPort},
    jack::Jack,
    mesh_socket::MeshSocket,
    port::FrameSocket,
    trace::{self, Watches},
};
use crate::{
    FRAME_LEN_MAX,
    guard::Guard,
    mesh,
    probe::{self, Book},
    table::{ForeignId, Port, Table},
};

/// How often every guest is asked whether it is there.
const QUESTION_INTERVAL: Duration = Duration::from_secs(2);
/// Counters are published this often.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Frames of one port at a time, before the others have their turn.
pub(super) const FRAMES_AT_ONCE: u32 = 64;
/// Pause after a socket error, before it is used again.
const ERROR_PAUSE: Duration = Duration::from_millis(200);
/// One more than a frame may have, so that a longer one is seen to be longer.
pub(super) const BUFFER_LEN: usize = FRAME_LEN_MAX + 1;

/// Pause before the mesh's port is tried again: a predecessor may be about to end.
const LISTEN_AGAIN: Duration = Duration::from_millis(50);

/// Runs until the handle is dropped.
pub(super) fn run(
    config: SwitchConfig,
    sight: Box<dyn Sight>,
    requests: mpsc::Receiver<Request>,
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
        live(&node, requests, wishes, status).await;
        node.borrow_mut().mesh = None;
    });
}

async fn live(
    node: &Rc<RefCell<Node>>,
    mut requests: mpsc::Receiver<Request>,
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
            request = requests.recv() => {
                let Some(request) = request else { return };
                follow(node, &wishes.borrow_and_update());
                serve(node, request);
            }
            Ok(()) = wishes.changed() => follow(node, &wishes.borrow_and_update()),
            _ = questions.tick(), if !is_idle => { node.borrow_mut().ask(); continue }
            _ = probes.tick(), if !is_idle => { node.borrow_mut().probe(); continue }
            () = sleep(LISTEN_AGAIN), if listens_not => { listen(node); if node.borrow().problem.is_some() { continue } }
            _ = publish.tick(), if !is_idle => node.borrow_mut().eyes.sight.tick(),
        }
        let news = node.borrow_mut().status();
        status.send_if_modified(|old| {
            let differs = *old != news;
            *old = news;
            differs
        });
    }
}

fn serve(node: &Rc<RefCell<Node>>, request: Request) {
    // Askers may have gone: what they plugged in stays all the same, for as long as its other end does.
    match request {
        Request::Plug { instance, socket, reply } => {
            let socket =
                FrameSocket::new(socket).map_err(|source| SwitchError::Socket { instance: instance.clone(), source });
            drop(reply.send(socket.and_then(|socket| plug_in(node, &instance, socket))));
        }
        Request::Foreign { plug, socket, reply } => {
            let socket = FrameSocket::new(socket).map_err(SwitchError::Foreign);
            drop(reply.send(socket.and_then(|socket| foreign::plug_in(node, plug, socket))));
        }
        Request::Trace(request) => drop(spawn_local(trace::follow(Rc::clone(node), request))),
    }
}

/// Takes a spec over, and listens for the other nodes if there is a LAN to share with them.
fn follow(node: &Rc<RefCell<Node>>, (number, spec): &Wish) {
    if node.borrow().spec_seen != *number {
        let moved = node.borrow_mut().follow(*number, spec);
        for (instance, mut jack) in moved {
            let mut borrowed = node.borrow_mut();
            let Some((vni, seat)) = borrowed.place(&instance) else { continue };
            if let Some(cable) = jack.unplug() {
                jack.plug(node, vni, Port::Seat(seat), cable);
            }
            if let Some(port) = borrowed.lans.get_mut(&vni).and_then(|lan| lan.ports.get_mut(&seat)) {
                port.jack = jack;
                tracing::info!(%instance, "plugged in elsewhere");
            }
        }
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

fn plug_in(node: &Rc<RefCell<Node>>, instance: &InstanceId, socket: FrameSocket) -> Result<(), SwitchError> {
    let mut borrowed = node.borrow_mut();
    let (vni, seat) = borrowed.place(instance).ok_or_else(|| SwitchError::NoPort(instance.clone()))?;
    if let Some(jack) = borrowed.jack(vni, Port::Seat(seat)) {
        jack.plug(node, vni, Port::Seat(seat), Rc::new(socket));
        tracing::info!(%instance, "plugged in");
    }
    Ok(())
}

/// The way to the other nodes.
pub(super) struct Mesh {
    pub(super) socket: Rc<MeshSocket>,
    listening: AbortHandle,
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

pub(super) struct GuestPort {
    pub(super) instance: InstanceId,
    pub(super) guard: Guard,
    pub(super) desk: Desk,
    pub(super) jack: Jack,
}

pub(super) struct Lan {
    pub(super) spec: LanSpec,
    pub(super) table: Table,
    pub(super) round: Round,
    pub(super) ports: BTreeMap<Seat, GuestPort>,
    pub(super) peers: BTreeMap<Ipv4Addr, Book>,
    pub(super) foreign: BTreeMap<ForeignId, ForeignPort>,
    /// How many there ever were.
    pub(super) foreign_plugged: u64,
    /// What those that left had counted.
    pub(super) foreign_gone: ForeignTotals,
}

/// Who looks: always, and at what a trace is about.
pub(super) struct Eyes {
    pub(super) sight: Box<dyn Sight>,
    pub(super) watches: Watches,
}

impl Eyes {
    pub(super) fn guest(&mut self, vni: Vni, instance: &InstanceId, way: Way, frame: &[u8]) {
        self.sight.guest(instance, way, frame);
        self.watches.note(vni, instance.as_str(), way, frame);
    }
}

pub(super) struct Node {
    pub(super) underlay: SocketAddrV4,
    pub(super) eyes: Eyes,
    spec_seen: u64,
    pub(super) mesh: Option<Mesh>,
    /// Why there is no mesh.
    problem: Option<String>,
    /// Times of the pure parts count from here.
    start: Instant,
    pub(super) lans: BTreeMap<Vni, Lan>,
    pub(super) books: Books,
    pub(super) strays: u64,
    /// Frames for other nodes that the kernel did not take.
    pub(super) unsent: u64,
}

impl Node {
    fn new(config: SwitchConfig, sight: Box<dyn Sight>) -> Self {
        Self {
            underlay: config.underlay,
            eyes: Eyes { sight, watches: Watches::default() },
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

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn place(&self, instance: &InstanceId) -> Option<(Vni, Seat)> {
        self.lans.iter().find_map(|(vni, lan)| {
            let (seat, _) = lan.ports.iter().find(|(_, port)| port.instance == *instance)?;
            Some((*vni, *seat))
        })
    }

    pub(super) fn vni(&self, lan: &LanName) -> Option<Vni> {
        self.lans.iter().find(|(_, ours)| ours.spec.name == *lan).map(|(vni, _)| *vni)
    }

    /// What is at a port that has a cable.
    pub(super) fn jack(&mut self, vni: Vni, port: Port) -> Option<&mut Jack> {
        let lan = self.lans.get_mut(&vni)?;
        match port {
            Port::Seat(seat) => lan.ports.get_mut(&seat).map(|port| &mut port.jack),
            Port::Foreign(id) => lan.foreign.get_mut(&id).map(|port| &mut port.jack),
            Port::Edge | Port::Peer(_) => None,
        }
    }

    /// Makes LANs and ports those of the directory; what stays keeps its guest and its counters. Returns the jacks of guests that have
    /// another port now, with their cables still in.
    fn follow(&mut self, number: u64, spec: &FabricSpec) -> Vec<(InstanceId, Jack)> {
        self.spec_seen = number;
        let (now, instant) = (self.now(), Instant::now());
        let mut moved = Vec::new();
        for (vni, lan) in &mut self.lans {
            let elsewhere = |seat: &Seat, port: &mut GuestPort| {
                let card = lan.spec.ports.get(seat).map(|port| port.card);
                let now = spec.port(&port.instance);
                now.is_some_and(|(to, at, port)| (to.vni, at) != (*vni, *seat) && Some(port.card) == card)
            };
            moved.extend(lan.ports.extract_if(.., elsewhere).map(|(_, port)| (port.instance, port.jack)));
        }
        for (instance, _) in &moved {
            self.books.leave(instance);
        }
        let gone = self.lans.extract_if(.., |vni, _| !spec.lans.contains_key(vni));
        gone.for_each(|(_, lan)| lan.end());
        for (vni, wanted) in &spec.lans {
            let lan = self.lans.entry(*vni).or_insert_with(|| Lan {
                spec: wanted.clone(),
                table: Table::default(),
                round: Round::of(wanted),
                ports: BTreeMap::new(),
                peers: BTreeMap::new(),
                foreign: BTreeMap::new(),
                foreign_plugged: 0,
                foreign_gone: ForeignTotals::default(),
            });
            let readdressed = lan.spec.edge_ip != wanted.edge_ip;
            lan.ports.retain(|seat, _| wanted.ports.get(seat) == lan.spec.ports.get(seat) && !readdressed);
            for (seat, port) in &wanted.ports {
                lan.ports.entry(*seat).or_insert_with(|| GuestPort {
                    instance: port.instance.clone(),
                    guard: Guard::new(port.identity.mac, wanted.guard, now),
                    desk: Desk::new(wanted, port.instance.clone(), &port.identity, instant),
                    jack: Jack::new(now),
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
            let old = std::mem::replace(&mut lan.spec, wanted.clone());
            lan.keep_foreign(&old, now);
        }
        let ports = self.lans.values().flat_map(|lan| lan.ports.values()).map(|port| port.instance.clone()).collect();
        let lans = self.lans.values().map(|lan| lan.spec.name.clone()).collect();
        self.eyes.sight.keep(&ports, &lans);
        self.eyes.sight.tick();
        self.forget();
        moved
    }

    fn forget(&mut self) {
        let Self { lans, books, .. } = self;
        let is_plugged = |instance: &InstanceId| {
            lans.values()
                .flat_map(|lan| lan.ports.values())
                .any(|port| port.instance == *instance && port.jack.is_plugged())
        };
        let is_asked = |lan: &LanName, instance: &InstanceId| lans.values().any(|ours| ours.round.asks(lan, instance));
        books.forget(is_plugged, is_asked);
    }

    /// The other end of `socket` is gone.
    pub(super) fn unplug(&mut self, vni: Vni, port: Port, socket: &Rc<FrameSocket>) {
        if !self.jack(vni, port).is_some_and(|jack| jack.has(socket)) {
            return;
        }
        let Some(lan) = self.lans.get_mut(&vni) else { return };
        match port {
            Port::Seat(seat) => {
                if let Some(port) = lan.ports.get_mut(&seat) {
                    tracing::info!(instance = %port.instance, "unplugged");
                    drop(port.jack.unplug());
                }
                self.forget();
            }
            Port::Foreign(id) => lan.end_foreign(id, None),
            Port::Edge | Port::Peer(_) => {}
        }
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
                let told = PeerStatus {
                    address: *address,
                    alive: book.small.is_alive(),
                    rtt: book.small.rtt(),
                    loss: book.small.loss(),
                    full_frames: book.full.is_alive(),
                };
                Some((peer.node.clone(), told))
            });
            let meshed = self.mesh.is_some();
            let peers = peers.collect();
            let (foreign, foreign_totals) = lan.foreign_status();
            let told = LanStatus { vni: *vni, seats: lan.spec.seats, meshed, peers, foreign, foreign_totals };
            status.lans.insert(lan.spec.name.clone(), told);
            for (seat, port) in &lan.ports {
                let told = PortStatus {
                    lan: lan.spec.name.clone(),
                    seat: *seat,
                    plugged: port.jack.is_plugged(),
                    counters: port.jack.counters,
                    refused: port.guard.refused().filter(|(_, count)| *count > 0).collect(),
                    address_in_use: self.books.addresses.get(&port.instance).copied(),
                };
                status.ports.insert(port.instance.clone(), told);
            }
        }
        status
    }
}

/// Which card is where, as the directory says.
fn cards(lan: &LanSpec) -> impl Iterator<Item = (model::MacAddr, Port)> {
    let here = lan.ports.iter().map(|(seat, port)| (port.identity.mac, Port::Seat(*seat)));
    let elsewhere = lan.remote.values().map(|guest| (guest.identity.mac, Port::Peer(guest.vtep)));
    let nodes = lan.peers.iter().map(|(address, peer)| (peer.bridge_mac, Port::Peer(*address)));
    here.chain(elsewhere).chain(nodes).chain([(lan.edge_mac, Port::Edge), (lan.bridge_mac, Port::Edge)])
}
