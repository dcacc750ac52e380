//! Everything that is wrong now, without being asked: what `/api/lan-status` shows.
//!
//! **Invariant.** Only faults: a LAN on which nobody plays, a guest that boots, a seat that just looks around are none.
use std::collections::{BTreeMap, BTreeSet};

use api::{lan::Diagnosis, observe::Session};

use crate::{
    ASKED_RECENTLY_S, SLOW_MS,
    cause::{Cause, Who, framing_word},
    facts::{Facts, LanFacts, SeatFacts},
    ladder::{Target, alone, blind, climb, put, stop, who},
    look,
};

/// Faults that are told at once. More are the same fault many times: a node that is gone, a LAN that is cut.
pub const FAULTS_MAX: usize = 256;

/// Lowest rung first within a LAN, as that is what to mend first; at most [`FAULTS_MAX`].
pub fn faults(facts: &Facts) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    for (name, lan) in &facts.lans {
        let mut here = Vec::new();
        let mut sick: BTreeSet<&str> = BTreeSet::new();
        for seat in lan.seats.iter().filter_map(|id| facts.seats.get(id)) {
            if let Some((_, diagnosis)) = alone(facts, seat).filter(|(cause, _)| cause.is_fault()) {
                sick.insert(&seat.place.id);
                here.push(diagnosis);
            } else if let Some(cause) = slow(lan, seat) {
                here.push(put(seat, &seat.place.id, &who(seat), stop(cause.rung(), cause, None)));
            }
        }
        here.extend(blind_nodes(facts, lan));
        here.extend(cut_nodes(facts, lan));
        here.extend(two_hosts(facts, lan));
        here.extend(framings(facts, lan, &sick));
        let games: Vec<&Session> = facts.sought(name).collect();
        for seat in lan.seats.iter().filter_map(|id| facts.seats.get(id)) {
            if !sick.contains(seat.place.id.as_str()) {
                here.extend(looks_in_vain(facts, lan, seat, &games));
            }
        }
        // Two ways to find one thing, such as framings of a host and its asker, are one fault.
        here.sort_by(|a, b| (a.rung, &a.from, &a.to, &a.cause).cmp(&(b.rung, &b.from, &b.to, &b.cause)));
        here.dedup_by(|a, b| a.from == b.from && a.to == b.to && a.cause == b.cause);
        found.extend(here);
        if found.len() >= FAULTS_MAX {
            found.truncate(FAULTS_MAX);
            break;
        }
    }
    found
}

/// A seat that asks now, or was just refused, and sees no game although one is open.
fn looks_in_vain(facts: &Facts, lan: &LanFacts, seat: &SeatFacts, games: &[&Session]) -> Vec<Diagnosis> {
    let looking = seat.questions(&lan.seen).iter().any(|q| facts.at - q.last_at() <= ASKED_RECENTLY_S);
    if facts.game_of(seat).is_some() || !(looking || look::refusal(facts, seat, None).is_some()) {
        return Vec::new();
    }
    let targets = games
        .iter()
        .map(|game| Target::game(facts, game))
        .filter(|target| target.host.is_none_or(|host| host.place.id != seat.place.id));
    let mut climbs: Vec<_> = targets.map(|target| (climb(facts, seat, &target), target)).collect();
    // It sees one: that another is of another game, or full, is nothing wrong.
    if climbs.iter().any(|(climb, _)| climb.cause.is_well()) {
        return Vec::new();
    }
    if climbs.is_empty() {
        // Nothing is open, but it may have been sent to an address by hand where nobody listens.
        climbs.extend(look::asked_by_address(facts, seat).map(|target| (climb(facts, seat, &target), target)));
    }
    climbs
        .into_iter()
        .filter(|(climb, _)| climb.cause.is_fault())
        .map(|(climb, target)| {
            let to = target.host.map_or_else(|| seat.place.id.clone(), |host| host.place.id.clone());
            put(seat, &to, &target.who, climb)
        })
        .collect()
}

/// Of each node that does not see what it should: one fault, at its first seat.
fn blind_nodes(facts: &Facts, lan: &LanFacts) -> Vec<Diagnosis> {
    let mut told = BTreeSet::new();
    lan.seats
        .iter()
        .filter_map(|id| facts.seats.get(id))
        .filter_map(|seat| {
            let node = &seat.place.node;
            let problem = facts.nodes.get(node)?.observer.as_ref()?.problem.as_ref()?;
            let problem = problem.trim_end_matches('.').to_owned();
            told.insert(node).then(|| {
                let cause = Cause::ObserverBlind { node: node.clone(), problem };
                put(seat, &seat.place.id, &who(seat), blind(cause.rung(), cause))
            })
        })
        .collect()
}

/// Of each pair of nodes between which nothing passes: one fault, between the first seats that show it.
fn cut_nodes(facts: &Facts, lan: &LanFacts) -> Vec<Diagnosis> {
    // The first seat of each node stands for it: asking for each pair of seats would take a LAN of 254 too long.
    let mut first: BTreeMap<&str, &SeatFacts> = BTreeMap::new();
    for seat in lan.seats.iter().filter_map(|id| facts.seats.get(id)) {
        first.entry(&seat.place.node).or_insert(seat);
    }
    let mut found = Vec::new();
    for from in first.values() {
        for to in lan.seats.iter().filter_map(|id| facts.seats.get(id)) {
            let Some(cause) = look::cut(facts, from, to) else { continue };
            found.push((
                from.place.node.clone(),
                to.place.node.clone(),
                put(from, &to.place.id, &who(to), stop(cause.rung(), cause, None)),
            ));
        }
    }
    found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    found.dedup_by(|a, b| (&a.0, &a.1) == (&b.0, &b.1));
    found.into_iter().map(|(_, _, diagnosis)| diagnosis).collect()
}

fn two_hosts(facts: &Facts, lan: &LanFacts) -> Vec<Diagnosis> {
    let merged = lan.seen.two_hosts.iter().map(|two| {
        let hosts = two.hosts.clone().map(|(address, instance)| instance.unwrap_or(address));
        (hosts, two.evidence.clone())
    });
    // One agent that sees both says so itself; the text names their addresses.
    let told =
        lan.seen.anomalies.iter().filter(|a| a.kind == "two-hosts-one-guid" && a.node.is_some()).filter_map(|a| {
            if facts.at - a.at > ASKED_RECENTLY_S && lan.seen.sessions.is_empty() {
                return None;
            }
            let [one, other, ..] = &look::seats_in(facts, lan, &a.what)[..] else { return None };
            Some(([one.clone(), other.clone()], None))
        });
    merged
        .chain(told)
        .filter_map(|(hosts, evidence)| {
            let seats = hosts.each_ref().map(|host| facts.seats.get(host));
            let seat = seats.iter().flatten().next()?;
            let words: Vec<Who> =
                hosts.iter().map(|h| facts.seats.get(h).map_or_else(|| Who::Other(h.clone()), who)).collect();
            let seats: [Who; 2] = words.try_into().ok()?;
            let cause = Cause::TwoHosts { seats };
            let to = hosts.iter().rev().find(|h| facts.seats.contains_key(*h)).cloned().unwrap_or_default();
            Some(put(seat, &to, &who(seat), stop(cause.rung(), cause, evidence)))
        })
        .collect()
}

/// Of each seat whose IPX framing is not the one that most of its LAN speak: one fault, against one that speaks theirs.
fn framings(facts: &Facts, lan: &LanFacts, sick: &BTreeSet<&str>) -> Vec<Diagnosis> {
    let mut speakers: BTreeMap<&str, Vec<&SeatFacts>> = BTreeMap::new();
    for seat in lan.seats.iter().filter_map(|id| facts.seats.get(id)) {
        if let Some(framing) = seat.machine.as_ref().and_then(|machine| machine.ipx_framing.as_deref()) {
            speakers.entry(framing).or_default().push(seat);
        }
    }
    if speakers.len() < 2 {
        return Vec::new();
    }
    // The framing of an IPX game's host counts before the number of those that speak it.
    let host_framing = lan.seen.sessions.iter().filter(|session| session.transport == "ipx").find_map(|session| {
        let host = facts.seats.get(session.host_instance.as_ref()?)?;
        host.machine.as_ref()?.ipx_framing.as_deref()
    });
    let Some((common, others)) = speakers
        .iter()
        .max_by_key(|(framing, seats)| (Some(**framing) == host_framing, seats.len()))
        .and_then(|(framing, seats)| Some((*framing, *seats.first()?)))
    else {
        return Vec::new();
    };
    speakers
        .iter()
        .filter(|(framing, _)| **framing != common)
        .flat_map(|(framing, seats)| seats.iter().map(move |seat| (*framing, *seat)))
        .filter(|(_, seat)| !sick.contains(seat.place.id.as_str()))
        .map(|(framing, seat)| {
            let cause = Cause::FramingMismatch { framings: [framing_word(framing), framing_word(common)] };
            put(seat, &others.place.id, &who(others), stop(cause.rung(), cause, None))
        })
        .collect()
}

fn slow(lan: &LanFacts, seat: &SeatFacts) -> Option<Cause> {
    lan.seen.lags.iter().filter(|lag| lag.to == seat.place.id && lag.samples >= 5).find_map(|lag| {
        match (lag.guest_ms, lag.rtt_ms) {
            // The guest's part is in the round trip: where it is longer, the two are of different times.
            (Some(guest_ms), Some(rtt_ms)) if guest_ms > SLOW_MS && rtt_ms >= guest_ms => {
                Some(Cause::GuestSlow { guest_ms, rtt_ms })
            }
            _ => None,
        }
    })
}
