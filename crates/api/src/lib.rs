//! HTTP/JSON bodies shared by agent, gateway, browser and command line.
//!
//! **Invariants.** Serialisation is known here and nowhere below. Bodies are plain; a value that was not measured is
//! absent (`None` is left out), never a placeholder. `OpenAPI` and the browser's types are generated from these.
#![forbid(unsafe_code)]

pub mod agent;
pub mod capture;
mod error;
pub mod gateway;
pub mod lan;
pub mod observe;
pub mod plug;
pub mod snapshot;
pub mod status;
pub mod trace;

pub use error::{ErrorBody, ErrorDetail};

/// Annotation of a pod: `LAN/SEAT`, where its guest was moved to. It goes with the pod, so a guest that is started anew is at home.
pub const MOVED_TO: &str = "loco.dev/moved-to";
