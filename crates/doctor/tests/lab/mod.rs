//! A LAN of guests over nodes, made of frames: every frame is built by `wire`, passes bridges and tunnels that may lose
//! it, is counted at each tap as eBPF would, and is looked at by each node's own `observe::Observer`.
//!
//! Guests here do as genuine ones (docs/protocols.md 1.6): a question by broadcast, the answer by the host's own TCP
//! connection to the asker, a join over two connections. What a guest does wrong is a field of [`Guest`]; what the
//! network does wrong is a field of [`Lab`].
pub(crate) mod frames;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use api::{
    agent::{AgentStatus, InstanceStatus, LanOnNode, ObserverHealth, PairCount, State, Viewers},
    lan::{ClassCount, PortCounters, Reachability},
};
use doctor::{AgentWord, Facts, Place};
use observe::{Frame, Observer, Point, PortId};
use wire::{
    MacAddr,
    class::{Head, classify},
    dplay::{Dialect, SessionFlags},
};

use self::frames::Ip;

pub(crate) const START: Duration = Duration::from_secs(1_000_000);
pub(crate) const SUBNET: (Ip, u8) = (Ip::new(10, 98, 0, 0), 24);
pub(crate) const GAME: [u8; 16] = *b"LOCO-LOCO-LOCO-1";

/// A game that a guest has open.
#[derive(Debug, Clone)]
pub(crate) struct Game {
    pub(crate) name: &'static str,
    pub(crate) application: [u8; 16],
    pub(crate) instance: [u8; 16],
    pub(crate) max: u32,
    pub(crate) players: u32,
    pub(crate) flags: SessionFlags,
    pub(crate) dialect: Dialect,
    /// Answered to whoever wants to join; 0 lets it in.
    pub(crate) refuses: u32,
    pub(crate) ipx: bool,
}

impl Game {
    pub(crate) fn new(instance: u8) -> Self {
        Self {
            name: "Loco Party",
            application: GAME,
            instance: [instance; 16],
            max: 9,
            players: 1,
            flags: SessionFlags::NONE,
            dialect: Dialect::DX6_1A,
            refuses: 0,
            ipx: false,
        }
    }
}

/// How a guest treats TCP connections to its own port 2300.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Open,
    Refuses,
    /// A firewall: neither taken nor refused.
    Mute,
}

#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) number: u16,
    pub(crate) node: usize,
    /// That of its seat, if nobody changed it.
    pub(crate) mac: MacAddr,
    pub(crate) ip: Ip,
    pub(crate) game: Option<Game>,
    pub(crate) application: [u8; 16],
    pub(crate) dialect: Dialect,
    pub(crate) door: Door,
    /// The address that it tells as its own when it joins.
    pub(crate) told: Option<Ip>,
    /// It takes this long to acknowledge.
    pub(crate) slow: Duration,
    /// Its tap is not counted.
    pub(crate) uncounted: bool,
    /// Does not hear anything: it hangs.
    pub(crate) deaf: bool,
    pub(crate) state: State,
    pub(crate) link: bool,
    pub(crate) powered: Duration,
    tx: u64,
    rx: u64,
    last_tx: Duration,
    classes: BTreeMap<String, ClassCount>,
    pairs: BTreeMap<MacAddr, PairCount>,
    ports: u16,
}

impl Guest {
    fn seat_mac(number: u16) -> MacAddr {
        MacAddr([0x02, 0x4c, 0, 0x10, 0x68, u8::try_from(number).unwrap()])
    }
}

pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) observer: Observer,
    pub(crate) silent: Option<f64>,
    pub(crate) health: Option<ObserverHealth>,
    pub(crate) fabric_problems: Vec<String>,
    /// How the guests of its LAN are joined.
    pub(crate) mode: &'static str,
    /// Its observer gets no frame.
    pub(crate) blind: bool,
    /// An agent without any eyes: neither counters nor observer.
    pub(crate) eyeless: bool,
}

/// A frame on its way, for whoever decides whether it is lost.
pub(crate) struct Passing<'a> {
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) from_node: usize,
    pub(crate) to_node: usize,
    pub(crate) bytes: &'a [u8],
    pub(crate) broadcast: bool,
}

type Loses = Box<dyn Fn(&Passing<'_>) -> bool>;

pub(crate) struct Lab {
    pub(crate) now: Duration,
    pub(crate) nodes: Vec<Node>,
    pub(crate) guests: Vec<Guest>,
    /// Between two nodes.
    pub(crate) underlay_loses: Loses,
    /// Since when the edges do not reach.
    pub(crate) cut_at: Option<Duration>,
    marked: BTreeMap<u16, BTreeMap<MacAddr, PairCount>>,
    /// On the host's node, between bridge and tap.
    pub(crate) tap_loses: Loses,
    /// ARP of the nodes' edges reaches guests of other nodes.
    pub(crate) edges_reach: Box<dyn Fn(usize, usize) -> bool>,
}

impl Lab {
    /// `seats[n]` is the node of seat n + 1.
    pub(crate) fn new(seats: &[usize]) -> Self {
        let nodes = ["node-a", "node-b", "node-c"]
            .into_iter()
            .map(|name| {
                let mut observer = Observer::default();
                for number in 1..=u16::try_from(seats.len()).unwrap() {
                    observer.name(Guest::seat_mac(number), &id(number));
                    observer.name_port(PortId(number), &id(number));
                }
                Node {
                    name,
                    observer,
                    silent: None,
                    health: Some(ObserverHealth { attach: Some("tcx".into()), taps: 3, events_lost: 0, problem: None }),
                    fabric_problems: Vec::new(),
                    mode: "vxlan",
                    blind: false,
                    eyeless: false,
                }
            })
            .collect();
        let guests = seats
            .iter()
            .enumerate()
            .map(|(index, node)| {
                let number = u16::try_from(index).unwrap() + 1;
                Guest {
                    number,
                    node: *node,
                    mac: Guest::seat_mac(number),
                    ip: Ip::new(10, 98, 0, u8::try_from(number).unwrap()),
                    game: None,
                    application: GAME,
                    dialect: Dialect::DX6_1A,
                    door: Door::Open,
                    told: None,
                    slow: Duration::from_millis(2),
                    uncounted: false,
                    deaf: false,
                    state: State::Live,
                    link: true,
                    powered: START,
                    tx: 0,
                    rx: 0,
                    last_tx: START,
                    classes: BTreeMap::new(),
                    pairs: BTreeMap::new(),
                    ports: 1024,
                }
            })
            .collect();
        let mut lab = Self {
            now: START,
            nodes,
            guests,
            underlay_loses: Box::new(|_| false),
            tap_loses: Box::new(|_| false),
            cut_at: None,
            marked: BTreeMap::new(),
            edges_reach: Box::new(|_, _| true),
        };
        for number in 1..=u16::try_from(seats.len()).unwrap() {
            let (mac, node) = (lab.guest(number).mac, lab.guest(number).node);
            lab.nodes[node].observer.power(mac, START);
        }
        lab
    }

    /// Nine seats on three nodes, as `loco up` places them, all booted and with an address, 60 s later.
    pub(crate) fn booted() -> Self {
        let mut lab = Self::new(&[0, 0, 0, 1, 1, 1, 2, 2, 2]);
        lab.boot_all();
        lab
    }

    /// On the real LAN, whose addresses are not those of the seats.
    pub(crate) fn on_real_lan() -> Self {
        let mut lab = Self::new(&[0, 0, 0, 1, 1, 1, 2, 2, 2]);
        lab.move_to_real_lan();
        lab.boot_all();
        lab
    }

    pub(crate) fn move_to_real_lan(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.mode = "macvlan");
        for guest in &mut self.guests {
            guest.ip = Ip::new(192, 168, 7, 100 + u8::try_from(guest.number).unwrap());
        }
    }

    pub(crate) fn boot_all(&mut self) {
        self.pass(20.0);
        for number in self.numbers() {
            self.announce(number);
        }
        self.pass(40.0);
    }

    pub(crate) fn numbers(&self) -> Vec<u16> {
        self.guests.iter().map(|guest| guest.number).collect()
    }

    pub(crate) fn guest(&mut self, number: u16) -> &mut Guest {
        &mut self.guests[usize::from(number) - 1]
    }

    pub(crate) fn pass(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
        for node in &mut self.nodes {
            node.observer.tick(self.now);
        }
    }

    fn count(guest: &mut Guest, bytes: &[u8], out: bool) {
        let len = u32::try_from(bytes.len()).unwrap();
        let class = classify(&Head { bytes, wire_len: len }).name().to_owned();
        let count = guest.classes.entry(class).or_default();
        let peer = MacAddr(bytes[if out { 0..6 } else { 6..12 }].try_into().unwrap());
        let pair = guest.pairs.entry(peer).or_insert_with(|| PairCount {
            peer: peer.to_string(),
            tx_frames: 0,
            tx_bytes: 0,
            rx_frames: 0,
            rx_bytes: 0,
            rx_broadcasts: 0,
        });
        if out {
            guest.tx += 1;
            count.tx_frames += 1;
            pair.tx_frames += 1;
            pair.tx_bytes += u64::from(len);
        } else {
            guest.rx += 1;
            count.rx_frames += 1;
            pair.rx_frames += 1;
            pair.rx_bytes += u64::from(len);
            pair.rx_broadcasts += u64::from(bytes.starts_with(&[0xff; 6]));
        }
    }

    fn look(&mut self, node: usize, point: Point, bytes: &[u8]) {
        let at = self.now;
        let node = &mut self.nodes[node];
        if !node.blind && !node.eyeless {
            let wire_len = u32::try_from(bytes.len()).unwrap();
            node.observer.frame(&Frame { at, point, bytes, wire_len });
        }
    }

    /// Sends a frame from the guest's card; answers the seats that it came to.
    pub(crate) fn send(&mut self, from: u16, bytes: &[u8]) -> BTreeSet<u16> {
        self.now += Duration::from_micros(500);
        let guest = self.guest(from);
        if !guest.link || guest.deaf || guest.state != State::Live {
            return BTreeSet::new();
        }
        let from_node = guest.node;
        Self::count(guest, bytes, true);
        let now = self.now;
        self.guest(from).last_tx = now;
        self.look(from_node, Point::FromGuest(PortId(from)), bytes);
        let to = MacAddr(bytes[..6].try_into().unwrap());
        let broadcast = to.is_group();
        let mut overlay: BTreeSet<usize> = BTreeSet::new();
        let mut came = BTreeSet::new();
        let receivers: Vec<(u16, usize)> = self
            .guests
            .iter()
            .filter(|other| other.number != from && (broadcast || other.mac == to))
            .map(|other| (other.number, other.node))
            .collect();
        // A broadcast goes to every node, whether it has seats or not.
        let nodes: BTreeSet<usize> =
            if broadcast { (0..self.nodes.len()).collect() } else { receivers.iter().map(|(_, node)| *node).collect() };
        for to_node in nodes.into_iter().filter(|node| *node != from_node) {
            let passing = Passing { from, to: 0, from_node, to_node, bytes, broadcast };
            if !(self.underlay_loses)(&passing) {
                overlay.insert(to_node);
                self.look(to_node, Point::Overlay, bytes);
            }
        }
        for (number, to_node) in receivers {
            let passing = Passing { from, to: number, from_node, to_node, bytes, broadcast };
            let arrives = (to_node == from_node || overlay.contains(&to_node)) && !(self.tap_loses)(&passing);
            if !arrives || !self.guest(number).link {
                continue;
            }
            let guest = self.guest(number);
            Self::count(guest, bytes, false);
            let hears = !guest.deaf && guest.state == State::Live;
            self.look(to_node, Point::ToGuest(PortId(number)), bytes);
            if hears {
                came.insert(number);
            }
        }
        came
    }

    /// To one seat; whether it came.
    pub(crate) fn send_to(&mut self, from: u16, to: u16, bytes: &[u8]) -> bool {
        self.send(from, bytes).contains(&to)
    }

    pub(crate) fn announce(&mut self, number: u16) {
        let guest = self.guest(number);
        let frame = frames::arp_announcement(guest.mac, guest.ip);
        self.send(number, &frame);
    }

    pub(crate) fn port(&mut self, number: u16) -> u16 {
        let guest = self.guest(number);
        guest.ports += 1;
        guest.ports
    }

    /// What the agents say now, as the gateway would put it together.
    pub(crate) fn facts(&self) -> Facts {
        let places = self
            .guests
            .iter()
            .map(|guest| Place {
                id: id(guest.number),
                lan: "party".into(),
                number: guest.number,
                node: self.nodes[guest.node].name.into(),
                mac: Guest::seat_mac(guest.number).to_string(),
                ip: Ip::new(10, 98, 0, u8::try_from(guest.number).unwrap()),
                subnet: SUBNET,
            })
            .collect();
        let statuses: Vec<AgentStatus> = (0..self.nodes.len()).map(|node| self.status(node)).collect();
        let words: Vec<AgentWord<'_>> = statuses
            .iter()
            .zip(&self.nodes)
            .map(|(status, node)| AgentWord { node: node.name, status: Some(status), silent_for: node.silent })
            .collect();
        let mut facts = Facts::gather(self.now.as_secs_f64(), places, &words);
        for (number, before) in &self.marked {
            facts.recent(&id(*number), self.since(*number, before));
        }
        facts
    }

    /// What taps counted until now is of better times: as the gateway, which compares readings.
    pub(crate) fn mark(&mut self) {
        self.marked = self.guests.iter().map(|guest| (guest.number, guest.pairs.clone())).collect();
    }

    fn since(&self, number: u16, before: &BTreeMap<MacAddr, PairCount>) -> Vec<PairCount> {
        let pairs = &self.guests[usize::from(number) - 1].pairs;
        pairs
            .iter()
            .map(|(mac, now)| {
                let was = before.get(mac);
                let less = |of: fn(&PairCount) -> u64| of(now) - was.map_or(0, of);
                PairCount {
                    peer: now.peer.clone(),
                    tx_frames: less(|pair| pair.tx_frames),
                    tx_bytes: less(|pair| pair.tx_bytes),
                    rx_frames: less(|pair| pair.rx_frames),
                    rx_bytes: less(|pair| pair.rx_bytes),
                    rx_broadcasts: less(|pair| pair.rx_broadcasts),
                }
            })
            .collect()
    }

    fn status(&self, index: usize) -> AgentStatus {
        let node = &self.nodes[index];
        let observed = if node.eyeless {
            BTreeMap::new()
        } else {
            BTreeMap::from([("party".to_owned(), node.observer.observed())])
        };
        AgentStatus {
            node: node.name.into(),
            pid: 1,
            version: String::new(),
            at: self.now.as_secs_f64(),
            instances: self
                .guests
                .iter()
                .filter(|guest| guest.node == index)
                .map(|g| Arc::new(self.instance(g)))
                .collect(),
            lans: vec![LanOnNode {
                name: "party".into(),
                vni: 4200,
                mode: Some(node.mode.into()),
                encryption: None,
                seats: 9,
            }],
            // No node is a station of the real LAN, so none asks who is there.
            reachability: self
                .guests
                .iter()
                .filter(|_| node.mode != "macvlan")
                .map(|guest| self.reachability(index, guest))
                .collect(),
            fabric_problems: node.fabric_problems.clone(),
            tunnel: None,
            snapshot_problem: None,
            foreign: Vec::new(),
            observed,
            observer: node.health.clone().filter(|_| !node.eyeless),
        }
    }

    fn instance(&self, guest: &Guest) -> InstanceStatus {
        let eyeless = self.nodes[guest.node].eyeless || guest.uncounted;
        // The agent has no port of a guest that is alone.
        let has_port = self.nodes[guest.node].mode != "user";
        InstanceStatus {
            id: id(guest.number),
            lan: "party".into(),
            seat: u8::try_from(guest.number - 1).unwrap(),
            node: self.nodes[guest.node].name.into(),
            mac: Guest::seat_mac(guest.number).to_string(),
            ip: guest.ip,
            host_name: String::new(),
            state: guest.state,
            since: guest.powered.as_secs_f64(),
            detail: None,
            link: has_port.then_some(guest.link),
            address_in_use: None,
            counters: has_port.then(|| PortCounters {
                tx_frames: guest.tx,
                rx_frames: guest.rx,
                ..PortCounters::default()
            }),
            picture: None,
            accelerator: None,
            qemu_pid: None,
            runner_pid: None,
            lease: None,
            viewers: Viewers::default(),
            stream: None,
            classes: if eyeless { BTreeMap::new() } else { guest.classes.clone() },
            pairs: if eyeless { Vec::new() } else { guest.pairs.values().cloned().collect() },
        }
    }

    /// The edge asks each second, and a guest that lives answers.
    fn reachability(&self, node: usize, guest: &Guest) -> Reachability {
        let way = guest.node == node || (self.edges_reach)(node, guest.node) && self.nodes[guest.node].silent.is_none();
        let answers = way && !guest.deaf && guest.link && guest.tx > 0 && guest.state == State::Live;
        let last = if answers { self.now } else { guest.last_tx.min(self.cut_at.unwrap_or(self.now)) };
        Reachability {
            from: self.nodes[node].name.into(),
            to: id(guest.number),
            lan: "party".into(),
            reachable: answers,
            rtt_ms: answers.then_some(0.4),
            last_seen: (guest.tx > 0).then_some(last.as_secs_f64()),
            asked: 60,
            answered: if guest.tx > 0 { 40 } else { 0 },
        }
    }
}

pub(crate) fn id(number: u16) -> String {
    format!("instance-{}", number - 1)
}
