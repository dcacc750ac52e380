//! What a directory says, for tests that need one: LANs of nine seats, nodes, guests at their seats.
use std::net::Ipv4Addr;

use model::{Lan, NetworkMode, Node, PlacedInstance, Seat, Vni};

/// A LAN of nine seats.
///
/// # Panics
/// If `name`, `vni` or `subnet` is none, as everywhere here: a test's own words are wrong then.
#[must_use]
pub fn lan(name: &str, vni: u32, mode: NetworkMode, subnet: &str) -> Lan {
    let (name, subnet) = (name.parse().expect("a LAN's name"), subnet.parse().expect("a subnet"));
    Lan::new(name, Vni::new(vni).expect("a VNI"), mode, subnet, 9).expect("nine fit into the subnet")
}

/// A node whose agent nobody asks.
///
/// # Panics
/// If `name` is none.
#[must_use]
pub fn node(name: &str, underlay_ip: Ipv4Addr) -> Node {
    Node { name: name.parse().expect("a node's name"), underlay_ip, agent_url: String::new() }
}

/// A guest that was never moved.
///
/// # Panics
/// If a name is none.
#[must_use]
pub fn guest(id: &str, lan: &str, seat: u8, node: &str) -> PlacedInstance {
    PlacedInstance {
        id: id.parse().expect("an instance's name"),
        lan: lan.parse().expect("a LAN's name"),
        seat: Seat(seat),
        node: node.parse().expect("a node's name"),
        card: None,
    }
}
