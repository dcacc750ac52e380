//! Metrics and alerts, as a real Prometheus sees them.
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::harness::{LANS_SEATS, measured, prometheus::Prometheus, scenario, until};

/// The alert waits 30 s, the kubelet some for an image that is not there.
const FIRES: Duration = Duration::from_mins(3);

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn prometheus_scrapes_all_and_an_agent_that_is_away_raises_the_alert() {
    scenario("prometheus", async |wall| {
        let prometheus = Prometheus::start(wall).await?;
        let seats = f64::from(u32::try_from(LANS_SEATS)?);
        let live = r#"count(loco_instance_state{state="live",instance=~"instance-.*"} == 1)"#;
        until(FIRES, "nine live instances in Prometheus", async || {
            let value = prometheus.query(live).await?;
            ensure!(value == Some(seats), "{value:?}");
            Ok(())
        })
        .await?;
        let agents = f64::from(u32::try_from(wall.places().await?.len())?);
        let known = prometheus.query("count(loco_gateway_agent_connected == 1)").await?;
        ensure!(known == Some(agents), "the gateway counts {known:?} agents of {agents}");
        for (what, expression) in [
            ("agent, resident memory, mean of nodes", r#"avg(loco_process_resident_memory_bytes{job="node-agent"})"#),
            ("gateway, resident memory", r#"avg(loco_process_resident_memory_bytes{job="gateway"})"#),
        ] {
            let value = prometheus.query(expression).await?.with_context(|| format!("no value of {expression}"))?;
            measured("prometheus", what, value / f64::from(1 << 20), "MiB");
        }
        let firing = prometheus.firing().await?;
        ensure!(!firing.iter().any(|(name, _)| name == "LocoAgentAway"), "an alert before its fault: {firing:?}");

        // An image that no registry has takes nobody away: the next agent never stands by, so the one that serves stays.
        wall.upgrade_in_vain(&["agent.image=localhost/loco/node-agent:not-built"]).await?;
        until(FIRES, "an agent that waits for its image", async || {
            let pods = wall.pods_of("node-agent").await?;
            let statuses = pods.iter().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref()).flatten();
            let waits = statuses.filter_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
            ensure!(waits.clone().any(|reason| reason.contains("Image")), "they wait for {:?}", waits.collect::<Vec<_>>());
            Ok(())
        })
        .await?;
        let away = prometheus.query("count(loco_gateway_agent_connected == 0)").await?;
        ensure!(away.is_none(), "a bad image took {away:?} agents");
        // One node without an agent.
        let without = wall.places().await?.first().context("no node")?.name.clone();
        let affinity = "agent.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0]";
        wall.upgrade_in_vain(&[
            &format!("{affinity}.key=kubernetes.io/hostname"),
            &format!("{affinity}.operator=NotIn"),
            &format!("{affinity}.values[0]={without}"),
        ])
        .await?;
        let whose = until(FIRES, "LocoAgentAway", async || {
            let firing = prometheus.firing().await?;
            let found = firing.iter().find(|(name, _)| name == "LocoAgentAway");
            Ok(found.with_context(|| format!("firing: {firing:?}"))?.1.clone())
        })
        .await?;
        ensure!(whose == without, "the alert names `{whose}`, and {without} has no agent");
        let away = prometheus.query("count(loco_gateway_agent_connected == 0)").await?;
        ensure!(away == Some(1.0), "{away:?} agents are away, not one");

        wall.upgrade(&[]).await?;
        until(FIRES, "the alert to end", async || {
            let firing = prometheus.firing().await?;
            ensure!(!firing.iter().any(|(name, _)| name == "LocoAgentAway"), "{firing:?}");
            Ok(())
        })
        .await
    })
    .await;
}
