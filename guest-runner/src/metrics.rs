//! The runner's own numbers. One instance each, so there is no label for it: the scrape's target says whose they are.
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::storage::Usage;

/// Clones share the numbers.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    disk_free: IntGauge,
    disk_size: IntGauge,
    disk_overlay: IntGauge,
    /// Whether the three above are registered: a number that was not measured is absent.
    disk_known: bool,
    pub(crate) disk_held: IntGauge,
    pub(crate) disk_holds: IntCounter,
    pub(crate) disk_fallback: IntGauge,
    pub(crate) restarts: IntCounterVec,
    pub(crate) agent_silences: IntCounter,
    start: Gauge,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| IntGauge::new(name, help);
        let metrics = Self {
            registry: registry.clone(),
            disk_free: gauge("loco_runner_disk_free_bytes", "Free space where the guest's disk is, in bytes.")?,
            disk_size: gauge(
                "loco_runner_disk_size_bytes",
                "Size of the file system with the guest's disk, in bytes.",
            )?,
            disk_overlay: gauge("loco_runner_disk_overlay_bytes", "Space that the guest's changes take, in bytes.")?,
            disk_known: false,
            disk_held: gauge("loco_runner_disk_held", "1 while the guest stands still because of its disk.")?,
            disk_holds: IntCounter::new(
                "loco_runner_disk_holds_total",
                "Times that the guest was made to stand still because of its disk.",
            )?,
            disk_fallback: gauge(
                "loco_runner_disk_fallback",
                "1 while the guest's disk is on the fallback, 0 on the primary.",
            )?,
            restarts: IntCounterVec::new(
                Opts::new("loco_runner_restarts_total", "Restarts of the guest by order: restart or reset."),
                &["order"],
            )?,
            agent_silences: IntCounter::new(
                "loco_runner_agent_silences_total",
                "Times that the agent held its connection and did not answer.",
            )?,
            start: Gauge::new(
                "loco_runner_start_seconds",
                "Time from the runner's start to the first live picture, in seconds.",
            )?,
        };
        registry.register(Box::new(metrics.disk_held.clone()))?;
        registry.register(Box::new(metrics.disk_holds.clone()))?;
        registry.register(Box::new(metrics.disk_fallback.clone()))?;
        registry.register(Box::new(metrics.restarts.clone()))?;
        registry.register(Box::new(metrics.agent_silences.clone()))?;
        Ok(metrics)
    }

    /// The first picture is live.
    pub(crate) fn started(&self, after: std::time::Duration) {
        self.start.set(after.as_secs_f64());
        self.appear(Box::new(self.start.clone()));
    }

    pub(crate) fn disk(&mut self, usage: Usage) {
        let clamp = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.disk_free.set(clamp(usage.space.free_bytes));
        self.disk_size.set(clamp(usage.space.total_bytes));
        self.disk_overlay.set(clamp(usage.overlay_bytes));
        if !std::mem::replace(&mut self.disk_known, true) {
            for gauge in [&self.disk_free, &self.disk_size, &self.disk_overlay] {
                self.appear(Box::new(gauge.clone()));
            }
        }
    }

    fn appear(&self, collector: Box<dyn prometheus::core::Collector>) {
        if let Err(error) = self.registry.register(collector) {
            tracing::warn!(%error, "a metric cannot be shown");
        }
    }
}
