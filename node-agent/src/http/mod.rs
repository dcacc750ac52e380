//! The agent's HTTP API, as described in `api::agent`. The only module that names HTTP.
//!
//! `/underlay/key`, which other agents ask, is beside it: no token is sent there, and none is told.
//!
//! **Invariants.** Everything under `/v1` needs the bearer token, and says nothing without it, not even which instances exist.
//! A body is read only up to [`BODY_BYTES_MAX`]. Every error has the one body of the project.
mod auth;
mod error;
mod pcap;
mod plug;
mod trace;
mod whep;

use std::{convert::Infallible, path::PathBuf, sync::Arc};

use api::agent::{AgentStatus, ControlAction, ControlRequest, InstanceStatus, PowerAction, PowerRequest, UnderlayKey};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, State, rejection::BytesRejection},
    http::{StatusCode, header},
    middleware,
    response::{
        IntoResponse, Response, Sse,
        sse::{self, Event},
    },
    routing::{delete, get, post},
};
use model::InstanceId;
use serde::Deserialize;
use switch::Switch;
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt as _, wrappers::WatchStream};

use crate::{
    capture::Captures,
    config::Token,
    instance::{Instance, Power},
    keys,
    metrics::Metrics,
    seats::Instances,
    status::Source,
};
use error::ApiError;

/// Longest body that is read. An offer of a browser has about 5 KiB.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;

/// What the handlers see of the agent.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) token: Token,
    pub(crate) source: Source,
    pub(crate) instances: watch::Receiver<Instances>,
    /// The newest status as JSON. When its sender goes, the streams of events end.
    pub(crate) events: watch::Receiver<Arc<str>>,
    pub(crate) metrics: Metrics,
    pub(crate) captures: Captures,
    /// The fabric's namespace; `None`: this agent has no devices in the kernel.
    pub(crate) netns: Option<PathBuf>,
    pub(crate) switch: Arc<Switch>,
    /// What other agents are told.
    pub(crate) own_key: keys::Own,
}

/// All routes but the health ones.
pub(crate) fn router(api: Api) -> Router {
    let underlay = Router::new().route("/underlay/key", get(underlay_key)).with_state(api.clone());
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/events", get(events))
        .route("/v1/lan/trace", post(trace::follow))
        .route("/v1/lans/{lan}/plug", get(plug::plug))
        .route("/v1/instances/{id}", get(instance))
        .route("/v1/instances/{id}/whep", post(whep::offer))
        .route("/v1/instances/{id}/whep/{session}", delete(whep::close))
        .route("/v1/instances/{id}/screenshot.png", get(screenshot))
        .route("/v1/instances/{id}/pcap", get(pcap::pcap))
        .route("/v1/instances/{id}/power", post(power))
        .route("/v1/instances/{id}/control", post(control))
        .fallback(|| async { ApiError::not_found("path", "this path", "see the list in the agent's documentation") })
        .method_not_allowed_fallback(|| async { ApiError::method() })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(api.token.clone(), auth::check))
        .with_state(api)
        .merge(underlay)
}

/// A number used once, so that an answer is to this question only.
#[derive(Deserialize)]
struct KeyQuestion {
    nonce: String,
}

async fn underlay_key(
    State(api): State<Api>,
    Query(question): Query<KeyQuestion>,
) -> Result<Json<UnderlayKey>, ApiError> {
    api.own_key.answer(&api.token, &question.nonce).map(Json).ok_or_else(|| {
        ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad-request",
            "the question has no number of 32 octets".to_owned(),
            "send ?nonce= with 64 hexadecimal digits, new ones each time",
        )
    })
}

async fn status(State(api): State<Api>) -> Json<AgentStatus> {
    Json(api.source.status())
}

async fn events(State(api): State<Api>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = WatchStream::new(api.events).map(|text| Ok(Event::default().event("status").data(&*text)));
    Sse::new(events).keep_alive(sse::KeepAlive::default())
}

async fn instance(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<InstanceStatus>, ApiError> {
    let id = parse_id(&id)?;
    api.source.instance(&id).map(Json).ok_or_else(|| ApiError::unknown_instance(id.as_str()))
}

async fn screenshot(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let instance = find(&api, &id)?;
    let png = instance.screen.screenshot_png().await.ok_or_else(|| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no-picture",
            format!("{} has not shown a picture yet", instance.id),
            "wait until its state is live",
        )
    })?;
    Ok(([(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "no-store")], png).into_response())
}

async fn power(
    State(api): State<Api>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    let instance = find(&api, &id)?;
    let request: PowerRequest = serde_json::from_slice(&read(body)?).map_err(|error| {
        ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad-request",
            format!("the body is not a power request: {error}"),
            r#"send {"action":"shutdown"} or {"action":"reset"}"#,
        )
    })?;
    let action = match request.action {
        PowerAction::Shutdown => Power::Shutdown,
        PowerAction::Reset => Power::Reset,
    };
    instance.power(action).await.map_err(|error| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not-running",
            error.to_string(),
            "wait until it is live, then ask again",
        )
    })?;
    Ok(StatusCode::ACCEPTED)
}

async fn control(
    State(api): State<Api>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    let instance = find(&api, &id)?;
    let request: ControlRequest = serde_json::from_slice(&read(body)?).map_err(|error| {
        ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad-request",
            format!("the body is not a control request: {error}"),
            r#"send {"action":"restart"} or {"action":"reset"}"#,
        )
    })?;
    let order = match request.action {
        ControlAction::Restart => seat::Order::Restart,
        ControlAction::Reset => seat::Order::Reset,
    };
    instance.order(order).await.map_err(|error| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not-taken",
            error.to_string(),
            "look at the instance's state, then ask again",
        )
    })?;
    Ok(StatusCode::ACCEPTED)
}

/// The instance, or 404: also for a text that could not be an id.
fn find(api: &Api, id: &str) -> Result<Arc<Instance>, ApiError> {
    let id = parse_id(id)?;
    api.instances.borrow().get(&id).cloned().ok_or_else(|| ApiError::unknown_instance(id.as_str()))
}

fn parse_id(id: &str) -> Result<InstanceId, ApiError> {
    id.parse().map_err(|_| ApiError::unknown_instance(id))
}

fn read(body: Result<Bytes, BytesRejection>) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| ApiError::body(&rejection))
}

#[cfg(test)]
mod tests;
