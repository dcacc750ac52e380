//! The IPX header, 30 bytes, big-endian (protocols.md 4), and what Novell's own services say in it.
use core::fmt;

pub mod nbipx;
pub mod rip;
pub mod sap;

use crate::MacAddr;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 30;

/// Well-known sockets (protocols.md 4). 4000-7FFF are dynamic, 8000 and above assigned.
pub mod socket {
    /// Registration at, and pings of, an IPXNET server.
    pub const ECHO: u16 = 0x0002;
    pub const NCP: u16 = 0x0451;
    pub const SAP: u16 = 0x0452;
    pub const RIP: u16 = 0x0453;
    pub const NETBIOS: u16 = 0x0455;
    pub const DIAGNOSTICS: u16 = 0x0456;
    pub const SERIALISATION: u16 = 0x0457;
    /// Where `IPXWrapper`'s `DirectPlay` looks for sessions. Not sure that it is Microsoft's, too.
    pub const DPLAY_DISCOVERY: u16 = 0xa57f;
}

/// Values of [`Packet::packet_type`].
pub mod packet_type {
    pub const UNKNOWN: u8 = 0;
    pub const RIP: u8 = 1;
    /// Packet exchange protocol; SAP.
    pub const PEP: u8 = 4;
    pub const SPX: u8 = 5;
    pub const NCP: u8 = 17;
    /// Propagated by routers.
    pub const NETBIOS: u8 = 20;
}

/// Network, node and socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Address {
    /// 0 = this network.
    pub network: u32,
    /// FF×6 = all.
    pub node: MacAddr,
    pub socket: u16,
}

impl fmt::Display for Address {
    /// As tshark: `00000001.0200000000aa.4000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.node.0;
        write!(f, "{:08x}.{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{g:02x}.{:04x}", self.network, self.socket)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An IPX packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// FFFF: none. Trap: ipxbox writes 0000 towards Ethernet.
    pub checksum: u16,
    pub hops: u8,
    /// 0 unknown, 1 RIP, 4 PEP/SAP, 5 SPX, 17 NCP, 20 NetBIOS. Trap: not initialised in DOSBox registrations.
    pub packet_type: u8,
    pub destination: Address,
    pub source: Address,
    /// As long as the length field says; padding behind it is left out.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// `None` where the length field is below 30 or beyond `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        let [c0, c1, l0, l1, hops, packet_type, addresses @ ..] = *header;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let (destination, source) = addresses.split_first_chunk::<12>()?;
        Some(Self {
            checksum: u16::from_be_bytes([c0, c1]),
            hops,
            packet_type,
            destination: Address::from_bytes(*destination),
            source: Address::from_bytes(*source.first_chunk()?),
            payload: bytes.get(HEADER_LEN..length)?,
        })
    }

    /// Writes it and answers its length; `None` where `buffer` or the length field is too small.
    pub fn write(&self, buffer: &mut [u8]) -> Option<usize> {
        let length = HEADER_LEN + self.payload.len();
        let (c, l) = (self.checksum.to_be_bytes(), u16::try_from(length).ok()?.to_be_bytes());
        let place = buffer.get_mut(..length)?;
        let (header, payload) = place.split_at_mut_checked(HEADER_LEN)?;
        let fields = [c[0], c[1], l[0], l[1], self.hops, self.packet_type]
            .into_iter()
            .chain(self.destination.to_bytes())
            .chain(self.source.to_bytes());
        for (place, byte) in header.iter_mut().zip(fields) {
            *place = byte;
        }
        payload.copy_from_slice(self.payload);
        Some(length)
    }
}

impl Address {
    pub(crate) const fn from_bytes([a, b, c, d, n0, n1, n2, n3, n4, n5, s0, s1]: [u8; 12]) -> Self {
        Self {
            network: u32::from_be_bytes([a, b, c, d]),
            node: MacAddr([n0, n1, n2, n3, n4, n5]),
            socket: u16::from_be_bytes([s0, s1]),
        }
    }

    pub(crate) const fn to_bytes(self) -> [u8; 12] {
        let ([a, b, c, d], [n0, n1, n2, n3, n4, n5], [s0, s1]) =
            (self.network.to_be_bytes(), self.node.0, self.socket.to_be_bytes());
        [a, b, c, d, n0, n1, n2, n3, n4, n5, s0, s1]
    }
}
