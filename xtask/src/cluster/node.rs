//! One node: namespaces that a first process holds, and containerd, kubelet and kube-proxy in them.
//!
//! ```text
//! nsenter --net … unshare (mount, UTS, IPC, PID) … pause     the node's first process; killing it is a power cut
//!   └─ nsenter -t PAUSE …  containerd ── shims ── pods
//!      nsenter -t PAUSE …  kubelet, kube-proxy
//! ```
//! A node's disk outlives a power cut, `/run` does not. Every component keeps the paths that it has on a machine of its own.
use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::{
    configs::{self, Machine, Service},
    machine,
    plan::{MOUNTS, Node, PROVISIONER_DIR, STATE},
    processes,
};

/// Until a part of a node answers, on a machine that has much else to do.
const LIMIT: Duration = Duration::from_mins(1);
/// Volumes that Kubernetes' provisioner for tests makes; the machine's, and so common to all nodes.
pub(crate) const VOLUMES: &str = "volumes";

/// Switches the node on: links, namespaces, containerd with the image of pods' first process, kubelet, kube-proxy.
pub(crate) fn boot(node: Node, bin: &Path, machine: &Machine) -> Result<()> {
    if processes::first_of(&node.to_string()).is_some() {
        bail!("{node} is on; `cargo xtask cluster node cut {node}` switches it off");
    }
    // What a power cut of the machine itself, or half a boot, left.
    machine::remove_node(node)?;
    write_files(node, machine)?;
    machine::make_node(node)?;
    hold(node, bin)?;
    start(node, Service::Containerd, bin)?;
    let ready = || {
        let mut ctr = inside(node, "ctr")?;
        Ok(ctr.arg("version").stdin(Stdio::null()).output().is_ok_and(|output| output.status.success()).then_some(()))
    };
    processes::until(LIMIT, ready)
        .with_context(|| format!("containerd of {node} does not answer\n{}", last_words(node, Service::Containerd)))?;
    import(node, &bin.join("pause.tar"))?;
    start(node, Service::Kubelet, bin)?;
    start(node, Service::Proxy, bin)
}

/// Takes the power away: everything on the node ends at once, as it is.
pub(crate) fn cut(node: Node) -> Result<()> {
    let Some(first) = processes::first_of(&node.to_string()) else { bail!("{node} is off already") };
    // The kernel ends all others of the PID namespace with its first process, before that one counts as gone.
    processes::end(&[first], Signal::SIGKILL, LIMIT)?;
    machine::remove_node(node)
}

/// Ends a service of the node, in order, and starts it again; pods run on.
pub(crate) fn restart(node: Node, service: Service, bin: &Path) -> Result<()> {
    let part = part(node, service);
    let running = processes::of(&part, service.process());
    if running.is_empty() && processes::first_of(&node.to_string()).is_none() {
        bail!("{node} is off; `cargo xtask cluster node boot {node}` switches it on");
    }
    processes::end(&running, Signal::SIGTERM, Duration::from_secs(15))?;
    start(node, service, bin)
}

/// `program` on the node, in all of its namespaces. Its working directory becomes `/`.
pub(crate) fn inside(node: Node, program: &str) -> Result<Command> {
    let first = processes::first_of(&node.to_string());
    let first =
        first.with_context(|| format!("{node} is off; `cargo xtask cluster node boot {node}` switches it on"))?;
    let mut command = Command::new("nsenter");
    command.args(["-t", &first.to_string(), "-m", "-u", "-i", "-p", "-n", "--", program]).current_dir("/");
    Ok(command)
}

/// Runs `words` on the node in place of this program.
pub(crate) fn exec(node: Node, words: &[String]) -> Result<()> {
    let (program, args) = words.split_first().context("which command?")?;
    Err(inside(node, program)?.args(args).exec()).context("cannot run nsenter")
}

/// Gives the node's containerd the image in `tar`.
pub(crate) fn import(node: Node, tar: &Path) -> Result<()> {
    let file = fs::File::open(tar).with_context(|| format!("{}", tar.display()))?;
    let mut ctr = inside(node, "ctr")?;
    ctr.args(["--namespace", "k8s.io", "images", "import", "-"]);
    let output = ctr.stdin(file).output().context("cannot run nsenter")?;
    if !output.status.success() {
        bail!("{node} cannot import {}: {}", tar.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn part(node: Node, service: Service) -> String {
    format!("{node}/{}", service.name())
}

pub(crate) fn last_words(node: Node, service: Service) -> String {
    processes::last_words(&part(node, service))
}

fn start(node: Node, service: Service, bin: &Path) -> Result<()> {
    let words = service.command(node, bin);
    let (program, args) = words.split_first().context("a command has a program")?;
    processes::start(&part(node, service), inside(node, program)?.args(args))
}

fn write_files(node: Node, machine: &Machine) -> Result<()> {
    let dir = node.dir();
    let write = |path: &str, text: &str| {
        let path = dir.join(path);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    for name in MOUNTS.disk.iter().map(|(name, _)| *name).chain(["etc"]) {
        let path = dir.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    write("etc/containerd.toml", &configs::containerd(machine))?;
    write("etc/kubelet.json", &configs::kubelet(node, machine))?;
    // There is no DNS in here: a name that cannot be resolved fails at once instead of after a time limit.
    write("etc/resolv.conf", "nameserver 127.0.0.1\n")?;
    write("cni/10-bridge.conflist", &configs::cni(node))
}

/// Starts the node's first process and waits until its mounts are there.
fn hold(node: Node, bin: &Path) -> Result<()> {
    let ready = node.dir().join("ready");
    if ready.exists() {
        fs::remove_file(&ready).with_context(|| format!("cannot remove {}", ready.display()))?;
    }
    let script = script(node, bin, &ready);
    let mut command = machine::inside(&node.namespace(), "unshare");
    command.args(["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    processes::start(&node.to_string(), command.args(["--propagation", "private", "sh", "-c", &script]))?;
    processes::until(LIMIT, || Ok((ready.exists() && processes::first_of(&node.to_string()).is_some()).then_some(())))
        .with_context(|| format!("{node} does not start\n{}", processes::last_words(&node.to_string())))
}

fn script(node: Node, bin: &Path, ready: &Path) -> String {
    let mut lines = vec!["set -e".to_owned(), format!("hostname {node}")];
    // This node's copies of the files that hold namespaces alive would hold those of a node that lost its power.
    lines.push(format!("for f in {STATE}/netns/*; do umount -l \"$f\"; done"));
    // Shared, so that what a privileged pod mounts is seen by the node and by other pods.
    lines.push("mount --make-rshared /".to_owned());
    lines.extend(MOUNTS.memory.iter().map(|point| format!("mount -t tmpfs -o mode=755 node {point}")));
    lines.push("mkdir -p /run/lock /run/netns /run/loco".to_owned());
    // Made by `up`, too; but between that and this boot anybody may have tidied the machine.
    lines.push(
        MOUNTS.disk.iter().fold(format!("mkdir -p {PROVISIONER_DIR}"), |line, (_, point)| format!("{line} {point}")),
    );
    let bind = |from: &Path, to: &str| format!("mount --bind '{}' {to}", from.display());
    lines.extend(MOUNTS.disk.iter().map(|(name, point)| bind(&node.dir().join(name), point)));
    lines.push(bind(&Path::new(STATE).join(VOLUMES), PROVISIONER_DIR));
    lines.push(format!("touch '{}'", ready.display()));
    lines.push(format!("exec '{}'", bin.join("pause").display()));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_own_directories_hide_the_machines() {
        let node: Node = "n3".parse().unwrap();
        let script = script(node, Path::new("/b"), Path::new("/r"));
        let at =
            |line: &str| script.lines().position(|found| found == line).unwrap_or_else(|| panic!("{line}: {script}"));
        let shared = at("mount --make-rshared /");
        let run = at("mount -t tmpfs -o mode=755 node /run");
        let kubelet = at("mount --bind '/var/lib/loco-k8s/n3/kubelet' /var/lib/kubelet");
        assert!(shared < run && run < kubelet && kubelet < at("touch '/r'"));
        assert!(script.ends_with("exec '/b/pause'"));
    }
}
