//! A guest goes to another LAN while it plays: real agents, a real runner, a real QEMU, and ends of both LANs that the test holds.
use std::time::{Duration, Instant};

use model::MacAddr;
use testkit::{Tap, Underlay, eventually};

use crate::{
    modes::start_player,
    rig::{Rig, SOON},
};

/// MAC of the guest that moves: it was started at seat 0 of `party`.
const MOVER: [u8; 6] = [2, 0x4c, 0, 0x10, 0x68, 1];

/// Two LANs; `place` is where `instance-0` is. `instance-1` and `instance-2` are the test's own, one in each, on the other node.
fn place(rig: &Rig, place: &str) {
    let nodes: Vec<_> = (0..2)
        .map(|n| {
            let ip = Underlay::address(n);
            format!(r#"{{"name":"node-{n}","underlay_ip":"{ip}","agent_url":"http://{ip}:14780"}}"#)
        })
        .collect();
    let text = format!(
        r#"{{"version":1,"lans":[{{"name":"party","vni":4200,"mode":"vxlan","subnet":"10.98.0.0/24","seats":9}},
                                 {{"name":"other","vni":4201,"mode":"vxlan","subnet":"10.97.0.0/24","seats":9}}],"nodes":[{}],
        "instances":[{{"id":"instance-0","node":"node-0",{place}}},
                     {{"id":"instance-1","lan":"party","seat":1,"node":"node-1"}},{{"id":"instance-2","lan":"other","seat":0,"node":"node-1"}}]}}"#,
        nodes.join(",")
    );
    std::fs::write(rig.dir.join("new"), text).unwrap();
    std::fs::rename(rig.dir.join("new"), rig.dir.join("snapshot.json")).unwrap();
}

/// An end of a LAN that the test holds: its tap, and its card.
struct End(Tap, [u8; 6]);

impl End {
    /// Asks the guest for its address: who has 10.98.0.1, as it was given that at its start (RFC 826).
    async fn ask(&self) {
        let question = [
            &[0xff; 6][..],
            &self.1,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &self.1,
            &[10, 98, 0, 77],
            &[0; 6],
            &[10, 98, 0, 1],
            &[0; 18],
        ];
        self.0.send(&question.concat()).await.unwrap();
    }

    /// Frames of the guest's card that came since it was last asked.
    fn heard(&self) -> usize {
        self.0.drain().unwrap().iter().filter(|frame| frame.get(6..12) == Some(&MOVER)).count()
    }

    /// Waits until the guest has answered a question.
    async fn hears(&self, rig: &Rig) {
        let start = Instant::now();
        loop {
            self.ask().await;
            if eventually(Duration::from_millis(100), || (self.heard() > 0).then_some(())).await.is_ok() {
                return;
            }
            assert!(start.elapsed() < SOON * 2, "the guest does not answer\n{}", rig.logs());
        }
    }

    /// It does not hear a guest that answers at `there`, whatever it asks.
    async fn is_deaf_to_whom(&self, there: &Self, rig: &Rig) {
        for _ in 0..3 {
            self.ask().await;
            there.hears(rig).await;
        }
        assert_eq!(self.heard(), 0, "in the wrong LAN");
    }
}

/// The model of the one LAN knows the guest, and that of the other does not.
async fn is_seen_in(rig: &Rig, lan: &str, not: &str) {
    let mac = MacAddr(MOVER).to_string();
    let seen = || {
        let observed = rig.status(0)?.observed;
        let knows = |lan: &str| observed.get(lan).is_some_and(|seen| seen.machines.iter().any(|it| it.mac == mac));
        (knows(lan) && !knows(not)).then_some(())
    };
    eventually(SOON, seen).await.unwrap_or_else(|error| panic!("{error}: {lan} and not {not}\n{}", rig.logs()));
}

/// The guest's cable has been pulled and put in again so many times.
async fn told(rig: &Rig, times: usize) {
    let done = || {
        let logs = rig.logs();
        let count = |words: &str| logs.matches(words).count();
        ((count("its cable is pulled"), count("cable is in again")) == (times, times)).then_some(())
    };
    eventually(SOON, done).await.unwrap_or_else(|error| panic!("{error}\n{}", rig.logs()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_guest_that_plays_goes_to_another_lan_and_back_without_a_restart() {
    let rig = Rig::new(2);
    place(&rig, r#""lan":"party","seat":0"#);
    let (mut a, _b) = (rig.start_agent(0), rig.start_agent(1));
    let _runner = start_player(&rig, 0, 0, "");
    let ((party, _keep_party), (other, _keep_other)) = (rig.take_seat(1, 1).await, rig.take_seat(1, 2).await);
    let (party, other) = (End(party, [2, 0x4c, 0, 0x10, 0x68, 2]), End(other, [2, 0x4c, 0, 0x10, 0x69, 1]));
    let (before, _) = rig.until_live(0, 0);
    assert!(before.qemu_pid.is_some());
    party.hears(&rig).await;
    is_seen_in(&rig, "party", "other").await;
    other.is_deaf_to_whom(&party, &rig).await;

    let is_in = |lan: &'static str, seat: u8| {
        move |status: &api::agent::InstanceStatus| {
            (status.lan.as_str(), status.seat) == (lan, seat)
                && status.state == api::agent::State::Live
                && status.link == Some(true)
        }
    };
    let moved = r#""lan":"other","seat":5,"card":"02:4c:00:10:68:01""#;
    place(&rig, moved);
    let start = Instant::now();
    let (there, took) = rig.until(0, 0, is_in("other", 5));
    println!("live in the other LAN after {took:?}");
    assert_eq!((there.qemu_pid, &there.mac), (before.qemu_pid, &before.mac), "it is the same QEMU with the same card");
    assert_eq!(there.ip.to_string(), "10.97.0.6");
    other.hears(&rig).await;
    println!("heard there after {:?}", start.elapsed());
    // What was on its way when it moved has arrived: from now on its old LAN hears nothing of it.
    party.heard();
    party.is_deaf_to_whom(&other, &rig).await;
    is_seen_in(&rig, "other", "party").await;
    told(&rig, 1).await;

    // Its agent dies, and it goes home meanwhile; the next agent finds it so, and the guest is told all the same.
    a.kill();
    place(&rig, r#""lan":"party","seat":0"#);
    let _next = rig.start_agent(0);
    let (home, _) = rig.until(0, 0, is_in("party", 0));
    assert_eq!(home.qemu_pid, before.qemu_pid);
    party.hears(&rig).await;
    other.heard();
    other.is_deaf_to_whom(&party, &rig).await;
    is_seen_in(&rig, "party", "other").await;
    told(&rig, 2).await;
    assert_eq!(rig.status(0).unwrap().fabric_problems, Vec::<String>::new());
}
