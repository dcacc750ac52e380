//! Benches: programs of their own, dispatched by name. Each writes raw data and a short table to docs/benchmarks.
use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, ValueEnum};

use crate::{
    build, cluster,
    dirs::Dirs,
    run::{self, Run as _},
    setup, tell,
};

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What to measure
    #[arg(value_enum)]
    name: Bench,
    /// Passed on to the bench
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Input to presented picture in a real browser, with noVNC in the same run
    Latency,
    /// CPU, frames and bitrate of the streams, with their peers
    Streams,
    /// From card to card in every mode, with a bare bridge, QEMU's own netdevs and VDE: latency, and loss at rising rates
    Lan,
    /// A guest joins, a node dies and comes back: how fast the LAN is whole again
    Convergence,
    /// How fast the gateway answers about the LAN, with 9 and with 1,000 instances
    LanStatus,
    /// What the eBPF programs at the taps cost for each frame
    Observer,
    /// How the fabric grows: one agent among 512 VTEPs and 5,000 table rows, and 64 agents at once
    Scale,
    /// Discovery with 1,000 nodes and 10,000 instances, against a real API server
    ClusterScale,
    /// Whatever can happen to a wall that plays, for minutes, by a seed: `-- --minutes 30 --seed N`
    Churn,
}

/// Of `bench churn`, after `--`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench churn --", no_binary_name = true)]
struct ChurnArgs {
    /// How long; the last burst begins before
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// What is done follows from it; the time of day if none is given
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn run(dirs: &Dirs, args: &BenchArgs) -> Result<()> {
    let out = dirs.root().join("docs/benchmarks");
    let program = match args.name {
        Bench::Latency => dirs.root().join("bench/latency.mjs"),
        Bench::Streams => dirs.root().join("bench/streams.mjs"),
        Bench::Lan => dirs.root().join("node-agent/examples/bench-lan/main.rs"),
        Bench::Convergence => dirs.root().join("crates/fabric/examples/bench-convergence.rs"),
        Bench::LanStatus => dirs.root().join("gateway/examples/bench-lan-status.rs"),
        Bench::Observer => dirs.root().join("crates/traffic/examples/bench-observer.rs"),
        Bench::Scale => dirs.root().join("node-agent/examples/bench-scale/main.rs"),
        Bench::ClusterScale => dirs.root().join("gateway/examples/bench-cluster-scale.rs"),
        Bench::Churn => dirs.root().join("cli/tests/wall/churn/mod.rs"),
    };
    ensure!(program.is_file(), "this bench does not exist yet: {} is missing", program.display());
    ensure!(run::is_root(), "benches start walls and namespaces, so they need root; run them as root");
    setup::ensure(setup::For::Bench)?;
    if args.name == Bench::ClusterScale {
        return cluster_scale(dirs, &out, &args.rest);
    }
    if args.name == Bench::Churn {
        return churn(dirs, &out, &ChurnArgs::try_parse_from(&args.rest)?);
    }
    let example = match args.name {
        Bench::Lan => Some(("node-agent", "bench-lan")),
        Bench::Scale => Some(("node-agent", "bench-scale")),
        Bench::Convergence => Some(("fabric", "bench-convergence")),
        Bench::LanStatus => Some(("gateway", "bench-lan-status")),
        Bench::Observer => Some(("traffic", "bench-observer")),
        Bench::Latency | Bench::Streams | Bench::ClusterScale | Bench::Churn => None,
    };
    if args.name == Bench::Scale {
        // The agents that it starts.
        run::cargo(dirs).args(["build", "--package", "node-agent", "--bin", "node-agent"]).run()?;
    }
    if let Some((package, example)) = example {
        let mut cargo = run::cargo(dirs);
        cargo.args(["run", "--package", package, "--example", example, "--", "--out"]).arg(&out);
        return cargo.args(&args.rest).run();
    }
    build::all(dirs)?;
    let dir = dirs.root().join("bench");
    build::node_modules(dirs, &dir)?;
    let mut node = run::node(dirs, "node", &dir);
    node.env("LOCO_DEMO_KERNEL", dirs.demo_kernel());
    node.arg(program).arg("--loco").arg(dirs.binary("loco")).arg("--out").arg(out).args(&args.rest).run()
}

/// Beside the API server of a cluster without nodes.
fn cluster_scale(dirs: &Dirs, out: &Path, rest: &[String]) -> Result<()> {
    build::page(dirs)?;
    let mut cargo = run::cargo(dirs);
    cargo.args(["build", "--package", "gateway", "--bin", "gateway", "--example", "bench-cluster-scale"]).run()?;
    cluster::with_an_api(dirs, |beside| {
        let mut bench = beside(&dirs.binary("examples/bench-cluster-scale"));
        bench.arg("--gateway").arg(dirs.binary("gateway")).arg("--out").arg(out).args(rest).run()
    })
}

/// The test of the same name, for longer: in namespaces of its own, so a wall of this machine is not touched.
fn churn(dirs: &Dirs, out: &Path, args: &ChurnArgs) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let (seed, minutes) = (args.seed.unwrap_or(now.as_secs()), args.minutes);
    build::all(dirs)?;
    tell(&format!(
        "seed {seed}, {minutes} minutes; to repeat it: cargo xtask bench churn -- --minutes {minutes} --seed {seed}"
    ));
    tell(&format!("raw data grow in {}/churn-DATE.jsonl", out.display()));
    let mut cargo = run::cargo(dirs);
    cargo.env("LOCO_DEMO_KERNEL", dirs.demo_kernel()).env("LOCO_CHURN_OUT", out);
    cargo.env("LOCO_CHURN_MINUTES", minutes.to_string()).env("LOCO_CHURN_SEED", seed.to_string());
    cargo.args(["test", "--package", "loco", "--test", "wall", "--", "--ignored", "--exact"]);
    cargo.arg("churn::a_wall_comes_to_rest_after_whatever_happens_and_keeps_nothing").run()
}
