//! What `/healthz` and `/readyz` say: three conditions, one loop.
use std::{net::TcpListener, time::Duration};

use anyhow::Context as _;
use telemetry::{Condition, Health, Heartbeat};

/// The loop turns each second; the longest it may be busy is one hand-over with every limit reached.
const LOOP_PERIOD: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Signs {
    pub(crate) beat: Heartbeat,
    /// QEMU runs, its monitor answers, and nothing holds the guest.
    pub(crate) qemu: Condition,
    /// An agent has given the guest its place on the LAN.
    pub(crate) port: Condition,
    /// An agent is there, with display, sound and control handed over.
    pub(crate) agent: Condition,
}

/// Serves in the background, on this thread: if the loop is stuck in a call, the probe times out, which is the truth.
pub(crate) fn serve(listener: TcpListener) -> anyhow::Result<Signs> {
    let health = Health::new();
    let signs = Signs {
        beat: health.heartbeat("runner", LOOP_PERIOD),
        qemu: health.condition("qemu", "not started: it needs a port first"),
        port: health.condition("port", "the agent has not given one yet"),
        agent: health.condition("agent", "not connected yet"),
    };
    let listener = tokio::net::TcpListener::from_std(listener).context("could not serve health")?;
    let router = telemetry::router("guest-runner", health, telemetry::registry());
    tokio::spawn(async move {
        if let Err(error) = telemetry::serve_health(listener, router, std::future::pending()).await {
            tracing::error!(%error, "health is no longer served");
        }
    });
    Ok(signs)
}
