//! What a deployment does, as a list of steps. Pure: from options, nodes and images to commands.
//!
//! **Invariants.** The same input gives the same plan. Whatever changes something is followed by a look at what it changed. A
//! step whose aim is met already is passed over, so a plan that broke off is taken up by running it again.
use std::{path::PathBuf, time::Duration};

use super::{judge::Expect, target::Target};

/// For a Helm that is at work to end, in seconds: it waits for nothing in the cluster, and takes about one.
const HELM_ENDS_WITHIN: u64 = 30;

/// A command line, and what it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cmd {
    pub(crate) words: Vec<String>,
    /// A file for its standard input.
    pub(crate) stdin: Option<PathBuf>,
    /// It is ended, and has failed, after this time.
    pub(crate) limit: Duration,
}

impl Cmd {
    pub(crate) fn new(words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { words: words.into_iter().map(Into::into).collect(), stdin: None, limit: Duration::from_mins(1) }
    }

    /// `first` is itself a command line, such as `cargo xtask tool kubectl --`.
    pub(crate) fn of(first: &str, rest: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::new(first.split_whitespace().map(str::to_owned).chain(rest.into_iter().map(Into::into)))
    }

    pub(crate) fn limit(self, seconds: u64) -> Self {
        Self { limit: Duration::from_secs(seconds), ..self }
    }

    pub(crate) fn reading(self, file: impl Into<PathBuf>) -> Self {
        Self { stdin: Some(file.into()), ..self }
    }

    /// As it could be typed.
    pub(crate) fn line(&self) -> String {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
        let quoted = |word: &String| {
            let plain = !word.is_empty() && word.chars().all(fine);
            if plain { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
        };
        let line = self.words.iter().map(quoted).collect::<Vec<_>>().join(" ");
        self.stdin.as_ref().map_or_else(|| line.clone(), |file| format!("{line} < {}", file.display()))
    }
}

/// A question: what a command's output must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) cmd: Cmd,
    pub(crate) expect: Expect,
    /// For how long it is asked again and again, in seconds; 0: once.
    pub(crate) patience: u64,
}

impl Probe {
    pub(crate) fn once(cmd: Cmd, expect: Expect) -> Self {
        Self { cmd, expect, patience: 0 }
    }

    pub(crate) fn within(cmd: Cmd, expect: Expect, patience: u64) -> Self {
        Self { cmd, expect, patience }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// Only looks.
    Nothing,
    Run(Cmd),
    /// Deletes pods that can never start, as their image cannot be had: Kubernetes waits for them for ever.
    Unstick {
        list: Cmd,
        kubectl: Vec<String>,
    },
    /// Reaches the page as a person would, through a forwarded port, and waits for every picture.
    Smoke {
        forward: Cmd,
        users: Cmd,
        expected: Cmd,
        patience: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) says: String,
    /// If this holds, there is nothing to do.
    pub(crate) done: Option<Probe>,
    pub(crate) act: Act,
    /// What must hold afterwards.
    pub(crate) check: Option<Probe>,
    /// What to do if it fails.
    pub(crate) remedy: String,
}

impl Step {
    pub(crate) fn look(says: impl Into<String>, probe: Probe, remedy: impl Into<String>) -> Self {
        Self { says: says.into(), done: None, act: Act::Nothing, check: Some(probe), remedy: remedy.into() }
    }

    pub(crate) fn run(says: impl Into<String>, cmd: Cmd, remedy: impl Into<String>) -> Self {
        Self { says: says.into(), done: None, act: Act::Run(cmd), check: None, remedy: remedy.into() }
    }

    pub(crate) fn unless(self, probe: Probe) -> Self {
        Self { done: Some(probe), ..self }
    }

    pub(crate) fn then(self, probe: Probe) -> Self {
        Self { check: Some(probe), ..self }
    }
}

/// One image that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) reference: String,
    /// Hash of its configuration, `sha256:…`: what runtimes call its id.
    pub(crate) id: String,
    pub(crate) tar: PathBuf,
    /// By which its registry knows it; absent if it was not pushed.
    pub(crate) digest: Option<String>,
}

/// What was asked for, checked.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) target: Target,
    pub(crate) kubectl: String,
    pub(crate) helm: String,
    pub(crate) context: Option<String>,
    pub(crate) namespace: String,
    pub(crate) release: String,
    pub(crate) chart: String,
    /// Passed on to helm: `--values FILE`, `--set-string KEY=VALUE`.
    pub(crate) values: Vec<String>,
    pub(crate) registry: String,
    /// For each rollout, and for the pictures, in seconds.
    pub(crate) patience: u64,
    pub(crate) helm_test: bool,
    /// The Secret with the users' tokens.
    pub(crate) tokens: String,
}

impl Options {
    pub(crate) fn kubectl(&self, words: &[&str]) -> Cmd {
        let context = self.context.iter().flat_map(|context| ["--context", context]);
        Cmd::of(&self.kubectl, context.chain(words.iter().copied()))
    }

    /// In the namespace of the release.
    fn inside(&self, words: &[&str]) -> Cmd {
        self.kubectl(&[&["--namespace", &self.namespace], words].concat())
    }

    fn helm(&self, words: &[&str]) -> Cmd {
        let context = self.context.iter().flat_map(|context| ["--kube-context", context]);
        Cmd::of(&self.helm, context.chain(words.iter().copied()))
    }

    /// Names of the images that the release starts.
    pub(crate) fn image_names(&self) -> Vec<&'static str> {
        let mut names = vec!["node-agent", "gateway", "guest-runner", "demo-guest"];
        names.extend(self.helm_test.then_some("test-peer"));
        names
    }

    pub(crate) fn nodes(&self) -> Cmd {
        self.kubectl(&["get", "nodes", "--output", "json"])
    }

    /// Builds all images: under a tag that follows from what is in them.
    pub(crate) fn build(&self) -> Cmd {
        let mut words = vec!["xtask", "image", "--unique", "--registry", &self.registry];
        if let Target::Registry { plain_http } = self.target {
            words.push("--push");
            words.extend(plain_http.then_some("--plain-http"));
        }
        words.push("--only");
        words.extend(self.image_names());
        Cmd::new([&["cargo"], words.as_slice()].concat()).limit(3600)
    }

    fn selector(&self) -> String {
        format!("app.kubernetes.io/instance={}", self.release)
    }
}

/// Before anything is built: the tools are there, the cluster answers, and its nodes can run the images.
pub(crate) fn before(options: &Options) -> Vec<Step> {
    let mut steps = vec![
        Step::look(
            "helm is there",
            Probe::once(Cmd::of(&options.helm, ["version", "--short"]), Expect::Success),
            "install Helm 3 or newer (https://helm.sh), or name it: --helm 'cargo xtask tool helm --'",
        ),
        Step::look(
            "the cluster's nodes are ready",
            Probe::once(options.nodes(), Expect::NodesReady { architecture: super::architecture() }),
            "choose another cluster with --context or KUBECONFIG, or see `kubectl describe nodes`",
        ),
    ];
    steps.extend(options.target.preflight());
    steps
}

/// From built images to guests that play.
pub(crate) fn after(options: &Options, nodes: &[String], images: &[Image]) -> Vec<Step> {
    let mut steps = Vec::new();
    for image in images {
        for node in nodes {
            steps.extend(options.target.load(node, image));
        }
    }
    steps.extend(install(options, images));
    steps.extend(rollouts(options));
    steps.push(what_runs(options, images));
    steps.push(smoke(options));
    if options.helm_test {
        let seconds = format!("{}s", options.patience);
        // Not `--logs`: Helm looks for a pod of the hook's name, and the hook is a Job.
        let test = ["test", &options.release, "--namespace", &options.namespace, "--timeout", &seconds];
        steps.push(Step::run(
            "frames pass from node to node",
            options.helm(&test).limit(options.patience + 30),
            format!(
                "open UDP 14789 between the nodes; what was lost is in `kubectl --namespace {} logs --prefix --selector loco.dev/test=lan`",
                options.namespace
            ),
        ));
    }
    steps
}

fn install(options: &Options, images: &[Image]) -> Vec<Step> {
    let namespace = options.namespace.as_str();
    let tag = images.first().and_then(|image| image.reference.rsplit_once(':')).map_or("", |(_, tag)| tag);
    let policy = if matches!(options.target, Target::Registry { .. }) { "IfNotPresent" } else { "Never" };
    let mut helm = vec!["upgrade", "--install", options.release.as_str(), &options.chart, "--namespace", namespace];
    helm.extend(options.values.iter().map(String::as_str));
    let set = [
        format!("image.registry={}", options.registry),
        format!("image.tag={tag}"),
        // Loaded images are in no registry: a node that lacks one must fail at once, not ask the Internet.
        format!("image.pullPolicy={policy}"),
    ];
    // After the user's own values: no other image can be chosen by them.
    helm.extend(set.iter().flat_map(|pair| ["--set-string", pair.as_str()]));
    let seconds = format!("{}s", options.patience);
    helm.extend(["--timeout", seconds.as_str()]);
    let label = "pod-security.kubernetes.io/enforce=privileged";
    let under_way =
        format!("owner=helm,name={},status in (pending-install,pending-upgrade,pending-rollback)", options.release);
    vec![
        Step::run(
            format!("namespace {namespace}"),
            options.kubectl(&["create", "namespace", namespace]),
            "ask the cluster's owner for a namespace, or name one that is yours with --namespace",
        )
        .unless(Probe::once(options.kubectl(&["get", "namespace", namespace]), Expect::Success)),
        Step::run(
            "the namespace admits the agents",
            options.kubectl(&["label", "namespace", namespace, label, "--overwrite"]),
            "agents are privileged (docs/security-model.md); ask the cluster's owner to admit them in this namespace",
        ),
        // A Helm that was killed leaves a record that says it is at work, and refuses every later one.
        Step::run(
            "no Helm that was killed holds the release",
            options.inside(&["delete", "secrets", "--selector", &under_way]),
            "see `helm history`; somebody else's Helm may be at work on this release",
        )
        .unless(Probe::within(
            options.inside(&["get", "secrets", "--selector", &under_way, "--output", "name"]),
            Expect::Nothing,
            HELM_ENDS_WITHIN,
        )),
        Step::run(
            format!("release {}", options.release),
            options.helm(&helm).limit(options.patience + 30),
            "the chart says above what it refuses; `helm history` and `helm rollback` know the releases before",
        ),
    ]
}

fn rollouts(options: &Options) -> Vec<Step> {
    let list = options.inside(&["get", "pods", "--selector", &options.selector(), "--output", "json"]);
    let kubectl = options.inside(&[]).words;
    let seconds = format!("--timeout={}s", options.patience);
    let rollout = |says: &str, what: &[&str], remedy: &str| {
        let words = [&["rollout", "status"], what, &[seconds.as_str()]].concat();
        let remedy = format!("{remedy}; `kubectl --namespace {} get pods`", options.namespace);
        Step::run(says, options.inside(&words).limit(options.patience + 30), remedy)
    };
    let instances = format!("{},app.kubernetes.io/component=instance", options.selector());
    vec![
        Step {
            says: "pods that no image can be had for are out of the way".to_owned(),
            done: None,
            act: Act::Unstick { list, kubectl },
            check: None,
            remedy: "delete the pods that wait for an image by hand".to_owned(),
        },
        rollout(
            "agents run",
            &["daemonset/loco-node-agent"],
            "see an agent's log: `kubectl logs daemonset/loco-node-agent`",
        ),
        rollout("gateway runs", &["deployment/loco-gateway"], "see its log: `kubectl logs deployment/loco-gateway`"),
        rollout(
            "guests run",
            &["statefulset", "--selector", &instances],
            "a guest waits for a seat (agent.slots of its node), for its volume, or for its first picture",
        ),
    ]
}

fn what_runs(options: &Options, images: &[Image]) -> Step {
    let list = options.inside(&["get", "pods", "--selector", &options.selector(), "--output", "json"]);
    Step::look(
        "what runs is what was built",
        Probe::within(list, Expect::Running { images: images.to_vec() }, options.patience),
        "something else sets the pods' images (a policy, another release?); see `kubectl get pods --output yaml`",
    )
}

fn smoke(options: &Options) -> Step {
    let list = "{range .items[*]}{.spec.replicas}{\"\\n\"}{end}";
    let selector = format!("{},app.kubernetes.io/component=instance", options.selector());
    Step {
        says: "the page answers and every guest shows its picture".to_owned(),
        done: None,
        act: Act::Smoke {
            // Port 0: any that is free.
            forward: options.inside(&["port-forward", "service/loco-gateway", ":http"]),
            users: options.inside(&[
                "get",
                "secret",
                &options.tokens,
                "--output",
                "go-template={{.data.users | base64decode}}",
            ]),
            expected: options.inside(&[
                "get",
                "statefulsets",
                "--selector",
                &selector,
                "--output",
                &format!("jsonpath={list}"),
            ]),
            patience: options.patience,
        },
        check: None,
        remedy: format!(
            "open the page and its LAN view, or see `kubectl --namespace {} logs deployment/loco-gateway`",
            options.namespace
        ),
    }
}
