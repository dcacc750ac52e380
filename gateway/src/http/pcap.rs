//! A port's capture, passed on from the agent that has the port: as a stream, for it may be long or without an end.
//!
//! Frames hold what people type and say: only an administrator gets them, and it is logged.
use api::{
    ErrorBody,
    capture::{PCAPNG, parse_query},
    gateway::Role,
};
use axum::{
    Extension,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::Response,
};
use reqwest::Method;
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    AppState,
    error::ApiError,
    relay::{AGENT_TIMEOUT, agent_request, owner, passed_on, silent},
    require,
};
use crate::agents;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PcapQuery {
    /// How far back: `60s`, `2m`, `500ms`. All that is held, when left out.
    #[serde(default)]
    last: Option<String>,
    /// `1`: go on with what comes, until the reader goes away.
    #[serde(default)]
    follow: Option<String>,
}

/// Frames of the instance's port, both ways, as pcapng. Passwords of DirectPlay sessions are zero in it. Admins only.
#[utoipa::path(
    get, path = "/api/instances/{id}/pcap", params(("id" = String, Path), PcapQuery),
    responses(
        (status = 200, content_type = "application/x-pcapng", body = Vec<u8>), (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)
    )
)]
pub(super) async fn pcap(
    State(state): State<AppState>,
    Extension(role): Extension<Role>,
    Path(id): Path<String>,
    query: Result<Query<PcapQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    require(role, Role::Admin)?;
    let (id, node) = owner(&state, &id)?;
    let bad = |message: String| {
        ApiError::new(StatusCode::BAD_REQUEST, "bad-query", message, "write ?last=60s, ?follow=1, both or none")
    };
    let Query(query) = query.map_err(|error| bad(error.body_text()))?;
    let (last, follows) = parse_query(query.last.as_deref(), query.follow.as_deref()).map_err(bad)?;
    let span = last.map(|last| format!("&last={}ms", last.as_millis())).unwrap_or_default();
    let path = format!("/v1/instances/{id}/pcap?follow={}{span}", u8::from(follows));
    tracing::info!(instance = %id, ?last, follows, "an administrator reads its port's capture");
    let request = agent_request(&state, Method::GET, &node, &path)?;
    let answer = match timeout(AGENT_TIMEOUT, request.send()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(silent(&node, &agents::reason(&error))),
        Err(_) => return Err(silent(&node, &format!("no answer within {} s", AGENT_TIMEOUT.as_secs()))),
    };
    if answer.status() != StatusCode::OK {
        return passed_on(answer, &node).await;
    }
    Response::builder()
        .header(header::CONTENT_TYPE, PCAPNG)
        .header(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{id}.pcapng\""))
        .header(header::CACHE_CONTROL, "no-store")
        .body(Body::from_stream(answer.bytes_stream()))
        .map_err(|error| ApiError::internal(&error))
}
