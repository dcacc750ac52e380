//! What our own processes say about themselves: logs, metrics, health. (Guests' traffic is watched elsewhere.)
//!
//! ```text
//! loop of the process -- Heartbeat::tick --> Health --> /healthz   200, or 503 naming the loop that stands still
//! part of the process -- Condition::set ---> Health --> /readyz    200, or 503 with each reason
//! counters ------------> prometheus::Registry --------> /metrics   text format 0.0.4
//! ```
//!
//! **Invariants.** Depends on none of our crates. Nothing here blocks on what it watches: a stuck part is reported,
//! it does not make the report stick. No route needs a token, so nothing here says a secret.
#![forbid(unsafe_code)]

mod health;
mod http;
mod log;
mod process;

pub use health::{Condition, Health, Heartbeat};
pub use http::{router, serve_health};
pub use log::{chain, init};
pub use process::registry;
