//! Little Junction, the demo guest's game: everything that decides and draws, free of hardware.
//!
//! **Invariants.** No `std`, no allocator, no floating point, no clock and no register: time and bytes are arguments. The
//! binary (`main.rs`) owns the machine; this library is tested on the host.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod args;
pub mod art;
pub mod board;
pub mod game;
pub mod input;
pub mod mark;
pub mod rng;
pub mod session;
pub mod sound;
pub mod text;
pub mod track;
