//! guest-runner
fn main() {}
