//! The fabric on the real kernel: nodes as network namespaces, each with a fabric of its own, taps held by the test in
//! QEMU's place. Run as root: `cargo test -p fabric --test privileged -- --ignored --test-threads=1`.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect; clippy sees only the functions marked as tests"
)]

mod cluster;
mod dhcp;
mod faults;
mod frames;
mod hostile;
mod install;
mod lans;
mod macvlan;
mod moves;
mod peers;
mod reach;
mod repair;
mod restart;
mod trace;
mod wireguard;
