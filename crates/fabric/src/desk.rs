//! What the edge of a LAN knows and says: answers to a guest's DHCP and ARP, and the questions who is there. Pure: frames and
//! time are arguments. `edge` runs it at the kernel's taps, `crates/switch` at its own ports.
//!
//! **Invariants.** Books are bounded by the directory: what it does not list is forgotten. Whatever a guest sends, the worst is
//! that its own port gets no answer.
//!
//! Questions go to the guest's MAC, so nine guests asked by three nodes cost the others nothing. They come from the node's
//! own bridge MAC, for the edge address is the same on every node and an answer to it could not find the asker.
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant, SystemTime},
};

use model::{Identity, InstanceId, LanName, MacAddr};

use crate::{
    LanSpec, ReachStatus,
    arp::{self, Arp},
    dhcp::{self, Decision, Reservation},
    reach::Page,
};

/// Answers that one port gets in a second. A guest that asks more often is broken or hostile; the rest is ignored.
const ANSWERS_PER_SECOND_MAX: u32 = 50;

/// What was found out.
#[derive(Debug, Default)]
pub struct Books {
    /// The address that a guest was seen to use.
    pub addresses: BTreeMap<InstanceId, Ipv4Addr>,
    /// Guests that said their address is taken by somebody else.
    pub conflicts: BTreeMap<InstanceId, Ipv4Addr>,
    pub(crate) pages: BTreeMap<(LanName, InstanceId), Page>,
}

/// The answers at one guest's port.
#[derive(Debug)]
pub struct Desk {
    instance: InstanceId,
    seat: Reservation,
    budget: Budget,
}

impl Desk {
    /// `now`: the budget of answers begins.
    pub fn new(lan: &LanSpec, instance: InstanceId, identity: &Identity, now: Instant) -> Self {
        Self::with(instance, Reservation::new(&lan.name, identity, lan.edge_mac), now)
    }

    pub(crate) const fn with(instance: InstanceId, seat: Reservation, now: Instant) -> Self {
        Self { instance, seat, budget: Budget::new(now) }
    }

    /// What a frame of the guest means: the books change, and perhaps a frame goes back to that guest alone.
    pub fn hear(&mut self, frame: &[u8], now: Instant, books: &mut Books) -> Option<Vec<u8>> {
        hear(frame, &self.instance, &self.seat, books).filter(|_| self.budget.take(now))
    }
}

/// Whom the edge of a node asks: every guest of the LAN, its own ones, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    lan: LanName,
    asker: MacAddr,
    edge: Ipv4Addr,
    guests: Vec<(InstanceId, MacAddr, Ipv4Addr)>,
}

impl Round {
    pub fn of(lan: &LanSpec) -> Self {
        let local = lan.ports.values().map(|port| (&port.instance, &port.identity));
        let remote = lan.remote.iter().map(|(instance, guest)| (instance, &guest.identity));
        let mut guests: Vec<_> =
            local.chain(remote).map(|(instance, identity)| (instance.clone(), identity.mac, identity.ip)).collect();
        guests.sort();
        Self { lan: lan.name.clone(), asker: lan.bridge_mac, edge: lan.edge_ip, guests }
    }

    /// Whether this guest is among the asked.
    pub fn asks(&self, lan: &LanName, instance: &InstanceId) -> bool {
        self.lan == *lan && self.guests.iter().any(|(guest, _, _)| guest == instance)
    }

    /// Asks every guest whether it is there. `send` says whether the frame left: a question that could not was not asked.
    pub fn ask(&self, now: Instant, books: &mut Books, mut send: impl FnMut(&[u8]) -> bool) {
        for (instance, mac, ip) in &self.guests {
            let question = Arp {
                is_reply: false,
                sender_mac: self.asker,
                sender_ip: self.edge,
                target_mac: MacAddr::ZERO,
                target_ip: *ip,
            };
            let page = books.pages.entry((self.lan.clone(), instance.clone())).or_default();
            if send(&arp::build(&question, *mac)) {
                page.ask(now);
            }
        }
    }

    /// Notes an answer to one of the questions.
    pub fn note(&self, frame: &[u8], now: Instant, wall_clock: SystemTime, books: &mut Books) {
        let Some(answer) = arp::parse(frame).filter(|arp| arp.is_reply && arp.target_mac == self.asker) else {
            return;
        };
        let who = self.guests.iter().find(|(_, mac, ip)| *mac == answer.sender_mac && *ip == answer.sender_ip);
        if let Some((instance, _, _)) = who
            && let Some(page) = books.pages.get_mut(&(self.lan.clone(), instance.clone()))
        {
            page.answer(now, wall_clock);
        }
    }
}

impl Books {
    /// How the guests answered, as the status says it.
    pub fn reachability(&self) -> Vec<ReachStatus> {
        let status = |((lan, instance), page): (&(LanName, InstanceId), &Page)| ReachStatus {
            lan: lan.clone(),
            instance: instance.clone(),
            reachable: page.reachable(),
            rtt: page.rtt,
            last_seen: page.last_seen,
            asked: page.asked,
            answered: page.answered,
        };
        self.pages.iter().map(status).collect()
    }

    /// Forgets guests: the addresses of those whose port `is_plugged` denies, the pages of those that `is_asked` denies.
    pub fn forget(
        &mut self,
        is_plugged: impl Fn(&InstanceId) -> bool,
        is_asked: impl Fn(&LanName, &InstanceId) -> bool,
    ) {
        self.addresses.retain(|instance, _| is_plugged(instance));
        self.conflicts.retain(|instance, _| is_plugged(instance));
        self.pages.retain(|(lan, instance), _| is_asked(lan, instance));
    }

    /// Forgets what a guest used, as it is somewhere else now.
    pub fn leave(&mut self, instance: &InstanceId) {
        self.addresses.remove(instance);
        self.conflicts.remove(instance);
    }

    /// Conflicts in words.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.conflicts.iter().map(|(instance, ip)| {
            format!("guest `{instance}` found {ip} in use by somebody else on its LAN; look for a guest with a fixed address")
        })
    }
}

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
