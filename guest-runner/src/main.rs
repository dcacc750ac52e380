//! One instance: asks its node's agent for a port, runs QEMU on it, and hands display, sound and control over.
//!
//! ```text
//! as started (maybe root)   flags -> open kernel, disks, health port -> make the work directory
//! from then on nobody       drop user, groups, capabilities; no new privileges; system-call filter   (privilege, sandbox)
//! as nobody                 disk and agent -> QEMU -> hand-over -> wait; again for each agent, each order (runner)
//! ```
//!
//! **Invariants.** Nothing is parsed that a guest or an agent wrote before the privileges are gone. QEMU never outlives
//! this process (`PR_SET_PDEATHSIG`), and this process does not outlive QEMU by more than the report of its end. One
//! thread: the parent-death signal is bound to the thread that started QEMU.
use std::process::ExitCode;

use clap::Parser as _;

mod cable;
mod config;
mod files;
mod handover;
mod health;
mod link;
mod metrics;
mod port;
mod privilege;
mod qemu;
mod runner;
mod sandbox;
mod storage;
mod tail;
mod upkeep;

fn main() -> ExitCode {
    let args = config::Args::parse();
    telemetry::init("guest-runner");
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: config::Args) -> anyhow::Result<ExitCode> {
    let config = config::Config::try_from(args)?;
    let files = files::Files::open(&config)?;
    privilege::drop_to(config.owner)?;
    sandbox::enter()?;
    // No thread has been started before this line: user and filter hold for all that come.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(runner::run(config, files));
    // A thread that waits for a volume that is away must not keep us.
    runtime.shutdown_background();
    Ok(ExitCode::from(code?))
}
