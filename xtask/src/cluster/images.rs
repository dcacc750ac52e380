//! Images into the nodes, and the chart on top: what `cluster up` has and `--bare` has not.
use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{control, each_node, kubeconfig, node};
use crate::{dirs::Dirs, run::Run as _, tell};

pub(crate) const OF_THE_CHART: &[&str] = &["node-agent", "gateway", "guest-runner", "demo-guest"];
const FOR_TESTS: &[&str] = &["node-agent", "gateway", "guest-runner", "demo-guest", "test-peer"];
const NAMESPACE: &str = "loco";
/// Values that fit this cluster: the scenarios begin with the same.
const VALUES: &str = "k8s-tests/values.yaml";
/// Where those put the page, on every node.
const PAGE: &str = "http://10.77.0.11:30080";

/// One line of `cargo xtask image`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) tar: PathBuf,
    pub(crate) reference: String,
}

/// The tag that all images of one build have.
pub(crate) fn tag(images: &[Image]) -> Result<&str> {
    let reference = &images.first().context("no image was built")?.reference;
    let (_, tag) = reference.rsplit_once(':').with_context(|| format!("image {reference} has no tag"))?;
    Ok(tag)
}

/// Everything that the tests of the cluster tier install or run.
pub(crate) fn test_images(dirs: &Dirs) -> Result<Vec<Image>> {
    build(dirs, FOR_TESTS)
}

/// Builds them by `cargo xtask image`.
pub(crate) fn build(dirs: &Dirs, names: &[&str]) -> Result<Vec<Image>> {
    let mut image = Command::new(std::env::current_exe().context("this program has a file")?);
    image.current_dir(dirs.root()).arg("image");
    for name in names {
        image.args(["--only", name]);
    }
    let (status, text) = image.transcript()?;
    ensure!(status.success(), "`cargo xtask image` failed: {status}");
    let images = read(&text)?;
    ensure!(images.len() == names.len(), "`cargo xtask image` told of {} images, not of {}", images.len(), names.len());
    Ok(images)
}

fn read(text: &str) -> Result<Vec<Image>> {
    let image = |line: &str| {
        let value: Value = serde_json::from_str(line).with_context(|| format!("`cargo xtask image` said {line}"))?;
        let field = |name: &str| value[name].as_str().with_context(|| format!("no `{name}` in {line}"));
        Ok(Image { tar: field("tar")?.into(), reference: field("ref")?.to_owned() })
    };
    text.lines().filter(|line| line.starts_with('{')).map(image).collect()
}

/// Gives the images to all nodes.
pub(crate) fn load(tars: &[PathBuf]) -> Result<()> {
    tell(&format!("giving {} images to the nodes", tars.len()));
    each_node(|node| tars.iter().try_for_each(|tar| node::import(node, tar)))
}

/// Installs or upgrades the chart and waits until every part of it is there.
pub(crate) fn install(dirs: &Dirs, bin: &Path, images: &[Image]) -> Result<()> {
    let tag = tag(images)?;
    let mut helm = Command::new(bin.join("helm"));
    helm.current_dir(dirs.root()).env("KUBECONFIG", kubeconfig());
    helm.args(["upgrade", "--install", "loco", "charts/loco", "--namespace", NAMESPACE, "--create-namespace"]);
    helm.args(["--values", VALUES, "--set-string", &format!("image.tag={tag}"), "--timeout", "5m"]);
    // Results are on standard output, and this is none.
    tell(helm.answer()?.trim());
    let kubectl = || {
        let mut kubectl = control::kubectl(bin);
        kubectl.args(["--namespace", NAMESPACE]);
        kubectl
    };
    // `helm --wait` is content while `maxUnavailable` of them are still missing; a rollout's status is not.
    let workloads = kubectl().args(["get", "daemonset,deployment,statefulset", "--output", "name"]).answer()?;
    ensure!(!workloads.trim().is_empty(), "the chart made no workload");
    for workload in workloads.lines() {
        let rolled = kubectl().args(["rollout", "status", workload, "--timeout=300s"]).answer();
        if rolled.is_err() {
            tell(&kubectl().args(["get", "pods", "--output", "wide"]).answer()?);
        }
        tell(rolled?.lines().last().unwrap_or_default());
    }
    tell(&format!("the page is {PAGE}; its token is in the Secret loco-tokens of the namespace {NAMESPACE}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_image_prints_and_nothing_else() {
        let text = "hello\n{\"name\":\"gateway\",\"ref\":\"localhost/loco/gateway:0.1.0-abc\",\"id\":\"i\",\"tar\":\"/t/g.tar\",\"bytes\":1}\n";
        let images = read(text).unwrap();
        assert_eq!(
            images,
            [Image { tar: "/t/g.tar".into(), reference: "localhost/loco/gateway:0.1.0-abc".to_owned() }]
        );
        assert_eq!(tag(&images).unwrap(), "0.1.0-abc");
        assert!(read("{\"name\":\"gateway\"}\n").unwrap_err().to_string().contains("no `tar`"));
        assert!(read("{broken\n").is_err());
    }
}
