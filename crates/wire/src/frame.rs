//! Which protocol an Ethernet frame carries, and in which framing (IEEE 802.3 clause 3.2; protocols.md 4).
//!
//! | framing | behind the two MACs |
//! |---|---|
//! | Ethernet II | type (0x0600 and above) |
//! | 802.3 raw (Novell) | length, FF FF (the IPX checksum) |
//! | 802.2 LLC | length, DSAP, SSAP, control |
//! | SNAP | length, AA AA 03, OUI 00 00 00, type |
use crate::{MacAddr, ipx};

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

pub const IP_TCP: u8 = 6;
pub const IP_UDP: u8 = 17;

const TYPE_IPV4: u16 = 0x0800;
const TYPE_ARP: u16 = 0x0806;
const TYPE_IPX: u16 = 0x8137;
const TYPE_IPV6: u16 = 0x86dd;
/// Above: a type. Up to 1500: a length.
const TYPE_MIN: u16 = 0x0600;
const LENGTH_MAX: u16 = 1500;

/// An Ethernet frame without its check sum, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    pub destination: MacAddr,
    pub source: MacAddr,
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
        let (class, payload) = match u16::from_be_bytes(*kind) {
            kind @ TYPE_MIN.. => by_type(kind, FrameFormat::EthernetII, rest),
            // The length leaves padding out; a frame that was cut short is taken as far as it goes.
            length @ ..=LENGTH_MAX => by_llc(rest.get(..length.into()).unwrap_or(rest)),
            _ => (Class::Malformed, rest),
        };
        Some(Self { destination: MacAddr(*destination), source: MacAddr(*source), class, payload })
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
        _ => Class::OtherType(kind),
    };
    (class, payload)
}

fn by_llc(llc: &[u8]) -> (Class, &[u8]) {
    match llc {
        // Not LLC at all: FF would be the global DSAP, which nothing uses as source, too.
        [0xff, 0xff, ..] => (Class::Ipx(FrameFormat::Raw8023), llc),
        [0xe0, 0xe0, 0x03, payload @ ..] => (Class::Ipx(FrameFormat::Llc), payload),
        [0xaa, 0xaa, 0x03, 0, 0, 0, a, b, payload @ ..] => {
            by_type(u16::from_be_bytes([*a, *b]), FrameFormat::Snap, payload)
        }
        [0xf0, 0xf0 | 0xf1, _, ..] => (Class::NetBeui, llc),
        [dsap, _, _, ..] => (Class::OtherLlc(*dsap), llc),
        _ => (Class::Malformed, llc),
    }
}
