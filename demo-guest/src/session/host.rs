//! The host's side: it answers questions, gives out ids, shows newcomers to the others and the others to newcomers.
use super::machine::{MACHINES, Machine, Stage};
use super::{APPLICATION, Event, FOUND, Link, Session, State};
use core::net::{Ipv4Addr, SocketAddrV4};
use wire::dplay::{
    Body, Create, EnumFlags, EnumSessions, EnumSessionsReply, HResult, Id, Membership, Player, PlayerFlags, Players,
    PlayersReply, RequestId, RequestPlayerReply, SessionDescription, SessionFlags, SpAddresses, Text,
};

/// A machine that has an id has to show itself within this time, in ms.
const ASKED: u64 = 8000;
/// How long the others have to confirm a newcomer, in ms (the specification allows 15 s; our peers take some 20 ms).
const FORWARD: u64 = 3000;
/// Seats of a session.
const MAX_PLAYERS: u32 = MACHINES as u32 + 1;

impl Session {
    /// The next id. The place in the table makes it small, the counter makes it new.
    pub(super) fn new_id(&mut self, index: u16) -> Id {
        self.uses = self.uses.wrapping_add(1);
        self.key.make_id(self.uses, index)
    }

    fn description(&self) -> SessionDescription {
        SessionDescription {
            flags: SessionFlags::KEEP_ALIVE,
            instance: self.instance,
            application: APPLICATION,
            max_players: MAX_PLAYERS,
            current_players: self.players() as u32,
            id_key: self.key,
            ..SessionDescription::default()
        }
    }

    /// A question came in: answer over TCP, at the port that the asker named.
    pub(super) fn answer(&mut self, asker: SocketAddrV4, query: &EnumSessions, now: u64, link: &mut impl Link) {
        if query.application != APPLICATION {
            return;
        }
        // One of our own players asks: it has begun anew and does not know us any more.
        if self.machines.by_ip(*asker.ip()).and_then(|p| self.machines.get(p)).is_some_and(|m| m.heard + 300 < now) {
            link.hang_up(*asker.ip());
            self.expel(*asker.ip(), link);
        }
        let full = self.players() as u32 >= MAX_PLAYERS;
        if full && query.flags.contains(EnumFlags::JOINABLE) {
            return;
        }
        let title = self.title;
        let reply = EnumSessionsReply { session: self.description(), name: Some(Text::new(title.as_str())) };
        self.say(asker, &Body::EnumSessionsReply(reply), link);
    }

    pub(super) fn host_message(&mut self, from: SocketAddrV4, body: &Body, now: u64, link: &mut impl Link) {
        match body {
            Body::RequestPlayerId(request) => self.give_id(from, *request, now, link),
            Body::AddForwardRequest(request) => self.forward(from, &request.player, now, link),
            Body::AddForwardAck(id) => {
                let answered = self.machines.by_ip(*from.ip());
                let newcomer = self.machines.by_system(*id).and_then(|p| self.machines.get_mut(p));
                if let (Some(place), Some(Machine { stage: Stage::Forwarding { waiting, .. }, .. })) =
                    (answered, newcomer)
                {
                    *waiting &= !(1 << place);
                }
                self.finish_forwards(now, link);
            }
            _ => {}
        }
    }

    fn give_id(&mut self, from: SocketAddrV4, request: RequestId, now: u64, link: &mut impl Link) {
        let reply =
            |id, result| Body::RequestPlayerReply(RequestPlayerReply { id, result, ..RequestPlayerReply::default() });
        let system = request.flags.contains(PlayerFlags::SYSTEM);
        if system {
            // The same seat once more: its old self is gone. The connection on which it asks is the new one.
            if self.machines.by_ip(*from.ip()).is_some() {
                self.expel(*from.ip(), link);
            }
            let machine = Machine::new(from, Id::NONE, Stage::Asked { until: now + ASKED }, now);
            let Some(place) = self.machines.add(machine) else {
                self.say(from, &reply(Id::NONE, HResult::NO_NEW_PLAYERS), link);
                return;
            };
            let id = self.new_id(2 + 2 * place as u16);
            if let Some(machine) = self.machines.get_mut(place) {
                machine.system = id;
            }
            self.say(from, &reply(id, HResult::OK), link);
        } else if let Some(place) = self.machines.by_ip(*from.ip()) {
            let id = self.new_id(3 + 2 * place as u16);
            self.say(from, &reply(id, HResult::OK), link);
        }
    }

    /// A newcomer shows itself: tell the others, who confirm.
    fn forward(&mut self, from: SocketAddrV4, player: &Player, now: u64, link: &mut impl Link) {
        let Some(place) = self.machines.by_system(player.id).filter(|p| self.machines.by_ip(*from.ip()) == Some(*p))
        else {
            return;
        };
        let addresses = SpAddresses::parse(player.sp_data).map(|a| a.resolved(*from.ip()));
        let mut waiting = 0;
        for (index, _) in self.machines.iter().filter(|(i, m)| *i != place && m.known()) {
            waiting |= 1u8 << index;
        }
        let Some(machine) = self.machines.get_mut(place) else { return };
        if let Some(addresses) = addresses {
            machine.listen_at(addresses);
        }
        machine.stage = Stage::Forwarding { waiting, until: now + FORWARD };
        let sp_data = machine.addresses().to_bytes();
        let player = Player { system_id: player.id, sp_data: &sp_data, ..*player };
        for (_, other) in self.machines.iter().filter(|(i, _)| waiting >> i & 1 == 1) {
            self.say(other.tcp, &Body::AddForward(Create { to: Id::NONE, player }), link);
        }
        self.finish_forwards(now, link);
    }

    /// Shows everybody to the newcomers whom everybody knows by now.
    pub(super) fn finish_forwards(&mut self, now: u64, link: &mut impl Link) {
        for place in 0..MACHINES {
            match self.machines.get(place).map(|m| (m.stage, m.ip(), m.tcp)) {
                Some((Stage::Forwarding { waiting, until }, _, tcp)) => {
                    // A machine that has left in the meantime will not answer.
                    let there = (0..MACHINES).filter(|i| self.machines.get(*i).is_some()).fold(0u8, |m, i| m | 1 << i);
                    if waiting & there == 0 || now > until {
                        if let Some(machine) = self.machines.get_mut(place) {
                            machine.stage = Stage::Known;
                        }
                        self.show_everybody(tcp, link);
                    }
                }
                Some((Stage::Asked { until }, ip, _)) if now > until => self.expel(ip, link),
                _ => {}
            }
        }
    }

    fn show_everybody(&self, to: SocketAddrV4, link: &mut impl Link) {
        const MOST: usize = 2 * (MACHINES + 1);
        let mut sp_data = [[0; SpAddresses::LEN]; MACHINES + 1];
        // Our own address is "the sender's".
        sp_data[0] = SpAddresses::new(Ipv4Addr::UNSPECIFIED, super::TCP_PORT, super::UDP_PORT).to_bytes();
        for (i, machine) in self.machines.iter().filter(|(_, m)| m.known()) {
            sp_data[i + 1] = machine.addresses().to_bytes();
        }
        let mut players = [Player::default(); MOST];
        let mut count = 0;
        let mut add = |player| {
            players[count] = player;
            count += 1;
        };
        let dialect = self.sender.dialect;
        let host = PlayerFlags::SYSTEM.with(PlayerFlags::NAME_SERVER);
        add(Player {
            flags: host,
            id: self.system,
            system_id: self.system,
            dialect,
            sp_data: &sp_data[0],
            ..Player::default()
        });
        add(self.own_player(&sp_data[0]));
        for (i, machine) in self.machines.iter().filter(|(_, m)| m.known()) {
            let (id, sp_data) = (machine.system, &sp_data[i + 1][..]);
            add(Player { flags: PlayerFlags::SYSTEM, id, system_id: id, dialect, sp_data, ..Player::default() });
            if machine.plays() {
                let name = Some(Text::new(machine.name.as_str()));
                let data = &machine.data;
                add(Player { id: machine.player, system_id: id, short_name: name, data, sp_data, ..Player::default() });
            }
        }
        let reply = PlayersReply {
            session: self.description(),
            name: Some(Text::new(self.title.as_str())),
            password: None,
            players: Players::new(&players[..count]),
            groups: Players::NONE,
            shortcuts: Players::NONE,
        };
        self.say(to, &Body::SuperEnumPlayersReply(reply), link);
    }

    /// Takes a machine out of the session and tells the others.
    pub(super) fn expel(&mut self, ip: Ipv4Addr, link: &mut impl Link) {
        let Some(place) = self.machines.by_ip(ip) else { return };
        let Some(machine) = self.machines.remove(place) else { return };
        if machine.plays() {
            self.event(Event::Gone(place, machine.name));
        }
        if machine.known() {
            for id in [machine.player, machine.system].into_iter().filter(|id| *id != Id::NONE) {
                self.tell_everyone(&Body::DeletePlayer(Membership { player: id, ..Membership::default() }), link);
            }
        }
    }

    /// The list of found sessions, filled by answers.
    pub(super) fn remember(&mut self, found: super::Found) {
        let place =
            self.found.iter().position(|f| f.is_some_and(|f| f.host == found.host || f.instance == found.instance));
        let place = place.or_else(|| self.found.iter().position(Option::is_none));
        // Full: the oldest makes room.
        let place =
            place.unwrap_or_else(|| (0..FOUND).min_by_key(|i| self.found[*i].map_or(0, |f| f.seen)).unwrap_or(0));
        self.found[place] = Some(found);
        self.event(Event::Found);
    }

    pub(super) fn is_hosting(&self) -> bool {
        self.state == State::Hosting
    }
}
