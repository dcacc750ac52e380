//! `loco`: a wall of guests on this machine, up and down.
//!
//! ```text
//! up ──> preflight ──> plan (pure) ──> underlay, files ──> supervise ──> node-agent × nodes, gateway, guest-runner × guests
//! status ──> state.json + the gateway's view          down ──> what is found in /proc, mounts and links
//! ```
//! Exit codes: 0 done, 1 failure, 2 wrong usage (found before anything is touched), 3 nothing runs.
#![forbid(unsafe_code)]

mod argv;
mod backoff;
mod bootstrap;
mod deploy;
mod doctor;
mod down;
mod lan;
mod lock;
mod logs;
mod moving;
mod netns;
mod observe;
mod paths;
mod pcap;
mod plan;
mod plug;
mod preflight;
mod processes;
mod reset;
mod secrets;
mod siblings;
mod state;
mod status;
mod supervise;
mod underlay;
mod up;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};
use flags::UpFlags;

use crate::paths::Paths;

/// Many old PCs on one Ethernet, live in the browser
#[derive(Debug, Parser)]
#[command(name = "loco", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a wall on this machine: nodes, guests and the page
    ///
    /// Without --detach it stays in the foreground, and Ctrl-C ends the wall.
    Up(UpFlags),
    /// End the wall and remove everything of it, also after a crash; fine if nothing runs
    Down {
        /// Say what was removed
        #[arg(short, long)]
        verbose: bool,
    },
    /// Show nodes, instances and the page's URL; exit code 3 if nothing runs
    Status {
        /// `json` for programs
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Write what a guest's network port carries as pcapng, for Wireshark
    ///
    /// The last minute is kept; --follow goes on with what comes. Passwords of DirectPlay sessions are zero in it.
    Pcap(pcap::PcapFlags),
    /// Plug a machine of your own into a LAN: QEMU on this machine, or 86Box and others by VDE
    ///
    /// It prints what to add to QEMU's command line, and carries the frames until Ctrl-C. The LAN must have the mode `socket`.
    Plug(plug::PlugFlags),
    /// Restart a guest, give it a fresh disk, or move it to another LAN
    #[command(subcommand)]
    Instance(reset::InstanceVerb),
    /// Say why a seat does not see a game, or everything that is wrong; exit code 1 if something is
    ///
    /// With A and B: why A does not see the game of B. With A alone: why it sees none. The ladder shows how far it got.
    Doctor(doctor::DoctorFlags),
    /// The LANs: list them, follow a frame through one, check this machine, remove what an agent left
    #[command(subcommand)]
    Lan(lan::LanVerb),
    /// Build this checkout's images, bring them to a cluster, and prove that they play there
    ///
    /// Run it again after a failure: what is done stays done.
    Deploy(deploy::DeployFlags),
    /// From nothing to a playing cluster: make one, then deploy
    Bootstrap(bootstrap::BootstrapFlags),
    /// Say what happens in a capture: machines, sessions, players, names, and what is wrong
    Observe {
        /// pcap or pcapng, of Ethernet or cooked (SLL, SLL2)
        file: std::path::PathBuf,
        /// `json` for programs
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// The supervisor that `up --detach` starts
    #[command(hide = true)]
    Supervise,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
const NOTHING_RUNS: u8 = 3;

fn main() -> ExitCode {
    // clap ends the process with 2 at wrong usage, with 0 after --help.
    let cli = Cli::parse();
    // Guests' users must pass through our directories, whatever root's umask is; what is secret names its mode.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            tell(&format!("error: {error:#}"));
            ExitCode::from(FAILURE)
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    let paths = Paths::machine();
    match verb {
        Verb::Up(flags) => {
            if let Err(error) = flags.check() {
                tell(&format!("error: {error}"));
                return Ok(ExitCode::from(USAGE));
            }
            if let Some(url) = up::up(&flags, &paths, &|text| tell(&format!("loco: {text}")), print)? {
                print(&url);
            }
        }
        Verb::Down { verbose } => {
            let removed = down::down(&paths, |text| tell(&format!("loco: {text}")))?;
            if verbose {
                for line in &removed {
                    tell(&format!("removed {line}"));
                }
            }
            tell(if removed.is_empty() { "loco: nothing runs" } else { "loco: the wall is down" });
        }
        Verb::Status { output } => return runtime()?.block_on(show_status(&paths, output)),
        Verb::Pcap(flags) => {
            if let Err(error) = flags.check() {
                tell(&format!("error: {error}"));
                return Ok(ExitCode::from(USAGE));
            }
            if !runtime()?.block_on(pcap::run(&flags, &paths))? {
                tell("loco: nothing runs; start a wall: `loco up`");
                return Ok(ExitCode::from(NOTHING_RUNS));
            }
        }
        Verb::Plug(flags) => {
            if let Err(error) = flags.check() {
                tell(&format!("error: {error}"));
                return Ok(ExitCode::from(USAGE));
            }
            if !runtime()?.block_on(plug::run(&flags, &paths))? {
                tell("loco: nothing runs here; name a cluster by --gateway, or start a wall: `loco up`");
                return Ok(ExitCode::from(NOTHING_RUNS));
            }
        }
        Verb::Instance(verb) => {
            let answer = runtime()?.block_on(reset::run(&verb, &paths))?;
            return Ok(answered(answer, |text| tell(&format!("loco: {text}"))));
        }
        Verb::Doctor(flags) => match runtime()?.block_on(doctor::run(&flags, &paths))? {
            doctor::Answer::NothingRuns => {
                tell("loco: nothing runs; start a wall: `loco up`");
                return Ok(ExitCode::from(NOTHING_RUNS));
            }
            doctor::Answer::NoSuchSeat(why) => {
                tell(&format!("error: {why}"));
                return Ok(ExitCode::from(USAGE));
            }
            doctor::Answer::Said { text, ok } => {
                print(&text);
                return Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) });
            }
        },
        Verb::Lan(verb) => return Ok(answered(runtime()?.block_on(lan::run(&verb, &paths))?, print)),
        Verb::Deploy(flags) => return rollout(flags.common(), || Ok((flags.options()?, Vec::new())), || Ok(())),
        Verb::Bootstrap(flags) => return rollout(flags.common(), || flags.plan(), || flags.write_files()),
        Verb::Observe { file, output } => {
            let observed = observe::observe(&file)?;
            match output {
                Output::Table => print(observe::text(&observed).trim_end()),
                Output::Json => print(&serde_json::to_string_pretty(&observed)?),
            }
        }
        Verb::Supervise => {
            let wall = state::read_json(&paths.wall())?;
            telemetry::init("supervisor");
            nix::unistd::setsid().context("cannot leave the terminal")?;
            runtime()?.block_on(async {
                let mut signals = supervise::Signals::listen()?;
                supervise::run(&wall, &paths, signals.told_to_stop()).await
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says the answer by `say`, or what is wrong with the question.
fn answered(answer: lan::Answer, say: impl FnOnce(&str)) -> ExitCode {
    match answer {
        lan::Answer::NothingRuns => {
            tell("loco: nothing runs; start a wall: `loco up`");
            ExitCode::from(NOTHING_RUNS)
        }
        lan::Answer::Usage(why) => {
            tell(&format!("error: {why}"));
            ExitCode::from(USAGE)
        }
        lan::Answer::Said { text, ok } => {
            say(&text);
            if ok { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) }
        }
    }
}

/// Plans, and runs the plan unless it is only asked for. `prepare` writes what its commands read.
fn rollout(
    flags: &deploy::CommonFlags,
    plan: impl Fn() -> Result<(deploy::Options, Vec<deploy::Step>)>,
    prepare: impl Fn() -> Result<()>,
) -> Result<ExitCode> {
    let (options, first) = match plan().and_then(|plan| flags.enter_checkout().map(|()| plan)) {
        Ok(plan) => plan,
        Err(error) => {
            tell(&format!("error: {error:#}"));
            return Ok(ExitCode::from(USAGE));
        }
    };
    if flags.dry_run() {
        print(deploy::dry(&options, &first).trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    prepare()?;
    runtime()?.block_on(deploy::run(&options, &first, &print, &|text| tell(&format!("loco: {text}"))))?;
    Ok(ExitCode::SUCCESS)
}

async fn show_status(paths: &Paths, output: Output) -> Result<ExitCode> {
    let Some(report) = status::read(paths).await? else {
        tell("loco: nothing runs; start a wall: `loco up`");
        return Ok(ExitCode::from(NOTHING_RUNS));
    };
    for problem in report.problems {
        tell(&format!("loco: {problem}"));
    }
    match output {
        Output::Table => print(status::table(&report.status).trim_end()),
        Output::Json => print(&serde_json::to_string_pretty(&report.status)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("cannot start a runtime")
}

/// For people: standard error.
fn tell(text: &str) {
    // Nobody is left to be told if standard error is closed.
    writeln!(io::stderr(), "{text}").ok();
}

/// The answer itself: standard output. Whoever closed it does not want it.
fn print(text: &str) {
    writeln!(io::stdout(), "{text}").ok();
}
