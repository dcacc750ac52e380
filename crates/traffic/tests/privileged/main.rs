//! The programs in the real kernel, at real taps of a namespace of their own.
//! Run as root: `cargo test -p traffic --test privileged -- --ignored --test-threads=1`.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect; clippy sees only the functions marked as tests"
)]

mod counting;
mod guard;
mod lifecycle;
mod rig;
mod shapes;
mod storm;
