//! The relay on the real kernel: nodes as network namespaces with a fabric each, real DOSBox clients, taps held by the test
//! in QEMU's place. Run as root: `cargo test -p ipxnet --test privileged -- --ignored --test-threads=1`.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect; clippy sees only the functions marked as tests"
)]

mod meet;
mod rig;
mod two;
