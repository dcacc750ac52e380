//! How a test tells the peer what to do, and the probes of a runner.
use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use k8s_tests::peer::{Flow, Report, Reset};

use crate::peer::Peer;

/// Frames a second of one flow: more is a flood, and its losses say nothing.
const RATE_MAX: f64 = 5_000.0;

pub(crate) fn router(peer: Arc<Peer>) -> Router {
    Router::new()
        .route("/report", get(report))
        .route("/reset", post(reset))
        .route("/flows", post(start).delete(stop))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/startupz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(peer)
}

async fn report(State(peer): State<Arc<Peer>>) -> Json<Report> {
    Json(peer.report().await)
}

async fn reset(State(peer): State<Arc<Peer>>, Json(reset): Json<Reset>) -> StatusCode {
    peer.reset(reset.epoch).await;
    StatusCode::NO_CONTENT
}

async fn start(
    State(peer): State<Arc<Peer>>,
    Json(flows): Json<Vec<Flow>>,
) -> Result<StatusCode, (StatusCode, String)> {
    for flow in &flows {
        if !(flow.rate > 0.0 && flow.rate <= RATE_MAX) {
            return Err((StatusCode::BAD_REQUEST, format!("rate {} is not within 0 to {RATE_MAX}\n", flow.rate)));
        }
        if flow.kind.is_unicast() && flow.to.is_none() {
            return Err((StatusCode::BAD_REQUEST, format!("{:?} needs `to`, a seat\n", flow.kind)));
        }
    }
    for flow in flows {
        peer.start(flow).await;
    }
    Ok(StatusCode::ACCEPTED)
}

async fn stop(State(peer): State<Arc<Peer>>) -> StatusCode {
    peer.stop().await;
    StatusCode::NO_CONTENT
}

async fn ready(State(peer): State<Arc<Peer>>) -> (StatusCode, &'static str) {
    match peer.plug() {
        Some(_) => (StatusCode::OK, "ok\n"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "no tap yet\n"),
    }
}
