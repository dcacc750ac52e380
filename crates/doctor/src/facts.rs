//! Everything that a diagnosis may use: seats as the directory places them, what their agents say of them now, and what
//! was seen of each LAN.
//!
//! **Invariant.** A seat whose agent is silent has no status here, and a silent agent's sightings are not merged.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use api::{
    agent::{AgentStatus, InstanceStatus, ObserverHealth, PairCount, State},
    lan::Reachability,
    observe::{Certainty, Evidence, Machine, Session, Step, Timeline},
};

use crate::{
    ASKED_RECENTLY_S,
    look::refuses_joins,
    merged::{LanSeen, Ours, Question, Sight, ipv4},
};

/// Where the directory puts an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub id: String,
    pub lan: String,
    /// What people call the seat: from 1.
    pub number: u16,
    pub node: String,
    pub mac: String,
    /// The address that DHCP gives it.
    pub ip: Ipv4Addr,
    /// Network address and prefix length.
    pub subnet: (Ipv4Addr, u8),
}

/// What an agent last said.
#[derive(Debug, Clone, Copy)]
pub struct AgentWord<'a> {
    pub node: &'a str,
    /// Absent while it never answered.
    pub status: Option<&'a AgentStatus>,
    /// Seconds; absent while it answers.
    pub silent_for: Option<f64>,
}

/// It is so, and the frame that shows it, where one is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown(pub Option<Evidence>);

#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeFacts {
    pub heard: bool,
    pub silent_for: Option<f64>,
    pub fabric_problems: Vec<String>,
    /// UDP port of WireGuard, where the node encrypts.
    pub tunnel_port: Option<u16>,
    /// LANs whose guests here are each alone: of mode `user`.
    pub alone: BTreeSet<String>,
    /// LANs whose guests here are machines of the real LAN: of mode `macvlan`.
    pub real: BTreeSet<String>,
    pub observer: Option<ObserverHealth>,
    /// Its agent looks at frames and says what they say.
    pub watches: bool,
    /// ARP questions of this node, by instance.
    pub reach: BTreeMap<String, Reachability>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SeatFacts {
    pub place: Place,
    /// Absent while its agent is silent or never spoke of it.
    pub status: Option<Arc<InstanceStatus>>,
    /// Frames at its tap by the other card: of the last minute where [`Facts::recent`] gave it, else of all time.
    pub pairs: Vec<PairCount>,
    pub machine: Option<Box<Machine>>,
    pub timeline: Option<Box<Timeline>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct LanFacts {
    pub seen: LanSeen,
    /// Ids of its seats, by number.
    pub seats: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Now, in seconds since the epoch.
    pub at: f64,
    pub seats: BTreeMap<String, SeatFacts>,
    pub lans: BTreeMap<String, LanFacts>,
    pub nodes: BTreeMap<String, NodeFacts>,
}

impl Facts {
    pub fn gather(at: f64, places: Vec<Place>, agents: &[AgentWord<'_>]) -> Self {
        let answering: Vec<&AgentStatus> =
            agents.iter().filter(|agent| agent.silent_for.is_none()).filter_map(|agent| agent.status).collect();
        let nodes = agents.iter().map(|agent| (agent.node.to_owned(), node(agent))).collect();
        let mut by_lan: BTreeMap<&str, Vec<&Place>> = BTreeMap::new();
        for place in &places {
            by_lan.entry(&place.lan).or_default().push(place);
        }
        let mut sights: BTreeMap<&str, Vec<Sight<'_>>> = BTreeMap::new();
        for status in &answering {
            for (lan, observed) in &status.observed {
                sights.entry(lan).or_default().push(Sight { node: &status.node, observed });
            }
        }
        let mut lans = BTreeMap::new();
        for (lan, mut here) in by_lan {
            here.sort_by_key(|place| place.number);
            let ours: Ours<'_> = here.iter().map(|p| (p.mac.clone(), (p.id.as_str(), p.node.as_str()))).collect();
            let seen = LanSeen::of(lan, sights.get(lan).map_or(&[], Vec::as_slice), &ours);
            lans.insert(lan.to_owned(), LanFacts { seen, seats: here.iter().map(|p| p.id.clone()).collect() });
        }
        let mut statuses: BTreeMap<&str, &Arc<InstanceStatus>> = BTreeMap::new();
        for instance in answering.iter().flat_map(|status| &status.instances) {
            statuses.insert(&instance.id, instance);
        }
        // By LAN too: one that was in another LAN before may have one there.
        let mut timelines: BTreeMap<(String, String), Timeline> = lans
            .iter()
            .flat_map(|(name, lan): (&String, &LanFacts)| {
                lan.seen.timelines.iter().map(move |timeline| (name, timeline))
            })
            .filter_map(|(lan, timeline)| Some(((lan.clone(), timeline.instance.clone()?), timeline.clone())))
            .collect();
        let seats = places
            .into_iter()
            .map(|place| {
                let machine =
                    lans.get(&place.lan).and_then(|lan| lan.seen.machines.get(&place.mac)).cloned().map(Box::new);
                let status = statuses.get(place.id.as_str()).map(|status| Arc::clone(status));
                let timeline = timelines.remove(&(place.lan.clone(), place.id.clone())).map(Box::new);
                let pairs = status.as_ref().map(|status| status.pairs.clone()).unwrap_or_default();
                (place.id.clone(), SeatFacts { place, status, pairs, machine, timeline })
            })
            .collect();
        Self { at, seats, lans, nodes }
    }

    /// What the tap of an instance counted lately. Without it, what was once well hides what is broken now.
    pub fn recent(&mut self, instance: &str, pairs: Vec<PairCount>) {
        if let Some(seat) = self.seats.get_mut(instance) {
            seat.pairs = pairs;
        }
    }

    pub(crate) fn node(&self, name: &str) -> Option<&NodeFacts> {
        self.nodes.get(name)
    }

    /// Whether its guests are on the real LAN, where somebody else gives addresses and carries frames.
    pub(crate) fn is_real(&self, seat: &SeatFacts) -> bool {
        self.nodes.values().any(|node| node.real.contains(&seat.place.lan))
    }

    /// Whether `ip` is an address that a guest of that seat may have.
    pub(crate) fn fits(&self, seat: &SeatFacts, ip: Ipv4Addr) -> bool {
        self.is_real(seat) || seat.in_subnet(ip)
    }

    pub(crate) fn seen(&self, seat: &SeatFacts) -> Option<&LanSeen> {
        self.lans.get(&seat.place.lan).map(|lan| &lan.seen)
    }

    /// Sessions that stand on `lan`.
    pub(crate) fn games(&self, lan: &str) -> impl Iterator<Item = &Session> {
        self.lans.get(lan).into_iter().flat_map(|lan| &lan.seen.sessions).filter(|session| session.certainty.is_alive())
    }

    /// Sessions that a seat may look for: those that stand, and those whose host has just refused a connection, as that is
    /// why they are gone.
    pub(crate) fn sought<'a>(&'a self, lan: &str) -> impl Iterator<Item = &'a Session> {
        self.lans.get(lan).into_iter().flat_map(|lan| &lan.seen.sessions).filter(|session| {
            let refusing = session.certainty == Certainty::GoneByReset
                && session.evidence.as_ref().is_some_and(|evidence| self.at - evidence.at <= ASKED_RECENTLY_S)
                && session
                    .host_instance
                    .as_ref()
                    .and_then(|id| self.seats.get(id))
                    .is_some_and(|host| refuses_joins(host).is_some());
            session.certainty.is_alive() || refusing
        })
    }

    /// The session that the seat hosts or has joined.
    pub fn game_of(&self, seat: &SeatFacts) -> Option<&Session> {
        let id = &seat.place.id;
        let hosted = self.games(&seat.place.lan).find(|session| session.host_instance.as_ref() == Some(id));
        hosted.or_else(|| self.games(&seat.place.lan).find(|session| self.joined(seat, session).is_some()))
    }

    /// Shows that the seat is in the session: `None` if it is not.
    pub fn joined(&self, seat: &SeatFacts, session: &Session) -> Option<Shown> {
        let seen = &self.lans.get(&seat.place.lan)?.seen;
        let id = Some(&seat.place.id);
        let system = seen
            .system_players
            .iter()
            .find(|s| s.instance.as_ref() == id && s.session == session.name && s.certainty.is_alive())
            .map(|s| Shown(s.evidence.clone()));
        system.or_else(|| {
            seen.players
                .iter()
                .find(|p| p.instance.as_ref() == id && p.session == session.name && p.certainty.is_alive())
                .map(|p| Shown(p.evidence.clone()))
        })
    }
}

fn node(agent: &AgentWord<'_>) -> NodeFacts {
    let status = agent.status.filter(|_| agent.silent_for.is_none());
    let lans_of = |mode: &str| -> BTreeSet<String> {
        let lans = status.into_iter().flat_map(|s| &s.lans).filter(|lan| lan.mode.as_deref() == Some(mode));
        lans.map(|lan| lan.name.clone()).collect()
    };
    NodeFacts {
        heard: agent.status.is_some(),
        silent_for: agent.silent_for,
        fabric_problems: status.map(|s| s.fabric_problems.clone()).unwrap_or_default(),
        tunnel_port: status.and_then(|s| s.tunnel.as_ref()).map(|tunnel| tunnel.port),
        alone: lans_of("user"),
        real: lans_of("macvlan"),
        observer: status.and_then(|s| s.observer.clone()),
        watches: status.is_some_and(|s| {
            !s.observed.is_empty() || s.observer.as_ref().is_some_and(|observer| observer.attach.is_some())
        }),
        reach: status
            .map(|s| s.reachability.iter().map(|row| (row.to.clone(), row.clone())).collect())
            .unwrap_or_default(),
    }
}

impl SeatFacts {
    /// Frames that its card sent; `None` when nobody counted.
    pub(crate) fn sent(&self) -> Option<u64> {
        let counted = self.status.as_ref().and_then(|status| status.counters).map(|counters| counters.tx_frames);
        let by_class = self
            .status
            .as_ref()
            .filter(|status| !status.classes.is_empty())
            .map(|status| status.classes.values().map(|class| class.tx_frames).sum());
        let seen = self.machine.as_ref().map(|machine| machine.frames);
        counted.max(by_class).max(seen)
    }

    pub(crate) fn class(&self, name: &str) -> Option<(u64, u64)> {
        self.status.as_ref()?.classes.get(name).map(|class| (class.tx_frames, class.rx_frames))
    }

    /// What its tap counted between it and `mac`; `None` when its tap is not counted at all.
    pub(crate) fn pair(&self, mac: &str) -> Option<PairCount> {
        // A tap without any pair has not been counted, or has seen nothing: it proves nothing.
        (!self.pairs.is_empty()).then(|| {
            self.pairs.iter().find(|pair| pair.peer == mac).cloned().unwrap_or_else(|| PairCount {
                peer: mac.to_owned(),
                tx_frames: 0,
                tx_bytes: 0,
                rx_frames: 0,
                rx_bytes: 0,
                rx_broadcasts: 0,
            })
        })
    }

    /// The address that it uses.
    pub fn address(&self) -> Option<Ipv4Addr> {
        let seen = self.machine.as_ref().and_then(|machine| machine.ips.first()).and_then(|ip| ipv4(ip));
        seen.or_else(|| self.status.as_ref().and_then(|status| status.address_in_use))
    }

    pub(crate) fn step(&self, step: Step) -> Option<&Evidence> {
        self.timeline.as_ref()?.steps.iter().find(|s| s.step == step).map(|s| &s.evidence)
    }

    /// Seconds since it was switched on, as far as that is known.
    pub(crate) fn up_for(&self, at: f64) -> Option<f64> {
        let power = self.step(Step::Power).map(|evidence| evidence.at);
        // `live` begins a little after the power; while `starting` there is nothing to miss yet.
        let live = self.status.as_ref().filter(|s| s.state == State::Live).map(|s| s.since);
        power.or(live).map(|since| at - since)
    }

    /// Its questions for games, newest first, from all nodes.
    pub(crate) fn questions<'a>(&'a self, seen: &'a LanSeen) -> Vec<&'a Question> {
        let mut questions: Vec<&Question> =
            seen.questions.iter().filter(|q| q.asked.instance.as_ref() == Some(&self.place.id)).collect();
        // Of copies of one question its own node's comes first: nodes' clocks differ a little.
        let time = |q: &Question| q.last_at() + if q.node == self.place.node { 1.0 } else { 0.0 };
        questions.sort_by(|a, b| time(b).total_cmp(&time(a)));
        questions
    }

    fn in_subnet(&self, ip: Ipv4Addr) -> bool {
        let (network, prefix) = self.place.subnet;
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
        u32::from(ip) & mask == u32::from(network) & mask
    }
}
