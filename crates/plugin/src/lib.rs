//! The kubelet's side of the agent: the device plugin that offers seats, and the proof of who holds one.
//!
//! ```text
//! agent                                   kubelet                                        instance pod
//!   | -- Register {loco.dev/seat} ---------> |
//!   | <---- ListAndWatch ------------------- |   slot-0 … slot-N, each Healthy while its door is open
//!   | <---- GetPreferredAllocation --------- |   lowest first
//!   | <---- Allocate {slot-2} -------------- |
//!   | ----- mount seats/slot-2, read-only -> | -- starts the container with /run/loco-seat ---> |
//!   | <========================== connects to /run/loco-seat/agent.sock ====================== |
//!   | -- List (pod-resources) -------------> |   which pod holds slot-2? exactly one: that is who speaks
//! ```
//! **Invariants.** A slot is the kubelet's affair and a seat is the LAN's: nothing here knows seats. Which pod holds which slot is
//! never remembered, always asked for: after a boot the kubelet's own book is the only truth. Zero or two holders prove nothing.
//! The decisions ([`slots`], [`holder`]) are pure; the rest is thin and is tested against the other side of the protocol.
//!
//! **Lifetime.** A [`Plugin`] runs until it is dropped. The kubelet removes all plugins' sockets when it starts; that, a socket
//! that went missing and a kubelet that does not watch all lead to the same: listen anew and register anew.
#![forbid(unsafe_code)]

mod error;
pub mod holder;
mod metrics;
#[cfg(feature = "peer")]
pub mod peer;
mod podresources;
mod registration;
mod server;
pub mod slots;

/// What `build.rs` made of the protocol files.
mod proto {
    #![allow(
        clippy::all,
        clippy::pedantic,
        clippy::allow_attributes_without_reason,
        unreachable_pub,
        unused_qualifications,
        dead_code,
        reason = "generated code, which has both sides of each service"
    )]
    pub(crate) mod v1beta1 {
        tonic::include_proto!("v1beta1");
    }
    pub(crate) mod v1 {
        tonic::include_proto!("v1");
    }
}

pub use error::PluginError;
pub use holder::{Holding, NoHolder};
pub use metrics::{Metrics, Refused};
pub use podresources::PodResources;
pub use registration::{Plugin, PluginConfig, State};
pub use slots::Slot;

/// The resource's name, as pods ask for it in `resources.limits`.
pub const RESOURCE: &str = "loco.dev/seat";
/// Where a slot's directory is mounted in the container.
pub const CONTAINER_DIR: &str = "/run/loco-seat";
/// The seat socket's name in that directory.
pub const SOCKET: &str = "agent.sock";
