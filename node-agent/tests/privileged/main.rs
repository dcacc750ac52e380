//! The agent as a process: real namespaces, real bridge, VXLAN and taps, real QEMU.
#![expect(clippy::unwrap_used, reason = "tests, and helpers of tests")]

mod encryption;
mod flow;
mod macvlan;
mod modes;
mod moves;
mod observe;
mod pcap;
mod plug;
mod relay;
mod restart;
mod rig;
mod slots;
mod start;
mod takeover;
