//! The model over captures: what their JSON says, and what must hold whatever happens to them on the way.
mod golden;
mod net;
mod properties;
mod support;
mod written;
