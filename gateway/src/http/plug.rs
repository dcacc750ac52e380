//! A machine outside of the cluster, plugged in through the gateway: the connection is passed on to an agent, octet by octet, after
//! both have agreed to make a WebSocket of it (`api::plug`).
use std::net::SocketAddr;

use api::{
    ErrorBody,
    gateway::Role,
    plug::{REMOTE_HEADER, is_machine},
};
use axum::{
    Extension,
    body::Body,
    extract::{ConnectInfo, Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::Response,
};
use hyper_util::rt::TokioIo;
use model::{LanName, NodeName};
use reqwest::Method;
use serde::Deserialize;
use tokio::{io::copy_bidirectional, time::timeout};

use super::{
    AppState,
    error::ApiError,
    relay::{AGENT_TIMEOUT, agent_request, passed_on, silent},
    require,
};
use crate::agents;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PlugQuery {
    /// What the machine calls itself: 8 to 64 letters and digits. The same again takes the place of itself.
    machine: String,
}

/// What the two ends agree on (RFC 6455 section 4.2), there and back.
const QUESTION: [HeaderName; 5] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_EXTENSIONS,
];
const ANSWER: [HeaderName; 4] =
    [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT, header::SEC_WEBSOCKET_EXTENSIONS];

/// Plugs a machine outside of the cluster into a LAN of mode `socket`: a WebSocket, one binary message a frame. For who may play.
#[utoipa::path(
    get, path = "/api/lans/{lan}/plug", params(("lan" = String, Path), PlugQuery),
    responses(
        (status = 101, description = "A WebSocket; see `loco plug`"), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 426, body = ErrorBody),
        (status = 501, body = ErrorBody), (status = 503, body = ErrorBody)
    )
)]
pub(super) async fn plug(
    State(state): State<AppState>,
    Extension(role): Extension<Role>,
    Path(lan): Path<String>,
    query: Result<Query<PlugQuery>, QueryRejection>,
    remote: Option<Extension<ConnectInfo<SocketAddr>>>,
    mut request: Request,
) -> Result<Response, ApiError> {
    require(role, Role::Play)?;
    let bad = |message: String| {
        ApiError::new(StatusCode::BAD_REQUEST, "bad-query", message, "write ?machine= and 8 to 64 letters and digits")
    };
    let Query(PlugQuery { machine }) = query.map_err(|error| bad(error.body_text()))?;
    if !is_machine(&machine) {
        return Err(bad("the machine's name is none".to_owned()));
    }
    let lan: LanName = lan.parse().map_err(|_| unknown(&lan))?;
    let node = node_of(&state, &lan)?;
    let mut question = agent_request(&state, Method::GET, &node, &format!("/v1/lans/{lan}/plug?machine={machine}"))?
        .header(REMOTE_HEADER, from(request.headers(), remote.map(|Extension(info)| info.0)));
    for name in QUESTION {
        if let Some(value) = request.headers().get(&name) {
            question = question.header(name, value);
        }
    }
    let answer = match timeout(AGENT_TIMEOUT, question.send()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(silent(&node, &agents::reason(&error))),
        Err(_) => return Err(silent(&node, &format!("no answer within {} s", AGENT_TIMEOUT.as_secs()))),
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return passed_on(answer, &node).await;
    }
    let mut response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    for name in ANSWER {
        if let Some(value) = answer.headers().get(&name) {
            response = response.header(name, value);
        }
    }
    tracing::info!(%lan, %node, "a foreign machine is passed on");
    let machine = hyper::upgrade::on(&mut request);
    // It ends with either end; a machine that fell silent is told apart by the agent.
    tokio::spawn(async move {
        let (Ok(machine), Ok(mut agent)) = tokio::join!(machine, answer.upgrade()) else { return };
        // How it broke off does not matter: both ends see that it did.
        drop(copy_bidirectional(&mut TokioIo::new(machine), &mut agent).await);
    });
    response.body(Body::empty()).map_err(|error| ApiError::internal(&error))
}

fn unknown(lan: &str) -> ApiError {
    let lan: String = lan.chars().take(80).collect();
    ApiError::new(
        StatusCode::NOT_FOUND,
        "unknown-lan",
        format!("there is no LAN `{lan}`"),
        "`loco lan list` names those that there are",
    )
}

/// The node with the fewest foreign machines of those whose agent switches the LAN; if there is none, any that answers: it says why.
fn node_of(state: &AppState, lan: &LanName) -> Result<NodeName, ApiError> {
    let views = state.agents.watch();
    let views = views.borrow();
    let at = agents::now();
    let answering = || {
        let alive = views.iter().filter(|(_, view)| view.silent_for(at).is_none());
        alive.filter_map(|(node, view)| Some((node, view.status.as_deref()?)))
    };
    let switches = answering().filter(|(_, status)| {
        status.lans.iter().any(|ours| ours.name == lan.as_str() && ours.mode.as_deref() == Some("socket"))
    });
    let least = switches.min_by_key(|(_, status)| status.foreign.iter().filter(|one| one.lan == lan.as_str()).count());
    let chosen = least.or_else(|| answering().next());
    chosen.map(|(node, _)| node.clone()).ok_or_else(|| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "agent-silent", "no agent answers", "see `loco status`")
    })
}

/// Who asks, as the agent will show it. What proxies say of it is shown beside what is known.
fn from(headers: &HeaderMap, peer: Option<SocketAddr>) -> String {
    let peer = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
    let told = headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
    match told.and_then(|told| told.split(',').next()).map(str::trim).filter(|told| !told.is_empty()) {
        Some(told) => format!("{} by way of {peer}", told.chars().take(40).collect::<String>()),
        None => peer,
    }
}
