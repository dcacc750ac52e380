//! A real Prometheus watches a wall by the chart's own rules: silent while all is well, an alert for each fault that is put in,
//! and silent again once it is mended.
//!
//! The rules are those of `charts/loco/rules` but for their `for:`, which this test makes a second each: minutes of waiting show
//! nothing of ours. That each alert waits as long as it says is promtool's part (`charts/loco/rules/tests`).
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use api::status::Status;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::{alone, eventually, get, loco, mount_sys, pid, says, status, try_get};

const PORT: u16 = 9390;

/// The server and all it wrote; both end with it.
struct Prometheus {
    server: Child,
    home: PathBuf,
}

impl Prometheus {
    fn start(wall: &Status) -> Self {
        let program = env::var_os("PROMETHEUS").unwrap_or_else(|| "prometheus".into());
        let home = env::temp_dir().join(format!("loco-prometheus-{}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/loco/rules/loco.yaml");
        fs::write(home.join("rules.yaml"), at_once(&fs::read_to_string(rules).unwrap())).unwrap();
        fs::write(home.join("prometheus.yaml"), config(wall)).unwrap();
        let log = fs::File::create(home.join("log")).unwrap();
        let server = Command::new(&program)
            .arg(format!("--config.file={}", home.join("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", home.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{PORT}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                let name = program.display();
                panic!("cannot run {name}: {error}; `cargo xtask test --privileged` fetches it, or set PROMETHEUS")
            });
        let started = Self { server, home };
        eventually(|| try_get(PORT, "/-/ready", "").ok());
        started
    }

    /// Alerts that fire, each with what its labels say.
    fn firing() -> Vec<Value> {
        let answer: Value = serde_json::from_slice(&get(PORT, "/api/v1/alerts", "")).unwrap();
        let alerts = answer["data"]["alerts"].as_array().unwrap();
        alerts.iter().filter(|alert| alert["state"] == "firing").map(|alert| alert["labels"].clone()).collect()
    }

    /// Everything is scraped and every rule was looked at once, without an error.
    fn watches(targets: usize) -> Option<()> {
        let answer: Value = serde_json::from_slice(&get(PORT, "/api/v1/query?query=up", "")).unwrap();
        let ups = answer["data"]["result"].as_array().unwrap();
        let up = ups.iter().filter(|series| series["value"][1] == "1").count();
        let rules: Value = serde_json::from_slice(&get(PORT, "/api/v1/rules", "")).unwrap();
        let mut rules =
            rules["data"]["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
        (up == targets && rules.all(|rule| rule["health"] == "ok")).then_some(())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.home.join("log")).unwrap_or_default());
        }
        fs::remove_dir_all(&self.home).ok();
    }
}

/// The rules with every `for:` made a second.
fn at_once(rules: &str) -> String {
    let lines = rules.lines().map(|line| {
        let indent = &line[..line.len() - line.trim_start().len()];
        if line.trim_start().starts_with("for: ") { format!("{indent}for: 1s\n") } else { format!("{line}\n") }
    });
    lines.collect()
}

/// As the chart's monitors scrape: what a process says of its instances counts, not where it was scraped.
fn config(wall: &Status) -> String {
    let agents: Vec<&str> = wall.nodes.iter().map(|node| node.agent_url.trim_start_matches("http://")).collect();
    let job = |name: &str, targets: &[&str]| {
        format!(
            "- job_name: {name}\n  honor_labels: true\n  authorization: {{credentials: '{}'}}\n  static_configs: [{{targets: ['{}']}}]\n",
            wall.token,
            targets.join("', '")
        )
    };
    let jobs = job("gateway", &["127.0.0.1:8080"]) + &job("agents", &agents);
    format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
         rule_files: [rules.yaml]\nscrape_configs:\n{jobs}"
    )
}

#[track_caller]
fn fires(alert: &str, label: &str, value: &str) {
    eventually(|| {
        Prometheus::firing().iter().any(|labels| labels["alertname"] == alert && labels[label] == value).then_some(())
    });
}

#[track_caller]
fn is_silent() {
    eventually(|| Prometheus::firing().is_empty().then_some(()));
}

#[test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
fn alerts_fire_on_live_faults_and_end_with_them() {
    alone("alerts::alerts_fire_on_live_faults_and_end_with_them", || {
        mount_sys();
        says(&loco(&["up", "--detach", "--nodes", "2", "--guests", "2"]), 0, "all 2 pictures are live");
        let wall = status();
        let _prometheus = Prometheus::start(&wall);
        eventually(|| Prometheus::watches(3));
        assert_eq!(Prometheus::firing(), Vec::<Value>::new());

        // An agent hangs.
        let agent = pid(wall.nodes[1].agent_pid);
        kill(agent, Signal::SIGSTOP).unwrap();
        fires("LocoAgentAway", "node", "node-b");
        kill(agent, Signal::SIGCONT).unwrap();
        is_silent();

        // A guest hangs, and with it its monitor and its screen.
        let qemu = pid(wall.instances[0].qemu_pid);
        kill(qemu, Signal::SIGSTOP).unwrap();
        fires("LocoInstanceNotLive", "instance", "instance-0");
        kill(qemu, Signal::SIGCONT).unwrap();
        is_silent();
        says(&loco(&["down"]), 0, "the wall is down");
    });
}

#[test]
fn only_the_waits_of_the_rules_are_changed() {
    assert_eq!(at_once("- alert: A\n  for: 30s\n  expr: x\n"), "- alert: A\n  for: 1s\n  expr: x\n");
}
