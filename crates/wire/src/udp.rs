//! UDP over IPv4, big-endian (RFC 768).
//!
//! **Invariants.** The payload ends where the length says. In the first fragment of a packet, and in a packet that was
//! cut, there is less than that ([`Datagram::is_cut`]).
use core::net::Ipv4Addr;

use crate::{bytes::Reader, ipv4};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 8;

/// A datagram, or the first fragment of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram<'a> {
    pub source_port: u16,
    pub destination_port: u16,
    /// Header and payload, in bytes, as the datagram says.
    pub length: u16,
    /// 0: none.
    pub checksum: u16,
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// `bytes` is the payload of an IPv4 packet that [has ports](ipv4::Packet::has_ports). `None` where the length is
    /// below 8 or `bytes` are fewer.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (source_port, destination_port) = (reader.be_u16()?, reader.be_u16()?);
        let (length, checksum) = (reader.be_u16()?, reader.be_u16()?);
        let payload_len = usize::from(length).checked_sub(HEADER_LEN)?;
        let rest = reader.rest();
        let payload = rest.get(..payload_len).unwrap_or(rest);
        Some(Self { source_port, destination_port, length, checksum, payload })
    }

    /// Whether fewer bytes were given than the datagram has.
    pub fn is_cut(&self) -> bool {
        self.payload.len().saturating_add(HEADER_LEN) < usize::from(self.length)
    }
}

/// Writes a datagram with its check sum and answers its length; `None` where `buffer` or the length field is too small.
pub fn write(
    (source, source_port): (Ipv4Addr, u16),
    (destination, destination_port): (Ipv4Addr, u16),
    payload: &[u8],
    buffer: &mut [u8],
) -> Option<usize> {
    let len = HEADER_LEN.checked_add(payload.len())?;
    let length = u16::try_from(len).ok()?;
    let place = buffer.get_mut(..len)?;
    let (header, body) = place.split_first_chunk_mut::<HEADER_LEN>()?;
    body.copy_from_slice(payload);
    let ([s0, s1], [d0, d1], [l0, l1]) =
        (source_port.to_be_bytes(), destination_port.to_be_bytes(), length.to_be_bytes());
    *header = [s0, s1, d0, d1, l0, l1, 0, 0];
    let sum = match ipv4::internet_checksum(place, pseudo_header(source, destination, ipv4::UDP, length)) {
        // 0 would say "none".
        0 => u16::MAX,
        sum => sum,
    };
    place.get_mut(6..8)?.copy_from_slice(&sum.to_be_bytes());
    Some(len)
}

/// The sum over the pseudo header (RFC 768, RFC 9293 3.1).
pub(crate) fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u16) -> u32 {
    let halves = |address: Ipv4Addr| (address.to_bits() >> 16) + (address.to_bits() & 0xffff);
    halves(source) + halves(destination) + u32::from(protocol) + u32::from(length)
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::{Datagram, pseudo_header, write};
    use crate::ipv4::{UDP, internet_checksum};

    const ENDS: [(Ipv4Addr, u16); 2] = [(Ipv4Addr::new(10, 98, 0, 1), 2350), (Ipv4Addr::new(10, 98, 0, 2), 2351)];

    #[test]
    fn the_length_bounds_the_payload() {
        let mut bytes = [0xee; 32];
        assert_eq!(write(ENDS[0], ENDS[1], b"hello", &mut bytes), Some(13));
        let datagram = Datagram::parse(&bytes).unwrap();
        assert_eq!((datagram.source_port, datagram.destination_port, datagram.length), (2350, 2351, 13));
        assert_eq!((datagram.payload, datagram.is_cut()), (&b"hello"[..], false));
        assert_eq!(internet_checksum(&bytes[..13], pseudo_header(ENDS[0].0, ENDS[1].0, UDP, 13)), 0);

        let cut = Datagram::parse(&bytes[..10]).unwrap();
        assert_eq!((cut.payload, cut.is_cut()), (&b"he"[..], true));
        for len in 0..8 {
            assert_eq!(Datagram::parse(&bytes[..len]), None, "{len}");
        }
        bytes[5] = 7;
        assert_eq!(Datagram::parse(&bytes), None);
        assert_eq!(write(ENDS[0], ENDS[1], b"hello", &mut [0; 12]), None);
        assert_eq!(write(ENDS[0], ENDS[1], &std::vec![0; 65528], &mut std::vec![0; 70000]), None);
    }
}
