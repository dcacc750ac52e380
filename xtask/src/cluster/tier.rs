//! The cluster tier of tests: the chart's by helm, then the scenarios of `k8s-tests` on a cluster of its own.
use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use super::{binaries, control, down, images, is_up, kubeconfig, up_bare};
use crate::{
    chart,
    closing::Count,
    dirs::Dirs,
    run::{self, Run as _},
    setup, tell,
    test::tests,
};

/// Which scenarios, and how.
#[derive(Debug, Args)]
pub(crate) struct ScenarioArgs {
    /// Each scenario on a wall that a fault of its own has spoilt: it passes if it goes red by that
    #[arg(long, requires = "cluster")]
    seeded: bool,
    /// Scenarios with this word in their name, and nothing else of the cluster's tier; may be given again
    #[arg(long, requires = "cluster", value_name = "WORD")]
    only: Vec<String>,
}

impl ScenarioArgs {
    pub(crate) const ALL: Self = Self { seeded: false, only: Vec::new() };

    /// The chart and the directory are tested as well.
    const fn is_whole_tier(&self) -> bool {
        !self.seeded && self.only.is_empty()
    }
}

/// Why a run of all tiers leaves this one out; `None`: it does not. Asked for by name, it builds and installs what it needs.
pub(crate) fn left_out(dirs: &Dirs) -> Option<String> {
    if !run::is_root() {
        return Some("needs root".to_owned());
    }
    let missing = setup::missing(setup::For::Cluster);
    if !missing.is_empty() {
        return Some(format!("`cargo xtask setup --for cluster` installs what is missing: {}", missing.join(" ")));
    }
    (!binaries::are_there(dirs)).then(|| {
        "Kubernetes is not built on this machine yet; `cargo xtask test --cluster` builds it, once, in 5 to 20 minutes"
            .to_owned()
    })
}

pub(crate) fn run(dirs: &Dirs, args: &ScenarioArgs, count: &mut Count) -> Result<()> {
    ensure!(run::is_root(), "needs root: a cluster is namespaces, mounts and cgroups");
    setup::ensure(setup::For::Cluster)?;
    let bin = binaries::ensure(dirs)?;
    // Before there is a cluster that would share the processors with the compiler.
    let images = images::test_images(dirs)?;
    run::cargo(dirs).args(["test", "--no-run", "--package", "k8s-tests", "--package", "xtask"]).run()?;
    let directory = if args.is_whole_tier() {
        let mut directory = run::cargo(dirs);
        directory.env("LOCO_KUBE", bin.join("kube")).args(["test", "--package", "gateway", "--test", "kubernetes"]);
        tests(directory.args(["--", "--ignored", "--test-threads=1"]), count)
    } else {
        Ok(())
    };
    let was_up = is_up(&bin);
    let tested = up_bare(dirs).and_then(|_| {
        let charts = if args.is_whole_tier() {
            tests(&mut chart::test(dirs, Some(Path::new(&kubeconfig())))?, count)
        } else {
            Ok(())
        };
        let scenarios = scenarios(dirs, args, &bin, &images).and_then(|mut scenarios| tests(&mut scenarios, count));
        if scenarios.is_err() && control::answers(&bin) {
            let pods = control::kubectl(&bin).args(["get", "pods", "--all-namespaces", "--output=wide"]).answer();
            tell(&pods.unwrap_or_default());
        }
        charts.and(scenarios)
    });
    if was_up {
        tell("the cluster ran before and is left running");
        return directory.and(tested);
    }
    let ended = down(dirs);
    directory.and(tested).and(ended)
}

/// Gives the cluster the images; the command that runs the scenarios with them.
fn scenarios(dirs: &Dirs, args: &ScenarioArgs, bin: &Path, images: &[images::Image]) -> Result<Command> {
    let tars: Vec<_> = images.iter().map(|image| image.tar.clone()).collect();
    images::load(&tars)?;
    let mut cargo = run::cargo(dirs);
    cargo.env("KUBECONFIG", kubeconfig()).env("LOCO_TEST_TAG", images::tag(images)?);
    cargo.env("HELM", bin.join("helm")).env("KUBECTL", bin.join("kubectl"));
    cargo.env("PROMETHEUS", setup::prometheus(dirs)?).env("PROMTOOL", setup::promtool(dirs)?);
    cargo.env("LOCO_XTASK", std::env::current_exe().context("this program has a file")?);
    if args.seeded {
        cargo.env("LOCO_TEST_SEEDED", "1");
    }
    cargo.args(["test", "--package", "k8s-tests", "--no-fail-fast", "--", "--ignored", "--test-threads=1"]);
    cargo.args(&args.only);
    Ok(cargo)
}
