//! Bodies of the gateway's public API (`/api/…`). Names of the public ancestor are kept where they make sense.
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
    pub status: Option<InstanceStatus>,
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
    /// Where the directory comes from: a path.
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_discovery: Option<f64>,
    pub instance_count: u32,
    /// Why the newest directory could not be used; the last good one is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    pub agents: Vec<AgentLink>,
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

/// Data of the server-sent event `wall` on `/api/events`: sent at once, on every change, and every 2 s.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Wall {
    /// Seconds since the epoch, by the gateway's clock.
    pub at: f64,
    pub instances: Vec<Instance>,
    pub lan: crate::lan::LanStatus,
    pub active: Vec<String>,
}

/// `/ready` and `/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    pub status: String,
    pub version: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}
