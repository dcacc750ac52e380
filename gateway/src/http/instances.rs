//! What there is: instances, LAN, discovery, the seats shown large.
use api::{
    ErrorBody,
    gateway::{Active, DiscoveryInfo, Health, Instance, LiveInstances, Refreshed, Role, WhoAmI},
};
use axum::{
    Extension, Json,
    extract::{Path, Request, State},
    http::StatusCode,
};

use super::{AppState, error::ApiError, relay, require};
use crate::{Phase, agents, wall};

/// At most nine seats are shown large: a board.
const ACTIVE_MAX: usize = 9;
/// As many are named; a thousand nodes may be away at once.
const PROBLEMS_MAX: usize = 32;

/// All instances, by id.
#[utoipa::path(get, path = "/api/instances", responses((status = 200, body = Vec<Instance>), (status = 401, body = ErrorBody)))]
pub(super) async fn list(State(state): State<AppState>) -> Json<Vec<Instance>> {
    Json(state.wall.borrow().instances.clone())
}

/// All instances with counts by readiness.
#[utoipa::path(get, path = "/api/instances/live", responses((status = 200, body = LiveInstances)))]
pub(super) async fn live(State(state): State<AppState>) -> Json<LiveInstances> {
    let agents = state.agents.watch();
    let live = wall::live(&state.wall.borrow(), &agents.borrow(), state.discovery.mode());
    Json(live)
}

/// One instance.
#[utoipa::path(get, path = "/api/instances/{id}", params(("id" = String, Path)), responses((status = 200, body = Instance), (status = 404, body = ErrorBody)))]
pub(super) async fn one(State(state): State<AppState>, Path(id): Path<String>) -> Result<Json<Instance>, ApiError> {
    let wall = state.wall.borrow();
    wall.instances.iter().find(|i| i.id == id).cloned().map(Json).ok_or_else(|| ApiError::unknown_instance(&id))
}

/// Where the list comes from and which agents answer.
#[utoipa::path(get, path = "/api/instances/discovery-info", responses((status = 200, body = DiscoveryInfo)))]
pub(super) async fn discovery_info(State(state): State<AppState>) -> Json<DiscoveryInfo> {
    let agents = state.agents.watch();
    let info = state.discovery.info(&agents.borrow());
    Json(info)
}

/// Reads the directory again now: the file, or everything that the Kubernetes API has, which is asked at most every 5 s. It is
/// followed by itself; this is for the impatient.
#[utoipa::path(post, path = "/api/instances/refresh", responses((status = 200, body = Refreshed)))]
pub(super) async fn refresh(State(state): State<AppState>) -> Json<Refreshed> {
    let mut walls = state.wall.clone();
    walls.mark_unchanged();
    state.discovery.refresher.refresh();
    // The next wall holds what was read: one comes on a change or with the beat, whichever is first.
    if walls.changed().await.is_err() {
        tracing::warn!("the wall has ended");
    }
    let instances = walls.borrow().instances.clone();
    let problem = state.discovery.directory.borrow().problem.clone();
    Json(Refreshed {
        message: problem.unwrap_or_else(|| "read again".into()),
        instance_count: u32::try_from(instances.len()).unwrap_or(u32::MAX),
        instances,
    })
}

/// The seats that walls show large.
#[utoipa::path(get, path = "/api/active", responses((status = 200, body = Active)))]
pub(super) async fn active(State(state): State<AppState>) -> Json<Active> {
    Json(Active { active: state.active.borrow().clone() })
}

/// Sets the seats that walls show large: known ids, at most nine. Each replica of the gateway has its own, until it ends.
#[utoipa::path(post, path = "/api/active", request_body = Active, responses((status = 200, body = Active), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn set_active(
    State(state): State<AppState>,
    Extension(role): Extension<Role>,
    request: Request,
) -> Result<Json<Active>, ApiError> {
    require(role, Role::Play)?;
    let wanted: Active = relay::json_body(request).await?;
    let known = state.wall.borrow();
    if let Some(id) = wanted.active.iter().find(|id| !known.instances.iter().any(|i| i.id == **id)) {
        return Err(ApiError::unknown_instance(id));
    }
    if wanted.active.len() > ACTIVE_MAX {
        return Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "too-many",
            format!("{} seats are more than a board shows", wanted.active.len()),
            format!("send at most {ACTIVE_MAX}"),
        ));
    }
    state.active.send_replace(wanted.active.clone());
    Ok(Json(wanted))
}

/// The role of the token.
#[utoipa::path(get, path = "/api/session", responses((status = 200, body = WhoAmI), (status = 401, body = ErrorBody)))]
pub(super) async fn session(Extension(role): Extension<Role>) -> Json<WhoAmI> {
    Json(WhoAmI { role, version: env!("CARGO_PKG_VERSION").into() })
}

/// Readiness: a directory was read, and the gateway was not told to end. Agents that do not answer are problems and no reason
/// to send people elsewhere: no other gateway could reach them either, and the rest of the wall plays.
#[utoipa::path(get, path = "/ready", responses((status = 200, body = Health), (status = 503, body = Health)), security(()))]
pub(super) async fn ready(State(state): State<AppState>) -> (StatusCode, Json<Health>) {
    let mut problems = Vec::new();
    let mut ready = true;
    if *state.phase.borrow() != Phase::Serving {
        ready = false;
        problems.push("it was told to end".to_owned());
    }
    let directory = state.discovery.directory.borrow().clone();
    match (directory.loaded_at, directory.problem) {
        (None, problem) => {
            ready = false;
            problems.push(problem.unwrap_or_else(|| "no directory was read yet".into()));
        }
        (Some(_), Some(problem)) => problems.push(format!("the directory is stale: {problem}")),
        (Some(_), None) => {}
    }
    let now = agents::now();
    for (node, view) in &*state.agents.watch().borrow() {
        if problems.len() < PROBLEMS_MAX && (!view.connected || view.silent_for(now).is_some()) {
            problems.push(format!("the agent on {node} does not answer"));
        }
    }
    let (code, status) = match (ready, problems.is_empty()) {
        (true, true) => (StatusCode::OK, "ready"),
        (true, false) => (StatusCode::OK, "degraded"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not-ready"),
    };
    (code, Json(Health { status: status.into(), version: env!("CARGO_PKG_VERSION").into(), problems }))
}
