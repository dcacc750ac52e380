//! The guard at a tap, and the answer at a tunnel, in the real kernel.
use std::{collections::BTreeMap, fs, os::fd::OwnedFd, time::Duration};

use model::{InstanceId, MacAddr, Rate, Rules};
use nix::errno::Errno;
use testkit::eventually;
use traffic::{Attach, Report, Traffic, Wanted};

use crate::{
    rig::{Rig, SOON, send, until},
    shapes::{GUEST_A, GUEST_B},
};

const ALL: [u8; 6] = [0xff; 6];
/// A report is published once a second: what is seen by it is seen so much later.
const SLACK: Duration = Duration::from_secs(1);
const STRANGER: [u8; 6] = [2, 9, 9, 9, 9, 9];

fn a() -> InstanceId {
    "a".parse().unwrap()
}

fn guard(rig: &Rig, rules: Rules) {
    rig.wanted.send_modify(|wanted| {
        wanted.as_mut().unwrap().guards = [(a(), (MacAddr(GUEST_A), rules))].into();
    });
}

async fn guarded(rig: &Rig, attach: Option<Attach>, rules: Rules) -> Traffic {
    guard(rig, rules);
    let (traffic, _events) = rig.watch(attach).await;
    until(&traffic, |report| report.refused.contains_key(&a())).await;
    traffic
}

/// Marked, so that the receiver tells it from what else comes.
fn frame(to: [u8; 6], from: [u8; 6], rest: &[u8], mark: u8) -> Vec<u8> {
    let mut frame = [&to[..], &from, rest].concat();
    frame.resize(frame.len().max(60), 0);
    frame.extend([b'M', b'A', b'R', b'K', mark]);
    frame
}

fn udp(source: u16, destination: u16) -> Vec<u8> {
    let mut packet = vec![0x08, 0x00, 0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 10, 98, 0, 1, 255, 255, 255, 255];
    packet.extend(source.to_be_bytes());
    packet.extend(destination.to_be_bytes());
    packet.extend([0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet
}

fn advertisement() -> Vec<u8> {
    let mut packet = vec![0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, 58, 255];
    packet.extend([0; 32]);
    packet.extend([134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet
}

/// Marks of the frames that wait at a tap.
fn marks(tap: &OwnedFd) -> Vec<u8> {
    let mut marks = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match nix::unistd::read(tap, &mut buffer) {
            Ok(len) => {
                let found = buffer[..len].windows(5).find(|window| window.starts_with(b"MARK"));
                marks.extend(found.map(|mark| mark[4]));
            }
            Err(Errno::EAGAIN) => return marks,
            Err(errno) => panic!("{errno}"),
        }
    }
}

fn refused(report: &Report) -> BTreeMap<&'static str, u64> {
    report.refused[&a()].iter().filter(|(_, count)| **count > 0).map(|(reason, count)| (*reason, *count)).collect()
}

async fn what_a_hostile_guest_sends_harms_nobody(attach: Attach) {
    let rig = Rig::new();
    let traffic = guarded(&rig, Some(attach), Rules::default()).await;
    marks(&rig.taps["locotb"]);
    let ether = [0x88, 0xb6];
    let mut long = frame(GUEST_B, GUEST_A, &ether, 0);
    long.resize(1514, 0);
    let mut tagged = vec![0x81, 0x00, 0x00, 0x05];
    tagged.extend(ether);
    let mut snap = vec![0, 44, 0xaa, 0xaa, 3, 0, 0, 0];
    snap.extend(udp(67, 68));
    let tries = [
        (frame(GUEST_B, GUEST_A, &ether, 1), true),
        (frame(GUEST_B, STRANGER, &ether, 2), false),
        (frame(ALL, GUEST_B, &ether, 3), false),
        (frame(ALL, GUEST_A, &udp(68, 67), 4), true),
        (frame(ALL, GUEST_A, &udp(67, 68), 5), false),
        (frame(ALL, GUEST_A, &snap, 6), false),
        (frame([0x33, 0x33, 0, 0, 0, 1], GUEST_A, &advertisement(), 7), false),
        (frame(GUEST_B, GUEST_A, &tagged, 8), true),
        (long, true),
        (vec![0x5a; 4000], false),
        ([&GUEST_B[..], &GUEST_A, &ether, &[0; 1600]].concat(), false),
        (frame(GUEST_B, GUEST_A, &ether, 9), true),
    ];
    for (frame, _) in &tries {
        rig.send("locota", frame);
    }
    // Shorter than a header: the tap itself does not take it.
    let runt = [0; 10 + 13];
    assert_eq!(nix::unistd::write(&rig.taps["locota"], &runt), Err(Errno::EINVAL));
    assert_eq!(marks(&rig.taps["locotb"]), [1, 4, 8, 0, 9]);
    let want =
        BTreeMap::from([("foreign_source", 2), ("dhcp_server", 2), ("router_advertisement", 1), ("too_long", 2)]);
    let report = until(&traffic, |report| refused(report) == want).await;
    // Sight is before judgement: what is refused was seen.
    let seen = u64::try_from(tries.len()).unwrap();
    assert_eq!(report.ports[&a()].classes.ingress.total().frames, seen);

    // A storm is cut, and unicast goes on beneath it.
    let passed = |count: u32| {
        let tap = &rig.taps["locotb"];
        let mut passed = 0;
        for _ in 0..count {
            rig.send("locota", &frame(ALL, GUEST_A, &ether, 10));
            passed += marks(tap).len();
        }
        passed
    };
    guard(&rig, Rules { broadcasts: Some(Rate { per_second: 1, burst: 40 }), ..Rules::default() });
    let settled = || (passed(200) < 100).then_some(());
    eventually(SOON, settled).await.unwrap();
    assert!(passed(500) <= 60, "one a second is let through");
    rig.send("locota", &frame(GUEST_B, GUEST_A, &ether, 11));
    assert_eq!(marks(&rig.taps["locotb"]), [11]);
    until(&traffic, |report| refused(report).get("storm").is_some_and(|count| *count >= 440)).await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_hostile_guest_harms_nobody() {
    what_a_hostile_guest_sends_harms_nobody(Attach::Tcx).await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_hostile_guest_harms_nobody_on_an_older_kernel() {
    what_a_hostile_guest_sends_harms_nobody(Attach::Clsact).await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn rules_are_switched_while_it_runs_and_outlive_the_agent() {
    let rig = Rig::new();
    let traffic = guarded(&rig, None, Rules::default()).await;
    let forged = frame(GUEST_B, STRANGER, &[0x88, 0xb6], 1);
    let passes = || {
        rig.send("locota", &forged);
        marks(&rig.taps["locotb"]) == [1]
    };
    assert!(!passes());
    guard(&rig, Rules { own_source: false, ..Rules::default() });
    eventually(SOON, || passes().then_some(())).await.unwrap();
    guard(&rig, Rules::default());
    eventually(SOON, || (!passes()).then_some(())).await.unwrap();
    drop(traffic);
    assert!(!passes(), "the guard went with its agent");
    // The next agent goes on counting where this one ended.
    let traffic = guarded(&rig, None, Rules::default()).await;
    until(&traffic, |report| refused(report).get("foreign_source").is_some_and(|count| *count >= 3)).await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_guard_that_somebody_takes_off_is_back_within_two_seconds() {
    let rig = Rig::new();
    let traffic = guarded(&rig, None, Rules::default()).await;
    let pins: Vec<_> = fs::read_dir(rig.pins().join("links")).unwrap().map(|pin| pin.unwrap().path()).collect();
    assert_eq!(pins.len(), 5, "{pins:?}");
    for pin in &pins {
        fs::remove_file(pin).unwrap();
    }
    let forged = frame(GUEST_B, STRANGER, &[0x88, 0xb6], 1);
    let dropped = || {
        rig.send("locota", &forged);
        marks(&rig.taps["locotb"]).is_empty().then_some(())
    };
    let start = std::time::Instant::now();
    // The kernel lets go of what was pinned a moment later: it is back when all five are.
    until(&traffic, |report| report.repairs == 5).await;
    println!("back after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", start.elapsed());
    assert!(dropped().is_some());
    assert!(pins.iter().all(|pin| pin.exists()), "pinned again");
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_tunnel_answers_for_its_node_also_while_no_agent_runs() {
    let rig = Rig::new();
    let bridge = MacAddr([6, 1, 2, 3, 4, 5]);
    let lan = || "party".parse().unwrap();
    rig.wanted.send_replace(Some(Wanted {
        tunnels: [(lan(), "locotb".to_owned())].into(),
        answers: [(lan(), bridge)].into(),
        ..Wanted::default()
    }));
    let (traffic, _events) = Traffic::start(rig.config(None), rig.wanted.subscribe()).await.unwrap();
    until(&traffic, |report| report.tunnels.len() == 1).await;
    let asker = [6, 9, 9, 9, 9, 9];
    let ask = |to: [u8; 6], len: usize| {
        let mut frame =
            [&to[..], &asker, &wire::probe::ETHERTYPE, &wire::probe::MAGIC, &[0, 0, 0, 0, 0, 0, 0, 7]].concat();
        frame.resize(len, 0x33);
        frame
    };
    let answer = || {
        let mut buffer = vec![0; 4096];
        match nix::unistd::read(&rig.taps["locotb"], &mut buffer) {
            Ok(len) => Some(buffer[10..len].to_vec()).filter(|frame| frame[12..14] == wire::probe::ETHERTYPE),
            Err(_) => None,
        }
    };
    drop(traffic);
    for len in [60, 1514] {
        while answer().is_some() {}
        send(&rig.taps["locotb"], &ask(bridge.0, len));
        let answer = eventually(SOON, answer).await.unwrap();
        let mut want = ask(bridge.0, len);
        want[..12].copy_from_slice(&[&asker[..], &bridge.0].concat());
        want[wire::probe::KIND_AT] = wire::probe::ANSWER;
        assert_eq!(answer, want);
    }
    // Not for another node, and not an answer to an answer.
    send(&rig.taps["locotb"], &ask([6; 6], 60));
    let mut answered = ask(bridge.0, 60);
    answered[wire::probe::KIND_AT] = wire::probe::ANSWER;
    send(&rig.taps["locotb"], &answered);
    assert_eq!(answer(), None);
}
