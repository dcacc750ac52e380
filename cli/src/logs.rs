//! Logs of the wall's processes: `log/NAME.log`, each kept below a cap.
//!
//! Children append to their files themselves, so that they go on if the supervisor dies. What is over the cap is
//! copied to `NAME.log.1` and the file is emptied under the writer, which `O_APPEND` makes harmless; lines written
//! between the two are lost, which a log may.
use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
};

use anyhow::{Context as _, Result};

use crate::paths::Paths;

/// Bytes; with the one old file at most twice that.
pub(crate) const CAP: u64 = 1 << 20;

pub(crate) fn open(paths: &Paths, name: &str) -> Result<File> {
    let path = paths.log(name);
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

/// Rotates what has outgrown `cap` bytes.
pub(crate) fn rotate(dir: &Path, cap: u64) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("{}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") && fs::metadata(&path)?.len() > cap {
            fs::copy(&path, path.with_added_extension("1"))
                .with_context(|| format!("cannot rotate {}", path.display()))?;
            OpenOptions::new().write(true).open(&path)?.set_len(0)?;
        }
    }
    Ok(())
}

/// The last `lines` lines, for somebody who asks why; empty if there is no log.
pub(crate) fn tail(path: &Path, lines: usize) -> Vec<String> {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(64 << 10);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_log_over_the_cap_is_moved_aside_under_its_writer() {
        let dir = std::env::temp_dir().join(format!("loco-logs-test-{}", std::process::id()));
        let paths = Paths::new(&dir, "/nonexistent");
        fs::create_dir_all(paths.logs()).unwrap();
        let mut log = open(&paths, "gateway").unwrap();
        writeln!(log, "one").unwrap();
        rotate(&paths.logs(), 10).unwrap();
        writeln!(log, "two: longer than the cap").unwrap();
        rotate(&paths.logs(), 10).unwrap();
        writeln!(log, "three").unwrap();
        assert_eq!(fs::read_to_string(paths.log("gateway")).unwrap(), "three\n");
        assert_eq!(tail(&paths.log("gateway").with_added_extension("1"), 1), ["two: longer than the cap"]);
        assert_eq!(tail(&paths.log("nobody"), 3), Vec::<String>::new());
        fs::remove_dir_all(dir).unwrap();
    }
}
