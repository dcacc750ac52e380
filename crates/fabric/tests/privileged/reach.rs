//! Who is there: every node asks every guest of its LANs, and a guest that falls silent is noticed.
use std::{sync::Arc, time::Duration};

use fabric::{FabricStatus, ReachStatus};
use testkit::{Tap, eventually};

use crate::cluster::{Cluster, instance, ip, mac};

/// Answers ARP as a guest's IP stack does, to whoever asks for its address.
fn answer_arp(tap: Arc<Tap>, seat: usize) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok(question) = tap.receive().await {
            let mine = question.len() >= 42
                && question[12..14] == [8, 6]
                && question[20..22] == [0, 1]
                && question[38..42] == ip(seat).octets();
            if mine {
                let asker = &question[22..28];
                let mut reply = [
                    asker,
                    &mac(seat).0,
                    &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
                    &mac(seat).0,
                    &ip(seat).octets(),
                    &question[22..32],
                ]
                .concat();
                reply.resize(60, 0);
                tap.send(&reply).await.unwrap();
            }
        }
    })
}

fn reach(status: &FabricStatus, seat: usize) -> Option<ReachStatus> {
    status.reachability.iter().find(|reach| reach.instance == instance(seat)).cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn guests_are_reached_from_every_node_until_they_fall_silent() {
    // Node 2 has a seat too, whose guest never answers.
    let cluster = Cluster::new(3, &[0, 1, 2]).await;
    let mut guests = Vec::new();
    for seat in 0..2 {
        guests.push(answer_arp(Arc::new(cluster.tap(seat).await), seat));
    }
    let wait = Duration::from_secs(8);
    for node in 0..3 {
        let status = cluster.fabric(node).status();
        for seat in 0..2 {
            let reached = || reach(&status.borrow(), seat).filter(|reach| reach.reachable);
            let reach =
                eventually(wait, reached).await.unwrap_or_else(|error| panic!("node {node}, seat {seat}: {error}"));
            assert!(reach.rtt.is_some_and(|rtt| rtt > Duration::ZERO && rtt < Duration::from_millis(500)), "{reach:?}");
            assert!(reach.last_seen.is_some() && reach.answered > 0 && reach.answered <= reach.asked, "{reach:?}");
        }
        let silent = || reach(&status.borrow(), 2).filter(|reach| reach.asked > 0);
        let silent = eventually(wait, silent).await.unwrap();
        assert_eq!((silent.reachable, silent.answered, silent.rtt), (false, 0, None));
    }
    // The answers themselves tell the owner which address its guest uses.
    cluster.until(1, |status| status.ports[&instance(1)].address_in_use == Some(ip(1))).await;

    guests[1].abort();
    let status = cluster.fabric(0).status();
    let lost = || reach(&status.borrow(), 1).filter(|reach| !reach.reachable);
    let lost = eventually(Duration::from_secs(12), lost).await.unwrap();
    assert!(lost.asked >= lost.answered + 3, "{lost:?}");
    assert!(reach(&status.borrow(), 0).unwrap().reachable);
}
