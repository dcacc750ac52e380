//! One agent among many nodes that are played: how long it takes, what it writes, what it holds.
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testkit::NetNs;

use crate::{
    Lines,
    agent::{Agent, Metrics},
    broadcast::{self, Seat},
    directory::{self, Case, HERE},
    until,
    world::{self, World},
};

/// How long nothing changes while processor time is counted.
const QUIET: Duration = Duration::from_secs(15);

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

/// What is in the kernel, by its own tool.
struct Tables(Vec<String>);

impl Tables {
    /// The rows of all tunnels that lead to another node.
    fn read(agent: &Agent) -> anyhow::Result<Self> {
        let show = || Command::new("bridge").args(["fdb", "show"]).output();
        let text = String::from_utf8(NetNs::run_at(&agent.fabric_netns(), show)??.stdout)?;
        Ok(Self(text.lines().filter(|line| line.contains(" dst ")).map(str::to_owned).collect()))
    }

    fn floods_to(&self, node: usize) -> bool {
        let to = format!(" dst {} ", world::vtep(node));
        self.0.iter().any(|row| row.starts_with("00:00:00:00:00:00") && row.contains(&to))
    }
}

struct Rig<'a> {
    case: &'a Case,
    world: World,
    agent: Agent,
    snapshot: std::path::PathBuf,
}

impl Rig<'_> {
    fn tell(&self, with_last: bool) -> anyhow::Result<Instant> {
        let begin = Instant::now();
        directory::write(&self.snapshot, &self.case.snapshot(with_last, world::HERE, world::vtep))?;
        Ok(begin)
    }

    fn metrics(&self) -> anyhow::Result<Metrics> {
        Metrics::of_one(&self.world.node, &self.agent)
    }

    /// Until the kernel has exactly so many rows.
    fn until_rows(&self, begin: Instant, rows: usize) -> anyhow::Result<Duration> {
        let mut last = 0;
        let there = until(begin, "the kernel's tables", || {
            last = Tables::read(&self.agent)?.0.len();
            Ok((last == rows).then_some(()))
        });
        Ok(there.with_context(|| format!("{last} rows of {rows}"))?.1)
    }

    fn until_heard(&self, begin: Instant) -> anyhow::Result<Duration> {
        let all = until(begin, "all other nodes answer", || {
            let up =
                Metrics::of(&self.world.node, &[world::HERE])?.pop().flatten().map(|metrics| metrics.peers_up(&[]));
            Ok((up == Some(self.case.vteps())).then_some(()))
        });
        Ok(all?.1)
    }

    fn until_floods(&self, begin: Instant, node: usize, want: bool) -> anyhow::Result<Duration> {
        Ok(until(begin, "the flood list", || Ok((Tables::read(&self.agent)?.floods_to(node) == want).then_some(())))?.1)
    }
}

pub(crate) fn measure(case: &Case, scratch: &Path, lines: &mut Lines) -> anyhow::Result<()> {
    let dir = scratch.join(format!("one-{}", case.vteps()));
    std::fs::create_dir_all(&dir)?;
    std::fs::copy(scratch.join("token"), dir.join("token"))?;
    let snapshot = dir.join("snapshot.json");
    directory::write(&snapshot, &directory::nobody(world::HERE))?;
    let world = World::new(case.vteps())?;
    let agent = Agent::start(&world.node, &dir, HERE, world::HERE)?;
    let mut rig = Rig { case, world, agent, snapshot };
    rig.agent.ready(&rig.world.node)?;
    let mut row = json!({"what": "one of many", "vteps": case.vteps(), "lans": case.lans, "rows": case.rows(), "memory_alone_mib": rig.agent.memory()?});
    let mut put = |key: &str, value: Value| row[key] = value;

    let before = rig.metrics()?.writes();
    let begin = rig.tell(true)?;
    put("rows_ms", json!(ms(rig.until_rows(begin, case.rows())?)));
    put("heard_ms", json!(ms(rig.until_heard(begin)?)));
    let writes = rig.metrics()?.writes();
    put("writes", json!(writes - before));

    // One node, with its guests, leaves the directory and comes again.
    let fewer = case.rows() - 2 - case.guests_of_last();
    let begin = rig.tell(false)?;
    put("leaves_ms", json!(ms(rig.until_rows(begin, fewer)?)));
    let left = rig.metrics()?.writes();
    put("leaves_writes", json!(left - writes));
    let begin = rig.tell(true)?;
    put("joins_ms", json!(ms(rig.until_rows(begin, case.rows())?)));
    put("joins_writes", json!(rig.metrics()?.writes() - left));
    rig.until_heard(begin)?;

    // One dies where it stands and comes back.
    let last = case.vteps() - 1;
    rig.world.silence(last)?;
    put("dies_ms", json!(ms(rig.until_floods(Instant::now(), last, false)?)));
    rig.world.revive(last)?;
    put("returns_ms", json!(ms(rig.until_floods(Instant::now(), last, true)?)));
    rig.until_heard(Instant::now())?;

    let (cpu, writes, begin) = (rig.agent.cpu()?, rig.metrics()?.writes(), Instant::now());
    std::thread::sleep(QUIET);
    put("quiet_cores", json!((rig.agent.cpu()? - cpu) / begin.elapsed().as_secs_f64()));
    put("quiet_writes", json!(rig.metrics()?.writes() - writes));
    put("memory_mib", rig.agent.memory()?);
    let seat = Seat::take(&broadcast::runtime()?, &rig.agent.seat("instance-0-0"), "instance-0-0")?;
    put("broadcast", broadcast::measure(&seat, case.peers, || rig.world.heard())?);
    drop(seat);

    // The next agent finds all as it is to be.
    let begin = Instant::now();
    rig.agent.restart(&rig.world.node)?;
    put("restart_heard_ms", json!(ms(rig.until_heard(begin)?)));
    let metrics = rig.metrics()?;
    put("restart_writes", json!(metrics.writes()));
    lines.note(row);
    ensure!(
        metrics.writes() == 0.0,
        "an agent that found all as desired wrote to the kernel {} times",
        metrics.writes()
    );
    Ok(())
}
