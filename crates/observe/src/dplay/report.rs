//! The part of the report that tells of DirectPlay 4.
use std::collections::BTreeMap;

use api::observe::{
    Certainty, Chat, Enumeration, Group, Left, Observed, Player, Refused, Session, SystemPlayer, UserMessages,
};
use wire::dplay::{Id, SessionFlags};

use super::{Fact, Games, Leave, Session as State, SessionKey, Transport, UNKNOWN};
use crate::{
    machines::Machines,
    stamp::{Station, hex, seconds},
};

impl Games {
    pub(crate) fn report(&self, machines: &Machines, into: &mut Observed) {
        let evidence = |fact: &Fact| machines.evidence(fact);
        into.dplay_commands = self
            .commands
            .iter()
            .map(|(command, count)| {
                let name = if *command == UNKNOWN { "unknown" } else { command.name().unwrap_or("unknown") };
                (name.to_owned(), *count)
            })
            .collect();
        into.enumerations = self.enumerations(machines);
        let (mut joins, mut leaves) = (BTreeMap::new(), BTreeMap::new());
        for (_, session) in self.sessions.by_birth() {
            if session.is_worth_a_line() {
                into.sessions.push(session.report(machines));
            }
            for (id, system) in &session.systems {
                into.system_players.push(SystemPlayer {
                    id: id.to_string(),
                    ip: system.station.map(|station| station.to_string()),
                    dialect: system.dialect.map(|dialect| dialect.0),
                    host: session.host_system == Some(*id),
                    session: session.name.clone(),
                    certainty: certainty(system.left.as_ref(), system.announced),
                    evidence: Some(evidence(&system.fact)),
                    instance: system.station.and_then(|station| machines.instance_at(station)),
                });
            }
            for (id, player) in &session.players {
                let system = player.system.and_then(|id| session.systems.get(&id));
                let station = system.and_then(|system| system.station).or(player.station);
                let name = player.short.clone().unwrap_or_else(|| id.to_string());
                if let Some(order) = player.joined {
                    joins.insert(order, name.clone());
                }
                if let Some(left) = &player.left {
                    leaves.insert((left.order, *id), Left { name, evidence: left.words() });
                }
                into.players.push(Player {
                    id: id.to_string(),
                    name: player.short.clone(),
                    long: player.long.clone(),
                    ip: station.map(|station| station.to_string()),
                    system_id: player.system.map(|id| id.to_string()),
                    host: player.system.is_some() && player.system == session.host_system,
                    session: session.name.clone(),
                    certainty: certainty(player.left.as_ref(), player.announced),
                    evidence: Some(evidence(&player.fact)),
                    instance: station.and_then(|station| machines.instance_at(station)),
                    lan: None,
                });
            }
            for (id, group) in &session.groups {
                into.groups.push(Group {
                    id: id.to_string(),
                    flags: format!("{:#010x}", group.flags),
                    members: group.members.iter().map(Id::to_string).collect(),
                    session: session.name.clone(),
                });
            }
        }
        into.join_order = joins.into_values().collect();
        into.leave_order = leaves.into_values().collect();
        into.refused = self
            .refused
            .iter()
            .map(|refusal| Refused {
                ip: refusal.station.to_string(),
                session: refusal.session.and_then(|key| self.session_name(key)),
                player_request_result: format!("{:#010x}", refusal.result),
                evidence: Some(evidence(&refusal.fact)),
            })
            .collect();
        into.chat = self
            .chat
            .iter()
            .map(|line| Chat { from: self.player_name(line.session, line.from), text: line.text.clone() })
            .collect();
        into.user_messages = self
            .user
            .by_birth()
            .into_iter()
            .map(|((src, dst), (udp, tcp))| UserMessages {
                src: src.to_string(),
                dst: dst.to_string(),
                udp: *udp,
                tcp: *tcp,
            })
            .collect();
    }

    fn enumerations(&self, machines: &Machines) -> Vec<Enumeration> {
        let line = |(process, asker): (&super::Process, &super::Asker)| Enumeration {
            ip: process.station.to_string(),
            count: asker.count,
            reply_port: Some(process.port).filter(|port| *port != 0),
            app_guid_wire: Some(hex(&asker.application.0)),
            answered_by: asker.answered_by.iter().filter_map(|(key, _)| self.session_name(*key)).collect(),
            answered_at: asker
                .answered_by
                .iter()
                .filter_map(|(key, at)| Some((self.session_name(*key)?, seconds(*at))))
                .collect(),
            dialect: Some(asker.dialect.0),
            to: asker.to.iter().map(Station::to_string).collect(),
            answers_refused: asker.refused,
            answers_unanswered: asker.unanswered,
            first: Some(machines.evidence(&asker.first)),
            last: Some(machines.evidence(&asker.last)),
            instance: machines.instance(asker.mac),
        };
        self.askers.by_birth().into_iter().map(line).collect()
    }

    fn player_name(&self, session: Option<SessionKey>, id: Id) -> String {
        let session = session.and_then(|key| self.sessions.get(&self.resolve(key)));
        let name = session.and_then(|session| session.players.get(&id)).and_then(|player| player.short.clone());
        name.unwrap_or_else(|| id.to_string())
    }
}

fn certainty(left: Option<&Leave>, announced: bool) -> Certainty {
    match left {
        Some(left) => left.certainty(),
        None if announced => Certainty::Announced,
        None => Certainty::Inferred,
    }
}

impl State {
    /// An anonymous one of which only members are known is not told as a session of its own.
    fn is_worth_a_line(&self) -> bool {
        self.guid.is_some() || self.host_system.is_some()
    }

    fn report(&self, machines: &Machines) -> Session {
        let system = self.host_system.and_then(|id| self.systems.get(&id));
        let host = system.and_then(|system| system.station).or(self.host.map(|host| host.station));
        let all_gone = !self.systems.is_empty() && self.systems.values().all(|system| system.left.is_some());
        // Who was first seen leaving says nothing of a host that was not seen at all.
        let end = system.and_then(|system| system.left.as_ref()).filter(|_| all_gone);
        let end = end.or(self.host_left.as_ref().filter(|_| self.systems.is_empty()));
        Session {
            name: self.name.clone(),
            transport: if self.transport == Transport::Ipx { "ipx" } else { "tcp" }.to_owned(),
            instance_guid_wire: self.guid.map(|guid| hex(&guid.0)),
            app_guid_wire: self.application.map(|guid| hex(&guid.0)),
            max_players: self.max_players,
            current_players: self.current_players,
            flags: self.flags.map(|flags| flags.to_string()),
            dialect: self.dialect.map(|dialect| dialect.0),
            password_required: self.flags.map(|flags| flags.contains(SessionFlags::PASSWORD_REQUIRED)),
            host_ip: host.and_then(Station::ip).map(|ip| ip.to_string()),
            host_ipx: host.filter(|host| host.ip().is_none()).map(|host| host.to_string()),
            host_system_id: self.host_system.map(|id| id.to_string()),
            id_xor_key: self.key.map(|key| key.to_string()),
            former_hosts: self.former_hosts.iter().map(Id::to_string).collect(),
            certainty: certainty(end, self.guid.is_some()),
            evidence: Some(machines.evidence(&self.fact)),
            host_instance: host.and_then(|host| machines.instance_at(host)),
            lan: None,
        }
    }
}
