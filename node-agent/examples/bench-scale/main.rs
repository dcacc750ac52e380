//! How the fabric grows: one node's agent among 8, 64, 250 and 512 other nodes, and 8 to 64 agents that all know each other.
//!
//! ```text
//!  one of many:  agent (real process, own namespace) ─ veth ─ world: one socket for each other node's VTEP, which answers questions
//!                    directory ──> rows in the kernel ──> everybody heard;  restart: writes nothing;  a node leaves, dies, returns
//!  all of many:  N agents (real processes, a namespace each) on one bridge, one LAN, a seat on each
//! ```
//! The agents are `node-agent` beside this program, with a snapshot file as directory. What they hold is read from the kernel and from
//! `/proc`. Prints one JSON object a line; with `--out DIR` it also writes them to `DIR/scale-DATE.jsonl`, and tables to
//! `DIR/scale-DATE.md`. `--vteps` and `--agents` choose among the cases. Needs root; `cargo xtask bench scale` runs it.
#![expect(clippy::print_stdout, reason = "what a bench prints is its result")]
mod agent;
mod all_of_many;
mod broadcast;
mod directory;
mod one_of_many;
mod report;
mod world;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::Parser;
use serde_json::{Value, json};

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_mins(2);

/// What was found, line by line; said at once, as a bench that breaks has still measured something.
#[derive(Debug, Default)]
struct Lines(Vec<Value>);

impl Lines {
    fn note(&mut self, line: Value) {
        println!("{line}");
        self.0.push(line);
    }
}

/// Asks until `probe` has an answer; the answer, and how long after `begin` it came.
fn until<T>(
    begin: Instant,
    what: &str,
    mut probe: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<(T, Duration)> {
    loop {
        if let Some(answer) = probe()? {
            return Ok((answer, begin.elapsed()));
        }
        ensure!(begin.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Everything of one run in the file system; removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("loco-bench-scale-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        agent::write_token(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned();
    json!({"bench": "scale", "kernel": read("/proc/sys/kernel/osrelease"), "cpus": cpus, "load": load})
}

#[derive(Debug, Parser)]
struct Flags {
    /// Write raw data and the page there
    #[arg(long)]
    out: Option<PathBuf>,
    /// One agent among so many other nodes: 8, 64, 250, 512
    #[arg(long, value_delimiter = ',', default_value = "8,64,250,512")]
    vteps: Vec<usize>,
    /// So many agents at once, at most 64
    #[arg(long, value_delimiter = ',', default_value = "8,16,32,64", value_parser = clap::value_parser!(u8).range(2..=64))]
    agents: Vec<u8>,
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let mut lines = Lines::default();
    lines.note(machine());
    let scratch = Scratch::new()?;
    for case in directory::CASES.iter().filter(|case| flags.vteps.contains(&case.vteps())) {
        one_of_many::measure(case, &scratch.0, &mut lines)?;
    }
    for count in flags.agents {
        all_of_many::measure(count, &scratch.0, &mut lines)?;
    }
    flags.out.map_or(Ok(()), |dir: PathBuf| report::write(Path::new(&dir), &lines.0))
}
