//! Packet formats shared by the guest game, the agent and (later) the eBPF programs.
//!
//! **Invariants.** No `std`, no allocation, no panics: every parser takes any bytes and answers `Option`.
#![no_std]
#![forbid(unsafe_code)]

mod mac;

pub use mac::MacAddr;
