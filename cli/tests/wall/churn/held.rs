//! What a wall holds of the machine, and whether it holds more than before.
//!
//! Links, mounts, pins and processes must be as many at each rest as at the first. Descriptors come and go with requests, so some more are
//! allowed. Memory is given back late, and the agents remember the last minutes of their ports, so it is judged over the whole run.
use std::{collections::BTreeMap, fs, path::Path, process::Command};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::{NODES, fabric, node_name, node_netns, run_dir};
use crate::{find, status};

/// Descriptors that may be open at one rest and not at another: of requests that are being answered.
const FDS_SLACK: u64 = 8;
/// Memory that a process may hold at the end of a run, and did not in its first third.
const MEMORY_SLACK_KIB: u64 = 8 * 1024;

/// Of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Use {
    pub(super) fds: u64,
    pub(super) rss_kib: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// By namespace: of each node, and of its fabric.
    pub(super) links: BTreeMap<String, usize>,
    pub(super) mounts: usize,
    pub(super) processes: usize,
    /// Of the agents' programs and maps.
    pub(super) pins: usize,
    /// Gateway, supervisor, agents by node, runners by instance.
    pub(super) of: BTreeMap<String, Use>,
}

impl Held {
    /// Of a wall whose processes all run; `None` if one has just ended.
    pub(super) fn now() -> Option<Self> {
        let now = status();
        let number = |pid: Option<u32>| Some(Pid::from_raw(i32::try_from(pid?).ok()?));
        let mut pids = vec![("gateway".to_owned(), find("gateway")), ("supervisor".to_owned(), find("loco"))];
        for node in &now.nodes {
            pids.push((node.name.clone(), number(node.agent_pid)?));
        }
        for instance in &now.instances {
            pids.push((format!("runner of {}", instance.id), number(instance.runner_pid)?));
        }
        let links = (0..NODES).flat_map(|node| {
            let name = node_name(node);
            [(format!("{name}, its fabric"), fabric(node)), (name, node_netns(node))]
        });
        let pinned_in = |node| files(Path::new(&format!("{}/bpf", run_dir(node))));
        Some(Self {
            links: links.map(|(name, netns)| Some((name, links_in(&netns)?))).collect::<Option<_>>()?,
            mounts: fs::read_to_string("/proc/self/mountinfo").ok()?.lines().count(),
            processes: living(),
            pins: (0..NODES).map(pinned_in).sum(),
            of: pids.into_iter().map(|(name, pid)| Some((name, used_by(pid)?))).collect::<Option<_>>()?,
        })
    }

    /// What there is more of than at first, or less of what should be there.
    pub(super) fn more_than(&self, first: &Self) -> Vec<String> {
        let mut more = Vec::new();
        let mut same = |what: &str, now: String, then: String| {
            if now != then {
                more.push(format!("{what}: {now}, at first {then}"));
            }
        };
        same("links", format!("{:?}", self.links), format!("{:?}", first.links));
        same("mounts", self.mounts.to_string(), first.mounts.to_string());
        same("processes", self.processes.to_string(), first.processes.to_string());
        same("pins", self.pins.to_string(), first.pins.to_string());
        for (name, now) in &self.of {
            let then = first.of[name].fds;
            if now.fds > then + FDS_SLACK {
                more.push(format!("{name} holds {} descriptors, at first {then}", now.fds));
            }
        }
        more
    }
}

/// Processes that keep more and more: the least that one held in the last third of the rests is more than the most of the first third, and
/// not by a little. A process that is killed now and then begins anew, so this is sharpest for gateway and supervisor.
pub(super) fn grown(series: &[Held]) -> Vec<String> {
    let third = series.len() / 3;
    let (Some(begin), Some(end)) = (series.get(..third), series.get(series.len() - third..)) else { return Vec::new() };
    let Some(names) = begin.first().map(|held| held.of.keys()) else { return Vec::new() };
    let of = |held: &[Held], name: &str| held.iter().map(|held| held.of[name].rss_kib).collect::<Vec<_>>();
    names
        .filter_map(|name| {
            let most = of(begin, name).into_iter().max()?;
            let least = of(end, name).into_iter().min()?;
            (least > most + MEMORY_SLACK_KIB)
                .then(|| format!("{name} holds {least} KiB at least at the end, and held {most} KiB at most at first"))
        })
        .collect()
}

fn links_in(netns: &str) -> Option<usize> {
    let output = Command::new("nsenter").arg(format!("--net={netns}")).args(["ip", "-o", "link"]).output().unwrap();
    output.status.success().then(|| output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count())
}

fn files(dir: &Path) -> usize {
    let of = |entry: fs::DirEntry| if entry.path().is_dir() { files(&entry.path()) } else { 1 };
    fs::read_dir(dir).into_iter().flatten().flatten().map(of).sum()
}

/// Of this process namespace, without what has ended and waits to be asked for.
fn living() -> usize {
    let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let lives = |entry: &fs::DirEntry| {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        entry.file_name().to_str().is_some_and(is_number) && !stat.is_empty() && !stat.contains(") Z ")
    };
    fs::read_dir("/proc").unwrap().flatten().filter(lives).count()
}

fn used_by(pid: Pid) -> Option<Use> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    Some(Use { fds: fds.try_into().ok()?, rss_kib: rss.trim().trim_end_matches(" kB").parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(rss_kib: u64, fds: u64) -> Held {
        let of = BTreeMap::from([("gateway".to_owned(), Use { fds, rss_kib })]);
        Held { links: BTreeMap::new(), mounts: 1, processes: 2, pins: 3, of }
    }

    #[test]
    fn what_grows_is_named_and_what_comes_and_goes_is_not() {
        let first = holding(20_000, 30);
        assert!(holding(90_000, 38).more_than(&first).is_empty());
        assert_eq!(holding(20_000, 39).more_than(&first), ["gateway holds 39 descriptors, at first 30"]);
        assert_eq!(Held { pins: 4, ..first.clone() }.more_than(&first), ["pins: 4, at first 3"]);
        let run = |rss: fn(u64) -> u64| grown(&(0..30).map(|at| holding(rss(at), 30)).collect::<Vec<_>>());
        assert!(run(|at| 20_000 + (at % 7) * 5_000).is_empty(), "it comes and goes");
        assert!(run(|at| 20_000 + at.min(9) * 5_000).is_empty(), "it has filled what it has room for");
        assert_eq!(run(|at| 20_000 + at * 1_000).len(), 1, "it grows for ever");
        assert!(grown(&[first]).is_empty());
    }
}
