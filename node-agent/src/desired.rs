//! What this node must have, computed from the directory. Pure: this file is the agent's policy.
use std::collections::BTreeMap;

use fabric::FabricSpec;
use model::{Identity, InstanceId, LanName, NetworkMode, NodeName, Seat, Snapshot};
use seat::PortKind;

/// Desired state of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) fabric: FabricSpec,
    /// The instances that are placed here.
    pub(crate) seats: BTreeMap<InstanceId, SeatSpec>,
    /// The directory lists this node at all. One that is not listed yet waits: it is no error.
    pub(crate) listed: bool,
}

/// Who an instance is on its LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeatSpec {
    pub(crate) lan: LanName,
    pub(crate) seat: Seat,
    pub(crate) identity: Identity,
    /// How the guests of its LAN are joined.
    pub(crate) mode: NetworkMode,
}

impl SeatSpec {
    /// What its guest is plugged into.
    pub(crate) const fn port_kind(&self) -> PortKind {
        match self.mode {
            NetworkMode::Vxlan => PortKind::Tap,
            NetworkMode::Macvlan => PortKind::Macvtap,
            NetworkMode::Socket => PortKind::Socket,
            NetworkMode::User => PortKind::User,
        }
    }
}

impl Desired {
    pub(crate) fn from_snapshot(snapshot: &Snapshot, node: &NodeName) -> Self {
        let seats = snapshot.on_node(node).filter_map(|placed| {
            let lan = snapshot.lan(&placed.lan)?;
            let identity = snapshot.identity(placed)?;
            Some((
                placed.id.clone(),
                SeatSpec { lan: placed.lan.clone(), seat: placed.seat, identity, mode: lan.mode() },
            ))
        });
        Self {
            fabric: FabricSpec::from_snapshot(snapshot, node),
            seats: seats.collect(),
            listed: snapshot.node(node).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        api::snapshot::parse(
            r#"{"version":1,
              "lans":[{"name":"party","vni":4200,"mode":"vxlan","subnet":"10.98.0.0/24","seats":9}],
              "nodes":[{"name":"a","underlay_ip":"10.99.0.11","agent_url":"u"},{"name":"b","underlay_ip":"10.99.0.12","agent_url":"u"}],
              "instances":[{"id":"i-0","lan":"party","seat":0,"node":"a"},{"id":"i-1","lan":"party","seat":1,"node":"b"},
                           {"id":"i-2","lan":"party","seat":2,"node":"a"}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn seats_are_the_instances_placed_here_with_their_identity() {
        let desired = Desired::from_snapshot(&snapshot(), &"a".parse().unwrap());
        let names: Vec<_> = desired.seats.keys().map(InstanceId::as_str).collect();
        assert_eq!(names, ["i-0", "i-2"]);
        let two = &desired.seats[&"i-2".parse().unwrap()];
        assert_eq!(two.identity.mac.to_string(), "02:4c:00:10:68:03");
        assert!(desired.listed);
        // Seats and ports are two views of one thing.
        assert!(desired.seats.keys().all(|id| desired.fabric.port(id).is_some()));
    }

    #[test]
    fn a_node_that_is_not_listed_has_nothing_and_waits() {
        let desired = Desired::from_snapshot(&snapshot(), &"zz".parse().unwrap());
        assert!(desired.seats.is_empty() && !desired.listed);
    }
}
