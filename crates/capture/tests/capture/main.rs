//! Reading, masking, keeping and writing captures, without a kernel; Wireshark's tools are the oracle for files.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect; clippy sees only the functions marked as tests"
)]

mod build;
mod cooked;
mod file;
mod mask;
mod oracle;
mod reader;
mod ring;
