//! The Helm chart: what is written from its `values.yaml`, and what must hold of it.
//!
//! ```text
//! values.yaml ──> values.schema.json, table in README.md      `cargo xtask chart`; tidy fails when they are stale
//!             ──> values that no template uses                tidy
//! templates + values ── helm ──> what the cluster would get   tests/: goldens, one test per condition
//! ```
mod schema;
#[cfg(test)]
mod tests;
mod used;
mod values;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{
    cluster,
    dirs::Dirs,
    run::{self, Run as _},
    tell,
};

const CHART: &str = "charts/loco";

#[derive(Debug, Args)]
pub(crate) struct ChartArgs {
    /// Only check, and fail if something is stale
    #[arg(long)]
    check: bool,
    /// Run the chart's tests, which render it with helm
    #[arg(long, conflicts_with = "check")]
    test: bool,
}

/// `cargo xtask chart`
pub(crate) fn run(dirs: &Dirs, args: &ChartArgs) -> Result<()> {
    if args.test {
        let (status, _) = test(dirs, None)?.transcript()?;
        ensure!(status.success(), "the chart's tests failed: {status}");
        return Ok(());
    }
    if !args.check {
        for (path, fresh) in generated(dirs)? {
            if fs::read_to_string(&path).ok().as_deref() != Some(&fresh) {
                fs::write(&path, fresh).with_context(|| format!("{}", path.display()))?;
                tell(&format!("written: {}", path.display()));
            }
        }
    }
    let complaints = complaints(dirs)?;
    for complaint in &complaints {
        tell(complaint);
    }
    ensure!(complaints.is_empty(), "the chart has {} faults", complaints.len());
    Ok(())
}

/// The command that runs the chart's tests; helm is built if it is not there. With a cluster's `kubeconfig`, its API server
/// is asked as well what it says to each object.
pub(crate) fn test(dirs: &Dirs, kubeconfig: Option<&Path>) -> Result<Command> {
    let programs = cluster::programs(dirs)?;
    let mut cargo = run::cargo(dirs);
    cargo.env("LOCO_HELM", programs.join("helm")).env("LOCO_KUBE", programs.join("kube"));
    cargo.args(["test", "--package", "xtask", "--", "--ignored", "chart::"]);
    match kubeconfig {
        Some(path) => cargo.env("KUBECONFIG", path),
        None => cargo.args(["--skip", "chart::tests::server"]),
    };
    Ok(cargo)
}

/// For tidy: stale files, and values without use.
pub(crate) fn complaints(dirs: &Dirs) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for (path, fresh) in generated(dirs)? {
        if fs::read_to_string(&path).ok().as_deref() != Some(&fresh) {
            let short = path.strip_prefix(dirs.root()).unwrap_or(&path).display().to_string();
            complaints.push(format!("{short} is not what its generator writes; write it anew: `cargo xtask chart`"));
        }
    }
    complaints.extend(used::complaints(&entries(dirs)?, &templates(dirs)?));
    Ok(complaints)
}

fn chart(dirs: &Dirs) -> PathBuf {
    dirs.root().join(CHART)
}

fn entries(dirs: &Dirs) -> Result<Vec<values::Entry>> {
    let path = chart(dirs).join("values.yaml");
    values::parse(&read(&path)?).with_context(|| format!("{}", path.display()))
}

/// Every generated file with what it should hold.
fn generated(dirs: &Dirs) -> Result<[(PathBuf, String); 2]> {
    let entries = entries(dirs)?;
    let readme = chart(dirs).join("README.md");
    let table = schema::readme(&read(&readme)?, &entries).with_context(|| format!("{}", readme.display()))?;
    Ok([(chart(dirs).join("values.schema.json"), schema::schema(&entries)), (readme, table)])
}

fn templates(dirs: &Dirs) -> Result<Vec<used::Template>> {
    let mut found = Vec::new();
    let mut folders = vec![chart(dirs).join("templates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = read(&path)?;
                found.push(used::Template {
                    path: path.strip_prefix(dirs.root()).unwrap_or(&path).display().to_string(),
                    text,
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{}", path.display()))
}
