//! What to change of the encrypted underlay: pure, like the plan of the LAN's links.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use model::NetworkMode;

use super::{Keys, Known, PublicKey};
use crate::FabricSpec;

/// What WireGuard puts around an inner packet: IPv4 20, UDP 8, header 16, tag 16 (whitepaper, 5.4.6).
const OVERHEAD: u32 = 60;
/// Inner packets are padded to a multiple of this.
const PADDING: u32 = 16;
/// A full frame of a LAN in VXLAN has 1550 octets (1514 + 8 + 8 + 20): more is never needed.
pub(super) const MTU_MAX: u32 = 1552;
/// What every host must take (RFC 791).
const MTU_MIN: u32 = 576;

/// The device's MTU over an underlay of `underlay` octets, such that no outer packet is a fragment: where it is below 1550, the
/// kernel fragments VXLAN's packets *inside*, and each fragment is a whole packet outside.
pub(crate) fn mtu(underlay: u32) -> u32 {
    let room = underlay.saturating_sub(OVERHEAD);
    (room - room % PADDING).clamp(MTU_MIN, MTU_MAX)
}

/// Packets that may wait for the tunnel in user space, whose thread may have to wait for a processor; 3 MB at the most.
pub(super) const QUEUE: u32 = 2000;

/// What moves the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datapath {
    /// The kernel's own WireGuard.
    Kernel,
    /// This process, over a TUN device, where the kernel has none.
    User,
}

impl Datapath {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::User => "user-space",
        }
    }
}

/// The device as it is in its namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) index: u32,
    /// `None`: something else has the name.
    pub(crate) kind: Option<Datapath>,
    pub(crate) mtu: u32,
    /// Packets that may wait in it.
    pub(crate) queue: u32,
    pub(crate) up: bool,
    pub(crate) addresses: BTreeSet<Ipv4Addr>,
    /// All that leaves the namespace goes through it.
    pub(crate) routed: bool,
    /// Packets that the kernel's WireGuard did not take; 0 in user space.
    pub(crate) refused: u64,
}

/// One change of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Delete,
    Create(Datapath),
    SetMtu(u32),
    /// Of packets that wait for the tunnel's thread.
    SetQueue,
    RemoveAddress(Ipv4Addr),
    AddAddress(Ipv4Addr),
    SetUp,
    /// The way for everything.
    AddRoute,
}

/// How the device is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) datapath: Datapath,
    pub(crate) mtu: u32,
    /// The node's underlay address, inside as well: it is unique among nodes, and the namespace has no other.
    pub(crate) address: Ipv4Addr,
}

impl Wanted {
    pub(crate) fn steps(self, seen: Option<&Device>) -> Vec<Step> {
        let mut steps = Vec::new();
        let there = seen.filter(|device| device.kind == Some(self.datapath));
        if there.is_none() {
            steps.extend(seen.map(|_| Step::Delete));
            steps.push(Step::Create(self.datapath));
        }
        if there.is_none_or(|device| device.mtu != self.mtu) {
            steps.push(Step::SetMtu(self.mtu));
        }
        if self.datapath == Datapath::User && there.is_none_or(|device| device.queue != QUEUE) {
            steps.push(Step::SetQueue);
        }
        // Before others go: a link without any address loses its routes.
        if there.is_none_or(|device| !device.addresses.contains(&self.address)) {
            steps.push(Step::AddAddress(self.address));
        }
        for other in there.iter().flat_map(|device| &device.addresses).filter(|other| **other != self.address) {
            steps.push(Step::RemoveAddress(*other));
        }
        if there.is_none_or(|device| !device.up) {
            steps.push(Step::SetUp);
        }
        // A link that was down has lost them, too.
        if there.is_none_or(|device| !device.up || !device.routed) {
            steps.push(Step::AddRoute);
        }
        steps
    }
}

/// One peer: where it is reached, and which inner address is its alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerConfig {
    pub(crate) address: Ipv4Addr,
    pub(crate) endpoint: SocketAddrV4,
}

pub(crate) type Peers = BTreeMap<PublicKey, PeerConfig>;

/// One change of the peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Remove(PublicKey),
    Add(PublicKey, PeerConfig),
}

/// From `seen` to `wanted`; what differs is removed first, so that an address is never two peers'.
pub(crate) fn changes(seen: &Peers, wanted: &Peers) -> Vec<Change> {
    let gone = seen.iter().filter(|(key, peer)| wanted.get(key) != Some(peer)).map(|(key, _)| Change::Remove(*key));
    let new = wanted.iter().filter(|(key, peer)| seen.get(key) != Some(peer));
    gone.chain(new.map(|(key, peer)| Change::Add(*key, *peer))).collect()
}

/// The nodes with which this one shares a LAN of mode `vxlan`, by their addresses.
pub(crate) fn neighbours(spec: &FabricSpec) -> BTreeMap<Ipv4Addr, model::NodeName> {
    let lans = spec.lans.values().filter(|lan| lan.mode == NetworkMode::Vxlan && !lan.ports.is_empty());
    lans.flat_map(|lan| lan.peers.iter().map(|(address, peer)| (*address, peer.node.clone()))).collect()
}

/// The peers to have, and sentences about nodes that cannot be one: frames for them go nowhere, rather than in the clear.
pub(crate) fn peers(spec: &FabricSpec, keys: &Keys, own: PublicKey) -> (Peers, Vec<String>) {
    let (mut peers, mut problems) = (Peers::new(), Vec::new());
    for (address, node) in neighbours(spec) {
        match keys.get(&address) {
            None | Some(Known::Nothing) => {}
            Some(Known::Wrong(problem)) => problems.push(problem.clone()),
            Some(Known::Key { key: known, .. }) if known.key == own || peers.contains_key(&known.key) => problems.push(format!(
                "node `{node}` has the WireGuard key of another node: its run directory was copied; remove `wireguard.key` from it and restart its agent"
            )),
            Some(Known::Key { key: known, .. }) => {
                peers.insert(known.key, PeerConfig { address, endpoint: SocketAddrV4::new(address, known.port) });
            }
        }
    }
    (peers, problems)
}

#[cfg(test)]
mod tests {
    use model::Snapshot;
    use proptest::prelude::*;
    use testkit::directory::{self, guest, lan};

    use super::*;
    use crate::wireguard::PeerKey;

    const OWN: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 11);

    fn device(steps: &[Step], before: Option<Device>) -> Option<Device> {
        steps.iter().fold(before, |device, step| match (*step, device) {
            (Step::Delete, _) => None,
            (Step::Create(kind), None) => Some(Device {
                index: 1,
                kind: Some(kind),
                mtu: 1420,
                queue: 500,
                up: false,
                addresses: BTreeSet::new(),
                routed: false,
                refused: 0,
            }),
            (step, Some(mut device)) => {
                match step {
                    Step::SetMtu(mtu) => device.mtu = mtu,
                    Step::SetQueue => device.queue = QUEUE,
                    Step::AddAddress(address) => assert!(device.addresses.insert(address), "EEXIST"),
                    Step::RemoveAddress(address) => assert!(device.addresses.remove(&address), "EADDRNOTAVAIL"),
                    Step::SetUp => (device.up, device.routed) = (true, device.up && device.routed),
                    Step::AddRoute => {
                        assert!(device.up, "ENETDOWN");
                        device.routed = true;
                    }
                    Step::Delete | Step::Create(_) => panic!("EEXIST"),
                }
                Some(device)
            }
            (step, None) => panic!("{step:?}: ENODEV"),
        })
    }

    prop_compose! {
        fn any_device()(
            kind in prop_oneof![Just(None), Just(Some(Datapath::Kernel)), Just(Some(Datapath::User))],
            mtu in 68_u32..9000,
            queue in prop_oneof![Just(500), Just(QUEUE)],
            up: bool,
            routed: bool,
            addresses in prop::collection::btree_set(prop_oneof![Just(OWN), Just(Ipv4Addr::new(10, 0, 0, 1))], 0..3),
        ) -> Device {
            Device { index: 7, kind, mtu, queue, up, addresses, routed: up && routed, refused: 0 }
        }
    }

    proptest! {
        #[test]
        fn from_any_device_one_pass_arrives_and_a_second_has_nothing_to_do(
            before in prop::option::of(any_device()),
            user: bool,
            underlay in 0_u32..70000,
        ) {
            let datapath = if user { Datapath::User } else { Datapath::Kernel };
            let wanted = Wanted { datapath, mtu: mtu(underlay), address: OWN };
            let after = device(&wanted.steps(before.as_ref()), before);
            prop_assert_eq!(wanted.steps(after.as_ref()), vec![]);
        }

        #[test]
        fn no_outer_packet_is_longer_than_the_underlay_takes(underlay in 700_u32..70000) {
            let inner = mtu(underlay);
            prop_assert!(inner.next_multiple_of(PADDING) + OVERHEAD <= underlay, "{inner} over {underlay}");
            prop_assert!(inner <= MTU_MAX && (inner >= 1550 || inner + 2 * PADDING + OVERHEAD > underlay), "and as much as fits");
        }

        #[test]
        fn changes_lead_to_the_wanted_peers_and_no_address_is_ever_two_peers(
            seen in prop::collection::btree_map(0_u8..6, (0_u8..6, 1_u16..4), 0..6),
            wanted in prop::collection::btree_map(0_u8..6, (0_u8..6, 1_u16..4), 0..6),
        ) {
            // One peer for each address, as `peers` gives them.
            let table = |rows: &BTreeMap<u8, (u8, u16)>| -> Peers {
                let by_address: BTreeMap<_, _> = rows.iter().map(|(key, (last, port))| (*last, (*key, *port))).collect();
                by_address.into_iter().map(|(last, (key, port))| {
                    let address = Ipv4Addr::new(10, 0, 0, last);
                    (PublicKey([key; 32]), PeerConfig { address, endpoint: SocketAddrV4::new(address, port) })
                }).collect()
            };
            let (mut now, wanted) = (table(&seen), table(&wanted));
            for change in changes(&now.clone(), &wanted) {
                match change {
                    Change::Remove(key) => prop_assert!(now.remove(&key).is_some()),
                    Change::Add(key, peer) => {
                        prop_assert!(now.values().all(|other| other.address != peer.address), "two peers at {}", peer.address);
                        prop_assert!(now.insert(key, peer).is_none());
                    }
                }
            }
            prop_assert_eq!(&now, &wanted);
            prop_assert_eq!(changes(&now, &wanted), vec![]);
        }
    }

    #[test]
    fn the_mtu_of_the_usual_underlays() {
        for (underlay, inner) in [(1500, 1440), (1420, 1360), (1600, 1536), (1612, 1552), (9000, 1552), (0, 576)] {
            assert_eq!(mtu(underlay), inner, "over {underlay}");
        }
    }

    fn spec() -> FabricSpec {
        let node = |name, last| directory::node(name, Ipv4Addr::new(10, 99, 0, last));
        let snapshot = Snapshot::new(
            [
                lan("party", 4200, NetworkMode::Vxlan, "10.98.0.0/24"),
                lan("quiet", 7, NetworkMode::Socket, "10.97.0.0/24"),
            ],
            [node("a", 11), node("b", 12), node("c", 13), node("d", 14)],
            [
                guest("i-0", "party", 0, "a"),
                guest("i-1", "party", 1, "b"),
                guest("i-2", "party", 2, "d"),
                guest("i-3", "quiet", 0, "a"),
                guest("i-4", "quiet", 1, "c"),
            ],
        );
        FabricSpec::from_snapshot(&snapshot.unwrap(), &"a".parse().unwrap())
    }

    #[test]
    fn peers_are_the_nodes_of_the_lans_in_the_kernel_whose_keys_are_known() {
        let own = PublicKey([1; 32]);
        let known = |key, port| Known::Key { key: PeerKey { key: PublicKey([key; 32]), port }, answers: true };
        let (b, c, d) = (Ipv4Addr::new(10, 99, 0, 12), Ipv4Addr::new(10, 99, 0, 13), Ipv4Addr::new(10, 99, 0, 14));
        let mut keys = Keys::from([(b, known(2, 51820)), (c, known(3, 51820))]);
        let (seen, problems) = peers(&spec(), &keys, own);
        assert_eq!(
            seen,
            Peers::from([(PublicKey([2; 32]), PeerConfig { address: b, endpoint: SocketAddrV4::new(b, 51820) })])
        );
        assert_eq!(problems, Vec::<String>::new(), "c shares no LAN of the kernel's, d was not asked yet");
        keys.insert(d, Known::Nothing);
        assert_eq!(peers(&spec(), &keys, own).1, Vec::<String>::new(), "a node that is away is no problem");
        keys.insert(d, Known::Wrong("node `d` does not encrypt".to_owned()));
        assert_eq!(peers(&spec(), &keys, own).1, ["node `d` does not encrypt"]);
        for copied in [1, 2] {
            keys.insert(d, known(copied, 9));
            let (seen, problems) = peers(&spec(), &keys, own);
            assert!(
                seen.len() == 1 && problems[0].contains("`d`") && problems[0].contains("was copied"),
                "{problems:?}"
            );
        }
    }
}
