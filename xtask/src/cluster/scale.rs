//! An API server alone, for benches that play the nodes: in a network namespace and a directory of its own, so that it minds
//! no cluster that runs.
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};
use serde_json::json;

use super::{binaries, processes};
use crate::{dirs::Dirs, run::Run as _, setup};

/// The network that the played nodes have their addresses in: all of them local.
const NODES: &str = "10.200.0.0/16";
const API: &str = "https://127.0.0.1:6443";
/// Of a server that nobody else reaches.
const TOKEN: &str = "bench";
const LIMIT: Duration = Duration::from_mins(2);

/// Runs `work` beside an API server without nodes. `work` is given what makes a command of a program: one that runs where the
/// API and the played nodes' addresses are, with KUBECONFIG set.
pub(crate) fn with_an_api(dirs: &Dirs, work: impl FnOnce(&dyn Fn(&Path) -> Command) -> Result<()>) -> Result<()> {
    setup::ensure(setup::For::Cluster)?;
    let bin = binaries::ensure(dirs)?;
    let alone = Alone::start(&bin)?;
    work(&|program| {
        let mut command = alone.inside("env");
        command.arg(format!("KUBECONFIG={}", alone.file("config")));
        command.arg(format!("LOCO_BENCH_AUDIT_LOG={}", alone.file("audit.log"))).arg(program);
        command
    })
}

/// All of it ends with this.
struct Alone {
    dir: PathBuf,
    children: Vec<Child>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            // One that has ended already is as was wanted.
            child.kill().and_then(|()| child.wait()).ok();
        }
        // What cannot be taken away stays in the machine's temporary directory; nobody finds it by name.
        umount2(&self.dir.join("netns"), MntFlags::MNT_DETACH).ok();
        fs::remove_dir_all(&self.dir).ok();
    }
}

impl Alone {
    fn start(bin: &Path) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("loco-bench-api-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut alone = Self { dir, children: Vec::new() };
        File::create(alone.file("netns"))?;
        Command::new("unshare").arg(format!("--net={}", alone.file("netns"))).arg("true").answer()?;
        alone.inside("ip").args(["link", "set", "lo", "up"]).answer()?;
        alone.inside("ip").args(["route", "add", "local", NODES, "dev", "lo"]).answer()?;
        Command::new("openssl").args(["genrsa", "-out", &alone.file("sa.key"), "2048"]).answer()?;
        fs::write(alone.file("tokens.csv"), format!("{TOKEN},admin,1,\"system:masters\"\n"))?;
        fs::write(alone.file("config"), config().to_string())?;
        fs::write(alone.file("audit.json"), audit().to_string())?;
        let etcd = bin.join("etcd").display().to_string();
        alone.run(
            "etcd",
            &[&etcd, "--unsafe-no-fsync", "--log-level=warn", &format!("--data-dir={}", alone.file("data"))],
        )?;
        let key = alone.file("sa.key");
        alone.run(
            "api",
            &[
                &bin.join("kube").display().to_string(),
                "kube-apiserver",
                "--etcd-servers=http://127.0.0.1:2379",
                "--bind-address=127.0.0.1",
                // It looks for the default route's address, and there is none.
                "--advertise-address=127.0.0.1",
                "--endpoint-reconciler-type=none",
                &format!("--cert-dir={}", alone.file("certs")),
                "--service-account-issuer=https://kubernetes.default.svc",
                &format!("--service-account-key-file={key}"),
                &format!("--service-account-signing-key-file={key}"),
                &format!("--token-auth-file={}", alone.file("tokens.csv")),
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--disable-admission-plugins=ServiceAccount",
                &format!("--audit-policy-file={}", alone.file("audit.json")),
                &format!("--audit-log-path={}", alone.file("audit.log")),
            ],
        )?;
        let ready = || {
            let mut kubectl = alone.inside(&bin.join("kubectl").display().to_string());
            kubectl.args(["--kubeconfig", &alone.file("config"), "get", "--raw", "/readyz"]);
            Ok(kubectl.answer().ok())
        };
        processes::until(LIMIT, ready).with_context(|| {
            let log = fs::read_to_string(alone.file("api.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("the API does not answer\n{}", lines[lines.len().saturating_sub(12)..].join("\n"))
        })?;
        Ok(alone)
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.file("netns"))).arg("--").arg(program);
        command
    }

    fn run(&mut self, name: &str, words: &[&str]) -> Result<()> {
        let log = File::create(self.file(&format!("{name}.log")))?;
        let (program, args) = words.split_first().context("a command has a program")?;
        let mut command = self.inside(program);
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.children.push(command.spawn().with_context(|| format!("cannot start {name}"))?);
        Ok(())
    }
}

fn config() -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": API, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "bench", "user": {"token": TOKEN}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    })
}

/// A line for each request that only reads: a watch when it begins, any other when it is answered.
fn audit() -> serde_json::Value {
    json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "verbs": ["create", "update", "patch", "delete", "post"]},
            {"level": "Metadata", "verbs": ["watch"], "omitStages": ["RequestReceived", "ResponseComplete"]},
            {"level": "Metadata"},
        ],
    })
}
