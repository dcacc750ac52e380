//! The LAN: how it is, how it was, and why a seat does not see a game.
use std::sync::Arc;

use api::{
    ErrorBody,
    lan::{Doctor, LanHistory, LanStatus},
};
use axum::{
    Json,
    body::Bytes,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;

use super::{AppState, error::ApiError};
use crate::{agents, lan::history::KEPT_S};

/// What the agents see of the LANs, merged: ports, addresses, sessions, players, who reaches whom and what is wrong.
/// What was not measured is absent.
#[utoipa::path(get, path = "/api/lan-status", responses((status = 200, body = LanStatus)))]
pub(super) async fn status(State(state): State<AppState>) -> Response {
    let wall = Arc::clone(&state.wall.borrow());
    match state.kept.status_json(&wall) {
        Ok(json) => as_json(json),
        Err(error) => ApiError::internal(&error).into_response(),
    }
}

fn as_json(json: impl Into<Bytes>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json.into()).into_response()
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Span {
    /// Seconds since the epoch; an hour before `to` when absent.
    from: Option<f64>,
    /// Seconds since the epoch; now when absent.
    to: Option<f64>,
}

/// The last hour: samples and events to draw, and everything as it was at `to`.
#[utoipa::path(get, path = "/api/lan-status/history", params(Span), responses((status = 200, body = LanHistory), (status = 400, body = ErrorBody)))]
pub(super) async fn history(
    State(state): State<AppState>,
    span: Result<Query<Span>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(span) = span.map_err(|error| bad_query(&error))?;
    let to = span.to.unwrap_or_else(agents::now);
    let from = span.from.unwrap_or(to - KEPT_S);
    let answer = state.kept.with_history(|history| history.between(from, to));
    answer.json().map(as_json).map_err(|error| ApiError::internal(&error))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Pair {
    /// The instance that does not see the game.
    from: Option<String>,
    /// The instance that should be seen; any, when absent.
    to: Option<String>,
}

/// Why `from` does not see the game of `to`; without them, everything that is wrong.
#[utoipa::path(get, path = "/api/doctor", params(Pair), responses((status = 200, body = Doctor), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn doctor(
    State(state): State<AppState>,
    pair: Result<Query<Pair>, QueryRejection>,
) -> Result<Json<Doctor>, ApiError> {
    let Query(pair) = pair.map_err(|error| bad_query(&error))?;
    let facts = state.kept.facts();
    doctor::doctor(&facts, pair.from.as_deref(), pair.to.as_deref()).map(Json).ok_or_else(|| {
        let unknown = pair.from.iter().chain(&pair.to).find(|id| !facts.seats.contains_key(*id));
        ApiError::unknown_instance(unknown.map_or("", String::as_str))
    })
}

fn bad_query(error: &QueryRejection) -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        "bad-query",
        error.body_text(),
        "see /api/openapi.json for what the path takes after `?`",
    )
}
