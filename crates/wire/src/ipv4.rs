//! IPv4 with options and fragments, big-endian (RFC 791).
//!
//! **Invariants.** The payload ends where the total length says: what stands behind it is the padding of Ethernet, or
//! not meant for the receiver. Where there is less, the packet was cut by whoever captured it ([`Packet::is_cut`]).
use core::net::Ipv4Addr;

use crate::bytes::Reader;

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// An IPv4 packet, or a fragment of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// Header with options and payload, in bytes, as the packet says.
    pub total_len: u16,
    /// The fragments of one packet have it in common, per source, destination and protocol.
    pub id: u16,
    pub dont_fragment: bool,
    /// More fragments follow.
    pub more_fragments: bool,
    /// Where in the whole packet's payload this one's belongs, in bytes: a multiple of 8.
    pub fragment_offset: u16,
    /// Time to live, in hops.
    pub ttl: u8,
    /// [`ICMP`], [`TCP`], [`UDP`], …
    pub protocol: u8,
    pub checksum: u16,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    /// Up to 40 bytes, not looked into.
    pub options: &'a [u8],
    pub payload: &'a [u8],
    header: &'a [u8],
}

impl<'a> Packet<'a> {
    /// `None` for another version, and where the header is shorter than 20 bytes, longer than the total length, or
    /// longer than `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let [version, _dscp] = reader.array()?;
        let header_len = usize::from(version & 0x0f) * 4;
        let total_len = reader.be_u16()?;
        if version >> 4 != 4 || header_len < HEADER_LEN || usize::from(total_len) < header_len {
            return None;
        }
        let (header, rest) = bytes.split_at_checked(header_len)?;
        let payload_len = usize::from(total_len) - header_len;
        let (id, fragment) = (reader.be_u16()?, reader.be_u16()?);
        Some(Self {
            total_len,
            id,
            dont_fragment: fragment & 0x4000 != 0,
            more_fragments: fragment & 0x2000 != 0,
            // 13 bits times 8 fit.
            fragment_offset: (fragment & 0x1fff) << 3,
            ttl: reader.u8()?,
            protocol: reader.u8()?,
            checksum: reader.be_u16()?,
            source: reader.ipv4()?,
            destination: reader.ipv4()?,
            options: header.get(HEADER_LEN..)?,
            payload: rest.get(..payload_len).unwrap_or(rest),
            header,
        })
    }

    /// Whether it is a part of a packet, the first one included.
    pub const fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }

    /// Whether its payload begins with the header of TCP, UDP or ICMP.
    pub const fn has_ports(&self) -> bool {
        self.fragment_offset == 0
    }

    /// Length of the payload in bytes, as the packet says.
    pub fn payload_len(&self) -> u16 {
        // The header is at most 60 bytes and not longer than the total: see `parse`.
        self.total_len.saturating_sub(u16::try_from(self.header.len()).unwrap_or(u16::MAX))
    }

    /// Whether fewer bytes were given than the packet has.
    pub fn is_cut(&self) -> bool {
        self.payload.len() < usize::from(self.payload_len())
    }

    /// Whether the header's check sum is right. A guest's own packets may come without (check sum offload).
    pub fn checksum_is_right(&self) -> bool {
        internet_checksum(self.header, 0) == 0
    }
}

/// What an IPv4 header is built from; see [`Header::write`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub id: u16,
    pub protocol: u8,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    /// In bytes; `None` for a packet that is not in fragments. A multiple of 8, with whether more follow.
    pub fragment: Option<(u16, bool)>,
}

impl Header {
    /// Writes it with `payload` behind, without options, TTL 64, and answers the packet's length; `None` where `buffer`
    /// or the total length is too small.
    pub fn write(&self, payload: &[u8], buffer: &mut [u8]) -> Option<usize> {
        let total = HEADER_LEN.checked_add(payload.len())?;
        let (header, body) = buffer.get_mut(..total)?.split_first_chunk_mut::<HEADER_LEN>()?;
        body.copy_from_slice(payload);
        let ([t0, t1], [i0, i1]) = (u16::try_from(total).ok()?.to_be_bytes(), self.id.to_be_bytes());
        let fragment = self.fragment.map_or(0, |(offset, more)| offset >> 3 | u16::from(more) << 13);
        let [f0, f1] = fragment.to_be_bytes();
        let fields = [0x45, 0, t0, t1, i0, i1, f0, f1, 64, self.protocol, 0, 0];
        for (place, byte) in
            header.iter_mut().zip(fields.into_iter().chain(self.source.octets()).chain(self.destination.octets()))
        {
            *place = byte;
        }
        let sum = internet_checksum(header, 0).to_be_bytes();
        header.get_mut(10..12)?.copy_from_slice(&sum);
        Some(total)
    }
}

/// The Internet check sum (RFC 1071) of `bytes`, after a `start` that was summed before (a pseudo header). Over bytes
/// that hold their own check sum it is 0 where that is right.
pub fn internet_checksum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks(2).map(|chunk| match *chunk {
        [high, low] => u16::from_be_bytes([high, low]),
        [high] => u16::from_be_bytes([high, 0]),
        _ => 0,
    });
    // Folding at each step keeps the sum below 2^17.
    let sum = words.fold(start, |sum, word| (sum & 0xffff) + (sum >> 16) + u32::from(word));
    let fold = |sum: u32| (sum & 0xffff) + (sum >> 16);
    // Two folds leave 16 bits.
    let [_, _, high, low] = fold(fold(sum)).to_be_bytes();
    !u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::{Header, Packet, UDP, internet_checksum};

    const HEADER: Header = Header {
        id: 0x1234,
        protocol: UDP,
        source: Ipv4Addr::new(10, 98, 0, 1),
        destination: Ipv4Addr::new(10, 98, 0, 255),
        fragment: None,
    };

    #[test]
    fn the_total_length_bounds_the_payload() {
        let mut bytes = [0xee; 64];
        let len = HEADER.write(b"payload", &mut bytes).unwrap();
        assert_eq!(len, 27);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.payload, b"payload");
        assert!(packet.checksum_is_right() && !packet.is_cut() && !packet.is_fragment() && packet.has_ports());
        assert_eq!((packet.id, packet.protocol, packet.ttl, packet.payload_len()), (0x1234, UDP, 64, 7));
        assert_eq!((packet.source, packet.destination), (HEADER.source, HEADER.destination));

        let cut = Packet::parse(&bytes[..23]).unwrap();
        assert_eq!((cut.payload, cut.is_cut()), (&b"pay"[..], true));
        for len in 0..20 {
            assert_eq!(Packet::parse(&bytes[..len]), None, "{len}");
        }
        let mut wrong = bytes;
        wrong[8] -= 1;
        assert!(!Packet::parse(&wrong).unwrap().checksum_is_right());
        wrong[3] = 19;
        assert_eq!(Packet::parse(&wrong), None, "total below the header");
        assert_eq!(HEADER.write(b"payload", &mut bytes[..26]), None);
    }

    #[test]
    fn options_and_fragments() {
        let mut bytes = [0; 40];
        HEADER.write(&[1; 20], &mut bytes).unwrap();
        bytes[0] = 0x47;
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.options, packet.payload), (&[1; 8][..], &[1; 12][..]));
        bytes[0] = 0x44;
        assert_eq!(Packet::parse(&bytes), None);
        bytes[0] = 0x4f;
        assert_eq!(Packet::parse(&bytes), None, "header beyond the total length");

        for (fragment, flags) in
            [((1480, true), (true, true)), ((65528, false), (false, true)), ((0, true), (true, true))]
        {
            let mut bytes = [0; 40];
            Header { fragment: Some(fragment), ..HEADER }.write(&[1; 8], &mut bytes).unwrap();
            let packet = Packet::parse(&bytes).unwrap();
            assert_eq!((packet.fragment_offset, (packet.more_fragments, packet.is_fragment())), (fragment.0, flags));
            assert_eq!(packet.has_ports(), fragment.0 == 0);
        }
    }

    #[test]
    fn the_sum_of_rfc_1071_section_3() {
        let example = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(internet_checksum(&example, 0), !0xddf2);
        assert_eq!(internet_checksum(&[0x12], 0), !0x1200);
        assert_eq!(internet_checksum(&std::vec![0xff; 65536], u32::MAX), 0);
    }
}
