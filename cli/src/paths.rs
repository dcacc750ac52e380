//! Where a wall keeps its state: every path below one run directory, so that removing it removes everything.
//!
//! ```text
//! /run/loco/lock            flock held by `up` and then by the supervisor: one wall per machine
//!          /wall.json       the plan (0600)          /state.json     what runs, by the supervisor
//!          /snapshot.json   the directory            /tokens         ROLE TOKEN per line (0600)
//!          /agent-token     (0600)                   /log/NAME.log   of each process, capped
//!          /netns/loco-…    namespaces, bind-mounted
//!          /guests/INSTANCE/ a runner's directory
//!          /NODE/           a node agent's run directory: seats/, fabric.netns
//! /var/lib/loco/overlays/INSTANCE/   overlay disks: too large for /run, which may be memory; only with --disk
//! ```
use std::path::{Path, PathBuf};

/// Environment variable in every process of a wall; its value is the run directory. `loco down` finds by it what
/// nobody else remembers any more.
pub(crate) const MARKER: &str = "LOCO_WALL";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paths {
    run: PathBuf,
    disks: PathBuf,
}

impl Paths {
    /// Where a wall of this machine is. Tests use directories of their own.
    pub(crate) fn machine() -> Self {
        Self::new("/run/loco", "/var/lib/loco/overlays")
    }

    pub(crate) fn new(run: impl Into<PathBuf>, disks: impl Into<PathBuf>) -> Self {
        Self { run: run.into(), disks: disks.into() }
    }

    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    /// Overlay disks that end with the wall.
    pub(crate) fn disks(&self) -> &Path {
        &self.disks
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }

    pub(crate) fn wall(&self) -> PathBuf {
        self.run.join("wall.json")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.run.join("state.json")
    }

    pub(crate) fn snapshot(&self) -> PathBuf {
        self.run.join("snapshot.json")
    }

    pub(crate) fn tokens(&self) -> PathBuf {
        self.run.join("tokens")
    }

    pub(crate) fn agent_token(&self) -> PathBuf {
        self.run.join("agent-token")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.run.join("log")
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    pub(crate) fn namespaces(&self) -> PathBuf {
        self.run.join("netns")
    }

    pub(crate) fn underlay(&self) -> PathBuf {
        self.namespaces().join("loco-underlay")
    }

    /// Network namespace of a node, such as `netns/loco-node-a`.
    pub(crate) fn namespace(&self, node: &str) -> PathBuf {
        self.namespaces().join(format!("loco-{node}"))
    }

    /// Run directory of a node's agent.
    pub(crate) fn node(&self, node: &str) -> PathBuf {
        self.run.join(node)
    }

    /// Where the agent of `node` listens for the runner of `instance`.
    pub(crate) fn seat_socket(&self, node: &str, instance: &str) -> PathBuf {
        self.node(node).join("seats").join(instance).join("agent.sock")
    }

    /// Where the runner of `instance` works, when there is no overlay.
    pub(crate) fn work(&self, instance: &str) -> PathBuf {
        self.run.join("guests").join(instance)
    }
}
