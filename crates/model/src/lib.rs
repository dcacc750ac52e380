//! The words of the project as types: instances, nodes, LANs, seats, and what follows from them.
//!
//! **Invariants.** Plain data: no I/O, no async, no JSON (that is `api`). Every identifier is parsed once and valid
//! from then on. [`Lan::identity`] is the only place that derives an address, a MAC or a host name from a seat,
//! and [`Snapshot::identity`] the only one that says them of an instance, which may have been moved.
#![forbid(unsafe_code)]

mod guard;
mod ids;
mod lan;
mod snapshot;
mod state;

pub use guard::{Rate, Rules};
pub use ids::{InstanceId, InvalidName, LanName, NodeName};
pub use lan::{
    Card, Identity, InvalidCard, InvalidLan, InvalidVni, Lan, NetworkMode, Seat, Subnet, UnknownNetworkMode, Vni,
};
pub use snapshot::{InvalidSnapshot, NoSeat, Node, PlacedInstance, Snapshot};
pub use state::InstanceState;
pub use wire::MacAddr;
