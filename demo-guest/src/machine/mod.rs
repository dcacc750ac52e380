//! The emulated PC: what has registers, except the network cards (`crate::nic`).
pub mod clock;
pub mod input;
pub mod interrupt;
mod mem;
pub mod pci;
pub mod port;
pub mod serial;
pub mod sound;
pub mod start_info;
pub mod video;
