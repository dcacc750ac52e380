//! What is said about a LAN: `/api/lan-status` (first version: ports, addresses, reachability from the agents).
//! A key that is absent or null was not measured.
use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Frames and bytes of one tap, from the guest's point of view, since the tap was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortCounters {
    /// Frames that the guest sent.
    pub tx_frames: u64,
    pub tx_bytes: u64,
    /// Frames that reached the guest.
    pub rx_frames: u64,
    pub rx_bytes: u64,
    /// Frames for the guest that the kernel dropped at the tap.
    pub rx_dropped: u64,
}

/// One question over the segment (ARP from a node's edge address) and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Reachability {
    /// The node that asked.
    pub from: String,
    /// The instance that should answer.
    pub to: String,
    pub lan: String,
    pub reachable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// Seconds since the epoch of the last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<f64>,
    /// Questions asked and answers that came, since the agent started.
    pub asked: u64,
    pub answered: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub struct LanStatus {
    /// As read from the kernel on the nodes; absent while no node has answered; `mixed` if they differ.
    #[serde(rename = "networkMode", default, skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<String>,
    /// Seconds since the epoch, by the gateway's clock.
    pub at: f64,
    pub lans: Vec<LanSummary>,
    pub instances: BTreeMap<String, LanInstance>,
    pub connectivity: Vec<Connectivity>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LanSummary {
    pub name: String,
    pub vni: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    pub seats: u8,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LanInstance {
    /// The address in use; absent until the guest has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ip: Option<Ipv4Addr>,
    pub mac: String,
    pub node: String,
    pub lan: String,
    /// `up`, `down`; absent when the agent does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<PortCounters>,
}

/// One direction between two parties of the segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connectivity {
    pub from: String,
    pub to: String,
    pub reachable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// Share of questions without an answer, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<f64>,
}
