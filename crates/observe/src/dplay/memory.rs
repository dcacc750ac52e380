//! What one model knows of games, for the one that comes after it: who has joined a game does not say so again.
//!
//! ```text
//! model of an agent ─memory()─> Memory ─> a file ─> Memory ─recall()─> model of the agent after it
//! ```
//! Only what still stands is handed on, and only games in which a machine of the agent's own node is: sessions, their machines and players,
//! the programs by which a message's session is found. Counts, questions, and what was said are the old agent's. What others say in games
//! without a machine of this node never comes here, so their end would not be seen; the agents of their nodes hand them on.
//!
//! **Invariants.** What is recalled is bounded by [`crate::Limits`] as what is seen is, whatever the file says. A machine that was recalled and
//! is silent goes as any other does.
use std::{collections::BTreeMap, time::Duration};

use api::observe::Evidence;
use serde::{Deserialize, Serialize};
use wire::{
    MacAddr,
    dplay::{Dialect, Guid, Id, IdKey, SessionFlags},
};

use super::{
    Games, Group, Leave, Player, Process, Program, Session, SessionKey, System, Transport, Why, message::FORMER_HOSTS,
    roster::MEMBERS,
};
use crate::{
    Point,
    stamp::{Fact, Stamp, Station, clean},
};

/// The games of one LAN, as they stand. Of no shape that others may rely on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    sessions: Vec<SessionMemory>,
    programs: Vec<ProgramMemory>,
}

impl Memory {
    /// No game is open.
    pub const fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SessionMemory {
    guid: Option<[u8; 16]>,
    application: Option<[u8; 16]>,
    name: Option<String>,
    max_players: Option<u32>,
    current_players: Option<u32>,
    flags: Option<u32>,
    dialect: Option<u16>,
    key: Option<u32>,
    transport: Transport,
    host: Option<ProgramAddress>,
    host_mac: Option<[u8; 6]>,
    host_system: Option<u32>,
    former_hosts: Vec<u32>,
    fact: FactMemory,
    systems: Vec<SystemMemory>,
    players: Vec<PlayerMemory>,
    groups: Vec<GroupMemory>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SystemMemory {
    id: u32,
    process: Option<ProgramAddress>,
    station: Option<StationMemory>,
    dialect: Option<u16>,
    announced: bool,
    joined: bool,
    fact: FactMemory,
    /// Of a host that is gone, and whose session goes on without one.
    left: Option<LeaveMemory>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct LeaveMemory {
    why: Why,
    at: Duration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PlayerMemory {
    id: u32,
    system: Option<u32>,
    station: Option<StationMemory>,
    short: Option<String>,
    long: Option<String>,
    announced: bool,
    /// Which one in the order of joining, over all sessions.
    joined: Option<u32>,
    fact: FactMemory,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct GroupMemory {
    id: u32,
    flags: u32,
    members: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ProgramMemory {
    process: ProgramAddress,
    /// Places in [`Memory::sessions`].
    session: Option<usize>,
    hosts: Vec<usize>,
    system: Option<u32>,
    dialect: Option<u16>,
    datagram_port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct FactMemory {
    at: Duration,
    what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum StationMemory {
    Ip(std::net::Ipv4Addr),
    Ipx { network: u32, node: [u8; 6] },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct ProgramAddress {
    station: StationMemory,
    port: u16,
}

impl From<Station> for StationMemory {
    fn from(station: Station) -> Self {
        match station {
            Station::Ip(ip) => Self::Ip(ip),
            Station::Ipx { network, node } => Self::Ipx { network, node: node.0 },
        }
    }
}

impl From<StationMemory> for Station {
    fn from(memory: StationMemory) -> Self {
        match memory {
            StationMemory::Ip(ip) => Self::Ip(ip),
            StationMemory::Ipx { network, node } => Self::Ipx { network, node: MacAddr(node) },
        }
    }
}

impl From<Process> for ProgramAddress {
    fn from(process: Process) -> Self {
        Self { station: process.station.into(), port: process.port }
    }
}

impl From<ProgramAddress> for Process {
    fn from(memory: ProgramAddress) -> Self {
        Self { station: memory.station.into(), port: memory.port }
    }
}

impl From<&Fact> for FactMemory {
    fn from(fact: &Fact) -> Self {
        Self { at: fact.stamp.at, what: fact.what.clone().into_owned() }
    }
}

impl FactMemory {
    /// Of no frame that this model counted.
    fn fact(&self, limit: usize) -> Fact {
        let mut what = clean(self.what.chars(), limit);
        if !what.ends_with(Evidence::BEFORE) {
            what.push_str(Evidence::BEFORE);
        }
        Fact::new(Stamp { at: self.at, frame: 0, point: Point::Wire }, what)
    }
}

impl Session {
    /// A machine is in it, or its host, which this model has heard answer, waits for the first. A session without a name is known again
    /// by whoever acts in it.
    fn stands(&self) -> bool {
        let waits = || self.answered.is_some() && self.host.is_some() && self.host_left.is_none();
        let is_in = self.systems.values().any(|system| system.left.is_none());
        self.guid.is_some() && (is_in || self.systems.is_empty() && waits())
    }

    /// Of a machine that is in it, or of its host.
    fn has(&self, is_it: impl Fn(Station) -> bool) -> bool {
        let there = self.systems.values().filter(|system| system.left.is_none()).filter_map(|system| system.station);
        let host = self.host.filter(|_| !self.host_is_gone()).map(|host| host.station);
        there.chain(host).any(is_it)
    }

    pub(super) fn host_is_gone(&self) -> bool {
        let system = self.host_system.and_then(|id| self.systems.get(&id));
        self.host_left.is_some() || system.is_some_and(|system| system.left.is_some())
    }

    fn is_here(&self, system: Option<Id>) -> bool {
        system.and_then(|id| self.systems.get(&id)).is_some_and(|system| system.left.is_none())
    }

    fn memory(&self) -> SessionMemory {
        // The last one who goes ends the session, if its host is known to be gone.
        let systems =
            self.systems.iter().filter(|(id, system)| system.left.is_none() || self.host_system == Some(**id));
        // A player of no machine would never be taken for gone.
        let players = self.players.iter().filter(|(_, player)| player.left.is_none() && self.is_here(player.system));
        SessionMemory {
            guid: self.guid.map(|guid| guid.0),
            application: self.application.map(|guid| guid.0),
            name: self.name.clone(),
            max_players: self.max_players,
            current_players: self.current_players,
            flags: self.flags.map(|flags| flags.0),
            dialect: self.dialect.map(|dialect| dialect.0),
            key: self.key.map(|key| key.0),
            transport: self.transport,
            host: self.host.map(Into::into),
            host_mac: self.host_mac.map(|mac| mac.0),
            host_system: self.host_system.map(|id| id.0),
            former_hosts: self.former_hosts.iter().map(|id| id.0).collect(),
            fact: (&self.fact).into(),
            systems: systems
                .map(|(id, system)| SystemMemory {
                    id: id.0,
                    process: system.process.map(Into::into),
                    station: system.station.map(Into::into),
                    dialect: system.dialect.map(|dialect| dialect.0),
                    announced: system.announced,
                    joined: system.joined,
                    fact: (&system.fact).into(),
                    left: system
                        .left
                        .as_ref()
                        .and_then(|left| Some(LeaveMemory { why: *left.reasons.last()?, at: left.at })),
                })
                .collect(),
            players: players
                .map(|(id, player)| PlayerMemory {
                    id: id.0,
                    system: player.system.map(|id| id.0),
                    station: player.station.map(Into::into),
                    short: player.short.clone(),
                    long: player.long.clone(),
                    announced: player.announced,
                    joined: player.joined.and_then(|order| order.try_into().ok()),
                    fact: (&player.fact).into(),
                })
                .collect(),
            groups: self
                .groups
                .iter()
                .map(|(id, group)| GroupMemory {
                    id: id.0,
                    flags: group.flags,
                    members: group.members.iter().map(|id| id.0).collect(),
                })
                .collect(),
        }
    }
}

impl Games {
    pub(crate) fn memory(&self, is_ours: impl Fn(Station) -> bool) -> Memory {
        let mut places: BTreeMap<SessionKey, usize> = BTreeMap::new();
        let mut sessions = Vec::new();
        for (key, session) in self.sessions.by_birth() {
            if session.stands() && session.has(&is_ours) {
                places.insert(*key, sessions.len());
                sessions.push(session.memory());
            }
        }
        let place = |key: &SessionKey| places.get(&self.resolve(*key)).copied();
        let programs = self.programs.by_birth().into_iter().filter_map(|(process, program)| {
            let hosts: Vec<usize> = program.hosts.iter().filter_map(place).collect();
            let session = program.session.as_ref().and_then(place);
            (session.is_some() || !hosts.is_empty()).then(|| ProgramMemory {
                process: (*process).into(),
                session,
                hosts,
                system: program.system.map(|id| id.0),
                dialect: program.dialect.map(|dialect| dialect.0),
                datagram_port: program.datagram_port,
            })
        });
        Memory { programs: programs.collect(), sessions }
    }

    /// For a model that has seen nothing yet. `now`: from when on who is silent is gone.
    pub(crate) fn recall(&mut self, memory: &Memory, now: Duration) {
        let keys: Vec<SessionKey> = memory.sessions.iter().map(|session| self.recall_session(session, now)).collect();
        let key = |place: usize| keys.get(place).copied();
        for program in &memory.programs {
            let process = program.process.into();
            let recalled = Program {
                session: program.session.and_then(key),
                hosts: program.hosts.iter().filter_map(|place| key(*place)).take(self.limits.sessions).collect(),
                system: program.system.map(Id),
                offered: None,
                dialect: program.dialect.map(Dialect),
                datagram_port: None,
            };
            self.programs.insert(process, recalled);
            if let Some(port) = program.datagram_port {
                self.own_datagram_port(process, port);
            }
        }
    }

    fn recall_session(&mut self, memory: &SessionMemory, now: Duration) -> SessionKey {
        let (players, text) = (self.limits.players, self.limits.text);
        let words = |words: &Option<String>| words.as_ref().map(|words| clean(words.chars(), text));
        let mut session = Session {
            guid: memory.guid.map(Guid),
            application: memory.application.map(Guid),
            name: words(&memory.name),
            max_players: memory.max_players,
            current_players: memory.current_players,
            flags: memory.flags.map(SessionFlags),
            dialect: memory.dialect.map(Dialect),
            key: memory.key.map(IdKey),
            host: memory.host.map(Into::into),
            host_mac: memory.host_mac.map(MacAddr),
            host_system: memory.host_system.map(Id),
            former_hosts: memory.former_hosts.iter().rev().take(FORMER_HOSTS).rev().copied().map(Id).collect(),
            ..Session::new(memory.transport, memory.fact.fact(text))
        };
        for system in memory.systems.iter().take(players) {
            let recalled = System {
                process: system.process.map(Into::into),
                station: system.station.map(Into::into),
                dialect: system.dialect.map(Dialect),
                announced: system.announced,
                joined: system.joined,
                last_heard: now,
                fact: system.fact.fact(text),
                left: system.left.as_ref().map(|left| Leave {
                    reasons: vec![left.why],
                    at: left.at.min(now),
                    order: 0,
                }),
            };
            session.systems.insert(Id(system.id), recalled);
        }
        for player in memory.players.iter().take(players) {
            if session.systems.contains_key(&Id(player.id)) {
                continue;
            }
            let recalled = Player {
                system: player.system.map(Id),
                station: player.station.map(Into::into),
                short: words(&player.short),
                long: words(&player.long),
                announced: player.announced,
                joined: player.joined.map(u64::from),
                ..Player::new(player.fact.fact(text))
            };
            self.order = self.order.max(recalled.joined.unwrap_or_default());
            session.players.insert(Id(player.id), recalled);
        }
        for group in memory.groups.iter().take(players) {
            let members = group.members.iter().take(MEMBERS).copied().map(Id).collect();
            session.groups.insert(Id(group.id), Group { flags: group.flags, members });
        }
        let key = self.next_session;
        self.next_session = self.next_session.wrapping_add(1);
        if let Some(guid) = session.guid {
            self.by_guid.insert(guid, key);
        }
        self.sessions.insert(key, session);
        key
    }
}
