//! Bodies of the gateway's public API (`/api/…`). Names of the public ancestor are kept where they make sense.
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::agent::{InstanceStatus, State};

/// One instance as the gateway knows it: where it should be, and what its agent last said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// `instance-3`.
    pub id: String,
    /// What people call the seat: `Seat 4`.
    pub name: String,
    pub lan: String,
    /// Index in the LAN, from 0.
    pub seat: u8,
    pub node: String,
    pub mac: String,
    pub ip: String,
    pub state: State,
    /// The agent has been silent for this many seconds; absent while it answers. `state` is then the last one known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_silent_for: Option<f64>,
    /// What the agent last said; absent while it never answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<InstanceStatus>)]
    pub status: Option<Arc<InstanceStatus>>,
}

/// `/api/instances/live`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveInstances {
    /// `file` or `kubernetes`.
    pub mode: String,
    /// Seconds since the epoch of the newest word from an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update: Option<f64>,
    pub stats: LiveStats,
    pub instances: Vec<Instance>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveStats {
    pub total: u32,
    /// Live.
    pub ready: u32,
    /// Recovering, or live with a silent agent.
    pub degraded: u32,
    pub not_ready: u32,
}

/// `/api/instances/discovery-info`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiscoveryInfo {
    /// `file` or `kubernetes`.
    pub mode: String,
    /// Where the directory comes from: a path, or the URL of the Kubernetes API.
    pub source: String,
    /// Seconds since the epoch of the newest directory that could be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_discovery: Option<f64>,
    pub instance_count: u32,
    /// Why the newest directory could not be used; the last good one is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Seconds since the epoch from which on the directory may be old; absent while it is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_since: Option<f64>,
    /// What was left out of the directory: the first few, in words.
    pub left_out: Vec<LeftOut>,
    /// How many things were left out.
    pub left_out_count: u32,
    /// What is followed in a Kubernetes API; absent with a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes_discovery: Option<KubernetesDiscovery>,
    /// Instances are found by themselves; not so with a file.
    pub using_auto_discovery: bool,
    /// The API has not answered since the start: what was known before is in force.
    pub fallback_to_static: bool,
    /// Seconds since the epoch at which this gateway started. Each replica keeps its own history from then on.
    pub gateway_started: f64,
    pub agents: Vec<AgentLink>,
}

/// One thing of the cluster that is not in the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeftOut {
    /// A pod's or a node's name.
    pub subject: String,
    /// Why, and what to do.
    pub text: String,
}

/// What the gateway follows in the Kubernetes API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesDiscovery {
    pub namespace: String,
    /// Labels of the pods that are instances.
    pub selector: String,
    /// Services whose endpoints are the agents.
    pub services: Vec<String>,
    /// Pods and endpoints are both followed now.
    pub discovery_enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_discovery: Option<f64>,
    pub cached_instances_count: u32,
    /// File of the LANs.
    pub lans: String,
    /// File of what was known last, where one is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_known: Option<String>,
    pub watches: Vec<WatchLink>,
}

/// One watch of the Kubernetes API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WatchLink {
    /// `pods` or `endpointslices`.
    pub resource: String,
    pub connected: bool,
    /// Watches that the API took; it ends each after some minutes.
    pub connections: u64,
    pub failures: u64,
    /// Times that everything was listed.
    pub listings: u64,
    /// Objects that the API told of.
    pub events: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentLink {
    pub node: String,
    pub url: String,
    pub answers: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_for: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// `POST /api/instances/refresh`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refreshed {
    pub message: String,
    pub instance_count: u32,
    pub instances: Vec<Instance>,
}

/// `/api/active`: the seats that a wall shows large, newest first, at most nine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Active {
    pub active: Vec<String>,
}

/// `/api/session`: who the bearer of this token is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhoAmI {
    pub role: Role,
    pub version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// May watch.
    View,
    /// May take the controls.
    Play,
    /// May do everything.
    Admin,
}

/// Data of the server-sent event `wall` on `/api/events`: sent at once, on every change, and every 2 s; with `changes=1` only
/// at first, and where changes were missed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Wall {
    /// Seconds since the epoch, by the gateway's clock.
    pub at: f64,
    pub directory: WallDirectory,
    pub instances: Vec<Instance>,
    pub lan: crate::lan::LanStatus,
    pub active: Vec<String>,
}

/// How the list of instances came about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WallDirectory {
    /// `file` or `kubernetes`.
    pub mode: String,
    /// Seconds since the epoch from which on the list may be old; absent while it is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_since: Option<f64>,
    /// Why it may be old, with the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What is not on the wall though the cluster has it: the first few, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out_count: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Data of the server-sent event `change` on `/api/events?changes=1`: what is other than in the wall and the changes before
/// it. Rows replace those of the same key. With more than 64 instances, rows of which nothing but counters moved are told in
/// turn, a bounded number in each event.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WallChange {
    pub at: f64,
    pub directory: WallDirectory,
    pub active: Vec<String>,
    pub instances: Vec<Instance>,
    /// Ids of instances that are no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
    /// By id; `connectivity` by `from` and `to`.
    pub lan: crate::lan::LanStatus,
    /// Rows of `lan.instances` that are no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lan_gone: Vec<String>,
    /// `[from, to]` of rows of `lan.connectivity` that are no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairs_gone: Vec<[String; 2]>,
    /// Whether `lan`'s other lists are given: all of them replace what was there. Else they are empty and as before.
    pub lists: bool,
}

/// `/ready` and `/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    pub status: String,
    pub version: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}
