//! Which address a foreign machine is given: one of the subnet that no seat has and no other machine of this node.
//!
//! ```text
//!  network | seats' reservations | foreign machines: from the card's own place on, the next that is free | edge | broadcast
//! ```
//! **Invariant.** The place follows from the card alone, so a machine that comes again, or to another node, gets the same address
//! unless somebody else has it. Nodes do not agree on it: two machines of two nodes may fall on one address, once in as many
//! pairs as the subnet has room; the second hears of it by its own ARP probe, declines, and is given the next one.
use std::net::Ipv4Addr;

use model::{MacAddr, Subnet};

/// Addresses that are tried.
const TRIES_MAX: u32 = 256;

/// `None`: there is no room.
pub fn address(subnet: Subnet, seats: u8, card: MacAddr, is_taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    let first = u32::from(subnet.network()) + u32::from(seats) + 1;
    let room = u32::from(subnet.edge()).checked_sub(first).filter(|room| *room > 0)?;
    // FNV-1a: cards of one maker differ in their last octets only.
    let place = card.0.iter().fold(0x811c_9dc5_u32, |hash, octet| (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193));
    let nth = |n: u32| Ipv4Addr::from(first + (place % room + n) % room);
    (0..room.min(TRIES_MAX)).map(nth).find(|address| !is_taken(*address))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn a_full_subnet_has_no_room() {
        let card = MacAddr([2, 0, 0, 0, 0, 1]);
        // A /28 has 14 hosts: 13 seats and the edge.
        assert_eq!(address(subnet("10.98.0.0/28"), 13, card, |_| false), None);
        assert_eq!(address(subnet("10.98.0.0/28"), 12, card, |_| false), Some(Ipv4Addr::new(10, 98, 0, 13)));
        assert_eq!(address(subnet("10.98.0.0/28"), 12, card, |_| true), None);
    }

    proptest! {
        #[test]
        fn it_is_nobody_elses(prefix in 16_u8..=28, seats in 1_u8..13, cards in proptest::collection::vec(any::<[u8; 6]>(), 1..20)) {
            let subnet = subnet(&format!("10.98.0.0/{prefix}"));
            let mut given = BTreeSet::new();
            for card in cards {
                let Some(ip) = address(subnet, seats, MacAddr(card), |ip| given.contains(&ip)) else { continue };
                prop_assert!(subnet.contains(ip) && ip < subnet.edge());
                prop_assert!(u32::from(ip) - u32::from(subnet.network()) > u32::from(seats));
                prop_assert!(given.insert(ip));
            }
        }

        #[test]
        fn a_card_has_its_place(card in any::<[u8; 6]>()) {
            let ask = || address(subnet("10.98.0.0/24"), 9, MacAddr(card), |_| false);
            prop_assert_eq!(ask(), ask());
        }
    }
}
