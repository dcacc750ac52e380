//! The agent's business with the kubelet: offers the slots, and says how that stands in health and metrics.
//!
//! **Invariant.** A kubelet that is away costs nobody a frame or a picture: guests that run go on, only new pods wait. So it makes
//! the agent unready and never ends it.
use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, anyhow};
use plugin::{Metrics, Plugin, PluginConfig, PodResources, State, slots::Doors};
use telemetry::{Condition, Health, Heartbeat, chain};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use crate::config::SeatsOffered;

/// How often the kubelet is asked who holds what, for the books and as a proof that it answers.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// The loop turns at least this often, asks included.
const TURN: Duration = Duration::from_secs(1);
const LOOP_LIMIT: Duration = Duration::from_secs(30);

/// How it stands, part by part; each is a condition for being ready.
struct Signs {
    plugin: Condition,
    pods: Condition,
    doors: Condition,
}

/// Everything that is needed to offer slots.
#[derive(Debug)]
pub(crate) struct Kubelet {
    plugin: Plugin,
    pods: PodResources,
    doors: watch::Receiver<Doors>,
    metrics: Metrics,
}

impl Kubelet {
    /// `seats_dir`: parent of the slots' directories, by the path that the host knows.
    pub(crate) fn new(
        offered: &SeatsOffered,
        seats_dir: PathBuf,
        doors: watch::Receiver<Doors>,
        pods: PodResources,
        metrics: Metrics,
    ) -> Self {
        let config = PluginConfig { kubelet_dir: offered.kubelet_dir.clone(), seats_dir };
        let plugin = Plugin::new(config, doors.clone(), metrics.clone());
        Self { plugin, pods, doors, metrics }
    }

    /// Offers the slots until the agent ends. Returns only when a part that it needs has ended, and says which.
    pub(crate) async fn run(self, health: Health) -> anyhow::Error {
        let signs = Signs {
            plugin: health.condition("device-plugin", "not registered yet"),
            pods: health.condition("pod-resources", "not asked yet"),
            doors: health.condition("slots", "not open yet"),
        };
        let heartbeat = health.heartbeat("kubelet", LOOP_LIMIT);
        let state = self.plugin.state();
        tokio::select! {
            never = self.plugin.run() => match never {},
            error = look(signs, heartbeat, state, self.doors, self.pods, self.metrics) => error,
        }
    }
}

async fn look(
    signs: Signs,
    heartbeat: Heartbeat,
    mut state: watch::Receiver<State>,
    mut doors: watch::Receiver<Doors>,
    pods: PodResources,
    metrics: Metrics,
) -> anyhow::Error {
    let mut ask_at = Instant::now();
    loop {
        heartbeat.tick();
        tell(&signs.plugin, plugin_problem(&state.borrow_and_update()));
        tell(&signs.doors, doors_problem(&doors.borrow_and_update()));
        if ask_at <= Instant::now() {
            ask_at = Instant::now() + ASK_EVERY;
            match pods.holdings().await {
                Ok(holdings) => {
                    metrics.held(&holdings);
                    signs.pods.hold();
                }
                Err(error) => signs.pods.fail(chain(&error)),
            }
        }
        let news = async {
            tokio::select! {
                changed = state.changed() => changed.context("the device plugin has ended"),
                changed = doors.changed() => changed.context("the slots' doors have ended"),
                () = time::sleep(TURN) => Ok(()),
            }
        };
        if let Err(error) = news.await {
            return anyhow!(error);
        }
    }
}

fn tell(condition: &Condition, problem: Option<String>) {
    match problem {
        Some(problem) => condition.fail(problem),
        None => condition.hold(),
    }
}

fn plugin_problem(state: &State) -> Option<String> {
    match state {
        State::Watched => None,
        State::Unwatched => {
            Some("the kubelet does not watch the slots; it is registered with anew in some seconds".to_owned())
        }
        State::Away(why) => Some(why.clone()),
    }
}

fn doors_problem(doors: &Doors) -> Option<String> {
    let shut: Vec<_> = doors.iter().filter(|(_, open)| !**open).map(|(slot, _)| slot.to_string()).collect();
    (!shut.is_empty()).then(|| format!("{} cannot be entered; look at the agent's log", shut.join(", ")))
}

#[cfg(test)]
mod tests {
    use plugin::{Slot, peer};
    use testkit::eventually;

    use super::*;

    #[test]
    fn shut_doors_are_named() {
        assert_eq!(doors_problem(&[(Slot(0), true)].into()), None);
        let problem = doors_problem(&[(Slot(0), false), (Slot(1), true), (Slot(2), false)].into()).unwrap();
        assert!(problem.starts_with("slot-0, slot-2 "), "{problem}");
    }

    #[tokio::test]
    async fn readiness_follows_the_kubelet_as_it_comes_and_goes() {
        let dir = std::env::temp_dir().join(format!("loco-kubelet-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let offered = SeatsOffered { slots: 1, kubelet_dir: dir.clone(), namespace: Some("loco".into()) };
        let doors = watch::Sender::new(Doors::from([(Slot(0), true)]));
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let pods = PodResources::new(&dir);
        let kubelet = Kubelet::new(&offered, "/run/loco/seats".into(), doors.subscribe(), pods, metrics);
        let health = Health::new();
        let running = tokio::spawn(kubelet.run(health.clone()));
        let failing = |name: &'static str| {
            let health = health.clone();
            move || health.failing_conditions().into_iter().find(|(failing, _)| failing == name)
        };
        let limit = Duration::from_secs(20);
        let (_, why) = eventually(limit, || failing("device-plugin")().filter(|(_, why)| why.contains("kubelet.sock")))
            .await
            .unwrap();
        assert!(why.contains("--kubelet-dir"), "{why}");

        let mut peer = peer::Kubelet::start(&dir).unwrap();
        let endpoint = peer.registered().await.unwrap().endpoint;
        let mut caller = peer.call(&endpoint).await.unwrap();
        let lists = caller.watch().await.unwrap();
        eventually(limit, || health.failing_conditions().is_empty().then_some(())).await.unwrap();
        doors.send_replace([(Slot(0), false)].into());
        eventually(limit, failing("slots")).await.unwrap();
        drop(lists);
        eventually(limit, failing("device-plugin")).await.unwrap();
        running.abort();
        std::fs::remove_dir_all(dir).unwrap();
    }
}
