//! NetBIOS over IPX, socket 0455 (protocols.md 4; field order as Wireshark's packet-nbipx found it, there is no public
//! specification): machines claim, look for and answer to their names.
//!
//! Packets of type 20 begin with the networks that they passed. Others do only where they are 50 bytes long and the
//! name's operation stands behind the networks.
use crate::{
    bytes::Reader,
    ipx::{Packet, packet_type},
    netbios::Name,
};

/// What is done with a name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NameOperation {
    /// 1: who has this name?
    Find,
    /// 2: I have.
    Recognised,
    /// 3: does anybody mind if I take it? What a machine sends when it comes up.
    Check,
    /// 4: I do.
    InUse,
    /// 5: I give it up.
    Deregister,
}

impl NameOperation {
    const fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Find,
            2 => Self::Recognised,
            3 => Self::Check,
            4 => Self::InUse,
            5 => Self::Deregister,
            _ => return None,
        })
    }
}

/// A packet of NetBIOS over IPX.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    Name {
        operation: NameOperation,
        /// A group's name and not a machine's own.
        group: bool,
        name: Name,
        /// The networks that it passed, without unused places; none over the wire of one segment.
        passed: Networks<'a>,
    },
    /// 6-8: data or end of a session. Only counted.
    Session,
    /// 9, 10: query and answer of a node's status. Only counted.
    Status,
    /// 11: a datagram from name to name.
    Datagram { destination: Name, source: Name, data: &'a [u8] },
}

/// See [`Message::Name`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Networks<'a> {
    rest: Reader<'a>,
}

impl<'a> Networks<'a> {
    /// In the order in which they were passed, eight at most.
    pub fn networks(&self) -> impl Iterator<Item = u32> + use<'a> {
        let mut reader = self.rest;
        // 0 fills unused places.
        core::iter::from_fn(move || reader.be_u32().filter(|network| *network != 0))
    }
}

const NETWORKS_LEN: usize = 32;
/// Networks, flags, operation and name.
const NAME_PACKET_LEN: usize = NETWORKS_LEN + 18;

impl<'a> Message<'a> {
    /// `None` for other operations, and where fields are missing. Whether the sockets are right (0455) is the caller's to
    /// see.
    pub fn parse(packet: &Packet<'a>) -> Option<Self> {
        let payload = packet.payload;
        let named = |at: usize| payload.get(at).copied().and_then(NameOperation::from_wire);
        let routed = packet.packet_type == packet_type::NETBIOS
            || payload.len() == NAME_PACKET_LEN && named(NETWORKS_LEN + 1).is_some();
        let mut reader = Reader::new(payload);
        let passed = Networks { rest: Reader::new(if routed { reader.bytes(NETWORKS_LEN)? } else { &[] }) };
        let [flags, operation] = reader.array()?;
        match operation {
            6..=8 => Some(Self::Session),
            9 | 10 => Some(Self::Status),
            11 => {
                let (destination, source) = (Name(reader.array()?), Name(reader.array()?));
                Some(Self::Datagram { destination, source, data: reader.rest() })
            }
            _ => {
                let operation = NameOperation::from_wire(operation)?;
                Some(Self::Name { operation, group: flags & 0x80 != 0, name: Name(reader.array()?), passed })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{Message, NameOperation};
    use crate::{
        ipx::{Address, Packet},
        netbios::Name,
    };

    fn packet(packet_type: u8, payload: &[u8]) -> Packet<'_> {
        let (destination, source) = (Address::default(), Address::default());
        Packet { checksum: 0xffff, hops: 0, packet_type, destination, source, payload }
    }

    fn name() -> Name {
        Name::new(b"LOCOKID1", 0).unwrap()
    }

    #[test]
    fn names_stand_behind_the_networks_or_not() {
        let bare: Vec<u8> = [0x80, 1].into_iter().chain(name().0).collect();
        let mut routed = std::vec![0; 32];
        routed[3] = 7;
        routed.extend(&bare);
        let read = |packet_type, payload: &[u8]| match Message::parse(&packet(packet_type, payload))? {
            Message::Name { operation: NameOperation::Find, group: true, name, passed } => {
                Some((name, passed.networks().collect::<Vec<_>>()))
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(read(20, &routed), Some((name(), Vec::from([7]))));
        assert_eq!(read(4, &routed), Some((name(), Vec::from([7]))));
        assert_eq!(read(4, &bare), Some((name(), Vec::new())));
        assert_eq!(read(20, &bare), None);
        for len in 0..routed.len() {
            assert_eq!(read(20, &routed[..len]), None, "{len}");
        }
        for len in 0..bare.len() {
            assert_eq!(read(4, &bare[..len]), None, "{len}");
        }
    }

    #[test]
    fn operations_by_number() {
        let mut payload: Vec<u8> = [0; 2].into_iter().chain(name().0).chain(Name::MSBROWSE.0).chain(*b"data").collect();
        let mut operation = |value: u8| {
            payload[1] = value;
            match Message::parse(&packet(4, &payload))? {
                Message::Name { operation, .. } => Some(operation as u8 + 1),
                Message::Session => Some(6),
                Message::Status => Some(9),
                Message::Datagram { destination, source, data } => {
                    assert_eq!((destination, source, data), (name(), Name::MSBROWSE, &b"data"[..]));
                    Some(11)
                }
            }
        };
        assert_eq!(
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].map(&mut operation),
            [1, 2, 3, 4, 5, 6, 6, 6, 9, 9, 11].map(Some)
        );
        assert_eq!([0, 12, 255].map(operation), [None; 3]);
    }
}
