//! What browsers send on their data channels, and what the guest must get.
pub(crate) mod controls;
mod injection;
pub(crate) mod message;

pub(crate) use injection::Done;
pub use injection::{Injection, InputEvent, MouseButton};
