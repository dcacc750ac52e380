//! The cluster as an agent must know it: LANs, nodes, and which instance sits where.
//!
//! Every agent computes its own desired state from one `Snapshot`, so there is no leader and no message between agents.
//! Under Kubernetes it will come from a watch; under `loco up` it comes from a file. Same type, same code after it.
use std::{collections::BTreeMap, net::Ipv4Addr};

use crate::{InstanceId, InvalidLan, Lan, LanName, NodeName, Seat, Vni};

/// A machine that runs an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: NodeName,
    /// Address of the node on the underlay: its VTEP, and where its media ports are.
    pub underlay_ip: Ipv4Addr,
    /// Base URL of the agent's HTTP API.
    pub agent_url: String,
}

/// An instance and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedInstance {
    pub id: InstanceId,
    pub lan: LanName,
    pub seat: Seat,
    pub node: NodeName,
}

/// Checked: names are unique, references resolve, seats are single.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    lans: BTreeMap<LanName, Lan>,
    nodes: BTreeMap<NodeName, Node>,
    instances: BTreeMap<InstanceId, PlacedInstance>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSnapshot {
    #[error("{kind} `{name}` is listed twice; give each one a name of its own")]
    Twice { kind: &'static str, name: String },
    #[error("instance `{instance}` names {kind} `{name}`, which is not listed")]
    Unknown { instance: InstanceId, kind: &'static str, name: String },
    #[error("VNI {vni} is used by LAN `{a}` and LAN `{b}`; frames of the two would mix")]
    SharedVni { vni: u32, a: LanName, b: LanName },
    #[error("underlay address {ip} is used by node `{a}` and node `{b}`")]
    SharedUnderlay { ip: Ipv4Addr, a: NodeName, b: NodeName },
    #[error("seat {seat} of LAN `{lan}` is taken by `{a}` and `{b}`")]
    SharedSeat { lan: LanName, seat: u8, a: InstanceId, b: InstanceId },
    #[error("instance `{instance}` has no place")]
    Lan {
        instance: InstanceId,
        #[source]
        source: InvalidLan,
    },
}

impl Snapshot {
    pub fn new(
        lans: impl IntoIterator<Item = Lan>,
        nodes: impl IntoIterator<Item = Node>,
        instances: impl IntoIterator<Item = PlacedInstance>,
    ) -> Result<Self, InvalidSnapshot> {
        let mut snapshot = Self::default();
        let mut vnis: BTreeMap<Vni, LanName> = BTreeMap::new();
        for lan in lans {
            if let Some(a) = vnis.insert(lan.vni(), lan.name().clone())
                && a != *lan.name()
            {
                return Err(InvalidSnapshot::SharedVni { vni: lan.vni().get(), a, b: lan.name().clone() });
            }
            if let Some(old) = snapshot.lans.insert(lan.name().clone(), lan) {
                return Err(InvalidSnapshot::Twice { kind: "LAN", name: old.name().to_string() });
            }
        }
        let mut underlay = BTreeMap::new();
        for node in nodes {
            if let Some(a) = underlay.insert(node.underlay_ip, node.name.clone())
                && a != node.name
            {
                return Err(InvalidSnapshot::SharedUnderlay { ip: node.underlay_ip, a, b: node.name });
            }
            if let Some(old) = snapshot.nodes.insert(node.name.clone(), node) {
                return Err(InvalidSnapshot::Twice { kind: "node", name: old.name.to_string() });
            }
        }
        let mut seats = BTreeMap::new();
        for instance in instances {
            let unknown = |kind, name: String| InvalidSnapshot::Unknown { instance: instance.id.clone(), kind, name };
            let lan = snapshot.lans.get(&instance.lan).ok_or_else(|| unknown("LAN", instance.lan.to_string()))?;
            if !snapshot.nodes.contains_key(&instance.node) {
                return Err(unknown("node", instance.node.to_string()));
            }
            lan.identity(instance.seat)
                .map_err(|source| InvalidSnapshot::Lan { instance: instance.id.clone(), source })?;
            if let Some(a) = seats.insert((instance.lan.clone(), instance.seat), instance.id.clone())
                && a != instance.id
            {
                return Err(InvalidSnapshot::SharedSeat {
                    lan: instance.lan,
                    seat: instance.seat.0,
                    a,
                    b: instance.id,
                });
            }
            if let Some(old) = snapshot.instances.insert(instance.id.clone(), instance) {
                return Err(InvalidSnapshot::Twice { kind: "instance", name: old.id.to_string() });
            }
        }
        Ok(snapshot)
    }

    pub fn lans(&self) -> impl Iterator<Item = &Lan> {
        self.lans.values()
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub fn instances(&self) -> impl Iterator<Item = &PlacedInstance> {
        self.instances.values()
    }

    pub fn lan(&self, name: &LanName) -> Option<&Lan> {
        self.lans.get(name)
    }

    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    pub fn instance(&self, id: &InstanceId) -> Option<&PlacedInstance> {
        self.instances.get(id)
    }

    /// Instances that sit on `node`.
    pub fn on_node<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = &'a PlacedInstance> {
        self.instances.values().filter(move |instance| instance.node == *node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NetworkMode;

    fn lan(name: &str, vni: u32) -> Lan {
        let subnet = "10.98.0.0/24".parse().unwrap();
        Lan::new(name.parse().unwrap(), Vni::new(vni).unwrap(), NetworkMode::Vxlan, subnet, 9).unwrap()
    }

    fn node(name: &str, last: u8) -> Node {
        Node {
            name: name.parse().unwrap(),
            underlay_ip: Ipv4Addr::new(10, 99, 0, last),
            agent_url: format!("http://10.99.0.{last}:14780"),
        }
    }

    fn seat(id: &str, lan: &str, seat: u8, node: &str) -> PlacedInstance {
        let (id, lan, node) = (id.parse().unwrap(), lan.parse().unwrap(), node.parse().unwrap());
        PlacedInstance { id, lan, seat: Seat(seat), node }
    }

    #[track_caller]
    fn refuses(
        lans: Vec<Lan>,
        nodes: Vec<Node>,
        instances: Vec<PlacedInstance>,
        want: impl Fn(&InvalidSnapshot) -> bool,
    ) {
        let error = Snapshot::new(lans, nodes, instances).unwrap_err();
        assert!(want(&error), "{error:?}");
    }

    #[test]
    fn refuses_contradictions() {
        use InvalidSnapshot as E;
        let (l, n) = (|| vec![lan("party", 42)], || vec![node("a", 1)]);
        refuses(vec![lan("party", 42), lan("p2", 42)], n(), vec![], |e| matches!(e, E::SharedVni { .. }));
        refuses(vec![lan("party", 42), lan("party", 43)], n(), vec![], |e| matches!(e, E::Twice { kind: "LAN", .. }));
        refuses(l(), vec![node("a", 1), node("b", 1)], vec![], |e| matches!(e, E::SharedUnderlay { .. }));
        refuses(l(), n(), vec![seat("i-0", "x", 0, "a")], |e| matches!(e, E::Unknown { kind: "LAN", .. }));
        refuses(l(), n(), vec![seat("i-0", "party", 0, "x")], |e| matches!(e, E::Unknown { kind: "node", .. }));
        refuses(l(), n(), vec![seat("i-0", "party", 9, "a")], |e| matches!(e, E::Lan { .. }));
        refuses(l(), n(), vec![seat("i-0", "party", 0, "a"), seat("i-1", "party", 0, "a")], |e| {
            matches!(e, E::SharedSeat { .. })
        });
        refuses(l(), n(), vec![seat("i-0", "party", 0, "a"), seat("i-0", "party", 1, "a")], |e| {
            matches!(e, E::Twice { kind: "instance", .. })
        });
    }
}
