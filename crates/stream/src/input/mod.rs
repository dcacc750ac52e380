//! What browsers send on their data channels, and what the guest must get.
mod injection;

pub use injection::{Injection, InputEvent, MouseButton};
