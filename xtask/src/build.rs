//! Builds what a wall needs, in the order in which one part embeds another.
use std::{
    env, fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use anyhow::{Context as _, Result};

use crate::{
    dirs::Dirs,
    run::{self, Run as _},
};

/// The cache is shared by all checkouts of this machine, and cargo tells a package of one from the same package of another by
/// the age of its files only. So what another checkout has built of our own packages is thrown away; the dependencies stay.
/// This program is one of them: it is built anew, and starts over.
pub(crate) fn claim_cache(dirs: &Dirs) -> Result<()> {
    fs::create_dir_all(dirs.target()).with_context(|| format!("{}", dirs.target().display()))?;
    let stamp = dirs.target().join(".loco-checkout");
    let root = dirs.root().as_os_str().as_encoded_bytes();
    if fs::read(&stamp).is_ok_and(|last| last == root) {
        return Ok(());
    }
    let program = env::current_exe().context("this program has a file")?;
    run::cargo(dirs).args(["clean", "--quiet", "--workspace"]).run()?;
    // Workspaces of their own, with few dependencies.
    for target in [demo_target(dirs), fuzz_target(dirs)] {
        match fs::remove_dir_all(&target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot clean {}", target.display()));
            }
            _ => {}
        }
    }
    fs::write(&stamp, root).with_context(|| format!("{}", stamp.display()))?;
    if program.exists() {
        return Ok(());
    }
    run::cargo(dirs).args(["build", "--package", "xtask"]).run()?;
    let error = Command::new(&program).args(env::args_os().skip(1)).exec();
    Err(error).with_context(|| format!("cannot start {} anew", program.display()))
}

fn demo_target(dirs: &Dirs) -> PathBuf {
    dirs.cache().join("demo-target")
}

/// Where the fuzz targets are built.
pub(crate) fn fuzz_target(dirs: &Dirs) -> PathBuf {
    dirs.cache().join("fuzz-target")
}

/// The page (embedded by the gateway), the demo game, then all programs at once.
pub(crate) fn all(dirs: &Dirs) -> Result<()> {
    page(dirs)?;
    demo_guest(dirs)?;
    run::cargo(dirs).args(["build", "--workspace"]).run()
}

/// Node modules of `dir`, exactly as its lock file says; nothing to do if they are that already.
pub(crate) fn node_modules(dirs: &Dirs, dir: &Path) -> Result<()> {
    let lock = fs::read(dir.join("package-lock.json")).with_context(|| format!("{}", dir.display()))?;
    let stamp = dir.join("node_modules/.loco-installed");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    run::node(dirs, "npm", dir).args(["ci", "--no-audit", "--no-fund"]).stdout(io::stderr()).run()?;
    fs::write(&stamp, lock).with_context(|| format!("{}", stamp.display()))
}

/// The browser page, unless it is newer than all that it is made of.
pub(crate) fn page(dirs: &Dirs) -> Result<()> {
    let ui = dirs.ui();
    node_modules(dirs, &ui)?;
    let built = fs::metadata(ui.join("dist/index.html")).and_then(|meta| meta.modified()).ok();
    let newest = newest(&ui, &["node_modules", "dist", "tests"])?;
    if built.is_some_and(|built| built >= newest) {
        return Ok(());
    }
    // What npm tells is no result of ours.
    run::node(dirs, "npm", &ui).args(["run", "build"]).stdout(io::stderr()).run()
}

/// When the newest file below `dir` was written; entries named in `but` are passed over.
fn newest(dir: &Path, but: &[&str]) -> io::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if but.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let at = if entry.file_type()?.is_dir() {
            self::newest(&entry.path(), but)?
        } else {
            entry.metadata()?.modified()?
        };
        newest = newest.max(at);
    }
    Ok(newest)
}

/// The demo game: another target than the workspace, so a build of its own. `loco` finds the result in the cache.
pub(crate) fn demo_guest(dirs: &Dirs) -> Result<()> {
    let target = demo_target(dirs);
    let mut cargo = run::cargo(dirs);
    cargo.current_dir(dirs.root().join("demo-guest")).args([
        "build",
        "--release",
        "--bin",
        "demo-guest",
        "--target-dir",
    ]);
    cargo.arg(&target).run()?;
    let built = target.join("release/demo-guest");
    let kernel = dirs.demo_kernel();
    // By way of a new name: a running QEMU may have the old one open.
    let new = kernel.with_extension("new");
    fs::copy(&built, &new).with_context(|| format!("cannot copy {} to {}", built.display(), new.display()))?;
    fs::rename(&new, &kernel).with_context(|| format!("cannot write {}", kernel.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_source_counts_and_products_do_not() {
        let dir = env::temp_dir().join(format!("loco-xtask-newest-{}", std::process::id()));
        for sub in ["src/deep", "dist"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        let at = |path: &str, seconds: u64| {
            let file = fs::File::create(dir.join(path)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        };
        at("package.json", 10);
        at("src/deep/a.ts", 20);
        at("dist/index.html", 30);
        let seconds =
            |but: &[&str]| newest(&dir, but).unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!((seconds(&["dist"]), seconds(&[])), (20, 30));
        fs::remove_dir_all(dir).unwrap();
    }
}
