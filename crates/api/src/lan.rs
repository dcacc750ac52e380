//! What is said about a LAN: `/api/lan-status` (first version: ports, addresses, reachability from the agents).
//! A key that is absent or null was not measured.
use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    agent::{ObserverHealth, StreamLag},
    observe,
};

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

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
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
    /// DirectPlay sessions, merged from all nodes: one entry for each instance GUID.
    #[serde(default)]
    pub sessions: Vec<observe::Session>,
    #[serde(default)]
    pub players: Vec<observe::Player>,
    /// What is wrong between two seats, or with one (`from` = `to`); a pair that is well is absent.
    #[serde(default)]
    pub diagnosis: Vec<Diagnosis>,
    #[serde(default)]
    pub timelines: Vec<observe::Timeline>,
    #[serde(default)]
    pub lags: Vec<observe::Lag>,
    /// Stations that are none of ours: IPX tunnel clients, machines on a real LAN.
    #[serde(default)]
    pub strangers: Vec<observe::Machine>,
    /// Machines outside of the cluster that are plugged in.
    #[serde(default)]
    pub foreign: Vec<ForeignMachine>,
    /// What no healthy program sends, from all nodes, newest first; at most 64.
    #[serde(default)]
    pub anomalies: Vec<LanAnomaly>,
    /// How each node that answers sees its frames, by node.
    #[serde(default)]
    pub observers: BTreeMap<String, ObserverHealth>,
}

/// A machine outside of the cluster that is plugged into a LAN (`loco plug`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ForeignMachine {
    pub lan: String,
    /// The node at which it is plugged in.
    pub node: String,
    /// Absent until it has sent a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The address it was seen to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ip: Option<Ipv4Addr>,
    /// Address of who plugged it in.
    pub remote: String,
    /// Seconds since the epoch.
    pub since: f64,
    pub counters: PortCounters,
    /// Frames of it that its port did not let through, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
}

/// An [`observe::Anomaly`] of one LAN, and who saw it; `node` is absent for what only the merge of all nodes shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LanAnomaly {
    pub lan: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `two-hosts`, `duplicate-ip`, …: see docs/observer.md and docs/doctor.md.
    pub kind: String,
    pub what: String,
    /// When it was first seen, and last: what is long past is mended.
    pub at: f64,
    #[serde(default)]
    pub last_at: f64,
    pub count: u64,
}

/// `/api/doctor?from=&to=`. Both seats given: why `from` does not see the game of `to`, one entry, also when all is well.
/// Only `from`: why it does not see any game. None: everything that is wrong, nothing when all is well.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Doctor {
    /// Seconds since the epoch, by the gateway's clock.
    pub at: f64,
    /// No entry of `diagnosis` is wrong.
    pub ok: bool,
    pub diagnosis: Vec<Diagnosis>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LanSummary {
    pub name: String,
    pub vni: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// What protects its frames between nodes, as its nodes have read it back: `none`, `wireguard`, or `mixed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    pub seats: u8,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
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
    /// Frames by class of traffic and direction (`tx`: the guest sent it), as eBPF counted them at the tap.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, ClassCount>,
    /// NetBIOS names that it registered or announced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// IPv4 address to MAC, as seen in ARP frames at its port.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arp: BTreeMap<String, String>,
    /// DirectPlay ports at which it took or answered something: `udp/47624`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports_seen_open: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directplay: Option<DirectPlay>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipx: Option<IpxPort>,
    /// What the stream adds to the lag of who plays here; absent while nobody does or nothing was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamLag>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClassCount {
    pub tx_frames: u64,
    pub rx_frames: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DirectPlay {
    pub role: LanRole,
    /// The session's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Its first ordinary player.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub player_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub player_name: Option<String>,
}

/// What a guest is on the LAN; the page's `data-lan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LanRole {
    Host,
    Joined,
    Looking,
    /// On the LAN: it has an address and asks for no game.
    On,
    /// Its card has never sent a frame.
    Silent,
    /// Running, no address yet.
    None,
    /// Was in a session that is gone, or its agent is silent.
    Was,
    Unknown,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IpxPort {
    pub nodes: Vec<String>,
    /// `ethernet_ii`, `raw_802_3`, `llc`, `snap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framing: Option<String>,
}

/// The rungs of the ladder, from the cable to the game; the first that fails is the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// The cable is in: the tap exists, QEMU holds it, the fabric works.
    Link,
    /// It has sent a frame.
    Frame,
    /// It has an address, in the right subnet, that nobody else claims.
    Address,
    /// It asks for games.
    Asks,
    /// Its question reaches the host.
    Reaches,
    /// The host answers.
    Answers,
    /// Same game, same version.
    SameGame,
    /// A station is free, no password.
    Free,
    /// It has joined.
    Joined,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RungResult {
    Passed,
    Failed,
    /// A rung below has failed.
    Unreached,
    /// Nothing was measured that could tell.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RungState {
    pub rung: Rung,
    pub result: RungResult,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<observe::Evidence>,
}

/// Why `from` does not see the game of `to`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Diagnosis {
    pub from: String,
    pub to: String,
    /// The first rung that fails; the last one when all is well.
    pub rung: Rung,
    pub ok: bool,
    /// Which of the reasons of that rung: `no-driver`, `duplicate-ip`, `framing-mismatch`, …: see docs/doctor.md.
    pub cause: String,
    /// The answer in one sentence.
    pub sentence: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<observe::Evidence>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    pub ladder: Vec<RungState>,
}

/// One direction between two parties of the segment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
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
    /// Frames that `from`'s guest sent to `to`'s MAC, as counted at `from`'s tap; absent between a node and a guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<u64>,
    /// Of the last seconds, frames a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Share of `from`'s broadcasts among all that it sent, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast_share: Option<f64>,
    /// A broadcast of `from` was counted at `to`'s tap; absent when `from` sent none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast_seen: Option<bool>,
}

/// `/api/lan-status/history?from=&to=` (seconds since the epoch): what happened in that time, for a line to draw, and
/// everything as it was at `to`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LanHistory {
    pub from: f64,
    pub to: f64,
    /// Seconds between two samples.
    pub step: f64,
    /// Oldest first; a step without a sample was not measured.
    pub samples: Vec<LanSample>,
    /// Oldest first.
    pub events: Vec<LanEvent>,
    /// The last state recorded at or before `to`; absent when nothing of then is kept. Its own `at` tells how old it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<LanStatus>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LanSample {
    /// Seconds since the epoch.
    pub at: f64,
    /// Frames a second between all pairs of seats; absent when it was not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Sessions that stood, and seats in one.
    pub sessions: u32,
    pub players: u32,
}

/// Something that changed: a session opened or ended, a seat joined, left or fell silent, an agent went or came back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LanEvent {
    /// Seconds since the epoch.
    pub at: f64,
    /// In a few words: `Seat 6 joins`.
    pub what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lan: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}
