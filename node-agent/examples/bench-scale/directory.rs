//! Snapshot files: who is where.
use std::{net::Ipv4Addr, path::Path};

use serde_json::{Value, json};

/// The one node that is really there.
pub(crate) const HERE: &str = "here";

/// How large the cluster around one node is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) lans: usize,
    /// Other nodes of each LAN; each node is in one.
    pub(crate) peers: usize,
    /// Guests of each LAN on other nodes.
    pub(crate) guests: usize,
}

/// A LAN has 253 seats at most, so 250 peers is about what one can have.
pub(crate) const CASES: [Case; 4] = [
    Case { lans: 1, peers: 8, guests: 8 },
    Case { lans: 1, peers: 64, guests: 64 },
    Case { lans: 1, peers: 250, guests: 250 },
    Case { lans: 16, peers: 32, guests: 249 },
];

impl Case {
    pub(crate) const fn vteps(&self) -> usize {
        self.lans * self.peers
    }

    /// Rows of the tunnels' tables: each guest, each other node's bridge, and the flood lists.
    pub(crate) const fn rows(&self) -> usize {
        self.lans * (self.guests + 2 * self.peers)
    }

    /// Guests on the last node.
    pub(crate) fn guests_of_last(&self) -> usize {
        (0..self.guests).filter(|guest| guest % self.peers == self.peers - 1).count()
    }

    /// The directory, with the last node or without.
    pub(crate) fn snapshot(&self, with_last: bool, here: Ipv4Addr, vtep: impl Fn(usize) -> Ipv4Addr) -> Value {
        let listed = |node: usize| with_last || node + 1 < self.vteps();
        let node = |name: String, ip: Ipv4Addr| json!({"name": name, "underlay_ip": ip, "agent_url": format!("http://{ip}:14780")});
        let mut nodes: Vec<Value> =
            (0..self.vteps()).filter(|n| listed(*n)).map(|n| node(format!("node-{n}"), vtep(n))).collect();
        nodes.push(node(HERE.to_owned(), here));
        let mut instances = Vec::new();
        for lan in 0..self.lans {
            let mut place = |seat: usize, node: &str| {
                let id = format!("instance-{lan}-{seat}");
                instances.push(json!({"id": id, "lan": lan_name(lan), "seat": seat, "node": node}));
            };
            place(0, HERE);
            for guest in 0..self.guests {
                let node = lan * self.peers + guest % self.peers;
                if listed(node) {
                    place(guest + 1, &format!("node-{node}"));
                }
            }
        }
        let lans: Vec<Value> = (0..self.lans).map(lan).collect();
        json!({"version": 1, "lans": lans, "nodes": nodes, "instances": instances})
    }
}

/// Nobody but this node: what an agent starts with before it is measured.
pub(crate) fn nobody(here: Ipv4Addr) -> Value {
    let node = json!({"name": HERE, "underlay_ip": here, "agent_url": format!("http://{here}:14780")});
    json!({"version": 1, "lans": [lan(0)], "nodes": [node], "instances": []})
}

/// One LAN with a seat on each of `nodes`.
pub(crate) fn one_each(nodes: &[(String, Ipv4Addr)]) -> Value {
    let listed: Vec<Value> = nodes
        .iter()
        .map(|(name, ip)| json!({"name": name, "underlay_ip": ip, "agent_url": format!("http://{ip}:14780")}))
        .collect();
    let seat = |(seat, (node, _)): (usize, &(String, Ipv4Addr))| json!({"id": format!("instance-{seat}"), "lan": lan_name(0), "seat": seat, "node": node});
    let instances: Vec<Value> = nodes.iter().enumerate().map(seat).collect();
    json!({"version": 1, "lans": [lan(0)], "nodes": listed, "instances": instances})
}

/// Puts it in the place of what was there, as `loco up` does.
pub(crate) fn write(path: &Path, snapshot: &Value) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, snapshot.to_string())?;
    std::fs::rename(new, path)
}

fn lan_name(lan: usize) -> String {
    format!("lan-{lan}")
}

fn lan(number: usize) -> Value {
    json!({"name": lan_name(number), "vni": 4200 + number, "mode": "vxlan", "subnet": format!("10.98.{number}.0/24"), "seats": 253})
}
