//! Signalling: an offer in, an answer out, as WHEP has it (draft-ietf-wish-whep). Media go straight to the browser.
use axum::{
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use stream::{OfferError, Role, SessionId, Tier};

use super::{Api, error::ApiError, find, read};
use telemetry::chain;

/// Set by the gateway from the viewer's own token. Whoever has the agent's token may say anything here.
const ROLE_HEADER: &str = "x-loco-role";
/// All UDP ports of this node that sessions may use, first-last: what has to be open for a viewer.
const MEDIA_PORTS: HeaderName = HeaderName::from_static("x-loco-media-ports");
const SDP: &str = "application/sdp";

#[derive(Debug, Deserialize)]
pub(super) struct OfferQuery {
    tier: Option<String>,
}

pub(super) async fn offer(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: Result<Query<OfferQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let answer = answer(&api, &id, query, &headers, body).await;
    let result = answer.as_ref().map_or_else(ApiError::code, |_| "ok");
    api.metrics.whep_requests.with_label_values(&[result]).inc();
    answer
}

async fn answer(
    api: &Api,
    id: &str,
    query: Result<Query<OfferQuery>, QueryRejection>,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let instance = find(api, id)?;
    let role = match headers.get(ROLE_HEADER) {
        None => Role::View,
        Some(value) => word(value.to_str().unwrap_or("?"), ROLE_HEADER)?,
    };
    let Query(query) = query.map_err(|error| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            error.body_text(),
            "write ?tier=thumb or ?tier=full, once",
        )
    })?;
    let tier: Tier = query.tier.as_deref().map_or(Ok(Tier::Thumb), |text| word(text, "tier"))?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media_type = content_type.split(';').next().unwrap_or("").trim();
    if !media_type.eq_ignore_ascii_case(SDP) {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not-sdp",
            "an offer must be sent as application/sdp",
            "set `Content-Type: application/sdp`",
        ));
    }
    let body = read(body)?;
    let sdp = std::str::from_utf8(&body).map_err(|_| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "bad-offer",
            "the offer is not text",
            "send the `sdp` of an RTCPeerConnection offer",
        )
    })?;
    let answer = instance.stream.offer(sdp, tier, role).await.map_err(|error| refuse(&error))?;
    let location = format!("/v1/instances/{}/whep/{}", instance.id, answer.session);
    let ports = format!("{}-{}", answer.ports.start(), answer.ports.end());
    let head = [(header::CONTENT_TYPE, SDP.to_owned()), (header::LOCATION, location), (MEDIA_PORTS, ports)];
    Ok((StatusCode::CREATED, head, answer.sdp).into_response())
}

pub(super) async fn close(
    State(api): State<Api>,
    Path((id, session)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let instance = find(&api, &id)?;
    let gone = || ApiError::not_found("session", "this session", "it has ended already; there is nothing to close");
    let session: SessionId = session.parse().map_err(|_| gone())?;
    if instance.stream.close(&session).await { Ok(StatusCode::NO_CONTENT) } else { Err(gone()) }
}

fn word<T: std::str::FromStr<Err = stream::UnknownWord>>(text: &str, place: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, "bad-request", format!("{place}: {error}"), "use one of the words named")
    })
}

fn refuse(error: &OfferError) -> ApiError {
    let (status, remedy) = match error {
        OfferError::Sdp(_) => {
            (StatusCode::BAD_REQUEST, "send the `sdp` of an RTCPeerConnection offer that receives video")
        }
        OfferError::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "close a viewer, then ask again"),
        OfferError::NoPort { .. } => (StatusCode::SERVICE_UNAVAILABLE, "close a viewer or widen --media-ports"),
        OfferError::Closed => (StatusCode::SERVICE_UNAVAILABLE, "ask again in a second"),
        OfferError::MediaIp { .. } => {
            (StatusCode::INTERNAL_SERVER_ERROR, "give the agent an address of its node as --media-ip")
        }
        OfferError::Internal { .. } => {
            (StatusCode::INTERNAL_SERVER_ERROR, "try again; if it stays, send the agent's log")
        }
    };
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(error = chain(error), "an offer failed");
    }
    ApiError::new(status, error.code(), error.to_string(), remedy)
}
