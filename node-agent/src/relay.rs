//! The IPX relay of this node, where one is asked for: from the flags to a socket and a task. Off by default.
use std::{convert::Infallible, io, sync::Arc};

use anyhow::Context as _;
use fabric::Fabric;
use ipxnet::{Report, Settings};
use model::NodeName;
use tokio::{net::UdpSocket, sync::watch};
use tracing::info;

use crate::{config::IpxRelay, place::succeed};

/// A relay with its socket open.
#[derive(Debug)]
pub(crate) struct Relay {
    socket: UdpSocket,
    config: IpxRelay,
    settings: Settings,
    reports: watch::Sender<Report>,
}

impl Relay {
    /// # Errors
    /// When the address cannot be had, or the registry has a relay already.
    pub(crate) async fn open(
        config: IpxRelay,
        node: &NodeName,
        registry: &prometheus::Registry,
    ) -> anyhow::Result<Self> {
        let socket = succeed(io::ErrorKind::AddrInUse, async || UdpSocket::bind(config.address).await);
        let socket = socket.await.with_context(|| {
            format!(
                "--ipx-relay {} cannot be used; end what uses it (`ss -lunp` shows it), or give an address of this node \
                 and a port that this user may open",
                config.address
            )
        })?;
        let reports = watch::Sender::default();
        ipxnet::register(registry, reports.subscribe())?;
        let settings =
            Settings { framing: config.framing, netbios: config.netbios, id: mark(node), ..Settings::default() };
        Ok(Self { socket, config, settings, reports })
    }

    /// Relays for ever.
    pub(crate) async fn run(self, fabric: Arc<Fabric>) -> Infallible {
        let IpxRelay { address, lan, framing, netbios } = self.config;
        info!(%address, %lan, %framing, netbios, "the IPX relay listens for DOSBox, DOSBox-X and IPXWrapper");
        ipxnet::serve(self.socket, fabric, lan, self.settings, self.reports).await
    }
}

/// The relay's mark on its frames, from the node's name, so that it survives a restart. FNV-1a; two nodes of one LAN share
/// one with a chance of one in four thousand million, and would then not hear each other's clients.
fn mark(node: &NodeName) -> u32 {
    node.as_str().bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::mark;

    #[test]
    fn marks_of_nodes_differ() {
        let marks: std::collections::BTreeSet<_> =
            (0..1000).map(|n| mark(&format!("node-{n}").parse().unwrap())).collect();
        assert_eq!(marks.len(), 1000);
    }
}
