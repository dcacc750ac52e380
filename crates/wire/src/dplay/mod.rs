//! DirectPlay 4 over TCP/IP, as games of 1998-2003 speak it (MC-DPL4CS 20.0; /docs/protocols.md).
//!
//! ```text
//! asker  --UDP broadcast :47624--> ENUMSESSIONS             host  (asker's TCP listener is in the envelope)
//! asker  <--TCP to that listener-- ENUMSESSIONSREPLY        host
//! joiner --TCP to host's listener-> REQUESTPLAYERID 9       host
//! joiner <------------------------ REQUESTPLAYERREPLY       host  (over the host's own connection)
//! joiner ------------------------> ADDFORWARDREQUEST        host --ADDFORWARD--> every other machine
//! joiner <------------------------ SUPERENUMPLAYERSREPLY    host <-ADDFORWARDACK- each of them
//! joiner ----REQUESTPLAYERID 8---> host --REPLY--> joiner --CREATEPLAYER--> every machine
//! player --TCP: envelope, ids, payload (guaranteed) | UDP: ids, payload--> player
//! ```
//!
//! Each direction of TCP has a connection of its own, opened by who sends, to the listener of who receives.
//!
//! **Build** with a [`Sender`], **parse** with [`Packet`]; a TCP stream is cut by [`framing`] or a [`Reassembler`]:
//!
//! ```
//! use wire::dplay::{Body, Content, Dialect, EnumFlags, EnumSessions, Guid, Packet, Sender};
//!
//! let me = Sender::new(2300, Dialect::DX6_1A);
//! let query = EnumSessions { application: Guid([7; 16]), flags: EnumFlags::ALL, password: None };
//! let mut buffer = [0; 1500];
//! let len = me.system(&mut buffer, &Body::EnumSessions(query)).expect("a query has 52 bytes");
//!
//! let packet = Packet::from_datagram(&buffer[..len]);
//! let Content::System(message) = packet.content else { panic!("not a system message") };
//! assert_eq!(message.body, Body::EnumSessions(query));
//! assert_eq!(packet.envelope.expect("system messages have one").sender.port(), 2300);
//! ```
//!
//! **Invariants.** Any bytes can be parsed without panic and without allocation. What was parsed can be written again.
//! What a builder writes parses to the same values. Nothing here prints a password except the `Debug` of the messages
//! that carry one: do not log those.
mod body;
mod constants;
mod envelope;
mod id;
mod message;
mod player;
pub mod protocol;
mod session;
mod stream;
mod text;

pub use body::{
    AddForwardRequest, Chat, Create, DataChanged, EnumSessions, EnumSessionsReply, IAmNameServer, Membership,
    Multicast, NameChanged, Piece, PieceAck, Ping, PlayersReply, RequestId, RequestPlayerReply, SessionDescChanged,
    Voice,
};
pub use constants::{
    Command, Dialect, EnumFlags, HResult, PlayerFlags, QUERY_PORT, SessionFlags, TCP_PORTS, UDP_PORTS,
};
pub use envelope::{ENVELOPE_LEN, Envelope, MESSAGE_LEN_MAX, SpAddresses, Token};
pub use id::{Guid, Id, IdKey};
pub use message::{Body, Content, Header, Message, Packet, SIGNATURE, Sender, UserMessage};
pub use player::{Ids, Player, PlayerIter, Players};
pub use session::SessionDescription;
pub use stream::{Framing, Reassembler, framing};
pub use text::{Text, Units};
