//! What no capture at hand holds, written by hand from the specification.
use api::observe::{Certainty, Step};
use observe::{Point, PortId};
use serde_json::json;
use std::{collections::HashMap, time::Duration};
use wire::{
    MacAddr,
    dplay::{
        Body, Chat, Create, Dialect, HResult, IAmNameServer, Id, Ids, Membership, Piece, Player, PlayerFlags, Players,
        PlayersReply, SpAddresses,
    },
    tcp::Flags,
};

use crate::net::{APPLICATION, Game, KEY, Net, Peer, end, game, ip, mac, peer};

pub(crate) const HOST: Peer = peer(1, 2300, 1);
pub(crate) const BOB: Peer = peer(2, 2300, 2);
pub(crate) const CAROL: Peer = peer(3, 2300, 3);
const ALICE_ID: Id = KEY.make_id(1, 11);
pub(crate) const BOB_ID: Id = KEY.make_id(1, 12);
const CAROL_ID: Id = KEY.make_id(1, 13);

/// Alice hosts, Bob and Carol join.
pub(crate) fn party(net: &mut Net) -> Game {
    let game = game(HOST, "Bahnhof", 1);
    game.joined_by(net, BOB, &[], (BOB_ID, "Bob"));
    HOST.creates(net, BOB, ALICE_ID, "Alice");
    game.joined_by(net, CAROL, &[BOB], (CAROL_ID, "Carol"));
    HOST.creates(net, CAROL, ALICE_ID, "Alice");
    game
}

/// Alice's session waits for the first to join; Bob has asked for it.
pub(crate) fn waits(net: &mut Net) -> Game {
    let game = game(HOST, "Allein", 1);
    BOB.asks(net, APPLICATION, None);
    game.answers(net, BOB);
    game
}

pub(crate) fn leaves(net: &mut Net) -> serde_json::Value {
    json!(net.observed().leave_order)
}

fn kinds(net: &mut Net) -> Vec<String> {
    net.observed().anomalies.into_iter().map(|anomaly| anomaly.kind).collect()
}

#[test]
fn a_party_and_no_password() {
    let mut net = Net::new();
    party(&mut net);
    BOB.asks(&mut net, APPLICATION, Some("SesamOeffneDich"));
    let observed = net.observed();
    assert_eq!(observed.join_order, ["Bob", "Alice", "Carol"]);
    assert_eq!(observed.system_players.len(), 3);
    assert!(observed.system_players.iter().all(|system| system.session.as_deref() == Some("Bahnhof")));
    assert_eq!(observed.players.iter().filter(|player| player.host).count(), 1);
    assert_eq!(observed.anomalies, []);
    // In the report, and in all that is remembered.
    let all = format!("{} {:?}", serde_json::to_string(&observed).unwrap(), net.observer);
    assert!(all.contains("Bahnhof") && !all.contains("Sesam"), "a password is kept");
}

#[test]
fn refusals_name_the_session_and_the_result() {
    let mut net = Net::new();
    let game = game(HOST, "Voll", 1);
    for joiner in [BOB, CAROL] {
        joiner.asks(&mut net, APPLICATION, None);
        game.answers(&mut net, joiner);
        joiner.says(&mut net, HOST, &Body::RequestPlayerId(wire::dplay::RequestId::SYSTEM_PLAYER));
    }
    game.gives_id(&mut net, BOB, Id::NONE, 0x8877_014a);
    // Carol gets an id, is shown to the others, and is refused for her password.
    game.gives_id(&mut net, CAROL, CAROL.system, 0);
    HOST.says(&mut net, CAROL, &Body::AddForwardReply(HResult(0x8877_014b)));
    let observed = net.observed();
    let got: Vec<_> = observed
        .refused
        .iter()
        .map(|it| (it.ip.as_str(), it.session.as_deref(), it.player_request_result.as_str()))
        .collect();
    assert_eq!(got, [("10.0.0.2", Some("Voll"), "0x8877014a"), ("10.0.0.3", Some("Voll"), "0x8877014b")]);
    assert!(observed.system_players.is_empty() && observed.players.is_empty());
}

#[test]
fn two_games_of_one_machine_are_two_sessions() {
    let mut net = Net::new();
    let other_host = Peer { dialect: Dialect::DX9, ..peer(1, 2301, 4) };
    let (one, two) = (game(HOST, "Eins", 1), game(other_host, "Zwei", 2));
    one.joined_by(&mut net, BOB, &[], (BOB_ID, "Bob"));
    two.joined_by(&mut net, peer(2, 2302, 5), &[], (KEY.make_id(1, 14), "Bert"));
    two.answers(&mut net, BOB);
    let observed = net.observed();
    let sessions: Vec<_> =
        observed.sessions.iter().map(|it| (it.name.as_deref().unwrap(), it.dialect.unwrap())).collect();
    assert_eq!(sessions, [("Eins", 12), ("Zwei", 14)]);
    assert!(observed.sessions.iter().all(|session| session.host_ip.as_deref() == Some("10.0.0.1")));
    let players: Vec<_> =
        observed.players.iter().map(|it| (it.name.as_deref().unwrap(), it.session.as_deref().unwrap())).collect();
    assert_eq!(players, [("Bob", "Eins"), ("Bert", "Zwei")]);
    assert_eq!(
        observed.enumerations.iter().map(|it| (it.reply_port, it.answered_by.len())).collect::<Vec<_>>(),
        [(Some(2300), 2), (Some(2302), 1)]
    );
    assert_eq!(observed.anomalies, []);
}

#[test]
fn the_host_goes_and_another_takes_over() {
    let mut net = Net::new();
    let game = party(&mut net);
    net.fin(HOST.socket(BOB), BOB.listener());
    net.fin(HOST.socket(CAROL), CAROL.listener());
    net.fin(BOB.socket(HOST), HOST.listener());
    net.wait(200);
    let sp_data = BOB.sp_data();
    let flags = PlayerFlags::SYSTEM | PlayerFlags::NAME_SERVER;
    let claim = IAmNameServer { to: CAROL.system, host: BOB.system, flags, sp_data: &sp_data };
    BOB.says(&mut net, CAROL, &Body::IAmNameServer(claim));
    let membership = Membership { to: Id::NONE, player: ALICE_ID, group: Id::NONE };
    BOB.says(&mut net, CAROL, &Body::DeletePlayer(membership));
    let moved = Game { host: BOB, ..game };
    moved.answers(&mut net, peer(4, 2300, 9));
    let observed = net.observed();
    let [session] = &observed.sessions[..] else { panic!("{:?}", observed.sessions) };
    assert_eq!(session.host_ip.as_deref(), Some("10.0.0.2"));
    assert_eq!(session.host_system_id, Some(BOB.system.to_string()));
    assert_eq!(session.former_hosts, [HOST.system.to_string()]);
    assert_eq!(json!(observed.leave_order), json!([{"name": "Alice", "evidence": "TCP FIN, then DELETEPLAYER"}]));
    let host: Vec<_> = observed.players.iter().filter(|it| it.host).map(|it| it.name.clone().unwrap()).collect();
    assert_eq!(host, ["Bob"]);
    assert_eq!(observed.anomalies, []);
}

#[test]
fn two_machines_claim_to_be_host() {
    let mut net = Net::new();
    party(&mut net);
    for (claimant, other) in [(BOB, CAROL), (CAROL, BOB)] {
        let sp_data = claimant.sp_data();
        let claim =
            IAmNameServer { to: Id::NONE, host: claimant.system, flags: PlayerFlags::SYSTEM, sp_data: &sp_data };
        claimant.says(&mut net, other, &Body::IAmNameServer(claim));
    }
    let observed = net.observed();
    assert_eq!(observed.sessions[0].host_system_id, Some(CAROL.system.to_string()), "the later one");
    assert_eq!(observed.anomalies.iter().map(|it| it.kind.as_str()).collect::<Vec<_>>(), ["two-claim-host"]);
}

#[test]
fn leaves_have_their_evidence() {
    let mut net = Net::new();
    party(&mut net);
    net.reset(BOB.socket(HOST), HOST.listener());
    net.port_unreachable(CAROL.datagrams(), HOST.datagrams());
    assert_eq!(
        leaves(&mut net),
        json!([{"name": "Bob", "evidence": "TCP RST"}, {"name": "Carol", "evidence": "ICMP port unreachable"}])
    );
    // Who speaks again was not gone.
    net.wait(1500);
    CAROL.user(&mut net, HOST, CAROL_ID, true);
    assert_eq!(leaves(&mut net), json!([{"name": "Bob", "evidence": "TCP RST"}]));
}

#[test]
fn a_machine_takes_its_split_screen_with_it() {
    let mut net = Net::new();
    party(&mut net);
    BOB.creates(&mut net, HOST, KEY.make_id(1, 20), "Berta");
    net.fin(BOB.socket(HOST), HOST.listener());
    let observed = net.observed();
    assert_eq!(observed.leave_order.iter().map(|left| left.name.as_str()).collect::<Vec<_>>(), ["Bob", "Berta"]);
    let of_bob = observed.players.iter().filter(|player| player.system_id == Some(BOB.system.to_string()));
    assert!(of_bob.clone().count() == 2 && of_bob.clone().all(|player| player.certainty == Certainty::GoneByFin));
}

/// The same program port, another id: it was gone, and it is another one now.
#[test]
fn who_joins_again_is_somebody_new() {
    let mut net = Net::new();
    let game = party(&mut net);
    net.fin(BOB.socket(HOST), HOST.listener());
    net.wait(20_000);
    let again = Peer { system: KEY.make_id(2, 2), ..BOB };
    again.asks(&mut net, APPLICATION, None);
    net.set_numbers(HashMap::new());
    game.joined_by(&mut net, again, &[CAROL], (KEY.make_id(2, 12), "Bob"));
    let observed = net.observed();
    assert_eq!(json!(observed.leave_order), json!([{"name": "Bob", "evidence": "TCP FIN"}]));
    assert_eq!(observed.join_order, ["Bob", "Alice", "Carol", "Bob"]);
    assert_eq!(observed.system_players.len(), 4);
}

/// The host ends its game in order and begins another: whoever joins that one says nothing to those who were in the first.
#[test]
fn who_joins_another_game_is_out_of_the_one_before() {
    let mut net = Net::new();
    party(&mut net);
    for other in [BOB, CAROL] {
        let machine = Membership { to: Id::NONE, player: HOST.system, group: Id::NONE };
        HOST.says(&mut net, other, &Body::DeletePlayer(machine));
    }
    net.wait(5_000);
    let host = Peer { system: KEY.make_id(2, 0), ..HOST };
    let second = game(host, "Next", 9);
    let again = |peer: Peer, index| Peer { system: KEY.make_id(2, index), ..peer };
    for (peer, members, id, name) in [
        (again(BOB, 2), &[][..], KEY.make_id(2, 12), "Bob"),
        (again(CAROL, 3), &[again(BOB, 2)][..], KEY.make_id(2, 13), "Carol"),
    ] {
        peer.asks(&mut net, APPLICATION, None);
        second.answers(&mut net, peer);
        second.joined_by(&mut net, peer, members, (id, name));
    }
    let observed = net.observed();
    let open = |it: &api::observe::Session| it.certainty == Certainty::Announced;
    let names: Vec<_> = observed.sessions.iter().filter(|it| open(it)).map(|it| it.name.as_deref()).collect();
    assert_eq!(names, [Some("Next")], "{:#?}", observed.sessions);
    assert_eq!(
        json!(observed.leave_order),
        json!([
            {"name": "Alice", "evidence": "DELETEPLAYER"},
            {"name": "Bob", "evidence": "in a game anew"},
            {"name": "Carol", "evidence": "in a game anew"}
        ])
    );
}

/// Nobody came, and the game was cancelled: that is said to nobody.
#[test]
fn who_opens_a_game_anew_or_joins_one_waits_in_none() {
    let open = |net: &mut Net| -> Vec<_> {
        let sessions = net.observed().sessions.into_iter();
        sessions.filter(|it| it.certainty.is_alive()).map(|it| it.name.unwrap()).collect()
    };
    let mut net = Net::new();
    waits(&mut net);
    game(HOST, "Again", 2).answers(&mut net, BOB);
    assert_eq!(open(&mut net), ["Again"]);
    let other = game(CAROL, "Carol's", 3);
    other.joined_by(&mut net, Peer { system: KEY.make_id(2, 1), ..HOST }, &[], (ALICE_ID, "Alice"));
    assert_eq!(open(&mut net), ["Carol's"]);
    // It answers again, so it was not over.
    net.wait(5_000);
    game(BOB, "Bob's", 4).answers(&mut net, CAROL);
    game(BOB, "Bob's other", 5).answers(&mut net, CAROL);
    game(BOB, "Bob's", 4).answers(&mut net, CAROL);
    assert_eq!(open(&mut net), ["Carol's", "Bob's", "Bob's other"]);
}

/// Bob was in it and has left. The host goes on speaking, for its next game.
#[test]
fn a_host_that_opens_its_next_game_does_not_bring_the_old_one_back() {
    let mut net = Net::new();
    let game_one = game(HOST, "Bahnhof", 1);
    game_one.joined_by(&mut net, BOB, &[], (BOB_ID, "Bob"));
    HOST.creates(&mut net, BOB, ALICE_ID, "Alice");
    BOB.says(&mut net, HOST, &Body::DeletePlayer(Membership { to: Id::NONE, player: BOB.system, group: Id::NONE }));
    let second = game(HOST, "Next", 2);
    for _ in 0..3 {
        second.answers(&mut net, CAROL);
        net.wait(5_000);
    }
    let observed = net.observed();
    let open: Vec<_> =
        observed.sessions.iter().filter(|it| it.certainty.is_alive()).map(|it| it.name.as_deref()).collect();
    assert_eq!(open, [Some("Next")]);
}

/// Bob joins where nobody here hears it; Carol, who comes after, is told who is there.
#[test]
fn who_is_listed_in_another_game_is_out_of_the_one_before() {
    let mut net = Net::new();
    party(&mut net);
    let dave = peer(4, 2300, 1);
    let second = game(dave, "Next", 9);
    let again = Peer { system: KEY.make_id(2, 2), ..BOB };
    let of_bob = SpAddresses::new(ip(BOB.machine), BOB.port, BOB.port + 50).to_bytes();
    let of_host = dave.sp_data();
    let players = [dave.record(&of_host, true), again.record(&of_bob, false)];
    let reply = PlayersReply {
        session: second.description,
        name: Some("Next".into()),
        players: Players::new(&players),
        ..PlayersReply::default()
    };
    dave.says(&mut net, CAROL, &Body::SuperEnumPlayersReply(reply));
    assert_eq!(leaves(&mut net), json!([{"name": "Bob", "evidence": "in a game anew"}]));
    assert!(net.observed().sessions.iter().all(|it| it.certainty.is_alive()), "Alice and Carol are in it");
}

#[test]
fn silence_is_told_by_the_clock_alone() {
    let mut net = Net::new();
    party(&mut net);
    net.wait(100_000);
    BOB.user(&mut net, HOST, BOB_ID, false);
    net.observer.tick(net.now + Duration::from_mins(1));
    let gone: Vec<_> = net.observer.observed().leave_order.into_iter().map(|left| (left.name, left.evidence)).collect();
    let silence = |name: &str| (name.to_owned(), "silence".to_owned());
    assert_eq!(gone, [silence("Alice"), silence("Carol")]);
    net.wait(70_000);
    CAROL.user(&mut net, BOB, CAROL_ID, true);
    assert_eq!(leaves(&mut net), json!([{"name": "Alice", "evidence": "silence"}]));
}

/// The machine goes on, where nobody here hears it.
#[test]
fn a_host_that_moves_to_another_lan_is_gone_at_once_and_may_come_back() {
    let mut net = Net::new();
    party(&mut net);
    net.observer.moved_away(MacAddr(mac(1)), net.now);
    assert_eq!(leaves(&mut net), json!([{"name": "Alice", "evidence": "moved to another LAN"}]));
    let observed = net.observed();
    let host = observed.system_players.iter().find(|system| system.host).unwrap();
    assert_eq!(host.certainty, Certainty::GoneBySilence);
    // The others may go on without it, and one of them may become host.
    assert_eq!(observed.sessions[0].certainty, Certainty::Announced);
    assert!(observed.machines.iter().all(|machine| machine.mac != MacAddr(mac(1)).to_string()));
    net.wait(2_000);
    HOST.user(&mut net, BOB, ALICE_ID, true);
    assert_eq!(leaves(&mut net), json!([]));
    assert!(net.observed().machines.iter().any(|machine| machine.mac == MacAddr(mac(1)).to_string()));
    for machine in 1..=3 {
        net.observer.moved_away(MacAddr(mac(machine)), net.now);
    }
    assert_eq!(net.observed().sessions[0].certainty, Certainty::GoneBySilence);
}

#[test]
fn a_session_that_waits_for_the_first_to_join_goes_with_its_host() {
    let mut net = Net::new();
    let game = waits(&mut net);
    assert_eq!(net.observed().sessions[0].certainty, Certainty::Announced);
    net.observer.moved_away(MacAddr(mac(2)), net.now);
    assert_eq!(net.observed().sessions[0].certainty, Certainty::Announced, "it was only asked by that one");
    net.observer.moved_away(MacAddr(mac(1)), net.now);
    assert_eq!(net.observed().sessions[0].certainty, Certainty::GoneBySilence);
    BOB.asks(&mut net, APPLICATION, None);
    game.answers(&mut net, BOB);
    assert_eq!(net.observed().sessions[0].certainty, Certainty::Announced, "it is back");
}

/// Of the host nothing is known but that it answers: whoever comes and goes there, its session stands.
#[test]
fn a_session_outlives_a_guest_that_leaves_a_host_which_was_not_seen() {
    let mut net = Net::new();
    waits(&mut net);
    BOB.creates(&mut net, HOST, BOB_ID, "Bob");
    let membership = Membership { to: Id::NONE, player: BOB.system, group: Id::NONE };
    BOB.says(&mut net, HOST, &Body::DeletePlayer(membership));
    let observed = net.observed();
    assert_eq!(observed.system_players.iter().map(|it| it.certainty).collect::<Vec<_>>(), [Certainty::GoneByMessage]);
    assert_eq!((observed.sessions.len(), observed.sessions[0].certainty), (1, Certainty::Announced));
}

#[test]
fn groups_chat_and_pieces() {
    let mut net = Net::new();
    party(&mut net);
    let group = KEY.make_id(1, 30);
    let members = [ALICE_ID];
    let record = Player { id: group, flags: PlayerFlags(0x40), members: Ids::new(&members), ..Player::default() };
    HOST.says(&mut net, BOB, &Body::CreateGroup(Create { to: Id::NONE, player: record }));
    for player in [BOB_ID, CAROL_ID] {
        HOST.says(&mut net, BOB, &Body::AddPlayerToGroup(Membership { to: Id::NONE, player, group }));
    }
    HOST.says(&mut net, BOB, &Body::DeletePlayerFromGroup(Membership { to: Id::NONE, player: CAROL_ID, group }));
    // A chat that came in pieces, the last one first.
    let chat = Body::Chat(Chat { from: BOB_ID, to: group, flags: 1, text: Some("Zug f\u{e4}hrt\u{1b}".into()) });
    let whole = BOB.message(&chat).split_off(20);
    let (one, two) = whole.split_at(21);
    for (index, offset, data) in [(1, 21, two), (0, 0, one)] {
        let message_len = u32::try_from(whole.len()).unwrap();
        let piece = Piece { message: wire::dplay::Guid([9; 16]), index, offset, total_pieces: 2, message_len, data };
        BOB.says(&mut net, HOST, &Body::Packet2Data(piece));
    }
    let observed = net.observed();
    let [got] = &observed.groups[..] else { panic!("{:?}", observed.groups) };
    assert_eq!((got.id.clone(), got.flags.as_str()), (group.to_string(), "0x00000040"));
    assert_eq!(got.members, [ALICE_ID.to_string(), BOB_ID.to_string()]);
    assert_eq!(json!(observed.chat), json!([{"from": "Bob", "text": "Zug f\u{e4}hrt\u{fffd}"}]));
    assert_eq!((observed.dplay_commands["PACKET2_DATA"], observed.dplay_commands["CHAT"]), (2, 1));
    assert_eq!(observed.anomalies, []);
}

#[test]
fn messages_of_another_ones_player_are_forged() {
    let mut net = Net::new();
    party(&mut net);
    BOB.user(&mut net, HOST, CAROL_ID, true);
    assert_eq!(kinds(&mut net), ["forged-id"]);
}

#[test]
fn two_copies_of_one_session() {
    let mut net = Net::new();
    let first = game(HOST, "Kopie", 1);
    let second = Game { host: peer(5, 2300, 7), ..first };
    BOB.asks(&mut net, APPLICATION, None);
    first.answers(&mut net, BOB);
    second.answers(&mut net, BOB);
    let observed = net.observed();
    assert_eq!(observed.sessions.len(), 1);
    assert_eq!(observed.sessions[0].host_ip.as_deref(), Some("10.0.0.1"));
    assert_eq!(kinds(&mut net), ["two-hosts-one-guid"]);
}

#[test]
fn an_asker_that_refuses_and_a_deaf_one() {
    let mut net = Net::new();
    for asker in [BOB, CAROL] {
        asker.asks(&mut net, APPLICATION, None);
        net.segment(Point::Wire, HOST.socket(asker), asker.listener(), Flags::SYN, &[]);
    }
    net.reset(BOB.listener(), HOST.socket(BOB));
    net.wait(1000);
    // The same SYN again: its number is the first one's.
    net.set_numbers(HashMap::new());
    net.segment(Point::Wire, HOST.socket(CAROL), CAROL.listener(), Flags::SYN, &[]);
    let observed = net.observed();
    let answers: Vec<_> =
        observed.enumerations.iter().map(|it| (it.ip.clone(), it.answers_refused, it.answers_unanswered)).collect();
    assert_eq!(answers, [(ip(2).to_string(), 1, 0), (ip(3).to_string(), 0, 1)]);
    let bob = observed.machines.iter().find(|machine| machine.ips == [ip(2).to_string()]).unwrap();
    assert_eq!(bob.ports_closed, ["tcp/2300"]);
}

#[test]
fn addresses_that_contradict_each_other() {
    let mut net = Net::new();
    // Two cards answer for one address; a third calls itself otherwise than its packets do.
    for source in [6, 7] {
        let request = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac(source), &[10, 0, 0, 9], &[0; 6], &[10, 0, 0, 1]].concat();
        net.ethernet(Point::Wire, [0xff; 6], mac(source), 0x0806, &request);
    }
    party(&mut net);
    let sp_data = SpAddresses::new(ip(200), 2300, 2350).to_bytes();
    let claim = IAmNameServer { to: Id::NONE, host: BOB.system, flags: PlayerFlags::SYSTEM, sp_data: &sp_data };
    BOB.says(&mut net, CAROL, &Body::IAmNameServer(claim));
    assert_eq!(kinds(&mut net), ["duplicate-ip", "nat-mismatch"]);
}

/// An ARP request by its source and target cards, in the frame and in the packet.
fn asks(net: &mut Net, to: [u8; 6], from: [u8; 6], from_ip: u8, target: [u8; 6]) {
    let packet = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &from, &[10, 0, 0, from_ip], &target, &[10, 0, 0, 1]].concat();
    net.ethernet(Point::Wire, to, from, 0x0806, &packet);
}

#[test]
fn the_edges_of_all_nodes_have_one_address_and_a_guest_that_takes_it_is_a_duplicate() {
    let (guest, other) = ([2, 0x4c, 0, 0x10, 0x68, 1], [2, 0x4c, 0, 0x10, 0x68, 2]);
    let edges = [[6, 0x0a, 0x0e, 0x96, 0x2f, 0xc5], [6, 0xb5, 0x14, 0x11, 0xe1, 0x46], [2, 0x4c, 0, 0x10, 0x68, 0xff]];
    let mut net = Net::new();
    for from in edges.iter().cycle().take(9) {
        asks(&mut net, guest, *from, 254, [0; 6]);
    }
    assert!(kinds(&mut net).is_empty());
    asks(&mut net, [0xff; 6], other, 254, [0; 6]);
    asks(&mut net, guest, edges[0], 254, [0; 6]);
    assert_eq!(kinds(&mut net), ["duplicate-ip"]);
}

#[test]
fn who_does_not_ask_as_an_edge_is_none() {
    let guest = [2, 0x4c, 0, 0x10, 0x68, 1];
    let node = |last| [6, 0, 0, 0, 0, last];
    // To all; to a card that is no seat; again to one that it knows; from cards of others.
    for (to, from, target) in [
        ([0xff; 6], [node(1), node(2)], [0; 6]),
        (mac(1), [node(1), node(2)], [0; 6]),
        (guest, [node(1), node(2)], guest),
        (guest, [mac(6), mac(7)], [0; 6]),
    ] {
        let mut net = Net::new();
        for from in from {
            asks(&mut net, to, from, 254, target);
        }
        assert_eq!(kinds(&mut net), ["duplicate-ip"], "{to:x?} {target:x?}");
    }
}

#[test]
fn round_trips_are_split_where_both_ports_are_ours() {
    let mut net = Net::new();
    let (near, far) = (PortId(1), PortId(2));
    for port in [(near, "instance-1"), (far, "instance-2")] {
        net.observer.name_port(port.0, port.1);
    }
    net.observer.name(MacAddr(mac(1)), "instance-1");
    net.observer.power(MacAddr(mac(1)), net.now);
    let (from, to) = (end(1, 2301), end(2, 2300));
    for _ in 0..20 {
        exchange(&mut net, from, to, near, far);
    }
    let observed = net.observer.observed();
    let lag = observed.lags.iter().find(|lag| lag.from == "10.0.0.1").unwrap();
    let close = |got: Option<f64>, want: f64| (got.unwrap() - want).abs() < 0.05;
    // 2 ms there, 10 ms in the guest, 3 ms back, and 0.1 ms for each frame of the test's clock.
    assert!(close(lag.rtt_ms, 15.3) && close(lag.guest_ms, 10.1) && close(lag.fabric_ms, 5.2), "{lag:?}");
    let machine = observed.machines.iter().find(|machine| machine.instance.as_deref() == Some("instance-1")).unwrap();
    assert_eq!(machine.frames, 20, "what went to a guest is not counted as sent again");
    let timeline = observed.timelines.iter().find(|timeline| timeline.mac == machine.mac).unwrap();
    assert_eq!(
        timeline.steps.iter().map(|step| step.step).collect::<Vec<_>>(),
        [Step::Power, Step::Frame, Step::Address]
    );
    assert_eq!(timeline.steps[1].evidence.port.as_deref(), Some("instance-1"));
    // One card at two ports.
    net.segment(Point::FromGuest(far), from, to, Flags::ACK, &[]);
    assert_eq!(kinds(&mut net), ["duplicate-mac"]);
}

fn exchange(net: &mut Net, from: std::net::SocketAddrV4, to: std::net::SocketAddrV4, near: PortId, far: PortId) {
    let before = net.clone_numbers();
    net.segment(Point::FromGuest(near), from, to, Flags::ACK, b"data");
    net.wait(2);
    net.set_numbers(before);
    net.segment(Point::ToGuest(far), from, to, Flags::ACK, b"data");
    net.wait(10);
    net.segment(Point::FromGuest(far), to, from, Flags::ACK, &[]);
    net.wait(3);
    net.segment(Point::ToGuest(near), to, from, Flags::ACK, &[]);
}

#[test]
fn another_tunnel_at_another_port() {
    let mut net = Net::new();
    let (server, client) = (end(1, 10_213), end(2, 50_000));
    let packet = |destination: wire::ipx::Address, source: wire::ipx::Address, payload: &[u8]| {
        let packet = wire::ipx::Packet { checksum: 0xffff, hops: 0, packet_type: 2, destination, source, payload };
        let mut bytes = vec![0; 30 + payload.len()];
        packet.write(&mut bytes).unwrap();
        bytes
    };
    let at = |node: [u8; 6], socket: u16| wire::ipx::Address { network: 0, node: MacAddr(node), socket };
    let node = [2, 0x11, 0x22, 0x33, 0x44, 0x55];
    // Two questions, one answer, as ipxbox answers.
    for _ in 0..2 {
        net.udp(client, server, &packet(at([0; 6], 2), at([0; 6], 2), &[]));
    }
    let source = wire::ipx::Address { network: 1, ..at([0xff; 6], 2) };
    net.udp(server, client, &packet(at(node, 2), source, &[]));
    // The game asks; the server's copy for another client is not another question.
    let query = wire::dplay::Message {
        dialect: Dialect::DX6,
        body: Body::EnumSessions(wire::dplay::EnumSessions { application: APPLICATION, ..Default::default() }),
    };
    let mut buffer = [0; 64];
    let len = query.write(&mut buffer).unwrap();
    let asked = packet(at([0xff; 6], 0xa57f), at(node, 0x4001), &buffer[..len]);
    net.udp(client, server, &asked);
    net.udp(server, end(3, 50_001), &asked);
    net.udp(client, server, &packet(at([0xff; 6], 0x5100), at([2, 6, 6, 6, 6, 6], 0x5100), b"forged"));
    let observed = net.observed();
    let tunnel = observed.ipxnet.clone().unwrap();
    assert_eq!((tunnel.server.as_deref(), tunnel.registrations), (Some("10.0.0.1:10213"), 1));
    assert_eq!(json!(tunnel.clients), json!([{"ip": "10.0.0.2", "port": 50_000, "node": "021122334455"}]));
    assert_eq!(observed.enumerations[0].count, 1);
    assert_eq!(kinds(&mut net), ["ipxnet-forged"]);
}
