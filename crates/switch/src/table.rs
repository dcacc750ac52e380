//! Where a frame goes. One table per LAN and node.
//!
//! | destination | goes to |
//! |---|---|
//! | a card of the directory | the port, or the node, that the directory names |
//! | the card of a foreign machine that is plugged in here | its port |
//! | a card that was heard | where it was last heard, for five minutes |
//! | all, a group, nobody known | every port of the LAN but the one it came from; from another node never to a third one |
//! | all, and it asks for an address | the same, but to no other node: each node's edge answers its own guests |
//!
//! **Invariants.** What the directory says is never learned over, and a foreign machine never gets a card that somebody else
//! has. Learned cards have a bound; when it is reached the frames for further ones are flooded, as before a bridge knows a
//! card. A frame never goes back to the port it came from.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
    time::Duration,
};

use model::{MacAddr, Seat};
use wire::class::{Octets as _, TrafficClass, classify};

/// A card that says nothing for so long is forgotten: what a kernel bridge does by default.
pub const AGE: Duration = Duration::from_mins(5);
/// Learned cards; a LAN has some hundred, a forger all.
pub const LEARNED_MAX: usize = 1024;
/// A card that was heard from another node this long ago is there still. Longer than the gap that a machine needs to be plugged
/// in elsewhere, and shorter than the silence of one that plays.
pub const ELSEWHERE: Duration = Duration::from_secs(5);

/// A foreign machine, for as long as it is plugged in; another one has another number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForeignId(pub u64);

/// Why a foreign machine may not have a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// A seat of the LAN, or a node's own station, has it.
    Directory,
    /// Another foreign machine of this node.
    Foreign(ForeignId),
    /// It was heard from that node, in the last [`ELSEWHERE`].
    Elsewhere(Ipv4Addr),
    /// It is no card at all: a group's address, or none.
    NoCard,
}

/// An end of the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// A guest of this node.
    Seat(Seat),
    /// A machine outside of the cluster that is plugged in at this node.
    Foreign(ForeignId),
    /// This node's own station: DHCP, ARP, questions.
    Edge,
    /// The switch of another node, by its underlay address.
    Peer(Ipv4Addr),
}

/// Where one frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Targets {
    /// It is not for anybody else.
    Nobody,
    One(Port),
    /// To all ports but the one it came from, and to the other nodes if `peers`.
    Flood {
        peers: bool,
    },
}

/// The ends of one LAN on this node, and which card is where.
#[derive(Debug, Clone, Default)]
pub struct Table {
    seats: BTreeSet<Seat>,
    peers: BTreeSet<Ipv4Addr>,
    fixed: HashMap<MacAddr, Port>,
    /// Machines that are plugged in, and their cards once they spoke.
    foreign: BTreeMap<ForeignId, Option<MacAddr>>,
    learned: HashMap<MacAddr, (Port, Duration)>,
}

impl Table {
    /// Takes over what the directory says: the cards of seats here, of other nodes and of the edge. Ports are those that
    /// a card is at; what was learned at a port that is gone is forgotten.
    pub fn set(&mut self, cards: impl IntoIterator<Item = (MacAddr, Port)>) {
        self.fixed = cards.into_iter().collect();
        self.seats.clear();
        self.peers.clear();
        for port in self.fixed.values() {
            match port {
                Port::Seat(seat) => drop(self.seats.insert(*seat)),
                Port::Peer(node) => drop(self.peers.insert(*node)),
                Port::Edge | Port::Foreign(_) => {}
            }
        }
        let Self { fixed, learned, seats, peers, .. } = self;
        learned.retain(|card, (port, _)| {
            let is_there = match port {
                Port::Seat(seat) => seats.contains(seat),
                Port::Peer(node) => peers.contains(node),
                // A foreign machine has one card, which is not learned but bound.
                Port::Edge | Port::Foreign(_) => true,
            };
            is_there && !fixed.contains_key(card)
        });
    }

    /// A foreign machine is plugged in; which card it has is not known yet.
    pub fn plug(&mut self, foreign: ForeignId) {
        self.foreign.insert(foreign, None);
    }

    /// It has gone, and nobody has its card.
    pub fn unplug(&mut self, foreign: ForeignId) {
        self.foreign.remove(&foreign);
    }

    /// The card of a foreign machine, from its first frame on.
    ///
    /// # Errors
    /// When somebody else of the LAN has it.
    pub fn bind(&mut self, now: Duration, foreign: ForeignId, card: MacAddr) -> Result<(), Taken> {
        if card.is_group() || card == MacAddr::ZERO {
            return Err(Taken::NoCard);
        }
        self.is_free(foreign, card)?;
        if let Some((Port::Peer(node), heard)) = self.learned.get(&card)
            && now.saturating_sub(*heard) < ELSEWHERE
        {
            return Err(Taken::Elsewhere(*node));
        }
        self.learned.remove(&card);
        self.foreign.insert(foreign, Some(card));
        Ok(())
    }

    /// Whether nobody of this node or of the directory but `foreign` has `card`; the directory may have changed since it was bound.
    ///
    /// # Errors
    /// When somebody else has it.
    pub fn is_free(&self, foreign: ForeignId, card: MacAddr) -> Result<(), Taken> {
        if self.fixed.contains_key(&card) {
            return Err(Taken::Directory);
        }
        match self.bound(card) {
            Some(other) if other != foreign => Err(Taken::Foreign(other)),
            _ => Ok(()),
        }
    }

    fn bound(&self, card: MacAddr) -> Option<ForeignId> {
        self.foreign.iter().find(|(_, bound)| **bound == Some(card)).map(|(foreign, _)| *foreign)
    }

    /// Where `frame` goes that came in at `from`; its source is noted. `now` is any monotonic time.
    pub fn forward(&mut self, now: Duration, from: Port, frame: &[u8]) -> Targets {
        let (Some(to), Some(source)) = (frame.octets::<6>(0).map(MacAddr), frame.octets::<6>(6).map(MacAddr)) else {
            return Targets::Nobody;
        };
        self.learn(now, from, source);
        if to.is_group() {
            return Targets::Flood { peers: peers_may_hear(from, frame) };
        }
        match self.at(now, to) {
            Some(port) if port == from || is_third_node(from, port) => Targets::Nobody,
            Some(port) => Targets::One(port),
            None => Targets::Flood { peers: !matches!(from, Port::Peer(_)) },
        }
    }

    /// The ports of a flood, once each.
    pub fn flood(&self, from: Port, peers: bool) -> impl Iterator<Item = Port> {
        let seats = self.seats.iter().copied().map(Port::Seat);
        let peers = self.peers.iter().copied().map(Port::Peer).filter(move |_| peers);
        let foreign = self.foreign.keys().copied().map(Port::Foreign);
        seats.chain(foreign).chain([Port::Edge]).chain(peers).filter(move |port| *port != from)
    }

    /// Forgets cards that were silent for [`AGE`].
    pub fn age(&mut self, now: Duration) {
        self.learned.retain(|_, (_, heard)| now.saturating_sub(*heard) < AGE);
    }

    /// Cards that were learned, and where.
    pub fn learned(&self) -> impl Iterator<Item = (MacAddr, Port)> {
        self.learned.iter().map(|(card, (port, _))| (*card, *port))
    }

    fn learn(&mut self, now: Duration, from: Port, source: MacAddr) {
        // A source that is a group is nobody's (IEEE 802.3 3.2.3).
        if source.is_group() || self.fixed.contains_key(&source) || self.bound(source).is_some() {
            return;
        }
        if let Some(known) = self.learned.get_mut(&source) {
            *known = (from, now);
        } else if self.learned.len() < LEARNED_MAX {
            self.learned.insert(source, (from, now));
        }
    }

    fn at(&self, now: Duration, card: MacAddr) -> Option<Port> {
        self.fixed.get(&card).copied().or_else(|| self.bound(card).map(Port::Foreign)).or_else(|| {
            let (port, heard) = self.learned.get(&card)?;
            (now.saturating_sub(*heard) < AGE).then_some(*port)
        })
    }
}

/// Split horizon: the nodes are fully meshed, so another one has had it already.
const fn is_third_node(from: Port, to: Port) -> bool {
    matches!((from, to), (Port::Peer(_), Port::Peer(_)))
}

const DHCP_CLIENT_PORT: u16 = 68;

/// A guest's question for an address stays on its node.
fn peers_may_hear(from: Port, frame: &[u8]) -> bool {
    let asks = || {
        if classify(frame) != TrafficClass::Dhcp {
            return false;
        }
        let ip = if frame.octets::<2>(12) == Some([0x08, 0x00]) { 14 } else { 22 };
        let Some([version]) = frame.octets::<1>(ip) else { return false };
        let source = frame.octets::<2>(ip + usize::from(version & 0x0f) * 4);
        source.map(u16::from_be_bytes) == Some(DHCP_CLIENT_PORT)
    };
    match from {
        Port::Peer(_) => false,
        Port::Seat(_) | Port::Foreign(_) => !asks(),
        Port::Edge => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(1000);
    const EDGE: MacAddr = MacAddr([6; 6]);
    const B: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 12);
    const C: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 13);

    const fn card(seat: u8) -> MacAddr {
        MacAddr([2, 0x4c, 0, 0x10, 0x68, seat + 1])
    }

    const fn here(seat: u8) -> Port {
        Port::Seat(Seat(seat))
    }

    /// Seats 0 and 1 here, 2 at B, 3 at C.
    fn table() -> Table {
        let mut table = Table::default();
        let places = [here(0), here(1), Port::Peer(B), Port::Peer(C)];
        table.set((0..).map(card).zip(places).chain([(EDGE, Port::Edge)]));
        table
    }

    fn frame(to: MacAddr, from: MacAddr) -> Vec<u8> {
        [&to.0[..], &from.0, &[0x08, 0x06], &[0; 46]].concat()
    }

    fn all(table: &mut Table, from: Port, source: MacAddr, to: MacAddr) -> Vec<Port> {
        match table.forward(NOW, from, &frame(to, source)) {
            Targets::Nobody => Vec::new(),
            Targets::One(port) => vec![port],
            Targets::Flood { peers } => table.flood(from, peers).collect(),
        }
    }

    #[test]
    fn unicast_goes_where_the_directory_says() {
        let mut table = table();
        assert_eq!(all(&mut table, here(0), card(0), card(1)), [here(1)]);
        assert_eq!(all(&mut table, here(0), card(0), card(3)), [Port::Peer(C)]);
        assert_eq!(all(&mut table, here(0), card(0), EDGE), [Port::Edge]);
        assert_eq!(all(&mut table, Port::Peer(B), card(2), card(0)), [here(0)]);
        assert_eq!(all(&mut table, here(0), card(0), card(0)), [], "not back to where it came from");
    }

    #[test]
    fn broadcasts_reach_everybody_once_and_no_third_node() {
        let mut table = table();
        let want = [here(1), Port::Edge, Port::Peer(B), Port::Peer(C)];
        assert_eq!(all(&mut table, here(0), card(0), MacAddr::BROADCAST), want);
        assert_eq!(all(&mut table, Port::Peer(B), card(2), MacAddr::BROADCAST), [here(0), here(1), Port::Edge]);
        assert_eq!(all(&mut table, Port::Peer(B), card(2), card(3)), [], "split horizon");
        assert_eq!(
            all(&mut table, Port::Edge, EDGE, MacAddr::BROADCAST),
            [here(0), here(1), Port::Peer(B), Port::Peer(C)]
        );
    }

    #[test]
    fn a_question_for_an_address_stays_on_its_node() {
        let mut question = frame(MacAddr::BROADCAST, card(0));
        question.truncate(12);
        question
            .extend([0x08, 0, 0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 68, 0, 67]);
        question.extend([0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(table().forward(NOW, here(0), &question), Targets::Flood { peers: false });
        question[35] = 99;
        assert_eq!(table().forward(NOW, here(0), &question), Targets::Flood { peers: true });
    }

    #[test]
    fn strangers_are_learned_forgotten_and_never_over_the_directory() {
        let mut table = table();
        let stranger = MacAddr([0xa, 1, 2, 3, 4, 5]);
        assert_eq!(all(&mut table, here(0), card(0), stranger).len(), 4, "not known yet");
        all(&mut table, Port::Peer(C), stranger, card(0));
        assert_eq!(all(&mut table, here(0), card(0), stranger), [Port::Peer(C)]);
        // Somebody at B says that it is seat 1 of this node: the directory knows better.
        all(&mut table, Port::Peer(B), card(1), card(0));
        assert_eq!(all(&mut table, here(0), card(0), card(1)), [here(1)]);
        table.age(NOW + AGE);
        assert_eq!(table.learned().count(), 0);
    }

    #[test]
    fn learning_has_a_bound_and_what_is_gone_is_forgotten() {
        let mut table = table();
        for number in 0..5_000_u32 {
            let [_, a, b, c] = number.to_be_bytes();
            all(&mut table, Port::Peer(B), MacAddr([0xa, 0, 0, a, b, c]), card(0));
        }
        assert_eq!(table.learned().count(), LEARNED_MAX);
        table.set([(card(0), here(0))]);
        assert_eq!(table.learned().count(), 0, "node B is gone");
    }

    #[test]
    fn a_foreign_machine_is_a_port_with_one_card_that_nobody_else_has() {
        let mut table = table();
        let (one, two) = (ForeignId(1), ForeignId(2));
        table.plug(one);
        table.plug(two);
        let mine = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert_eq!(table.bind(NOW, one, mine), Ok(()));
        assert_eq!(table.bind(NOW, one, mine), Ok(()), "again");
        assert_eq!(table.bind(NOW, two, mine), Err(Taken::Foreign(one)));
        for taken in [card(0), card(3), EDGE] {
            assert_eq!(table.bind(NOW, two, taken), Err(Taken::Directory));
        }
        for none in [MacAddr::ZERO, MacAddr::BROADCAST] {
            assert_eq!(table.bind(NOW, two, none), Err(Taken::NoCard));
        }
        let (foreign, other) = (Port::Foreign(one), Port::Foreign(two));
        assert_eq!(all(&mut table, here(0), card(0), mine), [foreign]);
        assert_eq!(all(&mut table, Port::Peer(B), card(2), mine), [foreign]);
        assert_eq!(all(&mut table, foreign, mine, card(3)), [Port::Peer(C)]);
        let want = [here(0), here(1), other, Port::Edge, Port::Peer(B), Port::Peer(C)];
        assert_eq!(all(&mut table, foreign, mine, MacAddr::BROADCAST), want);
        // Another node says that it has the card: who is plugged in here knows better.
        all(&mut table, Port::Peer(B), mine, card(0));
        assert_eq!(all(&mut table, here(0), card(0), mine), [foreign]);
        table.unplug(one);
        assert_eq!(table.bind(NOW, two, mine), Ok(()));
        // A seat that comes later has its card, whoever had it.
        table.set([(mine, here(0))]);
        assert_eq!(table.is_free(two, mine), Err(Taken::Directory));
        assert_eq!(all(&mut table, Port::Edge, EDGE, mine), [here(0)]);
    }

    #[test]
    fn a_card_that_was_just_heard_elsewhere_is_there() {
        let (mut table, mine) = (table(), MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        table.plug(ForeignId(1));
        all(&mut table, Port::Peer(B), mine, card(0));
        assert_eq!(table.bind(NOW, ForeignId(1), mine), Err(Taken::Elsewhere(B)));
        assert_eq!(table.bind(NOW + ELSEWHERE, ForeignId(1), mine), Ok(()));
    }

    proptest! {
        #[test]
        fn no_frame_goes_back_or_to_a_third_node(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            known in 0_u8..5,
            from in prop_oneof![Just(here(0)), Just(here(1)), Just(Port::Edge), Just(Port::Peer(B)), Just(Port::Peer(C))],
        ) {
            let mut table = table();
            let mut bytes = bytes;
            if bytes.len() >= 6 && known < 4 {
                bytes[..6].copy_from_slice(&card(known).0);
            }
            let targets: Vec<_> = match table.forward(NOW, from, &bytes) {
                Targets::Nobody => Vec::new(),
                Targets::One(port) => vec![port],
                Targets::Flood { peers } => table.flood(from, peers).collect(),
            };
            prop_assert!(!targets.contains(&from));
            prop_assert!(!targets.iter().any(|to| is_third_node(from, *to)));
            let mut once = targets.clone();
            once.sort();
            once.dedup();
            prop_assert_eq!(once.len(), targets.len());
        }
    }
}
