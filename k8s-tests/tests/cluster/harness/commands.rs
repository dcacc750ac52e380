//! Programs that the scenarios call: helm, kubectl, xtask.
//!
//! `HELM` and `KUBECTL` name the programs; without them those on the path, else `cargo xtask tool`.
use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("k8s-tests is a directory of the repository").to_owned()
}

pub(crate) fn helm() -> Command {
    tool("helm", "HELM")
}

pub(crate) fn kubectl() -> Command {
    tool("kubectl", "KUBECTL")
}

/// `cargo xtask …`; `LOCO_XTASK` names the built program.
pub(crate) fn xtask() -> Command {
    let mut command = if let Some(program) = std::env::var_os("LOCO_XTASK") {
        Command::new(program)
    } else {
        let mut command = Command::new("cargo");
        command.args(["-q", "xtask"]).env_remove("CARGO_TARGET_DIR");
        command
    };
    command.current_dir(root()).kill_on_drop(true);
    command
}

fn tool(name: &str, variable: &str) -> Command {
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
    };
    let mut command = if let Some(program) = std::env::var_os(variable).map(PathBuf::from).or_else(on_path) {
        Command::new(program)
    } else {
        let mut command = xtask();
        command.args(["tool", name, "--"]);
        command
    };
    command.current_dir(root()).kill_on_drop(true);
    command
}

/// Runs a command to its end; its standard output, or an error with what it said.
pub(crate) async fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{:?}", command.as_std());
    let output = command.stdin(Stdio::null()).output().await.with_context(|| shown.clone())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown}: {}\n{}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
