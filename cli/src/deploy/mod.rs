//! `loco deploy`: from this checkout to a cluster that plays it, and proof of each step.
//!
//! ```text
//! cluster ready? ──> build all images, tag = hash of what they are ──> each node has each ──> helm ──> every rollout
//!     ──> what runs is what was built ──> page and pictures ──> frames from node to node
//! ```
//! **Invariants.** A stale image cannot pass: a tag stands for one content only, each node is asked what it has under it, and
//! each pod what it runs. The first step that fails ends it, with what to do. Run again, it does only what is missing.
mod judge;
mod plan;
mod runner;
mod smoke;
mod target;
#[cfg(test)]
mod tests;
mod words;

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::{Args, ValueEnum};

pub(crate) use self::words::dry;
pub(crate) use self::{
    judge::Expect,
    plan::{Cmd, Options, Probe, Step},
    runner::answer,
    target::Target,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    Kind,
    Minikube,
    Containerd,
    Registry,
}

#[derive(Debug, Args)]
pub(crate) struct DeployFlags {
    /// Where the nodes get the images from: loaded into them, or pulled from a registry
    #[arg(long, value_enum)]
    to: To,
    #[command(flatten)]
    common: CommonFlags,
}

/// What deploy and bootstrap share.
#[derive(Debug, Clone, Args)]
pub(crate) struct CommonFlags {
    /// Name of the kind cluster or minikube profile
    #[arg(long, value_name = "NAME", default_value = "loco")]
    cluster: String,
    /// Runs a command on a node, with its standard input; {node} is its name: 'ssh {node} sudo'. For `--to containerd`; left out, the nodes' containerd is this machine's
    #[arg(long, value_name = "WORDS", default_value = "")]
    node_exec: String,
    /// containerd's tool on the nodes: 'k3s ctr' with k3s
    #[arg(long, value_name = "WORDS", default_value = "ctr")]
    ctr: String,
    /// First part of the images' names; needed for `--to registry`
    #[arg(long, value_name = "HOST[/PATH]")]
    registry: Option<String>,
    /// The registry speaks HTTP without TLS
    #[arg(long)]
    plain_http: bool,
    /// Context of kubectl and helm
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Namespace of the release
    #[arg(long, value_name = "NAME", default_value = "loco")]
    namespace: String,
    /// Name of the release
    #[arg(long, value_name = "NAME", default_value = "loco")]
    release: String,
    /// Values for the chart
    #[arg(long, value_name = "FILE")]
    values: Vec<PathBuf>,
    /// One value for the chart
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Secret with the users' tokens, if tokens.existingSecret names another
    #[arg(long, value_name = "NAME", default_value = "loco-tokens")]
    tokens_secret: String,
    /// The checkout; else the one around the working directory
    #[arg(long, value_name = "DIR")]
    checkout: Option<PathBuf>,
    /// How kubectl is called
    #[arg(long, env = "LOCO_KUBECTL", value_name = "WORDS", default_value = "kubectl")]
    kubectl: String,
    /// How helm is called
    #[arg(long, env = "LOCO_HELM", value_name = "WORDS", default_value = "helm")]
    helm: String,
    /// Seconds for each rollout and for the pictures
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Do not send frames from node to node at the end (`helm test`)
    #[arg(long)]
    no_test: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl DeployFlags {
    /// Wrong usage, before anything is done.
    pub(crate) fn options(&self) -> Result<Options> {
        let common = &self.common;
        let target = match self.to {
            To::Kind => Target::Kind { cluster: common.cluster.clone() },
            To::Minikube => Target::Minikube { profile: common.cluster.clone() },
            To::Containerd => Target::Containerd { exec: common.node_exec.clone(), ctr: common.ctr.clone() },
            To::Registry => {
                ensure!(
                    common.registry.is_some(),
                    "--to registry needs --registry HOST[/PATH], which the nodes can pull from"
                );
                Target::Registry { plain_http: common.plain_http }
            }
        };
        common.options(target)
    }

    pub(crate) fn common(&self) -> &CommonFlags {
        &self.common
    }
}

impl CommonFlags {
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(crate) fn dry_run(&self) -> bool {
        self.dry_run
    }

    pub(crate) fn has_registry(&self) -> bool {
        self.registry.is_some()
    }

    pub(crate) fn registry_target(&self) -> Target {
        Target::Registry { plain_http: self.plain_http }
    }

    pub(crate) fn containerd_target(&self) -> Target {
        Target::Containerd { exec: self.node_exec.clone(), ctr: self.ctr.clone() }
    }

    pub(crate) fn options(&self, target: Target) -> Result<Options> {
        let name = |flag: &str, name: &str| {
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            let ok = !name.is_empty()
                && name.len() <= 63
                && name.chars().all(fine)
                && !name.starts_with('-')
                && !name.ends_with('-');
            ensure!(ok, "{flag} {name}: write lower-case letters, digits and `-`, at most 63");
            Ok(())
        };
        name("--cluster", &self.cluster)?;
        name("--namespace", &self.namespace)?;
        name("--release", &self.release)?;
        ensure!(self.timeout > 0, "--timeout 0: nothing is there at once; give at least 1");
        ensure!(
            !self.helm.trim().is_empty() && !self.kubectl.trim().is_empty() && !self.ctr.trim().is_empty(),
            "--helm, --kubectl and --ctr name a program each"
        );
        if let Some(pair) = self.set.iter().find(|pair| !pair.contains('=') || pair.starts_with("image.")) {
            bail!(
                "--set {pair}: write KEY=VALUE; image.registry, image.tag and image.pullPolicy are set by the deployment itself"
            );
        }
        let file = |file: &PathBuf| {
            ensure!(file.is_file(), "--values {}: there is no such file", file.display());
            Ok(["--values".to_owned(), std::path::absolute(file)?.to_string_lossy().into_owned()])
        };
        let mut values = Vec::new();
        for path in &self.values {
            values.extend(file(path)?);
        }
        values.extend(self.set.iter().flat_map(|pair| ["--set".to_owned(), pair.clone()]));
        Ok(Options {
            context: self.context.clone().or_else(|| target.context()),
            target,
            kubectl: self.kubectl.clone(),
            helm: self.helm.clone(),
            namespace: self.namespace.clone(),
            release: self.release.clone(),
            chart: "charts/loco".to_owned(),
            values,
            registry: self.registry.clone().unwrap_or_else(|| "localhost".to_owned()),
            patience: self.timeout,
            helm_test: !self.no_test,
            tokens: self.tokens_secret.clone(),
        })
    }

    /// The checkout becomes the working directory: all commands are said relative to it.
    pub(crate) fn enter_checkout(&self) -> Result<()> {
        let here = env::current_dir().context("there is no working directory")?;
        let is_checkout = |dir: &&Path| dir.join("charts/loco/Chart.yaml").is_file() && dir.join("xtask").is_dir();
        let checkout = match &self.checkout {
            Some(dir) => Some(dir.as_path()).filter(is_checkout),
            None => here.ancestors().find(is_checkout),
        };
        let checkout = checkout.with_context(|| {
            let given = self.checkout.as_deref().unwrap_or(&here).display().to_string();
            format!("{given} is no checkout of Loco; images are built from one: give it with --checkout DIR")
        })?;
        env::set_current_dir(checkout).with_context(|| format!("{}", checkout.display()))
    }
}

/// Runs `first`, then deploys. `print` gets results, `tell` what happens.
pub(crate) async fn run(options: &Options, first: &[Step], print: &dyn Fn(&str), tell: &dyn Fn(&str)) -> Result<()> {
    if !first.is_empty() {
        runner::run(first, tell).await?;
    }
    runner::run(&plan::before(options), tell).await?;
    tell("building all images");
    let names = options.image_names();
    let output = runner::answer_aloud(&options.build()).await.context("images cannot be built; see docs/images.md")?;
    let images = judge::built(&output, &names).map_err(|why| anyhow!("`cargo xtask image`: {why}"))?;
    // Only now: building takes minutes, in which nodes come and go.
    let nodes = judge::nodes(&answer(&options.nodes()).await?, architecture()).map_err(|why| anyhow!(why))?;
    runner::run(&plan::after(options, &nodes, &images), tell).await?;
    print(&words::summary(options, &nodes, &images));
    Ok(())
}
