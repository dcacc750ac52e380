//! What privileged tests and benches share: namespaces, an underlay of nodes, taps, frames, a guest that writes, waiting for values.
//!
//! **Invariants.** Nothing here asserts: helpers return what they saw, tests judge. Everything made is removed on drop, and
//! names carry the process's id, so that test runs do not meet. A development dependency only.
pub mod directory;
mod frame;
mod netns;
mod tap;
mod underlay;
mod wait;
mod writer;

pub use frame::{Frame, IpxFraming, Numbered};
pub use netns::NetNs;
pub use tap::Tap;
pub use underlay::Underlay;
pub use wait::eventually;
pub use writer::{WRITER_STEP_BYTES, writer_boot_sector};
