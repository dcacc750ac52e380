//! DirectPlay 4: sessions, the machines in them (system players), their players; from messages alone.
//!
//! ```text
//!  ENUMSESSIONSREPLY, SUPERENUMPLAYERSREPLY, SESSIONDESCCHANGED name a session by its instance GUID
//!  every other message belongs to the session of the program that sends or gets it
//!      program = (address, listening port): over TCP/IP each message tells it; over IPX it is the socket
//! ```
//! **Invariants.** A session is never told by an address: two games on one host are two sessions, a host with two cards is
//! one machine. A session whose GUID is not known yet is anonymous, and becomes the one whose GUID is heard later. Passwords
//! are never copied out of a message. Everything is bounded by [`Limits`].
mod leave;
mod memory;
mod message;
mod report;
mod roster;
mod user;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use wire::{
    MacAddr,
    dplay::{Command, Dialect, Guid, Id, IdKey, SessionFlags},
};

pub(crate) use self::leave::Why;
pub use self::memory::Memory;
use crate::{
    Limits,
    anomalies::Anomalies,
    fragments::Pieces,
    machines::Machines,
    stamp::{Fact, Hop, Process, Stamp, Station},
    table::Table,
};

/// Where a message went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Via {
    pub(crate) hop: Hop,
    pub(crate) from: Station,
    pub(crate) to: Station,
    pub(crate) transport: Transport,
    pub(crate) from_port: u16,
    pub(crate) to_port: u16,
    /// Over TCP: the program that gets it, by what its other direction showed.
    pub(crate) receiver: Option<Process>,
}

impl Via {
    pub(crate) const fn stamp(&self) -> Stamp {
        self.hop.stamp
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Transport {
    Tcp,
    Udp,
    Ipx,
}

/// What the model says to others while it reads a message.
pub(crate) struct Notes<'a> {
    pub(crate) anomalies: &'a mut Anomalies,
    pub(crate) machines: &'a mut Machines,
}

pub(crate) type SessionKey = u32;

#[derive(Debug, Clone)]
struct Session {
    guid: Option<Guid>,
    application: Option<Guid>,
    name: Option<String>,
    max_players: Option<u32>,
    current_players: Option<u32>,
    flags: Option<SessionFlags>,
    dialect: Option<Dialect>,
    key: Option<IdKey>,
    transport: Transport,
    /// Who answers for it, or said that it is host.
    host: Option<Process>,
    host_mac: Option<MacAddr>,
    host_system: Option<Id>,
    /// Its host is gone before any machine of it was known: it waited for the first to join.
    host_left: Option<Leave>,
    /// Oldest first; the last sixteen.
    former_hosts: VecDeque<Id>,
    /// Who was last answered, and when: two answers by two hosts to one asker are one too many.
    answered: Option<(Station, Duration)>,
    /// When a machine last said that it is host from now on.
    claimed: Option<(Id, Duration)>,
    fact: Fact,
    systems: BTreeMap<Id, System>,
    players: BTreeMap<Id, Player>,
    groups: BTreeMap<Id, Group>,
    /// Ids that were deleted before anything else was known of them: players, or machines.
    ghosts: BTreeMap<Id, Leave>,
}

/// A machine in a session.
#[derive(Debug, Clone)]
struct System {
    process: Option<Process>,
    station: Option<Station>,
    dialect: Option<Dialect>,
    /// A message showed it, not only traffic.
    announced: bool,
    /// It is in: the host showed it everybody, or it acts as a member.
    joined: bool,
    last_heard: Duration,
    fact: Fact,
    left: Option<Leave>,
}

#[derive(Debug, Clone)]
struct Player {
    system: Option<Id>,
    station: Option<Station>,
    short: Option<String>,
    long: Option<String>,
    announced: bool,
    /// When it was first announced, counted over all sessions.
    joined: Option<u64>,
    fact: Fact,
    left: Option<Leave>,
}

#[derive(Debug, Clone)]
struct Group {
    flags: u32,
    members: Vec<Id>,
}

/// Why somebody is taken for gone; the first reason comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Leave {
    reasons: Vec<Why>,
    at: Duration,
    order: u64,
}

/// A program that speaks DirectPlay.
#[derive(Debug, Clone, Default)]
struct Program {
    /// The session that it is in.
    session: Option<SessionKey>,
    /// Sessions for which it answers, the last one first. More than one only if it gives several out at one port.
    hosts: Vec<SessionKey>,
    system: Option<Id>,
    /// An id that the host gave it, while it is not in yet.
    offered: Option<Id>,
    dialect: Option<Dialect>,
    datagram_port: Option<u16>,
}

#[derive(Debug, Clone)]
struct Asker {
    count: u64,
    application: Guid,
    /// With the time of the last answer.
    answered_by: Vec<(SessionKey, Duration)>,
    dialect: Dialect,
    /// Where the questions went; the first eight.
    to: Vec<Station>,
    refused: u64,
    unanswered: u64,
    first: Fact,
    last: Fact,
    mac: MacAddr,
}

#[derive(Debug, Clone)]
struct Refusal {
    station: Station,
    session: Option<SessionKey>,
    result: u32,
    fact: Fact,
}

#[derive(Debug, Clone)]
struct ChatLine {
    session: Option<SessionKey>,
    from: Id,
    text: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Games {
    limits: Limits,
    /// The specification's commands, and one line for all others.
    commands: BTreeMap<Command, u64>,
    sessions: Table<SessionKey, Session>,
    by_guid: Table<Guid, SessionKey>,
    /// Anonymous sessions that turned out to be another one.
    merged: Table<SessionKey, SessionKey>,
    next_session: SessionKey,
    programs: Table<Process, Program>,
    datagram_ports: Table<(Station, u16), Process>,
    pieces: Pieces<(Station, Guid)>,
    askers: Table<Process, Asker>,
    refused: VecDeque<Refusal>,
    chat: VecDeque<ChatLine>,
    /// User messages by sender and receiver: over datagrams, over TCP.
    user: Table<(Station, Station), (u64, u64)>,
    /// Datagrams that may be user messages: from, to, id, how many.
    strangers: Table<(Process, Process, Id), u64>,
    /// Counts joins and leaves.
    order: u64,
}

/// Commands that no table knows are counted together.
const UNKNOWN: Command = Command(0);

impl Games {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            limits: *limits,
            commands: BTreeMap::new(),
            sessions: Table::new(limits.sessions),
            by_guid: Table::new(limits.sessions),
            merged: Table::new(limits.sessions),
            next_session: 0,
            programs: Table::new(limits.processes),
            datagram_ports: Table::new(limits.processes),
            pieces: Pieces::new(limits.fragments, limits.fragment_bytes, Duration::from_secs(15)),
            askers: Table::new(limits.lines),
            refused: VecDeque::new(),
            chat: VecDeque::new(),
            user: Table::new(limits.pairs),
            strangers: Table::new(limits.lines),
            order: 0,
        }
    }

    /// Somebody said that it listens there.
    pub(crate) fn is_announced(&self, process: Process) -> bool {
        self.programs.contains(&process)
    }

    /// It answers for a session.
    pub(crate) fn is_host(&self, process: Process) -> bool {
        self.programs.get(&process).is_some_and(|program| !program.hosts.is_empty())
    }

    /// A datagram port that a program announced, or that a datagram of it came from.
    pub(crate) fn is_datagram_port(&self, station: Station, port: u16) -> bool {
        self.datagram_ports.contains(&(station, port))
    }

    /// Entries of all tables: what the limits bound.
    pub(crate) fn entries(&self) -> usize {
        let in_session = |session: &Session| {
            session.systems.len() + session.players.len() + session.groups.len() + session.ghosts.len()
        };
        let sessions: usize = self.sessions.iter().map(|(_, session)| 1 + in_session(session)).sum();
        sessions
            + [self.by_guid.len(), self.merged.len(), self.programs.len(), self.datagram_ports.len()]
                .iter()
                .sum::<usize>()
            + [self.pieces.len(), self.askers.len(), self.refused.len(), self.chat.len()].iter().sum::<usize>()
            + self.user.len()
            + self.strangers.len()
            + self.commands.len()
    }

    pub(crate) const fn held(&self) -> usize {
        self.pieces.held()
    }

    fn count(&mut self, command: Command) -> bool {
        let known = command.name().is_some();
        *self.commands.entry(if known { command } else { UNKNOWN }).or_default() += 1;
        known
    }

    fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// The session that a key stands for by now.
    fn resolve(&self, mut key: SessionKey) -> SessionKey {
        // A chain of a few: an anonymous session merges once. The count ends a loop that cannot be.
        for _ in 0..8 {
            match self.merged.get(&key) {
                Some(next) => key = *next,
                None => break,
            }
        }
        key
    }

    /// Sessions of a program, the likeliest first.
    fn sessions_of(&self, process: Option<Process>) -> Vec<SessionKey> {
        let Some(program) = process.and_then(|process| self.programs.get(&process)) else { return Vec::new() };
        let keys = program.session.iter().chain(&program.hosts);
        keys.map(|key| self.resolve(*key)).filter(|key| self.sessions.contains(key)).collect()
    }

    /// The session that a message belongs to: one of its sender's or receiver's, where possible one that knows an id in it.
    fn session_of(&self, ends: Ends, ids: &[Id]) -> Option<SessionKey> {
        let mut keys = self.sessions_of(ends.from);
        keys.extend(self.sessions_of(ends.to));
        let knows =
            |key: &&SessionKey| self.sessions.get(key).is_some_and(|session| ids.iter().any(|id| session.knows(*id)));
        keys.iter().find(knows).or(keys.first()).copied()
    }

    /// A session that has one of these ids at this station: the same program at another port of its own.
    fn session_with(&self, station: Station, ids: &[Id]) -> Option<SessionKey> {
        let at = |session: &Session, id: &Id| {
            let player = session.players.get(id).and_then(|player| player.station);
            player.or(session.systems.get(id).and_then(|system| system.station)) == Some(station)
        };
        let mut found = self.sessions.iter().filter(|(_, session)| ids.iter().any(|id| at(session, id)));
        found.next().map(|(key, _)| *key)
    }

    /// As [`Self::session_of`], for messages that only members send: an anonymous session, if there is none. Both ends are
    /// members from then on.
    fn session_of_members(&mut self, via: &Via, ends: Ends, ids: &[Id], what: &'static str) -> SessionKey {
        let known = self.session_of(ends, ids).or_else(|| self.session_with(via.from, ids));
        let key = known.unwrap_or_else(|| {
            let key = self.next_session;
            self.next_session = self.next_session.wrapping_add(1);
            self.merged.remove(&key);
            self.sessions.insert(key, Session::new(via.transport, Fact::new(via.stamp(), what)));
            key
        });
        for process in [ends.from, ends.to].into_iter().flatten() {
            let known = self.sessions_of(Some(process));
            if known.is_empty() {
                self.program(process).session = Some(key);
            }
        }
        key
    }

    /// The session with this GUID. `process` is in it: what was known of its anonymous one is moved.
    fn session_by_guid(&mut self, via: &Via, process: Option<Process>, guid: Guid, what: &'static str) -> SessionKey {
        let known = self.by_guid.get(&guid).copied().map(|key| self.resolve(key));
        let known = known.filter(|key| self.sessions.contains(key));
        let is_anonymous = |key: &SessionKey| self.sessions.get(key).is_some_and(|session| session.guid.is_none());
        let anonymous = self.sessions_of(process).into_iter().find(is_anonymous);
        let key = match (known, anonymous) {
            (Some(key), Some(anonymous)) => {
                self.merge(anonymous, key);
                key
            }
            (Some(key), None) | (None, Some(key)) => key,
            (None, None) => {
                let key = self.next_session;
                self.next_session = self.next_session.wrapping_add(1);
                self.merged.remove(&key);
                self.sessions.insert(key, Session::new(via.transport, Fact::new(via.stamp(), what)));
                key
            }
        };
        self.by_guid.insert(guid, key);
        if let Some(session) = self.sessions.get_mut(&key) {
            session.guid = Some(guid);
        }
        key
    }

    fn merge(&mut self, from: SessionKey, into: SessionKey) {
        let Some(old) = self.sessions.remove(&from) else { return };
        self.merged.insert(from, into);
        if let Some(session) = self.sessions.get_mut(&into) {
            session.host_system = session.host_system.or(old.host_system);
            session.host = session.host.or(old.host);
            merge_map(&mut session.systems, old.systems, self.limits.players);
            merge_map(&mut session.players, old.players, self.limits.players);
            merge_map(&mut session.groups, old.groups, self.limits.players);
            merge_map(&mut session.ghosts, old.ghosts, self.limits.players);
        }
    }

    fn program(&mut self, process: Process) -> &mut Program {
        self.programs.entry(process, Program::default)
    }

    /// The name of a session, for other parts of the report.
    pub(crate) fn session_name(&self, key: SessionKey) -> Option<String> {
        self.sessions.get(&self.resolve(key))?.name.clone()
    }
}

fn merge_map<V>(into: &mut BTreeMap<Id, V>, from: BTreeMap<Id, V>, limit: usize) {
    for (id, value) in from {
        if into.len() < limit {
            into.entry(id).or_insert(value);
        }
    }
}

impl Session {
    const fn new(transport: Transport, fact: Fact) -> Self {
        Self {
            guid: None,
            application: None,
            name: None,
            max_players: None,
            current_players: None,
            flags: None,
            dialect: None,
            key: None,
            transport,
            host: None,
            host_mac: None,
            host_system: None,
            host_left: None,
            former_hosts: VecDeque::new(),
            answered: None,
            claimed: None,
            fact,
            systems: BTreeMap::new(),
            players: BTreeMap::new(),
            groups: BTreeMap::new(),
            ghosts: BTreeMap::new(),
        }
    }

    fn knows(&self, id: Id) -> bool {
        id != Id::NONE
            && (self.players.contains_key(&id) || self.systems.contains_key(&id) || self.groups.contains_key(&id))
    }
}

/// The programs at both ends of a message, as far as known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    from: Option<Process>,
    to: Option<Process>,
}
