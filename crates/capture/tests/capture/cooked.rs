//! Cooked captures as Ethernet frames.
use std::time::Duration;

use capture::{
    LinkType, Record,
    cooked::{BROADCAST, UNKNOWN},
};
use proptest::{collection::vec, prelude::*};

use super::build::{ipx, udp};

const MAC: [u8; 6] = [2, 0x4c, 0, 0x10, 0x68, 2];

fn sll(packet_type: u16, mac: &[u8], protocol: u16, payload: &[u8]) -> Record {
    let mut address = mac.to_vec();
    address.resize(8, 0);
    let mut bytes = [packet_type.to_be_bytes(), [0, 1], u16::try_from(mac.len()).unwrap().to_be_bytes()].concat();
    bytes.extend(address);
    bytes.extend(protocol.to_be_bytes());
    bytes.extend(payload);
    record(LinkType::LINUX_SLL, bytes)
}

fn sll2(packet_type: u8, mac: &[u8], protocol: u16, payload: &[u8]) -> Record {
    let mut address = mac.to_vec();
    address.resize(8, 0);
    let mut bytes = protocol.to_be_bytes().to_vec();
    bytes.extend([0, 0, 0, 0, 0, 3, 0, 1, packet_type, u8::try_from(mac.len()).unwrap()]);
    bytes.extend(address);
    bytes.extend(payload);
    record(LinkType::LINUX_SLL2, bytes)
}

fn record(link_type: LinkType, bytes: Vec<u8>) -> Record {
    let wire_len = u32::try_from(bytes.len()).unwrap();
    Record { at: Duration::ZERO, wire_len, link_type, interface: 0, bytes }
}

/// Both versions of the same packet.
fn both(packet_type: u8, mac: &[u8], protocol: u16, payload: &[u8]) -> Vec<u8> {
    let one = sll(packet_type.into(), mac, protocol, payload).ethernet().unwrap().bytes.into_owned();
    let two = sll2(packet_type, mac, protocol, payload).ethernet().unwrap().bytes.into_owned();
    assert_eq!(one, two);
    one
}

#[test]
fn an_ethernet_record_is_itself() {
    let frame = udp(47624, b"x");
    let record = record(LinkType::ETHERNET, frame.clone());
    let view = record.ethernet().unwrap();
    assert_eq!((view.bytes.as_ref(), view.wire_len), (frame.as_slice(), u32::try_from(frame.len()).unwrap()));
}

#[test]
fn the_head_is_made_from_what_is_known() {
    let packet = udp(47624, b"x").split_off(14);
    let frame = both(0, &MAC, 0x0800, &packet);
    assert_eq!(frame, [&UNKNOWN[..], &MAC, &[8, 0], &packet].concat());
    assert_eq!(both(1, &MAC, 0x0800, &packet)[..6], BROADCAST);
    // A frame that this host sent is marked as that and no more: the packet tells.
    let mut to_all = packet.clone();
    to_all[16..20].fill(255);
    assert_eq!(both(4, &MAC, 0x0800, &to_all)[..6], BROADCAST);
    to_all[16..20].copy_from_slice(&[224, 0x81, 2, 3]);
    assert_eq!(both(4, &MAC, 0x0800, &to_all)[..6], [1, 0, 0x5e, 1, 2, 3]);
    // A tunnel has no card.
    assert_eq!(both(4, &[], 0x0800, &packet)[6..12], UNKNOWN);
}

#[test]
fn arp_tells_whom_it_is_for() {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend([[1; 10], [2; 10]].concat());
    assert_eq!(both(4, &MAC, 0x0806, &arp)[..6], BROADCAST);
    arp[7] = 2;
    assert_eq!(both(4, &MAC, 0x0806, &arp)[..6], [2; 6]);
}

#[test]
fn ipx_comes_back_in_its_framing() {
    let frame = ipx(b"play");
    let packet = &frame[14..];
    // Protocol 1 is Novell's raw 802.3: FFFF follows the length. Its node says where it goes.
    assert_eq!(both(4, &MAC, 1, packet), frame);
    // Protocol 4 is LLC.
    for (prefix, framing) in [(&[0xe0, 0xe0, 3][..], "llc"), (&[0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0x37], "snap")] {
        let payload = [prefix, packet].concat();
        let back = both(4, &MAC, 4, &payload);
        let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
        assert_eq!(back, [&BROADCAST[..], &MAC, &len, &payload].concat(), "{framing}");
    }
    assert_eq!(both(4, &MAC, 0x8137, packet)[..14], [&BROADCAST[..], &MAC, &[0x81, 0x37]].concat());
}

#[test]
fn a_cut_packet_keeps_its_length() {
    let mut record = sll(0, &MAC, 1, &[0xff; 30]);
    record.wire_len = 16 + 1000;
    let view = record.ethernet().unwrap();
    assert_eq!((view.wire_len, &view.bytes[12..14]), (1014, &1000_u16.to_be_bytes()[..]));
    record.wire_len = u32::MAX;
    assert_eq!(record.ethernet().unwrap().bytes[12..14], 1500_u16.to_be_bytes(), "not taken for a type");
}

#[test]
fn what_is_not_ethernet_is_none() {
    assert_eq!(sll(0, &MAC, 0x000c, &[0; 16]).ethernet(), None, "CAN");
    assert_eq!(record(LinkType::LINUX_SLL, vec![0; 15]).ethernet(), None);
    assert_eq!(record(LinkType::LINUX_SLL2, vec![0; 19]).ethernet(), None);
    assert_eq!(record(LinkType(105), vec![0; 64]).ethernet(), None, "802.11");
}

proptest! {
    #[test]
    fn any_cooked_bytes_give_a_frame_or_none(bytes in vec(any::<u8>(), 0..80), wire_len: u32, link in prop::sample::select(vec![113, 276, 1, 0])) {
        let record = Record { at: Duration::ZERO, wire_len, link_type: LinkType(link), interface: 0, bytes };
        if let Some(view) = record.ethernet() && link != 1 {
            prop_assert!(view.bytes.len() >= 14);
        }
    }
}
