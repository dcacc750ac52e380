//! What one does to one's own cluster only: power, nets, services, and a look into the nodes.
mod rights;
mod storage;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt as _;
use tokio::time::{Instant, sleep};

use crate::harness::{
    LANS_SEATS, LONG, SOON, Wall,
    commands::{helm, run},
    faults::{self, NODE_AWAY, VXLAN_PORT},
    measured,
    peers::{self, Peers, RATE},
    scenario, until,
    watcher::Watcher,
};

/// A peer on a seat that nobody has before.
const LATECOMER: &str = "late-7";

fn node_of(pod: &Pod) -> Option<&String> {
    pod.spec.as_ref()?.node_name.as_ref()
}

/// The three nodes' names, by the seat of the peer on each.
async fn peer_nodes(wall: &Wall, peers: &Peers<'_>) -> Result<Vec<String>> {
    let mut nodes = Vec::new();
    for name in &peers.names {
        let pod = wall.pods().get(name).await?;
        nodes.push(node_of(&pod).with_context(|| format!("{name} is nowhere"))?.clone());
    }
    ensure!(nodes.len() == 3, "these scenarios are for the project's own three nodes, not for {nodes:?}");
    Ok(nodes)
}

/// Frames lost between the peers on the given seats only.
async fn lost_between(peers: &Peers<'_>, seats: &[usize]) -> Result<(u64, u64)> {
    let mut sum = (0, 0);
    for a in seats {
        for b in seats.iter().filter(|b| *b != a) {
            let (from, to) = (peers.report(&peers.names[*a]).await?, peers.report(&peers.names[*b]).await?);
            let (gone, all) = k8s_tests::peer::lost(&from, &to);
            sum = (sum.0 + gone, sum.1 + all);
        }
    }
    Ok(sum)
}

/// Nothing is lost while `fault` happens and ends.
async fn nothing_lost_while(name: &str, wall: &Wall, fault: impl AsyncFnOnce(&Peers<'_>) -> Result<()>) -> Result<()> {
    let peers = Peers::on_each_node(wall).await?;
    peers.flow(RATE).await?;
    peers.crossing().await?;
    fault(&peers).await?;
    // The peers are asked through the kubelet, which has to be back for that.
    until(LONG, "the peers to answer", async || peers.reports().await).await?;
    let all = peers.nothing_lost().await?;
    measured(name, "frames that crossed nodes meanwhile, none lost", all, "frames");
    wall.all_live(LONG).await.map(drop)
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn a_power_cut_takes_one_node_only_and_its_guests_come_back() {
    scenario("power-cut", async |wall| {
        let peers = Peers::on_each_node(wall).await?;
        let nodes = peer_nodes(wall, &peers).await?;
        peers.flow(RATE).await?;
        peers.crossing().await?;
        // A gateway that dies with the node is asked by every other request until Kubernetes notices; that would be timed otherwise.
        let gateways = wall.pods_of("gateway").await?;
        let has_gateway = |node: &String| gateways.iter().any(|pod| node_of(pod) == Some(node));
        let victim_seat =
            (0..nodes.len()).find(|seat| !has_gateway(&nodes[*seat])).context("a gateway is on each node")?;
        let others: Vec<usize> = (0..nodes.len()).filter(|seat| *seat != victim_seat).collect();
        let victim = &nodes[victim_seat];
        let of_victim = wall.live().await?.iter().filter(|i| i.node == *victim).count();
        let fault = faults::power_cut(victim).happens().await?;
        let cut = Instant::now();
        let silent = until(NODE_AWAY, "the gateway to say that the agent is silent", async || {
            let instances = wall.instances().await?;
            let gone = instances.iter().filter(|i| i.node == *victim && i.agent_silent_for.is_some()).count();
            ensure!(gone > 0, "nobody on {victim} is silent");
            Ok(cut.elapsed())
        })
        .await?;
        measured("power-cut", "the gateway says that the node is silent", silent.as_secs_f64(), "s");
        let live = wall.live().await?.len();
        ensure!(live == LANS_SEATS - of_victim, "{live} guests are live, {of_victim} were on {victim}");
        // Long enough for Kubernetes to call the node NotReady: that must change nothing for the others.
        until(NODE_AWAY, "NotReady", async || {
            let ready = wall.places().await?;
            ensure!(!ready.iter().any(|place| place.name == *victim), "{victim} still counts as ready");
            Ok(())
        })
        .await?;
        measured("power-cut", "NotReady", cut.elapsed().as_secs_f64(), "s");
        for seat in &others {
            let name = &peers.names[*seat];
            ensure!(peers.report(name).await?.attached, "{name} lost its own agent");
        }
        sleep(Duration::from_secs(2)).await;
        let before = lost_between_running(&peers, &others).await?;
        measured("power-cut", "frames lost among the other nodes", before, "frames");
        ensure!(before == 0, "{before} frames were lost between nodes that have power");
        let boot = Instant::now();
        fault.mended().await?;
        wall.all_live(LONG).await?;
        measured("power-cut", "nine live again after the node's power is back", boot.elapsed().as_secs_f64(), "s");
        // And the LAN is whole again.
        peers.attached(LONG).await?;
        let peers = Peers::on_each_node(wall).await?;
        peers.flow(RATE).await?;
        peers.crossing().await?;
        peers.nothing_lost().await.map(drop)
    })
    .await;
}

/// Losses between seats whose flows are stopped first; the others cannot be asked.
async fn lost_between_running(peers: &Peers<'_>, seats: &[usize]) -> Result<u64> {
    let alive = Peers { wall: peers.wall, names: seats.iter().map(|seat| peers.names[*seat].clone()).collect() };
    alive.stop().await?;
    until(SOON, "frames under way", async || {
        let (gone, all) = lost_between(peers, seats).await?;
        ensure!(all > 0, "nothing was sent");
        ensure!(gone == 0, "{gone} of {all} have not arrived");
        Ok(())
    })
    .await?;
    lost_between(peers, seats).await.map(|(gone, _)| gone)
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn a_kubelet_restart_loses_no_frame() {
    scenario("kubelet-restart", async |wall| {
        let node = wall.places().await?.first().context("no node")?.name.clone();
        nothing_lost_while("kubelet-restart", wall, async |peers: &Peers<'_>| {
            peers::remove(wall, LATECOMER).await?;
            // What the API says of a node outlives the kubelet that said it.
            let (last_word, _) = kubelets_word(wall, &node).await?;
            faults::cluster(&["node", "kubelet-restart", &node]).await?;
            until(LONG, "seats offered again", async || {
                let (word, seats) = kubelets_word(wall, &node).await?;
                ensure!(word > last_word, "the new kubelet has said nothing yet");
                ensure!(!matches!(seats.as_deref(), None | Some("0")), "loco.dev/seat: {seats:?}");
                Ok(())
            })
            .await?;
            // And the seats are real.
            peers::place(wall, LATECOMER, &node).await?;
            until(LONG, "a guest that comes now has its seat", async || {
                let report = peers.report(LATECOMER).await?;
                ensure!(report.attached, "{}", report.problem.unwrap_or_default());
                Ok(())
            })
            .await?;
            peers::remove(wall, LATECOMER).await
        })
        .await
    })
    .await;
}

/// When the node's kubelet spoke last, and the seats that it then offered. It forgets its plugins at its start; the agent has to have
/// registered again.
async fn kubelets_word(wall: &Wall, node: &str) -> Result<(Time, Option<String>)> {
    let node = kube::Api::<Node>::all(wall.client.clone()).get(node).await?;
    let status = node.status.context("a node without a status")?;
    let seats = status.allocatable.unwrap_or_default().remove("loco.dev/seat").map(|quantity| quantity.0);
    let ready = status.conditions.unwrap_or_default().into_iter().find(|condition| condition.type_ == "Ready");
    Ok((ready.and_then(|ready| ready.last_heartbeat_time).context("a node that was never ready")?, seats))
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn a_containerd_restart_loses_no_frame() {
    scenario("containerd-restart", async |wall| {
        let node = wall.places().await?.first().context("no node")?.name.clone();
        nothing_lost_while("containerd-restart", wall, async |_| {
            faults::cluster(&["node", "containerd-restart", &node]).await.map(drop)
        })
        .await
    })
    .await;
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn without_the_api_server_everything_plays_on() {
    scenario("api-away", async |wall| {
        let watcher = Watcher::start(wall, LANS_SEATS).await?;
        nothing_lost_while("api-away", wall, async |_| {
            let fault = faults::api_away().happens().await?;
            until(NODE_AWAY, "the gateway to say that its directory is old", async || {
                let info = wall.discovery_info().await?;
                ensure!(info.problem.is_some(), "{info:?}");
                Ok(())
            })
            .await?;
            let live = wall.live().await?.len();
            ensure!(live == LANS_SEATS, "{live} of {LANS_SEATS} are live while the API is away");
            fault.mended().await?;
            until(NODE_AWAY, "the gateway to follow again", async || {
                let info = wall.discovery_info().await?;
                ensure!(info.problem.is_none(), "{:?}", info.problem);
                Ok(())
            })
            .await
        })
        .await?;
        let seen = watcher.seen().await?;
        ensure!(seen.tiles.iter().all(|tile| tile.left_live == 0), "{:?}", seen.tiles);
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn a_partition_cuts_two_nodes_from_each_other_and_heals() {
    scenario("partition", async |wall| {
        let peers = Peers::on_each_node(wall).await?;
        let nodes = peer_nodes(wall, &peers).await?;
        peers.flow(RATE).await?;
        peers.crossing().await?;
        peers.nothing_lost().await?;
        let fault = faults::partition(&nodes[0], &nodes[1]).happens().await?;
        peers.reset().await?;
        peers.flow(RATE).await?;
        sleep(Duration::from_secs(5)).await;
        peers.stop().await?;
        let (gone, all) = lost_between(&peers, &[0, 1]).await?;
        ensure!(gone == all && all > 0, "{gone} of {all} frames were lost between nodes that are parted");
        for seat in [0, 1] {
            let (gone, all) = until(SOON, "frames under way", async || {
                let (gone, all) = lost_between(&peers, &[seat, 2]).await?;
                ensure!(gone == 0, "{gone} of {all} are lost");
                Ok((gone, all))
            })
            .await?;
            ensure!(gone == 0 && all > 0, "{gone} of {all} frames lost to the node that sees both");
        }
        fault.mended().await?;
        // Each node takes the other back into its flood list at the first answer, within a second.
        peers.reset().await?;
        peers.flow(RATE).await?;
        peers.crossing().await?;
        sleep(Duration::from_secs(1)).await;
        peers.stop().await?;
        peers.reset().await?;
        peers.flow(RATE).await?;
        peers.crossing().await?;
        let healed = peers.nothing_lost().await?;
        measured("partition", "frames after the heal, none lost", healed, "frames");
        wall.all_live(LONG).await.map(drop)
    })
    .await;
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn a_blocked_underlay_is_named_by_the_doctor() {
    scenario("underlay-blocked", async |wall| {
        let node = wall.places().await?.get(1).context("no second node")?.name.clone();
        let blocked = async || -> Result<Option<api::lan::Diagnosis>> {
            Ok(wall.doctor("").await?.diagnosis.into_iter().find(|diagnosis| diagnosis.cause == "underlay-blocked"))
        };
        ensure!(blocked().await?.is_none(), "the doctor names the fault before it is there: {:?}", blocked().await?);
        let fault = faults::overlay_blocked(&node, VXLAN_PORT).happens().await?;
        let start = Instant::now();
        let named = until(LONG, "the doctor to name the blocked port", async || {
            let found = blocked().await?.context("nothing of a blocked underlay")?;
            let said = format!("{} {}", found.sentence, found.remedy.clone().unwrap_or_default());
            ensure!(said.contains(&VXLAN_PORT.to_string()), "the port is not named: {said}");
            Ok(said)
        })
        .await?;
        measured("underlay-blocked", "the doctor names it", start.elapsed().as_secs_f64(), "s");
        eprintln!("the doctor: {named}");
        fault.mended().await?;
        until(LONG, "the doctor to be content", async || {
            let still = blocked().await?;
            ensure!(still.is_none(), "{still:?}");
            Ok(())
        })
        .await
    })
    .await;
}

async fn pod_ready(wall: &Wall, pod: &str) -> Result<bool> {
    let status = wall.pods().get(pod).await?.status.context("no status")?;
    Ok(status.conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

async fn restarts(wall: &Wall, pod: &str) -> Result<i32> {
    let status = wall.pods().get(pod).await?.status.context("no status")?;
    Ok(status.container_statuses.unwrap_or_default().iter().map(|status| status.restart_count).sum())
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn probes_fail_when_what_they_name_fails() {
    scenario("probes", async |wall| {
        let pod = "instance-4";
        let (node, pid) = faults::container_pid(wall, pod).await?;
        let children = faults::on_node(&node, &["cat", &format!("/proc/{pid}/task/{pid}/children")]).await?;
        let qemu = children.split_whitespace().next().context("the runner has no child")?.to_owned();
        // A guest that hangs: not ready, and not restarted for it.
        let before = restarts(wall, pod).await?;
        let fault = faults::frozen(&node, &qemu).happens().await?;
        until(LONG, "not ready while QEMU stands still", async || {
            ensure!(!pod_ready(wall, pod).await?, "{pod} is ready");
            Ok(())
        })
        .await?;
        fault.mended().await?;
        until(LONG, "ready again", async || {
            ensure!(pod_ready(wall, pod).await?, "{pod} is not ready");
            Ok(())
        })
        .await?;
        ensure!(restarts(wall, pod).await? == before, "{pod} was restarted for a guest that stood still");
        // A runner that hangs is restarted.
        let fault = faults::frozen(&node, &pid).happens().await?;
        until(LONG, "a restart of a runner that stands still", async || {
            ensure!(restarts(wall, pod).await? > before, "no restart yet");
            Ok(())
        })
        .await?;
        // That process is gone; there is nothing to continue.
        drop(fault);
        wall.all_live(LONG).await?;
        // An agent that hangs is not ready.
        let agents = wall.pods_of("node-agent").await?;
        let agent = agents.first().context("no agent")?.name_any();
        let (node, pid) = faults::container_pid(wall, &agent).await?;
        let fault = faults::frozen(&node, &pid).happens().await?;
        until(LONG, "the agent not ready", async || {
            ensure!(!pod_ready(wall, &agent).await?, "{agent} is ready");
            Ok(())
        })
        .await?;
        fault.mended().await?;
        wall.all_live(LONG).await.map(drop)
    })
    .await;
}

/// Ends the release, and what the tests have put beside it.
async fn uninstalled(wall: &Wall) -> Result<()> {
    run(helm().args(["uninstall", "loco", "-n", &wall.namespace, "--wait", "--timeout", "240s"])).await?;
    // The peers' StatefulSet is this test's own, not the release's.
    peers::none(wall).await?;
    until(LONG, "no pod", async || {
        let pods = wall.pods().list(&kube::api::ListParams::default()).await?;
        let left: BTreeSet<String> = pods.iter().map(kube::ResourceExt::name_any).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn uninstall_leaves_the_nodes_clean() {
    scenario("uninstall", async |wall| {
        let nodes = wall.places().await?;
        for node in &nodes {
            let links = faults::on_node(&node.name, &["ls", "/run/loco"]).await?;
            ensure!(!links.trim().is_empty(), "nothing of Loco is on {}: nothing is tested", node.name);
        }
        let start = Instant::now();
        uninstalled(wall).await?;
        measured("uninstall", "everything gone", start.elapsed().as_secs_f64(), "s");
        for node in &nodes {
            let mounts = faults::on_node(&node.name, &["cat", "/proc/mounts"]).await?;
            let ours: Vec<&str> = mounts.lines().filter(|line| line.contains("/run/loco/")).collect();
            ensure!(ours.is_empty(), "{}: mounts are left: {ours:?}", node.name);
            let links = faults::on_node(&node.name, &["ip", "-o", "link"]).await?;
            ensure!(!links.contains("loco"), "{}: links are left: {links}", node.name);
            let plugins = faults::on_node(&node.name, &["ls", "/var/lib/kubelet/device-plugins"]).await?;
            ensure!(!plugins.contains("loco"), "{}: the plugin's socket is left: {plugins}", node.name);
        }
        let left = run(helm().args(["list", "-n", &wall.namespace, "-q"])).await?;
        if !left.trim().is_empty() {
            bail!("a release is left: {left}");
        }
        Ok(())
    })
    .await;
}
