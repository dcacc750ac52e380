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
    /// Its tap or its port of the switch, where it is on this node.
    place: Option<Place>,
}

/// Where frames can be watched.
struct Place {
    /// As a [`Sighting`] calls it.
    device: String,
    words: String,
}

/// What this node's part of the LAN is made of.
enum Way {
    /// The kernel's devices, in this namespace.
    Kernel(PathBuf),
    Switch,
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
    let way = way(&api, &from.lan)?;
    let tunnel = match &way {
        Way::Kernel(_) => {
            let fabric = api.source.fabric.borrow();
            let vni = fabric.lans.get(&from.lan).map(|lan| lan.vni).ok_or_else(|| no_way(&from.lan))?;
            let device = fabric::tunnel_name(vni);
            Place { words: format!("the tunnel {device}"), device }
        }
        Way::Switch => Place { words: "the way between the switches".to_owned(), device: switch::MESH.to_owned() },
    };
    let node = api.source.node.to_string();
    let sightings = watch(&api, way, &from, &to, &tunnel, &request).await?;
    Ok(Json(hops(&node, &from, &to, &tunnel, &sightings)))
}

fn way(api: &Api, lan: &LanName) -> Result<Way, ApiError> {
    if api.switch.status().borrow().lans.contains_key(lan) {
        return Ok(Way::Switch);
    }
    let mode = api.source.directory.borrow().snapshot.lan(lan).map(model::Lan::mode);
    if mode == Some(NetworkMode::Macvlan) {
        return Err(on_real_lan(lan));
    }
    let netns = api.netns.clone().filter(|_| mode.is_some_and(NetworkMode::needs_kernel));
    netns.map(Way::Kernel).ok_or_else(|| no_way(lan))
}

fn no_way(lan: &LanName) -> ApiError {
    let message = format!(
        "frames of LAN `{lan}` pass neither the kernel nor the switch of this node, so they cannot be followed here"
    );
    not_in_this_mode(message, "look at the LAN's mode and at the agent's log: `loco lan show`")
}

/// What a node sends over its card does not come to guests on the same card, so nobody here can ask one.
fn on_real_lan(lan: &LanName) -> ApiError {
    let message = format!(
        "LAN `{lan}` is the real one (mode macvlan), in which a node cannot speak to its own guests, so it cannot ask one for a marked frame"
    );
    not_in_this_mode(message, "watch the two ports instead: `loco pcap ID --follow`")
}

fn not_in_this_mode(message: String, remedy: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "not-in-this-mode", message, remedy)
}

fn guest(api: &Api, id: &str) -> Result<Guest, ApiError> {
    let id = parse_id(id)?;
    let unknown = || ApiError::unknown_instance(id.as_str());
    let directory = api.source.directory.borrow();
    let snapshot = &directory.snapshot;
    let placed = snapshot.instances().find(|placed| placed.id == id).ok_or_else(unknown)?;
    let identity = snapshot.identity(placed).ok_or_else(unknown)?;
    let fabric = api.source.fabric.borrow();
    let port = fabric.ports.get(&id);
    // Who set an address by hand has another one than the directory says.
    let ip: Ipv4Addr = port.and_then(|port| port.address_in_use).unwrap_or(identity.ip);
    let (lan, end) = (placed.lan.clone(), End { mac: identity.mac, ip });
    let place = port.map(|port| {
        // A port without a device is one of the switch.
        if port.tap.is_empty() {
            Place { device: id.to_string(), words: "its port of the switch".to_owned() }
        } else {
            Place { device: port.tap.clone(), words: format!("its tap {}", port.tap) }
        }
    });
    Ok(Guest { place, lan, end, id: id.clone() })
}

async fn watch(
    api: &Api,
    way: Way,
    from: &Guest,
    to: &Guest,
    tunnel: &Place,
    request: &TraceRequest,
) -> Result<Vec<Sighting>, ApiError> {
    let mark = request.mark.clone().into_bytes();
    let limit = Duration::from_millis(request.limit_ms);
    let question = question(from.end, to.end, &mark);
    let failed = |message: String| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "cannot-watch",
            message,
            "look at the agent's log, then ask again",
        )
    };
    let netns = match way {
        Way::Kernel(netns) => netns,
        Way::Switch => {
            let ask = from.place.is_some().then(|| (from.id.clone(), question));
            let watched = api.switch.trace(&from.lan, ask, mark, limit).await;
            return watched.map_err(|error| failed(error.to_string()));
        }
    };
    let places = from.place.iter().chain(&to.place).chain([tunnel]);
    let devices: Vec<String> = places.map(|place| place.device.clone()).collect();
    let ask = from.place.as_ref().map(|tap| (tap.device.clone(), question));
    let watching = tokio::task::spawn_blocking(move || {
        let ask = ask.as_ref().map(|(tap, frame)| (tap.as_str(), frame.as_slice()));
        trace(&netns, &devices, ask, &mark, limit)
    });
    let watched = watching.await.map_err(|_| failed("the watching broke off".to_owned()))?;
    watched.map_err(|error| failed(error.to_string()))
}

/// This node's part of the way.
fn hops(node: &str, from: &Guest, to: &Guest, tunnel: &Place, sightings: &[Sighting]) -> Trace {
    let seen = |place: &Place, outgoing, source| {
        sightings.iter().any(|s| s.device == place.device && s.outgoing == outgoing && s.source == source)
    };
    let hop = |step, at: String, seen| TraceHop { at, seen, step };
    let mut hops = Vec::new();
    if let Some(place) = &from.place {
        let (words, asked) = (&place.words, seen(place, true, to.end.mac));
        hops.push(hop(0, format!("question to {} at {words} on {node}", from.id), asked));
        hops.push(hop(1, format!("answer of {} at {words} on {node}", from.id), seen(place, false, from.end.mac)));
    }
    match (&from.place, &to.place) {
        (Some(_), None) => {
            hops.push(hop(2, format!("into {} on {node}", tunnel.words), seen(tunnel, true, from.end.mac)));
        }
        (None, Some(_)) => {
            hops.push(hop(3, format!("out of {} on {node}", tunnel.words), seen(tunnel, false, from.end.mac)));
        }
        _ => {}
    }
    if let Some(place) = &to.place {
        hops.push(hop(4, format!("to {} at {} on {node}", to.id, place.words), seen(place, true, from.end.mac)));
    }
    let delivered = hops.iter().any(|hop| hop.step == 4 && hop.seen);
    Trace { delivered, hops, problem: None }
}
