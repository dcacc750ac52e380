//! Ethernet frames as plain bytes, numbered so that a receiver can tell a lost one from a doubled one.
//!
//! The number sits behind a marker somewhere in the payload, so it is found in every framing.

/// Precedes the number in each frame's payload.
const MARKER: [u8; 8] = *b"LOCOTEST";
/// Marker, kind, sender, sequence number.
const MARK_LEN: usize = MARKER.len() + 1 + 1 + 4;

/// The four ways to put IPX on Ethernet, which do not understand each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpxFraming {
    /// Ethernet type 8137.
    EthernetII,
    /// 802.3 with nothing between the length and the IPX checksum FFFF (Novell's "raw").
    Raw8023,
    /// 802.3 with LLC, SAP E0.
    Llc8022,
    /// 802.3 with LLC and SNAP, type 8137.
    Snap,
}

impl IpxFraming {
    pub const ALL: [Self; 4] = [Self::EthernetII, Self::Raw8023, Self::Llc8022, Self::Snap];
}

/// Which frame this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Numbered {
    /// What the test calls this kind of frame.
    pub kind: u8,
    pub sender: u8,
    pub sequence: u32,
}

impl Numbered {
    /// The octets that carry the number, for frames that a test builds itself.
    pub fn mark(self) -> Vec<u8> {
        let mut mark = MARKER.to_vec();
        mark.extend([self.kind, self.sender]);
        mark.extend(self.sequence.to_be_bytes());
        mark
    }

    /// The number in a frame; `None` for frames of others (ARP questions, for one).
    pub fn find(frame: &[u8]) -> Option<Self> {
        let at = frame.windows(MARKER.len()).position(|window| window == MARKER)?;
        let rest = frame.get(at + MARKER.len()..at + MARK_LEN)?;
        let sequence = u32::from_be_bytes(rest[2..6].try_into().ok()?);
        Some(Self { kind: rest[0], sender: rest[1], sequence })
    }
}

/// Builders; each gives a whole frame without its check sequence.
#[derive(Debug)]
pub struct Frame;

impl Frame {
    /// An Ethernet II frame of experimental type 88b5 (IEEE 802, for local use) with `payload_len` octets of payload.
    ///
    /// # Panics
    /// If the payload is shorter than the mark (14).
    pub fn ethernet(to: [u8; 6], from: [u8; 6], number: Numbered, payload_len: usize) -> Vec<u8> {
        assert!(payload_len >= MARK_LEN, "the payload must hold the number");
        let mut frame = header(to, from, 0x88b5);
        frame.extend(number.mark());
        frame.resize(14 + payload_len, 0x5a);
        frame
    }

    /// An IPX packet from and to socket 47624 (0xba08).
    pub fn ipx(framing: IpxFraming, to: [u8; 6], from: [u8; 6], number: Numbered) -> Vec<u8> {
        let packet = ipx_packet(to, from, &number.mark());
        let prefix: &[u8] = match framing {
            IpxFraming::EthernetII | IpxFraming::Raw8023 => &[],
            IpxFraming::Llc8022 => &[0xe0, 0xe0, 0x03],
            IpxFraming::Snap => &[0xaa, 0xaa, 0x03, 0, 0, 0, 0x81, 0x37],
        };
        let length = u16::try_from(prefix.len() + packet.len()).expect("a short packet");
        let kind = if framing == IpxFraming::EthernetII { 0x8137 } else { length };
        let mut frame = header(to, from, kind);
        frame.extend(prefix);
        frame.extend(packet);
        frame.resize(frame.len().max(60), 0);
        frame
    }
}

fn header(to: [u8; 6], from: [u8; 6], kind: u16) -> Vec<u8> {
    [&to[..], &from[..], &kind.to_be_bytes()].concat()
}

/// IPX header of 30 octets: no checksum, length, hops, type, then network, node and socket of both ends.
fn ipx_packet(to: [u8; 6], from: [u8; 6], data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(30 + data.len()).expect("a short packet");
    let mut packet = vec![0xff, 0xff];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 4]);
    for node in [to, from] {
        packet.extend([0, 0, 0, 0]);
        packet.extend(node);
        packet.extend([0xba, 0x08]);
    }
    packet.extend(data);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: Numbered = Numbered { kind: 3, sender: 7, sequence: 0x0102_0304 };

    #[test]
    fn the_number_is_found_in_every_framing() {
        let (to, from) = ([0xff; 6], [2, 0, 0, 0, 0, 1]);
        for framing in IpxFraming::ALL {
            let frame = Frame::ipx(framing, to, from, NUMBER);
            assert_eq!((Numbered::find(&frame), frame.len()), (Some(NUMBER), 60.max(frame.len())));
        }
        let frame = Frame::ethernet(to, from, NUMBER, 1500);
        assert_eq!((Numbered::find(&frame), frame.len()), (Some(NUMBER), 1514));
        assert_eq!(Numbered::find(&frame[..20]), None);
    }

    #[test]
    fn the_framings_differ_where_receivers_look() {
        let kinds = IpxFraming::ALL.map(|framing| Frame::ipx(framing, [0xff; 6], [2; 6], NUMBER)[12..17].to_vec());
        assert_eq!(kinds[0][..2], [0x81, 0x37]);
        assert_eq!(kinds[1], [0, 44, 0xff, 0xff, 0]);
        assert_eq!(kinds[2], [0, 47, 0xe0, 0xe0, 3]);
        assert_eq!(kinds[3], [0, 52, 0xaa, 0xaa, 3]);
    }
}
