//! A port's capture: what is held of the last seconds, and what comes if wanted.
use api::capture::{PCAPNG, parse_query};
use axum::{
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;

use super::{Api, error::ApiError, find};
use crate::capture::CaptureError;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PcapQuery {
    last: Option<String>,
    follow: Option<String>,
}

pub(super) async fn pcap(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: Result<Query<PcapQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let instance = find(&api, &id)?;
    let bad = |message: String| {
        ApiError::new(StatusCode::BAD_REQUEST, "bad-request", message, "write ?last=60s, ?follow=1, both or none")
    };
    let Query(query) = query.map_err(|error| bad(error.body_text()))?;
    let (last, follows) = parse_query(query.last.as_deref(), query.follow.as_deref()).map_err(bad)?;
    let stream = api.captures.open(&instance.id, last, follows).map_err(|error| {
        let (code, remedy) = match error {
            CaptureError::Off(_) => ("no-capture", "see the agent's log and its flag --capture-bytes"),
            CaptureError::Busy => ("busy", "end one of them, then ask again"),
        };
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string(), remedy)
    })?;
    tracing::info!(instance = %instance.id, ?last, follows, "its port's capture is read");
    let name = format!("attachment; filename=\"{}.pcapng\"", instance.id);
    let headers = [
        (header::CONTENT_TYPE, PCAPNG.to_owned()),
        (header::CONTENT_DISPOSITION, name),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}
