//! Network namespaces: make one, work inside one.
//!
//! A namespace belongs to a thread, so everything here runs on a thread of its own that ends with the work; the
//! caller's threads never change theirs. A child process started inside inherits the namespace.
use std::{fs::File, path::Path, thread};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

/// The calling thread's own namespace.
pub(crate) fn current() -> Result<File> {
    File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")
}

/// Makes a new namespace and binds it to `path`, which keeps it alive without a process. `path` must not exist.
pub(crate) fn create(path: &Path) -> Result<()> {
    File::create_new(path).with_context(|| format!("cannot make {}", path.display()))?;
    inside_a_new_one(|| {
        mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("cannot bind a network namespace to {}", path.display()))
    })
}

/// Runs `work` in the namespace bound to `path`.
pub(crate) fn inside<T: Send>(path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_a_thread(|| {
        let namespace = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        setns(&namespace, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("{} is not a network namespace; run `loco down`, then `up`", path.display()))?;
        work()
    })
}

/// Runs `work` in a new namespace that ends with it.
pub(crate) fn inside_a_new_one<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace; root is needed")?;
        work()
    })
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow!("a helper thread panicked"))?
}
