//! ARP for IPv4 over Ethernet, 28 bytes, big-endian (RFC 826; probes and announcements: RFC 5227).
use core::net::Ipv4Addr;

use crate::{MacAddr, bytes::Reader};

/// Length of a packet in bytes; Ethernet pads behind it.
pub const LEN: usize = 28;

pub const REQUEST: u16 = 1;
pub const REPLY: u16 = 2;

/// An ARP packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Packet {
    /// [`REQUEST`], [`REPLY`], or another (RARP, `InARP`), which is not rejected.
    pub operation: u16,
    pub sender_mac: MacAddr,
    pub sender_ip: Ipv4Addr,
    /// Zero in a request, as a rule.
    pub target_mac: MacAddr,
    pub target_ip: Ipv4Addr,
}

impl Packet {
    /// `None` for other hardware than Ethernet (1) and IEEE 802 (6, as some stacks say in SNAP), for other protocols
    /// than IPv4, and where `bytes` are too few.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let ([0, 1 | 6], [8, 0, 6, 4]) = (reader.array()?, reader.array()?) else { return None };
        Some(Self {
            operation: reader.be_u16()?,
            sender_mac: reader.mac()?,
            sender_ip: reader.ipv4()?,
            target_mac: reader.mac()?,
            target_ip: reader.ipv4()?,
        })
    }

    pub const fn is_request(&self) -> bool {
        self.operation == REQUEST
    }

    pub const fn is_reply(&self) -> bool {
        self.operation == REPLY
    }

    /// "Is this address taken?": it has no sender address yet, so nothing may be learnt from it (RFC 5227 1.1).
    pub const fn is_probe(&self) -> bool {
        self.is_request() && self.sender_ip.is_unspecified()
    }

    /// "This address is mine": asks for, or answers about, its own address.
    pub fn is_announcement(&self) -> bool {
        self.sender_ip == self.target_ip && !self.sender_ip.is_unspecified()
    }

    /// Writes it and answers its length; `None` where `buffer` is too small.
    pub fn write(&self, buffer: &mut [u8]) -> Option<usize> {
        let place = buffer.first_chunk_mut::<LEN>()?;
        let fields = [0, 1, 8, 0, 6, 4]
            .into_iter()
            .chain(self.operation.to_be_bytes())
            .chain(self.sender_mac.0)
            .chain(self.sender_ip.octets())
            .chain(self.target_mac.0)
            .chain(self.target_ip.octets());
        for (place, byte) in place.iter_mut().zip(fields) {
            *place = byte;
        }
        Some(LEN)
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::{LEN, Packet, REPLY, REQUEST};
    use crate::MacAddr;

    const ASK: Packet = Packet {
        operation: REQUEST,
        sender_mac: MacAddr([2, 0x4c, 0, 0, 0, 1]),
        sender_ip: Ipv4Addr::new(10, 98, 0, 1),
        target_mac: MacAddr::ZERO,
        target_ip: Ipv4Addr::new(10, 98, 0, 2),
    };

    #[test]
    fn is_read_as_written_and_never_in_part() {
        let mut bytes = [0xee; 60];
        assert_eq!(ASK.write(&mut bytes), Some(LEN));
        assert_eq!(Packet::parse(&bytes), Some(ASK));
        for len in 0..LEN {
            assert_eq!(Packet::parse(&bytes[..len]), None, "{len}");
            assert_eq!(ASK.write(&mut [0; LEN][..len]), None, "{len}");
        }
        // The lengths and kinds are checked, each of them.
        for at in 0..6 {
            let mut bytes = bytes;
            bytes[at] ^= 0x10;
            assert_eq!(Packet::parse(&bytes), None, "{at}");
        }
        bytes[1] = 6;
        assert_eq!(Packet::parse(&bytes), Some(ASK), "IEEE 802");
    }

    #[test]
    fn probes_and_announcements_are_told_apart() {
        let probe = Packet { sender_ip: Ipv4Addr::UNSPECIFIED, ..ASK };
        let announcement = Packet { target_ip: ASK.sender_ip, ..ASK };
        let answer = Packet { operation: REPLY, ..ASK };
        let kinds = |packet: Packet| (packet.is_probe(), packet.is_announcement(), packet.is_reply());
        assert_eq!(kinds(ASK), (false, false, false));
        assert_eq!(kinds(probe), (true, false, false));
        assert_eq!(kinds(announcement), (false, true, false));
        assert_eq!(kinds(answer), (false, false, true));
        assert!(!Packet { target_ip: Ipv4Addr::UNSPECIFIED, ..probe }.is_announcement());
    }
}
