//! The last hour of the LANs: a sample each five seconds, events, and whole states to look back at.
//!
//! A state is kept as deflated JSON: about 5 kB for nine seats, so an hour (720 of them) is 4 MB. With more than 64 instances
//! a state is kept each 30 s only, without what makes it long. Whatever agents say, states never take more than
//! [`STATES_BYTES_MAX`]: the oldest go first, and the time that can be looked back at gets shorter.
use std::{
    collections::{BTreeMap, VecDeque},
    io::{Read as _, Write as _},
};

use api::{
    gateway::Instance,
    lan::{Diagnosis, LanEvent, LanHistory, LanRole, LanSample, LanStatus},
};
use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};

use super::MANY;

/// Seconds between two samples.
pub const STEP_S: f64 = 5.0;
/// Seconds between two states where there are many instances.
const STEP_MANY_S: f64 = 30.0;
/// Seconds that are kept.
pub const KEPT_S: f64 = 3600.0;
/// All states together.
pub const STATES_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Events that are kept; the oldest go first.
const EVENTS_MAX: usize = 2000;

#[derive(Debug)]
struct State {
    at: f64,
    deflated: Box<[u8]>,
}

/// What was last seen, to tell what has changed.
#[derive(Debug, Default)]
struct Last {
    /// By instance: role and session.
    roles: BTreeMap<String, (LanRole, String)>,
    /// By name and LAN: instance of the host.
    sessions: BTreeMap<(String, String), Option<String>>,
    /// From, to and cause.
    faults: BTreeMap<(String, String, String), String>,
    silent: BTreeMap<String, bool>,
}

#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<LanSample>,
    states: VecDeque<State>,
    states_bytes: usize,
    events: VecDeque<LanEvent>,
    last: Option<Last>,
}

impl History {
    /// Takes what is shown now. Cheap but for each fifth second.
    pub fn record(&mut self, status: &LanStatus, instances: &[Instance]) {
        self.notice(status, instances);
        let at = status.at;
        // A little early is on time: walls come each two seconds or on changes.
        if self.samples.back().is_none_or(|last| at - last.at >= STEP_S - 0.5) {
            self.samples.push_back(sample(status));
        }
        let many = instances.len() > MANY;
        let step = if many { STEP_MANY_S } else { STEP_S };
        if self.states.back().is_none_or(|last| at - last.at >= step - 0.5) {
            match deflate(status, many) {
                Ok(deflated) => {
                    self.states_bytes += deflated.len();
                    self.states.push_back(State { at, deflated });
                }
                Err(error) => tracing::error!(%error, "a LAN status could not be kept"),
            }
        }
        let old = at - KEPT_S;
        while self.samples.front().is_some_and(|first| first.at < old) {
            self.samples.pop_front();
        }
        while self.events.front().is_some_and(|first| first.at < old) || self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
        while self.states.front().is_some_and(|first| first.at < old) || self.states_bytes > STATES_BYTES_MAX {
            let Some(gone) = self.states.pop_front() else { break };
            self.states_bytes = self.states_bytes.saturating_sub(gone.deflated.len());
        }
    }

    /// Bytes of all states.
    pub fn states_bytes(&self) -> usize {
        self.states_bytes
    }

    pub fn between(&self, from: f64, to: f64) -> LanHistory {
        let within = |at: f64| (from..=to).contains(&at);
        LanHistory {
            from,
            to,
            step: STEP_S,
            samples: self.samples.iter().filter(|sample| within(sample.at)).copied().collect(),
            events: self.events.iter().filter(|event| within(event.at)).cloned().collect(),
            state: self.states.iter().rev().find(|state| state.at <= to).and_then(|state| inflate(&state.deflated)),
        }
    }

    /// Tells what has changed since the last status.
    fn notice(&mut self, status: &LanStatus, instances: &[Instance]) {
        let names: BTreeMap<&str, &Instance> = instances.iter().map(|i| (i.id.as_str(), i)).collect();
        let name = |id: &str| names.get(id).map_or_else(|| id.to_owned(), |instance| instance.name.clone());
        let mut now = Last::default();
        for (id, instance) in &status.instances {
            if let Some(directplay) = &instance.directplay {
                now.roles.insert(id.clone(), (directplay.role, directplay.session.clone().unwrap_or_default()));
            }
        }
        for session in status.sessions.iter().filter(|session| doctor::is_alive(session.certainty)) {
            let host = session.host_instance.clone();
            let lan = host.as_ref().and_then(|id| status.instances.get(id)).map(|i| i.lan.clone()).unwrap_or_default();
            now.sessions.insert((session.name.clone().unwrap_or_default(), lan), host);
        }
        for diagnosis in &status.diagnosis {
            now.faults.insert(key(diagnosis), diagnosis.sentence.clone());
        }
        for instance in instances {
            let silent = instance.agent_silent_for.is_some();
            now.silent.entry(instance.node.clone()).and_modify(|was| *was |= silent).or_insert(silent);
        }
        let Some(last) = self.last.replace(now) else { return };
        let Some(now) = &self.last else { return };
        let mut events = Vec::new();
        let mut tell = |what: String, instance: Option<&str>, lan: Option<&str>| {
            let lan = lan.map(str::to_owned).or_else(|| Some(names.get(instance?)?.lan.clone()));
            events.push(LanEvent { at: status.at, what, lan, instance: instance.map(str::to_owned) });
        };
        for (key @ (session, lan), host) in &now.sessions {
            let who = host.as_deref().map_or_else(|| "a stranger".to_owned(), name);
            match last.sessions.get(key) {
                None => tell(format!("“{session}” opens at {who}"), host.as_deref(), Some(lan)),
                Some(before) if before != host => {
                    tell(format!("“{session}” goes on at {who}"), host.as_deref(), Some(lan));
                }
                Some(_) => {}
            }
        }
        for (session, lan) in last.sessions.keys().filter(|key| !now.sessions.contains_key(*key)) {
            tell(format!("“{session}” ends"), None, Some(lan));
        }
        for (id, (role, session)) in &now.roles {
            let Some((was, _)) = last.roles.get(id) else { continue };
            match (was, role) {
                // Whoever played plays on, or nobody knows.
                (LanRole::Joined | LanRole::Host, LanRole::Joined | LanRole::Host | LanRole::Unknown) => {}
                (_, LanRole::Joined) => tell(format!("{} joins “{session}”", name(id)), Some(id), None),
                (LanRole::Joined, _) => tell(format!("{} leaves", name(id)), Some(id), None),
                _ => {}
            }
        }
        for (key, sentence) in now.faults.iter().filter(|(key, _)| !last.faults.contains_key(*key)) {
            tell(sentence.clone(), Some(&key.0), None);
        }
        for (from, to, cause) in last.faults.keys().filter(|key| !now.faults.contains_key(*key)) {
            let pair = if from == to { name(from) } else { format!("{} and {}", name(from), name(to)) };
            tell(format!("{pair}: {} is over", cause.replace('-', " ")), Some(from), None);
        }
        for (node, silent) in &now.silent {
            match (last.silent.get(node), silent) {
                (Some(false), true) => tell(format!("the agent on {node} falls silent"), None, None),
                (Some(true), false) => tell(format!("the agent on {node} is back"), None, None),
                _ => {}
            }
        }
        self.events.extend(events);
    }
}

fn key(diagnosis: &Diagnosis) -> (String, String, String) {
    (diagnosis.from.clone(), diagnosis.to.clone(), diagnosis.cause.clone())
}

fn sample(status: &LanStatus) -> LanSample {
    let players = status
        .instances
        .values()
        .filter_map(|instance| instance.directplay.as_ref())
        .filter(|directplay| matches!(directplay.role, LanRole::Host | LanRole::Joined))
        .count();
    let sessions = status.sessions.iter().filter(|session| doctor::is_alive(session.certainty)).count();
    LanSample {
        at: status.at,
        rate: status.connectivity.iter().filter_map(|row| row.rate).reduce(|sum, rate| sum + rate),
        sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
        players: u32::try_from(players).unwrap_or(u32::MAX),
    }
}

/// Of many instances without classes, timelines and strangers: those are of now.
fn deflate(status: &LanStatus, many: bool) -> std::io::Result<Box<[u8]>> {
    let slim = many.then(|| slim(status));
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&serde_json::to_vec(slim.as_ref().unwrap_or(status))?)?;
    Ok(encoder.finish()?.into_boxed_slice())
}

/// A status without what makes it long.
pub fn slim(status: &LanStatus) -> LanStatus {
    let mut slim = status.clone();
    slim.timelines.clear();
    slim.strangers.clear();
    for instance in slim.instances.values_mut() {
        instance.classes.clear();
        instance.arp.clear();
    }
    slim
}

fn inflate(deflated: &[u8]) -> Option<LanStatus> {
    let mut text = Vec::new();
    // What we wrote ourselves, so its size is known to be sane.
    DeflateDecoder::new(deflated).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}
