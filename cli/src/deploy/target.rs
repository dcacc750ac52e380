//! Where images go: how a node is given one, and how it is asked whether it has it.
use super::{
    judge::Expect,
    plan::{Cmd, Image, Probe, Step},
};

/// For a node to tell of an image that it was just given, in seconds.
const SEEN_WITHIN: u64 = 30;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A kind cluster of this name.
    Kind { cluster: String },
    /// A minikube profile.
    Minikube { profile: String },
    /// Any node whose containerd can be spoken with.
    Containerd {
        /// Command line that runs another one on a node, with its standard input; `{node}` is the node's name.
        exec: String,
        /// `ctr`, or what it is called: `k3s ctr`.
        ctr: String,
    },
    /// The nodes pull for themselves.
    Registry { plain_http: bool },
}

impl Target {
    /// The context of kubectl that goes with it.
    pub(crate) fn context(&self) -> Option<String> {
        match self {
            Self::Kind { cluster } => Some(format!("kind-{cluster}")),
            Self::Minikube { profile } => Some(profile.clone()),
            Self::Containerd { .. } | Self::Registry { .. } => None,
        }
    }

    pub(super) fn preflight(&self) -> Option<Step> {
        match self {
            Self::Kind { cluster } => Some(Step::look(
                format!("kind knows the cluster {cluster}"),
                Probe::once(Cmd::new(["kind", "get", "clusters"]), Expect::Line(cluster.clone())),
                format!("make it: `loco bootstrap kind --cluster {cluster}`"),
            )),
            Self::Minikube { profile } => Some(Step::look(
                format!("minikube's profile {profile} runs"),
                Probe::once(Cmd::new(["minikube", "--profile", profile, "status"]), Expect::Success),
                format!("start it: `loco bootstrap minikube --cluster {profile}`"),
            )),
            Self::Containerd { .. } | Self::Registry { .. } => None,
        }
    }

    /// Gives `node` the image, unless it has exactly this one, and makes sure that it does.
    pub(super) fn load(&self, node: &str, image: &Image) -> Option<Step> {
        let (present, give, remedy) = match self {
            Self::Kind { cluster } => (
                Cmd::new(["docker", "exec", node, "crictl", "inspecti", "--output", "json", &image.reference]),
                Cmd::new([
                    "kind",
                    "load",
                    "image-archive",
                    &image.tar.to_string_lossy(),
                    "--name",
                    cluster,
                    "--nodes",
                    node,
                ]),
                "is Docker out of space? `docker system df`",
            ),
            Self::Minikube { profile } => {
                let mut words = vec!["minikube", "--profile", profile, "ssh", "--node", node, "--", "sudo", "crictl"];
                words.extend(["inspecti", "--output", "json", &image.reference]);
                let tar = image.tar.to_string_lossy();
                let give = Cmd::new(["minikube", "--profile", profile, "image", "load", "--overwrite=true", &tar]);
                (Cmd::new(words), give, "is the node out of space? `minikube ssh -- df -h /var`")
            }
            Self::Containerd { exec, ctr } => {
                let on_node = |words: &[&str]| {
                    // A word at a time, as a node's name is one word or a part of one.
                    let exec = exec.split_whitespace().map(|word| word.replace("{node}", node));
                    let all = exec.chain(ctr.split_whitespace().map(str::to_owned));
                    Cmd::new(all.chain(words.iter().map(|&word| word.to_owned())))
                };
                (
                    on_node(&["--namespace", "k8s.io", "images", "list"]),
                    on_node(&["--namespace", "k8s.io", "images", "import", "-"]).reading(&image.tar),
                    "is the node out of space, and does --node-exec pass standard input on?",
                )
            }
            Self::Registry { .. } => return None,
        };
        let expect = match self {
            Self::Containerd { .. } => Expect::CtrHas { reference: image.reference.clone(), id: image.id.clone() },
            _ => Expect::CrictlHas { id: image.id.clone() },
        };
        let says = format!("{} is on {node}", image.name);
        Some(
            Step::run(says, give.limit(600), remedy)
                .unless(Probe::once(present.clone(), expect.clone()))
                .then(Probe::within(present, expect, SEEN_WITHIN)),
        )
    }
}
