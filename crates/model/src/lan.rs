//! A LAN, its seats, and the one function that gives a seat its identity.
use std::{fmt, net::Ipv4Addr, str::FromStr};

use wire::MacAddr;

use crate::{LanName, Rules};

/// A VXLAN Network Identifier: 24 bits, never 0 (RFC 7348 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("VNI {0} is out of range; use 1 to 16777215")]
pub struct InvalidVni(pub u32);

impl Vni {
    pub const fn new(raw: u32) -> Result<Self, InvalidVni> {
        if raw == 0 || raw > 0x00ff_ffff { Err(InvalidVni(raw)) } else { Ok(Self(raw)) }
    }

    pub const fn get(self) -> u32 {
        self.0
    }
}

/// How guests of a LAN are joined (requirement R16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkMode {
    Vxlan,
    Macvlan,
    Socket,
    User,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network mode; use vxlan, macvlan, socket or user")]
pub struct UnknownNetworkMode(pub String);

impl NetworkMode {
    /// Whether it is made of the kernel's devices, which an agent needs rights for.
    pub const fn needs_kernel(self) -> bool {
        matches!(self, Self::Vxlan | Self::Macvlan)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Macvlan => "macvlan",
            Self::Socket => "socket",
            Self::User => "user",
        }
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for NetworkMode {
    type Err = UnknownNetworkMode;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "vxlan" => Ok(Self::Vxlan),
            "macvlan" => Ok(Self::Macvlan),
            "socket" => Ok(Self::Socket),
            "user" => Ok(Self::User),
            other => Err(UnknownNetworkMode(other.chars().take(40).collect())),
        }
    }
}

/// Index of an instance in its LAN, from 0. People see it as a number from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat(pub u8);

/// The guests' IPv4 subnet: network address and prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    network: Ipv4Addr,
    prefix_len: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLan {
    #[error("`{0}` is not a subnet; write a network address and a prefix length from 16 to 28, such as 10.98.0.0/24")]
    Subnet(String),
    #[error("LAN `{lan}` has {seats} seats; {subnet} holds 1 to {max}")]
    Seats { lan: LanName, seats: u8, subnet: Subnet, max: u32 },
    #[error("seat {seat} does not exist in LAN `{lan}`; it has seats 0 to {last}")]
    Seat { lan: LanName, seat: u8, last: u8 },
}

impl Subnet {
    pub const fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    pub const fn network(self) -> Ipv4Addr {
        self.network
    }

    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX << (32 - u32::from(self.prefix_len)))
    }

    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) | !u32::from(self.netmask()))
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & u32::from(self.netmask()) == u32::from(self.network)
    }

    /// Address of a seat.
    pub fn seat(self, seat: Seat) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + u32::from(seat.0) + 1)
    }

    /// Address of the edge: the last host address. It answers DHCP and sends the reachability questions.
    pub fn edge(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.broadcast()) - 1)
    }

    /// Guests the subnet can hold: all host addresses but the edge's; at most 254, as a seat is one octet of a MAC.
    fn capacity(self) -> u32 {
        ((1u32 << (32 - u32::from(self.prefix_len))) - 3).min(254)
    }
}

impl FromStr for Subnet {
    type Err = InvalidLan;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidLan::Subnet(text.chars().take(40).collect());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let network: Ipv4Addr = address.parse().map_err(|_| invalid())?;
        let prefix_len: u8 = prefix.parse().map_err(|_| invalid())?;
        let subnet = Self { network, prefix_len };
        if !(16..=28).contains(&prefix_len) || !subnet.contains(network) {
            return Err(invalid());
        }
        Ok(subnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

/// One broadcast domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lan {
    name: LanName,
    vni: Vni,
    mode: NetworkMode,
    subnet: Subnet,
    seats: u8,
    guard: Rules,
}

/// The network card of a guest, called after the seat that its QEMU was started for: a card's MAC cannot change while QEMU runs.
///
/// MAC: `02` (locally administered, unicast), `4c`, the VNI's three octets, seat + 1. So it is unique over all LANs of a cluster, and a
/// capture tells LAN and seat of a guest that was not moved without a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Card {
    vni: Vni,
    seat: Seat,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no card of a seat; those are 02:4c, the VNI's three octets, and the seat's number from 01 to fe")]
pub struct InvalidCard(pub String);

impl Card {
    pub const fn vni(self) -> Vni {
        self.vni
    }

    pub const fn seat(self) -> Seat {
        self.seat
    }

    pub fn mac(self) -> MacAddr {
        mac(self.vni, self.seat.0 + 1)
    }
}

impl FromStr for Card {
    type Err = InvalidCard;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidCard(text.chars().take(40).collect());
        let MacAddr([first, second, a, b, c, number]) = MacAddr::parse(text).ok_or_else(invalid)?;
        let vni = Vni::new(u32::from_be_bytes([0, a, b, c])).map_err(|_| invalid())?;
        if [first, second] != PREFIX || !(1..EDGE).contains(&number) {
            return Err(invalid());
        }
        Ok(Self { vni, seat: Seat(number - 1) })
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mac().fmt(f)
    }
}

/// Of the MACs of cards and edges: locally administered, unicast.
const PREFIX: [u8; 2] = [0x02, 0x4c];
/// The last octet of an edge's MAC: no seat has it, as seats end at 253.
const EDGE: u8 = 0xff;

fn mac(vni: Vni, last: u8) -> MacAddr {
    let [_, a, b, c] = vni.get().to_be_bytes();
    let [first, second] = PREFIX;
    MacAddr([first, second, a, b, c, last])
}

/// Who a guest is on its LAN. Nothing else may invent an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The card's; the seat's own, unless the guest was moved here.
    pub mac: MacAddr,
    pub ip: Ipv4Addr,
    pub subnet: Subnet,
    /// NetBIOS-safe: at most 15 characters, capitals.
    pub host_name: String,
}

impl Lan {
    pub fn new(name: LanName, vni: Vni, mode: NetworkMode, subnet: Subnet, seats: u8) -> Result<Self, InvalidLan> {
        let max = subnet.capacity();
        if seats == 0 || u32::from(seats) > max {
            return Err(InvalidLan::Seats { lan: name, seats, subnet, max });
        }
        Ok(Self { name, vni, mode, subnet, seats, guard: Rules::default() })
    }

    /// With other rules at its ports than the usual ones.
    #[must_use]
    pub const fn with_guard(mut self, guard: Rules) -> Self {
        self.guard = guard;
        self
    }

    /// What its ports let through.
    pub const fn guard(&self) -> Rules {
        self.guard
    }

    pub const fn name(&self) -> &LanName {
        &self.name
    }

    pub const fn vni(&self) -> Vni {
        self.vni
    }

    pub const fn mode(&self) -> NetworkMode {
        self.mode
    }

    pub const fn subnet(&self) -> Subnet {
        self.subnet
    }

    pub const fn seats(&self) -> u8 {
        self.seats
    }

    /// The card of a guest that is started for the seat.
    pub fn card(&self, seat: Seat) -> Result<Card, InvalidLan> {
        if seat.0 >= self.seats {
            return Err(InvalidLan::Seat { lan: self.name.clone(), seat: seat.0, last: self.seats - 1 });
        }
        Ok(Card { vni: self.vni, seat })
    }

    /// MAC, address and name of a guest that is started for the seat.
    pub fn identity(&self, seat: Seat) -> Result<Identity, InvalidLan> {
        Ok(self.identity_with(seat, self.card(seat)?))
    }

    /// Address and name are the seat's, the MAC is the card's. The seat is one that the LAN has.
    pub(crate) fn identity_with(&self, seat: Seat, card: Card) -> Identity {
        Identity {
            mac: card.mac(),
            ip: self.subnet.seat(seat),
            subnet: self.subnet,
            host_name: format!("LOCO{:X}-{}", self.vni.get(), seat.0 + 1),
        }
    }

    /// MAC of the edge (`02:4c:VNI:ff`).
    pub fn edge_mac(&self) -> MacAddr {
        mac(self.vni, EDGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lan(vni: u32, subnet: &str, seats: u8) -> Result<Lan, InvalidLan> {
        Lan::new("party".parse().unwrap(), Vni::new(vni).unwrap(), NetworkMode::Vxlan, subnet.parse()?, seats)
    }

    #[test]
    fn a_seat_gives_mac_address_and_name() {
        let identity = lan(4200, "10.98.0.0/24", 9).unwrap().identity(Seat(3)).unwrap();
        assert_eq!(identity.mac.to_string(), "02:4c:00:10:68:04");
        assert_eq!(identity.ip.to_string(), "10.98.0.4");
        assert_eq!(identity.host_name, "LOCO1068-4");
    }

    #[test]
    fn identities_are_unique_over_lans_and_never_the_edge() {
        let mut macs = std::collections::BTreeSet::new();
        for vni in [1, 2, 0x00ff_ffff] {
            let lan = lan(vni, "10.98.0.0/16", 254).unwrap();
            for seat in 0..254 {
                let identity = lan.identity(Seat(seat)).unwrap();
                assert!(macs.insert(identity.mac));
                assert!(lan.subnet().contains(identity.ip));
                assert_ne!(identity.ip, lan.subnet().edge());
                assert!(identity.host_name.len() <= 15 && !identity.mac.is_group());
            }
            assert!(macs.insert(lan.edge_mac()));
        }
    }

    #[test]
    fn a_card_is_read_from_its_mac_and_nothing_else_is_one() {
        for (vni, seat) in [(1, 0), (4200, 3), (0x00ff_ffff, 253)] {
            let card = Card { vni: Vni::new(vni).unwrap(), seat: Seat(seat) };
            assert_eq!(card.to_string().parse::<Card>().unwrap(), card);
        }
        let edge = lan(4200, "10.98.0.0/24", 9).unwrap().edge_mac().to_string();
        for bad in [&edge, "02:4c:00:10:68:00", "02:4c:00:00:00:01", "02:4d:00:10:68:01", "52:54:00:12:34:56", "x", ""]
        {
            assert!(bad.parse::<Card>().unwrap_err().to_string().contains("no card of a seat"), "{bad}");
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert_eq!(
            lan(1, "10.0.0.0/28", 14).unwrap_err().to_string(),
            "LAN `party` has 14 seats; 10.0.0.0/28 holds 1 to 13"
        );
        for bad in ["10.98.0.0", "10.98.0.1/24", "10.98.0.0/8", "10.98.0.0/30", "x/24", "10.98.0.0/-1"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
        assert!(lan(1, "10.98.0.0/24", 9).unwrap().identity(Seat(9)).is_err());
        assert!(Vni::new(0).is_err() && Vni::new(1 << 24).is_err());
    }
}
