//! What is done to a wall: bursts of faults, planned by dice alone, and how each is put in.
//!
//! A plan is pure and names everything by number, so a seed repeats it. Whatever has an end (a cut, an absence) is ended by the same
//! burst; what is damaged in the kernel is the agents' to mend.
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use api::status::Status;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{Rng as _, rngs::StdRng};
use serde::Serialize;
use serde_json::Value;

use super::{BRIDGE, GUESTS, NODES, SNAPSHOT, TUNNEL, fabric, node_netns, run_dir};
use crate::status;

/// An address of the underlay that no node has.
const NOBODY: &str = "10.99.0.222";
/// Faults of one burst, and the milliseconds within which they begin.
const MOST_FAULTS: usize = 5;
const BURST_MS: u64 = 3000;

/// What somebody does by hand to what an agent made, and as which object the agent counts its repair.
pub(super) const DAMAGES: [(&str, &str); 17] = [
    ("link", "ip link del TUNNEL"),
    ("link", "ip link del BRIDGE"),
    ("link", "ip link set TUNNEL down"),
    ("link", "ip link set BRIDGE down"),
    ("link", "for tap in $(ip -o link | grep -o 'locot[0-9a-f-]*' | sort -u); do ip link set $tap down; done"),
    ("master", "ip link set TUNNEL nomaster"),
    ("master", "for tap in $(ip -o link | grep -o 'locot[0-9a-f-]*' | sort -u); do ip link set $tap nomaster; done"),
    ("mtu", "ip link set TUNNEL mtu 1400"),
    ("mac", "ip link set BRIDGE address 02:00:00:00:00:07"),
    ("bridge", "ip link set BRIDGE type bridge stp_state 1"),
    ("flood", "bridge fdb append 00:00:00:00:00:00 dev TUNNEL dst NOBODY self"),
    ("unicast", "bridge fdb append 02:00:00:00:00:99 dev TUNNEL dst NOBODY self permanent"),
    ("unicast", "bridge fdb flush dev TUNNEL self"),
    ("sysctl", "echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6"),
    // Without the table that umount keeps in /run, which would be what is left when all has gone.
    ("namespace", "umount -n -l RUN/fabric.netns; rm RUN/fabric.netns"),
    ("program", "rm RUN/bpf/v*/links/*"),
    ("program", "for pin in RUN/bpf/v*/links/*; do rm $pin; break; done"),
];

/// One thing that happens, at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Step {
    KillAgent(usize),
    KillRunner(usize),
    KillQemu(usize),
    /// Two nodes hear nothing of each other's tunnels.
    Cut(usize, usize),
    Mend(usize, usize),
    /// A seat is not in the directory.
    Leave(usize),
    Join(usize),
    /// On a node; index in [`DAMAGES`].
    Damage(usize, usize),
}

impl Step {
    /// What the report counts it as; `None`: it only ends another.
    pub(super) const fn kind(self) -> Option<&'static str> {
        match self {
            Self::KillAgent(_) => Some("agent killed"),
            Self::KillRunner(_) => Some("runner killed"),
            Self::KillQemu(_) => Some("guest killed"),
            Self::Cut(..) => Some("two nodes parted"),
            Self::Leave(_) => Some("seat leaves the directory and joins again"),
            Self::Damage(_, which) => Some(DAMAGES[which].0),
            Self::Mend(..) | Self::Join(_) => None,
        }
    }
}

/// Steps and when they happen, in milliseconds from the begin of the burst; in order.
pub(super) fn plan(dice: &mut StdRng) -> Vec<(u64, Step)> {
    let mut steps = Vec::new();
    // A cut or an absence is not begun twice: the end of the first would end both.
    let (mut cuts, mut absent) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..dice.random_range(1..=MOST_FAULTS) {
        let (node, guest) = (dice.random_range(0..NODES), dice.random_range(0..GUESTS));
        let at = dice.random_range(0..BURST_MS);
        let over = at + dice.random_range(500..5000);
        match dice.random_range(0..9) {
            0 => steps.push((at, Step::KillAgent(node))),
            1 => steps.push((at, Step::KillRunner(guest))),
            2 => steps.push((at, Step::KillQemu(guest))),
            3 => {
                let other = (node + dice.random_range(1..NODES)) % NODES;
                let (one, two) = (node.min(other), node.max(other));
                if cuts.insert((one, two)) {
                    steps.extend([(at, Step::Cut(one, two)), (over, Step::Mend(one, two))]);
                }
            }
            4 => {
                if absent.insert(guest) {
                    steps.extend([(at, Step::Leave(guest)), (over, Step::Join(guest))]);
                }
            }
            // As often as all the others: there are many objects.
            _ => steps.push((at, Step::Damage(node, dice.random_range(0..DAMAGES.len())))),
        }
    }
    steps.sort_by_key(|(at, _)| *at);
    steps
}

/// The directory as `loco up` wrote it, with seats taken out of it.
pub(super) struct Directory {
    whole: Value,
    absent: BTreeSet<usize>,
}

impl Directory {
    pub(super) fn read() -> Self {
        let whole = serde_json::from_str(&fs::read_to_string(SNAPSHOT).unwrap()).unwrap();
        Self { whole, absent: BTreeSet::new() }
    }

    /// Underlay addresses of the nodes, by their order.
    pub(super) fn underlay(&self) -> Vec<String> {
        let nodes = self.whole["nodes"].as_array().unwrap();
        nodes.iter().map(|node| node["underlay_ip"].as_str().unwrap().to_owned()).collect()
    }

    fn write(&self) {
        let mut now = self.whole.clone();
        let mut guest = 0..;
        now["instances"].as_array_mut().unwrap().retain(|_| !self.absent.contains(&guest.next().unwrap()));
        let new = format!("{SNAPSHOT}.churn");
        fs::write(&new, now.to_string()).unwrap();
        fs::rename(new, SNAPSHOT).unwrap();
    }
}

/// Does all of `steps` at their times. Says of each whether it hit: what an earlier one took away cannot be damaged any more.
pub(super) fn put_in(steps: &[(u64, Step)], directory: &mut Directory) -> Vec<bool> {
    let began = Instant::now();
    let mut hits = Vec::new();
    for (at, step) in steps {
        thread::sleep(Duration::from_millis(*at).saturating_sub(began.elapsed()));
        hits.push(one(*step, directory));
    }
    hits
}

/// Does one step now; whether it hit.
pub(super) fn one(step: Step, directory: &mut Directory) -> bool {
    match step {
        Step::KillAgent(node) => end(|now| now.nodes[node].agent_pid),
        Step::KillRunner(guest) => end(|now| now.instances[guest].runner_pid),
        Step::KillQemu(guest) => end(|now| now.instances[guest].qemu_pid),
        Step::Cut(here, there) => {
            let (there, table) = (&directory.underlay()[there], table(here, there));
            // Both ways, all ports: what one node's tunnel says to the other's, and its answers.
            let rules = [("input", "saddr"), ("output", "daddr")].map(|(hook, side)| {
                format!(
                    "add chain inet {table} {hook} {{ type filter hook {hook} priority 0; }}; add rule inet {table} {hook} ip {side} {there} udp dport 14789 drop"
                )
            });
            shell(&node_netns(here), &format!("nft 'add table inet {table}; {}'", rules.join("; ")))
        }
        Step::Mend(here, there) => shell(&node_netns(here), &format!("nft delete table inet {}", table(here, there))),
        Step::Leave(guest) => directory.absent.insert(guest) && wrote(directory),
        Step::Join(guest) => directory.absent.remove(&guest) && wrote(directory),
        Step::Damage(node, which) => {
            let run = run_dir(node);
            let line = DAMAGES[which].1.replace("TUNNEL", TUNNEL).replace("BRIDGE", BRIDGE).replace("NOBODY", NOBODY);
            shell(&fabric(node), &line.replace("RUN", &run))
        }
    }
}

fn wrote(directory: &Directory) -> bool {
    directory.write();
    true
}

fn table(here: usize, there: usize) -> String {
    format!("churn_{here}_{there}")
}

/// Kills what has this process id now; what has just gone by itself is not hit.
fn end(whose: impl FnOnce(&Status) -> Option<u32>) -> bool {
    let pid = whose(&status()).and_then(|pid| i32::try_from(pid).ok());
    pid.is_some_and(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok())
}

pub(super) fn shell(namespace: &str, line: &str) -> bool {
    if !Path::new(namespace).exists() {
        return false;
    }
    let output = Command::new("nsenter").arg(format!("--net={namespace}")).args(["sh", "-ec", line]).output().unwrap();
    output.status.success()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn a_seed_repeats_the_plan_and_what_is_begun_is_ended() {
        for seed in 0..500 {
            let plan_of = |seed| plan(&mut StdRng::seed_from_u64(seed));
            let steps = plan_of(seed);
            assert_eq!(steps, plan_of(seed));
            assert!(!steps.is_empty() && steps.is_sorted_by_key(|(at, _)| *at), "{steps:?}");
            for (index, (at, step)) in steps.iter().enumerate() {
                let end = match *step {
                    Step::Cut(one, two) => Step::Mend(one, two),
                    Step::Leave(guest) => Step::Join(guest),
                    _ => continue,
                };
                let ends: Vec<u64> = steps[index..].iter().filter(|(_, s)| *s == end).map(|(at, _)| *at).collect();
                assert!(matches!(ends[..], [then] if then >= at + 500), "seed {seed}: {steps:?}");
            }
        }
    }
}
