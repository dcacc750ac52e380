//! What the API server of a real cluster says to every object of every example, without making any: a dry run on the server.
use std::{
    env,
    io::Write as _,
    process::{Command, Stdio},
};

use super::helm::{examples, template};

/// Kinds of other projects, which a plain cluster does not know.
const WITHOUT_OTHERS: [&str; 3] = [
    "monitoring.serviceMonitor.enabled=false",
    "monitoring.prometheusRule.enabled=false",
    "gateway.httpRoute.enabled=false",
];

fn kubectl(args: &[&str], input: &str) -> (bool, String, String) {
    let program = env::var_os("LOCO_KUBE")
        .expect("LOCO_KUBE names the programs of the cluster; see `cargo xtask test --cluster`");
    let mut kubectl = Command::new(program);
    kubectl.arg("kubectl").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = kubectl.spawn().expect("kubectl runs");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// A namespace that tells which pods Pod Security "restricted" would refuse, gone at the end.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let name = format!("loco-chart-{}", std::process::id());
        let text = format!(
            r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}","labels":{{"pod-security.kubernetes.io/warn":"restricted"}}}}}}"#
        );
        let (made, _, said) = kubectl(&["create", "-f", "-"], &text);
        assert!(made, "{said}");
        Self(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        kubectl(&["delete", "namespace", &self.0, "--wait=false"], "");
    }
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
fn the_api_server_takes_every_object_of_every_example() {
    let namespace = Namespace::new();
    for file in examples() {
        let values = [&[file.as_str(), "agent.cleanup.nodes={n1}"], &WITHOUT_OTHERS[..]].concat();
        let manifest = template(&values, &namespace.0);
        let (taken, made, said) = kubectl(&["apply", "--dry-run=server", "-n", &namespace.0, "-f", "-"], &manifest);
        assert!(taken, "{file}: {said}");
        assert!(made.lines().count() >= 15, "{file}: {made}");
        for warning in said.lines().filter(|line| !line.trim().is_empty()) {
            let of_agents = ["\"node-agent\"", "\"uninstall\""].iter().any(|name| warning.contains(name));
            assert!(warning.contains("would violate PodSecurity") && of_agents, "{file}: {warning}");
        }
        assert_eq!(
            said.lines().filter(|line| line.contains("PodSecurity")).count(),
            2,
            "{file}: agents and cleanup: {said}"
        );
    }
}
