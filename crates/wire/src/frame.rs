//! Which protocol an Ethernet frame carries, and in which framing (IEEE 802.3 clause 3.2; protocols.md 4).
//!
//! | framing | behind the two MACs |
//! |---|---|
//! | Ethernet II | type (0x0600 and above) |
//! | 802.3 raw (Novell) | length, FF FF (the IPX checksum) |
//! | 802.2 LLC | length, DSAP, SSAP, control |
//! | SNAP | length, AA AA 03, OUI 00 00 00, type |
//!
//! In front of each there may be one or two VLAN tags (IEEE 802.1Q, 802.1ad): they are taken off, so that what is inside
//! can be looked at. [`crate::class::classify`] counts such frames as `vlan`.
//!
//! Trap: ipxbox writes the IPX check sum 0000 where raw frames have FFFF (protocols.md 4.2), which a strict receiver
//! takes for LLC. It is told by its length, and [`ipx::Packet::checksum`] says that it was ipxbox's way.
use crate::{MacAddr, arp, ipv4, ipx};

/// How a frame says what it carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum FrameFormat {
    EthernetII,
    Raw8023,
    Llc,
    Snap,
}

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    Arp,
    /// IPv4 with its protocol number: see [`IP_TCP`], [`IP_UDP`].
    Ipv4 {
        protocol: u8,
    },
    Ipv6,
    Ipx(FrameFormat),
    /// NetBIOS frames over LLC (F0 F0).
    NetBeui,
    /// Another Ethernet type, in Ethernet II or SNAP.
    OtherType(u16),
    /// Another LLC service access point (the DSAP).
    OtherLlc(u8),
    /// Too short, or a length between 1501 and 0x05ff, which no framing has.
    Malformed,
}

pub use crate::ipv4::{TCP as IP_TCP, UDP as IP_UDP};

/// A VLAN tag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VlanTag {
    /// The network, 1-4094; 0: only a priority.
    pub id: u16,
    /// 0-7.
    pub priority: u8,
}

const TYPE_IPV4: u16 = 0x0800;
const TYPE_ARP: u16 = 0x0806;
const TYPE_IPX: u16 = 0x8137;
const TYPE_IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad, and what was used for the outer tag before it.
const TYPE_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// Above: a type. Up to 1500: a length.
const TYPE_MIN: u16 = 0x0600;
const LENGTH_MAX: u16 = 1500;

/// An Ethernet frame without its check sum, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    pub destination: MacAddr,
    pub source: MacAddr,
    /// The outer tag.
    pub vlan: Option<VlanTag>,
    /// The inner tag. A third one is [`Class::OtherType`].
    pub inner_vlan: Option<VlanTag>,
    pub class: Class,
    /// What the class names: the IPv4 or IPX packet, the LLC frame of [`Class::NetBeui`]. In 802.3 framings it ends
    /// where the length field says, in Ethernet II it may have padding behind it.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// `None` below 14 bytes.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (destination, rest) = bytes.split_first_chunk::<6>()?;
        let (source, rest) = rest.split_first_chunk::<6>()?;
        let (kind, rest) = rest.split_first_chunk::<2>()?;
        let (kind, rest, vlan) = untag(u16::from_be_bytes(*kind), rest);
        let (kind, rest, inner_vlan) = if vlan.is_some() { untag(kind, rest) } else { (kind, rest, None) };
        let (class, payload) = match kind {
            kind @ TYPE_MIN.. => by_type(kind, FrameFormat::EthernetII, rest),
            // The length leaves padding out; a frame that was cut short is taken as far as it goes.
            length @ ..=LENGTH_MAX => by_llc(length, rest.get(..length.into()).unwrap_or(rest)),
            _ => (Class::Malformed, rest),
        };
        let (destination, source) = (MacAddr(*destination), MacAddr(*source));
        Some(Self { destination, source, vlan, inner_vlan, class, payload })
    }

    /// The IPv4 packet, where it is a sound one.
    pub fn ipv4(&self) -> Option<ipv4::Packet<'a>> {
        matches!(self.class, Class::Ipv4 { .. }).then(|| ipv4::Packet::parse(self.payload)).flatten()
    }

    /// The ARP packet, where it is a sound one.
    pub fn arp(&self) -> Option<arp::Packet> {
        matches!(self.class, Class::Arp).then(|| arp::Packet::parse(self.payload)).flatten()
    }

    /// The IPX packet, where it is a sound one.
    pub fn ipx(&self) -> Option<ipx::Packet<'a>> {
        matches!(self.class, Class::Ipx(_)).then(|| ipx::Packet::parse(self.payload)).flatten()
    }
}

/// The class of a frame alone; see [`Frame::parse`].
pub fn classify(bytes: &[u8]) -> Class {
    Frame::parse(bytes).map_or(Class::Malformed, |frame| frame.class)
}

/// The type behind a tag, what follows it, and the tag, where `kind` says that there is one.
fn untag(kind: u16, rest: &[u8]) -> (u16, &[u8], Option<VlanTag>) {
    match rest {
        [a, b, c, d, inside @ ..] if TYPE_VLAN.contains(&kind) => {
            let tag = VlanTag { id: u16::from_be_bytes([a & 0x0f, *b]), priority: a >> 5 };
            (u16::from_be_bytes([*c, *d]), inside, Some(tag))
        }
        _ => (kind, rest, None),
    }
}

fn by_type(kind: u16, format: FrameFormat, payload: &[u8]) -> (Class, &[u8]) {
    let class = match (kind, payload) {
        (TYPE_ARP, _) => Class::Arp,
        (TYPE_IPX, _) => Class::Ipx(format),
        (TYPE_IPV6, _) => Class::Ipv6,
        // Version 4, a header of 20 bytes or more; protocol at offset 9.
        (TYPE_IPV4, &[0x45..=0x4f, _, _, _, _, _, _, _, _, protocol, ..]) if payload.len() >= 20 => {
            Class::Ipv4 { protocol }
        }
        (TYPE_IPV4, _) => Class::Malformed,
        // A tag that is not whole.
        (_, [] | [_] | [_, _] | [_, _, _]) if format == FrameFormat::EthernetII && TYPE_VLAN.contains(&kind) => {
            Class::Malformed
        }
        _ => Class::OtherType(kind),
    };
    (class, payload)
}

fn by_llc(length: u16, llc: &[u8]) -> (Class, &[u8]) {
    match llc {
        // Not LLC at all: FF would be the global DSAP, which nothing uses as source, too.
        [0xff, 0xff, ..] => (Class::Ipx(FrameFormat::Raw8023), llc),
        // ipxbox's: both lengths agree, but for the padding of an odd one.
        [0, 0, high, low, ..] if is_ipx_length(u16::from_be_bytes([*high, *low]), length) => {
            (Class::Ipx(FrameFormat::Raw8023), llc)
        }
        [0xe0, 0xe0, 0x03, payload @ ..] => (Class::Ipx(FrameFormat::Llc), payload),
        [0xaa, 0xaa, 0x03, 0, 0, 0, a, b, payload @ ..] => {
            by_type(u16::from_be_bytes([*a, *b]), FrameFormat::Snap, payload)
        }
        [0xf0, 0xf0 | 0xf1, _, ..] => (Class::NetBeui, llc),
        [dsap, _, _, ..] => (Class::OtherLlc(*dsap), llc),
        _ => (Class::Malformed, llc),
    }
}

/// Whether an IPX packet of `ipx` bytes fills an 802.3 frame of `frame` bytes.
fn is_ipx_length(ipx: u16, frame: u16) -> bool {
    usize::from(ipx) >= ipx::HEADER_LEN && (ipx == frame || ipx & 1 == 1 && frame.checked_sub(1) == Some(ipx))
}

#[cfg(test)]
mod tests {
    use super::{Class, Frame, FrameFormat, IP_UDP, VlanTag, classify};

    /// The class of a frame with `kind` (type or length) and `body` behind the MACs.
    #[track_caller]
    fn check(kind: u16, body: &[u8], want: Class) {
        let mut frame = [0_u8; 128];
        frame[12..14].copy_from_slice(&kind.to_be_bytes());
        frame[14..14 + body.len()].copy_from_slice(body);
        assert_eq!(classify(&frame[..14 + body.len()]), want);
    }

    #[test]
    fn types_and_lengths_are_told_apart() {
        let udp = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, IP_UDP, 0, 0, 10, 98, 0, 1, 10, 98, 0, 2];
        check(0x0800, &udp, Class::Ipv4 { protocol: IP_UDP });
        check(0x0800, &udp[..19], Class::Malformed);
        check(0x0800, &[0x60; 20], Class::Malformed);
        check(0x0806, &[], Class::Arp);
        check(0x86dd, &[], Class::Ipv6);
        check(0x8137, &[], Class::Ipx(FrameFormat::EthernetII));
        check(0x88cc, &[], Class::OtherType(0x88cc));
        check(1500, &[0xff, 0xff], Class::Ipx(FrameFormat::Raw8023));
        check(1501, &[0xff, 0xff], Class::Malformed);
        check(0x05ff, &[0xff, 0xff], Class::Malformed);
        check(0x0600, &[0xff, 0xff], Class::OtherType(0x0600));
    }

    #[test]
    fn llc_is_read_as_far_as_the_length_says() {
        check(33, &[0xe0, 0xe0, 0x03], Class::Ipx(FrameFormat::Llc));
        check(33, &[0xe0, 0xe0, 0x04], Class::OtherLlc(0xe0));
        check(38, &[0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0x37], Class::Ipx(FrameFormat::Snap));
        check(38, &[0xaa, 0xaa, 3, 0, 0, 0, 0x08, 0x06], Class::Arp);
        check(38, &[0xaa, 0xaa, 3, 0, 0, 0xc, 0x20, 0], Class::OtherLlc(0xaa));
        check(47, &[0xf0, 0xf0, 3, 0x2c], Class::NetBeui);
        check(3, &[0x42, 0x42, 3], Class::OtherLlc(0x42));
        check(2, &[0x42, 0x42, 3], Class::Malformed);
        check(0, &[0xff, 0xff], Class::Malformed);
    }

    #[test]
    fn padding_of_802_3_is_left_out() {
        let mut frame = [0_u8; 60];
        frame[12..17].copy_from_slice(&[0, 4, 0xe0, 0xe0, 3]);
        assert_eq!(Frame::parse(&frame).unwrap().payload, [0]);
        assert_eq!(Frame::parse(&frame[..13]), None);
    }

    #[test]
    fn one_and_two_tags_are_taken_off() {
        let mut frame = [0_u8; 64];
        frame[12..22].copy_from_slice(&[0x88, 0xa8, 0x60, 7, 0x81, 0, 0x0f, 0xff, 8, 6]);
        let two = Frame::parse(&frame).unwrap();
        let (outer, inner) = (VlanTag { id: 7, priority: 3 }, VlanTag { id: 0xfff, priority: 0 });
        assert_eq!((two.class, two.vlan, two.inner_vlan), (Class::Arp, Some(outer), Some(inner)));
        assert_eq!(two.payload.len(), 64 - 22);
        // A length behind a tag; a third tag; a tag that is not whole.
        frame[16..21].copy_from_slice(&[0, 33, 0xe0, 0xe0, 3]);
        let one = Frame::parse(&frame).unwrap();
        assert_eq!((one.class, one.vlan, one.inner_vlan), (Class::Ipx(FrameFormat::Llc), Some(outer), None));
        frame[16..22].copy_from_slice(&[0x81, 0, 0, 1, 0x81, 0]);
        assert_eq!(classify(&frame), Class::OtherType(0x8100));
        assert_eq!(classify(&frame[..17]), Class::Malformed);
    }

    #[test]
    fn ipxbox_is_told_by_its_length() {
        let ipx = |length: u16, claimed: u8| {
            let mut frame = [0_u8; 64];
            frame[12..14].copy_from_slice(&length.to_be_bytes());
            frame[17] = claimed;
            frame[18] = 127;
            Frame::parse(&frame).unwrap().ipx().map(|packet| packet.checksum)
        };
        assert_eq!((ipx(34, 34), ipx(34, 33)), (Some(0), Some(0)));
        assert_eq!((ipx(34, 32), ipx(33, 32), ipx(29, 29), ipx(0, 0)), (None, None, None, None));
    }
}
