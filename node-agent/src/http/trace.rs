//! Following a marked frame over this node's part of the way between two guests.
use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use api::trace::{Trace, TraceHop, TraceRequest};
use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::StatusCode,
};
use fabric::trace::{End, Sighting, question, trace};
use model::{InstanceId, LanName, NetworkMode};

use super::{Api, error::ApiError, parse_id, read};

const LIMIT_MS: std::ops::RangeInclusive<u64> = 500..=10_000;
const MARK_LEN: std::ops::RangeInclusive<usize> = 8..=64;

/// A guest, as the directory has it.
struct Guest {
    id: InstanceId,
    lan: LanName,
    end: End,
    /// Its tap, where it is on this node.
    tap: Option<String>,
}

fn refuse(code: &str, message: String, remedy: &str) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, message, remedy)
}

pub(super) async fn follow(
    State(api): State<Api>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Trace>, ApiError> {
    let request: TraceRequest = serde_json::from_slice(&read(body)?).map_err(|error| {
        refuse("bad-request", format!("the body is not a trace: {error}"), "send from, to, mark and limit_ms")
    })?;
    let sound =
        request.mark.bytes().all(|octet| octet.is_ascii_alphanumeric()) && MARK_LEN.contains(&request.mark.len());
    if !sound || !LIMIT_MS.contains(&request.limit_ms) {
        return Err(refuse(
            "bad-request",
            "the mark or the limit is out of bounds".to_owned(),
            "send a mark of 8 to 64 letters and digits, and a limit of 500 to 10000 ms",
        ));
    }
    let (from, to) = (guest(&api, &request.from)?, guest(&api, &request.to)?);
    if from.lan != to.lan || from.id == to.id {
        return Err(refuse(
            "no-way",
            format!("there is no way from {} to {}", from.id, to.id),
            "name two guests of one LAN",
        ));
    }
    let Some(netns) = api.netns.clone() else { return Err(no_kernel(&from.lan)) };
    let fabric = api.source.fabric.borrow().clone();
    let lan = fabric.lans.get(&from.lan).ok_or_else(|| no_kernel(&from.lan))?;
    if lan.mode == Some(NetworkMode::Macvlan) {
        return Err(on_real_lan(&from.lan));
    }
    let vni = lan.vni;
    let tunnel = fabric::tunnel_name(vni);
    if [&from, &to].into_iter().any(|guest| guest.tap.as_ref().is_some_and(String::is_empty)) {
        return Err(no_kernel(&from.lan));
    }
    let node = api.source.node.to_string();
    let sightings = watch(netns, &from, &to, &tunnel, &request).await?;
    Ok(Json(hops(&node, &from, &to, &tunnel, &sightings)))
}

fn no_kernel(lan: &LanName) -> ApiError {
    not_in_this_mode(format!(
        "frames of LAN `{lan}` do not pass the kernel of this node, so they cannot be followed here"
    ))
}

/// What a node sends over its card does not come to guests on the same card, so nobody here can ask one.
fn on_real_lan(lan: &LanName) -> ApiError {
    not_in_this_mode(format!(
        "LAN `{lan}` is the real one (mode macvlan), in which a node cannot speak to its own guests, so it cannot ask one for a marked frame"
    ))
}

fn not_in_this_mode(message: String) -> ApiError {
    let remedy = "watch the two ports instead: `loco pcap ID --follow`";
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "not-in-this-mode", message, remedy)
}

fn guest(api: &Api, id: &str) -> Result<Guest, ApiError> {
    let id = parse_id(id)?;
    let unknown = || ApiError::unknown_instance(id.as_str());
    let directory = api.source.directory.borrow();
    let snapshot = &directory.snapshot;
    let placed = snapshot.instances().find(|placed| placed.id == id).ok_or_else(unknown)?;
    let identity = snapshot.lan(&placed.lan).and_then(|lan| lan.identity(placed.seat).ok()).ok_or_else(unknown)?;
    let fabric = api.source.fabric.borrow();
    let port = fabric.ports.get(&id);
    // Who set an address by hand has another one than the directory says.
    let ip: Ipv4Addr = port.and_then(|port| port.address_in_use).unwrap_or(identity.ip);
    let (lan, end) = (placed.lan.clone(), End { mac: identity.mac, ip });
    Ok(Guest { tap: port.map(|port| port.tap.clone()), lan, end, id: id.clone() })
}

async fn watch(
    netns: PathBuf,
    from: &Guest,
    to: &Guest,
    tunnel: &str,
    request: &TraceRequest,
) -> Result<Vec<Sighting>, ApiError> {
    let mark = request.mark.clone().into_bytes();
    let devices: Vec<String> = from.tap.iter().chain(&to.tap).cloned().chain([tunnel.to_owned()]).collect();
    let ask = from.tap.clone().map(|tap| (tap, question(from.end, to.end, &mark)));
    let limit = Duration::from_millis(request.limit_ms);
    let watching = tokio::task::spawn_blocking(move || {
        let ask = ask.as_ref().map(|(tap, frame)| (tap.as_str(), frame.as_slice()));
        trace(&netns, &devices, ask, &mark, limit)
    });
    let failed = |message: String| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "cannot-watch",
            message,
            "look at the agent's log, then ask again",
        )
    };
    let watched = watching.await.map_err(|_| failed("the watching broke off".to_owned()))?;
    watched.map_err(|error| failed(error.to_string()))
}

/// This node's part of the way.
fn hops(node: &str, from: &Guest, to: &Guest, tunnel: &str, sightings: &[Sighting]) -> Trace {
    let seen = |device: &str, outgoing, source| {
        sightings.iter().any(|s| s.device == device && s.outgoing == outgoing && s.source == source)
    };
    let hop = |step, at: String, seen| TraceHop { at, seen, step };
    let mut hops = Vec::new();
    if let Some(tap) = &from.tap {
        let asked = seen(tap, true, to.end.mac);
        hops.push(hop(0, format!("question to {} at its tap {tap} on {node}", from.id), asked));
        hops.push(hop(1, format!("answer of {} at its tap {tap} on {node}", from.id), seen(tap, false, from.end.mac)));
    }
    match (&from.tap, &to.tap) {
        (Some(_), None) => {
            hops.push(hop(2, format!("into the tunnel {tunnel} on {node}"), seen(tunnel, true, from.end.mac)));
        }
        (None, Some(_)) => {
            hops.push(hop(3, format!("out of the tunnel {tunnel} on {node}"), seen(tunnel, false, from.end.mac)));
        }
        _ => {}
    }
    if let Some(tap) = &to.tap {
        hops.push(hop(4, format!("to {} at its tap {tap} on {node}", to.id), seen(tap, true, from.end.mac)));
    }
    let delivered = hops.iter().any(|hop| hop.step == 4 && hop.seen);
    Trace { delivered, hops, problem: None }
}
