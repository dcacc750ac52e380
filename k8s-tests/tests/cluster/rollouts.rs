//! Upgrades while nine guests play: agents, gateway, guests; rollback; an image that does not exist; a drained node.
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::DeleteParams};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::harness::{
    LANS_SEATS, LONG, SOON, Wall,
    commands::{helm, kubectl, run},
    measured,
    peers::{Peers, RATE},
    scenario, unique, until,
    watcher::{Seen, Tile, Watcher},
};

/// The requirement for a picture to be back.
const PICTURE_BACK_MS: f64 = 3_000.0;

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// The guests of the first LAN, by name, with their uid and whether they are ready.
async fn guests(wall: &Wall) -> Result<BTreeMap<String, (String, bool)>> {
    let pods = wall.pods_of("instance").await?;
    let first = pods.iter().filter(|pod| pod.labels().get("loco.dev/lan").is_some_and(|lan| lan == "party"));
    Ok(first.map(|pod| (pod.name_any(), (pod.uid().unwrap_or_default(), is_ready(pod)))).collect())
}

/// Counts the ready guests until it is told to stop: the fewest there were.
#[derive(Debug)]
struct Fewest {
    stop: Arc<AtomicBool>,
    task: JoinHandle<usize>,
}

impl Fewest {
    fn watch(wall: &Wall) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (wall, stopped) = (wall.clone(), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let mut fewest = usize::MAX;
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(guests) = guests(&wall).await {
                    fewest = fewest.min(guests.values().filter(|(_, ready)| *ready).count());
                }
                sleep(Duration::from_millis(100)).await;
            }
            fewest
        });
        Self { stop, task }
    }

    async fn end(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.task.await?)
    }
}

fn pictures(what: &str, seen: &Seen) -> f64 {
    let most = |of: fn(&Tile) -> f64| seen.tiles.iter().map(of).fold(0.0, f64::max);
    measured(what, "longest time between two frames, of nine tiles", most(|tile| tile.longest_gap_ms), "ms");
    // The first includes how seldom the guest itself draws, which on a busy machine is seconds.
    let longest = most(|tile| tile.longest_away_ms);
    measured(what, "longest time that a tile was not live, of nine", longest, "ms");
    measured(what, "tiles that left `live`", seen.tiles.iter().filter(|tile| tile.left_live > 0).count(), "tiles");
    measured(what, "watched for", seen.seconds, "s");
    longest
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn agents_roll_without_a_lost_frame_and_pictures_are_back_in_three_seconds() {
    scenario("roll-agents", async |wall| {
        let peers = Peers::on_each_node(wall).await?;
        peers.flow(RATE).await?;
        peers.crossing().await?;
        let watcher = Watcher::start(wall, LANS_SEATS).await?;
        let before: BTreeMap<_, _> =
            wall.pods_of("node-agent").await?.iter().map(|pod| (pod.uid(), pod.name_any())).collect();
        let start = Instant::now();
        wall.upgrade(&[&format!("agent.podAnnotations.test={}", unique())]).await?;
        wall.rolled_out().await?;
        measured("roll-agents", "all agents rolled", start.elapsed().as_secs_f64(), "s");
        let after = wall.pods_of("node-agent").await?;
        ensure!(after.iter().all(|pod| !before.contains_key(&pod.uid())), "not every agent was made anew");
        peers.attached(SOON).await?;
        wall.all_live(LONG).await?;
        // Every tile has to have moved again before the watch is read.
        sleep(Duration::from_secs(3)).await;
        let seen = watcher.seen().await?;
        let all = peers.nothing_lost().await?;
        measured("roll-agents", "frames that crossed nodes meanwhile, none lost", all, "frames");
        measured("roll-agents", "longest gap between two frames of a kind", peers.longest_gap_ms().await?, "ms");
        for report in peers.reports().await? {
            ensure!(report.attachments >= 2, "{} never met a new agent", report.instance);
        }
        let longest = pictures("roll-agents", &seen);
        ensure!(seen.tiles.iter().all(|tile| tile.state == "live"), "{:?}", seen.tiles);
        ensure!(longest <= PICTURE_BACK_MS, "a tile was away for {longest} ms: {:?}", seen.tiles);
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn the_gateway_rolls_without_a_dropped_stream() {
    scenario("roll-gateway", async |wall| {
        let watcher = Watcher::start(wall, LANS_SEATS).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let (visitor, stopped) = (wall.clone(), Arc::clone(&stop));
        let asked = tokio::spawn(async move {
            let (mut answered, mut failed) = (0_u32, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                match visitor.instances().await {
                    Ok(_) => answered += 1,
                    Err(error) => failed.push(format!("{error:#}")),
                }
                sleep(Duration::from_millis(50)).await;
            }
            (answered, failed)
        });
        let start = Instant::now();
        wall.upgrade(&[&format!("gateway.podAnnotations.test={}", unique())]).await?;
        wall.rolled_out().await?;
        measured("roll-gateway", "gateway rolled", start.elapsed().as_secs_f64(), "s");
        sleep(Duration::from_secs(3)).await;
        stop.store(true, Ordering::Relaxed);
        let (answered, failed) = asked.await?;
        let seen = watcher.seen().await?;
        measured("roll-gateway", "requests answered meanwhile", answered, "requests");
        measured("roll-gateway", "requests failed meanwhile", failed.len(), "requests");
        pictures("roll-gateway", &seen);
        ensure!(seen.tiles.iter().all(|tile| tile.left_live == 0 && tile.state == "live"), "{:?}", seen.tiles);
        ensure!(failed.is_empty(), "{} of {answered} requests failed: {:.600}", failed.len(), failed.join("; "));
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn guests_roll_one_at_a_time_and_only_down_to_the_partition() {
    scenario("roll-guests", async |wall| {
        let before = guests(wall).await?;
        let fewest = Fewest::watch(wall);
        let start = Instant::now();
        wall.upgrade(&[&format!("guest.podAnnotations.test={}", unique()), "guest.partition=6"]).await?;
        run(kubectl().args(["-n", &wall.namespace, "rollout", "status", "statefulset/instance", "--timeout=240s"]))
            .await?;
        measured("roll-guests", "three guests rolled", start.elapsed().as_secs_f64(), "s");
        let fewest = fewest.end().await?;
        wall.all_live(LONG).await?;
        let after = guests(wall).await?;
        for seat in 0..LANS_SEATS {
            let name = format!("instance-{seat}");
            let (old, new) = (before.get(&name).context("gone")?, after.get(&name).context("gone")?);
            ensure!((old.0 != new.0) == (seat >= 6), "{name}: rolled = {}", old.0 != new.0);
        }
        measured("roll-guests", "fewest guests ready at once", fewest, "guests");
        ensure!(fewest >= LANS_SEATS - 1, "{} seats were away at once", LANS_SEATS - fewest);
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn a_bad_image_stops_the_roll_and_a_rollback_mends_it() {
    scenario("bad-image", async |wall| {
        let before = guests(wall).await?;
        wall.upgrade_in_vain(&["guest.image=localhost/loco/guest-runner:not-built"]).await?;
        let last = format!("instance-{}", LANS_SEATS - 1);
        let waiting = async || -> Result<String> {
            let pod = wall.pods().get(&last).await?;
            let status = pod.status.and_then(|s| s.container_statuses).unwrap_or_default();
            let reason = status.first().and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.clone());
            reason.context("not waiting for its image")
        };
        let reason = until(LONG, "the last seat without its image", async || {
            let reason = waiting().await?;
            ensure!(reason.contains("Image"), "it waits for {reason}");
            Ok(reason)
        })
        .await?;
        // The others are as they were: the roll went no further.
        let now = guests(wall).await?;
        for seat in 0..LANS_SEATS - 1 {
            let name = format!("instance-{seat}");
            ensure!(now.get(&name) == before.get(&name), "{name} was touched: {:?} ({reason})", now.get(&name));
        }
        run(helm().args(["rollback", "loco", "-n", &wall.namespace])).await?;
        // A StatefulSet waits for ever for a pod that is not ready, also after its template is good again
        // (kubernetes/kubernetes#67250): the broken one has to be deleted, which docs/operating.md says.
        wall.pods().delete(&last, &DeleteParams::default()).await?;
        let start = Instant::now();
        wall.all_live(LONG).await?;
        measured("bad-image", "nine live after rollback", start.elapsed().as_secs_f64(), "s");
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn a_drain_takes_one_guest_at_a_time_and_they_play_elsewhere() {
    scenario("drain", async |wall| {
        let instances = wall.live().await?;
        let node = instances.iter().find(|i| i.id == "instance-0").context("no instance-0")?.node.clone();
        let here = instances.iter().filter(|i| i.node == node).count();
        ensure!(wall.places().await?.len() >= 2, "a drain needs another node to go to");
        let fewest = Fewest::watch(wall);
        let start = Instant::now();
        let drained = run(kubectl().args([
            "drain",
            &node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--force",
            "--timeout=240s",
        ]))
        .await;
        let took = start.elapsed().as_secs_f64();
        let live = wall.all_live(LONG).await;
        run(kubectl().args(["uncordon", &node])).await?;
        drained?;
        measured("drain", &format!("a node with {here} guests drained"), took, "s");
        let fewest = fewest.end().await?;
        ensure!(live?.iter().all(|instance| instance.node != node), "somebody still plays on {node}");
        measured("drain", "fewest guests ready at once", fewest, "guests");
        ensure!(fewest >= LANS_SEATS - 1, "{} seats were away at once", LANS_SEATS - fewest);
        Ok(())
    })
    .await;
}

/// Every object of the release that a person wrote, by kind and name: what would tell that it was written anew.
async fn objects(wall: &Wall) -> Result<BTreeMap<String, String>> {
    let kinds = "configmap,secret,service,serviceaccount,role,rolebinding,networkpolicy,poddisruptionbudget,daemonset,deployment,statefulset";
    let mut get = kubectl();
    get.args(["-n", &wall.namespace, "get", kinds, "-l", "app.kubernetes.io/part-of=loco", "-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&run(&mut get).await?)?;
    let items = list["items"].as_array().context("no list")?;
    let rows = items.iter().map(|object| {
        let meta = &object["metadata"];
        // An object with a status has a generation for what was written; its resourceVersion changes with the status.
        let version = meta.get("generation").unwrap_or(&meta["resourceVersion"]);
        (format!("{}/{}", object["kind"], meta["name"]), format!("{} {version}", meta["uid"]))
    });
    Ok(rows.collect())
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn an_upgrade_to_the_same_leaves_every_object_as_it_was() {
    scenario("upgrade-same", async |wall| {
        let before = (objects(wall).await?, guests(wall).await?);
        ensure!(before.0.len() >= 15, "only {} objects: {:?}", before.0.len(), before.0.keys());
        wall.upgrade(&[]).await?;
        let after = (objects(wall).await?, guests(wall).await?);
        let changed: Vec<_> = before.0.iter().filter(|(name, was)| after.0.get(*name) != Some(was)).collect();
        ensure!(changed.is_empty() && before.0.len() == after.0.len(), "written anew: {changed:?}");
        for (name, (uid, _)) in &before.1 {
            ensure!(after.1.get(name).is_some_and(|now| now.0 == *uid), "{name} was made anew");
        }
        measured("upgrade-same", "objects that the same upgrade left as they were", before.0.len(), "objects");
        Ok(())
    })
    .await;
}
