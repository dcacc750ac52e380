//! Routing Information Protocol of IPX, socket 0453, big-endian (protocols.md 4).
use crate::bytes::Reader;

pub const ENTRY_LEN: usize = 8;
/// All networks, in requests.
pub const ALL_NETWORKS: u32 = 0xffff_ffff;
/// A network of this many hops cannot be reached.
pub const HOPS_GONE: u16 = 16;

/// A request (1) or response (2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    pub is_response: bool,
    entries: Reader<'a>,
}

/// A network, and how far away it is; in requests only which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub network: u32,
    /// [`HOPS_GONE`].
    pub hops: u16,
    /// Of 1/18 s.
    pub ticks: u16,
}

impl<'a> Message<'a> {
    /// `bytes` is the payload of an IPX packet. `None` for other operations, and where it does not consist of whole
    /// entries.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let operation @ (1 | 2) = reader.be_u16()? else { return None };
        (!reader.rest().is_empty() && reader.rest().len().is_multiple_of(ENTRY_LEN))
            .then_some(Self { is_response: operation == 2, entries: reader })
    }

    pub fn entries(&self) -> impl Iterator<Item = Entry> + use<'a> {
        let mut reader = self.entries;
        core::iter::from_fn(move || {
            Some(Entry { network: reader.be_u32()?, hops: reader.be_u16()?, ticks: reader.be_u16()? })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL_NETWORKS, Entry, HOPS_GONE, Message};

    #[test]
    fn entries_are_whole() {
        let bytes = [0, 2, 0, 0, 0, 7, 0, 1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 16, 0, 1];
        let message = Message::parse(&bytes).unwrap();
        assert!(message.is_response);
        let expected =
            [Entry { network: 7, hops: 1, ticks: 2 }, Entry { network: ALL_NETWORKS, hops: HOPS_GONE, ticks: 1 }];
        assert!(message.entries().eq(expected));
        for len in (0..bytes.len()).filter(|len| *len != 10) {
            assert_eq!(Message::parse(&bytes[..len]), None, "{len}");
        }
        assert_eq!(Message::parse(&[0, 3, 0, 0, 0, 7, 0, 1, 0, 2]), None);
    }
}
