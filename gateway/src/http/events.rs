//! `/api/events`: the wall, pushed. Sent at once, on every change, and every 2 s.
use std::{convert::Infallible, sync::Arc, time::Duration};

use api::{ErrorBody, gateway::Wall};
use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderName, HeaderValue, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use tokio_stream::wrappers::WatchStream;

use super::{AppState, error::ApiError};
use crate::{
    Phase,
    changes::{Change, Changes},
    lan::{MANY, history::slim},
};

/// A proxy that gathers answers before it passes them on would hold every event back; this is how nginx is told.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Idle connections are closed by proxies after 15 to 60 s; the gateway speaks every 2 s, and this is for before that.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// `1`: after the first `wall` only what is other, as `change`.
    #[serde(default)]
    changes: Option<String>,
}

/// Server-sent events, name `wall`; `change` between them if `changes=1`; `bye` when this gateway ends and the reader should
/// come back at once, to it or to another. A reader that is slow gets the newest wall, never a queue of old ones. With more
/// than 64 instances `lan` comes without timelines, lags, strangers, classes and ARP tables: `/api/lan-status` has them.
#[utoipa::path(
    get, path = "/api/events", params(EventsQuery),
    responses(
        (status = 200, content_type = "text/event-stream", body = Wall), (status = 400, body = ErrorBody)
    )
)]
pub(super) async fn events(
    State(state): State<AppState>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| bad(error.body_text()))?;
    let changes = match query.changes.as_deref() {
        None | Some("0" | "false") => false,
        Some("1" | "true" | "") => true,
        Some(_) => return Err(bad("changes is neither 1 nor 0".to_owned())),
    };
    let mut phase = state.phase.clone();
    let closing = async move {
        // An error means that the gateway is gone: that is the end as well.
        phase.wait_for(|phase| *phase == Phase::Closing).await.ok();
    };
    let told = if changes { told(state.changes).left_stream() } else { walls(state).right_stream() };
    let bye = stream::once(async { Ok::<_, Infallible>(Event::default().event("bye").data("{}")) });
    let stream = told.take_until(closing).chain(bye);
    let keep_alive = KeepAlive::default().interval(KEEP_ALIVE);
    let head = [(UNBUFFERED, HeaderValue::from_static("no"))];
    Ok((head, Sse::new(stream).keep_alive(keep_alive)).into_response())
}

fn bad(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "bad-query", message, "write ?changes=1, or nothing")
}

fn walls(state: AppState) -> impl Stream<Item = Result<Event, Infallible>> {
    WatchStream::new(state.wall).map(|wall| Ok(whole(&wall)))
}

fn whole(wall: &Arc<Wall>) -> Event {
    let slim = (wall.instances.len() > MANY).then(|| Wall { lan: slim(&wall.lan), ..Wall::clone(wall) });
    Event::default().event("wall").json_data(slim.as_ref().unwrap_or(wall)).unwrap_or_else(|error| {
        tracing::error!(%error, "a wall could not be written as JSON");
        Event::default().comment("not serialisable")
    })
}

/// The wall at first, then changes; the wall again for a reader that missed one.
fn told(changes: Changes) -> impl Stream<Item = Result<Event, Infallible>> {
    let reader = changes.read();
    stream::unfold((reader, None), |(mut reader, last)| async move {
        let change = reader.next().await?;
        let follows = last.is_some_and(|last: u64| last + 1 == change.number);
        let event = match &*change {
            Change { json: Some(json), .. } if follows => Event::default().event("change").data(json.as_ref()),
            change => whole(&change.wall),
        };
        Some((Ok(event), (reader, Some(change.number))))
    })
}
