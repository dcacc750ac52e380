//! Files and frames for the tests, written apart from the code that they test.
use std::net::Ipv4Addr;

use wire::dplay::{
    AddForwardRequest, Body, Dialect, EnumSessions, Guid, Id, Player, PlayerFlags, PlayersReply, Sender,
    SessionDescChanged, SessionDescription, Text,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Big,
    Little,
}

impl Order {
    pub(crate) fn u16(self, value: u16) -> [u8; 2] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub(crate) fn u32(self, value: u32) -> [u8; 4] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub(crate) fn u64(self, value: u64) -> [u8; 8] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}

/// A pcap: magic number as written by a machine of that order, then records of (seconds, fraction, wire length, bytes).
pub(crate) fn pcap(order: Order, magic: u32, link_type: u32, records: &[(u32, u32, u32, Vec<u8>)]) -> Vec<u8> {
    let mut file = order.u32(magic).to_vec();
    file.extend([order.u16(2), order.u16(4)].concat());
    file.extend([order.u32(0), order.u32(0), order.u32(65535), order.u32(link_type)].concat());
    for (seconds, fraction, wire_len, bytes) in records {
        let len = u32::try_from(bytes.len()).unwrap();
        file.extend([order.u32(*seconds), order.u32(*fraction), order.u32(len), order.u32(*wire_len)].concat());
        if magic == 0xa1b2_cd34 {
            file.extend([0xee; 8]);
        }
        file.extend(bytes);
    }
    file
}

pub(crate) fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let len = order.u32(u32::try_from(body.len() + 12).unwrap());
    [&order.u32(kind)[..], &len, &body, &len].concat()
}

pub(crate) fn option(order: Order, code: u16, value: &[u8]) -> Vec<u8> {
    let mut option = [order.u16(code), order.u16(u16::try_from(value.len()).unwrap())].concat();
    option.extend(value);
    option.resize(option.len().next_multiple_of(4), 0);
    option
}

pub(crate) fn section(order: Order) -> Vec<u8> {
    let mut body = order.u32(0x1a2b_3c4d).to_vec();
    body.extend([order.u16(1), order.u16(0)].concat());
    body.extend(order.u64(u64::MAX));
    body.extend(option(order, 4, b"a test"));
    block(order, 0x0a0d_0d0a, &body)
}

pub(crate) fn interface(order: Order, link_type: u16, options: &[u8]) -> Vec<u8> {
    let mut body = [order.u16(link_type), order.u16(0)].concat();
    body.extend(order.u32(0));
    body.extend(options);
    block(order, 1, &body)
}

pub(crate) fn enhanced(order: Order, interface: u32, ticks: u64, wire_len: u32, bytes: &[u8]) -> Vec<u8> {
    let mut body = order.u32(interface).to_vec();
    body.extend(order.u32((ticks >> 32) as u32));
    body.extend(order.u32((ticks & 0xffff_ffff) as u32));
    body.extend(order.u32(u32::try_from(bytes.len()).unwrap()));
    body.extend(order.u32(wire_len));
    body.extend(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
    body.extend(option(order, 1, b"a comment"));
    body.extend(option(order, 0, b""));
    block(order, 6, &body)
}

pub(crate) const PASSWORD: &str = "open sesame";
const FROM: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 2);
const TO: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);

/// UTF-16LE.
pub(crate) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn message(body: &Body<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 4096];
    let len = Sender::new(2300, Dialect::DX6_1A).system(&mut buffer, body).unwrap();
    buffer.truncate(len);
    buffer
}

/// A joiner shows itself, with the password; envelope first, as over TCP.
pub(crate) fn add_forward_request(password: &str) -> Vec<u8> {
    let player = Player { flags: PlayerFlags::SYSTEM, id: Id(0x1001), ..Player::default() };
    let password = Some(Text::new(password));
    message(&Body::AddForwardRequest(AddForwardRequest { to: Id(0), player, password, tick_count: 0xdead_beef }))
}

pub(crate) fn enum_sessions(password: &str) -> Vec<u8> {
    let password = Some(Text::new(password));
    message(&Body::EnumSessions(EnumSessions { application: Guid([7; 16]), password, ..EnumSessions::default() }))
}

pub(crate) fn session_changed(password: &str) -> Vec<u8> {
    message(&Body::SessionDescChanged(SessionDescChanged {
        to: Id(0),
        session: SessionDescription::default(),
        name: Some(Text::new("Loco Party")),
        password: Some(Text::new(password)),
    }))
}

pub(crate) fn players_reply(password: &str) -> Vec<u8> {
    message(&Body::SuperEnumPlayersReply(PlayersReply {
        name: Some(Text::new("Loco Party")),
        password: Some(Text::new(password)),
        ..PlayersReply::default()
    }))
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    let bytes = parts.concat();
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// Checksum over what stands behind the IPv4 header, with the pseudo header; 0 when it is right.
pub(crate) fn transport_checksum(frame: &[u8]) -> u16 {
    let ip = &frame[14..];
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let body = &ip[20..total];
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    checksum(&[&ip[12..20], &[0, ip[9]], &len, body])
}

/// `fragment`: the word of flags and offset.
pub(crate) fn ip_frame(protocol: u8, id: u16, fragment: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0x4c, 0, 0x10, 0x68, 1, 2, 0x4c, 0, 0x10, 0x68, 2, 8, 0];
    let mut ip = vec![0x45, 0];
    ip.extend(u16::try_from(20 + body.len()).unwrap().to_be_bytes());
    ip.extend(id.to_be_bytes());
    ip.extend(fragment.to_be_bytes());
    ip.extend([128, protocol, 0, 0]);
    ip.extend(FROM.octets());
    ip.extend(TO.octets());
    let sum = checksum(&[&ip]).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    frame.extend(ip);
    frame.extend(body);
    frame
}

pub(crate) fn udp_datagram(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut udp = [1049_u16.to_be_bytes(), port.to_be_bytes()].concat();
    udp.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let sum = transport_checksum(&ip_frame(17, 1, 0, &udp)).to_be_bytes();
    udp[6..8].copy_from_slice(&sum);
    udp
}

pub(crate) fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    ip_frame(17, 1, 0, &udp_datagram(port, payload))
}

pub(crate) fn tcp(sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut tcp = [1050_u16.to_be_bytes(), 2300_u16.to_be_bytes()].concat();
    tcp.extend(sequence.to_be_bytes());
    tcp.extend([0, 0, 0, 1, 0x50, 0x18, 0x20, 0, 0, 0, 0, 0]);
    tcp.extend(payload);
    let sum = transport_checksum(&ip_frame(6, 1, 0, &tcp)).to_be_bytes();
    tcp[16..18].copy_from_slice(&sum);
    ip_frame(6, 1, 0, &tcp)
}

/// `play…` without an envelope, as over IPX.
pub(crate) fn ipx(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0x4c, 0, 0x10, 0x68, 2]);
    let len = u16::try_from(30 + message.len()).unwrap();
    frame.extend(len.to_be_bytes());
    frame.extend([0xff, 0xff]);
    frame.extend(len.to_be_bytes());
    frame.extend([0, 4]);
    for node in [[0xff; 6], [2, 0x4c, 0, 0x10, 0x68, 2]] {
        frame.extend([0; 4]);
        frame.extend(node);
        frame.extend([0xba, 0x08]);
    }
    frame.extend(message);
    frame
}
