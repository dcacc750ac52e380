//! The directory of a cluster: LANs, nodes, and which instance sits where, followed as it changes.
//!
//! ```text
//! snapshot file (`loco up`) --inotify or 1 s poll--> read, parse, check ---------------+
//!                                                                                      v
//! Kubernetes: pods, endpoints of agents --watch--+--> assemble (pure) ---------> watch<Directory> --> agents, gateway
//!             file of LANs (ConfigMap)  ---------+
//! ```
//! **Invariants.** Whatever fails, the directory is never emptied by it: the last good snapshot stays in force, and the problem
//! is said beside it. A bad pod is left out and takes no other with it. Both sources end in the same type, so that nothing after
//! this crate knows which one it was.
#![forbid(unsafe_code)]

mod args;
mod assemble;
mod file;
mod kubernetes;
mod lans;
mod last_known;
mod stats;
mod thin;
mod watch;

use std::{
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use model::Snapshot;
use tokio::{
    sync::{mpsc, watch as channel},
    task::JoinHandle,
};

pub use self::{
    args::{KubernetesArgs, Source, SourceArgs, StartError, WrongUsage},
    assemble::{AGENT_PORT, AgentFact, PodFact, Problem, Problems, assemble},
    kubernetes::{AGENT_SERVICE, INSTANCE_SELECTOR, KubernetesSource, Pace},
    stats::{Stats, WatchStats},
};

/// The newest good snapshot, and what is wrong with a newer one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Directory {
    pub snapshot: Arc<Snapshot>,
    /// Seconds since the epoch at which `snapshot` was made; `None` before the first good one.
    pub loaded_at: Option<f64>,
    /// Why the source as it is now cannot be used, with the remedy. The directory is then stale.
    pub problem: Option<String>,
    /// Seconds since the epoch from which on the source may have said what is not in here; `None` while it is followed.
    pub stale_since: Option<f64>,
    /// What was left out of the snapshot, and why. Only Kubernetes has such: a file is good as a whole or not at all.
    pub problems: Arc<Problems>,
}

impl Directory {
    /// Marks it stale from `now` on, or from when it became so.
    fn fail(&mut self, problem: String, now: f64) {
        self.problem = Some(problem);
        self.stale_since.get_or_insert(now);
    }

    fn hold(&mut self) {
        self.problem = None;
        self.stale_since = None;
    }
}

/// What is followed, in words; it does not change while it is followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// `file` or `kubernetes`.
    pub mode: &'static str,
    /// A path, or the API's URL.
    pub source: String,
    pub namespace: Option<String>,
    /// Which pods are instances.
    pub selector: Option<String>,
    /// The Service whose endpoints are the agents.
    pub agent_service: Option<String>,
    pub lans: Option<String>,
    pub last_known: Option<String>,
}

/// Follows one source until it is dropped.
#[derive(Debug)]
pub struct Follower {
    receiver: channel::Receiver<Directory>,
    wake: mpsc::Sender<()>,
    info: Arc<Info>,
    stats: Arc<Stats>,
    task: JoinHandle<()>,
}

/// Makes the follower look now.
#[derive(Debug, Clone)]
pub struct Refresher(mpsc::Sender<()>);

impl Refresher {
    pub fn refresh(&self) {
        wake(&self.0);
    }
}

/// A wake-up that is already pending covers this one too: that is the policy for a full queue.
fn wake(sender: &mpsc::Sender<()>) {
    if let Err(mpsc::error::TrySendError::Closed(())) = sender.try_send(()) {
        tracing::debug!("the follower has ended");
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Follows what the flags said, at a program's pace.
    ///
    /// # Errors
    /// When there is no way to reach a Kubernetes API: no service account, an unusable kubeconfig. An API that does not answer is
    /// none: it is waited for.
    pub async fn start(source: &Source, pace: Pace) -> Result<Self, StartError> {
        match source {
            Source::File(path) => Ok(Self::file(path)),
            Source::Kubernetes(args) => Ok(Self::kubernetes(KubernetesSource::connect(args, pace).await?)),
        }
    }

    /// Reads the snapshot file at `path` once before it returns, then follows it in the background of the current runtime.
    pub fn file(path: &Path) -> Self {
        let info = Info { mode: "file", source: path.display().to_string(), ..Info::default() };
        let (wake, woken) = mpsc::channel(1);
        let (receiver, task) = file::start(path, wake.clone(), woken);
        Self { receiver, wake, info: Arc::new(info), stats: Arc::default(), task }
    }

    /// Follows pods and endpoints of a namespace in the background of the current runtime. Returns at once: the directory has
    /// no `loaded_at` until the API has told all of them.
    pub fn kubernetes(source: KubernetesSource) -> Self {
        let info = Arc::new(source.info());
        let (wake, woken) = mpsc::channel(1);
        let stats: Arc<Stats> = Arc::default();
        let (receiver, task) = kubernetes::start(source, woken, Arc::clone(&stats));
        Self { receiver, wake, info, stats, task }
    }

    pub fn watch(&self) -> channel::Receiver<Directory> {
        self.receiver.clone()
    }

    pub fn refresher(&self) -> Refresher {
        Refresher(self.wake.clone())
    }

    pub fn info(&self) -> Arc<Info> {
        Arc::clone(&self.info)
    }

    /// Counters of the watches; all zero when a file is followed.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
