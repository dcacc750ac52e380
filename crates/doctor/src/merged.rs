//! One truth out of what many agents saw of one LAN.
//!
//! A frame passes the taps of some nodes only, so each agent knows a part. The node on which a machine lives sees all of
//! its frames, so that node's word about it wins; of others, the one with the newest evidence. Sessions are keyed by
//! instance GUID, machines by MAC, players by session and id. Sizes are bounded by what agents may send.
//!
//! An agent that came in the middle of a game, as every restarted one does, knows ids and addresses without a session's
//! name or GUID. What it says is taken to the session that others know under the same id or host, and wins nowhere. What it was told by the
//! agent before it wins nowhere either, as long as it is only that.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use api::{
    lan::LanAnomaly,
    observe::{
        Certainty, Enumeration, Evidence, Lag, Machine, Observed, Player, Refused, Session, SystemPlayer, Timeline,
    },
};

/// Anomalies that are kept of one LAN.
const ANOMALIES_MAX: usize = 64;

/// A question for games, and the node that saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    pub node: String,
    pub asked: Enumeration,
}

impl Question {
    pub(crate) fn last_at(&self) -> f64 {
        self.asked.last.as_ref().or(self.asked.first.as_ref()).map_or(0.0, |evidence| evidence.at)
    }
}

/// Two machines that both say that they host one session.
#[derive(Debug, Clone, PartialEq)]
pub struct TwoHosts {
    pub session: String,
    /// Address and, where it is ours, instance of each.
    pub hosts: [(String, Option<String>); 2],
    pub evidence: Option<Evidence>,
}

/// Everything that was seen of one LAN, by all agents that answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LanSeen {
    /// By MAC.
    pub machines: BTreeMap<String, Machine>,
    pub sessions: Vec<Session>,
    pub system_players: Vec<SystemPlayer>,
    pub players: Vec<Player>,
    /// Of each asker, as each node saw it: that one node saw a question and another did not is what the ladder asks for.
    pub questions: Vec<Question>,
    pub refused: Vec<Refused>,
    pub timelines: Vec<Timeline>,
    pub lags: Vec<Lag>,
    pub anomalies: Vec<LanAnomaly>,
    pub two_hosts: Vec<TwoHosts>,
    /// Instance that uses an address; an address that two use is not in here.
    by_ip: BTreeMap<String, String>,
}

/// What one agent saw of the LAN.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub(crate) node: &'a str,
    pub(crate) observed: &'a Observed,
}

/// Our seats of the LAN: MAC to instance and node.
pub(crate) type Ours<'a> = BTreeMap<String, (&'a str, &'a str)>;

impl LanSeen {
    pub(crate) fn of(lan: &str, sights: &[Sight<'_>], ours: &Ours<'_>) -> Self {
        let mut seen = Self { machines: machines(sights, ours), ..Self::default() };
        seen.by_ip = by_ip(&seen.machines);
        let nodes: BTreeMap<&str, &str> = ours.values().map(|(instance, node)| (*instance, *node)).collect();
        seen.merge_sessions(lan, sights, &nodes);
        seen.merge_players(sights, &nodes);
        seen.questions = sights
            .iter()
            .flat_map(|sight| {
                sight.observed.enumerations.iter().map(|asked| {
                    let mut asked = asked.clone();
                    asked.instance = asked.instance.take().or_else(|| seen.instance_at(&asked.ip));
                    stamp(&mut asked.first, sight.node);
                    stamp(&mut asked.last, sight.node);
                    Question { node: sight.node.to_owned(), asked }
                })
            })
            .collect();
        seen.refused = newest(
            sights.iter().flat_map(|sight| sight.observed.refused.iter().map(|refused| (sight.node, refused.clone()))),
            |refused| (refused.ip.clone(), refused.session.clone(), refused.player_request_result.clone()),
            |refused| &mut refused.evidence,
        );
        seen.timelines = timelines(sights, ours);
        seen.lags = lags(sights, ours, &seen.by_ip);
        seen.anomalies.extend(sights.iter().flat_map(|sight| {
            sight.observed.anomalies.iter().map(|anomaly| LanAnomaly {
                lan: lan.to_owned(),
                node: Some(sight.node.to_owned()),
                kind: anomaly.kind.clone(),
                what: anomaly.what.clone(),
                at: anomaly.at,
                last_at: anomaly.last_at.max(anomaly.at),
                count: anomaly.count,
            })
        }));
        seen.anomalies.sort_by(|a, b| b.at.total_cmp(&a.at));
        seen.anomalies.truncate(ANOMALIES_MAX);
        seen
    }

    /// Our instance that uses `address`: an IPv4 address, or an IPX station `network:node`.
    pub fn instance_at(&self, address: &str) -> Option<String> {
        if let Some(instance) = self.by_ip.get(address) {
            return Some(instance.clone());
        }
        let (_, node) = address.rsplit_once(':')?;
        self.machines.values().find(|m| m.ipx_nodes.iter().any(|n| n == node)).and_then(|m| m.instance.clone())
    }

    fn host_of(&self, session: &Session) -> Option<String> {
        session
            .host_instance
            .clone()
            .or_else(|| session.host_ip.as_deref().and_then(|ip| self.instance_at(ip)))
            .or_else(|| session.host_ipx.as_deref().and_then(|station| self.instance_at(station)))
    }

    fn merge_sessions(&mut self, lan: &str, sights: &[Sight<'_>], nodes: &BTreeMap<&str, &str>) {
        let mut groups: BTreeMap<String, Vec<(bool, Session)>> = BTreeMap::new();
        let all = || sights.iter().flat_map(|sight| &sight.observed.sessions);
        let told = all().filter(|s| s.host_ip.is_some() || s.host_ipx.is_some());
        let told = told.filter_map(|s| Some(((&s.transport, host_address(s)), s.instance_guid_wire.as_ref()?)));
        let known = only(told);
        let players = || sights.iter().flat_map(|sight| &sight.observed.players);
        let playing = only(players().filter_map(|player| Some((&player.id, player.session.as_ref()?))));
        for sight in sights {
            let mut strangers = sight.observed.players.iter().filter(|player| player.session.is_none());
            let elsewhere = strangers.any(|player| matches!(playing.get(&player.id), Some(Some(_))));
            for session in &sight.observed.sessions {
                // Whose players others know in a session with a name: it is that one.
                let bare = session.instance_guid_wire.is_none() && session.name.is_none();
                if elsewhere && bare && session.host_ip.is_none() && session.host_ipx.is_none() {
                    continue;
                }
                let mut session = session.clone();
                stamp(&mut session.evidence, sight.node);
                session.host_instance = self.host_of(&session);
                let at_home = session.host_instance.as_deref().and_then(|host| nodes.get(host)) == Some(&sight.node);
                let at_home = at_home && !is_hearsay(session.certainty, session.evidence.as_ref());
                let key = match known.get(&(&session.transport, host_address(&session))) {
                    Some(Some(guid)) if session.instance_guid_wire.is_none() => (*guid).clone(),
                    _ => session_key(&session),
                };
                groups.entry(key).or_default().push((at_home, session));
            }
        }
        for (_, mut group) in groups {
            group.sort_by(|(home_a, a), (home_b, b)| {
                let late = a.instance_guid_wire.is_none().cmp(&b.instance_guid_wire.is_none());
                late.then(home_b.cmp(home_a)).then(at(b.evidence.as_ref()).total_cmp(&at(a.evidence.as_ref())))
            });
            let Some((_, best)) = group.first() else { continue };
            let best = best.clone();
            if let Some((_, other)) = group.iter().find(|(_, other)| both_host(&best, other)) {
                let two = TwoHosts {
                    session: best.name.clone().unwrap_or_default(),
                    hosts: [&best, other].map(|s| (host_address(s).to_owned(), s.host_instance.clone())),
                    evidence: other.evidence.clone(),
                };
                self.anomalies.push(LanAnomaly {
                    lan: lan.to_owned(),
                    node: None,
                    kind: "two-hosts-one-guid".to_owned(),
                    what: format!(
                        "{} and {} both host the session `{}` with one id",
                        two.hosts[0].0, two.hosts[1].0, two.session
                    ),
                    at: at(two.evidence.as_ref()),
                    last_at: at(two.evidence.as_ref()),
                    count: 1,
                });
                self.two_hosts.push(two);
            }
            self.sessions.push(best);
        }
    }

    fn merge_players(&mut self, sights: &[Sight<'_>], nodes: &BTreeMap<&str, &str>) {
        let at_home = |instance: Option<&str>, node: &str| instance.and_then(|id| nodes.get(id)) == Some(&node);
        self.system_players = by_session(
            sights,
            |observed| &observed.system_players,
            |system, node| {
                stamp(&mut system.evidence, node);
                let found = system.ip.as_deref().and_then(|ip| self.instance_at(ip));
                fill(&mut system.instance, found);
                at_home(system.instance.as_deref(), node)
            },
        );
        self.players = by_session(
            sights,
            |observed| &observed.players,
            |player, node| {
                stamp(&mut player.evidence, node);
                let found = self.instance_of(player);
                fill(&mut player.instance, found);
                at_home(player.instance.as_deref(), node)
            },
        );
    }

    /// By its machine's record, else by its address.
    fn instance_of(&self, player: &Player) -> Option<String> {
        let system = player.system_id.as_deref().and_then(|id| {
            self.system_players.iter().find(|system| system.id == id && system.session == player.session)
        });
        system
            .and_then(|system| system.instance.clone())
            .or_else(|| player.ip.as_deref().and_then(|ip| self.instance_at(ip)))
    }
}

/// The instance GUID; a session that never told it is told apart by name and host.
pub(crate) fn session_key(session: &Session) -> String {
    session.instance_guid_wire.clone().unwrap_or_else(|| {
        format!("{} {} {}", session.transport, session.name.as_deref().unwrap_or(""), host_address(session))
    })
}

pub(crate) fn host_address(session: &Session) -> &str {
    session.host_ip.as_deref().or(session.host_ipx.as_deref()).unwrap_or("an unknown machine")
}

/// Two hosts at once, and not one after the other: a new host after a migration lists the old one as its predecessor.
fn both_host(a: &Session, b: &Session) -> bool {
    let known = |s: &Session| s.host_ip.is_some() || s.host_ipx.is_some();
    let succeeds = |a: &Session, b: &Session| b.host_system_id.as_ref().is_some_and(|id| a.former_hosts.contains(id));
    // Without a migration seen, an old word is the likelier reason: agents forget gone sessions only with time.
    let fresh = (at(a.evidence.as_ref()) - at(b.evidence.as_ref())).abs() <= crate::ASKED_RECENTLY_S;
    known(a)
        && known(b)
        && host_address(a) != host_address(b)
        && a.certainty.is_alive()
        && b.certainty.is_alive()
        && fresh
        && !succeeds(a, b)
        && !succeeds(b, a)
}

fn machines(sights: &[Sight<'_>], ours: &Ours<'_>) -> BTreeMap<String, Machine> {
    let mut machines: BTreeMap<String, (bool, Machine)> = BTreeMap::new();
    for sight in sights {
        for machine in &sight.observed.machines {
            let mut machine = machine.clone();
            let home = ours.get(&machine.mac);
            if machine.instance.is_none() {
                machine.instance = home.map(|(instance, _)| (*instance).to_owned());
            }
            let at_home = home.is_some_and(|(_, node)| *node == sight.node);
            keep(
                &mut machines,
                machine.mac.clone(),
                at_home,
                machine,
                |m| m.last_seen,
                |into, from| {
                    fill(&mut into.name, from.name);
                    fill(&mut into.workgroup, from.workgroup);
                    if into.ips.is_empty() {
                        into.ips = from.ips;
                    }
                    // What refuses and what takes shows at either end.
                    for (into, from) in
                        [(&mut into.ports_open, from.ports_open), (&mut into.ports_closed, from.ports_closed)]
                    {
                        let all: BTreeSet<String> = into.drain(..).chain(from).collect();
                        into.extend(all);
                    }
                },
            );
        }
    }
    machines.into_iter().map(|(mac, (_, machine))| (mac, machine)).collect()
}

fn by_ip(machines: &BTreeMap<String, Machine>) -> BTreeMap<String, String> {
    let mut users: BTreeMap<&String, Vec<&Machine>> = BTreeMap::new();
    for machine in machines.values() {
        // Its newest address only: an old one may be another's by now.
        if let Some(ip) = machine.ips.first() {
            users.entry(ip).or_default().push(machine);
        }
    }
    users
        .into_iter()
        .filter_map(|(ip, users)| match users[..] {
            [machine] => Some((ip.clone(), machine.instance.clone()?)),
            _ => None,
        })
        .collect()
}

fn timelines(sights: &[Sight<'_>], ours: &Ours<'_>) -> Vec<Timeline> {
    let mut merged: BTreeMap<String, (bool, Timeline)> = BTreeMap::new();
    for sight in sights {
        for timeline in &sight.observed.timelines {
            let mut timeline = timeline.clone();
            for step in &mut timeline.steps {
                step.evidence.node.get_or_insert_with(|| sight.node.to_owned());
            }
            let home = ours.get(&timeline.mac);
            if timeline.instance.is_none() {
                timeline.instance = home.map(|(instance, _)| (*instance).to_owned());
            }
            let at_home = home.is_some_and(|(_, node)| *node == sight.node);
            let newest = |t: &Timeline| t.steps.iter().map(|step| step.evidence.at).fold(0.0, f64::max);
            keep(&mut merged, timeline.mac.clone(), at_home, timeline, newest, |_, _| {});
        }
    }
    merged.into_values().map(|(_, timeline)| timeline).collect()
}

/// Named by instance where the card is ours. Of one pair the measurement with the most samples is kept.
fn lags(sights: &[Sight<'_>], ours: &Ours<'_>, by_ip: &BTreeMap<String, String>) -> Vec<Lag> {
    let name = |end: &str| {
        let ours = ours.get(end).map(|(instance, _)| (*instance).to_owned());
        ours.or_else(|| by_ip.get(end).cloned()).unwrap_or_else(|| end.to_owned())
    };
    let mut merged: BTreeMap<(String, String), Lag> = BTreeMap::new();
    for lag in sights.iter().flat_map(|sight| &sight.observed.lags) {
        let lag = Lag { from: name(&lag.from), to: name(&lag.to), ..lag.clone() };
        let key = (lag.from.clone(), lag.to.clone());
        match merged.get_mut(&key) {
            None => drop(merged.insert(key, lag)),
            Some(kept) => {
                // The guest's own part shows only at its own node, the round trip best at the asker's.
                let (mut best, other) =
                    if lag.samples > kept.samples { (lag, kept.clone()) } else { (kept.clone(), lag) };
                fill(&mut best.guest_ms, other.guest_ms);
                fill(&mut best.fabric_ms, other.fabric_ms);
                fill(&mut best.rtt_ms, other.rtt_ms);
                *kept = best;
            }
        }
    }
    merged.into_values().collect()
}

/// The one value that goes with each key; `None` where there are two.
fn only<K: Ord, V: PartialEq>(pairs: impl Iterator<Item = (K, V)>) -> BTreeMap<K, Option<V>> {
    let mut found: BTreeMap<K, Option<V>> = BTreeMap::new();
    for (key, value) in pairs {
        match found.get_mut(&key) {
            None => drop(found.insert(key, Some(value))),
            Some(known) if known.as_ref() != Some(&value) => *known = None,
            Some(_) => {}
        }
    }
    found
}

/// What agents know by its session and its id in it.
trait InSession: Clone {
    fn id(&self) -> &String;
    fn session(&mut self) -> &mut Option<String>;
    fn certainty(&self) -> Certainty;
    fn evidence(&self) -> Option<&Evidence>;
    /// Takes what it lacks from another word about the same.
    fn complete(&mut self, from: Self);
}

impl InSession for SystemPlayer {
    fn id(&self) -> &String {
        &self.id
    }

    fn session(&mut self) -> &mut Option<String> {
        &mut self.session
    }

    fn certainty(&self) -> Certainty {
        self.certainty
    }

    fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }

    fn complete(&mut self, from: Self) {
        fill(&mut self.ip, from.ip);
        fill(&mut self.dialect, from.dialect);
        fill(&mut self.instance, from.instance);
    }
}

impl InSession for Player {
    fn id(&self) -> &String {
        &self.id
    }

    fn session(&mut self) -> &mut Option<String> {
        &mut self.session
    }

    fn certainty(&self) -> Certainty {
        self.certainty
    }

    fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }

    fn complete(&mut self, from: Self) {
        fill(&mut self.name, from.name);
        fill(&mut self.long, from.long);
        fill(&mut self.ip, from.ip);
        fill(&mut self.system_id, from.system_id);
        fill(&mut self.instance, from.instance);
    }
}

/// One word about each; `settle` finishes a word of a node and says whether it is at home there. A late agent's word goes to
/// the one session that others know the id in, and completes what they say.
fn by_session<V: InSession>(
    sights: &[Sight<'_>],
    of: impl Fn(&Observed) -> &Vec<V>,
    settle: impl Fn(&mut V, &str) -> bool,
) -> Vec<V> {
    let (mut merged, mut late, mut told) = (BTreeMap::new(), Vec::new(), Vec::new());
    for sight in sights {
        for word in of(sight.observed) {
            let mut word = word.clone();
            let at_home = settle(&mut word, sight.node) && !is_hearsay(word.certainty(), word.evidence());
            match word.session().clone() {
                Some(session) => {
                    let id = word.id().clone();
                    told.push((id.clone(), session.clone()));
                    keep(&mut merged, (Some(session), id), at_home, word, weight, V::complete);
                }
                None => late.push(word),
            }
        }
    }
    let sessions = only(told.into_iter());
    for mut word in late {
        let session = sessions.get(word.id()).cloned().flatten();
        word.session().clone_from(&session);
        match merged.get_mut(&(session.clone(), word.id().clone())) {
            Some((_, known)) => known.complete(word),
            None => drop(merged.insert((session, word.id().clone()), (false, word))),
        }
    }
    merged.into_values().map(|(_, word)| word).collect()
}

/// Its agent was told so by the one before, and has seen nothing to the contrary: whoever saw it leave meanwhile knows better.
fn is_hearsay(certainty: Certainty, evidence: Option<&Evidence>) -> bool {
    certainty.is_alive() && evidence.is_some_and(Evidence::is_of_the_agent_before)
}

/// By which of two words is the newer.
fn weight(word: &impl InSession) -> f64 {
    if is_hearsay(word.certainty(), word.evidence()) { 0.0 } else { at(word.evidence()) }
}

/// Keeps of two words about one thing the home node's, else the newer; the other may fill what it lacks.
fn keep<K: Ord, V>(
    map: &mut BTreeMap<K, (bool, V)>,
    key: K,
    at_home: bool,
    value: V,
    time: impl Fn(&V) -> f64,
    complete: impl Fn(&mut V, V),
) {
    match map.remove(&key) {
        None => drop(map.insert(key, (at_home, value))),
        Some((was_home, old)) => {
            let wins = if at_home == was_home { time(&value) > time(&old) } else { at_home };
            let (mut best, other) = if wins { (value, old) } else { (old, value) };
            complete(&mut best, other);
            map.insert(key, (at_home || was_home, best));
        }
    }
}

fn newest<T, K: Ord>(
    all: impl Iterator<Item = (impl AsRef<str>, T)>,
    key: impl Fn(&T) -> K,
    evidence: impl Fn(&mut T) -> &mut Option<Evidence>,
) -> Vec<T> {
    let mut kept: BTreeMap<K, T> = BTreeMap::new();
    for (node, mut value) in all {
        stamp(evidence(&mut value), node.as_ref());
        match kept.get_mut(&key(&value)) {
            None => drop(kept.insert(key(&value), value)),
            Some(old) => {
                if at(evidence(old).as_ref()) < at(evidence(&mut value).as_ref()) {
                    *old = value;
                }
            }
        }
    }
    kept.into_values().collect()
}

fn fill<T>(into: &mut Option<T>, from: Option<T>) {
    if into.is_none() {
        *into = from;
    }
}

fn stamp(evidence: &mut Option<Evidence>, node: &str) {
    if let Some(evidence) = evidence {
        evidence.node.get_or_insert_with(|| node.to_owned());
    }
}

pub(crate) fn at(evidence: Option<&Evidence>) -> f64 {
    evidence.map_or(0.0, |evidence| evidence.at)
}

/// `10.98.0.4`; an IPX station is none.
pub(crate) fn ipv4(address: &str) -> Option<Ipv4Addr> {
    address.parse().ok()
}
