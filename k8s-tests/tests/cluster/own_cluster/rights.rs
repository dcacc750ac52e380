//! A cluster that gives its pods no right at all: agents without a capability and without a device, frames by their own switch.
use anyhow::{Result, ensure};
use kube::ResourceExt as _;

use super::uninstalled;
use crate::{
    harness::{
        LONG, Wall,
        commands::{helm, run},
        faults::{container_pid, on_node},
        scenario_undone,
    },
    lan::one_session_over_nodes,
};

/// What the kernel lets every agent do: nothing beyond what any process may.
async fn agents_have_no_capability(wall: &Wall) -> Result<()> {
    let agents = wall.pods_of("node-agent").await?;
    ensure!(agents.len() == wall.places().await?.len(), "{} agents", agents.len());
    for agent in &agents {
        let (node, pid) = container_pid(wall, &agent.name_any()).await?;
        let status = on_node(&node, &["cat", &format!("/proc/{pid}/status")]).await?;
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let is_empty = status.lines().any(|line| line == format!("{set}:\t0000000000000000"));
            ensure!(is_empty, "{}: {set} is not empty: {status}", agent.name_any());
        }
    }
    Ok(())
}

async fn plays(wall: &Wall) -> Result<()> {
    uninstalled(wall).await?;
    wall.upgrade(&["networkMode=socket", "agent.privileged=false"]).await?;
    wall.all_live(LONG).await?;
    agents_have_no_capability(wall).await?;
    let status = wall.lan_status().await?;
    ensure!(status.network_mode.as_deref() == Some("socket"), "the mode is {:?}", status.network_mode);
    // The test peers know taps only, so it is the guests' own session that shows the frames' way over nodes.
    one_session_over_nodes(wall).await?;
    uninstalled(wall).await?;
    for place in wall.places().await? {
        let left = on_node(&place.name, &["find", "/run", "-path", "/run/loco/*"]).await?;
        ensure!(left.trim().is_empty(), "{}: files are left: {left}", place.name);
    }
    Ok(())
}

/// Without the release, if there still is one.
async fn released(wall: &Wall) -> Result<()> {
    let left = run(helm().args(["list", "-n", &wall.namespace, "-q"])).await?;
    if left.trim().is_empty() { Ok(()) } else { uninstalled(wall).await }
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn a_wall_plays_without_any_right_on_its_nodes() {
    // From nothing to nothing: a guest whose LAN gets another mode beneath it would have to start again.
    scenario_undone("no-rights", plays, released).await;
}
