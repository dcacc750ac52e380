//! Generated and damaged input: no panic, and what was understood survives being written.
use std::net::Ipv4Addr;

use proptest::collection::vec;
use proptest::prelude::*;
use wire::dplay::{
    AddForwardRequest, Body, Chat, Command, Content, Create, DataChanged, Dialect, EnumFlags, EnumSessions,
    EnumSessionsReply, Envelope, Framing, Guid, HResult, IAmNameServer, Id, IdKey, Ids, MESSAGE_LEN_MAX, Membership,
    Message, Multicast, NameChanged, Packet, Piece, PieceAck, Ping, Player, PlayerFlags, Players, PlayersReply,
    Reassembler, RequestId, RequestPlayerReply, Sender, SessionDescChanged, SessionDescription, SessionFlags,
    SpAddresses, Text, Token, UserMessage, Voice, framing,
};
use wire::{frame, ipx};

use crate::pcap::conversation;

/// Parses, writes, parses: the same values. Builders may lay a message out differently, so bytes are not compared.
#[track_caller]
fn check_survives(message: &Message<'_>) {
    // A string by offset can be as long as the rest of the message, wherever it begins.
    let mut buffer = vec![0xee; 1 << 16];
    let len = message.write(&mut buffer).expect("64 KiB are enough");
    assert_eq!(Message::parse(&buffer[..len]).as_ref(), Some(message));
    assert_eq!(message.write(&mut buffer[..len - 1]), None, "one byte less does not fit");
}

/// Everything that takes bytes from the wire.
#[track_caller]
fn check_any(bytes: &[u8]) {
    for packet in [Packet::parse(bytes), Some(Packet::from_datagram(bytes))].into_iter().flatten() {
        if let Content::System(message) = packet.content {
            check_survives(&message);
        }
    }
    if let Some(message) = Message::parse(bytes) {
        check_survives(&message);
    }
    if let Some(addresses) = SpAddresses::parse(bytes) {
        assert_eq!(SpAddresses::parse(&addresses.to_bytes()), Some(addresses));
    }
    if let Some(packet) = ipx::Packet::parse(bytes) {
        let mut buffer = vec![0; bytes.len()];
        let len = packet.write(&mut buffer).expect("it came out of as many bytes");
        assert_eq!(buffer[..len], bytes[..len]);
    }
    if let Some(frame) = frame::Frame::parse(bytes) {
        assert_eq!(frame.class, frame::classify(bytes));
        let _packet = frame.ipx();
    }
    match framing(bytes) {
        Framing::Need(count) => assert!(count > bytes.len() && count <= MESSAGE_LEN_MAX),
        Framing::Frame(count) => assert!(count >= 20 && count <= bytes.len()),
        Framing::Resync(count) => assert!(count >= 1 && count <= bytes.len()),
    }
}

/// "play", any command of the table or none, any dialect, and `body`.
fn with_header(command: u16, body: &[u8]) -> Vec<u8> {
    [b"play".as_slice(), &command.to_le_bytes(), &11_u16.to_le_bytes(), body].concat()
}

#[derive(Clone, Debug)]
struct OwnedPlayer {
    flags: u32,
    ids: [u32; 3],
    dialect: u16,
    names: [Option<String>; 2],
    sp_data: Vec<u8>,
    data: Vec<u8>,
    members: Vec<Id>,
    shortcuts: Vec<Id>,
}

fn name() -> impl Strategy<Value = Option<String>> {
    // Astral characters too: two UTF-16 units each. NUL ends a string, so it cannot be in one.
    proptest::option::of("[^\0]{0,12}")
}

fn ids() -> impl Strategy<Value = Vec<Id>> {
    prop_oneof![vec(any::<u32>().prop_map(Id), 0..4), vec(any::<u32>().prop_map(Id), 250..260)]
}

/// Lengths on both sides of where the count of a super packed player grows from one byte to two.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 250..260)]
}

prop_compose! {
    fn player()(
        flags in any::<u32>(), ids_ in any::<[u32; 3]>(), dialect in any::<u16>(), names in [name(), name()],
        sp_data in bytes(), data in bytes(), members in ids(), shortcuts in ids(),
    ) -> OwnedPlayer {
        OwnedPlayer { flags, ids: ids_, dialect, names, sp_data, data, members, shortcuts }
    }
}

impl OwnedPlayer {
    /// As a packed record holds it.
    fn packed(&self) -> Player<'_> {
        Player {
            flags: PlayerFlags(self.flags),
            id: Id(self.ids[0]),
            system_id: Id(self.ids[1]),
            dialect: Dialect(self.dialect),
            short_name: self.names[0].as_deref().map(Text::new),
            long_name: self.names[1].as_deref().map(Text::new),
            sp_data: &self.sp_data,
            data: &self.data,
            members: Ids::new(&self.members),
            parent: Id(self.ids[2]),
            shortcuts: Ids::NONE,
        }
    }

    /// As a super packed record holds it: the dialect of system players, the system id of the others.
    fn super_packed(&self) -> Player<'_> {
        let player = Player { shortcuts: Ids::new(&self.shortcuts), ..self.packed() };
        if player.is_system() {
            Player { system_id: player.id, ..player }
        } else {
            Player { dialect: Dialect::default(), ..player }
        }
    }
}

/// Numbers of which every fixed field gets one of its own.
#[derive(Clone, Debug)]
struct Fields {
    words: [u32; 10],
    guids: [[u8; 16]; 2],
    security: [u8; 24],
}

prop_compose! {
    fn fields()(words in any::<[u32; 10]>(), guids in any::<[[u8; 16]; 2]>(), security in any::<[u8; 24]>()) -> Fields {
        Fields { words, guids, security }
    }
}

/// One body of every kind.
fn bodies<'a>(
    f: &'a Fields,
    text: &'a [Option<String>; 2],
    data: &'a [u8],
    packed: &'a [Player<'a>],
    super_packed: &'a [Player<'a>],
) -> Vec<Body<'a>> {
    let w = f.words;
    let (a, b, c) = (Id(w[0]), Id(w[1]), Id(w[2]));
    let [name, password] = text.each_ref().map(|text| text.as_deref().map(Text::new));
    let session = SessionDescription {
        flags: SessionFlags(w[0]),
        instance: Guid(f.guids[0]),
        application: Guid(f.guids[1]),
        max_players: w[1],
        current_players: w[2],
        pointers: [w[3], w[4]],
        id_key: IdKey(w[5]),
        reserved2: w[6],
        user: [w[7], w[8], w[9], w[0] ^ w[1]],
    };
    let create = Create { to: a, player: packed.first().copied().unwrap_or_default() };
    let membership = Membership { to: a, player: b, group: c };
    let data_changed = DataChanged { to: a, id: b, data };
    let name_changed = NameChanged { to: a, id: b, short_name: name, long_name: password };
    let piece =
        Piece { message: Guid(f.guids[0]), index: w[0], offset: w[1], total_pieces: w[2], message_len: w[3], data };
    let ping = Ping { from: a, tick_count: w[1] };
    let multicast = Multicast { group: a, from: b, message: data };
    let half = packed.len() / 2;
    let reply = PlayersReply {
        session,
        name,
        password,
        players: Players::new(&packed[..half]),
        groups: Players::new(&packed[half..]),
        shortcuts: Players::NONE,
    };
    vec![
        Body::EnumSessionsReply(EnumSessionsReply { session, name }),
        Body::EnumSessions(EnumSessions { application: Guid(f.guids[0]), flags: EnumFlags(w[0]), password }),
        Body::EnumPlayersReply(reply),
        Body::EnumPlayer,
        Body::RequestPlayerId(RequestId { flags: PlayerFlags(w[0]) }),
        Body::RequestGroupId(RequestId { flags: PlayerFlags(w[0]) }),
        Body::RequestPlayerReply(RequestPlayerReply {
            id: a,
            security: f.security,
            sspi_provider: name,
            capi_provider: password,
            result: HResult(w[1]),
        }),
        Body::CreatePlayer(create),
        Body::CreateGroup(create),
        Body::DeletePlayer(membership),
        Body::DeleteGroup(membership),
        Body::AddPlayerToGroup(membership),
        Body::DeletePlayerFromGroup(membership),
        Body::PlayerDataChanged(data_changed),
        Body::PlayerNameChanged(name_changed),
        Body::GroupDataChanged(data_changed),
        Body::GroupNameChanged(name_changed),
        Body::AddForwardRequest(AddForwardRequest { to: a, player: create.player, password, tick_count: w[1] }),
        Body::Packet(piece),
        Body::Ping(ping),
        Body::PingReply(ping),
        Body::YouAreDead,
        Body::PlayerWrapper(data),
        Body::SessionDescChanged(SessionDescChanged { to: a, session, name, password }),
        Body::AddForwardReply(HResult(w[0])),
        Body::AskForMulticast(multicast),
        Body::AskForMulticastGuaranteed(multicast),
        Body::AddShortcutToGroup(membership),
        Body::DeleteGroupFromGroup(membership),
        Body::SuperEnumPlayersReply(PlayersReply {
            players: Players::new(super_packed),
            groups: Players::new(&super_packed[..half]),
            shortcuts: Players::new(&super_packed[half..]),
            ..reply
        }),
        Body::Chat(Chat { from: a, to: b, flags: w[2], text: name }),
        Body::AddForward(create),
        Body::AddForwardAck(a),
        Body::Packet2Data(piece),
        Body::Packet2Ack(PieceAck { message: Guid(f.guids[0]), index: w[0] }),
        Body::IAmNameServer(IAmNameServer { to: a, host: b, flags: PlayerFlags(w[2]), sp_data: data }),
        Body::Voice(Voice { from: a, to: b, data }),
        Body::MulticastDelivery(multicast),
        Body::CreatePlayerVerify(create),
        Body::Other(Command::NEGOTIATE, data),
        Body::Other(Command(0x1234), data),
    ]
}

/// A stream cut where `cuts` say, through a reassembler of `N` bytes.
fn reassemble<const N: usize>(stream: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, u32, u32) {
    let (mut out, mut at, mut reassembler) = (Vec::new(), 0, Reassembler::<N>::new());
    for cut in cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([stream.len()]) {
        if cut > at {
            reassembler.push(&stream[at..cut], |message| out.push(message.to_vec()));
            at = cut;
        }
    }
    (out, reassembler.oversized(), reassembler.garbage())
}

proptest! {
    #[test]
    fn any_bytes_can_be_read(bytes in vec(any::<u8>(), 0..400), command in 0..0x40_u16) {
        check_any(&bytes);
        check_any(&with_header(command, &bytes));
    }

    /// Small numbers are the ones that hit offsets and counts.
    #[test]
    fn small_numbers_can_be_read(words in vec(prop_oneof![0..200_u32, Just(u32::MAX), any::<u32>()], 0..100), command in 0..0x40_u16) {
        let bytes: Vec<_> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        check_any(&with_header(command, &bytes));
    }

    #[test]
    fn damaged_captures_can_be_read(pick in any::<prop::sample::Index>(), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>()) {
        let captured: Vec<_> = ["dplay4-3peer", "syn-dplay4"].into_iter().flat_map(conversation).map(|seen| seen.bytes).filter(|bytes| bytes.len() < 1000).collect();
        let mut bytes = pick.get(&captured).clone();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check_any(&bytes);
        check_any(bytes.get(20..).unwrap_or(&[]));
        bytes.truncate(cut.index(bytes.len() + 1));
        check_any(&bytes);
        check_any(bytes.get(20..).unwrap_or(&[]));
    }

    #[test]
    fn every_body_survives(f in fields(), text in [name(), name()], data in bytes(), players in vec(player(), 0..5), dialect in any::<u16>()) {
        let packed: Vec<_> = players.iter().map(OwnedPlayer::packed).collect();
        let super_packed: Vec<_> = players.iter().map(OwnedPlayer::super_packed).collect();
        let bodies = bodies(&f, &text, &data, &packed, &super_packed);
        for body in &bodies {
            let dialect = Dialect(dialect);
            check_survives(&Message { dialect, body: *body });
            let sender = Sender::new(2345, dialect);
            let mut buffer = vec![0xee; 1 << 16];
            let len = sender.system(&mut buffer, body).unwrap();
            let packet = Packet::parse(&buffer[..len]).unwrap();
            prop_assert_eq!(packet, Packet::from_datagram(&buffer[..len]));
            prop_assert_eq!(packet.envelope, Some(sender.envelope));
            prop_assert_eq!(packet.content, Content::System(Message { dialect, body: *body }));
        }
        // All commands of the specification but those that have no body here (sessions with authentication) or no header.
        let covered: std::collections::BTreeSet<_> = bodies.iter().map(|body| body.command().0).collect();
        let raw = [0x0a, 0x1c, 0x1d, 0x1e, 0x1f, 0x21, 0x22, 0x2b, 0x2c];
        for command in Command::ALL {
            prop_assert_ne!(covered.contains(&command.0), raw.contains(&command.0), "{:?}", command);
        }
    }

    #[test]
    fn user_messages_survive(from in any::<u32>(), to in any::<u32>(), payload in bytes(), play in any::<bool>()) {
        let mut payload = payload;
        if play && payload.len() >= 16 {
            payload[12..16].copy_from_slice(b"play");
        }
        let message = UserMessage { from: Id(from), to: Id(to), payload: &payload };
        let sender = Sender::new(2300, Dialect::DX6_1A);
        let mut buffer = vec![0; 1 << 16];
        let len = sender.user_guaranteed(&mut buffer, &message).unwrap();
        let Content::User(bytes) = Packet::parse(&buffer[..len]).unwrap().content else { panic!("a user message") };
        prop_assert_eq!(UserMessage::parse(bytes), Some(message));

        let len = sender.user_datagram(&mut buffer, &message).unwrap();
        let (Content::User(bytes) | Content::System(Message { body: Body::PlayerWrapper(bytes), .. })) =
            Packet::from_datagram(&buffer[..len]).content
        else {
            panic!("a user message, or one that was wrapped")
        };
        prop_assert_eq!(UserMessage::parse(bytes), Some(message));
        prop_assert_eq!(len == payload.len() + 8, !(play && payload.len() >= 16) , "wrapped only where it must be");
    }

    #[test]
    fn segments_do_not_matter(
        payloads in vec(vec(any::<u8>(), 0..300), 1..8), garbage in vec(vec(prop_oneof![Just(0xb0), Just(0xfa), Just(2), any::<u8>()], 0..30), 8),
        cuts in vec(0..4000_usize, 0..12),
    ) {
        let sender = Sender::new(2300, Dialect::DX6_1A);
        let messages: Vec<_> = payloads.iter().map(|payload| {
            let mut buffer = [0; 512];
            let len = sender.user_guaranteed(&mut buffer, &UserMessage { from: Id(1), to: Id(2), payload }).unwrap();
            buffer[..len].to_vec()
        }).collect();
        let mut cuts = cuts;
        cuts.sort_unstable();

        // A sound stream: every message, whatever the segments.
        let stream = messages.concat();
        prop_assert_eq!(reassemble::<1024>(&stream, &cuts), (messages.clone(), 0, 0));
        // Byte by byte.
        prop_assert_eq!(reassemble::<1024>(&stream, &(0..stream.len()).collect::<Vec<_>>()), (messages.clone(), 0, 0));
        // Too small a buffer loses the long ones, and only those.
        let (short, long): (Vec<_>, Vec<_>) = messages.clone().into_iter().partition(|message| message.len() <= 100);
        prop_assert_eq!(reassemble::<100>(&stream, &cuts), (short, u32::try_from(long.len()).unwrap(), 0));
        // A damaged stream: the same as in one piece.
        let damaged: Vec<u8> = messages.iter().zip(&garbage).flat_map(|(message, garbage)| [garbage.clone(), message.clone()].concat()).collect();
        prop_assert_eq!(reassemble::<1024>(&damaged, &cuts), reassemble::<1024>(&damaged, &[]));
    }

    #[test]
    fn any_stream_can_be_reassembled(stream in vec(prop_oneof![Just(0xb0), Just(0xfa), Just(0), Just(2), any::<u8>()], 0..2000), cuts in vec(0..2000_usize, 0..5)) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        let (messages, ..) = reassemble::<64>(&stream, &cuts);
        prop_assert!(messages.iter().all(|message| message.len() <= 64 && Packet::parse(message).is_some()));
        prop_assert_eq!(&messages, &reassemble::<64>(&stream, &[]).0);
    }
}

#[test]
fn a_message_has_20_bits_of_length() {
    let mut buffer = vec![0; MESSAGE_LEN_MAX + 2];
    let payload = vec![0; MESSAGE_LEN_MAX - 27];
    let sender = Sender::new(2300, Dialect::DX6_1A);
    let mut write = |len: usize| {
        sender.user_guaranteed(&mut buffer, &UserMessage { from: Id(1), to: Id(2), payload: &payload[..len] })
    };
    assert_eq!(write(MESSAGE_LEN_MAX - 28), Some(MESSAGE_LEN_MAX));
    assert_eq!(write(MESSAGE_LEN_MAX - 27), None);
}

#[test]
fn envelopes_of_the_helper_are_understood() {
    for token in [Token::Peer, Token::ToHelper, Token::FromHelper] {
        let envelope = Envelope { token, sender: std::net::SocketAddrV4::new(Ipv4Addr::new(10, 98, 0, 7), 2301) };
        let mut buffer = [0; 64];
        let len = Sender { envelope, dialect: Dialect::DX9 }.system(&mut buffer, &Body::YouAreDead).unwrap();
        assert_eq!(len, 28);
        assert_eq!(Packet::parse(&buffer[..len]).unwrap().envelope, Some(envelope));
        assert_eq!(framing(&buffer), Framing::Frame(28));
    }
}

/// A datagram is one message: what only begins like one is a user message with odd ids.
#[test]
fn a_datagram_is_as_long_as_its_envelope_says() {
    let mut buffer = [0; 64];
    let len = Sender::new(2300, Dialect::DX6).system(&mut buffer, &Body::YouAreDead).unwrap();
    assert!(matches!(Packet::from_datagram(&buffer[..len]).content, Content::System(_)));
    for wrong in [len - 1, len + 1] {
        let packet = Packet::from_datagram(&buffer[..wrong]);
        assert_eq!((packet.envelope, packet.content), (None, Content::User(&buffer[..wrong])));
    }
}
