//! What can go wrong with the eyes of a node. None of it stops frames.
use std::{io, path::PathBuf};

/// Why nothing is seen.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    #[error(
        "this process lacks {0}, without which the kernel takes no eBPF program; grant it and start the agent anew"
    )]
    Capability(&'static str),
    #[error("cannot enter the fabric's namespace {}: {source}; the agent needs CAP_SYS_ADMIN", path.display())]
    Namespace { path: PathBuf, source: io::Error },
    /// With the verifier's last words.
    #[error("the kernel does not take the eBPF programs: {0}; Linux 5.15 or newer with CONFIG_BPF_JIT is needed")]
    Load(String),
    #[error("the ring of events cannot be read: {0}")]
    Ring(io::Error),
    #[error("no thread for the observer: {0}")]
    SpawnThread(io::Error),
    #[error("the observer's thread has ended; the agent's log says why")]
    Ended,
    #[error("a BPF file system cannot be mounted at {}: {source}; run this privileged, on a kernel with CONFIG_BPF_SYSCALL", path.display())]
    Mount { path: PathBuf, source: io::Error },
    #[error("the BPF file system at {} cannot be removed: {source}; unmount it by hand", path.display())]
    Uninstall { path: PathBuf, source: io::Error },
}
