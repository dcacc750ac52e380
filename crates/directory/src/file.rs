//! Follows the snapshot file: the directory of a cluster without Kubernetes.
//!
//! **Invariants.** A file that is missing, torn or contradictory never empties the directory. A change is followed at once; a
//! replaced file (rename) and one written in place are both seen; the poll makes up for file systems that report nothing.
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecursiveMode, Watcher as _};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time,
};

use crate::{Directory, now, wake};

/// Looks again even if nobody said anything.
pub(crate) const POLL: Duration = Duration::from_secs(1);
/// A snapshot of 10,000 instances is about 1 MB; more than this is not a snapshot.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

pub(crate) fn start(
    path: &Path,
    wake: mpsc::Sender<()>,
    woken: mpsc::Receiver<()>,
) -> (watch::Receiver<Directory>, JoinHandle<()>) {
    // Watched before it is read: a change between the two is then seen, not missed.
    let watcher = watch_folder(path, wake);
    let mut first = Directory::default();
    let mut seen = None;
    read_into(path, &mut first, &mut seen);
    let (sender, receiver) = watch::channel(first);
    let task = tokio::spawn(follow(path.to_owned(), sender, watcher, woken, seen));
    (receiver, task)
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

/// The folder is watched and not the file: a rename over the file would end a watch on the old inode. A mounted `ConfigMap`
/// changes by a rename of its folder `..data`.
pub(crate) fn watch_folder(path: &Path, wake_sender: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    let name = path.file_name().map(ToOwned::to_owned);
    let ours = move |path: &PathBuf| path.file_name() == name.as_deref() || path.ends_with("..data");
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_err() || event.is_ok_and(|e| !e.kind.is_access() && e.paths.iter().any(&ours)) {
            wake(&wake_sender);
        }
    })?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Reads the file; `seen` is the last text judged, so that an unchanged file costs no parsing and keeps its time.
fn read_into(path: &Path, directory: &mut Directory, seen: &mut Option<String>) {
    let text = match read(path, "`loco up` writes it, or give another with --snapshot") {
        Ok(text) => text,
        Err(problem) => {
            *seen = None;
            return directory.fail(problem, now());
        }
    };
    if seen.as_ref() == Some(&text) {
        return;
    }
    match api::snapshot::parse(&text) {
        Ok(snapshot) => {
            directory.snapshot = Arc::new(snapshot);
            directory.loaded_at = Some(now());
            directory.hold();
        }
        Err(error) => directory.fail(format!("{}: {error}", path.display()), now()),
    }
    *seen = Some(text);
}

/// The text of a file that somebody else writes, or why there is none, with the remedy.
pub(crate) fn read(path: &Path, remedy: &str) -> Result<String, String> {
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|error| format!("{shown} cannot be read: {error}; {remedy}"))?;
    if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
        return Err(format!(
            "{shown} is not a file of the cluster: it must be a regular file of at most 16 MiB; {remedy}"
        ));
    }
    std::fs::read_to_string(path).map_err(|error| format!("{shown} cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Follower;

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
        let follower = Follower::file(&place.file());
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
        let stale_since = watch.borrow().stale_since;
        assert!(stale_since.is_some());

        std::fs::remove_file(place.file()).unwrap();
        until(&mut watch, |d| d.problem.as_ref().is_some_and(|p| p.contains("cannot be read"))).await;
        assert_eq!(watch.borrow().snapshot.instances().count(), 3);
        assert_eq!(watch.borrow().stale_since, stale_since, "from when it became so, however the reason changes");

        std::fs::write(place.file(), text(4)).unwrap();
        until(&mut watch, |d| d.problem.is_none() && d.stale_since.is_none() && d.snapshot.instances().count() == 4)
            .await;
    }

    #[tokio::test]
    async fn a_missing_file_is_a_problem_and_not_an_end() {
        let place = Place::new("missing");
        let follower = Follower::file(&place.file());
        let mut watch = follower.watch();
        assert!(watch.borrow().problem.as_ref().unwrap().contains("--snapshot"));
        assert_eq!(watch.borrow().loaded_at, None);
        std::fs::write(place.file(), text(1)).unwrap();
        until(&mut watch, |d| d.loaded_at.is_some() && d.problem.is_none()).await;
    }
}
