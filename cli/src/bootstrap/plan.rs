//! How clusters are made. Pure.
use std::{env, path::PathBuf};

use super::Where;
use crate::deploy::{Cmd, Expect, Options, Probe, Step};

/// As it is committed: with three workers.
const KIND: &str = include_str!("kind.yaml");
const TALOS: &str = include_str!("talos.yaml");
const WORKER: &str = "  - role: worker\n";

/// What the cluster's own tool is told, and where it is written.
pub(super) fn file(place: Where, workers: u8) -> Option<(PathBuf, String)> {
    match place {
        Where::Kind => Some((path("kind.yaml"), kind(workers))),
        Where::Talos => Some((path("talos.yaml"), TALOS.to_owned())),
        Where::Minikube | Where::Here => None,
    }
}

fn kind(workers: u8) -> String {
    let (before, after) = KIND.split_once(WORKER).expect("kind.yaml is part of this program, and a test reads it");
    let after = after.replace(WORKER, "");
    format!("{before}{}{after}", WORKER.repeat(workers.into()))
}

fn path(name: &str) -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = cache.or_else(|| Some(env::home_dir()?.join(".cache")));
    cache.unwrap_or_else(env::temp_dir).join("loco/bootstrap").join(name)
}

/// What must be done before a deployment. Empty for a cluster that is there.
pub(super) fn steps(place: Where, workers: u8, cluster: &str, options: &Options) -> Vec<Step> {
    let there = |program: &str, words: &[&str], remedy: &str| {
        let cmd = Cmd::new([&[program], words].concat());
        Step::look(format!("{program} is there"), Probe::once(cmd, Expect::Success), remedy)
    };
    let docker = there(
        "docker",
        &["info", "--format", "{{.ServerVersion}}"],
        "install Docker and start it; add yourself to its group",
    );
    let ready = |seconds: u64, remedy: &str| {
        let expect = Expect::NodesReady { architecture: crate::deploy::architecture() };
        Step::look("all nodes are ready", Probe::within(options.nodes(), expect, seconds), remedy)
    };
    match place {
        Where::Kind => vec![
            docker,
            there("kind", &["version"], "install kind (https://kind.sigs.k8s.io)"),
            tun(),
            Step::run(
                format!("kind cluster {cluster}"),
                Cmd::new(["kind", "create", "cluster", "--name", cluster, "--wait", "120s", "--config"].map(str::to_owned).into_iter().chain([path("kind.yaml").to_string_lossy().into_owned()])).limit(900),
                format!("`kind delete cluster --name {cluster}` removes a half-made one; too many clusters use up inotify: `sysctl fs.inotify.max_user_instances=512`"),
            )
            .unless(Probe::once(Cmd::new(["kind", "get", "clusters"]), Expect::Line(cluster.to_owned()))),
            ready(180, "`docker ps` shows whether the node containers run; `docker start` them after a reboot"),
        ],
        Where::Minikube => {
            let nodes = format!("--nodes={}", workers + 1);
            let start = ["minikube", "start", "--profile", cluster, &nodes, "--container-runtime=containerd", "--cni=calico", "--wait=all"];
            vec![
                there("minikube", &["version", "--short"], "install minikube (https://minikube.sigs.k8s.io)"),
                tun(),
                Step::run(
                    format!("minikube profile {cluster}"),
                    Cmd::new(start).limit(1800),
                    format!("`minikube delete --profile {cluster}` removes a half-made one; `minikube logs --profile {cluster}` says why"),
                )
                .unless(Probe::once(Cmd::new(["minikube", "--profile", cluster, "status"]), Expect::Success)),
                ready(180, "`minikube status` shows which node is down"),
            ]
        }
        Where::Talos => {
            let patch = format!("@{}", path("talos.yaml").display());
            let workers = workers.to_string();
            let create = ["talosctl", "cluster", "create", "--name", cluster, "--workers", &workers, "--config-patch", &patch, "--wait-timeout", "15m"];
            vec![
                docker,
                there("talosctl", &["version", "--client", "--short"], "install talosctl (https://www.talos.dev)"),
                tun(),
                Step::run(
                    format!("Talos cluster {cluster}"),
                    Cmd::new(create).limit(1200),
                    format!("`talosctl cluster destroy --name {cluster}` removes a half-made one"),
                )
                .unless(Probe::once(options.nodes(), Expect::Success)),
                Step::run(
                    "kubectl knows the cluster",
                    Cmd::new(["talosctl", "--context", cluster, "--nodes", "10.5.0.2", "kubeconfig", "--merge", "--force"]).limit(120),
                    "`talosctl cluster show` says where the control plane is",
                )
                .unless(Probe::once(options.nodes(), Expect::Success)),
                ready(300, "`talosctl dashboard` shows what a node waits for"),
            ]
        }
        Where::Here => vec![Step::look(
            "the cluster answers",
            Probe::once(options.kubectl(&["version", "--output", "json"]), Expect::Success),
            "set KUBECONFIG or --context; k3s keeps its own in /etc/rancher/k3s/k3s.yaml",
        )],
    }
}

/// Clusters of containers have this machine's kernel and devices.
fn tun() -> Step {
    Step::look(
        "this machine's kernel has TUN",
        Probe::once(Cmd::new(["test", "-c", "/dev/net/tun"]), Expect::Success),
        "`sudo modprobe -a tun vxlan bridge`; to keep it: the same words, one a line, in /etc/modules-load.d/loco.conf",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_for_kind_has_as_many_workers_as_asked_for() {
        assert_eq!(kind(3), KIND);
        for workers in [1, 5] {
            let text = kind(workers);
            assert_eq!(text.matches(WORKER).count(), usize::from(workers));
            assert!(text.contains("role: control-plane") && text.ends_with(KIND.split(WORKER).last().unwrap()));
        }
    }
}
