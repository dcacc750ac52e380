//! What is measured of the gateway itself, in the text format of Prometheus.
use axum::{
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use prometheus::{Encoder as _, HistogramOpts, HistogramVec, Registry, TextEncoder};
use tokio::time::Instant;

use super::{AppState, error::ApiError};

/// The gateway's registry and the series of its HTTP server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: HistogramVec,
}

impl Metrics {
    pub fn register(registry: Registry) -> prometheus::Result<Self> {
        let requests = HistogramVec::new(
            HistogramOpts::new("loco_gateway_http_request_duration_seconds", "Time to the head of the answer")
                .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]),
            &["method", "path", "status"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        Ok(Self { registry, requests })
    }
}

/// Times every request. The label is the route, never the path that came: a stranger must not make series.
pub(super) async fn count(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let method = match request.method().as_str() {
        m @ ("GET" | "POST" | "DELETE" | "HEAD" | "PUT" | "PATCH" | "OPTIONS") => m,
        _ => "other",
    }
    .to_owned();
    let start = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    state.metrics.requests.with_label_values(&[&method, &path, &status]).observe(start.elapsed().as_secs_f64());
    response
}

/// Metrics of the gateway.
#[utoipa::path(get, path = "/metrics", responses((status = 200, content_type = "text/plain", body = String)))]
pub(super) async fn metrics(State(state): State<AppState>) -> Result<Response, ApiError> {
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    encoder.encode(&state.metrics.registry.gather(), &mut text).map_err(|error| ApiError::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response())
}
