//! A DirectPlay 4 session from one machine's view: hosting, finding, joining, playing, losing. Bytes and time in, bytes
//! and events out; `wire::dplay` builds and parses every message.
//!
//! ```text
//!              host()                                     machine asks, is numbered, shown to the others: host.rs
//!   Idle ------------------> Hosting
//!    |  ^                                    answer                 id                players
//!    |  | leave()         search()  +---> Searching ----join()--> Joining(SystemId) --> (Forward) --> (PlayerId)
//!    +--+---------------------------+        ^  ask every 2 s        |                                   | id
//!                                            +-- refused, silent ----+                                   v
//!                                            +-------- host lost, "you are dead" -------------------- Joined
//! ```
//!
//! **Invariants.** A machine is known by its IPv4 address: one seat, one address. Every list is bounded by the nine seats;
//! whoever comes tenth is refused. Nothing received can panic; what does not fit the state is ignored.
mod host;
mod machine;
mod peer;
#[cfg(test)]
mod tests;

use crate::rng::Rng;
use crate::text::Text;
use core::net::{Ipv4Addr, SocketAddrV4};
use machine::Table;
pub use machine::{MACHINES, Machine, Name};
use wire::dplay::{
    Body, Content, Dialect, EnumFlags, EnumSessions, Guid, Id, IdKey, Membership, Packet, Ping, Sender, UserMessage,
};

/// This game, and nobody else's.
pub const APPLICATION: Guid =
    Guid::from_fields(0x4c4a_3c91, 0x7a52, 0x4d0e, [0x9b, 0x1f, 0x6c, 0x69, 0x74, 0x74, 0x6c, 0x65]);
/// First ports of the ranges; on a machine of its own they are always free.
pub const TCP_PORT: u16 = 2300;
pub const UDP_PORT: u16 = 2350;
/// Longest message that is sent: a list of nine machines with names takes some 1500 bytes.
pub const MESSAGE: usize = 2048;

/// Milliseconds between two questions while searching, before the jitter that keeps nine guests apart.
const ASK: u64 = 1800;
const JITTER: i32 = 500;
/// A step of joining may take this long, in ms.
const STEP: u64 = 5000;
/// Ping a machine after so much silence, and give it up after so much more, in ms. The game says something every 2 s.
const QUIET: u64 = 7000;
const DEAD: u64 = 16_000;
/// Found sessions that are kept, and how long without a new answer, in ms.
const FOUND: usize = 4;
const STALE: u64 = 7000;

/// How the bytes leave. The order of messages to one machine is kept.
pub trait Link {
    /// Guaranteed: over the connection to that listener, opened if there is none.
    fn tcp(&mut self, to: SocketAddrV4, bytes: &[u8]);
    /// Unguaranteed, from [`UDP_PORT`].
    fn udp(&mut self, to: SocketAddrV4, bytes: &[u8]);
    /// To everyone's query port, from any port.
    fn broadcast(&mut self, bytes: &[u8]);
    /// Forgets the connection to a machine that has begun anew; what waits in it is lost.
    fn hang_up(&mut self, ip: Ipv4Addr);
}

/// What the game has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The list of sessions changed.
    Found,
    /// We are in.
    Joined,
    /// The host refused, or did not answer.
    Failed,
    /// The session is over for us.
    Lost,
    /// A player is there; the place in [`Session::machines`].
    Arrived(usize),
    /// It has left; the name is still there until the event is taken.
    Gone(usize, Name),
    /// Its data has changed.
    Changed(usize),
}

/// A session that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub host: SocketAddrV4,
    pub name: Text<40>,
    pub instance: Guid,
    pub players: u32,
    pub max_players: u32,
    key: IdKey,
    seen: u64,
}

/// Steps of joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    SystemId,
    Forward,
    PlayerId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Searching { ask_at: u64 },
    Joining { host: SocketAddrV4, step: Step, since: u64 },
    Joined { host: SocketAddrV4 },
    Hosting,
}

/// What the session is doing, for the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Idle,
    Searching,
    Joining,
    Playing { host: bool },
}

/// Events that wait for the game. It takes them after each call, and one message makes at most two per machine.
const EVENTS: usize = 32;

/// See the module's documentation.
#[derive(Debug)]
pub struct Session {
    sender: Sender,
    name: Name,
    data: [u8; 4],
    state: State,
    system: Id,
    player: Id,
    key: IdKey,
    instance: Guid,
    title: Text<40>,
    machines: Table,
    found: [Option<Found>; FOUND],
    events: [Option<Event>; EVENTS],
    asked: u32,
    /// Ids given out so far, as host.
    uses: u16,
    rng: Rng,
}

impl Session {
    /// `data` is the game's own, four bytes that every player shows the others; `seed` must differ between boots.
    pub fn new(name: &str, data: [u8; 4], seed: u64) -> Self {
        Self {
            sender: Sender::new(TCP_PORT, Dialect::DX6_1A),
            name: Name::of(name),
            data,
            state: State::Idle,
            system: Id::NONE,
            player: Id::NONE,
            key: IdKey::default(),
            instance: Guid::NULL,
            title: Text::EMPTY,
            machines: Table::default(),
            found: [None; FOUND],
            events: [None; EVENTS],
            asked: 0,
            uses: 0,
            rng: Rng::new(seed),
        }
    }

    pub fn phase(&self) -> Phase {
        match self.state {
            State::Idle => Phase::Idle,
            State::Searching { .. } => Phase::Searching,
            State::Joining { .. } => Phase::Joining,
            State::Joined { .. } => Phase::Playing { host: false },
            State::Hosting => Phase::Playing { host: true },
        }
    }

    /// The other machines, by place.
    pub fn machines(&self) -> impl Iterator<Item = (usize, &Machine)> {
        self.machines.iter()
    }

    pub fn machine(&self, place: usize) -> Option<&Machine> {
        self.machines.get(place)
    }

    /// Players in the session, with us.
    pub fn players(&self) -> usize {
        let us = usize::from(matches!(self.phase(), Phase::Playing { .. }));
        us + self.machines.iter().filter(|(_, m)| m.player != Id::NONE).count()
    }

    pub fn found(&self) -> impl Iterator<Item = &Found> {
        self.found.iter().flatten()
    }

    /// Questions asked since the search began.
    pub fn asked(&self) -> u32 {
        self.asked
    }

    pub fn title(&self) -> &str {
        self.title.as_str()
    }

    /// Our player's id; `None` outside a session.
    pub fn player(&self) -> Option<Id> {
        (self.player != Id::NONE).then_some(self.player)
    }

    pub fn next_event(&mut self) -> Option<Event> {
        let event = self.events[0]?;
        self.events.rotate_left(1);
        self.events[EVENTS - 1] = None;
        Some(event)
    }

    /// Full cannot happen (see [`EVENTS`]); if it did, the newest would be lost, and the screen would miss a name.
    fn event(&mut self, event: Event) {
        if let Some(place) = self.events.iter_mut().find(|e| e.is_none()) {
            *place = Some(event);
        }
    }

    /// Opens a session of our own.
    pub fn host(&mut self, title: &str) {
        self.forget();
        let mut bytes = [0; 16];
        for chunk in bytes.chunks_mut(4) {
            chunk.copy_from_slice(&self.rng.draw().to_le_bytes());
        }
        self.instance = Guid(bytes);
        self.key = IdKey(self.rng.draw());
        self.title = Text::of(title);
        self.uses = 0;
        self.system = self.new_id(0);
        self.player = self.new_id(1);
        self.state = State::Hosting;
        self.event(Event::Joined);
    }

    /// Looks for sessions from now on, at once and then every two seconds.
    pub fn search(&mut self, now: u64) {
        self.forget();
        self.asked = 0;
        self.found = [None; FOUND];
        self.state = State::Searching { ask_at: now };
    }

    /// Joins one of [`Session::found`].
    pub fn join(&mut self, found: &Found, now: u64, link: &mut impl Link) {
        self.forget();
        self.key = found.key;
        self.instance = found.instance;
        self.title = found.name;
        self.state = State::Joining { host: found.host, step: Step::SystemId, since: now };
        // What is left of an earlier connection would swallow the request.
        link.hang_up(*found.host.ip());
        self.ask_for_id(wire::dplay::RequestId::SYSTEM_PLAYER, found.host, link);
    }

    /// Says good-bye to everyone and is idle. The link still has to deliver it.
    pub fn leave(&mut self, link: &mut impl Link) {
        for id in [self.player, self.system].into_iter().filter(|id| *id != Id::NONE) {
            self.tell_everyone(&Body::DeletePlayer(Membership { player: id, ..Membership::default() }), link);
        }
        self.forget();
    }

    /// Everything about the session but the list of found ones.
    fn forget(&mut self) {
        self.state = State::Idle;
        self.system = Id::NONE;
        self.player = Id::NONE;
        self.machines = Table::default();
        self.title = Text::EMPTY;
    }

    /// The session is over without our doing: search again.
    fn lose(&mut self, now: u64) {
        let event = if matches!(self.state, State::Joined { .. }) { Event::Lost } else { Event::Failed };
        self.forget();
        self.found = [None; FOUND];
        let wait = self.rng.range(0, JITTER) as u64;
        self.state = State::Searching { ask_at: now + 200 + wait };
        self.event(event);
    }

    /// Time passes: questions, timeouts, pings. Call a few times a second.
    pub fn tick(&mut self, now: u64, link: &mut impl Link) {
        match self.state {
            State::Searching { ask_at } if now >= ask_at => {
                self.asked += 1;
                let wait = ASK + self.rng.range(0, JITTER) as u64;
                self.state = State::Searching { ask_at: now + wait };
                let query = EnumSessions { application: APPLICATION, flags: EnumFlags::JOINABLE, password: None };
                let mut buffer = [0; 128];
                if let Some(len) = self.sender.system(&mut buffer, &Body::EnumSessions(query)) {
                    link.broadcast(&buffer[..len]);
                }
                let stale = |f: &Found| now > f.seen + STALE;
                if self.found.iter().flatten().any(stale) {
                    self.found = self.found.map(|f| f.filter(|f| !stale(f)));
                    self.event(Event::Found);
                }
            }
            State::Joining { since, .. } if now > since + STEP => self.lose(now),
            State::Joined { .. } | State::Hosting => self.watch(now, link),
            _ => {}
        }
        if self.state == State::Hosting {
            self.finish_forwards(now, link);
        }
    }

    /// Pings who is quiet and gives up who stays so.
    fn watch(&mut self, now: u64, link: &mut impl Link) {
        for place in 0..MACHINES {
            let Some(machine) = self.machines.get_mut(place) else { continue };
            let silence = now.saturating_sub(machine.heard);
            if silence > DEAD {
                let ip = machine.ip();
                link.hang_up(ip);
                self.lost(ip, now, link);
            } else if silence > QUIET && now > machine.pinged + 2000 {
                machine.pinged = now;
                let to = machine.tcp;
                self.say(to, &Body::Ping(Ping { from: self.system, tick_count: now as u32 }), link);
            }
        }
    }

    /// The connection to or from a machine broke.
    pub fn lost(&mut self, ip: Ipv4Addr, now: u64, link: &mut impl Link) {
        match self.state {
            State::Joining { host, .. } | State::Joined { host } if *host.ip() == ip => self.lose(now),
            State::Hosting => self.expel(ip, link),
            // Between two peers the host decides; it may be our connection alone that broke.
            _ => {}
        }
    }

    /// A datagram at the query port.
    pub fn query(&mut self, from: Ipv4Addr, bytes: &[u8], now: u64, link: &mut impl Link) {
        let packet = Packet::from_datagram(bytes);
        let (Some(envelope), Content::System(message)) = (packet.envelope, packet.content) else { return };
        if let (State::Hosting, Body::EnumSessions(query)) = (self.state, message.body) {
            let asker = listener(envelope.sender, from);
            self.answer(asker, &query, now, link);
        }
    }

    /// A datagram at our own port. Answers the player's place and the payload, if the game has to see it.
    pub fn datagram<'a>(
        &mut self,
        from: Ipv4Addr,
        bytes: &'a [u8],
        now: u64,
        link: &mut impl Link,
    ) -> Option<(usize, &'a [u8])> {
        self.packet(from, Packet::from_datagram(bytes), now, link)
    }

    /// A whole message of a TCP stream. Answers as [`Session::datagram`].
    pub fn message<'a>(
        &mut self,
        from: Ipv4Addr,
        bytes: &'a [u8],
        now: u64,
        link: &mut impl Link,
    ) -> Option<(usize, &'a [u8])> {
        let packet = Packet::parse(bytes)?;
        self.packet(from, packet, now, link)
    }

    fn packet<'a>(
        &mut self,
        from: Ipv4Addr,
        packet: Packet<'a>,
        now: u64,
        link: &mut impl Link,
    ) -> Option<(usize, &'a [u8])> {
        let sender = packet.envelope.map_or(SocketAddrV4::new(from, TCP_PORT), |e| listener(e.sender, from));
        let place = self.machines.by_ip(from);
        if let Some(machine) = place.and_then(|p| self.machines.get_mut(p)) {
            machine.heard = now;
        }
        match packet.content {
            Content::System(message) => match message.body {
                Body::PlayerWrapper(inner) => self.user(sender, inner, link),
                body => {
                    self.system(sender, &body, now, link);
                    None
                }
            },
            Content::User(bytes) => self.user(sender, bytes, link),
            Content::Malformed(_) => None,
        }
    }

    fn user<'a>(&mut self, from: SocketAddrV4, bytes: &'a [u8], link: &mut impl Link) -> Option<(usize, &'a [u8])> {
        let message = UserMessage::parse(bytes)?;
        let place = self.machines.by_ip(*from.ip());
        let known = place.filter(|p| self.machines.get(*p).is_some_and(|m| m.player == message.from));
        if known.is_none() && place.is_none() && self.state == State::Hosting {
            // It believes that it plays with us: we have begun anew, or have given it up.
            self.say(from, &Body::YouAreDead, link);
        }
        Some((known?, message.payload))
    }

    fn system(&mut self, from: SocketAddrV4, body: &Body, now: u64, link: &mut impl Link) {
        match body {
            Body::Ping(ping) => {
                let answer = Ping { from: self.system, tick_count: ping.tick_count };
                if self.machines.by_ip(*from.ip()).is_some() {
                    self.say(from, &Body::PingReply(answer), link);
                } else if self.state == State::Hosting {
                    self.say(from, &Body::YouAreDead, link);
                }
            }
            Body::CreatePlayer(create) => self.create_player(from, &create.player, now),
            Body::DeletePlayer(it) => self.delete_player(*from.ip(), it.player, now),
            Body::PlayerDataChanged(change) => {
                if let Some(place) = self.machines.by_player(change.id) {
                    let machine = self.machines.get_mut(place).filter(|m| m.ip() == *from.ip());
                    if let (Some(machine), Some(data)) = (machine, change.data.first_chunk()) {
                        machine.data = *data;
                        self.event(Event::Changed(place));
                    }
                }
            }
            _ if self.state == State::Hosting => self.host_message(from, body, now, link),
            _ => self.peer_message(from, body, now, link),
        }
    }

    /// New data of our own player, for everyone.
    pub fn set_data(&mut self, data: [u8; 4], link: &mut impl Link) {
        self.data = data;
        if self.player != Id::NONE {
            let change = wire::dplay::DataChanged { to: Id::NONE, id: self.player, data: &data };
            self.tell_everyone(&Body::PlayerDataChanged(change), link);
        }
    }

    /// A guaranteed message of the game to one player, or to all.
    pub fn tell(&self, place: Option<usize>, payload: &[u8], link: &mut impl Link) {
        self.send(
            place,
            payload,
            |sender, buffer, message, machine, link: &mut _| {
                if let Some(len) = sender.user_guaranteed(buffer, message) {
                    Link::tcp(link, machine.tcp, &buffer[..len]);
                }
            },
            link,
        );
    }

    /// An unguaranteed one.
    pub fn hint(&self, place: Option<usize>, payload: &[u8], link: &mut impl Link) {
        self.send(
            place,
            payload,
            |sender, buffer, message, machine, link: &mut _| {
                if let Some(len) = sender.user_datagram(buffer, message) {
                    Link::udp(link, machine.udp, &buffer[..len]);
                }
            },
            link,
        );
    }

    fn send<L: Link>(
        &self,
        place: Option<usize>,
        payload: &[u8],
        deliver: impl Fn(&Sender, &mut [u8], &UserMessage, &Machine, &mut L),
        link: &mut L,
    ) {
        if self.player == Id::NONE {
            return;
        }
        let mut buffer = [0; 256];
        for (index, machine) in self.machines.iter().filter(|(_, m)| m.player != Id::NONE) {
            if place.is_none_or(|wanted| wanted == index) {
                let to = if place.is_some() { machine.player } else { Id::NONE };
                let message = UserMessage { from: self.player, to, payload };
                deliver(&self.sender, &mut buffer, &message, machine, link);
            }
        }
    }

    /// A system message to one machine.
    fn say(&self, to: SocketAddrV4, body: &Body, link: &mut impl Link) {
        let mut buffer = [0; MESSAGE];
        if let Some(len) = self.sender.system(&mut buffer, body) {
            link.tcp(to, &buffer[..len]);
        }
    }

    fn tell_everyone(&self, body: &Body, link: &mut impl Link) {
        for (_, machine) in self.machines.iter().filter(|(_, m)| m.known()) {
            self.say(machine.tcp, body, link);
        }
    }

    fn ask_for_id(&self, request: wire::dplay::RequestId, host: SocketAddrV4, link: &mut impl Link) {
        self.say(host, &Body::RequestPlayerId(request), link);
    }
}

/// The listener of who sent a message. Its address is the packet's whatever the envelope says: genuine peers say
/// 0.0.0.0, and anything else would let a stranger make us connect to a third machine.
fn listener(sender: SocketAddrV4, from: Ipv4Addr) -> SocketAddrV4 {
    SocketAddrV4::new(from, sender.port())
}
