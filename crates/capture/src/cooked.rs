//! A record as an Ethernet frame. Linux' cooked captures (`tcpdump -i any`) have lost a frame's head: it is made anew
//! from what their own header and the packet tell.
//!
//! | field | from |
//! |---|---|
//! | source | the header's address, when it has six octets; else [`UNKNOWN`] |
//! | destination | the packet, when it tells (IPX node, IP broadcast or multicast, ARP question); else the header's word: broadcast -> [`BROADCAST`]; else [`UNKNOWN`] |
//! | type or length | the header's protocol; 1 (`ETH_P_802_3`, raw IPX) and 4 (`ETH_P_802_2`, LLC) become a length |
//!
//! Sources: the pages `LINKTYPE_LINUX_SLL` and `LINKTYPE_LINUX_SLL2` of tcpdump.org; `linux/if_ether.h`, `linux/if_packet.h`.
use std::borrow::Cow;

use crate::{
    bytes::{Cursor, Order},
    read::{LinkType, Record},
};

/// Address of a card that the capture does not tell.
pub const UNKNOWN: [u8; 6] = [0; 6];
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// Octets of an Ethernet head: destination, source, type or length.
const HEAD_LEN: usize = 14;
/// Largest payload of Ethernet, which is also the largest number that is a length and not a type.
const LENGTH_MAX: u32 = 1500;

const ETH_P_802_3: u16 = 1;
const ETH_P_802_2: u16 = 4;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPX: u16 = 0x8137;
/// The smallest number that is a type.
const ETH_P_802_3_MIN: u16 = 0x0600;

/// `sll_pkttype`
const PACKET_BROADCAST: u16 = 1;

/// A record as the observer takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EthernetView<'a> {
    /// From the destination address on, without the check sequence.
    pub bytes: Cow<'a, [u8]>,
    /// Octets that the frame had on the wire, with the head that was made for a cooked one.
    pub wire_len: u32,
}

impl Record {
    /// `None`: another link type, a cooked header that is cut, or a cooked packet of something that Ethernet does not carry.
    pub fn ethernet(&self) -> Option<EthernetView<'_>> {
        let cooked = match self.link_type {
            LinkType::ETHERNET => {
                return Some(EthernetView { bytes: Cow::Borrowed(&self.bytes), wire_len: self.wire_len });
            }
            LinkType::LINUX_SLL => Cooked::v1(&self.bytes),
            LinkType::LINUX_SLL2 => Cooked::v2(&self.bytes),
            _ => None,
        }?;
        let header_len = u32::try_from(self.bytes.len() - cooked.payload.len()).ok()?;
        let payload_wire_len = self.wire_len.saturating_sub(header_len);
        let kind = match cooked.protocol {
            ETH_P_802_3_MIN.. => cooked.protocol,
            // The frame's own length is lost; its padding, if it had any, is counted.
            ETH_P_802_3 | ETH_P_802_2 => u16::try_from(payload_wire_len.min(LENGTH_MAX)).ok()?,
            _ => return None,
        };
        let mut bytes = Vec::with_capacity(HEAD_LEN + cooked.payload.len());
        bytes.extend(cooked.destination());
        bytes.extend(cooked.source);
        bytes.extend(kind.to_be_bytes());
        bytes.extend(cooked.payload);
        Some(EthernetView { bytes: Cow::Owned(bytes), wire_len: payload_wire_len.saturating_add(14) })
    }
}

struct Cooked<'a> {
    packet_type: u16,
    source: [u8; 6],
    protocol: u16,
    payload: &'a [u8],
}

impl<'a> Cooked<'a> {
    fn v1(bytes: &'a [u8]) -> Option<Self> {
        let mut header = Cursor::new(bytes, Order::Big);
        let packet_type = header.u16()?;
        let _hardware_type = header.u16()?;
        let address_len = header.u16()?;
        let address = header.array()?;
        let protocol = header.u16()?;
        Some(Self { packet_type, source: source(address, address_len), protocol, payload: header.rest })
    }

    fn v2(bytes: &'a [u8]) -> Option<Self> {
        let mut header = Cursor::new(bytes, Order::Big);
        let protocol = header.u16()?;
        let _reserved = header.u16()?;
        let _interface = header.u32()?;
        let _hardware_type = header.u16()?;
        let [packet_type, address_len] = header.array()?;
        let address = header.array()?;
        let source = source(address, address_len.into());
        Some(Self { packet_type: packet_type.into(), source, protocol, payload: header.rest })
    }

    /// Best guess: the packet's own word first, for a frame that this host sent is marked as that and no more.
    fn destination(&self) -> [u8; 6] {
        let told = match self.protocol {
            ETH_P_IP => self.octets::<4>(16).and_then(|address| match address {
                [255, 255, 255, 255] => Some(BROADCAST),
                [224..=239, b, c, d] => Some([0x01, 0x00, 0x5e, b & 0x7f, c, d]),
                _ => None,
            }),
            // A question (1) goes to all, an answer to its target.
            ETH_P_ARP => match self.octets::<2>(6) {
                Some([0, 1]) => Some(BROADCAST),
                Some([0, 2]) => self.octets(18),
                _ => None,
            },
            ETH_P_IPX | ETH_P_802_3 => self.octets(10),
            ETH_P_802_2 => match self.octets::<3>(0) {
                Some([0xe0, 0xe0, 0x03]) => self.octets(13),
                // SNAP: three octets of organisation and two of type lie between.
                Some([0xaa, 0xaa, 0x03]) if self.octets(6) == Some([0x81, 0x37]) => self.octets(18),
                _ => None,
            },
            _ => None,
        };
        told.unwrap_or(if self.packet_type == PACKET_BROADCAST { BROADCAST } else { UNKNOWN })
    }

    fn octets<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.payload.get(at..)?.first_chunk().copied()
    }
}

fn source(address: [u8; 8], len: u16) -> [u8; 6] {
    let [a, b, c, d, e, f, ..] = address;
    if len == 6 { [a, b, c, d, e, f] } else { UNKNOWN }
}
