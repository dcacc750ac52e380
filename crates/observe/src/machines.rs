//! Cards of the segment: what each sent, which addresses and names it uses, how far it got on its way into a game.
//!
//! **Invariants.** One entry per MAC address, at most [`Limits::machines`]; lists of one entry are short and keep what is
//! newest.
use std::{borrow::Cow, collections::BTreeMap, net::Ipv4Addr, time::Duration};

use api::observe::{Evidence, Machine as Report, Timeline, TimelineStep};
use wire::{MacAddr, frame::FrameFormat};

pub(crate) use api::observe::Step;

use crate::{
    Limits, Point, PortId,
    anomalies::{Anomalies, Kind, Who},
    dplay::SessionKey,
    lag::Lags,
    stamp::{Fact, Hop, Stamp, Station, hex, seconds},
    table::Table,
};

/// Addresses, nodes and ARP entries of one machine that are kept.
const ADDRESSES: usize = 8;
const ARP_ENTRIES: usize = 64;
/// More addresses than a guest has: a router, whose packets are others'.
const ROUTER: usize = 4;
/// Two cards with one address within so long are two cards with one address.
const DUPLICATE: Duration = Duration::from_secs(30);
const PORTS: usize = 16;

#[derive(Debug, Clone)]
struct Machine {
    /// Newest first.
    ips: Vec<Ipv4Addr>,
    nodes: Vec<MacAddr>,
    framing: Option<FrameFormat>,
    /// Framings that it sends IPX in, as bits.
    framings: u8,
    frames: u64,
    broadcasts: u64,
    first_seen: Duration,
    last_seen: Duration,
    dhcp_asked: u64,
    dhcp_acked: u64,
    arp: BTreeMap<Ipv4Addr, MacAddr>,
    /// Protocol, port, open.
    ports: Vec<(u8, u16, bool)>,
    steps: BTreeMap<Step, Fact>,
    session: Option<SessionKey>,
    /// The port of ours that its frames came from last.
    port: Option<(PortId, Duration)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Machines {
    cards: Table<MacAddr, Machine>,
    /// Who used an address last, and when.
    owners: Table<Ipv4Addr, (MacAddr, Duration)>,
    /// Cards with which nodes ask for guests, all of them from the one edge address.
    askers: Table<MacAddr, ()>,
    instances: Table<MacAddr, String>,
    ports: Table<PortId, String>,
    pub(crate) lag: Lags,
}

impl Machines {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            cards: Table::new(limits.machines),
            owners: Table::new(limits.machines),
            askers: Table::new(limits.machines),
            instances: Table::new(limits.machines),
            ports: Table::new(limits.machines),
            lag: Lags::new(limits),
        }
    }

    pub(crate) fn entries(&self) -> usize {
        self.cards.len() + self.owners.len() + self.lag.len()
    }

    /// A MAC address is that of one of our instances.
    pub(crate) fn name(&mut self, mac: MacAddr, instance: &str) {
        self.instances.insert(mac, instance.to_owned());
    }

    pub(crate) fn name_port(&mut self, port: PortId, name: &str) {
        self.ports.insert(port, name.to_owned());
    }

    /// The machine was switched on: its way into a game begins anew.
    pub(crate) fn power(&mut self, mac: MacAddr, stamp: Stamp) {
        let machine = self.machine(mac, stamp);
        machine.steps.clear();
        machine.session = None;
        machine.steps.insert(Step::Power, Fact::new(stamp, "switched on"));
    }

    /// It is on this LAN no more. Its name stays: what was seen of it was its own.
    pub(crate) fn moved_away(&mut self, mac: MacAddr) {
        self.cards.remove(&mac);
    }

    fn machine(&mut self, mac: MacAddr, stamp: Stamp) -> &mut Machine {
        self.cards.entry(mac, || Machine {
            ips: Vec::new(),
            nodes: Vec::new(),
            framing: None,
            framings: 0,
            frames: 0,
            broadcasts: 0,
            first_seen: stamp.at,
            last_seen: stamp.at,
            dhcp_asked: 0,
            dhcp_acked: 0,
            arp: BTreeMap::new(),
            ports: Vec::new(),
            steps: BTreeMap::new(),
            session: None,
            port: None,
        })
    }

    /// A frame was sent.
    pub(crate) fn sent(&mut self, hop: Hop, anomalies: &mut Anomalies) {
        let Hop { stamp, source, destination } = hop;
        // A cooked capture does not tell every address.
        if source.is_group() || source == MacAddr::ZERO {
            if source.is_group() {
                anomalies.note(Kind::Malformed, Who::Mac(source), stamp, || format!("{source} cannot be a sender"));
            }
            return;
        }
        let machine = self.machine(source, stamp);
        machine.frames += 1;
        machine.broadcasts += u64::from(destination == MacAddr::BROADCAST);
        machine.last_seen = stamp.at;
        let first = machine.steps.entry(Step::Frame);
        first.or_insert_with(|| Fact::new(stamp, "first frame"));
        if let Point::FromGuest(port) = stamp.point {
            let other = machine
                .port
                .replace((port, stamp.at))
                .filter(|(other, at)| *other != port && stamp.at.saturating_sub(*at) < DUPLICATE);
            if other.is_some() {
                anomalies.note(Kind::DuplicateMac, Who::Mac(source), stamp, || {
                    format!("{source} sends at two ports: two machines have one MAC address")
                });
            }
        } else if stamp.point == Point::Overlay
            && machine.port.is_some_and(|(_, at)| stamp.at.saturating_sub(at) < DUPLICATE)
        {
            anomalies.note(Kind::DuplicateMac, Who::Mac(source), stamp, || {
                format!("{source} is at a port here and comes from another node, too")
            });
        }
    }

    /// A machine uses an IPv4 address. `claims`: it says so by ARP, and does not merely send from it.
    pub(crate) fn uses_ip(&mut self, hop: Hop, ip: Ipv4Addr, claims: bool, anomalies: &mut Anomalies) {
        let Hop { stamp, source, .. } = hop;
        if ip.is_unspecified() || ip.is_loopback() || ip.is_broadcast() || ip.is_multicast() || source == MacAddr::ZERO
        {
            return;
        }
        if source.is_group() {
            return;
        }
        let machine = self.machine(source, stamp);
        if machine.ips.first() != Some(&ip) {
            machine.ips.retain(|other| *other != ip);
            machine.ips.insert(0, ip);
            machine.ips.truncate(ADDRESSES);
        }
        let is_router = machine.ips.len() > ROUTER;
        if is_router && !claims {
            return;
        }
        machine.steps.entry(Step::Address).or_insert_with(|| {
            Fact::new(stamp, if claims { "ARP from its address" } else { "sends from its address" })
        });
        let owner = self.owners.entry(ip, || (source, stamp.at));
        let (other, at) = std::mem::replace(owner, (source, stamp.at));
        // Every node's edge has the edge address, by design; a guest that takes it is a duplicate of all of them.
        let edges = self.is_edge(other) && self.is_edge(source);
        if other != source && !edges && stamp.at.saturating_sub(at) < DUPLICATE {
            anomalies.note(Kind::DuplicateIp, Who::Station(Station::Ip(ip)), stamp, || {
                format!("{ip} is used by {other} and {source}")
            });
        }
    }

    /// The card asked as only a node's edge does.
    pub(crate) fn asks_as_edge(&mut self, mac: MacAddr) {
        self.askers.entry(mac, || ());
    }

    /// A node's edge: the card that answers for it, whose last octet no seat has, or one of those that ask.
    fn is_edge(&self, mac: MacAddr) -> bool {
        (is_seat_or_edge(mac) && mac.0[5] == 0xff) || self.askers.get(&mac).is_some()
    }

    pub(crate) fn uses(&self, mac: MacAddr, ip: Ipv4Addr) -> bool {
        self.cards.get(&mac).is_some_and(|machine| machine.ips.contains(&ip))
    }

    pub(crate) fn told_by_arp(&mut self, stamp: Stamp, who: MacAddr, ip: Ipv4Addr, mac: MacAddr) {
        if who.is_group() || who == MacAddr::ZERO || ip.is_unspecified() {
            return;
        }
        let arp = &mut self.machine(who, stamp).arp;
        if arp.len() >= ARP_ENTRIES && !arp.contains_key(&ip) {
            arp.pop_first();
        }
        arp.insert(ip, mac);
    }

    pub(crate) fn dhcp(&mut self, client: MacAddr, stamp: Stamp, acked: bool) {
        if client.is_group() || client == MacAddr::ZERO {
            return;
        }
        let machine = self.machine(client, stamp);
        if acked {
            machine.dhcp_acked += 1;
            machine.steps.entry(Step::Address).or_insert_with(|| Fact::new(stamp, "DHCPACK"));
        } else {
            machine.dhcp_asked += 1;
        }
    }

    pub(crate) fn uses_node(&mut self, hop: Hop, node: MacAddr, framing: FrameFormat) {
        let machine = self.machine(hop.source, hop.stamp);
        if machine.nodes.first() != Some(&node) {
            machine.nodes.retain(|other| *other != node);
            machine.nodes.insert(0, node);
            machine.nodes.truncate(ADDRESSES);
        }
        machine.framing = Some(framing);
        machine.framings |= 1 << framing as u8;
    }

    /// A DirectPlay port took or answered something, or refused it.
    pub(crate) fn port(&mut self, mac: MacAddr, protocol: u8, port: u16, open: bool) {
        let Some(machine) = self.cards.get_mut(&mac) else { return };
        if let Some(known) = machine.ports.iter_mut().find(|it| (it.0, it.1) == (protocol, port)) {
            known.2 = open;
            return;
        }
        if machine.ports.len() >= PORTS {
            machine.ports.remove(0);
        }
        machine.ports.push((protocol, port, open));
    }

    /// First time since the machine started.
    pub(crate) fn step(&mut self, mac: MacAddr, step: Step, stamp: Stamp, what: impl Into<Cow<'static, str>>) {
        if mac.is_group() || mac == MacAddr::ZERO {
            return;
        }
        self.machine(mac, stamp).steps.entry(step).or_insert_with(|| Fact::new(stamp, what));
    }

    pub(crate) fn plays_in(&mut self, mac: MacAddr, session: SessionKey) {
        if let Some(machine) = self.cards.get_mut(&mac) {
            machine.session = Some(session);
        }
    }

    /// When a station last sent a frame.
    pub(crate) fn heard(&self, station: Station) -> Option<Duration> {
        self.cards.get(&self.mac_of(station)?).map(|machine| machine.last_seen)
    }

    pub(crate) fn mac_of(&self, station: Station) -> Option<MacAddr> {
        match station {
            Station::Ip(ip) => self.owners.get(&ip).map(|(mac, _)| *mac),
            Station::Ipx { node, .. } => Some(node),
        }
    }

    pub(crate) fn instance(&self, mac: MacAddr) -> Option<String> {
        self.instances.get(&mac).cloned()
    }

    pub(crate) fn instance_at(&self, station: Station) -> Option<String> {
        self.instance(self.mac_of(station)?)
    }

    pub(crate) fn evidence(&self, fact: &Fact) -> Evidence {
        let port = match fact.stamp.point {
            Point::Wire => None,
            Point::Overlay => Some("overlay".to_owned()),
            Point::Edge => Some("edge".to_owned()),
            Point::Relay => Some("ipx-relay".to_owned()),
            Point::FromGuest(port) | Point::ToGuest(port) => {
                Some(self.ports.get(&port).cloned().unwrap_or_else(|| format!("port-{}", port.0)))
            }
        };
        Evidence {
            at: seconds(fact.stamp.at),
            frame: fact.stamp.frame,
            what: fact.what.clone().into_owned(),
            node: None,
            port,
        }
    }

    /// `names`: NetBIOS name and workgroup of a machine; `session`: a session's name.
    pub(crate) fn report(
        &self,
        names: impl Fn(&[Ipv4Addr], &[MacAddr]) -> (Option<String>, Option<String>),
        session: impl Fn(SessionKey) -> Option<String>,
    ) -> (Vec<Report>, Vec<Timeline>) {
        let (mut machines, mut timelines) = (Vec::new(), Vec::new());
        let mut all: Vec<_> = self.cards.iter().collect();
        all.sort_by_key(|(mac, _)| **mac);
        for (mac, machine) in all {
            let (name, workgroup) = names(&machine.ips, &machine.nodes);
            let instance = self.instance(*mac);
            let ports = |open| {
                let mut ports: Vec<_> = machine.ports.iter().filter(|port| port.2 == open).collect();
                ports.sort_unstable();
                let protocol = |protocol| if protocol == wire::ipv4::TCP { "tcp" } else { "udp" };
                ports.into_iter().map(|port| format!("{}/{}", protocol(port.0), port.1)).collect()
            };
            machines.push(Report {
                mac: mac.to_string(),
                ips: machine.ips.iter().map(Ipv4Addr::to_string).collect(),
                ipx_nodes: machine.nodes.iter().map(|node| hex(&node.0)).collect(),
                ipx_framing: machine.framing.map(|framing| framing_name(framing).to_owned()),
                name,
                workgroup,
                instance: instance.clone(),
                frames: machine.frames,
                broadcasts: machine.broadcasts,
                first_seen: seconds(machine.first_seen),
                last_seen: seconds(machine.last_seen),
                dhcp_asked: machine.dhcp_asked,
                dhcp_acked: machine.dhcp_acked,
                arp: machine.arp.iter().map(|(ip, mac)| (ip.to_string(), mac.to_string())).collect(),
                ports_open: ports(true),
                ports_closed: ports(false),
            });
            let mut steps: Vec<_> = machine
                .steps
                .iter()
                .map(|(step, fact)| TimelineStep { step: *step, evidence: self.evidence(fact) })
                .collect();
            steps.sort_by(|a, b| a.evidence.at.total_cmp(&b.evidence.at).then(a.step.cmp(&b.step)));
            if !steps.is_empty() {
                let session = machine.session.and_then(&session);
                timelines.push(Timeline { mac: mac.to_string(), instance, session, steps });
            }
        }
        (machines, timelines)
    }
}

/// Cards of a LAN are `02:4c:VNI:SEAT`, that of its edge `02:4c:VNI:ff` (`model::Lan::identity`).
pub(crate) fn is_seat_or_edge(mac: MacAddr) -> bool {
    mac.0.starts_with(&[0x02, 0x4c])
}

pub(crate) const fn framing_name(framing: FrameFormat) -> &'static str {
    match framing {
        FrameFormat::EthernetII => "ethernet_ii",
        FrameFormat::Raw8023 => "raw_802_3",
        FrameFormat::Llc => "llc",
        FrameFormat::Snap => "snap",
    }
}
