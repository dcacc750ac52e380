//! What browsers send on their data channels, and what the guest must get.
pub(crate) mod controls;
pub(crate) mod desk;
mod injection;
pub(crate) mod message;

pub(crate) use injection::Done;
pub use injection::{Injection, InputEvent, MouseButton};
