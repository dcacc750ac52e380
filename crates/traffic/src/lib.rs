//! eBPF at the taps: loads the classifier, keeps it attached, reads counters and events.
#![forbid(unsafe_code)]
