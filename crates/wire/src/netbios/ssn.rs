//! NetBIOS session service, TCP 139, big-endian (RFC 1002 4.3): who opens a session to whom. What passes in sessions
//! (SMB) is only counted.
use super::name::{Name, read};
use crate::bytes::Reader;

pub const PORT: u16 = 139;

/// A packet of the session service, at the front of a TCP payload. Several may stand behind each other, and one may go
/// on in later segments: of those only the header is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packet {
    /// 00, with the length of its data in bytes (17 bits).
    Message { len: u32 },
    /// 81.
    Request { called: Name, calling: Name },
    /// 82: may go on.
    PositiveResponse,
    /// 83: 80, 81 nobody listens under that name (for the caller), 82 no such name, 83 no resources.
    NegativeResponse { code: u8 },
    /// 84.
    Retarget,
    /// 85.
    KeepAlive,
}

impl Packet {
    /// `None` for other types and where header or names are not whole.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let ([kind, flags], len) = (reader.array()?, reader.be_u16()?);
        // Of the flags only the lowest, a 17th bit of the length, is defined.
        if flags > 1 {
            return None;
        }
        match kind {
            0x00 => Some(Self::Message { len: u32::from(flags) << 16 | u32::from(len) }),
            0x81 => {
                let body = reader.bytes(len.into())?;
                let mut names = Reader::new(body);
                Some(Self::Request { called: read(body, &mut names)?.name, calling: read(body, &mut names)?.name })
            }
            0x82 if len == 0 => Some(Self::PositiveResponse),
            0x83 if len == 1 => Some(Self::NegativeResponse { code: reader.u8()? }),
            0x84 if len == 6 => Some(Self::Retarget),
            0x85 if len == 0 => Some(Self::KeepAlive),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::Packet;
    use crate::netbios::Name;

    #[test]
    fn a_request_names_both_ends() {
        let [called, calling] = [Name::new(b"LOCOHOST", 0x20).unwrap(), Name::new(b"LOCOKID1", 0).unwrap()];
        let mut bytes = Vec::from([0x81, 0, 0, 68]);
        for name in [called, calling] {
            bytes.push(32);
            bytes.extend(name.encode());
            bytes.push(0);
        }
        assert_eq!(Packet::parse(&bytes), Some(Packet::Request { called, calling }));
        for len in 0..bytes.len() {
            assert_eq!(Packet::parse(&bytes[..len]), None, "{len}");
        }
        bytes[3] = 34;
        assert_eq!(Packet::parse(&bytes), None, "one name only");
    }

    #[test]
    fn the_other_packets_are_told() {
        assert_eq!(Packet::parse(&[0, 1, 0, 2, 9]), Some(Packet::Message { len: 0x1_0002 }));
        assert_eq!(Packet::parse(&[0x82, 0, 0, 0]), Some(Packet::PositiveResponse));
        assert_eq!(Packet::parse(&[0x83, 0, 0, 1, 0x82]), Some(Packet::NegativeResponse { code: 0x82 }));
        assert_eq!(Packet::parse(&[0x84, 0, 0, 6]), Some(Packet::Retarget));
        assert_eq!(Packet::parse(&[0x85, 0, 0, 0]), Some(Packet::KeepAlive));
        for wrong in [[0x86, 0, 0, 0], [0x82, 0, 0, 1], [0x83, 0, 0, 1], [0, 2, 0, 0]] {
            assert_eq!(Packet::parse(&wrong), None, "{wrong:x?}");
        }
    }
}
