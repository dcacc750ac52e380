//! Scenarios against a real Kubernetes: any cluster by KUBECONFIG, or `cargo xtask cluster up`.
#![forbid(unsafe_code)]
