//! Faults put into a wall that plays, one at a time, and what the doctor says of each; then mended, and it must be silent.
//!
//! The table of `crates/doctor/tests` has more faults, made of frames; these pass the kernel, QEMU, the agents and the gateway.
//! All are put in at seat 2 or its node, but for the card address that two have: that is remembered for a minute, so it
//! is seat 9's. Three pairs that a fault does not concern are asked with each: on one node, between nodes, and all others by
//! the list of what is wrong.
use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use api::{
    lan::{Diagnosis, Doctor, Rung, RungResult},
    observe::Observed,
};
use nix::sys::signal::{Signal, kill};
use testkit::{NetNs, Tap};
use tokio::{runtime::Runtime, sync::watch};

use crate::{LIMIT, alone, eventually, get, loco, mount_sys, pid, says, status};

/// Namespaces of the fabric on two nodes, and of the second node itself.
const FABRIC_A: &str = "/run/loco/node-a/fabric.netns";
const FABRIC_B: &str = "/run/loco/node-b/fabric.netns";
const NODE_B: &str = "/run/loco/netns/loco-node-b";
/// The tap of seat 2, which is on the second node, and its address.
const TAP_2: &str = "locot001068-1";
const SEAT_2: [u8; 4] = [10, 98, 0, 2];
/// The card of seat 9, which is on the third node.
const CARD_9: [u8; 6] = [2, 0x4c, 0, 0x10, 0x68, 9];
/// Longer than the doctor remembers that a card address was used twice.
const REMEMBERED: Duration = Duration::from_secs(75);

fn ask(arguments: &[&str]) -> Doctor {
    let output = loco(&[&["doctor", "-o", "json"], arguments].concat());
    let doctor: Doctor = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(output.status.code(), Some(i32::from(!doctor.ok)));
    doctor
}

/// What the doctor says of `from`, which wants to see the game of `to`.
fn diagnosis(from: &str, to: &str) -> Diagnosis {
    ask(&[from, to]).diagnosis.remove(0)
}

fn plays(now: &Diagnosis) -> bool {
    now.ok && ["in-game", "hosts"].contains(&now.cause.as_str())
}

/// Asks until `probe` is content; says what was said last if it never is.
#[track_caller]
fn until<T: std::fmt::Debug>(within: Duration, what: &str, ask: impl Fn() -> T, content: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + within;
    loop {
        let now = ask();
        if content(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "{what}: {now:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn inside(namespace: &str, line: &str) -> String {
    let output = Command::new("nsenter").arg(format!("--net={namespace}")).args(["sh", "-ec", line]).output().unwrap();
    assert!(output.status.success(), "`{line}` in {namespace}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A wall under test: what was put in, and what the doctor may say of it.
struct Lab {
    /// Instances that what was said before may still be about, and until when.
    remembered: Option<(&'static str, Instant)>,
    began: Instant,
}

impl Lab {
    /// Nothing is wrong but with the seats of `sick`, and these three play.
    #[track_caller]
    fn others_are_well(&self, sick: &[&str]) {
        let forgiven: BTreeSet<&str> =
            sick.iter().copied().chain(self.remembered.map(|(instance, _)| instance)).collect();
        let wrong = ask(&[]).diagnosis;
        let alarms: Vec<&Diagnosis> =
            wrong.iter().filter(|d| ![&d.from, &d.to].iter().any(|id| forgiven.contains(id.as_str()))).collect();
        assert!(alarms.is_empty(), "false alarms: {alarms:#?}");
        for seat in ["1", "3", "4"] {
            let now = diagnosis(seat, "1");
            assert!(now.ok, "false alarm: {now:#?}");
        }
    }

    /// `cause` is told of `from` and `to`, at its first rung; nobody else is blamed; and once it is mended all is well.
    #[track_caller]
    fn fault(
        &self,
        (from, to): (&str, &str),
        (rung, causes): (Rung, &[&str]),
        sick: &[&str],
        mend: impl FnOnce(),
    ) -> String {
        let put_in = Instant::now();
        let is_it = |d: &Diagnosis| causes.contains(&d.cause.as_str());
        let told = until(LIMIT, &format!("{causes:?} is not told"), || diagnosis(from, to), is_it);
        let after = put_in.elapsed();
        assert!(!told.ok && told.rung == rung && told.remedy.is_some(), "{told:#?}");
        for state in &told.ladder {
            // Of a silent node nothing is known, all else has one rung that fails first.
            let want = match state.rung.cmp(&rung) {
                _ if told.cause == "agent-silent" => RungResult::Unknown,
                std::cmp::Ordering::Less => RungResult::Passed,
                std::cmp::Ordering::Equal => RungResult::Failed,
                std::cmp::Ordering::Greater => RungResult::Unreached,
            };
            assert_eq!(state.result, want, "{told:#?}");
        }
        self.others_are_well(sick);
        mend();
        let mended = Instant::now();
        until(LIMIT, "it is mended", || ask(&[from, to]), |doctor| doctor.ok);
        eprintln!(
            "{:5.1} s  {:18} told after {:4.1} s, gone after {:4.1} s: {}",
            self.began.elapsed().as_secs_f64(),
            told.cause,
            after.as_secs_f64(),
            mended.elapsed().as_secs_f64(),
            told.sentence
        );
        told.sentence
    }
}

/// A card on the first node's bridge that nobody asked for; it says its frames again and again until dropped.
struct Rogue {
    _runtime: Runtime,
    say: watch::Sender<Vec<Vec<u8>>>,
}

impl Rogue {
    fn new(frames: Vec<Vec<u8>>) -> Self {
        let fd = NetNs::run_at(Path::new(FABRIC_A), || Tap::open("rogue").unwrap()).unwrap();
        inside(FABRIC_A, "ip link set rogue master locobr001068 up");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (say, said) = watch::channel(frames);
        runtime.spawn(async move {
            let tap = Tap::from_fd(fd).unwrap();
            let mut each = tokio::time::interval(Duration::from_millis(500));
            loop {
                each.tick().await;
                let frames = said.borrow().clone();
                for frame in &frames {
                    tap.send(frame).await.unwrap();
                }
            }
        });
        Self { _runtime: runtime, say }
    }

    fn now_says(&self, frames: Vec<Vec<u8>>) {
        self.say.send_replace(frames);
    }
}

/// "That address is mine", to all.
fn claim(mac: [u8; 6], ip: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(ip);
    frame.extend([0; 6]);
    frame.extend(ip);
    frame.resize(60, 0);
    frame
}

/// A packet of IPX to all, in raw 802.3 or in 802.2.
fn ipx(mac: [u8; 6], llc: bool) -> Vec<u8> {
    let mut packet = vec![0xff, 0xff, 0, 30, 0, 4, 0, 0, 0, 0];
    packet.extend([0xff; 6]);
    packet.extend([0x51, 0, 0, 0, 0, 0]);
    packet.extend(mac);
    packet.extend([0x51, 0]);
    let header: &[u8] = if llc { &[0, 33, 0xe0, 0xe0, 3] } else { &[0, 30] };
    let mut frame = [&[0xff; 6][..], &mac, header, &packet].concat();
    frame.resize(60, 0);
    frame
}

/// Kinds of anomalies that the wall's LAN has by now.
fn anomalies(token: &str) -> Vec<String> {
    let body: serde_json::Value = serde_json::from_slice(&get(8080, "/api/lan-status", token)).unwrap();
    let lines = body["anomalies"].as_array().cloned().unwrap_or_default();
    lines.iter().filter_map(|line| Some(line["kind"].as_str()?.to_owned())).collect()
}

/// What the ports of seats on three nodes kept, read as a stranger's capture would be: every node's edge asks in it.
#[track_caller]
fn own_captures_are_clean() {
    for (seat, edges) in [("instance-0", 3), ("instance-1", 3)] {
        let file = std::env::temp_dir().join(format!("loco-own-{}.pcapng", std::process::id()));
        let path = file.to_str().unwrap();
        says(&loco(&["pcap", seat, "-w", path]), 0, "");
        let output = loco(&["observe", path, "-o", "json"]);
        std::fs::remove_file(&file).unwrap();
        let observed: Observed = serde_json::from_slice(&output.stdout).unwrap();
        let asked = observed.machines.iter().filter(|m| m.ips.first().is_some_and(|ip| ip == "10.98.0.254")).count();
        assert!(asked >= edges, "{seat}: {:#?}", observed.machines);
        let twice: Vec<_> = observed.anomalies.iter().filter(|a| a.kind.starts_with("duplicate-")).collect();
        assert!(twice.is_empty(), "{seat}: {twice:#?}");
    }
}

#[test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
fn each_fault_in_a_live_wall_is_told_by_its_name() {
    alone("faults::each_fault_in_a_live_wall_is_told_by_its_name", || {
        mount_sys();
        says(&loco(&["up", "--detach", "--nodes", "3", "--guests", "9"]), 0, "all 9 pictures are live");
        let wall = status();
        let mut lab = Lab { remembered: None, began: Instant::now() };
        let idle = || (1..=9).map(|n| diagnosis(&n.to_string(), "1")).filter(|now| !plays(now)).collect::<Vec<_>>();
        until(LIMIT, "all nine play", idle, Vec::is_empty);
        until(LIMIT, "nothing is wrong", || ask(&[]), |doctor| doctor.ok);
        own_captures_are_clean();
        let of_node_b = ["instance-1", "instance-4", "instance-7"];

        // Somebody else sends from the card address of seat 9. Mended, it is remembered for a minute, at the end of this.
        let rogue = Rogue::new(vec![claim(CARD_9, [10, 98, 0, 9])]);
        let told = until(LIMIT, "duplicate-mac", || diagnosis("9", "1"), |d| d.cause == "duplicate-mac");
        assert!(told.rung == Rung::Address && told.sentence.contains("02:4c:00:10:68:09"), "{told:#?}");
        lab.remembered = Some(("instance-8", Instant::now() + REMEMBERED));
        lab.others_are_well(&[]);

        // Somebody else has the address of seat 2, and then takes one that is free.
        let other = [2, 9, 9, 9, 9, 9];
        rogue.now_says(vec![claim(other, SEAT_2)]);
        let said = lab.fault(("2", "1"), (Rung::Address, &["duplicate-ip"]), &["instance-1"], || {
            rogue.now_says(vec![claim(other, [10, 98, 0, 77])]);
        });
        assert!(said.contains("10.98.0.2"), "{said}");
        drop(rogue);

        // The cable of seat 2 is out.
        inside(FABRIC_B, &format!("ip link set {TAP_2} carrier off"));
        let plug_in = || drop(inside(FABRIC_B, &format!("ip link set {TAP_2} carrier on")));
        lab.fault(("2", "1"), (Rung::Link, &["link-down"]), &["instance-1"], plug_in);

        // Somebody takes the tap off the bridge: its agent puts it back before anybody can be told.
        inside(FABRIC_B, &format!("ip link set {TAP_2} nomaster"));
        until(
            LIMIT,
            "the tap is on its bridge again",
            || inside(FABRIC_B, &format!("ip -o link show {TAP_2}")),
            |line| line.contains("master locobr001068"),
        );
        until(LIMIT, "it is mended", || ask(&["2", "1"]), |doctor| doctor.ok);
        lab.others_are_well(&[]);

        // The agent of seat 2 hangs: the present is not known, and nothing is invented.
        let agent = pid(wall.nodes[1].agent_pid);
        kill(agent, Signal::SIGSTOP).unwrap();
        let go_on = || kill(agent, Signal::SIGCONT).unwrap();
        lab.fault(("2", "1"), (Rung::Link, &["agent-silent"]), &of_node_b, go_on);

        // A firewall between the nodes.
        let hooks = ["input", "output"].map(|hook| {
            format!("add chain inet loco_test {hook} {{ type filter hook {hook} priority 0; }}; add rule inet loco_test {hook} udp dport 14789 drop")
        });
        inside(NODE_B, &format!("nft 'add table inet loco_test; {}'", hooks.join("; ")));
        let open = || drop(inside(NODE_B, "nft delete table inet loco_test"));
        let said = lab.fault(("2", "1"), (Rung::Reaches, &["underlay-blocked"]), &of_node_b, open);
        assert!(said.contains("node-a") && said.contains("node-b"), "{said}");

        // The guest of seat 2 hangs, as after a crash of Windows: it answers nobody, and its tap takes frames until it is full.
        let qemu = pid(status().instances[1].qemu_pid);
        kill(qemu, Signal::SIGSTOP).unwrap();
        let go_on = || kill(qemu, Signal::SIGCONT).unwrap();
        lab.fault(("2", "1"), (Rung::Frame, &["guest-silent"]), &["instance-1"], go_on);

        // Two stations that speak IPX in two framings, and never meet.
        let rogue = Rogue::new(vec![ipx([2, 9, 9, 9, 9, 1], false), ipx([2, 9, 9, 9, 9, 2], true)]);
        eventually(|| anomalies(&wall.token).iter().any(|kind| kind == "ipx-framing-mismatch").then_some(()));
        drop(rogue);

        // The card address that was used twice is forgotten.
        let (_, until_then) = lab.remembered.take().unwrap();
        until(
            until_then.saturating_duration_since(Instant::now()).max(LIMIT),
            "all is forgotten",
            || ask(&[]),
            |d| d.ok,
        );
        lab.others_are_well(&[]);
        eprintln!("{:5.1} s  all is well", lab.began.elapsed().as_secs_f64());
        says(&loco(&["down"]), 0, "the wall is down");
    });
}
