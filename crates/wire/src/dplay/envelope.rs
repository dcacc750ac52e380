//! The 20 bytes in front of every message over TCP/IP, and the addresses of a player (protocols.md 1.2, 1.4;
//! MC-DPL4CS 2.2.6 and 2.2.3).
use core::net::{Ipv4Addr, SocketAddrV4};

use crate::bytes::{Reader, Writer};

/// Length of the envelope ("SP header") in bytes.
pub const ENVELOPE_LEN: usize = 20;
/// The largest size that its 20 bits can say: 1 MiB - 1.
pub const MESSAGE_LEN_MAX: usize = 0xf_ffff;

/// `AF_INET` as Winsock numbers it.
const FAMILY_INET: u16 = 2;

/// Who sent a message, by way of whom: bits 20-31 of the first word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Token {
    /// 0xFAB: a peer.
    #[default]
    Peer,
    /// 0xCAB: a peer, to be passed on by the helper process.
    ToHelper,
    /// 0xBAB: passed on by the helper process.
    FromHelper,
}

impl Token {
    const fn from_bits(bits: u32) -> Option<Self> {
        match bits {
            0xfab => Some(Self::Peer),
            0xcab => Some(Self::ToHelper),
            0xbab => Some(Self::FromHelper),
            _ => None,
        }
    }

    const fn bits(self) -> u32 {
        match self {
            Self::Peer => 0xfab,
            Self::ToHelper => 0xcab,
            Self::FromHelper => 0xbab,
        }
    }
}

/// The envelope without its size field, which is computed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Envelope {
    pub token: Token,
    /// The sender's TCP listener (in messages over UDP, too): where answers go. Address 0.0.0.0, the usual case, means
    /// "take it from the IP header".
    pub sender: SocketAddrV4,
}

impl Envelope {
    /// What a peer whose TCP listener is `port` puts in front of its messages.
    pub const fn from_port(port: u16) -> Self {
        Self { token: Token::Peer, sender: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port) }
    }

    /// The envelope at the start of `bytes`, and the size of the whole message with these 20 bytes.
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut reader = Reader::new(bytes);
        let (token, size) = first_word(reader.u32()?)?;
        if reader.u16()? != FAMILY_INET {
            return None;
        }
        let port = u16::from_be_bytes(reader.array()?);
        let ip = Ipv4Addr::from(reader.array::<4>()?);
        reader.bytes(8)?;
        Some((Self { token, sender: SocketAddrV4::new(ip, port) }, size))
    }

    /// Writes the envelope with size 0; the caller writes the message and then calls [`seal`].
    pub(crate) fn write(self, to: &mut Writer<'_>) {
        to.u32(0);
        write_sockaddr(to, self.sender);
    }
}

/// Token and size of the first word, where both are possible.
fn first_word(word: u32) -> Option<(Token, usize)> {
    let size = usize::try_from(word & 0xf_ffff).ok()?;
    Some((Token::from_bits(word >> 20)?, size)).filter(|_| size >= ENVELOPE_LEN)
}

/// The first word for a finished message of `size` bytes; `None` when that is too large for one message.
pub(crate) fn seal(token: Token, size: usize) -> Option<[u8; 4]> {
    let size = u32::try_from(size).ok().filter(|size| *size <= 0xf_ffff)?;
    Some((token.bits() << 20 | size).to_le_bytes())
}

/// Can a message begin with `bytes`? `Some(size)` with six bytes or more that say so, `None` with fewer that may.
pub(crate) fn begins(bytes: &[u8]) -> Result<Option<usize>, NotAnEnvelope> {
    if let Some(prefix) = bytes.first_chunk::<6>() {
        let [a, b, c, d, family @ ..] = *prefix;
        let (_, size) = first_word(u32::from_le_bytes([a, b, c, d])).ok_or(NotAnEnvelope)?;
        return if u16::from_le_bytes(family) == FAMILY_INET { Ok(Some(size)) } else { Err(NotAnEnvelope) };
    }
    match *bytes {
        // The upper nibble of byte 2 and byte 3 are the token: wrong ones cannot be healed by what follows.
        [_, _, c, ..] if c >> 4 != 0xb => Err(NotAnEnvelope),
        [a, b, c, d, ..] if first_word(u32::from_le_bytes([a, b, c, d])).is_none() => Err(NotAnEnvelope),
        [_, _, _, _, family] if family != 2 => Err(NotAnEnvelope),
        _ => Ok(None),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAnEnvelope;

/// The SP data of a player over TCP/IP: where its machine listens. 32 bytes, two `sockaddr_in`.
///
/// Address 0.0.0.0 is "the sender's"; the host fills it in when it passes the player on. Trap: behind NAT it fills in
/// what it saw.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SpAddresses {
    pub tcp: SocketAddrV4,
    pub udp: SocketAddrV4,
}

impl SpAddresses {
    pub const LEN: usize = 32;

    /// Both sockets at one address.
    pub const fn new(ip: Ipv4Addr, tcp_port: u16, udp_port: u16) -> Self {
        Self { tcp: SocketAddrV4::new(ip, tcp_port), udp: SocketAddrV4::new(ip, udp_port) }
    }

    /// `None` where `bytes` are not two IPv4 addresses (IPX has 14 bytes). The padding is ignored.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(Self { tcp: read_sockaddr(&mut reader)?, udp: read_sockaddr(&mut reader)? })
    }

    /// As [`super::Player::sp_data`] wants it.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let mut writer = Writer::new(&mut bytes);
        write_sockaddr(&mut writer, self.tcp);
        write_sockaddr(&mut writer, self.udp);
        bytes
    }

    /// With 0.0.0.0 replaced by the address that the record came from: what a host does before it passes it on.
    #[must_use]
    pub const fn resolved(self, sender: Ipv4Addr) -> Self {
        const fn fill(socket: SocketAddrV4, sender: Ipv4Addr) -> SocketAddrV4 {
            if socket.ip().is_unspecified() { SocketAddrV4::new(sender, socket.port()) } else { socket }
        }
        Self { tcp: fill(self.tcp, sender), udp: fill(self.udp, sender) }
    }
}

fn read_sockaddr(reader: &mut Reader<'_>) -> Option<SocketAddrV4> {
    if reader.u16()? != FAMILY_INET {
        return None;
    }
    let port = u16::from_be_bytes(reader.array()?);
    let ip = Ipv4Addr::from(reader.array::<4>()?);
    reader.bytes(8)?;
    Some(SocketAddrV4::new(ip, port))
}

fn write_sockaddr(to: &mut Writer<'_>, socket: SocketAddrV4) {
    to.u16(FAMILY_INET);
    to.bytes(&socket.port().to_be_bytes());
    to.bytes(&socket.ip().octets());
    to.bytes(&[0; 8]);
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::{Envelope, NotAnEnvelope, SpAddresses, begins};

    #[test]
    fn an_envelope_is_refused_at_the_first_byte_that_rules_it_out() {
        let good = [0x34, 0x00, 0xb0, 0xfa, 2, 0];
        for len in 0..6 {
            assert_eq!(begins(&good[..len]), Ok(None), "{len} bytes may still become one");
        }
        assert_eq!(begins(&good), Ok(Some(52)));
        for (bad, len) in [
            ([0x34, 0x00, 0xa0, 0, 0, 0], 3),
            ([0x34, 0x00, 0xb0, 0xfb, 0, 0], 4),
            ([0x13, 0x00, 0xb0, 0xfa, 0, 0], 4),
            ([0x34, 0x00, 0xb0, 0xfa, 3, 0], 5),
            ([0x34, 0x00, 0xb0, 0xfa, 2, 1], 6),
        ] {
            assert_eq!(begins(&bad[..len]), Err(NotAnEnvelope), "{bad:?}");
            assert_eq!(begins(&bad[..len - 1]), Ok(None), "{bad:?}");
        }
    }

    #[test]
    fn an_envelope_is_twenty_bytes() {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&[0x14, 0, 0xb0, 0xca, 2, 0, 0x08, 0xfc]);
        let (envelope, size) = Envelope::parse(&bytes).unwrap();
        assert_eq!((envelope.sender.port(), size), (2300, 20));
        assert_eq!(Envelope::parse(&bytes[..19]), None);
    }

    #[test]
    fn only_an_absent_address_is_filled_in() {
        let (seen, own) = (Ipv4Addr::new(10, 98, 0, 3), Ipv4Addr::new(192, 168, 0, 3));
        let ports = |ip| SpAddresses::new(ip, 2301, 2351);
        assert_eq!(ports(Ipv4Addr::UNSPECIFIED).resolved(seen), ports(seen));
        assert_eq!(ports(own).resolved(seen), ports(own));
        assert_eq!(SpAddresses::parse(&[0; 14]), None, "SP data over IPX");
    }
}
