//! What stands behind the message header, command by command (MC-DPL4CS 2.2.8-2.2.55; protocols.md 1.3).
//!
//! One structure serves both ways: parsed, it borrows from the message; written, it borrows from the caller. What a
//! receiver must ignore (spare bytes, unused offsets) is not kept and is written as 0.
//!
//! Trap: **offsets count from "play"**, also where a 20-byte envelope stands in front of it.
use super::constants::{EnumFlags, HResult, PlayerFlags};
use super::id::{Guid, Id};
use super::player::{Form, Player, Players};
use super::session::SessionDescription;
use super::text::{Text, text_at};
use crate::bytes::{Hole, Reader, Writer};

/// Offset at which bodies begin: behind "play", command and dialect.
const BODY: usize = 8;
/// Offset of the packed player in the messages that carry one.
const RECORD: usize = 28;

/// The fixed part of the body of `message`, which begins at "play".
fn fields(message: &[u8]) -> Option<Reader<'_>> {
    message.get(BODY..).map(Reader::new)
}

/// `len` bytes at `offset`, both of the wire.
fn bytes_at(message: &[u8], offset: u32, len: usize) -> Option<&[u8]> {
    message.get(usize::try_from(offset).ok()?..)?.get(..len)
}

/// Everything from `offset` on.
fn tail_at(message: &[u8], offset: u32) -> Option<&[u8]> {
    message.get(usize::try_from(offset).ok()?..)
}

/// Writes a string and its offset into `hole`; the hole stays 0 where it is absent.
fn write_text(w: &mut Writer<'_>, hole: Hole, text: Option<Text<'_>>) {
    if let Some(text) = text {
        w.patch_offset(hole);
        text.write(w);
    }
}

/// A host answers a query. Over TCP, to the port in the query's envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EnumSessionsReply<'a> {
    pub session: SessionDescription,
    pub name: Option<Text<'a>>,
}

impl<'a> EnumSessionsReply<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let session = SessionDescription::parse(message.get(BODY..)?)?;
        let offset = Reader::new(message.get(BODY + SessionDescription::LEN..)?).u32()?;
        Some(Self { session, name: text_at(message, offset)? })
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        self.session.write(w);
        let name = w.hole();
        write_text(w, name, self.name);
    }
}

/// Who plays this game? Broadcast over UDP; the answers come over TCP to the port in the envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EnumSessions<'a> {
    pub application: Guid,
    pub flags: EnumFlags,
    /// In clear text: never log it.
    pub password: Option<Text<'a>>,
}

impl<'a> EnumSessions<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let mut r = fields(message)?;
        let application = Guid(r.array()?);
        let password = text_at(message, r.u32()?)?;
        Some(Self { application, flags: EnumFlags(r.u32()?), password })
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.bytes(&self.application.0);
        let password = w.hole();
        w.u32(self.flags.0);
        write_text(w, password, self.password);
    }
}

/// Asks the host for an id: [`PlayerFlags::SYSTEM`] set is the wish to join.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RequestId {
    pub flags: PlayerFlags,
}

impl RequestId {
    /// What genuine clients send to join.
    pub const SYSTEM_PLAYER: Self = Self { flags: PlayerFlags::SYSTEM.with(PlayerFlags::LOCAL) };
    /// What genuine clients send for each further player.
    pub const PLAYER: Self = Self { flags: PlayerFlags::LOCAL };

    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        Some(Self { flags: PlayerFlags(fields(message)?.u32()?) })
    }

    pub(crate) fn write(self, w: &mut Writer<'_>) {
        w.u32(self.flags.0);
    }
}

/// The host's answer to [`RequestId`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RequestPlayerReply<'a> {
    pub id: Id,
    /// `DPSECURITYDESC`; zero in sessions without authentication.
    pub security: [u8; 24],
    pub sspi_provider: Option<Text<'a>>,
    pub capi_provider: Option<Text<'a>>,
    pub result: HResult,
}

impl<'a> RequestPlayerReply<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let mut r = fields(message)?;
        let id = Id(r.u32()?);
        let security = r.array()?;
        let sspi_provider = text_at(message, r.u32()?)?;
        let capi_provider = text_at(message, r.u32()?)?;
        Some(Self { id, security, sspi_provider, capi_provider, result: HResult(r.u32()?) })
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.id.0);
        w.bytes(&self.security);
        let (sspi, capi) = (w.hole(), w.hole());
        w.u32(self.result.0);
        write_text(w, sspi, self.sspi_provider);
        write_text(w, capi, self.capi_provider);
    }
}

/// A record for one machine: of a player or group that was made, or of a system player that joins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Create<'a> {
    /// The receiver; 0 from genuine clients, to be ignored.
    pub to: Id,
    pub player: Player<'a>,
}

impl<'a> Create<'a> {
    /// Also answers the offset of the password, and what follows the record.
    fn parse_parts(message: &'a [u8]) -> Option<(Self, u32, &'a [u8])> {
        let mut r = fields(message)?;
        let to = Id(r.u32()?);
        let (_player_id, _group_id, record, password) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
        let mut record = Reader::new(tail_at(message, record)?);
        let player = Player::parse_packed(&mut record)?;
        Some((Self { to, player }, password, record.rest()))
    }

    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        Self::parse_parts(message).map(|(create, ..)| create)
    }

    /// Answers the place for the password's offset.
    fn write_parts(&self, w: &mut Writer<'_>) -> Hole {
        w.u32(self.to.0);
        w.u32(self.player.id.0);
        w.u32(0);
        w.len(RECORD);
        let password = w.hole();
        self.player.write_packed(w);
        password
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        self.write_parts(w);
    }

    /// With the six spare bytes that CREATEPLAYER ends with.
    pub(crate) fn write_spare(&self, w: &mut Writer<'_>) {
        self.write_parts(w);
        w.bytes(&[0; 6]);
    }
}

/// A joiner shows the host its system player, and proves that it knows the password.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AddForwardRequest<'a> {
    pub to: Id,
    pub player: Player<'a>,
    /// In clear text: never log it. Genuine clients send an empty one where there is none.
    pub password: Option<Text<'a>>,
    /// Milliseconds since the sender started. Trap: Wine sends the session's id key instead.
    pub tick_count: u32,
}

impl<'a> AddForwardRequest<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let (Create { to, player }, password, rest) = Create::parse_parts(message)?;
        let password = text_at(message, password)?;
        Some(Self { to, player, password, tick_count: u32::from_le_bytes(*rest.last_chunk()?) })
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        let password = Create { to: self.to, player: self.player }.write_parts(w);
        write_text(w, password, self.password);
        w.u32(self.tick_count);
    }
}

/// Who leaves what, or joins what: five commands have this shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    /// The receiver; 0, to be ignored.
    pub to: Id,
    /// The player; the child group where groups are put into groups; 0 in DELETEGROUP.
    pub player: Id,
    /// The group; 0 in DELETEPLAYER.
    pub group: Id,
}

impl Membership {
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let mut r = fields(message)?;
        let it = Self { to: Id(r.u32()?), player: Id(r.u32()?), group: Id(r.u32()?) };
        r.bytes(8)?;
        Some(it)
    }

    pub(crate) fn write(self, w: &mut Writer<'_>) {
        w.words(&[self.to.0, self.player.0, self.group.0, 0, 0]);
    }
}

/// The game's own data of a player or group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DataChanged<'a> {
    pub to: Id,
    pub id: Id,
    pub data: &'a [u8],
}

impl<'a> DataChanged<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let mut r = fields(message)?;
        let (to, id, len) = (Id(r.u32()?), Id(r.u32()?), r.len()?);
        Some(Self { to, id, data: bytes_at(message, r.u32()?, len)? })
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.to.0);
        w.u32(self.id.0);
        w.len(self.data.len());
        let data = w.hole();
        w.patch_offset(data);
        w.bytes(self.data);
    }
}

/// The names of a player or group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NameChanged<'a> {
    pub to: Id,
    pub id: Id,
    pub short_name: Option<Text<'a>>,
    pub long_name: Option<Text<'a>>,
}

impl<'a> NameChanged<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let mut r = fields(message)?;
        let (to, id) = (Id(r.u32()?), Id(r.u32()?));
        Some(Self { to, id, short_name: text_at(message, r.u32()?)?, long_name: text_at(message, r.u32()?)? })
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.to.0);
        w.u32(self.id.0);
        let (short, long) = (w.hole(), w.hole());
        write_text(w, short, self.short_name);
        write_text(w, long, self.long_name);
    }
}

/// One piece of a message that the provider does not take whole (on Windows over IPX: more than 1024 bytes).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Piece<'a> {
    /// Which message it belongs to.
    pub message: Guid,
    pub index: u32,
    /// Where in that message the data goes.
    pub offset: u32,
    pub total_pieces: u32,
    /// Length of that message in bytes.
    pub message_len: u32,
    pub data: &'a [u8],
}

impl<'a> Piece<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let mut r = fields(message)?;
        let (guid, index, len) = (Guid(r.array()?), r.u32()?, r.len()?);
        let (offset, total_pieces, message_len) = (r.u32()?, r.u32()?, r.u32()?);
        let data = bytes_at(message, r.u32()?, len)?;
        Some(Self { message: guid, index, offset, total_pieces, message_len, data })
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.bytes(&self.message.0);
        w.u32(self.index);
        w.len(self.data.len());
        w.words(&[self.offset, self.total_pieces, self.message_len]);
        let data = w.hole();
        w.patch_offset(data);
        w.bytes(self.data);
    }
}

/// "I have that piece"; without it the sender repeats it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PieceAck {
    pub message: Guid,
    pub index: u32,
}

impl PieceAck {
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let mut r = fields(message)?;
        Some(Self { message: Guid(r.array()?), index: r.u32()? })
    }

    pub(crate) fn write(self, w: &mut Writer<'_>) {
        w.bytes(&self.message.0);
        w.u32(self.index);
    }
}

/// Are you there? The answer repeats the tick count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ping {
    /// The sender's system player: of the ping in a ping, of the answer in an answer.
    pub from: Id,
    /// Milliseconds by the clock of who pinged.
    pub tick_count: u32,
}

impl Ping {
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let mut r = fields(message)?;
        Some(Self { from: Id(r.u32()?), tick_count: r.u32()? })
    }

    pub(crate) fn write(self, w: &mut Writer<'_>) {
        w.u32(self.from.0);
        w.u32(self.tick_count);
    }
}

/// The session has new settings, or another name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SessionDescChanged<'a> {
    pub to: Id,
    pub session: SessionDescription,
    pub name: Option<Text<'a>>,
    /// In clear text: never log it.
    pub password: Option<Text<'a>>,
}

impl<'a> SessionDescChanged<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let mut r = fields(message)?;
        let (to, name, password) = (Id(r.u32()?), r.u32()?, r.u32()?);
        let session = SessionDescription::parse(r.rest())?;
        Some(Self { to, session, name: text_at(message, name)?, password: text_at(message, password)? })
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.to.0);
        let (name, password) = (w.hole(), w.hole());
        self.session.write(w);
        write_text(w, name, self.name);
        write_text(w, password, self.password);
    }
}

/// A message that the host is to spread to a group, or that it spreads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Multicast<'a> {
    pub group: Id,
    pub from: Id,
    /// Begins at "play"; no envelope.
    pub message: &'a [u8],
}

impl<'a> Multicast<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let mut r = fields(message)?;
        Some(Self { group: Id(r.u32()?), from: Id(r.u32()?), message: tail_at(message, r.u32()?)? })
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.group.0);
        w.u32(self.from.0);
        let message = w.hole();
        w.patch_offset(message);
        w.bytes(self.message);
    }
}

/// The host shows a machine everybody: with it the machine has **joined**.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PlayersReply<'a> {
    pub session: SessionDescription,
    pub name: Option<Text<'a>>,
    /// In clear text: never log it.
    pub password: Option<Text<'a>>,
    /// System players and ordinary ones.
    pub players: Players<'a>,
    pub groups: Players<'a>,
    /// Groups that contain groups. Always empty in ENUMPLAYERSREPLY, where Windows leaves rubbish in their count.
    pub shortcuts: Players<'a>,
}

impl<'a> PlayersReply<'a> {
    pub(crate) fn parse(message: &'a [u8], form: Form) -> Option<Self> {
        let mut r = fields(message)?;
        let (players, groups, records, shortcuts) = (r.len()?, r.len()?, r.u32()?, r.len()?);
        let session = SessionDescription::parse(tail_at(message, r.u32()?)?)?;
        let name = text_at(message, r.u32()?)?;
        let password = text_at(message, r.u32()?)?;
        // Not "what follows the name": Wine's own tests pad it.
        let mut records = Reader::new(tail_at(message, records)?);
        let shortcuts = if form == Form::SuperPacked { shortcuts } else { 0 };
        Some(Self {
            session,
            name,
            password,
            players: Players::parse(form, &mut records, players)?,
            groups: Players::parse(form, &mut records, groups)?,
            shortcuts: Players::parse(form, &mut records, shortcuts)?,
        })
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>, form: Form) {
        w.len(self.players.len());
        w.len(self.groups.len());
        let records = w.hole();
        w.len(if form == Form::SuperPacked { self.shortcuts.len() } else { 0 });
        let (session, name, password) = (w.hole(), w.hole(), w.hole());
        w.patch_offset(session);
        self.session.write(w);
        write_text(w, name, self.name);
        write_text(w, password, self.password);
        w.patch_offset(records);
        self.players.write(form, w);
        self.groups.write(form, w);
        if form == Form::SuperPacked {
            self.shortcuts.write(form, w);
        }
    }
}

/// Text from player to player.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chat<'a> {
    pub from: Id,
    /// A player or group, or [`Id::NONE`] for everyone.
    pub to: Id,
    /// 1 = guaranteed.
    pub flags: u32,
    pub text: Option<Text<'a>>,
}

impl<'a> Chat<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let mut r = fields(message)?;
        Some(Self { from: Id(r.u32()?), to: Id(r.u32()?), flags: r.u32()?, text: text_at(message, r.u32()?)? })
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.words(&[self.from.0, self.to.0, self.flags]);
        let text = w.hole();
        write_text(w, text, self.text);
    }
}

/// Host migration: the sender is host from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IAmNameServer<'a> {
    pub to: Id,
    /// The new host's system player.
    pub host: Id,
    pub flags: PlayerFlags,
    /// See [`Player::sp_data`].
    pub sp_data: &'a [u8],
}

impl<'a> IAmNameServer<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let mut r = fields(message)?;
        let (to, host, flags) = (Id(r.u32()?), Id(r.u32()?), PlayerFlags(r.u32()?));
        let len = r.len()?;
        Some(Self { to, host, flags, sp_data: r.bytes(len)? })
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.words(&[self.to.0, self.host.0, self.flags.0]);
        w.len(self.sp_data.len());
        w.bytes(self.sp_data);
    }
}

/// A message of DirectPlay Voice (MC-DPLVP).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Voice<'a> {
    pub from: Id,
    pub to: Id,
    pub data: &'a [u8],
}

impl<'a> Voice<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let mut r = fields(message)?;
        Some(Self { from: Id(r.u32()?), to: Id(r.u32()?), data: r.rest() })
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.from.0);
        w.u32(self.to.0);
        w.bytes(self.data);
    }
}
