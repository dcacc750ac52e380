//! What is fuzzed, in one place for both who drive it: libFuzzer (`fuzz_targets`, `cargo xtask fuzz`) and the property
//! tests of the crate `wire` (`tests/wire/fuzz.rs`), which run on every change.
//!
//! A target takes any bytes. It calls every parser that could be given them, reads everything they give, and checks
//! what the crate promises: no panic, what is parsed is within the input, what is written again is read the same, and
//! the class of a frame is the one that the parsers find.
use std::fmt::Write as _;

use wire::class::{HEAD_LEN, Head, Octets as _, TrafficClass, classify};
use wire::dplay::{Content, Packet, Reassembler, Sender, SpAddresses, UserMessage};
use wire::frame::{Class, Frame, FrameFormat};
use wire::framed::{LEN_MAX, Next, Prefix};
use wire::netbios::{browser, dgm, ns, ssn};
use wire::{arp, dhcp, dplay, dplay8, icmp, ipv4, ipx, ipxnet, ipxwrapper, tcp, udp};

/// A target by its name.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("frame", frame),
    ("framed", framed),
    ("ip", ip),
    ("names", names),
    ("dplay", dplay),
    ("stream", stream),
    ("novell", novell),
];

/// A frame, and whatever it carries.
pub fn frame(bytes: &[u8]) {
    let class = classify(bytes);
    assert_eq!(class, class_by_parsers(bytes));
    let front = bytes.get(..HEAD_LEN).unwrap_or(bytes);
    assert_eq!(class, classify(&Head { bytes: front, wire_len: bytes.wire_len() }), "the front suffices");

    let Some(frame) = Frame::parse(bytes) else { return };
    inside(bytes, frame.payload);
    if let Some(packet) = frame.arp() {
        let mut again = [0; arp::LEN];
        assert_eq!(packet.write(&mut again), Some(arp::LEN));
        assert_eq!(arp::Packet::parse(&again), Some(packet));
        read(&(packet.is_probe(), packet.is_announcement(), packet.is_reply()));
    }
    if let Some(packet) = frame.ipv4() {
        ip_packet(&packet);
    }
    if frame.ipx().is_some() {
        novell(frame.payload);
    }
}

/// What [`classify`] has to answer for a whole frame.
pub fn class_by_parsers(bytes: &[u8]) -> TrafficClass {
    parsed_class(bytes).unwrap_or(TrafficClass::Malformed)
}

fn parsed_class(bytes: &[u8]) -> Option<TrafficClass> {
    let frame = Frame::parse(bytes)?;
    // The frame's parser takes a frame that was cut as far as it goes; here nothing was cut.
    let kind = usize::from(u16::from_be_bytes(*bytes.get(12..)?.first_chunk()?));
    if kind <= 1500 && kind > bytes.len() - 14 {
        return None;
    }
    if frame.vlan.is_some() {
        return Some(TrafficClass::Vlan);
    }
    match frame.class {
        Class::Arp => frame.arp().map(|_| TrafficClass::Arp),
        Class::Ipv4 { .. } => ip_class(&frame.ipv4()?),
        Class::Ipv6 => Some(TrafficClass::Ipv6),
        Class::Ipx(format) => frame.ipx().map(|_| match format {
            FrameFormat::EthernetII => TrafficClass::IpxEthernetII,
            FrameFormat::Raw8023 => TrafficClass::IpxRaw8023,
            FrameFormat::Llc => TrafficClass::IpxLlc,
            FrameFormat::Snap => TrafficClass::IpxSnap,
        }),
        Class::NetBeui => Some(TrafficClass::Netbeui),
        Class::OtherType(_) | Class::OtherLlc(_) => Some(TrafficClass::Other),
        Class::Malformed => None,
    }
}

fn ip_class(packet: &ipv4::Packet<'_>) -> Option<TrafficClass> {
    if packet.is_cut() {
        return None;
    }
    if !packet.has_ports() {
        return Some(TrafficClass::IpFragment);
    }
    let game = |ports: [u16; 2]| ports.iter().any(|port| (2300..=2400).contains(port));
    let service = |ports: [u16; 2], services: &[(u16, TrafficClass)]| {
        // The destination first.
        [ports[1], ports[0]].iter().find_map(|port| services.iter().find(|it| it.0 == *port).map(|it| it.1))
    };
    match packet.protocol {
        ipv4::ICMP => icmp::Message::parse(packet.payload).map(|_| TrafficClass::Icmp),
        ipv4::UDP => {
            let datagram = udp::Datagram::parse(packet.payload)?;
            if datagram.is_cut() && !packet.more_fragments {
                return None;
            }
            let ports = [datagram.source_port, datagram.destination_port];
            let other = if game(ports) { TrafficClass::DplayUdp } else { TrafficClass::UdpOther };
            let services = [
                (dhcp::SERVER_PORT, TrafficClass::Dhcp),
                (dhcp::CLIENT_PORT, TrafficClass::Dhcp),
                (ns::PORT, TrafficClass::NetbiosNs),
                (dgm::PORT, TrafficClass::NetbiosDgm),
                (ipxnet::PORT, TrafficClass::Ipxnet),
                (6073, TrafficClass::Dplay8),
                (dplay::QUERY_PORT, TrafficClass::DplayQuery),
                (54792, TrafficClass::Ipxwrapper),
            ];
            Some(service(ports, &services).unwrap_or(other))
        }
        ipv4::TCP => {
            let segment = tcp::Segment::parse(packet.payload)?;
            let ports = [segment.source_port, segment.destination_port];
            let other = if game(ports) { TrafficClass::DplayTcp } else { TrafficClass::TcpOther };
            let services = [(ssn::PORT, TrafficClass::NetbiosSsn), (dplay::QUERY_PORT, TrafficClass::DplayQuery)];
            Some(service(ports, &services).unwrap_or(other))
        }
        _ => Some(TrafficClass::IpOther),
    }
}

/// An IPv4 packet, and whatever it carries.
pub fn ip(bytes: &[u8]) {
    if let Some(packet) = ipv4::Packet::parse(bytes) {
        inside(bytes, packet.payload);
        inside(bytes, packet.options);
        ip_packet(&packet);
    }
}

fn ip_packet(packet: &ipv4::Packet<'_>) {
    assert!(packet.payload.len() <= usize::from(packet.payload_len()));
    read(&(packet.checksum_is_right(), packet.is_cut(), packet.is_fragment()));
    if !packet.has_ports() {
        return;
    }
    if let Some(datagram) = udp::Datagram::parse(packet.payload) {
        inside(packet.payload, datagram.payload);
        read(&datagram.is_cut());
        names(datagram.payload);
        dplay(datagram.payload);
    }
    if let Some(segment) = tcp::Segment::parse(packet.payload) {
        inside(packet.payload, segment.payload);
        assert!(segment.options().count() <= 20);
        read(&(segment.mss(), segment.window_scale(), segment.timestamps(), segment.next_sequence(), segment.flags));
        names(segment.payload);
    }
    if let Some(message) = icmp::Message::parse(packet.payload) {
        read(&(message.echo(), message.next_hop_mtu(), message.quoted().map(|quoted| quoted.ports())));
    }
}

/// DHCP, and NetBIOS's three services.
pub fn names(bytes: &[u8]) {
    if let Some(message) = dhcp::Message::parse(bytes) {
        assert!(message.options().count() <= bytes.len());
        read(&(message.message_type(), message.requested_ip(), message.server_id(), message.lease_seconds()));
        read(&(message.host_name(), message.client_id(), message.vendor_class(), message.router()));
    }
    if let Some(message) = ns::Message::parse(bytes) {
        // A question has 6 bytes at least, a record 12.
        assert!(message.questions().count() * 6 + message.records().count() * 12 + 12 <= bytes.len());
        message.questions().for_each(|it| read(&it));
        for record in message.records() {
            read(&record);
            record.addresses().for_each(|it| read(&it));
            if let Some(status) = record.node_status() {
                status.names().for_each(|(name, _)| read(&name));
            }
        }
    }
    if let Some(message) = dgm::Message::parse(bytes) {
        read(&message);
        if let Some(datagram) = message.datagram() {
            mail_slot(datagram.data);
        }
    }
    mail_slot(bytes);
    browse(bytes);
    read(&ssn::Packet::parse(bytes));
}

fn mail_slot(bytes: &[u8]) {
    if let Some(slot) = dgm::MailSlot::parse(bytes) {
        inside(bytes, slot.name);
        inside(bytes, slot.data);
        browse(slot.data);
    }
}

fn browse(bytes: &[u8]) {
    let message = browser::Message::parse(bytes);
    if let Some(browser::Message::BackupListResponse { servers, .. }) = message {
        assert!(servers.names().count() <= bytes.len());
    }
    read(&message);
}

/// A datagram of DirectPlay 4 or 8, with and without the DirectPlay protocol.
pub fn dplay(bytes: &[u8]) {
    dplay_packet(&Packet::from_datagram(bytes));
    if let Some(packet) = Packet::parse(bytes) {
        dplay_packet(&packet);
    }
    if let Some(message) = dplay::Message::parse(bytes) {
        // Over IPX: without an envelope.
        read_body(&message.body);
    }
    if let Some(it) = dplay::protocol::Frame::parse(bytes) {
        read(&it);
    }
    read(&dplay8::Enumeration::parse(bytes));
    read(&dplay8::Query::parse(bytes));
    read(&dplay8::Response::parse(bytes));
}

fn dplay_packet(packet: &Packet<'_>) {
    match packet.content {
        Content::System(message) => {
            read_body(&message.body);
            let Some(envelope) = packet.envelope else { return };
            // What was parsed can be written again, and is read the same.
            let mut again = vec![0; dplay::MESSAGE_LEN_MAX];
            if let Some(len) = (Sender { envelope, dialect: message.dialect }).system(&mut again, &message.body) {
                let written = Packet::parse(&again[..len]).expect("what is written has an envelope");
                let Content::System(read_again) = written.content else { panic!("{:?}", written.content) };
                assert_eq!(format!("{:?}", read_again.body), format!("{:?}", message.body));
            }
        }
        Content::User(bytes) => read(&UserMessage::parse(bytes)),
        Content::Malformed(header) => read(&header),
    }
}

fn read_body(body: &dplay::Body<'_>) {
    read(body);
    let player = |player: dplay::Player<'_>| read(&(player, SpAddresses::parse(player.sp_data)));
    match body {
        dplay::Body::SuperEnumPlayersReply(reply) | dplay::Body::EnumPlayersReply(reply) => {
            reply.players.iter().chain(reply.groups.iter()).chain(reply.shortcuts.iter()).for_each(player);
        }
        dplay::Body::CreatePlayer(it) | dplay::Body::AddForward(it) => player(it.player),
        dplay::Body::AddForwardRequest(it) => player(it.player),
        _ => {}
    }
}

/// A TCP stream of DirectPlay: the first two bytes say where it is cut into segments.
pub fn stream(bytes: &[u8]) {
    let Some(([a, b], stream)) = bytes.split_first_chunk() else { return };
    let run = |step: usize| {
        let (mut messages, mut reassembler) = (Vec::new(), Reassembler::<1024>::new());
        for segment in stream.chunks(step) {
            reassembler.push(segment, |message| messages.push(message.to_vec()));
        }
        (messages, reassembler.garbage(), reassembler.oversized())
    };
    let whole = run(stream.len().max(1));
    for message in &whole.0 {
        assert!(message.len() <= 1024);
        let packet = Packet::parse(message).expect("the reassembler hands out sound envelopes");
        dplay_packet(&packet);
    }
    for step in [*a, *b] {
        assert_eq!(run(usize::from(step) + 1), whole, "in segments of {}", usize::from(step) + 1);
    }
}

/// Frames behind their lengths: the same ones, in however many parts the stream comes.
pub fn framed(bytes: &[u8]) {
    let Some(([step], stream)) = bytes.split_first_chunk() else { return };
    for prefix in [Prefix::Qemu, Prefix::Vde] {
        let run = |step: usize| {
            let (mut held, mut frames): (Vec<u8>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
            for part in stream.chunks(step) {
                held.extend_from_slice(part);
                loop {
                    let used = match prefix.next(&held) {
                        Next::Frame(frame, used) => {
                            inside(&held, frame);
                            assert!(frame.len() <= LEN_MAX && used == prefix.len() + frame.len());
                            let mut again = vec![0; used];
                            assert_eq!(prefix.write(frame, &mut again), Some(used));
                            assert_eq!(again, held[..used]);
                            frames.push(frame.to_vec());
                            used
                        }
                        Next::Part => break,
                        Next::Lost(len) => return (frames, Some(len)),
                    };
                    held.drain(..used);
                }
            }
            (frames, None)
        };
        assert_eq!(run(usize::from(*step) + 1), run(stream.len().max(1)));
    }
}

/// IPX and what Novell's services say in it, bare or in one of the two tunnels.
pub fn novell(bytes: &[u8]) {
    if let Some(packet) = ipx::Packet::parse(bytes) {
        inside(bytes, packet.payload);
        let mut again = vec![0; bytes.len()];
        let len = packet.write(&mut again).expect("it fits where it was");
        assert_eq!(again[..len], bytes[..len]);
        read(&packet);
        read(&ipx::nbipx::Message::parse(&packet));
        if let Some(ipx::nbipx::Message::Name { passed, .. }) = ipx::nbipx::Message::parse(&packet) {
            assert!(passed.networks().count() <= 8);
        }
        if let Some(ipx::sap::Message::Response { entries, .. }) = ipx::sap::Message::parse(packet.payload) {
            entries.servers().for_each(|it| read(&it));
        }
        if let Some(message) = ipx::rip::Message::parse(packet.payload) {
            assert_eq!(message.entries().count() * ipx::rip::ENTRY_LEN + 2, packet.payload.len());
        }
        dplay(packet.payload);
    }
    if let Some(message) = ipxnet::Message::parse(bytes) {
        let mut again = vec![0; bytes.len().max(ipxnet::MESSAGE_LEN)];
        let len = message.write(&mut again).expect("it fits where it was");
        assert_eq!(ipxnet::Message::parse(&again[..len]), Some(message));
    }
    if let Some(packet) = ipxwrapper::Packet::parse(bytes) {
        inside(bytes, packet.payload);
        read(&packet.kind());
    }
}

/// Reads all of a value, as a log or a test would.
fn read(value: &impl std::fmt::Debug) {
    struct Nowhere;
    impl std::fmt::Write for Nowhere {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            std::hint::black_box(text);
            Ok(())
        }
    }
    write!(Nowhere, "{value:?}").expect("nothing here is an error");
}

/// That `part` is a part of `whole`.
fn inside(whole: &[u8], part: &[u8]) {
    let (whole, part) = (whole.as_ptr_range(), part.as_ptr_range());
    assert!(whole.start <= part.start && part.end <= whole.end);
}
