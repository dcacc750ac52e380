//! DirectPlay 8's enumeration of hosts, little-endian (MC-DPLHP 2.2; protocols.md 3).
//!
//! ```text
//! asker --UDP 6073: EnumQuery, id--------> host's helper
//! asker <--EnumResponse, the same id------ host, from the game's own port (first free of 2302-2400)
//! ```
//! A first byte that is not zero is a frame of MC-DPL8R, which is not read here. Offsets inside a response count from its
//! byte 4.
use crate::bytes::Reader;
use crate::dplay::{Guid, Text};

/// The helper's port (UDP).
pub const PORT: u16 = 6073;
/// Ports of games that ask for none (UDP).
pub const GAME_PORTS: core::ops::RangeInclusive<u16> = 2302..=2400;

const QUERY: [u8; 2] = [0, 2];
const RESPONSE: [u8; 2] = [0, 3];
/// From the size to the application's GUID.
const DESCRIPTION_LEN: u32 = 0x50;
/// Where offsets count from.
const ORIGIN: usize = 4;

/// One message of the enumeration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enumeration<'a> {
    Query(Query<'a>),
    Response(Response<'a>),
}

impl<'a> Enumeration<'a> {
    /// `None` where the payload is neither.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        Query::parse(bytes).map(Self::Query).or_else(|| Response::parse(bytes).map(Self::Response))
    }

    /// Joins query and responses.
    pub const fn id(&self) -> u16 {
        match self {
            Self::Query(query) => query.id,
            Self::Response(response) => response.id,
        }
    }
}

/// `EnumQuery`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Query<'a> {
    pub id: u16,
    /// Only hosts of this game are to answer; `None`: all.
    pub application: Option<Guid>,
    /// The game's own.
    pub data: &'a [u8],
}

impl<'a> Query<'a> {
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        if r.array()? != QUERY {
            return None;
        }
        let id = r.u16()?;
        let application = match r.u8()? {
            1 => Some(Guid(r.array()?)),
            2 => None,
            _ => return None,
        };
        Some(Self { id, application, data: r.rest() })
    }
}

/// The characteristics of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Flags(pub u32);

impl Flags {
    /// Client/server; else peer-to-peer.
    pub const CLIENT_SERVER: Self = Self(0x1);
    pub const MIGRATE_HOST: Self = Self(0x4);
    /// Not to be found by port 6073.
    pub const NO_HELPER: Self = Self(0x40);
    pub const PASSWORD_REQUIRED: Self = Self(0x80);
    pub const NO_ENUMERATION: Self = Self(0x100);
    pub const FAST_SIGNED: Self = Self(0x200);
    pub const FULL_SIGNED: Self = Self(0x400);

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// `EnumResponse`: a session and its description.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Response<'a> {
    pub id: u16,
    pub flags: Flags,
    /// 0 = no limit.
    pub max_players: u32,
    pub current_players: u32,
    /// This very session.
    pub instance: Guid,
    /// The game.
    pub application: Guid,
    pub name: Option<Text<'a>>,
    /// The game's own, said once.
    pub reserved: &'a [u8],
    /// The game's own, of this moment.
    pub data: &'a [u8],
}

impl<'a> Response<'a> {
    /// `None` where the description's size is another, or an offset leads past the end. A password, which a response
    /// never has (MC-DPLHP 2.2.2), is not looked at.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        if r.array()? != RESPONSE {
            return None;
        }
        let id = r.u16()?;
        let mut place = || Some((r.u32()?, r.u32()?));
        let data = place()?;
        let (size, flags) = place()?;
        if size != DESCRIPTION_LEN {
            return None;
        }
        let (max_players, current_players) = place()?;
        let (name, _password, _reserved, reserved) = (place()?, place()?, place()?, place()?);
        let name = part(bytes, name)?;
        Some(Self {
            id,
            flags: Flags(flags),
            max_players,
            current_players,
            instance: Guid(r.array()?),
            application: Guid(r.array()?),
            name: (!name.is_empty()).then(|| Text::from_wire(name)),
            reserved: part(bytes, reserved)?,
            data: part(bytes, data)?,
        })
    }
}

/// What stands at an offset with a length; nothing where one of them is 0.
fn part(bytes: &[u8], (offset, len): (u32, u32)) -> Option<&[u8]> {
    if offset == 0 || len == 0 {
        return Some(&[]);
    }
    let start = ORIGIN.checked_add(usize::try_from(offset).ok()?)?;
    bytes.get(start..start.checked_add(usize::try_from(len).ok()?)?)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{Enumeration, Flags, Query, Response};
    use crate::dplay::Guid;

    const GAME: Guid = Guid([7; 16]);

    /// A response as MC-DPLHP 2.2.2 lays it out: name and data behind the description.
    fn response() -> Vec<u8> {
        let name: Vec<u8> = "Stadt\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        // Offsets count from byte 4; the fixed part ends at 4 + 88.
        let words = [100, 3, 0x50, 0x84, 8, 3, 88, 12, 0, 0, 0, 0, 0, 0_u32];
        let mut bytes = [0, 3, 0x34, 0x12].to_vec();
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend([9; 16]);
        bytes.extend(GAME.0);
        assert_eq!(bytes.len(), 92);
        bytes.extend(name);
        bytes.extend(b"map");
        bytes
    }

    #[test]
    fn a_response_gives_the_session() {
        let bytes = response();
        let Some(Enumeration::Response(response)) = Enumeration::parse(&bytes) else { panic!("no response") };
        assert_eq!(response.id, 0x1234);
        assert!(response.flags.contains(Flags::PASSWORD_REQUIRED) && response.flags.contains(Flags::MIGRATE_HOST));
        assert!(!response.flags.contains(Flags::CLIENT_SERVER));
        assert_eq!((response.max_players, response.current_players), (8, 3));
        assert_eq!((response.instance, response.application), (Guid([9; 16]), GAME));
        assert_eq!(response.name.unwrap(), "Stadt");
        assert_eq!((response.reserved, response.data), (b"".as_slice(), b"map".as_slice()));
    }

    #[test]
    fn a_response_with_a_wrong_size_or_offset_is_none() {
        for (at, value) in [(12, 0x4f), (4, 102), (8, 4), (28, 98), (32, u32::MAX), (28, u32::MAX), (52, 1000)] {
            let mut bytes = response();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            if at == 52 {
                bytes[56] = 1;
            }
            assert_eq!(Response::parse(&bytes), None, "{value} at {at}");
        }
        for len in 0..response().len() {
            assert_eq!(Enumeration::parse(&response()[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn a_query_names_a_game_or_none() {
        let of_game = [[0, 2, 1, 0, 1].as_slice(), &GAME.0, b"hi"].concat();
        let query = Query { id: 1, application: Some(GAME), data: b"hi" };
        assert_eq!(Enumeration::parse(&of_game), Some(Enumeration::Query(query)));
        assert_eq!(Query::parse(&[0, 2, 0, 1, 2]), Some(Query { id: 0x100, application: None, data: b"" }));
        // Cut GUID, unknown type, another command, a frame of MC-DPL8R.
        for bytes in [&of_game[..20], &[0, 2, 0, 0, 3], &[0, 4, 0, 0, 2], &[0x88, 2, 0, 0, 2], &[]] {
            assert_eq!(Query::parse(bytes), None, "{bytes:?}");
        }
    }
}
