//! What each message says about sessions (protocols.md 1.3, 1.6).
use wire::dplay::{
    Body, Chat, Command, Content, Dialect, EnumSessions, EnumSessionsReply, Envelope, HResult, IAmNameServer, Id,
    Message, Packet, PlayerFlags, PlayersReply, RequestPlayerReply, SessionDescription, SpAddresses, TCP_PORTS, Text,
    Token,
};

use super::{Asker, ChatLine, Ends, Games, Notes, Process, Refusal, SessionKey, Transport, Via, Why};
use crate::{
    anomalies::{Kind, Who},
    machines::Step,
    stamp::{Fact, Station, clean},
};

/// Answers of two hosts to one asker within so many seconds are two hosts, not a migration.
const TWO_HOSTS_SECONDS: u64 = 10;
/// Two claims within so many seconds contradict each other.
const TWO_CLAIMS_SECONDS: u64 = 15;
pub(super) const FORMER_HOSTS: usize = 16;
/// Places that one asker sent its questions to.
const ASKED: usize = 8;

impl Games {
    /// A message with an envelope, or a system message without one (IPX).
    pub(crate) fn packet(&mut self, via: &Via, packet: &Packet<'_>, notes: &mut Notes<'_>) {
        let ends = self.ends(via, packet.envelope.as_ref());
        if let Some(envelope) = &packet.envelope {
            check_address(via, *envelope, notes);
        }
        match packet.content {
            Content::System(message) => self.system(via, ends, &message, notes),
            Content::User(bytes) => self.user_message(via, ends, bytes, notes),
            Content::Malformed(header) => {
                self.count(header.command);
                notes.anomalies.station(Kind::DplayMalformed, via.from, via.stamp(), || {
                    format!("{} from {} does not add up", name(header.command), via.from)
                });
            }
        }
    }

    /// The programs that speak: the sender by its envelope, or by a port that is known to be its own.
    fn ends(&mut self, via: &Via, envelope: Option<&Envelope>) -> Ends {
        let listener = envelope.map(|envelope| envelope.sender.port()).filter(|port| *port != 0);
        match via.transport {
            Transport::Ipx => Ends {
                from: Some(Process { station: via.from, port: via.from_port }),
                to: Some(Process { station: via.to, port: via.to_port }),
            },
            Transport::Tcp => {
                let port = listener.or(TCP_PORTS.contains(&via.from_port).then_some(via.from_port));
                let to = Process { station: via.to, port: via.to_port };
                let is_listener = TCP_PORTS.contains(&via.to_port) || self.programs.contains(&to);
                Ends {
                    from: port.map(|port| Process { station: via.from, port }),
                    to: Some(to).filter(|_| is_listener).or(via.receiver),
                }
            }
            Transport::Udp => {
                let own = (via.from, via.from_port);
                let from = listener.map(|port| Process { station: via.from, port });
                Ends {
                    from: from.or_else(|| self.datagram_ports.get(&own).copied()),
                    to: self.datagram_ports.get(&(via.to, via.to_port)).copied(),
                }
            }
        }
    }

    /// Takes a system message.
    #[expect(clippy::too_many_lines, reason = "one arm for each command")]
    pub(super) fn system(&mut self, via: &Via, ends: Ends, message: &Message<'_>, notes: &mut Notes<'_>) {
        let command = message.body.command();
        if !self.count(command) {
            notes.anomalies.station(Kind::UnknownCommand, via.from, via.stamp(), || {
                format!("command {:#04x} from {}", command.0, via.from)
            });
            return;
        }
        if let (Some(process), true) = (ends.from, command != Command::ENUM_SESSIONS) {
            self.program(process).dialect = Some(message.dialect);
            if via.transport == Transport::Udp {
                self.own_datagram_port(process, via.from_port);
            }
        }
        if !is_of_strangers(&message.body) {
            self.alive(ends.from, via.stamp().at);
        }
        match message.body {
            Body::EnumSessions(query) => self.asked(via, ends, &query, message.dialect, notes),
            Body::EnumSessionsReply(reply) => self.answered(via, ends, &reply, message.dialect, notes),
            Body::EnumPlayersReply(reply) | Body::SuperEnumPlayersReply(reply) => {
                self.everybody(via, ends, &reply, command, notes);
            }
            Body::RequestPlayerId(request) if request.flags.contains(PlayerFlags::SYSTEM) => {
                if let Some(joiner) = ends.from {
                    self.asks_to_join(joiner, via.stamp());
                }
                notes.machines.step(via.hop.source, Step::Linked, via.stamp(), "REQUESTPLAYERID");
            }
            Body::RequestPlayerReply(reply) => self.id_given(via, ends, &reply, notes),
            Body::AddForwardReply(result) => self.join_failed(via, ends, result),
            Body::AddForwardRequest(request) => {
                let record = request.player;
                check_sp(via, record.sp_data, notes);
                if let Some(process) = ends.from {
                    self.own_ports(process, record.sp_data);
                    self.program(process).offered = Some(record.id);
                }
            }
            Body::AddForward(forward) => {
                let key = self.session_of_members(via, ends, &[forward.player.id], "ADDFORWARD");
                self.take_record(key, via, &forward.player, None, "ADDFORWARD", notes);
            }
            Body::AddForwardAck(id) => {
                self.session_of_members(via, ends, &[id], "ADDFORWARDACK");
            }
            Body::CreatePlayer(create) | Body::CreatePlayerVerify(create) => {
                let record = create.player;
                let key = self.session_of_members(via, ends, &[record.system_id, record.id], "CREATEPLAYER");
                check_sp(via, record.sp_data, notes);
                self.take_record(key, via, &record, ends.from, "CREATEPLAYER", notes);
                self.acts(key, ends.from, record.system_id, via);
            }
            Body::CreateGroup(create) => {
                let key = self.session_of_members(via, ends, &[create.player.id], "CREATEGROUP");
                self.take_group(key, &create.player);
            }
            Body::DeletePlayer(it) => {
                let key = self.session_of_members(via, ends, &[it.player], "DELETEPLAYER");
                self.deleted(key, it.player, via.stamp(), Why::Message);
            }
            Body::DeleteGroup(it) => {
                let key = self.session_of_members(via, ends, &[it.group], "DELETEGROUP");
                self.with_session(key, |session| session.groups.remove(&it.group));
            }
            Body::AddPlayerToGroup(it) => {
                let key = self.session_of_members(via, ends, &[it.group, it.player], "ADDPLAYERTOGROUP");
                self.join_group(key, it.group, it.player);
            }
            Body::DeletePlayerFromGroup(it) => {
                let key = self.session_of_members(via, ends, &[it.group, it.player], "DELETEPLAYERFROMGROUP");
                self.with_session(key, |session| {
                    if let Some(group) = session.groups.get_mut(&it.group) {
                        group.members.retain(|member| *member != it.player);
                    }
                });
            }
            Body::PlayerNameChanged(it) => {
                let key = self.session_of_members(via, ends, &[it.id], "PLAYERNAMECHANGED");
                self.renamed(key, via, it.id, it.short_name, it.long_name, ends.from);
            }
            Body::PlayerDataChanged(it) => {
                let key = self.session_of_members(via, ends, &[it.id], "PLAYERDATACHANGED");
                self.player_acts(key, via, it.id, ends.from, "PLAYERDATACHANGED");
            }
            Body::SessionDescChanged(changed) => {
                let key = self.session_by_guid(via, ends.from, changed.session.instance, "SESSIONDESCCHANGED");
                self.describe(key, &changed.session, changed.name);
                self.with_session(key, |session| session.dialect = session.dialect.or(Some(message.dialect)));
                // Only the host sends it.
                self.bind_host(key, via, ends.from, false, notes);
            }
            Body::IAmNameServer(it) => self.claimed(via, ends, &it, message.dialect, notes),
            Body::YouAreDead => self.told_dead(via, ends),
            Body::Chat(chat) => self.chatted(via, ends, &chat),
            Body::Ping(ping) => {
                notes.machines.lag.asks(via, ping.tick_count);
            }
            Body::PingReply(ping) => {
                notes.machines.lag.answers(via, ping.tick_count);
            }
            Body::PlayerWrapper(bytes) => self.user_message(via, ends, bytes, notes),
            Body::Packet(piece) | Body::Packet2Data(piece) => self.piece(via, ends, &piece, notes),
            Body::AskForMulticast(it) | Body::AskForMulticastGuaranteed(it) | Body::MulticastDelivery(it) => {
                self.inner(via, ends, it.message, notes);
            }
            Body::Other(Command::SIGNED, bytes) => self.signed(via, ends, bytes, notes),
            _ => {}
        }
    }

    fn asked(&mut self, via: &Via, ends: Ends, query: &EnumSessions<'_>, dialect: Dialect, notes: &mut Notes<'_>) {
        let stamp = via.stamp();
        notes.machines.step(via.hop.source, Step::Asks, stamp, "ENUMSESSIONS");
        // In IPX the socket of the question says nothing of the program.
        let port = if via.transport == Transport::Ipx { 0 } else { ends.from.map_or(0, |from| from.port) };
        let fact = || Fact::new(stamp, "ENUMSESSIONS");
        let asker = self.askers.entry(Process { station: via.from, port }, || Asker {
            count: 0,
            application: query.application,
            answered_by: Vec::new(),
            dialect,
            to: Vec::new(),
            refused: 0,
            unanswered: 0,
            first: fact(),
            last: fact(),
            mac: via.hop.source,
        });
        asker.count += 1;
        asker.application = query.application;
        asker.dialect = dialect;
        asker.last = fact();
        if !asker.to.contains(&via.to) && asker.to.len() < ASKED {
            asker.to.push(via.to);
        }
    }

    /// The answer's connection to an asker was refused.
    pub(crate) fn asker_refused(&mut self, listener: Process) {
        if let Some(asker) = self.askers.get_mut(&listener) {
            asker.refused += 1;
        }
    }

    /// The answer's connection to an asker had no answer itself.
    pub(crate) fn asker_is_deaf(&mut self, listener: Process) {
        if let Some(asker) = self.askers.get_mut(&listener) {
            asker.unanswered += 1;
        }
    }

    /// It had, after all.
    pub(crate) fn asker_took(&mut self, listener: Process) {
        if let Some(asker) = self.askers.get_mut(&listener) {
            asker.unanswered = asker.unanswered.saturating_sub(1);
        }
    }

    fn answered(
        &mut self,
        via: &Via,
        ends: Ends,
        reply: &EnumSessionsReply<'_>,
        dialect: Dialect,
        notes: &mut Notes<'_>,
    ) {
        let key = self.session_by_guid(via, ends.from, reply.session.instance, "ENUMSESSIONSREPLY");
        // A host that lost its session's GUID to another one must not overwrite what that one says.
        if self.bind_host(key, via, ends.from, true, notes) {
            let other_key = self.sessions.get(&key).and_then(|session| session.key) != Some(reply.session.id_key);
            self.describe(key, &reply.session, reply.name);
            self.with_session(key, |session| {
                session.dialect = Some(dialect);
                if other_key {
                    session.key = Some(reply.session.id_key);
                }
            });
        }
        let port = if via.transport == Transport::Ipx { 0 } else { via.to_port };
        if let Some(asker) = self.askers.get_mut(&Process { station: via.to, port }) {
            let at = via.stamp().at;
            if let Some((_, last)) = asker.answered_by.iter_mut().find(|(known, _)| *known == key) {
                *last = at.max(*last);
            } else if asker.answered_by.len() < FORMER_HOSTS {
                asker.answered_by.push((key, at));
            }
        }
        notes.machines.step(via.hop.destination, Step::IsAnswered, via.stamp(), "ENUMSESSIONSREPLY");
        if via.transport != Transport::Ipx {
            notes.machines.port(via.hop.source, wire::ipv4::UDP, wire::dplay::QUERY_PORT, true);
        }
    }

    /// Notes who answers for a session; `false` if somebody else does, and this one is a second host.
    pub(super) fn bind_host(
        &mut self,
        key: SessionKey,
        via: &Via,
        process: Option<Process>,
        answers: bool,
        notes: &mut Notes<'_>,
    ) -> bool {
        let Some(process) = process else { return true };
        let Some(session) = self.sessions.get(&key) else { return true };
        let system = self.programs.get(&process).and_then(|program| program.system);
        let now = via.stamp().at;
        let mut moved = false;
        if let Some(host) = session.host.filter(|host| *host != process) {
            let same_machine =
                session.host_mac == Some(via.hop.source) || system.is_some() && system == session.host_system;
            let gone = session.host_system.and_then(|id| session.systems.get(&id)).is_some_and(|it| it.left.is_some());
            let at_once = session
                .answered
                .is_some_and(|(asker, at)| asker == via.to && now.saturating_sub(at).as_secs() < TWO_HOSTS_SECONDS);
            if answers && !same_machine && !gone && at_once {
                notes.anomalies.note(Kind::TwoHostsOneGuid, Who::Station(via.from), via.stamp(), || {
                    format!(
                        "{} and {} both answer for one session: two copies of one game's state",
                        host.station, via.from
                    )
                });
                return false;
            }
            moved = !same_machine;
        }
        if !self.program(process).hosts.contains(&key) {
            self.hosts_now(process, key, via.stamp());
        }
        let program = self.program(process);
        program.hosts.retain(|other| *other != key);
        program.hosts.insert(0, key);
        program.hosts.truncate(FORMER_HOSTS);
        program.session = Some(key);
        if let Some(session) = self.sessions.get_mut(&key) {
            session.host = Some(process);
            session.host_left = None;
            session.host_mac = Some(via.hop.source);
            if answers {
                session.answered = Some((via.to, now));
            }
            if moved && let Some(system) = system {
                set_host_system(session, system);
            }
        }
        true
    }

    /// What a session description says.
    fn describe(&mut self, key: SessionKey, said: &SessionDescription, name: Option<Text<'_>>) {
        let limit = self.limits.text;
        self.with_session(key, |session| {
            session.application = Some(said.application);
            session.flags = Some(said.flags);
            session.max_players = Some(said.max_players);
            session.current_players = Some(said.current_players);
            session.key = session.key.or(Some(said.id_key));
            if let Some(name) = name {
                session.name = Some(clean(name.chars(), limit));
            }
        });
    }

    /// The host shows a machine everybody: it joined.
    fn everybody(&mut self, via: &Via, ends: Ends, reply: &PlayersReply<'_>, command: Command, notes: &mut Notes<'_>) {
        let what = command.name().unwrap_or_default();
        let key = self.session_by_guid(via, ends.from.or(ends.to), reply.session.instance, what);
        self.describe(key, &reply.session, reply.name);
        self.bind_host(key, via, ends.from, false, notes);
        let dialect = ends.from.and_then(|from| self.programs.get(&from)).and_then(|program| program.dialect);
        self.with_session(key, |session| session.dialect = session.dialect.or(dialect));
        let mut records: Vec<_> = reply.players.iter().take(self.limits.players * 2).collect();
        // The host's table may be in any order; where ids follow the key, they tell who came first.
        let place = |id: Id| (reply.session.id_key.counter(id), reply.session.id_key.index(id));
        if records.iter().all(|record| place(record.id).1 < 0x1000 && place(record.id).0 < 0x1000) {
            records.sort_by_key(|record| place(record.id));
        }
        for record in &records {
            self.take_record(key, via, record, None, what, notes);
        }
        for group in reply.groups.iter().take(self.limits.players) {
            self.take_group(key, &group);
        }
        let Some(joiner) = ends.to else { return };
        let program = self.program(joiner);
        program.session = Some(key);
        let id = program.offered.take().or(program.system);
        program.system = id;
        let (dialect, station) = (program.dialect, joiner.station);
        if let Some(id) = id {
            let fact = Fact::new(via.stamp(), what);
            self.take_system(key, id, Some(joiner), Some(station), dialect, fact, via.stamp().at);
            self.with_session(key, |session| {
                if let Some(system) = session.systems.get_mut(&id) {
                    system.joined = true;
                    system.announced = true;
                }
            });
        }
        notes.machines.step(via.hop.destination, Step::Joined, via.stamp(), what);
        notes.machines.plays_in(via.hop.destination, key);
        notes.machines.plays_in(via.hop.source, key);
    }

    fn id_given(&mut self, via: &Via, ends: Ends, reply: &RequestPlayerReply<'_>, notes: &mut Notes<'_>) {
        if reply.result != HResult::OK {
            return self.refuse(via, ends, reply.result, "REQUESTPLAYERREPLY");
        }
        notes.machines.step(via.hop.destination, Step::PlayerId, via.stamp(), "REQUESTPLAYERREPLY");
        if let Some(joiner) = ends.to {
            let program = self.program(joiner);
            // The first id is the machine's; those after it joined are its players'.
            if program.system.is_none() {
                program.offered = Some(reply.id);
            }
        }
    }

    fn join_failed(&mut self, via: &Via, ends: Ends, result: HResult) {
        if result == HResult::OK {
            return;
        }
        self.refuse(via, ends, result, "ADDFORWARDREPLY");
        // The others were shown it, perhaps; it never was in.
        let Some(offered) = ends.to.and_then(|joiner| self.program(joiner).offered.take()) else { return };
        if let Some(key) = self.session_of(ends, &[offered]) {
            self.with_session(key, |session| {
                if session.systems.get(&offered).is_some_and(|system| !system.joined) {
                    session.systems.remove(&offered);
                }
            });
        }
    }

    fn refuse(&mut self, via: &Via, ends: Ends, result: HResult, what: &'static str) {
        let session = self.session_of(Ends { from: ends.from, to: None }, &[]);
        if self.refused.len() >= self.limits.lines {
            self.refused.pop_front();
        }
        let fact = Fact::new(via.stamp(), what);
        self.refused.push_back(Refusal { station: via.to, session, result: result.0, fact });
    }

    /// A machine says that it is host from now on.
    fn claimed(&mut self, via: &Via, ends: Ends, it: &IAmNameServer<'_>, dialect: Dialect, notes: &mut Notes<'_>) {
        let key = self.session_of_members(via, ends, &[it.host], "IAMNAMESERVER");
        check_sp(via, it.sp_data, notes);
        if let Some(process) = ends.from {
            self.own_ports(process, it.sp_data);
            self.program(process).system = Some(it.host);
        }
        let (stamp, now) = (via.stamp(), via.stamp().at);
        let fact = Fact::new(stamp, "IAMNAMESERVER");
        self.take_system(key, it.host, ends.from, Some(via.from), Some(dialect), fact, now);
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if let Some(system) = session.systems.get_mut(&it.host) {
            (system.joined, system.announced) = (true, true);
        }
        session.dialect = Some(dialect);
        let other = session
            .claimed
            .is_some_and(|(id, at)| id != it.host && now.saturating_sub(at).as_secs() < TWO_CLAIMS_SECONDS);
        if other {
            notes.anomalies.station(Kind::TwoClaimHost, via.from, stamp, || {
                format!("{} claims to be host right after another machine; the later claim counts", via.from)
            });
        }
        session.claimed = Some((it.host, now));
        let former = session.host_system.filter(|former| *former != it.host);
        set_host_system(session, it.host);
        if let Some(former) = former {
            self.gone(key, former, stamp, Why::NameServer);
        }
        // Said by itself: no second host, whoever answered before.
        self.with_session(key, |session| session.host = None);
        self.bind_host(key, via, ends.from, false, notes);
    }

    fn chatted(&mut self, via: &Via, ends: Ends, chat: &Chat<'_>) {
        let key = self.session_of_members(via, ends, &[chat.from, chat.to], "CHAT");
        self.player_acts(key, via, chat.from, ends.from, "CHAT");
        if self.chat.len() >= self.limits.lines {
            self.chat.pop_front();
        }
        let text = chat.text.map(|text| clean(text.chars(), self.limits.text)).unwrap_or_default();
        self.chat.push_back(ChatLine { session: Some(key), from: chat.from, text });
    }

    pub(super) fn with_session<T>(&mut self, key: SessionKey, act: impl FnOnce(&mut super::Session) -> T) -> Option<T> {
        self.sessions.get_mut(&key).map(act)
    }
}

/// A sender that names an address which its packets do not come from.
fn check_address(via: &Via, envelope: Envelope, notes: &mut Notes<'_>) {
    let said = *envelope.sender.ip();
    let differs = envelope.token == Token::Peer && !said.is_unspecified() && via.from != Station::Ip(said);
    if differs && !notes.machines.uses(via.hop.source, said) {
        notes.anomalies.station(Kind::NatMismatch, via.from, via.stamp(), || {
            format!("{} calls itself {said}: an address translated on the way, or a wrong one", via.from)
        });
    }
}

/// SP data of the sender's own: it may name an address that the packet did not come from.
fn check_sp(via: &Via, sp_data: &[u8], notes: &mut Notes<'_>) {
    let Some(sp) = SpAddresses::parse(sp_data) else { return };
    let said = *sp.tcp.ip();
    if !said.is_unspecified() && via.from != Station::Ip(said) && !notes.machines.uses(via.hop.source, said) {
        notes.anomalies.station(Kind::NatMismatch, via.from, via.stamp(), || {
            format!("{} tells others to find it at {said}", via.from)
        });
    }
}

/// Messages that nobody sends as a member of a session.
fn is_of_strangers(body: &Body<'_>) -> bool {
    matches!(body, Body::EnumSessions(_) | Body::AddForwardRequest(_))
        || matches!(body, Body::RequestPlayerId(request) if request.flags.contains(PlayerFlags::SYSTEM))
}

fn set_host_system(session: &mut super::Session, id: Id) {
    if let Some(former) = session.host_system.filter(|former| *former != id) {
        if session.former_hosts.len() >= FORMER_HOSTS {
            session.former_hosts.pop_front();
        }
        session.former_hosts.push_back(former);
    }
    session.host_system = Some(id);
}

/// A command by name or number.
pub(super) fn name(command: Command) -> String {
    command.name().map_or_else(|| format!("command {:#04x}", command.0), str::to_owned)
}
