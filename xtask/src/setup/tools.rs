//! Single programs of Debian packages whose installation would start a service: unpacked into the cache instead.
use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::on_path;
use crate::{dirs::Dirs, run::Run as _, tell};

/// Prometheus' own checker of metrics and rules: the one on the `PATH`, or the one in the cache, fetched if it is not there.
pub(crate) fn promtool(dirs: &Dirs) -> Result<PathBuf> {
    of_prometheus(dirs, "promtool")
}

/// The server, for tests of what it makes of our rules.
pub(crate) fn prometheus(dirs: &Dirs) -> Result<PathBuf> {
    of_prometheus(dirs, "prometheus")
}

fn of_prometheus(dirs: &Dirs, name: &str) -> Result<PathBuf> {
    if on_path(name) {
        return Ok(name.into());
    }
    let home = dirs.cache().join("prometheus");
    let program = home.join("usr/bin").join(name);
    if program.is_file() {
        return Ok(program);
    }
    ensure!(
        on_path("apt-get") && on_path("dpkg-deb"),
        "{name} is needed for the alert rules, and it is not on the PATH; install Prometheus"
    );
    tell("set-up: fetching Prometheus (Debian's package, unpacked into the cache, not installed)");
    fs::create_dir_all(&home).with_context(|| format!("{}", home.display()))?;
    Command::new("apt-get").current_dir(&home).args(["-q", "download", "prometheus"]).run()?;
    let packages: Vec<PathBuf> = fs::read_dir(&home)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    let package = packages.first().context("apt-get downloaded nothing")?;
    Command::new("dpkg-deb").arg("-x").arg(package).arg(&home).run()?;
    for package in &packages {
        fs::remove_file(package)?;
    }
    ensure!(program.is_file(), "the package prometheus holds no {name}");
    Ok(program)
}

/// GitHub's workflows by their rules: the one on the `PATH`, or the one in the cache, built there once (20 s).
pub(crate) fn actionlint(dirs: &Dirs) -> Result<PathBuf> {
    const VERSION: &str = "1.7.7";
    if on_path("actionlint") {
        return Ok("actionlint".into());
    }
    let home = dirs.cache().join(format!("actionlint-{VERSION}"));
    let program = home.join("actionlint");
    if !program.is_file() {
        if !on_path("go") {
            super::install(&[super::packages::GO])?;
        }
        tell("set-up: building actionlint");
        fs::create_dir_all(&home).with_context(|| format!("{}", home.display()))?;
        let package = format!("github.com/rhysd/actionlint/cmd/actionlint@v{VERSION}");
        // In an empty directory: no module of ours says which toolchain it wants.
        Command::new("go").current_dir(&home).env("GOBIN", &home).args(["install", &package]).run()?;
    }
    Ok(program)
}
