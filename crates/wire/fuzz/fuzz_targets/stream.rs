//! libFuzzer on [`wire_fuzz::targets::stream`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire_fuzz::targets::stream(bytes));
