//! What is counted of the watches. Plain atomics: readers ask when they like, and nobody waits.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Counters of a follower's watches.
#[derive(Debug, Default)]
pub struct Stats {
    pub pods: WatchStats,
    pub endpoints: WatchStats,
}

impl Stats {
    /// With their names, as metrics and the API show them.
    pub fn all(&self) -> [(&'static str, &WatchStats); 2] {
        [("pods", &self.pods), ("endpointslices", &self.endpoints)]
    }
}

/// One watch.
#[derive(Debug, Default)]
pub struct WatchStats {
    connected: AtomicBool,
    connections: AtomicU64,
    failures: AtomicU64,
    listings: AtomicU64,
    events: AtomicU64,
}

impl WatchStats {
    pub fn connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// Watch requests that the API took. It ends each after some minutes, so they grow by themselves.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Watches and listings that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Times that everything was listed anew.
    pub fn listings(&self) -> u64 {
        self.listings.load(Relaxed)
    }

    /// Objects that the API told of.
    pub fn events(&self) -> u64 {
        self.events.load(Relaxed)
    }

    pub(crate) fn took_up(&self) {
        self.connections.fetch_add(1, Relaxed);
        self.connected.store(true, Relaxed);
    }

    pub(crate) fn ended(&self, failed: bool) {
        self.connected.store(false, Relaxed);
        self.failures.fetch_add(u64::from(failed), Relaxed);
    }

    pub(crate) fn listed(&self) {
        self.listings.fetch_add(1, Relaxed);
    }

    pub(crate) fn event(&self) {
        self.events.fetch_add(1, Relaxed);
    }
}
