//! eBPF at the taps: loads the programs of `ebpf/`, keeps them attached, reads counts and events. Nothing here knows what
//! the frames mean.
//!
//! ```text
//!  wanted devices ─> reconcile (level-triggered) ─> tcx links, pinned below RUN_DIR/bpf
//!  kernel: every frame counted ─────────────────> report, each second (counts by instance, class and other card)
//!          frames that matter, in a ring ───────> events, in order
//! ```
//! `soft` does the same for frames that a program of ours switches, without a device and without eBPF.
//!
//! **Invariants.** The programs say "go on" to every frame, so nothing here can stop one. What is not seen is counted, by
//! its reason. Pinned programs and counts outlive the process; a successor takes both over in one step. Every queue has
//! a bound: ring, channel and maps say in `abi` and `watcher` what happens when they are full.
pub mod abi;
mod attachments;
mod bpffs;
mod capability;
mod error;
mod events;
mod programs;
mod report;
pub mod select;
mod soft;
mod watcher;

use std::time::Duration;

pub use attachments::Wanted;
pub use bpffs::{prepare, uninstall};
pub use error::TrafficError;
pub use events::{Event, Point};
pub use programs::OBJECT;
pub use report::{Attach, ClassCounts, Count, Directions, Pair, PortReport, Report};
pub use soft::{SoftTraffic, Way};
pub use watcher::{Traffic, TrafficConfig};

/// The ring is read this often while it is not filling up.
pub(crate) const READ_EVERY: Duration = Duration::from_millis(20);
/// Rows that are removed at a time; the rest goes with the next look.
pub(crate) const SWEEP_MAX: usize = 4096;
