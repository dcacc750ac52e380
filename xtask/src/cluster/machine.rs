//! The effects on this machine's kernel: namespaces, links, cgroups. Commands of iproute2 and util-linux.
//!
//! **Invariants.** The only link in the host's namespace is [`NAME`]; namespaces are files below [`STATE`], so that a
//! cluster leaves nothing in `/run/netns`. Removing finds by name what is there, whoever made it and however far it got.
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MntFlags, umount2};

use super::{
    configs::{Machine, open_files},
    plan::{CONTROL_PLANE, HOST, MOUNTS, NAME, Node, PREFIX, PROVISIONER_DIR, SERVICES, STATE},
    processes,
};
use crate::run::Run as _;

const CGROUPS: &str = "/sys/fs/cgroup";
/// Directories that the nodes bind over and that this machine did not have, one a line: removed again.
const MADE: &str = "made-directories";
const CNI: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// What of this machine matters to the configurations.
pub(crate) fn look() -> Result<Machine> {
    let cni_bin = CNI.into_iter().find(|dir| Path::new(dir).join("bridge").is_file());
    let cni_bin = cni_bin.context("no CNI plugins; `cargo xtask setup --for cluster` installs them")?;
    let limits = fs::read_to_string("/proc/self/limits").context("/proc/self/limits")?;
    let open_files = open_files(&limits).context("/proc/self/limits tells no limit of open files")?;
    fs::create_dir_all(STATE).with_context(|| format!("cannot make {STATE}"))?;
    let on = Command::new("stat").args(["-f", "-c", "%T", STATE]).answer()?;
    // One overlay cannot be the upper layer of another.
    let snapshotter = if on.trim() == "overlayfs" { "native" } else { "overlayfs" };
    Ok(Machine { snapshotter, cni_bin, open_files })
}

/// The file that holds a namespace alive.
pub(crate) fn namespace(name: &str) -> PathBuf {
    Path::new(STATE).join("netns").join(name)
}

/// `program` in the network namespace `name`, and with the machine's everything else.
pub(crate) fn inside(name: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace(name).display())).arg("--").arg(program);
    command
}

fn make_namespace(name: &str) -> Result<()> {
    let path = namespace(name);
    fs::create_dir_all(path.parent().context("below the state directory")?)?;
    fs::File::create_new(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Command::new("unshare").arg(format!("--net={}", path.display())).arg("true").answer()?;
    ip(name, "link set lo up")
}

/// `ip WORDS` in the namespace `name`. As the end of a cable, iproute2 takes the path of a namespace; for `-n` only a name.
fn ip(name: &str, words: &str) -> Result<()> {
    inside(name, "ip").args(words.split(' ')).answer().map(drop)
}

fn ip_here(words: &str) -> Result<()> {
    Command::new("ip").args(words.split(' ')).answer().map(drop)
}

/// Namespace, bridge and the cable to the host.
pub(crate) fn make_control_plane() -> Result<()> {
    make_namespace(NAME)?;
    // Where that module is loaded, a new namespace sends bridged frames through iptables.
    let past_the_firewall =
        "for f in /proc/sys/net/bridge/bridge-nf-call-*; do if [ -e \"$f\" ]; then echo 0 > \"$f\"; fi; done";
    inside(NAME, "sh").args(["-c", past_the_firewall]).answer()?;
    ip(NAME, "link add br0 type bridge mcast_snooping 0")?;
    ip(NAME, &format!("addr add {CONTROL_PLANE}/{PREFIX} dev br0"))?;
    ip(NAME, "link set br0 up")?;
    ip_here(&format!("link add {NAME} type veth peer name root netns {}", namespace(NAME).display()))?;
    ip(NAME, "link set root master br0 up")?;
    ip_here(&format!("addr add {HOST}/{PREFIX} dev {NAME}"))?;
    ip_here(&format!("link set {NAME} up"))?;
    for node in Node::all() {
        ip_here(&format!("route add {} via {}", node.pods(), node.ip()))?;
    }
    let first = Node::all().next().context("a cluster has nodes")?;
    ip_here(&format!("route add {SERVICES} via {}", first.ip()))
}

/// Namespace, cable and routes of one node; then its cgroups.
pub(crate) fn make_node(node: Node) -> Result<()> {
    let name = node.namespace();
    make_namespace(&name)?;
    let far = namespace(&name);
    let far = far.display();
    ip(NAME, &format!("link add {node} type veth peer name eth0 address {} netns {far}", node.mac()))?;
    ip(NAME, &format!("link set {node} master br0 up"))?;
    ip(&name, &format!("addr add {}/{PREFIX} dev eth0", node.ip()))?;
    ip(&name, "link set eth0 up")?;
    ip(&name, &format!("route add default via {CONTROL_PLANE}"))?;
    inside(&name, "sysctl").args(["-qw", "net.ipv4.ip_forward=1"]).answer()?;
    ip(NAME, &format!("route replace {} via {}", node.pods(), node.ip()))?;
    for other in Node::all().filter(|other| *other != node) {
        ip(&name, &format!("route add {} via {}", other.pods(), other.ip()))?;
    }
    make_cgroups(node)
}

/// Takes away what [`make_node`] made, as far as it is there.
pub(crate) fn remove_node(node: Node) -> Result<()> {
    // The cable first: a namespace lets go of its end late, and the next boot would find the name taken.
    if namespace(NAME).exists() && ip(NAME, &format!("link show dev {node}")).is_ok() {
        ip(NAME, &format!("link del dev {node}"))?;
    }
    remove_namespace(&node.namespace())?;
    remove_cgroups(node)
}

fn remove_namespace(name: &str) -> Result<()> {
    let path = namespace(name);
    if !path.exists() {
        return Ok(());
    }
    unmount(&path)?;
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
}

fn unmount(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // Not a mount: a half-made namespace.
        Ok(()) | Err(nix::errno::Errno::EINVAL) => Ok(()),
        Err(error) => Err(io::Error::from(error)).with_context(|| format!("cannot unmount {}", path.display())),
    }
}

/// The link, the control plane's namespace, and all files. Nodes are gone already.
pub(crate) fn remove_rest() -> Result<bool> {
    let mut something = false;
    if ip_here(&format!("link show dev {NAME}")).is_ok() {
        ip_here(&format!("link del dev {NAME}"))?;
        something = true;
    }
    let state = Path::new(STATE);
    if !state.exists() {
        return Ok(something);
    }
    let table = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    for path in mounts_below(&table, state) {
        unmount(&path)?;
    }
    let made = fs::read_to_string(state.join(MADE)).unwrap_or_default();
    fs::remove_dir_all(state).with_context(|| format!("cannot remove {STATE}"))?;
    for dir in made.lines().rev() {
        // If it is not empty, somebody else uses it by now.
        fs::remove_dir(dir).ok();
    }
    Ok(true)
}

/// Deepest first.
fn mounts_below(table: &str, dir: &Path) -> Vec<PathBuf> {
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|path| path.starts_with(dir)).collect();
    below.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    below
}

/// Makes the directories that nodes bind over, and remembers which were not there.
pub(crate) fn make_mount_points() -> Result<()> {
    let mut made = Vec::new();
    for point in MOUNTS.disk.iter().map(|(_, point)| *point).chain([PROVISIONER_DIR]) {
        let missing: Vec<&Path> = Path::new(point).ancestors().take_while(|dir| !dir.exists()).collect();
        made.extend(missing.iter().rev().map(|dir| format!("{}\n", dir.display())));
        fs::create_dir_all(point).with_context(|| format!("cannot make {point}"))?;
    }
    let list = Path::new(STATE).join(MADE);
    fs::write(&list, made.concat()).with_context(|| format!("cannot write {}", list.display()))
}

/// One root of cgroup v2, or one for each hierarchy of v1.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let entries = fs::read_dir(root).with_context(|| format!("{CGROUPS}: no cgroups are mounted"))?;
    let dirs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    ensure!(!dirs.is_empty(), "{CGROUPS} is empty; kubelets need cgroups");
    Ok(dirs)
}

fn make_cgroups(node: Node) -> Result<()> {
    for root in hierarchies()? {
        let dir = root.join(node.cgroup());
        fs::create_dir_all(&dir).with_context(|| format!("cannot make cgroup {}", dir.display()))?;
        // A new cgroup of v1's cpuset takes nobody before it has CPUs and memory.
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (root.join(name), dir.join(name));
            if from.exists() && to.exists() {
                let value = fs::read(&from).with_context(|| format!("{}", from.display()))?;
                fs::write(&to, value).with_context(|| format!("cannot write {}", to.display()))?;
            }
        }
    }
    Ok(())
}

fn remove_cgroups(node: Node) -> Result<()> {
    for root in hierarchies()? {
        let dir = root.join(node.cgroup());
        // What was killed leaves its cgroup a moment later.
        let removed = processes::until(Duration::from_secs(10), || Ok(remove_cgroup(&dir).ok()));
        if removed.is_err() {
            let why = remove_cgroup(&dir).err().map(|error| error.to_string()).unwrap_or_default();
            bail!("cannot remove cgroup {}: {why}", dir.display());
        }
    }
    Ok(())
}

/// Deepest first; the files in it are the kernel's.
fn remove_cgroup(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_mounts_are_taken_away_and_the_deepest_first() {
        let table = "1 0 8:1 / / rw - ext4 a rw\n2 1 0:4 net:[1] /var/lib/loco-k8s/netns/loco-k8s rw - nsfs nsfs rw\n\
                     3 1 8:1 / /var/lib/loco-k8s rw - ext4 a rw\n4 1 8:1 / /var/lib/loco-k8s-other rw - ext4 a rw\nx\n";
        let below = mounts_below(table, Path::new(STATE));
        assert_eq!(below, [Path::new("/var/lib/loco-k8s/netns/loco-k8s"), Path::new("/var/lib/loco-k8s")]);
    }

    #[test]
    fn a_tree_of_directories_goes_as_cgroups_go() {
        let dir = std::env::temp_dir().join(format!("loco-xtask-cgroup-{}", std::process::id()));
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::create_dir_all(dir.join("c")).unwrap();
        remove_cgroup(&dir).unwrap();
        assert!(!dir.exists());
        remove_cgroup(&dir).unwrap();
    }
}
