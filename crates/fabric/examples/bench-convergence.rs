//! How fast a LAN is whole again: a guest joins on a node that had no part in the LAN, a node dies, it comes back.
//!
//! ```text
//!  join:   the directory is handed to both agents ──> first broadcast of the other node's guest heard at the new tap
//!  death:  the node's underlay link goes down ──────> its row is out of the flood list, by the kernel's table
//!  return: the link comes up ───────────────────────> the row is in again
//! ```
//! Nodes are network namespaces joined by veth pairs, each with a fabric of its own; the test holds the taps in QEMU's place and sends a
//! broadcast each millisecond. Prints one JSON object a round, then one for all; with `--out DIR` it also writes them to
//! `DIR/convergence-DATE.jsonl`, and a table to `DIR/convergence-DATE.md`. Needs root; `cargo xtask bench convergence` runs it.
#![expect(clippy::print_stdout, reason = "what a bench prints is its result")]
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use fabric::{Fabric, FabricConfig, FabricSpec};
use model::{InstanceId, Lan, NetworkMode, Node, NodeName, PlacedInstance, Seat, Snapshot, Vni};
use testkit::{Frame, NetNs, Numbered, Tap, Underlay};

const JOINS: usize = 40;
const DEATHS: usize = 20;
/// Longest wait for any of them.
const LIMIT: Duration = Duration::from_secs(20);
const BROADCAST: [u8; 6] = [0xff; 6];

fn lan() -> anyhow::Result<Lan> {
    Ok(Lan::new("party".parse()?, Vni::new(4200)?, NetworkMode::Vxlan, "10.98.0.0/24".parse()?, 9)?)
}

fn node(index: u8) -> anyhow::Result<NodeName> {
    Ok(format!("node-{index}").parse()?)
}

fn instance(seat: u8) -> anyhow::Result<InstanceId> {
    Ok(format!("instance-{seat}").parse()?)
}

/// Seat n is on node n, for as many as `seats`.
fn snapshot(seats: u8) -> anyhow::Result<Snapshot> {
    let nodes: Vec<Node> = (0..2)
        .map(|index| Ok(Node { name: node(index)?, underlay_ip: Underlay::address(index), agent_url: String::new() }))
        .collect::<anyhow::Result<_>>()?;
    let placed: Vec<PlacedInstance> = (0..seats)
        .map(|seat| {
            Ok(PlacedInstance {
                id: instance(seat)?,
                lan: "party".parse()?,
                seat: Seat(seat),
                node: node(seat)?,
                card: None,
            })
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(Snapshot::new([lan()?], nodes, placed)?)
}

struct Nodes {
    fabrics: Vec<Fabric>,
    configs: Vec<FabricConfig>,
    underlay: Underlay,
}

impl Nodes {
    async fn new() -> anyhow::Result<Self> {
        let underlay = Underlay::new(2)?;
        let mut nodes = Self { fabrics: Vec::new(), configs: Vec::new(), underlay };
        for index in 0..2 {
            let config = FabricConfig {
                node: node(index)?,
                netns: NetNs::free_path(&format!("bench{index}")),
                underlay_ip: Underlay::address(index),
                vxlan_port: 14789,
                underlay_netns: Some(nodes.underlay.node(index.into()).path().to_owned()),
                macvlan_parent: None,
                encryption: None,
            };
            nodes.fabrics.push(Fabric::start(config.clone(), &prometheus::Registry::new()).await?);
            nodes.configs.push(config);
        }
        Ok(nodes)
    }

    /// As a directory that changed tells all agents at once.
    fn place(&self, seats: u8) -> anyhow::Result<()> {
        let snapshot = snapshot(seats)?;
        for (fabric, config) in self.fabrics.iter().zip(&self.configs) {
            fabric.set_spec(FabricSpec::from_snapshot(&snapshot, &config.node));
        }
        Ok(())
    }

    /// Waits until the fabric of a node says so.
    async fn until(&self, index: usize, holds: impl Fn(&fabric::FabricStatus) -> bool) -> anyhow::Result<()> {
        let mut status = self.fabrics[index].status();
        tokio::time::timeout(LIMIT, status.wait_for(|status| holds(status))).await.context("waited too long")??;
        Ok(())
    }

    /// Whether node 0 floods to node 1, by the kernel's table.
    fn floods(&self) -> anyhow::Result<bool> {
        let show = || Command::new("bridge").args(["fdb", "show", "dev", "locovx001068"]).output();
        let table = String::from_utf8(NetNs::run_at(&self.configs[0].netns, show)??.stdout)?;
        let row = format!("dst {}", Underlay::address(1));
        Ok(table.lines().any(|line| line.starts_with("00:00:00:00:00:00") && line.contains(&row)))
    }

    fn set_link(&self, up: bool) -> anyhow::Result<()> {
        let words = ["link", "set", "eth0", if up { "up" } else { "down" }];
        let status = self.underlay.node(1).run(|| Command::new("ip").args(words).status())??;
        ensure!(status.success(), "ip link set: {status}");
        Ok(())
    }

    async fn wait_for_flood(&self, want: bool) -> anyhow::Result<Duration> {
        let start = Instant::now();
        while self.floods()? != want {
            ensure!(start.elapsed() < LIMIT, "the flood list did not change within {LIMIT:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(start.elapsed())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.fabrics.clear();
        for config in &self.configs {
            if let Err(error) = fabric::uninstall(config) {
                eprintln!("{error}");
            }
        }
    }
}

async fn join(nodes: &Nodes, speaker: &Tap, round: usize) -> anyhow::Result<Duration> {
    let mac = lan()?.identity(Seat(0))?.mac.0;
    let start = Instant::now();
    nodes.place(2)?;
    let listener = loop {
        // The directory may not have been read yet: a runner asks again, too.
        match nodes.fabrics[1].open_tap(&instance(1)?).await {
            Ok(port) => break Tap::from_fd(port.net)?,
            Err(_) if start.elapsed() < LIMIT => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => bail!(error),
        }
    };
    let kind = u8::try_from(round % 250)?;
    for sequence in 0.. {
        let number = Numbered { kind, sender: 0, sequence };
        speaker.send(&Frame::ethernet(BROADCAST, mac, number, 46)).await?;
        speaker.drain()?;
        let heard = |frame: &Vec<u8>| Numbered::find(frame).is_some_and(|number| number.kind == kind);
        if listener.drain()?.iter().any(heard) {
            break;
        }
        ensure!(start.elapsed() < LIMIT, "no broadcast was heard within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(start.elapsed())
}

struct Series {
    name: &'static str,
    goal: Duration,
    times: Vec<Duration>,
}

impl Series {
    fn ms(&self, quantile: usize) -> f64 {
        let mut sorted = self.times.clone();
        sorted.sort();
        let at = (sorted.len() * quantile).div_ceil(100).saturating_sub(1);
        sorted.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }

    fn json(&self) -> String {
        format!(
            r#"{{"what":"{}","rounds":{},"p50_ms":{:.1},"p95_ms":{:.1},"max_ms":{:.1},"goal_ms":{}}}"#,
            self.name,
            self.times.len(),
            self.ms(50),
            self.ms(95),
            self.ms(100),
            self.goal.as_millis()
        )
    }

    fn row(&self) -> String {
        format!(
            "| {} | {} | {:.0} | {:.0} | {:.0} | {} |",
            self.name,
            self.times.len(),
            self.ms(50),
            self.ms(95),
            self.ms(100),
            self.goal.as_millis()
        )
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let out = match (words.next().as_deref(), words.next()) {
        (None, _) => None,
        (Some("--out"), Some(dir)) => Some(PathBuf::from(dir)),
        _ => bail!("the only flag is --out DIR"),
    };
    let mut lines = vec![machine()];
    let mut series = [
        Series { name: "join to first broadcast", goal: Duration::from_secs(1), times: Vec::new() },
        Series { name: "death to pruned", goal: Duration::from_secs(2), times: Vec::new() },
        Series { name: "return to flooded", goal: Duration::from_secs(1), times: Vec::new() },
    ];
    let nodes = Nodes::new().await?;
    let note = |lines: &mut Vec<String>, series: &mut Series, round: usize, time: Duration| {
        let line = format!(r#"{{"what":"{}","round":{round},"ms":{:.1}}}"#, series.name, time.as_secs_f64() * 1000.0);
        println!("{line}");
        lines.push(line);
        series.times.push(time);
    };
    nodes.place(1)?;
    let speaker = Tap::from_fd(open(&nodes).await?)?;
    let [joins, deaths, returns] = &mut series;
    for round in 0..JOINS {
        let time = join(&nodes, &speaker, round).await?;
        note(&mut lines, joins, round, time);
        nodes.place(1)?;
        nodes.until(1, |status| status.ports.is_empty()).await?;
        nodes.until(0, |status| status.peers.is_empty()).await?;
    }
    nodes.place(2)?;
    for round in 0..DEATHS {
        nodes.until(0, |status| status.peers.iter().any(|peer| peer.alive == Some(true))).await?;
        nodes.set_link(false)?;
        let time = nodes.wait_for_flood(false).await?;
        note(&mut lines, deaths, round, time);
        nodes.set_link(true)?;
        let time = nodes.wait_for_flood(true).await?;
        note(&mut lines, returns, round, time);
    }
    lines.extend(series.iter().map(Series::json));
    for one in &series {
        println!("{}", one.json());
    }
    out.map_or(Ok(()), |dir| write(&dir, &lines, &series))
}

async fn open(nodes: &Nodes) -> anyhow::Result<std::os::fd::OwnedFd> {
    nodes.until(0, |status| status.ports.values().any(|port| port.exists)).await?;
    Ok(nodes.fabrics[0].open_tap(&instance(0)?).await?.net)
}

/// What the figures depend on.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned();
    format!(r#"{{"kernel":"{}","cpus":{cpus},"load":"{load}"}}"#, read("/proc/sys/kernel/osrelease"))
}

fn write(dir: &Path, lines: &[String], series: &[Series]) -> anyhow::Result<()> {
    let date = Command::new("date").args(["-u", "+%F"]).output()?.stdout;
    let date = String::from_utf8(date)?.trim().to_owned();
    let name = format!("convergence-{date}");
    let mut raw = fs::File::create(dir.join(format!("{name}.jsonl")))?;
    lines.iter().try_for_each(|line| writeln!(raw, "{line}"))?;
    let mut page = fs::File::create(dir.join(format!("{name}.md")))?;
    let rows: Vec<String> = series.iter().map(Series::row).collect();
    writeln!(
        page,
        "# How fast a LAN is whole again, {date}\n\n\
         Machine: `{}`. Command: `cargo xtask bench convergence`. Raw data: `{name}.jsonl`.\n\
         Nodes are namespaces of one kernel; questions go every 300 ms, three without an answer mean away. Milliseconds.\n\n\
         | what | rounds | p50 | p95 | max | goal |\n|---|---|---|---|---|---|\n{}",
        lines.first().map_or("", |line| line),
        rows.join("\n")
    )?;
    Ok(())
}
