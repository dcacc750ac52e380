//! LANs without a device in the kernel: agents without a single capability, real runners, real QEMU.
use std::{
    collections::BTreeMap,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
    process::{Command, Stdio},
};

use api::{
    agent::{AgentStatus, State},
    trace::{Trace, TraceRequest},
};
use nix::sys::{
    signal::Signal,
    socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt},
    time::{TimeVal, TimeValLike as _},
};
use seat::{FromAgent, FromRunner, Hello, PROTOCOL_VERSION, PortKind, SeatSocket};
use testkit::{Frame, IpxFraming, Numbered, Underlay, eventually};

use crate::rig::{Process, Rig, SOON, TOKEN};

/// Frames of each kind, each way.
pub(crate) const FRAMES: u32 = 1000;
/// So many are on the way at a time: what a guest's card and a socket's buffer hold without pacing.
const AT_ONCE: u32 = 50;

/// Places seats: LAN and node of each, as `instance-0`, `instance-1`, …
pub(crate) fn place(rig: &Rig, lans: &[(&str, &str)], seats: &[(&str, u8)]) {
    let lans: Vec<_> = (0..)
        .zip(lans)
        .map(|(n, (name, mode))| {
            // As many broadcasts as come: these tests send more than any game.
            let (vni, subnet) = (4200 + n, 98 - n);
            format!(
                r#"{{"name":"{name}","vni":{vni},"mode":"{mode}","subnet":"10.{subnet}.0.0/24","seats":9,
                "guard":{{"broadcasts_per_second":null}}}}"#
            )
        })
        .collect();
    let nodes: Vec<_> = (0..2)
        .map(|n| {
            let ip = Underlay::address(n);
            format!(r#"{{"name":"node-{n}","underlay_ip":"{ip}","agent_url":"http://{ip}:14780"}}"#)
        })
        .collect();
    let mut taken: BTreeMap<&str, u8> = BTreeMap::new();
    let instances: Vec<_> = (0..)
        .zip(seats)
        .map(|(i, (lan, node))| {
            let seat = taken.entry(lan).or_default();
            *seat += 1;
            format!(r#"{{"id":"instance-{i}","lan":"{lan}","seat":{},"node":"node-{node}"}}"#, *seat - 1)
        })
        .collect();
    let (lans, nodes, instances) = (lans.join(","), nodes.join(","), instances.join(","));
    let text = format!(r#"{{"version":1,"lans":[{lans}],"nodes":[{nodes}],"instances":[{instances}]}}"#);
    std::fs::write(rig.dir.join("new"), text).unwrap();
    std::fs::rename(rig.dir.join("new"), rig.dir.join("snapshot.json")).unwrap();
}

/// An agent of root's without a capability, and without a way to get one.
pub(crate) fn start_powerless(rig: &Rig, node: u8) -> Process {
    let agent = rig.agent_command(node);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]).arg(agent.get_program());
    command.args(agent.get_args());
    let log = std::fs::OpenOptions::new().create(true).append(true).open(rig.dir.join(format!("agent-{node}.log")));
    command.stderr(log.unwrap());
    rig.spawn(node, command)
}

/// A seat that the test holds as a runner does: QEMU's end of the cable, and the agent's, which is handed over again and again.
pub(crate) struct Held {
    qemu: OwnedFd,
    agent: OwnedFd,
    seat: SeatSocket,
}

impl Held {
    pub(crate) async fn take(rig: &Rig, node: u8, instance: u8) -> Self {
        let (qemu, agent) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        // A full socket fails a test instead of hanging it.
        setsockopt(&qemu, sockopt::SendTimeout, &TimeVal::seconds(20)).unwrap();
        let seat = greet(rig, node, instance, false).await;
        seat.send(&FromRunner::Cable, &[&agent]).await.unwrap();
        Self { qemu, agent, seat }
    }

    /// To the next agent.
    pub(crate) async fn again(&mut self, rig: &Rig, node: u8, instance: u8) {
        self.seat = greet(rig, node, instance, true).await;
        self.seat.send(&FromRunner::Cable, &[&self.agent]).await.unwrap();
    }
}

/// Where a test says and hears frames.
pub(crate) trait Plug {
    /// # Panics
    /// When nobody takes frames and no more fit.
    fn say(&self, frame: &[u8]);

    fn heard(&self) -> Option<Vec<u8>>;

    /// Takes what has come; numbered frames are counted.
    fn count(&self, seen: &mut BTreeMap<Numbered, u32>) {
        while let Some(frame) = self.heard() {
            if let Some(number) = Numbered::find(&frame) {
                *seen.entry(number).or_default() += 1;
            }
        }
    }
}

impl Plug for Held {
    #[track_caller]
    fn say(&self, frame: &[u8]) {
        assert_eq!(send(self.qemu.as_raw_fd(), frame, MsgFlags::empty()).unwrap(), frame.len());
    }

    fn heard(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        let len = recv(self.qemu.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
        Some(buffer[..len].to_vec())
    }
}

async fn greet(rig: &Rig, node: u8, instance: u8, has_port: bool) -> SeatSocket {
    let door = rig.seat(node, instance);
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        assert!(tokio::time::Instant::now() < deadline, "no seat at {}\n{}", door.display(), rig.logs());
        let Ok(seat) = SeatSocket::connect(&door) else {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        let hello = Hello {
            version: PROTOCOL_VERSION,
            instance: format!("instance-{instance}"),
            runner_pid: std::process::id(),
            has_port,
            health_url: None,
            ports: vec!["socket".to_owned()],
        };
        seat.say(&FromRunner::Hello(hello)).await.unwrap();
        match seat.receive().await {
            Ok((FromAgent::Welcome(welcome), fds)) => {
                assert_eq!((welcome.port, fds.len()), (PortKind::Socket, 0));
                return seat;
            }
            other => eprintln!("asking again: {other:?}"),
        }
    }
}

pub(crate) const fn mac(lan: u8, seat: u8) -> [u8; 6] {
    [0x02, 0x4c, 0x00, 0x10, 0x68 + lan, seat + 1]
}

/// The seven kinds of frames that games make: unicast, of full length, to all, and IPX in its four framings.
fn frame(Numbered { kind, sender, sequence }: Numbered, from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
    let number = Numbered { kind, sender, sequence };
    match kind {
        0 => Frame::ethernet(to, from, number, 200),
        1 => Frame::ethernet(to, from, number, 1500),
        2 => Frame::ethernet([0xff; 6], from, number, 200),
        framing => Frame::ipx(IpxFraming::ALL[usize::from(framing - 3)], [0xff; 6], from, number),
    }
}

/// Sends all kinds from one seat to another, and waits for each batch; how often each came there.
pub(crate) async fn send_all(
    sender: u8,
    (from, from_mac): (&impl Plug, [u8; 6]),
    (to, to_mac): (&impl Plug, [u8; 6]),
) -> BTreeMap<Numbered, u32> {
    let mut seen = BTreeMap::new();
    for kind in 0..7 {
        for batch in 0..FRAMES / AT_ONCE {
            let numbers = batch * AT_ONCE..(batch + 1) * AT_ONCE;
            let number = |sequence| Numbered { kind, sender, sequence };
            numbers.clone().for_each(|sequence| from.say(&frame(number(sequence), from_mac, to_mac)));
            let last = number(numbers.end - 1);
            // Frames keep their order, so what is missing when the last one is there is lost.
            let arrived = eventually(SOON, || {
                to.count(&mut seen);
                seen.contains_key(&last).then_some(())
            });
            arrived.await.unwrap_or_else(|error| panic!("{error}: {last:?} of {} that came", seen.len()));
        }
    }
    to.count(&mut seen);
    seen
}

#[track_caller]
pub(crate) fn all_once(seen: &BTreeMap<Numbered, u32>, sender: u8) {
    let numbers = (0..7).flat_map(|kind| (0..FRAMES).map(move |sequence| Numbered { kind, sender, sequence }));
    let came = numbers.map(|number| (number, seen.get(&number).copied().unwrap_or(0)));
    let wrong: Vec<_> = came.filter(|(_, times)| *times != 1).collect();
    assert!(wrong.is_empty(), "lost (0 times) or doubled: {wrong:?}");
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn frames_of_every_kind_cross_between_agents_without_capabilities_and_stay_in_their_lan() {
    let rig = Rig::new(2);
    place(&rig, &[("party", "socket"), ("other", "socket")], &[("party", 0), ("party", 1), ("other", 0), ("other", 1)]);
    let (_a, _b) = (start_powerless(&rig, 0), start_powerless(&rig, 1));
    let (zero, one) = (Held::take(&rig, 0, 0).await, Held::take(&rig, 1, 1).await);
    let (others_zero, others_one) = (Held::take(&rig, 0, 2).await, Held::take(&rig, 1, 3).await);
    let alive = |status: &AgentStatus| {
        status.lans.iter().filter(|lan| lan.mode.as_deref() == Some("socket")).count() == 2
            && status.instances.iter().all(|instance| instance.link == Some(true))
    };
    for node in 0..2 {
        eventually(SOON, || rig.status(node).filter(alive))
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", rig.logs()));
    }
    // The first question of a guest opens the way: both nodes know each other from then on.
    all_once(&send_all(0, (&zero, mac(0, 0)), (&one, mac(0, 1))).await, 0);
    all_once(&send_all(1, (&one, mac(0, 1)), (&zero, mac(0, 0))).await, 1);
    let mut elsewhere = BTreeMap::new();
    others_zero.count(&mut elsewhere);
    others_one.count(&mut elsewhere);
    assert_eq!(elsewhere.len(), 0, "frames of one LAN in another");
    // They are counted as at a tap: by class and way, and by the other card.
    let counted = |status: AgentStatus| {
        let zero = status.instances.into_iter().find(|instance| instance.id == "instance-0")?;
        let ipx = zero.classes.get("ipx_snap").copied()?;
        (ipx.tx_frames >= FRAMES.into() && ipx.rx_frames >= FRAMES.into())
            .then_some((zero.pairs.clone(), status.observer))
    };
    let (pairs, observer) = eventually(SOON, || counted(rig.status(0)?)).await.unwrap();
    assert!(pairs.iter().any(|pair| pair.peer == "02:4c:00:10:68:02" && pair.rx_frames >= 7 * u64::from(FRAMES)));
    assert_eq!(observer.unwrap().attach.as_deref(), Some("switch"));
}

/// One that is told to end loses no frame. A kill may come while the switch, which handles one at a time, has one in its hands.
#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn an_agent_that_ends_loses_no_frame_between_guests_of_its_node_and_a_kill_at_most_one() {
    let rig = Rig::new(2);
    place(&rig, &[("party", "socket")], &[("party", 0), ("party", 0)]);
    let mut agent = start_powerless(&rig, 0);
    let (mut zero, mut one) = (Held::take(&rig, 0, 0).await, Held::take(&rig, 0, 1).await);
    let (mut seen, mut sent, mut lost) = (BTreeMap::new(), 0, 0);
    let ends = [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGTERM, Signal::SIGKILL];
    for end in std::iter::once(None).chain(ends.map(Some)) {
        let mut say = |count: u32| {
            for _ in 0..count {
                zero.say(&frame(Numbered { kind: 0, sender: 0, sequence: sent }, mac(0, 0), mac(0, 1)));
                sent += 1;
            }
        };
        // A socket holds some 160 small frames with nobody at its other end. QEMU keeps what does not fit; this test would wait.
        say(60);
        if let Some(signal) = end {
            agent.signal(signal);
            say(60);
            agent.0.wait().unwrap();
            agent = start_powerless(&rig, 0);
            say(30);
            // The sender's cable first: what it sends waits for the receiver's.
            zero.again(&rig, 0, 0).await;
            one.again(&rig, 0, 1).await;
        }
        let newest = Numbered { kind: 0, sender: 0, sequence: sent - 1 };
        let arrived = eventually(SOON, || {
            one.count(&mut seen);
            seen.contains_key(&newest).then_some(())
        });
        arrived.await.unwrap_or_else(|error| panic!("{error}: {end:?}\n{}", rig.logs()));
        let lost_by_now = (0..sent).filter(|n| !seen.contains_key(&Numbered { sequence: *n, ..newest })).count();
        println!("{end:?}: lost {} of {sent}", lost_by_now - lost);
        assert!(lost_by_now - lost <= usize::from(end == Some(Signal::SIGKILL)), "{end:?} lost {}", lost_by_now - lost);
        lost = lost_by_now;
    }
    assert!(seen.values().all(|times| *times == 1), "doubled");
}

/// A real runner with a real QEMU that plays the demo game by itself; `words`: more for the game.
pub(crate) fn start_player(rig: &Rig, node: u8, instance: u8, words: &str) -> Process {
    let program = Path::new(env!("CARGO_BIN_EXE_node-agent")).with_file_name("guest-runner");
    assert!(program.exists(), "{} is missing; run `cargo build -p guest-runner` first", program.display());
    let kernel = std::env::var("LOCO_DEMO_KERNEL").expect("`cargo xtask test --privileged` sets LOCO_DEMO_KERNEL");
    let mut command = Command::new(program);
    command
        .args(["--instance", &format!("instance-{instance}"), "--listen", "127.0.0.1:0", "--memory", "24"])
        .args(["--uid", "65534", "--gid", "65534", "--kernel", &kernel])
        .args(["--append", &format!("autoplay=1{words}")])
        .arg("--agent-socket")
        .arg(rig.seat(node, instance))
        .arg("--work-dir")
        .arg(rig.dir.join(format!("work-{instance}")))
        .stdout(Stdio::null());
    let log =
        std::fs::OpenOptions::new().create(true).append(true).open(rig.dir.join(format!("runner-{instance}.log")));
    command.stderr(log.unwrap());
    rig.spawn(node, command)
}

pub(crate) fn players(status: &AgentStatus) -> usize {
    status.observed.get("party").map(|observed| observed.players.len()).unwrap_or_default()
}

fn trace(rig: &Rig, node: u8, request: &TraceRequest) -> Trace {
    let url = format!("http://{}:14780/v1/lan/trace", Underlay::address(node));
    let asked = async move {
        let answer = reqwest::Client::new().post(url).bearer_auth(TOKEN).json(request).send().await.unwrap();
        answer.error_for_status().unwrap().json().await.unwrap()
    };
    rig.underlay.node(node.into()).block_on(asked).unwrap()
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn guests_of_two_nodes_play_over_the_agents_own_switch() {
    let rig = Rig::new(2);
    place(&rig, &[("party", "socket")], &[("party", 0), ("party", 1)]);
    let (mut a, _b) = (start_powerless(&rig, 0), start_powerless(&rig, 1));
    let _guests = [start_player(&rig, 0, 0, ""), start_player(&rig, 1, 1, "")];
    for node in 0..2 {
        rig.until_live(node, node);
        let both = eventually(SOON * 3, || rig.status(node).filter(|status| players(status) == 2)).await;
        both.unwrap_or_else(|error| panic!("{error}: {:#?}\n{}", rig.status(node).map(|s| s.observed), rig.logs()));
    }
    // A marked frame is followed by both agents, each over its part of the way.
    let mark = "LOCOTRACE0123456789".to_owned();
    let request = TraceRequest { from: "instance-0".into(), to: "instance-1".into(), mark, limit_ms: 5_000 };
    let parts: Vec<Trace> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..2)
            .map(|node| {
                let (rig, request) = (&rig, &request);
                scope.spawn(move || trace(rig, node, request))
            })
            .collect();
        asked.into_iter().map(|part| part.join().unwrap()).collect()
    });
    let hops: Vec<_> = parts.iter().flat_map(|part| &part.hops).map(|hop| (hop.step, hop.seen)).collect();
    assert_eq!(hops, [(0, true), (1, true), (2, true), (3, true), (4, true)], "{parts:#?}");
    assert!(parts[1].delivered && parts[0].hops[2].at.contains("the way between the switches"), "{parts:#?}");
    // QEMU and its cable outlive the agent, and the game goes on with the next one.
    let qemu = rig.instance(0, 0).unwrap().qemu_pid;
    a.kill();
    let _a = start_powerless(&rig, 0);
    rig.until(0, 0, |status| status.state == State::Live && status.qemu_pid == qemu && status.link == Some(true));
    let plays = |status: &AgentStatus| {
        let zero = status.instances.iter().find(|instance| instance.id == "instance-0");
        let game = zero.and_then(|zero| zero.classes.get("dplay_udp").or(zero.classes.get("dplay_tcp")));
        game.is_some_and(|game| game.tx_frames > 0 && game.rx_frames > 0)
    };
    eventually(SOON, || rig.status(0).filter(plays)).await.unwrap_or_else(|error| panic!("{error}\n{}", rig.logs()));
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn guests_of_mode_user_are_alone_and_the_mode_is_what_qemu_says() {
    let rig = Rig::new(2);
    place(&rig, &[("party", "user")], &[("party", 0), ("party", 0)]);
    let _agent = start_powerless(&rig, 0);
    let mode = |status: AgentStatus| status.lans.first().and_then(|lan| lan.mode.clone());
    assert_eq!(
        eventually(SOON, || rig.status(0).filter(|status| status.lans.len() == 1)).await.map(mode).unwrap(),
        None
    );
    let _guests = [start_player(&rig, 0, 0, ""), start_player(&rig, 0, 1, "")];
    for instance in 0..2 {
        let (status, _) = rig.until_live(0, instance);
        assert_eq!((status.link, status.counters), (None, None), "no port of the agent's");
    }
    let status = rig.status(0).unwrap();
    assert_eq!((players(&status), mode(status).as_deref()), (0, Some("user")));
    // Nothing leads out of QEMU: no tap, and no socket but those of its monitors and its display.
    for instance in 0..2 {
        let pid = rig.instance(0, instance).unwrap().qemu_pid.unwrap();
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let taps = fds.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.ends_with("net/tun"))).count();
        assert_eq!(taps, 0);
    }
}
