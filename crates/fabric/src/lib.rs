//! The LAN on one node: taps, bridge, VXLAN, forwarding table, DHCP at the edge, reachability.
//!
//! ```text
//! Snapshot -> FabricSpec --set_spec--> fabric thread (inside the namespace) -> FabricStatus
//!                                        observe -> plan (pure) -> apply        ^
//!                                        DHCP and ARP at each tap ──────────────┘
//!  node's namespace │ fabric's namespace, bind-mounted, outlives the agent
//!   UDP socket <────┼─ locovx001068 ── locobr001068 ── locot001068-0 = fd in QEMU = the guest's card
//!   the node's card <─┼─ locom001068-0 = fd in QEMU, where the LAN is the real one (mode macvlan): no bridge, no tunnel, no DHCP of ours
//! ```
//! **Invariants.** Level-triggered: every pass looks at the kernel anew, so no event can be missed for good. What exists is
//! adopted; a pass with nothing to do writes nothing; a tap with carrier is never deleted; a link that is not ours is
//! never touched. Only `kernel` speaks netlink. The kernel owns the data path: this process may die at any time.
mod arp;
pub mod desk;
mod dhcp;
mod edge;
mod error;
mod fabric;
mod kernel;
mod macvtap;
mod metrics;
mod netns;
mod observed;
mod packet;
mod peer_metrics;
mod peers;
mod plan;
pub mod probe;
mod reach;
mod reconcile;
mod spec;
mod station;
mod status;
mod tap;
pub mod trace;
pub mod wireguard;
pub mod worker;

pub use error::FabricError;
pub use fabric::{Fabric, FabricConfig, OpenPort, is_prepared, prepare, uninstall};
pub use metrics::Repairs;
pub use observed::{is_macvtap, station_name, tunnel_name};
pub use peer_metrics::PeerMetrics;
pub use peers::full_frame_problems;
pub use spec::{FabricSpec, FdbEntry, LanSpec, Peer, PortSpec, RemoteGuest};
pub use station::Station;
pub use status::{
    Encryption, FabricStatus, LanStatus, PeerStatus, PortCounters, PortStatus, ReachStatus, UnderlayStatus,
};
