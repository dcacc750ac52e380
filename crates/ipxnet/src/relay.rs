//! The decisions: where a packet goes, who may speak, who is forgotten. No socket, no clock.
//!
//! ```text
//! datagram: parse -> registration? answer
//!                 -> known client? -> rate -> own node as source? -> hops, NetBIOS, circle
//!                    to all:    every other client, and the LAN in each framing
//!                    to a node: its client, else the LAN
//! frame:    parse -> own mark? a client's node as source? -> hops, NetBIOS, rate, circle
//!                    to all:    every client
//!                    to a node: its client, else nobody
//! ```
//! Packets go on as they came, but for the checksum, which becomes FFFF ("none"): raw 802.3 is told by it.
use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use tracing::{info, warn};
use wire::{
    MacAddr,
    frame::{Class, Frame},
    ipx::{Address, HEADER_LEN, Packet},
    ipxnet::{ANSWER_NETWORK, Message, SOCKET},
};

use crate::{
    ClientReport, Drop, Drops, OWN_NODE, Report, Settings, Traffic,
    clients::{Client, Clients},
    guard::{Bucket, LoopGuard},
    segment::{self, FRAME_LEN_MAX, Stations},
};

/// Longest packet that any framing takes.
const PACKET_LEN_MAX: usize = 1500;
/// A broadcast goes to all clients and the LAN, so it costs more.
const BROADCAST_COST: u32 = 4;
/// A packet that was passed on so often goes no further (Novell's limit for RIP networks).
const HOPS_MAX: u8 = 16;
/// Sockets of NetBIOS over IPX, and of Windows' file sharing over IPX without NetBIOS.
const NETBIOS_SOCKETS: [std::ops::RangeInclusive<u16>; 2] = [0x0455..=0x0455, 0x0550..=0x0555];
/// "NetBIOS propagated".
const NETBIOS_TYPE: u8 = 20;
/// A refused newcomer is told about in the log this often at most.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Where a relay's output goes. Each call of a method of [`Relay`] gives at most one datagram for each client, one answer
/// and one frame for each framing.
pub trait Outlet {
    fn datagram(&mut self, to: SocketAddrV4, packet: &[u8]);
    /// A frame for the LAN, without check sum.
    fn frame(&mut self, frame: &[u8]);
}

/// A relay between the clients of a tunnel and a LAN.
#[derive(Debug)]
pub struct Relay {
    settings: Settings,
    clients: Clients,
    stations: Stations,
    loops: LoopGuard,
    segment_bucket: Bucket,
    newcomers: Bucket,
    drops: Drops,
    from_segment: Traffic,
    to_segment: Traffic,
    refusal_logged: Option<Instant>,
}

/// Who gets a packet, beside the LAN.
#[derive(Debug, Clone, Copy)]
enum Audience {
    All { but: Option<SocketAddrV4> },
    One(SocketAddrV4),
}

impl Relay {
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            settings,
            clients: Clients::default(),
            stations: Stations::default(),
            loops: LoopGuard::new(now),
            segment_bucket: Bucket::new(settings.segment_rate, now),
            newcomers: Bucket::new(settings.newcomer_rate, now),
            drops: Drops::default(),
            from_segment: Traffic::default(),
            to_segment: Traffic::default(),
            refusal_logged: None,
        }
    }

    /// Takes a datagram of the tunnel.
    pub fn datagram(&mut self, from: SocketAddrV4, bytes: &[u8], now: Instant, out: &mut impl Outlet) {
        if let Err(reason) = self.accept_datagram(from, bytes, now, out) {
            self.drops.count(reason);
            if let Some(client) = self.clients.get_mut(from) {
                client.dropped = client.dropped.saturating_add(1);
            }
        }
    }

    /// Takes a frame of the LAN. Frames that are not IPX cost a look at their type.
    pub fn frame(&mut self, bytes: &[u8], now: Instant, out: &mut impl Outlet) {
        if let Err(reason) = self.accept_frame(bytes, now, out) {
            self.drops.count(reason);
        }
    }

    /// Lets time pass: pings the silent, forgets the gone. To be called about once a second.
    pub fn tick(&mut self, now: Instant, out: &mut impl Outlet) {
        self.stations.age(now);
        let limit = self.settings.idle_limit;
        for (address, client) in self.clients.remove_if(|client| now.saturating_duration_since(client.heard) >= limit) {
            info!(%address, node = %client.node, silent = ?limit, "IPX client is gone: it said nothing and answered no ping");
        }
        let silent = |since: Instant| now.saturating_duration_since(since) >= self.settings.ping_after;
        for (address, client) in self.clients.iter_mut() {
            if silent(client.heard) && client.pinged.is_none_or(silent) {
                client.pinged = Some(now);
                say(Message::Ping { from: OWN_NODE }, address, out);
            }
        }
    }

    /// The state as of `now`; whether there is a port is the caller's to know.
    pub fn report(&self, now: Instant) -> Report {
        let client = |(address, client): (SocketAddrV4, &Client)| ClientReport {
            node: client.node,
            address,
            connected_for: now.saturating_duration_since(client.since),
            silent_for: now.saturating_duration_since(client.heard),
            sent: client.sent,
            received: client.received,
            dropped: client.dropped,
        };
        Report {
            clients: self.clients.iter().map(client).collect(),
            drops: self.drops,
            from_segment: self.from_segment,
            to_segment: self.to_segment,
            framings: self.stations.formats(self.settings.framing, None).collect(),
            plugged: false,
        }
    }

    fn accept_datagram(
        &mut self,
        from: SocketAddrV4,
        bytes: &[u8],
        now: Instant,
        out: &mut impl Outlet,
    ) -> Result<(), Drop> {
        let packet = Packet::parse(bytes).filter(|_| bytes.len() <= PACKET_LEN_MAX).ok_or(Drop::Malformed)?;
        let message = Message::of(packet);
        if message == Message::Registration {
            let node = self.admit(from, now)?;
            let server = Address { network: ANSWER_NETWORK, node: MacAddr::BROADCAST, socket: SOCKET };
            say(Message::Answer { node, server }, from, out);
            return Ok(());
        }
        if self.clients.get_mut(from).is_none() {
            // It has the node that it would get: it had it from an earlier life of this relay, and does not know of its end.
            let returns = self.clients.node_for(from, &self.stations) == Some(packet.source.node);
            if !returns {
                return Err(Drop::Unknown);
            }
            self.admit(from, now)?;
        }
        let client = self.clients.get_mut(from).ok_or(Drop::Unknown)?;
        let to = packet.destination.node;
        if !client.bucket.take(if to.is_group() { BROADCAST_COST } else { 1 }, now) {
            return Err(Drop::Rate);
        }
        if packet.source.node != client.node {
            return Err(Drop::Source);
        }
        client.heard = now;
        client.pinged = None;
        client.sent += HEADER_LEN + packet.payload.len();
        match message {
            Message::Answer { .. } => return Err(Drop::Destination),
            Message::Ping { from: node } => say(Message::Pong { from: OWN_NODE, to: node }, from, out),
            Message::Pong { to: OWN_NODE, .. } => return Ok(()),
            _ => {}
        }
        self.check(&packet, now)?;
        // What is the tunnel's own stays in it.
        let to_segment = matches!(message, Message::Packet(_));
        match self.clients.address_of(to) {
            _ if to == MacAddr::ZERO || to == packet.source.node => Err(Drop::Destination),
            _ if to == OWN_NODE => Ok(()),
            _ if to.is_group() => {
                self.give_clients(&packet, Audience::All { but: Some(from) }, out);
                if to_segment { self.give_segment(&packet, None, out) } else { Ok(()) }
            }
            Some(client) => {
                self.give_clients(&packet, Audience::One(client), out);
                Ok(())
            }
            None if to_segment => self.give_segment(&packet, Some(to), out),
            None => Err(Drop::Destination),
        }
    }

    fn accept_frame(&mut self, bytes: &[u8], now: Instant, out: &mut impl Outlet) -> Result<(), Drop> {
        let Some(frame) = Frame::parse(bytes) else { return Err(Drop::Malformed) };
        if frame.vlan.is_some() {
            // Another LAN's, on the same wire.
            return Ok(());
        }
        let Class::Ipx(format) = frame.class else {
            self.stations.hear(frame.source, None, now);
            return Ok(());
        };
        let packet = frame.ipx().ok_or(Drop::Malformed)?;
        let mark = segment::mark_of(bytes, format, &packet);
        let is_client = |node| self.clients.address_of(node).is_some();
        // Ours, or somebody who says he is one of ours: from the LAN, neither can be.
        if mark == Some(self.settings.id) || is_client(packet.source.node) || is_client(frame.source) {
            return Err(Drop::Loop);
        }
        self.stations.hear(frame.source, mark.is_none().then_some(format), now);
        let to = packet.destination.node;
        let audience = match self.clients.address_of(to) {
            _ if !matches!(Message::of(packet), Message::Packet(_)) => return Ok(()),
            _ if to.is_group() => Audience::All { but: None },
            Some(client) => Audience::One(client),
            // A station's, or one behind another relay.
            None => return Ok(()),
        };
        if self.clients.len() == 0 {
            return Ok(());
        }
        if HEADER_LEN + packet.payload.len() > PACKET_LEN_MAX {
            return Err(Drop::TooLong);
        }
        if !self.segment_bucket.take(1, now) {
            return Err(Drop::Rate);
        }
        self.check(&packet, now)?;
        self.from_segment += HEADER_LEN + packet.payload.len();
        self.give_clients(&packet, audience, out);
        Ok(())
    }

    /// What holds for both ways.
    fn check(&mut self, packet: &Packet<'_>, now: Instant) -> Result<(), Drop> {
        if packet.hops >= HOPS_MAX {
            return Err(Drop::Hops);
        }
        let sockets = [packet.destination.socket, packet.source.socket];
        let netbios = packet.packet_type == NETBIOS_TYPE
            || NETBIOS_SOCKETS.iter().any(|range| sockets.iter().any(|socket| range.contains(socket)));
        if netbios && !self.settings.netbios {
            return Err(Drop::NetBios);
        }
        if self.loops.circles(packet, now) { Err(Drop::Loop) } else { Ok(()) }
    }

    /// Makes `from` a client if it is none yet, and answers its node.
    fn admit(&mut self, from: SocketAddrV4, now: Instant) -> Result<MacAddr, Drop> {
        if let Some(client) = self.clients.get_mut(from) {
            if !client.bucket.take(1, now) {
                return Err(Drop::Rate);
            }
            client.heard = now;
            return Ok(client.node);
        }
        if !self.newcomers.take(1, now) {
            return self.refuse(from, Drop::Newcomers, now);
        }
        let settings = &self.settings;
        if self.clients.len() >= settings.clients_max || self.clients.behind(*from.ip()) >= settings.clients_per_ip_max
        {
            return self.refuse(from, Drop::Full, now);
        }
        let node = self.clients.node_for(from, &self.stations).ok_or(Drop::Destination)?;
        self.clients.insert(from, node, Bucket::new(self.settings.client_rate, now), now);
        info!(address = %from, %node, clients = self.clients.len(), "IPX client joined");
        Ok(node)
    }

    fn refuse(&mut self, from: SocketAddrV4, reason: Drop, now: Instant) -> Result<MacAddr, Drop> {
        if self.refusal_logged.is_none_or(|last| now.saturating_duration_since(last) >= REFUSAL_LOG_INTERVAL) {
            self.refusal_logged = Some(now);
            warn!(address = %from, reason = reason.word(), clients = self.clients.len(), "IPX client refused; others in the next minute are only counted");
        }
        Err(reason)
    }

    fn give_clients(&mut self, packet: &Packet<'_>, audience: Audience, out: &mut impl Outlet) {
        let mut buffer = [0; PACKET_LEN_MAX];
        let bytes = unsummed(packet, &mut buffer);
        let mut send = |address, client: &mut Client| {
            client.received += bytes.len();
            out.datagram(address, bytes);
        };
        match audience {
            Audience::One(address) => {
                if let Some(client) = self.clients.get_mut(address) {
                    send(address, client);
                }
            }
            Audience::All { but } => {
                self.clients.iter_mut().filter(|(to, _)| Some(*to) != but).for_each(|(to, client)| send(to, client));
            }
        }
    }

    fn give_segment(&mut self, packet: &Packet<'_>, to: Option<MacAddr>, out: &mut impl Outlet) -> Result<(), Drop> {
        let (mut buffer, mut frame) = ([0; PACKET_LEN_MAX], [0; FRAME_LEN_MAX]);
        let bytes = unsummed(packet, &mut buffer);
        // As the station would: its node is its MAC, so answers find their way back through every bridge.
        let macs = (packet.destination.node, packet.source.node);
        let mut outcome = Ok(());
        for format in self.stations.formats(self.settings.framing, to) {
            match segment::write(&mut frame, format, macs, bytes, self.settings.id) {
                Some(len) => {
                    self.to_segment += bytes.len();
                    out.frame(frame.get(..len).unwrap_or(&frame));
                }
                None => outcome = Err(Drop::TooLong),
            }
        }
        outcome
    }
}

/// The packet's bytes, without checksum. Its callers let nothing pass that is longer than the buffer.
fn unsummed<'b>(packet: &Packet<'_>, buffer: &'b mut [u8; PACKET_LEN_MAX]) -> &'b [u8] {
    let len = Packet { checksum: 0xffff, ..*packet }.write(buffer).unwrap_or(0);
    buffer.get(..len).unwrap_or(&[])
}

fn say(message: Message<'_>, to: SocketAddrV4, out: &mut impl Outlet) {
    let mut buffer = [0; HEADER_LEN];
    if message.write(&mut buffer).is_some() {
        out.datagram(to, &buffer);
    }
}

#[cfg(test)]
mod tests;
