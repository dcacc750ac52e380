//! ARP over Ethernet (RFC 826): the question the fabric asks, the answer it gives, and what guests say. Pure.
use std::net::Ipv4Addr;

use model::MacAddr;
use pnet::packet::{
    MutablePacket, Packet,
    arp::{ArpHardwareTypes, ArpOperation, ArpOperations, ArpPacket, MutableArpPacket},
    ethernet::{EtherTypes, EthernetPacket, MutableEthernetPacket},
};
use pnet::util::MacAddr as PnetMac;

/// Shortest Ethernet frame without its check sequence (IEEE 802.3): old drivers drop runts.
const FRAME_LEN_MIN: usize = 60;
const ETHERNET_LEN: usize = 14;

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
    let ethernet = EthernetPacket::new(frame)?;
    if ethernet.get_ethertype() != EtherTypes::Arp {
        return None;
    }
    let arp = ArpPacket::new(ethernet.payload())?;
    let known = arp.get_hardware_type() == ArpHardwareTypes::Ethernet
        && arp.get_protocol_type() == EtherTypes::Ipv4
        && arp.get_hw_addr_len() == 6
        && arp.get_proto_addr_len() == 4;
    let is_reply = match arp.get_operation() {
        ArpOperations::Request => false,
        ArpOperations::Reply => true,
        _ => return None,
    };
    // A frame whose outer and inner sender differ is proxy ARP or a forgery; neither says anything about a port.
    let sender_mac = mac_of(arp.get_sender_hw_addr());
    (known && mac_of(ethernet.get_source()) == sender_mac).then(|| Arp {
        is_reply,
        sender_mac,
        sender_ip: arp.get_sender_proto_addr(),
        target_mac: mac_of(arp.get_target_hw_addr()),
        target_ip: arp.get_target_proto_addr(),
    })
}

/// Builds the frame; it goes to `destination` (a unicast question spares the other guests).
pub(crate) fn build(arp: &Arp, destination: MacAddr) -> Vec<u8> {
    let mut frame = vec![0; FRAME_LEN_MIN];
    let mut ethernet = MutableEthernetPacket::new(&mut frame).expect("60 octets hold an Ethernet header");
    ethernet.set_destination(pnet_mac(destination));
    ethernet.set_source(pnet_mac(arp.sender_mac));
    ethernet.set_ethertype(EtherTypes::Arp);
    let mut body = MutableArpPacket::new(ethernet.payload_mut()).expect("46 octets hold an ARP packet");
    body.set_hardware_type(ArpHardwareTypes::Ethernet);
    body.set_protocol_type(EtherTypes::Ipv4);
    body.set_hw_addr_len(6);
    body.set_proto_addr_len(4);
    let operation: ArpOperation = if arp.is_reply { ArpOperations::Reply } else { ArpOperations::Request };
    body.set_operation(operation);
    body.set_sender_hw_addr(pnet_mac(arp.sender_mac));
    body.set_sender_proto_addr(arp.sender_ip);
    body.set_target_hw_addr(pnet_mac(arp.target_mac));
    body.set_target_proto_addr(arp.target_ip);
    frame
}

const _: () = assert!(FRAME_LEN_MIN >= ETHERNET_LEN + 28);

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
