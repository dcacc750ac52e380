//! Capturing real taps. Run as root: `cargo test -p capture --test privileged -- --ignored --test-threads=1`.
