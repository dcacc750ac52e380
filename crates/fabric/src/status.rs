//! What the fabric says about itself: read from the kernel and from the segment, never from configuration.
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use crate::wireguard::TunnelStatus;
use model::{InstanceId, LanName, MacAddr, NetworkMode, NodeName, Rules, Seat, Vni};

/// All of it, published at each pass and once a second when something changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FabricStatus {
    /// The LANs of the directory, also those without a seat here.
    pub lans: BTreeMap<LanName, LanStatus>,
    /// The ports of this node.
    pub ports: BTreeMap<InstanceId, PortStatus>,
    /// Guests of the LANs that have a seat here, local ones too, as asked by ARP.
    pub reachability: Vec<ReachStatus>,
    /// The other nodes of the LANs that have a seat here, as they answer over the tunnel.
    pub peers: Vec<PeerStatus>,
    /// Where this node's own address is; `None` when it is on no link.
    pub underlay: Option<UnderlayStatus>,
    /// The encrypted underlay; `None`: there is none.
    pub tunnel: Option<TunnelStatus>,
    /// Why the kernel is not as it should be: one sentence each, with the remedy. Empty when all is well.
    pub problems: Vec<String>,
    /// Passes of observe, plan and apply since the start.
    pub passes: u64,
    /// Writes to the kernel since the start: netlink changes, taps made, sysctls set. 0 after a restart that found all as desired.
    pub netlink_writes: u64,
    /// How often [`crate::Fabric::set_spec`] was called, as far as the last pass knew.
    pub spec_seen: u64,
}

/// What protects frames between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Who sees the underlay's packets sees the frames.
    None,
    Wireguard,
}

impl Encryption {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Wireguard => "wireguard",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanStatus {
    pub vni: Vni,
    /// As read from the kernel; `None` when this node has no bridge for the LAN, or one with nothing to other nodes.
    pub mode: Option<NetworkMode>,
    /// What protects its frames between the nodes, as read from the kernel and the tunnel; `None` with `mode`.
    pub encryption: Option<Encryption>,
    pub seats: u8,
    /// MAC of this node's bridge: what the other nodes' questions are for.
    pub bridge_mac: MacAddr,
}

/// One other node, in one LAN.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerStatus {
    pub lan: LanName,
    pub node: NodeName,
    pub vtep: Ipv4Addr,
    /// It answers; `Some(false)`: it is not in the flood list. `None`: not known yet.
    pub alive: Option<bool>,
    /// Of the last question that was answered.
    pub rtt: Option<Duration>,
    /// Share of the last questions (64 at most) without an answer, 0 to 1.
    pub loss: Option<f64>,
    /// Frames of 1514 octets get there and back.
    pub full_frames: Option<bool>,
}

/// The link that carries the tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderlayStatus {
    pub link: String,
    /// In octets. Below 1550 full frames go in fragments.
    pub mtu: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortStatus {
    pub lan: LanName,
    pub seat: Seat,
    pub mac: MacAddr,
    /// What the port lets through.
    pub guard: Rules,
    /// Name of the tap in the fabric's namespace.
    pub tap: String,
    pub exists: bool,
    /// Somebody (QEMU) holds the tap open. `None` when there is no tap.
    pub carrier: Option<bool>,
    pub counters: Option<PortCounters>,
    /// The address the guest was seen to use: DHCP acknowledged, or ARP from it. Forgotten when the carrier goes.
    pub address_in_use: Option<Ipv4Addr>,
}

/// Frames and bytes of one port since it was made, **from the guest's point of view** (the kernel counts a tap from its own).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortCounters {
    pub tx_frames: u64,
    pub tx_bytes: u64,
    pub rx_frames: u64,
    pub rx_bytes: u64,
    /// Frames for the guest that found its queue full and were dropped, mostly because QEMU did not read.
    pub rx_dropped: u64,
}

/// One guest as this node reaches it over the segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachStatus {
    pub lan: LanName,
    pub instance: InstanceId,
    /// It answered one of the last three questions.
    pub reachable: bool,
    /// From the last question that was answered.
    pub rtt: Option<Duration>,
    pub last_seen: Option<SystemTime>,
    pub asked: u64,
    pub answered: u64,
}
