//! Dependency direction: which of our crates may use which. A line here is a decision (ARCHITECTURE.md).
use anyhow::{Context as _, Result};
use serde_json::Value;

/// Crate, and those of ours that it may use. A crate that is not listed is a complaint.
const MAY_USE: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("flags", &[]),
    ("telemetry", &[]),
    ("model", &["wire"]),
    ("testkit", &["model"]),
    ("api", &["model"]),
    ("seat", &["model"]),
    ("directory", &["api", "model"]),
    ("fabric", &["model", "wire"]),
    ("guest", &["model"]),
    ("stream", &["model"]),
    ("capture", &["wire"]),
    ("observe", &["api", "model", "wire"]),
    ("doctor", &["api"]),
    ("traffic", &["model", "wire"]),
    ("ipxnet", &["fabric", "model", "wire"]),
    ("plugin", &[]),
    ("switch", &["fabric", "model", "wire"]),
    ("ebpf", &["wire"]),
    ("copy", &[]),
    ("guest-runner", &["guest", "model", "seat", "telemetry"]),
    (
        "node-agent",
        &[
            "api",
            "capture",
            "directory",
            "fabric",
            "guest",
            "ipxnet",
            "model",
            "observe",
            "plugin",
            "seat",
            "stream",
            "switch",
            "telemetry",
            "traffic",
            "wire",
        ],
    ),
    ("gateway", &["api", "directory", "doctor", "model", "telemetry"]),
    ("loco", &["api", "capture", "flags", "model", "observe", "telemetry", "wire"]),
    ("demo-guest", &["wire"]),
    ("xtask", &["flags"]),
    ("k8s-tests", &["api", "model", "seat", "testkit", "wire"]),
];
/// Only for tests, and there for everybody.
const TESTS_ONLY: &str = "testkit";
/// What a crate's tests may use beyond that: `stream` is tested on a real QEMU, which `guest` starts; `observe` on captures;
/// `doctor` on what `observe` makes of frames that `wire` builds; `plugin` on its own feature with the kubelet's side.
const TESTS_MAY_USE: &[(&str, &str)] = &[
    ("observe", "capture"),
    ("switch", "api"),
    ("doctor", "observe"),
    ("doctor", "wire"),
    ("stream", "guest"),
    ("plugin", "plugin"),
];

/// `metadata`: JSON of `cargo metadata --no-deps`.
pub(super) fn complaints(metadata: &str) -> Result<Vec<String>> {
    let metadata: Value = serde_json::from_str(metadata).context("`cargo metadata` printed something else")?;
    let packages = metadata["packages"].as_array().context("`cargo metadata` without packages")?;
    let mut complaints = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = MAY_USE.iter().find(|(listed, _)| *listed == name) else {
            complaints.push(format!(
                "crate `{name}` is not in the table of dependency direction; add it with what it may use"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // Only ours have a path.
            if dependency["path"].is_null() {
                continue;
            }
            let on = dependency["name"].as_str().unwrap_or_default();
            let in_tests = dependency["kind"] == "dev";
            let for_tests = on == TESTS_ONLY || TESTS_MAY_USE.contains(&(name, on));
            let fine = allowed.contains(&on) || (in_tests && for_tests);
            if !fine {
                let how = if in_tests { " (in its tests)" } else { "" };
                complaints.push(format!(
                    "`{name}` may not depend on `{on}`{how}; see ARCHITECTURE.md, \"Dependency direction\""
                ));
            }
        }
    }
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, on: &str, kind: Option<&str>, path: Option<&str>) -> Vec<String> {
        let dependency = serde_json::json!({"name": on, "kind": kind, "path": path});
        complaints(&serde_json::json!({"packages": [{"name": name, "dependencies": [dependency]}]}).to_string())
            .unwrap()
    }

    #[test]
    fn what_is_not_allowed_is_a_complaint() {
        assert!(found("gateway", "api", None, Some("/x")).is_empty());
        assert!(found("gateway", "fabric", None, Some("/x"))[0].contains("`gateway` may not depend on `fabric`"));
        assert!(found("gateway", "fabric", None, None).is_empty(), "not ours");
        assert!(found("stranger", "api", None, None)[0].contains("`stranger` is not in the table"));
    }

    #[test]
    fn what_is_for_tests_is_for_tests_only() {
        assert!(found("fabric", "testkit", Some("dev"), Some("/x")).is_empty());
        assert!(!found("fabric", "testkit", None, Some("/x")).is_empty());
        assert!(found("stream", "guest", Some("dev"), Some("/x")).is_empty());
        assert!(!found("stream", "guest", None, Some("/x")).is_empty());
        assert!(found("fabric", "api", Some("dev"), Some("/x"))[0].contains("in its tests"));
    }

    #[test]
    fn the_table_has_no_cycle_and_names_only_what_it_lists() {
        for (index, (name, uses)) in MAY_USE.iter().enumerate() {
            for used in *uses {
                let position = MAY_USE.iter().position(|(listed, _)| listed == used);
                assert!(
                    position.is_some_and(|position| position < index),
                    "`{name}` uses `{used}`, which is not above it"
                );
            }
        }
    }
}
