//! Follows the snapshot file: the directory of a cluster without Kubernetes.
//!
//! ```text
//! file --inotify (its folder) or 1 s poll--> read, parse, check --> watch<Directory>
//! ```
//! **Invariants.** A file that is missing, torn or contradictory never empties the directory: the last good snapshot stays in
//! force and the problem is said beside it. A change is followed at once; a replaced file (rename) and one written in place
//! are both seen; the poll makes up for file systems that report nothing.
#![forbid(unsafe_code)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use model::Snapshot;
use notify::{RecursiveMode, Watcher as _};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time,
};

/// Looks again even if nobody said anything.
const POLL: Duration = Duration::from_secs(1);
/// A snapshot of 10,000 instances is about 1 MB; more than this is not a snapshot.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The newest good snapshot, and what is wrong with a newer one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Directory {
    pub snapshot: Arc<Snapshot>,
    /// Seconds since the epoch at which `snapshot` was read; `None` before the first good one.
    pub loaded_at: Option<f64>,
    /// Why the file as it is now cannot be used, with the remedy.
    pub problem: Option<String>,
}

/// Follows one file until it is dropped.
#[derive(Debug)]
pub struct Follower {
    receiver: watch::Receiver<Directory>,
    wake: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

/// Makes the follower read the file now.
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
    /// Reads `path` once before it returns, then follows it in the background of the current runtime.
    pub fn start(path: &Path) -> Self {
        // Watched before it is read: a change between the two is then seen, not missed.
        let (wake, woken) = mpsc::channel(1);
        let watcher = watch_folder(path, wake.clone());
        let mut first = Directory::default();
        let mut seen = None;
        read_into(path, &mut first, &mut seen);
        let (sender, receiver) = watch::channel(first);
        let task = tokio::spawn(follow(path.to_owned(), sender, watcher, woken, seen));
        Self { receiver, wake, task }
    }

    pub fn watch(&self) -> watch::Receiver<Directory> {
        self.receiver.clone()
    }

    pub fn refresher(&self) -> Refresher {
        Refresher(self.wake.clone())
    }
}

async fn follow(
    path: PathBuf,
    sender: watch::Sender<Directory>,
    watcher: notify::Result<notify::RecommendedWatcher>,
    mut woken: mpsc::Receiver<()>,
    mut seen: Option<String>,
) {
    if let Err(error) = &watcher {
        tracing::warn!(path = %path.display(), %error, "no file notifications; the snapshot is looked at every second");
    }
    loop {
        tokio::select! {
            _ = woken.recv() => {}
            () = time::sleep(POLL) => {}
        }
        let mut next = sender.borrow().clone();
        read_into(&path, &mut next, &mut seen);
        sender.send_if_modified(|current| {
            let changed = next != *current;
            if changed {
                match &next.problem {
                    Some(problem) if current.problem.as_ref() != Some(problem) => {
                        tracing::warn!(path = %path.display(), problem, "snapshot not usable; the last good one stays in force");
                    }
                    _ => tracing::info!(path = %path.display(), instances = next.snapshot.instances().count(), "snapshot loaded"),
                }
                *current = next;
            }
            changed
        });
    }
}

/// The folder is watched and not the file: a rename over the file would end a watch on the old inode.
fn watch_folder(path: &Path, wake_sender: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    let name = path.file_name().map(ToOwned::to_owned);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let ours = event.is_err()
            || event.is_ok_and(|e| !e.kind.is_access() && e.paths.iter().any(|p| p.file_name() == name.as_deref()));
        if ours {
            wake(&wake_sender);
        }
    })?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Reads the file; `seen` is the last text judged, so that an unchanged file costs no parsing and keeps its time.
fn read_into(path: &Path, directory: &mut Directory, seen: &mut Option<String>) {
    let text = match read(path) {
        Ok(text) => text,
        Err(problem) => {
            *seen = None;
            directory.problem = Some(problem);
            return;
        }
    };
    if seen.as_ref() == Some(&text) {
        return;
    }
    match api::snapshot::parse(&text) {
        Ok(snapshot) => {
            *directory = Directory { snapshot: Arc::new(snapshot), loaded_at: Some(now()), problem: None };
        }
        Err(error) => directory.problem = Some(format!("{}: {error}", path.display())),
    }
    *seen = Some(text);
}

fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|error| {
        format!("{shown} cannot be read: {error}; `loco up` writes it, or give another with --snapshot")
    })?;
    if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
        return Err(format!("{shown} is not a snapshot file: it must be a regular file of at most 16 MiB"));
    }
    std::fs::read_to_string(path).map_err(|error| format!("{shown} cannot be read: {error}"))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("loco-directory-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn file(&self) -> PathBuf {
            self.0.join("snapshot.json")
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn text(instances: usize) -> String {
        let instances: Vec<String> = (0..instances)
            .map(|i| format!(r#"{{"id":"instance-{i}","lan":"party","seat":{i},"node":"node-a"}}"#))
            .collect();
        format!(
            r#"{{"version":1,"lans":[{{"name":"party","vni":4200,"mode":"vxlan","subnet":"10.98.0.0/24","seats":9}}],
            "nodes":[{{"name":"node-a","underlay_ip":"10.99.0.11","agent_url":"http://10.99.0.11:14780"}}],"instances":[{}]}}"#,
            instances.join(",")
        )
    }

    async fn until(watch: &mut watch::Receiver<Directory>, want: impl FnMut(&Directory) -> bool) {
        time::timeout(Duration::from_secs(5), watch.wait_for(want)).await.expect("in time").expect("follower lives");
    }

    #[tokio::test]
    async fn follows_writes_in_place_and_renames_and_keeps_the_last_good_one() {
        let place = Place::new("follow");
        std::fs::write(place.file(), text(1)).unwrap();
        let follower = Follower::start(&place.file());
        let mut watch = follower.watch();
        assert_eq!(watch.borrow().snapshot.instances().count(), 1);

        std::fs::write(place.file(), text(2)).unwrap();
        until(&mut watch, |d| d.snapshot.instances().count() == 2).await;

        let other = place.0.join("new");
        std::fs::write(&other, text(3)).unwrap();
        std::fs::rename(&other, place.file()).unwrap();
        until(&mut watch, |d| d.snapshot.instances().count() == 3).await;

        std::fs::write(place.file(), "{\"version\":1,").unwrap();
        until(&mut watch, |d| d.problem.as_ref().is_some_and(|p| p.contains("EOF"))).await;
        assert_eq!(watch.borrow().snapshot.instances().count(), 3);

        std::fs::remove_file(place.file()).unwrap();
        until(&mut watch, |d| d.problem.as_ref().is_some_and(|p| p.contains("cannot be read"))).await;
        assert_eq!(watch.borrow().snapshot.instances().count(), 3);

        std::fs::write(place.file(), text(4)).unwrap();
        until(&mut watch, |d| d.problem.is_none() && d.snapshot.instances().count() == 4).await;
    }

    #[tokio::test]
    async fn a_missing_file_is_a_problem_and_not_an_end() {
        let place = Place::new("missing");
        let follower = Follower::start(&place.file());
        let mut watch = follower.watch();
        assert!(watch.borrow().problem.as_ref().unwrap().contains("--snapshot"));
        assert_eq!(watch.borrow().loaded_at, None);
        std::fs::write(place.file(), text(1)).unwrap();
        until(&mut watch, |d| d.loaded_at.is_some() && d.problem.is_none()).await;
    }
}
