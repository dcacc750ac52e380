//! `/healthz`, `/readyz`, `/metrics`: plain HTTP, no token.
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Registry, TextEncoder};
use serde_json::json;
use tokio::net::TcpListener;

use crate::Health;

#[derive(Clone)]
struct Shared {
    component: &'static str,
    health: Health,
    registry: Registry,
}

/// Routes to merge into a component's own router.
pub fn router(component: &'static str, health: Health, registry: Registry) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Shared { component, health, registry })
}

/// Serves only these routes on `listener` until `until` ends; for a component without an API of its own.
///
/// # Errors
/// When the listener fails.
pub async fn serve_health(
    listener: TcpListener,
    router: Router,
    until: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(until).await
}

async fn healthz(State(shared): State<Shared>) -> Response {
    let late = shared.health.late_loops();
    if late.is_empty() {
        let (loops, _) = shared.health.names();
        return Json(json!({"ok": true, "component": shared.component, "loops": loops})).into_response();
    }
    refuse(
        "stuck",
        &format!("{} stands still: {}", shared.component, sentences(&late)),
        "restart the process if this stays, and send its log",
    )
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let failing = shared.health.failing_conditions();
    if failing.is_empty() {
        let (_, conditions) = shared.health.names();
        return Json(json!({"ok": true, "component": shared.component, "conditions": conditions})).into_response();
    }
    refuse(
        "not-ready",
        &format!("{} is not ready: {}", shared.component, sentences(&failing)),
        "wait, or act on the reasons given",
    )
}

async fn metrics(State(shared): State<Shared>) -> Response {
    match TextEncoder::new().encode_to_string(&shared.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            let body = json!({"error": {"code": "metrics", "message": format!("the metrics could not be written: {error}"),
                "remedy": "this is a bug; please report it with the log"}});
            (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
        }
    }
}

fn sentences(items: &[(String, String)]) -> String {
    items.iter().map(|(name, reason)| format!("{name} ({reason})")).collect::<Vec<_>>().join("; ")
}

/// The body is the same as that of every other error of the project.
fn refuse(code: &str, message: &str, remedy: &str) -> Response {
    let body = json!({"error": {"code": code, "message": message, "remedy": remedy}});
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{body::Body, http::Request};
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn says_which_loop_stands_still_and_which_condition_fails() {
        let health = Health::new();
        let router = router("test", health.clone(), crate::registry());
        assert_eq!(ask(&router, "/healthz").await.0, StatusCode::OK);
        let beat = health.heartbeat("fabric", Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let (status, body) = ask(&router, "/healthz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("fabric (last tick") && body.contains("\"remedy\""), "{body}");
        drop(beat);
        assert_eq!(ask(&router, "/healthz").await.0, StatusCode::OK);
        let condition = health.condition("snapshot", "the file is missing; `loco up` writes it");
        let (status, body) = ask(&router, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("snapshot (the file is missing"), "{body}");
        condition.hold();
        assert_eq!(ask(&router, "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn metrics_are_text() {
        let (status, body) = ask(&router("test", Health::new(), crate::registry()), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("# TYPE loco_process_cpu_seconds_total counter"), "{body}");
    }
}
