//! Guests on the real LAN: macvtaps over the nodes' own cards, which a bridge of the test joins in the place of somebody's switch.
use std::{
    path::Path,
    time::{Duration, Instant},
};

use fabric::{FabricError, FabricStatus};
use futures_util::TryStreamExt;
use model::NetworkMode;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_route::link::{InfoData, InfoMacVtap, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVtapMode};
use rtnetlink::{Handle, LinkBridge, LinkMacVtap, LinkMessageBuilder, LinkUnspec, LinkVeth};
use testkit::{Frame, Numbered, Tap, eventually};

use crate::{
    cluster::{Cluster, SOON, instance, mac, netlink},
    frames::{PLACES, every_kind_crosses_once},
};

const BROADCAST: [u8; 6] = [0xff; 6];
/// NetBEUI's: nobody on the machine joins it, so the kernel must be told to let it in.
const NETBIOS_GROUP: [u8; 6] = [3, 0, 0, 0, 0, 1];
const REPAIRED_WITHIN: Duration = Duration::from_secs(2);
const PORT: &str = "locom001068-0";

async fn over_cards(nodes: usize, places: &[usize]) -> Cluster {
    Cluster::of_mode(NetworkMode::Macvlan, nodes, places, None).await
}

/// Sends frames of that kind until one arrives.
async fn meets(from: &Tap, to: &Tap, destination: [u8; 6], sender: usize, kind: u8) {
    for sequence in 0..100 {
        let number = Numbered { kind, sender: u8::try_from(sender).unwrap(), sequence };
        // A link that is down at the moment refuses it; that is what is waited out.
        from.send(&Frame::ethernet(destination, mac(sender).0, number, 46)).await.ok();
        let heard = || {
            let frames = to.drain().unwrap();
            frames.iter().any(|frame| Numbered::find(frame).is_some_and(|number| number.kind == kind)).then_some(())
        };
        if eventually(Duration::from_millis(100), heard).await.is_ok() {
            return;
        }
    }
    panic!("no frame of kind {kind} arrived");
}

fn mode(status: &FabricStatus) -> Option<NetworkMode> {
    status.lans[&"party".parse().unwrap()].mode
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn every_kind_of_frame_crosses_once_over_the_cards() {
    every_kind_crosses_once(&over_cards(3, &PLACES).await, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn frames_for_a_group_that_only_guests_know_arrive() {
    let cluster = over_cards(2, &[0, 1, 0]).await;
    let (here, there, beside) = (cluster.tap(0).await, cluster.tap(1).await, cluster.tap(2).await);
    meets(&here, &there, NETBIOS_GROUP, 0, 1).await;
    meets(&here, &beside, NETBIOS_GROUP, 0, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_port_shows_its_holder_refuses_a_second_and_counts_as_the_guest_does() {
    let cluster = over_cards(1, &[0, 0]).await;
    let port = |status: &FabricStatus| status.ports[&instance(0)].clone();
    let free = cluster.until(0, |status| status.ports.len() == 2).await;
    assert_eq!((port(&free).tap.as_str(), port(&free).exists, port(&free).carrier), (PORT, true, Some(false)));
    assert_eq!((mode(&free), &free.problems), (Some(NetworkMode::Macvlan), &Vec::new()));
    let held = cluster.port(0).await;
    let before = port(&cluster.until(0, |status| port(status).carrier == Some(true)).await).counters.unwrap();
    let error = cluster.fabric(0).open_tap(&instance(0)).await.unwrap_err();
    assert!(matches!(error, FabricError::TapBusy { .. }), "{error}");

    let (tap, other) = (Tap::from_fd(held.net).unwrap(), cluster.port(1).await);
    let beside = Tap::from_fd(other.net).unwrap();
    for sequence in 0..100 {
        let number = |sender, kind| Numbered { kind, sender, sequence };
        tap.send(&Frame::ethernet(mac(1).0, mac(0).0, number(0, 0), 100)).await.unwrap();
        tap.send(&Frame::ethernet(BROADCAST, mac(0).0, number(0, 1), 100)).await.unwrap();
        beside.send(&Frame::ethernet(mac(0).0, mac(1).0, number(1, 2), 100)).await.unwrap();
    }
    let counted = |status: &FabricStatus| {
        let now = port(status).counters.unwrap();
        (now.tx_frames - before.tx_frames, now.rx_frames - before.rx_frames)
    };
    // The cards and the bridge between them have a few words of IPv6 of their own, which a guest on the real LAN hears too.
    cluster
        .until(0, |status| {
            let (sent, heard) = counted(status);
            sent == 200 && (100..200).contains(&heard)
        })
        .await;
    drop((tap, held.hold));
    cluster.until(0, |status| port(status).carrier == Some(false)).await;
    cluster.port(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_restart_adopts_the_ports_and_frames_go_on() {
    let mut cluster = over_cards(2, &[0, 1]).await;
    let (here, there) = (cluster.port(0).await, cluster.port(1).await);
    let (tap, far) = (Tap::from_fd(here.net).unwrap(), Tap::from_fd(there.net).unwrap());
    meets(&tap, &far, BROADCAST, 0, 1).await;
    for restart in 2..5 {
        // Dropping does no cleaning up: for the kernel it is what kill -9 is.
        cluster.fabrics[0] = None;
        meets(&tap, &far, BROADCAST, 0, restart).await;
        cluster.start(0).await;
        cluster.set_spec(0).await;
        let status = cluster.status(0);
        assert_eq!((status.netlink_writes, status.problems.len()), (0, 0), "{status:#?}");
        assert_eq!((status.ports[&instance(0)].carrier, mode(&status)), (Some(true), Some(NetworkMode::Macvlan)));
    }
    // A guest that the directory takes away keeps its port for as long as it holds it.
    cluster.place(&[1, 1]);
    cluster.set_spec(0).await;
    let status = cluster.until(0, |status| !status.problems.is_empty()).await;
    assert!(status.problems[0].contains(PORT) && status.problems[0].contains("stop that guest"), "{status:#?}");
    meets(&tap, &far, BROADCAST, 0, 9).await;
    drop((tap, here.hold));
    cluster.until(0, |status| status.problems.is_empty()).await;
    assert!(netlink::inside(cluster.netns(0), async |handle| find(&handle, PORT).await.is_none()));
}

async fn find(handle: &Handle, name: &str) -> Option<LinkMessage> {
    let mut links = Box::pin(handle.link().get().match_name(name).execute());
    links.try_next().await.ok().flatten()
}

/// Up, MAC, MTU, all groups, and bridge mode.
fn settings(netns: &Path) -> Option<(bool, Vec<u8>, u32, bool, bool)> {
    let link = netlink::inside(netns, async |handle| find(&handle, PORT).await)?;
    let has = |flag| link.header.flags.contains(flag);
    let (mut mac, mut mtu, mut bridged) = (Vec::new(), 0, false);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(octets) => mac.clone_from(octets),
            LinkAttribute::Mtu(octets) => mtu = *octets,
            LinkAttribute::LinkInfo(infos) => {
                bridged = infos.iter().any(|info| {
                    let LinkInfo::Data(InfoData::MacVtap(data)) = info else { return false };
                    data.contains(&InfoMacVtap::Mode(MacVtapMode::Bridge))
                });
            }
            _ => {}
        }
    }
    Some((has(LinkFlags::Up), mac, mtu, has(LinkFlags::Allmulti), bridged))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn what_is_altered_at_a_port_is_put_right_and_counted() {
    let cluster = over_cards(1, &[0]).await;
    let netns = cluster.netns(0);
    let well = settings(netns).unwrap();
    assert_eq!(well, (true, mac(0).0.to_vec(), 1500, true, true));
    let change = |what: fn(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>| {
        netlink::inside(netns, async move |handle| {
            let link = LinkUnspec::new_with_index(netlink::index(&handle, PORT).await);
            handle.link().set(what(link).build()).execute().await.unwrap();
        });
    };
    let keep_apart = || {
        netlink::inside(netns, async |handle| {
            let index = netlink::index(&handle, PORT).await;
            let apart = LinkMessageBuilder::<LinkMacVtap>::new(PORT).index(index).mode(MacVtapMode::Private).build();
            handle.link().add(apart).set_flags(NLM_F_REQUEST | NLM_F_ACK).execute().await.unwrap();
        });
    };
    let delete = || {
        netlink::inside(netns, async |handle| {
            let index = netlink::index(&handle, PORT).await;
            handle.link().del(index).execute().await.unwrap();
        });
    };
    let damages: [(&str, &dyn Fn()); 6] = [
        ("link", &|| change(LinkMessageBuilder::down)),
        ("mac", &|| change(|link| link.address(vec![2, 1, 1, 1, 1, 1]))),
        ("mtu", &|| change(|link| link.mtu(1400))),
        ("link", &|| change(|link| link.allmulticast(false))),
        ("link", &keep_apart),
        ("link", &delete),
    ];
    for (round, (object, damage)) in damages.into_iter().enumerate() {
        let repairs = cluster.fabric(0).repairs();
        let counted = repairs.get(object);
        damage();
        let start = Instant::now();
        let right = || (settings(netns).as_ref() == Some(&well) && repairs.get(object) > counted).then_some(());
        eventually(SOON, right).await.unwrap_or_else(|_| panic!("{object}, {round}: {:?}", settings(netns)));
        assert!(start.elapsed() < REPAIRED_WITHIN, "{object}, {round}: {:?}", start.elapsed());
    }
    // The card's own length is followed, both ways.
    for mtu in [1600, 1500] {
        netlink::inside(cluster.underlay.node(0).path(), async move |handle| {
            let card = LinkUnspec::new_with_index(netlink::index(&handle, "eth0").await).mtu(mtu).build();
            handle.link().set(card).execute().await.unwrap();
        });
        eventually(SOON, || settings(netns).filter(|(_, _, now, _, _)| *now == mtu)).await.unwrap();
    }
}

/// A card `lan0` of the node, with its cable plugged in.
async fn plug_card(handle: Handle) {
    handle.link().add(LinkVeth::new("lan0", "socket0").build()).execute().await.unwrap();
    for end in ["socket0", "lan0"] {
        let up = LinkUnspec::new_with_index(netlink::index(&handle, end).await).up().build();
        handle.link().set(up).execute().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_card_that_goes_and_comes_back_carries_guests_again() {
    let cluster = Cluster::of_mode(NetworkMode::Macvlan, 1, &[0, 0], Some("lan0")).await;
    let node = cluster.underlay.node(0).path();
    let missing = |status: &FabricStatus| status.problems.iter().any(|problem| problem.contains("no card `lan0`"));
    assert_eq!(mode(&cluster.until(0, missing).await), None);
    assert!(matches!(cluster.fabric(0).open_tap(&instance(0)).await, Err(FabricError::NoTap { .. })));
    for round in 0..2 {
        netlink::inside(node, plug_card);
        cluster.until(0, |status| status.problems.is_empty() && mode(status) == Some(NetworkMode::Macvlan)).await;
        let (here, beside) = (cluster.tap(0).await, cluster.tap(1).await);
        meets(&here, &beside, BROADCAST, 0, round).await;
        netlink::inside(node, async |handle| {
            handle.link().del(netlink::index(&handle, "lan0").await).execute().await.unwrap();
        });
        // The kernel takes with it what lay over it.
        cluster.until(0, |status| missing(status) && mode(status).is_none()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_card_that_is_a_bridges_port_is_refused_until_it_is_none() {
    let cluster = Cluster::of_mode(NetworkMode::Macvlan, 1, &[0], Some("lan0")).await;
    let node = cluster.underlay.node(0).path();
    netlink::inside(node, async |handle| {
        handle.link().add(LinkBridge::new("yours").up().build()).execute().await.unwrap();
        let bridge = netlink::index(&handle, "yours").await;
        plug_card(handle.clone()).await;
        let port = LinkUnspec::new_with_index(netlink::index(&handle, "lan0").await).controller(bridge).build();
        handle.link().set(port).execute().await.unwrap();
    });
    let told =
        |status: &FabricStatus| status.problems.iter().any(|problem| problem.contains("port of a bridge or bond"));
    assert_eq!(mode(&cluster.until(0, told).await), None);
    netlink::inside(node, async |handle| {
        let card = LinkUnspec::new_with_index(netlink::index(&handle, "lan0").await).nocontroller().build();
        handle.link().set(card).execute().await.unwrap();
    });
    cluster.until(0, |status| status.problems.is_empty() && mode(status) == Some(NetworkMode::Macvlan)).await;
}
