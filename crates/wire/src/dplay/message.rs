//! Whole messages: header and body, with and without envelope; user messages (MC-DPL4CS 2.2.6, 2.2.45; protocols.md 1.2).
use core::net::SocketAddrV4;

use super::body::{
    AddForwardRequest, Chat, Create, DataChanged, EnumSessions, EnumSessionsReply, IAmNameServer, Membership,
    Multicast, NameChanged, Piece, PieceAck, Ping, PlayersReply, RequestId, RequestPlayerReply, SessionDescChanged,
    Voice,
};
use super::constants::{Command, Dialect, HResult};
use super::envelope::{ENVELOPE_LEN, Envelope, seal};
use super::id::Id;
use super::player::Form;
use crate::bytes::{Reader, Writer};

/// "play".
pub const SIGNATURE: [u8; 4] = *b"play";

/// The body of a system message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Body<'a> {
    EnumSessionsReply(EnumSessionsReply<'a>),
    EnumSessions(EnumSessions<'a>),
    EnumPlayersReply(PlayersReply<'a>),
    EnumPlayer,
    RequestPlayerId(RequestId),
    RequestGroupId(RequestId),
    RequestPlayerReply(RequestPlayerReply<'a>),
    CreatePlayer(Create<'a>),
    CreateGroup(Create<'a>),
    DeletePlayer(Membership),
    DeleteGroup(Membership),
    AddPlayerToGroup(Membership),
    DeletePlayerFromGroup(Membership),
    PlayerDataChanged(DataChanged<'a>),
    PlayerNameChanged(NameChanged<'a>),
    GroupDataChanged(DataChanged<'a>),
    GroupNameChanged(NameChanged<'a>),
    AddForwardRequest(AddForwardRequest<'a>),
    Packet(Piece<'a>),
    Ping(Ping),
    PingReply(Ping),
    YouAreDead,
    /// A user message in a session without [`super::SessionFlags::NO_MESSAGE_ID`]: see [`UserMessage::parse`].
    PlayerWrapper(&'a [u8]),
    SessionDescChanged(SessionDescChanged<'a>),
    /// The host refuses a join that had got as far as ADDFORWARDREQUEST.
    AddForwardReply(HResult),
    AskForMulticast(Multicast<'a>),
    AskForMulticastGuaranteed(Multicast<'a>),
    AddShortcutToGroup(Membership),
    DeleteGroupFromGroup(Membership),
    SuperEnumPlayersReply(PlayersReply<'a>),
    Chat(Chat<'a>),
    /// The host shows the others a machine that joins; its SP data has the real address here.
    AddForward(Create<'a>),
    /// "I know that machine": the id of its system player.
    AddForwardAck(Id),
    Packet2Data(Piece<'a>),
    Packet2Ack(PieceAck),
    IAmNameServer(IAmNameServer<'a>),
    Voice(Voice<'a>),
    MulticastDelivery(Multicast<'a>),
    CreatePlayerVerify(Create<'a>),
    /// Sessions with authentication, and what no table knows: the bytes behind the header.
    Other(Command, &'a [u8]),
}

impl<'a> Body<'a> {
    /// Reads the body of `message`, which begins at "play".
    fn parse(command: Command, message: &'a [u8]) -> Option<Self> {
        let rest = || message.get(8..);
        let word = || Reader::new(rest()?).u32();
        Some(match command {
            Command::ENUM_SESSIONS_REPLY => Self::EnumSessionsReply(EnumSessionsReply::parse(message)?),
            Command::ENUM_SESSIONS => Self::EnumSessions(EnumSessions::parse(message)?),
            Command::ENUM_PLAYERS_REPLY => Self::EnumPlayersReply(PlayersReply::parse(message, Form::Packed)?),
            Command::ENUM_PLAYER => Self::EnumPlayer,
            Command::REQUEST_PLAYER_ID => Self::RequestPlayerId(RequestId::parse(message)?),
            Command::REQUEST_GROUP_ID => Self::RequestGroupId(RequestId::parse(message)?),
            Command::REQUEST_PLAYER_REPLY => Self::RequestPlayerReply(RequestPlayerReply::parse(message)?),
            Command::CREATE_PLAYER => Self::CreatePlayer(Create::parse(message)?),
            Command::CREATE_GROUP => Self::CreateGroup(Create::parse(message)?),
            Command::DELETE_PLAYER => Self::DeletePlayer(Membership::parse(message)?),
            Command::DELETE_GROUP => Self::DeleteGroup(Membership::parse(message)?),
            Command::ADD_PLAYER_TO_GROUP => Self::AddPlayerToGroup(Membership::parse(message)?),
            Command::DELETE_PLAYER_FROM_GROUP => Self::DeletePlayerFromGroup(Membership::parse(message)?),
            Command::PLAYER_DATA_CHANGED => Self::PlayerDataChanged(DataChanged::parse(message)?),
            Command::PLAYER_NAME_CHANGED => Self::PlayerNameChanged(NameChanged::parse(message)?),
            Command::GROUP_DATA_CHANGED => Self::GroupDataChanged(DataChanged::parse(message)?),
            Command::GROUP_NAME_CHANGED => Self::GroupNameChanged(NameChanged::parse(message)?),
            Command::ADD_FORWARD_REQUEST => Self::AddForwardRequest(AddForwardRequest::parse(message)?),
            Command::PACKET => Self::Packet(Piece::parse(message)?),
            Command::PING => Self::Ping(Ping::parse(message)?),
            Command::PING_REPLY => Self::PingReply(Ping::parse(message)?),
            Command::YOU_ARE_DEAD => Self::YouAreDead,
            Command::PLAYER_WRAPPER => Self::PlayerWrapper(rest()?),
            Command::SESSION_DESC_CHANGED => Self::SessionDescChanged(SessionDescChanged::parse(message)?),
            Command::ADD_FORWARD_REPLY => Self::AddForwardReply(HResult(word()?)),
            Command::ASK_FOR_MULTICAST => Self::AskForMulticast(Multicast::parse(message)?),
            Command::ASK_FOR_MULTICAST_GUARANTEED => Self::AskForMulticastGuaranteed(Multicast::parse(message)?),
            Command::ADD_SHORTCUT_TO_GROUP => Self::AddShortcutToGroup(Membership::parse(message)?),
            Command::DELETE_GROUP_FROM_GROUP => Self::DeleteGroupFromGroup(Membership::parse(message)?),
            Command::SUPER_ENUM_PLAYERS_REPLY => {
                Self::SuperEnumPlayersReply(PlayersReply::parse(message, Form::SuperPacked)?)
            }
            Command::CHAT => Self::Chat(Chat::parse(message)?),
            Command::ADD_FORWARD => Self::AddForward(Create::parse(message)?),
            Command::ADD_FORWARD_ACK => Self::AddForwardAck(Id(word()?)),
            Command::PACKET2_DATA => Self::Packet2Data(Piece::parse(message)?),
            Command::PACKET2_ACK => Self::Packet2Ack(PieceAck::parse(message)?),
            Command::I_AM_NAME_SERVER => Self::IAmNameServer(IAmNameServer::parse(message)?),
            Command::VOICE => Self::Voice(Voice::parse(message)?),
            Command::MULTICAST_DELIVERY => Self::MulticastDelivery(Multicast::parse(message)?),
            Command::CREATE_PLAYER_VERIFY => Self::CreatePlayerVerify(Create::parse(message)?),
            other => Self::Other(other, rest()?),
        })
    }

    pub const fn command(&self) -> Command {
        match self {
            Self::EnumSessionsReply(_) => Command::ENUM_SESSIONS_REPLY,
            Self::EnumSessions(_) => Command::ENUM_SESSIONS,
            Self::EnumPlayersReply(_) => Command::ENUM_PLAYERS_REPLY,
            Self::EnumPlayer => Command::ENUM_PLAYER,
            Self::RequestPlayerId(_) => Command::REQUEST_PLAYER_ID,
            Self::RequestGroupId(_) => Command::REQUEST_GROUP_ID,
            Self::RequestPlayerReply(_) => Command::REQUEST_PLAYER_REPLY,
            Self::CreatePlayer(_) => Command::CREATE_PLAYER,
            Self::CreateGroup(_) => Command::CREATE_GROUP,
            Self::DeletePlayer(_) => Command::DELETE_PLAYER,
            Self::DeleteGroup(_) => Command::DELETE_GROUP,
            Self::AddPlayerToGroup(_) => Command::ADD_PLAYER_TO_GROUP,
            Self::DeletePlayerFromGroup(_) => Command::DELETE_PLAYER_FROM_GROUP,
            Self::PlayerDataChanged(_) => Command::PLAYER_DATA_CHANGED,
            Self::PlayerNameChanged(_) => Command::PLAYER_NAME_CHANGED,
            Self::GroupDataChanged(_) => Command::GROUP_DATA_CHANGED,
            Self::GroupNameChanged(_) => Command::GROUP_NAME_CHANGED,
            Self::AddForwardRequest(_) => Command::ADD_FORWARD_REQUEST,
            Self::Packet(_) => Command::PACKET,
            Self::Ping(_) => Command::PING,
            Self::PingReply(_) => Command::PING_REPLY,
            Self::YouAreDead => Command::YOU_ARE_DEAD,
            Self::PlayerWrapper(_) => Command::PLAYER_WRAPPER,
            Self::SessionDescChanged(_) => Command::SESSION_DESC_CHANGED,
            Self::AddForwardReply(_) => Command::ADD_FORWARD_REPLY,
            Self::AskForMulticast(_) => Command::ASK_FOR_MULTICAST,
            Self::AskForMulticastGuaranteed(_) => Command::ASK_FOR_MULTICAST_GUARANTEED,
            Self::AddShortcutToGroup(_) => Command::ADD_SHORTCUT_TO_GROUP,
            Self::DeleteGroupFromGroup(_) => Command::DELETE_GROUP_FROM_GROUP,
            Self::SuperEnumPlayersReply(_) => Command::SUPER_ENUM_PLAYERS_REPLY,
            Self::Chat(_) => Command::CHAT,
            Self::AddForward(_) => Command::ADD_FORWARD,
            Self::AddForwardAck(_) => Command::ADD_FORWARD_ACK,
            Self::Packet2Data(_) => Command::PACKET2_DATA,
            Self::Packet2Ack(_) => Command::PACKET2_ACK,
            Self::IAmNameServer(_) => Command::I_AM_NAME_SERVER,
            Self::Voice(_) => Command::VOICE,
            Self::MulticastDelivery(_) => Command::MULTICAST_DELIVERY,
            Self::CreatePlayerVerify(_) => Command::CREATE_PLAYER_VERIFY,
            Self::Other(command, _) => *command,
        }
    }

    fn write(&self, w: &mut Writer<'_>) {
        match self {
            Self::EnumSessionsReply(body) => body.write(w),
            Self::EnumSessions(body) => body.write(w),
            Self::EnumPlayersReply(body) => body.write(w, Form::Packed),
            Self::SuperEnumPlayersReply(body) => body.write(w, Form::SuperPacked),
            Self::EnumPlayer | Self::YouAreDead => {}
            Self::RequestPlayerId(body) | Self::RequestGroupId(body) => body.write(w),
            Self::RequestPlayerReply(body) => body.write(w),
            Self::CreatePlayer(body) | Self::CreatePlayerVerify(body) => body.write_spare(w),
            Self::CreateGroup(body) | Self::AddForward(body) => body.write(w),
            Self::DeletePlayer(body)
            | Self::DeleteGroup(body)
            | Self::AddPlayerToGroup(body)
            | Self::DeletePlayerFromGroup(body)
            | Self::AddShortcutToGroup(body)
            | Self::DeleteGroupFromGroup(body) => body.write(w),
            Self::PlayerDataChanged(body) | Self::GroupDataChanged(body) => body.write(w),
            Self::PlayerNameChanged(body) | Self::GroupNameChanged(body) => body.write(w),
            Self::AddForwardRequest(body) => body.write(w),
            Self::Packet(body) | Self::Packet2Data(body) => body.write(w),
            Self::Packet2Ack(body) => body.write(w),
            Self::Ping(body) | Self::PingReply(body) => body.write(w),
            Self::PlayerWrapper(bytes) | Self::Other(_, bytes) => w.bytes(bytes),
            Self::SessionDescChanged(body) => body.write(w),
            Self::AddForwardReply(result) => w.u32(result.0),
            Self::AskForMulticast(body) | Self::AskForMulticastGuaranteed(body) | Self::MulticastDelivery(body) => {
                body.write(w);
            }
            Self::Chat(body) => body.write(w),
            Self::AddForwardAck(id) => w.u32(id.0),
            Self::IAmNameServer(body) => body.write(w),
            Self::Voice(body) => body.write(w),
        }
    }
}

/// Command and dialect of a system message; readable even where its body is malformed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub command: Command,
    pub dialect: Dialect,
}

impl Header {
    /// Reads "play", command, dialect. Trap: MC-DPL4CS draws the dialect first; the wire has the command first.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let mut r = Reader::new(message);
        if r.array()? != SIGNATURE {
            return None;
        }
        Some(Self { command: Command(r.u16()?), dialect: Dialect(r.u16()?) })
    }
}

/// A system message, from "play" on: what is left without the envelope, and all there is over IPX.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    pub dialect: Dialect,
    pub body: Body<'a>,
}

impl<'a> Message<'a> {
    /// `None` for what does not begin with "play", and where the body is malformed: too short, an offset past its end,
    /// a record that does not add up. An unterminated string is taken to the end.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let Header { command, dialect } = Header::parse(bytes)?;
        Some(Self { dialect, body: Body::parse(command, bytes)? })
    }

    /// Writes it without envelope; answers its length, or `None` where `buffer` is too small.
    pub fn write(&self, buffer: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(buffer);
        self.write_to(&mut writer);
        writer.finish()
    }

    fn write_to(&self, w: &mut Writer<'_>) {
        w.set_origin();
        w.bytes(&SIGNATURE);
        w.u16(self.body.command().0);
        w.u16(self.dialect.0);
        self.body.write(w);
    }
}

/// A message of the game itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserMessage<'a> {
    pub from: Id,
    /// [`Id::NONE`] = everyone.
    pub to: Id,
    pub payload: &'a [u8],
}

impl<'a> UserMessage<'a> {
    /// Reads the two ids and takes the rest as payload.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        Some(Self { from: Id(r.u32()?), to: Id(r.u32()?), payload: r.rest() })
    }

    fn write_to(&self, w: &mut Writer<'_>) {
        w.u32(self.from.0);
        w.u32(self.to.0);
        w.bytes(self.payload);
    }
}

/// What stands behind an envelope.
#[expect(clippy::large_enum_variant, reason = "nothing to put the large one into: no allocation")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content<'a> {
    System(Message<'a>),
    /// No "play": a user message, see [`UserMessage::parse`]. Raw, because sessions with
    /// [`super::SessionFlags::NO_MESSAGE_ID`] may leave the ids out.
    User(&'a [u8]),
    /// A system message with a malformed body.
    Malformed(Header),
}

impl<'a> Content<'a> {
    fn parse(bytes: &'a [u8]) -> Self {
        match (Message::parse(bytes), Header::parse(bytes)) {
            (Some(message), _) => Self::System(message),
            (None, Some(header)) => Self::Malformed(header),
            (None, None) => Self::User(bytes),
        }
    }
}

/// A message with its envelope, if it has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// Absent in user messages over UDP, and over IPX.
    pub envelope: Option<Envelope>,
    pub content: Content<'a>,
}

impl<'a> Packet<'a> {
    /// Reads a message of a TCP stream; [`super::framing`] says where it ends. `None` without a sound envelope, and
    /// where `bytes` are fewer than it says; what follows is ignored.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (envelope, size) = Envelope::parse(bytes)?;
        let content = bytes.get(..size)?.get(ENVELOPE_LEN..)?;
        Some(Self { envelope: Some(envelope), content: Content::parse(content) })
    }

    /// Reads a datagram, which is a message with envelope, a system message without (IPX), or a user message without.
    ///
    /// Trap: anything at all is a user message. Ask for known endpoints and a known sender id before believing it.
    pub fn from_datagram(bytes: &'a [u8]) -> Self {
        match Envelope::parse(bytes) {
            Some((_, size)) if size == bytes.len() => Self::parse(bytes),
            _ => None,
        }
        .unwrap_or_else(|| Self { envelope: None, content: Content::parse(bytes) })
    }
}

/// Who speaks: what a peer's own messages have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender {
    pub envelope: Envelope,
    pub dialect: Dialect,
}

impl Sender {
    /// A peer with its TCP listener at `tcp_port`.
    pub const fn new(tcp_port: u16, dialect: Dialect) -> Self {
        Self { envelope: Envelope::from_port(tcp_port), dialect }
    }

    /// Where the sender listens.
    pub const fn listener(&self) -> SocketAddrV4 {
        self.envelope.sender
    }

    /// Writes a system message with envelope, for TCP and for UDP alike. Answers its length; `None` where `buffer` is
    /// too small or the message would exceed [`super::MESSAGE_LEN_MAX`].
    pub fn system(&self, buffer: &mut [u8], body: &Body<'_>) -> Option<usize> {
        self.enveloped(buffer, |w| Message { dialect: self.dialect, body: *body }.write_to(w))
    }

    /// Writes a guaranteed user message, for TCP.
    pub fn user_guaranteed(&self, buffer: &mut [u8], message: &UserMessage<'_>) -> Option<usize> {
        self.enveloped(buffer, |w| message.write_to(w))
    }

    /// Writes an unguaranteed user message, for UDP: no envelope. One that would pass for a system message, because it
    /// has "play" at its offset 20, is wrapped in PLAYERWRAPPER (MC-DPL4CS 3.1.4.16.2).
    pub fn user_datagram(&self, buffer: &mut [u8], message: &UserMessage<'_>) -> Option<usize> {
        if message.payload.get(12..16) == Some(&SIGNATURE) {
            return self.enveloped(buffer, |w| {
                Message { dialect: self.dialect, body: Body::PlayerWrapper(&[]) }.write_to(w);
                message.write_to(w);
            });
        }
        let mut writer = Writer::new(buffer);
        message.write_to(&mut writer);
        writer.finish()
    }

    fn enveloped(&self, buffer: &mut [u8], content: impl FnOnce(&mut Writer<'_>)) -> Option<usize> {
        let mut writer = Writer::new(buffer);
        self.envelope.write(&mut writer);
        content(&mut writer);
        let len = writer.finish()?;
        *buffer.first_chunk_mut()? = seal(self.envelope.token, len)?;
        Some(len)
    }
}
