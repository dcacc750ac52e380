//! The last known snapshot in a file: what a program that starts while the API is away goes by.
//!
//! **Invariants.** The file is replaced whole, so no reader sees half of one. A file that cannot be written is only read, and
//! that is said once.
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use api::snapshot::SnapshotFile;
use model::Snapshot;

use crate::file::read;

/// Between the file's name and a number, in the name of what is to replace it.
const NEW: &str = ".new-";

/// Clones are the same file.
#[derive(Debug, Clone)]
pub(crate) struct LastKnown {
    path: PathBuf,
    refused: Arc<AtomicBool>,
}

impl LastKnown {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), refused: Arc::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// # Errors
    /// Why there is nothing to go by, in words.
    pub(crate) fn read(&self) -> Result<Snapshot, String> {
        let text = read(&self.path, "it is written once the API has answered")?;
        api::snapshot::parse(&text).map_err(|error| format!("{}: {error}", self.path.display()))
    }

    /// Blocks on the disk.
    pub(crate) fn write(&self, snapshot: &Snapshot) {
        if let Err(error) = self.replace(snapshot)
            && !self.refused.swap(true, Relaxed)
        {
            tracing::info!(path = %self.path.display(), %error, "the last known directory is read here and not written");
        }
    }

    fn replace(&self, snapshot: &Snapshot) -> io::Result<()> {
        let text = serde_json::to_vec(&SnapshotFile::from(snapshot))?;
        // Two may write at one time, while an agent stands by for another: by a name of its own neither renames what the other
        // has half written.
        let mut new = self.path.clone().into_os_string();
        new.push(format!("{NEW}{:08x}", rand::random::<u32>()));
        let replaced = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &self.path));
        if replaced.is_err() {
            // What could not be written may not be there.
            std::fs::remove_file(&new).ok();
        }
        replaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let folder = std::env::temp_dir().join(format!("loco-last-known-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let kept = LastKnown::new(&folder.join("known.json"));
        assert!(kept.read().unwrap_err().contains("known.json"));
        let text = r#"{"version":1,"lans":[{"name":"party","vni":4200,"mode":"vxlan","subnet":"10.98.0.0/24","seats":9}],
            "nodes":[{"name":"n.1","underlay_ip":"10.99.0.11","agent_url":"u"}],
            "instances":[{"id":"instance-0","lan":"party","seat":0,"node":"n.1"}]}"#;
        let snapshot = api::snapshot::parse(text).unwrap();
        kept.write(&snapshot);
        assert_eq!(kept.read().unwrap(), snapshot);
        let left = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(left, 1, "nothing beside the file stays");
        std::fs::remove_dir_all(&folder).unwrap();
        kept.write(&snapshot);
        assert!(kept.refused.load(Relaxed), "a folder that is gone is said, not a panic");
    }
}
