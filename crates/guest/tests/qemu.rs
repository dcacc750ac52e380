//! Against the installed QEMU, unprivileged: what this crate believes about it.
#![expect(clippy::unwrap_used, reason = "helpers of tests; a rig that cannot be built ends its test")]
#![expect(
    clippy::used_underscore_binding,
    clippy::too_many_arguments,
    clippy::unused_self,
    reason = "the signatures are QEMU's, and zbus's macro uses what is not used"
)]
use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    os::unix::net::UnixStream as StdUnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use guest::{
    MachineSpec, Qmp,
    argv::{Accelerator, Boot, FD_DISK, FD_NET, HardDisk, Mebibytes, Monitor, Netdev, NicModel, VideoCard, WorkDir},
    handshake::{Bus, DisplayFds, HandshakeError, Listener},
    input, keymap, overlay, process, version,
};
use qapi::qmp;
use tokio::{net::UnixStream, process::Child, sync::mpsc, time::timeout};

const SOON: Duration = Duration::from_secs(10);

/// A Windows 98 machine with an empty disk: its BIOS shows a text screen and says that it cannot boot.
struct Machine {
    child: Child,
    work_dir: WorkDir,
    qmp: Qmp<UnixStream>,
}

impl Machine {
    async fn start(name: &str) -> Self {
        Self::start_from(name, &[]).await
    }

    /// With these bytes at the start of the disk.
    async fn start_from(name: &str, boot: &[u8]) -> Self {
        let dir = std::env::temp_dir().join(format!("loco-guest-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let disk = dir.join("base.img");
        std::fs::write(&disk, boot).unwrap();
        File::options().write(true).open(&disk).unwrap().set_len(1 << 20).unwrap();
        let mut base = overlay::Base::open(&disk).unwrap();
        let work_dir = WorkDir::new(&dir).unwrap();
        let overlay = dir.join("overlay.qcow2");
        overlay::create(&mut base, &overlay).await.unwrap();
        let disk = HardDisk { format: base.format, lock_base: base.lockable, overlay, write_through: true };
        let spec = MachineSpec {
            instance: "instance-0".parse().unwrap(),
            work_dir: dir,
            memory: Mebibytes::new(24).unwrap(),
            boot: Boot::Disks { disk: Some(disk), cdrom: false },
            nic: NicModel::Pcnet,
            mac: model::MacAddr([2, 0x4c, 0, 0, 1, 1]),
            netdev: Netdev::Tap,
            video: VideoCard::Std,
            accelerator: Accelerator::Tcg,
            vnc: false,
        };
        // A tap needs root; `-netdev socket,fd=` stands in for it with everything else as it is.
        let (nic, _) = StdUnixStream::pair().unwrap();
        let argv: Vec<_> = spec
            .argv()
            .into_iter()
            .map(|arg| if arg == "tap,id=net0,fd=3" { "socket,id=net0,fd=3".into() } else { arg })
            .collect();
        let (program, _) = version::qemu().await.unwrap();
        let fds = [(nic.as_fd(), FD_NET), (base.file.as_fd(), FD_DISK)];
        let mut child = process::spawn(&program, &argv, &fds, false).unwrap();
        let socket = work_dir.monitor(Monitor::Runner);
        let qmp = loop {
            match Qmp::open(&socket).await {
                Ok(qmp) => break qmp,
                Err(error) => {
                    if let Some(status) = child.try_wait().unwrap() {
                        let output = child.wait_with_output().await.unwrap();
                        panic!("{status} {error}: {}", String::from_utf8_lossy(&output.stderr));
                    }
                    tokio::task::yield_now().await;
                }
            }
        };
        Self { child, work_dir, qmp }
    }

    async fn monitor(&self, monitor: Monitor) -> Qmp<UnixStream> {
        Qmp::open(&self.work_dir.monitor(monitor)).await.unwrap()
    }

    async fn end(mut self) {
        self.qmp.execute(qmp::quit {}).await.unwrap();
        let event = loop {
            let event = self.qmp.event().await.unwrap();
            if event.name == "SHUTDOWN" {
                break event;
            }
        };
        assert_eq!(event.typed::<qmp::SHUTDOWN>().unwrap().reason, qmp::ShutdownCause::host_qmp_quit);
        let output = timeout(SOON, self.child.wait_with_output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::remove_dir_all(self.work_dir.path()).unwrap();
    }
}

/// The agent's side: what a zbus listener is called with, by name.
struct Screen(mpsc::Sender<(&'static str, u32, u32)>);

#[zbus::interface(name = "org.qemu.Display1.Listener")]
impl Screen {
    async fn scanout(&mut self, width: u32, height: u32, _stride: u32, _format: u32, data: serde_bytes_vec::Bytes) {
        assert!(!data.0.is_empty());
        self.0.send(("Scanout", width, height)).await.unwrap();
    }

    async fn update(
        &mut self,
        _x: i32,
        _y: i32,
        width: i32,
        height: i32,
        _stride: u32,
        _format: u32,
        _data: serde_bytes_vec::Bytes,
    ) {
        self.0.send(("Update", width.unsigned_abs(), height.unsigned_abs())).await.unwrap();
    }
}

struct Map(mpsc::Sender<(&'static str, u32, u32)>);

#[zbus::interface(name = "org.qemu.Display1.Listener.Unix.Map")]
impl Map {
    async fn scanout_map(
        &mut self,
        _fd: zbus::zvariant::OwnedFd,
        _offset: u32,
        width: u32,
        height: u32,
        _stride: u32,
        _format: u32,
    ) {
        self.0.send(("ScanoutMap", width, height)).await.unwrap();
    }

    async fn update_map(&mut self, _x: i32, _y: i32, width: i32, height: i32) {
        self.0.send(("UpdateMap", width.unsigned_abs(), height.unsigned_abs())).await.unwrap();
    }
}

mod serde_bytes_vec {
    /// `ay`.
    #[derive(serde::Deserialize, zbus::zvariant::Type)]
    pub(crate) struct Bytes(pub(crate) Vec<u8>);
}

struct Sound(mpsc::Sender<u32>);

#[zbus::interface(name = "org.qemu.Display1.AudioOutListener")]
impl Sound {
    #[expect(clippy::too_many_arguments, reason = "QEMU's signature")]
    async fn init(
        &mut self,
        _id: u64,
        _bits: u8,
        _signed: bool,
        _float: bool,
        frequency: u32,
        _channels: u8,
        _frame: u32,
        _second: u32,
        _be: bool,
    ) {
        self.0.send(frequency).await.unwrap();
    }

    fn set_enabled(&mut self, _id: u64, _enabled: bool) {}
}

fn connection(fd: OwnedFd, guid: &str) -> zbus::connection::Builder<'static> {
    let stream = UnixStream::from_std(StdUnixStream::from(fd)).unwrap();
    zbus::connection::Builder::authenticated_socket(stream, zbus::Guid::try_from(guid).unwrap().to_owned())
        .unwrap()
        .p2p()
}

struct Agent {
    _bus: zbus::Connection,
    _listener: zbus::Connection,
    calls: mpsc::Receiver<(&'static str, u32, u32)>,
}

/// What helper crates do with the descriptors: zbus goes on where the handshake stopped.
async fn attach(fds: DisplayFds) -> Agent {
    let (send, calls) = mpsc::channel(1000);
    let path = "/org/qemu/Display1/Listener";
    let listener = connection(fds.listener, &fds.listener_guid)
        .serve_at(path, Screen(send.clone()))
        .unwrap()
        .serve_at(path, Map(send))
        .unwrap()
        .build()
        .await
        .unwrap();
    let bus = connection(fds.bus, &fds.bus_guid).build().await.unwrap();
    Agent { _bus: bus, _listener: listener, calls }
}

impl Agent {
    async fn picture(&mut self) -> (&'static str, u32, u32) {
        timeout(SOON, self.calls.recv()).await.expect("a picture comes at once").unwrap()
    }
}

#[tokio::test]
#[ignore = "needs QEMU 10: run by `cargo xtask test --privileged`"]
async fn display_and_sound_are_handed_over_and_again() {
    let mut machine = Machine::start("display").await;
    for round in 0..3 {
        let started = std::time::Instant::now();
        let mut bus = Bus::open(&mut machine.qmp).await.unwrap();
        let audio = audio_when_free(&mut bus).await;
        let display = bus.display().await.unwrap();
        println!("round {round}: handshakes took {:?}", started.elapsed());
        // QEMU's main loop is free although nobody serves the listeners yet.
        let status = machine.qmp.execute_within(qmp::query_status {}, Duration::from_millis(1500)).await.unwrap();
        assert!(status.running);
        let mut agent = attach(display).await;
        let (kind, width, height) = agent.picture().await;
        println!("round {round}: {kind} {width}x{height}");
        assert!(kind.starts_with("Scanout") && width >= 640 && height >= 400, "{kind} {width}x{height}");
        let (send, _sound) = mpsc::channel(10);
        let _audio = connection(audio.fd, &audio.guid)
            .serve_at("/org/qemu/Display1/AudioOutListener", Sound(send))
            .unwrap()
            .build()
            .await
            .unwrap();
        // The display alone, once more, on a bus of its own: the sound stays where it is.
        let mut bus = Bus::open(&mut machine.qmp).await.unwrap();
        let mut agent = attach(bus.display().await.unwrap()).await;
        assert!(agent.picture().await.0.starts_with("Scanout"));
        let again = bus.audio().await.unwrap_err();
        assert!(matches!(again, HandshakeError::Closed { .. }), "{again}");
    }
    machine.end().await;
}

/// QEMU notices a closed listener in its own time.
async fn audio_when_free(bus: &mut Bus) -> Listener {
    timeout(SOON, async {
        loop {
            match bus.audio().await {
                Ok(listener) => return listener,
                Err(HandshakeError::Closed { .. }) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
#[ignore = "needs QEMU 10: run by `cargo xtask test --privileged`"]
async fn a_poke_costs_less_than_a_dump() {
    let machine = Machine::start("poke").await;
    let mut poke = machine.monitor(Monitor::Poke).await;
    let pid = machine.child.id().unwrap();
    let mut figures = Vec::new();
    for filename in ["/dev/null/refresh", "/dev/null", "/dev/null/refresh", "/dev/null"] {
        let (before, mut times) = (cpu_ms(pid), Vec::new());
        for _ in 0..200 {
            let started = std::time::Instant::now();
            if filename == "/dev/null" {
                let filename = filename.to_owned();
                poke.execute(qmp::screendump { device: None, head: None, format: None, filename }).await.unwrap();
            } else {
                poke.refresh_poke().await.unwrap();
            }
            times.push(started.elapsed());
        }
        times.sort();
        let cpu = (cpu_ms(pid) - before) / 200.0;
        println!("{filename}: p50 {:?} p95 {:?} max {:?}, CPU {cpu:.2} ms a call", times[100], times[190], times[199]);
        figures.push(times[100]);
    }
    assert!(figures[0].min(figures[2]) < figures[1].min(figures[3]), "{figures:?}");
    machine.end().await;
}

/// CPU time of a process so far, in ms (user and system; a tick is 10 ms).
fn cpu_ms(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) * 10.0
}

/// A boot sector that changes the top left pixel at each key: mode 13h (text has a blinking cursor, which QEMU reports
/// at each refresh), then `again: int 16h; inc es:[0]; jmp again`.
fn key_counter() -> Vec<u8> {
    let mut sector = vec![0; 512];
    let code = b"\xb8\x13\x00\xcd\x10\xb8\x00\xa0\x8e\xc0\x30\xe4\xcd\x16\x26\xfe\x06\x00\x00\xeb\xf5";
    sector[..code.len()].copy_from_slice(code);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[tokio::test]
#[ignore = "needs QEMU 10: run by `cargo xtask test --privileged`"]
async fn a_key_reaches_the_guest_and_a_poke_shows_the_change_early() {
    const ROUNDS: usize = 40;
    let mut machine = Machine::start_from("key", &key_counter()).await;
    let (mut input, mut poke) = (machine.monitor(Monitor::Input).await, machine.monitor(Monitor::Poke).await);
    let mut bus = Bus::open(&mut machine.qmp).await.unwrap();
    let mut agent = attach(bus.display().await.unwrap()).await;
    let mut medians = Vec::new();
    // On a busy machine the BIOS can pause for so long that it counts as still, before the guest sets its mode.
    let mut modes_left = 3;
    for poked in [false, true, false, true] {
        let mut times = Vec::new();
        while times.len() < ROUNDS {
            // Until the picture stands still: the BIOS' own output, the change before.
            let still = async { while timeout(Duration::from_millis(80), agent.calls.recv()).await.is_ok() {} };
            timeout(SOON, still).await.expect("the picture becomes still");
            let started = std::time::Instant::now();
            let events = [input::key("z", true).unwrap(), input::key("z", false).unwrap()];
            input.send_input(&events).await.unwrap();
            let seen = timeout(SOON, async {
                if !poked {
                    return agent.calls.recv().await.unwrap();
                }
                loop {
                    poke.refresh_poke().await.unwrap();
                    if let Ok(call) = agent.calls.try_recv() {
                        return call;
                    }
                }
            });
            let (kind, ..) = seen.await.expect("the key changes the picture");
            if kind.starts_with("Scanout") && modes_left > 0 {
                modes_left -= 1;
                continue;
            }
            assert!(kind.starts_with("Update"), "{kind}");
            times.push(started.elapsed());
        }
        times.sort();
        println!("poked {poked}: key to damage p50 {:?} p95 {:?}", times[ROUNDS / 2], times[ROUNDS * 95 / 100]);
        medians.push(times[ROUNDS / 2]);
    }
    assert!(medians[1].max(medians[3]) < medians[0].min(medians[2]), "{medians:?}");
    machine.end().await;
}

#[tokio::test]
#[ignore = "needs QEMU 10: run by `cargo xtask test --privileged`"]
async fn every_key_button_and_motion_is_taken() {
    let machine = Machine::start("input").await;
    let mut input = machine.monitor(Monitor::Input).await;
    let mut events = Vec::new();
    for code in keymap::codes().filter(|code| !matches!(*code, "Power" | "Sleep" | "WakeUp")) {
        let key = keymap::qcode(code).unwrap();
        events.extend([input::key(key, true).unwrap(), input::key(key, false).unwrap()]);
    }
    for button in 0..5 {
        events.extend([input::button(button, true).unwrap(), input::button(button, false).unwrap()]);
    }
    events.extend(input::rel(-3000, -3000));
    events.extend(input::wheel(1));
    input.send_input(&events).await.unwrap();
    machine.end().await;
}

#[tokio::test]
#[ignore = "needs QEMU 10: run by `cargo xtask test --privileged`"]
async fn a_reboot_ends_nothing() {
    let mut machine = Machine::start("reboot").await;
    machine.qmp.execute(qmp::system_reset {}).await.unwrap();
    while timeout(SOON, machine.qmp.event()).await.unwrap().unwrap().name != "RESET" {}
    assert!(machine.qmp.execute(qmp::query_status {}).await.unwrap().running);
    machine.end().await;
}

#[tokio::test]
#[ignore = "needs QEMU 10: run by `cargo xtask test --privileged`"]
async fn monitors_serve_one_client_after_another() {
    let machine = Machine::start("monitors").await;
    for _ in 0..3 {
        let mut first = machine.monitor(Monitor::Input).await;
        first.execute(qmp::query_status {}).await.unwrap();
        // A second one at the same time waits for its greeting.
        let path: PathBuf = machine.work_dir.monitor(Monitor::Input);
        let second = UnixStream::connect(Path::new(&path)).await.unwrap();
        drop(first);
        timeout(SOON, Qmp::connect(second)).await.unwrap().unwrap();
    }
    machine.end().await;
}
