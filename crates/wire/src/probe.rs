//! The frame by which nodes of a LAN ask each other, over its tunnel, whether they are there: octets only, so that the program
//! at the tunnel (`ebpf/`), which answers also while no agent runs, and the asker cannot drift apart.
//!
//! ```text
//!  0        6        12      14          18     19      22        26
//!  | to     | from   | 88 b5 | "LOCO"    | kind | zero  | number  | zeros, up to the length that is asked about
//! ```
//! The answer is the question with its addresses turned around and another kind.

/// Local Experimental `EtherType` 1 (IEEE 802 Table 10).
pub const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
pub const MAGIC: [u8; 4] = *b"LOCO";
/// Where the kind is.
pub const KIND_AT: usize = 18;
pub const ASK: u8 = 0;
pub const ANSWER: u8 = 1;
/// MACs, type, magic, kind, three octets of nothing, number.
pub const LEN: usize = 26;
