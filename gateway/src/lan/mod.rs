//! `/api/lan-status`: what all agents say of the LANs, as one.
//!
//! ```text
//! agents' statuses ─> doctor::Facts (who wins where agents differ) ─┬─> merge: instances, roles, sessions ──┐
//!                └──> connectivity::Meter (counters over time) ─────┴─> faults ─────────────────────────────┴─> LanStatus ─> history
//! ```
//! **Invariants.** Pure, but for the clock that the caller gives. A silent agent's facts are not shown as the present. Nothing
//! is invented: what no agent measured is absent. Memory is bounded whatever agents say (docs/doctor.md, "Memory").
pub mod connectivity;
pub mod history;
pub mod merge;

use std::sync::{Arc, Mutex, PoisonError};

use api::gateway::Wall;
use axum::body::Bytes;
use doctor::Facts;

use self::history::History;

/// From so many instances on, walls are sent without what only a page that looks at one of them needs.
pub const MANY: usize = 64;

/// What is kept beside the wall, for questions.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    facts: Arc<Mutex<Arc<Facts>>>,
    history: Arc<Mutex<History>>,
    /// The LAN status of one wall as JSON, and the time of that wall: made once, however many ask.
    json: Arc<Mutex<(f64, Bytes)>>,
}

impl Kept {
    /// What the newest wall was made of.
    pub fn facts(&self) -> Arc<Facts> {
        // A reader that died holding the lock has changed nothing.
        Arc::clone(&self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_facts(&self, facts: Facts) {
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(facts);
    }

    /// `/api/lan-status` of `wall`.
    pub fn status_json(&self, wall: &Wall) -> serde_json::Result<Bytes> {
        let (at, json) = self.json.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if at.to_bits() == wall.at.to_bits() {
            return Ok(json);
        }
        // Two that ask at once may both write it; neither waits for the other.
        let json = Bytes::from(serde_json::to_vec(&wall.lan)?);
        *self.json.lock().unwrap_or_else(PoisonError::into_inner) = (wall.at, json.clone());
        Ok(json)
    }

    pub fn with_history<T>(&self, use_it: impl FnOnce(&mut History) -> T) -> T {
        use_it(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
