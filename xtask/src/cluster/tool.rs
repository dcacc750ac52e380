//! `cargo xtask tool`: the pinned helm, kubectl and promtool, so that a person and CI run the same.
use std::{ffi::OsString, os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use super::{binaries, kubeconfig};
use crate::{dirs::Dirs, setup};

#[derive(Debug, Args)]
pub(crate) struct ToolArgs {
    #[arg(value_enum)]
    name: Tool,
    /// Passed on to it
    #[arg(last = true)]
    args: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Tool {
    /// 3.19, built with the cluster
    Helm,
    /// 1.34, built with the cluster
    Kubectl,
    /// Debian's
    Promtool,
    /// Debian's
    Prometheus,
}

/// Runs the tool in place of this program. Those that ask a cluster ask the test cluster, unless KUBECONFIG says another.
pub(crate) fn tool(dirs: &Dirs, args: &ToolArgs) -> Result<()> {
    let mut command = match args.name {
        Tool::Helm => Command::new(binaries::ensure(dirs)?.join("helm")),
        Tool::Kubectl => Command::new(binaries::ensure(dirs)?.join("kubectl")),
        Tool::Promtool => Command::new(setup::promtool(dirs)?),
        Tool::Prometheus => Command::new(setup::prometheus(dirs)?),
    };
    if std::env::var_os("KUBECONFIG").is_none() && Path::new(&kubeconfig()).is_file() {
        command.env("KUBECONFIG", kubeconfig());
    }
    Err(command.args(&args.args).exec()).with_context(|| format!("cannot run {}", command.get_program().display()))
}
