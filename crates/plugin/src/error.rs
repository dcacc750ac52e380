//! Why the kubelet cannot be spoken to. Each text names the path and the remedy.
use std::{io, path::PathBuf, time::Duration};

/// Failures of calls to the kubelet and of listening for it. All of them are tried again by who meets them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    #[error("no kubelet listens at {}; mount the kubelet's directory into the agent, or give its place with --kubelet-dir", path.display())]
    NoKubelet { path: PathBuf },
    #[error("could not listen at {} for the kubelet; the directory must be writable for the agent", path.display())]
    Listen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not reach the kubelet at {}; it is tried again, look at the kubelet's log if this stays", path.display())]
    Connect {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "the kubelet refused {call}: {message}; the agent speaks device plugin v1beta1 and pod-resources v1 (Kubernetes 1.20 and later)"
    )]
    Refused { call: &'static str, message: String },
    #[error("the kubelet did not answer {call} within {} s; it is tried again, look at the kubelet's log if this stays", limit.as_secs_f64())]
    Silent { call: &'static str, limit: Duration },
    #[error("what serves the kubelet ended")]
    ServerEnded(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
}
