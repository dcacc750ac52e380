//! Capturing real taps. Run as root: `cargo test -p capture --test privileged -- --ignored --test-threads=1`.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect; clippy sees only the functions marked as tests"
)]

#[path = "../capture/build.rs"]
#[expect(dead_code, reason = "shared with the other tests, which use all of it")]
mod build;
mod taps;
