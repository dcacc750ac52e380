//! Flags and files, checked before anything is opened.
use std::{net::SocketAddr, path::PathBuf};

use anyhow::bail;
use clap::Parser;

/// Discovery, signalling relay and page of a Loco cluster.
#[derive(Debug, Parser)]
#[command(name = "gateway", version)]
pub struct Args {
    /// Address and port of the page and the API.
    #[arg(long, env = "LOCO_GATEWAY_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Directory of the cluster: the snapshot file that `loco up` writes.
    #[arg(long, env = "LOCO_SNAPSHOT", required_unless_present = "print_openapi")]
    pub snapshot: Option<PathBuf>,
    /// Tokens of the users, one `ROLE TOKEN` a line; roles are view, play and admin.
    #[arg(long, env = "LOCO_TOKENS_FILE", required_unless_present = "print_openapi")]
    pub tokens_file: Option<PathBuf>,
    /// Token that the agents ask for.
    #[arg(long, env = "LOCO_AGENT_TOKEN_FILE", required_unless_present = "print_openapi")]
    pub agent_token_file: Option<PathBuf>,
    /// Print the API's description and end.
    #[arg(long)]
    pub print_openapi: bool,
}

/// The flags, complete.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: SocketAddr,
    pub snapshot: PathBuf,
    pub tokens_file: PathBuf,
    pub agent_token_file: PathBuf,
}

impl Config {
    pub fn load(args: Args) -> anyhow::Result<Self> {
        let (Some(snapshot), Some(tokens_file), Some(agent_token_file)) =
            (args.snapshot, args.tokens_file, args.agent_token_file)
        else {
            bail!("--snapshot, --tokens-file and --agent-token-file are needed");
        };
        Ok(Self { listen: args.listen, snapshot, tokens_file, agent_token_file })
    }
}
