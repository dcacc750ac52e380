//! Two nodes as two loopback addresses; the test holds the guests' ends, as QEMU would.
use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use fabric::FabricSpec;
use model::{InstanceId, MacAddr, NodeName, Snapshot};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use testkit::{Frame, Numbered, eventually};

use super::*;

const WAIT: Duration = Duration::from_secs(10);
/// Ports of the mesh: one a test, so that tests run side by side.
const PORT: u16 = 24789;

fn snapshot(mode: &str, seats: &[(&str, u8, &str)]) -> Snapshot {
    let instances: Vec<_> = seats
        .iter()
        .map(|(id, seat, node)| format!(r#"{{"id":"{id}","lan":"party","seat":{seat},"node":"{node}"}}"#))
        .collect();
    let text = format!(
        r#"{{"version":1,"lans":[{{"name":"party","vni":4200,"mode":"{mode}","subnet":"10.98.0.0/24","seats":9}}],
        "nodes":[{{"name":"a","underlay_ip":"127.0.0.2","agent_url":"u"}},{{"name":"b","underlay_ip":"127.0.0.3","agent_url":"u"}}],
        "instances":[{}]}}"#,
        instances.join(",")
    );
    api::snapshot::parse(&text).unwrap()
}

fn id(name: &str) -> InstanceId {
    name.parse().unwrap()
}

fn mac(seat: u8) -> MacAddr {
    snapshot("socket", &[]).lan(&"party".parse().unwrap()).unwrap().identity(Seat(seat)).unwrap().mac
}

async fn node(name: &str, last: u8, port: u16, snapshot: &Snapshot) -> Switch {
    let underlay = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), port);
    let switch = Switch::start(SwitchConfig { underlay }, Box::new(())).await.unwrap();
    let name: NodeName = name.parse().unwrap();
    switch.set_spec(&FabricSpec::from_snapshot(snapshot, &name));
    switch
}

/// QEMU's end of a guest's cable.
struct Guest(OwnedFd);

impl Guest {
    fn pair() -> (Self, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        (Self(ours), theirs)
    }

    async fn at(switch: &Switch, instance: &str) -> Self {
        let (guest, socket) = Self::pair();
        switch.plug(&id(instance), socket).await.unwrap();
        guest
    }

    fn say(&self, frame: &[u8]) {
        assert_eq!(send(self.0.as_raw_fd(), frame, MsgFlags::empty()).unwrap(), frame.len());
    }

    fn heard(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        let len = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
        Some(buffer[..len].to_vec())
    }

    /// The next frame with a number, past questions of the edge and the like.
    async fn hears(&self) -> Numbered {
        eventually(WAIT, || Numbered::find(&self.heard()?)).await.unwrap()
    }

    fn hears_nothing_numbered(&self) -> bool {
        std::iter::from_fn(|| self.heard()).all(|frame| Numbered::find(&frame).is_none())
    }
}

const fn number(sequence: u32) -> Numbered {
    Numbered { kind: 4, sender: 0, sequence }
}

#[tokio::test]
async fn frames_cross_between_guests_of_one_node_and_of_two() {
    let snapshot = snapshot("socket", &[("i-0", 0, "a"), ("i-1", 1, "a"), ("i-2", 2, "b")]);
    let (a, b) = (node("a", 2, PORT, &snapshot).await, node("b", 3, PORT, &snapshot).await);
    let (zero, one, two) = (Guest::at(&a, "i-0").await, Guest::at(&a, "i-1").await, Guest::at(&b, "i-2").await);
    zero.say(&Frame::ethernet([0xff; 6], mac(0).0, number(1), 60));
    assert_eq!((one.hears().await, two.hears().await), (number(1), number(1)));
    // A full frame, unicast, over the mesh, and one back.
    zero.say(&Frame::ethernet(mac(2).0, mac(0).0, number(2), 1500));
    assert_eq!(two.hears().await, number(2));
    two.say(&Frame::ethernet(mac(0).0, mac(2).0, number(3), 1500));
    assert_eq!(zero.hears().await, number(3));
    assert!(one.hears_nothing_numbered(), "unicast is for one");
    // The nodes know of each other, and of the guests that were seen.
    let alive = || {
        let status = a.status().borrow().clone();
        status.lans.values().next()?.peers.values().next()?.alive.filter(|alive| *alive)
    };
    eventually(WAIT, alive).await.unwrap();
    // A status older than the last frame is none to judge by.
    let counted = || {
        let counters = a.status().borrow().ports.get(&id("i-0"))?.counters;
        Some(counters).filter(|counters| counters.rx_frames >= 1 && counters.tx_frames >= 2)
    };
    let counters = eventually(WAIT, counted).await.unwrap();
    assert_eq!(counters.tx_frames, 2);
}

#[tokio::test]
async fn what_a_guest_may_not_send_reaches_nobody_and_is_counted() {
    let snapshot = snapshot("socket", &[("i-0", 0, "a"), ("i-1", 1, "a")]);
    let a = node("a", 2, PORT + 1, &snapshot).await;
    let (zero, one) = (Guest::at(&a, "i-0").await, Guest::at(&a, "i-1").await);
    zero.say(&Frame::ethernet([0xff; 6], mac(5).0, number(1), 60));
    zero.say(&[1; 9]);
    zero.say(&[1; 1600]);
    zero.say(&Frame::ethernet(mac(1).0, mac(0).0, number(2), 60));
    assert_eq!(one.hears().await, number(2), "only what is allowed");
    let refused = || Some(a.status().borrow().ports.get(&id("i-0"))?.refused.clone()).filter(|r| r.len() == 3);
    let refused = eventually(WAIT, refused).await.unwrap();
    assert_eq!(refused, [(Refusal::Runt, 1), (Refusal::TooLong, 1), (Refusal::ForeignSource, 1)].into());
}

#[tokio::test]
async fn a_stranger_on_the_underlay_is_not_heard() {
    let snapshot = snapshot("socket", &[("i-0", 0, "a"), ("i-2", 2, "b")]);
    let a = node("a", 2, PORT + 2, &snapshot).await;
    let zero = Guest::at(&a, "i-0").await;
    let stranger = tokio::net::UdpSocket::bind("127.0.0.9:0").await.unwrap();
    let vni = Vni::new(4200).unwrap();
    let frame = Frame::ethernet(mac(0).0, mac(2).0, number(1), 60);
    let datagram = [&crate::mesh::header(vni)[..], &frame].concat();
    stranger.send_to(&datagram, ("127.0.0.2", PORT + 2)).await.unwrap();
    eventually(WAIT, || (a.status().borrow().strays == 1).then_some(())).await.unwrap();
    assert!(zero.hears_nothing_numbered());
}

#[tokio::test]
async fn a_guest_that_does_not_read_costs_the_others_nothing() {
    let snapshot = snapshot("socket", &[("i-0", 0, "a"), ("i-1", 1, "a"), ("i-2", 2, "a")]);
    let a = node("a", 2, PORT + 3, &snapshot).await;
    let (zero, deaf, two) = (Guest::at(&a, "i-0").await, Guest::at(&a, "i-1").await, Guest::at(&a, "i-2").await);
    for sequence in 0..4_000 {
        zero.say(&Frame::ethernet(mac(1).0, mac(0).0, number(sequence), 1000));
    }
    zero.say(&Frame::ethernet(mac(2).0, mac(0).0, number(7), 60));
    assert_eq!(two.hears().await, number(7));
    let all = || {
        let counters = a.status().borrow().ports.get(&id("i-1"))?.counters;
        (counters.rx_dropped > 0).then_some(counters)
    };
    let counters = eventually(WAIT, all).await.unwrap();
    assert!(counters.rx_frames > 0, "{counters:?}");
    // Once it reads, it gets what waited, in order, and without a gap before the first one that was lost.
    for sequence in 0..u32::try_from(counters.rx_frames).unwrap() + 1000 {
        assert_eq!(deaf.hears().await, number(sequence));
    }
}

#[tokio::test]
async fn an_address_is_given_by_the_edge_of_the_own_node() {
    let snapshot = snapshot("socket", &[("i-0", 0, "a"), ("i-2", 2, "b")]);
    let (a, b) = (node("a", 2, PORT + 4, &snapshot).await, node("b", 3, PORT + 4, &snapshot).await);
    let (zero, two) = (Guest::at(&a, "i-0").await, Guest::at(&b, "i-2").await);
    let mut discover = vec![0; 14 + 20 + 8 + 300];
    discover[..14].copy_from_slice(&[&[0xff; 6][..], &mac(0).0, &[8, 0]].concat());
    discover[14..34].copy_from_slice(&[0x45, 0, 1, 72, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
    discover[34..42].copy_from_slice(&[0, 68, 0, 67, 1, 52, 0, 0]);
    discover[42..50].copy_from_slice(&[1, 1, 6, 0, 1, 2, 3, 4]);
    discover[70..76].copy_from_slice(&mac(0).0);
    discover[278..286].copy_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    zero.say(&discover);
    let offer = || zero.heard().filter(|frame| frame.get(34..38) == Some(&[0, 67, 0, 68]));
    let offer = eventually(WAIT, offer).await.unwrap();
    assert_eq!(offer[58..62], [10, 98, 0, 1], "yiaddr of seat 0");
    // Frames keep their order, so what comes after it has come after it at the other node, too.
    zero.say(&Frame::ethernet(mac(2).0, mac(0).0, number(1), 60));
    let after =
        || two.heard().filter(|frame| frame.get(34..38) == Some(&[0, 68, 0, 67]) || Numbered::find(frame).is_some());
    assert_eq!(Numbered::find(&eventually(WAIT, after).await.unwrap()), Some(number(1)), "no question crosses nodes");
}

#[tokio::test]
async fn a_successor_that_is_given_the_cables_goes_on() {
    let snapshot = snapshot("socket", &[("i-0", 0, "a"), ("i-1", 1, "a")]);
    let first = node("a", 2, PORT + 5, &snapshot).await;
    // The runner keeps a copy of what it hands over, so that the cable outlives the agent.
    let ((zero, end0), (one, end1)) = (Guest::pair(), Guest::pair());
    for (name, end) in [("i-0", &end0), ("i-1", &end1)] {
        first.plug(&id(name), end.try_clone().unwrap()).await.unwrap();
    }
    zero.say(&Frame::ethernet(mac(1).0, mac(0).0, number(1), 60));
    assert_eq!(one.hears().await, number(1));
    drop(first);
    // Nobody switches now: the frame waits in the cable.
    zero.say(&Frame::ethernet(mac(1).0, mac(0).0, number(2), 60));
    let second = node("a", 2, PORT + 5, &snapshot).await;
    for (name, end) in [("i-0", &end0), ("i-1", &end1)] {
        second.plug(&id(name), end.try_clone().unwrap()).await.unwrap();
    }
    // The receiver is plugged in after the sender, whose frame waits for it.
    assert_eq!(one.hears().await, number(2));
    zero.say(&Frame::ethernet(mac(1).0, mac(0).0, number(3), 60));
    assert_eq!(one.hears().await, number(3));
    let plugged = || second.status().borrow().ports.get(&id("i-0")).is_some_and(|port| port.plugged).then_some(());
    eventually(WAIT, plugged).await.unwrap();
    drop((zero, end0));
    let gone = || second.status().borrow().ports.get(&id("i-0")).is_some_and(|port| !port.plugged).then_some(());
    eventually(WAIT, gone).await.unwrap();
}

#[tokio::test]
async fn wrong_ends_and_wrong_places_are_refused_in_words() {
    let snapshot = snapshot("socket", &[("i-0", 0, "a")]);
    let a = node("a", 2, PORT + 6, &snapshot).await;
    let other = a.plug(&id("i-7"), Guest::pair().1).await.unwrap_err();
    assert!(other.to_string().contains("`i-7`"), "{other}");
    let (_end, stream) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let stream = a.plug(&id("i-0"), stream).await.unwrap_err();
    assert!(stream.to_string().contains("SOCK_SEQPACKET"), "{stream}");
    let underlay = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), PORT + 6);
    let second = Switch::start(SwitchConfig { underlay }, Box::new(())).await.unwrap();
    second.set_spec(&FabricSpec::from_snapshot(&snapshot, &"a".parse().unwrap()));
    let taken = eventually(WAIT, || second.status().borrow().problems.first().cloned()).await.unwrap();
    assert!(taken.contains("another agent"), "{taken}");
    a.end().await;
    eventually(WAIT, || second.status().borrow().problems.is_empty().then_some(())).await.unwrap();
    let ended = a.plug(&id("i-0"), Guest::pair().1).await.unwrap_err();
    assert!(matches!(ended, SwitchError::Ended), "{ended}");
    let a = second;
    // LANs of another mode are not this switch's.
    a.set_spec(&FabricSpec::from_snapshot(&self::snapshot("vxlan", &[("i-0", 0, "a")]), &"a".parse().unwrap()));
    eventually(WAIT, || a.status().borrow().ports.is_empty().then_some(())).await.unwrap();
}
