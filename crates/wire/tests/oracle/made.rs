//! Frames for what no capture holds: VLAN tags, DHCP, sessions, names that go, TCP's and IPv4's options, ICMP.
use std::net::Ipv4Addr;

use wire::dplay::{
    Body, Create, Dialect, EnumFlags, EnumSessions, Guid, HResult, Id, Membership, Piece, Player, Players,
    PlayersReply, RequestPlayerReply, Sender, Text,
};
use wire::ipx::{self, Address, packet_type, socket};
use wire::netbios::Name;
use wire::tcp::Flags;
use wire::{MacAddr, arp, ipv4, tcp, udp};

const HERE: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 2);
const MACS: [u8; 12] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0x4c, 0, 0, 0x2a, 1];

/// A little-endian pcap of Ethernet frames.
pub(crate) fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1].map(u32::to_le_bytes).concat();
    for frame in frames {
        let len = u32::try_from(frame.len()).unwrap();
        file.extend([0, 0, len, len].map(u32::to_le_bytes).concat());
        file.extend(frame);
    }
    file
}

fn frame(kind: &[u8], content: &[u8]) -> Vec<u8> {
    [&MACS[..], kind, content].concat()
}

/// Over 802.2.
fn ipx_frame(packet: &ipx::Packet<'_>) -> Vec<u8> {
    let mut buffer = [0; 600];
    let len = packet.write(&mut buffer).unwrap();
    let llc = [&[0xe0, 0xe0, 3], &buffer[..len]].concat();
    frame(&u16::try_from(llc.len()).unwrap().to_be_bytes(), &llc)
}

fn ip(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = ipv4::Header { id: 0x4711, protocol, source: HERE, destination: THERE, fragment: None };
    let mut buffer = vec![0; 1500];
    let len = header.write(payload, &mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

fn udp_packet(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut buffer = [0; 1472];
    let len = udp::write((HERE, from), (THERE, to), payload, &mut buffer).unwrap();
    ip(ipv4::UDP, &buffer[..len])
}

fn tcp_packet(from: u16, to: u16, flags: Flags, payload: &[u8]) -> Vec<u8> {
    let header = tcp::Header {
        source: (HERE, from),
        destination: (THERE, to),
        sequence: 0xdead_beef,
        acknowledgement: 7,
        flags,
    };
    let mut buffer = [0; 1460];
    let len = header.write(payload, &mut buffer).unwrap();
    ip(ipv4::TCP, &buffer[..len])
}

fn in_ethernet(packet: &[u8]) -> Vec<u8> {
    frame(&[8, 0], packet)
}

fn dhcp(reply: bool, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 236];
    bytes[..8].copy_from_slice(&[1 + u8::from(reply), 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
    (bytes[9], bytes[10]) = (3, 0x80);
    bytes[12..28].copy_from_slice(&[10, 98, 0, 9, 10, 98, 0, 2, 10, 98, 0, 7, 10, 98, 0, 8]);
    bytes[28..34].copy_from_slice(&MACS[6..]);
    bytes.extend([99, 130, 83, 99]);
    bytes.extend(options);
    let (from, to) = if reply { (67, 68) } else { (68, 67) };
    in_ethernet(&udp_packet(from, to, &bytes))
}

fn encoded(name: Name) -> Vec<u8> {
    [&[32][..], &name.encode(), &[0]].concat()
}

/// A message about `name`: `word` are its flags, `counts` its questions, answers, authorities, additional ones.
fn name_service(word: u16, counts: [u8; 4], name: Name, behind: &[u8]) -> Vec<u8> {
    let [high, low] = word.to_be_bytes();
    let header = [&[0x12, 0x34, high, low][..], &counts.map(|count| [0, count]).concat()].concat();
    in_ethernet(&udp_packet(137, 137, &[&header, &encoded(name), behind].concat()))
}

fn dplay(body: &Body<'_>) -> Vec<u8> {
    let mut buffer = [0; 512];
    let len = Sender::new(2301, Dialect::DX7_1).system(&mut buffer, body).unwrap();
    in_ethernet(&udp_packet(2350, 2351, &buffer[..len]))
}

/// The answer to a join with one player, who stands behind a gap: only the offset says where.
fn players_behind_a_gap() -> Vec<u8> {
    let player = Player {
        id: Id(0x1111_0001),
        system_id: Id(0x1111_0000),
        short_name: Some(Text::new("Alice")),
        ..Player::default()
    };
    let players = [player];
    let reply = PlayersReply { players: Players::new(&players), ..PlayersReply::default() };
    let mut buffer = [0; 512];
    let len = Sender::new(2301, Dialect::DX7_1).system(&mut buffer, &Body::SuperEnumPlayersReply(reply)).unwrap();
    // The offset is the third word of the body; it counts from "play".
    let packed = 20 + usize::from(buffer[36]);
    let mut bytes = buffer[..len].to_vec();
    bytes.extend([0; 32]);
    bytes.extend_from_within(packed..len);
    bytes[packed..len].fill(0);
    bytes[36] = u8::try_from(len + 32 - 20).unwrap();
    let size = u16::try_from(bytes.len()).unwrap().to_le_bytes();
    bytes[..2].copy_from_slice(&size);
    bytes
}

/// A response: the name stands behind the two GUIDs, 96 bytes from byte 4 on.
fn found_by_directplay_8() -> Vec<u8> {
    let name: Vec<u8> = "Loco Town\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let name_len = u32::try_from(name.len()).unwrap();
    let words = [0, 0, 0x50, 0x81, 8, 3, 92, name_len, 0, 0, 0, 0, 0, 0].map(u32::to_le_bytes).concat();
    [&[0, 3, 7, 0][..], &words, &[0x22; 16], &[0x21; 16], &[0; 4], &name].concat()
}

/// 08 of one player.
fn create_player() -> Vec<u8> {
    let player = Player {
        id: Id(0x1111_0001),
        short_name: Some(Text::new("Alice")),
        data: b"twelve bytes",
        ..Player::default()
    };
    let mut buffer = [0; 512];
    let body = Body::CreatePlayer(Create { to: Id::NONE, player });
    let len = Sender::new(2301, Dialect::DX7_1).system(&mut buffer, &body).unwrap();
    buffer[..len].to_vec()
}

#[expect(clippy::too_many_lines, reason = "a list")]
pub(crate) fn frames() -> Vec<Vec<u8>> {
    let host = Name::new(b"LOCOHOST", 0x20).unwrap();
    let kid = Name::new(b"LOCOKID1", 0x00).unwrap();
    let record = |kind: u8, data: &[u8]| {
        [&[0xc0, 12, 0, kind, 0, 1, 0, 3, 0xf4, 0x80, 0, u8::try_from(data.len()).unwrap()], data].concat()
    };
    let question = |kind: u8| vec![0, kind, 0, 1];
    let ask = arp::Packet {
        operation: arp::REQUEST,
        sender_mac: MacAddr([2, 0x4c, 0, 0, 0x2a, 1]),
        sender_ip: HERE,
        target_mac: MacAddr::ZERO,
        target_ip: THERE,
    };
    let mut asks = [0; arp::LEN];
    ask.write(&mut asks).unwrap();
    let mut syn = tcp_packet(1025, 2300, Flags::SYN, &[2, 4, 2, 0x18, 3, 3, 7, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8, 1, 0]);
    syn[32] = 0xa0;
    // Router alert, four bytes of the payload.
    let mut optional = ip(ipv4::UDP, &[&[0x94, 4, 0, 0][..], &udp_packet(1, 2, b"x")[20..]].concat());
    optional[0] = 0x46;
    let unreachable =
        |code: u8, mtu: u8, quoted: &[u8]| ip(ipv4::ICMP, &[&[3, code, 0, 0, 0, 0, 5, mtu], quoted].concat());
    let address = |node: u8, socket| Address { network: 0x12, node: MacAddr([2, 0, 0, 0, 0, node]), socket };
    let novell = |packet_type, socket, payload: &[u8]| {
        let (destination, source) = (address(1, socket), address(2, socket));
        ipx_frame(&ipx::Packet { checksum: 0xffff, hops: 3, packet_type, destination, source, payload })
    };
    let snap = |kind: [u8; 2], content: &[u8]| {
        let content = [&[0xaa, 0xaa, 3, 0, 0, 0][..], &kind, content].concat();
        frame(&u16::try_from(content.len()).unwrap().to_be_bytes(), &content)
    };
    let membership = Membership { to: Id(1), player: Id(2), group: Id(3) };
    let refused = RequestPlayerReply {
        id: Id::NONE,
        security: [0; 24],
        sspi_provider: None,
        capi_provider: None,
        result: HResult(0x8877_014a),
    };
    let create = create_player();
    let data = b"a piece of a message";
    let piece = Piece { message: Guid([9; 16]), index: 1, offset: 20, total_pieces: 3, message_len: 50, data };
    vec![
        frame(&[0x81, 0, 0x60, 7, 8, 6], &asks),
        frame(&[0x88, 0xa8, 0x20, 8, 0x81, 0, 0x0f, 0xff, 8, 0], &udp_packet(1, 2, b"twice")),
        snap([8, 6], &asks),
        snap([8, 0], &udp_packet(3, 4, b"in SNAP")),
        in_ethernet(&optional),
        in_ethernet(&syn),
        in_ethernet(&tcp_packet(2300, 1025, Flags::SYN | Flags::ACK, b"")),
        in_ethernet(&tcp_packet(2300, 1025, Flags::RST | Flags::ACK, b"")),
        in_ethernet(&tcp_packet(1025, 2300, Flags::FIN | Flags::PSH | Flags::ACK, b"bytes")),
        dhcp(
            false,
            &[
                53, 1, 1, 50, 4, 10, 98, 0, 2, 12, 8, b'L', b'O', b'C', b'O', b'K', b'I', b'D', b'1', 60, 7, b'M',
                b'S', b'F', b'T', b' ', b'9', b'8', 255,
            ],
        ),
        dhcp(
            true,
            &[53, 1, 2, 54, 4, 10, 98, 0, 1, 51, 4, 0, 0, 14, 16, 1, 4, 255, 255, 0, 0, 3, 4, 10, 98, 0, 1, 255],
        ),
        dhcp(false, &[53, 1, 3, 54, 4, 10, 98, 0, 1, 50, 4, 10, 98, 0, 2, 255]),
        dhcp(true, &[53, 1, 6, 54, 4, 10, 98, 0, 1, 255]),
        // Registration, refresh, release with a question and its record; a defence, a wait, a positive and a negative answer.
        name_service(0x2910, [1, 0, 0, 1], host, &[question(32), record(32, &[0, 0, 10, 98, 0, 1])].concat()),
        name_service(0x4010, [1, 0, 0, 1], host, &[question(32), record(32, &[0x80, 0, 10, 98, 0, 1])].concat()),
        name_service(0x3010, [1, 0, 0, 1], kid, &[question(32), record(32, &[0, 0, 10, 98, 0, 1])].concat()),
        name_service(0x0110, [1, 0, 0, 0], kid, &question(32)),
        name_service(0x0000, [1, 0, 0, 0], Name::WILDCARD, &question(33)),
        name_service(0xad86, [0, 1, 0, 0], host, &[0, 32, 0, 1, 0, 0, 0, 0, 0, 6, 0, 0, 10, 98, 0, 1]),
        name_service(
            0x8500,
            [0, 1, 0, 0],
            host,
            &[0, 32, 0, 1, 0, 0, 0, 9, 0, 12, 0, 0, 10, 98, 0, 1, 0, 0, 10, 98, 0, 2],
        ),
        name_service(0x8583, [0, 1, 0, 0], kid, &[0, 10, 0, 1, 0, 0, 0, 0, 0, 0]),
        in_ethernet(&tcp_packet(
            1026,
            139,
            Flags::ACK | Flags::PSH,
            &[&[0x81, 0, 0, 68][..], &encoded(host), &encoded(kid)].concat(),
        )),
        in_ethernet(&tcp_packet(139, 1026, Flags::ACK | Flags::PSH, &[0x82, 0, 0, 0])),
        in_ethernet(&tcp_packet(139, 1026, Flags::ACK | Flags::PSH, &[0x83, 0, 0, 1, 0x82])),
        in_ethernet(&unreachable(3, 0, &udp_packet(1025, 47624, &[9; 52])[..28])),
        in_ethernet(&unreachable(4, 0xdc, &tcp_packet(1025, 2300, Flags::ACK, &[9; 52])[..40])),
        in_ethernet(&ip(ipv4::ICMP, &[8, 0, 0, 0, 1, 2, 3, 4, b'h', b'i'])),
        novell(packet_type::PEP, socket::SAP, &[0, 1, 0xff, 0xff]),
        novell(packet_type::PEP, socket::SAP, &[0, 3, 0, 4]),
        novell(packet_type::RIP, socket::RIP, &[0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
        novell(packet_type::RIP, socket::RIP, &[0, 2, 0, 0, 0, 7, 0, 1, 0, 2, 0, 0, 0, 8, 0, 16, 0, 3]),
        dplay(&Body::EnumSessions(EnumSessions {
            application: Guid([7; 16]),
            flags: EnumFlags(0x41),
            password: Some(Text::new("geheim")),
        })),
        dplay(&Body::RequestPlayerReply(refused)),
        dplay(&Body::AddPlayerToGroup(membership)),
        dplay(&Body::DeletePlayer(membership)),
        dplay(&Body::YouAreDead),
        dplay(&Body::Packet(piece)),
        in_ethernet(&udp_packet(2350, 2351, &players_behind_a_gap())),
        in_ethernet(&tcp_packet(1025, 2300, Flags::ACK, &create[..60])),
        in_ethernet(&tcp_packet(1025, 2300, Flags::ACK, &create[60..])),
        in_ethernet(&udp_packet(1027, 6073, &[&[0, 2, 7, 0, 1][..], &[0x21; 16], b"data"].concat())),
        in_ethernet(&udp_packet(1027, 6073, &[0, 2, 8, 0, 2])),
        in_ethernet(&udp_packet(6073, 1027, &found_by_directplay_8())),
    ]
}
