//! What builds the eBPF programs (docs/adr/0013): Debian's packages, and bpf-linker, which only cargo brings. It is kept in
//! the cache, under its version; `crates/traffic/build.rs` looks for it there.
use std::{env, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::on_path;
use crate::{
    dirs::Dirs,
    run::{self, Run as _},
    tell,
};

/// As in `crates/traffic/build.rs`.
const LINKER: &str = "0.13.0";
/// Where Debian keeps the LLVM of its rustc-web. Without it bpf-linker takes the first `llvm-config` and fails late.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// Not needed by whoever has a ready object.
pub(super) const PACKAGES: [&str; 3] = ["rustc-web", "libstd-rust-web-dev-bpf", "llvm-22-dev"];

/// A ready object is to be used: nothing is built.
pub(super) fn is_given() -> bool {
    env::var_os("EBPF_OBJECT").is_some()
}

/// Builds bpf-linker into the cache, unless it is there, or another one is asked for.
pub(super) fn ensure_linker(dirs: &Dirs) -> Result<()> {
    let home = dirs.cache().join(format!("bpf-linker-{LINKER}"));
    if is_given() || env::var_os("EBPF_LINKER").is_some() || is_right(&home.join("bin/bpf-linker")) {
        return Ok(());
    }
    if on_path("bpf-linker") && is_right(Path::new("bpf-linker")) {
        return Ok(());
    }
    tell(&format!("set-up: building bpf-linker {LINKER} into the cache, once; some two minutes"));
    fs::create_dir_all(&home).with_context(|| format!("{}", home.display()))?;
    let target = dirs.cache().join("bpf-linker-build");
    install(dirs, &home, &target).run()?;
    // Some hundred megabytes that nobody needs again.
    fs::remove_dir_all(&target).with_context(|| format!("{}", target.display()))?;
    ensure!(
        is_right(&home.join("bin/bpf-linker")),
        "bpf-linker was built and is not {LINKER}; remove {} and try again",
        home.display()
    );
    Ok(())
}

fn install(dirs: &Dirs, home: &Path, target: &Path) -> Command {
    let mut cargo = run::cargo(dirs);
    cargo.args(["install", "bpf-linker", "--version", LINKER, "--locked", "--no-default-features"]);
    cargo.args(["--features", "llvm-22", "--root"]).arg(home);
    cargo.env("LLVM_PREFIX", LLVM_PREFIX).env("CARGO_TARGET_DIR", target);
    cargo
}

fn is_right(program: &Path) -> bool {
    Command::new(program).arg("--version").answer().is_ok_and(|text| is_version(&text))
}

/// `bpf-linker 0.13.0`
fn is_version(text: &str) -> bool {
    text.split_whitespace().nth(1) == Some(LINKER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_version_that_was_tried_will_do() {
        assert!(is_version("bpf-linker 0.13.0\n"));
        assert!(!is_version("bpf-linker 0.13.1\n") && !is_version("bpf-linker 0.9.14") && !is_version(""));
    }

    #[test]
    fn the_packages_are_those_of_the_list() {
        let names = super::super::packages::names(super::super::For::Up);
        assert!(PACKAGES.iter().all(|name| names.contains(name)));
    }
}
