//! The chart as helm renders it, for tests: objects by kind and name, and what helm says when it refuses.
use std::{collections::BTreeMap, env, path::PathBuf, process::Command};

use serde_json::Value;

/// Of a cluster that has everything the chart can use.
const KUBERNETES: &str = "1.34.4";

pub(super) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn helm() -> Command {
    let program = env::var_os("LOCO_HELM");
    let mut helm = Command::new(program.expect("LOCO_HELM names helm; run these by `cargo xtask chart --test`"));
    helm.current_dir(root());
    helm
}

/// What the cluster would get.
#[derive(Debug)]
pub(super) struct Rendered(pub(super) Vec<Value>);

impl Rendered {
    #[track_caller]
    pub(super) fn object(&self, kind: &str, name: &str) -> &Value {
        self.find(kind, name).unwrap_or_else(|| panic!("no {kind} {name} among {:?}", self.names()))
    }

    pub(super) fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.0.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
    }

    /// The pod of an object that makes pods.
    #[track_caller]
    pub(super) fn pod(&self, kind: &str, name: &str) -> &Value {
        &self.object(kind, name)["spec"]["template"]["spec"]
    }

    /// `Kind/name`, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut names: Vec<String> =
            self.0.iter().map(|o| format!("{}/{}", text(&o["kind"]), text(&o["metadata"]["name"]))).collect();
        names.sort();
        names
    }

    /// Every pod template, with its object's name.
    pub(super) fn pods(&self) -> impl Iterator<Item = (String, &Value)> {
        self.0.iter().filter(|object| object["spec"]["template"]["spec"].is_object()).map(|object| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            (name.to_owned(), &object["spec"]["template"]["spec"])
        })
    }
}

/// Values as `--set` has them, files of `ci/` by name with `.yaml`.
fn output(values: &[&str], namespace: &str) -> std::process::Output {
    let mut helm = helm();
    helm.args(["template", "loco", "charts/loco", "--namespace", namespace, "--kube-version", KUBERNETES]);
    for value in values {
        if value.ends_with("-values.yaml") {
            helm.arg("--values").arg(format!("charts/loco/ci/{value}"));
        } else {
            helm.args(["--set", value]);
        }
    }
    helm.output().expect("helm runs")
}

/// Names of the files in `ci/`.
pub(super) fn examples() -> Vec<String> {
    let entries = std::fs::read_dir(root().join("charts/loco/ci")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[track_caller]
pub(super) fn template(values: &[&str], namespace: &str) -> String {
    let output = output(values, namespace);
    assert!(output.status.success(), "{values:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
pub(super) fn render(values: &[&str]) -> Rendered {
    let text = template(values, "play");
    let documents = text.split("\n---\n").filter(|document| document.lines().any(|line| line.starts_with("kind:")));
    Rendered(documents.map(|document| serde_saphyr::from_str(document).expect(document)).collect())
}

/// Helm refuses, and says all of `words`.
#[track_caller]
pub(super) fn refuses(values: &[&str], words: &[&str]) {
    let output = output(values, "play");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{values:?} were taken");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

/// `helm lint --strict` has nothing against it.
#[track_caller]
pub(super) fn lints(values: &str) {
    let mut helm = helm();
    helm.args(["lint", "charts/loco", "--strict", "--kube-version", KUBERNETES]);
    let output = helm.arg("--values").arg(format!("charts/loco/ci/{values}")).output().expect("helm runs");
    assert!(output.status.success(), "{values}: {}", String::from_utf8_lossy(&output.stdout));
}

/// Environment of a container, plain values only.
pub(super) fn environment(container: &Value) -> BTreeMap<String, String> {
    let variables = container["env"].as_array().into_iter().flatten();
    variables.filter_map(|v| Some((v["name"].as_str()?.to_owned(), v["value"].as_str()?.to_owned()))).collect()
}

pub(super) fn arguments(container: &Value) -> Vec<String> {
    container["args"].as_array().into_iter().flatten().filter_map(|arg| Some(arg.as_str()?.to_owned())).collect()
}

/// A mount of a container, by the volume's name.
pub(super) fn mount<'a>(container: &'a Value, name: &str) -> Option<&'a Value> {
    container["volumeMounts"].as_array()?.iter().find(|mount| mount["name"] == name)
}

pub(super) fn volume<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    pod["volumes"].as_array()?.iter().find(|volume| volume["name"] == name)
}
