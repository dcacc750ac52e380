//! Scenarios against a real Kubernetes: any cluster by KUBECONFIG, or `cargo xtask cluster up`.
//!
//! | part | owns |
//! |---|---|
//! | [`peer`] | what a test and the test peers on the LAN say to each other |
//! | `src/bin/test-peer` | the test peer: sits on a seat in a runner's place, sends and counts numbered frames |
//! | `tests/cluster` | the harness and the scenarios |
#![forbid(unsafe_code)]

pub mod peer;
