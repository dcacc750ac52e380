//! From what the Kubernetes API says to a [`Snapshot`]: pure.
//!
//! **Invariants.** It never fails and never panics, whatever the API says. A pod that cannot be used is left out with its reason
//! and takes no good one with it. A node stays for as long as an instance is on it, whether its agent answers or not: its VTEP
//! is where its guests' frames go.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use api::MOVED_TO;
use model::{InstanceId, Lan, LanName, Node, NodeName, PlacedInstance, Seat, Snapshot};

/// Port of an agent whose endpoint does not tell another.
pub const AGENT_PORT: u16 = 14780;
/// As many are said one by one; the rest is a number. One wrong LAN name makes a problem of each of its pods.
const PROBLEMS_MAX: usize = 32;
/// Longest text that is taken over from the API.
const WORDS_MAX: usize = 300;

/// What is kept of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodFact {
    pub name: String,
    pub uid: String,
    /// Seconds since the epoch.
    pub created: i64,
    pub node: Option<String>,
    /// Address of the pod's node, once the kubelet has said it.
    pub host_ip: Option<Ipv4Addr>,
    pub lan: Option<String>,
    /// What a label says of the seat; without one it is the name's number.
    pub seat: Option<String>,
    /// Where an annotation says that its guest was moved to: `LAN/SEAT`.
    pub moved_to: Option<String>,
    /// Failed or Succeeded: its containers will not run again.
    pub ended: bool,
    /// Why the scheduler has no node for it.
    pub unscheduled: Option<String>,
}

/// What is kept of an endpoint of the agents' Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentFact {
    pub node: String,
    pub address: Ipv4Addr,
    pub port: u16,
}

/// One thing that was left out, or is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `instance-3`, or a node's name.
    pub subject: String,
    /// What is wrong, and what to do.
    pub text: String,
}

/// What is wrong with single things: the first few in words, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    pub first: Vec<Problem>,
    pub count: usize,
}

impl Problems {
    fn add(&mut self, subject: impl Into<String>, text: impl Into<String>) {
        self.count += 1;
        if self.first.len() < PROBLEMS_MAX {
            let short = |text: String| text.chars().take(WORDS_MAX).collect();
            self.first.push(Problem { subject: short(subject.into()), text: short(text.into()) });
        }
    }
}

/// A pod that has a place, but for what other pods say.
struct Candidate<'a> {
    pod: &'a PodFact,
    id: InstanceId,
    lan: LanName,
    seat: Seat,
    node: NodeName,
}

/// The snapshot, and what had to be left out of it.
pub fn assemble<'a>(
    lans: &[Lan],
    pods: impl IntoIterator<Item = &'a PodFact>,
    agents: impl IntoIterator<Item = &'a AgentFact>,
) -> (Snapshot, Problems) {
    let mut problems = Problems::default();
    let by_name: BTreeMap<&LanName, &Lan> = lans.iter().map(|lan| (lan.name(), lan)).collect();
    // Newest first: where two claim the same, the newer pod is what somebody wanted last.
    let mut pods: Vec<&PodFact> = pods.into_iter().filter(|pod| !pod.ended).collect();
    pods.sort_by(|a, b| (b.created, &b.uid, &b.name).cmp(&(a.created, &a.uid, &a.name)));
    let agents: BTreeMap<&str, &AgentFact> = agents.into_iter().map(|agent| (agent.node.as_str(), agent)).collect();

    let nodes = nodes(&pods, &agents, &mut problems);
    let mut taken: BTreeMap<(LanName, Seat), InstanceId> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    let mut instances = Vec::with_capacity(pods.len());
    let mut moves = Vec::new();
    for pod in pods {
        let candidate = match candidate(pod, &by_name) {
            Ok(Some(candidate)) => candidate,
            Ok(None) => continue,
            Err(text) => {
                problems.add(pod.name.as_str(), text);
                continue;
            }
        };
        if !nodes.contains_key(&candidate.node) {
            problems.add(
                candidate.pod.name.as_str(),
                format!(
                    "its node {} has no IPv4 address yet: neither the pod nor an agent there tells one; \
                     is the kubelet of that node running?",
                    candidate.node
                ),
            );
            continue;
        }
        let place = (candidate.lan, candidate.seat);
        if let Some(holder) = taken.get(&place) {
            problems.add(
                candidate.pod.name.as_str(),
                format!(
                    "seat {} of LAN {} is taken by {holder}, which is newer; delete one of the two",
                    place.1.0, place.0
                ),
            );
            continue;
        }
        // A namespace has no two pods of one name; were it ever not so, the second has no name of its own.
        if !ids.insert(candidate.id.clone()) {
            problems.add(candidate.pod.name.as_str(), "there are two pods of this name");
            continue;
        }
        taken.insert(place.clone(), candidate.id.clone());
        if let Some(to) = pod.moved_to.as_deref() {
            moves.push((candidate.id.clone(), to));
        }
        let (lan, seat) = place;
        instances.push(PlacedInstance { id: candidate.id, lan, seat, node: candidate.node, card: None });
    }
    match Snapshot::new(lans.iter().cloned(), nodes.into_values(), instances) {
        Ok(snapshot) => (move_guests(snapshot, &moves, &mut problems), problems),
        // All that it checks was seen to above, and the LANs when their file was read.
        Err(error) => {
            problems.add("directory", format!("{error}; this is a fault of Loco's own"));
            (Snapshot::default(), problems)
        }
    }
}

/// Moves guests to where their pods' annotations say, as far as that may be. A seat that is a pod's own stays that pod's, so whatever is
/// refused leaves its guest at home. Of two that ask for one seat the newer pod gets it, as of two pods of one seat.
fn move_guests(home: Snapshot, moves: &[(InstanceId, &str)], problems: &mut Problems) -> Snapshot {
    let mut snapshot = home;
    for (id, to) in moves {
        let place = to.split_once('/').and_then(|(lan, seat)| Some((lan.parse().ok()?, Seat(seat.parse().ok()?))));
        let refused = match place {
            None => format!("its annotation {MOVED_TO} says `{to}`, which is no LAN/SEAT such as party/3"),
            Some((lan, seat)) => match snapshot.move_to(id, &lan, Some(seat)) {
                Ok(()) => continue,
                Err(error) => error.to_string(),
            },
        };
        problems.add(id.as_str(), format!("it stays at its own seat: {refused}; or remove the annotation {MOVED_TO}"));
    }
    snapshot
}

/// The place that the pod asks for; `None` for one that has no node yet and nothing to complain of.
fn candidate<'a>(pod: &'a PodFact, lans: &BTreeMap<&LanName, &Lan>) -> Result<Option<Candidate<'a>>, String> {
    let id: InstanceId = pod
        .name
        .parse()
        .map_err(|error| format!("its name cannot be an instance's: {error}; rename its StatefulSet"))?;
    let lan = pod.lan.as_deref().ok_or("it has no label loco.dev/lan; add it, with a LAN's name")?;
    let (lan, of) = lan
        .parse::<LanName>()
        .ok()
        .and_then(|name| lans.get(&name).map(|lan| (name, *lan)))
        .ok_or_else(|| format!("its label loco.dev/lan says `{lan}`, which the file of LANs does not list"))?;
    let seat = seat_of(pod)?;
    let identity = u8::try_from(seat).map_err(|_| None).and_then(|seat| of.identity(Seat(seat)).map_err(Some));
    let seat = match identity {
        // Within the LAN's seats, so within an octet.
        Ok(_) => Seat(u8::try_from(seat).unwrap_or(u8::MAX)),
        Err(Some(error)) => return Err(format!("{error}; give the LAN more seats, or run fewer replicas")),
        Err(None) => return Err(format!("seat {seat} is more than a LAN can have; run fewer replicas")),
    };
    let Some(node) = pod.node.as_deref() else {
        return pod.unscheduled.as_deref().map_or(Ok(None), |why| Err(format!("it waits for a node: {why}")));
    };
    let node: NodeName = node.parse().map_err(|error| format!("its node cannot be used: {error}"))?;
    Ok(Some(Candidate { pod, id, lan, seat, node }))
}

/// A label's word, else the last number of the name: `instance-3` sits on seat 3.
fn seat_of(pod: &PodFact) -> Result<u32, String> {
    if let Some(label) = &pod.seat {
        return label.parse().map_err(|_| format!("its label for the seat says `{label}`, which is no number"));
    }
    let number = pod.name.rsplit('-').find(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    number.and_then(|number| number.parse().ok()).ok_or_else(|| {
        "nothing tells its seat; add the label apps.kubernetes.io/pod-index, with a number from 0".to_owned()
    })
}

/// Nodes with an instance, and nodes with an agent. `pods` come newest first.
fn nodes(pods: &[&PodFact], agents: &BTreeMap<&str, &AgentFact>, problems: &mut Problems) -> BTreeMap<NodeName, Node> {
    let mut addresses: BTreeMap<&str, Ipv4Addr> = BTreeMap::new();
    for pod in pods {
        if let (Some(node), Some(ip)) = (pod.node.as_deref(), pod.host_ip) {
            addresses.entry(node).or_insert(ip);
        }
    }
    for (node, agent) in agents {
        addresses.entry(node).or_insert(agent.address);
    }
    // Where two nodes claim one address, the one with an agent there is believed: the other is what is left of an old node.
    let mut claims: Vec<(&str, Ipv4Addr)> = addresses.into_iter().collect();
    claims.sort_by_key(|(name, ip)| (agents.get(name).is_none_or(|agent| agent.address != *ip), *name));
    let mut holders: BTreeMap<Ipv4Addr, &str> = BTreeMap::new();
    let mut nodes = BTreeMap::new();
    for (name, ip) in claims {
        let Ok(parsed) = name.parse::<NodeName>() else {
            problems.add(name, "this is not a node name that Loco can use");
            continue;
        };
        if let Some(holder) = holders.get(&ip) {
            problems.add(
                name,
                format!("its address {ip} is also that of node {holder}; one of the two is gone: delete it"),
            );
            continue;
        }
        holders.insert(ip, name);
        let port = agents.get(name).map_or(AGENT_PORT, |agent| agent.port);
        let agent_url = format!("http://{ip}:{port}");
        nodes.insert(parsed.clone(), Node { name: parsed, underlay_ip: ip, agent_url });
    }
    nodes
}

#[cfg(test)]
mod tests;
