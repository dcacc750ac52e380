//! The first rungs: what a seat needs no game for.
use api::{
    agent::State,
    lan::LanAnomaly,
    observe::{Evidence, Step},
};

use super::Finding::{self, Blind, Failed, Passed, Unknown};
use crate::{
    ASKED_RECENTLY_S, BOOT_S, SILENT_S,
    cause::{Cause, Who},
    facts::{Facts, LanFacts, NodeFacts, SeatFacts},
    ladder::who,
};

pub(super) fn booting(facts: &Facts, a: &SeatFacts) -> bool {
    let starting = a.status.as_ref().is_some_and(|status| status.state == State::Starting);
    starting || a.up_for(facts.at).is_some_and(|seconds| seconds < BOOT_S)
}

pub(crate) fn link(facts: &Facts, a: &SeatFacts) -> Finding {
    let node = facts.node(&a.place.node);
    if let Some(seconds) = node.and_then(|node| node.silent_for) {
        return Blind(Cause::AgentSilent { node: a.place.node.clone(), seconds });
    }
    let Some(status) = &a.status else {
        return Blind(Cause::NotHeard);
    };
    match (status.state, status.link) {
        (State::Stopped, _) => Failed(Cause::GuestOff, None),
        (State::Failed, _) => Failed(Cause::GuestStopped { detail: status.detail.clone() }, None),
        (_, Some(true)) => Passed(None),
        _ if node.is_some_and(|node| node.alone.contains(&a.place.lan)) => Failed(Cause::AloneByMode, None),
        (State::Starting | State::Recovering, _) => Unknown(Cause::Booting),
        (_, link) => match node.and_then(|node| node.fabric_problems.first()) {
            Some(problem) => Failed(
                Cause::Fabric { node: a.place.node.clone(), problem: problem.trim_end_matches('.').to_owned() },
                None,
            ),
            None if link == Some(false) => Failed(Cause::LinkDown, None),
            None => Unknown(Cause::NotKnown { why: format!("the tap of {} could not be read", who(a)) }),
        },
    }
}

pub(crate) fn frame(facts: &Facts, a: &SeatFacts) -> Finding {
    match a.sent() {
        None => Unknown(Cause::NotKnown { why: format!("the frames of {} are not counted", who(a)) }),
        Some(0) if booting(facts, a) => Unknown(Cause::Booting),
        Some(0) => Failed(Cause::NoDriver, None),
        Some(_) => match stuck(facts, a) {
            Some(seconds) => Failed(Cause::GuestSilent { seconds }, last_frame(a)),
            None => Passed(a.step(Step::Frame).cloned()),
        },
    }
}

pub(super) fn last_frame(a: &SeatFacts) -> Option<Evidence> {
    let machine = a.machine.as_ref()?;
    Some(Evidence {
        at: machine.last_seen,
        frame: machine.frames,
        what: "its last frame".to_owned(),
        node: Some(a.place.node.clone()),
        port: Some(a.place.id.clone()),
    })
}

/// Seconds for which a guest that once answered ARP has neither answered nor sent anything.
pub(super) fn stuck(facts: &Facts, a: &SeatFacts) -> Option<f64> {
    let row = facts.node(&a.place.node)?.reach.get(&a.place.id)?;
    if row.reachable || row.answered == 0 || booting(facts, a) {
        return None;
    }
    let sent_at = a.machine.as_ref().map_or(0.0, |machine| machine.last_seen);
    let seconds = facts.at - row.last_seen?.max(sent_at);
    (seconds >= SILENT_S).then_some(seconds)
}

pub(crate) fn address(facts: &Facts, a: &SeatFacts) -> Finding {
    if let Some(cause) = duplicate_mac(facts, a).or_else(|| duplicate_ip(facts, a)) {
        return Failed(cause, None);
    }
    let machine = a.machine.as_ref();
    let asked = machine.map_or(0, |machine| machine.dhcp_asked);
    let given = machine.is_some_and(|machine| machine.dhcp_acked > 0);
    let theirs = facts.is_real(a);
    let evidence = || a.step(Step::Address).cloned();
    match a.address() {
        // 169.254.0.0/16 is what Windows takes when no DHCP answers (RFC 3927).
        Some(ip) if ip.is_link_local() && asked > 0 && !given => {
            Failed(Cause::DhcpUnanswered { times: asked, theirs }, evidence())
        }
        Some(ip) if !facts.fits(a, ip) => {
            let (network, prefix) = a.place.subnet;
            let subnet = format!("{network}/{prefix}");
            Failed(Cause::WrongSubnet { ip, subnet, given: a.place.ip }, evidence())
        }
        Some(_) => Passed(evidence()),
        None if machine.is_some_and(|machine| !machine.ipx_nodes.is_empty()) => Passed(a.step(Step::Frame).cloned()),
        None if asked >= 3 && !given && !booting(facts, a) => {
            Failed(Cause::DhcpUnanswered { times: asked, theirs }, a.step(Step::Frame).cloned())
        }
        None if booting(facts, a) || a.up_for(facts.at).is_none() => Unknown(Cause::Booting),
        // Whoever looks at frames has seen none with an address.
        None if asked == 0 && machine.is_some_and(|m| m.frames > 0 && facts.at - m.first_seen >= BOOT_S) => {
            Failed(Cause::NoAddress, a.step(Step::Frame).cloned())
        }
        None => Unknown(Cause::NotKnown { why: format!("no frame of {} has told its address", who(a)) }),
    }
}

fn duplicate_ip(facts: &Facts, a: &SeatFacts) -> Option<Cause> {
    let lan = facts.lans.get(&a.place.lan)?;
    let mine = a.machine.as_ref()?.ips.first()?;
    let other = lan.seen.machines.values().find(|machine| {
        machine.mac != a.place.mac
            && machine.ips.first() == Some(mine)
            && facts.at - machine.last_seen <= ASKED_RECENTLY_S
    });
    if let Some(other) = other {
        let other = other
            .instance
            .as_ref()
            .and_then(|id| facts.seats.get(id))
            .map_or_else(|| Who::Other(other.mac.clone()), who);
        return Some(Cause::DuplicateIp { ip: mine.clone(), seats: ordered(who(a), other) });
    }
    // The observer saw both claim it in turn, so that only one has it now.
    let told = lan
        .seen
        .anomalies
        .iter()
        .find(|anomaly| anomaly.kind == "duplicate-ip" && is_news(facts, anomaly) && names(&anomaly.what, mine))?;
    let other = seats_in(facts, lan, &told.what).into_iter().find(|id| *id != a.place.id)?;
    Some(Cause::DuplicateIp { ip: mine.clone(), seats: ordered(who(a), who(facts.seats.get(&other)?)) })
}

/// What happened a minute ago and not since is mended, as far as anybody can tell.
fn is_news(facts: &Facts, anomaly: &LanAnomaly) -> bool {
    facts.at - anomaly.last_at <= ASKED_RECENTLY_S
}

fn duplicate_mac(facts: &Facts, a: &SeatFacts) -> Option<Cause> {
    let lan = facts.lans.get(&a.place.lan)?;
    let mac = &a.place.mac;
    // A frame from its own address came in from outside: its bridge does not send a frame back to where it came from.
    let echoed = a.pair(mac).is_some_and(|pair| pair.rx_frames > 0);
    let told = lan
        .seen
        .anomalies
        .iter()
        .find(|anomaly| anomaly.kind == "duplicate-mac" && is_news(facts, anomaly) && names(&anomaly.what, mac));
    if !echoed && told.is_none() {
        return None;
    }
    // The other one sends, and never from its own address.
    let other = lan.seats.iter().filter_map(|id| facts.seats.get(id)).find(|seat| {
        let unseen = seat.machine.as_ref().is_none_or(|machine| machine.frames == 0);
        seat.place.id != a.place.id && unseen && seat.sent().is_some_and(|sent| sent > 0)
    });
    let seats = other.map(|other| ordered(who(a), who(other)));
    Some(Cause::DuplicateMac { mac: mac.clone(), seats })
}

fn ordered(one: Who, other: Who) -> [Who; 2] {
    match (&one, &other) {
        (Who::Seat(a), Who::Seat(b)) if b < a => [other, one],
        _ => [one, other],
    }
}

/// `text` names `word` as a whole: `10.98.0.1` is not in `10.98.0.14`.
fn names(text: &str, word: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == ':' || c == '-'))
        .any(|part| part.trim_end_matches(['.', ':']) == word)
}

/// Our seats whose address or card the text names, in the order of their numbers.
pub(crate) fn seats_in(facts: &Facts, lan: &LanFacts, text: &str) -> Vec<String> {
    lan.seats
        .iter()
        .filter(|id| {
            facts.seats.get(*id).is_some_and(|seat| {
                let ips = seat.machine.iter().flat_map(|machine| &machine.ips);
                ips.chain([&seat.place.mac]).any(|word| names(text, word)) || names(text, &seat.place.ip.to_string())
            })
        })
        .cloned()
        .collect()
}

/// Whether whoever lives on the seat's node would see its frames.
pub(super) fn watched(facts: &Facts, a: &SeatFacts) -> Result<(), Cause> {
    let Some(node) = facts.node(&a.place.node) else { return Err(Cause::NotHeard) };
    let blind = |problem: String| Cause::ObserverBlind { node: a.place.node.clone(), problem };
    match &node.observer {
        Some(observer) => match &observer.problem {
            Some(problem) => Err(blind(problem.trim_end_matches('.').to_owned())),
            None if observer.attach.is_none() => Err(blind("its taps are not watched".to_owned())),
            None => Ok(()),
        },
        None if node.watches => Ok(()),
        None => Err(Cause::NotKnown { why: format!("nobody looks at frames on {}", a.place.node) }),
    }
}

/// The reason why something that should have been seen may have been missed.
pub(super) fn lost_events(node: &str, facts: &NodeFacts) -> Option<Cause> {
    let lost = facts.observer.as_ref()?.events_lost;
    (lost > 0)
        .then(|| Cause::ObserverBlind { node: node.to_owned(), problem: format!("{lost} frames were not looked at") })
}
