//! The fault that each scenario has to go red by: one that was never red proves nothing.
//!
//! With `LOCO_TEST_SEEDED=1` (`cargo xtask test --cluster --seeded`) each scenario runs on a wall that its seed has spoilt, and
//! the verdict is turned round: a test passes if its scenario was red, and said what the seed says it would.
//!
//! **Invariants.** A scenario without a seed fails. Nothing of a scenario's own code is changed for its seed: that is a value, a
//! line of the chart, a rule on a node, or a fault that does not happen. docs/cluster.md has this very table.
use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use kube::ResourceExt as _;
use tokio::time::sleep;

use super::{
    LONG, Wall,
    commands::{kubectl, root, run},
    faults::{self, Standing, VXLAN_PORT},
    peers::{self, Peers},
};

/// How long a scenario waits for what its seed keeps away. Without the seed each of those comes within seconds; what else the
/// scenario waits for has its own time.
const PATIENCE: Duration = Duration::from_mins(1);
/// Until every node has asked every guest again over the segment and the gateway tells what came of it.
const ASKED_AGAIN: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Seed {
    scenario: &'static str,
    /// For who reads the table.
    what: &'static str,
    spoils: Spoils,
    /// What the scenario says then, among other words.
    red: &'static str,
}

#[derive(Debug)]
enum Spoils {
    /// `--set` at each `helm upgrade`; `{now}` in it is another text each time.
    Value(&'static str),
    /// `--set`s of the scenario's own that begin so are left out.
    Unset(&'static str),
    /// The chart with one place changed.
    Chart { file: &'static str, from: &'static str, to: &'static str },
    /// What the scenario does to the cluster is not done.
    NoFault,
    /// Something is done to a wall that plays.
    Act(Act),
}

#[derive(Debug, Clone, Copy)]
enum Act {
    /// A node drops one in twenty of the tunnel's datagrams.
    Lossy,
    /// The first two nodes do not reach each other.
    Parted,
    /// The first node's agent stands still.
    AgentFrozen,
    /// No media leaves the first node.
    NoMedia,
    /// No pod reaches Kubernetes' API.
    NoApiForPods,
    /// The tunnel's port is blocked on a node, and its guests start again.
    GuestsApart,
    /// Test peers start anew, in a subnet that is not theirs.
    OtherSubnet,
}

const SEEDS: [Seed; 24] = [
    Seed {
        scenario: "lan-frames",
        what: "a node drops 5 % of the tunnel's datagrams",
        spoils: Spoils::Act(Act::Lossy),
        red: "frames were lost",
    },
    Seed {
        scenario: "dhcp-identity",
        what: "the LAN has another subnet than the one that the test knows",
        spoils: Spoils::Act(Act::OtherSubnet),
        red: "has 10.97.1.1",
    },
    Seed {
        scenario: "directplay",
        what: "the tunnel's port is blocked on a node, whose guests start again: they do not hear the host",
        spoils: Spoils::Act(Act::GuestsApart),
        red: "nine players in `Loco Party`",
    },
    Seed {
        scenario: "lan-status",
        what: "two nodes do not reach each other",
        spoils: Spoils::Act(Act::Parted),
        red: "a LAN on which everybody reaches everybody",
    },
    Seed {
        scenario: "discovery",
        what: "no pod reaches Kubernetes' API, and so the gateway does not",
        spoils: Spoils::Act(Act::NoApiForPods),
        red: "the gateway never followed",
    },
    Seed {
        scenario: "move",
        what: "the other LAN has no seat of that number",
        spoils: Spoils::Value("lans[1].seats=7"),
        red: "the guest in the other LAN: not within",
    },
    Seed { scenario: "browser", what: "a node sends no media", spoils: Spoils::Act(Act::NoMedia), red: "browser.mjs" },
    Seed {
        scenario: "prometheus",
        what: "no node loses its agent",
        spoils: Spoils::Unset("agent.affinity"),
        red: "LocoAgentAway: not within",
    },
    Seed {
        scenario: "underlay-blocked",
        what: "the port is not blocked",
        spoils: Spoils::NoFault,
        red: "the doctor to name the blocked port: not within",
    },
    Seed {
        scenario: "probes",
        what: "no process is stopped",
        spoils: Spoils::NoFault,
        red: "not ready while QEMU stands still: not within",
    },
    Seed {
        scenario: "power-cut",
        what: "the power is not cut",
        spoils: Spoils::NoFault,
        red: "the gateway to say that the agent is silent: not within",
    },
    Seed {
        scenario: "api-away",
        what: "the API server is not stopped",
        spoils: Spoils::NoFault,
        red: "the gateway to say that its directory is old: not within",
    },
    Seed {
        scenario: "partition",
        what: "the cable is not cut",
        spoils: Spoils::NoFault,
        red: "frames were lost between nodes that are parted",
    },
    Seed {
        scenario: "kubelet-restart",
        what: "the node's agent stands still, so nobody registers with the new kubelet",
        spoils: Spoils::Act(Act::AgentFrozen),
        red: "seats offered again: not within",
    },
    Seed {
        scenario: "containerd-restart",
        what: "a node drops 5 % of the tunnel's datagrams; what the restart itself could break is not seeded",
        spoils: Spoils::Act(Act::Lossy),
        red: "frames were lost",
    },
    Seed {
        scenario: "roll-agents",
        what: "the DaemonSet ends an agent before the next one starts",
        spoils: Spoils::Chart {
            file: "templates/agent.yaml",
            from: "maxSurge: {{ .Values.agent.maxSurge | default 1 }}\n      maxUnavailable: 0",
            to: "maxSurge: 0\n      maxUnavailable: 1",
        },
        red: "a tile was away for",
    },
    Seed {
        scenario: "roll-gateway",
        what: "the Deployment's strategy is `Recreate`",
        spoils: Spoils::Chart {
            file: "templates/gateway.yaml",
            from: "    type: RollingUpdate\n    rollingUpdate:\n      # The new one answers before the old one goes.\n      \
                   maxUnavailable: 0\n      maxSurge: 1",
            to: "    type: Recreate",
        },
        red: "requests failed",
    },
    Seed {
        scenario: "roll-guests",
        what: "the chart takes no notice of `guest.partition`",
        spoils: Spoils::Chart {
            file: "templates/instances.yaml",
            from: "partition: {{ $.Values.guest.partition }}",
            to: "partition: 0",
        },
        red: "rolled = true",
    },
    Seed {
        scenario: "bad-image",
        what: "the image is the good one",
        spoils: Spoils::Unset("guest.image"),
        red: "the last seat without its image: not within",
    },
    Seed {
        scenario: "drain",
        what: "disruption budgets that let nine go at once",
        spoils: Spoils::Chart {
            file: "templates/policies.yaml",
            from: "maxUnavailable: 1\n  # A guest",
            to: "maxUnavailable: 9\n  # A guest",
        },
        red: "seats were away at once",
    },
    Seed {
        scenario: "upgrade-same",
        what: "each upgrade has another annotation of a Service",
        spoils: Spoils::Value("gateway.service.annotations.seed={now}"),
        red: "written anew",
    },
    Seed {
        scenario: "no-rights",
        what: "the LANs' mode stays `vxlan`",
        spoils: Spoils::Unset("networkMode"),
        red: "is not empty",
    },
    Seed {
        scenario: "uninstall",
        what: "no cleanup Job",
        spoils: Spoils::Value("agent.cleanup.enabled=false"),
        red: "mounts are left",
    },
    Seed {
        scenario: "persistent-disk",
        what: "disks end with their guests",
        spoils: Spoils::Unset("storage.lifetime"),
        red: "the guest to write: not within",
    },
];

/// The seed under the scenario that runs now.
static NOW: Mutex<Option<&'static Seed>> = Mutex::new(None);

fn now() -> Option<&'static Seed> {
    *NOW.lock().expect("nobody panics with it")
}

/// Spoils the scenario of this name from here on, where scenarios are seeded.
pub(crate) fn sown(scenario: &str) -> Result<Option<&'static Seed>> {
    let seed = match env::var_os("LOCO_TEST_SEEDED") {
        None => None,
        Some(_) => Some(SEEDS.iter().find(|seed| seed.scenario == scenario).context("no seed: add it to SEEDS")?),
    };
    *NOW.lock().expect("nobody panics with it") = seed;
    Ok(seed)
}

/// Whether faults of the scenario's own do not happen.
pub(crate) fn no_fault_happens() -> bool {
    now().is_some_and(|seed| matches!(seed.spoils, Spoils::NoFault))
}

/// The `--set`s of an upgrade for which the scenario asked for these.
pub(crate) fn sets(wanted: &[&str]) -> Vec<String> {
    let mut sets: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    match now().map(|seed| &seed.spoils) {
        Some(Spoils::Unset(left_out)) => sets.retain(|set| !set.starts_with(left_out)),
        Some(Spoils::Value(set)) => sets.push(set.replace("{now}", &super::unique())),
        Some(Spoils::Act(Act::OtherSubnet)) => sets.push("lans[1].subnet=10.97.1.0/24".to_owned()),
        _ => {}
    }
    sets
}

/// The chart's directory.
pub(crate) fn chart() -> Result<PathBuf> {
    let chart = root().join("charts/loco");
    let Some(Spoils::Chart { file, from, to }) = now().map(|seed| &seed.spoils) else { return Ok(chart) };
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("seeded-chart/loco");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    copied(&chart, &copy)?;
    let path = copy.join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    ensure!(text.matches(from).count() == 1, "{file} has not once what the seed changes: {from}");
    fs::write(&path, text.replacen(from, to, 1))?;
    Ok(copy)
}

fn copied(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("{}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copied(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// What [`until`] waits at most for `what`.
pub(crate) fn patience(limit: Duration, what: &str) -> Duration {
    if now().is_some_and(|seed| seed.red.starts_with(what)) { limit.min(PATIENCE) } else { limit }
}

impl Seed {
    /// Does to a wall that plays what is to be done; what stands until the scenario is over.
    pub(crate) async fn laid(&self, wall: &Wall) -> Result<Vec<Standing>> {
        let Spoils::Act(act) = self.spoils else { return Ok(Vec::new()) };
        let nodes: Vec<String> = wall.places().await?.into_iter().map(|place| place.name).collect();
        let [first, second, ..] = nodes.as_slice() else { bail!("seeds need two nodes, these are {nodes:?}") };
        let tunnel = format!("udp dport {VXLAN_PORT}");
        let fault = match act {
            Act::Lossy => {
                let drops = format!("{tunnel} numgen random mod 100 < 5 drop");
                faults::filtered(first, &[("input", &drops)])
            }
            Act::Parted => {
                let parted = faults::partition(first, second).stands().await?;
                sleep(ASKED_AGAIN).await;
                return Ok(vec![parted]);
            }
            Act::AgentFrozen => {
                // New ones could not sit down any more.
                Peers::on_each_node(wall).await?;
                let agents = wall.pods_of("node-agent").await?;
                let here = |pod: &&k8s_openapi::api::core::v1::Pod| {
                    pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(first)
                };
                let agent = agents.iter().find(here).with_context(|| format!("no agent on {first}"))?;
                let (node, pid) = faults::container_pid(wall, &agent.name_any()).await?;
                faults::frozen(&node, &pid)
            }
            Act::NoMedia => faults::filtered(first, &[("output", "udp sport 14900-14999 drop")]),
            Act::NoApiForPods => {
                let mut standing = Vec::new();
                for node in &nodes {
                    let blocked = faults::filtered(node, &[("forward", "tcp dport { 443, 6443 } drop")]);
                    standing.push(blocked.stands().await?);
                }
                return Ok(standing);
            }
            Act::GuestsApart => {
                let blocked = faults::overlay_blocked(second, VXLAN_PORT).stands().await?;
                let guests = wall.live().await?.into_iter().filter(|guest| guest.node == *second);
                let names: Vec<String> = guests.map(|guest| guest.id).collect();
                ensure!(!names.is_empty(), "no guest is on {second}");
                run(kubectl().args(["-n", &wall.namespace, "delete", "pod"]).args(&names)).await?;
                wall.all_live(LONG).await?;
                return Ok(vec![blocked]);
            }
            Act::OtherSubnet => {
                peers::none(wall).await?;
                return Ok(Vec::new());
            }
        };
        Ok(vec![fault.stands().await?])
    }

    /// The verdict turned round.
    pub(crate) fn judge(&self, outcome: &Result<()>) -> Result<()> {
        let Err(error) = outcome else { bail!("green in spite of its seed: {}", self.what) };
        let said = format!("{error:#}");
        ensure!(said.contains(self.red), "red, and not by its seed, which has `{}`: {said}", self.red);
        eprintln!("red by its seed ({}): {said:.600}", self.what);
        Ok(())
    }

    /// Takes away what the seed and a scenario that ended early have left, so that the next one starts from a wall that plays.
    pub(crate) async fn uprooted(&self, wall: &Wall, standing: Vec<Standing>) -> Result<()> {
        for fault in standing {
            fault.mended().await?;
        }
        *NOW.lock().expect("nobody panics with it") = None;
        // Their leases and numbers are of the spoilt LAN.
        peers::none(wall).await?;
        if matches!(self.spoils, Spoils::Act(Act::GuestsApart | Act::Parted)) {
            // Two games were begun, or one was left by some.
            let guests = ["delete", "pod", "-l", "loco.dev/lan=party"];
            run(kubectl().args(["-n", &wall.namespace]).args(guests)).await?;
        }
        Ok(())
    }
}

#[test]
fn the_documents_table_is_this_one() {
    let rows =
        SEEDS.iter().map(|seed| format!("| {} | {} | `{}` |\n", seed.scenario, seed.what, seed.red.replace('`', "'")));
    let table = format!(
        "| scenario | seeded fault | the red says, among other words |\n|---|---|---|\n{}",
        rows.collect::<String>()
    );
    let path = root().join("docs/cluster.md");
    let text = fs::read_to_string(&path).expect("docs/cluster.md");
    let (begin, end) = ("<!-- seeds -->\n", "<!-- /seeds -->");
    let from = text.find(begin).expect("the table's begin") + begin.len();
    let to = from + text[from..].find(end).expect("the table's end");
    if text[from..to] != table {
        assert!(env::var_os("UPDATE_EXPECT").is_some(), "docs/cluster.md has another table: UPDATE_EXPECT=1 writes it");
        fs::write(&path, format!("{}{table}{}", &text[..from], &text[to..])).expect("docs/cluster.md can be written");
    }
}
