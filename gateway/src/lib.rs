//! Gateway of a Loco cluster.
//!
//! ```text
//! snapshot file, or Kubernetes --> directory ---+
//!                                v
//! agents' /v1/events --> agents --> wall, lan (pure merge) --watch--> http: /api/…, /api/events
//! browser --SDP--> http::whep --SDP--> agent that owns the instance        (media goes browser <-> agent, not here)
//! ```
//! **Invariants.** The gateway links no netlink, QEMU or `GStreamer` code (`cargo xtask tidy` checks it) and keeps no state that
//! its agents and the directory do not give back after a restart.
#![forbid(unsafe_code)]

pub mod agents;
pub mod auth;
pub mod changes;
pub mod config;
mod discovery;
pub mod http;
pub mod lan;
pub mod wall;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use directory::{Follower, Pace};
use tokio::{net::TcpListener, signal::unix, sync::watch, time};

use crate::{agents::Agents, auth::Tokens, config::Config, discovery::Discovery, http::AppState};

/// After the event streams have ended: for answers that are being made. An agent answers an offer within 8 s.
const LAST_ANSWERS: Duration = Duration::from_secs(8);

/// Where the gateway is in its life. It never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// It was told to end: `/ready` says no, everything else goes on.
    Draining,
    /// Event streams end, each with the word to come back at once.
    Closing,
}

/// Runs until SIGTERM or SIGINT: says that it is no longer ready, waits as long as `drain` says, ends the event streams, gives
/// the last answers. Pictures do not pass the gateway, so none of this touches them.
///
/// # Errors
/// When the address is taken, a file cannot be used, there is no way to the Kubernetes API, or the server fails.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "could not listen on {}; end the program that has the port, or choose another with --listen",
            config.listen
        )
    })?;
    let app = App::start(config).await?;
    tracing::info!(listen = %listener.local_addr()?, "gateway ready");
    let mut term = unix::signal(unix::SignalKind::terminate()).context("could not watch for SIGTERM")?;
    let mut int = unix::signal(unix::SignalKind::interrupt()).context("could not watch for SIGINT")?;
    let (phase, drain) = (Arc::clone(&app.phase), config.drain);
    let mut closing = phase.subscribe();
    let server = axum::serve(listener, app.router().into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = term.recv() => {},
                _ = int.recv() => {},
            }
            phase.send_replace(Phase::Draining);
            tracing::info!(seconds = drain.as_secs(), "told to end: not ready from now on");
            time::sleep(drain).await;
            phase.send_replace(Phase::Closing);
        });
    // A capture that is followed never ends by itself, nor does a connection that a client keeps: those are cut off.
    let cut_off = async {
        // An error means that the sender is gone: that is the end as well.
        closing.wait_for(|phase| *phase == Phase::Closing).await.ok();
        time::sleep(LAST_ANSWERS).await;
    };
    tokio::select! {
        ended = server => ended.context("the HTTP server failed"),
        () = cut_off => Ok(()),
    }
}

/// The parts of a running gateway, wired; a test can build one without a process.
#[derive(Debug)]
pub struct App {
    state: AppState,
    phase: Arc<watch::Sender<Phase>>,
    _follower: Follower,
}

impl App {
    /// # Errors
    /// When a file cannot be used, or there is no way to the Kubernetes API.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let tokens = Tokens::load(&config.tokens_file)?;
        let agent_token = auth::load_agent_token(&config.agent_token_file)?;
        let follower = Follower::start(&config.source, Pace::GATEWAY).await?;
        Self::with(follower, tokens, agent_token)
    }

    /// With a follower of one's own: how a test gives it a Kubernetes API.
    ///
    /// # Errors
    /// When a metric's name is taken.
    pub fn with(follower: Follower, tokens: Tokens, agent_token: String) -> anyhow::Result<Self> {
        let registry = telemetry::registry();
        let agents = Agents::start(follower.watch(), agent_token, &registry)?;
        let discovery = Discovery::new(&follower, &registry)?;
        let (active, active_watch) = watch::channel(Vec::new());
        let kept = lan::Kept::default();
        let wall = wall::start(follower.watch(), follower.info().mode, agents.watch(), active_watch, kept.clone());
        let changes = changes::start(wall.clone());
        let phase = Arc::new(watch::Sender::new(Phase::Serving));
        let state = AppState {
            tokens: Arc::new(tokens),
            agents: Arc::new(agents),
            discovery: Arc::new(discovery),
            wall,
            changes,
            kept,
            active: Arc::new(active),
            phase: phase.subscribe(),
            metrics: Arc::new(http::Metrics::register(registry)?),
        };
        Ok(Self { state, phase, _follower: follower })
    }

    pub fn router(&self) -> axum::Router {
        http::router(self.state.clone())
    }

    /// What a signal does in a process.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }
}
