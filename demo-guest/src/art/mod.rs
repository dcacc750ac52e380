//! Everything that is drawn. Pure: pixels in memory, so the same pictures can be rendered and looked at on the host
//! (`cargo run --example gallery`).
pub mod building;
pub mod canvas;
pub mod damage;
pub mod font;
pub mod panel;
pub mod town;
pub mod train;
