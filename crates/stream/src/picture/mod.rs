//! What an encoder eats: a kept I420 picture of the screen, in its own size or scaled down, refreshed only where the
//! screen changed. Without any I/O.
mod i420;
mod scale;
mod view;

pub(crate) use view::View;
