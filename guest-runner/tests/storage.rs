//! The guest's disk and the runner's probes, with real QEMU: each thing that a probe names is broken for real.
#![expect(clippy::unwrap_used, reason = "helpers of tests; a rig that cannot be built ends its test")]
mod rig;

use std::{
    fs,
    os::unix::{fs::FileExt as _, fs::MetadataExt as _, process::ExitStatusExt as _},
    path::Path,
    process::Command,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use seat::{Order, Port};
use testkit::{WRITER_STEP_BYTES, eventually, writer_boot_sector};

use rig::{Place, Rig, SOON, status_field, well};

/// Room for more than any test waits for; sparse.
const DISK_BYTES: u64 = 8 << 30;

/// Writes that the guest knows to be done.
fn acknowledged(rig: &Rig) -> usize {
    let said = fs::read(rig.join("work/serial.log")).unwrap_or_default();
    assert!(!said.contains(&b'!'), "the guest saw an error of its disk");
    said.len()
}

async fn until_acknowledged(rig: &Rig, count: usize) {
    eventually(SOON, || (acknowledged(rig) >= count).then_some(())).await.unwrap();
}

/// Checks the overlay's tables, and that the first `count` writes are in it.
fn verify(rig: &Rig, overlay: &str, count: usize) {
    let overlay = rig.join("work").join(overlay);
    let check = Command::new("qemu-img").args(["check", "-q", "-f", "qcow2"]).arg(&overlay).output().unwrap();
    // 3: space that nobody uses, which costs room and nothing else.
    assert!(matches!(check.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&check.stderr));
    let flat = rig.join("flat.img");
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-f", "qcow2", "-O", "raw"]).arg(&overlay).arg(&flat);
    assert!(convert.status().unwrap().success());
    let file = fs::File::open(&flat).unwrap();
    for n in 1..=count {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, n as u64 * WRITER_STEP_BYTES).unwrap();
        assert_eq!(u32::from_le_bytes(bytes) as usize, n, "of {count} writes");
    }
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn what_the_guest_knows_to_be_written_survives_sudden_death() {
    let mut rig = Rig::start_from("sudden", &writer_boot_sector(), DISK_BYTES, &["--grace", "0"], |_| ());
    for (round, count) in [3, 20, 60].into_iter().enumerate() {
        if round > 0 {
            rig.start_again();
        }
        let (_, seat) = rig.greeted().await;
        rig.welcome(&seat).await;
        until_acknowledged(&rig, count).await;
        kill(Pid::from_raw(rig.pid().cast_signed()), Signal::SIGKILL).unwrap();
        assert_eq!(rig.end(SOON).await.signal(), Some(9));
        // QEMU dies with it, in its own time.
        eventually(SOON, || qemu_gone(&rig).then_some(())).await.unwrap();
        let written = acknowledged(&rig);
        println!("round {round}: {written} writes acknowledged");
        verify(&rig, "overlay.qcow2", written);
    }
}

/// Nobody holds QEMU's own lock on the overlay.
fn qemu_gone(rig: &Rig) -> bool {
    let overlay = rig.join("work/overlay.qcow2");
    Command::new("qemu-img").args(["info", "-f", "qcow2"]).arg(overlay).output().unwrap().status.success()
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_full_disk_holds_the_guest_in_words_and_room_lets_it_go_on() {
    let mount = |place: &Place| {
        let work = place.join("work");
        fs::create_dir(&work).unwrap();
        tmpfs(&work, "size=24m", nix::mount::MsFlags::empty()).unwrap();
    };
    let resize = |rig: &Rig, size: &str| tmpfs(&rig.join("work"), size, nix::mount::MsFlags::MS_REMOUNT);
    let mut rig = Rig::start_from("full", &writer_boot_sector(), DISK_BYTES, &["--grace", "5"], mount);
    let (_, seat) = rig.greeted().await;
    rig.welcome(&seat).await;
    // The guest itself writes until there is no room, on a fast machine within a second: so nothing here asks for what
    // holds only before that.
    let held = seat.storage(|storage| storage.held).await;
    let words = held.text.unwrap();
    assert!(words.contains("overlay.qcow2` is full; free some space there"), "{words}");
    rig.becomes("/readyz", 503).await;
    assert!(rig.get("/readyz").1.contains("is full"), "{}", rig.get("/readyz").1);
    assert_eq!(rig.get("/healthz").0, 200, "a restart would not make room");
    let metrics = rig.get("/metrics").1;
    assert!(
        metrics.contains("loco_runner_disk_held 1") && metrics.contains("loco_runner_disk_free_bytes "),
        "{metrics}"
    );
    let before = acknowledged(&rig);

    // So much that the guest does not fill it while somebody looks.
    resize(&rig, "size=4g").unwrap();
    seat.storage(|storage| !storage.held).await;
    until_acknowledged(&rig, before + 10).await;
    rig.becomes("/readyz", 200).await;
    assert!(rig.get("/metrics").1.contains("loco_runner_disk_held 0"));

    // Full once more, and asked to stop: one that cannot switch itself off is not waited for.
    let nearly_full = || {
        let used = fs::metadata(rig.join("work/overlay.qcow2")).ok()?.blocks() * 512;
        // Refused when the guest has written more in the meantime.
        resize(&rig, &format!("size={}k", (used >> 10) + 8192)).ok()
    };
    eventually(SOON, nearly_full).await.unwrap();
    seat.storage(|storage| storage.held).await;
    let asked = std::time::Instant::now();
    kill(Pid::from_raw(rig.pid().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(rig.end(SOON).await.code(), Some(143));
    println!("ended {:?} after SIGTERM", asked.elapsed());
    let written = acknowledged(&rig);
    resize(&rig, "size=4g").unwrap();
    verify(&rig, "overlay.qcow2", written);
}

fn tmpfs(at: &Path, size: &str, flags: nix::mount::MsFlags) -> nix::Result<()> {
    nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(size))
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_restart_keeps_the_disk_and_a_reset_sets_it_aside() {
    let mut rig = Rig::start_from("orders", &writer_boot_sector(), DISK_BYTES, &["--grace", "1"], |_| ());
    let (_, seat) = rig.greeted().await;
    let first = rig.welcome(&seat).await.started.qemu_pid;
    until_acknowledged(&rig, 5).await;
    let inode = |name: &str| fs::metadata(rig.join("work").join(name)).map(|metadata| metadata.ino()).ok();
    let disk = inode("overlay.qcow2").unwrap();

    assert_eq!(seat.order(Order::Restart).await, None);
    let refused = seat.order(Order::Reset).await.unwrap();
    assert!(refused.contains("already"), "{refused}");
    let exited = rig.exited(&seat).await;
    assert!(exited.asked && exited.comes_back, "{exited:?}");
    let (hello, seat) = rig.greeted().await;
    assert!(!hello.has_port, "QEMU had the tap, and has ended");
    let second = rig.welcome(&seat).await.started.qemu_pid;
    assert_ne!(first, second);
    let inode = |name: &str| fs::metadata(rig.join("work").join(name)).map(|metadata| metadata.ino()).ok();
    assert_eq!(inode("overlay.qcow2"), Some(disk));
    assert_eq!(inode("overlay.previous.qcow2"), None);
    until_acknowledged(&rig, 5).await;
    rig.becomes("/readyz", 200).await;

    assert_eq!(seat.order(Order::Reset).await, None);
    assert!(rig.exited(&seat).await.comes_back);
    let (_, seat) = rig.greeted().await;
    rig.welcome(&seat).await;
    let inode = |name: &str| fs::metadata(rig.join("work").join(name)).map(|metadata| metadata.ino()).ok();
    assert_eq!(inode("overlay.previous.qcow2"), Some(disk), "one generation is kept");
    assert_ne!(inode("overlay.qcow2"), Some(disk));
    verify(&rig, "overlay.previous.qcow2", 5);
    until_acknowledged(&rig, 1).await;
    assert!(rig.get("/metrics").1.contains("loco_runner_restarts_total{order=\"reset\"} 1"));
    kill(Pid::from_raw(rig.pid().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(rig.end(SOON).await.code(), Some(143), "being asked to stop is the end, also after restarts");
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn another_base_is_refused_where_people_look_and_a_reset_takes_it() {
    let mut rig = Rig::start_from("base", &writer_boot_sector(), DISK_BYTES, &["--grace", "0"], |_| ());
    let (_, seat) = rig.greeted().await;
    rig.welcome(&seat).await;
    until_acknowledged(&rig, 1).await;
    kill(Pid::from_raw(rig.pid().cast_signed()), Signal::SIGTERM).unwrap();
    rig.end(SOON).await;
    drop(seat);
    let base = fs::File::options().write(true).open(rig.join("secret/disk.img")).unwrap();
    base.set_len(DISK_BYTES / 2).unwrap();

    rig.start_again();
    let (_, seat) = rig.greeted().await;
    rig.grant(&seat).await;
    let held = seat.storage(|storage| storage.held).await;
    let words = held.text.unwrap();
    assert!(words.contains("was made from another base") && words.contains("reset the instance"), "{words}");
    assert!(rig.get("/readyz").1.contains("another base"));
    assert_eq!(rig.get("/healthz").0, 200);
    assert_eq!(seat.order(Order::Reset).await, None);
    // The port that was given waits: the guest starts on it.
    rig.take(&seat).await;
    seat.storage(|storage| !storage.held).await;
    rig.becomes("/readyz", 200).await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn the_probes_say_what_the_agent_says_and_when_it_hangs() {
    let mut rig = Rig::start("probes", &[]);
    let (_, mut seat) = rig.greeted().await;
    seat.answers.send_replace(Some(Port {
        up: false,
        picture_live: false,
        state: "starting".into(),
        detail: Some("nobody holds its tap".into()),
    }));
    rig.welcome(&seat).await;
    rig.becomes("/readyz", 503).await;
    eventually(SOON, || rig.get("/readyz").1.contains("nobody holds its tap").then_some(())).await.unwrap();
    assert_eq!(rig.get("/startupz").0, 503, "started, and no picture yet");
    seat.answers.send_replace(Some(Port { picture_live: false, ..well() }));
    eventually(SOON, || rig.get("/readyz").1.contains("picture (the agent says that it is live)").then_some(()))
        .await
        .unwrap();
    assert!(!rig.get("/readyz").1.contains("port ("));
    seat.answers.send_replace(Some(well()));
    rig.becomes("/readyz", 200).await;
    rig.becomes("/startupz", 200).await;
    assert!(rig.get("/metrics").1.contains("loco_runner_start_seconds "));

    // It holds its connection and says nothing any more.
    seat.answers.send_replace(None);
    seat.ended().await;
    assert_eq!(rig.get("/readyz").0, 503);
    assert_eq!(rig.get("/healthz").0, 200, "an agent that hangs is no reason to restart the guest");
    assert!(rig.get("/metrics").1.contains("loco_runner_agent_silences_total 1"));
    let (hello, seat) = rig.greeted().await;
    assert!(hello.has_port);
    rig.welcome_back(&seat).await;
    rig.becomes("/readyz", 200).await;
    rig.kill().await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_qemu_that_stands_still_fails_the_probes_and_may_come_back() {
    let mut rig = Rig::start("still", &["--stuck-after", "12"]);
    let (_, seat) = rig.greeted().await;
    let qemu = Pid::from_raw(rig.welcome(&seat).await.started.qemu_pid.cast_signed());
    rig.becomes("/readyz", 200).await;
    kill(qemu, Signal::SIGSTOP).unwrap();
    rig.becomes("/readyz", 503).await;
    assert!(rig.get("/readyz").1.contains("QEMU has not answered"));
    rig.becomes("/healthz", 503).await;
    assert!(rig.get("/healthz").1.contains("qemu (last tick"));
    kill(qemu, Signal::SIGCONT).unwrap();
    rig.becomes("/healthz", 200).await;
    rig.becomes("/readyz", 200).await;
    rig.kill().await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn it_runs_as_a_restricted_pod() {
    let mut rig = Rig::start_in_pod("pod", &["--grace", "0", "--pod-uid", "uid-of-the-pod"]);
    let (_, seat) = rig.greeted().await;
    let given = rig.welcome(&seat).await;
    for pid in [rig.pid(), given.started.qemu_pid] {
        assert_eq!(status_field(pid, "Uid"), ["10001"; 4].join("\t"));
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(status_field(pid, set), "0000000000000000", "{set}");
        }
        assert_eq!(status_field(pid, "NoNewPrivs"), "1");
        assert_eq!(status_field(pid, "Seccomp"), "2");
    }
    rig.becomes("/readyz", 200).await;
    let record = fs::read_to_string(rig.join("work/overlay.json")).unwrap();
    assert!(record.contains("uid-of-the-pod"), "{record}");
    assert!(Path::new(&rig.join("work/qmp-runner.sock")).exists());
    kill(Pid::from_raw(rig.pid().cast_signed()), Signal::SIGTERM).unwrap();
    let asked = std::time::Instant::now();
    assert_eq!(rig.end(SOON).await.code(), Some(143));
    assert!(asked.elapsed() < Duration::from_secs(10), "no grace was given, and QEMU ends at once");
}
