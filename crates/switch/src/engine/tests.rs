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

/// A foreign machine, by the end that brings its frames.
struct Stranger {
    end: Guest,
    ended: oneshot::Receiver<ForeignEnd>,
}

const STRANGER: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

impl Stranger {
    async fn at(switch: &Switch, machine: &str) -> Result<Self, SwitchError> {
        let (ours, theirs) = Guest::pair();
        let plug =
            ForeignPlug { lan: "party".parse().unwrap(), machine: machine.to_owned(), remote: "192.0.2.7".to_owned() };
        Ok(Self { end: ours, ended: switch.plug_foreign(plug, theirs).await? })
    }

    /// Why it was unplugged.
    async fn end(self) -> ForeignEnd {
        tokio::time::timeout(WAIT, self.ended).await.unwrap().unwrap()
    }
}

/// The foreign machines that a switch shows, once `want` holds.
async fn shown(switch: &Switch, want: impl Fn(&[ForeignStatus]) -> bool) -> LanStatus {
    let lan = || switch.status().borrow().lans.values().next().cloned().filter(|lan| want(&lan.foreign));
    eventually(WAIT, lan).await.unwrap()
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
    let discover = dhcp(mac(0).0, &[53, 1, 1, 255]);
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

/// A DHCP discover or the like, from `mac`, to all.
fn dhcp(mac: [u8; 6], options: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 14 + 20 + 8 + 300];
    frame[..14].copy_from_slice(&[&[0xff; 6][..], &mac, &[8, 0]].concat());
    frame[14..34].copy_from_slice(&[0x45, 0, 1, 72, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
    frame[34..42].copy_from_slice(&[0, 68, 0, 67, 1, 52, 0, 0]);
    frame[42..50].copy_from_slice(&[1, 1, 6, 0, 1, 2, 3, 4]);
    frame[70..76].copy_from_slice(&mac);
    frame[278..282].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    frame[282..282 + options.len()].copy_from_slice(options);
    frame
}

#[tokio::test]
async fn a_foreign_machine_is_on_the_lan_of_all_nodes() {
    let snapshot = snapshot("socket", &[("i-0", 0, "a"), ("i-2", 2, "b")]);
    let (a, b) = (node("a", 2, PORT + 7, &snapshot).await, node("b", 3, PORT + 7, &snapshot).await);
    let (zero, two) = (Guest::at(&a, "i-0").await, Guest::at(&b, "i-2").await);
    let stranger = Stranger::at(&a, "pc").await.unwrap();
    stranger.end.say(&Frame::ethernet([0xff; 6], STRANGER, number(1), 60));
    assert_eq!((zero.hears().await, two.hears().await), (number(1), number(1)));
    for (guest, seat) in [(&zero, 0), (&two, 2)] {
        stranger.end.say(&Frame::ethernet(mac(seat).0, STRANGER, number(2), 1500));
        assert_eq!(guest.hears().await, number(2));
        guest.say(&Frame::ethernet(STRANGER, mac(seat).0, number(3), 1500));
        assert_eq!(stranger.end.hears().await, number(3));
    }
    // What is for all comes here as well; what is between two others does not.
    zero.say(&Frame::ethernet([0xff; 6], mac(0).0, number(4), 60));
    zero.say(&Frame::ethernet(mac(2).0, mac(0).0, number(5), 60));
    assert_eq!((two.hears().await, two.hears().await), (number(4), number(5)));
    assert_eq!(stranger.end.hears().await, number(4));
    assert!(stranger.end.hears_nothing_numbered());
    let lan = shown(&a, |foreign| foreign.iter().any(|one| one.counters.tx_frames >= 3)).await;
    let told = &lan.foreign[0];
    assert_eq!((told.card, told.remote.as_str()), (Some(MacAddr(STRANGER)), "192.0.2.7"));
    // It goes, and with it everything of it but what was counted.
    drop(stranger);
    let lan = shown(&a, <[_]>::is_empty).await;
    assert_eq!((lan.foreign_totals.plugged, lan.foreign_totals.counters.tx_frames), (0, 3));
}

#[tokio::test]
async fn a_foreign_machine_has_one_card_that_is_nobody_elses() {
    let snapshot = snapshot("socket", &[("i-0", 0, "a"), ("i-2", 2, "b")]);
    let (a, b) = (node("a", 2, PORT + 8, &snapshot).await, node("b", 3, PORT + 8, &snapshot).await);
    let (zero, two) = (Guest::at(&a, "i-0").await, Guest::at(&b, "i-2").await);
    // A seat's, here and at the other node, and the edge's.
    for taken in [mac(0).0, mac(2).0, [2, 0x4c, 0, 0x10, 0x68, 0xff]] {
        let thief = Stranger::at(&a, "thief").await.unwrap();
        thief.end.say(&Frame::ethernet([0xff; 6], taken, number(1), 60));
        let why = thief.end().await;
        assert!(why.is_final() && matches!(why, ForeignEnd::CardTaken { .. }), "{why}");
    }
    let nobody = Stranger::at(&a, "nobody").await.unwrap();
    nobody.end.say(&Frame::ethernet([0xff; 6], [0xff; 6], number(1), 60));
    assert!(matches!(nobody.end().await, ForeignEnd::NoCard { .. }));
    assert!(zero.hears_nothing_numbered());
    // Its own, from which it may not speak as another.
    let stranger = Stranger::at(&a, "pc").await.unwrap();
    stranger.end.say(&Frame::ethernet([0xff; 6], STRANGER, number(2), 60));
    assert_eq!(zero.hears().await, number(2));
    stranger.end.say(&Frame::ethernet([0xff; 6], mac(2).0, number(3), 60));
    stranger.end.say(&[1; 9]);
    stranger.end.say(&[1; 1600]);
    stranger.end.say(&Frame::ethernet([0xff; 6], STRANGER, number(4), 60));
    assert_eq!(zero.hears().await, number(4));
    let lan = shown(&a, |foreign| foreign[0].refused.len() == 3).await;
    assert_eq!(lan.foreign[0].refused, [(Refusal::Runt, 1), (Refusal::TooLong, 1), (Refusal::ForeignSource, 1)].into());
    // Another machine with that card, at this node and at the other one.
    let second = Stranger::at(&a, "second").await.unwrap();
    second.end.say(&Frame::ethernet([0xff; 6], STRANGER, number(5), 60));
    assert!(matches!(second.end().await, ForeignEnd::CardTaken { .. }));
    stranger.end.say(&Frame::ethernet(mac(2).0, STRANGER, number(6), 60));
    assert_eq!(two.hears().await, number(2));
    let elsewhere = Stranger::at(&b, "second").await.unwrap();
    elsewhere.end.say(&Frame::ethernet([0xff; 6], STRANGER, number(7), 60));
    let why = elsewhere.end().await;
    assert!(!why.is_final() && matches!(why, ForeignEnd::Elsewhere { .. }), "{why}");
    // The same machine again takes its own place, and its card.
    let again = Stranger::at(&a, "pc").await.unwrap();
    assert_eq!(stranger.end().await, ForeignEnd::Replaced);
    again.end.say(&Frame::ethernet(mac(0).0, STRANGER, number(8), 60));
    assert_eq!(zero.hears().await, number(8));
    // A LAN that leaves the node takes it along.
    a.set_spec(&FabricSpec::from_snapshot(&self::snapshot("user", &[("i-0", 0, "a")]), &"a".parse().unwrap()));
    assert!(matches!(again.end().await, ForeignEnd::NoLan(_)));
    assert!(matches!(Stranger::at(&a, "pc").await, Err(SwitchError::NoLan(_))));
}

#[tokio::test]
async fn a_foreign_machine_is_given_an_address_that_no_seat_has() {
    let snapshot = snapshot("socket", &[("i-0", 0, "a")]);
    let a = node("a", 2, PORT + 9, &snapshot).await;
    let zero = Guest::at(&a, "i-0").await;
    let (one, two) = (Stranger::at(&a, "one").await.unwrap(), Stranger::at(&a, "two").await.unwrap());
    let second = [0x52, 0x54, 0, 0x12, 0x34, 0x57];
    let mut offers = Vec::new();
    let offer = async |stranger: &Stranger, mac: [u8; 6]| {
        stranger.end.say(&dhcp(mac, &[53, 1, 1, 255]));
        let offer = || stranger.end.heard().filter(|frame| frame.get(34..38) == Some(&[0, 67, 0, 68]));
        let offer = eventually(WAIT, offer).await.unwrap();
        <[u8; 4]>::try_from(&offer[58..62]).unwrap()
    };
    for (stranger, mac) in [(&one, STRANGER), (&two, second), (&one, STRANGER)] {
        offers.push(offer(stranger, mac).await);
    }
    assert_eq!(offers[0], offers[2], "the same card, the same address");
    assert_ne!(offers[0], offers[1]);
    for offer in &offers {
        assert!(offer[..3] == [10, 98, 0] && (10..254).contains(&offer[3]), "{offer:?}");
    }
    // What it asks for it gets, and is shown with it; what it declines it is not offered again.
    let asked = [&[53, 1, 3, 50, 4][..], &offers[0], &[255]].concat();
    one.end.say(&dhcp(STRANGER, &asked));
    shown(&a, |foreign| foreign[0].address_in_use == Some(offers[0].into())).await;
    // The acknowledgement is not the next offer.
    eventually(WAIT, || one.end.heard().filter(|frame| frame.get(34..38) == Some(&[0, 67, 0, 68]))).await.unwrap();
    one.end.say(&dhcp(STRANGER, &[&[53, 1, 4, 50, 4][..], &offers[0], &[255]].concat()));
    let next = offer(&one, STRANGER).await;
    assert!(next != offers[0] && next != offers[1], "{next:?}");
    // No DHCP server of its own.
    let mut server = dhcp(STRANGER, &[53, 1, 2, 255]);
    server[34..38].copy_from_slice(&[0, 67, 0, 68]);
    one.end.say(&server);
    shown(&a, |foreign| foreign[0].refused.contains_key(&Refusal::DhcpServer)).await;
    let servers = std::iter::from_fn(|| zero.heard()).filter(|frame| frame.get(34..38) == Some(&[0, 67, 0, 68]));
    assert_eq!(servers.count(), 0);
}

#[tokio::test]
async fn so_many_foreign_machines_and_no_more() {
    let snapshot = snapshot("socket", &[("i-0", 0, "a")]);
    let a = node("a", 2, PORT + 10, &snapshot).await;
    let mut plugged = Vec::new();
    for number in 0..FOREIGN_MAX {
        plugged.push(Stranger::at(&a, &number.to_string()).await.unwrap());
    }
    assert!(matches!(Stranger::at(&a, "more").await, Err(SwitchError::Full(_))));
    // One of them again is none more.
    plugged.push(Stranger::at(&a, "0").await.unwrap());
    plugged.remove(1);
    shown(&a, |foreign| foreign.len() == FOREIGN_MAX - 1).await;
    plugged.push(Stranger::at(&a, "more").await.unwrap());
    shown(&a, |foreign| foreign.len() == FOREIGN_MAX).await;
}

#[tokio::test]
async fn a_foreign_machine_that_does_not_read_costs_the_others_nothing() {
    let snapshot = snapshot("socket", &[("i-0", 0, "a"), ("i-1", 1, "a")]);
    let a = node("a", 2, PORT + 11, &snapshot).await;
    let (zero, one) = (Guest::at(&a, "i-0").await, Guest::at(&a, "i-1").await);
    let deaf = Stranger::at(&a, "deaf").await.unwrap();
    deaf.end.say(&Frame::ethernet([0xff; 6], STRANGER, number(0), 60));
    assert_eq!(zero.hears().await, number(0));
    for sequence in 0..4_000 {
        zero.say(&Frame::ethernet(STRANGER, mac(0).0, number(sequence), 1000));
    }
    zero.say(&Frame::ethernet(mac(1).0, mac(0).0, number(7), 60));
    assert_eq!(
        eventually(WAIT, || Numbered::find(&one.heard()?).filter(|n| *n == number(7))).await.unwrap(),
        number(7)
    );
    shown(&a, |foreign| foreign[0].counters.rx_dropped > 0).await;
}

#[tokio::test]
async fn a_marked_frame_is_seen_at_each_hop() {
    let snapshot = snapshot("socket", &[("i-0", 0, "a"), ("i-2", 2, "b")]);
    let (a, b) = (node("a", 2, PORT + 12, &snapshot).await, node("b", 3, PORT + 12, &snapshot).await);
    let (zero, two) = (Guest::at(&a, "i-0").await, Guest::at(&b, "i-2").await);
    let lan = "party".parse().unwrap();
    let (mark, limit) = (b"LOCOTRACE1".to_vec(), Duration::from_secs(2));
    let question = [&mac(0).0[..], &mac(2).0, &[8, 0], b"LOCOTRACE1", &[0; 40]].concat();
    let answer = [&mac(2).0[..], &mac(0).0, &[8, 0], b"LOCOTRACE1", &[0; 40]].concat();
    // The guest answers what it hears, as its stack would.
    let answering = async {
        let asked = || zero.heard().filter(|frame| *frame == question);
        eventually(WAIT, asked).await.unwrap();
        zero.say(&answer);
        eventually(WAIT, || two.heard().filter(|frame| *frame == answer)).await.unwrap();
    };
    let (at_a, at_b, ()) = tokio::join!(
        a.trace(&lan, Some((id("i-0"), question.clone())), mark.clone(), limit),
        b.trace(&lan, None, mark.clone(), limit),
        answering
    );
    let sighting = |device: &str, outgoing, source| Sighting { device: device.to_owned(), outgoing, source };
    let want = [sighting("i-0", true, mac(2)), sighting("i-0", false, mac(0)), sighting(MESH, true, mac(0))];
    assert_eq!(at_a.unwrap(), want);
    assert_eq!(at_b.unwrap(), [sighting(MESH, false, mac(0)), sighting("i-2", true, mac(0))]);
    let nowhere = a.trace(&"other".parse().unwrap(), None, mark, limit).await;
    assert!(matches!(nowhere, Err(SwitchError::NoLan(_))));
}

#[tokio::test]
async fn full_frames_are_asked_about_over_the_mesh() {
    let snapshot = snapshot("socket", &[("i-0", 0, "a"), ("i-2", 2, "b")]);
    let (a, _b) = (node("a", 2, PORT + 13, &snapshot).await, node("b", 3, PORT + 13, &snapshot).await);
    let full = || a.status().borrow().lans.values().next()?.peers.values().next()?.full_frames;
    assert!(eventually(WAIT, full).await.unwrap());
}

/// Of two LANs, `party` and `other` (VNI 4201, another subnet), with `i-0` where it is said.
fn two_lans(place: &str) -> Snapshot {
    let lan = |name: &str, vni: u32, net: u8| {
        format!(r#"{{"name":"{name}","vni":{vni},"mode":"socket","subnet":"10.{net}.0.0/24","seats":9}}"#)
    };
    let text = format!(
        r#"{{"version":1,"lans":[{},{}],
        "nodes":[{{"name":"a","underlay_ip":"127.0.0.2","agent_url":"u"}},{{"name":"b","underlay_ip":"127.0.0.3","agent_url":"u"}}],
        "instances":[{{"id":"i-0","node":"a",{place}}},{{"id":"i-1","lan":"party","seat":1,"node":"a"}},
                     {{"id":"i-2","lan":"other","seat":0,"node":"a"}},{{"id":"i-3","lan":"other","seat":1,"node":"b"}}]}}"#,
        lan("party", 4200, 98),
        lan("other", 4201, 97)
    );
    api::snapshot::parse(&text).unwrap()
}

#[tokio::test]
async fn a_guest_that_moves_is_heard_in_its_new_lan_alone_and_keeps_its_cable() {
    let home = two_lans(r#""lan":"party","seat":0"#);
    let (a, b) = (node("a", 2, PORT + 14, &home).await, node("b", 3, PORT + 14, &home).await);
    let zero = Guest::at(&a, "i-0").await;
    let (one, two) = (Guest::at(&a, "i-1").await, Guest::at(&a, "i-2").await);
    let three = Guest::at(&b, "i-3").await;
    let to_all = |sequence| Frame::ethernet([0xff; 6], mac(0).0, number(sequence), 60);
    zero.say(&to_all(1));
    assert_eq!(one.hears().await, number(1));
    let shown = |seat: u8| {
        let lan = if seat == 0 { "party" } else { "other" };
        let status = a.status().borrow().ports.get(&id("i-0")).cloned();
        status.filter(|port| port.lan.as_str() == lan && port.seat.0 == seat && port.plugged)
    };
    assert_eq!(
        eventually(WAIT, || shown(0).filter(|port| port.counters.tx_frames == 1)).await.unwrap().counters.tx_frames,
        1
    );

    let there = two_lans(r#""lan":"other","seat":5,"card":"02:4c:00:10:68:01""#);
    for (switch, name) in [(&a, "a"), (&b, "b")] {
        switch.set_spec(&FabricSpec::from_snapshot(&there, &name.parse().unwrap()));
    }
    eventually(WAIT, || shown(5)).await.unwrap();
    eventually(WAIT, || (b.status().borrow().spec_seen == 2).then_some(())).await.unwrap();
    // One that was asked before it listened is flooded for once it has answered.
    let answers = |switch: &Switch| {
        let status = switch.status().borrow().clone();
        let lan = status.lans.get(&"other".parse().unwrap());
        lan.is_some_and(|lan| lan.peers.values().all(|peer| peer.alive == Some(true)))
    };
    eventually(WAIT, || (answers(&a) && answers(&b)).then_some(())).await.unwrap();
    zero.say(&to_all(2));
    assert_eq!((two.hears().await, three.hears().await), (number(2), number(2)));
    // Over the mesh to its card, and not to those it left.
    three.say(&Frame::ethernet(mac(0).0, [2, 0x4c, 0, 0x10, 0x69, 2], number(3), 60));
    assert_eq!(zero.hears().await, number(3));
    one.say(&Frame::ethernet([0xff; 6], mac(1).0, number(4), 60));
    two.say(&Frame::ethernet([0xff; 6], [2, 0x4c, 0, 0x10, 0x69, 1], number(5), 60));
    assert_eq!(zero.hears().await, number(5), "only its own LAN's");
    assert!(one.hears_nothing_numbered(), "the LAN it left hears nothing");
    let counters = eventually(WAIT, || shown(5).filter(|port| port.counters.tx_frames == 2)).await.unwrap().counters;
    assert_eq!(counters.tx_frames, 2, "it is the same port, so its counters go on");

    // And home again.
    a.set_spec(&FabricSpec::from_snapshot(&home, &"a".parse().unwrap()));
    eventually(WAIT, || shown(0)).await.unwrap();
    zero.say(&to_all(6));
    assert_eq!(one.hears().await, number(6));
    assert!(two.hears_nothing_numbered());
}
