//! The frames that a peer sends. Pure.
use std::net::Ipv4Addr;

use k8s_tests::peer::{Epoch, Kind};
use model::MacAddr;
use testkit::{Frame, IpxFraming, Numbered};
use wire::{arp, dplay, ipv4, tcp, udp};

/// Ethernet's shortest frame without its check sequence.
const FRAME_LEN_MIN: usize = 60;
/// What Ethernet carries at most behind the header.
const PAYLOAD_MAX: usize = 1500;
/// Where `DirectPlay` peers are asked for their sessions.
const QUERY_PORT: u16 = 47624;
/// A port of `DirectPlay`'s range, and one that nobody here answers at.
const UDP_PORT: u16 = 2350;
const TCP_PORT: u16 = 2300;

/// Who sends: a seat's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Card {
    pub(crate) seat: u8,
    pub(crate) mac: MacAddr,
    pub(crate) ip: Ipv4Addr,
}

impl Card {
    /// The card of another seat of the same LAN: both addresses end in the seat's number (docs: `Lan::identity`).
    pub(crate) fn neighbour(self, seat: u8) -> Self {
        let [a, b, c, d, e, _] = self.mac.0;
        let base = u32::from(self.ip) - u32::from(self.seat);
        Self { seat, mac: MacAddr([a, b, c, d, e, seat + 1]), ip: Ipv4Addr::from(base + u32::from(seat)) }
    }
}

/// The frame `sequence` of `kind`; `to` is who should have it, and matters for kinds with one addressee.
pub(crate) fn build(kind: Kind, from: Card, to: Card, epoch: Epoch, sequence: u32) -> Vec<u8> {
    let number = Numbered { kind: epoch.tag(kind), sender: from.seat, sequence };
    let all = MacAddr::BROADCAST.0;
    let ipx = |framing| Frame::ipx(framing, all, from.mac.0, number);
    match kind {
        Kind::Broadcast => Frame::ethernet(all, from.mac.0, number, FRAME_LEN_MIN - 14),
        Kind::Unicast => Frame::ethernet(to.mac.0, from.mac.0, number, FRAME_LEN_MIN - 14),
        Kind::Full => Frame::ethernet(to.mac.0, from.mac.0, number, PAYLOAD_MAX),
        Kind::Arp => announcement(from, &number.mark()),
        Kind::Udp => datagram(from, to, UDP_PORT, &number.mark()),
        Kind::Tcp => segment(from, to, sequence, &number.mark()),
        Kind::DirectPlay => query(from, &number.mark()),
        Kind::IpxEthernetII => ipx(IpxFraming::EthernetII),
        Kind::IpxRaw => ipx(IpxFraming::Raw8023),
        Kind::IpxLlc => ipx(IpxFraming::Llc8022),
        Kind::IpxSnap => ipx(IpxFraming::Snap),
    }
}

/// A word of the exchange, to all.
pub(crate) fn word(tag: u8, from: Card) -> Vec<u8> {
    let number = Numbered { kind: tag, sender: from.seat, sequence: 0 };
    Frame::ethernet(MacAddr::BROADCAST.0, from.mac.0, number, FRAME_LEN_MIN - 14)
}

/// The answer to an ARP question for `mine`, if this frame is one.
pub(crate) fn arp_answer(frame: &[u8], mine: Card) -> Option<Vec<u8>> {
    if frame.get(12..14)? != [8, 6] {
        return None;
    }
    let asked = arp::Packet::parse(&frame[14..])?;
    // An announcement asks about its sender's own address; of mine it would be an echo of my own.
    if !asked.is_request() || asked.target_ip != mine.ip || asked.sender_mac == mine.mac {
        return None;
    }
    let answer = arp::Packet {
        operation: arp::REPLY,
        sender_mac: mine.mac,
        sender_ip: mine.ip,
        target_mac: asked.sender_mac,
        target_ip: asked.sender_ip,
    };
    Some(arp_frame(asked.sender_mac, mine.mac, &answer, &[]))
}

fn announcement(from: Card, mark: &[u8]) -> Vec<u8> {
    let packet = arp::Packet {
        operation: arp::REQUEST,
        sender_mac: from.mac,
        sender_ip: from.ip,
        target_mac: MacAddr::ZERO,
        target_ip: from.ip,
    };
    arp_frame(MacAddr::BROADCAST, from.mac, &packet, mark)
}

fn arp_frame(to: MacAddr, from: MacAddr, packet: &arp::Packet, padding: &[u8]) -> Vec<u8> {
    let mut body = [0; arp::LEN];
    packet.write(&mut body).expect("the buffer has the packet's length");
    let mut frame = [&to.0[..], &from.0, &[8, 6], &body, padding].concat();
    frame.resize(frame.len().max(FRAME_LEN_MIN), 0);
    frame
}

fn query(from: Card, mark: &[u8]) -> Vec<u8> {
    let me = dplay::Sender::new(TCP_PORT, dplay::Dialect::DX6_1A);
    // The number is the game that it asks for: nobody plays it, so nobody answers, and no octet is out of place.
    let mut application = [0; 16];
    application[..mark.len()].copy_from_slice(mark);
    let asks =
        dplay::EnumSessions { application: dplay::Guid(application), flags: dplay::EnumFlags::ALL, password: None };
    let mut message = vec![0; PAYLOAD_MAX];
    let len = me.system(&mut message, &dplay::Body::EnumSessions(asks)).expect("a query has 52 octets");
    message.truncate(len);
    let everybody = Card { seat: from.seat, mac: MacAddr::BROADCAST, ip: Ipv4Addr::BROADCAST };
    datagram(from, everybody, QUERY_PORT, &message)
}

fn datagram(from: Card, to: Card, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0; udp::HEADER_LEN + payload.len()];
    udp::write((from.ip, UDP_PORT), (to.ip, port), payload, &mut body).expect("the buffer has the length");
    packet(from, to, ipv4::UDP, &body)
}

fn segment(from: Card, to: Card, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let header = tcp::Header {
        source: (from.ip, TCP_PORT + 1),
        destination: (to.ip, TCP_PORT),
        sequence,
        acknowledgement: 0,
        flags: tcp::Flags::PSH | tcp::Flags::ACK,
    };
    let mut body = vec![0; tcp::HEADER_LEN + payload.len()];
    header.write(payload, &mut body).expect("the buffer has the length");
    packet(from, to, ipv4::TCP, &body)
}

fn packet(from: Card, to: Card, protocol: u8, body: &[u8]) -> Vec<u8> {
    let header = ipv4::Header { id: 0, protocol, source: from.ip, destination: to.ip, fragment: None };
    let mut packet = vec![0; ipv4::HEADER_LEN + body.len()];
    header.write(body, &mut packet).expect("the buffer has the length");
    let mut frame = [&to.mac.0[..], &from.mac.0, &[8, 0], &packet].concat();
    frame.resize(frame.len().max(FRAME_LEN_MIN), 0);
    frame
}

#[cfg(test)]
mod tests {
    use wire::class::{TrafficClass, classify};

    use super::*;

    const FROM: Card = Card { seat: 3, mac: MacAddr([2, 0x4c, 0, 0x10, 0x68, 4]), ip: Ipv4Addr::new(10, 98, 1, 4) };

    #[test]
    fn a_neighbours_addresses_end_in_its_seat() {
        let lan = model::Lan::new(
            "probe".parse().unwrap(),
            model::Vni::new(0x10_68).unwrap(),
            model::NetworkMode::Vxlan,
            "10.98.1.0/24".parse().unwrap(),
            9,
        );
        let lan = lan.unwrap();
        let (mine, theirs) = (lan.identity(model::Seat(3)).unwrap(), lan.identity(model::Seat(7)).unwrap());
        let card = Card { seat: 3, mac: mine.mac, ip: mine.ip };
        assert_eq!(card.neighbour(7), Card { seat: 7, mac: theirs.mac, ip: theirs.ip });
        assert_eq!(card.neighbour(3), card);
    }

    #[test]
    fn every_kind_is_what_it_says_and_carries_its_number() {
        let epoch = Epoch::new(9);
        let classes = [
            TrafficClass::Other,
            TrafficClass::Other,
            TrafficClass::Other,
            TrafficClass::Arp,
            TrafficClass::DplayUdp,
            TrafficClass::DplayTcp,
            TrafficClass::DplayQuery,
            TrafficClass::IpxEthernetII,
            TrafficClass::IpxRaw8023,
            TrafficClass::IpxLlc,
            TrafficClass::IpxSnap,
        ];
        for (kind, class) in Kind::ALL.into_iter().zip(classes) {
            let frame = build(kind, FROM, FROM.neighbour(0), epoch, 77);
            assert_eq!(classify(&frame[..]), class, "{kind:?}");
            let number = Numbered::find(&frame).unwrap();
            assert_eq!((epoch.kind(number.kind), number.sender, number.sequence), (Some(kind), 3, 77), "{kind:?}");
            assert_eq!(frame[0] & 1 == 0, kind.is_unicast(), "{kind:?}");
            assert!((60..=1514).contains(&frame.len()));
        }
        assert_eq!(build(Kind::Full, FROM, FROM.neighbour(0), epoch, 0).len(), 1514);
    }

    #[test]
    fn a_query_is_one_to_an_observer() {
        let frame = build(Kind::DirectPlay, FROM, FROM, Epoch::new(0), 1);
        let packet = ipv4::Packet::parse(&frame[14..]).unwrap();
        let datagram = udp::Datagram::parse(packet.payload).unwrap();
        let dplay::Content::System(message) = dplay::Packet::from_datagram(datagram.payload).content else {
            panic!("not a system message")
        };
        assert!(matches!(message.body, dplay::Body::EnumSessions(asks) if asks.password.is_none()));
    }

    #[test]
    fn only_questions_for_its_address_are_answered() {
        let asker = FROM.neighbour(0);
        let ask = |target_ip, from: Card| {
            let packet = arp::Packet {
                operation: arp::REQUEST,
                sender_mac: from.mac,
                sender_ip: from.ip,
                target_mac: MacAddr::ZERO,
                target_ip,
            };
            arp_frame(MacAddr::BROADCAST, from.mac, &packet, &[])
        };
        let answer = arp_answer(&ask(FROM.ip, asker), FROM).unwrap();
        let said = arp::Packet::parse(&answer[14..]).unwrap();
        assert_eq!((said.sender_mac, said.sender_ip, answer[..6].to_vec()), (FROM.mac, FROM.ip, asker.mac.0.to_vec()));
        assert_eq!(arp_answer(&ask(asker.ip, asker), FROM), None);
        assert_eq!(arp_answer(&ask(FROM.ip, FROM), FROM), None);
        assert_eq!(arp_answer(&answer, asker), None);
        assert_eq!(arp_answer(&[0; 13], FROM), None);
    }
}
