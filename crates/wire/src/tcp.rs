//! TCP over IPv4, big-endian (RFC 9293): single segments; streams are put together by whoever keeps state.
use core::{fmt, net::Ipv4Addr};

use crate::{bytes::Reader, ipv4, udp};

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;

/// The control bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    pub const FIN: Self = Self(0x01);
    pub const SYN: Self = Self(0x02);
    pub const RST: Self = Self(0x04);
    pub const PSH: Self = Self(0x08);
    pub const ACK: Self = Self(0x10);
    pub const URG: Self = Self(0x20);
    pub const ECE: Self = Self(0x40);
    pub const CWR: Self = Self(0x80);

    /// Whether all of `flags` are set.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// The first segment of a connection.
    pub const fn is_syn(self) -> bool {
        self.contains(Self::SYN) && !self.contains(Self::ACK)
    }

    /// The answer to it.
    pub const fn is_syn_ack(self) -> bool {
        self.contains(Self(Self::SYN.0 | Self::ACK.0))
    }
}

impl core::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    /// As in `SYN|ACK`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let mut first = true;
        for (bit, name) in names.into_iter().enumerate() {
            if self.0 >> bit & 1 != 0 {
                f.write_str(if first { "" } else { "|" })?;
                f.write_str(name)?;
                first = false;
            }
        }
        if first { f.write_str("none") } else { Ok(()) }
    }
}

/// A segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'a> {
    pub source_port: u16,
    pub destination_port: u16,
    /// Of the first byte of the payload, or of SYN.
    pub sequence: u32,
    /// The next byte that the sender expects, where [`Flags::ACK`] is set.
    pub acknowledgement: u32,
    pub flags: Flags,
    /// As sent: not scaled.
    pub window: u16,
    pub checksum: u16,
    /// Up to 40 bytes; see [`Segment::options`].
    pub option_bytes: &'a [u8],
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// `bytes` is the payload of an IPv4 packet that [has ports](ipv4::Packet::has_ports). `None` where the header is
    /// shorter than 20 bytes or longer than `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (source_port, destination_port) = (reader.be_u16()?, reader.be_u16()?);
        let (sequence, acknowledgement) = (reader.be_u32()?, reader.be_u32()?);
        let [offset, flags] = reader.array()?;
        let (header, payload) = bytes.split_at_checked(usize::from(offset >> 4) * 4)?;
        let option_bytes = header.get(HEADER_LEN..)?;
        Some(Self {
            source_port,
            destination_port,
            sequence,
            acknowledgement,
            flags: Flags(flags),
            window: reader.be_u16()?,
            checksum: reader.be_u16()?,
            option_bytes,
            payload,
        })
    }

    /// The options before the end-of-list mark; ends at the first one whose length is wrong.
    pub const fn options(&self) -> Options<'a> {
        Options { rest: Reader::new(self.option_bytes) }
    }

    /// The largest segment that the sender takes, in bytes.
    pub fn mss(&self) -> Option<u16> {
        self.options().find_map(|option| match option {
            TcpOption { kind: 2, data: &[high, low] } => Some(u16::from_be_bytes([high, low])),
            _ => None,
        })
    }

    /// By how many bits the sender's windows are to be shifted to the left: at most 14 (RFC 7323 2.3).
    pub fn window_scale(&self) -> Option<u8> {
        self.options().find_map(|option| match option {
            TcpOption { kind: 3, data: &[shift] } => Some(shift.min(14)),
            _ => None,
        })
    }

    /// The sender's clock and the echo of the receiver's (RFC 7323 3.2).
    pub fn timestamps(&self) -> Option<(u32, u32)> {
        self.options().find_map(|option| match option {
            TcpOption { kind: 8, data: &[a, b, c, d, e, f, g, h] } => {
                Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])))
            }
            _ => None,
        })
    }

    /// The sequence number behind this segment: SYN and FIN count as one byte each.
    pub fn next_sequence(&self) -> u32 {
        let controls = u32::from(self.flags.contains(Flags::SYN)) + u32::from(self.flags.contains(Flags::FIN));
        let len = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        self.sequence.wrapping_add(len).wrapping_add(controls)
    }
}

/// An option with its data, without kind and length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpOption<'a> {
    pub kind: u8,
    pub data: &'a [u8],
}

/// See [`Segment::options`]. Padding is left out.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    rest: Reader<'a>,
}

impl<'a> Iterator for Options<'a> {
    type Item = TcpOption<'a>;

    fn next(&mut self) -> Option<TcpOption<'a>> {
        loop {
            match self.rest.u8()? {
                0 => self.rest = Reader::new(&[]),
                1 => {}
                kind => {
                    let len = usize::from(self.rest.u8()?).checked_sub(2);
                    let data = len.and_then(|len| self.rest.bytes(len));
                    if data.is_none() {
                        self.rest = Reader::new(&[]);
                    }
                    return data.map(|data| TcpOption { kind, data });
                }
            }
        }
    }
}

/// What a segment is built from; see [`Header::write`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub source: (Ipv4Addr, u16),
    pub destination: (Ipv4Addr, u16),
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: Flags,
}

impl Header {
    /// Writes it with `payload` behind, without options, window 8192, with its check sum, and answers the segment's
    /// length; `None` where `buffer` is too small.
    pub fn write(&self, payload: &[u8], buffer: &mut [u8]) -> Option<usize> {
        let len = HEADER_LEN.checked_add(payload.len())?;
        let length = u16::try_from(len).ok()?;
        let place = buffer.get_mut(..len)?;
        let (header, body) = place.split_first_chunk_mut::<HEADER_LEN>()?;
        body.copy_from_slice(payload);
        let fields = self.source.1.to_be_bytes().into_iter().chain(self.destination.1.to_be_bytes());
        let fields = fields.chain(self.sequence.to_be_bytes()).chain(self.acknowledgement.to_be_bytes());
        for (place, byte) in header.iter_mut().zip(fields.chain([0x50, self.flags.0, 0x20, 0, 0, 0, 0, 0])) {
            *place = byte;
        }
        let start = udp::pseudo_header(self.source.0, self.destination.0, ipv4::TCP, length);
        let sum = ipv4::internet_checksum(place, start).to_be_bytes();
        place.get_mut(16..18)?.copy_from_slice(&sum);
        Some(len)
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;
    use std::{format, vec::Vec};

    use super::{Flags, Header, Segment, TcpOption};

    const HEADER: Header = Header {
        source: (Ipv4Addr::new(10, 98, 0, 1), 1025),
        destination: (Ipv4Addr::new(10, 98, 0, 2), 2300),
        sequence: u32::MAX,
        acknowledgement: 7,
        flags: Flags(0x12),
    };

    #[test]
    fn is_read_as_written_and_never_in_part() {
        let mut bytes = [0; 64];
        assert_eq!(HEADER.write(b"hello", &mut bytes), Some(25));
        let segment = Segment::parse(&bytes[..25]).unwrap();
        assert_eq!((segment.source_port, segment.destination_port), (1025, 2300));
        assert_eq!((segment.sequence, segment.acknowledgement, segment.window), (u32::MAX, 7, 8192));
        assert_eq!((segment.payload, segment.flags), (&b"hello"[..], Flags::SYN | Flags::ACK));
        // FFFFFFFF, five bytes and SYN.
        assert_eq!(segment.next_sequence(), 5);
        for len in 0..20 {
            assert_eq!(Segment::parse(&bytes[..len]), None, "{len}");
        }
        bytes[12] = 0x40;
        assert_eq!(Segment::parse(&bytes), None, "header of 16 bytes");
        bytes[12] = 0x80;
        assert_eq!(Segment::parse(&bytes[..25]), None, "header longer than the segment");
        assert_eq!(HEADER.write(b"hello", &mut [0; 24]), None);
    }

    #[track_caller]
    fn options(bytes: &[u8]) -> Vec<TcpOption<'_>> {
        super::Options { rest: super::Reader::new(bytes) }.collect()
    }

    #[test]
    fn options_are_read_up_to_the_first_wrong_one() {
        let mut bytes = [0; 40];
        HEADER.write(&[2, 4, 5, 0xb4, 1, 3, 3, 15, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 0, 9], &mut bytes).unwrap();
        bytes[12] = 0xa0;
        let segment = Segment::parse(&bytes).unwrap();
        assert_eq!((segment.mss(), segment.window_scale(), segment.timestamps()), (Some(1460), Some(14), Some((1, 2))));
        assert_eq!(segment.options().map(|option| option.kind).collect::<Vec<_>>(), [2, 3, 8]);
        assert!(segment.payload.is_empty());

        assert_eq!(options(&[4, 2, 2, 0, 4, 2]), [TcpOption { kind: 4, data: &[] }]);
        assert_eq!(options(&[2, 1, 4, 2]), []);
        assert_eq!(options(&[2, 4, 5]), []);
        assert_eq!(options(&[2]), []);
        assert_eq!(options(&[1, 1, 0, 4, 2]), []);
    }

    #[test]
    fn flags_are_named() {
        assert_eq!(format!("{:?} {:?}", Flags(0x12), Flags(0)), "SYN|ACK none");
        assert!(Flags(0x02).is_syn() && !Flags(0x12).is_syn() && Flags(0x12).is_syn_ack() && !Flags(0x10).is_syn_ack());
    }
}
