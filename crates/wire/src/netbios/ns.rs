//! NetBIOS name service, UDP 137, big-endian (RFC 1002 4.2): DNS-like questions, answers and registrations.
//!
//! **Invariants.** [`Message::parse`] has walked all questions and records: what the iterators give is whole. A record
//! has 12 bytes at least, so that their number is bounded by the datagram, whatever the counts say.
use core::net::Ipv4Addr;

use super::name::{Encoded, Name, read};
use crate::{MacAddr, bytes::Reader};

pub const PORT: u16 = 137;

/// Type of a name's record.
pub const TYPE_NB: u16 = 0x20;
/// Type of the list of a node's names.
pub const TYPE_NODE_STATUS: u16 = 0x21;

/// What a message is about (RFC 1002 4.2.1.1; 15: "multi-homed registration", Windows' own).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// Also of node status.
    Query,
    Registration,
    Release,
    /// Wait for an answer.
    Wait,
    /// 8, and 9 as RFC 1002 has it in one place.
    Refresh,
    MultihomedRegistration,
    Other(u8),
}

impl Operation {
    const fn from_wire(value: u8) -> Self {
        match value {
            0 => Self::Query,
            5 => Self::Registration,
            6 => Self::Release,
            7 => Self::Wait,
            8 | 9 => Self::Refresh,
            15 => Self::MultihomedRegistration,
            other => Self::Other(other),
        }
    }
}

/// `NM_FLAGS` (RFC 1002 4.2.1.1), where they stand in the second word of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flags(pub u16);

impl Flags {
    pub const fn is_authoritative(self) -> bool {
        self.0 & 0x0400 != 0
    }

    /// Did not fit into the datagram.
    pub const fn is_truncated(self) -> bool {
        self.0 & 0x0200 != 0
    }

    pub const fn recursion_desired(self) -> bool {
        self.0 & 0x0100 != 0
    }

    pub const fn recursion_available(self) -> bool {
        self.0 & 0x0080 != 0
    }

    /// Was sent to everybody.
    pub const fn is_broadcast(self) -> bool {
        self.0 & 0x0010 != 0
    }
}

/// A message of the name service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// What ties answers to questions.
    pub id: u16,
    pub is_response: bool,
    pub operation: Operation,
    pub flags: Flags,
    /// 0 ok; 3 no such name; 6 the name belongs to somebody else (RFC 1002 4.2.6).
    pub result: u8,
    questions: u16,
    /// Answers, authorities and additional ones.
    records: u32,
    whole: &'a [u8],
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// `None` where a question or a record is not whole or has no NetBIOS name.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (id, flags, questions) = (reader.be_u16()?, reader.be_u16()?, reader.be_u16()?);
        let [answers, authorities, additional] = [reader.be_u16()?, reader.be_u16()?, reader.be_u16()?];
        let message = Self {
            id,
            is_response: flags & 0x8000 != 0,
            // Four bits.
            operation: Operation::from_wire((flags >> 11 & 0x0f) as u8),
            flags: Flags(flags),
            result: (flags & 0x000f) as u8,
            questions,
            records: u32::from(answers) + u32::from(authorities) + u32::from(additional),
            whole: bytes,
            body: reader.rest(),
        };
        for _ in 0..questions {
            question(bytes, &mut reader)?;
        }
        for _ in 0..message.records {
            record(bytes, &mut reader)?;
        }
        Some(message)
    }

    pub fn questions(&self) -> impl Iterator<Item = Question> + use<'a> {
        let (message, mut reader) = (self.whole, Reader::new(self.body));
        (0..self.questions).map_while(move |_| question(message, &mut reader))
    }

    /// Answers, authorities and additional ones, in the order of the message.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let (message, mut reader) = (self.whole, Reader::new(self.body));
        for _ in 0..self.questions {
            // `parse` has found them whole.
            if question(message, &mut reader).is_none() {
                break;
            }
        }
        (0..self.records).map_while(move |_| record(message, &mut reader))
    }

    /// Whether somebody claims, defends, keeps or gives up a name: registration, refresh, release.
    pub const fn is_about_ownership(&self) -> bool {
        matches!(
            self.operation,
            Operation::Registration | Operation::MultihomedRegistration | Operation::Refresh | Operation::Release
        )
    }
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    pub name: Name,
    /// The name has a scope; it is another name than the one without.
    pub scoped: bool,
    /// [`TYPE_NB`], [`TYPE_NODE_STATUS`].
    pub kind: u16,
}

/// What is said about a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    pub name: Name,
    /// The name has a scope; it is another name than the one without.
    pub scoped: bool,
    /// [`TYPE_NB`], [`TYPE_NODE_STATUS`].
    pub kind: u16,
    /// Time to live in seconds; 0: without end.
    pub ttl: u32,
    pub data: &'a [u8],
}

fn question<'a>(message: &'a [u8], reader: &mut Reader<'a>) -> Option<Question> {
    let Encoded { name, scoped } = read(message, reader)?;
    let [kind, _class] = [reader.be_u16()?, reader.be_u16()?];
    Some(Question { name, scoped, kind })
}

fn record<'a>(message: &'a [u8], reader: &mut Reader<'a>) -> Option<Record<'a>> {
    let Encoded { name, scoped } = read(message, reader)?;
    let [kind, _class] = [reader.be_u16()?, reader.be_u16()?];
    let (ttl, len) = (reader.be_u32()?, reader.be_u16()?);
    Some(Record { name, scoped, kind, ttl, data: reader.bytes(len.into())? })
}

/// `NB_FLAGS` of an address, or `NAME_FLAGS` of a node status, whose first byte has the same meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NameFlags(pub u16);

impl NameFlags {
    /// A group's name and not a machine's own.
    pub const fn is_group(self) -> bool {
        self.0 & 0x8000 != 0
    }

    /// In a node status: being given up.
    pub const fn is_released(self) -> bool {
        self.0 & 0x1000 != 0
    }

    /// In a node status: somebody else has it.
    pub const fn is_in_conflict(self) -> bool {
        self.0 & 0x0800 != 0
    }

    /// In a node status.
    pub const fn is_active(self) -> bool {
        self.0 & 0x0400 != 0
    }
}

impl<'a> Record<'a> {
    /// Who has the name: the pairs of a [`TYPE_NB`] record. Empty where its length is not a multiple of 6.
    pub fn addresses(&self) -> impl Iterator<Item = (NameFlags, Ipv4Addr)> + use<'a> {
        let whole = self.kind == TYPE_NB && self.data.len().is_multiple_of(6);
        let mut reader = Reader::new(if whole { self.data } else { &[] });
        core::iter::from_fn(move || Some((NameFlags(reader.be_u16()?), reader.ipv4()?)))
    }

    /// The names of a node: of a [`TYPE_NODE_STATUS`] record. `None` where it is not whole.
    pub fn node_status(&self) -> Option<NodeStatus<'a>> {
        if self.kind != TYPE_NODE_STATUS {
            return None;
        }
        let mut reader = Reader::new(self.data);
        let count = usize::from(reader.u8()?);
        let names = reader.bytes(count * 18)?;
        Some(NodeStatus { names, mac: reader.mac()? })
    }
}

/// All names of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeStatus<'a> {
    names: &'a [u8],
    /// Zero from Samba.
    pub mac: MacAddr,
}

impl<'a> NodeStatus<'a> {
    pub fn names(&self) -> impl Iterator<Item = (Name, NameFlags)> + use<'a> {
        let mut reader = Reader::new(self.names);
        core::iter::from_fn(move || Some((Name(reader.array()?), NameFlags(reader.be_u16()?))))
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{Message, NameFlags, Operation, TYPE_NB, TYPE_NODE_STATUS};
    use crate::{MacAddr, netbios::Name};

    fn name() -> Name {
        Name::new(b"LOCOHOST", 0x20).unwrap()
    }

    /// A registration, as RFC 1002 4.2.2 has it: a question, and a record whose name points at the question's.
    fn registration() -> Vec<u8> {
        let mut bytes = Vec::from([0x12, 0x34, 0x29, 0x10, 0, 1, 0, 0, 0, 0, 0, 1, 32]);
        bytes.extend(name().encode());
        bytes.extend([0, 0, 0x20, 0, 1, 0xc0, 12, 0, 0x20, 0, 1, 0, 3, 0xf4, 0x80, 0, 6, 0x80, 0, 10, 98, 0, 1]);
        bytes
    }

    #[test]
    fn a_registration_is_read_and_never_in_part() {
        let bytes = registration();
        let it = Message::parse(&bytes).unwrap();
        assert_eq!((it.id, it.is_response, it.operation), (0x1234, false, Operation::Registration));
        let flags = it.flags;
        assert_eq!((flags.is_broadcast(), flags.recursion_desired(), flags.is_authoritative()), (true, true, false));
        assert!(!flags.is_truncated() && !flags.recursion_available());
        assert!(it.is_about_ownership());
        let [question] = it.questions().collect::<Vec<_>>()[..] else { panic!("one question") };
        assert_eq!((question.name, question.kind, question.scoped), (name(), TYPE_NB, false));
        let [record] = it.records().collect::<Vec<_>>()[..] else { panic!("one record") };
        assert_eq!((record.name, record.kind, record.ttl), (name(), TYPE_NB, 259_200));
        assert_eq!(record.addresses().collect::<Vec<_>>(), [(NameFlags(0x8000), [10, 98, 0, 1].into())]);
        assert_eq!(record.node_status(), None);
        for len in 0..bytes.len() {
            assert_eq!(Message::parse(&bytes[..len]), None, "{len}");
        }
    }

    #[test]
    fn counts_do_not_make_records() {
        let mut bytes = registration();
        bytes[5] = 2;
        assert_eq!(Message::parse(&bytes), None);
        (bytes[5], bytes[6], bytes[7]) = (1, 0xff, 0xff);
        assert_eq!(Message::parse(&bytes), None);
        (bytes[6], bytes[7]) = (0, 0);
        bytes[61] = 5;
        let it = Message::parse(&bytes).unwrap();
        assert_eq!(it.records().next().unwrap().addresses().count(), 0, "five bytes are no address");
    }

    #[test]
    fn a_node_status_lists_names() {
        let mut bytes = Vec::from([0, 1, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0, 32]);
        bytes.extend(Name::WILDCARD.encode());
        bytes.extend([0, 0, 0x21, 0, 1, 0, 0, 0, 0, 0, 43, 2]);
        bytes.extend(name().0);
        bytes.extend([0x04, 0]);
        bytes.extend(Name::MSBROWSE.0);
        bytes.extend([0x84, 0, 2, 0x4c, 0, 0, 0, 1]);
        let it = Message::parse(&bytes).unwrap();
        assert_eq!((it.is_response, it.operation), (true, Operation::Query));
        let record = it.records().next().unwrap();
        assert_eq!((record.name, record.kind, record.addresses().count()), (Name::WILDCARD, TYPE_NODE_STATUS, 0));
        let status = record.node_status().unwrap();
        assert_eq!(status.mac, MacAddr([2, 0x4c, 0, 0, 0, 1]));
        let names: Vec<_> = status.names().collect();
        assert_eq!(names, [(name(), NameFlags(0x400)), (Name::MSBROWSE, NameFlags(0x8400))]);
        assert!(names[0].1.is_active() && !names[0].1.is_group() && names[1].1.is_group());
        assert!(NameFlags(0x800).is_in_conflict() && NameFlags(0x1000).is_released());
        // More names than bytes.
        let at = bytes.len() - 43;
        bytes[at] = 3;
        assert_eq!(Message::parse(&bytes).unwrap().records().next().unwrap().node_status(), None);
    }

    #[test]
    fn operations_by_number() {
        let operation = |value: u8| Message::parse(&[0, 0, value << 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap().operation;
        let all = [0, 5, 6, 7, 8, 9, 15, 1].map(operation);
        assert_eq!(
            all,
            [
                Operation::Query,
                Operation::Registration,
                Operation::Release,
                Operation::Wait,
                Operation::Refresh,
                Operation::Refresh,
                Operation::MultihomedRegistration,
                Operation::Other(1)
            ]
        );
    }
}
