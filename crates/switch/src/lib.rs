//! A LAN's switch in user space, for nodes that may have no kernel device (`networkMode: socket`).
//!
//! ```text
//!  QEMU ── datagram socket ── seat port ─┐                         ┌─ peer ── UDP, as VXLAN (RFC 7348) ── other node's switch
//!                              guard ──> table ── which ports ─────┤
//!  foreign machine ── `loco plug` ── port ─┤                         └─ seat and foreign ports of this node
//!  edge (DHCP, ARP of this node) ────────┘
//! ```
//! **Invariants.** All but `engine` is pure: frames and time are arguments, what to do is the answer. A frame of another
//! node never goes to a third one (split horizon), so the full mesh has no loop. Whatever bytes come, nothing panics and
//! every table has a bound.
mod engine;
pub mod guard;
pub mod mesh;
mod metrics;
pub mod pool;
pub mod table;

/// Whether another node is there: the same questions in every mode.
pub use fabric::probe;

pub use engine::{
    FOREIGN_MAX, ForeignEnd, ForeignPlug, ForeignStatus, ForeignTotals, FrameSocket, LanStatus, MESH, PeerStatus,
    PortStatus, Sight, Switch, SwitchConfig, SwitchError, SwitchStatus, Way,
};

pub use metrics::register;
pub use wire::guard::{FRAME_LEN_MAX, FRAME_LEN_MIN};
