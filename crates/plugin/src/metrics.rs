//! What the plugin counts. Names begin with `loco_plugin_`.
use std::{sync::OnceLock, time::Duration};

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::holder::Holding;

/// Why a container got no slot, or a runner no seat: the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Allocate: not exactly one slot that is here and open.
    Allocation,
    /// The kubelet could not be asked who holds the slot.
    Kubelet,
    /// Nobody is listed to hold it.
    Nobody,
    /// More than one pod is.
    Several,
    /// The pod that holds it is of another namespace.
    Namespace,
    /// The pod that holds it is no instance that the directory places here.
    NotPlaced,
}

impl Refused {
    const fn word(self) -> &'static str {
        match self {
            Self::Allocation => "allocation",
            Self::Kubelet => "kubelet",
            Self::Nobody => "nobody",
            Self::Several => "several",
            Self::Namespace => "namespace",
            Self::NotPlaced => "not-placed",
        }
    }
}

/// Clones share the numbers.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    pub(crate) registrations: IntCounter,
    pub(crate) registered: IntGauge,
    pub(crate) slots: IntGauge,
    pub(crate) allocations: IntCounter,
    refusals: IntCounterVec,
    proof_seconds: Histogram,
    /// Registered at the first measurement: until the kubelet has said how many are held, there is no number.
    held: std::sync::Arc<OnceLock<IntGauge>>,
}

impl Metrics {
    /// # Errors
    /// When a name is taken, that is when two plugins share a registry.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name, help| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name, help| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let refusals = IntCounterVec::new(
            Opts::new(
                "loco_plugin_refusals_total",
                "Containers that got no slot and runners that were not proven, by reason.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(refusals.clone()))?;
        let buckets = vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
        let proof_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "loco_plugin_proof_seconds",
                "Time from a runner's Hello to the proof of which pod it is.",
            )
            .buckets(buckets),
        )?;
        registry.register(Box::new(proof_seconds.clone()))?;
        Ok(Self {
            registry: registry.clone(),
            registrations: counter(
                "loco_plugin_registrations_total",
                "Times that the kubelet took the registration of loco.dev/seat.",
            )?,
            registered: gauge("loco_plugin_registered", "1 while the kubelet watches the slots, else 0.")?,
            slots: gauge("loco_plugin_slots", "Slots that are offered to the kubelet as healthy.")?,
            allocations: counter("loco_plugin_allocations_total", "Slots that were given to a container.")?,
            refusals,
            proof_seconds,
            held: std::sync::Arc::default(),
        })
    }

    pub fn refused(&self, reason: Refused) {
        self.refusals.with_label_values(&[reason.word()]).inc();
    }

    pub fn proven(&self, took: Duration) {
        self.proof_seconds.observe(took.as_secs_f64());
    }

    /// What the kubelet lists as held.
    pub fn held(&self, holdings: &[Holding]) {
        let count = i64::try_from(holdings.len()).unwrap_or(i64::MAX);
        if let Some(gauge) = self.held.get() {
            return gauge.set(count);
        }
        match IntGauge::new("loco_plugin_slots_held", "Slots that pods of this node hold, as the kubelet lists them.") {
            Ok(gauge) => {
                gauge.set(count);
                if self.held.set(gauge.clone()).is_ok()
                    && let Err(error) = self.registry.register(Box::new(gauge))
                {
                    tracing::error!(%error, "loco_plugin_slots_held cannot be shown");
                }
            }
            Err(error) => tracing::error!(%error, "loco_plugin_slots_held cannot be made"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_slots_are_absent_until_measured() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let text = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(!text().contains("loco_plugin_slots_held"));
        metrics.held(&[]);
        assert!(text().contains("loco_plugin_slots_held 0"));
        metrics.refused(Refused::Several);
        assert!(text().contains(r#"loco_plugin_refusals_total{reason="several"} 1"#));
    }
}
