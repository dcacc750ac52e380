//! Fuzzing of the crate `wire`. `cargo xtask fuzz` builds and runs it with the project's stable compiler: libFuzzer needs
//! the coverage pass of LLVM, which stable rustc takes, and no sanitizer, which it does not take; `wire` has no unsafe
//! code for one to watch. `cargo +nightly fuzz run TARGET` works as well.
#![forbid(unsafe_code)]

pub mod targets;
