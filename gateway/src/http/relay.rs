//! What is passed on to the agent that owns the instance: signalling, screenshots, power.
use api::{
    ErrorBody,
    agent::{ControlRequest, PowerRequest},
    gateway::Role,
};
use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Path, Query, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use model::{InstanceId, NodeName};
use reqwest::Method;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::{Duration, timeout};

use super::{AppState, BODY_BYTES_MAX, error::ApiError, require};
use crate::agents;

/// An agent answers an offer within its own ICE gathering time, which is below a second.
pub(super) const AGENT_TIMEOUT: Duration = Duration::from_secs(8);
/// With an agent's answer to an offer: all UDP ports that its sessions may use, first-last. What a person has to open.
const MEDIA_PORTS: HeaderName = HeaderName::from_static("x-loco-media-ports");
static ROLE_HEADER: HeaderName = HeaderName::from_static("x-loco-role");

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfferQuery {
    /// The session may change it later by message.
    #[serde(default)]
    #[param(inline)]
    tier: Tier,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Tier {
    #[default]
    Thumb,
    Full,
}

/// WHEP (draft-ietf-wish-whep): an SDP offer in, the agent's answer out. Media goes straight to the agent.
#[utoipa::path(
    post, path = "/api/whep/{instance}", params(("instance" = String, Path), OfferQuery),
    request_body(content = String, content_type = "application/sdp"),
    responses(
        (status = 201, content_type = "application/sdp", body = String, headers(("Location" = String, description = "DELETE it to end the session"))),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody),
        (status = 415, body = ErrorBody), (status = 422, body = ErrorBody), (status = 503, body = ErrorBody)
    )
)]
pub(super) async fn offer(
    State(state): State<AppState>,
    Extension(role): Extension<Role>,
    Path(instance): Path<String>,
    query: Result<Query<OfferQuery>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (id, node) = owner(&state, &instance)?;
    let Query(query) = query.map_err(|_| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "bad-query",
            "the query is not `tier=thumb` or `tier=full`",
            "send one of the two; a session pauses its picture by message",
        )
    })?;
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    if !content_type.split(';').next().is_some_and(|t| t.trim().eq_ignore_ascii_case("application/sdp")) {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not-sdp",
            "the body is not said to be an SDP offer",
            "send `Content-Type: application/sdp`",
        ));
    }
    let offer = body_bytes(request).await?;
    let tier = match query.tier {
        Tier::Thumb => "thumb",
        Tier::Full => "full",
    };
    let path = format!("/v1/instances/{id}/whep?tier={tier}");
    let request = agent_request(&state, Method::POST, &node, &path)?
        .header(header::CONTENT_TYPE, "application/sdp")
        .header(ROLE_HEADER.clone(), role_word(role))
        .body(offer);
    let mut answer = pass_on(request, &node).await?;
    // The agent's session path becomes ours: /v1/instances/{id}/whep/{session} -> /api/whep/{id}/{session}.
    if let Some(session) =
        answer.headers().get(header::LOCATION).and_then(|l| l.to_str().ok()).and_then(|l| l.rsplit('/').next())
        && let Ok(location) = HeaderValue::from_str(&format!("/api/whep/{id}/{session}"))
    {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    Ok(answer)
}

/// Ends a session.
#[utoipa::path(
    delete, path = "/api/whep/{instance}/{session}", params(("instance" = String, Path), ("session" = String, Path)),
    responses((status = 204), (status = 404, body = ErrorBody))
)]
pub(super) async fn end(
    State(state): State<AppState>,
    Path((instance, session)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let (id, node) = owner(&state, &instance)?;
    if session.is_empty() || session.len() > 64 || !session.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "unknown-session",
            "that is not a session",
            "use the Location that the offer's answer gave",
        ));
    }
    let request = agent_request(&state, Method::DELETE, &node, &format!("/v1/instances/{id}/whep/{session}"))?;
    pass_on(request, &node).await
}

/// The picture as it is now.
#[utoipa::path(
    get, path = "/api/instances/{id}/screenshot.png", params(("id" = String, Path)),
    responses((status = 200, content_type = "image/png", body = Vec<u8>), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(super) async fn screenshot(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let (id, node) = owner(&state, &id)?;
    let request = agent_request(&state, Method::GET, &node, &format!("/v1/instances/{id}/screenshot.png"))?;
    pass_on(request, &node).await
}

/// Presses the guest's power button or its reset line.
#[utoipa::path(
    post, path = "/api/instances/{id}/power", params(("id" = String, Path)), request_body = PowerRequest,
    responses((status = 202), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody))
)]
pub(super) async fn power(
    State(state): State<AppState>,
    Extension(role): Extension<Role>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    order::<PowerRequest>(&state, role, &id, "power", request).await
}

/// Has the instance's runner restart its guest, on the same disk or on a fresh one.
#[utoipa::path(
    post, path = "/api/control/{instance}", params(("instance" = String, Path)), request_body = ControlRequest,
    responses((status = 202), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(super) async fn control(
    State(state): State<AppState>,
    Extension(role): Extension<Role>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    order::<ControlRequest>(&state, role, &id, "control", request).await
}

/// An administrator's order, checked here and carried out by the agent that has the instance.
async fn order<T: DeserializeOwned + Serialize>(
    state: &AppState,
    role: Role,
    id: &str,
    what: &str,
    request: Request,
) -> Result<Response, ApiError> {
    require(role, Role::Admin)?;
    let (id, node) = owner(state, id)?;
    let wanted: T = json_body(request).await?;
    let request = agent_request(state, Method::POST, &node, &format!("/v1/instances/{id}/{what}"))?.json(&wanted);
    pass_on(request, &node).await
}

/// The instance and the node that has it. Parsing the id first means that only a name goes into the agent's path.
pub(super) fn owner(state: &AppState, id: &str) -> Result<(InstanceId, NodeName), ApiError> {
    let parsed: InstanceId = id.parse().map_err(|_| ApiError::unknown_instance(id))?;
    let directory = state.discovery.directory.borrow();
    let placed = directory.snapshot.instance(&parsed).ok_or_else(|| ApiError::unknown_instance(id))?;
    Ok((parsed, placed.node.clone()))
}

pub(super) fn agent_request(
    state: &AppState,
    method: Method,
    node: &NodeName,
    path: &str,
) -> Result<reqwest::RequestBuilder, ApiError> {
    state.agents.request(method, node, path).ok_or_else(|| silent(node, "the directory has just changed"))
}

pub(super) fn silent(node: &NodeName, why: &str) -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "agent-silent",
        format!("the agent on {node} does not answer: {why}"),
        "it is being brought back; try again in a moment. `loco status` shows it",
    )
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::View => "view",
        Role::Play => "play",
        Role::Admin => "admin",
    }
}

/// Sends it, and gives back the agent's answer with its status, type and place; nothing else passes.
async fn pass_on(request: reqwest::RequestBuilder, node: &NodeName) -> Result<Response, ApiError> {
    // Head and body together: an agent that stalls in the middle is as silent as one that never begins.
    match timeout(AGENT_TIMEOUT, answer_of(request, node)).await {
        Ok(answer) => answer,
        Err(_) => Err(silent(node, &format!("no answer within {} s", AGENT_TIMEOUT.as_secs()))),
    }
}

async fn answer_of(request: reqwest::RequestBuilder, node: &NodeName) -> Result<Response, ApiError> {
    let answer = request.send().await.map_err(|error| silent(node, &agents::reason(&error)))?;
    passed_on(answer, node).await
}

/// The agent's answer as ours, whole.
pub(super) async fn passed_on(answer: reqwest::Response, node: &NodeName) -> Result<Response, ApiError> {
    let status = answer.status();
    if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        return Err(silent(node, "it does not take the gateway's token; both must read the same agent token file"));
    }
    let mut response = Response::builder().status(status);
    for name in [header::CONTENT_TYPE, header::LOCATION, MEDIA_PORTS] {
        if let Some(value) = answer.headers().get(&name) {
            response = response.header(name, value);
        }
    }
    let body = answer.bytes().await.map_err(|error| silent(node, &agents::reason(&error)))?;
    response
        .header(header::CACHE_CONTROL, "no-store")
        .body(Body::from(body))
        .map_err(|error| ApiError::internal(&error))
}

/// By its own word, so that a client that waits for `100 Continue` is not asked for the rest.
pub(super) fn declared_too_large(headers: &HeaderMap) -> bool {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    declared.is_some_and(|length| length > BODY_BYTES_MAX)
}

async fn body_bytes(request: Request) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX).await.map_err(|_| ApiError::too_large())
}

/// The body as JSON, or 422 with what is wrong with it.
pub(super) async fn json_body<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    let bytes = body_bytes(request).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad-body",
            format!("the body is not as expected: {error}"),
            "see /api/openapi.json",
        )
    })
}
