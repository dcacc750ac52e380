//! What a failed scenario leaves: everything one would ask for, while it is still there.
use std::{fs, path::PathBuf};

use super::{
    Wall,
    commands::{kubectl, run},
    wall::namespace,
};

/// Writes the evidence to a directory of its own and answers its path. Nothing here fails: what cannot be had is said in
/// the file's place.
pub(crate) async fn collect(name: &str, wall: Option<&Wall>) -> String {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("evidence").join(name);
    if let Err(error) = fs::create_dir_all(&directory) {
        return format!("none: {}: {error}", directory.display());
    }
    let namespace = namespace();
    let keep = |file: &str, text: String| {
        if let Err(error) = fs::write(directory.join(file), text) {
            eprintln!("evidence {file}: {error}");
        }
    };
    let questions: [(&str, &[&str]); 6] = [
        ("pods.txt", &["get", "pods", "-o", "wide"]),
        ("nodes.txt", &["get", "nodes", "-o", "wide"]),
        ("events.txt", &["get", "events", "--sort-by=.lastTimestamp"]),
        ("describe.txt", &["describe", "pods"]),
        ("agents.log", &["logs", "-l", "app.kubernetes.io/component=node-agent", "--tail=400", "--prefix"]),
        ("gateway.log", &["logs", "-l", "app.kubernetes.io/component=gateway", "--tail=400", "--prefix"]),
    ];
    for (file, arguments) in questions {
        let said = run(kubectl().args(["-n", &namespace, "--request-timeout=20s"]).args(arguments)).await;
        keep(file, said.unwrap_or_else(|error| format!("{error:#}")));
    }
    let runners =
        ["logs", "-l", "app.kubernetes.io/component=instance", "--tail=100", "--prefix", "--max-log-requests=30"];
    let said = run(kubectl().args(["-n", &namespace, "--request-timeout=20s"]).args(runners)).await;
    keep("instances.log", said.unwrap_or_else(|error| format!("{error:#}")));
    if let Some(wall) = wall {
        keep("instances.json", debug(wall.instances().await));
        keep("lan-status.json", debug(wall.lan_status().await));
        keep("discovery-info.json", debug(wall.discovery_info().await));
        for place in wall.places().await.unwrap_or_default() {
            keep(&format!("agent-{}.json", place.name), debug(wall.agent_status(&place).await));
        }
    }
    directory.display().to_string()
}

fn debug<T: serde::Serialize>(said: anyhow::Result<T>) -> String {
    match said {
        Ok(value) => serde_json::to_string_pretty(&value).unwrap_or_else(|error| error.to_string()),
        Err(error) => format!("{error:#}"),
    }
}
