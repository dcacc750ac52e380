//! Players and groups as messages carry them: packed (48 fixed bytes and what they announce) and super packed (20 fixed
//! bytes and what their mask announces). MC-DPL4CS 2.2.2, 2.2.3; protocols.md 1.4.
//!
//! **Invariants.** A list that was parsed is sound: its iterator yields exactly as many records as it says.
use core::fmt;

use super::constants::{Dialect, PlayerFlags};
use super::id::Id;
use super::text::Text;
use crate::bytes::{Reader, Writer};

/// Fixed part of a packed player.
const PACKED_LEN: usize = 48;
/// What the first field of a super packed player must say. Trap: it does not count the fifth dword.
const SUPER_PACKED_SIZE: u32 = 16;

/// A player or group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Player<'a> {
    pub flags: PlayerFlags,
    pub id: Id,
    /// The system player of its machine; a system player's own id.
    pub system_id: Id,
    /// Dialect of its machine. Super packed records tell it for system players only; then 0 for the others.
    pub dialect: Dialect,
    pub short_name: Option<Text<'a>>,
    pub long_name: Option<Text<'a>>,
    /// Where its machine listens, as the service provider writes it: [`super::SpAddresses`] over TCP/IP.
    pub sp_data: &'a [u8],
    /// The game's own.
    pub data: &'a [u8],
    /// Members of a group; players have none.
    pub members: Ids<'a>,
    /// The group that contains this group, or [`Id::NONE`].
    pub parent: Id,
    /// Groups that this group contains; only super packed records tell them.
    pub shortcuts: Ids<'a>,
}

impl<'a> Player<'a> {
    /// Is it the one system player of its machine?
    pub const fn is_system(&self) -> bool {
        self.flags.contains(PlayerFlags::SYSTEM)
    }

    /// Reads a packed player. Its size field is ignored: the lengths say the same.
    pub(crate) fn parse_packed(r: &mut Reader<'a>) -> Option<Self> {
        let _size = r.u32()?;
        let flags = PlayerFlags(r.u32()?);
        let id = Id(r.u32()?);
        let (short, long, sp, data) = (r.len()?, r.len()?, r.len()?, r.len()?);
        let members = r.len()?;
        let system_id = Id(r.u32()?);
        if r.len()? != PACKED_LEN {
            return None;
        }
        let dialect = Dialect(low_half(r.u32()?));
        let parent = Id(r.u32()?);
        let mut name = |len: usize| Some(if len == 0 { None } else { Some(Text::from_wire(r.bytes(len)?)) });
        let (short_name, long_name) = (name(short)?, name(long)?);
        Some(Self {
            flags,
            id,
            system_id,
            dialect,
            short_name,
            long_name,
            sp_data: r.bytes(sp)?,
            data: r.bytes(data)?,
            members: Ids::parse(r, members)?,
            parent,
            shortcuts: Ids::NONE,
        })
    }

    pub(crate) fn write_packed(&self, w: &mut Writer<'_>) {
        let names = [self.short_name, self.long_name].map(|name| name.map_or(0, Text::wire_len));
        // What the size counts is the specification's list: not the members.
        w.len(PACKED_LEN + names[0] + names[1] + self.sp_data.len() + self.data.len());
        w.u32(self.flags.0);
        w.u32(self.id.0);
        for len in [names[0], names[1], self.sp_data.len(), self.data.len(), self.members.len()] {
            w.len(len);
        }
        w.u32(self.system_id.0);
        w.len(PACKED_LEN);
        w.u32(self.dialect.0.into());
        w.u32(self.parent.0);
        self.write_names(w);
        w.bytes(self.sp_data);
        w.bytes(self.data);
        self.members.write(w);
    }

    /// Reads a super packed player. Trap: the data comes before the SP data, although its mask bits come after.
    pub(crate) fn parse_super(r: &mut Reader<'a>) -> Option<Self> {
        if r.u32()? != SUPER_PACKED_SIZE {
            return None;
        }
        let mut player = Self { flags: PlayerFlags(r.u32()?), id: Id(r.u32()?), ..Self::default() };
        let mask = r.u32()?;
        let system_or_dialect = r.u32()?;
        if player.is_system() {
            player.dialect = Dialect(low_half(system_or_dialect));
            player.system_id = player.id;
        } else {
            player.system_id = Id(system_or_dialect);
        }
        if mask & mask::SHORT_NAME != 0 {
            player.short_name = Some(Text::read(r));
        }
        if mask & mask::LONG_NAME != 0 {
            player.long_name = Some(Text::read(r));
        }
        let data = read_count(r, mask >> mask::DATA)?;
        player.data = r.bytes(data)?;
        let sp_data = read_count(r, mask >> mask::SP_DATA)?;
        player.sp_data = r.bytes(sp_data)?;
        let members = read_count(r, mask >> mask::MEMBERS)?;
        player.members = Ids::parse(r, members)?;
        if mask & mask::PARENT != 0 {
            player.parent = Id(r.u32()?);
        }
        let shortcuts = read_count(r, mask >> mask::SHORTCUTS)?;
        player.shortcuts = Ids::parse(r, shortcuts)?;
        Some(player)
    }

    pub(crate) fn write_super(&self, w: &mut Writer<'_>) {
        w.u32(SUPER_PACKED_SIZE);
        w.u32(self.flags.0);
        w.u32(self.id.0);
        w.u32(
            self.short_name.map_or(0, |_| mask::SHORT_NAME)
                | self.long_name.map_or(0, |_| mask::LONG_NAME)
                | width(self.data.len()) << mask::DATA
                | width(self.sp_data.len()) << mask::SP_DATA
                | width(self.members.len()) << mask::MEMBERS
                | if self.parent == Id::NONE { 0 } else { mask::PARENT }
                | width(self.shortcuts.len()) << mask::SHORTCUTS,
        );
        w.u32(if self.is_system() { self.dialect.0.into() } else { self.system_id.0 });
        self.write_names(w);
        write_count(w, self.data.len());
        w.bytes(self.data);
        write_count(w, self.sp_data.len());
        w.bytes(self.sp_data);
        write_count(w, self.members.len());
        self.members.write(w);
        if self.parent != Id::NONE {
            w.u32(self.parent.0);
        }
        write_count(w, self.shortcuts.len());
        self.shortcuts.write(w);
    }

    fn write_names(&self, w: &mut Writer<'_>) {
        for name in [self.short_name, self.long_name].into_iter().flatten() {
            name.write(w);
        }
    }
}

/// The dialect in a dword. The rest is not checked: for ordinary players the whole field is to be ignored.
const fn low_half(word: u32) -> u16 {
    (word & 0xffff) as u16
}

/// Bits of the mask of a super packed player; those of two bits as their position.
mod mask {
    pub(super) const SHORT_NAME: u32 = 1;
    pub(super) const LONG_NAME: u32 = 1 << 1;
    pub(super) const SP_DATA: u32 = 2;
    pub(super) const DATA: u32 = 4;
    pub(super) const MEMBERS: u32 = 6;
    pub(super) const PARENT: u32 = 1 << 8;
    pub(super) const SHORTCUTS: u32 = 9;
}

/// A count as wide as the lowest two bits say: absent, 1, 2 or 4 bytes.
fn read_count(r: &mut Reader<'_>, bits: u32) -> Option<usize> {
    match bits & 3 {
        0 => Some(0),
        1 => r.u8().map(usize::from),
        2 => r.u16().map(usize::from),
        _ => r.len(),
    }
}

/// The narrowest width that holds `count`, as the mask says it. Windows does so (MC-DPL4CS, note 3).
const fn width(count: usize) -> u32 {
    match count {
        0 => 0,
        1..=0xff => 1,
        0x100..=0xffff => 2,
        _ => 3,
    }
}

fn write_count(w: &mut Writer<'_>, count: usize) {
    if let Ok(count) = u8::try_from(count) {
        if count > 0 {
            w.u8(count);
        }
    } else if let Ok(count) = u16::try_from(count) {
        w.u16(count);
    } else {
        w.len(count);
    }
}

/// A list of ids, of the wire or to be written.
#[derive(Clone, Copy)]
pub struct Ids<'a>(IdSource<'a>);

#[derive(Clone, Copy)]
enum IdSource<'a> {
    Wire(&'a [[u8; 4]]),
    Slice(&'a [Id]),
}

impl<'a> Ids<'a> {
    pub const NONE: Self = Self(IdSource::Slice(&[]));

    /// A list for a message that is to be written.
    pub const fn new(ids: &'a [Id]) -> Self {
        Self(IdSource::Slice(ids))
    }

    pub const fn len(self) -> usize {
        match self.0 {
            IdSource::Wire(ids) => ids.len(),
            IdSource::Slice(ids) => ids.len(),
        }
    }

    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Id> + 'a {
        let (wire, slice): (&[[u8; 4]], &[Id]) = match self.0 {
            IdSource::Wire(ids) => (ids, &[]),
            IdSource::Slice(ids) => (&[], ids),
        };
        wire.iter().map(|id| Id(u32::from_le_bytes(*id))).chain(slice.iter().copied())
    }

    fn parse(r: &mut Reader<'a>, count: usize) -> Option<Self> {
        Some(Self(IdSource::Wire(r.bytes(count.checked_mul(4)?)?.as_chunks().0)))
    }

    fn write(self, w: &mut Writer<'_>) {
        self.iter().for_each(|id| w.u32(id.0));
    }
}

impl Default for Ids<'_> {
    fn default() -> Self {
        Self::NONE
    }
}

impl PartialEq for Ids<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Ids<'_> {}

impl fmt::Debug for Ids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Which of the two layouts a list of records has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Packed,
    SuperPacked,
}

/// A list of players or groups, of the wire or to be written.
#[derive(Clone, Copy)]
pub struct Players<'a>(PlayerSource<'a>);

#[derive(Clone, Copy)]
enum PlayerSource<'a> {
    /// Exactly `count` sound records.
    Wire {
        form: Form,
        count: usize,
        records: Reader<'a>,
    },
    Slice(&'a [Player<'a>]),
}

impl<'a> Players<'a> {
    pub const NONE: Self = Self(PlayerSource::Slice(&[]));

    /// A list for a message that is to be written.
    pub const fn new(players: &'a [Player<'a>]) -> Self {
        Self(PlayerSource::Slice(players))
    }

    pub const fn len(self) -> usize {
        match self.0 {
            PlayerSource::Wire { count, .. } => count,
            PlayerSource::Slice(players) => players.len(),
        }
    }

    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    pub const fn iter(self) -> PlayerIter<'a> {
        PlayerIter(self.0)
    }

    /// Takes `count` records from `r`. A hostile count ends where the bytes end: every record has at least 20.
    pub(crate) fn parse(form: Form, r: &mut Reader<'a>, count: usize) -> Option<Self> {
        let records = *r;
        for _ in 0..count {
            form.read(r)?;
        }
        Some(Self(PlayerSource::Wire { form, count, records }))
    }

    pub(crate) fn write(self, form: Form, w: &mut Writer<'_>) {
        for player in self {
            match form {
                Form::Packed => player.write_packed(w),
                Form::SuperPacked => player.write_super(w),
            }
        }
    }
}

impl Form {
    fn read<'a>(self, r: &mut Reader<'a>) -> Option<Player<'a>> {
        match self {
            Self::Packed => Player::parse_packed(r),
            Self::SuperPacked => Player::parse_super(r),
        }
    }
}

impl Default for Players<'_> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<'a> IntoIterator for Players<'a> {
    type Item = Player<'a>;
    type IntoIter = PlayerIter<'a>;

    fn into_iter(self) -> PlayerIter<'a> {
        self.iter()
    }
}

impl PartialEq for Players<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Players<'_> {}

impl fmt::Debug for Players<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// See [`Players::iter`].
#[derive(Clone)]
pub struct PlayerIter<'a>(PlayerSource<'a>);

impl<'a> Iterator for PlayerIter<'a> {
    type Item = Player<'a>;

    fn next(&mut self) -> Option<Player<'a>> {
        match &mut self.0 {
            PlayerSource::Wire { count: 0, .. } => None,
            PlayerSource::Wire { form, count, records } => {
                *count -= 1;
                form.read(records)
            }
            PlayerSource::Slice(players) => {
                let (first, rest) = players.split_first()?;
                *players = rest;
                Some(*first)
            }
        }
    }
}

impl fmt::Debug for PlayerIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Players(self.0).fmt(f)
    }
}
