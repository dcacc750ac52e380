//! The fabric's network namespace: made or adopted, entered, removed.
//!
//! It is bind-mounted, so it outlives this process. A namespace holds for one thread; therefore the fabric has its own.
use std::{
    fs::{self, File},
    io,
    path::Path,
    thread,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{NSFS_MAGIC, statfs},
};

use crate::FabricError;

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

/// Moves the calling thread into the namespace at `path` and returns the open namespace.
pub(crate) fn enter(path: &Path) -> Result<File, FabricError> {
    let failed = |source: io::Error| FabricError::EnterNamespace { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
    Ok(file)
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

/// See [`crate::uninstall`].
pub(crate) fn uninstall(path: &Path) -> Result<(), FabricError> {
    remove(path)
}
