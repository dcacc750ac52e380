//! What somebody breaks by hand is back within 2 s, without anybody calling.
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use model::MacAddr;
use netlink_packet_route::{
    AddressFamily,
    link::{BridgeStpState, InfoBridge, InfoData, LinkAttribute, LinkInfo},
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage},
};
use rtnetlink::{Handle, LinkBridge, LinkUnspec};
use testkit::{Frame, Numbered, Tap, eventually};

use crate::cluster::{Cluster, VXLAN_PORT, mac, netlink};

const BROADCAST: [u8; 6] = [0xff; 6];
const REPAIRED_WITHIN: Duration = Duration::from_secs(2);

/// Sends numbered broadcasts from one tap until one comes out of the other; gives how long that took.
async fn time_until_heard(from: &Tap, to: &Tap, round: u8) -> Duration {
    let start = Instant::now();
    to.drain().unwrap();
    for sequence in 0.. {
        let number = Numbered { kind: round, sender: 0, sequence };
        // EIO: the tap is down at the moment; that is what is waited out.
        if let Err(error) = from.send(&Frame::ethernet(BROADCAST, mac(0).0, number, 46)).await {
            assert_eq!(error.raw_os_error(), Some(nix::libc::EIO), "{error}");
        }
        let heard = || {
            let frames = to.drain().unwrap();
            frames.iter().any(|frame| Numbered::find(frame).is_some_and(|number| number.kind == round)).then_some(())
        };
        if eventually(Duration::from_millis(50), heard).await.is_ok() {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "nothing was heard for 10 s");
    }
    start.elapsed()
}

async fn rows(handle: &Handle, vxlan: u32) -> Vec<NeighbourMessage> {
    let rows: Vec<NeighbourMessage> =
        handle.neighbours().get().set_address_family(AddressFamily::Bridge).execute().try_collect().await.unwrap();
    let own = |row: &NeighbourMessage| row.header.ifindex == vxlan && row.header.flags.contains(NeighbourFlags::Own);
    rows.into_iter().filter(own).collect()
}

async fn delete_flood_list(handle: Handle) {
    let vxlan = netlink::index(&handle, "locovx001068").await;
    let zero = NeighbourAttribute::LinkLayerAddress(MacAddr::ZERO.0.to_vec());
    for row in rows(&handle, vxlan).await.into_iter().filter(|row| row.attributes.contains(&zero)) {
        handle.neighbours().del(row).execute().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn damage_is_repaired() {
    let cluster = Cluster::new(2, &[0, 1]).await;
    let (here, there) = (cluster.tap(0).await, cluster.tap(1).await);
    time_until_heard(&here, &there, 0).await;
    let netns = cluster.netns(0);

    let change = |name: &'static str, what: fn(u32) -> netlink_packet_route::link::LinkMessage| {
        netlink::inside(netns, async move |handle| {
            let link = what(netlink::index(&handle, name).await);
            handle.link().set(link).execute().await.unwrap();
        });
    };
    let delete = |name: &'static str| {
        netlink::inside(netns, async move |handle| {
            let index = netlink::index(&handle, name).await;
            handle.link().del(index).execute().await.unwrap();
        });
    };
    let damages: [(&str, &dyn Fn()); 7] = [
        ("flood list deleted", &|| netlink::inside(netns, delete_flood_list)),
        ("tap unplugged", &|| {
            change("locot001068-0", |index| LinkUnspec::new_with_index(index).nocontroller().build());
        }),
        ("tunnel unplugged", &|| {
            change("locovx001068", |index| LinkUnspec::new_with_index(index).nocontroller().build());
        }),
        ("bridge down", &|| change("locobr001068", |index| LinkUnspec::new_with_index(index).down().build())),
        ("tap down", &|| change("locot001068-0", |index| LinkUnspec::new_with_index(index).down().build())),
        ("tunnel deleted", &|| delete("locovx001068")),
        ("bridge deleted", &|| delete("locobr001068")),
    ];
    for (round, (what, damage)) in (1..).zip(damages) {
        let writes = cluster.status(0).netlink_writes;
        damage();
        let took = time_until_heard(&here, &there, round).await;
        let status = cluster.until(0, |status| status.netlink_writes > writes).await;
        assert!(took < REPAIRED_WITHIN, "{what}: {took:?}; {status:#?}");
        assert_eq!(status.problems, Vec::<String>::new(), "{what}");
    }
}

/// STP, snooping, MAC and MTU of the bridge, MTU of the tunnel, and two rows that send frames astray.
async fn meddle(handle: Handle) {
    let bridge = netlink::index(&handle, "locobr001068").await;
    let vxlan = netlink::index(&handle, "locovx001068").await;
    let noisy = LinkBridge::new("locobr001068").index(bridge).stp_state(BridgeStpState::KernelStp).mcast_snooping(true);
    let flags = netlink_packet_core::NLM_F_REQUEST | netlink_packet_core::NLM_F_ACK;
    handle.link().add(noisy.build()).set_flags(flags).execute().await.unwrap();
    let other = LinkUnspec::new_with_index(bridge).address(vec![2, 1, 1, 1, 1, 1]).mtu(1400).build();
    handle.link().set(other).execute().await.unwrap();
    handle.link().set(LinkUnspec::new_with_index(vxlan).mtu(1400).build()).execute().await.unwrap();
    for mac in [mac(1), MacAddr([2, 0, 0, 0, 0, 9])] {
        let mut row =
            handle.neighbours().add_bridge(vxlan, &mac.0).destination("10.99.0.99".parse().unwrap()).replace();
        row.message_mut().header.flags = NeighbourFlags::Own;
        row.execute().await.unwrap();
    }
}

/// What `meddle` changed, as the kernel has it: STP, snooping, MAC and MTU of the bridge, MTU of the tunnel, its rows.
async fn settings(handle: Handle) -> (bool, bool, Vec<u8>, Vec<u32>, usize) {
    let mut found = (false, false, Vec::new(), Vec::new(), 0);
    for name in ["locobr001068", "locovx001068"] {
        let mut links = Box::pin(handle.link().get().match_name(name).execute());
        let link = links.try_next().await.unwrap().unwrap();
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => found.3.push(mtu),
                LinkAttribute::Address(mac) if name == "locobr001068" => found.2 = mac,
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        if let LinkInfo::Data(InfoData::Bridge(data)) = info {
                            found.0 = data.contains(&InfoBridge::StpState(BridgeStpState::KernelStp));
                            found.1 = data.contains(&InfoBridge::MulticastSnooping(true));
                        }
                    }
                }
                _ => {}
            }
        }
    }
    found.4 = rows(&handle, netlink::index(&handle, "locovx001068").await).await.len();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn settings_changed_by_hand_are_set_back() {
    let cluster = Cluster::new(2, &[0, 1]).await;
    let netns = cluster.netns(0);
    let good = netlink::inside(netns, settings);
    // Flood list, the peer's bridge, the remote guest.
    assert_eq!((good.0, good.1, &good.3[..], good.4), (false, false, &[1500, 1500][..], 3));
    let writes = cluster.status(0).netlink_writes;
    netlink::inside(netns, meddle);
    let start = Instant::now();
    let mut now = netlink::inside(netns, settings);
    while now != good {
        assert!(start.elapsed() < REPAIRED_WITHIN, "{now:?} instead of {good:?}; {:#?}", cluster.status(0));
        tokio::time::sleep(Duration::from_millis(20)).await;
        now = netlink::inside(netns, settings);
    }
    // One write at least for each of the seven changes, but STP and snooping go together.
    cluster.until(0, |status| status.netlink_writes >= writes + 6).await;
    assert_eq!(cluster.status(0).problems, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_seat_that_moves_takes_its_port_along_but_never_from_under_a_guest() {
    let mut cluster = Cluster::new(2, &[0, 1]).await;
    let (held, there) = (cluster.tap(0).await, cluster.tap(1).await);
    time_until_heard(&held, &there, 0).await;
    cluster.place(&[1, 1]);
    cluster.set_spec(0).await;
    cluster.set_spec(1).await;
    // The guest on node 0 is not in the directory any more, but it runs: its tap stays, and that is told.
    let status = cluster.until(0, |status| !status.problems.is_empty()).await;
    assert!(status.problems[0].contains("locot001068-0") && status.ports.is_empty(), "{status:#?}");
    netlink::inside(cluster.netns(0), async |handle| netlink::index(&handle, "locot001068-0").await);
    // It ends; now its port goes, and the LAN with it.
    drop(held);
    cluster.until(0, |status| status.problems.is_empty()).await;
    let left = netlink::inside(cluster.netns(0), async |handle| {
        let links: Vec<_> = handle.link().get().execute().try_collect().await.unwrap();
        links.len()
    });
    assert_eq!(left, 1, "only lo");
    let moved = cluster.tap(0).await;
    assert!(time_until_heard(&moved, &there, 1).await < REPAIRED_WITHIN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn links_of_others_are_left_alone() {
    let cluster = Cluster::new(1, &[0]).await;
    let netns = cluster.netns(0);
    netlink::inside(netns, async |handle| {
        handle.link().add(LinkBridge::new("stranger").build()).execute().await.unwrap();
    });
    cluster.set_spec(0).await;
    let quiet = cluster.status(0);
    netlink::inside(netns, async |handle| netlink::index(&handle, "stranger").await);
    // Everything is as desired: passes may come, writes must not.
    cluster.set_spec(0).await;
    let status = cluster.status(0);
    assert!(status.passes > quiet.passes);
    assert_eq!(status.netlink_writes, quiet.netlink_writes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_vxlan_port_in_use_is_told_and_taken_once_it_is_free() {
    let mut cluster = Cluster::new(1, &[]).await;
    let squatter =
        cluster.underlay.node(0).run(|| std::net::UdpSocket::bind(("0.0.0.0", VXLAN_PORT)).unwrap()).unwrap();
    cluster.place(&[0]);
    cluster.set_spec(0).await;
    let status = cluster.until(0, |status| !status.problems.is_empty()).await;
    assert!(
        status.problems.iter().any(|problem| problem.contains("UDP port 14789") && problem.contains("in use")),
        "{status:#?}"
    );
    // The guests of this node have each other meanwhile.
    assert!(status.ports.values().all(|port| port.exists));
    assert_eq!(status.lans[&"party".parse().unwrap()].mode, None);
    drop(squatter);
    cluster.until(0, |status| status.problems.is_empty()).await;
    assert_eq!(cluster.status(0).lans[&"party".parse().unwrap()].mode, Some(model::NetworkMode::Vxlan));
}
