//! DOSBox's IPX tunnel (IPXNET, UDP 213): a relay between tunnel clients and a LAN's own IPX.
//!
//! ```text
//!  DOSBox, DOSBox-X, IPXWrapper ──UDP──┐                         ┌── guests with IPX, in any framing
//!                                      ├── Relay ── port ── LAN ─┤
//!  DOSBox, DOSBox-X, IPXWrapper ──UDP──┘  (pure)                 └── relays of other nodes
//! ```
//! [`Relay`] decides: datagrams, frames and the time go in, datagrams and frames come out ([`Outlet`]). [`serve()`] moves
//! them: a UDP socket of the node, and a station of the LAN ([`fabric::Station`]).
//!
//! **Invariants.** What came from a client or a frame goes to each other client once at most, and never to where it came
//! from. A client speaks with its own node only. What a relay put on the LAN never comes back into a tunnel by the same
//! relay. Memory is bounded by [`Settings::clients_max`] and constants, whatever is sent; nothing waits in a queue of ours.
#![forbid(unsafe_code)]

mod clients;
mod guard;
mod metrics;
mod relay;
mod report;
mod segment;
mod serve;
mod settings;

pub use clients::OWN_NODE;
pub use metrics::register;
pub use relay::{Outlet, Relay};
pub use report::{ClientReport, Drop, Drops, Report, Traffic};
pub use serve::serve;
pub use settings::{Framing, Rate, Settings, UnknownFraming};
