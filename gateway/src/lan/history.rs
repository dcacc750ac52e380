//! The last hour of the LANs: a sample each five seconds, events, and whole states to look back at.
//!
//! A state is kept as deflated JSON: about 5 kB for nine seats, so an hour (720 of them) is 4 MB. With more than 64 instances
//! a state is kept each 30 s only, without what makes it long. Whatever agents say, states never take more than
//! [`STATES_BYTES_MAX`]: the oldest go first, and the time that can be looked back at gets shorter.
use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufWriter, IntoInnerError, Read as _},
    sync::Arc,
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
    deflated: Arc<[u8]>,
}

/// An answer, put together where no lock is held.
#[derive(Debug)]
pub struct Span {
    /// Without its state.
    history: LanHistory,
    state: Option<Arc<[u8]>>,
}

impl Span {
    /// `LanHistory` as JSON. The state is put in as it was kept: reading and writing it again would cost most of the time.
    pub fn json(&self) -> std::io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(&self.history)?;
        if let Some(state) = &self.state {
            text.pop();
            text.extend_from_slice(b",\"state\":");
            DeflateDecoder::new(&**state).read_to_end(&mut text)?;
            text.push(b'}');
        }
        Ok(text)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    role: LanRole,
    session: String,
    lan: String,
    name: String,
}

/// What was last seen, to tell what has changed.
#[derive(Debug, Default)]
struct Last {
    /// By instance: role, session, and where it was with what name.
    roles: BTreeMap<String, Standing>,
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

    pub fn between(&self, from: f64, to: f64) -> Span {
        let within = |at: f64| (from..=to).contains(&at);
        let history = LanHistory {
            from,
            to,
            step: STEP_S,
            samples: self.samples.iter().filter(|sample| within(sample.at)).copied().collect(),
            events: self.events.iter().filter(|event| within(event.at)).cloned().collect(),
            state: None,
        };
        let state = self.states.iter().rev().find(|state| state.at <= to).map(|state| Arc::clone(&state.deflated));
        Span { history, state }
    }

    /// Tells what has changed since the last status.
    fn notice(&mut self, status: &LanStatus, instances: &[Instance]) {
        let names: BTreeMap<&str, &Instance> = instances.iter().map(|i| (i.id.as_str(), i)).collect();
        let name = |id: &str| names.get(id).map_or_else(|| id.to_owned(), |instance| instance.name.clone());
        let mut now = Last::default();
        for (id, instance) in &status.instances {
            if let Some(directplay) = &instance.directplay {
                let session = directplay.session.clone().unwrap_or_default();
                let standing = Standing { role: directplay.role, session, lan: instance.lan.clone(), name: name(id) };
                now.roles.insert(id.clone(), standing);
            }
        }
        for session in status.sessions.iter().filter(|session| session.certainty.is_alive()) {
            let host = session.host_instance.clone();
            let lan = session.lan.clone().unwrap_or_default();
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
        for (id, now) in &now.roles {
            let Some(was) = last.roles.get(id) else { continue };
            let moved = was.lan != now.lan;
            match (was.role, now.role) {
                // Whoever played plays on, or nobody knows.
                (LanRole::Joined | LanRole::Host, LanRole::Joined | LanRole::Host | LanRole::Unknown) if !moved => {}
                (before, after) => {
                    if before == LanRole::Joined {
                        tell(format!("{} leaves", was.name), Some(id), Some(&was.lan));
                    }
                    if after == LanRole::Joined {
                        tell(format!("{} joins “{}”", now.name, now.session), Some(id), Some(&now.lan));
                    }
                }
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
    let sessions = status.sessions.iter().filter(|session| session.certainty.is_alive()).count();
    LanSample {
        at: status.at,
        rate: status.connectivity.iter().filter_map(|row| row.rate).reduce(|sum, rate| sum + rate),
        sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
        players: u32::try_from(players).unwrap_or(u32::MAX),
    }
}

/// Of many instances without classes, timelines and strangers: those are of now.
fn deflate(status: &LanStatus, many: bool) -> std::io::Result<Arc<[u8]>> {
    let slim = many.then(|| slim(status));
    // Piece by piece: of 10,000 instances the JSON alone is megabytes.
    let mut text = BufWriter::new(DeflateEncoder::new(Vec::new(), Compression::fast()));
    serde_json::to_writer(&mut text, slim.as_ref().unwrap_or(status))?;
    Ok(text.into_inner().map_err(IntoInnerError::into_error)?.finish()?.into())
}

/// A status without what makes it long.
pub fn slim(status: &LanStatus) -> LanStatus {
    let mut slim = status.clone();
    slim.timelines.clear();
    // Their round trips are in `connectivity`.
    slim.lags.clear();
    slim.strangers.clear();
    for instance in slim.instances.values_mut() {
        instance.classes.clear();
        instance.arp.clear();
    }
    slim
}

#[cfg(test)]
mod tests {
    use api::{
        agent::State,
        lan::{Connectivity, DirectPlay, LanInstance, Rung},
        observe::Session,
    };

    use super::*;

    fn instance(id: &str, name: &str, silent: Option<f64>) -> Instance {
        Instance {
            id: id.into(),
            name: name.into(),
            lan: "party".into(),
            seat: 0,
            node: "node-a".into(),
            mac: String::new(),
            ip: String::new(),
            state: State::Live,
            agent_silent_for: silent,
            status: None,
        }
    }

    fn status(at: f64, roles: [LanRole; 2], session: bool) -> LanStatus {
        let directplay = |role| DirectPlay { role, session: Some("Loco".into()), player_id: None, player_name: None };
        let shown =
            |role| LanInstance { lan: "party".into(), directplay: Some(directplay(role)), ..LanInstance::default() };
        let sessions = session.then(|| Session {
            name: Some("Loco".into()),
            host_instance: Some("instance-0".into()),
            lan: Some("party".into()),
            ..Session::default()
        });
        LanStatus {
            at,
            instances: [("instance-0".to_owned(), shown(roles[0])), ("instance-1".to_owned(), shown(roles[1]))].into(),
            sessions: sessions.into_iter().collect(),
            connectivity: vec![Connectivity { rate: Some(2.5), ..Connectivity::default() }; 2],
            ..LanStatus::default()
        }
    }

    fn seats() -> Vec<Instance> {
        vec![instance("instance-0", "Seat 1", None), instance("instance-1", "Seat 2", None)]
    }

    fn between(history: &History, from: f64, to: f64) -> LanHistory {
        serde_json::from_slice(&history.between(from, to).json().unwrap()).unwrap()
    }

    #[test]
    fn what_changes_is_told_in_words_and_once() {
        use LanRole::{Host, Joined, Looking, On};
        let mut history = History::default();
        let steps = [
            (0.0, [On, On], false),
            (1.0, [Host, Looking], true),
            (2.0, [Host, Looking], true),
            (3.0, [Host, Joined], true),
            (4.0, [Host, On], true),
            (5.0, [On, On], false),
        ];
        for (at, roles, session) in steps {
            history.record(&status(at, roles, session), &seats());
        }
        let mut sick = status(6.0, [On, On], false);
        sick.diagnosis.push(Diagnosis {
            from: "instance-1".into(),
            to: "instance-1".into(),
            rung: Rung::Frame,
            ok: false,
            cause: "no-driver".into(),
            sentence: "Seat 2 is silent.".into(),
            evidence: None,
            remedy: None,
            ladder: Vec::new(),
        });
        history.record(&sick, &seats());
        history.record(&status(7.0, [On, On], false), &seats());
        let mut silent = seats();
        silent[0].agent_silent_for = Some(4.0);
        history.record(&status(8.0, [On, On], false), &silent);
        let told: Vec<_> = between(&history, 0.0, 10.0).events.into_iter().map(|e| (e.at, e.what)).collect();
        let want = [
            (1.0, "“Loco” opens at Seat 1"),
            (3.0, "Seat 2 joins “Loco”"),
            (4.0, "Seat 2 leaves"),
            (5.0, "“Loco” ends"),
            (6.0, "Seat 2 is silent."),
            (7.0, "Seat 2: no driver is over"),
            (8.0, "the agent on node-a falls silent"),
        ];
        assert_eq!(told, want.map(|(at, what)| (at, what.to_owned())));
    }

    #[test]
    fn who_goes_to_another_lan_leaves_the_one_where_it_was() {
        let mut history = History::default();
        history.record(&status(0.0, [LanRole::Host, LanRole::Joined], true), &seats());
        let mut moved = status(1.0, [LanRole::Host, LanRole::Joined], true);
        moved.instances.get_mut("instance-1").unwrap().lan = "other".into();
        let mut there = seats();
        (there[1].lan, there[1].name) = ("other".into(), "Seat 5".into());
        history.record(&moved, &there);
        let told: Vec<_> = between(&history, 0.0, 10.0).events.into_iter().map(|e| (e.what, e.lan.unwrap())).collect();
        let want = [("Seat 2 leaves", "party"), ("Seat 5 joins “Loco”", "other")];
        assert_eq!(told, want.map(|(what, lan)| (what.to_owned(), lan.to_owned())));
    }

    #[test]
    fn the_state_of_a_moment_is_the_last_one_before_it() {
        let mut history = History::default();
        for second in 0..4000u32 {
            let roles = if second < 3000 { [LanRole::Host, LanRole::Joined] } else { [LanRole::On, LanRole::On] };
            history.record(&status(f64::from(second), roles, second < 3000), &seats());
        }
        let then = between(&history, 2999.0, 2999.0).state.unwrap();
        assert_eq!((then.at, then.sessions.len()), (2995.0, 1));
        assert_eq!(then, status(2995.0, [LanRole::Host, LanRole::Joined], true), "whole");
        assert_eq!(between(&history, 3005.0, 3005.0).state.unwrap().sessions.len(), 0);
        assert_eq!(between(&history, 100.0, 100.0).state, None, "an hour is kept, and no more");
        let hour = between(&history, 0.0, 4000.0);
        assert_eq!((hour.samples.len(), hour.step), (720, 5.0));
        assert_eq!((hour.samples[0].rate, hour.samples[0].players), (Some(5.0), 2));
    }

    #[test]
    fn an_hour_of_many_seats_stays_within_its_bytes() {
        let mut history = History::default();
        let many: Vec<Instance> = (0..100).map(|n| instance(&format!("instance-{n}"), "Seat", None)).collect();
        for step in 0..800u32 {
            // What does not deflate: as many different names as fit.
            let mut long = status(f64::from(step) * 30.0, [LanRole::On, LanRole::On], true);
            let mut seed = u64::from(step) + 1;
            long.sessions[0].name = Some(
                (0..400_000)
                    .map(|_| {
                        seed ^= seed << 13;
                        seed ^= seed >> 7;
                        seed ^= seed << 17;
                        char::from(b'!' + u8::try_from(seed % 90).unwrap())
                    })
                    .collect(),
            );
            history.record(&long, &many);
            assert!(history.states_bytes() <= STATES_BYTES_MAX);
            if step >= 130 {
                break;
            }
        }
        let kept = history.states.len();
        assert!(kept > 10 && kept < 121, "{kept} states of 30 s each, by their bytes");
    }
}
