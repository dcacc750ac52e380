//! Captures: reading pcap and pcapng, writing pcapng, and the bounded ring that holds the last seconds of a port.
#![forbid(unsafe_code)]
