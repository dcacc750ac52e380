//! Which loops turn, and which named conditions hold.
//!
//! A **heartbeat** is a loop that must tick within its period: a late one makes the process unhealthy (restart it). A
//! **condition** is something that must hold before work may be sent here: a missing one makes it unready (wait).
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The registry that `/healthz` and `/readyz` read. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    loops: BTreeMap<String, Beat>,
    /// `None` = holds, `Some` = why not.
    conditions: BTreeMap<String, Option<String>>,
}

#[derive(Debug)]
struct Beat {
    last: Instant,
    period: Duration,
}

/// Held by one loop. Dropping it means that the loop ended on purpose: it is no longer expected to tick. A loop that
/// panics did not: it stays expected, and so becomes late.
#[derive(Debug)]
pub struct Heartbeat {
    name: String,
    health: Health,
}

/// Held by the part that knows whether the condition holds.
#[derive(Debug, Clone)]
pub struct Condition {
    name: String,
    health: Health,
}

impl Health {
    pub fn new() -> Self {
        Self::default()
    }

    /// A loop called `name` that promises to tick at least once per `period`, starting now.
    pub fn heartbeat(&self, name: impl Into<String>, period: Duration) -> Heartbeat {
        let name = name.into();
        self.with(|shared| shared.loops.insert(name.clone(), Beat { last: Instant::now(), period }));
        Heartbeat { name, health: self.clone() }
    }

    /// A condition called `name`; it does not hold, because of `reason`, until [`Condition::hold`] is called.
    pub fn condition(&self, name: impl Into<String>, reason: impl Into<String>) -> Condition {
        let condition = Condition { name: name.into(), health: self.clone() };
        condition.fail(reason);
        condition
    }

    /// Loops that are late: name and a sentence. Empty = healthy.
    pub fn late_loops(&self) -> Vec<(String, String)> {
        self.late_loops_at(Instant::now())
    }

    /// Conditions that do not hold: name and reason. Empty = ready.
    pub fn failing_conditions(&self) -> Vec<(String, String)> {
        self.with(|shared| {
            shared
                .conditions
                .iter()
                .filter_map(|(name, reason)| reason.as_ref().map(|reason| (name.clone(), reason.clone())))
                .collect()
        })
    }

    /// Names of all loops and all conditions, for the bodies of good answers.
    pub(crate) fn names(&self) -> (Vec<String>, Vec<String>) {
        self.with(|shared| (shared.loops.keys().cloned().collect(), shared.conditions.keys().cloned().collect()))
    }

    fn late_loops_at(&self, now: Instant) -> Vec<(String, String)> {
        self.with(|shared| {
            shared
                .loops
                .iter()
                .filter_map(|(name, beat)| {
                    let since = now.saturating_duration_since(beat.last);
                    let sentence = || {
                        format!(
                            "last tick {:.1} s ago, due each {:.1} s",
                            since.as_secs_f64(),
                            beat.period.as_secs_f64()
                        )
                    };
                    (since > beat.period).then(|| (name.clone(), sentence()))
                })
                .collect()
        })
    }

    /// A panic elsewhere while the lock was held leaves plain data that is still true enough to report.
    fn with<R>(&self, action: impl FnOnce(&mut Shared) -> R) -> R {
        action(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Heartbeat {
    /// The loop turned.
    pub fn tick(&self) {
        self.health.with(|shared| {
            if let Some(beat) = shared.loops.get_mut(&self.name) {
                beat.last = Instant::now();
            }
        });
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.health.with(|shared| shared.loops.remove(&self.name));
    }
}

impl Condition {
    /// It holds now.
    pub fn hold(&self) {
        self.health.with(|shared| shared.conditions.insert(self.name.clone(), None));
    }

    /// It does not hold, because of `reason`: a sentence with the remedy.
    pub fn fail(&self, reason: impl Into<String>) {
        self.health.with(|shared| shared.conditions.insert(self.name.clone(), Some(reason.into())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_late_only_after_its_period_and_never_after_it_ended() {
        let health = Health::new();
        let beat = health.heartbeat("fabric", Duration::from_secs(5));
        let slow = health.heartbeat("slow", Duration::from_secs(50));
        let start = Instant::now();
        assert!(health.late_loops_at(start + Duration::from_secs(4)).is_empty());
        let late = health.late_loops_at(start + Duration::from_secs(6));
        assert_eq!(late.len(), 1);
        assert_eq!(late[0].0, "fabric");
        assert!(late[0].1.ends_with("due each 5.0 s"), "{}", late[0].1);
        drop(beat);
        assert!(health.late_loops_at(start + Duration::from_secs(6)).is_empty());
        drop(slow);
    }

    #[test]
    fn a_loop_that_panicked_becomes_late() {
        let health = Health::new();
        let beat = health.heartbeat("fabric", Duration::from_secs(5));
        let start = Instant::now();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _beat = beat;
            panic!("as a loop would");
        }));
        assert!(outcome.is_err());
        assert_eq!(health.late_loops_at(start + Duration::from_secs(6)).len(), 1);
    }

    #[test]
    fn a_tick_resets_the_clock() {
        let health = Health::new();
        let beat = health.heartbeat("x", Duration::ZERO);
        let before = Instant::now();
        while Instant::now() == before {}
        assert_eq!(health.late_loops().len(), 1);
        beat.tick();
        assert!(health.late_loops_at(before).is_empty());
    }

    #[test]
    fn a_condition_fails_until_it_holds_and_may_fail_again() {
        let health = Health::new();
        let condition = health.condition("snapshot", "not read yet");
        assert_eq!(health.failing_conditions(), [("snapshot".to_owned(), "not read yet".to_owned())]);
        condition.hold();
        assert!(health.failing_conditions().is_empty());
        condition.fail("gone");
        assert_eq!(health.failing_conditions()[0].1, "gone");
    }
}
