//! The tunnel's messages and the DirectPlay protocol's frames, found in the captures as their facts say.
use std::collections::BTreeSet;
use std::net::SocketAddrV4;

use serde_json::json;
use wire::dplay::{Body, protocol};
use wire::ipxnet::{ANSWER_NETWORK, Message, PORT, node_of};
use wire::{MacAddr, ipxwrapper};

use crate::pcap::{conversation, facts};

fn hex(node: MacAddr) -> String {
    node.to_string().replace(':', "")
}

#[test]
fn registrations_pings_and_packets_of_dosbox_are_told_apart() {
    let facts = facts("dosbox-ipxnet");
    let (mut asked, mut clients, mut server) = (BTreeSet::new(), Vec::new(), None);
    let (mut pings, mut answers, mut packets) = (Vec::new(), BTreeSet::new(), 0);
    for seen in conversation("dosbox-ipxnet").iter().filter(|seen| seen.from.port() == PORT || seen.to.port() == PORT) {
        assert_eq!(ipxwrapper::Packet::parse(&seen.bytes), None);
        match Message::parse(&seen.bytes).expect("all of it is IPX") {
            Message::Registration => drop(asked.insert(seen.from)),
            Message::Answer { node, server: source } => {
                assert!(asked.contains(&seen.to) && node == node_of(seen.to) && source.network == ANSWER_NETWORK);
                clients.push(json!({"ip": seen.to.ip(), "port": seen.to.port(), "node": hex(node)}));
                server = Some(seen.from);
            }
            // The server's copies for the others say the same.
            Message::Ping { from } if seen.to.port() == PORT => pings.push(hex(from)),
            Message::Ping { .. } => {}
            Message::Pong { from, to } => drop(answers.insert((hex(to), hex(from)))),
            Message::Packet(packet) => {
                assert_ne!(packet.source.node, MacAddr::ZERO);
                packets += 1;
            }
        }
    }
    assert_eq!(json!(clients), facts["clients"]);
    assert_eq!(json!(clients.len()), facts["registrations"]);
    assert_eq!(server.as_ref().map(SocketAddrV4::to_string).unwrap(), facts["server"]);
    let from: BTreeSet<_> = answers.iter().map(|(_, from)| from.clone()).collect();
    assert_eq!(
        (json!(pings[0]), json!(from)),
        (facts["pings"][0]["src"].clone(), facts["pings"][0]["pongs_from"].clone())
    );
    assert_eq!((pings.len(), packets), (1, 94 - 9));
}

#[test]
fn frames_of_the_directplay_protocol_are_found_and_nothing_else_is() {
    let facts = facts("syn-dplay4");
    let mut found = Vec::new();
    for seen in conversation("syn-dplay4").iter().filter(|seen| seen.from.port() == 2350) {
        if let Some(frame) = protocol::Frame::parse(&seen.bytes) {
            found.push(words(&frame.kind));
        }
    }
    assert_eq!(json!(found.len()), facts["dpl4r_frames"]);
    assert_eq!(found, ["whole system message: ping", "ack of 1"]);
}

fn words(kind: &protocol::Kind<'_>) -> String {
    match kind {
        protocol::Kind::Data(data) => match data.system().map(|message| message.body) {
            Some(Body::Ping(_)) if data.is_whole() => "whole system message: ping".to_owned(),
            other => format!("data: {other:?}"),
        },
        protocol::Kind::Ack(ack) => format!("ack of {}", ack.message),
        protocol::Kind::Nack(nack) => format!("nack of {}", nack.message),
    }
}
