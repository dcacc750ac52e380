//! The side of everyone else: joining step by step, and keeping the list of machines as the host and the others say.
use super::machine::{Machine, Stage};
use super::{APPLICATION, Event, Found, Link, Session, State, Step, TCP_PORT, UDP_PORT};
use crate::text::Text;
use core::net::{Ipv4Addr, SocketAddrV4};
use wire::dplay::{
    AddForwardRequest, Body, Create, HResult, Id, Player, PlayerFlags, PlayersReply, RequestId, RequestPlayerReply,
    SpAddresses, Text as WireText,
};

impl Session {
    pub(super) fn peer_message(&mut self, from: SocketAddrV4, body: &Body, now: u64, link: &mut impl Link) {
        match (self.state, body) {
            (State::Searching { .. }, Body::EnumSessionsReply(reply)) => {
                let session = &reply.session;
                if session.application == APPLICATION {
                    self.remember(Found {
                        host: from,
                        name: reply.name.map_or(Text::EMPTY, Text::of),
                        instance: session.instance,
                        players: session.current_players,
                        max_players: session.max_players,
                        key: session.id_key,
                        seen: now,
                    });
                }
            }
            (State::Joining { host, step, .. }, body) if host.ip() == from.ip() => match (step, body) {
                (Step::SystemId | Step::PlayerId, Body::RequestPlayerReply(reply)) => {
                    self.got_id(host, step, reply, now, link);
                }
                (Step::Forward, Body::SuperEnumPlayersReply(reply)) => self.got_players(host, reply, now, link),
                (_, Body::AddForwardReply(_)) => self.lose(now),
                (_, Body::AddForward(create)) => self.add_machine(from, &create.player, now, link),
                _ => {}
            },
            (State::Joined { host }, body) if host.ip() == from.ip() => match body {
                Body::AddForward(create) => self.add_machine(from, &create.player, now, link),
                Body::YouAreDead => {
                    link.hang_up(*from.ip());
                    self.lose(now);
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn got_id(&mut self, host: SocketAddrV4, step: Step, reply: &RequestPlayerReply, now: u64, link: &mut impl Link) {
        if reply.result != HResult::OK {
            self.lose(now);
            return;
        }
        if step == Step::SystemId {
            self.system = reply.id;
            self.state = State::Joining { host, step: Step::Forward, since: now };
            let sp_data = SpAddresses::new(Ipv4Addr::UNSPECIFIED, TCP_PORT, UDP_PORT).to_bytes();
            let player = Player {
                flags: PlayerFlags::SYSTEM,
                id: self.system,
                system_id: self.system,
                dialect: self.sender.dialect,
                sp_data: &sp_data,
                ..Player::default()
            };
            let request =
                AddForwardRequest { to: Id::NONE, player, password: Some(WireText::EMPTY), tick_count: now as u32 };
            self.say(host, &Body::AddForwardRequest(request), link);
            return;
        }
        self.player = reply.id;
        let sp_data = SpAddresses::new(Ipv4Addr::UNSPECIFIED, TCP_PORT, UDP_PORT).to_bytes();
        let create = Create { to: Id::NONE, player: self.own_player(&sp_data) };
        self.tell_everyone(&Body::CreatePlayer(create), link);
        self.state = State::Joined { host };
        self.event(Event::Joined);
    }

    /// Our player as we show it to others.
    pub(super) fn own_player<'a>(&'a self, sp_data: &'a [u8]) -> Player<'a> {
        Player {
            id: self.player,
            system_id: self.system,
            dialect: self.sender.dialect,
            short_name: Some(WireText::new(self.name.as_str())),
            data: &self.data,
            sp_data,
            ..Player::default()
        }
    }

    /// The list of everybody: from here on we are a machine of the session.
    fn got_players(&mut self, host: SocketAddrV4, reply: &PlayersReply, now: u64, link: &mut impl Link) {
        self.key = reply.session.id_key;
        let own = self.system;
        for player in reply.players.iter().filter(|p| p.is_system() && p.id != own) {
            self.note_machine(&player, *host.ip(), now);
        }
        for player in reply.players.iter().filter(|p| !p.is_system() && p.system_id != own) {
            if let Some(place) = self.machines.by_system(player.system_id) {
                self.note_player(place, &player);
            }
        }
        self.state = State::Joining { host, step: Step::PlayerId, since: now };
        self.ask_for_id(RequestId::PLAYER, host, link);
    }

    /// The host shows us a newcomer; it waits until we say that we know it.
    fn add_machine(&mut self, host: SocketAddrV4, player: &Player, now: u64, link: &mut impl Link) {
        if player.id != self.system
            && let Some(place) = self.note_machine(player, *host.ip(), now)
        {
            // A connection that is left from the seat's earlier life would swallow what we say next.
            let ip = self.machines.get(place).map(Machine::ip);
            if let Some(ip) = ip.filter(|ip| ip != host.ip()) {
                link.hang_up(ip);
            }
        }
        self.say(host, &Body::AddForwardAck(player.id), link);
    }

    /// Enters a machine by its system player; an older one at the same address goes. Its place, if it is new.
    fn note_machine(&mut self, player: &Player, sender: Ipv4Addr, now: u64) -> Option<usize> {
        let addresses = SpAddresses::parse(player.sp_data)
            .map_or(SpAddresses::new(sender, TCP_PORT, UDP_PORT), |a| a.resolved(sender));
        if let Some(place) = self.machines.by_ip(*addresses.tcp.ip()) {
            if self.machines.get(place).is_some_and(|m| m.system == player.id) {
                return None;
            }
            self.drop_machine(place);
        }
        let mut machine = Machine::new(addresses.tcp, player.id, Stage::Known, now);
        machine.listen_at(addresses);
        self.machines.add(machine)
    }

    fn note_player(&mut self, place: usize, player: &Player) {
        if let Some(machine) = self.machines.get_mut(place) {
            let is_new = machine.player != player.id;
            machine.take_player(player);
            if is_new {
                self.event(Event::Arrived(place));
            }
        }
    }

    fn drop_machine(&mut self, place: usize) {
        if let Some(machine) = self.machines.remove(place).filter(Machine::plays) {
            self.event(Event::Gone(place, machine.name));
        }
    }

    /// A machine has made its player, and tells everybody itself.
    pub(super) fn create_player(&mut self, from: SocketAddrV4, player: &Player, now: u64) {
        if player.is_system() {
            return;
        }
        let place = self.machines.by_system(player.system_id).or_else(|| {
            // The host's word has not come yet. As host, ids come from ourselves: then it is nobody we know.
            let stranger = Machine::new(from, player.system_id, Stage::Known, now);
            if self.is_hosting() { None } else { self.machines.add(stranger) }
        });
        if let Some(place) = place.filter(|p| self.machines.get(*p).is_some_and(|m| m.ip() == *from.ip())) {
            self.note_player(place, player);
        }
    }

    /// A player or a machine leaves; said by itself or by the host.
    pub(super) fn delete_player(&mut self, from: Ipv4Addr, id: Id, now: u64) {
        let host = match self.state {
            State::Joined { host } | State::Joining { host, .. } => Some(*host.ip()),
            _ => None,
        };
        if id != Id::NONE && (id == self.system || id == self.player) && host == Some(from) {
            self.lose(now);
            return;
        }
        let Some(place) = self.machines.by_player(id).or_else(|| self.machines.by_system(id)) else { return };
        let Some(machine) = self.machines.get(place) else { return };
        let (ip, is_machine) = (machine.ip(), machine.system == id);
        if ip != from && host != Some(from) {
            return;
        }
        if self.is_hosting() {
            // It has told the others itself; the machine goes with its only player.
            self.drop_machine(place);
        } else if host == Some(ip) {
            self.lose(now);
        } else if is_machine {
            self.drop_machine(place);
        } else if let Some(machine) = self.machines.get_mut(place) {
            let name = machine.name;
            machine.player = Id::NONE;
            self.event(Event::Gone(place, name));
        }
    }
}
