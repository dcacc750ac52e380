//! What a relay says about itself.
use std::{net::SocketAddrV4, ops, time::Duration};

use wire::{MacAddr, frame::FrameFormat};

/// Why something was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drop {
    /// No IPX packet, or one that cannot be.
    Malformed,
    /// From a UDP address without a node.
    Unknown,
    /// With a source that is not the client's node.
    Source,
    /// Its client, or the LAN, sent too much.
    Rate,
    /// NetBIOS, which is not allowed.
    NetBios,
    /// Was passed on sixteen times.
    Hops,
    /// Goes in a circle: our own frame came back, or the same packet came over and over.
    Loop,
    /// To a client itself, or to a node that nobody can have.
    Destination,
    /// Longer than a frame in that framing can be.
    TooLong,
    /// No room for one more client.
    Full,
    /// Too many newcomers at once.
    Newcomers,
    /// The kernel did not take it.
    Lost,
}

impl Drop {
    pub const ALL: [Self; 12] = [
        Self::Malformed,
        Self::Unknown,
        Self::Source,
        Self::Rate,
        Self::NetBios,
        Self::Hops,
        Self::Loop,
        Self::Destination,
        Self::TooLong,
        Self::Full,
        Self::Newcomers,
        Self::Lost,
    ];

    /// The reason's word in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown_client",
            Self::Source => "wrong_source",
            Self::Rate => "rate",
            Self::NetBios => "netbios",
            Self::Hops => "hops",
            Self::Loop => "loop",
            Self::Destination => "destination",
            Self::TooLong => "too_long",
            Self::Full => "full",
            Self::Newcomers => "newcomers",
            Self::Lost => "lost",
        }
    }
}

/// How many of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drops([u64; Drop::ALL.len()]);

impl Drops {
    pub(crate) fn count(&mut self, reason: Drop) {
        self.add(reason, 1);
    }

    pub(crate) fn add(&mut self, reason: Drop, more: u64) {
        if let Some(count) = self.0.get_mut(reason as usize) {
            *count = count.saturating_add(more);
        }
    }

    pub fn of(&self, reason: Drop) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }
}

/// Packets and their bytes, from the IPX header on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    pub packets: u64,
    pub bytes: u64,
}

impl ops::AddAssign<usize> for Traffic {
    /// One more packet of so many bytes.
    fn add_assign(&mut self, bytes: usize) {
        self.packets = self.packets.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }
}

/// One client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientReport {
    pub node: MacAddr,
    pub address: SocketAddrV4,
    pub connected_for: Duration,
    /// Since it was last heard.
    pub silent_for: Duration,
    /// From it.
    pub sent: Traffic,
    /// To it.
    pub received: Traffic,
    /// From it, for whatever reason.
    pub dropped: u64,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// At most [`crate::Settings::clients_max`].
    pub clients: Vec<ClientReport>,
    pub drops: Drops,
    /// From the LAN into the tunnel.
    pub from_segment: Traffic,
    /// From the tunnel to the LAN, frames in several framings counted each.
    pub to_segment: Traffic,
    /// What broadcasts go to the LAN in.
    pub framings: Vec<FrameFormat>,
    /// The relay has its port in the LAN.
    pub plugged: bool,
}
