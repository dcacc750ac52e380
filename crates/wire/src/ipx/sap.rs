//! Service Advertising Protocol, IPX socket 0452, big-endian (protocols.md 4): who serves what.
use super::Address;
use crate::bytes::{Reader, until_zero};

/// A server of this many hops is gone.
pub const HOPS_GONE: u16 = 16;
/// Any server type, in queries.
pub const ANY_TYPE: u16 = 0xffff;
/// Seven in a packet of `NetWare`'s; no packet is large enough for more than this.
pub const ENTRY_LEN: usize = 64;

/// A message of SAP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// 1 for all, 3 for the nearest server of a type ([`ANY_TYPE`]: of all).
    Query { nearest: bool, server_type: u16 },
    /// 2, which servers send unasked, too, or 4: one nearest server.
    Response { nearest: bool, entries: Entries<'a> },
}

/// A server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// 4: a file server, …
    pub server_type: u16,
    /// Without the zeros behind it. Bytes of the server's code page: show them with care.
    pub name: &'a [u8],
    pub address: Address,
    /// Networks on the way; [`HOPS_GONE`].
    pub hops: u16,
}

impl<'a> Message<'a> {
    /// `bytes` is the payload of an IPX packet. `None` for other operations, where a query has no type, and where a
    /// response does not consist of whole entries.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        match reader.be_u16()? {
            operation @ (1 | 3) => Some(Self::Query { nearest: operation == 3, server_type: reader.be_u16()? }),
            operation @ (2 | 4) if reader.rest().len().is_multiple_of(ENTRY_LEN) => {
                Some(Self::Response { nearest: operation == 4, entries: Entries { rest: reader } })
            }
            _ => None,
        }
    }
}

/// Servers of a [`Message::Response`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entries<'a> {
    rest: Reader<'a>,
}

impl<'a> Entries<'a> {
    pub fn servers(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let mut reader = self.rest;
        core::iter::from_fn(move || {
            let (server_type, name) = (reader.be_u16()?, reader.bytes(48)?);
            let address = Address::from_bytes(reader.array()?);
            Some(Entry { server_type, name: until_zero(name), address, hops: reader.be_u16()? })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{ANY_TYPE, Message};
    use crate::{MacAddr, ipx::Address};

    #[test]
    fn queries_and_responses() {
        assert_eq!(Message::parse(&[0, 1, 0xff, 0xff]), Some(Message::Query { nearest: false, server_type: ANY_TYPE }));
        assert_eq!(Message::parse(&[0, 3, 0, 4]), Some(Message::Query { nearest: true, server_type: 4 }));
        let mut bytes = Vec::from([0, 2, 0, 4]);
        bytes.extend(b"LOCOSRV\0rubbish");
        bytes.resize(4 + 48, 0);
        bytes.extend([0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 4, 0x51, 0, 16]);
        let Some(Message::Response { nearest: false, entries }) = Message::parse(&bytes) else { panic!("response") };
        let mut entries = entries.servers();
        let entry = entries.next().unwrap();
        assert_eq!((entry.server_type, entry.name, entry.hops), (4, &b"LOCOSRV"[..], super::HOPS_GONE));
        assert_eq!(entry.address, Address { network: 1, node: MacAddr([2, 0, 0, 0, 0, 9]), socket: 0x451 });
        assert_eq!(entries.next(), None);
        for len in (0..bytes.len()).filter(|len| *len != 2) {
            assert_eq!(Message::parse(&bytes[..len]), None, "{len}");
        }
        for wrong in [&[0, 1, 0][..], &[0, 5, 0, 0], &[1, 1, 0, 0]] {
            assert_eq!(Message::parse(wrong), None, "{wrong:x?}");
        }
    }
}
