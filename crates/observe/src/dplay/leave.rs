//! Who is gone, and how it shows: a message, the end of a TCP connection, an ICMP error, silence (protocols.md 1.6).
//!
//! **Invariants.** Of a connection only the side that ends it first is taken for gone, and only towards a machine that is
//! still there: the other side merely answers. Who was taken for gone without a message of its session and speaks again is
//! back.
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::dplay::{Id, QUERY_PORT};

use super::{Ends, Games, Leave, Process, SessionKey, System, Via};
use crate::{
    stamp::{Stamp, Station},
    tcp::End,
};

/// Evidence that somebody left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Why {
    Message,
    YouAreDead,
    Fin,
    Reset,
    Icmp,
    Silence,
    /// Who plugs machines in says that it is on another LAN.
    Moved,
    /// Another machine says that it is host now: the old one is gone, or wrongly taken for it.
    NameServer,
    /// Its program is in a session anew, this one or another: one that listens at a port is in one session at most.
    Anew,
}

impl Why {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Message => "DELETEPLAYER",
            Self::YouAreDead => "YOUAREDEAD",
            Self::Fin => "TCP FIN",
            Self::Reset => "TCP RST",
            Self::Icmp => "ICMP port unreachable",
            Self::Silence => "silence",
            Self::Moved => "moved to another LAN",
            Self::NameServer => "IAMNAMESERVER",
            Self::Anew => "in a game anew",
        }
    }

    /// Not of the session's own word: traffic can refute it.
    const fn is_weak(self) -> bool {
        !matches!(self, Self::Message | Self::YouAreDead)
    }
}

/// A datagram that was sent before may arrive after: only what comes later brings somebody back.
const BACK: Duration = Duration::from_secs(1);

impl Games {
    /// A message deletes a player, or a machine with its players.
    pub(super) fn deleted(&mut self, key: SessionKey, id: Id, stamp: Stamp, why: Why) {
        let order = self.next_order();
        let limit = self.limits.players;
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if session.systems.contains_key(&id) {
            self.gone(key, id, stamp, why);
        } else if let Some(player) = session.players.get_mut(&id) {
            add(&mut player.left, why, stamp.at, order);
        } else if id != Id::NONE && session.ghosts.len() < limit {
            add(
                session.ghosts.entry(id).or_insert(Leave { reasons: Vec::new(), at: stamp.at, order }),
                why,
                stamp.at,
                order,
            );
        }
    }

    /// A machine is gone, and its players with it.
    pub(super) fn gone(&mut self, key: SessionKey, system: Id, stamp: Stamp, why: Why) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let mut order = self.order;
        let mut players: Vec<_> =
            session.players.iter_mut().filter(|(_, player)| player.system == Some(system)).collect();
        players.sort_by_key(|(_, player)| player.joined);
        for (_, player) in players {
            order += 1;
            add(&mut player.left, why, stamp.at, order);
        }
        if let Some(machine) = session.systems.get_mut(&system) {
            order += 1;
            add(&mut machine.left, why, stamp.at, order);
        }
        self.order = order;
    }

    /// A machine was told that it is out.
    pub(super) fn told_dead(&mut self, via: &Via, ends: Ends) {
        let Some(system) = ends.to.and_then(|to| self.programs.get(&to)).and_then(|program| program.system) else {
            return;
        };
        if let Some(key) = self.session_of(ends, &[system]) {
            self.gone(key, system, via.stamp(), Why::YouAreDead);
        }
    }

    /// A program asks to join: it is in no session, and hosts none.
    pub(super) fn asks_to_join(&mut self, process: Process, stamp: Stamp) {
        self.is_out(process, None, None, stamp);
        let program = self.program(process);
        program.hosts.clear();
        (program.session, program.system, program.offered) = (None, None, None);
    }

    /// A program hosts a session: it is in no other.
    pub(super) fn hosts_now(&mut self, process: Process, session: SessionKey, stamp: Stamp) {
        self.is_out(process, Some(session), None, stamp);
    }

    /// A host shows the program to the others as `id`, a newcomer in its session: it is in no other, and is nobody else in this one.
    pub(super) fn is_newly(&mut self, process: Process, session: SessionKey, id: Id, stamp: Stamp) {
        self.is_out(process, Some(session), Some(id), stamp);
    }

    /// The program is in a session by its own word or its host's: it is in no other. In the session itself, a host's table may still have
    /// who was at that port before, and whoever serves others speaks for them.
    pub(super) fn is_in(&mut self, process: Process, session: SessionKey, stamp: Stamp) {
        if !self.hosts_still(process) {
            self.is_out(process, Some(session), None, stamp);
        }
    }

    fn hosts_still(&self, process: Process) -> bool {
        let hosts = self.programs.get(&process).map_or(&[][..], |program| &program.hosts);
        let mut sessions = hosts.iter().filter_map(|key| self.sessions.get(&self.resolve(*key)));
        sessions.any(|session| session.host == Some(process) && !session.host_is_gone())
    }

    /// Of the program's sessions but `session`, and of that as well if it is somebody else than `id` there: whatever machine listened at its
    /// port, and the host that waited there for the first.
    fn is_out(&mut self, process: Process, session: Option<SessionKey>, id: Option<Id>, stamp: Stamp) {
        let mut keys = self.sessions_of(Some(process));
        keys.retain(|key| Some(*key) != session || id.is_some());
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let order = self.next_order();
            let Some(old) = self.sessions.get_mut(&key) else { continue };
            if old.systems.is_empty() && old.host == Some(process) && Some(key) != session {
                old.host_left.get_or_insert_with(|| Leave { reasons: vec![Why::Anew], at: stamp.at, order });
            }
            let kept = id.filter(|_| Some(key) == session);
            let was = |system: &System| system.process == Some(process) && system.left.is_none();
            let systems = old.systems.iter().filter(|(id, system)| was(system) && Some(**id) != kept);
            let gone: Vec<Id> = systems.map(|(id, _)| *id).collect();
            for id in gone {
                self.gone(key, id, stamp, Why::Anew);
            }
        }
    }

    /// A side ended a TCP connection first.
    pub(crate) fn closed(&mut self, from: Option<Process>, to: Option<Process>, end: End, stamp: Stamp) {
        let (Some((key, own)), Some((other_key, other))) = (self.member(from), self.member(to)) else { return };
        let why = if end == End::Fin { Why::Fin } else { Why::Reset };
        let Some(session) = self.sessions.get(&key).filter(|_| key == other_key) else { return };
        // Two that are not host may part without leaving; nobody leaves a game and stays with its host.
        let of_host = session.host_system.is_none_or(|host| host == own || host == other);
        if of_host && own != other {
            self.gone(key, own, stamp, why);
        }
    }

    /// Nobody listens at a port where a member of a session did: by RST to a SYN, or by an ICMP error.
    pub(crate) fn not_listening(&mut self, station: Station, port: u16, tcp: bool, stamp: Stamp) {
        let why = if tcp { Why::Reset } else { Why::Icmp };
        if !tcp && port == QUERY_PORT {
            // The helper serves all games of a machine.
            let mut hosts: Vec<_> = self
                .programs
                .iter()
                .filter(|(it, program)| it.station == station && !program.hosts.is_empty())
                .map(|(process, _)| *process)
                .collect();
            hosts.sort_unstable();
            for process in hosts {
                if let Some((key, system)) = self.member(Some(process)) {
                    self.gone(key, system, stamp, why);
                }
            }
            return;
        }
        let process =
            if tcp { Some(Process { station, port }) } else { self.datagram_ports.get(&(station, port)).copied() };
        if let Some((key, system)) = self.member(process) {
            self.gone(key, system, stamp, why);
        }
    }

    /// The session and machine of a program that is in one, and is not gone.
    fn member(&self, process: Option<Process>) -> Option<(SessionKey, Id)> {
        let id = self.programs.get(&process?)?.system?;
        let key = self.sessions_of(process).into_iter().find(|key| {
            self.sessions
                .get(key)
                .and_then(|session| session.systems.get(&id))
                .is_some_and(|it| it.left.is_none() && it.joined)
        })?;
        Some((key, id))
    }

    /// A program speaks: if it was taken for gone without a message, it is not.
    pub(super) fn alive(&mut self, process: Option<Process>, now: Duration) {
        let Some(id) = process.and_then(|process| self.programs.get(&process)).and_then(|program| program.system)
        else {
            return;
        };
        let current = process.and_then(|process| self.programs.get(&process)?.session).map(|key| self.resolve(key));
        for key in self.sessions_of(process) {
            let Some(session) = self.sessions.get_mut(&key) else { continue };
            let Some(system) = session.systems.get_mut(&id) else { continue };
            system.last_heard = now;
            // It may well speak, in the session that it is in now.
            let elsewhere = |left: &Leave| left.reasons.contains(&Why::Anew) && Some(key) != current;
            let wrong = system.left.as_ref().is_some_and(|left| left.is_refuted(now) && !elsewhere(left));
            if wrong {
                system.left = None;
                for player in session.players.values_mut().filter(|player| player.system == Some(id)) {
                    player.left = player.left.take().filter(|left| !left.is_refuted(now));
                }
            }
        }
    }

    /// Machines of which no frame came for so long are gone. `heard`: when a station last sent any frame.
    pub(crate) fn silent(&mut self, stamp: Stamp, limit: Duration, heard: impl Fn(Station) -> Option<Duration>) {
        self.all_gone(stamp, Why::Silence, |system| {
            let last = system.station.and_then(&heard).unwrap_or(system.last_heard).max(system.last_heard);
            stamp.at.saturating_sub(last) > limit
        });
    }

    /// Machines at these stations are on this LAN no more.
    pub(crate) fn moved(&mut self, stamp: Stamp, is_it: impl Fn(Station) -> bool) {
        self.all_gone(stamp, Why::Moved, |system| system.station.is_some_and(&is_it));
        let mut lone = Vec::new();
        for (key, session) in self.sessions.iter() {
            let waits = session.systems.is_empty() && session.host_left.is_none();
            if waits && session.host.is_some_and(|host| is_it(host.station)) {
                lone.push(*key);
            }
        }
        lone.sort_unstable();
        for key in lone {
            let order = self.next_order();
            if let Some(session) = self.sessions.get_mut(&key) {
                add(&mut session.host_left, Why::Moved, stamp.at, order);
            }
        }
    }

    fn all_gone(&mut self, stamp: Stamp, why: Why, is_gone: impl Fn(&System) -> bool) {
        let mut gone = Vec::new();
        for (key, session) in self.sessions.iter() {
            let there = session.systems.iter().filter(|(_, system)| system.left.is_none());
            gone.extend(there.filter(|(_, system)| is_gone(system)).map(|(id, _)| (*key, *id)));
        }
        gone.sort_unstable();
        for (key, id) in gone {
            self.gone(key, id, stamp, why);
        }
    }
}

impl Leave {
    fn is_refuted(&self, now: Duration) -> bool {
        self.reasons.iter().all(|why| why.is_weak()) && now > self.at + BACK
    }

    /// For people: each reason once, in their order.
    pub(super) fn words(&self) -> String {
        self.reasons.iter().map(|why| why.name()).collect::<Vec<_>>().join(", then ")
    }

    pub(super) fn certainty(&self) -> api::observe::Certainty {
        use api::observe::Certainty;
        match self.reasons.last() {
            Some(Why::Fin) => Certainty::GoneByFin,
            Some(Why::Reset) => Certainty::GoneByReset,
            Some(Why::Icmp) => Certainty::GoneByIcmp,
            // Nothing more will be heard of it.
            Some(Why::Silence | Why::Moved) => Certainty::GoneBySilence,
            Some(Why::Message | Why::YouAreDead | Why::NameServer | Why::Anew) | None => Certainty::GoneByMessage,
        }
    }
}

/// Notes a reason. What only hinted at it is replaced; a message that confirms it is added.
fn add(left: &mut impl Slot, why: Why, at: Duration, order: u64) {
    let left = left.slot(at, order);
    let only = |it: Why| left.reasons.as_slice() == [it];
    if only(Why::NameServer) || only(Why::Silence) || only(Why::Moved) {
        left.reasons.clear();
    }
    let confirms = left.reasons.is_empty() || why == Why::Message && left.reasons.iter().all(|it| it.is_weak());
    if confirms {
        left.reasons.push(why);
    }
}

/// A place for a [`Leave`].
trait Slot {
    fn slot(&mut self, at: Duration, order: u64) -> &mut Leave;
}

impl Slot for Option<Leave> {
    fn slot(&mut self, at: Duration, order: u64) -> &mut Leave {
        self.get_or_insert_with(|| Leave { reasons: Vec::new(), at, order })
    }
}

impl Slot for Leave {
    fn slot(&mut self, _: Duration, _: u64) -> &mut Leave {
        self
    }
}
