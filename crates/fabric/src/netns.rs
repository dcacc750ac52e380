//! The fabric's network namespace: made or adopted, entered, removed.
//!
//! It is bind-mounted, so it outlives this process. A namespace holds for one thread; therefore the fabric has its own.
use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::Path,
    thread,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{NSFS_MAGIC, statfs},
};

use crate::{
    FabricError,
    kernel::{self, Kernel, io_error},
    plan::Step,
    wireguard,
};

/// Whether a namespace is mounted at `path` (an empty file is what a reboot leaves).
pub(crate) fn is_mounted(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == NSFS_MAGIC)
}

/// Makes the namespace unless it is there. Returns whether it was made.
pub(crate) fn ensure(path: &Path) -> Result<bool, FabricError> {
    let failed = |source| FabricError::CreateNamespace { path: path.to_owned(), source };
    if is_mounted(path) {
        return Ok(false);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    let target = path.to_owned();
    // A thread of its own, which ends: `unshare` moves only the calling thread, for good.
    let made = thread::Builder::new().name("fabric-netns".to_owned()).spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(Some("/proc/thread-self/ns/net"), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
    });
    let made = made.map_err(FabricError::SpawnThread)?.join().unwrap_or(Err(Errno::EFAULT));
    made.map_err(|errno| failed(errno.into()))?;
    Ok(true)
}

/// The calling thread's namespace.
pub(crate) fn here() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Whether `namespace` is mounted at `path`.
pub(crate) fn is_at(path: &Path, namespace: &File) -> bool {
    let inode = |found: fs::Metadata| found.ino();
    is_mounted(path) && fs::metadata(path).map(inode).ok() == namespace.metadata().map(inode).ok()
}

/// Mounts `namespace` at `path` again. One that is not ours and was mounted there is not touched.
///
/// # Errors
/// A sentence with the remedy.
pub(crate) fn mount_again(path: &Path, namespace: &File) -> Result<(), String> {
    let show = path.display();
    if is_mounted(path) {
        return Err(format!(
            "another namespace was mounted at {show} while this agent ran; unmount that one, or restart the agent to move into it"
        ));
    }
    let mounted = || -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        let open = format!("/proc/self/fd/{}", namespace.as_raw_fd());
        Ok(mount(Some(open.as_str()), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
    };
    mounted().map_err(|error| {
        format!("somebody unmounted the namespace at {show}, and it could not be mounted again: {error}; the agent needs CAP_SYS_ADMIN for that: restart it as root, or its pod, before the last guest ends, for the links go with it")
    })
}

/// Moves the calling thread into the namespace at `path` and returns the open namespace.
pub(crate) fn enter(path: &Path) -> Result<File, FabricError> {
    let failed = |source: io::Error| FabricError::EnterNamespace { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
    Ok(file)
}

/// Runs `work` inside `namespace`, on a thread of its own, which is left inside and ends.
///
/// # Errors
/// A sentence with the remedy.
pub(crate) fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let inside = thread::Builder::new().name("fabric-inside".to_owned()).spawn_scoped(scope, || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            Ok::<_, Errno>(work())
        });
        let inside = inside.map_err(|error| FabricError::SpawnThread(error).to_string())?;
        let done = inside.join().unwrap_or(Err(Errno::EFAULT));
        done.map_err(|errno| format!("could not enter a network namespace: {errno}; the agent needs CAP_SYS_ADMIN"))
    })
}

/// Unmounts and removes the file. The kernel deletes what is inside once nobody is in it.
pub(crate) fn remove(path: &Path) -> Result<(), FabricError> {
    let failed = |source| FabricError::Uninstall { what: format!("namespace `{}`", path.display()), source };
    while is_mounted(path) {
        umount2(path, MntFlags::MNT_DETACH).map_err(|errno| failed(errno.into()))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

/// What must be 0 and 1 inside. bridge-nf-call-* sends bridged frames through iptables and drops what those dislike (frames with
/// a bad IP checksum, for one); it is 1 in every new namespace. IPv6 would put its own neighbour chatter on the LAN.
const SYSCTLS: [(&str, &str); 5] = [
    ("/proc/sys/net/bridge/bridge-nf-call-iptables", "0"),
    ("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0"),
    ("/proc/sys/net/bridge/bridge-nf-call-arptables", "0"),
    ("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"),
    ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
];

/// Whether the sysctls of the calling thread's namespace are as they must be.
pub(crate) fn is_settled() -> bool {
    SYSCTLS.into_iter().all(|(path, want)| fs::read_to_string(path).map_or(true, |value| value.trim() == want))
}

/// Sets the sysctls of the calling thread's namespace that differ. Returns the number of writes, and problems.
/// One that does not exist belongs to a module that is not loaded; it is looked at again in every pass.
pub(crate) fn settle_sysctls() -> (u64, Vec<String>) {
    let (mut writes, mut problems) = (0, Vec::new());
    for (path, want) in SYSCTLS {
        let Ok(value) = fs::read_to_string(path) else { continue };
        if value.trim() == want {
            continue;
        }
        writes += 1;
        if let Err(error) = fs::write(path, want) {
            problems.push(format!(
                "could not set {path} to {want}: {error}; without it the node's firewall may eat the guests' frames: run `node-agent prepare` privileged before the agent, or make the agent privileged"
            ));
        }
    }
    (writes, problems)
}

/// Sets the sysctls of the namespace at `path`, and returns the problems.
pub(crate) fn settle(path: &Path) -> Result<Vec<String>, FabricError> {
    let inside = path.to_owned();
    // A thread of its own, which is left inside and ends.
    let thread = thread::Builder::new().name("fabric-sysctls".to_owned());
    let settled = thread.spawn(move || enter(&inside).map(|_| settle_sysctls().1)).map_err(FabricError::SpawnThread)?;
    settled.join().unwrap_or(Err(FabricError::Ended))
}

/// See [`crate::uninstall`]. Runs on a thread of its own, which is left inside the namespace and ends.
pub(crate) fn uninstall(path: &Path) -> Result<(), FabricError> {
    if is_mounted(path) {
        let inside = path.to_owned();
        thread::Builder::new()
            .name("fabric-uninstall".to_owned())
            .spawn(move || delete_links(&inside))
            .map_err(FabricError::SpawnThread)?
            .join()
            .unwrap_or(Err(FabricError::Ended))?;
    }
    remove(path)?;
    // After the tunnels, whose sockets are in it.
    let tunnels = wireguard::path(path);
    wireguard::remove_device(&tunnels).map_err(|problem| FabricError::Uninstall {
        what: "the encrypted tunnel".to_owned(),
        source: io::Error::other(problem),
    })?;
    remove(&tunnels)
}

/// Deletes our links one by one: the kernel would do it some time after the namespace's last user has gone, and a QEMU that
/// holds a tap is such a user.
fn delete_links(path: &Path) -> Result<(), FabricError> {
    let failed = |what: &str, source| FabricError::Uninstall { what: what.to_owned(), source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| failed("the fabric's links", source))?;
    runtime.block_on(async {
        let node = (enter(path)?, kernel::connect()?);
        let kernel = Kernel::open(path, node, None, 0)?;
        let read = |error: &rtnetlink::Error| failed("the fabric's links", io_error(error));
        let observed = kernel.observe().await.map_err(|error| read(&error))?;
        let mut first_failure = None;
        for (name, _) in observed.ours() {
            let name = name.text();
            if let Err(problem) = kernel.perform(&Step::DeleteLink { name: name.clone() }).await {
                first_failure.get_or_insert_with(|| failed(&format!("link `{name}`"), io::Error::other(problem)));
            }
        }
        first_failure.map_or(Ok(()), Err)
    })
}
