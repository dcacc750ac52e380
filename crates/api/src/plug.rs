//! A machine outside of the cluster on a LAN: `GET …/lans/{lan}/plug?machine=ID` with an upgrade to a WebSocket (RFC 6455), at the
//! agent and at the gateway.
//!
//! ```text
//!  loco plug ── GET, bearer token, Upgrade: websocket ──> agent: 101, or an error body as everywhere
//!            <── text: Plugged ──
//!            <── binary: one Ethernet frame each, both ways ──>        ping each 10 s; 30 s of silence end it
//!            <── close: a code of below and a sentence ──
//! ```
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugged {
    pub node: String,
    pub lan: String,
}

/// Why it was closed: it would be the same again, until somebody changes something.
pub const CLOSE_FINAL: u16 = 4403;
/// Why it was closed: it may be tried again.
pub const CLOSE_AGAIN: u16 = 4409;

/// How often the agent asks whether the other side is there.
pub const PING_EVERY: Duration = Duration::from_secs(10);
/// Either side that hears nothing for so long takes the other for gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Longest message; frames that are too long for a LAN are refused and counted, what is longer than this ends the connection.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Set by the gateway, as its own address says nothing: who plugs the machine in.
pub const REMOTE_HEADER: &str = "x-loco-remote";

/// Whether `text` can be what a machine calls itself: 8 to 64 letters and digits. The same again takes the place of itself.
pub fn is_machine(text: &str) -> bool {
    (8..=64).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_alphanumeric())
}
