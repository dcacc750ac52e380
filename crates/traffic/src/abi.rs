//! What the eBPF programs and this crate have in common: maps, their rows, the records of the ring. One file for both
//! sides: `ebpf/` takes it by its path, so that neither can drift away from the other.
//!
//! | map | key | value | pinned |
//! |---|---|---|---|
//! | `PORTS` | [`PortKey`] | [`PortRow`], per CPU | yes |
//! | `PAIRS` | [`PairKey`] | [`Count`], per CPU, the least recently used goes | yes |
//! | `LOST` | [`Loss`] as u32 | u64, per CPU | yes |
//! | `EVENTS` | | ring of [`EventHeader`] and the bytes of the frame | yes |
//! | `GUARDS` | index of the device, u32 | [`GuardRow`] | yes |
//! | `REFUSED` | index of the device, u32 | frames by `wire::guard::Refusal`, [`REFUSALS_MAX`] of u64, per CPU | yes |
//! | `FLOWS` | [`FlowKey`] | when it was last seen, in ns | no: a new agent is shown each flow anew |
//! | `DATAGRAMS` | [`DatagramKey`] | [`Tier`] of the first fragment, as u32 | no |
//!
//! **Invariants.** Every field has its natural alignment and no type has padding, for keys are compared and values are
//! read as bytes. Any change of a map that is pinned is a new [`LAYOUT`]; a map more is none.
use crate::select::{FlowId, Tier};

/// Version of this file: part of the path under which maps are pinned, so that programs of another layout are never
/// given these maps.
pub const LAYOUT: u32 = 2;

/// Rows of `PORTS`: two for each device, so 1,024 devices of one node.
pub const PORTS_MAX: u32 = 2048;
/// Rows of `PAIRS`. Full = the row that was used longest ago is given up, and its counts with it.
pub const PAIRS_MAX: u32 = 16384;
pub const FLOWS_MAX: u32 = 8192;
pub const DATAGRAMS_MAX: u32 = 1024;
/// Bytes of the ring. Full = the new event is given up and counted as [`Loss::RingFull`]. The kernel maps it twice, one behind the other, so an
/// agent holds twice as much.
pub const EVENTS_BYTES: u32 = 1 << 20;
/// Above this fill only [`Tier::Control`] gets in: its reserve.
pub const EVENTS_RESERVE_AT: u64 = (EVENTS_BYTES as u64) / 4 * 3;
/// From this fill on the reader is woken; below it comes by itself, see `READ_EVERY`.
pub const EVENTS_WAKE_AT: u64 = (EVENTS_BYTES as u64) / 4;
/// And up to this one: a wake-up costs microseconds, so the few events that cross the mark do it once for all behind them.
pub const EVENTS_WAKE_TO: u64 = EVENTS_WAKE_AT + 4096;

/// Room for classes of traffic; `wire::class::TrafficClass` has fewer.
pub const CLASSES_MAX: usize = 32;
/// Bytes of a frame that an event carries at most: Ethernet without its check sum.
pub const FRAME_MAX: usize = 1514;
/// A record has room for this many bytes, or for [`RECORD_MIDDLE`], or for [`FRAME_MAX`]: the kernel must know the size.
pub const RECORD_SMALL: usize = 96;
pub const RECORD_MIDDLE: usize = 384;

/// A flow that was silent for this long is shown again, in ns.
pub const FLOW_IDLE_NS: u64 = 60_000_000_000;
/// How often the time in a row of `FLOWS` is written while the flow goes on, in ns.
pub const FLOW_TOUCH_NS: u64 = 1_000_000_000;

/// Into the kernel at the device: from the guest at a tap, from other nodes at a tunnel.
pub const INGRESS: u8 = 0;
/// Out of the kernel at the device.
pub const EGRESS: u8 = 1;

/// [`PortRow::flags`]: events are made of this direction.
pub const FLAG_EVENTS: u64 = 1;
/// [`PortRow::flags`]: frames of this direction are counted by the other card, too.
pub const FLAG_PAIRS: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PortKey {
    pub ifindex: u32,
    /// [`INGRESS`] or [`EGRESS`].
    pub direction: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Count {
    pub frames: u64,
    /// Without check sums.
    pub bytes: u64,
}

/// One direction of one device. The user's side makes it before the program is attached: a frame at a device without one
/// is [`Loss::NoRow`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PortRow {
    pub classes: [Count; CLASSES_MAX],
    /// When the bucket of each [`Tier`] will be full again, in ns (generic cell rate algorithm, ITU-T I.371).
    pub full_at: [u64; Tier::COUNT],
    pub flags: u64,
    /// Whose counts these are, as a number of the user's side: numbers of devices come again in a new namespace.
    pub owner: u64,
}

/// [`PortRow`] in numbers of 8 bytes.
pub const PORT_ROW_WORDS: usize = size_of::<PortRow>() / 8;

/// Rows of `GUARDS` and `REFUSED`: one for each device.
pub const GUARDS_MAX: u32 = PORTS_MAX / 2;
/// Room for reasons; `wire::guard::Refusal` has fewer.
pub const REFUSALS_MAX: usize = 8;

/// [`GuardRow::flags`]: only the row's own card may be a source.
pub const GUARD_SOURCE: u16 = 1;
/// [`GuardRow::flags`]: no DHCP server, no router advertisement.
pub const GUARD_SERVERS: u16 = 2;
/// [`GuardRow::flags`]: broadcasts and multicasts by the bucket.
pub const GUARD_STORM: u16 = 4;

/// What holds at one device. At a tap it is the guard's; at a tunnel only `mac` counts, and questions for it are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GuardRow {
    /// A tap's: the seat's card. A tunnel's: this node's bridge.
    pub mac: [u8; 6],
    pub flags: u16,
    /// One broadcast's share of time, in ns (generic cell rate algorithm).
    pub interval_ns: u64,
    /// How far ahead of time a burst may get, in ns.
    pub burst_ns: u64,
    /// When the bucket will be full again, in ns; the kernel's side writes it.
    pub full_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PairKey {
    pub ifindex: u32,
    pub direction: u8,
    /// 1 where the frame was for a group.
    pub group: u8,
    /// The other card: source of what goes to the guest, destination of what comes from it, all ones for a group.
    pub peer: [u8; 6],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FlowKey {
    pub ifindex: u32,
    pub flow: FlowId,
    pub direction: u8,
    pub zero: [u8; 3],
}

/// A datagram in fragments (RFC 791: source, destination, protocol, identification).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DatagramKey {
    pub ifindex: u32,
    pub source: u32,
    pub destination: u32,
    pub identification: u16,
    pub protocol: u8,
    pub direction: u8,
}

/// In front of each frame in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EventHeader {
    /// `CLOCK_MONOTONIC` in ns.
    pub at_ns: u64,
    pub ifindex: u32,
    /// On the wire, without check sum, with the VLAN tag.
    pub wire_len: u32,
    /// How many bytes of the frame follow.
    pub captured: u16,
    pub direction: u8,
    pub class: u8,
    /// The tag that the kernel took out of the frame: its control information, and its type in network order; 0: none.
    pub vlan_tci: u16,
    pub vlan_type: u16,
}

/// [`EventHeader`] in bytes.
pub const EVENT_HEADER_LEN: usize = size_of::<EventHeader>();

/// Why something was not counted or not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Loss {
    /// The reader was too slow.
    RingFull,
    /// More frames of this tier than a port is granted.
    ControlStorm,
    GameStorm,
    OtherStorm,
    /// A frame at a device that has no row: not counted at all.
    NoRow,
    /// Not counted by the other card: the row could not be made.
    NoPair,
    /// The frame's bytes could not be had.
    Unread,
}

impl Loss {
    /// Rows of `LOST`.
    pub const COUNT: u32 = 7;
    /// In the order of their numbers.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::RingFull,
        Self::ControlStorm,
        Self::GameStorm,
        Self::OtherStorm,
        Self::NoRow,
        Self::NoPair,
        Self::Unread,
    ];

    /// What a tier's own bucket takes away.
    pub const fn storm(tier: Tier) -> Self {
        match tier {
            Tier::Control => Self::ControlStorm,
            Tier::Game => Self::GameStorm,
            Tier::Other => Self::OtherStorm,
        }
    }

    /// As metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::ControlStorm => "control_storm",
            Self::GameStorm => "game_storm",
            Self::OtherStorm => "other_storm",
            Self::NoRow => "no_row",
            Self::NoPair => "no_pair",
            Self::Unread => "unread",
        }
    }
}
