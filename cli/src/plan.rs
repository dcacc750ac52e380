//! The wall as it shall be: names, addresses, places. Pure: flags and a free network in, everything else follows.
//!
//! **Invariants.** A plan always gives a valid [`model::Snapshot`] (property-tested over all flags). Guests of one LAN
//! sit on different nodes as far as there are nodes, since a wall whose LANs never leave a node would prove nothing.
use std::{fmt, net::Ipv4Addr, path::PathBuf};

use api::snapshot::{RawInstance, RawLan, RawNode, SnapshotFile};
use flags::UpFlags;
use serde::{Deserialize, Serialize};

/// TCP port of a node agent's HTTP API.
pub(crate) const AGENT_PORT: u16 = 14780;
/// TCP port of the first runner's health; the others follow.
const RUNNER_PORT: u16 = 14800;
/// First user id of the runners: one for each instance, so that no guest can reach another's process or files.
const RUNNER_UID: u32 = 1_098_000;
/// Of a LAN, at least.
const SEATS: u8 = 9;
const FIRST_VNI: u32 = 4200;
/// The most seats that a /24 holds beside network, edge and broadcast address.
const SEATS_OF_24: u8 = 253;

/// A /24 of the machine that joins the nodes and the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Underlay(Ipv4Addr);

impl Underlay {
    pub(crate) const PREFIX_LEN: u8 = 24;

    /// The host's own address in it.
    pub(crate) fn host(self) -> Ipv4Addr {
        self.at(1)
    }

    fn node(self, index: u8) -> Ipv4Addr {
        self.at(11 + index)
    }

    fn at(self, last: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.0.octets();
        Ipv4Addr::new(a, b, c, last)
    }

    /// The first of 10.99.0.0/24, 10.99.1.0/24, … 10.127.255.0/24 that overlaps none of `routed` (network, prefix length).
    /// `None`: all are taken.
    pub(crate) fn pick(routed: &[(Ipv4Addr, u8)]) -> Option<Self> {
        let mask = |len: u8| u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
        let overlaps = |candidate: Ipv4Addr| {
            routed.iter().any(|&(network, len)| {
                // A default route covers everything and says nothing of who is where.
                let common = mask(len.min(Self::PREFIX_LEN));
                len > 0 && u32::from(candidate) & common == u32::from(network) & common
            })
        };
        (99..=127).flat_map(|b| (0..=255).map(move |c| Ipv4Addr::new(10, b, c, 0))).find(|&c| !overlaps(c)).map(Self)
    }
}

impl fmt::Display for Underlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, Self::PREFIX_LEN)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodePlan {
    /// `node-a`.
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InstancePlan {
    /// `instance-0`.
    pub(crate) id: String,
    pub(crate) node: String,
    pub(crate) node_ip: Ipv4Addr,
    pub(crate) lan: String,
    pub(crate) seat: u8,
    /// Where the runner's health answers, on `node_ip`.
    pub(crate) health_port: u16,
    /// User and group that its runner becomes.
    pub(crate) uid: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LanPlan {
    pub(crate) name: String,
    pub(crate) vni: u32,
    pub(crate) mode: String,
    pub(crate) subnet: String,
    pub(crate) seats: u8,
}

/// What every guest boots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Boot {
    pub(crate) kernel: Option<PathBuf>,
    /// Command line for `kernel`.
    pub(crate) append: Option<String>,
    pub(crate) disk: Option<PathBuf>,
    pub(crate) cdrom: Option<PathBuf>,
    /// A VNC socket for each guest, beside the D-Bus display.
    #[serde(default)]
    pub(crate) vnc: bool,
    /// Overlays live here and survive `down`.
    pub(crate) keep_disks: Option<PathBuf>,
}

/// All that the supervisor must know; `wall.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wall {
    /// Port of the page.
    pub(crate) port: u16,
    pub(crate) underlay: Underlay,
    pub(crate) nodes: Vec<NodePlan>,
    pub(crate) lans: Vec<LanPlan>,
    pub(crate) instances: Vec<InstancePlan>,
    pub(crate) boot: Boot,
    /// ELF kernel with which an agent proves that KVM works; absent: no KVM.
    pub(crate) kvm_probe: Option<PathBuf>,
    /// The agents' --encryption, where it is not the usual one.
    #[serde(default)]
    pub(crate) encryption: Option<String>,
    /// UDP port of the IPX relay on the first node, where one is wanted.
    #[serde(default)]
    pub(crate) ipx_relay: Option<u16>,
}

impl Wall {
    pub(crate) fn new(flags: &UpFlags, underlay: Underlay, boot: Boot, kvm_probe: Option<PathBuf>) -> Self {
        let nodes: Vec<NodePlan> = (0..flags.nodes)
            .map(|i| NodePlan { name: format!("node-{}", char::from(b'a' + i)), ip: underlay.node(i) })
            .collect();
        let seats = flags.guests.div_ceil(flags.lans);
        // Rounding up can leave the last LANs without a guest; a LAN nobody sits in is not made.
        let lans: Vec<LanPlan> = (0..flags.guests.div_ceil(seats))
            .map(|i| LanPlan {
                name: if i == 0 { "party".to_owned() } else { format!("party-{}", i + 1) },
                vni: FIRST_VNI + u32::from(i),
                mode: flags.mode.clone(),
                subnet: if seats > SEATS_OF_24 { format!("10.98.{}.0/23", 2 * i) } else { format!("10.98.{i}.0/24") },
                // Some to spare, for guests that are moved here.
                seats: seats.max(SEATS),
            })
            .collect();
        let instances = (0..flags.guests)
            .map(|i| {
                let node = &nodes[usize::from(i % flags.nodes)];
                InstancePlan {
                    id: format!("instance-{i}"),
                    node: node.name.clone(),
                    node_ip: node.ip,
                    lan: lans[usize::from(i / seats)].name.clone(),
                    seat: i % seats,
                    health_port: RUNNER_PORT + u16::from(i),
                    uid: RUNNER_UID + u32::from(i),
                }
            })
            .collect();
        let encryption = Some(flags.encryption.clone()).filter(|kind| kind != "none");
        Self {
            port: flags.port,
            underlay,
            nodes,
            lans,
            instances,
            boot,
            kvm_probe,
            encryption,
            ipx_relay: flags.ipx_relay,
        }
    }

    pub(crate) fn snapshot(&self) -> SnapshotFile {
        let lan = |lan: &LanPlan| RawLan {
            name: lan.name.clone(),
            vni: lan.vni,
            mode: lan.mode.clone(),
            subnet: lan.subnet.clone(),
            seats: lan.seats,
            guard: None,
        };
        let node =
            |node: &NodePlan| RawNode { name: node.name.clone(), underlay_ip: node.ip, agent_url: agent_url(node.ip) };
        let instance = |instance: &InstancePlan| RawInstance {
            id: instance.id.clone(),
            lan: instance.lan.clone(),
            seat: instance.seat,
            node: instance.node.clone(),
            card: None,
        };
        SnapshotFile {
            version: 1,
            lans: self.lans.iter().map(lan).collect(),
            nodes: self.nodes.iter().map(node).collect(),
            instances: self.instances.iter().map(instance).collect(),
        }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The page, with the token in the fragment: a browser sends no fragment, so it stays out of logs.
    pub(crate) fn page_url(&self, token: &str) -> String {
        format!("{}/#token={token}", self.base_url())
    }
}

pub(crate) fn agent_url(ip: Ipv4Addr) -> String {
    format!("http://{ip}:{AGENT_PORT}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use clap::Parser;
    use proptest::prelude::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        up: UpFlags,
    }

    pub(crate) fn wall(args: &str) -> Wall {
        let cli = Cli::parse_from(std::iter::once("loco").chain(args.split_whitespace()));
        Wall::new(&cli.up, Underlay::pick(&[]).unwrap(), Boot::default(), None)
    }

    #[test]
    fn the_default_wall() {
        let wall = wall("");
        assert_eq!(wall.underlay.to_string(), "10.99.0.0/24");
        assert_eq!(wall.underlay.host().to_string(), "10.99.0.1");
        let nodes: Vec<_> = wall.nodes.iter().map(|n| format!("{} {}", n.name, n.ip)).collect();
        assert_eq!(nodes, ["node-a 10.99.0.11", "node-b 10.99.0.12", "node-c 10.99.0.13"]);
        assert_eq!(wall.lans.len(), 1);
        assert_eq!((wall.lans[0].name.as_str(), wall.lans[0].vni, wall.lans[0].seats), ("party", 4200, 9));
        assert_eq!(wall.lans[0].subnet, "10.98.0.0/24");
        assert_eq!(wall.page_url("t"), "http://127.0.0.1:8080/#token=t");
    }

    #[test]
    fn neighbours_in_a_lan_sit_on_different_nodes() {
        let wall = wall("--nodes 2 --guests 6 --lans 2");
        let places: Vec<_> = wall.instances.iter().map(|i| (i.lan.as_str(), i.seat, i.node.as_str())).collect();
        assert_eq!(places[..3], [("party", 0, "node-a"), ("party", 1, "node-b"), ("party", 2, "node-a")]);
        assert_eq!(places[3..], [("party-2", 0, "node-b"), ("party-2", 1, "node-a"), ("party-2", 2, "node-b")]);
    }

    #[test]
    fn the_underlay_avoids_what_is_routed_already() {
        let pick = |routed: &[(&str, u8)]| {
            let routed: Vec<_> = routed.iter().map(|(net, len)| (net.parse().unwrap(), *len)).collect();
            Underlay::pick(&routed).map(|u| u.to_string())
        };
        let is = |want: &str| Some(want.to_owned());
        assert_eq!(pick(&[("0.0.0.0", 0), ("192.168.0.0", 16)]), is("10.99.0.0/24"));
        assert_eq!(pick(&[("10.99.0.128", 25)]), is("10.99.1.0/24"));
        assert_eq!(pick(&[("10.99.0.0", 24), ("10.99.1.7", 32)]), is("10.99.2.0/24"));
        assert_eq!(pick(&[("10.99.0.0", 16)]), is("10.100.0.0/24"));
        assert_eq!(pick(&[("10.0.0.0", 8)]), None);
    }

    proptest! {
        #[test]
        fn every_plan_is_a_valid_snapshot_with_single_ports_and_users(nodes in 1_u8..=16, guests in 1_u8..=254, lans in 1_u8..=16) {
            prop_assume!(lans <= guests);
            let wall = wall(&format!("--nodes {nodes} --guests {guests} --lans {lans}"));
            let text = serde_json::to_string(&wall.snapshot()).unwrap();
            let snapshot = api::snapshot::parse(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(snapshot.instances().count(), usize::from(guests));
            let on = |node: &NodePlan| wall.instances.iter().filter(|i| i.node == node.name).count();
            let (least, most) = (wall.nodes.iter().map(on).min().unwrap(), wall.nodes.iter().map(on).max().unwrap());
            prop_assert!(most - least <= 1, "{least}..{most} guests per node");
            let unique = |f: fn(&InstancePlan) -> u32| {
                wall.instances.iter().map(f).collect::<std::collections::BTreeSet<_>>().len() == wall.instances.len()
            };
            prop_assert!(unique(|i| i.uid) && unique(|i| i.health_port.into()));
            prop_assert_eq!(serde_json::from_str::<Wall>(&serde_json::to_string(&wall).unwrap()).unwrap(), wall);
        }
    }
}
