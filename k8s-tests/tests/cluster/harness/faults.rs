//! Faults that only the project's own cluster has, by `cargo xtask cluster …`. Each undoes itself on drop.
use std::{process::Stdio, time::Duration};

use anyhow::Result;

use super::{
    Wall,
    commands::{run, xtask},
    seeds,
};

/// The agents' --vxlan-port.
pub(crate) const VXLAN_PORT: u16 = 14789;

/// A fault that can be laid: what `cargo xtask cluster` is told for it, and to mend it.
#[derive(Debug)]
pub(crate) struct Fault {
    lay: Vec<String>,
    mend: Vec<String>,
}

impl Fault {
    fn new(lay: &[&str], mend: &[&str]) -> Self {
        let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        Self { lay: owned(lay), mend: owned(mend) }
    }

    /// A program on a node, and the one that undoes it.
    fn on_node(node: &str, lay: &[&str], mend: &[&str]) -> Self {
        let at = ["exec", node, "--"];
        Self::new(&[&at, lay].concat(), &[&at, mend].concat())
    }

    /// As the scenario's own fault: where the seed is that it does not happen, it does not.
    pub(crate) async fn happens(self) -> Result<Standing> {
        if seeds::no_fault_happens() { Ok(Standing { mend: None }) } else { self.stands().await }
    }

    /// As a seed.
    pub(crate) async fn stands(self) -> Result<Standing> {
        // Before the fault: if it only half works it is undone all the same.
        let standing = Standing { mend: Some(self.mend) };
        cluster(&words(&self.lay)).await?;
        Ok(standing)
    }
}

/// A fault that stands until it is dropped or [`Standing::mended`].
#[derive(Debug)]
pub(crate) struct Standing {
    /// Absent: it is mended, or never happened.
    mend: Option<Vec<String>>,
}

impl Standing {
    pub(crate) async fn mended(mut self) -> Result<()> {
        let Some(mend) = self.mend.take() else { return Ok(()) };
        cluster(&words(&mend)).await.map(drop)
    }
}

impl Drop for Standing {
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

fn words(of: &[String]) -> Vec<&str> {
    of.iter().map(String::as_str).collect()
}

/// `cargo xtask cluster ARGS`.
pub(crate) async fn cluster(arguments: &[&str]) -> Result<String> {
    run(xtask().arg("cluster").args(arguments)).await
}

/// The node's power is gone: every process of it, at once.
pub(crate) fn power_cut(node: &str) -> Fault {
    Fault::new(&["node", "cut", node], &["node", "boot", node])
}

/// Kubernetes' API does not answer.
pub(crate) fn api_away() -> Fault {
    Fault::new(&["api", "stop"], &["api", "start"])
}

/// Two nodes do not reach each other; both reach the API.
pub(crate) fn partition(a: &str, b: &str) -> Fault {
    Fault::new(&["partition", a, b], &["heal"])
}

/// Nothing of the overlay enters or leaves the node, as a `NetworkPolicy` or a cloud's firewall would have it.
pub(crate) fn overlay_blocked(node: &str, udp_port: u16) -> Fault {
    let drops = format!("udp dport {udp_port} drop");
    filtered(node, &[("input", &drops), ("output", &drops)])
}

/// Rules of nftables on a node, each with its hook.
pub(crate) fn filtered(node: &str, rules: &[(&str, &str)]) -> Fault {
    const TABLE: &str = "loco_test";
    let mut lay = vec![format!("add table inet {TABLE}")];
    for (hook, rule) in rules {
        // Before connection tracking and whatever others have put there.
        lay.push(format!("add chain inet {TABLE} {hook} {{ type filter hook {hook} priority -300; }}"));
        lay.push(format!("add rule inet {TABLE} {hook} {rule}"));
    }
    Fault::on_node(node, &["nft", &lay.join("; ")], &["nft", "delete", "table", "inet", TABLE])
}

/// A process stands still.
pub(crate) fn frozen(node: &str, pid: &str) -> Fault {
    Fault::on_node(node, &["kill", "-STOP", pid], &["kill", "-CONT", pid])
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

/// How long Kubernetes takes to call a dead node `NotReady`, with its own cluster's settings, and some.
pub(crate) const NODE_AWAY: Duration = Duration::from_mins(1);
