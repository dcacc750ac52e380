//! `IPXWrapper`'s own encapsulation on Windows: UDP 54792 with a header of 27 bytes, big-endian (protocols.md 4.3 a).
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | packet type |
//! | 1 | 12 | destination: network, node, socket |
//! | 13 | 12 | source: network, node, socket |
//! | 25 | 2 | size of the data |
//! | 27 | | data |
//!
//! Recognised only: the relay speaks to `IPXWrapper` by [`crate::ipxnet`].
use crate::ipx::Address;

/// Both ports (UDP), by broadcast and to learnt addresses.
pub const PORT: u16 = 54792;
/// Length of the header in bytes.
pub const HEADER_LEN: usize = 27;

/// What a packet is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// An IPX packet of a game.
    Ipx,
    /// "Where does this SPX socket listen?" (source socket 0, type 1)
    SpxLookup,
    /// Several packets in one (source socket 0, type 2).
    Several,
    /// Source socket 0 and another type: a later version's.
    OtherOwn,
}

/// A packet of `IPXWrapper`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    pub packet_type: u8,
    pub destination: Address,
    pub source: Address,
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// `None` where the header is cut or its size is not that of the data. The size of packets in one of [`Kind::Several`]
    /// is not looked at.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, payload) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let [packet_type, addresses @ .., s0, s1] = *header;
        let (destination, source) = addresses.split_first_chunk::<12>()?;
        if usize::from(u16::from_be_bytes([s0, s1])) != payload.len() {
            return None;
        }
        Some(Self {
            packet_type,
            destination: Address::from_bytes(*destination),
            source: Address::from_bytes(*source.first_chunk()?),
            payload,
        })
    }

    pub const fn kind(&self) -> Kind {
        match (self.source.socket, self.packet_type) {
            (0, 1) => Kind::SpxLookup,
            (0, 2) => Kind::Several,
            (0, _) => Kind::OtherOwn,
            _ => Kind::Ipx,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{HEADER_LEN, Kind, Packet};
    use crate::MacAddr;
    use crate::ipx::Address;

    fn bytes(packet_type: u8, socket: u16, size: u16) -> Vec<u8> {
        let (socket, size) = (socket.to_be_bytes(), size.to_be_bytes());
        [
            &[packet_type, 0, 0, 0, 1][..],
            &[0xff; 6],
            &socket[..],
            &[0, 0, 0, 1, 2, 0, 0, 0, 0, 9],
            &socket,
            &size,
            b"play",
        ]
        .concat()
    }

    #[test]
    fn a_packet_of_a_game_is_read() {
        let bytes = bytes(0, 0xa57f, 4);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.kind(), Kind::Ipx);
        assert_eq!(packet.destination, Address { network: 1, node: MacAddr::BROADCAST, socket: 0xa57f });
        assert_eq!(packet.source, Address { network: 1, node: MacAddr([2, 0, 0, 0, 0, 9]), socket: 0xa57f });
        assert_eq!(packet.payload, b"play");
    }

    #[test]
    fn the_size_must_be_right() {
        for size in [0, 3, 5, 0xffff] {
            assert_eq!(Packet::parse(&bytes(0, 0x4000, size)), None, "{size}");
        }
        assert_eq!(Packet::parse(&bytes(0, 0x4000, 4)[..HEADER_LEN - 1]), None);
    }

    #[test]
    fn its_own_packets_have_no_source_socket() {
        for (packet_type, socket, kind) in [
            (1, 0, Kind::SpxLookup),
            (2, 0, Kind::Several),
            (3, 0, Kind::OtherOwn),
            (1, 0x453, Kind::Ipx),
            (2, 0x4000, Kind::Ipx),
        ] {
            assert_eq!(Packet::parse(&bytes(packet_type, socket, 4)).unwrap().kind(), kind);
        }
    }
}
