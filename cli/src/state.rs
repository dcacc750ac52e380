//! `state.json`: what the supervisor runs, for `status`, for `down` and for the `up` that waits.
use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::paths::Paths;

/// Whose process a child is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "role", content = "of")]
pub(crate) enum Role {
    Gateway,
    /// Of a node.
    Agent(String),
    /// Of an instance.
    Runner(String),
}

impl Role {
    /// Name of its log.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Gateway => "gateway".to_owned(),
            Self::Agent(node) => format!("node-agent-{node}"),
            Self::Runner(instance) => format!("guest-runner-{instance}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChildState {
    #[serde(flatten)]
    pub(crate) role: Role,
    /// Absent while it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<u32>,
    /// Times that it was started.
    pub(crate) starts: u32,
    /// Ends in a row before it got well.
    pub(crate) young_deaths: u32,
    /// How it ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_end: Option<String>,
    /// Its guest switched itself off: nobody starts it again.
    pub(crate) off: bool,
}

impl ChildState {
    pub(crate) fn new(role: Role) -> Self {
        Self { role, pid: None, starts: 0, young_deaths: 0, last_end: None, off: false }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) supervisor_pid: u32,
    pub(crate) children: Vec<ChildState>,
}

impl State {
    pub(crate) fn read(paths: &Paths) -> Result<Self> {
        read_json(&paths.state())
    }

    pub(crate) fn write(&self, paths: &Paths) -> Result<()> {
        write_json(&paths.state(), self)
    }

    pub(crate) fn child(&self, role: &Role) -> Option<&ChildState> {
        self.children.iter().find(|child| child.role == *role)
    }

    pub(crate) fn pid(&self, role: &Role) -> Option<u32> {
        self.child(role)?.pid
    }
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged; run `loco down`", path.display()))
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_private(path, serde_json::to_string_pretty(value)?.as_bytes())
}

/// Readers see the old file or the new one, never a part; only root reads it.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_added_extension("new");
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("cannot write {}; free some space there", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_round_trip_and_stays_private() {
        let dir = std::env::temp_dir().join(format!("loco-state-test-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let paths = Paths::new(&dir, "/nonexistent");
        let mut state = State { supervisor_pid: 7, children: Vec::new() };
        for role in [Role::Gateway, Role::Agent("node-a".into()), Role::Runner("instance-0".into())] {
            state.children.push(ChildState::new(role));
        }
        state.children[2].pid = Some(8);
        state.write(&paths).unwrap();
        assert_eq!(State::read(&paths).unwrap(), state);
        assert_eq!(state.pid(&Role::Runner("instance-0".into())), Some(8));
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(paths.state()).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        fs::write(paths.state(), "{").unwrap();
        assert!(State::read(&paths).unwrap_err().to_string().contains("run `loco down`"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_full_disk_is_named_with_the_path() {
        let error = write_private(Path::new("/dev/full/x"), b"x").unwrap_err();
        assert!(error.to_string().contains("cannot write /dev/full/x; free some space"), "{error:#}");
    }
}
