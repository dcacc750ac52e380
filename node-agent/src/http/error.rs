//! An error as HTTP shows it.
use api::ErrorBody;
use axum::{
    Json,
    extract::rejection::BytesRejection,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        code: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { status, body: ErrorBody::new(code, message, remedy) }
    }

    pub(super) fn not_found(kind: &str, what: &str, remedy: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("unknown-{kind}"), format!("{what} does not exist here"), remedy)
    }

    pub(super) fn unknown_instance(id: &str) -> Self {
        let shown: String = id.chars().take(80).collect();
        Self::not_found("instance", &format!("instance `{shown}`"), "ask GET /v1/status for those that do")
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "this needs the agent's bearer token",
            "send `Authorization: Bearer TOKEN` with the token of --token-file",
        )
    }

    pub(super) fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "this path does not take that method",
            "see the list in the agent's documentation",
        )
    }

    /// The body could not be read: too long, or the client went away.
    pub(super) fn body(rejection: &BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message = format!("the body is longer than {} KiB", super::BODY_BYTES_MAX / 1024);
            return Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                message,
                "send less; an SDP offer has about 5 KiB",
            );
        }
        Self::new(StatusCode::BAD_REQUEST, "body-unreadable", rejection.body_text(), "send the request again")
    }

    /// The stable word, for a metric's label.
    pub(super) fn code(&self) -> &str {
        &self.body.error.code
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
