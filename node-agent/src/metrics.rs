//! The agent's own metrics. Those of fabric and streams are registered by those crates.
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Every state's word, for a gauge that is 1 for the state that holds and 0 for the others.
pub(crate) const STATES: [model::InstanceState; 5] = [
    model::InstanceState::Starting,
    model::InstanceState::Live,
    model::InstanceState::Recovering,
    model::InstanceState::Failed,
    model::InstanceState::Stopped,
];

/// Clones share the numbers.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    instance_state: IntGaugeVec,
    pub(crate) runner_connected: IntGaugeVec,
    pub(crate) runner_connections: IntCounterVec,
    pub(crate) runner_refusals: IntCounterVec,
    pub(crate) input_events: IntCounterVec,
    pub(crate) input_lost: IntCounterVec,
    pub(crate) pokes: IntCounterVec,
    pub(crate) poke_seconds: Histogram,
    pub(crate) whep_requests: IntCounterVec,
}

impl Metrics {
    /// # Errors
    /// When a name is taken, that is when two agents share a registry.
    pub(crate) fn register(registry: &Registry, node: &str) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let buckets = vec![0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0];
        let poke_seconds = Histogram::with_opts(
            HistogramOpts::new("loco_poke_seconds", "Time that QEMU took to answer a refresh poke.").buckets(buckets),
        )?;
        registry.register(Box::new(poke_seconds.clone()))?;
        gauge("loco_agent_info", "Version and node of this agent; always 1.", &["version", "node"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION"), node])
            .set(1);
        Ok(Self {
            instance_state: gauge(
                "loco_instance_state",
                "1 for the state that the instance is in, 0 for the others.",
                &["instance", "state"],
            )?,
            runner_connected: gauge(
                "loco_runner_connected",
                "1 while the instance's runner is connected.",
                &["instance"],
            )?,
            runner_connections: counter(
                "loco_runner_connections_total",
                "Times that the instance's runner was welcomed.",
                &["instance"],
            )?,
            runner_refusals: counter("loco_runner_refusals_total", "Times that a runner was refused.", &["instance"])?,
            input_events: counter(
                "loco_input_events_total",
                "Keys, buttons and motions given to the guest.",
                &["instance"],
            )?,
            input_lost: counter(
                "loco_input_lost_total",
                "Keys, buttons and motions that could not be given: no monitor, or QEMU has no such key.",
                &["instance"],
            )?,
            pokes: counter(
                "loco_pokes_total",
                "Times that QEMU was made to look at the guest's screen.",
                &["instance"],
            )?,
            poke_seconds,
            whep_requests: counter(
                "loco_whep_requests_total",
                "Offers, by outcome: ok or the code of the error.",
                &["result"],
            )?,
        })
    }

    /// Makes `state` the one that holds.
    pub(crate) fn set_state(&self, instance: &str, state: model::InstanceState) {
        for word in STATES {
            self.instance_state.with_label_values(&[instance, word.as_str()]).set(i64::from(word == state));
        }
    }

    /// The instance is no longer here: a series that nobody keeps up to date would lie.
    pub(crate) fn forget(&self, instance: &str) {
        for word in STATES {
            // Absent is as good as removed.
            self.instance_state.remove_label_values(&[instance, word.as_str()]).ok();
        }
        self.runner_connected.remove_label_values(&[instance]).ok();
        for counter in
            [&self.runner_connections, &self.runner_refusals, &self.input_events, &self.input_lost, &self.pokes]
        {
            counter.remove_label_values(&[instance]).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_state_holds_and_a_forgotten_instance_leaves_nothing() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry, "a").unwrap();
        metrics.set_state("i-0", model::InstanceState::Starting);
        metrics.set_state("i-0", model::InstanceState::Live);
        metrics.runner_connected.with_label_values(&["i-0"]).set(1);
        for counter in [
            &metrics.runner_connections,
            &metrics.runner_refusals,
            &metrics.input_events,
            &metrics.input_lost,
            &metrics.pokes,
        ] {
            counter.with_label_values(&["i-0"]).inc();
        }
        let text = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text().contains(r#"loco_instance_state{instance="i-0",state="live"} 1"#));
        assert_eq!(text().matches(r#"instance="i-0",state="#).count(), STATES.len());
        assert_eq!(text().lines().filter(|l| l.starts_with("loco_instance_state") && l.ends_with(" 1")).count(), 1);
        metrics.forget("i-0");
        assert!(!text().contains("i-0"));
        assert!(Metrics::register(&registry, "a").is_err());
    }
}
