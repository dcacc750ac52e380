//! Agents on nodes, demo guests in real runners, and network namespaces plugged into seats: whatever runs in one is on the LAN,
//! through the same tap that QEMU would have.
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Instant,
};

use api::observe::Observed;
use seat::SeatSocket;
use testkit::{NetNs, Tap};
use tokio::{runtime::Runtime, task::JoinHandle};

use crate::{
    PATIENCE, folder,
    rig::{Process, Rig, TOKEN},
    shell,
};

const ENTER: &str = include_str!("enter.sh");

/// A LAN with an agent on each of two nodes.
pub(crate) struct Lan {
    rig: Rig,
    nodes: Vec<u8>,
    runtime: Runtime,
    _agents: Vec<Process>,
}

/// A program in a namespace of its own that holds a seat.
pub(crate) struct Peer {
    name: String,
    said: Arc<(Mutex<Vec<String>>, Condvar)>,
    process: Process,
    pumps: [JoinHandle<()>; 2],
    _seat: SeatSocket,
    _namespace: NetNs,
}

impl Lan {
    /// Instances are placed on the nodes given, in their order.
    pub(crate) fn new(nodes: &[u8]) -> Self {
        let rig = Rig::new(2);
        rig.place(nodes);
        let agents = vec![rig.start_agent(0), rig.start_agent(1)];
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { rig, nodes: nodes.to_vec(), runtime, _agents: agents }
    }

    fn work(&self, instance: u8) -> PathBuf {
        self.rig.dir.join(format!("work-{instance}"))
    }

    /// The demo game in QEMU, which looks for a session and hosts one where there is none.
    pub(crate) fn demo(&self, node: u8, instance: u8) -> Process {
        let kernel = std::env::var_os("LOCO_DEMO_KERNEL").expect("run by `cargo xtask test --genuine`, which sets it");
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_node-agent")).with_file_name("guest-runner"));
        command
            .args(["--instance", &format!("instance-{instance}"), "--listen", "127.0.0.1:0"])
            .args(["--uid", "65534", "--gid", "65534", "--append", "autoplay=1"])
            .arg("--agent-socket")
            .arg(self.rig.seat(node, instance))
            .arg("--work-dir")
            .arg(self.work(instance))
            .arg("--kernel")
            .arg(kernel)
            .stderr(Stdio::null());
        // It asks once and again for a socket that is not there yet, but not for ever.
        let deadline = Instant::now() + PATIENCE;
        while !self.rig.seat(node, instance).exists() {
            assert!(Instant::now() < deadline, "no seat for instance-{instance}\n{}", self.rig.logs());
            thread::sleep(std::time::Duration::from_millis(20));
        }
        self.rig.spawn(node, command)
    }

    /// Waits until the demo guest has said a line.
    #[track_caller]
    pub(crate) fn demo_says(&self, instance: u8, line: &str) {
        let log = self.work(instance).join("serial.log");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.lines().any(|said| said == line) {
                return;
            }
            assert!(Instant::now() < deadline, "instance-{instance} never said {line}: {said}");
            thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// A program of the Debian folder in the seat of an instance, with its address.
    pub(crate) fn peer(&self, instance: u8, words: &[&str]) -> Peer {
        self.peer_as(instance, "65534", words)
    }

    pub(crate) fn peer_as(&self, instance: u8, user: &str, words: &[&str]) -> Peer {
        let (tap, seat) = self.runtime.block_on(self.rig.take_seat(self.nodes[usize::from(instance)], instance));
        let namespace = NetNs::new(&format!("peer{instance}")).unwrap();
        let inside = namespace.run(|| Tap::open("eth0").unwrap()).unwrap();
        // As the agent's DHCP would give it: this is about the programs, not about a client of Debian's.
        let number = instance + 1;
        let enter = format!("nsenter --net='{}'", namespace.path().display());
        shell(&format!(
            "{enter} ip link set lo up; {enter} ip link set eth0 address 02:4c:00:10:68:{number:02x} up; \
             {enter} ip addr add 10.98.0.{number}/24 brd + dev eth0; {enter} ip route add default dev eth0"
        ));
        let pumps = self.runtime.block_on(async {
            let (seat, inside) = (Arc::new(tap), Arc::new(Tap::from_fd(inside).unwrap()));
            let pump = |from: &Arc<Tap>, to: &Arc<Tap>| {
                let (from, to) = (Arc::clone(from), Arc::clone(to));
                tokio::spawn(async move {
                    // A tap that is down for a moment takes nothing; the frame is lost, as on a real wire.
                    while let Ok(frame) = from.receive().await {
                        drop(to.send(&frame).await);
                    }
                })
            };
            [pump(&seat, &inside), pump(&inside, &seat)]
        });
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "enter.sh", "try"]);
        command.arg(folder()).arg(user).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = namespace.run(move || command.spawn().unwrap()).unwrap();
        let said = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let (output, tell) = (child.stdout.take().unwrap(), Arc::clone(&said));
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                tell.0.lock().unwrap().push(line.trim_end().to_owned());
                tell.1.notify_all();
            }
        });
        let name = words.join(" ");
        Peer { name, said, process: Process(child), pumps, _seat: seat, _namespace: namespace }
    }

    /// Waits until a node has seen something of the LAN.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, node: u8, mut holds: impl FnMut(&Observed) -> bool) -> Observed {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.rig.status(node).and_then(|mut status| status.observed.remove("party"));
            if let Some(seen) = seen.as_ref().filter(|seen| holds(seen)) {
                return seen.clone();
            }
            assert!(Instant::now() < deadline, "{what} is not seen on node {node}: {seen:#?}\n{}", self.rig.logs());
            thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// What a port's capture holds, as a file.
    pub(crate) fn pcap(&self, instance: u8) -> PathBuf {
        let node = self.nodes[usize::from(instance)];
        let url = format!("http://{}:14780/v1/instances/instance-{instance}/pcap", Rig::address(node));
        let request = async move {
            let answer = reqwest::Client::new().get(url).bearer_auth(TOKEN).send().await.unwrap();
            answer.error_for_status().unwrap().bytes().await.unwrap()
        };
        let bytes = self.rig.underlay.node(node.into()).block_on(request).unwrap();
        let file = self.rig.dir.join(format!("instance-{instance}.pcapng"));
        std::fs::write(&file, bytes).unwrap();
        file
    }
}

impl Peer {
    /// Ends its programs at once; its machine stays, and closes their connections.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Waits for the first line that begins like this.
    #[track_caller]
    pub(crate) fn says(&self, start: &str) -> String {
        self.nth(start, 0)
    }

    /// The same, after so many others.
    #[track_caller]
    pub(crate) fn nth(&self, start: &str, skip: usize) -> String {
        let (lines, told) = &*self.said;
        let find = |lines: &Vec<String>| lines.iter().filter(|line| line.starts_with(start)).nth(skip).cloned();
        let lines = lines.lock().unwrap();
        let (lines, _) = told.wait_timeout_while(lines, PATIENCE, |lines| find(lines).is_none()).unwrap();
        find(&lines).unwrap_or_else(|| panic!("`{}` never said {start}: {lines:#?}", self.name))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.pumps.iter().for_each(JoinHandle::abort);
    }
}
