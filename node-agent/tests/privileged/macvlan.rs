//! LANs of mode `macvlan`: real agents put guests on their nodes' cards, which the test's bridge joins in the place of somebody's switch.
use std::{collections::BTreeSet, os::fd::OwnedFd};

use api::agent::{AgentStatus, InstanceStatus, State};
use seat::{PortKind, SeatSocket};
use testkit::{Frame, Numbered, Tap, eventually};

use crate::{
    modes::{mac, place, start_player},
    pcap,
    rig::{Rig, SOON, TOKEN},
};

/// A seat that the test holds as a runner does.
struct Held {
    tap: Tap,
    /// Says that the macvtap is held, for as long as it is open.
    _hold: OwnedFd,
    _seat: SeatSocket,
}

impl Held {
    async fn take(rig: &Rig, node: u8, instance: u8) -> Self {
        let door = rig.seat(node, instance);
        let (welcome, fds, seat) = rig.welcomed_at(&door, instance, &[PortKind::Macvtap]).await;
        assert_eq!(welcome.port, PortKind::Macvtap);
        let [net, hold] = fds.try_into().expect("a macvtap and its hold come with the welcome");
        Self { tap: Tap::from_fd(net).unwrap(), _hold: hold, _seat: seat }
    }

    async fn say(&self, kind: u8, to: [u8; 6], from: [u8; 6]) {
        let number = Numbered { kind, sender: 0, sequence: 0 };
        self.tap.send(&Frame::ethernet(to, from, number, 100)).await.unwrap();
    }

    /// Kinds of the numbered frames that have come.
    fn heard(&self) -> Vec<u8> {
        let frames = self.tap.drain().unwrap();
        frames.iter().filter_map(|frame| Numbered::find(frame)).map(|number| number.kind).collect()
    }
}

/// `epb_flags` of pcapng: the way of a frame, from the guest's side.
const INBOUND: u8 = 1;
const OUTBOUND: u8 = 2;

/// The way of the first frame of that kind in a capture: its first option is `epb_flags` (code 2, 4 octets).
fn direction(file: &[u8], kind: u8) -> Option<u8> {
    let mark = Numbered { kind, sender: 0, sequence: 0 }.mark();
    let (_, rest) = file.split_at(file.windows(mark.len()).position(|window| window == mark)?);
    let at = rest.windows(4).position(|window| window == [2, 0, 4, 0])?;
    rest.get(at + 4).map(|flags| flags & 3)
}

fn mode(status: &AgentStatus) -> Option<&str> {
    status.lans.first()?.mode.as_deref()
}

fn others(instance: &InstanceStatus) -> (u64, u64) {
    instance.classes.get("other").map_or((0, 0), |class| (class.tx_frames, class.rx_frames))
}

/// Counts, guard and capture of a macvtap are the guest's, though the kernel sees its frames from the other side than a tap's.
#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn frames_over_the_card_are_counted_guarded_and_captured_as_at_a_tap() {
    let rig = Rig::new(2);
    place(&rig, &[("party", "macvlan")], &[("party", 0), ("party", 1)]);
    let _agents = [rig.start_agent(0), rig.start_agent(1)];
    let (zero, one) = (Held::take(&rig, 0, 0).await, Held::take(&rig, 1, 1).await);
    let watched = |status: &AgentStatus| {
        let whole = status.instances.iter().all(|instance| instance.link == Some(true));
        whole && mode(status) == Some("macvlan") && status.observer.as_ref().is_some_and(|seen| seen.taps == 1)
    };
    for node in 0..2 {
        let all = eventually(SOON, || rig.status(node).filter(watched)).await;
        all.unwrap_or_else(|error| panic!("{error}: {:#?}\n{}", rig.status(node), rig.logs()));
    }
    // Captures begin a moment after the port is there.
    let captured = |kind| direction(&pcap::snapshot(&rig, "instance-0", ""), kind);
    let (a, b) = (mac(0, 0), mac(0, 1));
    let deadline = std::time::Instant::now() + SOON;
    let mut said = 0;
    while captured(1).is_none() {
        assert!(std::time::Instant::now() < deadline, "nothing is captured\n{}", rig.logs());
        zero.say(1, b, a).await;
        said += 1;
    }
    assert_eq!(captured(1), Some(OUTBOUND));
    one.say(2, a, b).await;
    let inbound = eventually(SOON, || captured(2)).await.unwrap_or_else(|error| panic!("{error}\n{}", rig.logs()));
    assert_eq!(inbound, INBOUND);

    // The guard: neither another's address nor another's services.
    zero.say(3, b, [2, 9, 9, 9, 9, 9]).await;
    zero.say(4, b, a).await;
    let mut heard = Vec::new();
    let all = || {
        heard.extend(one.heard());
        heard.contains(&4).then(|| heard.clone())
    };
    let heard = eventually(SOON, all).await.unwrap();
    assert!(!heard.contains(&3), "a frame from a stranger's address came through");
    // What is refused is seen first; and each way is the guest's.
    let came = u64::try_from(heard.len()).unwrap();
    for (instance, want) in [(0, (said + 2, 1)), (1, (1, came))] {
        let counted = || rig.instance(instance, instance).map(|now| others(&now)).filter(|now| *now == want);
        let counted = eventually(SOON, counted).await;
        counted.unwrap_or_else(|error| panic!("{error}: {want:?}, {:#?}", rig.instance(instance, instance)));
    }
    let refused = || -> Option<u64> {
        let metrics = metrics(&rig);
        let line = metrics.lines().find(|line| line.contains(r#"reason="foreign_source""#))?;
        line.rsplit_once(' ')?.1.parse().ok()
    };
    eventually(SOON, || refused().filter(|count| *count == 1))
        .await
        .unwrap_or_else(|error| panic!("{error}: {}", metrics(&rig)));

    // Nobody of this node can speak to its own guests, so none can be asked for a marked frame.
    let (status, told) = trace(&rig);
    assert!(status == 501 && told.contains("macvlan") && told.contains("loco pcap"), "{status}: {told}");
}

fn metrics(rig: &Rig) -> String {
    let url = format!("http://{}:14780/metrics", Rig::address(0));
    let request = async move { reqwest::Client::new().get(url).bearer_auth(TOKEN).send().await.unwrap().text().await };
    rig.underlay.node(0).block_on(request).unwrap().unwrap()
}

fn trace(rig: &Rig) -> (u16, String) {
    let url = format!("http://{}:14780/v1/lan/trace", Rig::address(0));
    let body = r#"{"from":"instance-0","to":"instance-1","mark":"locomark0","limit_ms":500}"#;
    let request = async move {
        let answer = reqwest::Client::new().post(url).bearer_auth(TOKEN).body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    rig.underlay.node(0).block_on(request).unwrap()
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn guests_of_two_nodes_play_over_their_cards_and_an_agents_death_is_not_noticed() {
    let rig = Rig::new(2);
    place(&rig, &[("party", "macvlan")], &[("party", 0), ("party", 1)]);
    let (mut a, _b) = (rig.start_agent(0), rig.start_agent(1));
    // Nobody on this LAN gives addresses; those are not the seats'.
    let _guests = [start_player(&rig, 0, 0, " ip=192.168.7.10/24"), start_player(&rig, 1, 1, " ip=192.168.7.11/24")];
    // No tunnel leads from card to card: a node knows what its own guests say, and both together know all.
    let ids = |node| {
        let observed = rig.status(node)?.observed.remove("party")?;
        Some(observed.players.into_iter().map(|player| player.id).collect::<BTreeSet<_>>())
    };
    let both = eventually(SOON * 3, || Some(&ids(0)? | &ids(1)?).filter(|ids| ids.len() == 2)).await;
    both.unwrap_or_else(|error| panic!("{error}: {:#?} {:#?}\n{}", rig.status(0), rig.status(1), rig.logs()));
    for node in 0..2 {
        rig.until_live(node, node);
        let status = rig.status(node).unwrap();
        assert_eq!((mode(&status), &status.fabric_problems), (Some("macvlan"), &Vec::new()));
        let (ip, instance) = (format!("192.168.7.1{node}"), format!("instance-{node}"));
        let machine = status.observed["party"].machines.iter().find(|machine| machine.ips.contains(&ip));
        assert_eq!(machine.unwrap().instance, Some(instance));
    }
    // QEMU and its descriptor outlive the agent, and frames go on without one.
    let qemu = rig.instance(0, 0).unwrap().qemu_pid;
    let received = |instance: InstanceStatus| instance.counters.map(|counters| counters.rx_frames);
    let before = received(rig.instance(1, 1).unwrap()).unwrap();
    a.kill();
    let goes_on = || rig.instance(1, 1).and_then(received).filter(|now| *now > before + 10);
    eventually(SOON, goes_on).await.unwrap_or_else(|error| panic!("{error}\n{}", rig.logs()));
    let _a = rig.start_agent(0);
    rig.until(0, 0, |status| status.state == State::Live && status.qemu_pid == qemu && status.link == Some(true));
    let status = rig.status(0).unwrap();
    assert_eq!((mode(&status), &status.fabric_problems), (Some("macvlan"), &Vec::new()));
}
