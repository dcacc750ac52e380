//! The node-agent process: read the flags, build the agent, run it until it is told to end.
//!
//! Exit codes: 0 ended as told, 1 could not start or broke, 2 called wrongly.
use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser as _;
use node_agent::{
    Agent,
    config::{Args, Command, Config, ConfigError},
};
use tokio::signal::unix::{SignalKind, signal};

/// One arena for all threads. The fabric's passes, the observer and the status each make and free megabytes of small rows on a thread of its own,
/// and glibc keeps what is free in each thread's arena: with 5,000 rows as much as is in use (docs/adr/0029, The agent). Threads wait for one another
/// only for what their own caches do not have.
fn share_free_memory() {
    // SAFETY: no other thread runs yet, and the call sets one number of the allocator.
    #[expect(unsafe_code, reason = "glibc's options have no safe call")]
    let is_set = unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
    // Zero would be a refusal; the agent works as well, with more memory.
    debug_assert_eq!(is_set, 1, "glibc takes any number of arenas");
}

fn main() -> ExitCode {
    share_free_memory();
    let args = Args::parse();
    telemetry::init("node-agent");
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(error.downcast_ref::<ConfigError>().map_or(1, ConfigError::exit_code))
        }
    }
}

fn run(mut args: Args) -> anyhow::Result<()> {
    match args.command.take() {
        Some(Command::Uninstall { run_dir }) => return node_agent::uninstall(run_dir),
        Some(Command::Prepare { run_dir }) => return node_agent::prepare(run_dir),
        Some(Command::CheckEncoders) => return Ok(stream::check_encoders()?),
        Some(Command::Probe { socket, ready }) => {
            let said = node_agent::probe(&socket, ready)?;
            return writeln!(io::stdout(), "{said}").context("could not say it");
        }
        None => {}
    }
    let config = Config::load(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("agent")
        .build()
        .context("could not start the agent's threads; raise the limit of processes")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("could not listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("could not listen for SIGINT")?;
        // One that stands by may do so for long, and must end when it is told.
        let agent = tokio::select! {
            agent = Agent::build(config) => agent?,
            _ = terminate.recv() => { tracing::info!("SIGTERM before it served"); return Ok(()) }
            _ = interrupt.recv() => { tracing::info!("SIGINT before it served"); return Ok(()) }
        };
        tracing::info!(address = %agent.address(), "the agent serves");
        agent
            .run(async move {
                tokio::select! {
                    _ = terminate.recv() => tracing::info!("SIGTERM"),
                    _ = interrupt.recv() => tracing::info!("SIGINT"),
                }
            })
            .await
    })
}
