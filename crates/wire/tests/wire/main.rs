//! What the crate promises, checked against traffic of genuine programs and with generated input.
#![expect(clippy::unwrap_used, reason = "a test ends where its expectation does")]

mod captures;
mod classes;
mod file;
mod fuzz;
mod netbios;
mod novell;
mod pcap;
mod properties;
mod rebuild;
mod tunnel;
