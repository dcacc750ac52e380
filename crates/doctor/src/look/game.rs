//! The rungs between a seat and the host of a game.
use std::net::Ipv4Addr;

use api::observe::{Refused, Session, Step};

use super::{
    Finding::{self, Blind, Failed, Passed, Unknown},
    alone::{booting, last_frame, link, lost_events, seats_in, stuck, watched},
};
use crate::{
    ASKED_RECENTLY_S, JOIN_S, SILENT_S,
    cause::{Cause, framing_word},
    facts::{Facts, SeatFacts, Shown},
    ladder::{Target, who},
    merged::{Question, ipv4},
};

/// A host that got so many questions and answered none is silent; fewer may be on the way.
const QUESTIONS_MIN: u64 = 2;
/// An answer takes less than this, in seconds.
const ANSWER_S: f64 = 3.0;
/// A host that let questions go by for this long, in seconds, has stopped answering: programs ask every few.
const STALE_S: f64 = 15.0;
/// Frames that are lost because of their size are longer than this: 1450 is what VXLAN leaves of 1500.
const LONG_BYTES: u64 = 1400;
/// A node asks each guest once a second by ARP; after so many questions without an answer, and so many seconds, it is cut off.
const CUT_QUESTIONS: u64 = 5;
const CUT_S: f64 = 5.0;
/// UDP port of VXLAN, where nothing encrypts it.
const VXLAN_PORT: u16 = 14789;
/// DirectPlay session flags (MC-DPL4CS 2.2.3): no new players; join disabled.
const CLOSED_FLAGS: u32 = 0x1 | 0x20;
const NO_NEW_PLAYERS: &str = "0x8877014a";
const WRONG_PASSWORD: &str = "0x88770154";

pub(crate) fn asks(facts: &Facts, a: &SeatFacts, target: &Target<'_>) -> Finding {
    let Some(seen) = facts.seen(a) else { return Unknown(Cause::NotHeard) };
    let questions = a.questions(seen);
    let Some(last) = questions.first() else {
        if a.class("dplay_query").is_some_and(|(sent, _)| sent > 0) {
            return Passed(None);
        }
        return match watched(facts, a) {
            Err(why) => Unknown(why),
            Ok(()) => match facts.node(&a.place.node).and_then(|node| lost_events(&a.place.node, node)) {
                Some(why) if a.class("dplay_query").is_none() => Unknown(why),
                _ if booting(facts, a) => Unknown(Cause::Booting),
                _ => Failed(Cause::AsksNever, None),
            },
        };
    };
    let evidence = || last.asked.last.clone().or_else(|| last.asked.first.clone());
    let ips: Vec<Ipv4Addr> = questions.iter().filter_map(|q| ipv4(&q.asked.ip)).collect();
    if let (false, Some(ip)) = (ips.iter().any(|ip| facts.fits(a, *ip)), ips.first()) {
        return Failed(Cause::WrongInterface { ip: *ip }, evidence());
    }
    let by_ipx = questions.iter().any(|q| ipv4(&q.asked.ip).is_none());
    match target.game.map(|game| game.transport.as_str()) {
        Some("tcp") if ips.is_empty() => {
            return Failed(Cause::TransportMismatch { asks: "IPX", hosts: "TCP/IP" }, evidence());
        }
        Some("ipx") if !by_ipx => return Failed(Cause::TransportMismatch { asks: "TCP/IP", hosts: "IPX" }, evidence()),
        _ => {}
    }
    if let (Some(game), Some(host)) = (target.game, target.host) {
        let here = host.address().map(|ip| ip.to_string());
        let to: Vec<&String> = questions.iter().flat_map(|q| &q.asked.to).collect();
        let reaches_all = |to: &str| is_broadcast(facts, a, to) || ipv4(to).is_none();
        if let (Some(here), Some(first)) = (here, to.first())
            && game.transport == "tcp"
            && !to.iter().any(|to| reaches_all(to) || **to == here)
        {
            return Failed(Cause::WrongAddress { to: (*first).clone(), host: here }, evidence());
        }
    }
    Passed(evidence())
}

fn is_broadcast(facts: &Facts, a: &SeatFacts, to: &str) -> bool {
    // Nobody told us how long the real LAN's prefix is; hosts hardly ever have this octet.
    if facts.is_real(a) {
        return ipv4(to).is_some_and(|ip| ip.octets()[3] == 255);
    }
    let (network, prefix) = a.place.subnet;
    let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    ipv4(to).is_some_and(|ip| ip == Ipv4Addr::BROADCAST || u32::from(ip) == (u32::from(network) | host_bits))
}

/// The seat that was asked by its own address, where nobody may listen.
pub(crate) fn asked_by_address<'a>(facts: &'a Facts, a: &SeatFacts) -> Option<Target<'a>> {
    let seen = facts.seen(a)?;
    let host = a
        .questions(seen)
        .into_iter()
        .filter(|q| facts.at - q.last_at() <= ASKED_RECENTLY_S)
        .flat_map(|q| &q.asked.to)
        .filter_map(|to| seen.instance_at(to))
        .find_map(|id| facts.seats.get(&id))?;
    // A game that was there and is gone is no fault: nobody plays any more.
    let had = seen.sessions.iter().any(|game| game.host_instance.as_ref() == Some(&host.place.id));
    (!had).then(|| Target { game: None, host: Some(host), who: who(host) })
}

/// Frames of `b` to `a` alone that came to the tap of `a`, as far as it is counted.
fn came(a: &SeatFacts, b: &SeatFacts) -> Option<u64> {
    a.pair(&b.place.mac).map(|pair| pair.rx_frames.saturating_sub(pair.rx_broadcasts))
}

/// Shows that the host's answer came to `a`.
fn answered(facts: &Facts, a: &SeatFacts, game: &Session) -> Option<Shown> {
    let seen = facts.seen(a)?;
    // It was answered once, asks again, and nothing of the host comes any more.
    let host = game.host_instance.as_ref().and_then(|id| facts.seats.get(id));
    let asks_again = a.questions(seen).iter().any(|q| {
        let since_first = q.last_at() - q.asked.first.as_ref().map_or(0.0, |first| first.at);
        q.asked.count >= QUESTIONS_MIN && since_first > SILENT_S && facts.at - q.last_at() <= ASKED_RECENTLY_S
    });
    // Or it comes, and it says nothing back, not even that it takes the connection.
    let mute = host.and_then(|b| a.pair(&b.place.mac)).is_some_and(|pair| pair.tx_frames == 0);
    if asks_again && game.transport == "tcp" && (mute || host.and_then(|b| came(a, b)) == Some(0)) {
        return None;
    }
    let name = game.name.as_ref();
    if name.is_some_and(|name| stale(facts, a, name)) {
        return None;
    }
    let by_name = a
        .questions(seen)
        .into_iter()
        .find(|q| name.is_some_and(|name| q.asked.answered_by.contains(name)))
        .map(|_| Shown(a.step(Step::IsAnswered).cloned()));
    by_name.or_else(|| {
        let timeline = a.timeline.as_ref().filter(|t| t.session.is_none() || t.session == game.name)?;
        timeline.steps.iter().find(|s| s.step >= Step::IsAnswered).map(|s| Shown(Some(s.evidence.clone())))
    })
}

/// The game answered `a` once, and lets later questions go by: what it saw then it does not see now.
fn stale(facts: &Facts, a: &SeatFacts, game: &str) -> bool {
    let Some(seen) = facts.seen(a) else { return false };
    let questions = a.questions(seen);
    let asked = questions.iter().map(|q| q.last_at()).fold(0.0, f64::max);
    let answers = questions.iter().filter_map(|q| q.asked.answered_at.get(game));
    let answered = answers.copied().reduce(f64::max);
    answered.is_some_and(|at| asked - at > STALE_S) && facts.at - asked <= ASKED_RECENTLY_S
}

pub(crate) fn reaches(facts: &Facts, a: &SeatFacts, target: &Target<'_>) -> Finding {
    let Some(seen) = facts.seen(a) else { return Unknown(Cause::NotHeard) };
    if target.game.is_none() {
        let off = target.host.is_some_and(|b| b.place.id != a.place.id && matches!(link(facts, b), Failed(..)));
        return if off { Failed(Cause::HostOff, None) } else { Unknown(Cause::NoGame) };
    }
    if let Some(cause) = target.host.and_then(|b| cut(facts, a, b)) {
        return Failed(cause, None);
    }
    let Some(b) = target.host else {
        let passed = target.game.and_then(|game| answered(facts, a, game));
        return passed.map_or(Unknown(Cause::InTime), |Shown(evidence)| Passed(evidence));
    };
    if let Some(Shown(evidence)) = target.game.and_then(|game| answered(facts, a, game)) {
        return Passed(evidence);
    }
    if target.game.is_some_and(|game| game.transport == "ipx") {
        let framing = |seat: &SeatFacts| seat.machine.as_ref().and_then(|machine| machine.ipx_framing.clone());
        if let (Some(mine), Some(other)) = (framing(a), framing(b))
            && mine != other
        {
            return Failed(Cause::FramingMismatch { framings: [framing_word(&mine), framing_word(&other)] }, None);
        }
    }
    match link(facts, b) {
        Failed(..) => return Failed(Cause::HostOff, None),
        Blind(_) => {
            let gone = facts.node(&b.place.node).and_then(|node| node.silent_for);
            let row = facts.node(&a.place.node).and_then(|node| node.reach.get(&b.place.id));
            return match (gone, row) {
                (Some(seconds), Some(row)) if !row.reachable && row.asked >= 3 => {
                    Failed(Cause::NodeDead { node: b.place.node.clone(), seconds }, None)
                }
                (Some(_), _) => Unknown(Cause::NotKnown { why: format!("the agent on {} is silent", b.place.node) }),
                (None, _) => Unknown(Cause::NotHeard),
            };
        }
        Passed(_) | Unknown(_) => {}
    }
    let questions = a.questions(seen);
    let last_here = questions.iter().filter(|q| q.node == a.place.node).map(|q| q.last_at()).fold(0.0, f64::max);
    // A copy that ends a while before the questions do is of better times.
    let heard_there = questions
        .iter()
        .find(|q| q.node == b.place.node && q.node != a.place.node && last_here - q.last_at() <= ANSWER_S);
    if let Some(pair) = b.pair(&a.place.mac) {
        if pair.rx_frames > 0 && (heard_there.is_some() || a.place.node == b.place.node || watched(facts, b).is_err()) {
            return Passed(heard_there.and_then(|q| q.asked.last.clone()));
        }
        let asked: u64 = questions.iter().map(|q| q.asked.count).max().unwrap_or(0);
        if asked < QUESTIONS_MIN {
            return Unknown(Cause::InTime);
        }
        let evidence = questions.first().and_then(|q| q.asked.last.clone());
        return Failed(lost(facts, a, b, heard_there.is_some()), evidence);
    }
    match heard_there {
        // It came to the host's node; whether to its tap nobody counted.
        Some(question) => Passed(question.asked.last.clone()),
        None if a.place.node == b.place.node => Passed(None),
        None => match watched(facts, b) {
            Err(why) => Unknown(why),
            Ok(()) if questions.iter().all(|q| q.asked.count < QUESTIONS_MIN) => Unknown(Cause::InTime),
            Ok(()) => Failed(lost(facts, a, b, false), questions.first().and_then(|q| q.asked.last.clone())),
        },
    }
}

/// The way between the nodes of `a` and `b` is cut now: the node of `a` gets no answer of `b`, whose own node does.
pub(crate) fn cut(facts: &Facts, a: &SeatFacts, b: &SeatFacts) -> Option<Cause> {
    if a.place.node == b.place.node {
        return None;
    }
    let row = facts.node(&a.place.node)?.reach.get(&b.place.id)?;
    let at_home = facts.node(&b.place.node)?.reach.get(&b.place.id)?;
    let gone = !row.reachable && row.asked >= CUT_QUESTIONS && facts.at - row.last_seen.unwrap_or(0.0) > CUT_S;
    if !gone || !at_home.reachable {
        return None;
    }
    // The edge asks each card alone, so that missing copies of broadcasts do not keep an answer away. What the taps counted tells
    // nothing of this: it is of a minute, of which the most may have been before.
    Some(blocked(facts, [a.place.node.clone(), b.place.node.clone()]))
}

/// Why nothing gets from one node to another: what one of their agents says about the other, else what stands between them.
fn blocked(facts: &Facts, nodes: [String; 2]) -> Cause {
    let [from, to] = &nodes;
    for (node, other) in [(from, to), (to, from)] {
        let named = format!("node `{other}`");
        let problems = facts.node(node).into_iter().flat_map(|node| &node.fabric_problems);
        if let Some(problem) = problems.into_iter().find(|problem| problem.contains(&named)) {
            return Cause::Fabric { node: node.clone(), problem: problem.trim_end_matches('.').to_owned() };
        }
    }
    let port = facts.node(from).and_then(|node| node.tunnel_port).unwrap_or(VXLAN_PORT);
    Cause::UnderlayBlocked { nodes, port }
}

/// Where a broadcast of `a` was lost that did not come to the tap of `b`.
fn lost(facts: &Facts, a: &SeatFacts, b: &SeatFacts, came_to_node: bool) -> Cause {
    let (from, to) = (&a.place.node, &b.place.node);
    if facts.is_real(a) {
        return Cause::LostOnRealLan { nodes: [from.clone(), to.clone()] };
    }
    if from == to || came_to_node {
        return Cause::LostAtTap { node: to.clone() };
    }
    let nodes = [from.clone(), to.clone()];
    // ARP of the node's edge goes the same way as the guest's frames. If it is answered, the way is there, and only
    // the copy of broadcasts is missing.
    let reached = facts.node(from).and_then(|node| node.reach.get(&b.place.id)).is_some_and(|row| row.reachable);
    if reached { Cause::FloodMissing { nodes } } else { blocked(facts, nodes) }
}

pub(crate) fn answers(facts: &Facts, a: &SeatFacts, target: &Target<'_>) -> Finding {
    let Some(seen) = facts.seen(a) else { return Unknown(Cause::NotHeard) };
    let closed = |port: &str| {
        let machine = target.host.and_then(|b| b.machine.as_ref());
        machine.is_some_and(|m| m.ports_closed.iter().any(|p| p == port) && !m.ports_open.iter().any(|p| p == port))
    };
    let Some(game) = target.game else {
        let by_address = asked_by_address(facts, a).is_some() && closed("udp/47624");
        return Failed(if by_address { Cause::NotListening } else { Cause::NoGame }, None);
    };
    if let Some(port) = target.host.and_then(refuses_joins) {
        return Failed(Cause::HostRefuses { port }, a.step(Step::IsAnswered).cloned());
    }
    if let Some(Shown(evidence)) = answered(facts, a, game) {
        return Passed(evidence);
    }
    let questions = a.questions(seen);
    let evidence = questions.first().and_then(|q| q.asked.last.clone());
    let port = questions.iter().find_map(|q| q.asked.reply_port).unwrap_or(2300);
    let refuses = a.machine.as_ref().is_some_and(|machine| machine.ports_closed.contains(&format!("tcp/{port}")));
    if refuses || questions.iter().any(|q| q.asked.answers_refused > 0) {
        return Failed(Cause::AnswerRefused { port }, evidence);
    }
    if let Some(cause) = target.host.and_then(|b| lost_answer(facts, a, b, &questions)) {
        return Failed(cause, evidence);
    }
    if questions.iter().any(|q| q.asked.answers_unanswered > 0) {
        return Failed(Cause::AnswerUnanswered { port }, evidence);
    }
    if let Some(b) = target.host {
        if let Some(seconds) = stuck(facts, b) {
            return Failed(Cause::HostStuck { seconds }, last_frame(b));
        }
        if closed("udp/47624") {
            return Failed(Cause::NotListening, evidence);
        }
    }
    // A host that has no reason to answer this asker is not silent: the rungs above say which reason.
    if reason_to_be_silent(&questions, game) {
        return Unknown(Cause::InTime);
    }
    let asked = questions.iter().map(|q| q.asked.count).max().unwrap_or(0);
    let since_last = questions.first().map_or(0.0, |q| facts.at - q.last_at());
    let blind = target.host.and_then(|b| {
        let node = facts.node(&b.place.node)?;
        watched(facts, b).err().or_else(|| lost_events(&b.place.node, node))
    });
    match blind {
        Some(why) => Unknown(why),
        None if asked >= QUESTIONS_MIN && since_last >= ANSWER_S => {
            Failed(Cause::HostSilent { times: asked }, evidence)
        }
        None => Unknown(Cause::InTime),
    }
}

/// The port at which a host refused, where it takes connections at none: a crashed game holds its old port for minutes, and
/// the next one listens at the next port (docs/protocols.md 1.7).
pub(crate) fn refuses_joins(b: &SeatFacts) -> Option<String> {
    let machine = b.machine.as_ref()?;
    let of_game = |port: &&String| {
        port.strip_prefix("tcp/")
            .and_then(|port| port.parse().ok())
            .is_some_and(|port: u16| (2300..=2400).contains(&port))
    };
    let open = machine.ports_open.iter().any(|port| of_game(&port));
    machine.ports_closed.iter().find(of_game).filter(|_| !open).cloned()
}

/// Frames of `b` to `a` that left and did not come, as the taps counted them, or as only the node of `b` saw connections.
fn lost_answer(facts: &Facts, a: &SeatFacts, b: &SeatFacts, questions: &[&Question]) -> Option<Cause> {
    let nodes = || [b.place.node.clone(), a.place.node.clone()];
    let lost = || Cause::AnswerLost { nodes: nodes(), theirs: facts.is_real(a) };
    let tried = |node: &str| questions.iter().any(|q| q.node == node && q.asked.answers_unanswered > 0);
    if a.place.node != b.place.node && tried(&b.place.node) && !tried(&a.place.node) {
        return Some(lost());
    }
    let (sent, got) = (b.pair(&a.place.mac)?, a.pair(&b.place.mac)?);
    let came = got.rx_frames.saturating_sub(got.rx_broadcasts);
    // A handful, as the two taps were read at two times.
    (sent.tx_frames >= 5 && came == 0).then(lost)
}

/// Long frames from `from` to `to` are lost, short ones arrive.
fn too_long(from: &SeatFacts, to: &SeatFacts) -> Option<Cause> {
    let (sent, got) = (from.pair(&to.place.mac)?, to.pair(&from.place.mac)?);
    let came = got.rx_frames.saturating_sub(got.rx_broadcasts);
    let missing = sent.tx_frames.checked_sub(came).filter(|missing| *missing >= 3)?;
    let bytes = sent.tx_bytes.checked_sub(got.rx_bytes)?.checked_div(missing)?;
    (came > 0 && bytes > LONG_BYTES)
        .then(|| Cause::Mtu { nodes: [from.place.node.clone(), to.place.node.clone()], bytes })
}

fn same_guid(asked: &str, hosted: &str) -> bool {
    // All zero asks for every game.
    asked.chars().all(|c| c == '0') || asked.eq_ignore_ascii_case(hosted)
}

/// GUIDs that were asked for, if none is the game's.
fn other_guid(questions: &[&Question], game: &Session) -> Option<String> {
    let hosted = game.app_guid_wire.as_deref()?;
    let asked: Vec<&str> = questions.iter().filter_map(|q| q.asked.app_guid_wire.as_deref()).collect();
    let first = asked.first()?;
    (!asked.iter().any(|guid| same_guid(guid, hosted))).then(|| (*first).to_owned())
}

fn other_dialect(questions: &[&Question], game: &Session) -> Option<(u16, u16)> {
    let (asks, hosts) = (questions.iter().find_map(|q| q.asked.dialect)?, game.dialect?);
    (asks != hosts).then_some((asks, hosts))
}

/// Why a host in good health does not answer this asker.
fn reason_to_be_silent(questions: &[&Question], game: &Session) -> bool {
    other_guid(questions, game).is_some()
        || other_dialect(questions, game).is_some()
        || game.password_required == Some(true)
        || is_closed(game)
        || is_full(game)
}

pub(crate) fn same_game(facts: &Facts, a: &SeatFacts, target: &Target<'_>) -> Finding {
    let (Some(seen), Some(game)) = (facts.seen(a), target.game) else { return Unknown(Cause::NoGame) };
    let questions = a.questions(seen);
    let evidence = || questions.first().and_then(|q| q.asked.last.clone());
    if let Some(guid) = other_guid(&questions, game) {
        return Failed(Cause::OtherGame { guid }, evidence());
    }
    // Dialects that differ are no fault by themselves: hosts answer older ones, too.
    let failed = refusal(facts, a, Some(game)).is_some()
        || tried_for(facts, a).is_some_and(|seconds| seconds > JOIN_S)
        || answered(facts, a, game).is_none();
    if let (Some((asks, hosts)), true) = (other_dialect(&questions, game), failed) {
        return Failed(Cause::OtherVersion { asks, hosts }, evidence());
    }
    match answered(facts, a, game) {
        Some(Shown(evidence)) => Passed(evidence),
        None if questions.iter().any(|q| q.asked.app_guid_wire.is_some()) && game.app_guid_wire.is_some() => {
            Passed(evidence())
        }
        None => Unknown(Cause::InTime),
    }
}

fn is_closed(game: &Session) -> bool {
    let flags = game.flags.as_deref().and_then(|flags| u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok());
    flags.is_some_and(|flags| flags & CLOSED_FLAGS != 0)
}

fn is_full(game: &Session) -> bool {
    matches!((game.max_players, game.current_players), (Some(max), Some(now)) if max > 0 && now >= max)
}

/// A join of `a` that was refused lately, by `game` if one is given.
pub(crate) fn refusal<'a>(facts: &'a Facts, a: &SeatFacts, game: Option<&Session>) -> Option<&'a Refused> {
    let seen = &facts.lans.get(&a.place.lan)?.seen;
    seen.refused.iter().find(|refused| {
        seen.instance_at(&refused.ip).as_ref() == Some(&a.place.id)
            && game.is_none_or(|game| refused.session.is_none() || refused.session == game.name)
            && refused.evidence.as_ref().is_none_or(|evidence| facts.at - evidence.at <= ASKED_RECENTLY_S)
    })
}

pub(crate) fn free(facts: &Facts, a: &SeatFacts, target: &Target<'_>) -> Finding {
    let Some(game) = target.game else { return Unknown(Cause::NoGame) };
    let refused = refusal(facts, a, Some(game));
    let evidence = refused.and_then(|refused| refused.evidence.clone()).or_else(|| game.evidence.clone());
    let max = game.max_players.unwrap_or(0);
    match refused.map(|refused| refused.player_request_result.to_ascii_lowercase()).as_deref() {
        Some(NO_NEW_PLAYERS) if is_full(game) => return Failed(Cause::Full { max }, evidence),
        Some(NO_NEW_PLAYERS) => return Failed(Cause::Closed, evidence),
        Some(WRONG_PASSWORD) => return Failed(Cause::Password, evidence),
        _ => {}
    }
    if is_full(game) {
        return Failed(Cause::Full { max }, evidence);
    }
    if is_closed(game) {
        return Failed(Cause::Closed, evidence);
    }
    if game.password_required == Some(true) {
        return Failed(Cause::Password, evidence);
    }
    match (game.max_players, answered(facts, a, game)) {
        (Some(_), _) | (_, Some(_)) => Passed(game.evidence.clone()),
        _ => Unknown(Cause::InTime),
    }
}

/// Seconds since `a` began to join, if it did and has not arrived.
fn tried_for(facts: &Facts, a: &SeatFacts) -> Option<f64> {
    if a.step(Step::Joined).is_some() {
        return None;
    }
    let began = a.step(Step::PlayerId).or_else(|| a.step(Step::Linked))?;
    Some(facts.at - began.at)
}

pub(crate) fn joined(facts: &Facts, a: &SeatFacts, target: &Target<'_>) -> Finding {
    let (Some(lan), Some(game)) = (facts.lans.get(&a.place.lan), target.game) else { return Unknown(Cause::NoGame) };
    let nat = lan.seen.anomalies.iter().find(|anomaly| {
        anomaly.kind == "nat-mismatch" && {
            let named = seats_in(facts, lan, &anomaly.what);
            named.contains(&a.place.id) || target.host.is_some_and(|b| named.contains(&b.place.id))
        }
    });
    if let Some(nat) = nat {
        return Failed(Cause::Nat { what: nat.what.clone() }, None);
    }
    if let Some(refused) = refusal(facts, a, Some(game)) {
        let hresult = refused.player_request_result.clone();
        return Failed(Cause::Refused { hresult }, refused.evidence.clone());
    }
    let cut = target.host.and_then(|b| too_long(a, b).or_else(|| too_long(b, a)));
    match (cut, tried_for(facts, a)) {
        (Some(cause), Some(_)) => Failed(cause, a.step(Step::Linked).cloned()),
        (_, Some(seconds)) if seconds > JOIN_S => {
            Failed(Cause::JoinStuck { seconds }, a.step(Step::PlayerId).or_else(|| a.step(Step::Linked)).cloned())
        }
        (_, Some(_)) => Unknown(Cause::InTime),
        (_, None) => Unknown(Cause::SeesGame),
    }
}
