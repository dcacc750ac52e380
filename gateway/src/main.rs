//! The gateway: discovery, one merged picture of all agents, relay of signalling, and the page. Carries no media.
use std::process::ExitCode;

use clap::Parser as _;
use gateway::{
    config::{Args, Config},
    run,
};

/// Ten thousand rows are put together anew several times a second, on several threads: glibc's arenas kept twice as much as was in use (docs/adr/0029).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h, for which the crate has no name: milliseconds for which free pages are kept.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Two threads, however many processors there are: each keeps free memory of its own, and pictures do not pass here.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    // What a wall was made of is free when the next one is made, on whichever thread: kept, it would be half of all.
    // SAFETY: sets one number among the allocator's options, which it reads whenever it frees pages; any number is taken.
    #[expect(unsafe_code, reason = "mimalloc's options have no safe call")]
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, 0);
    }
    let args = Args::parse();
    if args.print_openapi {
        return match gateway::http::openapi_json() {
            Ok(text) => {
                use std::io::Write as _;
                match std::io::stdout().write_all(text.as_bytes()) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(_) => ExitCode::FAILURE,
                }
            }
            Err(error) => fail(&error.into()),
        };
    }
    let config = match Config::load(args) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("gateway: {error}");
            return ExitCode::from(2);
        }
    };
    telemetry::init("gateway");
    match run(&config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("gateway: {error:#}");
    ExitCode::FAILURE
}
