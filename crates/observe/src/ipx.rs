//! IPX: stations and their framings, servers, and DOSBox's tunnel (protocols.md 4).
//!
//! **Invariants.** A packet of the tunnel is looked into once, where it enters the server: the copies for the other clients
//! are left out. Tables hold at most [`Limits::names`].
use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::SocketAddrV4,
    time::Duration,
};

use api::observe::{Framings, Ipx as Report, IpxStation, Ipxnet, IpxnetClient, SapServer};
use wire::{
    MacAddr,
    frame::FrameFormat,
    ipx::{Packet, sap, socket},
    ipxnet::{self, Message},
};

use crate::{
    Limits,
    anomalies::{Anomalies, Kind, Who},
    machines::framing_name,
    netbios::latin,
    stamp::{Hop, Stamp, Station, hex},
    table::Table,
};

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    mac: Option<MacAddr>,
    framing: Option<FrameFormat>,
    /// All framings that it sent in, as bits.
    framings: u8,
}

#[derive(Debug, Clone)]
pub(crate) struct Stations {
    rows: Table<MacAddr, Row>,
    framings: [u64; 4],
    servers: Table<([u8; 48], u16), u16>,
    text_max: usize,
}

impl Stations {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            rows: Table::new(limits.names),
            framings: [0; 4],
            servers: Table::new(limits.names),
            text_max: limits.text,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len() + self.servers.len()
    }

    /// A frame of IPX, sound or not.
    pub(crate) fn frame(&mut self, framing: FrameFormat) {
        if let Some(count) = self.framings.get_mut(framing as usize) {
            *count += 1;
        }
    }

    /// A packet; `outer`: its frame and framing, absent out of a tunnel.
    pub(crate) fn packet(
        &mut self,
        packet: &Packet<'_>,
        outer: Option<(Hop, FrameFormat)>,
        stamp: Stamp,
        anomalies: &mut Anomalies,
    ) {
        let node = packet.source.node;
        if node.is_group() && node == MacAddr::BROADCAST || node == MacAddr::ZERO {
            return;
        }
        let row = self.rows.entry(node, Row::default);
        if let Some((hop, framing)) = outer {
            // A router's frame brings another one's packet.
            row.mac = (hop.source == node || packet.source.network == 0).then_some(hop.source).or(row.mac);
            row.framing = Some(framing);
            let bits = row.framings | 1 << framing as u8;
            if std::mem::replace(&mut row.framings, bits) != bits {
                self.mismatch(node, bits, stamp, anomalies);
            }
            if packet.checksum == 0 {
                anomalies.note(Kind::IpxChecksum, Who::Mac(hop.source), stamp, || {
                    format!("{} writes the IPX check sum 0000; strict receivers want FFFF", hop.source)
                });
            }
        }
        if packet.destination.socket == socket::SAP || packet.source.socket == socket::SAP {
            self.sap(packet.payload);
        }
    }

    /// Stations without a common framing cannot hear each other.
    fn mismatch(&self, node: MacAddr, bits: u8, stamp: Stamp, anomalies: &mut Anomalies) {
        let deaf = |row: &Row| row.framings != 0 && row.framings & bits == 0;
        if let Some((other, row)) = self.rows.iter().find(|(_, row)| deaf(row)) {
            let name = |row: Option<FrameFormat>| row.map_or("another framing", framing_name);
            anomalies.note(Kind::IpxFramingMismatch, Who::Mac(node), stamp, || {
                let own = self.rows.get(&node).and_then(|row| row.framing);
                format!(
                    "{} sends IPX in {}, {} in {}: they do not hear each other",
                    hex(&node.0),
                    name(own),
                    hex(&other.0),
                    name(row.framing)
                )
            });
        }
    }

    fn sap(&mut self, payload: &[u8]) {
        let Some(sap::Message::Response { entries, .. }) = sap::Message::parse(payload) else { return };
        for entry in entries.servers() {
            let mut name = [0; 48];
            for (place, byte) in name.iter_mut().zip(entry.name) {
                *place = *byte;
            }
            let key = (name, entry.server_type);
            if entry.hops >= sap::HOPS_GONE {
                self.servers.remove(&key);
            } else {
                self.servers.insert(key, entry.address.socket);
            }
        }
    }

    pub(crate) fn report(&self) -> Report {
        let mut stations: Vec<_> = self
            .rows
            .iter()
            .map(|(node, row)| IpxStation {
                node: hex(&node.0),
                mac: row.mac.map(|mac| mac.to_string()),
                framing: row.framing.map(|framing| framing_name(framing).to_owned()),
            })
            .collect();
        stations.sort_by(|a, b| a.node.cmp(&b.node));
        let [ethernet_ii, raw_802_3, llc, snap] = self.framings;
        let line = |((name, kind), socket): (&([u8; 48], u16), &u16)| SapServer {
            name: latin(name, self.text_max),
            kind: *kind,
            socket: format!("{socket:#06x}"),
        };
        let known = self.servers.by_birth().into_iter().map(line).collect();
        Report { stations, framings: Framings { ethernet_ii, raw_802_3, llc, snap }, sap: known }
    }
}

/// DOSBox's IPX tunnel in UDP.
#[derive(Debug, Clone)]
pub(crate) struct Tunnel {
    /// Answers that each server gave.
    servers: Table<SocketAddrV4, u64>,
    clients: Table<SocketAddrV4, MacAddr>,
    /// The same the other way round.
    nodes: Table<MacAddr, SocketAddrV4>,
    /// Questions without an answer yet: client, server.
    asked: Table<(SocketAddrV4, SocketAddrV4), u64>,
    answered: u64,
    /// The last packet of a node that no client sent to the server: copies for others are the same.
    copies: Table<MacAddr, (u64, Duration)>,
}

/// Copies of one packet for several clients leave the server within so long.
const COPY: Duration = Duration::from_millis(50);

impl Tunnel {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            servers: Table::new(limits.names),
            clients: Table::new(limits.names),
            nodes: Table::new(limits.names),
            asked: Table::new(limits.names),
            answered: 0,
            copies: Table::new(limits.names),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.servers.len() + self.clients.len() + self.nodes.len() + self.asked.len() + self.copies.len()
    }

    /// The IPX packet in a datagram, if it is one of a tunnel and was not seen before. Outer `None`: no tunnel.
    #[expect(clippy::option_option, reason = "not of a tunnel, of a tunnel but nothing new, a packet")]
    pub(crate) fn datagram<'a>(
        &mut self,
        (from, to): (SocketAddrV4, SocketAddrV4),
        payload: &'a [u8],
        stamp: Stamp,
        anomalies: &mut Anomalies,
    ) -> Option<Option<Packet<'a>>> {
        let known = [from, to].iter().any(|end| end.port() == ipxnet::PORT || self.servers.contains(end));
        // At any other port a registration is told by its looks, and an answer by its question.
        let looks = payload.len() == ipxnet::MESSAGE_LEN && payload.starts_with(&[0xff, 0xff, 0, 30]);
        let likely = known || looks && (payload.get(6..16)? == [0; 10] || self.asked.contains(&(to, from)));
        if !likely {
            return None;
        }
        let packet = Packet::parse(payload)?;
        match Message::of(packet) {
            Message::Registration => {
                *self.asked.entry((from, to), || 0) += 1;
                Some(None)
            }
            Message::Answer { node, .. } => {
                self.answer(from, to, node);
                Some(None)
            }
            Message::Ping { .. } | Message::Pong { .. } => {
                Some(self.first_copy(from, to, packet, stamp).filter(|_| false))
            }
            Message::Packet(packet) => {
                let node = self.clients.get(&from).copied();
                if let Some(node) = node.filter(|node| *node != packet.source.node) {
                    anomalies.note(Kind::IpxnetForged, Who::Station(Station::Ip(*from.ip())), stamp, || {
                        format!("{from} has the node {} and sends as {}", hex(&node.0), hex(&packet.source.node.0))
                    });
                }
                Some(self.first_copy(from, to, packet, stamp))
            }
        }
    }

    fn answer(&mut self, server: SocketAddrV4, client: SocketAddrV4, node: MacAddr) {
        let open = self.asked.get_mut(&(client, server)).filter(|open| **open > 0);
        let asked = match open {
            Some(open) => {
                *open -= 1;
                true
            }
            // The question came before the capture began.
            None => !self.clients.contains(&client),
        };
        if asked {
            self.answered += 1;
            *self.servers.entry(server, || 0) += 1;
        }
        self.clients.insert(client, node);
        self.nodes.insert(node, client);
    }

    fn first_copy<'a>(
        &mut self,
        from: SocketAddrV4,
        to: SocketAddrV4,
        packet: Packet<'a>,
        stamp: Stamp,
    ) -> Option<Packet<'a>> {
        let node = packet.source.node;
        if self.servers.contains(&to) || self.clients.contains(&from) {
            return Some(packet);
        }
        // From the server: what a client sent was seen on its way there.
        if self.nodes.contains(&node) {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (packet.destination, packet.source, packet.payload).hash(&mut hasher);
        let hash = hasher.finish();
        let (last, at) = self.copies.get(&node).copied().unwrap_or_default();
        self.copies.insert(node, (hash, stamp.at));
        (last != hash || stamp.at.saturating_sub(at) > COPY).then_some(packet)
    }

    pub(crate) fn report(&self) -> Option<Ipxnet> {
        let servers = self.servers.by_birth();
        let server = servers.iter().max_by_key(|(_, answers)| **answers).map(|(server, _)| server.to_string());
        if server.is_none() && self.asked.len() == 0 {
            return None;
        }
        let client = |(client, node): (&SocketAddrV4, &MacAddr)| IpxnetClient {
            ip: client.ip().to_string(),
            port: client.port(),
            node: hex(&node.0),
        };
        let clients = self.clients.by_birth().into_iter().map(client).collect();
        Some(Ipxnet { server, registrations: self.answered, clients })
    }
}
