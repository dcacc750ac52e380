//! Where the payload of a frame is, as far as masking and comments need it: IPv4 with TCP, UDP or a later fragment, IPX,
//! or anything else from behind the Ethernet head on.
use std::ops::Range;

use wire::frame::{Class, Frame, IP_TCP, IP_UDP};

/// Which bytes belong together over several frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Flow {
    /// Addresses and ports of one direction of a connection; positions are sequence numbers.
    Tcp { addresses: [u8; 8], ports: [u8; 4] },
    /// Addresses, protocol and identification of a datagram in pieces; positions count from the datagram's first byte.
    Fragments { addresses: [u8; 8], protocol: u8, id: [u8; 2] },
}

/// A payload within its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload {
    /// Where in the frame.
    pub(crate) range: Range<usize>,
    /// Of what it is a part, and its position in there. `None`: the frame is all there is.
    pub(crate) part_of: Option<(Flow, u32)>,
    /// Where the checksum over it is, and whether 0 there means that there is none.
    pub(crate) checksum: Option<(usize, bool)>,
    pub(crate) transport: Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
    Ipx,
    Other,
}

impl Payload {
    /// `None`: shorter than Ethernet's head.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let frame = Frame::parse(bytes)?;
        // The payload is a part of the frame, and the classes tell where it begins; its end is told by its length.
        let start = bytes.len() - tail_len(bytes, frame.payload)?;
        let whole = Self {
            range: start..start + frame.payload.len(),
            part_of: None,
            checksum: None,
            transport: Transport::Other,
        };
        Some(match frame.class {
            Class::Ipv4 { protocol } => ipv4(bytes, start, protocol).unwrap_or(whole),
            // Behind the IPX header, when there is one.
            Class::Ipx(_) if frame.payload.len() >= 30 => {
                Self { range: start + 30..whole.range.end, transport: Transport::Ipx, ..whole }
            }
            _ => whole,
        })
    }
}

/// Length of `bytes` from the beginning of `part` on, which is a slice of it.
fn tail_len(bytes: &[u8], part: &[u8]) -> Option<usize> {
    let offset = (part.as_ptr() as usize).checked_sub(bytes.as_ptr() as usize)?;
    bytes.len().checked_sub(offset)
}

/// RFC 791, RFC 768, RFC 9293. `at`: where the IPv4 header is. `None`: headers that do not fit.
fn ipv4(bytes: &[u8], at: usize, protocol: u8) -> Option<Payload> {
    let header = bytes.get(at..)?.first_chunk::<20>()?;
    let &[version, _, a, b, id0, id1, f0, f1, _, _, _, _, addresses @ ..] = header;
    let body = at + usize::from(version & 0x0f) * 4;
    // A length of 0 is what a card that segments by itself leaves; what is behind the packet is padding.
    let total = usize::from(u16::from_be_bytes([a, b]));
    let end = if total == 0 { bytes.len() } else { bytes.len().min(at + total) };
    let fragment = u16::from_be_bytes([f0, f1]);
    let (offset, more) = (u32::from(fragment & 0x1fff) * 8, fragment & 0x2000 != 0);
    if offset > 0 || more {
        let flow = Flow::Fragments { addresses, protocol, id: [id0, id1] };
        let checksum = (offset == 0 && protocol == IP_UDP).then_some((body + 6, true));
        let range = Some(body..end).filter(|range| range.start <= range.end)?;
        let transport = if protocol == IP_UDP { Transport::Udp } else { Transport::Other };
        return Some(Payload { range, part_of: Some((flow, offset)), checksum, transport });
    }
    let (header_len, part_of, checksum, transport) = match protocol {
        IP_TCP => {
            let tcp = bytes.get(body..end)?.first_chunk::<20>()?;
            let &[p0, p1, p2, p3, s0, s1, s2, s3, _, _, _, _, offset, ..] = tcp;
            let flow = Flow::Tcp { addresses, ports: [p0, p1, p2, p3] };
            let position = u32::from_be_bytes([s0, s1, s2, s3]);
            (usize::from(offset >> 4) * 4, Some((flow, position)), Some((body + 16, false)), Transport::Tcp)
        }
        IP_UDP => (8, None, Some((body + 6, true)), Transport::Udp),
        _ => (0, None, None, Transport::Other),
    };
    let range = Some(body + header_len..end).filter(|range| range.start <= range.end)?;
    Some(Payload { range, part_of, checksum, transport })
}
