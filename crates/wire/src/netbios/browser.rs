//! Browser mail slots, little-endian (MS-BRWS 2.2): machines announce themselves and elect who keeps their list.
//!
//! **Invariants.** Names end at their first zero or their field's end. They, and comments, are bytes of the machine's
//! code page: show them with care.
use crate::bytes::{Reader, until_zero};

/// What a machine says it is (MS-BRWS 2.2.1, MS-RAP 2.5.5.3; protocols.md 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ServerType(pub u32);

impl ServerType {
    pub const WORKSTATION: Self = Self(0x0000_0001);
    pub const SERVER: Self = Self(0x0000_0002);
    pub const WINDOWS_FOR_WORKGROUPS: Self = Self(0x0000_2000);
    pub const MASTER_BROWSER: Self = Self(0x0004_0000);
    pub const WINDOWS_9X: Self = Self(0x0040_0000);

    /// Whether all of `bits` are set.
    pub const fn contains(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// The machine goes away.
    pub const fn is_leaving(self) -> bool {
        self.0 == 0
    }
}

/// Host, local master and domain announcement have one shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announcement<'a> {
    pub update_count: u8,
    /// Until the next announcement, in milliseconds.
    pub period_ms: u32,
    /// The machine, or the workgroup in [`Message::Domain`].
    pub name: &'a [u8],
    pub os_major: u8,
    pub os_minor: u8,
    pub server_type: ServerType,
    /// 15.1, as a rule. Not in [`Message::Domain`]: what stands there means nothing.
    pub browser_version: (u8, u8),
    /// The comment; in [`Message::Domain`] the workgroup's local master.
    pub comment: &'a [u8],
}

/// What is said in the mail slot `\MAILSLOT\BROWSE`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// 01: here I am, or no longer ([`ServerType::is_leaving`]).
    Host(Announcement<'a>),
    /// 02: all announce yourselves to this machine. Trap: Samba puts a zero before the name (capture netbios-nmbd).
    AnnouncementRequest {
        responder: &'a [u8],
    },
    /// 08. The highest version, then criteria, then uptime wins.
    Election {
        version: u8,
        criteria: u32,
        uptime_ms: u32,
        /// Empty where the sender only wants an election.
        server: &'a [u8],
    },
    /// 09: who keeps the list?
    BackupListRequest {
        count: u8,
        token: u32,
    },
    /// 0A.
    BackupListResponse {
        token: u32,
        servers: Servers<'a>,
    },
    /// 0B: this machine shall keep the list, too.
    BecomeBackup {
        server: &'a [u8],
    },
    /// 0C: a workgroup and its local master.
    Domain(Announcement<'a>),
    /// 0D: a local master to its domain master.
    Master {
        server: &'a [u8],
    },
    /// 0E.
    ResetState {
        what: u8,
    },
    /// 0F: as [`Message::Host`], from who keeps the workgroup's list.
    LocalMaster(Announcement<'a>),
    Other(u8),
}

impl<'a> Message<'a> {
    /// Reads the data of the mail slot. `None` where a fixed field is missing.
    pub fn parse(data: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(data);
        Some(match reader.u8()? {
            0x01 => Self::Host(announcement(reader)?),
            0x02 => {
                let _unused = reader.u8()?;
                let name = reader.rest();
                Self::AnnouncementRequest { responder: until_zero(name.strip_prefix(&[0]).unwrap_or(name)) }
            }
            0x08 => {
                let (version, criteria, uptime_ms) = (reader.u8()?, reader.u32()?, reader.u32()?);
                let _unused = reader.u32()?;
                Self::Election { version, criteria, uptime_ms, server: until_zero(reader.rest()) }
            }
            0x09 => Self::BackupListRequest { count: reader.u8()?, token: reader.u32()? },
            0x0a => {
                let (count, token) = (reader.u8()?, reader.u32()?);
                Self::BackupListResponse { token, servers: Servers { left: count, rest: reader.rest() } }
            }
            0x0b => Self::BecomeBackup { server: until_zero(reader.rest()) },
            0x0c => Self::Domain(announcement(reader)?),
            0x0d => Self::Master { server: until_zero(reader.rest()) },
            0x0e => Self::ResetState { what: reader.u8()? },
            0x0f => Self::LocalMaster(announcement(reader)?),
            other => Self::Other(other),
        })
    }

    /// What [`Message::Host`] and [`Message::LocalMaster`] say of their sender.
    pub const fn announced_host(&self) -> Option<&Announcement<'a>> {
        match self {
            Self::Host(it) | Self::LocalMaster(it) => Some(it),
            _ => None,
        }
    }
}

fn announcement(mut reader: Reader<'_>) -> Option<Announcement<'_>> {
    let (update_count, period_ms, name) = (reader.u8()?, reader.u32()?, until_zero(reader.bytes(16)?));
    let ([os_major, os_minor], server_type) = (reader.array()?, ServerType(reader.u32()?));
    let ([major, minor], _signature) = (reader.array()?, reader.u16()?);
    Some(Announcement {
        update_count,
        period_ms,
        name,
        os_major,
        os_minor,
        server_type,
        browser_version: (major, minor),
        comment: until_zero(reader.rest()),
    })
}

/// Names of [`Message::BackupListResponse`], each ended by a zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Servers<'a> {
    left: u8,
    rest: &'a [u8],
}

impl<'a> Servers<'a> {
    pub fn names(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let all = self.rest.split(|byte| *byte == 0);
        all.take(self.left.into()).take_while(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{Message, ServerType};

    #[test]
    fn an_announcement_is_read_and_never_in_part() {
        let mut data = Vec::from([1, 3, 0xc0, 0xd4, 1, 0]);
        data.extend(b"LOCOKID1\0RUBBISH");
        data.extend([4, 10, 3, 0x20, 0x40, 0, 15, 1, 0x55, 0xaa]);
        for len in 0..data.len() {
            assert_eq!(Message::parse(&data[..len]), None, "{len}");
        }
        data.extend(b"a comment\0more");
        let message = Message::parse(&data).unwrap();
        let it = message.announced_host().unwrap();
        assert_eq!((it.update_count, it.period_ms), (3, 120_000));
        assert_eq!((it.name, it.comment), (&b"LOCOKID1"[..], &b"a comment"[..]));
        assert_eq!((it.os_major, it.os_minor, it.browser_version), (4, 10, (15, 1)));
        assert!(
            it.server_type.contains(ServerType::WINDOWS_9X) && !it.server_type.contains(ServerType::MASTER_BROWSER)
        );
        assert!(!it.server_type.is_leaving());
        data[24..28].fill(0);
        assert!(Message::parse(&data).unwrap().announced_host().unwrap().server_type.is_leaving());
        data[0] = 0x0c;
        assert_eq!(Message::parse(&data).unwrap().announced_host(), None, "a workgroup is no host");
        data[0] = 0x0f;
        assert!(matches!(Message::parse(&data), Some(Message::LocalMaster(_))));
    }

    #[test]
    fn the_other_messages_are_read() {
        let election = b"\x08\x01\x03\x02\x01\x20\x10\x27\0\0\0\0\0\0LOCOHOST\0";
        assert_eq!(
            Message::parse(election),
            Some(Message::Election { version: 1, criteria: 0x2001_0203, uptime_ms: 10_000, server: b"LOCOHOST" })
        );
        assert_eq!(Message::parse(&election[..13]), None);
        assert_eq!(Message::parse(b"\x02\0LOCOKID1\0"), Some(Message::AnnouncementRequest { responder: b"LOCOKID1" }));
        assert_eq!(
            Message::parse(b"\x02\x01\0LOCOKID1"),
            Some(Message::AnnouncementRequest { responder: b"LOCOKID1" }),
            "Samba's"
        );
        assert_eq!(Message::parse(b"\x09\x04\x01\0\0\0"), Some(Message::BackupListRequest { count: 4, token: 1 }));
        assert_eq!(Message::parse(b"\x0bKID\0"), Some(Message::BecomeBackup { server: b"KID" }));
        assert_eq!(Message::parse(b"\x0dKID"), Some(Message::Master { server: b"KID" }));
        assert_eq!(Message::parse(b"\x0e\x02"), Some(Message::ResetState { what: 2 }));
        assert_eq!(Message::parse(b"\x03"), Some(Message::Other(3)));
        for short in [&b""[..], b"\x02", b"\x09\x04\x01\0\0", b"\x0a\x04\x01\0\0", b"\x0e"] {
            assert_eq!(Message::parse(short), None, "{short:x?}");
        }
    }

    #[test]
    fn a_list_has_no_more_names_than_it_says_and_holds() {
        let names = |data: &'static [u8]| match Message::parse(data) {
            Some(Message::BackupListResponse { token: 7, servers }) => servers.names().collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(names(b"\x0a\x02\x07\0\0\0ONE\0TWO\0THREE\0"), [b"ONE", b"TWO"]);
        assert_eq!(names(b"\x0a\xff\x07\0\0\0ONE\0TWO"), [b"ONE", b"TWO"]);
        assert_eq!(names(b"\x0a\x00\x07\0\0\0ONE\0"), [b""; 0]);
        assert_eq!(names(b"\x0a\x02\x07\0\0\0"), [b""; 0]);
    }
}
