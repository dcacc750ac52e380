//! From a guest's picture and sound to browsers, and from browsers' keys to the guest.
//!
//! ```text
//! QEMU --D-Bus--> display -> Screen (frame buffer, damage) -> encoder (I420 -> H.264), one per tier --+
//!      --D-Bus--> audio   -> AudioTap                      -> opus, one per instance ----------------+-> session (WebRTC)
//! agent <- Injection <- controls (lease, held keys, pointer) <- message <- data channels ------------+
//! ```
//!
//! **Invariants.**
//! - No viewer, no encoder; no damage, no frame (but one repeat each 2 s, which keeps the browser from asking for a key frame).
//! - Viewers of one tier share one encode. Video queues drop the oldest; input is never dropped.
//! - Only the holder of the controls lease injects input, and nothing it held stays down after it is gone.
//! - This crate never speaks QMP: what must reach the guest leaves as an [`Injection`], in order.
#![forbid(unsafe_code)]

pub mod audio;
mod bus;
mod cursor;
pub mod display;
mod encoder;
mod error;
mod frame;
mod input;
mod instance;
mod metrics;
mod picture;
mod pixels;
mod screen;
mod session;
mod words;

pub use audio::AudioTap;
pub use error::{AttachError, OfferError, StreamError};
pub use input::{Injection, InputEvent, MouseButton};
pub use instance::{Answer, InstanceStream, Streams, VIEWERS_MAX, check_encoders};
pub use screen::{Screen, Size};
pub use session::StreamLag;
pub use words::{Role, SessionId, StreamConfig, Tier, UnknownWord};
