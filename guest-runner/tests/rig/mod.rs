//! What the tests of the program share: a place, an agent, a tap. No judgement in here.
#![expect(clippy::unwrap_used, reason = "a rig that cannot be built ends its test")]
#![allow(dead_code, reason = "each of the test programs uses its part")]
use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt as _, net::UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use guest::Qmp;
use seat::{
    Exited, FromAgent, FromRunner, Hello, MESSAGE_FDS_MAX, Order, Port, PortKind, SeatListener, SeatSocket,
    SocketError, Started, Storage, Welcome,
};
use testkit::{NetNs, Tap};
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    sync::{Mutex, mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Nobody's user and group.
pub(crate) const USER: &str = "1098765";

/// User and group of the chart's instances.
pub(crate) const POD_USER: u32 = 10_001;

/// A directory of one test.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("loco-runner-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn program(&self, name: &str, script: &str) {
        self.file(name, script.as_bytes());
        fs::set_permissions(self.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A test's own file system there; mostly there is none.
        nix::mount::umount2(&self.join("work"), nix::mount::MntFlags::MNT_DETACH).ok();
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A runner, and the agent that it finds.
pub(crate) struct Rig {
    place: Place,
    namespace: NetNs,
    listener: SeatListener,
    flags: Vec<String>,
    child: Child,
    port: u16,
    in_pod: bool,
}

/// One connection of a runner. It is read all the time, as an agent does; questions about the port are answered as `answers`
/// says, and what it says of its disk is kept.
pub(crate) struct Seat {
    socket: Arc<SeatSocket>,
    heard: Mutex<mpsc::Receiver<(FromRunner, Vec<OwnedFd>)>>,
    /// `None`: as an agent that hangs.
    pub(crate) answers: watch::Sender<Option<Port>>,
    storage: watch::Receiver<Storage>,
    pump: JoinHandle<SocketError>,
}

/// A port that is up, with a live picture.
pub(crate) fn well() -> Port {
    Port { up: true, picture_live: true, state: "live".into(), detail: None }
}

impl Seat {
    fn new(socket: SeatSocket) -> Self {
        let socket = Arc::new(socket);
        let (tell, heard) = mpsc::channel(16 * MESSAGE_FDS_MAX);
        let (answers, answer) = watch::channel(Some(well()));
        let (storage_tx, storage) = watch::channel(Storage::default());
        let shared = Arc::clone(&socket);
        let pump = tokio::spawn(async move {
            loop {
                match shared.receive().await {
                    Ok((FromRunner::AskPort, _)) => {
                        let port = answer.borrow().clone();
                        if let Some(port) = port {
                            shared.say(&FromAgent::Port(port)).await.ok();
                        }
                    }
                    Ok((FromRunner::Storage(storage), _)) => {
                        storage_tx.send_replace(storage);
                    }
                    Ok(other) => tell.send(other).await.unwrap(),
                    Err(error) => return error,
                }
            }
        });
        Self { socket, heard: Mutex::new(heard), answers, storage, pump }
    }

    pub(crate) async fn say(&self, message: &FromAgent) {
        self.socket.say(message).await.unwrap();
    }

    /// Whatever it says next; `None` when the connection has ended.
    pub(crate) async fn next(&self) -> Option<(FromRunner, Vec<OwnedFd>)> {
        timeout(SOON, async { self.heard.lock().await.recv().await }).await.expect("the runner speaks")
    }

    /// What it says of its disk, once that fits.
    pub(crate) async fn storage(&self, fits: impl Fn(&Storage) -> bool) -> Storage {
        let mut storage = self.storage.clone();
        let waited = timeout(SOON, storage.wait_for(|now| fits(now))).await.map(|now| now.unwrap().clone());
        waited.unwrap_or_else(|elapsed| panic!("{elapsed}: {:?}", *self.storage.borrow()))
    }

    pub(crate) async fn order(&self, order: Order) -> Option<String> {
        self.say(&FromAgent::Order { id: 7, order }).await;
        loop {
            if let FromRunner::Took { id: 7, refused } = self.next().await.expect("the connection stands").0 {
                return refused;
            }
        }
    }

    /// Waits until the runner ends the connection.
    pub(crate) async fn ended(&mut self) {
        timeout(SOON, &mut self.pump).await.expect("the runner ends the connection").unwrap();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// What a runner hands over after a Welcome.
pub(crate) struct Given {
    pub(crate) started: Started,
    qmp: Vec<OwnedFd>,
    _display: Vec<OwnedFd>,
    audio: Vec<OwnedFd>,
    /// The agent's end of the guest's cable, where its port is a socket.
    pub(crate) cable: Option<OwnedFd>,
}

impl Given {
    /// As an agent that lost its sound.
    pub(crate) fn drop_audio(&mut self) {
        self.audio.clear();
    }

    /// Sessions on the two monitors, the greeting still to come.
    pub(crate) async fn monitors(&self) -> [Qmp<UnixStream>; 2] {
        let mut sessions = Vec::new();
        for fd in &self.qmp {
            let stream = StdUnixStream::from(fd.try_clone().unwrap());
            stream.set_nonblocking(true).unwrap();
            sessions.push(Qmp::connect(UnixStream::from_std(stream).unwrap()).await.unwrap());
        }
        sessions.try_into().map_err(|_| "two").unwrap()
    }
}

impl Rig {
    /// Starts a runner on an empty disk that only root may read.
    pub(crate) fn start(name: &str, flags: &[&str]) -> Self {
        Self::start_from(name, &[], 1 << 20, flags, |_| ())
    }

    /// Likewise, with these bytes at the start of the disk. `before`: what else the place needs.
    pub(crate) fn start_from(name: &str, boot: &[u8], bytes: u64, flags: &[&str], before: impl FnOnce(&Place)) -> Self {
        let place = Place::new(name);
        let secret = place.join("secret");
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join("disk.img"), boot).unwrap();
        File::options().write(true).open(secret.join("disk.img")).unwrap().set_len(bytes).unwrap();
        fs::set_permissions(secret.join("disk.img"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).unwrap();
        before(&place);
        Self::finish(place, name, flags, false)
    }

    /// Starts one as a pod would: a user of its own without capabilities or new privileges, a read-only root, its volume
    /// owned by root and writable for its group.
    pub(crate) fn start_in_pod(name: &str, flags: &[&str]) -> Self {
        let place = Place::new(name);
        let disk = File::create(place.join("disk.img")).unwrap();
        disk.set_len(1 << 20).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_guest-runner"), place.join("guest-runner")).unwrap();
        fs::create_dir(place.join("work")).unwrap();
        std::os::unix::fs::chown(place.join("work"), Some(0), Some(POD_USER)).unwrap();
        fs::set_permissions(place.join("work"), fs::Permissions::from_mode(0o2770)).unwrap();
        Self::finish(place, name, flags, true)
    }

    fn finish(place: Place, name: &str, flags: &[&str], in_pod: bool) -> Self {
        let namespace = NetNs::new(name).unwrap();
        let listener = SeatListener::bind(&place.join("agent.sock")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let child = spawn(&place, port, &flags, in_pod);
        Self { place, namespace, listener, flags, child, port, in_pod }
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.place, self.port, &self.flags, self.in_pod);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// The next connection and its Hello.
    pub(crate) async fn greeted(&mut self) -> (Hello, Seat) {
        let socket = timeout(SOON, self.listener.accept()).await.expect("the runner connects").unwrap();
        let seat = Seat::new(socket);
        let (message, _) = self.receive(&seat).await;
        let FromRunner::Hello(hello) = message else { panic!("{message:?}") };
        (hello, seat)
    }

    /// Whatever it says next.
    pub(crate) async fn receive(&self, seat: &Seat) -> (FromRunner, Vec<OwnedFd>) {
        seat.next().await.expect("the connection stands")
    }

    fn words() -> FromAgent {
        Self::words_of(PortKind::Tap)
    }

    fn words_of(port: PortKind) -> FromAgent {
        FromAgent::Welcome(Welcome {
            lan: "party".into(),
            seat: 0,
            mac: "02:4c:00:10:68:01".into(),
            ip: [10, 98, 0, 1].into(),
            host_name: "LOCO1068-1".into(),
            kvm: false,
            port,
            subnet: (port == PortKind::User).then(|| "10.98.0.0/24".to_owned()),
        })
    }

    /// Welcomes a runner with a tap, and takes what it gives.
    pub(crate) async fn welcome(&self, seat: &Seat) -> Given {
        self.grant(seat).await;
        self.take(seat).await
    }

    /// Welcomes a runner at a port for which the agent has no descriptor, or one that has its port, and takes what it gives.
    pub(crate) async fn welcome_at(&self, seat: &Seat, port: PortKind) -> Given {
        seat.say(&Self::words_of(port)).await;
        self.take(seat).await
    }

    /// Gives a tap, and waits for nothing.
    pub(crate) async fn grant(&self, seat: &Seat) {
        let tap = self.namespace.run(|| Tap::open("loco-t")).unwrap().unwrap();
        seat.socket.send(&Self::words(), &[&tap]).await.unwrap();
    }

    /// Welcomes a runner that has its port.
    pub(crate) async fn welcome_back(&self, seat: &Seat) -> Given {
        seat.say(&Self::words()).await;
        self.take(seat).await
    }

    pub(crate) async fn take(&self, seat: &Seat) -> Given {
        let (mut started, mut qmp, mut display, mut audio, mut cable) = (None, None, None, None, None);
        while started.is_none() || qmp.is_none() || display.is_none() || audio.is_none() {
            match self.receive(seat).await {
                (FromRunner::Started(words), _) => started = Some(words),
                (FromRunner::Cable, fds) => cable = fds.into_iter().next(),
                (FromRunner::Qmp, fds) => qmp = Some(fds),
                (FromRunner::Display { .. }, fds) => display = Some(fds),
                (FromRunner::Audio { .. }, fds) => audio = Some(fds),
                (other, _) => panic!("{other:?}"),
            }
        }
        let (started, qmp) = (started.unwrap(), qmp.unwrap());
        Given { started, qmp, _display: display.unwrap(), audio: audio.unwrap(), cable }
    }

    /// Another agent takes the socket over.
    pub(crate) fn another_agent(&mut self) {
        self.listener = SeatListener::bind(&self.place.join("agent.sock")).unwrap();
    }

    pub(crate) async fn exited(&self, seat: &Seat) -> Exited {
        loop {
            if let (FromRunner::Exited(exited), _) = self.receive(seat).await {
                return exited;
            }
        }
    }

    /// Status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        (text.split(' ').nth(1).unwrap().parse().unwrap(), text.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    pub(crate) async fn becomes(&self, path: &str, code: u16) {
        let mut last = String::new();
        let wait = testkit::eventually(SOON, || {
            let (is, body) = self.get(path);
            last = body;
            (is == code).then_some(())
        });
        wait.await.unwrap_or_else(|error| panic!("{error}: {last}"));
    }

    /// Waits for the end.
    pub(crate) async fn end(&mut self, within: Duration) -> ExitStatus {
        timeout(within, self.child.wait()).await.expect("the runner ends").unwrap()
    }

    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

fn spawn(place: &Place, port: u16, flags: &[String], in_pod: bool) -> Child {
    let mut command = if in_pod {
        // Only the volume can be written; the mounts are this process's own.
        let script = "set -e; mount --make-rprivate /; mount --bind \"$0/work\" \"$0/work\"; mount -o remount,ro,bind /; \
            exec setpriv --reuid 10001 --regid 10001 --clear-groups --inh-caps -all --bounding-set -all --no-new-privs \
            \"$0/guest-runner\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(place.join("")).arg("--disk").arg(place.join("disk.img"));
        command
    } else {
        let mut command = Command::new(env!("CARGO_BIN_EXE_guest-runner"));
        command.args(["--uid", USER, "--gid", USER, "--disk"]).arg(place.join("secret/disk.img"));
        command
    };
    command
        .args(["--instance", "instance-0", "--memory", "24", "--work-dir"])
        .arg(place.join("work"))
        .arg("--agent-socket")
        .arg(place.join("agent.sock"))
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .args(flags)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

pub(crate) fn status_field(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

/// Whether it runs; a zombie does not.
pub(crate) fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists() && !status_field(pid, "State").starts_with('Z')
}
