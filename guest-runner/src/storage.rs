//! The guest's disk over the runner's life: found or made, watched for space, and what holds the guest because of it.
//!
//! ```text
//! Preparing ──made or found──> Ready ──restart, reset──> Preparing
//!     └──cannot be──> Blocked ──after a while, or a reset──> Preparing
//! ```
//!
//! **Invariants.** No call that could hang on a volume is made on the runner's loop once a guest runs: space is asked for on
//! a thread of its own, one question at a time. What holds a guest is said until it is over, not at each attempt.
use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use guest::{
    overlay::Base,
    storage::{self, Disk, Space, StorageError, Wanted, Where},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

/// How often a disk that could not be had is tried again.
const BLOCKED_RETRY: Duration = Duration::from_secs(5);
/// How often space is asked for.
const SPACE_EVERY: Duration = Duration::from_secs(2);
/// A guest that was stopped for want of space goes on when this much is free, in bytes.
const RESUME_BYTES: u64 = 4 << 20;
/// A held guest is let go on this often, whatever is known: quotas and servers do not say when they are well again.
const RESUME_EVERY: Duration = Duration::from_secs(20);
/// How long a guest that was let go on must run before it counts as going on.
const RESUMED_FOR: Duration = Duration::from_secs(2);
/// Below this the disk is called nearly full, in bytes.
const LOW_BYTES: u64 = 128 << 20;

type Preparing = Pin<Box<dyn Future<Output = (Base, Result<Disk, StorageError>)>>>;

enum State {
    /// The guest has no disk of its own.
    Diskless,
    Preparing(Preparing),
    Ready {
        base: Base,
        disk: Disk,
        watcher: JoinHandle<()>,
    },
    Blocked {
        base: Base,
        words: String,
        until: Instant,
    },
    /// Only within a change.
    Changing,
}

/// Space, as last measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) space: Space,
    /// What the overlay takes, in bytes.
    pub(crate) overlay_bytes: u64,
}

pub(crate) struct Storage {
    wanted: Wanted,
    state: State,
    usage: watch::Sender<Option<Usage>>,
    measured: watch::Receiver<Option<Usage>>,
}

/// What the storage did.
#[derive(Debug)]
pub(crate) enum News {
    /// The disk is ready, or it has just become known that it cannot be had.
    Settled,
    Measured(Usage),
}

impl Storage {
    pub(crate) fn new(wanted: Wanted, base: Option<Base>) -> Self {
        let (usage, measured) = watch::channel(None);
        let mut storage = Self { wanted, state: State::Diskless, usage, measured };
        if let Some(base) = base {
            storage.state = storage.preparing(base, false);
        }
        storage
    }

    fn preparing(&self, mut base: Base, reset: bool) -> State {
        let wanted = self.wanted.clone();
        State::Preparing(Box::pin(async move {
            let result = storage::prepare(&mut base, &wanted, reset).await;
            (base, result)
        }))
    }

    /// Cancel-safe: what is under way is kept.
    pub(crate) async fn news(&mut self) -> News {
        loop {
            match &mut self.state {
                State::Preparing(work) => {
                    let (base, result) = work.await;
                    self.settle(base, result);
                    return News::Settled;
                }
                State::Blocked { until, .. } => {
                    sleep_until(*until).await;
                    self.again(false);
                }
                State::Ready { .. } => {
                    // The sender is ours: this ends only with a change.
                    if self.measured.changed().await.is_ok()
                        && let Some(usage) = *self.measured.borrow_and_update()
                    {
                        return News::Measured(usage);
                    }
                }
                State::Diskless | State::Changing => std::future::pending().await,
            }
        }
    }

    /// Finds the disk anew, with no guest on it. `reset`: a fresh one.
    pub(crate) fn again(&mut self, reset: bool) {
        self.state = match std::mem::replace(&mut self.state, State::Changing) {
            State::Ready { base, disk, watcher } => {
                watcher.abort();
                // Its locks must be free before they are taken again.
                drop(disk);
                self.preparing(base, reset)
            }
            State::Blocked { base, .. } => self.preparing(base, reset),
            // It is being found already; a reset then comes too early and is refused before it gets here.
            other => other,
        };
    }

    fn settle(&mut self, base: Base, result: Result<Disk, StorageError>) {
        self.state = match result {
            Ok(disk) => {
                tracing::info!(
                    overlay = %disk.overlay.display(), place = ?disk.place, fresh = disk.fresh, notice = disk.notice,
                    "the guest's disk is ready"
                );
                if let Some(work) = disk.note_digest(&base) {
                    tokio::spawn(async move {
                        if let Err(error) = work.await {
                            tracing::warn!(error = %telemetry::chain(&error), "the base's digest could not be noted");
                        }
                    });
                }
                let watcher = tokio::spawn(measure(disk.overlay.clone(), self.usage.clone()));
                State::Ready { base, disk, watcher }
            }
            Err(error) => {
                let words = telemetry::chain(&error);
                tracing::error!("{words}");
                State::Blocked { base, words, until: Instant::now() + BLOCKED_RETRY }
            }
        };
    }

    /// A guest can be started: its disk is there, or it has none.
    pub(crate) const fn is_ready(&self) -> bool {
        matches!(self.state, State::Diskless | State::Ready { .. })
    }

    pub(crate) const fn disk(&self) -> Option<(&Base, &Disk)> {
        match &self.state {
            State::Ready { base, disk, .. } => Some((base, disk)),
            State::Diskless | State::Preparing(_) | State::Blocked { .. } | State::Changing => None,
        }
    }

    /// Why there is no disk.
    pub(crate) fn blocked(&self) -> Option<&str> {
        match &self.state {
            State::Blocked { words, .. } => Some(words),
            _ => None,
        }
    }

    /// The disk is being found or made: no time for orders.
    pub(crate) const fn busy(&self) -> bool {
        matches!(self.state, State::Preparing(_))
    }

    pub(crate) fn on_fallback(&self) -> bool {
        matches!(&self.state, State::Ready { disk, .. } if disk.place == Where::Fallback)
    }

    /// What somebody should know while the guest plays, with the remedy.
    pub(crate) fn notice(&self) -> Option<String> {
        let State::Ready { disk, .. } = &self.state else { return None };
        let usage = *self.usage.borrow();
        let low = usage.filter(|usage| usage.space.free_bytes < LOW_BYTES).map(|usage| {
            format!(
                "the disk that holds `{}` is nearly full, {} MiB are free; free some space before the guest has to wait",
                disk.overlay.display(),
                usage.space.free_bytes >> 20
            )
        });
        match (&disk.notice, low) {
            (Some(notice), Some(low)) => Some(format!("{notice}; {low}")),
            (notice, low) => notice.clone().or(low),
        }
    }

    pub(crate) fn overlay(&self) -> Option<&Path> {
        match &self.state {
            State::Ready { disk, .. } => Some(&disk.overlay),
            _ => None,
        }
    }

    pub(crate) fn free_bytes(&self) -> Option<u64> {
        self.usage.borrow().map(|usage| usage.space.free_bytes)
    }
}

/// Measures for ever.
async fn measure(overlay: PathBuf, usage: watch::Sender<Option<Usage>>) {
    loop {
        let path = overlay.clone();
        let look = move || -> std::io::Result<Usage> {
            let space = storage::space(path.parent().unwrap_or(Path::new("/")))?;
            Ok(Usage { space, overlay_bytes: std::fs::metadata(&path)?.blocks() * 512 })
        };
        // A volume that hangs hangs this thread, and no other question is asked meanwhile.
        if let Ok(Ok(now)) = tokio::task::spawn_blocking(look).await {
            usage.send_if_modified(|before| before.replace(now) != Some(now));
        }
        sleep(SPACE_EVERY).await;
    }
}

/// A guest that stands still because its disk failed it. Pure: times are given.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) words: String,
    full: bool,
    tried_at: Instant,
    resumed_at: Option<Instant>,
}

impl Held {
    pub(crate) fn new(overlay: Option<&Path>, full: bool, reason: &str, now: Instant) -> Self {
        let place = overlay.map(|path| format!("`{}`", path.display())).unwrap_or_default();
        let words = if full {
            format!(
                "the guest waits, because the disk that holds {place} is full; free some space there and it goes on by itself"
            )
        } else {
            format!(
                "the guest waits, because its disk {place} failed ({reason}); put the volume right and it goes on by itself"
            )
        };
        Self { words, full, tried_at: now, resumed_at: None }
    }

    /// Whether to let the guest go on, to see.
    pub(crate) fn try_now(&mut self, free_bytes: Option<u64>, now: Instant) -> bool {
        if self.resumed_at.is_some() {
            return false;
        }
        let since = now.saturating_duration_since(self.tried_at);
        let room = free_bytes.is_some_and(|free| free >= RESUME_BYTES);
        let due = since >= RESUME_EVERY || (self.full && room && since >= SPACE_EVERY);
        if due {
            self.tried_at = now;
        }
        due
    }

    pub(crate) fn resumed(&mut self, now: Instant) {
        self.resumed_at = Some(now);
    }

    /// It runs on.
    pub(crate) fn over(&self, now: Instant) -> bool {
        self.resumed_at.is_some_and(|at| now.saturating_duration_since(at) >= RESUMED_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_guest_is_let_go_on_when_there_is_room_and_now_and_then() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut held = Held::new(Some(Path::new("/claim/overlay.qcow2")), true, "", start);
        assert!(held.words.contains("that holds `/claim/overlay.qcow2` is full; free some space"));
        assert!(!held.try_now(Some(0), at(3)) && !held.try_now(None, at(4)));
        assert!(!held.try_now(Some(RESUME_BYTES), at(1)), "not at each turn");
        assert!(held.try_now(Some(RESUME_BYTES), at(5)));
        assert!(!held.try_now(Some(RESUME_BYTES), at(6)));
        assert!(held.try_now(Some(0), at(26)), "a quota says nothing of its end");
        held.resumed(at(27));
        assert!(!held.over(at(28)) && !held.try_now(Some(RESUME_BYTES), at(60)));
        assert!(held.over(at(29)));
        let mut failed = Held::new(None, false, "Input/output error", start);
        assert!(failed.words.contains("failed (Input/output error); put the volume right"));
        assert!(!failed.try_now(Some(u64::MAX), at(19)) && failed.try_now(None, at(20)));
    }
}
