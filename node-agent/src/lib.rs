//! The agent of one node: wiring and edges only. Links, QMP, encoders and WebRTC live in their crates.
//!
//! ```text
//! snapshot file or Kubernetes -> directory -> desired (pure) --FabricSpec--> fabric (own thread, own namespace)
//!                                                   └──────────SeatSpec----> seats -> one instance actor each <-- doors <-- runner
//! kubelet --which pod holds which slot--> proof -> doors        doors --open or shut--> kubelet (device plugin)
//! fabric status, instance reports, directory -> status -> /v1/status, /v1/events
//! gateway --HTTP /v1--> http -> instance -> stream (WebRTC straight to browsers)
//! ```
//! **Invariants.** What exists is adopted and nothing is removed at the end: the agent may be killed and started at any time
//! without a frame lost on the LAN and without QEMU noticing. Until a good snapshot was read, nothing is changed at all.
#![forbid(unsafe_code)]

mod capture;
pub mod config;
mod desired;
mod doors;
mod http;
mod install;
mod instance;
mod keys;
mod kubelet;
mod lans;
mod metrics;
mod place;
mod proof;
mod relay;
mod seats;
mod sight;
mod standby;
mod status;
mod traffic;

use std::{
    fs, io,
    net::{SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use desired::Desired;
use directory::{Directory, Follower, Pace, Source};
use fabric::{
    Fabric, FabricConfig, FabricStatus,
    wireguard::{Keys, WireguardConfig},
};
use instance::{Cables, Shared, Taps};
use lans::Lans;
use metrics::Metrics;
use plugin::PodResources;
use seats::{Entrance, Seats};
use stream::{StreamConfig, Streams};
use switch::SwitchConfig;
use telemetry::{Condition, Health, Heartbeat};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{self, Instant},
};
use tracing::{info, warn};

pub use install::{prepare, uninstall};
pub use standby::probe;

use crate::capture::Captures;
use config::Config;
use place::Place;
use standby::{Lock, Phase, Teller};

/// Limit of the loop that follows the directory: it may wait for instances to say goodbye to their viewers.
const FOLLOW_LIMIT: Duration = Duration::from_mins(1);
/// Limit of the loop that publishes the status.
const PUBLISH_LIMIT: Duration = Duration::from_secs(10);
/// Limit of the loop that takes what is seen at the taps.
const WATCH_LIMIT: Duration = Duration::from_secs(10);
/// Those loops turn at least this often, with or without news.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Grace for requests that are being answered when the agent is told to end.
const GRACE: Duration = Duration::from_secs(3);
/// How long viewers' goodbyes keep the next agent waiting: a session ends in milliseconds, and with it the keys that it held are
/// released. One that hangs ends later, without a key.
const GOODBYE_LIMIT: Duration = Duration::from_millis(250);

/// What is needed to offer seats to the kubelet.
#[derive(Debug)]
struct Offer {
    seats: config::SeatsOffered,
    namespace: String,
    metrics: plugin::Metrics,
}

/// A built agent: everything is opened, nothing runs yet.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    lans: Arc<Lans>,
    own_key: keys::Own,
    /// What is read of the other agents' keys.
    known: watch::Sender<Keys>,
    switched: traffic::Switched,
    streams: Arc<Streams>,
    registry: prometheus::Registry,
    metrics: Metrics,
    health: Health,
    captures: Captures,
    seen: watch::Sender<Arc<traffic::Seen>>,
    watched: watch::Sender<bool>,
    relay: Option<relay::Relay>,
    follower: Follower,
    kubelet: Option<Offer>,
    kvm: bool,
    phase: watch::Sender<Phase>,
    teller: Option<Teller>,
    /// One agent per run directory.
    lock: Lock,
}

impl Agent {
    /// Opens what the agent needs, cheapest first, so that a start that cannot work changes nothing. With `--stand-by`, and where
    /// another agent has the run directory, it waits for that one's end between what disturbs nobody and what only one can have.
    ///
    /// # Errors
    /// Each names what could not be had and the remedy.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let needs_kernel = config::needs_kernel(&config.source);
        if needs_kernel {
            config::check_capabilities()?;
        }
        let (phase, health) = (watch::Sender::new(Phase::Starts), Health::new());
        let teller = place::open_teller(&config, &phase, &health)?;
        let follower = Follower::start(&config.source, Pace::AGENT).await?;
        let netns = config::fabric_netns(&config.run_dir);
        let in_cluster = config.seats.is_some() || matches!(config.source, Source::Kubernetes(_));
        if in_cluster && needs_kernel && !fabric::is_prepared(&netns) {
            config::check_mounts(&config.run_dir)?;
        }
        let place = Place::claim(&config).await?;
        let registry = telemetry::registry();
        let metrics = Metrics::register(&registry, config.node.as_str())?;
        let streams = StreamConfig { media_ip: config.media_ip.into(), ports: config.media_ports.clone() };
        let streams = Arc::new(Streams::new(streams, &registry)?);
        let kvm = prove_kvm(&config).await;
        let (listener, lock) = place.take_over(&config, &phase).await?;
        let address = listener.local_addr().context("the API's socket has no address")?;
        let (known, keys) = watch::channel(Keys::default());
        let encryption = keys::encryption(&config, keys)?;
        let own_key = keys::Own::of(&config.node, encryption.as_ref());
        let fabric = if needs_kernel {
            Some(Arc::new(Fabric::start(fabric_config(&config, encryption), &registry).await?))
        } else {
            None
        };
        let (told, status) = watch::channel(FabricStatus::default());
        let namespace = fabric.is_some().then_some(&*netns);
        let captures = Captures::start(config.node.clone(), namespace, config.capture_bytes, status, &registry)?;
        let (eyes, events, report) = ::traffic::SoftTraffic::new();
        let eyes = sight::Eyes { traffic: eyes, captures: captures.feed(), copy: Vec::new() };
        let switch = SwitchConfig { underlay: SocketAddrV4::new(config.media_ip, config.switch_port) };
        let encrypts = own_key.key.is_some();
        let lans = Arc::new(Lans::start(fabric, switch, encrypts, Box::new(eyes), told).await?);
        switch::register(&registry, lans.switch().status())?;
        let kubelet = match config.seats.clone() {
            Some(seats) => Some(Offer {
                namespace: seats
                    .namespace
                    .clone()
                    .or_else(|| follower.info().namespace.clone())
                    .context("--namespace is required with --slots: only pods of that namespace get a seat")?,
                metrics: plugin::Metrics::register(&registry)?,
                seats,
            }),
            None => None,
        };
        let relay = match config.ipx_relay.clone() {
            Some(relay) => Some(relay::Relay::open(relay, &config.node, &registry).await?),
            None => None,
        };
        let seen = watch::Sender::default();
        traffic::register(&registry, seen.subscribe())?;
        Ok(Self {
            config,
            listener,
            address,
            lans,
            own_key,
            known,
            switched: traffic::Switched { events, report },
            streams,
            registry,
            metrics,
            health,
            captures,
            seen,
            watched: watch::Sender::new(false),
            relay,
            follower,
            kubelet,
            kvm,
            phase,
            teller,
            lock,
        })
    }

    /// Where the API is served: the port is real even if `--listen` said 0.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs until `shutdown` ends, then stops serving, says goodbye to the viewers, lets go of what only one agent can have, and
    /// leaves fabric, taps and guests as they are.
    ///
    /// # Errors
    /// When the API can no longer be served, or one of the agent's own tasks or threads has ended: whoever supervises the agent
    /// starts it again, and the new one adopts what is there.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        let (changed, news) = watch::channel(0);
        let seats_dir = self.config.run_dir.join("seats");
        let shared = Shared {
            taps: Taps::of(Arc::clone(&self.lans), self.watched.subscribe()),
            cables: Cables::of(Arc::clone(&self.lans)),
            fabric: self.lans.status(),
            streams: self.streams,
            metrics: self.metrics.clone(),
            health: self.health.clone(),
            changed: Arc::new(changed),
            seats_dir: seats_dir.clone(),
            kvm: self.kvm,
        };
        let resources = self.kubelet.as_ref().map(|offer| PodResources::new(&offer.seats.kubelet_dir));
        let seats = Arc::new(Seats::new(shared, entrance(self.kubelet.as_ref().zip(resources.clone()))));
        let follower = self.follower;
        let source = status::Source {
            node: self.config.node.clone(),
            directory: follower.watch(),
            fabric: self.lans.status(),
            switch: self.lans.switch().status(),
            instances: seats.watch(),
            seen: self.seen.subscribe(),
            changed: news,
        };
        let (published, events) = watch::channel(Arc::<str>::from("{}"));
        let router = http::router(http::Api {
            token: self.config.token.clone(),
            source: source.clone(),
            instances: seats.watch(),
            events,
            metrics: self.metrics,
            captures: self.captures.clone(),
            netns: self.lans.kernel().map(|_| config::fabric_netns(&self.config.run_dir)),
            switch: Arc::clone(self.lans.switch()),
            own_key: self.own_key.clone(),
        })
        .merge(telemetry::router("node-agent", self.health.clone(), self.registry));
        let mut tasks = JoinSet::new();
        let heartbeat = self.health.heartbeat("status", PUBLISH_LIMIT);
        tasks.spawn(async move {
            source.publish(published, heartbeat).await;
            anyhow!("the loop that publishes the status ended")
        });
        tasks.spawn(follow(Following {
            node: self.config.node,
            directory: follower.watch(),
            lans: Arc::clone(&self.lans),
            seats: Arc::clone(&seats),
            heartbeat: self.health.heartbeat("directory", FOLLOW_LIMIT),
            conditions: Conditions::new(&self.health),
        }));
        run_keys(&mut tasks, self.own_key, self.config.token.clone(), follower.watch(), self.known);
        tasks.spawn(self.captures.clone().run());
        tasks.spawn(traffic::watch(traffic::Watching {
            netns: self.lans.kernel().map(|_| config::fabric_netns(&self.config.run_dir)),
            run_dir: self.config.run_dir.clone(),
            directory: follower.watch(),
            fabric: self.lans.status(),
            instances: seats.watch(),
            switched: self.switched,
            repairs: self.lans.kernel().map(|fabric| fabric.repairs()),
            watched: self.watched,
            seen: self.seen,
            heartbeat: self.health.heartbeat("traffic", WATCH_LIMIT),
            pods: self.kubelet.is_some(),
        }));
        if let (Some(offer), Some(doors), Some(resources)) = (self.kubelet, seats.slots(), resources) {
            let kubelet = kubelet::Kubelet::new(&offer.seats, seats_dir, doors, resources, offer.metrics);
            tasks.spawn(kubelet.run(self.health.clone()));
        }
        if let Some(relay) = self.relay {
            run_relay(&mut tasks, relay, &self.lans);
        }
        self.phase.send_replace(Phase::Serves);
        let (stop, stopped) = watch::channel(());
        let server = serve(self.listener, router, stopped.clone());
        tokio::pin!(server);
        tokio::select! {
            ended = &mut server => {
                ended.context("the HTTP server broke")?.context("the API can no longer be served")?;
            }
            error = first_end(&mut tasks) => return Err(error.context("the agent cannot go on; it must be started again")),
            () = shutdown => {
                let told = Instant::now();
                // The publisher first: its channel's end is what ends the streams of events.
                tasks.shutdown().await;
                self.captures.end_followers();
                drop(stop);
                let_go(&seats, &self.lans, self.lock, told).await;
                if time::timeout(GRACE, &mut server).await.is_err() {
                    warn!("some requests were cut off");
                    server.abort();
                }
            }
        }
        drop(self.teller);
        info!("ended; fabric, taps and guests stay as they are");
        Ok(())
    }
}

/// Serves the API until `stopping` changes. Who asks is known to whoever wants to know.
fn serve(
    listener: TcpListener,
    router: axum::Router,
    mut stopping: watch::Receiver<()>,
) -> tokio::task::JoinHandle<io::Result<()>> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(async move {
        // An error means that the sender is gone: that is the end as well.
        stopping.changed().await.ok();
    });
    tokio::spawn(server.into_future())
}

/// How runners come in: by the kubelet's slots where there are some.
fn entrance(offer: Option<(&Offer, PodResources)>) -> Entrance {
    match offer {
        Some((offer, pods)) => Entrance::BySlot {
            slots: offer.seats.slots,
            prover: Arc::new(proof::Prover::new(pods, offer.namespace.clone(), offer.metrics.clone())),
        },
        None => Entrance::ByInstance,
    }
}

/// Asks the other agents for their keys, where this one has a pair.
fn run_keys(
    tasks: &mut JoinSet<anyhow::Error>,
    own: keys::Own,
    token: config::Token,
    directory: watch::Receiver<Directory>,
    known: watch::Sender<Keys>,
) {
    if own.key.is_some() {
        tasks.spawn(keys::follow(own.node, token, directory, known));
    }
}

fn run_relay(tasks: &mut JoinSet<anyhow::Error>, relay: relay::Relay, lans: &Lans) {
    let Some(fabric) = lans.kernel().cloned() else {
        return warn!("the IPX relay joins a LAN of mode vxlan, and there was none at the start; it stays shut");
    };
    tasks.spawn(async move { match relay.run(fabric).await {} });
}

/// Says goodbye to the viewers and gives up what only one agent can have, the lock of the run directory last.
async fn let_go(seats: &Arc<Seats>, lans: &Lans, lock: Lock, told: Instant) {
    let leaving = Arc::clone(seats);
    let mut goodbyes = tokio::spawn(async move { leaving.close_sessions().await });
    let in_time = time::timeout(GOODBYE_LIMIT, &mut goodbyes).await.is_ok();
    seats.let_go().await;
    lans.end().await;
    // From here on the next agent serves. What follows concerns viewers of this one only.
    drop(lock);
    info!(after = ?told.elapsed(), "let go of the run directory");
    if !in_time && time::timeout(GRACE, &mut goodbyes).await.is_err() {
        warn!("some viewers were cut off without a goodbye");
        goodbyes.abort();
    }
}

/// Why the first of the tasks ended. They are made to run for ever, so an end is a defect, however it came.
async fn first_end(tasks: &mut JoinSet<anyhow::Error>) -> anyhow::Error {
    match tasks.join_next().await {
        Some(Ok(error)) => error,
        Some(Err(error)) => anyhow::Error::new(error).context("a task of the agent broke"),
        None => anyhow!("the agent has no tasks"),
    }
}

fn fabric_config(config: &Config, encryption: Option<WireguardConfig>) -> FabricConfig {
    FabricConfig {
        node: config.node.clone(),
        netns: config::fabric_netns(&config.run_dir),
        underlay_ip: config.media_ip,
        vxlan_port: config.vxlan_port,
        underlay_netns: None,
        macvlan_parent: config.macvlan_parent.clone(),
        encryption,
    }
}

/// The proof takes up to 3 s, in which nobody sees a picture: so what an earlier agent found under the same circumstances holds.
async fn prove_kvm(config: &Config) -> bool {
    let Some(kernel) = &config.kvm_probe else { return false };
    let file = config::kvm_proof(&config.run_dir);
    let circumstances = kvm_circumstances();
    if let Some(proven) = fs::read_to_string(&file).ok().and_then(|kept| kept_proof(&kept, &circumstances)) {
        info!(proven, "KVM was probed before, since this node's boot");
        return proven;
    }
    let proof = guest::prove_kvm(kernel).await;
    info!(?proof, "KVM probe");
    if let Err(error) = fs::write(&file, format!("{circumstances}{}", proof.is_proven())) {
        tracing::warn!(file = %file.display(), %error, "the proof cannot be kept: the next agent will probe again");
    }
    proof.is_proven()
}

/// What the proof depends on: another boot, another release or a `/dev/kvm` that has come or gone make a new one necessary.
fn kvm_circumstances() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let device = fs::exists("/dev/kvm").unwrap_or(false);
    format!("{} {} {device} ", boot.trim(), env!("CARGO_PKG_VERSION"))
}

fn kept_proof(kept: &str, circumstances: &str) -> Option<bool> {
    kept.strip_prefix(circumstances)?.parse().ok()
}

/// What a client waits for before it sends work here.
struct Conditions {
    snapshot: Condition,
    listed: Condition,
    fabric: Condition,
}

impl Conditions {
    fn new(health: &Health) -> Self {
        Self {
            snapshot: health.condition("snapshot", "not read yet"),
            listed: health.condition("listed", "the snapshot was not read yet"),
            fabric: health.condition("fabric", "no pass was made yet"),
        }
    }

    fn judge(&self, node: &model::NodeName, directory: &Directory, desired: Option<&Desired>, fabric: &FabricStatus) {
        match (&directory.problem, directory.loaded_at) {
            (None, Some(_)) => self.snapshot.hold(),
            (Some(problem), Some(_)) => self.snapshot.fail(format!("{problem}; the last good one is in force")),
            (problem, None) => self.snapshot.fail(problem.as_deref().unwrap_or("not read yet")),
        }
        match desired {
            Some(desired) if desired.listed => self.listed.hold(),
            Some(_) => {
                self.listed.fail(format!("the directory does not list node `{node}`; add it, or correct --node"));
            }
            None => self.listed.fail("there is no good snapshot yet"),
        }
        match fabric.problems.first() {
            Some(problem) => self.fabric.fail(problem),
            None if fabric.spec_seen == 0 => self.fabric.fail("no pass was made yet"),
            None => self.fabric.hold(),
        }
    }
}

struct Following {
    node: model::NodeName,
    directory: watch::Receiver<Directory>,
    lans: Arc<Lans>,
    seats: Arc<Seats>,
    heartbeat: Heartbeat,
    conditions: Conditions,
}

/// Carries the directory into fabric and seats, and says whether this node is ready. Ends only when one of them has ended, and says which.
async fn follow(mut following: Following) -> anyhow::Error {
    let mut done: Option<Desired> = None;
    let mut fabric_status = following.lans.status();
    loop {
        following.heartbeat.tick();
        let directory = following.directory.borrow_and_update().clone();
        // Before the first good snapshot nothing is known, and nothing known must not look like nothing wanted.
        if directory.loaded_at.is_some() {
            let desired = Desired::from_snapshot(&directory.snapshot, &following.node);
            if done.as_ref() != Some(&desired) {
                following.lans.set_spec(desired.fabric.clone());
                following.seats.reconcile(&desired.seats).await;
                done = Some(desired);
            }
        }
        let status = fabric_status.borrow_and_update().clone();
        following.conditions.judge(&following.node, &directory, done.as_ref(), &status);
        if let Err(error) = news(&mut following.directory, &mut fabric_status).await {
            return error;
        }
    }
}

/// Waits for news, at most [`LOOK_AGAIN`]. An error when there can be none any more: their source has ended.
async fn news(
    directory: &mut watch::Receiver<Directory>,
    fabric: &mut watch::Receiver<FabricStatus>,
) -> anyhow::Result<()> {
    tokio::select! {
        changed = directory.changed() => changed.context("what follows the directory has ended"),
        changed = fabric.changed() => changed.context("the fabric's thread has ended"),
        () = time::sleep(LOOK_AGAIN) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_under_its_circumstances_only() {
        assert_eq!(kept_proof("boot 1.0 true true", "boot 1.0 true "), Some(true));
        assert_eq!(kept_proof("boot 1.0 true false", "boot 1.0 true "), Some(false));
        for other in ["", "boot 1.0 false true", "boot 1.0 true ", "boot 1.0 true perhaps"] {
            assert_eq!(kept_proof(other, "boot 1.0 true "), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_task_that_ends_in_any_way_is_an_error() {
        let mut tasks = JoinSet::new();
        tasks.spawn(std::future::pending());
        tasks.spawn(async { panic!("as a task would") });
        assert!(format!("{:#}", first_end(&mut tasks).await).contains("broke"));
        tasks.spawn(async { anyhow!("ended") });
        assert_eq!(first_end(&mut tasks).await.to_string(), "ended");
    }

    #[tokio::test]
    async fn a_part_that_has_ended_is_no_quiet_end() {
        let (directory, mut directories) = watch::channel(Directory::default());
        let (fabric, mut statuses) = watch::channel(FabricStatus::default());
        fabric.send_replace(FabricStatus::default());
        news(&mut directories, &mut statuses).await.unwrap();
        drop(fabric);
        let error = news(&mut directories, &mut statuses).await.unwrap_err();
        assert!(error.to_string().contains("fabric's thread"), "{error}");
        drop(directory);
    }
}
