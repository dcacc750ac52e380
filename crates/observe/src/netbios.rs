//! NetBIOS: which machine has which names, over UDP and over IPX (protocols.md 5).
//!
//! **Invariants.** A name belongs to an address and a text of 15 bytes; a group's name is nobody's own. At most
//! [`Limits::names`] of each.
use std::collections::{BTreeSet, HashMap};

use api::observe::NetbiosHost;
use wire::{
    MacAddr,
    ipx::{self, nbipx},
    netbios::{
        Name, browser,
        dgm::{self, MailSlot},
        ns::{self, Operation},
        suffix,
    },
};

use crate::{
    Limits,
    machines::{Machines, Step},
    stamp::{Hop, Station, clean, hex},
    table::Table,
};

type Text = [u8; 15];

#[derive(Debug, Clone, Default)]
struct Owned {
    /// Of the unique names; few, for there are 256 at most.
    suffixes: BTreeSet<u8>,
    comment: Option<String>,
    left: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Names {
    owned: Table<(Station, Text), Owned>,
    workgroups: Table<Station, Text>,
    elections: u64,
    text_max: usize,
}

impl Names {
    pub(crate) fn new(limits: &Limits) -> Self {
        let table = limits.names;
        Self { owned: Table::new(table), workgroups: Table::new(table), elections: 0, text_max: limits.text }
    }

    pub(crate) fn len(&self) -> usize {
        self.owned.len() + self.workgroups.len()
    }

    /// A message of the name service.
    pub(crate) fn name_service(&mut self, hop: Hop, from: Station, to: Station, bytes: &[u8], machines: &mut Machines) {
        let Some(message) = ns::Message::parse(bytes) else { return };
        for record in message.records() {
            if let Some(status) = record.node_status() {
                for (name, flags) in status.names() {
                    self.has(from, name, flags.is_group());
                }
                continue;
            }
            for (flags, ip) in record.addresses() {
                let said = Station::Ip(ip);
                match (message.is_response, message.operation) {
                    // The sender has it, or wants it; an address of 0 is its own.
                    (false, Operation::Release) => self.gives_up(from, record.name, flags.is_group()),
                    (false, _) if message.is_about_ownership() => {
                        self.has(from, record.name, flags.is_group());
                        if !flags.is_group() && record.name.suffix() == suffix::WORKSTATION {
                            machines.step(hop.source, Step::Name, hop.stamp, "NetBIOS name registered");
                        }
                    }
                    // Somebody else has it: who asked does not get it.
                    (true, Operation::Registration | Operation::MultihomedRegistration) if message.result != 0 => {
                        self.gives_back(to, record.name);
                    }
                    (true, Operation::Query) if message.result == 0 && !ip.is_unspecified() => {
                        self.has(said, record.name, flags.is_group());
                    }
                    _ => {}
                }
            }
        }
    }

    /// A datagram: its sender's name, and what browsers say.
    pub(crate) fn datagram(&mut self, from: Station, bytes: &[u8]) {
        let Some(message) = dgm::Message::parse(bytes) else { return };
        if let Some(datagram) = message.datagram() {
            self.spoken(from, datagram.source, datagram.destination, datagram.data);
        }
    }

    fn spoken(&mut self, from: Station, source: Name, destination: Name, data: &[u8]) {
        let slot = MailSlot::parse(data).filter(MailSlot::is_browse);
        let said = slot.and_then(|slot| browser::Message::parse(slot.data));
        self.elections += u64::from(matches!(said, Some(browser::Message::Election { .. })));
        let announced = said.as_ref().and_then(browser::Message::announced_host);
        if announced.is_none_or(|it| !it.server_type.is_leaving()) {
            self.has(from, source, false);
        }
        let Some(announcement) = announced else { return };
        if matches!(destination.suffix(), suffix::MASTER_BROWSER | suffix::ELECTION | suffix::WORKSTATION)
            && destination != Name::MSBROWSE
        {
            self.workgroups.insert(from, text(destination));
        }
        let Some(name) = announcement.name.get(..announcement.name.len().min(15)) else { return };
        let Some(name) = Name::new(name, suffix::WORKSTATION) else { return };
        let comment = latin(announcement.comment, self.text_max);
        let owned = self.owned.entry((from, text(name)), Owned::default);
        owned.left = announcement.server_type.is_leaving();
        if !comment.is_empty() {
            owned.comment = Some(comment);
        }
    }

    /// NetBIOS over IPX.
    pub(crate) fn ipx(&mut self, packet: &ipx::Packet<'_>) {
        let from = Station::of_ipx(packet.source);
        match nbipx::Message::parse(packet) {
            Some(nbipx::Message::Name { operation, group, name, .. }) => {
                use nbipx::NameOperation as Op;
                match operation {
                    Op::Check | Op::Recognised | Op::InUse => self.has(from, name, group),
                    // Who looks for a name has it only if the flags say that it is registered or in use.
                    Op::Find if flags_say_owned(packet) => self.has(from, name, group),
                    Op::Find => {}
                    Op::Deregister => self.gives_up(from, name, group),
                }
            }
            Some(nbipx::Message::Datagram { destination, source, data }) => {
                self.spoken(from, source, destination, data);
            }
            _ => {}
        }
    }

    /// Election frames of browsers: each is one machine's bid to keep the list of names.
    pub(crate) const fn elections(&self) -> u64 {
        self.elections
    }

    fn has(&mut self, station: Station, name: Name, group: bool) {
        if group || name == Name::MSBROWSE {
            if name.suffix() == suffix::WORKSTATION && name != Name::MSBROWSE {
                self.workgroups.insert(station, text(name));
            }
            return;
        }
        let owned = self.owned.entry((station, text(name)), Owned::default);
        owned.suffixes.insert(name.suffix());
        owned.left = false;
    }

    fn gives_up(&mut self, station: Station, name: Name, group: bool) {
        let known = self.owned.get_mut(&(station, text(name)));
        if let Some(owned) = known.filter(|_| !group && is_machine(name.suffix())) {
            owned.left = true;
        }
    }

    fn gives_back(&mut self, station: Station, name: Name) {
        let key = (station, text(name));
        if let Some(owned) = self.owned.get_mut(&key) {
            owned.suffixes.remove(&name.suffix());
            if owned.suffixes.is_empty() {
                self.owned.remove(&key);
            }
        }
    }

    pub(crate) fn report(&self) -> Vec<NetbiosHost> {
        let hosts = self.hosts();
        hosts.into_iter().map(|(station, name, owned)| self.host(station, name, owned)).collect()
    }

    /// Machines: names of a workstation or file server. One that only takes messages is a user's, unless the machine has no
    /// other.
    fn hosts(&self) -> Vec<(Station, Text, &Owned)> {
        let certain = |owned: &Owned| {
            owned.suffixes.contains(&suffix::WORKSTATION)
                || owned.suffixes.contains(&suffix::FILE_SERVER)
                || owned.suffixes.is_empty()
        };
        let named: BTreeSet<_> =
            self.owned.iter().filter(|(_, owned)| certain(owned)).map(|((station, _), _)| *station).collect();
        let is_host = |station: &Station, owned: &Owned| {
            certain(owned) || owned.suffixes.contains(&suffix::MESSENGER) && !named.contains(station)
        };
        let all = self.owned.by_birth().into_iter();
        all.filter(|((station, _), owned)| is_host(station, owned))
            .map(|((at, name), owned)| (*at, *name, owned))
            .collect()
    }

    fn host(&self, station: Station, name: Text, owned: &Owned) -> NetbiosHost {
        let node = match station {
            Station::Ip(_) => None,
            Station::Ipx { node, .. } => Some(hex(&node.0)),
        };
        NetbiosHost {
            name: latin(&name, self.text_max),
            ip: station.ip().map(|ip| ip.to_string()),
            node,
            suffixes: owned.suffixes.iter().map(|suffix| format!("{suffix:02x}")).collect(),
            workgroup: self.workgroups.get(&station).map(|group| latin(group, self.text_max)),
            comment: owned.comment.clone(),
            left: owned.left,
        }
    }

    /// Name and workgroup by address and by node, for the list of machines.
    pub(crate) fn by_station(&self) -> (HashMap<std::net::Ipv4Addr, NetbiosHost>, HashMap<MacAddr, NetbiosHost>) {
        let (mut ips, mut nodes) = (HashMap::new(), HashMap::new());
        for (station, name, owned) in self.hosts() {
            let host = self.host(station, name, owned);
            match station {
                Station::Ip(ip) => drop(ips.entry(ip).or_insert(host)),
                Station::Ipx { node, .. } => drop(nodes.entry(node).or_insert(host)),
            }
        }
        (ips, nodes)
    }
}

const fn is_machine(suffix: u8) -> bool {
    matches!(suffix, suffix::WORKSTATION | suffix::MESSENGER | suffix::FILE_SERVER)
}

fn flags_say_owned(packet: &ipx::Packet<'_>) -> bool {
    /// In use, registered.
    const OWNED: u8 = 0x60;
    // Behind the networks that it passed, where it has some: the name packet is 18 bytes.
    let at = packet.payload.len().saturating_sub(18);
    packet.payload.get(at).is_some_and(|flags| flags & OWNED != 0)
}

fn text(name: Name) -> Text {
    let mut text = [b' '; 15];
    for (place, byte) in text.iter_mut().zip(name.text()) {
        *place = *byte;
    }
    text
}

/// Bytes of a code page nobody tells: ASCII as it is, the rest as Latin-1.
pub(crate) fn latin(bytes: &[u8], limit: usize) -> String {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b' ' | 0)).map_or(0, |last| last + 1);
    clean(bytes.iter().take(end).map(|byte| char::from(*byte)), limit)
}
