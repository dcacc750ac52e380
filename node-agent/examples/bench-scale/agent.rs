//! A real agent as a process of a namespace: started, asked, looked at from outside, ended.
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use testkit::NetNs;

use crate::until;

const PORT: u16 = 14780;
/// For one answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The file that [`Agent::start`] names.
pub(crate) fn write_token(dir: &Path) -> std::io::Result<()> {
    let path = dir.join("token");
    fs::write(&path, "bench-token")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
}

/// Killed, and what it left in the kernel removed, when it goes out of scope.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    pub(crate) ip: Ipv4Addr,
    node: String,
    dir: PathBuf,
}

fn program() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let debug = here.parent().and_then(Path::parent).context("this program is in no directory of cargo's")?;
    Ok(debug.join("node-agent"))
}

fn spawn(netns: &NetNs, dir: &Path, node: &str, ip: Ipv4Addr) -> anyhow::Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join(format!("{node}.log")))?;
    let mut command = Command::new(program()?);
    command
        .args(["--node", node, "--listen", &format!("{ip}:{PORT}"), "--media-ip", &ip.to_string()])
        .arg("--snapshot")
        .arg(dir.join("snapshot.json"))
        .arg("--run-dir")
        .arg(dir.join(node))
        .arg("--token-file")
        .arg(dir.join("token"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    // A child is born into the namespace of the thread that makes it.
    netns.run(move || command.spawn())?.context("start node-agent; build it first")
}

impl Agent {
    /// `dir` has the token and the directory's file.
    pub(crate) fn start(netns: &NetNs, dir: &Path, node: &str, ip: Ipv4Addr) -> anyhow::Result<Self> {
        let child = spawn(netns, dir, node, ip)?;
        Ok(Self { child, ip, node: node.to_owned(), dir: dir.to_owned() })
    }

    /// Ends it as a roll-out would, and starts the next; the fabric stays meanwhile.
    pub(crate) fn restart(&mut self, netns: &NetNs) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the agent ended with {status}");
        self.child = spawn(netns, &self.dir, &self.node, self.ip)?;
        Ok(())
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.join(&self.node)
    }

    pub(crate) fn ready(&mut self, netns: &NetNs) -> anyhow::Result<()> {
        until(Instant::now(), "an agent answers", || {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("the agent ended: {status}; see its log in {}", self.dir.display());
            }
            netns.run(|| get(self.ip, "/readyz"))
        })
        .map(drop)
    }

    pub(crate) fn fabric_netns(&self) -> PathBuf {
        self.run_dir().join("fabric.netns")
    }

    pub(crate) fn seat(&self, instance: &str) -> PathBuf {
        self.run_dir().join("seats").join(instance).join("agent.sock")
    }

    /// MiB, by the kernel's count.
    pub(crate) fn memory(&self) -> anyhow::Result<Value> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", self.child.id()));
        let (status, rollup) = (read("status")?, read("smaps_rollup")?);
        let field = |text: &str, name: &str| -> anyhow::Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
            let mib = line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0;
            Ok((mib * 10.0).round() / 10.0)
        };
        Ok(
            json!({"rss": field(&status, "VmRSS:")?, "own": field(&status, "RssAnon:")?, "files": field(&status, "RssFile:")?,
                  "shared": field(&status, "RssShmem:")?, "peak": field(&status, "VmHWM:")?, "pss": field(&rollup, "Pss:")?}),
        )
    }

    /// Seconds of processor time since its start.
    pub(crate) fn cpu(&self) -> anyhow::Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> =
            text.rsplit_once(')').context("/proc/…/stat has a name in brackets")?.1.split_whitespace().collect();
        // USER_HZ is 100 on every Linux that people run.
        Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already, which is fine.
        self.child.kill().ok();
        self.child.wait().ok();
        let Ok(program) = program() else { return };
        let mut uninstall = Command::new(program);
        uninstall.args(["uninstall", "--run-dir"]).arg(self.run_dir()).stderr(Stdio::null()).stdout(Stdio::null());
        // Nobody can be told; a mount that stays is found by its name.
        uninstall.status().ok();
    }
}

/// In the calling thread's namespace; `None`: no answer, or not a good one.
fn get(ip: Ipv4Addr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((ip, PORT)), ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: agent\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.0 200").then_some(answer)
}

/// What agents at these addresses count, asked from one namespace.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    pub(crate) fn of(netns: &NetNs, ips: &[Ipv4Addr]) -> anyhow::Result<Vec<Option<Self>>> {
        netns.run(|| ips.iter().map(|ip| get(*ip, "/metrics").map(Self)).collect())
    }

    pub(crate) fn of_one(netns: &NetNs, agent: &Agent) -> anyhow::Result<Self> {
        Self::of(netns, &[agent.ip])?.pop().flatten().context("the agent does not answer")
    }

    /// The sum of a family's series with all of `labels`.
    fn values(&self, family: &str, labels: &[&str]) -> impl Iterator<Item = f64> {
        let of = move |line: &&str| {
            line.strip_prefix(family).is_some_and(|rest| rest.starts_with([' ', '{']))
                && labels.iter().all(|label| line.contains(label))
        };
        self.0.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    }

    pub(crate) fn sum(&self, family: &str, labels: &[&str]) -> f64 {
        self.values(family, labels).sum()
    }

    pub(crate) fn writes(&self) -> f64 {
        self.sum("loco_fabric_writes_total", &[])
    }

    /// Other nodes with these labels that answer.
    pub(crate) fn peers_up(&self, labels: &[&str]) -> usize {
        self.values("loco_fabric_peer_up", labels).filter(|up| *up > 0.5).count()
    }
}
