//! What was seen on a LAN: the object of `loco observe FILE -o json`, and the `observed` part of an agent's status.
//! One shape for a capture and for a running segment. A key that is absent or null was not seen.
//!
//! Ids are 8 hex digits as the DirectPlay API prints them, GUIDs 32 hex digits in wire order, flags `0x%08x`, addresses as
//! they are written everywhere. No password is in here, ever: only that one was asked for.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Everything that the frames said. `frames` counts what the observer was given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Observed {
    pub frames: u64,
    /// Frames by class of traffic.
    pub classes: BTreeMap<String, u64>,
    /// DirectPlay 4 messages by the specification's name of the command: `ENUMSESSIONS`.
    pub dplay_commands: BTreeMap<String, u64>,
    pub sessions: Vec<Session>,
    pub enumerations: Vec<Enumeration>,
    /// Ordinary players; a machine is in `system_players`.
    pub players: Vec<Player>,
    pub system_players: Vec<SystemPlayer>,
    pub groups: Vec<Group>,
    pub refused: Vec<Refused>,
    /// Names of players in the order in which they joined.
    pub join_order: Vec<String>,
    pub leave_order: Vec<Left>,
    pub user_messages: Vec<UserMessages>,
    pub chat: Vec<Chat>,
    pub dplay8: Dplay8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipxnet: Option<Ipxnet>,
    pub ipx: Ipx,
    pub netbios: Netbios,
    pub anomalies: Vec<Anomaly>,
    /// Cards of the segment: everything that is known of one MAC address.
    pub machines: Vec<Machine>,
    /// How each machine got into its game, step by step.
    pub timelines: Vec<Timeline>,
    /// Round trips between two addresses, as far as the wire tells them.
    pub lags: Vec<Lag>,
}

/// The frame that shows something.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// Seconds since the epoch.
    pub at: f64,
    /// Number of the frame in the capture, from 1, or in the agent's count of frames.
    pub frame: u64,
    /// What the frame says, in a few words.
    pub what: String,
    /// The node whose agent saw it; absent in a capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Where: an instance's port, or `overlay`; absent in a capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

impl Evidence {
    /// Ends the words of what an agent was told by the one before it and did not see itself.
    pub const BEFORE: &str = ", seen by the agent before";

    pub fn is_of_the_agent_before(&self) -> bool {
        self.what.ends_with(Self::BEFORE)
    }
}

/// How sure a fact is, and how it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// A message says so.
    Announced,
    /// Traffic shows it, no message was seen.
    #[default]
    Inferred,
    GoneByMessage,
    GoneByFin,
    GoneByReset,
    GoneByIcmp,
    GoneBySilence,
}

impl Certainty {
    /// What is said is so now: not gone.
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Announced | Self::Inferred)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `tcp`, `ipx`.
    pub transport: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_guid_wire: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_guid_wire: Option<String>,
    /// 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_players: Option<u32>,
    /// As last announced by the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_players: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_required: Option<bool>,
    /// After a migration the new host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    /// In IPX: network and node, `00000000:0080c7aabbcc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_ipx: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_system_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_xor_key: Option<String>,
    /// Hosts before this one, oldest first (system ids).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub former_hosts: Vec<String>,
    pub certainty: Certainty,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Where the host is one of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_instance: Option<String>,
    /// Where it is, as the gateway says, which merges LANs; an observer knows but one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lan: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Enumeration {
    /// Who asked: an IPv4 address, or an IPX station.
    pub ip: String,
    pub count: u64,
    /// TCP port at which the asker waits for answers; absent in IPX.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_guid_wire: Option<String>,
    /// Dialect of the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<u16>,
    /// Where it sent its questions: `255.255.255.255`, another address, an IPX node; at most eight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// Connections of hosts to `reply_port` that it refused (RST), and that it never answered.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub answers_refused: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub answers_unanswered: u64,
    /// Sessions of which an answer went to it, by name.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub answered_by: Vec<String>,
    /// When an answer of each of them last went to it, since the epoch.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answered_at: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Evidence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Evidence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Player {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub long: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_id: Option<String>,
    /// Plays on the machine that hosts.
    pub host: bool,
    /// The session's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    pub certainty: Certainty,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Where it is, as the gateway says, which merges LANs; an observer knows but one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lan: Option<String>,
}

/// One machine in a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SystemPlayer {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<u16>,
    pub host: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    pub certainty: Certainty,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    pub id: String,
    pub flags: String,
    pub members: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// A join that the host refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Refused {
    /// Who wanted to join.
    pub ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The host's HRESULT, `0x8877014a`.
    pub player_request_result: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Left {
    pub name: String,
    /// Why we think so: `DELETEPLAYER`, `TCP FIN`, `TCP RST`, `ICMP port unreachable`, `silence`, `in a game anew`.
    pub evidence: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UserMessages {
    pub src: String,
    pub dst: String,
    pub udp: u64,
    pub tcp: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Chat {
    /// The player's name, or its id when the name is not known.
    pub from: String,
    pub text: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Dplay8 {
    pub queries: u64,
    pub responses: u64,
    pub sessions: Vec<Dplay8Session>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Dplay8Session {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub max_players: u32,
    pub current_players: u32,
    pub flags: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_guid_wire: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_guid_wire: Option<String>,
}

/// DOSBox's IPX tunnel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Ipxnet {
    /// `192.168.98.11:213`; absent until one answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Registrations that were answered.
    pub registrations: u64,
    pub clients: Vec<IpxnetClient>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IpxnetClient {
    pub ip: String,
    pub port: u16,
    /// 12 hex digits.
    pub node: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Ipx {
    pub stations: Vec<IpxStation>,
    /// Frames by framing of the outer Ethernet.
    pub framings: Framings,
    pub sap: Vec<SapServer>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Framings {
    pub ethernet_ii: u64,
    pub raw_802_3: u64,
    pub llc: u64,
    pub snap: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IpxStation {
    /// 12 hex digits.
    pub node: String,
    /// Absent for a station behind a tunnel or a router.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// `ethernet_ii`, `raw_802_3`, `llc`, `snap`: the one it last sent in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub framing: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SapServer {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: u16,
    /// `0x0451`.
    pub socket: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Netbios {
    pub hosts: Vec<NetbiosHost>,
    /// Election frames of browsers that were seen.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub elections: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NetbiosHost {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The IPX node of a host that speaks NetBIOS over IPX.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Two hex digits each, in order.
    pub suffixes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workgroup: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// It said that it goes.
    pub left: bool,
}

/// Something that no healthy program sends. One line for each kind and sender: `count` says how often.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Anomaly {
    /// The first frame with it.
    pub frame: u64,
    pub at: f64,
    /// When it happened last; an older agent does not say.
    #[serde(default)]
    pub last_at: f64,
    /// `truncated`, `dplay-malformed`, `duplicate-ip`, …: see docs/observer.md.
    pub kind: String,
    pub what: String,
    pub count: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    pub mac: String,
    /// Addresses that it uses itself, newest first.
    pub ips: Vec<String>,
    pub ipx_nodes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipx_framing: Option<String>,
    /// NetBIOS name of its workstation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workgroup: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Frames sent, and those to the broadcast address among them.
    pub frames: u64,
    pub broadcasts: u64,
    pub first_seen: f64,
    pub last_seen: f64,
    /// Times that it asked for an address, and that one was given to it.
    pub dhcp_asked: u64,
    pub dhcp_acked: u64,
    /// Whom it was told to find where: IPv4 address to MAC, from ARP answers that it sent or got.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arp: BTreeMap<String, String>,
    /// DirectPlay ports at which it was seen to take or answer something: `udp/47624`, `tcp/2300`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports_open: Vec<String>,
    /// Ports at which it refused: RST, or ICMP port unreachable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports_closed: Vec<String>,
}

/// Steps of one machine on its way into a game.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Timeline {
    pub mac: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// In the order of their times; each at most once, at its first time since the machine started.
    pub steps: Vec<TimelineStep>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TimelineStep {
    pub step: Step,
    pub evidence: Evidence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The machine was switched on (known for instances only).
    Power,
    /// Its card sent its first frame.
    Frame,
    /// It was given an address, or announced one.
    Address,
    /// It registered its NetBIOS name.
    Name,
    /// ENUMSESSIONS.
    Asks,
    /// ENUMSESSIONSREPLY reached it.
    IsAnswered,
    /// Its TCP connection to the host stands.
    Linked,
    /// It was given a player id.
    PlayerId,
    /// SUPERENUMPLAYERSREPLY: its machine is in the session.
    Joined,
    /// The first game data that it sent.
    Plays,
}

/// Round trip from `from` to `to`, and what of it was the other guest's own time. Absent parts were not measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Lag {
    pub from: String,
    pub to: String,
    /// Median of the last round trips, in milliseconds: data at `from`'s card to its acknowledgement there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// Of it, `to`'s own: from the frame at its card to its answer there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_ms: Option<f64>,
    /// Of it, the segment's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fabric_ms: Option<f64>,
    /// Half the distance of the quartiles of the round trips, in milliseconds: how far to trust them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_ms: Option<f64>,
    pub samples: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
