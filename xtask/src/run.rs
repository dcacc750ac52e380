//! Commands: said before they run, and an error that says which one failed.
use std::{
    io::{BufRead as _, BufReader, Read, Write},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{dirs::Dirs, setup, tell};

pub(crate) trait Run {
    /// Runs it to its end; an error if it fails.
    fn run(&mut self) -> Result<()>;
    /// Runs it to its end and returns what it printed, which is shown as well.
    fn transcript(&mut self) -> Result<(ExitStatus, String)>;
    /// Standard output of a command that only asks something.
    fn answer(&mut self) -> Result<String>;
}

impl Run for Command {
    fn run(&mut self) -> Result<()> {
        let words = words(self);
        tell(&format!("$ {words}"));
        let status = self.status().with_context(|| format!("cannot run `{words}`"))?;
        ensure!(status.success(), "`{words}` failed: {status}");
        Ok(())
    }

    fn transcript(&mut self) -> Result<(ExitStatus, String)> {
        let words = words(self);
        tell(&format!("$ {words}"));
        self.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = self.spawn().with_context(|| format!("cannot run `{words}`"))?;
        let output = child.stdout.take().context("its output is piped")?;
        let text =
            thread::scope(|scope| scope.spawn(|| tee(output)).join()).map_err(|_| anyhow!("a thread panicked"))??;
        Ok((child.wait()?, text))
    }

    fn answer(&mut self) -> Result<String> {
        let words = words(self);
        let output = self.output().with_context(|| format!("cannot run `{words}`"))?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{words}` failed: {}\n{}", output.status, told.trim());
        String::from_utf8(output.stdout).with_context(|| format!("`{words}` printed something that is not text"))
    }
}

fn tee(output: impl Read) -> Result<String> {
    let mut text = String::new();
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let mut out = std::io::stdout().lock();
        out.write_all(&line)?;
        out.flush()?;
        text.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(text)
}

fn words(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

/// cargo in the checkout, building into the cache.
pub(crate) fn cargo(dirs: &Dirs) -> Command {
    let mut command = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_about_us) {
            command.env_remove(name);
        }
    }
    command.current_dir(dirs.root()).env("CARGO_TARGET_DIR", dirs.target());
    command
}

/// What `cargo run` tells this program of itself. Some build scripts depend on such variables, so that passing them on
/// would build those crates, and all above them, anew at each change between `cargo xtask …` and `cargo …`.
fn is_about_us(variable: &str) -> bool {
    variable.starts_with("CARGO_PKG_")
        || ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_BIN_NAME", "CARGO_CRATE_NAME"].contains(&variable)
}

/// A program of Node's in `dir`, with the Node that set-up has chosen.
pub(crate) fn node(dirs: &Dirs, program: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir);
    if let Some(own) = setup::own_node(dirs) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(own).chain(std::env::split_paths(&path));
        if let Ok(joined) = std::env::join_paths(paths) {
            command.env("PATH", joined);
        }
    }
    command
}

pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").answer().is_ok_and(|uid| uid.trim() == "0")
}

/// `program` as root, by sudo where this is not root; the demo game's place is said, as root's cache is elsewhere.
pub(crate) fn as_root(dirs: &Dirs, program: &Path) -> Command {
    let demo = format!("LOCO_DEMO_KERNEL={}", dirs.demo_kernel().display());
    let mut command = if is_root() || !setup::on_path("sudo") { Command::new("env") } else { Command::new("sudo") };
    if command.get_program() == "sudo" {
        tell("this needs root; asking sudo");
        command.arg("env");
    }
    command.arg(demo).arg(program);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_this_program_is_not_passed_on_and_the_rest_is() {
        assert!(is_about_us("CARGO_PKG_NAME") && is_about_us("CARGO_MANIFEST_DIR"));
        assert!(!is_about_us("CARGO_HOME") && !is_about_us("CARGO_NET_OFFLINE") && !is_about_us("PATH"));
    }

    #[test]
    fn a_command_that_fails_is_named_with_its_arguments() {
        let error = Command::new("false").arg("x").run().unwrap_err().to_string();
        assert!(error.contains("`false x` failed: exit status: 1"), "{error}");
        assert!(Command::new("/nonexistent/program").answer().unwrap_err().to_string().contains("cannot run"));
        assert_eq!(Command::new("echo").arg("a").answer().unwrap(), "a\n");
    }
}
