//! Many agents at once, each in a namespace of its own on one bridge: until every one hears every other.
use std::{
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::ensure;
use serde_json::{Value, json};
use testkit::Underlay;

use crate::{
    Lines,
    agent::{Agent, Metrics},
    directory, until,
};

const AGENTS: u8 = 64;
/// How long nothing changes while processor time is counted.
const QUIET: Duration = Duration::from_secs(20);

pub(crate) fn measure(scratch: &Path, lines: &mut Lines) -> anyhow::Result<()> {
    let dir = scratch.join("all");
    std::fs::create_dir_all(&dir)?;
    std::fs::copy(scratch.join("token"), dir.join("token"))?;
    let nodes: Vec<(String, Ipv4Addr)> = (0..AGENTS).map(|n| (format!("node-{n}"), Underlay::address(n))).collect();
    let ips: Vec<Ipv4Addr> = nodes.iter().map(|(_, ip)| *ip).collect();
    directory::write(&dir.join("snapshot.json"), &directory::one_each(&nodes))?;
    let underlay = Underlay::new(AGENTS)?;
    let first = underlay.node(0);
    let others = usize::from(AGENTS - 1);

    let begin = Instant::now();
    let mut agents: Vec<Agent> = Vec::new();
    for (index, (name, ip)) in nodes.iter().enumerate() {
        agents.push(Agent::start(underlay.node(index), &dir, name, *ip)?);
    }
    let started = begin.elapsed();
    let count = |want: &dyn Fn(&Metrics) -> bool| -> anyhow::Result<usize> {
        Ok(Metrics::of(first, &ips)?.iter().flatten().filter(|metrics| want(metrics)).count())
    };
    let mut row = json!({"what": "all of many", "agents": AGENTS, "started_s": started.as_secs_f64()});
    let ((), all) = until(begin, "every agent hears every other", || {
        Ok((count(&|metrics| metrics.peers_up(&[]) == others)? == ips.len()).then_some(()))
    })?;
    row["joined_s"] = json!(all.as_secs_f64());

    let cpu = |agents: &[Agent]| agents.iter().map(Agent::cpu).sum::<anyhow::Result<f64>>();
    let written =
        || -> anyhow::Result<f64> { Ok(Metrics::of(first, &ips)?.iter().flatten().map(Metrics::writes).sum()) };
    let (before, writes, begin) = (cpu(&agents)?, written()?, Instant::now());
    std::thread::sleep(QUIET);
    row["quiet_cores_each"] = json!((cpu(&agents)? - before) / begin.elapsed().as_secs_f64() / f64::from(AGENTS));
    row["writes_each"] = json!(writes / f64::from(AGENTS));
    row["quiet_writes"] = json!(written()? - writes);
    let memory: Vec<Value> = agents.iter().map(Agent::memory).collect::<anyhow::Result<_>>()?;
    for key in ["rss", "own", "files", "shared", "pss", "peak"] {
        let mut values: Vec<f64> = memory.iter().filter_map(|one| one[key].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        ensure!(values.len() == agents.len(), "{key} of each agent");
        row[format!("{key}_mib")] = json!({"median": values[values.len() / 2], "most": values[values.len() - 1]});
    }

    // The last node's cable is pulled.
    let last = usize::from(AGENTS - 1);
    let status = underlay
        .node(last)
        .run(|| std::process::Command::new("ip").args(["link", "set", "eth0", "down"]).status())??;
    ensure!(status.success(), "ip link set: {status}");
    let gone = [r#"peer="node-63""#];
    let ((), pruned) = until(Instant::now(), "the dead node is out of every flood list", || {
        let knows = |metrics: &Metrics| metrics.peers_up(&gone) == 0 && metrics.peers_up(&[]) == others - 1;
        Ok((count(&knows)? == last).then_some(()))
    })?;
    row["pruned_by_all_ms"] = json!(pruned.as_secs_f64() * 1e3);
    lines.note(row);
    Ok(())
}
