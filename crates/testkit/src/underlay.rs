//! N nodes on one wire: a namespace each, joined by veth pairs to a bridge in a namespace of its own.
//!
//! ```text
//!   node 0: eth0 10.99.0.11 ─┐
//!   node 1: eth0 10.99.0.12 ─┼─ bridge `wire` (own namespace)        MTU 1500 everywhere
//! ```
use std::{fs::File, net::Ipv4Addr, os::fd::AsRawFd};

use anyhow::Context;
use futures_util::TryStreamExt;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth};

use crate::NetNs;

#[derive(Debug)]
pub struct Underlay {
    nodes: Vec<NetNs>,
    _wire: NetNs,
}

impl Underlay {
    /// Needs `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`. At most 200 nodes.
    pub fn new(nodes: u8) -> anyhow::Result<Self> {
        let wire = NetNs::new("wire")?;
        let nodes: Vec<NetNs> =
            (0..nodes).map(|index| NetNs::new(&format!("node{index}"))).collect::<anyhow::Result<_>>()?;
        wire.block_on(lay_wire(&nodes))??;
        for (index, node) in (0..).zip(&nodes) {
            node.block_on(settle_node(Self::address(index)))?.with_context(|| format!("node {index}"))?;
        }
        Ok(Self { nodes, _wire: wire })
    }

    pub fn node(&self, index: usize) -> &NetNs {
        &self.nodes[index]
    }

    /// Underlay address of a node.
    pub const fn address(index: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, 11 + index)
    }
}

fn netlink() -> anyhow::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

async fn index_of(handle: &Handle, name: &str) -> anyhow::Result<u32> {
    let mut links = Box::pin(handle.link().get().match_name(name).execute());
    let link = links.try_next().await?.with_context(|| format!("no link {name}"))?;
    Ok(link.header.index)
}

async fn lay_wire(nodes: &[NetNs]) -> anyhow::Result<()> {
    let handle = netlink()?;
    handle.link().add(LinkBridge::new("wire").mcast_snooping(false).up().build()).execute().await?;
    let bridge = index_of(&handle, "wire").await?;
    for (number, node) in nodes.iter().enumerate() {
        let (port, peer) = (format!("port{number}"), format!("peer{number}"));
        handle.link().add(LinkVeth::new(&port, &peer).build()).execute().await?;
        let port = index_of(&handle, &port).await?;
        handle.link().set(LinkUnspec::new_with_index(port).controller(bridge).up().build()).execute().await?;
        let peer = index_of(&handle, &peer).await?;
        let namespace = File::open(node.path())?;
        let moved = LinkUnspec::new_with_index(peer).name("eth0").setns_by_fd(namespace.as_raw_fd()).build();
        handle.link().set(moved).execute().await?;
    }
    Ok(())
}

async fn settle_node(address: Ipv4Addr) -> anyhow::Result<()> {
    let handle = netlink()?;
    for name in ["lo", "eth0"] {
        let index = index_of(&handle, name).await?;
        handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    }
    let index = index_of(&handle, "eth0").await?;
    handle.address().add(index, address.into(), 24).execute().await?;
    Ok(())
}
