//! The file of LANs, beside a Kubernetes API that knows none.
//!
//! **Invariant.** A file that cannot be used changes no LAN: the last good ones stay, and the problem is said.
use std::path::{Path, PathBuf};

use model::Lan;

use crate::file::read;

const REMEDY: &str = "the chart mounts it from the ConfigMap loco-lans; or give another with --lans";

/// What the file said last.
#[derive(Debug)]
pub(crate) struct Lans {
    path: PathBuf,
    seen: Option<String>,
    /// `None` before the first good file.
    good: Option<Vec<Lan>>,
    problem: Option<String>,
}

impl Lans {
    /// Reads nothing yet.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: None, good: None, problem: None }
    }

    /// Looks at the file again: whether LANs or problem are others now.
    pub(crate) fn read(&mut self) -> bool {
        let text = match read(&self.path, REMEDY) {
            Ok(text) => text,
            Err(problem) => {
                self.seen = None;
                return self.fail(problem);
            }
        };
        if self.seen.as_ref() == Some(&text) {
            return false;
        }
        let result = api::snapshot::parse_lans(&text);
        self.seen = Some(text);
        match result {
            Ok(lans) => {
                let changed = self.problem.is_some() || self.good.as_ref() != Some(&lans);
                self.good = Some(lans);
                self.problem = None;
                changed
            }
            Err(error) => self.fail(format!("{}: {error}", self.path.display())),
        }
    }

    fn fail(&mut self, problem: String) -> bool {
        let changed = self.problem.as_ref() != Some(&problem);
        if changed {
            tracing::warn!(problem, "the file of LANs is not usable; the last good one stays in force");
        }
        self.problem = Some(problem);
        changed
    }

    pub(crate) fn good(&self) -> Option<&[Lan]> {
        self.good.as_deref()
    }

    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_good_lans_stay() {
        let folder = std::env::temp_dir().join(format!("loco-lans-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("lans.json");
        let mut lans = Lans::new(&path);
        assert!(lans.read() && lans.good().is_none() && lans.problem().unwrap().contains("--lans"));
        assert!(!lans.read(), "the same problem is not news");
        let one = r#"{"version":1,"lans":[{"name":"party","vni":7,"mode":"vxlan","subnet":"10.98.0.0/24","seats":9}]}"#;
        std::fs::write(&path, one).unwrap();
        assert!(lans.read() && lans.good().unwrap().len() == 1 && lans.problem().is_none());
        std::fs::write(&path, one.replace("\"vni\":7", "\"vni\":0")).unwrap();
        assert!(lans.read() && lans.good().unwrap().len() == 1 && lans.problem().unwrap().contains("lans[0].vni"));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(lans.read() && lans.good().unwrap().len() == 1);
    }
}
