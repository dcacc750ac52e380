//! Gateway of a Loco cluster.
//!
//! ```text
//! snapshot file --> directory ---+
//!                                v
//! agents' /v1/events --> agents --> wall, lan (pure merge) --watch--> http: /api/…, /api/events
//! browser --SDP--> http::whep --SDP--> agent that owns the instance        (media goes browser <-> agent, not here)
//! ```
//! **Invariants.** The gateway links no netlink, QEMU or `GStreamer` code (`cargo xtask tidy` checks it) and keeps no state that
//! its agents and the directory do not give back after a restart.
#![forbid(unsafe_code)]

pub mod agents;
pub mod auth;
pub mod config;
pub mod http;
pub mod lan;
pub mod wall;

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use tokio::{net::TcpListener, signal::unix, sync::watch};

use crate::{
    agents::Agents,
    auth::Tokens,
    config::{Args, Config},
    http::AppState,
};

/// Runs until SIGTERM or SIGINT.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let config = Config::load(args)?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "could not listen on {}; end the program that has the port, or choose another with --listen",
            config.listen
        )
    })?;
    let app = App::start(&config)?;
    tracing::info!(listen = %listener.local_addr()?, "gateway ready");
    axum::serve(listener, app.router().into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(shutdown_requested()?)
        .await
        .context("the HTTP server failed")
}

/// The parts of a running gateway, wired; a test can build one without a process.
#[derive(Debug)]
pub struct App {
    state: AppState,
    _follower: directory::Follower,
}

impl App {
    pub fn start(config: &Config) -> anyhow::Result<Self> {
        let registry = telemetry::registry();
        let tokens = Tokens::load(&config.tokens_file)?;
        let agent_token = auth::load_agent_token(&config.agent_token_file)?;
        let follower = directory::Follower::file(&config.snapshot);
        let agents = Agents::start(follower.watch(), agent_token, &registry)?;
        let (active, active_watch) = watch::channel(Vec::new());
        let kept = lan::Kept::default();
        let wall = wall::start(follower.watch(), agents.watch(), active_watch, kept.clone());
        let state = AppState {
            tokens: Arc::new(tokens),
            agents: Arc::new(agents),
            directory: follower.watch(),
            snapshot_path: config.snapshot.clone(),
            wall,
            kept,
            active: Arc::new(active),
            refresh: follower.refresher(),
            metrics: Arc::new(http::Metrics::register(registry)?),
        };
        Ok(Self { state, _follower: follower })
    }

    pub fn router(&self) -> axum::Router {
        http::router(self.state.clone())
    }
}

fn shutdown_requested() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut term = unix::signal(unix::SignalKind::terminate()).context("could not watch for SIGTERM")?;
    let mut int = unix::signal(unix::SignalKind::interrupt()).context("could not watch for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {},
            _ = int.recv() => {},
        }
        // Event streams never end by themselves: leave them a moment to flush, then go. Every client reconnects.
        tokio::spawn(async {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            std::process::exit(0);
        });
    })
}
