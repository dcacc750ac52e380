//! Captures: reading pcap and pcapng, writing pcapng, and the bounded ring that holds the last seconds of a port.
//!
//! | module | what |
//! |---|---|
//! | [`read`] | any capture file as records, whatever is wrong with it |
//! | [`cooked`] | a record as an Ethernet frame, also one of Linux' cooked captures |
//!
//! **Invariants.** No bytes make this crate panic or take memory beyond what [`read::BLOCK_BYTES_MAX`] says; what is
//! wrong with a file is an error that names the byte. No input or output but through `std::io::Read` of the caller.
#![forbid(unsafe_code)]

mod bytes;
pub mod cooked;
pub mod read;

pub use cooked::EthernetView;
pub use read::{LinkType, ReadError, Reader, Record};
