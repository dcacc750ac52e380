//! Following a marked frame from one guest to another: what agents are asked, what they saw, what `loco lan trace` says.
use serde::{Deserialize, Serialize};

/// `POST /v1/lan/trace` at an agent. The one that has `from` asks that guest; both watch their part of the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    pub from: String,
    pub to: String,
    /// What the frame carries: 8 to 64 letters and digits, another one for each trace.
    pub mark: String,
    /// How long to watch, in ms; 500 to 10,000.
    pub limit_ms: u64,
}

/// One place on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceHop {
    /// In words: which device on which node.
    pub at: String,
    pub seen: bool,
    /// Its place on the way: 0 the question to `from`, 1 its tap, 2 and 3 the tunnel's two ends, 4 the tap of `to`.
    pub step: u8,
}

/// What one agent saw, or all of them together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The last hop saw it.
    pub delivered: bool,
    /// In the order of the way.
    pub hops: Vec<TraceHop>,
    /// Why it was not delivered, with the remedy, as far as the hops tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
