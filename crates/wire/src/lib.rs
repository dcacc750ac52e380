//! Packet formats shared by the guest game, the agent and the eBPF programs.
//!
//! | module | format |
//! |---|---|
//! | [`class`] | under which class a frame is counted, on the host and in eBPF |
//! | [`dplay`] | DirectPlay 4 over TCP/IP: what a peer says and understands |
//! | [`dplay8`] | DirectPlay 8: the enumeration of hosts |
//! | [`probe`] | how nodes ask each other whether they are there |
//! | [`guard`] | which frames a guest may not send into its LAN |
//! | [`frame`] | Ethernet: which protocol a frame carries, in which framing |
//! | [`framed`] | frames in a stream of bytes, as QEMU and VDE hand them over |
//! | [`arp`], [`ipv4`], [`udp`], [`tcp`], [`icmp`], [`dhcp`] | the Internet's |
//! | [`netbios`] | names, datagrams, browser announcements and sessions over TCP/IP |
//! | [`ipx`] | the IPX header; SAP, RIP and NetBIOS in it |
//! | [`ipxnet`] | `DOSBox`'s IPX tunnel |
//! | [`ipxwrapper`] | `IPXWrapper`'s encapsulation |
//!
//! **Invariants.** No `std`, no allocation, no panics: every parser takes any bytes and answers `Option`; every builder
//! writes into a slice of the caller and answers `None` when it does not fit.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod arp;
mod bytes;
pub mod class;
pub mod dhcp;
pub mod dplay;
pub mod dplay8;
pub mod frame;
pub mod framed;
pub mod guard;
pub mod icmp;
pub mod ipv4;
pub mod ipx;
pub mod ipxnet;
pub mod ipxwrapper;
mod mac;
pub mod netbios;
pub mod probe;
pub mod tcp;
pub mod udp;

pub use mac::MacAddr;
