//! `loco status -o json`.
use serde::{Deserialize, Serialize};

use crate::agent::State;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The page, with the token in its fragment.
    pub url: String,
    pub token: String,
    pub nodes: Vec<StatusNode>,
    pub instances: Vec<StatusInstance>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusNode {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_pid: Option<u32>,
    pub agent_url: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusInstance {
    pub id: String,
    pub name: String,
    pub node: String,
    pub lan: String,
    pub seat: u8,
    pub mac: String,
    pub ip: String,
    pub state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu_pid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_pid: Option<u32>,
}
