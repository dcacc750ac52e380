//! `cargo xtask`: what people and CI type. From a bare machine to a wall, and every check of the project.
//!
//! ```text
//! setup ──> build ──> loco up            test = unit, privileged, browser tiers          ci = fmt, clippy, tidy, doc, test
//! ```
//! **Invariants.** Wrong usage is found before anything is built (exit code 2). Nothing is installed, built or cached
//! inside the checkout but what `.gitignore` names (node modules and the page's bundle). A tier or check that cannot run
//! fails or is named; it never passes.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod chart;
mod closing;
mod cluster;
mod dirs;
mod fuzz;
mod genuine;
mod image;
mod monitoring;
mod paper;
mod run;
mod setup;
mod test;
mod tidy;

use std::{ffi::OsString, io, io::Write as _, os::unix::process::CommandExt as _, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use flags::UpFlags;

use crate::{
    bench::BenchArgs,
    chart::ChartArgs,
    cluster::{ClusterArgs, ToolArgs},
    dirs::Dirs,
    fuzz::FuzzArgs,
    image::ImageArgs,
    run::Run as _,
    setup::SetupArgs,
    test::TestArgs,
};

/// Tasks of this repository
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what is missing on this machine, and say what (Debian bookworm; elsewhere it only lists)
    Setup(SetupArgs),
    /// Build the page, the demo game and all programs
    Build,
    /// Set up, build and start a wall: the flags are those of `loco up`
    Up(UpFlags),
    /// End the wall and remove everything of it
    Down,
    /// Run the tests; without a flag, every tier that exists
    Test(TestArgs),
    /// All that must hold before a change lands: format, lints, tidy, documentation, tests
    Ci,
    /// Fuzz the parsers with libFuzzer, on the stable compiler
    Fuzz(FuzzArgs),
    /// Check what no compiler checks: sizes, dependency direction, documents, generated files
    Tidy(TidyArgs),
    /// Write docs/metrics.md from the wall that runs
    Metrics,
    /// Build the container images; one line of JSON for each
    Image(ImageArgs),
    /// A real Kubernetes of three nodes on this machine
    Cluster(ClusterArgs),
    /// Run the pinned helm, kubectl or promtool
    Tool(ToolArgs),
    /// Write the chart's schema and table from its values, and check that every value is used
    Chart(ChartArgs),
    /// Measure, and write the results to docs/benchmarks
    Bench(BenchArgs),
}

#[derive(Debug, Args)]
struct TidyArgs {
    /// Accepted for clarity: tidy only ever checks
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // clap knows them as flags; `loco` gets them as they were typed.
    let up_args: Vec<OsString> = std::env::args_os().skip(2).collect();
    match run(cli.task, &up_args) {
        Ok(code) => code,
        Err(error) => {
            tell(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task, up_args: &[OsString]) -> Result<ExitCode> {
    let dirs = Dirs::find()?;
    if let Task::Image(args) = &task
        && let Err(error) = image::check(args)
    {
        tell(&format!("error: {error:#}"));
        return Ok(ExitCode::from(2));
    }
    if !matches!(task, Task::Setup(_) | Task::Down | Task::Cluster(_) | Task::Tool(_)) {
        build::claim_cache(&dirs)?;
    }
    match task {
        Task::Setup(args) => setup::run(&args)?,
        Task::Build => build::all(&dirs)?,
        Task::Up(flags) => {
            if let Err(error) = flags.check() {
                tell(&format!("error: {error}"));
                return Ok(ExitCode::from(2));
            }
            // Before minutes of building, not after.
            anyhow::ensure!(
                run::is_root() || setup::on_path("sudo"),
                "up makes network namespaces, so it needs root; run it as root, or install sudo"
            );
            setup::ensure(setup::For::Up)?;
            build::all(&dirs)?;
            let error = run::as_root(&dirs, &dirs.binary("loco")).arg("up").args(up_args).exec();
            return Err(error).context("cannot run loco");
        }
        Task::Down => {
            let loco = dirs.binary("loco");
            if !loco.is_file() {
                // Nothing was ever built here; but a wall of another build may run.
                run::cargo(&dirs).args(["build", "--package", "loco"]).run()?;
            }
            let error = run::as_root(&dirs, &loco).arg("down").arg("--verbose").exec();
            return Err(error).context("cannot run loco");
        }
        Task::Test(args) => return test::run(&dirs, &args),
        Task::Ci => return test::ci(&dirs),
        Task::Fuzz(args) => fuzz::run(&dirs, &args)?,
        Task::Tidy(TidyArgs { check: _ }) => tidy::check(&dirs)?,
        Task::Metrics => {
            build::all(&dirs)?;
            test::with_a_wall(&dirs, |status| monitoring::write(&dirs, status))?;
        }
        Task::Image(args) => image::run(&dirs, &args)?,
        Task::Cluster(args) => cluster::run(&dirs, &args)?,
        Task::Tool(args) => cluster::tool(&dirs, &args)?,
        Task::Chart(args) => chart::run(&dirs, &args)?,
        Task::Bench(args) => bench::run(&dirs, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// For people: standard error.
fn tell(text: &str) {
    // Nobody is left to be told if standard error is closed.
    writeln!(io::stderr(), "{text}").ok();
}

/// Results: standard output.
fn print(text: &str) {
    writeln!(io::stdout(), "{text}").ok();
}
