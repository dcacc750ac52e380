//! A guest moves from one LAN to another while its QEMU holds the tap: what it sends and hears, and which address it is given.
use std::{collections::BTreeSet, net::Ipv4Addr, path::Path};

use dhcproto::v4::{DhcpOption, Message, MessageType};
use fabric::FabricStatus;
use model::{MacAddr, Snapshot};
use testkit::{Frame, Numbered, Tap, eventually};

use crate::{
    cluster::{SOON, netlink},
    dhcp,
    lans::{Nodes, id, lans, snapshot},
};

/// Of each kind.
const FRAMES: u32 = 200;
const BROADCAST: [u8; 6] = [0xff; 6];
/// The guest that moves: at seat 0 of `party`, on node 0.
const MOVER: MacAddr = MacAddr([2, 0x4c, 0, 0x10, 0x68, 1]);
/// Who listens: LAN, seat, node.
const OTHERS: [(&str, u8, usize); 4] = [("party", 1, 0), ("party", 2, 1), ("other", 0, 0), ("other", 1, 1)];

fn card(who: usize) -> [u8; 6] {
    let (lan, seat, _) = OTHERS[who];
    [2, 0x4c, 0, 0x10, if lan == "party" { 0x68 } else { 0x69 }, seat + 1]
}

const fn number(kind: u8, sequence: u32) -> Numbered {
    Numbered { kind, sender: 0, sequence }
}

/// What a tap has heard so far of each kind.
#[derive(Default)]
struct Ear(BTreeSet<(u8, u32)>);

impl Ear {
    fn listen(&mut self, tap: &Tap) {
        let numbers = tap.drain().unwrap().into_iter().filter_map(|frame| Numbered::find(&frame));
        self.0.extend(numbers.map(|number| (number.kind, number.sequence)));
    }

    fn of(&self, kind: u8) -> Vec<u32> {
        self.0.iter().filter(|(of, _)| *of == kind).map(|(_, sequence)| *sequence).collect()
    }

    /// Waits until all of that kind are there.
    async fn all_of(&mut self, tap: &Tap, kind: u8, count: u32) {
        let all = || {
            self.listen(tap);
            (self.of(kind).len() == count as usize).then_some(())
        };
        eventually(SOON, all).await.unwrap();
    }
}

async fn ask(tap: &Tap, options: &[DhcpOption]) -> Message {
    tap.send(&dhcp::request(MOVER, options)).await.unwrap();
    dhcp::reply(tap, SOON).await.expect("an answer")
}

/// A client that comes back with the address it had (RFC 2131 section 3.2).
fn init_reboot(address: Ipv4Addr) -> [DhcpOption; 2] {
    [DhcpOption::MessageType(MessageType::Request), DhcpOption::RequestedIpAddress(address)]
}

fn tap_index(netns: &Path) -> u32 {
    netlink::inside(netns, async |handle| netlink::index(&handle, "locot001068-0").await)
}

async fn until(nodes: &Nodes, node: usize, holds: impl Fn(&FabricStatus) -> bool) -> FabricStatus {
    let status = nodes.fabrics[node].status();
    let probe = || Some(status.borrow().clone()).filter(|status| holds(status));
    eventually(SOON, probe).await.unwrap_or_else(|error| panic!("{error}; {:#?}", *status.borrow()))
}

/// In that LAN, by what the kernel has, and every node knows it.
async fn until_in(nodes: &Nodes, lan: &str, spec: u64) {
    for node in 0..2 {
        let all = |status: &FabricStatus| {
            status.spec_seen >= spec
                && status.problems.is_empty()
                && status.lans.values().all(|lan| lan.mode.is_some())
                // One that counts as dead is sent nothing; each LAN has two nodes.
                && status.peers.len() == 2
                && status.peers.iter().all(|peer| peer.alive == Some(true))
                && (node == 1
                    || status
                        .ports
                        .get(&id("party", 0))
                        .is_some_and(|port| port.lan.as_str() == lan && port.carrier == Some(true)))
        };
        until(nodes, node, all).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_guest_that_moves_is_in_one_lan_at_a_time_and_gets_its_address() {
    let placed: Vec<_> = [("party", 0, 0)].into_iter().chain(OTHERS).collect();
    let home: Snapshot = snapshot(lans("10.97.0.0/24"), &placed);
    let nodes = Nodes::start(&home).await;
    let open = async |lan: &str, seat, node: usize| {
        Tap::from_fd(nodes.fabrics[node].open_tap(&id(lan, seat)).await.unwrap().net).unwrap()
    };
    let mover = open("party", 0, 0).await;
    let mut taps = Vec::new();
    for (lan, seat, node) in OTHERS {
        taps.push(open(lan, seat, node).await);
    }
    until_in(&nodes, "party", 1).await;
    let mut ears: [Ear; 4] = std::array::from_fn(|_| Ear::default());

    // At home: its own LAN hears it, on both nodes.
    let (old, new) = (Ipv4Addr::new(10, 98, 0, 1), Ipv4Addr::new(10, 97, 0, 3));
    assert_eq!(ask(&mover, &init_reboot(old)).await.opts().msg_type(), Some(MessageType::Ack));
    for sequence in 0..FRAMES {
        mover.send(&Frame::ethernet(BROADCAST, MOVER.0, number(1, sequence), 60)).await.unwrap();
    }
    for who in 0..2 {
        ears[who].all_of(&taps[who], 1, FRAMES).await;
    }

    // It moves, and does not stop talking.
    let index = tap_index(&nodes.configs[0].netns);
    let mut there = home.clone();
    there.move_to(&id("party", 0), &"other".parse().unwrap(), None).unwrap();
    nodes.follow(&there);
    let arrived = until_in(&nodes, "other", 2);
    tokio::pin!(arrived);
    let mut sequence = 0;
    loop {
        mover.send(&Frame::ethernet(BROADCAST, MOVER.0, number(2, sequence), 60)).await.unwrap();
        sequence += 1;
        taps.iter().zip(&mut ears).for_each(|(tap, ear)| ear.listen(tap));
        let pause = tokio::time::sleep(std::time::Duration::from_millis(1));
        tokio::select! { () = &mut arrived => break, () = pause => {} }
    }

    // There: the other LAN hears it, and hears all.
    for sequence in 0..FRAMES {
        mover.send(&Frame::ethernet(BROADCAST, MOVER.0, number(3, sequence), 60)).await.unwrap();
    }
    for who in 2..4 {
        ears[who].all_of(&taps[who], 3, FRAMES).await;
    }
    // It hears the LAN where it is, from both nodes, also by its card's address, and not the one that it left.
    for (who, kind) in (0..4).zip(10u8..) {
        taps[who].send(&Frame::ethernet(MOVER.0, card(who), number(kind, 0), 60)).await.unwrap();
        taps[who].send(&Frame::ethernet(BROADCAST, card(who), number(kind, 1), 60)).await.unwrap();
    }
    let mut own = Ear::default();
    own.all_of(&mover, 12, 2).await;
    own.all_of(&mover, 13, 2).await;
    // Frames keep their order: where the other node's last one to all is, those before it have been, or never come.
    for (ear, from) in [(1, 10), (0, 11)] {
        let last = || {
            ears[ear].listen(&taps[ear]);
            ears[ear].of(from).contains(&1).then_some(())
        };
        eventually(SOON, last).await.unwrap();
    }
    own.listen(&mover);
    assert_eq!((own.of(10), own.of(11)), (vec![], vec![]), "from the LAN that it left");
    taps.iter().zip(&mut ears).for_each(|(tap, ear)| ear.listen(tap));
    let [party, far_party, other, far_other] = &ears;
    for (here, gone) in [(party, other), (far_party, far_other)] {
        assert_eq!((gone.of(1), here.of(3)), (vec![], vec![]), "in the wrong LAN");
        // While it arrived: never in both, and never back.
        let (last, first) = (here.of(2).into_iter().max(), gone.of(2).into_iter().min());
        assert!(last.zip(first).is_none_or(|(last, first)| last < first), "{last:?} {first:?}");
    }
    assert_eq!(tap_index(&nodes.configs[0].netns), index, "it is the tap that its QEMU has held all the time");

    // Its old address is not of this LAN, and it is told so; a new one is there for it.
    assert_eq!(ask(&mover, &init_reboot(old)).await.opts().msg_type(), Some(MessageType::Nak));
    let offer = ask(&mover, &[DhcpOption::MessageType(MessageType::Discover)]).await;
    assert_eq!((offer.opts().msg_type(), offer.yiaddr()), (Some(MessageType::Offer), new));
    let ack = ask(&mover, &init_reboot(new)).await;
    assert_eq!((ack.opts().msg_type(), ack.yiaddr()), (Some(MessageType::Ack), new));
    let in_use = |status: &FabricStatus| status.ports[&id("party", 0)].address_in_use == Some(new);
    let settled = until(&nodes, 0, in_use).await;

    // All is as it should be: another look writes nothing.
    nodes.follow(&there);
    let seen = until(&nodes, 0, |status| status.spec_seen == 3).await;
    assert_eq!((seen.netlink_writes, seen.problems), (settled.netlink_writes, vec![]));
}
