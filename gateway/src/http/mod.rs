//! The public API. The only module that knows HTTP.
//!
//! **Invariants.** Everything but `/health`, `/ready` and the page's files asks for a token. A body is at most 64 KiB. Every
//! error has the one body of `api::ErrorBody`.
mod assets;
mod error;
mod events;
mod instances;
mod lan;
mod metrics;
mod pcap;
mod plug;
mod relay;

use std::sync::Arc;

use api::gateway::{Role, Wall, WallChange};
use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, delete, get, post},
};
use tokio::sync::watch;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::OpenApi as _;

pub use self::metrics::Metrics;
use self::{error::ApiError, instances as i, relay as r};
use crate::{Phase, agents::Agents, auth::Tokens, changes::Changes, discovery::Discovery, lan::Kept};

/// Largest request body: an SDP offer of a browser is about 6 kB.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Clone)]
pub struct AppState {
    pub tokens: Arc<Tokens>,
    pub agents: Arc<Agents>,
    pub(crate) discovery: Arc<Discovery>,
    pub wall: watch::Receiver<Arc<Wall>>,
    pub(crate) changes: Changes,
    pub kept: Kept,
    pub active: Arc<watch::Sender<Vec<String>>>,
    pub phase: watch::Receiver<Phase>,
    pub metrics: Arc<Metrics>,
}

pub fn router(state: AppState) -> Router {
    let api = Router::new()
        .route("/api/instances", get(i::list))
        .route("/api/instances/live", get(i::live))
        .route("/api/instances/discovery-info", get(i::discovery_info))
        .route("/api/instances/refresh", post(i::refresh))
        .route("/api/instances/{id}", get(i::one))
        .route("/api/instances/{id}/screenshot.png", get(r::screenshot))
        .route("/api/instances/{id}/pcap", get(pcap::pcap))
        .route("/api/instances/{id}/power", post(r::power))
        .route("/api/control/{instance}", post(r::control))
        .route("/api/active", get(i::active).post(i::set_active))
        .route("/api/lan-status", get(lan::status))
        .route("/api/lan-status/history", get(lan::history))
        .route("/api/lans/{lan}/plug", get(plug::plug))
        .route("/api/doctor", get(lan::doctor))
        .route("/api/session", get(i::session))
        .route("/api/events", get(events::events))
        .route("/api/whep/{instance}", post(r::offer))
        .route("/api/whep/{instance}/{session}", delete(r::end))
        .route("/api/openapi.json", get(openapi))
        .route("/api/{*rest}", any(unknown))
        .route("/metrics", get(metrics::metrics))
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(state.clone(), authenticate));
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(i::ready))
        .merge(api)
        .fallback(get(assets::asset))
        .layer(middleware::from_fn_with_state(state.clone(), metrics::count))
        .layer(SetResponseHeaderLayer::if_not_present(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ))
        .layer(SetResponseHeaderLayer::if_not_present(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")))
        .with_state(state)
}

/// Puts the role of the bearer token into the request, or answers 401.
async fn authenticate(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    match state.tokens.role(request.headers()) {
        // Before anything else is judged: too long is too long, whatever it is.
        Some(_) if relay::declared_too_large(request.headers()) => ApiError::too_large().into_response(),
        Some(role) => {
            request.extensions_mut().insert(role);
            next.run(request).await
        }
        None => ApiError::unauthorized().into_response(),
    }
}

/// 403 unless `have` is enough.
fn require(have: Role, need: Role) -> Result<(), ApiError> {
    if have >= need { Ok(()) } else { Err(ApiError::forbidden(have, need)) }
}

async fn unknown() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "unknown-path", "the API has no such path", "see /api/openapi.json")
}

async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "wrong-method",
        "this path does not take that method",
        "see /api/openapi.json",
    )
}

/// Liveness: the server answers.
#[utoipa::path(get, path = "/health", responses((status = 200, body = api::gateway::Health)), security(()))]
async fn health() -> Json<api::gateway::Health> {
    Json(api::gateway::Health { status: "ok".into(), version: env!("CARGO_PKG_VERSION").into(), problems: vec![] })
}

#[derive(Debug, utoipa::OpenApi)]
#[openapi(
    info(title = "Loco gateway", description = "Discovery, LAN status and stream signalling of a Loco cluster."),
    paths(
        health, i::ready, i::list, i::live, i::discovery_info, i::refresh, i::one, i::active, i::set_active, lan::status,
        lan::history, lan::doctor, i::session, events::events, r::offer, r::end, r::screenshot, r::power, r::control, pcap::pcap, plug::plug, metrics::metrics
    ),
    components(schemas(api::ErrorBody, Wall, WallChange)),
    modifiers(&BearerToken),
    security(("token" = []))
)]
struct ApiDoc;

struct BearerToken;

impl utoipa::Modify for BearerToken {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        openapi.components.get_or_insert_default().add_security_scheme("token", scheme);
    }
}

/// The API's description; also kept in `gateway/openapi.json`, from which the browser's types are made.
pub fn openapi_json() -> serde_json::Result<String> {
    ApiDoc::openapi().to_pretty_json().map(|text| text + "\n")
}

async fn openapi() -> Response {
    match openapi_json() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => ApiError::internal(&error).into_response(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_description_is_fresh() {
        expect_test::expect_file!["../../openapi.json"].assert_eq(&super::openapi_json().unwrap());
    }
}
