//! One guest: how QEMU is called, spoken to, and how its life goes.
//!
//! ```text
//! argv      MachineSpec -> QEMU's command line (pure)      overlay   a private, writable layer over a read-only disk
//! process   spawns it with its descriptors                 kvm       proves that /dev/kvm runs guests before anybody uses it
//! qmp       one monitor session over any byte stream       handshake display and sound over D-Bus, up to the first message
//! input     keys, buttons, motion as one QMP command       lifecycle what a runner does next (pure)
//! keymap    KeyboardEvent.code -> QEMU's key code          storage   which place, which overlay, over which base
//! ```
//!
//! **Invariants.** A base disk is never opened for writing. No command waits without a limit, no buffer grows without
//! one. Nothing here knows Kubernetes, HTTP or pixels.
pub mod argv;
mod dbus;
pub mod handshake;
pub mod input;
pub mod keymap;
pub mod kvm;
pub mod lifecycle;
pub mod netdev;
pub mod overlay;
pub mod process;
pub mod qmp;
pub mod storage;
pub mod version;

pub use argv::MachineSpec;
pub use keymap::qcode;
pub use kvm::prove_kvm;
pub use qmp::{Qmp, QmpError};
