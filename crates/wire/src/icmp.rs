//! ICMP, big-endian (RFC 792; next-hop MTU: RFC 1191): who answered, and who refused what.
use crate::{bytes::Reader, ipv4};

pub const ECHO_REPLY: u8 = 0;
pub const UNREACHABLE: u8 = 3;
pub const REDIRECT: u8 = 5;
pub const ECHO: u8 = 8;
pub const TIME_EXCEEDED: u8 = 11;
pub const PARAMETER_PROBLEM: u8 = 12;

/// Codes of [`UNREACHABLE`].
pub mod unreachable {
    pub const NET: u8 = 0;
    pub const HOST: u8 = 1;
    pub const PROTOCOL: u8 = 2;
    /// Nobody listens: the game ended, or never ran.
    pub const PORT: u8 = 3;
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// A firewall said so (RFC 1812 5.2.7.1).
    pub const PROHIBITED: u8 = 13;
}

/// An ICMP message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// [`ECHO`], [`UNREACHABLE`], …
    pub kind: u8,
    pub code: u8,
    pub checksum: u16,
    /// What the second word holds depends on the kind.
    pub word: [u8; 4],
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// `bytes` is the payload of an IPv4 packet that [has ports](ipv4::Packet::has_ports). `None` below 8 bytes.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let [kind, code] = reader.array()?;
        Some(Self { kind, code, checksum: reader.be_u16()?, word: reader.array()?, body: reader.rest() })
    }

    /// Identifier and sequence number of an echo or its reply.
    pub const fn echo(&self) -> Option<(u16, u16)> {
        let [a, b, c, d] = self.word;
        match self.kind {
            ECHO | ECHO_REPLY => Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))),
            _ => None,
        }
    }

    /// What the error is about.
    pub fn quoted(&self) -> Option<Quoted<'a>> {
        match self.kind {
            UNREACHABLE | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM => {
                Some(Quoted { packet: ipv4::Packet::parse(self.body)? })
            }
            _ => None,
        }
    }

    /// The largest packet that the next hop takes, in bytes. `None` from routers before RFC 1191.
    pub const fn next_hop_mtu(&self) -> Option<u16> {
        let [_, _, high, low] = self.word;
        match (self.kind, self.code, u16::from_be_bytes([high, low])) {
            (_, _, 0) => None,
            (UNREACHABLE, unreachable::FRAGMENTATION_NEEDED, mtu) => Some(mtu),
            _ => None,
        }
    }
}

/// The packet that caused an error: its header and at least 8 bytes of its payload, as a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted<'a> {
    /// [Cut](ipv4::Packet::is_cut), as a rule.
    pub packet: ipv4::Packet<'a>,
}

impl Quoted<'_> {
    /// Source and destination port, where the packet had some and they are quoted.
    pub fn ports(&self) -> Option<(u16, u16)> {
        if !self.packet.has_ports() || !matches!(self.packet.protocol, ipv4::TCP | ipv4::UDP) {
            return None;
        }
        let mut reader = Reader::new(self.packet.payload);
        Some((reader.be_u16()?, reader.be_u16()?))
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::{ECHO, Message, UNREACHABLE, unreachable};
    use crate::{ipv4, udp};

    #[test]
    fn an_error_quotes_what_it_is_about() {
        let ends = [(Ipv4Addr::new(10, 98, 0, 1), 1025), (Ipv4Addr::new(10, 98, 0, 2), 47624)];
        let (mut datagram, mut bytes) = ([0; 60], [0; 96]);
        let len = udp::write(ends[0], ends[1], &[9; 52], &mut datagram).unwrap();
        let header =
            ipv4::Header { id: 1, protocol: ipv4::UDP, source: ends[0].0, destination: ends[1].0, fragment: None };
        bytes[..2].copy_from_slice(&[UNREACHABLE, unreachable::PORT]);
        header.write(&datagram[..len], &mut bytes[8..]).unwrap();
        // Header and 8 bytes, as RFC 792 has it.
        let message = Message::parse(&bytes[..36]).unwrap();
        let quoted = message.quoted().unwrap();
        assert_eq!(quoted.ports(), Some((1025, 47624)));
        assert_eq!((quoted.packet.source, quoted.packet.destination), (ends[0].0, ends[1].0));
        assert!(quoted.packet.is_cut());
        assert_eq!((message.echo(), message.next_hop_mtu()), (None, None));

        // No header, no ports, not the first fragment, another protocol.
        assert_eq!(Message::parse(&bytes[..27]).unwrap().quoted(), None);
        assert_eq!(Message::parse(&bytes[..31]).unwrap().quoted().unwrap().ports(), None);
        bytes[15] = 1;
        assert_eq!(Message::parse(&bytes[..36]).unwrap().quoted().unwrap().ports(), None);
        (bytes[15], bytes[17]) = (0, 1);
        assert_eq!(Message::parse(&bytes[..36]).unwrap().quoted().unwrap().ports(), None);
        bytes[0] = ECHO;
        assert_eq!(Message::parse(&bytes[..36]).unwrap().quoted(), None);
    }

    #[test]
    fn words_are_read_by_kind() {
        let echo = Message::parse(&[ECHO, 0, 0, 0, 1, 2, 3, 4]).unwrap();
        assert_eq!((echo.echo(), echo.next_hop_mtu()), (Some((0x0102, 0x0304)), None));
        let too_big = Message::parse(&[UNREACHABLE, 4, 0, 0, 0, 0, 5, 0xdc]).unwrap();
        assert_eq!((too_big.echo(), too_big.next_hop_mtu()), (None, Some(1500)));
        assert_eq!(Message::parse(&[UNREACHABLE, 4, 0, 0, 0, 0, 0, 0]).unwrap().next_hop_mtu(), None);
        assert_eq!(Message::parse(&[0; 7]), None);
    }
}
