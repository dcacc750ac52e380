//! What the IPX captures hold beside games: SAP, RIP, NetBIOS over IPX.
use std::net::Ipv4Addr;

use serde_json::json;
use wire::frame::Frame;
use wire::ipx::{self, nbipx, packet_type, rip, sap, socket};

use crate::pcap::{conversation, facts, frames};

#[test]
fn services_routes_and_names() {
    let facts = facts("syn-ipx-eth");
    let (mut services, mut routes, mut names) = (0, 0, 0);
    for bytes in frames("syn-ipx-eth") {
        let packet = Frame::parse(&bytes).unwrap().ipx().unwrap();
        match packet.destination.socket {
            socket::SAP => {
                let Some(sap::Message::Response { nearest: false, entries }) = sap::Message::parse(packet.payload)
                else {
                    panic!("{packet:?}")
                };
                let mut entries = entries.servers();
                let entry = entries.next().unwrap();
                let seen = json!({
                    "name": String::from_utf8_lossy(entry.name),
                    "type": entry.server_type,
                    "socket": format!("{:#06x}", entry.address.socket),
                });
                assert_eq!((seen, entries.next()), (facts["sap"].clone(), None));
                services += 1;
            }
            socket::RIP => {
                assert_eq!(packet.packet_type, packet_type::RIP);
                let message = rip::Message::parse(packet.payload).unwrap();
                assert_eq!(message.entries().count(), 1);
                routes += 1;
            }
            socket::NETBIOS => {
                let Some(nbipx::Message::Name { operation, name, passed, .. }) = nbipx::Message::parse(&packet) else {
                    panic!("{packet:?}")
                };
                assert_eq!(operation, nbipx::NameOperation::Find);
                assert_eq!(name.text(), facts["nbipx"].as_str().unwrap().as_bytes());
                assert_eq!(passed.networks().count(), 0);
                names += 1;
            }
            _ => {}
        }
    }
    assert_eq!((services, routes, names), (1, 1, 1));
}

/// DOSBox 0.74's clients do not send SAP; the test program beside them did.
#[test]
fn a_service_query_is_read_inside_udp() {
    let mut queries = 0;
    for seen in conversation("dosbox-ipxnet").iter().filter(|seen| seen.from.port() == 213 || seen.to.port() == 213) {
        let packet = ipx::Packet::parse(&seen.bytes).unwrap();
        if packet.destination.socket == socket::SAP {
            let query = sap::Message::Query { nearest: false, server_type: sap::ANY_TYPE };
            assert_eq!(sap::Message::parse(packet.payload), Some(query), "from {}", seen.from);
            queries += 1;
        }
    }
    assert!(queries > 0 && facts("dosbox-ipxnet")["sockets"]["0x0452"] == "SAP general query");
}

/// Later sends of the server meet a port that is closed: "`leaves`" of the facts.
#[test]
fn dead_clients_answer_by_icmp() {
    let mut refused = 0;
    for bytes in frames("dosbox-ipxnet") {
        let Some(packet) = Frame::parse(&bytes).unwrap().ipv4().filter(|packet| packet.protocol == wire::ipv4::ICMP)
        else {
            continue;
        };
        let message = wire::icmp::Message::parse(packet.payload).unwrap();
        assert_eq!((message.kind, message.code), (wire::icmp::UNREACHABLE, wire::icmp::unreachable::PORT));
        let quoted = message.quoted().unwrap();
        assert_eq!(quoted.packet.destination, packet.source, "who refuses was the receiver");
        let (from, to) = quoted.ports().unwrap();
        assert!(from == 213 || to == 213, "{from} {to}");
        assert_ne!(quoted.packet.source, Ipv4Addr::UNSPECIFIED);
        refused += 1;
    }
    let facts = facts("dosbox-ipxnet");
    assert!(facts["leaves"].as_str().unwrap().contains(&format!("({refused} ICMP frames)")), "{refused}");
}
