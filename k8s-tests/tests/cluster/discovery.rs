//! The gateway follows the cluster: an instance appears, moves and dies on the page within a second.
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    runtime::watcher::{self, Event},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::harness::{LONG, Wall, measured, peers, scenario};

/// The requirement; half a second of it is this test's own, on a machine that is busy.
const FOLLOWS: Duration = Duration::from_millis(1500);
const NAME: &str = "mover-8";

/// Waits until the API tells this very watcher what is wanted of the pod: the moment from which the gateway is timed.
/// `watching` is told when the watch stands.
async fn told(wall: &Wall, watching: &Notify, wanted: impl Fn(Option<&Pod>) -> bool) -> Result<Instant> {
    let only = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let mut events = watcher::watcher(wall.pods(), only).boxed();
    let (mut pod, mut listed) = (None, false);
    let wait = async {
        while let Some(event) = events.try_next().await? {
            match event {
                Event::Apply(now) | Event::InitApply(now) => pod = Some(now),
                Event::Delete(_) => pod = None,
                Event::Init => (pod, listed) = (None, false),
                Event::InitDone => {
                    listed = true;
                    watching.notify_one();
                }
            }
            if listed && wanted(pod.as_ref()) {
                return Ok(Instant::now());
            }
        }
        bail!("the watch ended")
    };
    tokio::time::timeout(LONG, wait).await.context("the pod did not become what was wanted")?
}

/// Waits until the gateway says so, and how long after `since` that was.
async fn followed(wall: &Wall, since: Instant, wanted: impl Fn(Option<&str>) -> bool) -> Result<Duration> {
    loop {
        let instances = wall.instances().await?;
        if wanted(instances.iter().find(|instance| instance.id == NAME).map(|instance| instance.node.as_str())) {
            return Ok(since.elapsed());
        }
        ensure!(since.elapsed() < LONG, "the gateway never followed: {:?}", wall.discovery_info().await?);
        sleep(Duration::from_millis(20)).await;
    }
}

fn placed_on(pod: Option<&Pod>, node: &str) -> bool {
    let on = |pod: &Pod| {
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
            && pod.status.as_ref().is_some_and(|status| status.host_ip.is_some())
            && pod.metadata.deletion_timestamp.is_none()
    };
    pod.is_some_and(on)
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn an_instance_appears_moves_and_dies_within_a_second() {
    scenario("discovery", async |wall| {
        peers::remove(wall, NAME).await?;
        let places = wall.places().await?;
        let [first, second, ..] = places.as_slice() else { bail!("an instance moves only where there are two nodes") };
        let mut times = Vec::new();
        for place in [first, second] {
            let watching = Notify::new();
            let (at, outcome) = tokio::join!(told(wall, &watching, |pod| placed_on(pod, &place.name)), async {
                watching.notified().await;
                peers::place(wall, NAME, &place.name).await
            });
            outcome?;
            times.push(("appears", followed(wall, at?, |node| node == Some(&place.name)).await?));
            let (at, removed) = tokio::join!(told(wall, &watching, |pod| pod.is_none()), async {
                watching.notified().await;
                peers::remove(wall, NAME).await
            });
            removed?;
            times.push(("dies", followed(wall, at?, |node| node.is_none()).await?));
        }
        for (what, took) in &times {
            measured("discovery", what, u64::try_from(took.as_millis())?, "ms after the API told a watcher");
            ensure!(*took <= FOLLOWS, "{what}: {took:?} after the API told of it, at most {FOLLOWS:?} are allowed");
        }
        let info = wall.discovery_info().await?;
        ensure!(info.mode == "kubernetes" && info.problem.is_none(), "{info:?}");
        ensure!(info.agents.len() >= places.len() && info.agents.iter().all(|agent| agent.answers), "{info:?}");
        let pods = wall.pods_of("instance").await?.len();
        ensure!(info.instance_count as usize == pods, "{} instances of {pods} pods", info.instance_count);
        ensure!(!wall.pods().list(&kube::api::ListParams::default()).await?.iter().any(|pod| pod.name_any() == NAME));
        Ok(())
    })
    .await;
}
