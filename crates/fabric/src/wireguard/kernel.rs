//! The kernel's own WireGuard, told over generic netlink (`linux/wireguard.h`).
//!
//! **Invariant.** What is told is what the kernel says; nothing is remembered here.
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::StreamExt as _;
use genetlink::GenetlinkHandle;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_generic::GenlMessage;
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardCmd,
    WireguardDeviceFlags, WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};

use super::{
    DEVICE, KeyPair, PublicKey,
    plan::{Change, PeerConfig},
    user::{PeerSeen, Seen},
};

/// What the kernel has: its own key and port, and the peers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Told {
    key: Option<PublicKey>,
    port: u16,
    peers: BTreeMap<PublicKey, Row>,
}

/// One peer, as far as it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Row {
    config: Option<PeerConfig>,
    endpoint: Option<std::net::SocketAddrV4>,
    seen: PeerSeen,
}

/// A generic netlink socket in the tunnel's namespace.
#[derive(Debug, Clone)]
pub(super) struct Wires(GenetlinkHandle);

impl Wires {
    /// Opens in the calling thread's namespace. Needs a tokio runtime on this thread.
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = genetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    async fn ask(
        &self,
        attributes: Vec<WireguardAttribute>,
        cmd: WireguardCmd,
        flags: u16,
    ) -> io::Result<Vec<Vec<WireguardAttribute>>> {
        let message = WireguardMessage { cmd, attributes };
        let mut message = NetlinkMessage::from(GenlMessage::from_payload(message));
        message.header.flags = NLM_F_REQUEST | flags;
        let mut handle = self.0.clone();
        let mut answers = handle.request(message).await.map_err(io::Error::other)?;
        let mut told = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.map_err(io::Error::other)?.payload {
                NetlinkPayload::InnerMessage(message) => told.push(message.payload.attributes),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                _ => {}
            }
        }
        Ok(told)
    }

    /// # Errors
    /// When there is no such device, or `CAP_NET_ADMIN` is missing.
    pub(super) async fn read(&self) -> io::Result<Told> {
        let told = self.ask(vec![WireguardAttribute::IfName(DEVICE.to_owned())], WireguardCmd::GetDevice, NLM_F_DUMP);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Told::parse(told.await?.into_iter().flatten(), now))
    }

    pub(super) async fn apply(&self, attributes: Vec<WireguardAttribute>) -> io::Result<()> {
        self.ask(attributes, WireguardCmd::SetDevice, NLM_F_ACK).await.map(drop)
    }
}

impl Told {
    /// A device with many peers comes in several messages; a peer may go on in the next.
    fn parse(attributes: impl Iterator<Item = WireguardAttribute>, now: Duration) -> Self {
        let mut told = Self::default();
        for attribute in attributes {
            match attribute {
                // A device without a private key says zeros.
                WireguardAttribute::PublicKey(key) => told.key = Some(PublicKey(key)),
                WireguardAttribute::ListenPort(port) => told.port = port,
                WireguardAttribute::Peers(peers) => {
                    for peer in &peers {
                        told.hear(peer, now);
                    }
                }
                _ => {}
            }
        }
        for row in told.peers.values_mut() {
            row.config = row.config.zip(row.endpoint).map(|(config, endpoint)| PeerConfig { endpoint, ..config });
        }
        told
    }

    fn hear(&mut self, peer: &WireguardPeer, now: Duration) {
        let key = peer.iter().find_map(|attribute| match attribute {
            WireguardPeerAttribute::PublicKey(key) => Some(PublicKey(*key)),
            _ => None,
        });
        let Some(key) = key else { return };
        let row = self.peers.entry(key).or_default();
        for attribute in peer.iter() {
            match attribute {
                WireguardPeerAttribute::Endpoint(SocketAddr::V4(endpoint)) => row.endpoint = Some(*endpoint),
                WireguardPeerAttribute::LastHandshake(at) => {
                    let since_boot_of_time = u64::try_from(at.seconds).ok().filter(|seconds| *seconds > 0);
                    row.seen.handshake = since_boot_of_time.map(|at| now.saturating_sub(Duration::from_secs(at)));
                }
                WireguardPeerAttribute::TxBytes(octets) => row.seen.tx_bytes = *octets,
                WireguardPeerAttribute::RxBytes(octets) => row.seen.rx_bytes = *octets,
                WireguardPeerAttribute::AllowedIps(ranges) => {
                    let address = ranges.iter().flat_map(|range| range.iter()).find_map(|attribute| match attribute {
                        WireguardAllowedIpAttr::IpAddr(IpAddr::V4(address)) => Some(*address),
                        _ => None,
                    });
                    if let Some(address) = address {
                        // The endpoint comes in another attribute.
                        let endpoint = std::net::SocketAddrV4::new(address, 0);
                        row.config = Some(PeerConfig { address, endpoint });
                    }
                }
                _ => {}
            }
        }
    }

    /// In the words that both datapaths share; a peer without address or endpoint was not made by us and is replaced.
    pub(super) fn seen(&self) -> Seen {
        let nowhere = PeerConfig {
            address: std::net::Ipv4Addr::UNSPECIFIED,
            endpoint: std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0),
        };
        let peers = self.peers.iter().map(|(key, row)| (*key, (row.config.unwrap_or(nowhere), row.seen)));
        Seen { peers: peers.collect(), refused: BTreeMap::new() }
    }

    /// What to tell the kernel so that it has these keys, this port and, after `changes`, the peers. Empty: nothing.
    pub(super) fn orders(&self, keys: &KeyPair, port: u16, changes: &[Change]) -> Vec<WireguardAttribute> {
        let mut orders = Vec::new();
        if self.key != Some(keys.public()) {
            orders.push(WireguardAttribute::PrivateKey(keys.secret().to_bytes()));
        }
        if self.port != port {
            orders.push(WireguardAttribute::ListenPort(port));
        }
        if !changes.is_empty() {
            orders.push(WireguardAttribute::Peers(changes.iter().map(order).collect()));
        }
        if !orders.is_empty() {
            // The rest of the peers stays, and with them their sessions.
            let flags = WireguardDeviceFlags::empty();
            orders.splice(0..0, [WireguardAttribute::IfName(DEVICE.to_owned()), WireguardAttribute::Flags(flags)]);
        }
        orders
    }
}

fn order(change: &Change) -> WireguardPeer {
    match change {
        Change::Remove(key) => WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey(key.0),
            WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe),
        ]),
        Change::Add(key, peer) => WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey(key.0),
            WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps),
            WireguardPeerAttribute::Endpoint(peer.endpoint.into()),
            WireguardPeerAttribute::AllowedIps(vec![WireguardAllowedIp(vec![
                WireguardAllowedIpAttr::Family(WireguardAddressFamily::Ipv4),
                WireguardAllowedIpAttr::IpAddr(peer.address.into()),
                WireguardAllowedIpAttr::Cidr(32),
            ])]),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use netlink_packet_core::Emitable as _;
    use netlink_packet_wireguard::WireguardTimeSpec;

    use super::*;

    fn peer(last: u8) -> PeerConfig {
        let address = Ipv4Addr::new(10, 99, 0, last);
        PeerConfig { address, endpoint: SocketAddrV4::new(address, 51820) }
    }

    #[test]
    fn what_was_told_to_the_kernel_is_read_back_as_the_same() {
        let keys = KeyPair::make();
        let (b, c) = (PublicKey([2; 32]), PublicKey([3; 32]));
        let orders = Told::default().orders(&keys, 51820, &[Change::Add(b, peer(12)), Change::Add(c, peer(13))]);
        assert!(orders.contains(&WireguardAttribute::PrivateKey(keys.secret().to_bytes())));
        // The kernel says the public half; all else as it was told, a peer's second part in a message of its own.
        let mut answer = vec![WireguardAttribute::PublicKey(keys.public().0)];
        answer.extend(orders.into_iter().filter(|attribute| !matches!(attribute, WireguardAttribute::PrivateKey(_))));
        answer.push(WireguardAttribute::Peers(vec![WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey([3; 32]),
            WireguardPeerAttribute::LastHandshake(WireguardTimeSpec { seconds: 1000, nano_seconds: 5 }),
            WireguardPeerAttribute::RxBytes(7),
        ])]));
        let told = Told::parse(answer.into_iter(), Duration::from_secs(1009));
        let seen = told.seen();
        assert_eq!(seen.peers[&b], (peer(12), PeerSeen::default()));
        let handshake = Some(Duration::from_secs(9));
        assert_eq!(seen.peers[&c], (peer(13), PeerSeen { handshake, rx_bytes: 7, tx_bytes: 0 }));
        assert_eq!(told.orders(&keys, 51820, &[]), []);
        assert_eq!(told.orders(&keys, 51821, &[]).len(), 3, "name, flags and the port");
    }

    #[test]
    fn a_peer_goes_by_its_flag_and_nothing_else_of_it_is_said() {
        let gone = order(&Change::Remove(PublicKey([9; 32])));
        assert_eq!(gone.len(), 2);
        let mut octets = vec![0; gone.0.as_slice().buffer_len()];
        gone.0.as_slice().emit(&mut octets);
        // Attribute 1 (WGPEER_A_PUBLIC_KEY) of 36 octets, then attribute 3 (WGPEER_A_FLAGS) with bit 0 (WGPEER_F_REMOVE_ME).
        assert_eq!((&octets[..4], &octets[36..44]), (&[36, 0, 1, 0][..], &[8, 0, 3, 0, 1, 0, 0, 0][..]));
    }
}
