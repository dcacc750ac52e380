//! A LAN's switch in user space, for nodes that may have no kernel device (`networkMode: socket`).
//!
//! ```text
//!  QEMU ── datagram socket ── seat port ─┐                         ┌─ peer ── UDP, as VXLAN (RFC 7348) ── other node's switch
//!                              guard ──> table ── which ports ─────┤
//!  edge (DHCP, ARP of this node) ────────┘                         └─ seat ports of this node
//! ```
//! **Invariants.** All but `engine` is pure: frames and time are arguments, what to do is the answer. A frame of another
//! node never goes to a third one (split horizon), so the full mesh has no loop. Whatever bytes come, nothing panics and
//! every table has a bound.
mod engine;
pub mod guard;
pub mod mesh;
pub mod probe;
pub mod table;

pub use engine::{LanStatus, PeerStatus, PortStatus, Switch, SwitchConfig, SwitchError, SwitchStatus};

/// Shortest Ethernet frame without check sum that a guest's card gives: the header. Cards pad on a cable, QEMU's need not.
pub const FRAME_LEN_MIN: usize = 14;
/// Longest Ethernet frame without check sum, with a VLAN tag (IEEE 802.3 3.2.7): 14 + 4 + 1500.
pub const FRAME_LEN_MAX: usize = 1518;
