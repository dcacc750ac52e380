//! What documents, workflows and the dev container tell people and machines to type, held against what there is.
//!
//! Pure but for [`actionlint`]. Checked are: every `cargo xtask …` names a task and flags of it; the dev container has the
//! versions that were promised; chart, programs and workflows agree about version and registry.
use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;

use crate::{dirs::Dirs, run::Run as _, setup};

/// Complaints about all files at `paths` (relative to the checkout) that hold commands.
pub(crate) fn complaints<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files.filter(|(path, _)| holds_commands(path)) {
        for (number, line) in text.lines().enumerate() {
            for words in calls(line) {
                if let Err(problem) = known(&words) {
                    found.push(format!("{path}:{}: `cargo xtask {}`: {problem}", number + 1, words.join(" ")));
                }
            }
        }
        if path == ".devcontainer/Dockerfile" {
            found.extend(tools(text).into_iter().map(|problem| format!("{path}: {problem}")));
        }
    }
    found
}

/// Documents of past states (decisions, changes, measurements) say what was typed then.
fn holds_commands(path: &str) -> bool {
    let past = ["docs/adr/", "docs/benchmarks/", "CHANGELOG.md"];
    let kinds = [".md", ".yml", ".yaml", ".json", "Dockerfile", "Containerfile", "run"];
    let tops = [".github/", ".devcontainer/", ".ci/", "docs/", "charts/", "images/"];
    kinds.iter().any(|kind| path.ends_with(kind))
        && !past.iter().any(|start| path.starts_with(start))
        && (!path.contains('/') || tops.iter().any(|top| path.starts_with(top)))
}

/// The words after `cargo xtask` of every call in a line, up to where the command ends.
fn calls(line: &str) -> impl Iterator<Item = Vec<String>> {
    line.split("cargo xtask ").skip(1).map(|rest| {
        let end = rest.find(['`', '\'', '#', ';', '&', '>', ')', '"', ',', '(', '…']).unwrap_or(rest.len());
        let words = rest[..end].split_whitespace().take_while(|word| !["|", "\\", "--"].contains(word));
        // The end of a sentence is not the command's.
        words.map(|word| word.trim_end_matches(['.', ':']).to_owned()).collect()
    })
}

/// Whether the program knows the task, its sub-tasks and its flags. Values are not looked at.
fn known(words: &[String]) -> Result<(), String> {
    let cli = crate::Cli::command();
    let mut command = &cli;
    for word in words {
        // `[--a|--b]`, `up|down`: each of them. Capitals and what a workflow puts in are the reader's.
        for choice in word.trim_matches(['[', ']']).split('|').filter(|choice| !choice.contains(['$', '{', '}', '*'])) {
            if let Some(flag) = choice.strip_prefix("--") {
                let flag = flag.split('=').next().unwrap_or(flag);
                let mut flags = command.get_arguments().filter_map(clap::Arg::get_long);
                if flag != "help" && !flag.is_empty() && !flags.any(|known| known == flag) {
                    return Err(format!("`{}` has no flag --{flag}", command.get_name()));
                }
            } else if command.has_subcommands() && command.find_subcommand(choice).is_none() {
                return Err(format!("there is no `{choice}`"));
            }
        }
        if let Some(next) = command.find_subcommand(word) {
            command = next;
        }
    }
    Ok(())
}

/// Complaints about the dev container's tools: R0b asks for Node 22, kubectl 1.33, kind 0.23, helm 3.14 or newer, talosctl 1.3 or newer.
fn tools(dockerfile: &str) -> Vec<String> {
    let mut found = Vec::new();
    let numbers = |text: &str| text.split('.').map(str::parse).collect::<Result<Vec<u32>, _>>().unwrap_or_default();
    for (name, least, same) in
        [("NODE", "22", 1), ("KUBECTL", "1.33", 2), ("KIND", "0.23", 2), ("HELM", "3.14", 1), ("TALOSCTL", "1.3", 1)]
    {
        let line = dockerfile.lines().find_map(|line| line.strip_prefix(&format!("ARG {name}=")));
        let (have, want) = (numbers(line.unwrap_or_default()), numbers(least));
        // Three numbers: a version that means one thing for ever.
        if have.len() != 3 || have < want || have[..same] != want[..same] {
            found.push(format!("ARG {name} is {line:?}; it must be a whole version, {least} as asked for"));
        }
    }
    if !dockerfile.lines().any(|line| line.starts_with("FROM ") && line.ends_with("ubuntu-22.04")) {
        found.push("it must be FROM Ubuntu 22.04".to_owned());
    }
    found
}

/// The workflows by GitHub's own rules, as actionlint knows them; it is built with Go where it is not there.
pub(crate) fn actionlint(dirs: &Dirs) -> Result<()> {
    Command::new(setup::actionlint(dirs)?).current_dir(dirs.root()).arg("-no-color").run()
}

/// Chart, programs and what the release workflow looks for are of one version.
pub(crate) fn versions(root: &Path) -> Result<Vec<String>> {
    let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| path.to_owned());
    let (chart, cargo, values) =
        (read("charts/loco/Chart.yaml")?, read("Cargo.toml")?, read("charts/loco/values.yaml")?);
    let of = |text: &str, key: &str| {
        text.lines().find_map(|line| Some(line.strip_prefix(key)?.trim_matches('"').to_owned()))
    };
    let program = of(&cargo, "version = ");
    let mut found = Vec::new();
    for key in ["version: ", "appVersion: "] {
        if of(&chart, key) != program {
            found.push(format!("charts/loco/Chart.yaml: {key}{:?}, and Cargo.toml has {program:?}", of(&chart, key)));
        }
    }
    if values.lines().filter(|line| *line == "  registry: localhost").count() != 1 {
        found.push("charts/loco/values.yaml: the release workflow puts its registry in the place of the one line `  registry: localhost`".to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, want: &[&str]) {
        let found = complaints([("README.md", line)].into_iter());
        assert_eq!(found.len(), want.len(), "{found:?}");
        for (found, want) in found.iter().zip(want) {
            assert!(found.contains(want), "{found} / {want}");
        }
    }

    #[test]
    fn commands_that_are_not_there_are_named() {
        check("- run: cargo xtask test --${{ matrix.tier }}", &[]);
        check("`cargo xtask test [--unit|--privileged]` and `cargo xtask up --nodes 3 --detach`.", &[]);
        check("cargo xtask tool helm -- --no-such-flag; cargo xtask cluster up|down # cargo xtask ci", &[]);
        check("`cargo xtask tets --unit`", &["README.md:1: `cargo xtask tets --unit`: there is no `tets`"]);
        check("`cargo xtask test --unti`", &["no flag --unti"]);
        check("cargo xtask cluster up --bear", &["no flag --bear"]);
        check("cargo xtask build && cargo xtask nothing", &["there is no `nothing`"]);
    }

    #[test]
    fn only_texts_of_today_are_read() {
        assert!(
            holds_commands(".github/workflows/ci.yml")
                && holds_commands("docs/install.md")
                && holds_commands(".ci/run")
        );
        assert!(
            !holds_commands("docs/adr/0001-x.md") && !holds_commands("CHANGELOG.md") && !holds_commands("cli/a.md")
        );
    }

    #[test]
    fn the_dev_containers_versions_are_whole_and_those_asked_for() {
        let good = "FROM x:ubuntu-22.04\nARG NODE=22.1.0\nARG KUBECTL=1.33.1\nARG KIND=0.23.0\nARG HELM=3.18.4\nARG TALOSCTL=1.10.4\n";
        assert!(tools(good).is_empty(), "{:?}", tools(good));
        for (from, to) in
            [("22.1.0", "20.1.0"), ("1.33.1", "1.33"), ("0.23.0", "0.24.0"), ("3.18.4", "3.9.1"), ("22.04", "24.04")]
        {
            assert_eq!(tools(&good.replace(from, to)).len(), 1, "{to}");
        }
    }
}
