//! The one error body, with its status.
use api::{ErrorBody, gateway::Role};
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status, body: ErrorBody::new(code, message, remedy) }
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "there is no token in the request, or it is not a token of this cluster",
            "send `Authorization: Bearer TOKEN`; `loco up` printed a link with one, `loco status` shows it again",
        )
    }

    pub(crate) fn forbidden(have: Role, need: Role) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            format!("this token may {}; that needs one that may {}", word(have), word(need)),
            format!("ask for a token with the role {}", word(need)),
        )
    }

    pub(crate) fn unknown_instance(id: &str) -> Self {
        let id: String = id.chars().take(80).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown-instance",
            format!("there is no instance `{id}`"),
            "GET /api/instances lists them",
        )
    }

    pub(crate) fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            format!("the body has more than {} bytes", super::BODY_BYTES_MAX),
            "send less; an SDP offer has about 6,000 bytes",
        )
    }

    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the gateway could not put its answer together",
            "see the gateway's log",
        )
    }
}

fn word(role: Role) -> &'static str {
    match role {
        Role::View => "view",
        Role::Play => "play",
        Role::Admin => "admin",
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"loco\""));
        }
        response
    }
}
