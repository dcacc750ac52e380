//! DHCP through a real tap: what a guest's client does, byte for byte.
use std::{net::Ipv4Addr, time::Duration};

use dhcproto::{
    Decodable, Encodable,
    v4::{DhcpOption, Message, MessageType, OptionCode},
};
use model::MacAddr;
use testkit::Tap;
use tokio::time::timeout;

use crate::cluster::{Cluster, SOON, instance, ip, mac};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 254);

/// A client's broadcast, as it leaves the card. The UDP checksum is left out, as RFC 768 allows.
pub(crate) fn request(mac: MacAddr, options: &[DhcpOption]) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(0xfeed_f00d, none, none, none, none, &mac.0);
    for option in options {
        message.opts_mut().insert(option.clone());
    }
    let body = message.to_vec().unwrap();
    let len = u16::try_from(body.len()).unwrap();
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
    ip[2..4].copy_from_slice(&(len + 28).to_be_bytes());
    let sum: u32 = ip.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut udp = vec![0, 68, 0, 67];
    udp.extend((len + 8).to_be_bytes());
    udp.extend([0, 0]);
    [&[0xff; 6][..], &mac.0, &[8, 0], &ip, &udp, &body].concat()
}

/// The next DHCP message for the client at this tap; `None` after `within`.
pub(crate) async fn reply(tap: &Tap, within: Duration) -> Option<Message> {
    let next = async {
        loop {
            let frame = tap.receive().await.unwrap();
            if frame.len() > 42 && frame[12..14] == [8, 0] && frame[34..38] == [0, 67, 0, 68] {
                return Message::from_bytes(&frame[42..]).unwrap();
            }
        }
    };
    timeout(within, next).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_guest_gets_its_seats_address_from_its_own_node_once() {
    let cluster = Cluster::new(2, &[0, 1]).await;
    let (tap, other) = (cluster.tap(0).await, cluster.tap(1).await);
    cluster.until(0, |status| status.ports[&instance(0)].carrier == Some(true)).await;

    tap.send(&request(mac(0), &[DhcpOption::MessageType(MessageType::Discover)])).await.unwrap();
    let offer = reply(&tap, SOON).await.expect("an offer");
    assert_eq!(offer.opts().msg_type(), Some(MessageType::Offer));
    assert_eq!((offer.yiaddr(), offer.xid()), (ip(0), 0xfeed_f00d));
    assert_eq!(offer.opts().get(OptionCode::ServerIdentifier), Some(&DhcpOption::ServerIdentifier(SERVER)));
    // The other node heard the broadcast as well, and must be silent; so must a second answer from this one.
    assert_eq!(reply(&tap, Duration::from_millis(500)).await, None);

    let wanted = [
        DhcpOption::MessageType(MessageType::Request),
        DhcpOption::RequestedIpAddress(ip(0)),
        DhcpOption::ServerIdentifier(SERVER),
    ];
    tap.send(&request(mac(0), &wanted)).await.unwrap();
    let ack = reply(&tap, SOON).await.expect("an acknowledgement");
    assert_eq!((ack.opts().msg_type(), ack.yiaddr()), (Some(MessageType::Ack), ip(0)));
    cluster.until(0, |status| status.ports[&instance(0)].address_in_use == Some(ip(0))).await;
    // No answer went over the LAN.
    assert_eq!(reply(&other, Duration::from_millis(300)).await, None);

    // The guest is gone, so its address is not in use.
    drop(tap);
    cluster.until(0, |status| status.ports[&instance(0)].address_in_use.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn another_mac_behind_the_tap_gets_nothing() {
    let cluster = Cluster::new(1, &[0, 0]).await;
    let (tap, _neighbour) = (cluster.tap(0).await, cluster.tap(1).await);
    for stranger in [MacAddr([2, 9, 9, 9, 9, 9]), mac(1)] {
        tap.send(&request(stranger, &[DhcpOption::MessageType(MessageType::Discover)])).await.unwrap();
        assert_eq!(reply(&tap, Duration::from_millis(500)).await, None, "{stranger}");
    }
    // The same tap still serves its own guest.
    tap.send(&request(mac(0), &[DhcpOption::MessageType(MessageType::Discover)])).await.unwrap();
    assert!(reply(&tap, SOON).await.is_some());
}
