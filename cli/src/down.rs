//! Takes a wall away: processes, mounts, namespaces, links, files. Works from what is found, not from what was planned,
//! so it also clears what `kill -9` of everything, or a half-failed `up`, has left.
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    mount::{MntFlags, umount2},
    unistd::Uid,
};

use crate::{lock, paths::Paths, processes, state::State, supervise, underlay};

/// Ends and removes all of the wall. Returns what was removed, one line each; nothing if there was nothing.
pub(crate) fn down(paths: &Paths, progress: impl Fn(&str)) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    ensure!(
        Uid::effective().is_root() || !paths.run().exists(),
        "{} is root's; run `loco down` as root or with sudo",
        paths.run().display()
    );
    if let Some(pid) = supervisor(paths) {
        progress("switching the guests off");
        processes::signal(pid, nix::sys::signal::Signal::SIGTERM)?;
        let deadline = std::time::Instant::now() + supervise::STOP_LIMIT;
        while processes::is_alive(pid) && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        if processes::is_alive(pid) {
            processes::signal(pid, nix::sys::signal::Signal::SIGKILL)?;
            removed.push(format!("supervisor {pid} (killed: it did not end in {} s)", supervise::STOP_LIMIT.as_secs()));
        } else {
            removed.push(format!("supervisor {pid} and its children"));
        }
    }
    removed.extend(remove(paths)?);
    Ok(removed)
}

/// The supervisor that holds the lock; `None`: none does.
pub(crate) fn supervisor(paths: &Paths) -> Option<i32> {
    let state = State::read(paths).ok()?;
    let pid = i32::try_from(state.supervisor_pid).ok()?;
    let other = state.supervisor_pid != std::process::id();
    (other && lock::is_held(paths) && processes::is_alive(pid)).then_some(pid)
}

/// Everything but an orderly shutdown: strays are ended, then what they held is removed.
pub(crate) fn remove(paths: &Paths) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let strays = processes::of_wall(paths);
    // First and alone: a runner switches its guest off in order, which a SIGTERM to QEMU itself would not.
    processes::ask(paths, "guest-runner", supervise::RUNNER_GRACE)?;
    processes::end(paths, Duration::from_secs(5))?;
    removed.extend(strays.iter().map(|process| format!("process {} {}", process.pid, process.name)));
    let something = !strays.is_empty() || paths.run().exists() || paths.disks().exists();
    // Also when nothing else is left: the next `up` would stumble over its name.
    if (something || Uid::effective().is_root()) && underlay::remove_host_link()? {
        removed.push(format!("link {}", underlay::HOST_LINK));
    }
    for path in mounts_below(paths.run())? {
        // Lazily: a namespace file that somebody looks at is busy, and the namespace ends with its last user anyway.
        umount2(&path, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}; root is needed", path.display()))?;
        removed.push(format!("mount {}", path.display()));
    }
    for dir in [paths.run(), paths.disks()] {
        match fs::remove_dir_all(dir) {
            Ok(()) => removed.push(format!("directory {}", dir.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => bail!("cannot remove {}: {error}", dir.display()),
        }
    }
    // Ours, unless somebody keeps other things in it.
    if let Some(parent) = paths.disks().parent().filter(|parent| parent.ends_with("loco"))
        && fs::remove_dir(parent).is_ok()
    {
        removed.push(format!("directory {}", parent.display()));
    }
    Ok(removed)
}

/// Deepest first.
fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let mut mounts: Vec<PathBuf> = mount_points(&table).filter(|path| path.starts_with(dir)).collect();
    mounts.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    Ok(mounts)
}

/// Fifth column of `mountinfo`, in which blanks are written as `\040` (`proc_pid_mountinfo(5)`).
fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    table.lines().filter_map(|line| {
        let point = line.split(' ').nth(4)?;
        Some(point.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\").into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_mount_points() {
        let table = "22 1 0:4 net:[1] /run/loco/netns/a\\040b rw - nsfs nsfs rw\n23 1 8:1 / / rw - ext4 /dev/x rw\nx\n";
        let points: Vec<_> = mount_points(table).collect();
        assert_eq!(points, [Path::new("/run/loco/netns/a b"), Path::new("/")]);
    }

    #[test]
    fn nothing_there_is_nothing_removed() {
        let dir = std::env::temp_dir().join(format!("loco-down-test-{}", std::process::id()));
        let paths = Paths::new(dir.join("run"), dir.join("disks"));
        assert_eq!(down(&paths, |_| ()).unwrap(), Vec::<String>::new());
    }
}
