//! The gateway: discovery, one merged picture of all agents, relay of signalling, and the page. Carries no media.
use std::process::ExitCode;

use clap::Parser as _;
use gateway::{
    config::{Args, Config},
    run,
};

#[tokio::main]
async fn main() -> ExitCode {
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
