//! Several LANs on the same nodes: whatever a guest of one sends, no guest of another hears.
use fabric::{Fabric, FabricConfig, FabricSpec};
use model::{InstanceId, Lan, NetworkMode, Seat, Snapshot, Vni};
use prometheus::Registry;
use testkit::{Frame, IpxFraming, NetNs, Numbered, Tap, Underlay, directory, eventually};

use crate::cluster::{SOON, VXLAN_PORT, node_at, node_name};

/// Two LANs, each on each of two nodes; the second one with the subnet given.
pub(crate) fn lans(other: &str) -> [Lan; 2] {
    [("party", 4200, "10.98.0.0/24"), ("other", 4201, other)].map(|(name, vni, subnet)| {
        let vni = Vni::new(vni).unwrap();
        Lan::new(name.parse().unwrap(), vni, NetworkMode::Vxlan, subnet.parse().unwrap(), 9).unwrap()
    })
}

pub(crate) fn id(lan: &str, seat: u8) -> InstanceId {
    format!("{lan}-{seat}").parse().unwrap()
}

pub(crate) fn snapshot(lans: [Lan; 2], placed: &[(&str, u8, usize)]) -> Snapshot {
    let instances: Vec<_> = placed
        .iter()
        .map(|(lan, seat, at)| directory::guest(id(lan, *seat).as_str(), lan, *seat, node_name(*at).as_str()))
        .collect();
    Snapshot::new(lans, (0..2).map(node_at), instances).unwrap()
}

/// Two nodes that share a directory.
pub(crate) struct Nodes {
    pub(crate) fabrics: Vec<Fabric>,
    pub(crate) configs: Vec<FabricConfig>,
    _underlay: Underlay,
}

impl Nodes {
    pub(crate) async fn start(snapshot: &Snapshot) -> Self {
        let underlay = Underlay::new(2).unwrap();
        let config = |index| FabricConfig {
            node: node_name(index),
            netns: NetNs::free_path(&format!("lans{index}")),
            underlay_ip: Underlay::address(u8::try_from(index).unwrap()),
            vxlan_port: VXLAN_PORT,
            underlay_netns: Some(underlay.node(index).path().to_owned()),
            macvlan_parent: None,
            encryption: None,
        };
        let configs: Vec<_> = (0..2).map(config).collect();
        let mut nodes = Self { fabrics: Vec::new(), configs, _underlay: underlay };
        for config in nodes.configs.clone() {
            nodes.fabrics.push(Fabric::start(config, &Registry::new()).await.unwrap());
        }
        nodes.follow(snapshot);
        nodes
    }

    pub(crate) fn follow(&self, snapshot: &Snapshot) {
        for (fabric, config) in self.fabrics.iter().zip(&self.configs) {
            fabric.set_spec(FabricSpec::from_snapshot(snapshot, &config.node));
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.fabrics.clear();
        for config in &self.configs {
            fabric::uninstall(config).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn nothing_leaks_between_lans() {
    let placed = [("party", 0, 0), ("party", 1, 1), ("other", 0, 0), ("other", 1, 1)];
    let lans = lans("10.98.0.0/24");
    let nodes = Nodes::start(&snapshot(lans.clone(), &placed)).await;
    let fabrics = &nodes.fabrics;
    let mut taps = Vec::new();
    for (lan, seat, node) in placed {
        taps.push(Tap::from_fd(fabrics[node].open_tap(&id(lan, seat)).await.unwrap().net).unwrap());
    }
    for fabric in fabrics {
        let status = fabric.status();
        let joined = || status.borrow().lans.values().all(|lan| lan.mode == Some(NetworkMode::Vxlan)).then_some(());
        eventually(SOON, joined).await.unwrap();
    }
    // From each tap: to all, to the seats of both LANs, to an unknown card, in every framing.
    let cards: Vec<[u8; 6]> = placed
        .iter()
        .map(|(lan, seat, _)| {
            let lan = lans.iter().find(|known| known.name().as_str() == *lan).unwrap();
            lan.identity(Seat(*seat)).unwrap().mac.0
        })
        .collect();
    let mut sequence = 0;
    for (sender, tap) in taps.iter().enumerate() {
        for to in cards.iter().copied().chain([[0xff; 6], [2, 7, 7, 7, 7, 7], [1, 0, 0x5e, 0, 0, 1]]) {
            for framing in IpxFraming::ALL {
                sequence += 1;
                let number = Numbered { kind: 1, sender: u8::try_from(sender).unwrap(), sequence };
                tap.send(&Frame::ipx(framing, to, cards[sender], number)).await.unwrap();
            }
        }
    }
    // Then one to all: when it is there, what was before it has arrived, or never will.
    for (sender, tap) in taps.iter().enumerate() {
        let last = Numbered { kind: 2, sender: u8::try_from(sender).unwrap(), sequence: 0 };
        tap.send(&Frame::ethernet([0xff; 6], cards[sender], last, 46)).await.unwrap();
    }
    let mut heard = [0; 4];
    for (receiver, tap) in taps.iter().enumerate() {
        let mut last = false;
        let drained = || {
            for frame in tap.drain().unwrap() {
                let Some(number) = Numbered::find(&frame) else { continue };
                // Senders 0 and 1 are of one LAN, 2 and 3 of the other.
                let own = usize::from(number.sender) / 2 == receiver / 2;
                assert!(own, "{} heard {number:?}", placed[receiver].0);
                heard[receiver] += 1;
                last |= number.kind == 2;
            }
            last.then_some(())
        };
        eventually(SOON, drained).await.unwrap();
    }
    // Of its neighbour's frames: for it, to all, to a group, and those that nobody knows the place of.
    assert!(heard.iter().all(|count| *count >= 4 * 3), "{heard:?}");
}
