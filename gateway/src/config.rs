//! Flags and files, checked before anything is opened.
use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use directory::{Source, SourceArgs, WrongUsage};

/// Discovery, signalling relay and page of a Loco cluster.
#[derive(Debug, Parser)]
#[command(name = "gateway", version)]
pub struct Args {
    /// Address and port of the page and the API.
    #[arg(long, env = "LOCO_GATEWAY_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub source: SourceArgs,
    /// Tokens of the users, one `ROLE TOKEN` a line; roles are view, play and admin.
    #[arg(long, env = "LOCO_TOKENS_FILE", required_unless_present = "print_openapi")]
    pub tokens_file: Option<PathBuf>,
    /// Token that the agents ask for.
    #[arg(long, env = "LOCO_AGENT_TOKEN_FILE", required_unless_present = "print_openapi")]
    pub agent_token_file: Option<PathBuf>,
    /// Seconds from SIGTERM, from which on `/ready` says no, to the end of the event streams: what it takes until nothing sends
    /// new requests here.
    #[arg(long, env = "LOCO_DRAIN", value_name = "SECONDS", default_value_t = 0)]
    pub drain: u16,
    /// Print the API's description and end.
    #[arg(long)]
    pub print_openapi: bool,
}

/// The flags, complete.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: SocketAddr,
    pub source: Source,
    pub tokens_file: PathBuf,
    pub agent_token_file: PathBuf,
    pub drain: Duration,
}

impl Config {
    /// # Errors
    /// When flags are missing or contradict one another: exit code 2.
    pub fn load(args: Args) -> Result<Self, WrongUsage> {
        let needed = |flag| WrongUsage { flag, problem: "is required".to_owned() };
        Ok(Self {
            listen: args.listen,
            source: args.source.check()?,
            tokens_file: args.tokens_file.ok_or_else(|| needed("--tokens-file"))?,
            agent_token_file: args.agent_token_file.ok_or_else(|| needed("--agent-token-file"))?,
            drain: Duration::from_secs(args.drain.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flags: &str) -> Result<Config, String> {
        let words = std::iter::once("gateway").chain(flags.split_whitespace());
        let args = Args::try_parse_from(words).map_err(|error| error.to_string())?;
        Config::load(args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_source_is_a_file_or_kubernetes() {
        let tokens = "--tokens-file t --agent-token-file a";
        assert_eq!(load(&format!("--snapshot s.json {tokens}")).unwrap().source, Source::File("s.json".into()));
        let config = load(&format!("--kubernetes --lans l.json --drain 5 {tokens}")).unwrap();
        assert!(matches!(config.source, Source::Kubernetes(_)));
        assert_eq!(config.drain, Duration::from_secs(5));
        assert!(load(tokens).unwrap_err().contains("--kubernetes"));
        assert!(load("--snapshot s.json").unwrap_err().contains("--tokens-file"));
    }
}
