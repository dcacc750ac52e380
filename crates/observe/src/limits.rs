//! How much is remembered. Everything that a frame can make grow has its limit here.
use std::time::Duration;

/// Most of what an [`crate::Observer`] remembers, whatever it is given. What is full drops the entry that was used the
/// longest ago, unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Cards (MAC addresses), with their timelines.
    pub machines: usize,
    /// DirectPlay 4 sessions, and as many of DirectPlay 8.
    pub sessions: usize,
    /// Players, system players and groups of one session, each. Full: one that left goes; if none did, the newcomer is
    /// not taken in.
    pub players: usize,
    /// Processes that speak DirectPlay: a machine and its listening port.
    pub processes: usize,
    /// Directions of TCP connections.
    pub tcp_directions: usize,
    /// Bytes that all TCP directions hold together. Full: the direction that was used the longest ago drops what it has.
    pub tcp_bytes: usize,
    /// Bytes that arrived ahead of a gap in one direction. Full: the gap counts as lost.
    pub tcp_ahead_bytes: usize,
    /// How long a gap may stay open, by the frames' times.
    pub tcp_gap: Duration,
    /// IPv4 packets and DirectPlay messages that wait for their other pieces, each.
    pub fragments: usize,
    /// Bytes that those hold together, each kind. Full: the oldest goes.
    pub fragment_bytes: usize,
    /// Pairs of addresses: user messages and round trips, each.
    pub pairs: usize,
    /// Lines of chat, refusals, leaves, askers, each. Full: the oldest goes.
    pub lines: usize,
    /// Names of NetBIOS and SAP, IPX stations, clients of an IPX tunnel, each.
    pub names: usize,
    /// Lines of anomalies.
    pub anomalies: usize,
    /// Characters of any text.
    pub text: usize,
    /// [`crate::Observer::tick`] takes a machine of a session for gone when it was silent for so long.
    pub silence: Duration,
}

impl Default for Limits {
    /// For a node with some hundred guests: a few MiB when in use, less than 100 MiB under attack.
    fn default() -> Self {
        Self {
            machines: 4096,
            sessions: 256,
            players: 256,
            processes: 4096,
            tcp_directions: 8192,
            tcp_bytes: 16 << 20,
            tcp_ahead_bytes: 256 << 10,
            tcp_gap: Duration::from_secs(3),
            fragments: 256,
            fragment_bytes: 4 << 20,
            pairs: 8192,
            lines: 1024,
            names: 4096,
            anomalies: 256,
            text: 256,
            silence: Duration::from_mins(2),
        }
    }
}
