//! The fabric as a station of the LAN: DHCP and ARP at each tap of this node, and the questions who is there.
//!
//! ```text
//!  guest ── tap ──┬── bridge ── …          each tap: answers DHCP and ARP for the edge address, hears the guest's address
//!                 └ copy -> tap's task     each bridge: asks every guest of the LAN by ARP, every 2 s
//! ```
//! **Invariants.** Tasks live on the fabric's thread and are keyed by link index: a link that vanishes ends its task, a new one
//! starts another. Books are bounded by the directory: what it does not list is forgotten. Whatever a guest sends, the
//! worst is that its own port gets no answer.
//!
//! Questions go to the guest's MAC, so nine guests asked by three nodes cost the others nothing. They come from the node's
//! own bridge MAC, for the edge address is the same on every node and an answer to it could not find the asker.
use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use model::{InstanceId, LanName, MacAddr, Vni};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    FabricSpec, LanSpec,
    arp::{self, Arp},
    dhcp::{self, Decision, Reservation},
    observed::{Observed, OurName},
    packet::{FRAME_LEN_MAX, PacketSocket},
    reach::Page,
};

/// How often every guest is asked.
const QUESTION_INTERVAL: Duration = Duration::from_secs(2);
/// Answers that one tap gets in a second. A guest that asks more often is broken or hostile; the rest is ignored.
const ANSWERS_PER_SECOND_MAX: u32 = 50;
/// Pause after a socket error, such as a link that is down, before it is used again.
const ERROR_PAUSE: Duration = Duration::from_millis(200);

/// What the tasks found out.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) addresses: BTreeMap<InstanceId, Ipv4Addr>,
    /// Guests that said their address is taken by somebody else.
    pub(crate) conflicts: BTreeMap<InstanceId, Ipv4Addr>,
    pub(crate) pages: BTreeMap<(LanName, InstanceId), Page>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct SharedBooks(Arc<Mutex<Books>>);

impl SharedBooks {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Books> {
        // Books are counters: a panic between two of them leaves nothing that could not be used.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running task and what it was started for; it is replaced when that differs.
#[derive(Debug)]
struct Station<T> {
    index: u32,
    duty: T,
    _task: AbortOnDropHandle<()>,
}

/// Whom a bridge's task asks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Round {
    lan: LanName,
    asker: Asker,
    guests: Vec<(InstanceId, MacAddr, Ipv4Addr)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asker {
    mac: MacAddr,
    ip: Ipv4Addr,
}

#[derive(Debug, Default)]
pub(crate) struct Edge {
    taps: BTreeMap<InstanceId, Station<Reservation>>,
    bridges: BTreeMap<Vni, Station<Round>>,
    books: SharedBooks,
}

impl Edge {
    pub(crate) fn books(&self) -> &SharedBooks {
        &self.books
    }

    /// Starts and ends tasks so that each tap and bridge of ours that exists has one. Returns problems.
    pub(crate) fn follow(&mut self, spec: &FabricSpec, observed: &Observed) -> Vec<String> {
        let mut problems = Vec::new();
        let mut taps = BTreeMap::new();
        let mut bridges = BTreeMap::new();
        for lan in spec.lans.values().filter(|lan| !lan.ports.is_empty()) {
            for (seat, port) in &lan.ports {
                let name = OurName::Tap(lan.vni, *seat);
                let Some(link) = observed.our(name) else { continue };
                let duty = Reservation::new(&lan.name, &port.identity, lan.edge_mac);
                let old = self.taps.remove(&port.instance).filter(|old| old.index == link.index && old.duty == duty);
                let start = |socket| tap_task(socket, port.instance.clone(), duty.clone(), self.books.clone());
                match old.map_or_else(|| station(link.index, duty.clone(), start), Ok) {
                    Ok(station) => drop(taps.insert(port.instance.clone(), station)),
                    Err(error) => problems.push(socket_problem(&name.text(), "DHCP is not answered there", &error)),
                }
            }
            let name = OurName::Bridge(lan.vni);
            let Some(link) = observed.our(name) else { continue };
            let duty = round(lan);
            let old = self.bridges.remove(&lan.vni).filter(|old| old.index == link.index && old.duty == duty);
            let start = |socket| bridge_task(socket, duty.clone(), self.books.clone());
            match old.map_or_else(|| station(link.index, duty.clone(), start), Ok) {
                Ok(station) => drop(bridges.insert(lan.vni, station)),
                Err(error) => problems.push(socket_problem(&name.text(), "reachability is not measured", &error)),
            }
        }
        // What is left of the old ones ends here.
        self.taps = taps;
        self.bridges = bridges;
        self.forget(spec, observed);
        let books = self.books.lock();
        problems.extend(books.conflicts.iter().map(|(instance, ip)| {
            format!("guest `{instance}` found {ip} in use by somebody else on its LAN; look for a guest with a fixed address")
        }));
        problems
    }

    /// Drops the pages of guests that the directory no longer lists, and addresses of taps that nobody holds.
    fn forget(&self, spec: &FabricSpec, observed: &Observed) {
        let mut books = self.books.lock();
        let alive = |instance: &InstanceId| {
            spec.port(instance)
                .and_then(|(lan, seat, _)| observed.our(OurName::Tap(lan.vni, seat)))
                .is_some_and(|link| link.carrier)
        };
        books.addresses.retain(|instance, _| alive(instance));
        books.conflicts.retain(|instance, _| alive(instance));
        books.pages.retain(|(lan, instance), _| {
            self.bridges.values().any(|bridge| {
                bridge.duty.lan == *lan && bridge.duty.guests.iter().any(|(guest, _, _)| guest == instance)
            })
        });
    }
}

fn station<T>(index: u32, duty: T, task: impl FnOnce(PacketSocket) -> AbortOnDropHandle<()>) -> io::Result<Station<T>> {
    Ok(Station { index, duty, _task: task(PacketSocket::open(index)?) })
}

fn socket_problem(link: &str, effect: &str, error: &io::Error) -> String {
    format!("could not listen at `{link}`, so {effect}: {error}; the agent needs CAP_NET_RAW")
}

fn round(lan: &LanSpec) -> Round {
    let local = lan.ports.values().map(|port| (&port.instance, &port.identity));
    let remote = lan.remote.iter().map(|(instance, guest)| (instance, &guest.identity));
    let mut guests: Vec<_> =
        local.chain(remote).map(|(instance, identity)| (instance.clone(), identity.mac, identity.ip)).collect();
    guests.sort();
    Round { lan: lan.name.clone(), asker: Asker { mac: lan.bridge_mac, ip: lan.edge_ip }, guests }
}

/// One tap: answers, and hears.
fn tap_task(
    socket: PacketSocket,
    instance: InstanceId,
    seat: Reservation,
    books: SharedBooks,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut buffer = [0; FRAME_LEN_MAX];
        let mut budget = Budget::new(Instant::now());
        loop {
            let Ok(len) = socket.receive(&mut buffer).await else {
                sleep(ERROR_PAUSE).await;
                continue;
            };
            let reply = {
                let mut books = books.lock();
                hear(&buffer[..len], &instance, &seat, &mut books)
            };
            if let Some(reply) = reply
                && budget.take(Instant::now())
                && let Err(error) = socket.send(&reply)
            {
                tracing::debug!(%instance, %error, "an answer to the guest was lost; it will ask again");
            }
        }
    }))
}

/// What one frame of a guest means: the books change, and perhaps a frame goes back.
fn hear(frame: &[u8], instance: &InstanceId, seat: &Reservation, books: &mut Books) -> Option<Vec<u8>> {
    if let Some(question) = arp::parse(frame) {
        if question.sender_mac != seat.mac {
            return None;
        }
        // Own frames are the proof; 0.0.0.0 is a guest that still probes whether the address is free (RFC 5227).
        if !question.sender_ip.is_unspecified() {
            books.addresses.insert(instance.clone(), question.sender_ip);
        }
        let edge = seat.edge_ip();
        return (!question.is_reply && question.target_ip == edge).then(|| {
            let reply = Arp {
                is_reply: true,
                sender_mac: seat.edge_mac,
                sender_ip: edge,
                target_mac: question.sender_mac,
                target_ip: question.sender_ip,
            };
            arp::build(&reply, question.sender_mac)
        });
    }
    match dhcp::decide(frame, seat)? {
        Decision::Reply(frame) => Some(frame),
        Decision::Acknowledge(frame) => {
            books.addresses.insert(instance.clone(), seat.ip);
            books.conflicts.remove(instance);
            Some(frame)
        }
        Decision::Released => {
            books.addresses.remove(instance);
            None
        }
        Decision::Declined => {
            books.addresses.remove(instance);
            books.conflicts.insert(instance.clone(), seat.ip);
            None
        }
    }
}

/// One bridge: asks all guests of the LAN and notes the answers.
fn bridge_task(socket: PacketSocket, round: Round, books: SharedBooks) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut buffer = [0; FRAME_LEN_MAX];
        let mut tick = interval(QUESTION_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => ask(&socket, &round, &books),
                received = socket.receive(&mut buffer) => match received {
                    Ok(len) => note(&buffer[..len], &round, &mut books.lock()),
                    Err(_) => sleep(ERROR_PAUSE).await,
                },
            }
        }
    }))
}

fn ask(socket: &PacketSocket, round: &Round, books: &SharedBooks) {
    for (instance, mac, ip) in &round.guests {
        let question = Arp {
            is_reply: false,
            sender_mac: round.asker.mac,
            sender_ip: round.asker.ip,
            target_mac: MacAddr::ZERO,
            target_ip: *ip,
        };
        let frame = arp::build(&question, *mac);
        let mut books = books.lock();
        let page = books.pages.entry((round.lan.clone(), instance.clone())).or_default();
        let now = Instant::now();
        // A question that could not leave was not asked.
        if socket.send(&frame).is_ok() {
            page.ask(now);
        }
    }
}

fn note(frame: &[u8], round: &Round, books: &mut Books) {
    let (now, wall_clock) = (Instant::now(), SystemTime::now());
    let Some(answer) = arp::parse(frame).filter(|arp| arp.is_reply && arp.target_mac == round.asker.mac) else {
        return;
    };
    let who = round.guests.iter().find(|(_, mac, ip)| *mac == answer.sender_mac && *ip == answer.sender_ip);
    if let Some((instance, _, _)) = who
        && let Some(page) = books.pages.get_mut(&(round.lan.clone(), instance.clone()))
    {
        page.answer(now, wall_clock);
    }
}

/// At most [`ANSWERS_PER_SECOND_MAX`] in each second.
#[derive(Debug)]
struct Budget {
    since: Instant,
    left: u32,
}

impl Budget {
    const fn new(now: Instant) -> Self {
        Self { since: now, left: ANSWERS_PER_SECOND_MAX }
    }

    fn take(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        let some = self.left > 0;
        self.left -= u32::from(some);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat() -> Reservation {
        Reservation {
            lan: "party".parse().unwrap(),
            mac: MacAddr([2, 0x4c, 0, 0x10, 0x68, 4]),
            ip: Ipv4Addr::new(10, 98, 0, 4),
            subnet: "10.98.0.0/24".parse().unwrap(),
            host_name: "LOCO1068-4".to_owned(),
            edge_mac: MacAddr([2, 0x4c, 0, 0x10, 0x68, 0xff]),
        }
    }

    fn question(sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Vec<u8> {
        let arp = Arp { is_reply: false, sender_mac: seat().mac, sender_ip, target_mac: MacAddr::ZERO, target_ip };
        arp::build(&arp, MacAddr::BROADCAST)
    }

    #[test]
    fn a_guests_arp_tells_its_address_but_a_probe_does_not() {
        let (id, mut books) = ("instance-3".parse().unwrap(), Books::default());
        let other = Ipv4Addr::new(10, 98, 0, 7);
        assert_eq!(hear(&question(Ipv4Addr::UNSPECIFIED, seat().ip), &id, &seat(), &mut books), None);
        assert!(books.addresses.is_empty());
        assert_eq!(hear(&question(seat().ip, other), &id, &seat(), &mut books), None);
        assert_eq!(books.addresses.get(&id), Some(&seat().ip));
    }

    #[test]
    fn arp_for_the_edge_is_answered_with_the_edges_mac() {
        let (id, mut books) = ("instance-3".parse().unwrap(), Books::default());
        let reply = hear(&question(seat().ip, seat().edge_ip()), &id, &seat(), &mut books).unwrap();
        let reply = arp::parse(&reply).unwrap();
        assert!(reply.is_reply);
        assert_eq!((reply.sender_mac, reply.sender_ip), (seat().edge_mac, seat().edge_ip()));
        assert_eq!((reply.target_mac, reply.target_ip), (seat().mac, seat().ip));
    }

    #[test]
    fn the_arp_of_a_stranger_behind_the_tap_is_not_the_guests() {
        let (id, mut books) = ("instance-3".parse().unwrap(), Books::default());
        let mac = MacAddr([2, 9, 9, 9, 9, 9]);
        let arp = Arp {
            is_reply: false,
            sender_mac: mac,
            sender_ip: seat().ip,
            target_mac: MacAddr::ZERO,
            target_ip: seat().edge_ip(),
        };
        assert_eq!(hear(&arp::build(&arp, MacAddr::BROADCAST), &id, &seat(), &mut books), None);
        assert!(books.addresses.is_empty());
    }

    #[test]
    fn a_flood_of_questions_gets_fifty_answers_a_second() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert_eq!((0..1000).filter(|_| budget.take(start)).count(), 50);
        assert!(budget.take(start + Duration::from_secs(1)));
    }
}
