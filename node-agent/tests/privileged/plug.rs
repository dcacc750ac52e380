//! Machines outside of the cluster: the real `loco plug` on a machine that is no node, with a real QEMU, or with a test that speaks
//! its protocol.
use std::{
    cell::RefCell,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
};

use api::{agent::AgentStatus, lan::ForeignMachine};
use nix::sys::signal::Signal;
use testkit::{Frame, Numbered, eventually};

use crate::{
    modes::{Held, Plug, all_once, mac, place, send_all, start_player, start_powerless},
    rig::{Process, Rig, SOON},
};

/// The namespace that is no node.
const OUTSIDE: u8 = 2;
const CARD: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
const PORT: u16 = 14798;

/// Another program of the workspace.
fn program(name: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_node-agent")).with_file_name(name);
    assert!(program.exists(), "{} is missing; run `cargo build -p {name}` first", program.display());
    Command::new(program)
}

fn start(rig: &Rig, node: u8, name: &str, mut command: Command) -> Process {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(rig.dir.join(format!("{name}.log")));
    command.stderr(log.unwrap());
    rig.spawn(node, command)
}

/// `loco plug` outside, at the agent of node 0.
fn start_plug(rig: &Rig, args: &[&str]) -> Process {
    let mut command = program("loco");
    let agent = format!("http://{}:14780", Rig::address(0));
    command.args(["plug", "--lan", "party", "--agent", &agent]).args(args).arg("--token").arg(rig.dir.join("token"));
    start(rig, OUTSIDE, "plug", command)
}

/// `loco plug --gateway` outside, to its end.
fn plug_by_gateway(rig: &Rig, token: &str) -> Command {
    let file = rig.dir.join(format!("gateway-{token}"));
    std::fs::write(&file, token).unwrap();
    let mut command = program("loco");
    command.args(["plug", "--lan", "party", "--gateway", &format!("http://{}:8080", Rig::address(1))]);
    command.arg("--token").arg(file);
    command
}

/// What speaks to `loco plug` as QEMU does.
struct Machine(RefCell<(TcpStream, Vec<u8>)>);

impl Machine {
    async fn connect(rig: &Rig) -> Self {
        let connect =
            || rig.underlay.node(OUTSIDE.into()).run(|| TcpStream::connect(("127.0.0.1", PORT)).ok()).unwrap();
        let stream = eventually(SOON, connect).await.unwrap_or_else(|error| panic!("{error}\n{}", rig.logs()));
        // A stream that nobody reads fails a test instead of hanging it.
        stream.set_write_timeout(Some(SOON)).unwrap();
        Self(RefCell::new((stream, Vec::new())))
    }

    fn write(&self, bytes: &[u8]) {
        self.0.borrow_mut().0.write_all(bytes).unwrap();
    }

    /// Whether `loco plug` has sent it away.
    fn is_sent_away(&self) -> bool {
        let (stream, _) = &mut *self.0.borrow_mut();
        stream.set_nonblocking(true).unwrap();
        let ended = match stream.read(&mut [0; 4096]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        stream.set_nonblocking(false).unwrap();
        ended
    }
}

impl Plug for Machine {
    fn say(&self, frame: &[u8]) {
        self.write(&[&u32::try_from(frame.len()).unwrap().to_be_bytes()[..], frame].concat());
    }

    fn heard(&self) -> Option<Vec<u8>> {
        let (stream, held) = &mut *self.0.borrow_mut();
        stream.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        if let Ok(len) = stream.read(&mut buffer) {
            held.extend_from_slice(&buffer[..len]);
        }
        stream.set_nonblocking(false).unwrap();
        let len = usize::try_from(u32::from_be_bytes(*held.first_chunk()?)).unwrap();
        let frame = held.get(4..4 + len)?.to_vec();
        held.drain(..4 + len);
        Some(frame)
    }
}

async fn until(rig: &Rig, want: impl Fn(&[ForeignMachine]) -> bool) -> Vec<ForeignMachine> {
    let told = || rig.status(0).map(|status| status.foreign).filter(|foreign| want(foreign));
    eventually(SOON, told)
        .await
        .unwrap_or_else(|error| panic!("{error}: {:#?}\n{}", rig.status(0).map(|s| s.foreign), rig.logs()))
}

const fn number(sequence: u32) -> Numbered {
    Numbered { kind: 9, sender: 9, sequence }
}

async fn hears(plug: &impl Plug, want: Numbered, rig: &Rig) {
    let heard = eventually(SOON, || Numbered::find(&plug.heard()?).filter(|heard| *heard == want)).await;
    heard.unwrap_or_else(|error| panic!("{error}: {want:?}\n{}", rig.logs()));
}

/// Says it until the guest hears it. What comes first opens the way between two agents; and as frames keep their order, nothing waits
/// for the guest in front of it any more: a guest that did not read while frames went to all has a full queue.
async fn opened(machine: &Machine, guest: &Held, want: Numbered, rig: &Rig) {
    let mut seen = std::collections::BTreeMap::new();
    let said = || {
        machine.say(&Frame::ethernet([0xff; 6], CARD, want, 60));
        guest.count(&mut seen);
        seen.contains_key(&want).then_some(())
    };
    eventually(SOON, said).await.unwrap_or_else(|error| panic!("{error}\n{}", rig.logs()));
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn frames_of_every_kind_go_to_a_machine_outside_and_come_from_it() {
    let rig = Rig::new(3);
    place(&rig, &[("party", "socket"), ("other", "socket")], &[("party", 0), ("party", 1), ("other", 0)]);
    let (mut a, _b) = (start_powerless(&rig, 0), start_powerless(&rig, 1));
    let (mut zero, one) = (Held::take(&rig, 0, 0).await, Held::take(&rig, 1, 1).await);
    let other = Held::take(&rig, 0, 2).await;
    let _plug = start_plug(&rig, &[]);
    let machine = Machine::connect(&rig).await;
    for (sender, seat, held) in [(0, 0, &zero), (1, 1, &one)] {
        opened(&machine, held, number(sender.into()), &rig).await;
        all_once(&send_all(7 + sender, (&machine, CARD), (held, mac(0, seat))).await, 7 + sender);
        all_once(&send_all(sender, (held, mac(0, seat)), (&machine, CARD)).await, sender);
    }
    let told = until(&rig, |foreign| foreign.iter().any(|one| one.counters.tx_frames > 14_000)).await;
    assert_eq!(told[0].mac.as_deref(), Some("52:54:00:12:34:56"));
    assert!(told[0].remote.starts_with("10.99.0.13:"), "{}", told[0].remote);
    // The agent is replaced by a kill; the machine, which notices nothing, is plugged into the next one.
    a.kill();
    let _a = start_powerless(&rig, 0);
    zero.again(&rig, 0, 0).await;
    until(&rig, |foreign| foreign.len() == 1).await;
    machine.say(&Frame::ethernet([0xff; 6], CARD, number(2), 60));
    hears(&zero, number(2), &rig).await;
    zero.say(&Frame::ethernet(CARD, mac(0, 0), number(3), 60));
    hears(&machine, number(3), &rig).await;
    let mut elsewhere = std::collections::BTreeMap::new();
    other.count(&mut elsewhere);
    assert_eq!(elsewhere.len(), 0, "frames of one LAN in another");
    // It goes, and nothing of it stays.
    drop(machine);
    until(&rig, <[_]>::is_empty).await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn whatever_connects_to_loco_plug_harms_nobody() {
    let rig = Rig::new(3);
    place(&rig, &[("party", "socket")], &[("party", 0)]);
    let _a = start_powerless(&rig, 0);
    let zero = Held::take(&rig, 0, 0).await;
    let mut plug = start_plug(&rig, &[]);
    // Wrong tokens and places are told at the start.
    let wrong = rig.dir.join("wrong");
    std::fs::write(&wrong, "not-the-token").unwrap();
    let refused = |lan: &str, token: &Path| {
        let mut command = program("loco");
        command.args(["plug", "--listen", "127.0.0.1:0", "--lan", lan, "--token"]).arg(token);
        command.args(["--agent", &format!("http://{}:14780", Rig::address(0))]);
        let output = rig.underlay.node(OUTSIDE.into()).run(move || command.output().unwrap()).unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, words) = refused("party", &wrong);
    assert!(code == Some(1) && words.contains("token"), "{code:?} {words}");
    let (code, words) = refused("nowhere", &rig.dir.join("token"));
    assert!(code == Some(1) && words.contains("`nowhere`"), "{code:?} {words}");
    // Frames of no length and of a wrong one, and then one that is sound.
    let machine = Machine::connect(&rig).await;
    machine.write(&[0, 0, 0, 0]);
    machine.say(&[1; 13]);
    machine.say(&[1; 1600]);
    machine.say(&Frame::ethernet([0xff; 6], CARD, number(1), 60));
    hears(&zero, number(1), &rig).await;
    // A second machine is sent away; the first one stays.
    let second = Machine::connect(&rig).await;
    eventually(SOON, || second.is_sent_away().then_some(())).await.unwrap();
    machine.say(&Frame::ethernet([0xff; 6], CARD, number(2), 60));
    hears(&zero, number(2), &rig).await;
    let told = until(&rig, |foreign| foreign.first().is_some_and(|one| one.refused.len() == 2)).await;
    assert_eq!(told[0].refused, [("runt".to_owned(), 1), ("too_long".to_owned(), 1)].into());
    drop(machine);
    // A length that no frame has, and what is no stream of frames.
    for garbage in [&70_000_u32.to_be_bytes()[..], b"GET / HTTP/1.1\r\n\r\n"] {
        let machine = Machine::connect(&rig).await;
        machine.write(garbage);
        eventually(SOON, || machine.is_sent_away().then_some(())).await.unwrap();
    }
    // One that stops in the middle of a frame, and goes.
    let machine = Machine::connect(&rig).await;
    machine.write(&[0, 0, 0, 100, 1, 2, 3]);
    drop(machine);
    // One that does not read costs the seat nothing.
    let machine = Machine::connect(&rig).await;
    machine.say(&Frame::ethernet([0xff; 6], CARD, number(3), 60));
    hears(&zero, number(3), &rig).await;
    let full = Frame::ethernet(CARD, mac(0, 0), number(4), 1500);
    let lost = || {
        (0..200).for_each(|_| zero.say(&full));
        rig.status(0)?.foreign.iter().any(|one| one.counters.rx_dropped > 0).then_some(())
    };
    eventually(SOON, lost).await.unwrap_or_else(|error| panic!("{error}: nothing is dropped\n{}", rig.logs()));
    // `loco plug` is held, as by a machine that sleeps: what is there stays, and a kill frees all.
    plug.signal(Signal::SIGSTOP);
    plug.kill();
    until(&rig, <[_]>::is_empty).await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn who_may_play_plugs_in_through_the_gateway() {
    let rig = Rig::new(3);
    place(&rig, &[("party", "socket")], &[("party", 0)]);
    let _a = start_powerless(&rig, 0);
    let zero = Held::take(&rig, 0, 0).await;
    let (play, view) = ("play-token-0123456789", "view-token-0123456789");
    std::fs::write(rig.dir.join("tokens"), format!("play {play}\nview {view}\n")).unwrap();
    let mut command = program("gateway");
    command
        .args(["--listen", &format!("{}:8080", Rig::address(1))])
        .arg("--snapshot")
        .arg(rig.dir.join("snapshot.json"));
    command.arg("--tokens-file").arg(rig.dir.join("tokens")).arg("--agent-token-file").arg(rig.dir.join("token"));
    let _gateway = start(&rig, 1, "gateway", command);
    let run = |token: &str| {
        let mut command = plug_by_gateway(&rig, token);
        let output = rig.underlay.node(OUTSIDE.into()).run(move || command.output().unwrap()).unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    // It may not listen yet, nor know its agent.
    eventually(SOON, || run(view).contains("this token may view").then_some(())).await.unwrap();
    assert!(run("nobodys-token-0123456789").contains("not a token of this cluster"));
    let mut plug = start(&rig, OUTSIDE, "plug", plug_by_gateway(&rig, play));
    let restarted = eventually(SOON, || {
        if plug.0.try_wait().unwrap().is_some() {
            plug = start(&rig, OUTSIDE, "plug", plug_by_gateway(&rig, play));
        }
        std::fs::read_to_string(rig.dir.join("plug.log")).unwrap().contains("has a port").then_some(())
    });
    restarted.await.unwrap_or_else(|error| panic!("{error}\n{}", rig.logs()));
    let machine = Machine::connect(&rig).await;
    machine.say(&Frame::ethernet([0xff; 6], CARD, number(1), 60));
    hears(&zero, number(1), &rig).await;
    all_once(&send_all(7, (&machine, CARD), (&zero, mac(0, 0))).await, 7);
    all_once(&send_all(0, (&zero, mac(0, 0)), (&machine, CARD)).await, 0);
    let told = until(&rig, |foreign| foreign.len() == 1).await;
    assert!(told[0].remote.starts_with("10.99.0.13:"), "who it is, and not the gateway: {}", told[0].remote);
    drop(machine);
    until(&rig, <[_]>::is_empty).await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_qemu_outside_plays_with_guests_of_two_nodes() {
    let rig = Rig::new(3);
    place(&rig, &[("party", "socket")], &[("party", 0), ("party", 1)]);
    let (_a, _b) = (start_powerless(&rig, 0), start_powerless(&rig, 1));
    let _guests = [start_player(&rig, 0, 0, ""), start_player(&rig, 1, 1, "")];
    rig.until_live(0, 0);
    let _plug = start_plug(&rig, &[]);
    let kernel = std::env::var("LOCO_DEMO_KERNEL").expect("`cargo xtask test --privileged` sets LOCO_DEMO_KERNEL");
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-display", "none", "-m", "24", "-accel", "tcg,tb-size=32", "-kernel", &kernel])
        .args(["-append", "seat=8 name=FOREIGN autoplay=1", "-vga", "std"])
        .args([
            "-netdev",
            &format!("stream,id=loco,server=off,addr.type=inet,addr.host=127.0.0.1,addr.port={PORT},reconnect-ms=200"),
        ])
        .args(["-device", "pcnet,netdev=loco,mac=52:54:00:12:34:56"])
        .stderr(Stdio::null());
    let qemu = rig.spawn(OUTSIDE, qemu);
    // The host tells of each machine that it let in. What the foreign one says itself, its player's name, no port of ours says.
    let all = |status: &AgentStatus| status.observed.get("party").is_some_and(|seen| seen.system_players.len() == 3);
    let three = eventually(SOON * 3, || rig.status(0).filter(all)).await;
    three.unwrap_or_else(|error| panic!("{error}: {:#?}\n{}", rig.status(0).map(|s| s.observed), rig.logs()));
    let told = until(&rig, |foreign| foreign.iter().any(|one| one.ip.is_some())).await;
    let ip = told[0].ip.unwrap();
    // The LAN's own DHCP gave it an address that no seat has.
    assert!(ip.octets()[..3] == [10, 98, 0] && ip.octets()[3] > 9, "{ip}");
    assert!(told[0].counters.rx_frames > 0 && told[0].mac.as_deref() == Some("52:54:00:12:34:56"), "{told:?}");
    drop(qemu);
    until(&rig, <[_]>::is_empty).await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_machine_behind_a_vde_switch_is_on_the_lan() {
    let rig = Rig::new(3);
    place(&rig, &[("party", "socket")], &[("party", 0), ("party", 1)]);
    let (_a, _b) = (start_powerless(&rig, 0), start_powerless(&rig, 1));
    let zero = Held::take(&rig, 0, 0).await;
    let sockets = rig.dir.join("vde");
    let mut switch = Command::new("vde_switch");
    // It ends with its standard input.
    switch.arg("-s").arg(&sockets).stdin(Stdio::piped()).stdout(Stdio::null());
    let _switch = Process(rig.underlay.node(OUTSIDE.into()).run(move || switch.spawn().unwrap()).unwrap());
    eventually(SOON, || sockets.join("ctl").exists().then_some(())).await.unwrap();
    let _plug = start_plug(&rig, &["--vde", sockets.to_str().unwrap()]);
    until(&rig, |foreign| foreign.len() == 1).await;
    // The other end of the VDE switch: as 86Box, but the frames are the test's.
    let mut command = Command::new("vde_plug");
    command.arg(&sockets).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut other = rig.underlay.node(OUTSIDE.into()).run(move || command.spawn().unwrap()).unwrap();
    let (mut to, mut from) = (other.stdin.take().unwrap(), other.stdout.take().unwrap());
    let _other = Process(other);
    // Until its plug is in, the switch has nobody to take frames from.
    let frame = Frame::ethernet([0xff; 6], CARD, number(1), 60);
    let behind = [&u16::try_from(frame.len()).unwrap().to_be_bytes()[..], &frame].concat();
    let heard = eventually(SOON, || {
        to.write_all(&behind).unwrap();
        Numbered::find(&zero.heard()?).filter(|heard| *heard == number(1))
    });
    heard.await.unwrap_or_else(|error| panic!("{error}\n{}", rig.logs()));
    zero.say(&Frame::ethernet(CARD, mac(0, 0), number(2), 1500));
    let reading = tokio::task::spawn_blocking(move || {
        let mut held = Vec::new();
        let mut buffer = [0; 4096];
        while !held.windows(6).any(|window| window == CARD) || Numbered::find(&held) != Some(number(2)) {
            let len = from.read(&mut buffer).unwrap();
            assert!(len > 0, "the plug has gone");
            held.extend_from_slice(&buffer[..len]);
            // What is not ours is before it.
            if let Some(found) = Numbered::find(&held).filter(|found| *found != number(2)) {
                panic!("{found:?}");
            }
        }
    });
    tokio::time::timeout(SOON, reading).await.unwrap().unwrap();
}
