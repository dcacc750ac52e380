//! ARP over Ethernet (RFC 826): the question the fabric asks, the answer it gives, and what guests say. Pure. The packets
//! themselves are `wire`'s; what counts as a statement about a port is decided here.
use std::net::Ipv4Addr;

use model::MacAddr;
use pnet::util::MacAddr as PnetMac;
use wire::{
    arp::{self, Packet},
    frame::{Class, Frame},
};

/// Shortest Ethernet frame without its check sequence (IEEE 802.3): old drivers drop runts.
const FRAME_LEN_MIN: usize = 60;
const ETHERNET_LEN: usize = 14;
const ETHERTYPE: [u8; 2] = [0x08, 0x06];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arp {
    pub(crate) is_reply: bool,
    pub(crate) sender_mac: MacAddr,
    pub(crate) sender_ip: Ipv4Addr,
    pub(crate) target_mac: MacAddr,
    pub(crate) target_ip: Ipv4Addr,
}

pub(crate) const fn mac_of(mac: PnetMac) -> MacAddr {
    MacAddr([mac.0, mac.1, mac.2, mac.3, mac.4, mac.5])
}

pub(crate) const fn pnet_mac(mac: MacAddr) -> PnetMac {
    let [a, b, c, d, e, f] = mac.0;
    PnetMac(a, b, c, d, e, f)
}

/// Reads an Ethernet frame; `None` for anything but a well-formed request or reply for IPv4.
pub(crate) fn parse(frame: &[u8]) -> Option<Arp> {
    let ethernet = Frame::parse(frame).filter(|frame| frame.class == Class::Arp)?;
    let packet = Packet::parse(ethernet.payload)?;
    // A frame whose outer and inner sender differ is proxy ARP or a forgery; neither says anything about a port.
    let honest = ethernet.source == packet.sender_mac && (packet.is_request() || packet.is_reply());
    honest.then(|| Arp {
        is_reply: packet.is_reply(),
        sender_mac: packet.sender_mac,
        sender_ip: packet.sender_ip,
        target_mac: packet.target_mac,
        target_ip: packet.target_ip,
    })
}

/// Builds the frame; it goes to `destination` (a unicast question spares the other guests).
pub(crate) fn build(arp: &Arp, destination: MacAddr) -> Vec<u8> {
    let packet = Packet {
        operation: if arp.is_reply { arp::REPLY } else { arp::REQUEST },
        sender_mac: arp.sender_mac,
        sender_ip: arp.sender_ip,
        target_mac: arp.target_mac,
        target_ip: arp.target_ip,
    };
    let mut body = [0; FRAME_LEN_MIN - ETHERNET_LEN];
    packet.write(&mut body).expect("46 octets hold an ARP packet");
    [&destination.0[..], &arp.sender_mac.0, &ETHERTYPE, &body].concat()
}

const _: () = assert!(FRAME_LEN_MIN >= ETHERNET_LEN + arp::LEN);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUESTION: Arp = Arp {
        is_reply: false,
        sender_mac: MacAddr([6, 1, 2, 3, 4, 5]),
        sender_ip: Ipv4Addr::new(10, 98, 0, 254),
        target_mac: MacAddr::ZERO,
        target_ip: Ipv4Addr::new(10, 98, 0, 3),
    };

    #[test]
    fn a_question_is_what_rfc_826_says() {
        let frame = build(&QUESTION, MacAddr([2, 0x4c, 0, 0x10, 0x68, 3]));
        let want: [u8; 42] = [
            2, 0x4c, 0, 0x10, 0x68, 3, 6, 1, 2, 3, 4, 5, 8, 6, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 1, // Ethernet, IPv4, request
            6, 1, 2, 3, 4, 5, 10, 98, 0, 254, 0, 0, 0, 0, 0, 0, 10, 98, 0, 3,
        ];
        assert_eq!((&frame[..42], frame.len()), (&want[..], 60));
        assert_eq!(parse(&frame), Some(QUESTION));
    }

    #[test]
    fn a_sender_that_lies_about_itself_is_ignored() {
        let mut frame = build(&QUESTION, MacAddr::BROADCAST);
        frame[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
        assert_eq!(parse(&frame), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100), cut in 0usize..60, at in 0usize..60, to: u8) {
            prop_assert!(parse(&bytes).is_none_or(|_| bytes.len() >= 42));
            let mut frame = build(&QUESTION, MacAddr::BROADCAST);
            frame[at] = to;
            frame.truncate(cut);
            prop_assert!(parse(&frame).is_none_or(|_| cut >= 42));
        }
    }
}
