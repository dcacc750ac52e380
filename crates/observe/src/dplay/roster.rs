//! Who is in a session: machines, players, groups, from records and from what they do.
//!
//! **Invariants.** A record of a machine (system player) and one of a player never share an id. A full session takes a
//! newcomer only in the place of somebody who left.
use std::{collections::BTreeMap, time::Duration};

use wire::{
    MacAddr,
    dplay::{Dialect, Id, Player as Record, PlayerFlags, SpAddresses, Text},
};

use super::{Games, Group, Leave, Notes, Player, Process, SessionKey, System, Transport, Via};
use crate::{
    anomalies::Kind,
    machines::Step,
    stamp::{Fact, Station, clean},
};

/// Members of one group.
pub(super) const MEMBERS: usize = 256;

/// Where a machine listens, by its SP data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listens {
    station: Option<Station>,
    port: u16,
    datagram_port: Option<u16>,
}

impl Listens {
    /// `None` where there is no SP data, or one of an unknown provider. No station: "the sender's".
    fn parse(sp_data: &[u8]) -> Option<Self> {
        if let Some(sp) = SpAddresses::parse(sp_data) {
            let station = Some(*sp.tcp.ip()).filter(|ip| !ip.is_unspecified()).map(Station::Ip);
            return Some(Self { station, port: sp.tcp.port(), datagram_port: Some(sp.udp.port()) });
        }
        // sockaddr_ipx: family 6, network (4), node (6), socket (2), the latter three as on the wire.
        let [6, 0, n0, n1, n2, n3, a, b, c, d, e, f, s0, s1] = *sp_data.first_chunk::<14>()? else { return None };
        let node = MacAddr([a, b, c, d, e, f]);
        let station = Station::Ipx { network: u32::from_be_bytes([n0, n1, n2, n3]), node };
        Some(Self {
            station: Some(station).filter(|_| node != MacAddr::ZERO),
            port: u16::from_be_bytes([s0, s1]),
            datagram_port: None,
        })
    }
}

impl Games {
    /// A record of a player or machine. `own`: the program that the record is about, if it speaks of itself or of a player
    /// of its own.
    pub(super) fn take_record(
        &mut self,
        key: SessionKey,
        via: &Via,
        record: &Record<'_>,
        own: Option<Process>,
        what: &'static str,
        notes: &mut Notes<'_>,
    ) {
        let is_host = record.flags.contains(PlayerFlags::SYSTEM | PlayerFlags::NAME_SERVER);
        let listens = Listens::parse(record.sp_data);
        let station = listens.and_then(|it| it.station);
        // The sender's address stands for 0.0.0.0 in what is its own; others were filled in by the host.
        let process =
            own.or_else(|| listens.map(|it| Process { station: it.station.unwrap_or(via.from), port: it.port }));
        let machine = if record.is_system() { record.id } else { record.system_id };
        // A host's table has had it before, and it is elsewhere by now: it went without a word to that host.
        let is_stale = process.is_some_and(|process| {
            let known =
                |session: &super::Session| session.systems.get(&machine).is_some_and(|it| it.process == Some(process));
            let elsewhere =
                self.programs.get(&process).and_then(|it| it.session).is_some_and(|it| self.resolve(it) != key);
            !matches!(what, "ADDFORWARD" | "CREATEPLAYER") && elsewhere && self.sessions.get(&key).is_some_and(known)
        });
        if let Some(process) = process.filter(|_| machine != Id::NONE && !is_stale) {
            if what == "ADDFORWARD" && process.station != via.from {
                self.is_newly(process, key, machine, via.stamp());
            } else {
                self.is_in(process, key, via.stamp());
            }
        }
        if let (Some(process), Some(listens)) = (process, listens) {
            if let Some(port) = listens.datagram_port {
                self.own_datagram_port(process, port);
            }
            if !is_stale {
                self.program(process).session = Some(key);
            }
        }
        let fact = Fact::new(via.stamp(), what);
        if record.is_system() {
            let station = own.map(|own| own.station).or(station).or(process.map(|process| process.station));
            let dialect = Some(record.dialect).filter(|dialect| dialect.0 != 0);
            if let Some(process) = process.filter(|_| !is_stale) {
                self.program(process).system = Some(record.id);
            }
            self.take_system(key, record.id, process, station, dialect, fact, via.stamp().at);
            let Some(session) = self.sessions.get_mut(&key) else { return };
            if let Some(system) = session.systems.get_mut(&record.id) {
                system.announced = true;
                system.joined |= what != "ADDFORWARD";
            }
            if is_host && session.host_system.is_none() {
                session.host_system = Some(record.id);
            }
            return;
        }
        let limit = self.limits.text;
        let text = |text: Option<Text<'_>>| text.map(|text| clean(text.chars(), limit)).filter(|text| !text.is_empty());
        let (short, long) = (text(record.short_name), text(record.long_name));
        let order = self.next_order();
        let full = self.room(key, |session| &mut session.players, record.id, |player| player.left.as_ref(), via, notes);
        let Some(session) = self.sessions.get_mut(&key).filter(|_| !full) else { return };
        let ghost = session.ghosts.remove(&record.id);
        let player = session.players.entry(record.id).or_insert_with(|| Player::new(fact.clone()));
        if !player.announced {
            player.fact = fact;
        }
        player.announced = true;
        player.joined = player.joined.or(Some(order));
        player.short = short.or(player.short.take());
        player.long = long.or(player.long.take());
        player.system = Some(record.system_id).filter(|id| *id != Id::NONE).or(player.system);
        player.station = own.map(|own| own.station).or(station).or(player.station).or(Some(via.from));
        player.left = player.left.take().or(ghost).filter(|left| via.stamp().at <= left.at + AGAIN);
    }

    /// A machine of a session.
    #[expect(clippy::too_many_arguments, reason = "what is known of a machine, each part optional")]
    pub(super) fn take_system(
        &mut self,
        key: SessionKey,
        id: Id,
        process: Option<Process>,
        station: Option<Station>,
        dialect: Option<Dialect>,
        fact: Fact,
        now: Duration,
    ) {
        let limit = self.limits.players;
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if id == Id::NONE || !make_room(&mut session.systems, id, limit, |system| system.left.as_ref()) {
            return;
        }
        // It was taken for a player while only traffic showed it.
        if session.players.get(&id).is_some_and(|player| !player.announced) {
            session.players.remove(&id);
        }
        let ghost = session.ghosts.remove(&id);
        let system = session.systems.entry(id).or_insert_with(|| System {
            process: None,
            station: None,
            dialect: None,
            announced: false,
            joined: false,
            last_heard: now,
            fact,
            left: ghost,
        });
        system.process = process.or(system.process);
        system.station = station.or(system.station);
        system.dialect = dialect.or(system.dialect);
    }

    pub(super) fn take_group(&mut self, key: SessionKey, record: &Record<'_>) {
        let limit = self.limits.players;
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if record.id == Id::NONE || !make_room(&mut session.groups, record.id, limit, |_| None) {
            return;
        }
        let group = session.groups.entry(record.id).or_insert(Group { flags: 0, members: Vec::new() });
        group.flags = record.flags.0;
        for member in record.members.iter().take(MEMBERS) {
            if !group.members.contains(&member) && group.members.len() < MEMBERS {
                group.members.push(member);
            }
        }
    }

    pub(super) fn join_group(&mut self, key: SessionKey, group: Id, member: Id) {
        let limit = self.limits.players;
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if group == Id::NONE || !make_room(&mut session.groups, group, limit, |_| None) {
            return;
        }
        let group = session.groups.entry(group).or_insert(Group { flags: 0, members: Vec::new() });
        if !group.members.contains(&member) && group.members.len() < MEMBERS {
            group.members.push(member);
        }
    }

    pub(super) fn renamed(
        &mut self,
        key: SessionKey,
        via: &Via,
        id: Id,
        short: Option<Text<'_>>,
        long: Option<Text<'_>>,
        own: Option<Process>,
    ) {
        if self.with_session(key, |session| session.systems.contains_key(&id)).unwrap_or(false) {
            return;
        }
        self.player_acts(key, via, id, own, "PLAYERNAMECHANGED");
        let limit = self.limits.text;
        self.with_session(key, |session| {
            if let Some(player) = session.players.get_mut(&id) {
                for (place, text) in [(&mut player.short, short), (&mut player.long, long)] {
                    if let Some(text) = text {
                        *place = Some(clean(text.chars(), limit)).filter(|text| !text.is_empty());
                    }
                }
            }
        });
    }

    /// A player does something: it is there, even if no message showed it. Answers whether it is known now.
    pub(super) fn player_acts(
        &mut self,
        key: SessionKey,
        via: &Via,
        id: Id,
        own: Option<Process>,
        what: &'static str,
    ) -> bool {
        let system = own.and_then(|own| self.programs.get(&own)).and_then(|program| program.system);
        let limit = self.limits.players;
        let Some(session) = self.sessions.get_mut(&key) else { return false };
        if id == Id::NONE || session.systems.contains_key(&id) || session.groups.contains_key(&id) {
            return false;
        }
        if !make_room(&mut session.players, id, limit, |player| player.left.as_ref()) {
            return false;
        }
        let ghost = session.ghosts.remove(&id);
        let player = session.players.entry(id).or_insert_with(|| Player::new(Fact::new(via.stamp(), what)));
        player.left = player.left.take().or(ghost);
        if !player.announced {
            player.system = player.system.or(system);
            player.station = player.station.or(Some(via.from));
        }
        true
    }

    /// A machine does what only members do.
    pub(super) fn acts(&mut self, key: SessionKey, own: Option<Process>, system: Id, via: &Via) {
        let Some(process) = own else { return };
        let program = self.program(process);
        if system != Id::NONE {
            program.system = Some(system);
        }
        let (dialect, id) = (program.dialect, program.system);
        if let Some(id) = id {
            let fact = Fact::new(via.stamp(), "CREATEPLAYER");
            self.take_system(key, id, Some(process), Some(process.station), dialect, fact, via.stamp().at);
            self.with_session(key, |session| {
                if let Some(system) = session.systems.get_mut(&id) {
                    system.joined = true;
                }
            });
        }
    }

    /// Ports that a program announces as its own.
    pub(super) fn own_ports(&mut self, process: Process, sp_data: &[u8]) {
        if let Some(port) = Listens::parse(sp_data).and_then(|it| it.datagram_port) {
            self.own_datagram_port(process, port);
        }
    }

    pub(super) fn own_datagram_port(&mut self, process: Process, port: u16) {
        if port != 0 && port != wire::dplay::QUERY_PORT {
            self.datagram_ports.insert((process.station, port), process);
            self.program(process).datagram_port = Some(port);
        }
    }

    /// Makes room for `id`; answers whether there is none.
    fn room<V>(
        &mut self,
        key: SessionKey,
        map: impl Fn(&mut super::Session) -> &mut BTreeMap<Id, V>,
        id: Id,
        left: impl Fn(&V) -> Option<&Leave>,
        via: &Via,
        notes: &mut Notes<'_>,
    ) -> bool {
        let limit = self.limits.players;
        let Some(session) = self.sessions.get_mut(&key) else { return true };
        let full = !make_room(map(session), id, limit, left);
        if full {
            notes.anomalies.station(Kind::Full, via.from, via.stamp(), || {
                format!("more than {limit} players in one session; the rest is not listed")
            });
        }
        full
    }
}

/// First game data of a machine, and in which session.
pub(super) fn plays(key: SessionKey, via: &Via, notes: &mut Notes<'_>) {
    notes.machines.step(via.hop.source, Step::Plays, via.stamp(), "game data");
    notes.machines.plays_in(via.hop.source, key);
    if via.transport == Transport::Udp {
        notes.machines.port(via.hop.source, wire::ipv4::UDP, via.from_port, true);
    }
}

/// After so long the same id is another player's.
const AGAIN: Duration = Duration::from_secs(1);

/// Is there a place for `id`, if need be that of the one who left first?
fn make_room<V>(map: &mut BTreeMap<Id, V>, id: Id, limit: usize, left: impl Fn(&V) -> Option<&Leave>) -> bool {
    if map.contains_key(&id) || map.len() < limit {
        return true;
    }
    let gone = map.iter().filter_map(|(id, value)| Some((left(value)?.order, *id))).min();
    gone.is_some_and(|(_, id)| map.remove(&id).is_some())
}

impl Player {
    pub(super) const fn new(fact: Fact) -> Self {
        Self { system: None, station: None, short: None, long: None, announced: false, joined: None, fact, left: None }
    }
}
