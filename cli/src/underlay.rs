//! The cables between the nodes of one machine, in the kernel.
//!
//! ```text
//!  host namespace      loco-underlay                      loco-node-a
//!  loco-host ───veth── loco-up ─┐
//!  10.99.0.1                    ├─ loco-br ─ loco-node-a ──veth── eth0 10.99.0.11
//!                               └─────────── loco-node-b ──veth── eth0 10.99.0.12 (in loco-node-b)
//! ```
//! **Invariants.** The only link in the host's namespace is `loco-host`; all else is inside namespaces and ends with
//! them. Made once by `up`, never changed, removed by `down`.
use std::{fs, net::Ipv4Addr, os::fd::AsRawFd, path::Path};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::{
    netns,
    paths::Paths,
    plan::{Underlay, Wall},
};

pub(crate) const HOST_LINK: &str = "loco-host";
const BRIDGE: &str = "loco-br";
const UPLINK: &str = "loco-up";
const NODE_LINK: &str = "eth0";
/// The guests' 1500 bytes, VXLAN's 50 around them, and room: nothing is fragmented on one machine.
const MTU: u32 = 1600;

/// Makes namespaces, bridge and cables of `wall`. Whatever half of it stands after an error, [`crate::down::remove`] takes away.
pub(crate) fn make(wall: &Wall, paths: &Paths) -> Result<()> {
    let host = netns::current()?;
    fs::create_dir_all(paths.namespaces()).with_context(|| format!("{}", paths.namespaces().display()))?;
    netns::create(&paths.underlay())?;
    let mut nodes = Vec::new();
    for node in &wall.nodes {
        let path = paths.namespace(&node.name);
        netns::create(&path)?;
        let file = fs::File::open(&path).with_context(|| format!("{}", path.display()))?;
        nodes.push((node, path, file));
    }
    inside(&paths.underlay(), async |kernel| {
        bridge_frames_past_the_firewall()?;
        let bridge = kernel.add(LinkBridge::new(BRIDGE).mcast_snooping(false).mtu(MTU).build(), BRIDGE).await?;
        kernel.up(bridge).await?;
        kernel.plug(bridge, UPLINK, HOST_LINK, host.as_raw_fd()).await?;
        for (node, _, namespace) in &nodes {
            kernel.plug(bridge, &format!("loco-{}", node.name), NODE_LINK, namespace.as_raw_fd()).await?;
        }
        Ok(())
    })?;
    for (node, path, _) in &nodes {
        inside(path, async |kernel| {
            let lo = kernel.index("lo").await?.context("a new namespace without `lo`")?;
            kernel.up(lo).await?;
            kernel.address(NODE_LINK, node.ip).await
        })?;
    }
    here(async |kernel| kernel.address(HOST_LINK, wall.underlay.host()).await)
}

/// Takes the one link out of the host's namespace, and its other end with it. `false`: there was none.
pub(crate) fn remove_host_link() -> Result<bool> {
    here(async |kernel| {
        let Some(index) = kernel.index(HOST_LINK).await? else { return Ok(false) };
        kernel.0.link().del(index).execute().await.with_context(|| format!("cannot remove link {HOST_LINK}"))?;
        Ok(true)
    })
}

/// New namespaces send bridged frames through iptables where the module is loaded; game traffic was eaten by it.
fn bridge_frames_past_the_firewall() -> Result<()> {
    for name in ["iptables", "ip6tables", "arptables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{name}");
        if Path::new(&path).exists() {
            fs::write(&path, "0").with_context(|| format!("cannot write {path}"))?;
        }
    }
    Ok(())
}

struct Kernel(Handle);

impl Kernel {
    async fn index(&self, name: &str) -> Result<Option<u32>> {
        let found = self.0.link().get().match_name(name).execute().try_next().await;
        match found {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ENODEV => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot look up link {name}")),
        }
    }

    async fn add(&self, link: rtnetlink::packet_route::link::LinkMessage, name: &str) -> Result<u32> {
        self.0.link().add(link).execute().await.with_context(|| format!("cannot make link {name}"))?;
        self.index(name).await?.with_context(|| format!("link {name} was made and is gone"))
    }

    async fn set(&self, index: u32, change: LinkMessageBuilder<LinkUnspec>, what: &str) -> Result<()> {
        self.0.link().set(change.index(index).build()).execute().await.with_context(|| format!("cannot {what}"))
    }

    async fn up(&self, index: u32) -> Result<()> {
        self.set(index, LinkUnspec::new_with_index(index).up(), "bring a link up").await
    }

    /// A cable: `port` on `bridge`, its other end as `far` in another namespace.
    async fn plug(&self, bridge: u32, port: &str, far: &str, namespace: i32) -> Result<()> {
        // The far end is made under a name that is free here, and gets its own as it arrives.
        let passing = "loco-passing";
        let port_index = self.add(LinkVeth::new(port, passing).build(), port).await?;
        let far_index = self.index(passing).await?.with_context(|| format!("cable {port} has one end only"))?;
        let change = LinkUnspec::new_with_index(far_index).name(far).setns_by_fd(namespace);
        self.set(far_index, change, &format!("move {far} into its namespace")).await?;
        let change = LinkUnspec::new_with_index(port_index).controller(bridge).mtu(MTU).up();
        self.set(port_index, change, &format!("plug {port} into {BRIDGE}")).await
    }

    async fn address(&self, link: &str, ip: Ipv4Addr) -> Result<()> {
        let index = self.index(link).await?.with_context(|| format!("link {link} has not arrived"))?;
        self.set(index, LinkUnspec::new_with_index(index).mtu(MTU).up(), &format!("bring {link} up")).await?;
        let request = self.0.address().add(index, ip.into(), Underlay::PREFIX_LEN);
        request.execute().await.with_context(|| format!("cannot give {link} the address {ip}"))
    }
}

fn inside<T: Send>(path: &Path, work: impl AsyncFnOnce(Kernel) -> Result<T> + Send) -> Result<T> {
    netns::inside(path, || speak(async |handle| work(Kernel(handle)).await))
}

/// In the caller's namespace, but on a thread of its own: the caller may be inside a runtime.
fn here<T: Send>(work: impl AsyncFnOnce(Kernel) -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| scope.spawn(|| speak(async |handle| work(Kernel(handle)).await)).join())
        .map_err(|_| anyhow::anyhow!("a helper thread panicked"))?
}

/// Speaks route netlink with the calling thread's namespace.
pub(crate) fn speak<T>(work: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().context("cannot open a netlink socket")?;
        let speaking = tokio::spawn(connection);
        let result = work(handle).await;
        speaking.abort();
        result
    })
}

/// Networks that this machine routes already, from the text of `/proc/net/route`.
pub(crate) fn routed(table: &str) -> Vec<(Ipv4Addr, u8)> {
    let row = |line: &str| {
        let mut columns = line.split_whitespace().skip(1);
        // Written as they lie in memory: little-endian on this architecture.
        let mut word = |skip| u32::from_str_radix(columns.nth(skip)?, 16).ok().map(u32::swap_bytes);
        let (network, mask) = (word(0)?, word(5)?);
        Some((Ipv4Addr::from(network), u8::try_from(mask.leading_ones()).ok()?))
    };
    table.lines().skip(1).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{down, plan::tests::wall};

    #[test]
    fn reads_the_kernels_routes() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\nnonsense\n";
        let want = vec![("0.0.0.0".parse().unwrap(), 0), ("192.0.2.0".parse().unwrap(), 24)];
        assert_eq!(routed(table), want);
    }

    /// In a namespace that stands for the host, so that the machine's own is never touched.
    fn as_a_host(name: &str, test: impl FnOnce(&Paths) + Send) {
        let dir = std::env::temp_dir().join(format!("loco-{name}-{}", std::process::id()));
        let paths = Paths::new(dir.join("run"), dir.join("disks"));
        let result = std::thread::scope(|scope| {
            let host = scope.spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
                test(&paths);
            });
            host.join()
        });
        down::remove(&paths).unwrap();
        fs::remove_dir_all(dir).unwrap();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }

    #[test]
    #[ignore = "privileged: run by `cargo xtask test --privileged`"]
    fn nodes_and_host_reach_each_other_and_nothing_stays() {
        as_a_host("underlay-whole", |paths| {
            let wall = wall("--nodes 2");
            fs::create_dir_all(paths.run()).unwrap();
            make(&wall, paths).unwrap();
            // A TCP connection from node-a to node-b and from the host to node-b.
            let node_b = paths.namespace("node-b");
            let address = (wall.nodes[1].ip, 7000);
            let listener = netns::inside(&node_b, || Ok(std::net::TcpListener::bind(address)?)).unwrap();
            for from in [paths.namespace("node-a"), "/proc/thread-self/ns/net".into()] {
                let limit = std::time::Duration::from_secs(5);
                let connect = || Ok(std::net::TcpStream::connect_timeout(&address.into(), limit)?);
                // `inside` would resolve thread-self on its own thread, which starts in the same namespace.
                netns::inside(&from, connect).unwrap();
                listener.accept().unwrap();
            }
            drop(listener);
            down::remove(paths).unwrap();
            assert!(!paths.run().exists());
            assert!(!remove_host_link().unwrap(), "the host's link is still there");
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!mounts.contains(paths.run().to_str().unwrap()), "{mounts}");
        });
    }

    #[test]
    #[ignore = "privileged: run by `cargo xtask test --privileged`"]
    fn half_an_underlay_is_removed_too() {
        as_a_host("underlay-half", |paths| {
            fs::create_dir_all(paths.run()).unwrap();
            let wall = wall("--nodes 2");
            make(&wall, paths).unwrap();
            make(&wall, paths).unwrap_err();
            down::remove(paths).unwrap();
            // All of it is gone, or this would find a name taken.
            fs::create_dir_all(paths.run()).unwrap();
            make(&wall, paths).unwrap();
            down::remove(paths).unwrap();
        });
    }
}
