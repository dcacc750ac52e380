//! `/api/events`: the wall, pushed. Sent at once, on every change, and every 2 s.
use std::{convert::Infallible, sync::Arc};

use api::gateway::Wall;
use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, StreamExt as _};
use tokio_stream::wrappers::WatchStream;

use super::AppState;
use crate::lan::{MANY, history::slim};

/// Server-sent events, name `wall`. A reader that is slow gets the newest wall, never a queue of old ones. With more than
/// 64 instances `lan` comes without timelines, lags, strangers, classes and ARP tables: `/api/lan-status` has them.
#[utoipa::path(get, path = "/api/events", responses((status = 200, content_type = "text/event-stream", body = Wall)))]
pub(super) async fn events(State(state): State<AppState>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let stream = WatchStream::new(state.wall).map(|wall: Arc<Wall>| {
        let slim = (wall.instances.len() > MANY).then(|| Wall { lan: slim(&wall.lan), ..Wall::clone(&wall) });
        Ok(Event::default().event("wall").json_data(slim.as_ref().unwrap_or(&wall)).unwrap_or_else(|error| {
            tracing::error!(%error, "a wall could not be written as JSON");
            Event::default().comment("not serialisable")
        }))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}
