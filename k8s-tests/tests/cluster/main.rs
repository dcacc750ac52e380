//! Scenarios against a Kubernetes that is there.
//!
//! ```text
//! cargo xtask test --cluster                     makes the three-node cluster, then runs all of this
//! KUBECONFIG=… LOCO_TEST_TAG=… cargo test -p k8s-tests --test cluster -- --ignored --test-threads 1 --skip own_cluster
//! ```
//!
//! Everything under `own_cluster` cuts power, nets and services, through `cargo xtask cluster …`: on a cluster of somebody
//! else's it is left out by name, never passed in silence.
//!
//! **Invariants.** One test at a time. Each begins by making the release what `values.yaml` says and waiting until nine
//! guests are live, so no order is needed, and a failed test spoils no other. Deadlines are on values. A failure leaves its
//! evidence (pods, events, logs, what the gateway said) in `target/tmp/evidence/TEST`.
mod browser;
mod discovery;
mod harness;
mod lan;
mod monitoring;
mod own_cluster;
mod rollouts;
