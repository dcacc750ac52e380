//! Faults that only the project's own cluster has, by `cargo xtask cluster …`. Each undoes itself on drop.
use std::{process::Stdio, time::Duration};

use anyhow::Result;

use super::{
    Wall,
    commands::{run, xtask},
};

/// A fault that stands until it is dropped or [`Fault::mend`]ed.
#[derive(Debug)]
pub(crate) struct Fault {
    mend: Option<Vec<String>>,
}

impl Fault {
    async fn begin(fault: &[&str], mend: &[&str]) -> Result<Self> {
        // Before the fault: if it only half works it is undone all the same.
        let guard = Self { mend: Some(mend.iter().map(ToString::to_string).collect()) };
        cluster(fault).await?;
        Ok(guard)
    }

    pub(crate) async fn mend(mut self) -> Result<()> {
        let mend = self.mend.take().expect("it is taken here and in drop only");
        cluster(&mend.iter().map(String::as_str).collect::<Vec<_>>()).await.map(drop)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        if let Some(mend) = self.mend.take() {
            let mut command = xtask();
            command.arg("cluster").args(&mend);
            let ended = command.as_std_mut().stdin(Stdio::null()).status();
            if !ended.as_ref().is_ok_and(std::process::ExitStatus::success) {
                eprintln!("the fault was not undone: cargo xtask cluster {}: {ended:?}", mend.join(" "));
            }
        }
    }
}

/// `cargo xtask cluster ARGS`.
pub(crate) async fn cluster(arguments: &[&str]) -> Result<String> {
    run(xtask().arg("cluster").args(arguments)).await
}

/// The node's power is gone: every process of it, at once.
pub(crate) async fn power_cut(node: &str) -> Result<Fault> {
    Fault::begin(&["node", "cut", node], &["node", "boot", node]).await
}

/// Kubernetes' API does not answer.
pub(crate) async fn api_away() -> Result<Fault> {
    Fault::begin(&["api", "stop"], &["api", "start"]).await
}

/// Two nodes do not reach each other; both reach the API.
pub(crate) async fn partition(a: &str, b: &str) -> Result<Fault> {
    Fault::begin(&["partition", a, b], &["heal"]).await
}

/// Nothing of the overlay enters or leaves the node, as a `NetworkPolicy` or a cloud's firewall would have it.
pub(crate) async fn overlay_blocked(node: &str, udp_port: u16) -> Result<Fault> {
    let rules = format!(
        "add table inet loco_test; \
         add chain inet loco_test in {{ type filter hook input priority -300; }}; \
         add chain inet loco_test out {{ type filter hook output priority -300; }}; \
         add rule inet loco_test in udp dport {udp_port} drop; \
         add rule inet loco_test out udp dport {udp_port} drop"
    );
    Fault::begin(
        &["exec", node, "--", "nft", &rules],
        &["exec", node, "--", "nft", "delete", "table", "inet", "loco_test"],
    )
    .await
}

/// Runs a program in a node.
pub(crate) async fn on_node(node: &str, command: &[&str]) -> Result<String> {
    cluster(&[&["exec", node, "--"], command].concat()).await
}

/// The process of a pod's first container, as its node counts.
pub(crate) async fn container_pid(wall: &Wall, pod: &str) -> Result<(String, String)> {
    use anyhow::Context as _;
    let pod = wall.pods().get(pod).await?;
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("not scheduled")?;
    let statuses = pod.status.and_then(|status| status.container_statuses).context("no container yet")?;
    let id = statuses.into_iter().find_map(|status| status.container_id).context("no container yet")?;
    let id = id.rsplit('/').next().unwrap_or_default().to_owned();
    let tasks = on_node(&node, &["ctr", "-n", "k8s.io", "tasks", "ls"]).await?;
    let row = tasks.lines().find(|line| line.starts_with(&id)).context("containerd does not know the container")?;
    let pid = row.split_whitespace().nth(1).context("no pid in the row")?.to_owned();
    Ok((node, pid))
}

/// A process stands still until the guard is dropped.
pub(crate) async fn frozen(node: &str, pid: &str) -> Result<Fault> {
    Fault::begin(&["exec", node, "--", "kill", "-STOP", pid], &["exec", node, "--", "kill", "-CONT", pid]).await
}

/// How long Kubernetes takes to call a dead node `NotReady`, with its own cluster's settings, and some.
pub(crate) const NODE_AWAY: Duration = Duration::from_mins(1);
