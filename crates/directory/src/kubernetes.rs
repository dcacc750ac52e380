//! Follows pods, endpoints and the file of LANs, and puts the directory together from them.
//!
//! **Invariants.** Nothing is said before pods and endpoints were both listed once. While the API is away, or the file of LANs
//! is not usable, what was known stays in force and is marked stale. Putting together takes a bounded part of the time: with
//! 10,000 instances, changes that come fast are taken together.
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use kube::{Api, Client, Config, config::KubeConfigOptions};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinHandle},
    time::{self, Instant},
};

use crate::{
    Directory, Info, KubernetesArgs, StartError, Stats,
    assemble::{AgentFact, PodFact, assemble},
    file::{POLL, watch_folder},
    lans::Lans,
    last_known::LastKnown,
    now,
    thin::{ThinPod, ThinSlice},
    watch::{Again, Heard, Watch, words},
};

/// Which pods are instances.
pub const INSTANCE_SELECTOR: &str = "app.kubernetes.io/component=instance";
/// Name of the agents' headless Service, unless the flags say another.
pub const AGENT_SERVICE: &str = "loco-node-agent";

/// What waits to be taken in; a full queue holds the connection to the API back.
const QUEUE: usize = 256;
/// A change waits for others that come with it, such as the pods of one rollout.
const COALESCE: Duration = Duration::from_millis(50);
/// Putting together takes at most one part in so many of the time.
const SHARE: u32 = 8;
/// A watch that is taken up again within this time was not away: APIs are restarted one after the other.
const BLIP: Duration = Duration::from_secs(2);
/// A program that starts waits so long for the API before it goes by what was known last.
const PATIENCE: Duration = Duration::from_secs(3);
/// For the API to say that it is there.
const PROBE_ANSWER: Duration = Duration::from_secs(2);
/// What was known last is written at most so often.
const KEEP: Duration = Duration::from_secs(1);
/// Everything is listed anew at most so often, however often people ask.
const REFRESH: Duration = Duration::from_secs(5);

/// How often the API is asked whether it is still there: a connection through a dead machine says nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub probe: Duration,
}

impl Pace {
    /// People look at what the gateway shows; there are two or three of them.
    pub const GATEWAY: Self = Self { probe: Duration::from_secs(2) };
    /// There may be a thousand, and the LAN plays on either way.
    pub const AGENT: Self = Self { probe: Duration::from_secs(15) };
}

/// A Kubernetes API, and what of it is followed.
#[derive(Clone)]
pub struct KubernetesSource {
    pub client: Client,
    /// The API's URL, to be shown.
    pub url: String,
    pub namespace: String,
    pub agent_service: String,
    /// File of the LANs.
    pub lans: PathBuf,
    /// Snapshot file to go by, and to write.
    pub last_known: Option<PathBuf>,
    pub pace: Pace,
}

impl std::fmt::Debug for KubernetesSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KubernetesSource({}, {})", self.url, self.namespace)
    }
}

impl KubernetesSource {
    /// By the pod's service account, or by KUBECONFIG. Asks the API nothing yet.
    ///
    /// # Errors
    /// When there is neither, or what is there cannot be used.
    pub async fn connect(args: &KubernetesArgs, pace: Pace) -> Result<Self, StartError> {
        let access = |problem: String| StartError::Access { problem };
        // What was asked for by name comes first: in a pod nobody sets KUBECONFIG by accident.
        let mut config = if std::env::var_os("KUBECONFIG").is_some() {
            Config::from_kubeconfig(&KubeConfigOptions::default()).await.map_err(|error| access(chain(&error)))?
        } else {
            Config::incluster().map_err(|error| access(chain(&error)))?
        };
        // A proxy of the environment is for the internet; the API is in the cluster.
        config.proxy_url = None;
        // How often and how long is this crate's own to say.
        config.default_retry = false;
        config.connect_timeout = Some(PROBE_ANSWER);
        let url = config.cluster_url.to_string();
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config)
            .map_err(|error| StartError::Client { url: url.clone(), problem: chain(&error) })?;
        Ok(Self {
            client,
            url,
            namespace,
            agent_service: args.agent_service.clone(),
            lans: args.lans.clone(),
            last_known: args.last_known.clone(),
            pace,
        })
    }

    pub(crate) fn info(&self) -> Info {
        Info {
            mode: "kubernetes",
            source: self.url.clone(),
            namespace: Some(self.namespace.clone()),
            selector: Some(INSTANCE_SELECTOR.to_owned()),
            agent_service: Some(self.agent_service.clone()),
            lans: Some(self.lans.display().to_string()),
            last_known: self.last_known.as_ref().map(|path| path.display().to_string()),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

pub(crate) fn start(
    source: KubernetesSource,
    woken: mpsc::Receiver<()>,
    stats: Arc<Stats>,
) -> (watch::Receiver<Directory>, JoinHandle<()>) {
    let (sender, receiver) = watch::channel(Directory::default());
    let task = tokio::spawn(follow(source, woken, stats, sender));
    (receiver, task)
}

/// One resource as it is known.
#[derive(Debug)]
struct Known<F> {
    facts: BTreeMap<String, F>,
    /// What was told since the last [`Heard::Listing`], until the list is whole.
    listing: Option<BTreeMap<String, F>>,
    listed: bool,
    /// Why it is not followed, and since when.
    away: Option<(String, Instant)>,
}

impl<F: PartialEq> Known<F> {
    fn new() -> Self {
        Self {
            facts: BTreeMap::new(),
            listing: None,
            listed: false,
            away: Some(("was not asked yet".into(), Instant::now())),
        }
    }

    /// Takes it in: whether the facts are others now.
    fn hear(&mut self, heard: Heard<F>) -> bool {
        match heard {
            Heard::Listing => {
                self.listing = Some(BTreeMap::new());
                false
            }
            Heard::Is(name, fact) => match &mut self.listing {
                Some(listing) => {
                    listing.insert(name, fact);
                    false
                }
                None if self.facts.get(&name) == Some(&fact) => false,
                None => {
                    self.facts.insert(name, fact);
                    true
                }
            },
            Heard::Gone(name) => match &mut self.listing {
                Some(listing) => {
                    listing.remove(&name);
                    false
                }
                None => self.facts.remove(&name).is_some(),
            },
            Heard::Listed => {
                let listed = self.listing.take().unwrap_or_default();
                let changed = !self.listed || listed != self.facts;
                self.facts = listed;
                self.listed = true;
                changed
            }
            Heard::Following => {
                self.away = None;
                false
            }
            Heard::Away(why) => {
                // A list that broke off is no list.
                self.listing = None;
                match &mut self.away {
                    Some((words, _)) => *words = why,
                    None => self.away = Some((why, Instant::now())),
                }
                false
            }
        }
    }
}

/// Ends with its owner.
#[derive(Debug)]
struct Ends(AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Following {
    pods: Known<PodFact>,
    slices: Known<Vec<AgentFact>>,
    lans: Lans,
    last_known: Option<LastKnown>,
    /// The API's last answer to a probe: why it is not there, and since when.
    unanswered: Option<(String, Instant)>,
    /// Facts changed and were not put together yet.
    changed: bool,
    began: Instant,
    /// How long putting together took.
    took: Duration,
    /// Not written to the file yet.
    unwritten: bool,
    wrote: Option<Instant>,
    /// What was known last was asked for, as the API did not answer.
    recalled: bool,
    refreshed: Option<Instant>,
}

async fn follow(
    source: KubernetesSource,
    mut woken: mpsc::Receiver<()>,
    stats: Arc<Stats>,
    sender: watch::Sender<Directory>,
) {
    let (file_wake, mut file_woken) = mpsc::channel(1);
    let watcher = watch_folder(&source.lans, file_wake);
    if let Err(error) = &watcher {
        tracing::warn!(path = %source.lans.display(), %error, "no file notifications; the file of LANs is looked at every second");
    }
    let (again, asked) = watch::channel(Again::default());
    let (pods, mut heard_pods) = mpsc::channel(QUEUE);
    let (slices, mut heard_slices) = mpsc::channel(QUEUE);
    let namespace = &source.namespace;
    let pod_watch = Watch::<ThinPod> {
        api: Api::namespaced(source.client.clone(), namespace),
        labels: INSTANCE_SELECTOR.to_owned(),
        stats: Arc::clone(&stats),
        mine: |stats| &stats.pods,
    };
    let slice_watch = Watch::<ThinSlice> {
        api: Api::namespaced(source.client.clone(), namespace),
        labels: format!("kubernetes.io/service-name={}", source.agent_service),
        stats,
        mine: |stats| &stats.endpoints,
    };
    let (answers, mut probed) = mpsc::channel(1);
    let _ends = [
        Ends(tokio::spawn(pod_watch.run(pods, asked.clone())).abort_handle()),
        Ends(tokio::spawn(slice_watch.run(slices, asked)).abort_handle()),
        Ends(tokio::spawn(probe(source.client.clone(), source.pace, answers)).abort_handle()),
    ];
    let mut following = Following::new(&source);
    let mut tick = time::interval(POLL);
    tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut due: Option<Instant> = None;
    let mut made = Instant::now();
    loop {
        let wait = due;
        tokio::select! {
            // One of these tasks has ended: only a fault of ours does that. Whoever reads the directory sees its end.
            heard = heard_pods.recv() => match heard {
                Some(heard) => following.changed |= following.pods.hear(heard),
                None => return,
            },
            heard = heard_slices.recv() => match heard {
                Some(heard) => following.changed |= following.slices.hear(heard),
                None => return,
            },
            answer = probed.recv() => match answer {
                Some(answer) => following.answered(answer, &again),
                None => return,
            },
            Some(()) = woken.recv() => following.refresh(&again),
            Some(()) = file_woken.recv() => following.changed |= following.lans.read(),
            _ = tick.tick() => following.changed |= following.lans.read(),
            () = async { time::sleep_until(wait.unwrap_or_else(Instant::now)).await }, if wait.is_some() => {
                due = None;
                following.publish(&sender);
                made = Instant::now();
                continue;
            }
        }
        if due.is_none() && following.differs(&sender.borrow()) {
            // A share of the time at most, and a moment for what comes with it.
            due = Some((made + following.took * SHARE).max(Instant::now() + COALESCE));
        }
        following.write(&sender);
    }
}

/// Asks the API whether it is there, for as long as anybody wants to know.
async fn probe(client: Client, pace: Pace, answers: mpsc::Sender<Result<(), String>>) {
    loop {
        time::sleep(pace.probe).await;
        let answer = match time::timeout(PROBE_ANSWER, client.apiserver_version()).await {
            // Any answer shows that it is there; whether it lets us watch is the watch's to say.
            Ok(Ok(_) | Err(kube::Error::Api(_))) => Ok(()),
            Ok(Err(error)) => Err(words(&error)),
            Err(_) => Err(format!("the API does not answer within {} s", PROBE_ANSWER.as_secs())),
        };
        if answers.send(answer).await.is_err() {
            return;
        }
    }
}

impl Following {
    fn new(source: &KubernetesSource) -> Self {
        let mut lans = Lans::new(&source.lans);
        lans.read();
        Self {
            pods: Known::new(),
            slices: Known::new(),
            lans,
            last_known: source.last_known.as_deref().map(LastKnown::new),
            unanswered: None,
            changed: false,
            began: Instant::now(),
            took: Duration::ZERO,
            unwritten: false,
            wrote: None,
            recalled: false,
            refreshed: None,
        }
    }

    /// Somebody wants everything to be asked for anew; that costs the API something, so not more often than [`REFRESH`].
    fn refresh(&mut self, again: &watch::Sender<Again>) {
        self.changed |= self.lans.read();
        if self.refreshed.is_none_or(|last| last.elapsed() >= REFRESH) {
            self.refreshed = Some(Instant::now());
            again.send_modify(|again| again.list += 1);
        }
    }

    fn answered(&mut self, answer: Result<(), String>, again: &watch::Sender<Again>) {
        match (answer, &mut self.unanswered) {
            (Ok(()), unanswered @ Some(_)) => {
                // The watches' connections may have died with the way there, and nobody would tell them.
                *unanswered = None;
                again.send_modify(|again| again.connect += 1);
            }
            (Ok(()), None) => {}
            (Err(why), Some((words, _))) => *words = why,
            (Err(why), unanswered @ None) => *unanswered = Some((why, Instant::now())),
        }
    }

    fn listed(&self) -> bool {
        self.pods.listed && self.slices.listed && self.lans.good().is_some()
    }

    /// Why what is known may not be what is.
    fn problem(&self) -> Option<String> {
        let lasting = |away: &Option<(String, Instant)>| {
            away.as_ref().filter(|(_, since)| since.elapsed() >= BLIP).map(|(why, _)| why.clone())
        };
        let reasons = [
            self.lans.problem().map(ToOwned::to_owned),
            lasting(&self.unanswered),
            lasting(&self.pods.away).map(|why| format!("pods: {why}")),
            lasting(&self.slices.away).map(|why| format!("endpoints of agents: {why}")),
        ];
        let mut reasons: Vec<String> = reasons.into_iter().flatten().collect();
        // The API is away as a whole: once is enough.
        reasons.truncate(1);
        reasons.pop()
    }

    /// Whether there is anything to say that `said` does not.
    fn differs(&self, said: &Directory) -> bool {
        let problem = self.problem();
        (self.listed() && self.changed)
            || (problem != said.problem && (self.listed() || problem.is_some()))
            || self.recalls(said)
    }

    /// Whether it is time to go by what was known last.
    fn recalls(&self, said: &Directory) -> bool {
        let nothing = said.loaded_at.is_none() && !self.listed();
        nothing && self.last_known.is_some() && !self.recalled && self.began.elapsed() >= PATIENCE
    }

    fn publish(&mut self, sender: &watch::Sender<Directory>) {
        let mut next = sender.borrow().clone();
        let problem = self.problem();
        if self.listed() && (self.changed || next.loaded_at.is_none()) {
            let began = Instant::now();
            let lans = self.lans.good().unwrap_or_default();
            let (snapshot, problems) = assemble(lans, self.pods.facts.values(), self.slices.facts.values().flatten());
            self.took = began.elapsed();
            self.changed = false;
            if *next.snapshot != snapshot || next.loaded_at.is_none() {
                tracing::info!(
                    instances = snapshot.instances().count(),
                    nodes = snapshot.nodes().count(),
                    left_out = problems.count,
                    "the directory changed"
                );
                next.snapshot = Arc::new(snapshot);
                self.unwritten = true;
            }
            if *next.problems != problems {
                for problem in &problems.first {
                    if !next.problems.first.contains(problem) {
                        tracing::warn!(subject = problem.subject, problem = problem.text, "left out of the directory");
                    }
                }
                next.problems = Arc::new(problems);
            }
            next.loaded_at = Some(now());
        } else if self.recalls(&next) {
            self.recall(&mut next);
        }
        match problem {
            Some(problem) => {
                if next.problem.is_none() {
                    tracing::warn!(problem, "the directory is stale; what was known last stays in force");
                }
                next.fail(problem, now());
            }
            None if self.listed() => {
                if next.problem.is_some() {
                    tracing::info!("the directory is followed again");
                }
                next.hold();
            }
            None => {}
        }
        sender.send_if_modified(|current| {
            let changed = next != *current;
            if changed {
                *current = next;
            }
            changed
        });
    }

    fn recall(&mut self, next: &mut Directory) {
        self.recalled = true;
        let Some(file) = &self.last_known else { return };
        match file.read() {
            Ok(snapshot) => {
                let (path, instances) = (file.path().display(), snapshot.instances().count());
                tracing::warn!(%path, instances, "the API has not answered; going by what was known last");
                next.snapshot = Arc::new(snapshot);
                next.loaded_at = Some(now());
                next.fail(
                    "the API has not answered since the start; what was known before is in force".to_owned(),
                    now(),
                );
            }
            Err(problem) => tracing::warn!(problem, "there is no last known directory to go by"),
        }
    }

    /// Keeps what is known now for a start without the API.
    fn write(&mut self, sender: &watch::Sender<Directory>) {
        let Some(file) = self.last_known.as_ref().filter(|_| self.unwritten && self.listed()) else { return };
        if self.wrote.is_some_and(|wrote| wrote.elapsed() < KEEP) {
            return;
        }
        self.unwritten = false;
        self.wrote = Some(Instant::now());
        let (file, snapshot) = (file.clone(), Arc::clone(&sender.borrow().snapshot));
        tokio::task::spawn_blocking(move || file.write(&snapshot));
    }
}
