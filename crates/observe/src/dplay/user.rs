//! What players say to each other: user messages with and without envelope, pieces of messages, messages in messages,
//! frames of the DirectPlay protocol (protocols.md 1.2, 2).
//!
//! A datagram without envelope is a user message only by circumstances: its ports were announced, or both are of the range
//! for it; and its first word is the id of a player. Where nothing is known (a late start), the second one with the same id
//! between the same ports is believed.
use wire::dplay::{
    Content, Header, Id, Message, Packet, Piece, SessionFlags, UDP_PORTS, UserMessage,
    protocol::{self, DataFlags},
};

use super::{Ends, Games, Notes, Process, SessionKey, Transport, Via, roster::plays};
use crate::anomalies::Kind;

/// Longest message that is put together from pieces: as over TCP.
const MESSAGE_MAX: u32 = 1 << 20;

impl Games {
    /// Two ids and a payload, by somebody who speaks DirectPlay for certain.
    pub(super) fn user_message(&mut self, via: &Via, ends: Ends, bytes: &[u8], notes: &mut Notes<'_>) {
        let message = UserMessage::parse(bytes);
        let ids = message.map_or([Id::NONE; 2], |message| [message.from, message.to]);
        let key = match self.session_of(ends, &ids) {
            Some(key) => key,
            None if message.is_some() => self.session_of_members(via, ends, &ids, "user message"),
            None => return,
        };
        let without_ids = self.flags(key).is_some_and(|flags| flags.contains(SessionFlags::NO_MESSAGE_ID));
        match message {
            Some(message) if !without_ids || self.knows(key, message.from) => {
                self.attribute(key, via, ends, message.from, notes);
            }
            Some(_) => {}
            None if without_ids => {}
            None => {
                notes.anomalies.station(Kind::DplayMalformed, via.from, via.stamp(), || {
                    format!("a user message of {} bytes from {} has no room for its ids", bytes.len(), via.from)
                });
                return;
            }
        }
        self.alive(ends.from, via.stamp().at);
        self.count_user(via);
        plays(key, via, notes);
    }

    fn count_user(&mut self, via: &Via) {
        let (datagrams, tcp) = self.user.entry((via.from, via.to), || (0, 0));
        *(if via.transport == Transport::Tcp { tcp } else { datagrams }) += 1;
    }

    /// Whose message it is. A player of another machine cannot have sent it.
    fn attribute(&mut self, key: SessionKey, via: &Via, ends: Ends, from: Id, notes: &mut Notes<'_>) {
        let relayed = self.flags(key).is_some_and(|flags| {
            flags.contains(SessionFlags::MULTICAST_SERVER) || flags.contains(SessionFlags::CLIENT_SERVER)
        });
        let owner = self.sessions.get(&key).and_then(|session| {
            let player = session.players.get(&from).filter(|player| player.announced)?;
            session.systems.get(&player.system?)?.process
        });
        let sender = ends.from.filter(|_| !relayed);
        if let (Some(owner), Some(sender)) = (owner, sender)
            && owner.station != sender.station
        {
            notes.anomalies.station(Kind::ForgedId, via.from, via.stamp(), || {
                format!("{} speaks as player {from} of {}", via.from, owner.station)
            });
            return;
        }
        self.player_acts(key, via, from, ends.from, "user message");
    }

    fn flags(&self, key: SessionKey) -> Option<SessionFlags> {
        self.sessions.get(&key)?.flags
    }

    fn knows(&self, key: SessionKey, id: Id) -> bool {
        self.sessions.get(&key).is_some_and(|session| session.knows(id))
    }

    /// A datagram that is no system message and has no envelope; most are not DirectPlay's at all.
    pub(crate) fn bare_datagram(&mut self, via: &Via, bytes: &[u8], notes: &mut Notes<'_>) {
        let process = |station, port| match via.transport {
            Transport::Ipx => Some(Process { station, port }).filter(|process| self.programs.contains(process)),
            _ => self.datagram_ports.get(&(station, port)).copied(),
        };
        let ends = Ends { from: process(via.from, via.from_port), to: process(via.to, via.to_port) };
        let in_range =
            via.transport == Transport::Udp && [via.from_port, via.to_port].iter().all(|port| UDP_PORTS.contains(port));
        if !in_range && ends.from.is_none() && ends.to.is_none() {
            return;
        }
        let Some(message) = UserMessage::parse(bytes) else { return };
        let key = self.session_of(ends, &[message.from, message.to]);
        let known = key.is_some_and(|key| self.knows(key, message.from) || self.knows(key, message.to));
        let with_protocol =
            key.and_then(|key| self.flags(key)).is_some_and(|flags| flags.contains(SessionFlags::DIRECT_PLAY_PROTOCOL));
        if !known && let Some(frame) = protocol::Frame::parse(bytes) {
            let certain = match frame.kind {
                protocol::Kind::Data(data) => data.begins_system(),
                protocol::Kind::Ack(_) | protocol::Kind::Nack(_) => true,
            };
            if certain || with_protocol {
                return self.protocol_frame(via, ends, key, &frame, notes);
            }
        }
        if with_protocol && !known || message.from == Id::NONE && key.is_none() {
            return;
        }
        match key {
            Some(_) if known || ends.from.is_some() && self.is_likely(key, message.from) => {
                self.user_message(via, ends, bytes, notes);
            }
            _ if in_range => self.stranger(via, bytes, message.from, notes),
            _ => {}
        }
    }

    /// May `id` be a player's whom no message showed? Where the session's ids follow its key, this one has to.
    fn is_likely(&self, key: Option<SessionKey>, id: Id) -> bool {
        let Some(session) = key.and_then(|key| self.sessions.get(&key)) else { return false };
        let Some(id_key) = session.key else { return id != Id::NONE };
        let follows = |id: Id| id_key.index(id) < 0x1000;
        let rule = !session.systems.is_empty() && session.systems.keys().all(|id| follows(*id));
        id != Id::NONE && (!rule || follows(id))
    }

    /// Nothing is known of the sender: believed at the second time, then the first counts, too.
    fn stranger(&mut self, via: &Via, bytes: &[u8], id: Id, notes: &mut Notes<'_>) {
        let process = Process { station: via.from, port: via.from_port };
        let other = Process { station: via.to, port: via.to_port };
        let seen = self.strangers.entry((process, other, id), || 0);
        *seen += 1;
        let seen = *seen;
        if seen < 2 || id == Id::NONE {
            return;
        }
        // The program's listening port is not known: its datagram port names it until then.
        let ends = Ends { from: Some(process), to: Some(other) };
        self.datagram_ports.insert((via.from, via.from_port), process);
        if !matches!(via.to, crate::stamp::Station::Ip(ip) if ip.is_broadcast()) {
            self.datagram_ports.insert((via.to, via.to_port), other);
        }
        if seen == 2 {
            self.count_user(via);
        }
        self.user_message(via, ends, bytes, notes);
    }

    /// A frame of a session with the DirectPlay protocol. Retries are not counted again.
    fn protocol_frame(
        &mut self,
        via: &Via,
        ends: Ends,
        key: Option<SessionKey>,
        frame: &protocol::Frame<'_>,
        notes: &mut Notes<'_>,
    ) {
        self.alive(ends.from, via.stamp().at);
        let protocol::Kind::Data(data) = frame.kind else { return };
        if data.serial != 0 || !data.flags.contains(DataFlags::START) {
            return;
        }
        if data.begins_system() {
            match data.system() {
                Some(message) => self.system(via, ends, &message, notes),
                // It goes on in the next frame: only what it is can be told.
                None => {
                    if let Some(header) = Header::parse(data.payload) {
                        self.count(header.command);
                    }
                }
            }
            return;
        }
        let Some(key) = key else { return };
        let from = self.sessions.get(&key).and_then(|session| {
            let key = session.key?;
            session.players.keys().copied().find(|id| frame.from.is_of(*id, key))
        });
        if let Some(from) = from {
            self.attribute(key, via, ends, from, notes);
        }
        self.count_user(via);
        plays(key, via, notes);
    }

    /// A piece of a larger message.
    pub(super) fn piece(&mut self, via: &Via, ends: Ends, piece: &Piece<'_>, notes: &mut Notes<'_>) {
        let fits = piece.message_len <= MESSAGE_MAX
            && piece
                .offset
                .checked_add(u32::try_from(piece.data.len()).unwrap_or(u32::MAX))
                .is_some_and(|end| end <= piece.message_len);
        if !fits || piece.total_pieces > MESSAGE_MAX {
            notes.anomalies.station(Kind::DplayPieces, via.from, via.stamp(), || {
                format!("a piece from {} lies outside its message", via.from)
            });
            return;
        }
        // Both fit: they are at most MESSAGE_MAX.
        let (at, total) = (piece.offset as usize, piece.message_len as usize);
        let key = (via.from, piece.message);
        if let Some(whole) = self.pieces.add(key, at, piece.data, Some(total), via.stamp().at) {
            self.inner(via, ends, &whole, notes);
        }
    }

    /// A message that came inside another one: from "play" on, or with its envelope, or a user message.
    pub(super) fn inner(&mut self, via: &Via, ends: Ends, bytes: &[u8], notes: &mut Notes<'_>) {
        match Packet::from_datagram(bytes).content {
            Content::System(message) if !is_container(&message) => self.system(via, ends, &message, notes),
            // Containers in containers: nobody does that but to hurt.
            Content::System(_) => {}
            Content::Malformed(header) => {
                self.count(header.command);
            }
            Content::User(bytes) => {
                let from = UserMessage::parse(bytes).map(|message| message.from);
                let known = from.zip(self.session_of(ends, &[])).is_some_and(|(from, key)| self.knows(key, from));
                if known {
                    self.user_message(via, ends, bytes, notes);
                }
            }
        }
    }

    /// SIGNED: id, offset of the data, its size, … The data begins with "play" unless it is encrypted.
    pub(super) fn signed(&mut self, via: &Via, ends: Ends, body: &[u8], notes: &mut Notes<'_>) {
        let word = |at: usize| {
            let bytes = body.get(at..)?.first_chunk::<4>()?;
            usize::try_from(u32::from_le_bytes(*bytes)).ok()
        };
        // Offsets count from "play", eight bytes before the body.
        let data = word(4).zip(word(8)).and_then(|(at, len)| body.get(at.checked_sub(8)?..)?.get(..len));
        if let Some(data) = data.filter(|data| data.starts_with(&wire::dplay::SIGNATURE)) {
            self.inner(via, ends, data, notes);
        }
    }
}

fn is_container(message: &Message<'_>) -> bool {
    use wire::dplay::{Body, Command};
    matches!(
        message.body,
        Body::Packet(_)
            | Body::Packet2Data(_)
            | Body::AskForMulticast(_)
            | Body::AskForMulticastGuaranteed(_)
            | Body::MulticastDelivery(_)
            | Body::Other(Command::SIGNED, _)
    )
}
