//! `loco bootstrap`: from nothing to a playing cluster. Makes the cluster, then deploys (`deploy`), in one plan.
//!
//! **Invariants.** A cluster that is there is used, never made anew and never removed. What kind and Talos are told is in files
//! beside this one, so it can be read and changed.
mod plan;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use crate::deploy::{self, CommonFlags};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Where {
    /// A cluster of containers, by kind and Docker
    Kind,
    /// A cluster of containers or virtual machines, by minikube
    Minikube,
    /// A Talos cluster in Docker, by talosctl; needs --registry
    Talos,
    /// The cluster that KUBECONFIG names; with --registry its nodes pull, else their containerd is given the images
    Here,
}

#[derive(Debug, Args)]
pub(crate) struct BootstrapFlags {
    /// What kind of cluster
    #[arg(value_enum)]
    place: Where,
    /// Nodes that guests run on
    #[arg(long, value_name = "N", default_value_t = 3)]
    workers: u8,
    #[command(flatten)]
    common: CommonFlags,
}

impl BootstrapFlags {
    pub(crate) fn common(&self) -> &CommonFlags {
        &self.common
    }

    /// What makes the cluster, and where it is deployed to. Wrong usage, before anything is done.
    pub(crate) fn plan(&self) -> Result<(deploy::Options, Vec<deploy::Step>)> {
        ensure!((1..=20).contains(&self.workers), "--workers {}: 1 to 20", self.workers);
        let common = &self.common;
        let cluster = common.cluster();
        let target = match self.place {
            Where::Kind => deploy::Target::Kind { cluster: cluster.to_owned() },
            Where::Minikube => deploy::Target::Minikube { profile: cluster.to_owned() },
            Where::Talos => {
                ensure!(common.has_registry(), "Talos nodes take images from a registry only: --registry HOST[/PATH]");
                common.registry_target()
            }
            Where::Here if common.has_registry() => common.registry_target(),
            Where::Here => common.containerd_target(),
        };
        let mut options = common.options(target)?;
        if self.place == Where::Talos && options.context.is_none() {
            options.context = Some(format!("admin@{cluster}"));
        }
        let steps = plan::steps(self.place, self.workers, cluster, &options);
        Ok((options, steps))
    }

    /// Files that the plan's commands read.
    pub(crate) fn write_files(&self) -> Result<()> {
        if let Some((path, text)) = plan::file(self.place, self.workers) {
            let dir = path.parent().map(PathBuf::from).unwrap_or_default();
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}
