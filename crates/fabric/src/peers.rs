//! Which other nodes of a LAN are there, asked over its own tunnel: from the VXLAN device, to the other node's bridge.
//!
//! ```text
//!  every 300 ms ── question ──> locovx… ── UDP ──> locovx… of the other node: its eBPF program turns the frame around,
//!  every tenth of 1514 octets    <── answer ───────┘        or its agent does, where there is no program
//!  4th question in a row without an answer to the 3 before ─> away: out of the flood list;  one answer ─> in again
//! ```
//! **Invariants.** Only silence over the tunnel prunes: what the directory says, or that it says nothing, never does. A program in
//! the kernel answers, so a node whose agent is being replaced is not taken for dead. Tasks live on the fabric's thread.
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use model::{LanName, MacAddr, NodeName, Vni};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    FabricSpec, PeerStatus,
    observed::{Observed, OurName},
    packet::{FRAME_LEN_MAX, PROBES, PacketSocket},
    probe::{Book, INTERVAL, Probe},
    spec::Away,
};

/// Pause after a socket error, such as a link that is down, before it is used again.
const ERROR_PAUSE: Duration = Duration::from_millis(200);
/// Answers that are read before the next question at the most: a flood of forged ones must not keep it from going out.
const BURST_MAX: usize = 256;

type Books = BTreeMap<(Vni, Ipv4Addr), Book>;

/// Whom one tunnel asks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Duty {
    vni: Vni,
    /// This node's bridge: questions come from it and are for it.
    own: MacAddr,
    peers: BTreeMap<MacAddr, Ipv4Addr>,
}

#[derive(Debug)]
struct Asker {
    index: u32,
    duty: Duty,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
pub(crate) struct Peers {
    books: Arc<Mutex<Books>>,
    askers: BTreeMap<Vni, Asker>,
    /// Rung when somebody went or came.
    news: Arc<Notify>,
}

impl Peers {
    pub(crate) fn new(news: Arc<Notify>) -> Self {
        Self { books: Arc::default(), askers: BTreeMap::new(), news }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }

    /// Starts and ends askers so that each tunnel of ours that has peers has one. Returns problems.
    pub(crate) fn follow(&mut self, spec: &FabricSpec, observed: &Observed) -> Vec<String> {
        let mut problems = Vec::new();
        let mut askers = BTreeMap::new();
        for lan in spec.lans.values().filter(|lan| lan.has_bridge() && !lan.peers.is_empty()) {
            let name = OurName::Vxlan(lan.vni);
            let Some(link) = observed.our(name) else { continue };
            let peers = lan.peers.iter().map(|(vtep, peer)| (peer.bridge_mac, *vtep)).collect();
            let duty = Duty { vni: lan.vni, own: lan.bridge_mac, peers };
            let old = self.askers.remove(&lan.vni).filter(|old| old.index == link.index && old.duty == duty);
            let start = || {
                let socket = PacketSocket::open(link.index, &PROBES)?;
                let task = ask(socket, duty.clone(), Arc::clone(&self.books), Arc::clone(&self.news));
                Ok(Asker { index: link.index, duty: duty.clone(), _task: AbortOnDropHandle::new(tokio::spawn(task)) })
            };
            match old.map_or_else(start, Ok) {
                Ok(asker) => drop(askers.insert(lan.vni, asker)),
                Err(error) => {
                    let error: std::io::Error = error;
                    problems.push(format!(
                        "could not listen at `{}`, so nodes that are away stay in the flood list: {error}; the agent needs CAP_NET_RAW",
                        name.text()
                    ));
                }
            }
        }
        self.askers = askers;
        let asked = |vni: &Vni, vtep: &Ipv4Addr| {
            self.askers.get(vni).is_some_and(|asker| asker.duty.peers.values().any(|peer| peer == vtep))
        };
        self.books().retain(|(vni, vtep), _| asked(vni, vtep));
        problems
    }

    /// Nodes that do not answer.
    pub(crate) fn away(&self) -> Away {
        self.books().iter().filter(|(_, book)| book.small.is_alive() == Some(false)).map(|(key, _)| *key).collect()
    }

    /// As the status tells it.
    pub(crate) fn status(&self, spec: &FabricSpec) -> Vec<PeerStatus> {
        let books = self.books();
        let lans = spec.lans.values().filter(|lan| lan.has_bridge());
        let peers = lans.flat_map(|lan| lan.peers.iter().map(move |(vtep, peer)| (lan, *vtep, peer)));
        peers.map(|(lan, vtep, peer)| peer_status(&lan.name, vtep, &peer.node, books.get(&(lan.vni, vtep)))).collect()
    }
}

fn peer_status(lan: &LanName, vtep: Ipv4Addr, node: &NodeName, book: Option<&Book>) -> PeerStatus {
    PeerStatus {
        lan: lan.clone(),
        node: node.clone(),
        vtep,
        alive: book.and_then(|book| book.small.is_alive()),
        rtt: book.and_then(|book| book.small.rtt()),
        loss: book.and_then(|book| book.small.loss()),
        full_frames: book.and_then(|book| book.full.is_alive()),
    }
}

/// Full frames that are lost where small ones pass, in words.
pub fn full_frame_problems(peers: &[PeerStatus]) -> impl Iterator<Item = String> {
    peers.iter().filter(|peer| peer.alive == Some(true) && peer.full_frames == Some(false)).map(|peer| {
        format!(
            "frames of full length do not get to node `{}` and back over LAN `{}`, small ones do: raise the MTU between {} and this node to 1550, or let UDP fragments pass",
            peer.node, peer.lan, peer.vtep
        )
    })
}

fn lock(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    // Books are counters: a panic between two of them leaves nothing that could not be used.
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks, answers and notes, for ever.
async fn ask(socket: PacketSocket, duty: Duty, books: Arc<Mutex<Books>>, news: Arc<Notify>) {
    let start = Instant::now();
    let mut tick = interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = [0; FRAME_LEN_MAX];
    loop {
        tokio::select! {
            _ = tick.tick() => {
                // A thread that was held up finds answers waiting: they count before the next question makes them late.
                for _ in 0..BURST_MAX {
                    let Some(len) = socket.try_receive(&mut buffer) else { break };
                    duty.hear(&socket, &buffer[..len], start.elapsed(), &books, &news);
                }
                duty.question(&socket, start.elapsed(), &books, &news);
            }
            received = socket.receive(&mut buffer) => match received {
                Ok(len) => duty.hear(&socket, &buffer[..len], start.elapsed(), &books, &news),
                Err(_) => sleep(ERROR_PAUSE).await,
            },
        }
    }
}

impl Duty {
    fn question(&self, socket: &PacketSocket, now: Duration, books: &Mutex<Books>, news: &Notify) {
        let mut books = lock(books);
        for (mac, vtep) in &self.peers {
            let book = books.entry((self.vni, *vtep)).or_default();
            let before = book.small.is_alive();
            for (number, len) in book.ask(now) {
                // A question that could not leave is one without an answer: this node is cut off.
                socket.send(&Probe { to: *mac, from: self.own, is_answer: false, number }.frame(len)).ok();
            }
            if book.small.is_alive() != before {
                tracing::warn!(node = %vtep, vni = self.vni.get(), "another node does not answer over the LAN's tunnel");
                news.notify_one();
            }
        }
    }

    fn hear(&self, socket: &PacketSocket, frame: &[u8], now: Duration, books: &Mutex<Books>, news: &Notify) {
        // A forged one, of a guest, is from nobody we ask.
        let Some(probe) = Probe::parse(frame).filter(|probe| probe.to == self.own) else { return };
        let Some(vtep) = self.peers.get(&probe.from) else { return };
        if !probe.is_answer {
            // The kernel's program has answered already, where there is one; the second answer counts for nothing.
            socket.send(&probe.answer().frame(frame.len())).ok();
            return;
        }
        let mut books = lock(books);
        let Some(book) = books.get_mut(&(self.vni, *vtep)) else { return };
        let before = book.small.is_alive();
        book.hear(probe.number, now);
        if book.small.is_alive() != before {
            tracing::info!(node = %vtep, vni = self.vni.get(), "another node answers over the LAN's tunnel");
            news.notify_one();
        }
    }
}
