//! What `/healthz`, `/readyz` and `/startupz` say.
//!
//! | path | fails while | and then |
//! |---|---|---|
//! | `/healthz` | the runner's loop stands still, or QEMU says nothing for `--stuck-after` | the kubelet starts the container anew |
//! | `/readyz` | there is no port, no agent, no live picture, or the guest stands still | nobody is sent here |
//! | `/startupz` | QEMU was started and no picture was live yet | the kubelet starts it anew after its threshold |
//!
//! **Invariant.** What a restart cannot cure fails no probe that restarts: an agent that is away, a disk that is full.
use std::{
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde_json::json;
use telemetry::{Condition, Health, Heartbeat};

use crate::metrics::Metrics;

/// The loop turns each second; the longest it may be busy is one hand-over with every limit reached.
const LOOP_PERIOD: Duration = Duration::from_secs(30);
/// How long the start may wait for others (an agent, a disk) before it counts as done: the startup probe, with its 30 s, would
/// only kill what waits, and what is left of them is for our own start.
const OTHERS_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Signs {
    health: Health,
    pub(crate) beat: Heartbeat,
    /// QEMU runs, its monitor answers, and nothing holds the guest.
    pub(crate) qemu: Condition,
    /// An agent has given the guest its place on the LAN, and the kernel says that it is plugged in.
    pub(crate) port: Condition,
    /// An agent is there, with display, sound and control handed over.
    pub(crate) agent: Condition,
    /// The agent says that the picture can be streamed.
    pub(crate) picture: Condition,
    pub(crate) startup: Startup,
    pub(crate) metrics: Metrics,
}

impl Signs {
    /// QEMU must show a sign of life within each `period`, until this is dropped.
    pub(crate) fn qemu_beat(&self, period: Duration) -> Heartbeat {
        self.health.heartbeat("qemu", period)
    }
}

/// How far the start is. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Startup(Arc<Mutex<Progress>>);

#[derive(Debug, Clone, Copy)]
struct Progress {
    began: Instant,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// For an agent or a disk, since then.
    WaitsForOthers(Instant),
    /// QEMU was started.
    OurTurn,
    Done,
}

impl Startup {
    fn new() -> Self {
        let began = Instant::now();
        Self(Arc::new(Mutex::new(Progress { began, phase: Phase::WaitsForOthers(began) })))
    }

    fn change(&self, to: impl FnOnce(Phase) -> Phase) -> Progress {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        progress.phase = to(progress.phase);
        *progress
    }

    pub(crate) fn our_turn(&self) {
        self.change(|phase| if phase == Phase::Done { phase } else { Phase::OurTurn });
    }

    pub(crate) fn waits_for_others(&self) {
        self.change(|phase| if phase == Phase::OurTurn { Phase::WaitsForOthers(Instant::now()) } else { phase });
    }

    /// The picture is live. The first time, how long the start took.
    pub(crate) fn done(&self) -> Option<Duration> {
        let mut first = false;
        let progress = self.change(|phase| {
            first = phase != Phase::Done;
            Phase::Done
        });
        first.then(|| progress.began.elapsed())
    }

    /// `Err` = not started, and why.
    fn judge(&self, now: Instant) -> Result<&'static str, String> {
        let progress = self.change(|phase| phase);
        match progress.phase {
            Phase::Done => Ok("started"),
            Phase::WaitsForOthers(since) if now.saturating_duration_since(since) >= OTHERS_LIMIT => {
                Ok("waiting for others, which no restart of this cures; see /readyz")
            }
            Phase::WaitsForOthers(_) => Err("waiting for an agent or a disk; see /readyz".to_owned()),
            Phase::OurTurn => Err("QEMU was started, and its picture is not live yet; see /readyz".to_owned()),
        }
    }
}

/// Serves in the background, on this thread: if the loop is stuck in a call, the probe times out, which is the truth.
pub(crate) fn serve(listener: TcpListener) -> anyhow::Result<Signs> {
    let health = Health::new();
    let registry = telemetry::registry();
    let signs = Signs {
        beat: health.heartbeat("runner", LOOP_PERIOD),
        qemu: health.condition("qemu", "not started: it needs a port first"),
        port: health.condition("port", "the agent has not given one yet"),
        agent: health.condition("agent", "not connected yet"),
        picture: health.condition("picture", "the agent has not said that it is live yet"),
        startup: Startup::new(),
        metrics: Metrics::register(&registry).context("could not register metrics")?,
        health: health.clone(),
    };
    let listener = tokio::net::TcpListener::from_std(listener).context("could not serve health")?;
    let router = telemetry::router("guest-runner", health, registry)
        .merge(Router::new().route("/startupz", get(startupz)).with_state(signs.startup.clone()));
    tokio::spawn(async move {
        if let Err(error) = telemetry::serve_health(listener, router, std::future::pending()).await {
            tracing::error!(%error, "health is no longer served");
        }
    });
    Ok(signs)
}

async fn startupz(State(startup): State<Startup>) -> Response {
    match startup.judge(Instant::now()) {
        Ok(words) => Json(json!({"ok": true, "component": "guest-runner", "startup": words})).into_response(),
        Err(words) => {
            let error = json!({"code": "not-started", "message": words, "remedy": "wait, or act on the reasons given"});
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"error": error}))).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_over_when_it_is_live_or_waits_for_others() {
        let startup = Startup::new();
        let now = Instant::now();
        assert!(startup.judge(now).unwrap_err().contains("waiting for an agent"));
        assert!(startup.judge(now + OTHERS_LIMIT).is_ok());
        startup.our_turn();
        assert!(startup.judge(now + 2 * OTHERS_LIMIT).unwrap_err().contains("not live yet"));
        startup.waits_for_others();
        assert!(startup.judge(Instant::now()).is_err());
        assert!(startup.done().is_some());
        assert!(startup.judge(now).is_ok());
        // For good: what comes later is told by the other probes.
        startup.our_turn();
        startup.waits_for_others();
        assert!(startup.judge(now).is_ok());
        assert_eq!(startup.done(), None);
    }
}
