//! Why the fabric cannot do what it was asked. Each text names the thing and the remedy.
use std::{io, path::PathBuf};

use model::{InstanceId, LanName};

/// Failures of calls. Failures of single steps of a pass are sentences in [`crate::FabricStatus::problems`] instead,
/// because the pass goes on and is repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FabricError {
    #[error("could not make network namespace `{path}`; run as root or grant CAP_SYS_ADMIN and CAP_NET_ADMIN")]
    CreateNamespace {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "could not enter network namespace `{path}`; it needs CAP_SYS_ADMIN, and the path must be a namespace that is still mounted"
    )]
    EnterNamespace {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not open a netlink socket; the agent needs CAP_NET_ADMIN and the kernel AF_NETLINK")]
    OpenNetlink(#[source] io::Error),
    #[error("could not watch the LAN's devices; the agent needs CAP_NET_RAW")]
    Watch(#[source] io::Error),
    #[error("could not start the fabric's thread; free memory or raise the limit of threads")]
    SpawnThread(#[source] io::Error),
    #[error("could not register the fabric's metrics; give each fabric a registry of its own")]
    Metrics(#[source] prometheus::Error),
    #[error("instance `{0}` has no port on this node; the directory places it elsewhere or does not know it")]
    NoPort(InstanceId),
    #[error("the tap `{tap}` of instance `{instance}` does not exist yet: {problem}")]
    NoTap { instance: InstanceId, tap: String, problem: String },
    #[error("LAN `{lan}` cannot be joined on this node yet: {problem}")]
    NoLan { lan: LanName, problem: String },
    #[error(
        "could not open /dev/net/tun; load the kernel module `tun` (modprobe tun), or mount the device into the container"
    )]
    NoTun(#[source] io::Error),
    #[error(
        "the tap `{tap}` is in use: QEMU of an earlier runner, or another agent's relay, still holds it; end that first"
    )]
    TapBusy { tap: String },
    #[error("could not open tap `{tap}`; the agent needs CAP_NET_ADMIN")]
    OpenTap {
        tap: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "could not {doing} of macvtap `{tap}`; an agent of LANs of mode macvlan needs CAP_SYS_ADMIN and CAP_MKNOD, and a container that may open any device: run it as root, or privileged"
    )]
    OpenMacvtap {
        tap: String,
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the fabric has more than {limit} requests waiting; try again in a second")]
    Busy { limit: usize },
    #[error("the fabric's thread has ended; restart the agent and look for its last error in the log")]
    Ended,
    #[error("could not remove {what}; remove it by hand")]
    Uninstall {
        what: String,
        #[source]
        source: io::Error,
    },
}
