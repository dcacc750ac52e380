//! Who speaks at the door of a slot: the pod that the kubelet gave it to, and nobody's word for it.
//!
//! **Invariants.** Nothing is remembered from one question to the next: after a boot only the kubelet's book is true. A proof is one
//! pod of our own namespace; its name is the instance. Whatever else the kubelet says is a refusal, in words and by reason, and the
//! runner asks again.
use std::time::Duration;

use model::InstanceId;
use plugin::{Holding, Metrics, NoHolder, PodResources, Refused, Slot, holder};
use telemetry::chain;
use tokio::time::{Instant, sleep};

use crate::instance::Refusal;

/// How long the kubelet's list may lag behind a container that runs already. It was there each time it was looked for, and 139 ms
/// late at the worst; the runner waits 15 s.
const PROOF_LIMIT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);

/// Asks the kubelet of this node.
#[derive(Debug)]
pub(crate) struct Prover {
    pods: PodResources,
    /// Where our instances are. A pod of any namespace may ask for a seat; only ours get a guest onto the LAN.
    namespace: String,
    metrics: Metrics,
}

/// Why the holder of a slot is not proven to be an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unproven {
    why: Refused,
    refusal: Refusal,
    /// The kubelet may say otherwise in a moment.
    may_change: bool,
}

impl Prover {
    pub(crate) const fn new(pods: PodResources, namespace: String, metrics: Metrics) -> Self {
        Self { pods, namespace, metrics }
    }

    /// The instance whose pod holds `slot` now.
    ///
    /// # Errors
    /// When that is not proven within some seconds.
    pub(crate) async fn prove(&self, slot: Slot) -> Result<InstanceId, Refusal> {
        let start = Instant::now();
        loop {
            let judged = match self.pods.holdings().await {
                Ok(holdings) => {
                    self.metrics.held(&holdings);
                    judge(slot, &holdings, &self.namespace)
                }
                Err(error) => Err(Unproven {
                    why: Refused::Kubelet,
                    refusal: Refusal::new(chain(&error), "the runner asks again in a second"),
                    may_change: true,
                }),
            };
            match judged {
                Ok(instance) => {
                    self.metrics.proven(start.elapsed());
                    return Ok(instance);
                }
                Err(unproven) if !unproven.may_change || start.elapsed() >= PROOF_LIMIT => {
                    self.refused(unproven.why);
                    return Err(unproven.refusal);
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    pub(crate) fn refused(&self, why: Refused) {
        self.metrics.refused(why);
    }
}

/// What the kubelet's list says about a slot.
fn judge(slot: Slot, holdings: &[Holding], namespace: &str) -> Result<InstanceId, Unproven> {
    let unproven = |why, reason: String, remedy: &str, may_change| {
        Err(Unproven { why, refusal: Refusal::new(reason, remedy), may_change })
    };
    let holding = match holder::of(slot, holdings) {
        Ok(holding) => holding,
        Err(nobody @ NoHolder::Nobody(_)) => {
            let remedy = "start the runner in the container that was given the seat; the runner asks again in a second";
            return unproven(Refused::Nobody, nobody.to_string(), remedy, true);
        }
        Err(several) => {
            let remedy = "one of them is about to go; if both stay, delete one of the pods";
            return unproven(Refused::Several, several.to_string(), remedy, true);
        }
    };
    let who = format!("{slot} is held by pod {}/{}", holding.namespace, holding.pod);
    if holding.namespace != namespace {
        let remedy = "run it there, or forbid loco.dev/seat in other namespaces by a ResourceQuota";
        return unproven(
            Refused::Namespace,
            format!("{who}, and this agent's instances are in `{namespace}`"),
            remedy,
            false,
        );
    }
    // A pod's name may have dots, an instance's may not.
    holding.pod.parse().or_else(|error| {
        let remedy = "give the pod a name that is one DNS label, as a StatefulSet's pods have";
        unproven(Refused::NotPlaced, format!("{who}: {error}"), remedy, false)
    })
}

#[cfg(test)]
mod tests {
    use plugin::peer::Kubelet;

    use super::*;

    fn holding(slot: u16, namespace: &str, pod: &str) -> Holding {
        Holding { slot: Slot(slot), namespace: namespace.into(), pod: pod.into(), container: "runner".into() }
    }

    #[test]
    fn one_pod_of_ours_is_a_proof_and_nothing_else_is() {
        let held = [
            holding(0, "loco", "instance-4"),
            holding(1, "other", "instance-4"),
            holding(2, "loco", "a"),
            holding(2, "loco", "b"),
            holding(3, "loco", "a.b"),
        ];
        let why = |slot| judge(Slot(slot), &held, "loco").map_err(|unproven| (unproven.why, unproven.may_change));
        assert_eq!(why(0), Ok("instance-4".parse().unwrap()));
        assert_eq!(why(1), Err((Refused::Namespace, false)));
        assert_eq!(why(2), Err((Refused::Several, true)));
        assert_eq!(why(3), Err((Refused::NotPlaced, false)));
        assert_eq!(why(9), Err((Refused::Nobody, true)));
    }

    #[tokio::test]
    async fn a_list_that_lags_is_waited_for_and_one_that_never_comes_is_a_refusal() {
        let dir = std::env::temp_dir().join(format!("loco-proof-{}", std::process::id()));
        let registry = prometheus::Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let prover = std::sync::Arc::new(Prover::new(PodResources::new(&dir), "loco".to_owned(), metrics));
        let refusal = prover.prove(Slot(0)).await.unwrap_err();
        assert!(refusal.reason.contains("pod-resources/kubelet.sock"), "{}", refusal.reason);

        let kubelet = Kubelet::start(&dir).unwrap();
        let asking = tokio::spawn({
            let prover = std::sync::Arc::clone(&prover);
            async move { prover.prove(Slot(0)).await }
        });
        sleep(PAUSE).await;
        kubelet.give(Slot(0), "loco", "instance-0");
        assert_eq!(asking.await.unwrap(), Ok("instance-0".parse().unwrap()));
        let refusal = prover.prove(Slot(1)).await.unwrap_err();
        assert!(refusal.reason.contains("no pod that holds slot-1"), "{}", refusal.reason);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.contains(r#"loco_plugin_refusals_total{reason="kubelet"} 1"#), "{text}");
        assert!(text.contains(r#"loco_plugin_refusals_total{reason="nobody"} 1"#), "{text}");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
