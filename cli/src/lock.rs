//! One wall per machine: a lock file that `up` takes and hands to the supervisor, which holds it for its life.
//!
//! The kernel drops a `flock` with the last descriptor, so a killed supervisor never leaves a wall "running".
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
};

use anyhow::{Context as _, Result, anyhow};

use crate::paths::Paths;

/// Makes the run directory and takes the lock. `None`: somebody has it.
pub(crate) fn take(paths: &Paths) -> Result<Option<File>> {
    // 0711: the guests' users pass through to their own sockets and see no names.
    let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(paths.run());
    made.with_context(|| {
        format!("cannot make {}; it must be on a writable file system with room", paths.run().display())
    })?;
    let path = paths.lock();
    loop {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                return Err(anyhow!(error)).context(format!("cannot lock {}", path.display()));
            }
        }
        // `down` may have removed the file between open and lock: then the lock guards a name that is gone.
        let ours = file.metadata()?.ino();
        if fs::metadata(&path).is_ok_and(|now| now.ino() == ours) {
            return Ok(Some(file));
        }
        fs::create_dir_all(paths.run())?;
    }
}

pub(crate) fn is_held(paths: &Paths) -> bool {
    File::open(paths.lock()).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// The lock file is still the one with this inode.
pub(crate) fn is_that(paths: &Paths, inode: u64) -> bool {
    fs::metadata(paths.lock()).is_ok_and(|now| now.ino() == inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_free_once_the_holder_is_gone() {
        let dir = std::env::temp_dir().join(format!("loco-lock-test-{}", std::process::id()));
        let paths = Paths::new(&dir, "/nonexistent");
        assert!(!is_held(&paths));
        let held = take(&paths).unwrap().expect("nobody has it");
        assert!(take(&paths).unwrap().is_none() && is_held(&paths));
        let inode = held.metadata().unwrap().ino();
        assert!(is_that(&paths, inode) && !is_that(&paths, inode + 1));
        // Handed on: a second descriptor keeps it, as the supervisor's does when `up` ends.
        let handed_on = held.try_clone().unwrap();
        drop(held);
        assert!(take(&paths).unwrap().is_none());
        drop(handed_on);
        assert!(!is_held(&paths) && take(&paths).unwrap().is_some());
        fs::remove_dir_all(dir).unwrap();
    }
}
