//! `cargo xtask cluster`: a real Kubernetes of three nodes on one machine, for the tests (docs/cluster.md).
//!
//! ```text
//! plan, configs (pure) ──> machine (namespaces, links, cgroups) ──> control (etcd, API, …) ──> node ×3 ──> images ──> chart
//! ```
//! **Invariants.** One cluster per machine. No state but the kernel's and one directory's: whatever was killed, however far
//! `up` got, `down` finds it and takes it away, and succeeds if there is nothing. `up` on a cluster that runs changes nothing.
mod binaries;
mod certs;
mod configs;
mod control;
mod images;
mod machine;
mod node;
mod plan;
mod processes;
mod scale;
mod tier;
mod tool;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::{Args, Subcommand};
use nix::sys::signal::Signal;

pub(crate) use binaries::{ensure as programs, go_is_fine};
pub(crate) use scale::with_an_api;
pub(crate) use tier::{ScenarioArgs, left_out, run as test};
pub(crate) use tool::{ToolArgs, tool};

use crate::{
    dirs::Dirs,
    print,
    run::{self, Run as _},
    setup, tell,
};
use plan::Node;

#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Start three nodes and install the chart; the last line is KUBECONFIG=PATH
    Up {
        /// Without images and chart
        #[arg(long)]
        bare: bool,
    },
    /// End everything of it; succeeds if nothing runs
    Down,
    /// A node's power and services
    Node {
        #[command(subcommand)]
        what: NodeCommand,
    },
    /// The API server
    Api {
        #[command(subcommand)]
        what: ApiCommand,
    },
    /// Cut the cable between two nodes, pods and tunnels included; both still reach the API
    Partition { one: Node, other: Node },
    /// End all partitions
    Heal,
    /// Run a command on a node, with its exit code
    Exec {
        node: Node,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Give images (docker archives) to all nodes
    Load {
        #[arg(required = true)]
        tars: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Power off, as if the plug was pulled
    Cut { node: Node },
    /// Power on
    Boot { node: Node },
    /// Restart its kubelet; pods run on
    KubeletRestart { node: Node },
    /// Restart its containerd; pods run on
    ContainerdRestart { node: Node },
}

#[derive(Debug, Subcommand)]
enum ApiCommand {
    /// Kill it: connections are reset and refused
    Stop,
    /// Start it and wait until it answers
    Start,
}

pub(crate) fn run(dirs: &Dirs, args: &ClusterArgs) -> Result<()> {
    ensure!(run::is_root(), "the cluster is namespaces, mounts and cgroups, so it needs root; run it as root");
    match &args.command {
        ClusterCommand::Up { bare: true } => {
            up_bare(dirs)?;
            print(&kubeconfig_line());
        }
        ClusterCommand::Up { bare: false } => {
            // The images first: minutes that need no cluster.
            let images = images::build(dirs, images::OF_THE_CHART)?;
            let bin = up_bare(dirs)?;
            images::load(&images.iter().map(|image| image.tar.clone()).collect::<Vec<_>>())?;
            images::install(dirs, &bin, &images)?;
            print(&kubeconfig_line());
        }
        ClusterCommand::Down => down(dirs)?,
        ClusterCommand::Node { what } => match what {
            NodeCommand::Cut { node } => node::cut(*node)?,
            NodeCommand::Boot { node } => node::boot(*node, &binaries::ensure(dirs)?, &machine::look()?)?,
            NodeCommand::KubeletRestart { node } => {
                node::restart(*node, configs::Service::Kubelet, &binaries::ensure(dirs)?)?;
            }
            NodeCommand::ContainerdRestart { node } => {
                node::restart(*node, configs::Service::Containerd, &binaries::ensure(dirs)?)?;
            }
        },
        ClusterCommand::Api { what: ApiCommand::Stop } => control::stop_api()?,
        ClusterCommand::Api { what: ApiCommand::Start } => control::start_api(&binaries::ensure(dirs)?)?,
        ClusterCommand::Partition { one, other } => {
            ensure!(one != other, "a node is not parted from itself");
            nft(&configs::partition(*one, *other))?;
        }
        ClusterCommand::Heal => nft("add table bridge loco\ndelete table bridge loco\n")?,
        ClusterCommand::Exec { node, command } => node::exec(*node, command)?,
        ClusterCommand::Load { tars } => images::load(tars)?,
    }
    Ok(())
}

pub(crate) fn kubeconfig() -> String {
    certs::kubeconfig("admin")
}

fn kubeconfig_line() -> String {
    format!("KUBECONFIG={}", kubeconfig())
}

/// Three nodes Ready; what already runs and is well is left as it is. The folder of the programs.
pub(crate) fn up_bare(dirs: &Dirs) -> Result<PathBuf> {
    setup::ensure(setup::For::Cluster)?;
    let bin = binaries::ensure(dirs)?;
    let _lock = lock(dirs)?;
    if is_up(&bin) {
        tell("a cluster runs already: it is used as it is");
        return Ok(bin);
    }
    remove()?;
    let begin = Instant::now();
    let said = |what: &str| tell(&format!("[{:5.1} s] {what}", begin.elapsed().as_secs_f64()));
    let made = make(&bin, &said);
    if made.is_err() {
        tell(&format!(
            "the cluster did not start; its logs stay in {}/log until `cargo xtask cluster down`",
            plan::STATE
        ));
    }
    made.map(|()| bin)
}

fn make(bin: &Path, said: &(dyn Fn(&str) + Sync)) -> Result<()> {
    let machine = machine::look()?;
    machine::make_mount_points()?;
    certs::make()?;
    machine::make_control_plane()?;
    control::start(bin)?;
    said("the API answers");
    each_node(|node| node::boot(node, bin, &machine))?;
    said("nodes are on");
    control::wait_ready(bin).with_context(|| {
        let words: Vec<String> = Node::all().map(|node| node::last_words(node, configs::Service::Kubelet)).collect();
        words.join("\n")
    })?;
    said("nodes are Ready");
    Ok(())
}

/// Does it for all nodes at once.
fn each_node(work: impl Fn(Node) -> Result<()> + Sync) -> Result<()> {
    let work = &work;
    thread::scope(|scope| {
        let workers: Vec<_> = Node::all().map(|node| scope.spawn(move || work(node))).collect();
        let results = workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow!("a thread panicked"))?);
        // All are waited for; the first error is told.
        results.collect::<Vec<Result<()>>>().into_iter().collect()
    })
}

fn is_up(bin: &Path) -> bool {
    Node::all().all(|node| processes::first_of(&node.to_string()).is_some())
        && control::answers(bin)
        && control::wait_ready(bin).is_ok()
}

pub(crate) fn down(dirs: &Dirs) -> Result<()> {
    let _lock = lock(dirs)?;
    tell(if remove()? { "the cluster is gone" } else { "no cluster runs" });
    Ok(())
}

/// Ends and removes whatever is there of a cluster. `false`: nothing was.
fn remove() -> Result<bool> {
    let pids: Vec<i32> = processes::all().into_iter().map(|marked| marked.pid).collect();
    processes::end(&pids, Signal::SIGKILL, Duration::from_mins(1))?;
    for node in Node::all() {
        machine::remove_node(node)?;
    }
    Ok(machine::remove_rest()? || !pids.is_empty())
}

/// One at a time starts or ends the cluster.
fn lock(dirs: &Dirs) -> Result<fs::File> {
    let path = dirs.cache().join("cluster.lock");
    fs::create_dir_all(dirs.cache()).with_context(|| format!("{}", dirs.cache().display()))?;
    let file = fs::File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        tell("another `cargo xtask cluster` is at work; waiting for it");
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// Rules for the bridge that joins the nodes.
fn nft(rules: &str) -> Result<()> {
    ensure!(machine::namespace(plan::NAME).exists(), "no cluster runs; `cargo xtask cluster up` starts one");
    machine::inside(plan::NAME, "nft").arg(rules).answer().map(drop)
}

impl clap::builder::ValueParserFactory for Node {
    type Parser = clap::builder::ValueParser;

    fn value_parser() -> Self::Parser {
        clap::builder::ValueParser::new(|text: &str| text.parse::<Self>())
    }
}
