//! Processes of a wall, found in `/proc` without anybody's memory of them.
//!
//! Two marks, either is enough: the environment variable [`MARKER`] that every child of the supervisor inherits, and
//! life inside one of the wall's network namespaces. So what survived its parents is found as well.
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::paths::{MARKER, Paths};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// As the kernel names it (at most 15 bytes).
    pub(crate) name: String,
}

/// All processes of the wall at `paths` but this one and its ancestors. Those of other users are only seen by root.
pub(crate) fn of_wall(paths: &Paths) -> Vec<Process> {
    let spared = ancestors_and_self();
    let namespaces = namespaces(paths);
    let mark = format!("{MARKER}={}", paths.run().display());
    let is_ours = |pid: i32| {
        let dir = Path::new("/proc").join(pid.to_string());
        let marked = fs::read(dir.join("environ")).is_ok_and(|environ| has_entry(&environ, mark.as_bytes()));
        marked || fs::metadata(dir.join("ns/net")).is_ok_and(|ns| namespaces.contains(&(ns.dev(), ns.ino())))
    };
    all().filter(|pid| !spared.contains(pid) && is_ours(*pid)).filter_map(process).collect()
}

/// QEMU of the runner `runner`: its child, which names itself after the instance.
pub(crate) fn qemu_of(runner: i32) -> Option<i32> {
    all().find(|pid| stat(*pid).is_some_and(|stat| stat.parent == runner && stat.name.starts_with("loco-")))
}

pub(crate) fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat.state != 'Z')
}

/// Asks those named `name` to end and waits until they have, at most `grace`; what is left is [`end`]'s.
pub(crate) fn ask(paths: &Paths, name: &str, grace: Duration) -> Result<()> {
    let named = || of_wall(paths).into_iter().filter(|process| process.name == name);
    for process in named() {
        signal(process.pid, Signal::SIGTERM)?;
    }
    let deadline = Instant::now() + grace;
    while named().next().is_some() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Ends them all: TERM, after `grace` KILL; returns once none is left, with those that had to be killed.
pub(crate) fn end(paths: &Paths, grace: Duration) -> Result<Vec<Process>> {
    let deadline = Instant::now() + grace;
    let mut killed = BTreeSet::new();
    let mut asked = BTreeSet::new();
    // What is stuck in the kernel cannot be ended; waiting for ever would hide it.
    let give_up = deadline + Duration::from_secs(10);
    loop {
        let left = of_wall(paths);
        if left.is_empty() {
            return Ok(killed.into_iter().collect());
        }
        let now = Instant::now();
        if now > give_up {
            let names: Vec<_> = left.iter().map(|p| format!("{} ({})", p.name, p.pid)).collect();
            anyhow::bail!(
                "these processes survived SIGKILL: {}; look at them with `ps`, then `loco down`",
                names.join(", ")
            );
        }
        for process in left {
            if now >= deadline {
                signal(process.pid, Signal::SIGKILL)?;
                killed.insert(process);
            } else if asked.insert(process.pid) {
                signal(process.pid, Signal::SIGTERM)?;
            }
        }
        // /proc has no event for "another's child ended"; the wait is for the value read above.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that ended meanwhile is fine.
pub(crate) fn signal(pid: i32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(anyhow::anyhow!("cannot signal process {pid}: {error}")),
    }
}

fn all() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn process(pid: i32) -> Option<Process> {
    let stat = stat(pid)?;
    (stat.state != 'Z').then_some(Process { pid, name: stat.name })
}

struct Stat {
    name: String,
    state: char,
    parent: i32,
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `pid (name) state ppid …`, where the name may hold anything, brackets too (`proc_pid_stat(5)`).
fn parse_stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    let mut columns = rest.split_whitespace();
    Some(Stat { name: name.to_owned(), state: columns.next()?.chars().next()?, parent: columns.next()?.parse().ok()? })
}

fn has_entry(environ: &[u8], entry: &[u8]) -> bool {
    environ.split(|byte| *byte == 0).any(|found| found == entry)
}

fn ancestors_and_self() -> BTreeSet<i32> {
    let own = i32::try_from(std::process::id()).ok();
    std::iter::successors(own, |pid| stat(*pid).map(|stat| stat.parent).filter(|parent| *parent > 0)).collect()
}

/// Device and inode of each namespace bound below the run directory.
fn namespaces(paths: &Paths) -> BTreeSet<(u64, u64)> {
    let Ok(own) = fs::metadata("/proc/thread-self/ns/net") else { return BTreeSet::new() };
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let fabrics = entries(paths.run()).map(|dir| dir.join("fabric.netns"));
    entries(&paths.namespaces())
        .chain(fabrics)
        .filter_map(|path| fs::metadata(path).ok())
        // All namespaces live in one file system of the kernel's; a plain file that was never bound does not.
        .filter(|meta| meta.dev() == own.dev() && meta.ino() != own.ino())
        .map(|meta| (meta.dev(), meta.ino()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_do_not_shift_the_columns() {
        let stat = parse_stat("12 (a) (b c) S 7 12 12 0").unwrap();
        assert_eq!((stat.name.as_str(), stat.state, stat.parent), ("a) (b c", 'S', 7));
        assert!(parse_stat("12 (a").is_none() && parse_stat("").is_none());
    }

    #[test]
    fn an_environment_entry_matches_whole() {
        let environ = b"A=1\0LOCO_WALL=/run/loco\0B=2\0";
        assert!(has_entry(environ, b"LOCO_WALL=/run/loco"));
        assert!(!has_entry(environ, b"LOCO_WALL=/run/loc") && !has_entry(environ, b"WALL=/run/loco"));
    }

    #[test]
    fn marked_processes_are_found_and_ended_and_others_are_left_alone() {
        let paths = Paths::new(format!("/nonexistent/loco-test-{}", std::process::id()), "/nonexistent");
        let sleep = |mark: &str| std::process::Command::new("sleep").arg("600").env(MARKER, mark).spawn().unwrap();
        let mut ours = sleep(paths.run().to_str().unwrap());
        let mut other = sleep("/run/another");
        let pid = i32::try_from(ours.id()).unwrap();
        // The mark is in the child from its exec on.
        let deadline = Instant::now() + Duration::from_secs(10);
        while of_wall(&paths).iter().map(|p| p.pid).collect::<Vec<_>>() != [pid] {
            assert!(Instant::now() < deadline, "{:?}", of_wall(&paths));
        }
        assert_eq!(end(&paths, Duration::from_secs(10)).unwrap(), []);
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
