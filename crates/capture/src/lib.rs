//! Captures: reading pcap and pcapng, writing pcapng, and the bounded ring that holds the last seconds of a port.
//!
//! ```text
//! file ──> read ──> cooked (Ethernet view) ──> whoever observes
//! tap ──> source (thread in the taps' namespace) ──> mask (passwords) ──> ring ──> file ──> write ──> Wireshark
//! ```
//! | module | what |
//! |---|---|
//! | [`read`] | any capture file as records, whatever is wrong with it |
//! | [`cooked`] | a record as an Ethernet frame, also one of Linux' cooked captures |
//! | [`source`] | the taps of a node, captured |
//! | [`ring`] | what a node holds of them; pure |
//! | [`mask`], [`describe`] | what must not be kept of a frame; what a frame says, in words |
//! | [`mod@file`], [`mod@write`] | a port's capture as pcapng; its blocks |
//!
//! **Invariants.** No bytes make this crate panic or take memory beyond the bounds that the modules name; what is wrong
//! with a file is an error that names the byte.
mod bytes;
pub mod cooked;
pub mod describe;
pub mod file;
pub mod mask;
mod packet;
pub mod read;
pub mod ring;
pub mod source;
mod tap;
pub mod write;

pub use cooked::EthernetView;
pub use read::{LinkType, ReadError, Reader, Record};
pub use ring::{Follow, Limits, Snapshot};
pub use source::{Device, Source, SourceError};
pub use tap::SNAP_LEN;
