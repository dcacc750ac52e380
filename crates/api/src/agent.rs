//! Bodies of a node agent's own API (`/v1/…`): node-local, one token, spoken by the gateway.
//!
//! ```text
//! GET    /v1/status                              AgentStatus
//! GET    /v1/events                              server-sent: event `status`, data AgentStatus, on every change and each 2 s
//! GET    /v1/instances/{id}                      InstanceStatus
//! POST   /v1/instances/{id}/whep?tier=thumb|full SDP offer in, 201 + SDP answer + Location: /v1/instances/{id}/whep/{session}
//! DELETE /v1/instances/{id}/whep/{session}       204
//! GET    /v1/instances/{id}/screenshot.png       image/png
//! GET    /v1/instances/{id}/pcap?last=60s&follow=1 application/x-pcapng: the port as it was, and as it goes on
//! POST   /v1/instances/{id}/power                PowerRequest, 202
//! POST   /v1/instances/{id}/control              ControlRequest, 202: its runner carries it out
//! GET    /v1/lans/{lan}/plug?machine=ID          WebSocket of frames: api::plug
//! POST   /v1/lan/trace                           TraceRequest, Trace
//! GET    /underlay/key?nonce=N                   UnderlayKey, asked by other agents; no token is sent, the answer is proven by it
//! GET    /healthz /readyz /metrics               without a token
//! ```
use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    lan::{ClassCount, ForeignMachine, PortCounters, Reachability},
    observe::Observed,
};

/// All that one agent knows now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentStatus {
    pub node: String,
    pub pid: u32,
    pub version: String,
    /// Seconds since the epoch at which this was put together, by the node's clock.
    pub at: f64,
    /// Shared: a gateway shows ten thousand of them in several places.
    #[schema(value_type = Vec<InstanceStatus>)]
    pub instances: Vec<Arc<InstanceStatus>>,
    pub lans: Vec<LanOnNode>,
    /// Peers and guests that this node asked over the segment, and what came back.
    pub reachability: Vec<Reachability>,
    /// Why the fabric is not as it should be, one line each; empty when it is.
    pub fabric_problems: Vec<String>,
    /// The encrypted underlay; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// The snapshot file could not be used; the last good one is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_problem: Option<String>,
    /// Machines outside of the cluster that are plugged in at this node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<ForeignMachine>,
    /// What the frames of this node's ports said, by LAN.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub observed: BTreeMap<String, Observed>,
    /// How the frames are seen, and whether all of them are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observer: Option<ObserverHealth>,
}

/// The eyes of one agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObserverHealth {
    /// How frames are counted: `tcx`, `clsact`, `socket`; absent when they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach: Option<String>,
    /// Taps that are watched.
    pub taps: u32,
    /// Frames that were to be looked at and could not be handed over: what is known may lack them.
    pub events_lost: u64,
    /// Why it does not see, or not all, with the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Frames between a port and one card of the segment, as counted at the port's tap since the agent's maps were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PairCount {
    /// MAC of the other one; `ff:ff:ff:ff:ff:ff` for what was sent to all.
    pub peer: String,
    /// Frames from the guest to `peer`.
    pub tx_frames: u64,
    pub tx_bytes: u64,
    /// Frames from `peer` that reached the guest's tap, those to all among them.
    pub rx_frames: u64,
    pub rx_bytes: u64,
    /// Of them, those to all.
    pub rx_broadcasts: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LanOnNode {
    pub name: String,
    pub vni: u32,
    /// As read back from the kernel, never from configuration; absent when it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// What protects its frames between nodes, as read back: `none` or `wireguard`; absent when it could not be read, or when there are
    /// no frames between nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    pub seats: u8,
}

/// The encrypted underlay of one node, as read back from the kernel, or from the thread that is it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tunnel {
    /// Who moves the packets: `kernel` or `user-space`.
    pub datapath: String,
    pub public_key: String,
    /// UDP.
    pub port: u16,
    /// Of inner packets, in octets.
    pub mtu: u32,
    pub peers: Vec<TunnelPeer>,
}

/// One other node in the encrypted underlay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TunnelPeer {
    pub node: String,
    #[schema(value_type = String)]
    pub address: Ipv4Addr,
    pub public_key: String,
    /// Seconds since the last handshake; absent: there was none. Above 180: nothing passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_age: Option<u64>,
}

/// What an agent says to another about its end of the underlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnderlayKey {
    pub node: String,
    /// WireGuard's, in Base64; absent: this agent does not encrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// UDP port of WireGuard; absent with `public_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// HMAC-SHA256 by the agents' token over the rest and the question's number, in hexadecimal.
    pub proof: String,
}

/// The words of `state`, in one place for every reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Starting,
    Live,
    Recovering,
    Failed,
    Stopped,
}

impl From<model::InstanceState> for State {
    fn from(state: model::InstanceState) -> Self {
        match state {
            model::InstanceState::Starting => Self::Starting,
            model::InstanceState::Live => Self::Live,
            model::InstanceState::Recovering => Self::Recovering,
            model::InstanceState::Failed => Self::Failed,
            model::InstanceState::Stopped => Self::Stopped,
        }
    }
}

/// One instance as its agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceStatus {
    pub id: String,
    pub lan: String,
    /// Index in the LAN, from 0.
    pub seat: u8,
    pub node: String,
    pub mac: String,
    /// The address that this seat is given by DHCP.
    #[schema(value_type = String)]
    pub ip: Ipv4Addr,
    pub host_name: String,
    pub state: State,
    /// Seconds since the epoch when `state` began.
    pub since: f64,
    /// One sentence on the state, with the remedy where somebody must act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The guest's tap has carrier: QEMU holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<bool>,
    /// The guest has acknowledged its address (DHCP ACK sent, or ARP seen from it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address_in_use: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<PortCounters>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<Picture>,
    /// `kvm` or `tcg`, as QEMU says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu_pid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_pid: Option<u32>,
    /// Session that has the controls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    pub viewers: Viewers,
    /// What the stream adds to the lag of who has the controls; absent while nobody has them or nothing was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamLag>,
    /// Frames at the tap by class of traffic.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, ClassCount>,
    /// Frames at the tap by the other card.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<PairCount>,
}

/// The way between a guest and the browser of who plays at it. Medians of the last 32, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StreamLag {
    /// From the agent to the browser and back: RTCP reports and their answers (RFC 3550 6.4.1).
    pub rtt_ms: f64,
    /// Half the distance of the round trips' quartiles: how far to trust them.
    pub error_ms: f64,
    /// From the guest's change to its picture handed to the network; absent until something was drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub making_ms: Option<f64>,
    pub samples: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    /// Times that the guest changed its picture since the display was connected.
    pub changes: u64,
    /// Seconds since the last change. A still picture is healthy.
    pub still_for: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Viewers {
    pub thumb: u32,
    pub full: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PowerAction {
    /// ACPI power button.
    Shutdown,
    /// Reset line: the guest loses what it did not save.
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerRequest {
    pub action: PowerAction,
}

/// What an instance's runner does with its guest, beyond the guest's own buttons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ControlAction {
    /// Switch off in order, then start again on the same disk.
    Restart,
    /// Switch off in order, then start again on a fresh disk: what was written since is set aside, and kept until the next reset.
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ControlRequest {
    pub action: ControlAction,
}
