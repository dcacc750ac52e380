//! What helm makes of the chart: a golden of the defaults, one test for each condition in the templates, each refusal in
//! words, and every file in `ci/`.
mod conditions;
mod helm;
mod refusals;
mod server;

use std::{env, fs};

use serde_json::Value;

use helm::{Rendered, examples, lints, render, root};

const GOLDEN: &str = "xtask/src/chart/goldens/defaults.json";

/// Tokens are new each time, and nobody's business.
fn masked(mut rendered: Rendered) -> Vec<Value> {
    for object in &mut rendered.0 {
        if object["kind"] == "Secret"
            && let Some(data) = object["data"].as_object_mut()
        {
            data.values_mut().for_each(|value| *value = "masked".into());
        }
        if let Some(checksum) = object.pointer_mut("/spec/template/metadata/annotations/loco.dev~1tokens") {
            assert_eq!(checksum.as_str().unwrap().len(), 64, "a SHA-256");
            *checksum = "masked".into();
        }
    }
    rendered.0
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn the_defaults_are_those_of_the_golden() {
    let mut fresh = serde_json::to_string_pretty(&masked(render(&[]))).unwrap();
    fresh.push('\n');
    let path = root().join(GOLDEN);
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &fresh).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(fresh.lines()).enumerate().find(|(_, (kept, fresh))| kept != fresh);
    assert!(kept == fresh, "{GOLDEN}: {differs:?}; look at it, then UPDATE_EXPECT=1 `cargo xtask chart --test`");
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn every_example_renders_and_is_clean() {
    let mut seen = 0;
    for name in examples() {
        assert!(name.ends_with("-values.yaml"), "{name}: examples are called …-values.yaml");
        assert!(!render(&[&name]).0.is_empty());
        lints(&name);
        seen += 1;
    }
    assert!(seen >= 8, "{seen} examples");
}

/// What Pod Security "restricted" asks of every pod but the agents' and their cleanup, which are the privileged ones.
#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn every_pod_but_the_agents_is_restricted_in_every_example() {
    let allowed = ["configMap", "secret", "emptyDir", "persistentVolumeClaim", "image", "projected"];
    for file in examples() {
        let rendered = render(&[&file]);
        let mut seen = 0;
        for (name, pod) in
            rendered.pods().filter(|(name, _)| !["loco-node-agent", "loco-cleanup"].contains(&name.as_str()))
        {
            let who = format!("{file}: {name}");
            assert_eq!(pod["hostNetwork"], Value::Null, "{who}");
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{who}");
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{who}");
            assert!(pod["automountServiceAccountToken"] == false || name == "loco-gateway", "{who}");
            let containers =
                ["initContainers", "containers"].into_iter().filter_map(|key| pod[key].as_array()).flatten();
            for container in containers {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false, "{who}");
                assert_eq!(security["readOnlyRootFilesystem"], true, "{who}");
                assert_eq!(security["capabilities"], serde_json::json!({"drop": ["ALL"]}), "{who}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{who}");
            }
            for volume in pod["volumes"].as_array().into_iter().flatten() {
                let kind = volume.as_object().unwrap().keys().find(|key| *key != "name").unwrap();
                assert!(allowed.contains(&kind.as_str()), "{who}: a volume of kind {kind}");
            }
            seen += 1;
        }
        assert!(seen >= 3, "{file}: {seen} pods");
    }
}
