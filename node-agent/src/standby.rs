//! One agent per run directory, and the change from one to the next.
//!
//! ```text
//!              the directory is free ────────────────────────────────> serves
//! starts ──────┤                                                          ^
//!              └ another agent has it ──> stands by ── it let go, or died ┘
//!                        └ without `--stand-by`: refused in words
//! ```
//! **Invariants.** The lock on `agent.lock` is the only thing that says whose the directory is: the kernel lets go of it with the
//! process, however that ends. Whoever holds it may bind, open and answer; whoever stands by has only read and prepared. The lock
//! counts only if the locked file is still the one at that path: an uninstall removes it.
//!
//! **The probe.** A second agent cannot be asked over the node's port, which the first one has. It answers at a Unix socket of its
//! own container: one line with its phase, then one for each condition that does not hold. It is told, never asked back.
use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use telemetry::Health;
use tokio::{io::AsyncWriteExt as _, net::UnixListener, sync::oneshot, sync::watch, task::JoinHandle, time};

/// An answer is some lines to a reader that is there already: one that does not take them is not waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Pause after `accept` failed, which it does when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long `node-agent probe` waits for an answer. The kubelet's own limit is longer, so that this one's words are seen.
const ASK_LIMIT: Duration = Duration::from_secs(3);
/// Longest answer that is read, in bytes: some conditions with a sentence each.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// How far an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Starts,
    StandsBy,
    Serves,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Starts, Self::StandsBy, Self::Serves];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Starts => "starts",
            Self::StandsBy => "stands-by",
            Self::Serves => "serves",
        }
    }
}

/// The run directory is this process's until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<fs::File>,
}

/// Where the lock of a run directory is.
pub(crate) fn lock_file(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.lock")
}

/// Takes the lock if nobody has it.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when another agent has it; else why the file could not be made.
pub(crate) fn try_lock(path: &Path) -> io::Result<Lock> {
    lock(path, FlockArg::LockExclusiveNonblock)
}

fn lock(path: &Path, how: FlockArg) -> io::Result<Lock> {
    loop {
        let file = fs::File::create(path)?;
        let file = Flock::lock(file, how).map_err(|(_, errno)| io::Error::from(errno))?;
        let ours = file.metadata()?;
        // Who waited may have got the lock of a file that was removed meanwhile, beside which another may stand.
        if fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(Lock { _file: file });
        }
    }
}

/// Waits for the lock for as long as another agent has it. The kernel wakes the waiter, so nothing is polled.
///
/// # Errors
/// When the file cannot be made or locked at all.
pub(crate) async fn wait(path: PathBuf) -> io::Result<Lock> {
    let (sender, locked) = oneshot::channel();
    // Not a thread of the runtime: that would wait for it at the end, and so for the other agent.
    thread::Builder::new().name("stand-by".to_owned()).spawn(move || {
        // Nobody waits any more: the lock goes with its value.
        sender.send(lock(&path, FlockArg::LockExclusive)).ok();
    })?;
    locked.await.unwrap_or_else(|_| Err(io::Error::other("the thread that waits for the lock broke")))
}

/// Tells at a socket how far this agent is, until it is dropped.
#[derive(Debug)]
pub(crate) struct Teller {
    task: JoinHandle<()>,
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Teller {
    /// Takes the place of whatever an earlier process of this container left at `path`.
    ///
    /// # Errors
    /// When the socket cannot be made there.
    pub(crate) fn open(path: &Path, phase: watch::Receiver<Phase>, health: Health) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        let path: Arc<Path> = path.into();
        let task = tokio::spawn(async move {
            loop {
                // One at a time; who comes meanwhile waits in the socket.
                match listener.accept().await {
                    Ok((mut socket, _)) => {
                        let answer = answer(*phase.borrow(), &health.failing_conditions());
                        // Who has left, or does not read, has no answer.
                        time::timeout(ANSWER_LIMIT, socket.write_all(answer.as_bytes())).await.ok();
                    }
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "could not accept a probe");
                        time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
        Ok(Self { task })
    }
}

fn answer(phase: Phase, failing: &[(String, String)]) -> String {
    let mut text = format!("{}\n", phase.as_str());
    for (name, reason) in failing {
        text.extend([name.as_str(), " (", &reason.replace('\n', " "), ")\n"]);
    }
    text
}

/// Asks the agent whose `--probe-socket` is `socket`; what it says, in one line.
///
/// # Errors
/// When it does not answer, has not started, or, with `ready`, serves and lacks something: each in words.
pub fn probe(socket: &Path, ready: bool) -> anyhow::Result<String> {
    let whose = || format!("the agent does not answer at {}; look at its log", socket.display());
    let stream = std::os::unix::net::UnixStream::connect(socket).with_context(whose)?;
    stream.set_read_timeout(Some(ASK_LIMIT)).with_context(whose)?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text).with_context(whose)?;
    judge(&text, ready)
}

/// What an answer means for a probe.
fn judge(answer: &str, ready: bool) -> anyhow::Result<String> {
    let mut lines = answer.lines();
    let said = lines.next().unwrap_or_default();
    let lacks = lines.collect::<Vec<_>>().join("; ");
    match Phase::ALL.into_iter().find(|phase| phase.as_str() == said) {
        None => bail!("what answers is no agent of this version: `{said:.80}`"),
        Some(Phase::Starts) => bail!("the agent has not started yet"),
        Some(Phase::StandsBy) => Ok("stands by for the agent that serves".to_owned()),
        Some(Phase::Serves) if ready && !lacks.is_empty() => bail!("the agent serves and is not ready: {lacks}"),
        Some(Phase::Serves) => Ok("serves".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("loco-standby-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[tokio::test]
    async fn who_waits_has_the_lock_when_it_is_let_go_and_not_before() {
        let dir = Dir::new("lock");
        let path = lock_file(&dir.0);
        let first = try_lock(&path).unwrap();
        assert_eq!(try_lock(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let waiting = tokio::spawn(wait(path.clone()));
        // Nothing can be waited for that must not happen: a slow machine only sees less of it.
        time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        drop(first);
        let _second = time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap().unwrap();
        assert_eq!(try_lock(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn the_lock_of_a_file_that_was_removed_is_none() {
        let dir = Dir::new("removed");
        let path = lock_file(&dir.0);
        let first = try_lock(&path).unwrap();
        let waiting = tokio::spawn(wait(path.clone()));
        // It has the old file open, or it will open the new one: both must end with the new one's lock.
        time::sleep(Duration::from_millis(50)).await;
        fs::remove_file(&path).unwrap();
        drop(first);
        let _second = time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap().unwrap();
        assert_eq!(try_lock(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock, "the file that is there is locked");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_probe_hears_the_phase_and_what_is_lacking() {
        let dir = Dir::new("probe");
        let path = dir.0.join("probe.sock");
        let (phase, health) = (watch::Sender::new(Phase::Starts), Health::new());
        let ask = async |ready| {
            let path = path.clone();
            tokio::task::spawn_blocking(move || probe(&path, ready).map_err(|error| format!("{error:#}")))
                .await
                .unwrap()
        };
        assert!(ask(false).await.unwrap_err().contains("probe.sock"), "nobody is there");
        // As a process that was killed leaves it.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(ask(false).await.is_err());
        let teller = Teller::open(&path, phase.subscribe(), health.clone()).unwrap();
        assert!(ask(false).await.unwrap_err().contains("not started"));
        let fabric = health.condition("fabric", "no pass was\nmade yet");
        phase.send_replace(Phase::StandsBy);
        assert!(ask(false).await.is_ok() && ask(true).await.is_ok(), "what is lacking is the other's affair");
        phase.send_replace(Phase::Serves);
        assert!(ask(false).await.is_ok(), "an agent that has something to tell has started");
        assert_eq!(ask(true).await.unwrap_err(), "the agent serves and is not ready: fabric (no pass was made yet)");
        fabric.hold();
        assert!(ask(true).await.is_ok());
        drop(teller);
        testkit::eventually(Duration::from_secs(20), || probe(&path, false).err()).await.unwrap();
    }

    #[test]
    fn rubbish_is_no_agent() {
        for text in ["", "\n", "HTTP/1.1 400 Bad Request", "serves not", "Serves"] {
            assert!(judge(text, false).unwrap_err().to_string().contains("no agent"), "{text}");
        }
    }
}
