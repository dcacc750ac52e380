//! The control plane: etcd, the API server, the controller manager and the scheduler, in a network namespace of their own.
use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::{
    certs,
    configs::{Part, STORAGE_CLASS},
    machine,
    node::VOLUMES,
    plan::{NAME, Node, PROVISIONER_DIR, STATE},
    processes,
};
use crate::run::Run as _;

/// Until a part answers, on a machine that has much else to do.
const LIMIT: Duration = Duration::from_mins(2);

/// etcd and the API, until it answers; then what works through it.
pub(crate) fn start(bin: &Path) -> Result<()> {
    let volumes = Path::new(STATE).join(VOLUMES);
    fs::create_dir_all(&volumes).with_context(|| format!("cannot make {}", volumes.display()))?;
    start_part(Part::Etcd, bin)?;
    start_api(bin)?;
    start_part(Part::Manager, bin)?;
    start_part(Part::Scheduler, bin)
}

pub(crate) fn start_api(bin: &Path) -> Result<()> {
    start_part(Part::Api, bin)?;
    processes::until(LIMIT, || Ok(answers(bin).then_some(())))
        .with_context(|| format!("the API does not answer\n{}", processes::last_words(Part::Api.name())))
}

/// Kills the API server: its connections are reset, and new ones refused.
pub(crate) fn stop_api() -> Result<()> {
    processes::end(&processes::of(Part::Api.name(), "kube"), Signal::SIGKILL, LIMIT)
}

pub(crate) fn answers(bin: &Path) -> bool {
    kubectl(bin).args(["get", "--raw", "/readyz", "--request-timeout=5s"]).answer().is_ok()
}

/// kubectl as the cluster's administrator.
pub(crate) fn kubectl(bin: &Path) -> Command {
    let mut command = Command::new(bin.join("kube"));
    command.args(["kubectl", "--kubeconfig", &certs::kubeconfig("admin")]);
    command
}

fn start_part(part: Part, bin: &Path) -> Result<()> {
    let words = part.command(bin);
    let (program, args) = words.split_first().context("a command has a program")?;
    let command = match part {
        // Its provisioner knows one directory of the machine's; it gets ours in that place.
        Part::Manager => {
            let script = format!("mount --bind {STATE}/{VOLUMES} {PROVISIONER_DIR} && exec \"$@\"");
            let mut command = machine::inside(NAME, "unshare");
            command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh", program]);
            command
        }
        Part::Etcd | Part::Api | Part::Scheduler => machine::inside(NAME, program),
    };
    let mut command = command;
    processes::start(part.name(), command.args(args))
}

/// Waits until every node is Ready and pods are admitted, and gives claims a class.
pub(crate) fn wait_ready(bin: &Path) -> Result<()> {
    let nodes: Vec<String> = Node::all().map(|node| format!("node/{node}")).collect();
    let limit = format!("--timeout={}s", LIMIT.as_secs());
    let exist = |names: &[String], namespace: &str| {
        let found = || Ok(kubectl(bin).args(["get", namespace]).args(names).answer().ok());
        processes::until(LIMIT, found).with_context(|| format!("{} not made", names.join(", ")))
    };
    exist(&nodes, "--namespace=default")?;
    kubectl(bin).arg("wait").arg("--for=condition=Ready").arg(&limit).args(&nodes).answer()?;
    // Before it is there, the API refuses every pod.
    exist(&["serviceaccount/default".to_owned()], "--namespace=default")?;
    let file = Path::new(STATE).join("storage-class.json");
    fs::write(&file, STORAGE_CLASS).with_context(|| format!("cannot write {}", file.display()))?;
    kubectl(bin).args(["apply", "--filename"]).arg(&file).answer().map(drop)
}
