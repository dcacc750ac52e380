//! Who is there is known from the tunnel: a node that goes leaves the flood list, and comes back into it.
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use testkit::{Frame, NetNs, Numbered, eventually};

use crate::cluster::{Cluster, SOON, mac};

#[track_caller]
fn ip(netns: &Path, words: &str) {
    let status = NetNs::run_at(netns, || Command::new("ip").args(words.split(' ')).status().unwrap()).unwrap();
    assert!(status.success(), "ip {words}: {status}");
}

/// Nodes in the flood list of node 0, by the kernel.
fn flooded(netns: &Path) -> Vec<String> {
    let show = || Command::new("bridge").args(["fdb", "show", "dev", "locovx001068"]).output().unwrap();
    let table = String::from_utf8(NetNs::run_at(netns, show).unwrap().stdout).unwrap();
    let zero = table.lines().filter(|line| line.starts_with("00:00:00:00:00:00"));
    let mut vteps: Vec<String> =
        zero.filter_map(|line| line.split(" dst ").nth(1)?.split(' ').next().map(str::to_owned)).collect();
    vteps.sort();
    vteps
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_node_that_dies_is_out_within_two_seconds_and_back_within_one() {
    let cluster = Cluster::new(3, &[0, 1, 2]).await;
    let netns = cluster.netns(0);
    let all_alive = |status: &fabric::FabricStatus| {
        status.peers.len() == 2 && status.peers.iter().all(|peer| peer.alive == Some(true))
    };
    let status = cluster.until(0, all_alive).await;
    assert!(status.peers.iter().all(|peer| peer.rtt.is_some_and(|rtt| rtt < Duration::from_secs(1))), "{status:#?}");
    assert_eq!(flooded(netns), ["10.99.0.12", "10.99.0.13"]);
    let unicast = || {
        let show = || Command::new("bridge").args(["fdb", "show", "dev", "locovx001068"]).output().unwrap();
        String::from_utf8(NetNs::run_at(netns, show).unwrap().stdout).unwrap().contains(&mac(1).to_string())
    };
    let mut times = (Vec::new(), Vec::new());
    for _ in 0..3 {
        ip(cluster.underlay.node(1).path(), "link set eth0 down");
        let start = Instant::now();
        eventually(SOON, || (flooded(netns) == ["10.99.0.13"]).then_some(())).await.unwrap();
        times.0.push(start.elapsed());
        assert!(unicast(), "frames for its guests are not flooded instead");
        ip(cluster.underlay.node(1).path(), "link set eth0 up");
        let start = Instant::now();
        eventually(SOON, || (flooded(netns).len() == 2).then_some(())).await.unwrap();
        times.1.push(start.elapsed());
    }
    println!("pruned after {:?}, back after {:?}", times.0, times.1);
    assert!(times.0.iter().all(|time| *time < Duration::from_secs(2)), "{:?}", times.0);
    assert!(times.1.iter().all(|time| *time < Duration::from_secs(1)), "{:?}", times.1);
    // A prune is no repair, and no problem.
    assert_eq!(cluster.fabric(0).repairs().get("flood"), 0);
    let loss = cluster.status(0).peers[0].loss.unwrap();
    assert!(loss > 0.0 && loss < 1.0, "{loss}");
    assert_eq!(cluster.status(0).problems, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn forged_answers_of_a_guest_change_nothing() {
    let cluster = Cluster::new(2, &[0, 1]).await;
    let guest = cluster.tap(0).await;
    cluster.until(0, |status| status.peers.iter().all(|peer| peer.alive == Some(true))).await;
    // A guest that claims to be the other node's bridge, to everybody, with every number.
    let bridge = cluster.status(1).lans[&"party".parse().unwrap()].bridge_mac;
    ip(cluster.underlay.node(1).path(), "link set eth0 down");
    let start = Instant::now();
    let netns = cluster.netns(0);
    let own = cluster.status(0).lans[&"party".parse().unwrap()].bridge_mac;
    let mut number = 0;
    while !flooded(netns).is_empty() {
        let frame = fabric::probe::Probe { to: own, from: bridge, is_answer: true, number }.frame(60);
        guest.send(&frame).await.unwrap();
        number += 1;
        assert!(start.elapsed() < SOON, "a guest keeps a dead node in the flood list");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn an_agent_that_comes_back_is_flooded_again() {
    let mut cluster = Cluster::new(2, &[0, 1]).await;
    cluster.until(0, |status| status.peers.iter().all(|peer| peer.alive == Some(true))).await;
    // No program answers for node 1 here, so the end of its agent looks like its death.
    cluster.fabrics[1] = None;
    let netns = cluster.netns(0).clone();
    eventually(SOON, || flooded(&netns).is_empty().then_some(())).await.unwrap();
    cluster.start(1).await;
    cluster.set_spec(1).await;
    let start = Instant::now();
    eventually(SOON, || (flooded(&netns) == ["10.99.0.12"]).then_some(())).await.unwrap();
    println!("flooded again {:?} after its first pass", start.elapsed());
    let (here, there) = (cluster.tap(0).await, cluster.tap(1).await);
    // A tap that was just opened is a port a moment later: so more than one.
    for sequence in 0.. {
        let number = Numbered { kind: 1, sender: 0, sequence };
        here.send(&Frame::ethernet([0xff; 6], mac(0).0, number, 46)).await.unwrap();
        let heard = || there.drain().unwrap().iter().any(|frame| Numbered::find(frame).is_some()).then_some(());
        if eventually(Duration::from_millis(100), heard).await.is_ok() {
            break;
        }
        assert!(start.elapsed() < SOON, "node 1 is not flooded");
    }
}
