//! NetBIOS datagram service, UDP 138, big-endian (RFC 1002 4.4), and the mail slot that a datagram may carry: an SMB
//! transaction, little-endian (MS-CIFS 2.2.4.33, MS-MAIL 2.2.1).
use core::net::Ipv4Addr;

use super::name::{Name, read};
use crate::bytes::{Reader, until_zero};

pub const PORT: u16 = 138;

/// Whom a datagram is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// 10: one machine.
    DirectUnique,
    /// 11: a group.
    DirectGroup,
    /// 12: everybody.
    Broadcast,
}

/// What identifies a datagram's sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub id: u16,
    /// What the sender takes for its own address. Trap: 0.0.0.0, or another card's.
    pub source_ip: Ipv4Addr,
    pub source_port: u16,
}

/// A message of the datagram service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// 10-12.
    Datagram(Datagram<'a>),
    /// 13: 82 no such name here, 83, 84 wrong name in the datagram.
    Error { header: Header, code: u8 },
    /// 14-16: query to, answers of, a distribution server, which nobody runs.
    Query { header: Header, kind: u8, name: Name },
}

/// A datagram, or a fragment of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram<'a> {
    pub header: Header,
    pub kind: Kind,
    /// More fragments follow.
    pub more_fragments: bool,
    /// Where in the whole datagram's data this one's belongs, in bytes. Names stand in each fragment.
    pub fragment_offset: u16,
    pub source: Name,
    pub destination: Name,
    /// What the names are followed by, up to the length that the datagram says.
    pub data: &'a [u8],
}

impl<'a> Message<'a> {
    /// `None` for other message types, and where the names or the length do not fit into `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let [kind, flags] = reader.array()?;
        let header = Header { id: reader.be_u16()?, source_ip: reader.ipv4()?, source_port: reader.be_u16()? };
        let kind = match kind {
            0x10 => Kind::DirectUnique,
            0x11 => Kind::DirectGroup,
            0x12 => Kind::Broadcast,
            0x13 => return Some(Self::Error { header, code: reader.u8()? }),
            0x14..=0x16 => return Some(Self::Query { header, kind, name: read(bytes, &mut reader)?.name }),
            _ => return None,
        };
        let (length, fragment_offset) = (reader.be_u16()?, reader.be_u16()?);
        // Names and data, which is all behind this place.
        let mut body = Reader::new(reader.bytes(length.into())?);
        let names_from = bytes.get(..bytes.len().checked_sub(reader.rest().len())?)?;
        let (source, destination) = (read(names_from, &mut body)?.name, read(names_from, &mut body)?.name);
        Some(Self::Datagram(Datagram {
            header,
            kind,
            more_fragments: flags & 1 != 0,
            fragment_offset,
            source,
            destination,
            data: body.rest(),
        }))
    }

    /// The datagram, where it is one.
    pub const fn datagram(&self) -> Option<&Datagram<'a>> {
        match self {
            Self::Datagram(datagram) => Some(datagram),
            _ => None,
        }
    }
}

/// Data written to a mail slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MailSlot<'a> {
    /// As in `\MAILSLOT\BROWSE`. Servers do not tell case apart.
    pub name: &'a [u8],
    pub data: &'a [u8],
}

const SMB_TRANSACTION: u8 = 0x25;
/// "Write mail slot".
const MAILSLOT_WRITE: u16 = 1;
/// Up to 28: parameter words of a transaction with three setup words.
const WORDS: u8 = 17;

impl<'a> MailSlot<'a> {
    /// Reads the [data](Datagram::data) of a datagram that is not a fragment. `None` for another SMB command, another
    /// transaction, and where a length or offset does not fit.
    pub fn parse(smb: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(smb);
        let [0xff, b'S', b'M', b'B', SMB_TRANSACTION] = reader.array()? else { return None };
        reader.bytes(27)?;
        let WORDS = reader.u8()? else { return None };
        let [_total_parameters, _total_data, _max_parameters, _max_data] =
            [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        let [_max_setup, _reserved] = reader.array()?;
        let (_flags, _timeout, _reserved) = (reader.u16()?, reader.u32()?, reader.u16()?);
        let (_parameter_count, _parameter_offset) = (reader.u16()?, reader.u16()?);
        let (data_count, data_offset) = (reader.u16()?, reader.u16()?);
        let ([3, _], MAILSLOT_WRITE) = (reader.array()?, reader.u16()?) else { return None };
        let (_priority, _class, byte_count) = (reader.u16()?, reader.u16()?, reader.u16()?);
        let bytes = reader.bytes(byte_count.into())?;
        let name = until_zero(bytes);
        // The data is among the counted bytes, behind the name.
        let first = smb.len().checked_sub(reader.rest().len())?.checked_sub(bytes.len())?;
        let at = usize::from(data_offset).checked_sub(first)?;
        if at <= name.len() {
            return None;
        }
        Some(Self { name, data: bytes.get(at..)?.get(..data_count.into())? })
    }

    /// Whether browsers talk here: see [`super::browser`].
    pub const fn is_browse(&self) -> bool {
        self.name.eq_ignore_ascii_case(br"\MAILSLOT\BROWSE")
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{Kind, MailSlot, Message};
    use crate::netbios::Name;

    fn transaction(data: &[u8]) -> Vec<u8> {
        let mut smb = Vec::from(*b"\xffSMB\x25");
        smb.resize(32, 0);
        smb.push(17);
        smb.extend([0; 22]);
        // Count and offset of the data, three setup words, count of the bytes.
        let count = u8::try_from(data.len()).unwrap();
        smb.extend([count, 0, 86, 0, 3, 0, 1, 0, 1, 0, 2, 0, 17 + count, 0]);
        smb.extend(b"\\mailslot\\browse\0");
        smb.extend(data);
        smb
    }

    fn datagram(data: &[u8]) -> Vec<u8> {
        let names = [Name::new(b"LOCOKID1", 0).unwrap(), Name::new(b"LOCOLAN", 0x1d).unwrap()];
        let mut bytes = Vec::from([0x11, 2, 0x12, 0x34, 10, 98, 0, 1, 0, 138, 0, 0, 0, 0]);
        for name in names {
            bytes.push(32);
            bytes.extend(name.encode());
            bytes.push(0);
        }
        bytes.extend(data);
        let len = u16::try_from(bytes.len() - 14).unwrap();
        bytes[10..12].copy_from_slice(&len.to_be_bytes());
        bytes
    }

    #[test]
    fn a_datagram_is_read_and_never_in_part() {
        let mut bytes = datagram(b"data");
        let len = bytes.len();
        bytes.extend([0xee; 4]);
        let message = Message::parse(&bytes).unwrap();
        let it = message.datagram().unwrap();
        assert_eq!((it.kind, it.header.id, it.header.source_port), (Kind::DirectGroup, 0x1234, 138));
        assert_eq!((it.more_fragments, it.fragment_offset), (false, 0));
        assert_eq!((it.source.text(), it.destination.suffix(), it.data), (&b"LOCOKID1"[..], 0x1d, &b"data"[..]));
        for len in 0..len {
            assert_eq!(Message::parse(&bytes[..len]), None, "{len}");
        }
        // A length that ends within the second name.
        bytes[11] = 40;
        assert_eq!(Message::parse(&bytes), None);
        bytes[0] = 0x17;
        assert_eq!(Message::parse(&bytes), None);
    }

    #[test]
    fn errors_and_queries_are_told() {
        let error = [0x13, 0, 0, 1, 10, 98, 0, 1, 0, 138, 0x82];
        assert!(matches!(Message::parse(&error), Some(Message::Error { code: 0x82, .. })));
        assert_eq!(Message::parse(&error[..10]), None);
        let mut query = Vec::from([0x14, 0, 0, 1, 10, 98, 0, 1, 0, 138, 32]);
        query.extend(Name::MSBROWSE.encode());
        query.push(0);
        assert!(matches!(Message::parse(&query), Some(Message::Query { name: Name::MSBROWSE, kind: 0x14, .. })));
        assert_eq!(Message::parse(&query).unwrap().datagram(), None);
    }

    #[test]
    fn a_mail_slot_is_read_and_never_in_part() {
        let smb = transaction(b"hello");
        let slot = MailSlot::parse(&smb).unwrap();
        assert_eq!((slot.name, slot.data, slot.is_browse()), (&b"\\mailslot\\browse"[..], &b"hello"[..], true));
        assert_eq!(smb.len(), 91);
        for len in 0..smb.len() {
            assert_eq!(MailSlot::parse(&smb[..len]), None, "{len}");
        }
        // Magic, command, word count, data beyond the end, data within the name, setup, operation.
        for (at, value) in [(0, 0xfe), (4, 0x72), (32, 16), (55, 6), (57, 85), (59, 2), (61, 2), (67, 0)] {
            let mut smb = smb.clone();
            smb[at] = value;
            assert_eq!(MailSlot::parse(&smb), None, "{at}");
        }
    }
}
