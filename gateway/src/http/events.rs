//! `/api/events`: the wall, pushed. Sent at once, on every change, and every 2 s.
use std::{convert::Infallible, sync::Arc, time::Duration};

use api::{
    ErrorBody,
    gateway::{Wall, WallChange},
};
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
    changes::{Changes, Heard, Parts},
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

/// Server-sent events, name `wall`; with `changes=1` one `wall`, of the first 500 instances, and `change` from then on; `bye` when this gateway ends and the reader should
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
    let told = if changes { told(&state.changes).left_stream() } else { walls(state).right_stream() };
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
    json("wall", slim.as_ref().unwrap_or(wall))
}

fn json(name: &str, data: &impl serde::Serialize) -> Event {
    Event::default().event(name).json_data(data).unwrap_or_else(|error| {
        tracing::error!(%error, name, "an event could not be written as JSON");
        Event::default().comment("not serialisable")
    })
}

/// A wall with what is in `part`.
fn wall_of(part: WallChange) -> Wall {
    Wall { at: part.at, directory: part.directory, instances: part.instances, lan: part.lan, active: part.active }
}

/// Instances in the first event, and in each that completes it.
const PART: usize = 500;

/// The wall at first, in parts, then changes; the wall again for a reader that fell behind.
fn told(changes: &Changes) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
    stream::unfold((changes.read(), None::<Parts>), |(mut reader, mut parts)| async move {
        loop {
            if let Some((first, part)) = parts.as_mut().and_then(Parts::next) {
                let event = if first { json("wall", &wall_of(part)) } else { json("change", &part) };
                return Some((Ok(event), (reader, parts)));
            }
            match reader.next().await? {
                Heard::Wall(wall) => parts = Some(Parts::new(wall, PART)),
                Heard::Change(json) => {
                    return Some((Ok(Event::default().event("change").data(json.as_ref())), (reader, None)));
                }
            }
        }
    })
}
