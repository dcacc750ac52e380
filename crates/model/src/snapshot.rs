//! The cluster as an agent must know it: LANs, nodes, and which instance sits where.
//!
//! Every agent computes its own desired state from one `Snapshot`, so there is no leader and no message between agents.
//! Under Kubernetes it will come from a watch; under `loco up` it comes from a file. Same type, same code after it.
use std::{collections::BTreeMap, net::Ipv4Addr};

use crate::{Card, Identity, InstanceId, InvalidLan, Lan, LanName, NetworkMode, NodeName, Seat, Vni};

/// A machine that runs an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: NodeName,
    /// Address of the node on the underlay: its VTEP, and where its media ports are.
    pub underlay_ip: Ipv4Addr,
    /// Base URL of the agent's HTTP API.
    pub agent_url: String,
}

/// An instance and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedInstance {
    pub id: InstanceId,
    pub lan: LanName,
    pub seat: Seat,
    pub node: NodeName,
    /// The card of a guest that was moved here from the seat that it was started for; `None`: this is that seat.
    pub card: Option<Card>,
}

impl PlacedInstance {
    /// Whether a guest of a LAN of the one mode can be in one of the other without a restart: what its card is plugged into must be the
    /// same, and lead somewhere else.
    pub fn can_move(from: NetworkMode, to: NetworkMode) -> bool {
        from == to && matches!(to, NetworkMode::Vxlan | NetworkMode::Socket)
    }
}

/// Checked: names are unique, references resolve, seats and cards are single. No card is told of an instance that is where it was started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    lans: BTreeMap<LanName, Lan>,
    nodes: BTreeMap<NodeName, Node>,
    instances: BTreeMap<InstanceId, PlacedInstance>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSnapshot {
    #[error("{kind} `{name}` is listed twice; give each one a name of its own")]
    Twice { kind: &'static str, name: String },
    #[error("instance `{instance}` names {kind} `{name}`, which is not listed")]
    Unknown { instance: InstanceId, kind: &'static str, name: String },
    #[error("VNI {vni} is used by LAN `{a}` and LAN `{b}`; frames of the two would mix")]
    SharedVni { vni: u32, a: LanName, b: LanName },
    #[error("underlay address {ip} is used by node `{a}` and node `{b}`")]
    SharedUnderlay { ip: Ipv4Addr, a: NodeName, b: NodeName },
    #[error("seat {seat} of LAN `{lan}` is taken by `{a}` and `{b}`")]
    SharedSeat { lan: LanName, seat: u8, a: InstanceId, b: InstanceId },
    #[error(
        "card {card} is that of `{a}` and of `{b}`: one of the two was moved away from the seat that the other has; move it back, or the other away"
    )]
    SharedCard { card: Card, a: InstanceId, b: InstanceId },
    #[error(
        "instance `{instance}` cannot be in LAN `{lan}` of mode {to} with a card of mode {from}: a guest moves among LANs of mode vxlan, or of mode socket; restart it in the other LAN"
    )]
    CannotMove { instance: InstanceId, lan: LanName, from: NetworkMode, to: NetworkMode },
    #[error("instance `{instance}` has no place")]
    Lan {
        instance: InstanceId,
        #[source]
        source: InvalidLan,
    },
}

/// Why a guest cannot be given a seat.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSeat {
    #[error("there is no instance `{0}`; `loco status` lists them")]
    Instance(InstanceId),
    #[error("there is no LAN `{0}`; `loco lan list` lists them")]
    Lan(LanName),
    #[error(transparent)]
    Seat(#[from] InvalidLan),
    #[error("seat {seat} of LAN `{lan}` is taken by `{by}`; choose another one")]
    Taken { lan: LanName, seat: u8, by: InstanceId },
    #[error(
        "seat {seat} of LAN `{lan}` is kept for `{by}`, which was started there and moved away; choose another one"
    )]
    Kept { lan: LanName, seat: u8, by: InstanceId },
    #[error("LAN `{lan}` has no free seat: {seats} are taken, or kept for guests that moved away; give it more seats")]
    Full { lan: LanName, seats: u8 },
    #[error(
        "a guest of a LAN of mode {from} cannot move to LAN `{lan}` of mode {to}: that goes among LANs of mode vxlan, or of mode socket; place it there and restart it"
    )]
    Mode { lan: LanName, from: NetworkMode, to: NetworkMode },
}

impl Snapshot {
    pub fn new(
        lans: impl IntoIterator<Item = Lan>,
        nodes: impl IntoIterator<Item = Node>,
        instances: impl IntoIterator<Item = PlacedInstance>,
    ) -> Result<Self, InvalidSnapshot> {
        let mut snapshot = Self::default();
        let mut vnis: BTreeMap<Vni, LanName> = BTreeMap::new();
        for lan in lans {
            if let Some(a) = vnis.insert(lan.vni(), lan.name().clone())
                && a != *lan.name()
            {
                return Err(InvalidSnapshot::SharedVni { vni: lan.vni().get(), a, b: lan.name().clone() });
            }
            if let Some(old) = snapshot.lans.insert(lan.name().clone(), lan) {
                return Err(InvalidSnapshot::Twice { kind: "LAN", name: old.name().to_string() });
            }
        }
        let mut underlay = BTreeMap::new();
        for node in nodes {
            if let Some(a) = underlay.insert(node.underlay_ip, node.name.clone())
                && a != node.name
            {
                return Err(InvalidSnapshot::SharedUnderlay { ip: node.underlay_ip, a, b: node.name });
            }
            if let Some(old) = snapshot.nodes.insert(node.name.clone(), node) {
                return Err(InvalidSnapshot::Twice { kind: "node", name: old.name.to_string() });
            }
        }
        let (mut seats, mut cards) = (BTreeMap::new(), BTreeMap::new());
        for mut instance in instances {
            let unknown = |kind, name: String| InvalidSnapshot::Unknown { instance: instance.id.clone(), kind, name };
            let lan = snapshot.lans.get(&instance.lan).ok_or_else(|| unknown("LAN", instance.lan.to_string()))?;
            if !snapshot.nodes.contains_key(&instance.node) {
                return Err(unknown("node", instance.node.to_string()));
            }
            let own = lan
                .card(instance.seat)
                .map_err(|source| InvalidSnapshot::Lan { instance: instance.id.clone(), source })?;
            instance.card = instance.card.filter(|card| *card != own);
            let card = instance.card.unwrap_or(own);
            // The LAN that it was started in may be gone by now.
            let home = vnis.get(&card.vni()).and_then(|name| snapshot.lans.get(name));
            let from = home.map_or(lan.mode(), Lan::mode);
            if card != own && !PlacedInstance::can_move(from, lan.mode()) {
                let (lan, to) = (instance.lan, lan.mode());
                return Err(InvalidSnapshot::CannotMove { instance: instance.id, lan, from, to });
            }
            if let Some(a) = seats.insert((instance.lan.clone(), instance.seat), instance.id.clone())
                && a != instance.id
            {
                return Err(InvalidSnapshot::SharedSeat {
                    lan: instance.lan,
                    seat: instance.seat.0,
                    a,
                    b: instance.id,
                });
            }
            if let Some(a) = cards.insert(card, instance.id.clone())
                && a != instance.id
            {
                return Err(InvalidSnapshot::SharedCard { card, a, b: instance.id });
            }
            if let Some(old) = snapshot.instances.insert(instance.id.clone(), instance) {
                return Err(InvalidSnapshot::Twice { kind: "instance", name: old.id.to_string() });
            }
        }
        Ok(snapshot)
    }

    pub fn lans(&self) -> impl Iterator<Item = &Lan> {
        self.lans.values()
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub fn instances(&self) -> impl Iterator<Item = &PlacedInstance> {
        self.instances.values()
    }

    pub fn lan(&self, name: &LanName) -> Option<&Lan> {
        self.lans.get(name)
    }

    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    pub fn instance(&self, id: &InstanceId) -> Option<&PlacedInstance> {
        self.instances.get(id)
    }

    /// The card of an instance of this snapshot.
    pub fn card(&self, placed: &PlacedInstance) -> Option<Card> {
        placed.card.or_else(|| self.lan(&placed.lan)?.card(placed.seat).ok())
    }

    /// Who an instance of this snapshot is: the MAC of its card, address and host name of the seat where it is now. `None` of one that is
    /// not of this snapshot.
    pub fn identity(&self, placed: &PlacedInstance) -> Option<Identity> {
        let lan = self.lan(&placed.lan)?;
        let own = lan.card(placed.seat).ok()?;
        Some(lan.identity_with(placed.seat, placed.card.unwrap_or(own)))
    }

    /// Moves an instance into `lan`: to `seat`, or by default to the one that it was started for, else to the one where it is, else to the
    /// first that is nobody's. A seat whose guest has moved away stays that guest's, so that it can come back.
    ///
    /// # Errors
    /// When that cannot be; then nothing has changed.
    pub fn move_to(&mut self, id: &InstanceId, lan: &LanName, seat: Option<Seat>) -> Result<(), NoSeat> {
        // Its card is the one that it had and its seat is nobody's, so all that `new` checks still holds.
        let placed = self.moved(id, lan, seat)?;
        self.instances.insert(placed.id.clone(), placed);
        Ok(())
    }

    fn moved(&self, id: &InstanceId, lan: &LanName, seat: Option<Seat>) -> Result<PlacedInstance, NoSeat> {
        let placed = self.instance(id).ok_or_else(|| NoSeat::Instance(id.clone()))?;
        let to = self.lan(lan).ok_or_else(|| NoSeat::Lan(lan.clone()))?;
        let (from, card) = (self.lan(&placed.lan).map_or(to.mode(), Lan::mode), self.card(placed));
        if !PlacedInstance::can_move(from, to.mode()) {
            return Err(NoSeat::Mode { lan: lan.clone(), from, to: to.mode() });
        }
        let (mut taken, mut kept) = (BTreeMap::new(), BTreeMap::new());
        for other in self.instances().filter(|other| other.id != *id) {
            if other.lan == *lan {
                taken.insert(other.seat, &other.id);
            }
            if let Some(card) = self.card(other).filter(|card| card.vni() == to.vni()) {
                kept.insert(card.seat(), &other.id);
            }
        }
        let is_free = |seat: &Seat| !taken.contains_key(seat) && !kept.contains_key(seat);
        let stays = (placed.lan == *lan).then_some(placed.seat);
        let home = card.filter(|card| card.vni() == to.vni()).map(Card::seat);
        let full = || NoSeat::Full { lan: lan.clone(), seats: to.seats() };
        let seat = match seat.or(home.filter(is_free)).or(stays) {
            Some(seat) => seat,
            None => (0..to.seats()).map(Seat).find(is_free).ok_or_else(full)?,
        };
        let own = to.card(seat)?;
        let place = || (lan.clone(), seat.0);
        if let Some(by) = taken.get(&seat) {
            let (lan, seat) = place();
            return Err(NoSeat::Taken { lan, seat, by: (*by).clone() });
        }
        if let Some(by) = kept.get(&seat) {
            let (lan, seat) = place();
            return Err(NoSeat::Kept { lan, seat, by: (*by).clone() });
        }
        let card = card.filter(|card| *card != own);
        Ok(PlacedInstance { id: id.clone(), lan: lan.clone(), seat, node: placed.node.clone(), card })
    }

    /// Instances that sit on `node`.
    pub fn on_node<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = &'a PlacedInstance> {
        self.instances.values().filter(move |instance| instance.node == *node)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn lan(name: &str, vni: u32) -> Lan {
        let subnet = "10.98.0.0/24".parse().unwrap();
        Lan::new(name.parse().unwrap(), Vni::new(vni).unwrap(), NetworkMode::Vxlan, subnet, 9).unwrap()
    }

    fn node(name: &str, last: u8) -> Node {
        Node {
            name: name.parse().unwrap(),
            underlay_ip: Ipv4Addr::new(10, 99, 0, last),
            agent_url: format!("http://10.99.0.{last}:14780"),
        }
    }

    fn seat(id: &str, lan: &str, seat: u8, node: &str) -> PlacedInstance {
        let (id, lan, node) = (id.parse().unwrap(), lan.parse().unwrap(), node.parse().unwrap());
        PlacedInstance { id, lan, seat: Seat(seat), node, card: None }
    }

    /// One that was started for the seat of that card.
    fn moved(id: &str, at: (&str, u8), card: &str) -> PlacedInstance {
        PlacedInstance { card: Some(card.parse().unwrap()), ..seat(id, at.0, at.1, "a") }
    }

    fn of_mode(name: &str, vni: u32, mode: NetworkMode) -> Lan {
        Lan::new(name.parse().unwrap(), Vni::new(vni).unwrap(), mode, "10.98.0.0/24".parse().unwrap(), 3).unwrap()
    }

    /// Of LANs `x` (VNI 1) and `y` (VNI 2), three seats each.
    fn two_lans(mode: NetworkMode, instances: Vec<PlacedInstance>) -> Result<Snapshot, InvalidSnapshot> {
        Snapshot::new([of_mode("x", 1, NetworkMode::Vxlan), of_mode("y", 2, mode)], [node("a", 1)], instances)
    }

    #[track_caller]
    fn refuses(
        lans: Vec<Lan>,
        nodes: Vec<Node>,
        instances: Vec<PlacedInstance>,
        want: impl Fn(&InvalidSnapshot) -> bool,
    ) {
        let error = Snapshot::new(lans, nodes, instances).unwrap_err();
        assert!(want(&error), "{error:?}");
    }

    #[test]
    fn refuses_contradictions() {
        use InvalidSnapshot as E;
        let (l, n) = (|| vec![lan("party", 42)], || vec![node("a", 1)]);
        refuses(vec![lan("party", 42), lan("p2", 42)], n(), vec![], |e| matches!(e, E::SharedVni { .. }));
        refuses(vec![lan("party", 42), lan("party", 43)], n(), vec![], |e| matches!(e, E::Twice { kind: "LAN", .. }));
        refuses(l(), vec![node("a", 1), node("b", 1)], vec![], |e| matches!(e, E::SharedUnderlay { .. }));
        refuses(l(), n(), vec![seat("i-0", "x", 0, "a")], |e| matches!(e, E::Unknown { kind: "LAN", .. }));
        refuses(l(), n(), vec![seat("i-0", "party", 0, "x")], |e| matches!(e, E::Unknown { kind: "node", .. }));
        refuses(l(), n(), vec![seat("i-0", "party", 9, "a")], |e| matches!(e, E::Lan { .. }));
        refuses(l(), n(), vec![seat("i-0", "party", 0, "a"), seat("i-1", "party", 0, "a")], |e| {
            matches!(e, E::SharedSeat { .. })
        });
        refuses(l(), n(), vec![seat("i-0", "party", 0, "a"), seat("i-0", "party", 1, "a")], |e| {
            matches!(e, E::Twice { kind: "instance", .. })
        });
    }

    #[test]
    fn a_moved_guest_keeps_its_card_and_has_the_address_of_its_new_seat() {
        let at_y = moved("i-0", ("y", 2), "02:4c:00:00:01:01");
        let snapshot = two_lans(NetworkMode::Vxlan, vec![at_y.clone(), seat("i-1", "y", 0, "a")]).unwrap();
        let placed = snapshot.instance(&at_y.id).unwrap();
        let identity = snapshot.identity(placed).unwrap();
        assert_eq!((identity.mac.to_string().as_str(), identity.host_name.as_str()), ("02:4c:00:00:01:01", "LOCO2-3"));
        assert_eq!(identity.ip, Ipv4Addr::new(10, 98, 0, 3));
        // The card of the very seat is told by the seat.
        let home = two_lans(NetworkMode::Vxlan, vec![moved("i-0", ("x", 0), "02:4c:00:00:01:01")]).unwrap();
        assert_eq!(home.instances().next().unwrap().card, None);
    }

    #[test]
    fn no_two_guests_have_one_card_and_none_moves_to_another_mode() {
        use InvalidSnapshot as E;
        let card = "02:4c:00:00:01:01";
        let error = |mode, instances| two_lans(mode, instances).unwrap_err();
        let away = || moved("i-0", ("y", 2), card);
        let shared = error(NetworkMode::Vxlan, vec![away(), seat("i-1", "x", 0, "a")]);
        assert!(shared.to_string().contains("`i-0` and of `i-1`"), "{shared}");
        let twice = vec![away(), moved("i-1", ("y", 1), card)];
        assert!(matches!(error(NetworkMode::Vxlan, twice), E::SharedCard { .. }));
        for mode in [NetworkMode::Socket, NetworkMode::Macvlan, NetworkMode::User] {
            assert!(matches!(error(mode, vec![away()]), E::CannotMove { .. }), "{mode}");
        }
        // The LAN that it was started in is gone; it stays.
        let stays = moved("i-0", ("y", 2), "02:4c:00:00:09:01");
        assert!(two_lans(NetworkMode::Vxlan, vec![stays.clone()]).is_ok());
        assert!(matches!(error(NetworkMode::User, vec![stays]), E::CannotMove { .. }));
    }

    #[test]
    fn a_seat_is_found_or_refused_in_words() {
        let id = |name: &str| name.parse::<InstanceId>().unwrap();
        let (x, y) = ("x".parse().unwrap(), "y".parse().unwrap());
        let all = vec![
            seat("i-0", "x", 0, "a"),
            seat("i-1", "y", 0, "a"),
            // Started at seat 1 of y, and moved away.
            moved("i-2", ("x", 1), "02:4c:00:00:02:02"),
        ];
        let snapshot = two_lans(NetworkMode::Vxlan, all).unwrap();
        let place = |who: &str, lan: &LanName, seat: Option<u8>| {
            let placed = snapshot.moved(&id(who), lan, seat.map(Seat));
            placed.map(|placed| (placed.lan.to_string(), placed.seat.0, placed.card.map(|card| card.to_string())))
        };
        let card = Some("02:4c:00:00:01:01".to_owned());
        assert_eq!(place("i-0", &y, None), Ok(("y".to_owned(), 2, card.clone())));
        assert_eq!(place("i-2", &y, None), Ok(("y".to_owned(), 1, None)), "home again");
        assert_eq!(place("i-0", &x, None), Ok(("x".to_owned(), 0, None)), "where it is");
        assert_eq!(place("i-0", &x, Some(2)), Ok(("x".to_owned(), 2, card)));
        assert!(matches!(place("i-0", &y, Some(0)), Err(NoSeat::Taken { .. })));
        assert!(matches!(place("i-0", &y, Some(1)), Err(NoSeat::Kept { .. })));
        assert!(matches!(place("i-0", &y, Some(3)), Err(NoSeat::Seat(_))));
        assert!(matches!(place("i-9", &y, None), Err(NoSeat::Instance(_))));
        assert!(matches!(place("i-0", &"z".parse().unwrap(), None), Err(NoSeat::Lan(_))));
        let other = two_lans(NetworkMode::Socket, vec![seat("i-0", "x", 0, "a")]).unwrap();
        assert!(matches!(other.moved(&id("i-0"), &y, None), Err(NoSeat::Mode { .. })));
        let full: Vec<_> =
            (0..3).map(|n| seat(&format!("j-{n}"), "y", n, "a")).chain([seat("i-0", "x", 0, "a")]).collect();
        let full = two_lans(NetworkMode::Vxlan, full).unwrap();
        assert!(matches!(full.moved(&id("i-0"), &y, None), Err(NoSeat::Full { .. })));
    }

    proptest! {
        /// However guests are moved about: what is granted is a snapshot again, and no two have one card, seat or address of a LAN.
        #[test]
        fn whatever_moves_cards_and_seats_stay_single(moves in vec((0usize..5, any::<bool>(), option::of(0u8..4)), 0..30)) {
            let homes = [("x", 0), ("x", 1), ("x", 2), ("y", 0), ("y", 2)];
            let mut all: Vec<_> = homes.iter().enumerate().map(|(n, (lan, at))| seat(&format!("i-{n}"), lan, *at, "a")).collect();
            let mut snapshot = two_lans(NetworkMode::Vxlan, all.clone()).unwrap();
            let cards: Vec<_> = all.iter().map(|placed| snapshot.card(placed)).collect();
            for (who, to_x, at) in moves {
                let to = if to_x { "x" } else { "y" }.parse().unwrap();
                if snapshot.move_to(&all[who].id, &to, at.map(Seat)).is_ok() {
                    all[who] = snapshot.instance(&all[who].id).unwrap().clone();
                    prop_assert_eq!(&two_lans(NetworkMode::Vxlan, all.clone()).expect("what is granted holds"), &snapshot);
                }
                prop_assert_eq!(&all.iter().map(|placed| snapshot.card(placed)).collect::<Vec<_>>(), &cards);
                let who_is: Vec<_> = all.iter().map(|placed| (placed, snapshot.identity(placed).unwrap())).collect();
                let macs: BTreeSet<_> = who_is.iter().map(|(_, identity)| identity.mac).collect();
                let addresses: BTreeSet<_> = who_is.iter().map(|(placed, identity)| (&placed.lan, identity.ip)).collect();
                let names: BTreeSet<_> = who_is.iter().map(|(_, identity)| &identity.host_name).collect();
                prop_assert_eq!((macs.len(), addresses.len(), names.len()), (5, 5, 5));
            }
            // Everybody can go home.
            for placed in &all {
                let card = snapshot.card(placed).unwrap();
                let home = snapshot.lans().find(|lan| lan.vni() == card.vni()).unwrap().name();
                let back = snapshot.moved(&placed.id, home, Some(card.seat()));
                let sits = snapshot.instances().any(|other| other.lan == *home && other.seat == card.seat() && other.id != placed.id);
                prop_assert!(sits || back.is_ok_and(|placed| placed.card.is_none()));
            }
        }
    }
}
