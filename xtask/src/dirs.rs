//! Where things are: the checkout, and the cache outside of it.
use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

#[derive(Debug, Clone)]
pub(crate) struct Dirs {
    root: PathBuf,
    cache: PathBuf,
    target: PathBuf,
}

impl Dirs {
    pub(crate) fn find() -> Result<Self> {
        // The manifest that cargo runs us for now, not the one that we were compiled from: a clone may have moved.
        let manifest = env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask …`")?;
        Self::of(Path::new(&manifest).parent().context("xtask lies in the checkout")?)
    }

    /// Those of the checkout at `root`.
    pub(crate) fn of(root: &Path) -> Result<Self> {
        let root = root.to_owned();
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| Some(env::home_dir()?.join(".cache")));
        let cache = base.context("neither XDG_CACHE_HOME nor HOME is set; set one")?.join("loco");
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| cache.join("target"), |dir| root.join(dir));
        Ok(Self { root, cache, target })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }

    pub(crate) fn ui(&self) -> PathBuf {
        self.root.join("gateway/ui")
    }

    pub(crate) fn demo_kernel(&self) -> PathBuf {
        self.cache.join("demo-guest.elf")
    }
}
