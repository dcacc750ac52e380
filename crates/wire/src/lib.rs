//! Packet formats shared by the guest game, the agent and (later) the eBPF programs.
//!
//! | module | format |
//! |---|---|
//! | [`dplay`] | DirectPlay 4 over TCP/IP: what a peer says and understands |
//! | [`dplay8`] | DirectPlay 8: the enumeration of hosts |
//! | [`frame`] | Ethernet: which protocol a frame carries, in which framing |
//! | [`ipx`] | the IPX header |
//! | [`ipxnet`] | DOSBox's IPX tunnel |
//! | [`ipxwrapper`] | IPXWrapper's encapsulation |
//!
//! **Invariants.** No `std`, no allocation, no panics: every parser takes any bytes and answers `Option`; every builder
//! writes into a slice of the caller and answers `None` when it does not fit.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod bytes;
pub mod class;
pub mod dplay;
pub mod dplay8;
pub mod frame;
pub mod ipx;
pub mod ipxnet;
pub mod ipxwrapper;
mod mac;

pub use mac::MacAddr;
