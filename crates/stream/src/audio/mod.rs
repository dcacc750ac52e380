//! A guest's sound: QEMU's D-Bus listener, the tap that holds what it wrote, and one Opus encoder per instance.
//!
//! Silence costs nothing: without a listening session what QEMU writes is dropped at once, while QEMU's output is
//! disabled nothing arrives, and zeros are not encoded.
mod listener;
mod opus;
mod tap;

pub use listener::{AudioConnection, attach};
pub(crate) use opus::{OpusPacket, SoundEncoder, SoundSubscription};
pub use tap::AudioTap;
