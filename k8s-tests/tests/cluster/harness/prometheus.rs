//! A real Prometheus beside the cluster: it scrapes every agent and the gateway, and evaluates the chart's own rules.
use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use tokio::process::{Child, Command};

use super::{SOON, Wall, commands::root, until};

/// Seconds between two scrapes, and between two looks at the rules.
const INTERVAL: &str = "2s";

#[derive(Debug)]
pub(crate) struct Prometheus {
    _child: Child,
    url: String,
    directory: PathBuf,
}

/// `PROMETHEUS`, else one on the path, else Debian's package as `cargo xtask setup` unpacked it into the cache.
fn program() -> Result<PathBuf> {
    if let Some(program) = env::var_os("PROMETHEUS") {
        return Ok(program.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| {
        let home = env::var_os("HOME")?;
        Some(Path::new(&home).join(".cache"))
    });
    let unpacked = cache.into_iter().flat_map(|cache| {
        let home = cache.join("loco/prometheus");
        let inside = fs::read_dir(&home).into_iter().flatten().flatten().map(|entry| entry.path());
        inside.chain([home]).map(|folder| folder.join("usr/bin")).collect::<Vec<_>>()
    });
    let mut folders = env::split_paths(&path).chain(unpacked).map(|folder| folder.join("prometheus"));
    folders.find(|program| program.is_file()).context("no prometheus; run `cargo xtask setup`, or set PROMETHEUS")
}

impl Prometheus {
    pub(crate) async fn start(wall: &Wall) -> Result<Self> {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("prometheus-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let agents: Vec<String> = wall.places().await?.iter().map(|place| format!("{}:14780", place.ip)).collect();
        let gateway = wall.url.trim_start_matches("http://");
        let rules = root().join("charts/loco/rules/loco.yaml");
        // JSON is YAML.
        let config = serde_json::json!({
            "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
            "rule_files": [rules],
            "scrape_configs": [
                {"job_name": "node-agent", "honor_labels": true, "static_configs": [{"targets": agents}]},
                {"job_name": "gateway", "honor_labels": true, "static_configs": [{"targets": [gateway]}],
                 "authorization": {"credentials": wall.token}},
            ],
        });
        let file = directory.join("prometheus.yml");
        fs::write(&file, config.to_string())?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(program()?);
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let log = fs::File::create(directory.join("log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        let child = command.spawn().context("prometheus")?;
        let this = Self { _child: child, url: format!("http://127.0.0.1:{port}"), directory };
        until(SOON, "every target scraped", async || {
            let up = this.query("count(up == 1)").await?;
            ensure!(up == Some(f64::from(u32::try_from(agents.len() + 1)?)), "{up:?} of {} are up", agents.len() + 1);
            Ok(())
        })
        .await
        .with_context(|| fs::read_to_string(this.directory.join("log")).unwrap_or_default())?;
        Ok(this)
    }

    async fn get(&self, path: &str) -> Result<serde_json::Value> {
        let answer: serde_json::Value = reqwest::get(format!("{}{path}", self.url)).await?.json().await?;
        ensure!(answer["status"] == "success", "{answer}");
        Ok(answer["data"].clone())
    }

    /// The value of an expression that has one, or none.
    pub(crate) async fn query(&self, expression: &str) -> Result<Option<f64>> {
        let mut encoded = String::with_capacity(expression.len() * 3);
        for byte in expression.bytes() {
            write!(encoded, "%{byte:02x}")?;
        }
        let data = self.get(&format!("/api/v1/query?query={encoded}")).await?;
        Ok(data["result"][0]["value"][1].as_str().and_then(|value| value.parse().ok()))
    }

    /// Names of the alerts that fire, with the node or instance that each names.
    pub(crate) async fn firing(&self) -> Result<Vec<(String, String)>> {
        let data = self.get("/api/v1/alerts").await?;
        let alerts = data["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing").map(|alert| {
            let labels = &alert["labels"];
            let whose = labels["node"].as_str().or(labels["instance"].as_str()).unwrap_or_default();
            (labels["alertname"].as_str().unwrap_or_default().to_owned(), whose.to_owned())
        });
        Ok(firing.collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Its data is of no use to anybody; a directory that stays is found under the build's tmp.
        fs::remove_dir_all(&self.directory).ok();
    }
}
