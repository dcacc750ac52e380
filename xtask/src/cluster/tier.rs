//! The cluster tier of tests: the chart's by helm, then the scenarios of `k8s-tests` on a cluster of its own.
use anyhow::{Result, ensure};

use super::{binaries, control, down, images, is_up, kubeconfig, up_bare};
use crate::{
    closing::Count,
    dirs::Dirs,
    run::{self},
    setup, tell,
    test::tests,
};

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

pub(crate) fn run(dirs: &Dirs, count: &mut Count) -> Result<()> {
    ensure!(run::is_root(), "needs root: a cluster is namespaces, mounts and cgroups");
    setup::ensure(setup::For::Cluster)?;
    let bin = binaries::ensure(dirs)?;
    // Before there is a cluster that would share the processors with the compiler.
    let images = images::test_images(dirs)?;
    let mut cargo = run::cargo(dirs);
    cargo.args(["test", "--no-run", "--package", "k8s-tests", "--package", "xtask"]);
    run::Run::run(&mut cargo)?;
    let was_up = is_up(&bin);
    let tested = up_bare(dirs).and_then(|_| {
        let tars: Vec<_> = images.iter().map(|image| image.tar.clone()).collect();
        images::load(&tars)?;
        let mut cargo = run::cargo(dirs);
        cargo.env("KUBECONFIG", kubeconfig()).env("LOCO_TEST_TAG", images::tag(&images)?);
        cargo.env("HELM", bin.join("helm")).env("KUBECTL", bin.join("kubectl"));
        cargo.env("PROMETHEUS", setup::prometheus(dirs)?).env("PROMTOOL", setup::promtool(dirs)?);
        cargo.env("LOCO_XTASK", std::env::current_exe()?);
        cargo.args(["test", "--package", "k8s-tests", "--package", "xtask", "--no-fail-fast"]);
        let tested = tests(cargo.args(["--", "--ignored", "--test-threads=1"]), count);
        if tested.is_err() && control::answers(&bin) {
            let mut pods = control::kubectl(&bin);
            let pods = run::Run::answer(pods.args(["get", "pods", "--all-namespaces", "--output=wide"]));
            tell(&pods.unwrap_or_default());
        }
        tested
    });
    if was_up {
        tell("the cluster ran before and is left running");
        return tested;
    }
    let ended = down(dirs);
    tested.and(ended)
}
