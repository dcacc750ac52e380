//! Which frame shows something, and who speaks: the small words that everything else is made of.
use std::{borrow::Cow, fmt, net::Ipv4Addr, time::Duration};

use wire::{MacAddr, ipx};

use crate::Point;

/// Time and number of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) at: Duration,
    pub(crate) frame: u64,
    pub(crate) point: Point,
}

/// A frame and what it says. Never a password: texts are names of things, put here by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) stamp: Stamp,
    pub(crate) what: Cow<'static, str>,
}

impl Fact {
    pub(crate) fn new(stamp: Stamp, what: impl Into<Cow<'static, str>>) -> Self {
        Self { stamp, what: what.into() }
    }
}

/// Where a frame goes between two cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(crate) stamp: Stamp,
    pub(crate) source: MacAddr,
    pub(crate) destination: MacAddr,
}

/// Who speaks DirectPlay, by network address. Never identifies a session or a player: those have ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Station {
    Ip(Ipv4Addr),
    Ipx { network: u32, node: MacAddr },
}

impl Station {
    pub(crate) const fn of_ipx(address: ipx::Address) -> Self {
        Self::Ipx { network: address.network, node: address.node }
    }

    pub(crate) const fn ip(self) -> Option<Ipv4Addr> {
        match self {
            Self::Ip(ip) => Some(ip),
            Self::Ipx { .. } => None,
        }
    }
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Ipx { network, node } => write!(f, "{network:08x}:{}", hex(&node.0)),
        }
    }
}

/// One program that speaks DirectPlay: its machine and the port at which it listens (TCP; in IPX its socket). All its
/// messages over TCP/IP name that port, whatever port they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Process {
    pub(crate) station: Station,
    pub(crate) port: u16,
}

/// Two hex digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // A String takes everything.
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// Text of the wire for people: at most `limit` characters, none that steers a terminal.
pub(crate) fn clean(text: impl Iterator<Item = char>, limit: usize) -> String {
    text.map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).take(limit).collect()
}

pub(crate) fn seconds(at: Duration) -> f64 {
    at.as_secs_f64()
}
