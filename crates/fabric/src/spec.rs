//! Desired state of one node, computed from the directory. Pure: no configuration of the host, no kernel.
//!
//! **Invariant.** Everything another node must agree on (MACs, VTEPs, flood lists) follows from the snapshot alone, so
//! agents need no message between them.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use model::{
    Card, Identity, InstanceId, LanName, MacAddr, NetworkMode, NodeName, PlacedInstance, Rules, Seat, Snapshot, Subnet,
    Vni,
};

/// What one node must have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FabricSpec {
    /// This node's underlay address as the directory has it; `None` when the node is not listed.
    pub underlay_ip: Option<Ipv4Addr>,
    pub lans: BTreeMap<Vni, LanSpec>,
}

/// One LAN, with what is here and what is elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanSpec {
    pub name: LanName,
    pub vni: Vni,
    pub mode: NetworkMode,
    pub subnet: Subnet,
    pub seats: u8,
    /// Address and MAC that answer DHCP.
    pub edge_ip: Ipv4Addr,
    pub edge_mac: MacAddr,
    /// MAC of this node's bridge; the reachability questions come from it, so that each node gets its own answers.
    pub bridge_mac: MacAddr,
    pub vxlan_mac: MacAddr,
    /// What its ports let through.
    pub guard: Rules,
    /// Seats on this node.
    pub ports: BTreeMap<Seat, PortSpec>,
    /// Seats on other nodes.
    pub remote: BTreeMap<InstanceId, RemoteGuest>,
    /// Other nodes with a seat in the LAN, by VTEP address.
    pub peers: BTreeMap<Ipv4Addr, Peer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    pub instance: InstanceId,
    pub identity: Identity,
    /// The guest's network card. Its port is called after it, so that a guest which moves keeps its port.
    pub card: Card,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteGuest {
    pub identity: Identity,
    pub vtep: Ipv4Addr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub node: NodeName,
    pub bridge_mac: MacAddr,
}

/// One row of the VXLAN device's forwarding table: where frames for `mac` go. The zero MAC is the flood list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbEntry {
    pub mac: MacAddr,
    pub vtep: Ipv4Addr,
}

/// Nodes that did not answer lately, in which LAN.
pub(crate) type Away = BTreeSet<(Vni, Ipv4Addr)>;

impl FabricSpec {
    pub fn from_snapshot(snapshot: &Snapshot, node: &NodeName) -> Self {
        // Looked through once: of a thousand LANs each would cost a look at every instance.
        let mut placed_in: BTreeMap<&LanName, Vec<&PlacedInstance>> = BTreeMap::new();
        for placed in snapshot.instances() {
            placed_in.entry(&placed.lan).or_default().push(placed);
        }
        let lans = snapshot.lans().map(|lan| {
            let mut spec = LanSpec {
                name: lan.name().clone(),
                vni: lan.vni(),
                mode: lan.mode(),
                subnet: lan.subnet(),
                seats: lan.seats(),
                edge_ip: lan.subnet().edge(),
                edge_mac: lan.edge_mac(),
                bridge_mac: node_mac(0x06, node, lan.vni()),
                vxlan_mac: node_mac(0x0a, node, lan.vni()),
                guard: lan.guard(),
                ports: BTreeMap::new(),
                remote: BTreeMap::new(),
                peers: BTreeMap::new(),
            };
            for placed in placed_in.get(lan.name()).into_iter().flatten() {
                let who = snapshot.identity(placed).zip(snapshot.card(placed));
                let (identity, card) = who.expect("a snapshot holds only seats that its LANs have");
                if placed.node == *node {
                    spec.ports.insert(placed.seat, PortSpec { instance: placed.id.clone(), identity, card });
                } else if let Some(home) = snapshot.node(&placed.node) {
                    spec.remote.insert(placed.id.clone(), RemoteGuest { identity, vtep: home.underlay_ip });
                    spec.peers.entry(home.underlay_ip).or_insert_with(|| {
                        let bridge_mac = node_mac(0x06, &home.name, lan.vni());
                        Peer { node: home.name.clone(), bridge_mac }
                    });
                }
            }
            (lan.vni(), spec)
        });
        Self { underlay_ip: snapshot.node(node).map(|node| node.underlay_ip), lans: lans.collect() }
    }

    /// Where `instance` plugs in on this node.
    pub fn port(&self, instance: &InstanceId) -> Option<(&LanSpec, Seat, &PortSpec)> {
        self.lans.values().find_map(|lan| {
            lan.ports.iter().find(|(_, port)| port.instance == *instance).map(|(seat, port)| (lan, *seat, port))
        })
    }
}

impl LanSpec {
    /// Whether this node is a station of it, with a bridge and a tunnel. On the real LAN (mode `macvlan`) somebody else answers DHCP, there
    /// is no tunnel, and what the node itself sends does not reach its own guests.
    pub(crate) fn has_bridge(&self) -> bool {
        self.mode == NetworkMode::Vxlan && !self.ports.is_empty()
    }

    /// The whole forwarding table: remote guests, the bridges of the peers (answers to their questions go only there),
    /// and the flood list, which holds only nodes with a seat in the LAN. Nodes that are `away` are not in the flood list; the rest
    /// stays, so that their own guests are not flooded for, and the question whether they are back still finds them.
    pub(crate) fn fdb(&self, away: &Away) -> BTreeSet<FdbEntry> {
        let guests = self.remote.values().map(|guest| FdbEntry { mac: guest.identity.mac, vtep: guest.vtep });
        let bridges = self.peers.iter().map(|(vtep, peer)| FdbEntry { mac: peer.bridge_mac, vtep: *vtep });
        let here = self.peers.keys().filter(|vtep| !away.contains(&(self.vni, **vtep)));
        let flood = here.map(|vtep| FdbEntry { mac: MacAddr::ZERO, vtep: *vtep });
        guests.chain(bridges).chain(flood).collect()
    }
}

/// A locally administered unicast MAC from the node's identity: it survives a restart and a re-creation of the device,
/// and every other node can compute it. `kind` (06 bridge, 0a VXLAN) keeps clear of the seats' 02:4c.
///
/// FNV-1a over name and VNI: 40 bits over a few hundred nodes leave a collision to less than one in a million clusters.
fn node_mac(kind: u8, node: &NodeName, vni: Vni) -> MacAddr {
    let bytes = node.as_str().bytes().chain(vni.get().to_be_bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let [_, _, _, a, b, c, d, e] = (hash ^ (hash >> 40)).to_be_bytes();
    MacAddr([kind, a, b, c, d, e])
}

#[cfg(test)]
mod tests {
    use testkit::directory::{self, guest};

    use super::*;

    fn snapshot() -> Snapshot {
        let lan = |name, vni| directory::lan(name, vni, NetworkMode::Vxlan, "10.98.0.0/24");
        let node = |name, last| directory::node(name, Ipv4Addr::new(10, 99, 0, last));
        Snapshot::new(
            [lan("party", 4200), lan("other", 7)],
            [node("a", 11), node("b", 12), node("c", 13)],
            [guest("i-0", "party", 0, "a"), guest("i-1", "party", 1, "b"), guest("i-2", "other", 0, "c")],
        )
        .unwrap()
    }

    #[test]
    fn local_seats_are_ports_and_remote_seats_are_forwarding_entries() {
        let spec = FabricSpec::from_snapshot(&snapshot(), &"a".parse().unwrap());
        assert_eq!(spec.underlay_ip, Some(Ipv4Addr::new(10, 99, 0, 11)));
        let party = &spec.lans[&Vni::new(4200).unwrap()];
        assert_eq!(party.ports.keys().copied().collect::<Vec<_>>(), [Seat(0)]);
        let b = Ipv4Addr::new(10, 99, 0, 12);
        let other_view = FabricSpec::from_snapshot(&snapshot(), &"b".parse().unwrap());
        let want = [
            FdbEntry { mac: MacAddr::ZERO, vtep: b },
            FdbEntry { mac: MacAddr::parse("02:4c:00:10:68:02").unwrap(), vtep: b },
            FdbEntry { mac: other_view.lans[&party.vni].bridge_mac, vtep: b },
        ];
        assert_eq!(party.fdb(&Away::new()), BTreeSet::from(want));
        // A node that is away gets no more floods, and can still be asked.
        assert_eq!(party.fdb(&[(party.vni, b)].into()), BTreeSet::from([want[1], want[2]]));
        // Node c has no seat in the LAN, so nothing of it may be sent there; nor does it get a device for it.
        assert!(spec.lans[&Vni::new(7).unwrap()].ports.is_empty());
    }

    #[test]
    fn macs_of_nodes_are_locally_administered_and_differ() {
        let mut seen = BTreeSet::new();
        for node in 0..500 {
            for vni in [1, 2, 4200] {
                for kind in [0x06, 0x0a] {
                    let mac = node_mac(kind, &format!("node-{node}").parse().unwrap(), Vni::new(vni).unwrap());
                    assert!(!mac.is_group() && mac.0[0] & 2 != 0 && mac.0[0] != 2);
                    assert!(seen.insert(mac), "{mac} twice");
                }
            }
        }
    }

    #[test]
    fn an_unlisted_node_has_no_address() {
        assert_eq!(FabricSpec::from_snapshot(&snapshot(), &"zz".parse().unwrap()).underlay_ip, None);
    }
}
