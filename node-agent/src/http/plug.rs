//! A machine outside of the cluster, plugged into a LAN that this agent switches: `api::plug`.
//!
//! ```text
//!  loco plug ══ WebSocket ══ here ══ pair of sockets ══ the switch's port: guard, table, queue
//! ```
//! **Invariants.** Nobody gets a port without the token. What comes is not judged here but at the port, as a guest's frames are. Who
//! does not read makes its own port's queue full and nobody else's; who is silent, or reads nothing, for [`SILENCE_MAX`] is
//! unplugged.
use std::{net::SocketAddr, pin::pin, time::Duration};

use api::plug::{
    CLOSE_AGAIN, CLOSE_FINAL, MESSAGE_BYTES_MAX, PING_EVERY, Plugged, REMOTE_HEADER, SILENCE_MAX, is_machine,
};
use axum::{
    Extension,
    body::Bytes,
    extract::{
        ConnectInfo, Path, Query, State,
        rejection::QueryRejection,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, StatusCode},
    response::Response,
};
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use model::{LanName, NetworkMode};
use serde::Deserialize;
use switch::{FRAME_LEN_MAX, ForeignEnd, ForeignPlug, FrameSocket, SwitchError};
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Api, error::ApiError};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlugQuery {
    machine: String,
}

pub(super) async fn plug(
    State(api): State<Api>,
    Path(lan): Path<String>,
    query: Result<Query<PlugQuery>, QueryRejection>,
    remote: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let lan = find(&api, &lan)?;
    let bad = |message: String| {
        ApiError::new(StatusCode::BAD_REQUEST, "bad-request", message, "write ?machine= and 8 to 64 letters and digits")
    };
    let Query(PlugQuery { machine }) = query.map_err(|error| bad(error.body_text()))?;
    if !is_machine(&machine) {
        return Err(bad("the machine's name is none".to_owned()));
    }
    let upgrade = upgrade.map_err(|error| {
        let remedy = "use `loco plug`, or another client that upgrades to a WebSocket";
        ApiError::new(StatusCode::UPGRADE_REQUIRED, "not-a-websocket", error.body_text(), remedy)
    })?;
    let plug = ForeignPlug { lan: lan.clone(), machine, remote: shown(&headers, remote.map(|Extension(info)| info.0)) };
    let (cable, theirs) = FrameSocket::pair().map_err(|error| busy(error.to_string()))?;
    let ended = api.switch.plug_foreign(plug, theirs).await.map_err(refuse)?;
    let hello = Plugged { node: api.source.node.to_string(), lan: lan.to_string() };
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX);
    Ok(upgrade.on_upgrade(|socket| carry(socket, cable, ended, hello)))
}

/// The LAN, if foreign machines can be plugged into it.
fn find(api: &Api, lan: &str) -> Result<LanName, ApiError> {
    let shown: String = lan.chars().take(80).collect();
    let unknown = || ApiError::not_found("lan", &format!("LAN `{shown}`"), "`loco lan list` names those that do");
    let name: LanName = lan.parse().map_err(|_| unknown())?;
    let mode = api.source.directory.borrow().snapshot.lan(&name).map(model::Lan::mode).ok_or_else(unknown)?;
    if mode == NetworkMode::Socket {
        return Ok(name);
    }
    Err(ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        "not-in-this-mode",
        format!(
            "LAN `{name}` has the mode `{mode}`, whose frames do not pass the agent, so nothing can be plugged into it here"
        ),
        "give the LAN the mode `socket`",
    ))
}

/// Who plugs it in, as it is shown: a header of the gateway's, or the other end of the connection.
fn shown(headers: &HeaderMap, peer: Option<SocketAddr>) -> String {
    let told = headers.get(REMOTE_HEADER).and_then(|value| value.to_str().ok());
    told.map(|told| told.chars().take(64).collect())
        .or_else(|| peer.map(|peer| peer.to_string()))
        .unwrap_or_else(|| "unknown".to_owned())
}

fn refuse(error: SwitchError) -> ApiError {
    let (status, code) = match error {
        SwitchError::NoLan(_) => (StatusCode::CONFLICT, "no-seat-here"),
        SwitchError::Full(_) => (StatusCode::SERVICE_UNAVAILABLE, "full"),
        error => return busy(error.to_string()),
    };
    ApiError::new(
        status,
        code,
        error.to_string(),
        "`loco lan show` tells which nodes have the LAN, and who is plugged in",
    )
}

fn busy(message: String) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message, "ask again in a second")
}

/// Carries frames until one of the two ends, and tells the machine's side why.
async fn carry(socket: WebSocket, cable: FrameSocket, ended: oneshot::Receiver<ForeignEnd>, hello: Plugged) {
    let (mut out, incoming) = socket.split();
    let Ok(hello) = serde_json::to_string(&hello) else { return };
    if !say(&mut out, Message::Text(hello.into()), SILENCE_MAX).await {
        return;
    }
    let why = {
        let inward = pin!(inward(incoming, &cable, SILENCE_MAX));
        let outward = pin!(outward(&mut out, &cable, SILENCE_MAX));
        tokio::select! { why = inward => why, why = outward => why }
    };
    let close = match why {
        Why::Gone => return,
        Why::Wrong(words) => CloseFrame { code: CLOSE_FINAL, reason: words.into() },
        Why::Unplugged => match ended.await {
            Ok(end) => CloseFrame {
                code: if end.is_final() { CLOSE_FINAL } else { CLOSE_AGAIN },
                reason: fitting(&end).into(),
            },
            Err(_) => CloseFrame { code: CLOSE_AGAIN, reason: "the agent ends".into() },
        },
    };
    // From here on nothing waits for it: the port is free already, or with the cable's end.
    drop(cable);
    say(&mut out, Message::Close(Some(close)), SILENCE_MAX).await;
}

/// A close frame's reason has 123 octets at most (RFC 6455 section 5.5).
fn fitting(end: &ForeignEnd) -> String {
    let mut words = end.to_string();
    words.truncate(words.floor_char_boundary(123));
    words
}

/// Why the carrying ended.
#[derive(Debug, PartialEq, Eq)]
enum Why {
    /// The machine's side went, or was silent for too long.
    Gone,
    /// The switch has unplugged it.
    Unplugged,
    /// It said something that it must not.
    Wrong(&'static str),
}

async fn inward(
    mut incoming: impl Stream<Item = Result<Message, axum::Error>> + Unpin,
    cable: &FrameSocket,
    silence: Duration,
) -> Why {
    loop {
        let Ok(Some(Ok(message))) = timeout(silence, incoming.next()).await else { return Why::Gone };
        match message {
            // To a socket that keeps frames whole, nothing is an end.
            Message::Binary(frame) if frame.is_empty() => {}
            Message::Binary(frame) => {
                // One octet too many is enough for the guard to see and to count it.
                let frame = frame.get(..=FRAME_LEN_MAX).unwrap_or(&frame);
                if !cable.send_when_there_is_room(frame).await {
                    return Why::Unplugged;
                }
            }
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Text(_) => return Why::Wrong("frames are binary messages"),
            Message::Close(_) => return Why::Gone,
        }
    }
}

async fn outward(out: &mut (impl Sink<Message> + Unpin), cable: &FrameSocket, silence: Duration) -> Why {
    let mut ping = interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = [0; FRAME_LEN_MAX];
    loop {
        let message = tokio::select! {
            received = cable.receive(&mut buffer) => match received {
                Ok(len @ 1..) => Message::Binary(Bytes::copy_from_slice(&buffer[..len])),
                _ => return Why::Unplugged,
            },
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        if !say(out, message, silence).await {
            return Why::Gone;
        }
    }
}

/// `false`: nobody reads.
async fn say(out: &mut (impl Sink<Message> + Unpin), message: Message, silence: Duration) -> bool {
    matches!(timeout(silence, out.send(message)).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests;
