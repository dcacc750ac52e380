//! The facts of the captures, as their JSON has them, found by this crate's parsers alone.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};

use serde_json::{Value, json};
use wire::MacAddr;
use wire::dplay::{
    Body, Content, Dialect, Id, Message, Packet, Player, PlayerFlags, PlayersReply, QUERY_PORT, SessionFlags,
    SpAddresses, UserMessage,
};
use wire::frame::{Class, Frame, FrameFormat, classify};
use wire::ipx;

use crate::pcap::{Transport, conversation, facts, frames};

/// What a player record says, by JSON's keys.
#[derive(Default)]
struct Known {
    machines: HashMap<Id, (Ipv4Addr, bool)>,
    players: BTreeMap<Id, (String, String, Id)>,
}

impl Known {
    /// `sender` is where the record came from: its machine, unless the record names an address.
    fn learn(&mut self, player: &Player<'_>, sender: Ipv4Addr) {
        let sp = SpAddresses::parse(player.sp_data).expect("SP data over TCP/IP").resolved(sender);
        assert_eq!((sp.tcp.port(), sp.udp.port()), (2300, 2350), "`sp_ports` of the facts");
        let host = player.flags.contains(PlayerFlags::NAME_SERVER);
        if player.is_system() {
            assert_eq!(*self.machines.entry(player.id).or_insert((*sp.tcp.ip(), host)), (*sp.tcp.ip(), host));
        } else {
            assert!(!host, "only a system player is name server");
            let name = |text: Option<wire::dplay::Text<'_>>| text.map(|text| text.to_string()).unwrap_or_default();
            let player_facts = (name(player.short_name), name(player.long_name), player.system_id);
            // The scripted host gave its own player data; Wine's clients sent none.
            let data: &[u8] = if player_facts.0 == "Alice" { b"HOSTDATA" } else { b"" };
            assert_eq!(player.data, data);
            assert_eq!(*self.players.entry(player.id).or_insert(player_facts.clone()), player_facts);
        }
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one pass over one capture, checked against one file")]
fn three_peers_are_found_as_the_programs_report_them() {
    let (mut enumerations, mut sessions, mut current) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    let (mut known, mut user, mut left, mut pings) = (Known::default(), BTreeMap::new(), Vec::new(), [0, 0]);
    for seen in conversation("dplay4-3peer") {
        let sender = *seen.from.ip();
        let packet = match seen.transport {
            Transport::Udp => Packet::from_datagram(&seen.bytes),
            Transport::Tcp => Packet::parse(&seen.bytes).expect("the reassembler hands out sound envelopes"),
        };
        let Message { dialect, body } = match packet.content {
            Content::System(message) => message,
            Content::User(bytes) => {
                UserMessage::parse(bytes).expect("two ids");
                let counts: &mut [u32; 2] = user.entry((sender, *seen.to.ip())).or_default();
                counts[usize::from(seen.transport == Transport::Tcp)] += 1;
                continue;
            }
            Content::Malformed(header) => panic!("malformed {header:?}"),
        };
        assert_eq!(dialect, Dialect::DX6_1A);
        match body {
            Body::EnumSessions(query) => {
                assert_eq!(seen.to, SocketAddrV4::new(Ipv4Addr::BROADCAST, QUERY_PORT));
                assert_eq!(query.password, None);
                let reply_port = packet.envelope.expect("queries have one").sender.port();
                enumerations.entry((sender, reply_port)).and_modify(|count| *count += 1).or_insert(1);
            }
            Body::EnumSessionsReply(reply) => {
                current.insert(reply.session.current_players);
                let flags = reply.session.flags;
                sessions.insert(
                    json!({
                        "name": reply.name.expect("the session has a name").to_string(),
                        "instance_guid_wire": reply.session.instance.to_string(),
                        "app_guid_wire": reply.session.application.to_string(),
                        "max_players": reply.session.max_players,
                        "flags": flags.to_string(),
                        "keepalive": flags.contains(SessionFlags::KEEP_ALIVE),
                        "migrate_host": flags.contains(SessionFlags::MIGRATE_HOST),
                        "password_required": flags.contains(SessionFlags::PASSWORD_REQUIRED),
                        "dialect": dialect.0,
                        "host_ip": sender.to_string(),
                        "id_xor_key": reply.session.id_key.to_string(),
                    })
                    .to_string(),
                );
            }
            Body::SuperEnumPlayersReply(PlayersReply { players, groups, session, .. }) => {
                assert!(groups.is_empty());
                players.iter().for_each(|player| known.learn(&player, sender));
                // The key rule: small places in the host's table, each used once.
                let places: Vec<_> = players.iter().map(|player| session.id_key.index(player.id)).collect();
                assert!(places.is_sorted_by(|a, b| a < b) && places.iter().all(|place| *place < 20), "{places:?}");
                for player in players {
                    let (counter, index) = (session.id_key.counter(player.id), session.id_key.index(player.id));
                    assert_eq!(session.id_key.make_id(counter, index), player.id);
                }
            }
            Body::CreatePlayer(create) => known.learn(&create.player, sender),
            Body::AddForwardRequest(request) => {
                assert_eq!(request.password.expect("Wine sends an empty one"), "");
                known.learn(&request.player, sender);
            }
            Body::AddForward(forward) => known.learn(&forward.player, sender),
            Body::DeletePlayer(gone) => left.push(gone.player.to_string()),
            Body::Ping(_) => pings[0] += 1,
            Body::PingReply(_) => pings[1] += 1,
            _ => {}
        }
    }

    let facts = facts("dplay4-3peer");
    let enumerations: Vec<_> = enumerations
        .into_iter()
        .map(|((ip, port), count)| json!({ "ip": ip.to_string(), "count": count, "reply_port": port }))
        .collect();
    assert_eq!(json!(enumerations), facts["enumerations"]);

    assert_eq!(sessions.len(), 1, "{sessions:?}");
    let mut session: Value = serde_json::from_str(sessions.first().unwrap()).unwrap();
    let host = known.machines.iter().find(|(_, (_, host))| *host).expect("the host").0;
    session["host_system_id"] = json!(host.to_string());
    session["current_players_seen_in_replies"] = json!(current);
    assert_eq!(json!([session]), facts["sessions"]);

    let players: Vec<_> = known
        .players
        .iter()
        .map(|(id, (name, long, system_id))| {
            let (ip, host) = known.machines[system_id];
            json!({
                "id": id.to_string(), "name": name, "long": long, "ip": ip.to_string(),
                "system_id": system_id.to_string(), "host": host,
            })
        })
        .collect();
    assert_eq!(json!(players), facts["players"]);

    let expected: BTreeMap<_, _> = facts["user_messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let ip = |key: &str| row[key].as_str().unwrap().parse::<Ipv4Addr>().unwrap();
            let count = |key: &str| u32::try_from(row[key].as_u64().unwrap()).unwrap();
            ((ip("src"), ip("dst")), [count("udp"), count("tcp")])
        })
        .collect();
    assert_eq!(user, expected);

    assert_eq!(left, ["5e4626e2", "5e4726e5"], "`leave_evidence`: the host deletes Carol's two players");
    assert_eq!(pings, [4, 4], "frames 39, 97, 99, 120 and their answers");
}

#[test]
fn rarer_messages_are_read_as_they_were_made() {
    let (mut session, mut renamed, mut deleted, mut chat) = (None, None, None, None);
    let (mut new_host, mut pieces, mut acks, mut dead) = (None, Vec::new(), Vec::new(), 0);
    let (mut addressed, mut other) = (0, 0);
    for seen in conversation("syn-dplay4") {
        let Message { dialect, body } = match Packet::from_datagram(&seen.bytes).content {
            Content::System(message) => message,
            Content::User(bytes) => {
                // The two MC-DPL4R frames of the capture, which name no known player, look like user messages too.
                let to_known = UserMessage::parse(bytes).is_some_and(|message| message.to == Id(0x2222_0002));
                *if to_known { &mut addressed } else { &mut other } += 1;
                continue;
            }
            Content::Malformed(header) => panic!("malformed {header:?}"),
        };
        assert_eq!(dialect, Dialect::DX6);
        match body {
            Body::SessionDescChanged(changed) => {
                session = Some(json!({
                    "name": changed.name.unwrap().to_string(),
                    "flags": format!("{:#x}", changed.session.flags.0),
                    "max_players": changed.session.max_players,
                    "current_players": changed.session.current_players,
                    "host_ip": seen.from.ip().to_string(),
                }));
            }
            Body::PlayerNameChanged(it) => {
                renamed = Some(json!({
                    "id": it.id.to_string(), "short": it.short_name.unwrap().to_string(),
                    "long": it.long_name.unwrap().to_string(),
                }));
            }
            Body::DeletePlayer(it) => deleted = Some(it.player.to_string()),
            Body::Chat(it) => chat = it.text.map(|text| text.to_string()),
            Body::IAmNameServer(it) => {
                assert!(it.flags.contains(PlayerFlags::SYSTEM | PlayerFlags::NAME_SERVER));
                let sp = SpAddresses::parse(it.sp_data).unwrap().resolved(*seen.from.ip());
                assert_eq!(sp, SpAddresses::new(*seen.from.ip(), 2300, 2350));
                new_host = Some(it.host.to_string());
            }
            Body::Packet2Data(piece) => {
                pieces.push((piece.offset, piece.data.len(), piece.total_pieces, piece.message_len));
            }
            Body::Packet2Ack(ack) => acks.push(ack.index),
            Body::YouAreDead => dead += 1,
            Body::EnumSessions(_) => {}
            other => panic!("not in this capture: {other:?}"),
        }
    }
    let facts = facts("syn-dplay4");
    let mut session = session.unwrap();
    session["new_host_system_id"] = json!(new_host);
    assert_eq!(json!([session]), facts["sessions"]);
    assert_eq!(json!(renamed), facts["renamed"]);
    assert_eq!(json!(deleted), facts["deleted_player"]);
    assert_eq!(json!(chat), facts["chat"]);
    assert_eq!(
        json!({ "parts": pieces.len(), "size": pieces.iter().map(|piece| piece.1).sum::<usize>() }),
        facts["packet2"]
    );
    assert_eq!(pieces.last(), Some(&(2048, 952, 3, 3000)));
    assert_eq!((acks, dead), (vec![0, 1, 2], 1));
    assert_eq!((json!(addressed), json!(other)), (facts["raw_udp"].clone(), facts["dpl4r_frames"].clone()));
}

#[test]
fn ipx_is_told_in_all_four_framings() {
    let (mut counts, mut names) = (BTreeMap::new(), BTreeMap::new());
    let facts = facts("syn-ipx-eth");
    for bytes in frames("syn-ipx-eth") {
        let frame = Frame::parse(&bytes).unwrap();
        let Class::Ipx(format) = classify(&bytes) else { panic!("{:?}", frame.class) };
        *counts.entry(format).or_insert(0) += 1;
        let packet = frame.ipx().expect("a sound header");
        assert_eq!((packet.checksum, packet.source.node), (0xffff, frame.source));
        match (packet.packet_type, packet.destination.socket) {
            // SAP: operation, server type, name.
            (4, 0x0452) => {
                let name = &packet.payload[4..];
                let name = String::from_utf8_lossy(&name[..name.iter().position(|byte| *byte == 0).unwrap()]);
                let [a, b, ..] = packet.payload[2..] else { panic!("short SAP") };
                let [s0, s1] = packet.payload[62..64] else { panic!("short SAP") };
                let socket = format!("{:#06x}", u16::from_be_bytes([s0, s1]));
                assert_eq!(json!({ "name": name, "type": u16::from_be_bytes([a, b]), "socket": socket }), facts["sap"]);
            }
            (20, 0x0455) => {
                let text = String::from_utf8_lossy(packet.payload);
                assert!(text.contains(facts["nbipx"].as_str().unwrap()));
            }
            (1, 0x0453) => {}
            _ => match Message::parse(packet.payload).expect("\"play\" at offset 0").body {
                Body::EnumSessions(_) => assert_eq!(packet.destination.node, MacAddr::BROADCAST),
                Body::EnumSessionsReply(reply) => {
                    *names.entry(reply.name.unwrap().to_string()).or_insert(0) += 1;
                }
                other => panic!("not in this capture: {other:?}"),
            },
        }
    }
    // A query and an answer in each; SAP, RIP and NetBIOS in 802.2.
    let expected = [FrameFormat::EthernetII, FrameFormat::Raw8023, FrameFormat::Llc, FrameFormat::Snap];
    assert_eq!(counts, expected.into_iter().zip([2, 2, 5, 2]).collect());
    assert_eq!(facts["framings"].as_array().unwrap().len(), counts.len());
    assert_eq!(names, BTreeMap::from([(facts["dplay_session"].as_str().unwrap().to_owned(), 4)]));
}

#[test]
fn genuine_ipx_is_read_inside_udp() {
    let facts = facts("dosbox-ipxnet");
    let (mut registrations, mut nodes, mut sockets) = (0, BTreeSet::new(), BTreeSet::new());
    for seen in conversation("dosbox-ipxnet") {
        if seen.from.port() != 213 && seen.to.port() != 213 {
            continue;
        }
        let packet = ipx::Packet::parse(&seen.bytes).expect("IPXNET carries bare IPX packets");
        let node = |address: ipx::Address| address.node.to_string().replace(':', "");
        sockets.insert(packet.destination.socket);
        // Trap: DOSBox fills in the source socket, so not all of the source is zero.
        if packet.source == (ipx::Address { socket: 2, ..ipx::Address::default() }) {
            registrations += 1;
        } else if packet.source.network == 1 && packet.destination.socket == 2 && packet.payload.is_empty() {
            let source = format!("net {:08x} node {} socket {:04x}", 1, node(packet.source), packet.source.socket);
            assert_eq!(json!(source), facts["registration_reply_source"]);
            nodes.insert((seen.to.ip().to_string(), seen.to.port(), node(packet.destination)));
        }
        let mut again = vec![0; seen.bytes.len()];
        assert_eq!((packet.write(&mut again), &again), (Some(seen.bytes.len()), &seen.bytes));
    }
    assert_eq!(json!(registrations), facts["registrations"]);
    let clients: Vec<_> =
        nodes.into_iter().map(|(ip, port, node)| json!({ "ip": ip, "port": port, "node": node })).collect();
    assert_eq!(json!(clients), facts["clients"]);
    let sockets: BTreeSet<_> = sockets.into_iter().map(|socket| format!("{socket:#06x}")).collect();
    assert_eq!(sockets, facts["sockets"].as_object().unwrap().keys().cloned().collect());
}
