//! libFuzzer on [`wire_fuzz::targets::framed`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire_fuzz::targets::framed(bytes));
