//! What guests say, as frames.
use std::collections::BTreeSet;

use wire::{
    MacAddr, arp,
    dplay::{
        AddForwardRequest, Body, Create, EnumFlags, EnumSessions, EnumSessionsReply, Guid, HResult, Id, Message,
        Player, PlayerFlags, Players, PlayersReply, QUERY_PORT, RequestId, RequestPlayerReply, Sender,
        SessionDescription, SessionFlags, SpAddresses, Text,
    },
    frame::FrameFormat,
    ipv4, ipx,
    tcp::{self, Flags},
    udp,
};

use super::{Door, Game, Guest, Lab};

pub(crate) type Ip = std::net::Ipv4Addr;

const LISTENER: u16 = 2300;
const IPX_SOCKET: u16 = 0xa57f;

pub(crate) fn ethernet(to: MacAddr, from: MacAddr, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &kind.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

pub(crate) fn arp_announcement(mac: MacAddr, ip: Ip) -> Vec<u8> {
    let packet = arp::Packet {
        operation: arp::REQUEST,
        sender_mac: mac,
        sender_ip: ip,
        target_mac: MacAddr::ZERO,
        target_ip: ip,
    };
    let mut bytes = [0; arp::LEN];
    packet.write(&mut bytes).unwrap();
    ethernet(MacAddr::BROADCAST, mac, 0x0806, &bytes)
}

fn packet(to: MacAddr, from: MacAddr, ends: (Ip, Ip), protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = ipv4::Header { id: 1, protocol, source: ends.0, destination: ends.1, fragment: None };
    let mut bytes = vec![0; payload.len() + 20];
    header.write(payload, &mut bytes).unwrap();
    ethernet(to, from, 0x0800, &bytes)
}

pub(crate) fn datagram(
    to: MacAddr,
    from: MacAddr,
    source: (Ip, u16),
    destination: (Ip, u16),
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![0; payload.len() + 8];
    udp::write(source, destination, payload, &mut bytes).unwrap();
    packet(to, from, (source.0, destination.0), ipv4::UDP, &bytes)
}

/// DISCOVER (RFC 2131), as short as it may be.
pub(crate) fn dhcp_discover(mac: MacAddr) -> Vec<u8> {
    let mut body = vec![0; 240];
    body[..4].copy_from_slice(&[1, 1, 6, 0]);
    body[28..34].copy_from_slice(&mac.0);
    body[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    body.extend([53, 1, 1, 255]);
    datagram(MacAddr::BROADCAST, mac, (Ip::UNSPECIFIED, 68), (Ip::BROADCAST, 67), &body)
}

fn system(dialect: wire::dplay::Dialect, body: &Body<'_>) -> Vec<u8> {
    let mut bytes = vec![0; 4000];
    let len = Sender::new(LISTENER, dialect).system(&mut bytes, body).unwrap();
    bytes.truncate(len);
    bytes
}

fn query(guest: &Guest) -> EnumSessions<'static> {
    EnumSessions { application: Guid(guest.application), flags: EnumFlags::ALL, password: None }
}

fn description(game: &Game) -> SessionDescription {
    SessionDescription {
        flags: game.flags,
        instance: Guid(game.instance),
        application: Guid(game.application),
        max_players: game.max,
        current_players: game.players,
        ..SessionDescription::default()
    }
}

/// A TCP connection, as far as it got.
pub(crate) struct Tcp {
    from: (u16, u16),
    to: (u16, u16),
    sequence: u32,
    acknowledgement: u32,
}

impl Lab {
    fn segment(
        &mut self,
        (from, from_port): (u16, u16),
        to: (u16, u16),
        words: (u32, u32),
        flags: Flags,
        data: &[u8],
    ) -> bool {
        let (a_mac, a_ip) = (self.guest(from).mac, self.guest(from).ip);
        let (b_mac, b_ip) = (self.guest(to.0).mac, self.guest(to.0).ip);
        let header = tcp::Header {
            source: (a_ip, from_port),
            destination: (b_ip, to.1),
            sequence: words.0,
            acknowledgement: words.1,
            flags,
        };
        let mut bytes = vec![0; data.len() + 20];
        header.write(data, &mut bytes).unwrap();
        let frame = packet(b_mac, a_mac, (a_ip, b_ip), ipv4::TCP, &bytes);
        self.send_to(from, to.0, &frame)
    }

    /// Three SYNs at most, as Windows tries.
    pub(crate) fn connect(&mut self, from: u16, to: u16, port: u16) -> Option<Tcp> {
        let own = self.port(from);
        for _ in 0..3 {
            let came = self.segment((from, own), (to, port), (100, 0), Flags::SYN, &[]);
            if !came || self.guest(to).door == Door::Mute {
                self.pass(3.0);
                continue;
            }
            if self.guest(to).door == Door::Refuses {
                self.segment((to, port), (from, own), (0, 101), Flags::RST | Flags::ACK, &[]);
                return None;
            }
            if self.segment((to, port), (from, own), (500, 101), Flags::SYN | Flags::ACK, &[])
                && self.segment((from, own), (to, port), (101, 501), Flags::ACK, &[])
            {
                return Some(Tcp { from: (from, own), to: (to, port), sequence: 101, acknowledgement: 501 });
            }
            self.pass(3.0);
        }
        self.pass(4.0);
        None
    }

    /// Whether it came; lost segments are sent three times.
    pub(crate) fn write(&mut self, tcp: &mut Tcp, data: &[u8]) -> bool {
        data.chunks(1460).all(|segment| self.write_segment(tcp, segment))
    }

    fn write_segment(&mut self, tcp: &mut Tcp, data: &[u8]) -> bool {
        for _ in 0..3 {
            let words = (tcp.sequence, tcp.acknowledgement);
            if self.segment(tcp.from, tcp.to, words, Flags::PSH | Flags::ACK, data) {
                tcp.sequence += u32::try_from(data.len()).unwrap();
                let slow = self.guest(tcp.to.0).slow;
                self.now += slow;
                self.segment(tcp.to, tcp.from, (tcp.acknowledgement, tcp.sequence), Flags::ACK, &[]);
                return true;
            }
            self.pass(2.0);
        }
        false
    }

    /// Opens a game. Nothing is on the wire until somebody asks.
    pub(crate) fn host(&mut self, number: u16, game: Game) {
        self.guest(number).game = Some(game);
    }

    /// Asks by broadcast, and every host that hears it answers as it should. Answers those whose answer came.
    pub(crate) fn ask(&mut self, number: u16) -> BTreeSet<u16> {
        let broadcast = (MacAddr::BROADCAST, Ip::BROADCAST);
        self.ask_at(number, broadcast, None)
    }

    /// The same to one address, as a person types it; `source` is the address that it comes from, where it is another.
    pub(crate) fn ask_at(&mut self, number: u16, (mac, ip): (MacAddr, Ip), source: Option<Ip>) -> BTreeSet<u16> {
        let own = self.port(number);
        let guest = self.guest(number);
        let body = system(guest.dialect, &Body::EnumSessions(query(guest)));
        let source = source.unwrap_or(guest.ip);
        let frame = datagram(mac, guest.mac, (source, own), (ip, QUERY_PORT), &body);
        let heard = self.send(number, &frame);
        let mut answered = BTreeSet::new();
        for host in heard {
            let answers = {
                let (asker_ip, asker_app, asker_dialect) =
                    (self.guest(number).ip, self.guest(number).application, self.guest(number).dialect);
                let game = self.guest(host).game.clone();
                game.filter(|game| {
                    !game.ipx
                        && source == asker_ip
                        && game.application == asker_app
                        && game.dialect == asker_dialect
                        && !game.flags.contains(SessionFlags::PASSWORD_REQUIRED)
                })
            };
            match answers {
                Some(game) if self.answer(host, number, &game) => drop(answered.insert(host)),
                // Nobody listens there, and it was meant for this machine alone (RFC 1122 4.1.3.1).
                None if !mac.is_group() && self.guest(host).game.is_none() => self.unreachable(host, number, &frame),
                _ => {}
            }
        }
        self.pass(5.0);
        answered
    }

    pub(crate) fn answer(&mut self, host: u16, asker: u16, game: &Game) -> bool {
        let Some(mut tcp) = self.connect(host, asker, LISTENER) else { return false };
        let reply = EnumSessionsReply { session: description(game), name: Some(Text::new(game.name)) };
        let bytes = system(game.dialect, &Body::EnumSessionsReply(reply));
        self.write(&mut tcp, &bytes)
    }

    /// ICMP: port unreachable (RFC 792), with the packet that it is about.
    fn unreachable(&mut self, from: u16, to: u16, about: &[u8]) {
        let (a, b) = ((self.guest(from).mac, self.guest(from).ip), (self.guest(to).mac, self.guest(to).ip));
        let mut body = vec![3, 3, 0, 0, 0, 0, 0, 0];
        body.extend(&about[14..14 + 28]);
        let sum = ipv4::internet_checksum(&body, 0).to_be_bytes();
        body[2..4].copy_from_slice(&sum);
        let frame = packet(b.0, a.0, (a.1, b.1), ipv4::ICMP, &body);
        self.send(from, &frame);
    }

    /// The joiner's whole way in. Whether it got in.
    pub(crate) fn join(&mut self, number: u16, host: u16) -> bool {
        let game = self.guest(host).game.clone().unwrap();
        let dialect = self.guest(number).dialect;
        let Some(mut there) = self.connect(number, host, LISTENER) else { return false };
        self.write(&mut there, &system(dialect, &Body::RequestPlayerId(RequestId::SYSTEM_PLAYER)));
        let Some(mut back) = self.connect(host, number, LISTENER) else { return false };
        let (system_id, player_id) = (Id(0x1000 + u32::from(number)), Id(0x2000 + u32::from(number)));
        let reply =
            RequestPlayerReply { id: system_id, result: HResult(game.refuses), ..RequestPlayerReply::default() };
        if !self.write(&mut back, &system(dialect, &Body::RequestPlayerReply(reply))) || game.refuses != 0 {
            return false;
        }
        let told = self.guest(number).told;
        let own_sp = SpAddresses::new(told.unwrap_or(Ip::UNSPECIFIED), LISTENER, 2350).to_bytes();
        let me = Player {
            flags: PlayerFlags::SYSTEM,
            id: system_id,
            system_id,
            dialect,
            sp_data: &own_sp,
            ..Player::default()
        };
        let request = AddForwardRequest { player: me, ..AddForwardRequest::default() };
        if !self.write(&mut there, &system(dialect, &Body::AddForwardRequest(request))) {
            return false;
        }
        // The host calls the address that it was told, where nobody is.
        if told.is_some() {
            return false;
        }
        let host_sp = SpAddresses::new(self.guest(host).ip, LISTENER, 2350).to_bytes();
        let joiner_sp = SpAddresses::new(self.guest(number).ip, LISTENER, 2350).to_bytes();
        let (host_system, host_player) = (Id(0x1000 + u32::from(host)), Id(0x2000 + u32::from(host)));
        // As long as a full game's: what does not pass a small MTU.
        let long = "x".repeat(750);
        let players = [
            Player {
                flags: PlayerFlags::SYSTEM.with(PlayerFlags::NAME_SERVER),
                id: host_system,
                system_id: host_system,
                dialect: game.dialect,
                sp_data: &host_sp,
                ..Player::default()
            },
            Player {
                id: host_player,
                system_id: host_system,
                short_name: Some(Text::new("Host")),
                long_name: Some(Text::new(&long)),
                ..Player::default()
            },
            Player {
                flags: PlayerFlags::SYSTEM,
                id: system_id,
                system_id,
                dialect,
                sp_data: &joiner_sp,
                ..Player::default()
            },
        ];
        let all = PlayersReply {
            session: description(&game),
            name: Some(Text::new(game.name)),
            password: None,
            players: Players::new(&players),
            groups: Players::NONE,
            shortcuts: Players::NONE,
        };
        let bytes = system(dialect, &Body::SuperEnumPlayersReply(all));
        if !self.write(&mut back, &bytes) {
            return false;
        }
        let name = format!("Player {number}");
        let player = Player { id: player_id, system_id, short_name: Some(Text::new(&name)), ..Player::default() };
        let create = Create { to: Id::NONE, player };
        self.write(&mut there, &system(dialect, &Body::CreatePlayer(create)));
        self.pass(2.0);
        true
    }

    /// Asks until it is answered, then joins.
    pub(crate) fn play(&mut self, number: u16, host: u16) -> bool {
        self.ask(number).contains(&host) && self.join(number, host)
    }

    /// The question over IPX, in a framing; hosts by IPX that speak it hear it and answer the asker.
    pub(crate) fn ask_ipx(&mut self, number: u16, framing: FrameFormat, host: Option<(u16, FrameFormat)>) {
        let guest = self.guest(number);
        let (mac, dialect) = (guest.mac, guest.dialect);
        let body = bare(dialect, &Body::EnumSessions(query(guest)));
        let frame = ipx_frame(framing, MacAddr::BROADCAST, mac, &body);
        let heard = self.send(number, &frame);
        if let Some((host, spoken)) = host
            && let Some(game) = self.guest(host).game.clone().filter(|game| game.ipx)
        {
            let host_mac = self.guest(host).mac;
            let reply = EnumSessionsReply { session: description(&game), name: Some(Text::new(game.name)) };
            let body = bare(game.dialect, &Body::EnumSessionsReply(reply));
            if heard.contains(&host) && spoken == framing {
                let frame = ipx_frame(spoken, mac, host_mac, &body);
                self.send(host, &frame);
            }
        }
        self.pass(5.0);
    }
}

fn bare(dialect: wire::dplay::Dialect, body: &Body<'_>) -> Vec<u8> {
    let mut bytes = vec![0; 1000];
    let len = Message { dialect, body: *body }.write(&mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

pub(crate) fn ipx_frame(framing: FrameFormat, to: MacAddr, from: MacAddr, payload: &[u8]) -> Vec<u8> {
    let address = |node, socket| ipx::Address { network: 0, node, socket };
    let packet = ipx::Packet {
        checksum: 0xffff,
        hops: 0,
        packet_type: 0,
        destination: address(to, IPX_SOCKET),
        source: address(from, IPX_SOCKET),
        payload,
    };
    let mut bytes = vec![0; payload.len() + 30];
    packet.write(&mut bytes).unwrap();
    let head: &[u8] = match framing {
        FrameFormat::EthernetII => return ethernet(to, from, 0x8137, &bytes),
        FrameFormat::Raw8023 => &[],
        FrameFormat::Llc => &[0xe0, 0xe0, 0x03],
        FrameFormat::Snap => &[0xaa, 0xaa, 0x03, 0, 0, 0, 0x81, 0x37],
    };
    let body = [head, &bytes].concat();
    ethernet(to, from, u16::try_from(body.len()).unwrap(), &body)
}
