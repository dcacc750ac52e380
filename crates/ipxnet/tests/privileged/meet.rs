//! Two real DOSBox clients meet each other and a guest on the LAN through the relay.
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use ipxnet::{Drop, Settings};
use testkit::eventually;
use wire::{MacAddr, frame::FrameFormat, ipxnet::node_of};

use crate::rig::{Heard, PORT, Rig, SOON};

/// A directory that goes with the test.
struct Dir(PathBuf);

impl std::ops::Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// A DOSBox, killed at the end by its id.
struct DosBox(Child);

impl std::ops::Drop for DosBox {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Assembles the DOS program that speaks IPX.
fn assemble(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/privileged/meet.s");
    let (object, program) = (dir.join("meet.o"), dir.join("meet.com"));
    let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    run(Command::new("as").arg("--32").arg("-o").arg(&object).arg(source));
    let flags = ["-m", "elf_i386", "-Ttext", "0x100", "--oformat", "binary", "-o"];
    run(Command::new("ld").args(flags).arg(&program).arg(object));
    program
}

/// A DOSBox on a machine of the rig, with the program as letter `letter`; its drive C.
fn boot(rig: &Rig, machine: u8, letter: char, dir: &Path, program: &Path) -> (DosBox, PathBuf) {
    let drive = dir.join(letter.to_string());
    std::fs::create_dir(&drive).unwrap();
    std::fs::copy(program, drive.join("MEET.COM")).unwrap();
    std::fs::write(drive.join("GOT.TXT"), "").unwrap();
    let relay = Rig::relay(0);
    let settings = format!(
        "[sdl]\noutput=surface\n[mixer]\nnosound=true\n[ipx]\nipx=true\n[cpu]\ncore=normal\ncycles=fixed 2000\n[autoexec]\n\
         mount c {}\nipxnet connect {} {PORT}\nc:\nmeet {letter}\n",
        drive.display(),
        relay.ip()
    );
    let path = dir.join(format!("{letter}.conf"));
    std::fs::write(&path, settings).unwrap();
    let mut command = Command::new("dosbox");
    command.arg("-conf").arg(path).env("SDL_VIDEODRIVER", "dummy").env("SDL_AUDIODRIVER", "dummy").env("HOME", dir);
    command.stdin(Stdio::null()).stdout(std::fs::File::create(dir.join(format!("{letter}.log"))).unwrap());
    let child = rig.underlay.node(machine.into()).run(move || command.spawn()).unwrap();
    (DosBox(child.expect("Debian's package `dosbox` is installed; `cargo xtask setup --test` does it")), drive)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn two_dosboxes_and_a_guest_meet_through_the_relay() {
    let dir = Dir(std::env::temp_dir().join(format!("loco-meet-{}", std::process::id())));
    std::fs::create_dir_all(&dir.0).unwrap();
    let program = assemble(&dir.0);
    let rig = Rig::new(3, 1, |_| Settings::default()).await;
    let station = rig.station(0, FrameFormat::Raw8023).await;
    // The relay knows the LAN's framing before the others speak; first frames of a tap may be lost.
    while rig.report(0).framings != [FrameFormat::Raw8023] {
        station.say(MacAddr::BROADCAST, b"HS \n").await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let (_a, drive_a) = boot(&rig, 1, 'A', &dir.0, &program);
    let (_b, drive_b) = boot(&rig, 2, 'B', &dir.0, &program);

    let report = rig.until(0, |report| report.clients.len() == 2).await;
    for client in &report.clients {
        assert_eq!(client.node, node_of(client.address), "as DOSBox's own server gives them");
    }
    let node = |ip: &str| report.clients.iter().find(|client| client.address.ip().to_string() == ip).unwrap().node;
    let (a, b) = (node("10.99.0.12"), node("10.99.0.13"));
    // The guest hears both say hello to all, and each answers its own hello to it alone.
    let hello = |from, letter: u8| Heard { from, to: MacAddr::BROADCAST, text: vec![b'H', letter, b' ', b'\n'] };
    let answer = |from, letter: u8| Heard { from, to: station.mac, text: vec![b'A', letter, b'S', b'\n'] };
    let mut missing = vec![hello(a, b'A'), hello(b, b'B'), answer(a, b'A'), answer(b, b'B')];
    let mut others = 0;
    while !missing.is_empty() {
        let heard = station.hear().await;
        missing.retain(|wanted| *wanted != heard);
        if heard.text.starts_with(b"H") {
            station.say(MacAddr::BROADCAST, b"HS \n").await;
            station.say(heard.from, b"AS\x20\n").await;
        }
        others += 1;
        assert!(others < 200, "still missing: {missing:?}");
    }
    // And what the programs wrote down: hello and answer of the other one, and of the guest. (Their own hello may stand
    // there, too: DOSBox gives a broadcast to its own program without the network.)
    for (drive, other, own) in [(&drive_a, 'B', 'A'), (&drive_b, 'A', 'B')] {
        let got = || std::fs::read_to_string(drive.join("GOT.TXT")).unwrap();
        let wanted = [format!("H{other} "), format!("A{other}{own}"), "HS ".to_owned(), "AS ".to_owned()];
        let all = || wanted.iter().all(|line| got().lines().any(|got| got == line)).then_some(());
        eventually(SOON, all)
            .await
            .unwrap_or_else(|error| panic!("{own}: {error}; wanted {wanted:?}, got {:?}", got()));
    }
    let report = rig.until(0, |report| report.from_segment.packets > 0 && report.to_segment.packets > 0).await;
    assert_eq!(Drop::ALL.map(|reason| report.drops.of(reason)), [0; 12]);
}
