//! The other programs, which lie beside this one: a build, an installation and an image all put them together.
use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Siblings {
    pub(crate) node_agent: PathBuf,
    pub(crate) guest_runner: PathBuf,
    pub(crate) gateway: PathBuf,
}

impl Siblings {
    pub(crate) fn find() -> Result<Self> {
        let own = env::current_exe().context("cannot tell where this program lies")?;
        Self::beside(&own)
    }

    fn beside(own: &Path) -> Result<Self> {
        let dir = own.parent().unwrap_or(Path::new("/"));
        let sibling = |name: &str| {
            let path = dir.join(name);
            if !path.is_file() {
                bail!("{name} is not beside loco in {}; build all of it: `cargo xtask build`", dir.display());
            }
            Ok(path)
        };
        Ok(Self {
            node_agent: sibling("node-agent")?,
            guest_runner: sibling("guest-runner")?,
            gateway: sibling("gateway")?,
        })
    }
}

/// The demo game: where the environment says, or where `cargo xtask build` put it. `None`: it is not built.
pub(crate) fn demo_kernel() -> Option<PathBuf> {
    let given = env::var_os("LOCO_DEMO_KERNEL").map(PathBuf::from);
    let cached = || Some(cache()?.join("demo-guest.elf"));
    given.or_else(cached).filter(|path| path.is_file())
}

fn cache() -> Option<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(base.or_else(|| Some(env::home_dir()?.join(".cache")))?.join("loco"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_sibling_is_named_with_the_remedy() {
        let error = Siblings::beside(Path::new("/nonexistent/loco")).unwrap_err().to_string();
        assert_eq!(error, "node-agent is not beside loco in /nonexistent; build all of it: `cargo xtask build`");
    }
}
