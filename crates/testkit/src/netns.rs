//! A network namespace for a test. A namespace holds for one thread, so code runs in it on threads of its own.
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use anyhow::{Context, anyhow};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

/// Where the namespaces of tests are mounted.
const DIRECTORY: &str = "/run/loco-test";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A fresh, empty network namespace, mounted at [`NetNs::path`]; removed on drop.
#[derive(Debug)]
pub struct NetNs {
    path: PathBuf,
}

impl NetNs {
    /// Needs `CAP_SYS_ADMIN`.
    pub fn new(label: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(DIRECTORY)?;
        let path = Self::free_path(label);
        File::create(&path)?;
        // From here on drop cleans up.
        let namespace = Self { path };
        let target = namespace.path.clone();
        let made = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        });
        made.join()
            .map_err(|_| anyhow!("the thread panicked"))?
            .context("no namespace; run as root (`cargo xtask test --privileged`)")?;
        Ok(namespace)
    }

    /// A path that no other test uses, for a namespace that the code under test will make.
    pub fn free_path(label: &str) -> PathBuf {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Path::new(DIRECTORY).join(format!("{}-{number}-{label}", process::id()))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` inside, on a thread of its own, and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        run_in(&self.path, work)
    }

    /// Runs a future inside, on a thread with its own runtime, and waits for it. Sockets that it opens belong to the namespace.
    pub fn block_on<T: Send>(&self, future: impl Future<Output = T> + Send) -> anyhow::Result<T> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(future))
        })?
    }

    /// Like [`NetNs::run`], in a namespace that somebody else made.
    pub fn run_at<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        run_in(path, work)
    }

    /// Like [`NetNs::block_on`], in a namespace that somebody else made.
    pub fn block_on_at<T: Send>(path: &Path, future: impl Future<Output = T> + Send) -> anyhow::Result<T> {
        run_in(path, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(future))
        })?
    }
}

fn run_in<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    thread::scope(|scope| {
        let inside = scope.spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET)?;
            anyhow::Ok(work())
        });
        inside.join().map_err(|_| anyhow!("the work inside {} panicked", path.display()))?
    })
}

impl Drop for NetNs {
    fn drop(&mut self) {
        // Nobody can be told; a mount that stays is found by its name.
        umount2(&self.path, MntFlags::MNT_DETACH).ok();
        fs::remove_file(&self.path).ok();
    }
}
