//! The page: built files of `gateway/ui`, in the binary.
use axum::{
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use rust_embed::RustEmbed;

use super::error::ApiError;

/// `build.rs` makes the folder if the page was not built; then [`asset`] says so in words.
#[derive(RustEmbed)]
#[folder = "$LOCO_UI_DIST"]
struct Files;

/// What the page may load and where it may connect: itself. Pictures come by WebRTC, which this policy does not govern.
const POLICY: &str = "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; style-src 'self' 'unsafe-inline'; \
                      object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn asset(uri: Uri) -> Response {
    let path = uri.path().trim_start_matches('/');
    let path = if path.is_empty() { "index.html" } else { path };
    let Some(file) = Files::get(path) else {
        if path == "index.html" {
            return ApiError::new(
                StatusCode::NOT_FOUND,
                "no-page",
                "this gateway was built without its page",
                "build it with `cargo xtask build`",
            )
            .into_response();
        }
        return ApiError::new(StatusCode::NOT_FOUND, "unknown-path", "there is no such file", "the page is at /")
            .into_response();
    };
    // Names under assets/ carry a hash of their content.
    let cache = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let kind = content_type(path);
    (
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache), (header::CONTENT_SECURITY_POLICY, POLICY)],
        file.data,
    )
        .into_response()
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("woff2") => "font/woff2",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("json") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
