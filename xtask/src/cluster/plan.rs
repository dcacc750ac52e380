//! Names and addresses of the test cluster. Pure.
//!
//! ```text
//!  host namespace            loco-k8s (control plane)                loco-k8s-n1 … n3 (nodes)
//!  loco-k8s 10.77.0.254 ──── root ─┐
//!                                  ├─ br0 10.77.0.1 ─┬─ n1 ──────── eth0 10.77.0.11    pods 10.78.1.0/24 on cni0
//!                                  │  etcd, API      ├─ n2 ──────── eth0 10.77.0.12    pods 10.78.2.0/24
//!                                  │  (6443), …      └─ n3 ──────── eth0 10.77.0.13    pods 10.78.3.0/24
//! ```
//! **Invariant.** Every name begins with `loco-k8s` and every address is fixed, so that `down` needs nobody's memory.
use std::{
    fmt,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Nodes of a cluster.
pub(crate) const NODES: u8 = 3;
/// The control plane's namespace; the nodes' have `-nN` after it. Also the one link in the host's namespace, and the
/// beginning of the nodes' cgroups.
pub(crate) const NAME: &str = "loco-k8s";
/// Everything of the cluster that is on a disk.
pub(crate) const STATE: &str = "/var/lib/loco-k8s";
/// Kubernetes' own provisioner for tests knows this directory only.
pub(crate) const PROVISIONER_DIR: &str = "/tmp/hostpath_pv";

pub(crate) const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
pub(crate) const PREFIX: u8 = 24;
pub(crate) const PODS: &str = "10.78.0.0/16";
pub(crate) const SERVICES: &str = "10.96.0.0/16";
/// The first address of [`SERVICES`]: the API, seen from pods.
pub(crate) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// One of the nodes `n1` to `n3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Node(u8);

impl Node {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (1..=NODES).map(Self)
    }

    pub(crate) fn ip(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 10 + self.0)
    }

    /// The same after every boot, as a real card's.
    pub(crate) fn mac(self) -> String {
        format!("02:4c:4b:00:00:{:02x}", self.0)
    }

    /// Of its pods.
    pub(crate) fn pods(self) -> String {
        format!("10.78.{}.0/24", self.0)
    }

    pub(crate) fn namespace(self) -> String {
        format!("{NAME}-{self}")
    }

    /// Below the root of every hierarchy.
    pub(crate) fn cgroup(self) -> String {
        self.namespace()
    }

    pub(crate) fn dir(self) -> PathBuf {
        Path::new(STATE).join(self.to_string())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::all().find(|node| node.to_string() == text).ok_or_else(|| {
            let names: Vec<String> = Self::all().map(|node| node.to_string()).collect();
            format!("no node `{text}`; there are {}", names.join(", "))
        })
    }
}

/// Who keeps a node's directory between its power cuts (`disk`), or loses it (`memory`), by the path inside the node.
pub(crate) struct Mounts {
    /// Name below the node's directory, path in the node.
    pub(crate) disk: &'static [(&'static str, &'static str)],
    /// A fresh tmpfs.
    pub(crate) memory: &'static [&'static str],
}

/// What each node has of its own. All else, `/tmp` and `/home` among it, is the machine's and so common to all nodes: it can
/// stand for a network's storage.
pub(crate) const MOUNTS: Mounts = Mounts {
    disk: &[
        ("kubelet", "/var/lib/kubelet"),
        ("containerd", "/var/lib/containerd"),
        ("pod-logs", "/var/log/pods"),
        ("container-logs", "/var/log/containers"),
        ("cni", "/etc/cni/net.d"),
        ("cni-state", "/var/lib/cni"),
        ("loco", "/var/lib/loco"),
    ],
    memory: &["/run"],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_of_a_node() {
        let node: Node = "n2".parse().unwrap();
        assert_eq!((node.namespace().as_str(), node.ip().to_string().as_str()), ("loco-k8s-n2", "10.77.0.12"));
        assert_eq!((node.pods().as_str(), node.mac().as_str()), ("10.78.2.0/24", "02:4c:4b:00:00:02"));
        assert_eq!(node.dir(), Path::new("/var/lib/loco-k8s/n2"));
        assert_eq!("n4".parse::<Node>().unwrap_err(), "no node `n4`; there are n1, n2, n3");
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        for node in Node::all() {
            assert!(node.to_string().len() <= 15 && NAME.len() <= 15);
        }
    }
}
