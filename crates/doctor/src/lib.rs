//! Why a seat cannot see a game: what all agents saw, merged, and a ladder of rungs over it.
//!
//! ```text
//! AgentStatus of each node ──> Merged (one truth per LAN) ──> Facts (+ seats, nodes) ──> diagnose: nine rungs ──> Diagnosis
//!                                                                                  └──> faults: everything that is wrong
//! ```
//! **Invariants.** Pure: no clock, no I/O; the same facts give the same words. The first rung that fails is the reason, and
//! a rung of which nothing was measured is `unknown`, never passed. A seat that is in a game has passed every rung, whatever
//! was missed on the way. What a silent agent said is not the present and is not used. Words are those of docs/doctor.md.
#![forbid(unsafe_code)]

mod cause;
mod facts;
mod faults;
mod ladder;
mod look;
mod merged;

pub use cause::{Cause, Who};
pub use facts::{AgentWord, Facts, LanFacts, NodeFacts, Place, SeatFacts, Shown};
pub use faults::{FAULTS_MAX, faults};
pub use ladder::{diagnose, doctor};
pub use merged::{LanSeen, Question, TwoHosts};

/// A guest that was switched on less than this ago is still booting: nothing of it is missed yet, in seconds.
pub const BOOT_S: f64 = 30.0;
/// Questions of a guest are news for this long, in seconds; Windows asks each 5 s while its list of games is open.
pub const ASKED_RECENTLY_S: f64 = 60.0;
/// A guest that answers no ARP question for this long, and sends nothing, is stuck, in seconds.
pub const SILENT_S: f64 = 10.0;
/// A join takes a second; a host waits at most 15 s for the other machines (MC-DPL4CS 3.1.5), so one that is older is stuck.
pub const JOIN_S: f64 = 20.0;
/// A guest that takes longer than this to answer a frame is slow, in milliseconds: games of the time give up at about a second.
pub const SLOW_MS: f64 = 1000.0;
