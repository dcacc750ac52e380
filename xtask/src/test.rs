//! Test tiers, and CI around them.
//!
//! | tier | what runs | needs |
//! |---|---|---|
//! | unit | cargo test, the demo game's tests on the host, vitest | nothing |
//! | privileged | the `#[ignore]`d tests: namespaces, taps, real QEMU | root |
//! | browser | the page in Chromium: pages against a scripted gateway, then a real wall | root, Chromium |
//! | cluster | the chart by helm, and the scenarios on a three-node Kubernetes that is made for them | root, Go once; left out of a run of all where Kubernetes is not built yet |
//! | genuine | Wine's and Samba's programs on a real LAN; only when asked for | root, 2.4 GB of the cache |
//!
//! **Invariant.** A tier that was asked for and cannot run has failed. The last line of standard output is the sum.
use std::{
    net::TcpListener,
    process::{Command, ExitCode, ExitStatus},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::{
    build,
    closing::{self, Count},
    cluster,
    dirs::Dirs,
    fuzz::{self, FuzzArgs},
    genuine, monitoring, paper, print,
    run::{self, Run as _},
    setup, tell, tidy,
};

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "one switch per tier, each given or not")]
pub(crate) struct TestArgs {
    /// What needs neither root nor a browser
    #[arg(long)]
    unit: bool,
    /// Namespaces, taps and real QEMU; needs root
    #[arg(long)]
    privileged: bool,
    /// The page in real Chromium, and a real wall; needs root
    #[arg(long)]
    browser: bool,
    /// The chart, and a real cluster of three nodes with everything on it; needs root
    #[arg(long)]
    cluster: bool,
    #[command(flatten)]
    scenarios: cluster::ScenarioArgs,
    /// Peers that others wrote, for every night: Wine and Samba from Debian trixie; never run unless asked for
    #[arg(long, alias = "nightly")]
    genuine: bool,
}

impl TestArgs {
    const EVERYTHING: Self = Self {
        unit: false,
        privileged: false,
        browser: false,
        cluster: false,
        scenarios: cluster::ScenarioArgs::ALL,
        genuine: false,
    };

    /// No tier was named.
    const fn is_everything(&self) -> bool {
        !(self.unit || self.privileged || self.browser || self.cluster || self.genuine)
    }
}

/// A cold build of Kubernetes and of all images is longer than all of CI may be.
const CLUSTER_IN_CI: &str = "a job of its own in CI: `cargo xtask test --cluster`";

#[derive(Debug)]
enum Outcome {
    Ran(Count),
    Failed(Count, String),
    /// Not asked for by name, and this machine is not made for it.
    Absent(String),
}

pub(crate) fn run(dirs: &Dirs, args: &TestArgs) -> Result<ExitCode> {
    let everything = args.is_everything();
    let left_out = if everything { cluster::left_out(dirs) } else { None };
    tiers(dirs, args, left_out)
}

/// `left_out`: why the cluster's tier is not run with the others.
fn tiers(dirs: &Dirs, args: &TestArgs, left_out: Option<String>) -> Result<ExitCode> {
    let everything = args.is_everything();
    setup::ensure(setup::For::Test)?;
    let mut tiers = Vec::new();
    let mut tier = |name, wanted: bool, run: &dyn Fn(&Dirs, &mut Count) -> Result<()>| {
        if wanted {
            tell(&format!("== {name} tests"));
            let mut count = Count::default();
            let outcome = match run(dirs, &mut count) {
                Ok(()) if count.passed == 0 => Outcome::Failed(count, "ran no test".to_owned()),
                Ok(()) => Outcome::Ran(count),
                Err(error) => Outcome::Failed(count, format!("{error:#}")),
            };
            tiers.push((name, outcome));
        }
    };
    tier("unit", everything || args.unit, &unit);
    tier("privileged", everything || args.privileged, &privileged);
    tier("browser", everything || args.browser, &browser);
    tier("genuine", args.genuine, &genuine::run);
    let scenarios = |dirs: &Dirs, count: &mut Count| cluster::test(dirs, &args.scenarios, count);
    tier("cluster", args.cluster || (everything && left_out.is_none()), &scenarios);
    tiers.extend(left_out.map(|why| ("cluster", Outcome::Absent(why))));
    print(&table(&tiers));
    let total: Count = tiers.iter().map(|(_, outcome)| outcome.count()).sum();
    print(&total.to_string());
    Ok(if tiers.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(..))) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

impl Outcome {
    /// A tier that failed without a failed test (it could not run) counts as one failure, so that no sum looks green.
    fn count(&self) -> Count {
        match self {
            Self::Ran(count) => *count,
            Self::Failed(count, _) => Count { failed: count.failed.max(1), ..*count },
            Self::Absent(_) => Count::default(),
        }
    }
}

fn table(tiers: &[(&str, Outcome)]) -> String {
    let row = |(name, outcome): &(&str, Outcome)| match outcome {
        Outcome::Ran(count) => format!("{name:10}  ok       {count}"),
        Outcome::Failed(_, why) => format!("{name:10}  FAILED   {}: {why}", outcome.count()),
        Outcome::Absent(why) => format!("{name:10}  skipped  {why}"),
    };
    format!("\n{}\n", tiers.iter().map(row).collect::<Vec<_>>().join("\n"))
}

/// Runs a test command, adds its closing lines to `count`, and is an error if it failed.
pub(crate) fn tests(command: &mut Command, count: &mut Count) -> Result<()> {
    let (status, transcript) = command.transcript()?;
    judge(&command.get_program().display().to_string(), status, &transcript, count)
}

fn judge(program: &str, status: ExitStatus, transcript: &str, count: &mut Count) -> Result<()> {
    let counted = closing::count(transcript);
    *count = [*count, counted].into_iter().sum();
    ensure!(status.success(), "`{program}` failed: {status}");
    ensure!(counted.passed > 0, "`{program}` ran no test");
    Ok(())
}

/// Runs all, also after a failure, and tells the first one.
fn all<const N: usize>(results: [Result<()>; N]) -> Result<()> {
    results.into_iter().collect()
}

fn unit(dirs: &Dirs, count: &mut Count) -> Result<()> {
    // The gateway embeds it.
    build::page(dirs)?;
    let workspace = tests(run::cargo(dirs).args(["test", "--workspace", "--no-fail-fast"]), count);
    let mut cargo = run::cargo(dirs);
    cargo.current_dir(dirs.root().join("demo-guest")).args(["test", "--no-fail-fast", "--target-dir"]);
    let demo = tests(cargo.arg(dirs.cache().join("demo-target")), count);
    let page = tests(run::node(dirs, "npm", &dirs.ui()).args(["test"]), count);
    all([workspace, demo, page])
}

fn privileged(dirs: &Dirs, count: &mut Count) -> Result<()> {
    ensure!(run::is_root(), "needs root: run `cargo xtask test` as root, or the others alone by their flags");
    build::all(dirs)?;
    let mut cargo = run::cargo(dirs);
    cargo.env("LOCO_DEMO_KERNEL", dirs.demo_kernel()).env("PROMETHEUS", setup::prometheus(dirs)?);
    // What is ignored in those two is the cluster tier's.
    cargo.args(["test", "--workspace", "--exclude", "k8s-tests", "--exclude", "xtask", "--no-fail-fast"]);
    cargo.args(["--lib", "--bins", "--tests"]);
    // And so is what needs an API server.
    let workspace = tests(cargo.args(["--", "--ignored", "--test-threads=1", "--skip", "api_server::"]), count);
    let mut cargo = run::cargo(dirs);
    cargo.current_dir(dirs.root().join("demo-guest")).args(["test", "--test", "party", "--target-dir"]);
    let demo = tests(cargo.arg(dirs.cache().join("demo-target")).args(["--", "--ignored", "--test-threads=1"]), count);
    all([workspace, demo])
}

fn browser(dirs: &Dirs, count: &mut Count) -> Result<()> {
    ensure!(
        run::is_root(),
        "needs root for a real wall: run `cargo xtask test` as root, or the others alone by their flags"
    );
    build::all(dirs)?;
    let ui = dirs.ui();
    let script = |name: &str| {
        let mut node = run::node(dirs, "node", &ui);
        node.arg(format!("tests/{name}"));
        node
    };
    let pages = tests(&mut script("pages.mjs"), count);
    let wall = with_a_wall(dirs, |status| {
        let url = status["url"].as_str().context("`loco status` told no URL")?;
        // The page first: what only a viewer makes the agents count is then there.
        let page = tests(script("browser.mjs").args(["--url", url]), count);
        let tunnelled = tests(script("forwarded.mjs").args(["--url", url]), count);
        let metrics = monitoring::check_wall(dirs, status);
        let one = Count { passed: u32::from(metrics.is_ok()), failed: u32::from(metrics.is_err()), skipped: 0 };
        *count = [*count, one].into_iter().sum();
        all([page, tunnelled, metrics])
    });
    all([pages, wall])
}

/// A wall for `work`: the one that runs, which is left as it is, or one of its own, ended whatever happens.
pub(crate) fn with_a_wall(dirs: &Dirs, work: impl FnOnce(&serde_json::Value) -> Result<()>) -> Result<()> {
    let loco = || {
        let mut loco = Command::new(dirs.binary("loco"));
        loco.env("LOCO_DEMO_KERNEL", dirs.demo_kernel());
        loco
    };
    let running = loco().args(["status", "-o", "json"]).output().context("cannot run loco")?;
    if running.status.success() {
        tell("a wall runs already: it is used and left running");
        return work(&serde_json::from_slice(&running.stdout).context("`loco status -o json`")?);
    }
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let (ended_well, _) = loco().args(["up", "--detach", "--port", &port.to_string()]).transcript()?;
    ensure!(ended_well.success(), "`loco up --detach` failed: {ended_well}");
    let told = loco().args(["status", "-o", "json"]).answer();
    let worked = told.and_then(|text| work(&serde_json::from_str(&text).context("`loco status -o json`")?));
    let ended = loco().arg("down").run();
    all([worked, ended])
}

/// Everything that must hold before a change lands.
pub(crate) fn ci(dirs: &Dirs) -> Result<ExitCode> {
    setup::ensure(setup::For::Test)?;
    build::page(dirs)?;
    let fmt = |dir| {
        let mut cargo = run::cargo(dirs);
        cargo.current_dir(dirs.root().join(dir)).args(["fmt", "--all", "--check"]);
        cargo
    };
    let lint = |dir: &str, of: &[&str]| {
        let mut cargo = run::cargo(dirs);
        cargo.current_dir(dirs.root().join(dir)).arg("clippy").args(of);
        cargo
    };
    let demo_target = dirs.cache().join("demo-target");
    let mut doc = run::cargo(dirs);
    doc.args(["doc", "--workspace", "--no-deps", "--document-private-items"]).env("RUSTDOCFLAGS", "-D warnings");
    let checks: [(&str, Result<()>); 13] = [
        ("fmt", fmt(".").run()),
        ("fmt of the demo game", fmt("demo-guest").run()),
        ("fmt of the eBPF programs", fmt("ebpf").run()),
        ("fmt of the fuzz targets", fmt("crates/wire/fuzz").run()),
        ("clippy", lint(".", &["--workspace", "--all-targets", "--", "-D", "warnings"]).run()),
        (
            "clippy of the demo game",
            lint("demo-guest", &["--target-dir"]).arg(demo_target).args(["--", "-D", "warnings"]).run(),
        ),
        (
            "clippy of the fuzz targets",
            lint("crates/wire/fuzz", &["--target-dir"])
                .arg(build::fuzz_target(dirs))
                .args(["--", "-D", "warnings"])
                .run(),
        ),
        ("fuzzing, for a moment", fuzz::run(dirs, &FuzzArgs::smoke())),
        ("types of the page", run::node(dirs, "npm", &dirs.ui()).args(["run", "lint"]).run()),
        ("documentation", doc.run()),
        ("alert rules", monitoring::promtool(dirs)),
        ("workflows", paper::actionlint(dirs)),
        ("tidy", tidy::check(dirs)),
    ];
    let failed: Vec<String> =
        checks.into_iter().filter_map(|(name, result)| Some(format!("{name}: {:#}", result.err()?))).collect();
    let tested = tiers(dirs, &TestArgs::EVERYTHING, Some(CLUSTER_IN_CI.to_owned()))?;
    if !failed.is_empty() {
        bail!("these checks failed\n  {}", failed.join("\n  "));
    }
    Ok(tested)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_that_could_not_run_is_a_failure_in_table_and_sum() {
        let ran = Outcome::Ran(Count { passed: 3, failed: 0, skipped: 0 });
        let failed = Outcome::Failed(Count::default(), "needs root".to_owned());
        let tiers = [("unit", ran), ("privileged", failed), ("cluster", Outcome::Absent("not built".to_owned()))];
        let want = "\nunit        ok       3 passed, 0 failed\n\
                    privileged  FAILED   0 passed, 1 failed: needs root\n\
                    cluster     skipped  not built\n";
        assert_eq!(table(&tiers), want);
        let total: Count = tiers.iter().map(|(_, outcome)| outcome.count()).sum();
        assert_eq!(total.to_string(), "3 passed, 1 failed");
    }

    #[test]
    fn a_command_that_fails_or_tests_nothing_is_an_error() {
        // Not run for real: its lines would be taken for this run's.
        use std::os::unix::process::ExitStatusExt as _;
        let mut count = Count::default();
        let mut judge = |code: i32, transcript: &str| {
            judge("x", ExitStatus::from_raw(code << 8), transcript, &mut count).map_err(|e| e.to_string())
        };
        judge(0, "2 passed, 0 failed").unwrap();
        assert_eq!(judge(0, "hello").unwrap_err(), "`x` ran no test");
        assert_eq!(judge(1, "1 passed, 1 failed").unwrap_err(), "`x` failed: exit status: 1");
        assert_eq!(count, Count { passed: 3, failed: 1, skipped: 0 });
    }
}
