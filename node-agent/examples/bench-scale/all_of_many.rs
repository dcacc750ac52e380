//! Many agents at once, each in a namespace of its own on one bridge: until every one hears every other.
use std::{
    fmt::Write as _,
    io::Write as _,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testkit::{NetNs, Underlay};

use crate::{
    Lines,
    agent::{Agent, Metrics},
    broadcast::{self, Seat},
    directory, until,
};

/// How long nothing changes while processor time is counted.
const QUIET: Duration = Duration::from_secs(20);

/// Between two questions to one agent: what it takes to answer is taken from what is measured.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Gives each node the others' MAC addresses.
///
/// What a kernel learns by ARP is counted for all its namespaces together, and it keeps 1,024 (`gc_thresh3`, arp(7)): 64 nodes of 63
/// neighbours each do not fit into one kernel, as they would into 64. Rows that are permanent do not count.
fn introduce(underlay: &Underlay, ips: &[Ipv4Addr]) -> anyhow::Result<()> {
    let macs: Vec<String> = (0..ips.len()).map(|index| mac_of(underlay.node(index))).collect::<anyhow::Result<_>>()?;
    for here in 0..ips.len() {
        let mut rows = String::new();
        for (ip, mac) in ips.iter().zip(&macs).filter(|(ip, _)| **ip != ips[here]) {
            writeln!(rows, "neigh replace {ip} lladdr {mac} dev eth0 nud permanent")?;
        }
        let mut ip = Command::new("ip");
        ip.args(["-batch", "-"]).stdin(Stdio::piped());
        let mut child = underlay.node(here).run(move || ip.spawn())??;
        child.stdin.take().context("a pipe to ip")?.write_all(rows.as_bytes())?;
        let status = child.wait()?;
        ensure!(status.success(), "ip -batch: {status}");
    }
    Ok(())
}

fn mac_of(node: &NetNs) -> anyhow::Result<String> {
    let output = node.run(|| Command::new("ip").args(["-br", "link", "show", "eth0"]).output())??;
    let line = String::from_utf8(output.stdout)?;
    line.split_whitespace().nth(2).map(str::to_owned).with_context(|| format!("no MAC address in {line:?}"))
}

/// Until each agent in turn is as `want` says; how long after `begin` the last one was.
fn until_each(
    begin: Instant,
    what: &str,
    (from, ips): (&NetNs, &[Ipv4Addr]),
    want: impl Fn(&Metrics) -> bool,
) -> anyhow::Result<Duration> {
    for ip in ips {
        until(begin, what, || {
            let answered = Metrics::of(from, &[*ip])?.pop().flatten();
            let wanted = answered.is_some_and(|metrics| want(&metrics));
            if !wanted {
                std::thread::sleep(ASK_EVERY);
            }
            Ok(wanted.then_some(()))
        })?;
    }
    Ok(begin.elapsed())
}

pub(crate) fn measure(count: u8, scratch: &Path, lines: &mut Lines) -> anyhow::Result<()> {
    let dir = scratch.join(format!("all-{count}"));
    std::fs::create_dir_all(&dir)?;
    std::fs::copy(scratch.join("token"), dir.join("token"))?;
    let nodes: Vec<(String, Ipv4Addr)> = (0..count).map(|n| (format!("node-{n}"), Underlay::address(n))).collect();
    let ips: Vec<Ipv4Addr> = nodes.iter().map(|(_, ip)| *ip).collect();
    directory::write(&dir.join("snapshot.json"), &directory::one_each(&nodes))?;
    let underlay = Underlay::new(count)?;
    introduce(&underlay, &ips)?;
    let first = underlay.node(0);
    let last = usize::from(count - 1);

    let begin = Instant::now();
    let mut agents: Vec<Agent> = Vec::new();
    for (index, (name, ip)) in nodes.iter().enumerate() {
        agents.push(Agent::start(underlay.node(index), &dir, name, *ip)?);
    }
    let started = begin.elapsed();
    let mut row = json!({"what": "all of many", "agents": count, "started_s": started.as_secs_f64()});
    let hears_all = |metrics: &Metrics| metrics.peers_up(&[]) == last;
    let all = until_each(begin, "every agent hears every other", (first, &ips), hears_all)?;
    row["joined_s"] = json!(all.as_secs_f64());

    let cpu = |agents: &[Agent]| agents.iter().map(Agent::cpu).sum::<anyhow::Result<f64>>();
    let written =
        || -> anyhow::Result<f64> { Ok(Metrics::of(first, &ips)?.iter().flatten().map(Metrics::writes).sum()) };
    let (writes, before, begin) = (written()?, cpu(&agents)?, Instant::now());
    std::thread::sleep(QUIET);
    row["quiet_cores_each"] = json!((cpu(&agents)? - before) / begin.elapsed().as_secs_f64() / f64::from(count));
    row["writes_each"] = json!(writes / f64::from(count));
    row["quiet_writes"] = json!(written()? - writes);
    let memory: Vec<Value> = agents.iter().map(Agent::memory).collect::<anyhow::Result<_>>()?;
    for key in ["rss", "own", "files", "shared", "pss", "peak"] {
        let mut values: Vec<f64> = memory.iter().filter_map(|one| one[key].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        ensure!(values.len() == agents.len(), "{key} of each agent");
        row[format!("{key}_mib")] = json!({"median": values[values.len() / 2], "most": values[values.len() - 1]});
    }

    let runtime = broadcast::runtime()?;
    let seats: Vec<Seat> = (0..)
        .zip(&agents)
        .map(|(seat, agent): (usize, _)| {
            let instance = format!("instance-{seat}");
            Seat::take(&runtime, &agent.seat(&instance), &instance)
        })
        .collect::<anyhow::Result<_>>()?;
    let mut heard = 0;
    row["broadcast"] = broadcast::measure(&seats[0], last, || {
        heard += seats[1..].iter().map(Seat::heard).sum::<u64>();
        heard
    })?;
    drop(seats);

    // The last node's cable is pulled.
    let status = underlay.node(last).run(|| Command::new("ip").args(["link", "set", "eth0", "down"]).status())??;
    ensure!(status.success(), "ip link set: {status}");
    let gone = format!(r#"peer="node-{last}""#);
    let knows = |metrics: &Metrics| metrics.peers_up(&[&gone]) == 0 && metrics.peers_up(&[]) == last - 1;
    let pruned = until_each(Instant::now(), "the dead node is out of every flood list", (first, &ips[..last]), knows)?;
    row["pruned_by_all_ms"] = json!(pruned.as_secs_f64() * 1e3);
    lines.note(row);
    Ok(())
}
