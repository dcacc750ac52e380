//! The model over captures: what their JSON says, and what must hold whatever happens to them on the way.
#![expect(clippy::unwrap_used, reason = "a test ends where its expectation does")]

mod golden;
mod independent;
mod memory;
mod net;
mod properties;
mod support;
mod written;
