//! Real agents in namespaces that stand for nodes, with real runners, and ends of the LAN that the test holds itself.
use std::{
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use api::agent::{AgentStatus, InstanceStatus, State};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use seat::{FromAgent, FromRunner, Hello, PROTOCOL_VERSION, PortKind, SeatSocket, Welcome};
use testkit::{Tap, Underlay};
use tokio::time::Instant;

/// Long enough for a starved machine; nothing here takes a second on a quiet one.
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const TOKEN: &str = "test-token-0123456789";
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A process that is killed when the test ends, by its id.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    /// Ends it like a power cut.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, which is fine.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Nodes on one underlay, and a snapshot file.
pub(crate) struct Rig {
    pub(crate) underlay: Underlay,
    pub(crate) dir: PathBuf,
    nodes: u8,
}

impl Rig {
    pub(crate) fn new(nodes: u8) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("loco-agent-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let rig = Self { underlay: Underlay::new(nodes).unwrap(), dir, nodes };
        let token = rig.dir.join("token");
        std::fs::write(&token, TOKEN).unwrap();
        std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        rig
    }

    /// Places `instance-0`, `instance-1`, … on the nodes given, in that order.
    pub(crate) fn place(&self, on: &[u8]) {
        let nodes: Vec<_> = (0..self.nodes)
            .map(|n| {
                let ip = Underlay::address(n);
                format!(r#"{{"name":"node-{n}","underlay_ip":"{ip}","agent_url":"http://{ip}:14780"}}"#)
            })
            .collect();
        let instances: Vec<_> = on
            .iter()
            .enumerate()
            .map(|(i, node)| format!(r#"{{"id":"instance-{i}","lan":"party","seat":{i},"node":"node-{node}"}}"#))
            .collect();
        let text = format!(
            r#"{{"version":1,"lans":[{{"name":"party","vni":4200,"mode":"vxlan","subnet":"10.98.0.0/24","seats":9}}],
            "nodes":[{}],"instances":[{}]}}"#,
            nodes.join(","),
            instances.join(",")
        );
        let (new, path) = (self.dir.join("new"), self.dir.join("snapshot.json"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    pub(crate) fn run_dir(&self, node: u8) -> PathBuf {
        self.dir.join(format!("node-{node}"))
    }

    /// The flags of the agent of `node`.
    pub(crate) fn agent_command(&self, node: u8) -> Command {
        let ip = Underlay::address(node);
        let mut command = Command::new(env!("CARGO_BIN_EXE_node-agent"));
        command
            .args([
                "--node",
                &format!("node-{node}"),
                "--listen",
                &format!("{ip}:14780"),
                "--media-ip",
                &ip.to_string(),
            ])
            .arg("--snapshot")
            .arg(self.dir.join("snapshot.json"))
            .arg("--run-dir")
            .arg(self.run_dir(node))
            .arg("--token-file")
            .arg(self.dir.join("token"))
            .stderr(self.log(&format!("agent-{node}.log")));
        command
    }

    pub(crate) fn start_agent(&self, node: u8) -> Process {
        self.spawn(node, self.agent_command(node))
    }

    /// What the machines of runners that start from now on boot, in 510 octets at most.
    pub(crate) fn boots(&self, program: &[u8]) {
        let mut disk = vec![0; 1 << 20];
        disk[..program.len()].copy_from_slice(program);
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        std::fs::write(self.dir.join("disk.raw"), disk).unwrap();
    }

    /// A real runner with a real QEMU. Unless [`Rig::boots`] was called its disk is blank: the firmware's screen is the picture.
    pub(crate) fn start_runner(&self, node: u8, instance: u8) -> Process {
        self.start_runner_at(node, instance, &self.seat(node, instance))
    }

    /// The same, at a door that is not called by its instance.
    pub(crate) fn start_runner_at(&self, node: u8, instance: u8, door: &Path) -> Process {
        let program = Path::new(env!("CARGO_BIN_EXE_node-agent")).with_file_name("guest-runner");
        assert!(program.exists(), "{} is missing; run `cargo build -p guest-runner` first", program.display());
        let disk = self.dir.join("disk.raw");
        if !disk.exists() {
            std::fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
        }
        let mut command = Command::new(program);
        command
            .args(["--instance", &format!("instance-{instance}"), "--listen", "127.0.0.1:0", "--memory", "16"])
            .args(["--uid", "65534", "--gid", "65534"])
            .arg("--agent-socket")
            .arg(door)
            .arg("--work-dir")
            .arg(self.dir.join(format!("work-{instance}")))
            .arg("--disk")
            .arg(disk)
            .stderr(self.log(&format!("runner-{instance}.log")));
        self.spawn(node, command)
    }

    /// The seat of an instance taken by the test itself: its tap, and the connection that must stay open meanwhile.
    pub(crate) async fn take_seat(&self, node: u8, instance: u8) -> (Tap, SeatSocket) {
        self.take_seat_at(&self.seat(node, instance), instance).await
    }

    /// The same, at a door that is not called by its instance.
    pub(crate) async fn take_seat_at(&self, path: &Path, instance: u8) -> (Tap, SeatSocket) {
        let (_, fds, socket) = self.welcomed_at(path, instance, &[]).await;
        let tap = fds.into_iter().next().expect("a tap comes with the welcome");
        (Tap::from_fd(tap).unwrap(), socket)
    }

    /// What a runner that knows these kinds of ports is told and given.
    pub(crate) async fn welcomed_at(
        &self,
        path: &Path,
        instance: u8,
        ports: &[PortKind],
    ) -> (Welcome, Vec<OwnedFd>, SeatSocket) {
        let deadline = Instant::now() + SOON;
        loop {
            assert!(Instant::now() < deadline, "no seat at {}\n{}", path.display(), self.logs());
            let Ok(socket) = SeatSocket::connect(path) else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let hello = Hello {
                version: PROTOCOL_VERSION,
                instance: format!("instance-{instance}"),
                runner_pid: std::process::id(),
                has_port: false,
                health_url: None,
                ports: ports.iter().map(|kind| kind.as_str().to_owned()).collect(),
            };
            socket.say(&FromRunner::Hello(hello)).await.unwrap();
            match socket.receive().await {
                Ok((FromAgent::Welcome(welcome), fds)) => return (welcome, fds, socket),
                refused => eprintln!("asking again: {refused:?}"),
            }
        }
    }

    pub(crate) fn status(&self, node: u8) -> Option<AgentStatus> {
        let url = format!("http://{}:14780/v1/status", Underlay::address(node));
        let request = async move {
            let answer = reqwest::Client::new().get(url).bearer_auth(TOKEN).send().await.ok()?;
            answer.json().await.ok()
        };
        self.underlay.node(node.into()).block_on(request).unwrap()
    }

    pub(crate) fn instance(&self, node: u8, instance: u8) -> Option<InstanceStatus> {
        let id = format!("instance-{instance}");
        self.status(node)?.instances.into_iter().find(|i| i.id == id).map(Arc::unwrap_or_clone)
    }

    /// Waits until an instance is as wanted; how long it took.
    #[track_caller]
    pub(crate) fn until(
        &self,
        node: u8,
        instance: u8,
        want: impl Fn(&InstanceStatus) -> bool,
    ) -> (InstanceStatus, Duration) {
        let start = std::time::Instant::now();
        let mut last = None;
        while start.elapsed() < SOON {
            last = self.instance(node, instance);
            if let Some(status) = last.take_if(|status| want(status)) {
                return (status, start.elapsed());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("instance-{instance} is {last:#?}\n{}", self.logs());
    }

    #[track_caller]
    pub(crate) fn until_live(&self, node: u8, instance: u8) -> (InstanceStatus, Duration) {
        self.until(node, instance, |status| status.state == State::Live)
    }

    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(&self.dir).unwrap().flatten() {
            if entry.path().extension().is_some_and(|ext| ext == "log") {
                let said = std::fs::read_to_string(entry.path()).unwrap();
                text.extend([
                    "--- ",
                    &entry.path().display().to_string(),
                    "
",
                    &said,
                ]);
            }
        }
        text
    }

    pub(crate) fn address(node: u8) -> Ipv4Addr {
        Underlay::address(node)
    }

    pub(crate) fn seat(&self, node: u8, instance: u8) -> PathBuf {
        self.run_dir(node).join(format!("seats/instance-{instance}/agent.sock"))
    }

    pub(crate) fn spawn(&self, node: u8, mut command: Command) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // A child is born into the namespace of the thread that makes it.
        Process(self.underlay.node(node.into()).run(move || command.spawn().unwrap()).unwrap())
    }

    fn log(&self, name: &str) -> Stdio {
        std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join(name)).unwrap().into()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for node in 0..self.nodes {
            let uninstall = ["uninstall", "--run-dir"];
            let mut command = Command::new(env!("CARGO_BIN_EXE_node-agent"));
            let ended = command.args(uninstall).arg(self.run_dir(node)).stderr(Stdio::null()).status();
            eprintln!("uninstall of node {node}: {ended:?}");
        }
        std::fs::remove_dir_all(&self.dir).ok();
    }
}
