//! One LAN status out of facts: what each instance is, which sessions stand, who is a stranger.
use std::collections::BTreeMap;

use api::{
    agent::{AgentStatus, LanOnNode, State},
    gateway::Instance,
    lan::{DirectPlay, IpxPort, LanInstance, LanRole, LanStatus, LanSummary},
    observe::{Evidence, Machine, Player, Session},
};
use doctor::{AgentWord, Facts, Place, SeatFacts};
use model::Snapshot;

use super::connectivity::Meter;
use crate::agents::AgentViews;

/// A guest that asked for games this long ago still looks for one; Windows asks each 5 s, in seconds.
const LOOKING_S: f64 = 15.0;
/// Strangers that are listed of all LANs.
const STRANGERS_MAX: usize = 256;
/// Anomalies that are listed of all LANs, newest first.
const ANOMALIES_MAX: usize = 64;

/// What the agents say, with the directory's seats, and what taps counted lately.
pub fn facts(snapshot: &Snapshot, agents: &AgentViews, at: f64, meter: &mut Meter) -> Facts {
    let places = snapshot
        .instances()
        .filter_map(|placed| {
            // A checked snapshot always has the LAN and the seat.
            let lan = snapshot.lan(&placed.lan)?;
            let identity = snapshot.identity(placed)?;
            Some(Place {
                id: placed.id.to_string(),
                lan: placed.lan.to_string(),
                number: u16::from(placed.seat.0) + 1,
                node: placed.node.to_string(),
                mac: identity.mac.to_string(),
                ip: identity.ip,
                subnet: (lan.subnet().network(), lan.subnet().prefix_len()),
            })
        })
        .collect();
    let words: Vec<AgentWord<'_>> = agents
        .iter()
        .map(|(node, view)| AgentWord {
            node: node.as_str(),
            status: view.status.as_deref(),
            silent_for: view.silent_for(at),
        })
        .collect();
    let mut facts = Facts::gather(at, places, &words);
    meter.read(agents, at);
    let ids: Vec<String> = facts.seats.keys().cloned().collect();
    for id in ids {
        if let Some(pairs) = meter.recent(&id) {
            facts.recent(&id, pairs);
        }
    }
    facts
}

/// `/api/lan-status`.
pub fn status(
    snapshot: &Snapshot,
    agents: &AgentViews,
    instances: &[Instance],
    facts: &Facts,
    meter: &Meter,
) -> LanStatus {
    let answering: Vec<&AgentStatus> = agents
        .values()
        .filter(|view| view.silent_for(facts.at).is_none())
        .filter_map(|view| view.status.as_deref())
        .collect();
    let mut by_name: BTreeMap<&str, Vec<&LanOnNode>> = BTreeMap::new();
    for lan in answering.iter().flat_map(|status| &status.lans) {
        by_name.entry(&lan.name).or_default().push(lan);
    }
    let lans: Vec<LanSummary> = snapshot
        .lans()
        .map(|lan| LanSummary {
            name: lan.name().to_string(),
            vni: lan.vni().get(),
            mode: one_mode(on_nodes(&by_name, lan.name().as_str()).map(|lan| &lan.mode)),
            encryption: one_mode(on_nodes(&by_name, lan.name().as_str()).map(|lan| &lan.encryption)),
            seats: lan.seats(),
        })
        .collect();
    let names = names(&answering);
    let last_words: BTreeMap<&str, &AgentStatus> =
        agents.iter().filter_map(|(node, view)| Some((node.as_str(), view.status.as_deref()?))).collect();
    let edges: BTreeMap<&str, String> =
        snapshot.lans().map(|lan| (lan.name().as_str(), lan.subnet().edge().to_string())).collect();
    let by_id = instances
        .iter()
        .map(|instance| {
            let last = last_words.get(instance.node.as_str());
            let was_playing = last.is_some_and(|last| played(last, &instance.lan, &instance.id));
            (instance.id.clone(), seen(instance, facts, &names, was_playing))
        })
        .collect();
    let mut status = LanStatus {
        network_mode: one_mode(lans.iter().map(|lan| &lan.mode)),
        at: facts.at,
        lans,
        instances: by_id,
        connectivity: meter.rows(facts, &answering),
        diagnosis: doctor::faults(facts),
        foreign: answering.iter().flat_map(|agent| agent.foreign.iter().cloned()).collect(),
        observers: answering.iter().filter_map(|agent| Some((agent.node.clone(), agent.observer.clone()?))).collect(),
        ..LanStatus::default()
    };
    for (name, lan) in &facts.lans {
        let seen = &lan.seen;
        let lan = || Some(name.clone());
        status.sessions.extend(seen.sessions.iter().map(|session| Session { lan: lan(), ..session.clone() }));
        status.players.extend(seen.players.iter().map(|player| Player { lan: lan(), ..player.clone() }));
        status.timelines.extend(seen.timelines.iter().filter(|timeline| timeline.instance.is_some()).cloned());
        status.lags.extend(seen.lags.iter().cloned());
        status.anomalies.extend(seen.anomalies.iter().cloned());
        // The nodes' own edge address speaks on each LAN, from each node: it is no stranger.
        let edge = edges.get(name.as_str());
        let ours =
            |machine: &Machine| machine.instance.is_some() || edge.is_some_and(|edge| machine.ips.contains(edge));
        status.strangers.extend(seen.machines.values().filter(|machine| !ours(machine)).cloned());
    }
    status.strangers.truncate(STRANGERS_MAX);
    status.anomalies.sort_by(|a, b| b.at.total_cmp(&a.at));
    status.anomalies.truncate(ANOMALIES_MAX);
    status
}

/// NetBIOS names by the address that they stand for.
fn names(answering: &[&AgentStatus]) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let hosts = answering.iter().flat_map(|status| status.observed.values()).flat_map(|seen| &seen.netbios.hosts);
    for host in hosts.filter(|host| !host.left) {
        if let Some(ip) = host.ip.as_ref().or(host.node.as_ref()) {
            let known = names.entry(ip.clone()).or_default();
            if !known.contains(&host.name) {
                known.push(host.name.clone());
            }
        }
    }
    names
}

fn seen(instance: &Instance, facts: &Facts, names: &BTreeMap<String, Vec<String>>, was_playing: bool) -> LanInstance {
    let mut shown = LanInstance {
        mac: instance.mac.clone(),
        node: instance.node.clone(),
        lan: instance.lan.clone(),
        ..LanInstance::default()
    };
    let seat = facts.seats.get(&instance.id);
    // What a silent agent said of ports is history, and history is not shown as the present.
    let Some((seat, status)) = seat.and_then(|seat| Some((seat, seat.status.as_ref()?))) else {
        let role = if was_playing { LanRole::Was } else { LanRole::Unknown };
        shown.directplay = Some(DirectPlay { role, session: None, player_id: None, player_name: None });
        return shown;
    };
    shown.ip = seat.address();
    shown.link = status.link.map(|up| if up { "up" } else { "down" }.to_owned());
    shown.counters = status.counters;
    shown.stream.clone_from(&status.stream);
    shown.classes.clone_from(&status.classes);
    if let Some(machine) = &seat.machine {
        shown.names.extend(machine.name.clone());
        let spoken = machine.ips.first().into_iter().chain(&machine.ipx_nodes).filter_map(|at| names.get(at)).flatten();
        for name in spoken {
            if !shown.names.contains(name) {
                shown.names.push(name.clone());
            }
        }
        shown.arp.clone_from(&machine.arp);
        shown.ports_seen_open.clone_from(&machine.ports_open);
        if !machine.ipx_nodes.is_empty() {
            shown.ipx = Some(IpxPort { nodes: machine.ipx_nodes.clone(), framing: machine.ipx_framing.clone() });
        }
    }
    shown.directplay = Some(directplay(facts, seat));
    shown
}

fn directplay(facts: &Facts, seat: &SeatFacts) -> DirectPlay {
    let id = Some(&seat.place.id);
    let Some(game) = facts.game_of(seat) else {
        return DirectPlay { role: role(facts, seat), session: None, player_id: None, player_name: None };
    };
    let role = if game.host_instance.as_ref() == id { LanRole::Host } else { LanRole::Joined };
    let players = facts.lans.get(&seat.place.lan).map(|lan| lan.seen.players.as_slice()).unwrap_or_default();
    let player: Option<&Player> = players
        .iter()
        .filter(|player| player.instance.as_ref() == id && player.session == game.name && player.certainty.is_alive())
        .min_by_key(|player| &player.id);
    DirectPlay {
        role,
        session: game.name.clone(),
        player_id: player.map(|player| player.id.clone()),
        player_name: player.and_then(|player| player.name.clone()),
    }
}

/// What a seat is that is in no game.
fn role(facts: &Facts, seat: &SeatFacts) -> LanRole {
    let Some(seen) = facts.lans.get(&seat.place.lan).map(|lan| &lan.seen) else { return LanRole::Unknown };
    let at = |evidence: &Option<Evidence>| evidence.as_ref().map_or(0.0, |evidence| evidence.at);
    let asked = seen
        .questions
        .iter()
        .filter(|question| question.asked.instance.as_ref() == Some(&seat.place.id))
        .map(|question| at(&question.asked.last).max(at(&question.asked.first)))
        .fold(0.0, f64::max);
    if facts.at - asked <= LOOKING_S {
        return LanRole::Looking;
    }
    let was = seen.system_players.iter().any(|player| {
        player.instance.as_ref() == Some(&seat.place.id)
            && !player.certainty.is_alive()
            && !seen.sessions.iter().any(|session| session.name == player.session && session.certainty.is_alive())
    });
    let status = seat.status.as_ref();
    let counted = status.and_then(|status| status.counters).map(|counters| counters.tx_frames);
    let frames = counted.max(seat.machine.as_ref().map(|machine| machine.frames));
    let up_for = status.filter(|status| status.state == State::Live).map(|status| facts.at - status.since);
    match (was, seat.address(), frames) {
        (true, ..) => LanRole::Was,
        (_, Some(_), _) => LanRole::On,
        (_, None, Some(0)) if up_for.is_some_and(|seconds| seconds >= doctor::BOOT_S) => LanRole::Silent,
        // Without TCP/IP: its IPX frames show that it is there.
        _ if seat.machine.as_ref().is_some_and(|machine| !machine.ipx_nodes.is_empty()) => LanRole::On,
        _ => LanRole::None,
    }
}

/// Whether the last word of its agent had the instance in a session.
fn played(last: &AgentStatus, lan: &str, id: &str) -> bool {
    last.observed.get(lan).is_some_and(|seen| {
        seen.system_players.iter().any(|player| player.instance.as_deref() == Some(id) && player.certainty.is_alive())
            || seen.sessions.iter().any(|s| s.host_instance.as_deref() == Some(id) && s.certainty.is_alive())
    })
}

/// The mode that all agree on; `mixed` if they differ; `None` if nobody has read one.
/// One LAN as each node sees it.
fn on_nodes<'a>(by_name: &BTreeMap<&str, Vec<&'a LanOnNode>>, lan: &str) -> impl Iterator<Item = &'a LanOnNode> {
    by_name.get(lan).into_iter().flatten().copied()
}

fn one_mode<'a>(modes: impl Iterator<Item = &'a Option<String>>) -> Option<String> {
    let mut known = modes.flatten();
    let first = known.next()?;
    if known.all(|mode| mode == first) { Some(first.clone()) } else { Some("mixed".to_owned()) }
}
