//! A segment on paper: machines 10.0.0.N with the MAC 02:00:00:00:00:NN that say what a test wants, as frames.
use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use api::observe::Observed;
use observe::{Frame, Limits, Observer, Point};
use wire::{
    dplay::{
        Body, Dialect, Guid, Id, IdKey, Player, PlayerFlags, Sender, SessionDescription, SessionFlags, SpAddresses,
    },
    ipv4, tcp, udp,
};

pub(crate) struct Net {
    pub(crate) observer: Observer,
    pub(crate) now: Duration,
    sequence: HashMap<(SocketAddrV4, SocketAddrV4), u32>,
    id: u16,
}

pub(crate) fn ip(machine: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, machine)
}

pub(crate) fn end(machine: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(ip(machine), port)
}

pub(crate) const fn mac(machine: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, machine]
}

const BROADCAST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::BROADCAST, 47624);

impl Net {
    pub(crate) fn new() -> Self {
        Self {
            observer: Observer::new(Limits::default()),
            now: Duration::from_secs(1_000_000),
            sequence: HashMap::new(),
            id: 0,
        }
    }

    pub(crate) fn observed(&mut self) -> Observed {
        self.observer.finish();
        self.observer.observed()
    }

    pub(crate) fn wait(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
    }

    pub(crate) fn ethernet(&mut self, point: Point, destination: [u8; 6], source: [u8; 6], kind: u16, payload: &[u8]) {
        self.now += Duration::from_micros(100);
        let bytes = [&destination, &source, &kind.to_be_bytes()[..], payload].concat();
        let wire_len = u32::try_from(bytes.len()).unwrap();
        self.observer.frame(&Frame { at: self.now, point, bytes: &bytes, wire_len });
    }

    pub(crate) fn ip(&mut self, point: Point, protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) {
        self.id += 1;
        let mut packet = vec![0; 20 + payload.len()];
        let header = ipv4::Header { id: self.id, protocol, source, destination, fragment: None };
        header.write(payload, &mut packet).unwrap();
        let to = if destination.is_broadcast() { [0xff; 6] } else { mac(destination.octets()[3]) };
        self.ethernet(point, to, mac(source.octets()[3]), 0x0800, &packet);
    }

    pub(crate) fn udp(&mut self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        let mut datagram = vec![0; 8 + payload.len()];
        udp::write((*from.ip(), from.port()), (*to.ip(), to.port()), payload, &mut datagram).unwrap();
        self.ip(Point::Wire, ipv4::UDP, *from.ip(), *to.ip(), &datagram);
    }

    /// Somebody at `from` says that nobody listens at its port, in answer to a datagram of `to`.
    pub(crate) fn port_unreachable(&mut self, from: SocketAddrV4, to: SocketAddrV4) {
        let mut datagram = vec![0; 8];
        udp::write((*to.ip(), to.port()), (*from.ip(), from.port()), &[], &mut datagram).unwrap();
        let mut quoted = vec![0; 28];
        let header =
            ipv4::Header { id: 1, protocol: ipv4::UDP, source: *to.ip(), destination: *from.ip(), fragment: None };
        header.write(&datagram, &mut quoted).unwrap();
        self.ip(Point::Wire, ipv4::ICMP, *from.ip(), *to.ip(), &[&[3, 3, 0, 0, 0, 0, 0, 0], &quoted[..]].concat());
    }

    pub(crate) fn segment(
        &mut self,
        point: Point,
        from: SocketAddrV4,
        to: SocketAddrV4,
        flags: tcp::Flags,
        payload: &[u8],
    ) {
        let acknowledgement = self.sequence.get(&(to, from)).copied().unwrap_or(0);
        let sequence = *self.sequence.entry((from, to)).or_insert(1000);
        let mut segment = vec![0; 20 + payload.len()];
        let header = tcp::Header {
            source: (*from.ip(), from.port()),
            destination: (*to.ip(), to.port()),
            sequence,
            acknowledgement,
            flags,
        };
        header.write(payload, &mut segment).unwrap();
        let one = u32::from(flags.contains(tcp::Flags::SYN) || flags.contains(tcp::Flags::FIN));
        self.sequence.insert((from, to), sequence + one + u32::try_from(payload.len()).unwrap());
        self.ip(point, ipv4::TCP, *from.ip(), *to.ip(), &segment);
    }

    /// Opens a connection if there is none, and sends.
    pub(crate) fn tcp(&mut self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        if !self.sequence.contains_key(&(from, to)) {
            self.segment(Point::Wire, from, to, tcp::Flags::SYN, &[]);
            self.segment(Point::Wire, to, from, tcp::Flags::SYN | tcp::Flags::ACK, &[]);
        }
        self.segment(Point::Wire, from, to, tcp::Flags::ACK | tcp::Flags::PSH, payload);
        self.segment(Point::Wire, to, from, tcp::Flags::ACK, &[]);
    }

    /// Sequence numbers, to send the same again.
    pub(crate) fn clone_numbers(&self) -> HashMap<(SocketAddrV4, SocketAddrV4), u32> {
        self.sequence.clone()
    }

    pub(crate) fn set_numbers(&mut self, numbers: HashMap<(SocketAddrV4, SocketAddrV4), u32>) {
        self.sequence = numbers;
    }

    pub(crate) fn fin(&mut self, from: SocketAddrV4, to: SocketAddrV4) {
        self.segment(Point::Wire, from, to, tcp::Flags::FIN | tcp::Flags::ACK, &[]);
    }

    pub(crate) fn reset(&mut self, from: SocketAddrV4, to: SocketAddrV4) {
        self.segment(Point::Wire, from, to, tcp::Flags::RST | tcp::Flags::ACK, &[]);
    }
}

/// A program: its machine, its TCP and UDP port, its system player.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) machine: u8,
    pub(crate) port: u16,
    pub(crate) system: Id,
    pub(crate) dialect: Dialect,
}

pub(crate) const fn peer(machine: u8, port: u16, index: u16) -> Peer {
    Peer { machine, port, system: KEY.make_id(1, index), dialect: Dialect::DX7_1 }
}

/// Small numbers, so that ids follow the key.
pub(crate) const KEY: IdKey = IdKey(0x5e40_26f1);

impl Peer {
    fn sender(self) -> Sender {
        Sender::new(self.port, self.dialect)
    }

    pub(crate) fn listener(self) -> SocketAddrV4 {
        end(self.machine, self.port)
    }

    pub(crate) fn datagrams(self) -> SocketAddrV4 {
        end(self.machine, self.port + 50)
    }

    /// Its end of the connection that it opened to `to`.
    pub(crate) fn socket(self, to: Peer) -> SocketAddrV4 {
        end(self.machine, 40_000 + self.port + u16::from(to.machine) * 10 + to.port % 10)
    }

    pub(crate) fn message(self, body: &Body<'_>) -> Vec<u8> {
        let mut buffer = vec![0; 65_000];
        let len = self.sender().system(&mut buffer, body).unwrap();
        buffer.truncate(len);
        buffer
    }

    pub(crate) fn says(self, net: &mut Net, to: Peer, body: &Body<'_>) {
        net.tcp(self.socket(to), to.listener(), &self.message(body));
    }

    pub(crate) fn asks(self, net: &mut Net, application: Guid, password: Option<&str>) {
        let flags = wire::dplay::EnumFlags::ALL;
        let query = wire::dplay::EnumSessions { application, flags, password: password.map(Into::into) };
        net.udp(end(self.machine, 1039), BROADCAST, &self.message(&Body::EnumSessions(query)));
    }

    pub(crate) fn user(self, net: &mut Net, to: Peer, from: Id, reliable: bool) {
        let message = wire::dplay::UserMessage { from, to: Id::NONE, payload: b"move" };
        let mut buffer = [0; 64];
        if reliable {
            let len = self.sender().user_guaranteed(&mut buffer, &message).unwrap();
            net.tcp(self.socket(to), to.listener(), &buffer[..len]);
        } else {
            let len = self.sender().user_datagram(&mut buffer, &message).unwrap();
            net.udp(self.datagrams(), to.datagrams(), &buffer[..len]);
        }
    }

    pub(crate) fn sp_data(self) -> [u8; SpAddresses::LEN] {
        SpAddresses::new(Ipv4Addr::UNSPECIFIED, self.port, self.port + 50).to_bytes()
    }

    /// Its system player.
    pub(crate) fn record(self, sp_data: &[u8], host: bool) -> Player<'_> {
        let name_server = if host { PlayerFlags::NAME_SERVER } else { PlayerFlags::NONE };
        Player {
            flags: PlayerFlags::SYSTEM | name_server,
            id: self.system,
            system_id: self.system,
            dialect: self.dialect,
            sp_data,
            ..Player::default()
        }
    }

    pub(crate) fn creates(self, net: &mut Net, to: Peer, id: Id, name: &str) {
        let sp_data = self.sp_data();
        let player = Player {
            id,
            system_id: self.system,
            dialect: self.dialect,
            short_name: Some(name.into()),
            sp_data: &sp_data,
            ..Player::default()
        };
        self.says(net, to, &Body::CreatePlayer(wire::dplay::Create { to: Id::NONE, player }));
    }
}

/// A session on paper.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Game {
    pub(crate) host: Peer,
    pub(crate) name: &'static str,
    pub(crate) description: SessionDescription,
}

pub(crate) const APPLICATION: Guid = Guid([7; 16]);

pub(crate) fn game(host: Peer, name: &'static str, instance: u8) -> Game {
    Game {
        host,
        name,
        description: SessionDescription {
            flags: SessionFlags::MIGRATE_HOST | SessionFlags::KEEP_ALIVE,
            instance: Guid([instance; 16]),
            application: APPLICATION,
            max_players: 4,
            current_players: 1,
            id_key: KEY,
            ..SessionDescription::default()
        },
    }
}

impl Game {
    pub(crate) fn answers(self, net: &mut Net, to: Peer) {
        let reply = wire::dplay::EnumSessionsReply { session: self.description, name: Some(self.name.into()) };
        self.host.says(net, to, &Body::EnumSessionsReply(reply));
    }

    pub(crate) fn gives_id(self, net: &mut Net, to: Peer, id: Id, result: u32) {
        let reply = wire::dplay::RequestPlayerReply {
            id,
            result: wire::dplay::HResult(result),
            ..wire::dplay::RequestPlayerReply::default()
        };
        self.host.says(net, to, &Body::RequestPlayerReply(reply));
    }

    /// The whole way in, with one player `name` of the id `player`; `others` are in already.
    pub(crate) fn joined_by(self, net: &mut Net, joiner: Peer, others: &[Peer], (player, name): (Id, &str)) {
        joiner.asks(net, APPLICATION, None);
        self.answers(net, joiner);
        joiner.says(net, self.host, &Body::RequestPlayerId(wire::dplay::RequestId::SYSTEM_PLAYER));
        self.gives_id(net, joiner, joiner.system, 0);
        let sp_data = joiner.sp_data();
        let request = wire::dplay::AddForwardRequest {
            player: joiner.record(&sp_data, false),
            password: Some("SesamOeffneDich".into()),
            ..wire::dplay::AddForwardRequest::default()
        };
        joiner.says(net, self.host, &Body::AddForwardRequest(request));
        let sp_data = self.host.sp_data();
        let players = [self.host.record(&sp_data, true)];
        let reply = wire::dplay::PlayersReply {
            session: self.description,
            name: Some(self.name.into()),
            password: Some("SesamOeffneDich".into()),
            players: wire::dplay::Players::new(&players),
            ..wire::dplay::PlayersReply::default()
        };
        self.host.says(net, joiner, &Body::SuperEnumPlayersReply(reply));
        joiner.says(net, self.host, &Body::RequestPlayerId(wire::dplay::RequestId::PLAYER));
        self.gives_id(net, joiner, player, 0);
        for other in others.iter().chain([&self.host]) {
            joiner.creates(net, *other, player, name);
        }
    }
}
