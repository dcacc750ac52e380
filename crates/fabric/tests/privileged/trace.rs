//! A marked frame is followed from one guest to the other, over both nodes, and a gap in the way shows where it is.
use std::{path::PathBuf, process::Command, time::Duration};

use fabric::trace::{End, Sighting, question, trace};
use testkit::{NetNs, Tap};

use crate::cluster::{Cluster, ip, mac};

const LIMIT: Duration = Duration::from_millis(1500);
const TAPS: [&str; 2] = ["locot001068-0", "locot001068-1"];
const TUNNEL: &str = "locovx001068";

/// Answers pings as a guest's own stack does, for ever.
async fn answer_pings(tap: Tap) {
    while let Ok(mut frame) = tap.receive().await {
        if frame.get(12..14) != Some(&[8, 0]) || frame.get(23) != Some(&1) || frame.get(34) != Some(&8) {
            continue;
        }
        frame.swap(0, 6);
        (1..6).for_each(|at| frame.swap(at, at + 6));
        (26..30).for_each(|at| frame.swap(at, at + 4));
        frame[34] = 0;
        // The kind was 8 and is 0: the check sum has 0x0800 more (RFC 1624).
        let sum = u32::from(u16::from_be_bytes([frame[36], frame[37]])) + 0x0800;
        let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        frame[36..38].copy_from_slice(&sum.to_be_bytes());
        tap.send(&frame).await.unwrap();
    }
}

/// What both nodes saw of a frame from seat 0 to seat 1.
async fn followed(cluster: &Cluster, mark: &'static str) -> (Vec<Sighting>, Vec<Sighting>) {
    let end = |seat| End { mac: mac(seat), ip: ip(seat) };
    let frame = question(end(0), end(1), mark.as_bytes());
    let watch = |netns: PathBuf, tap: &'static str, ask: Option<Vec<u8>>| {
        tokio::task::spawn_blocking(move || {
            let devices = [tap.to_owned(), TUNNEL.to_owned()];
            let ask = ask.as_ref().map(|frame| (tap, frame.as_slice()));
            trace(&netns, &devices, ask, mark.as_bytes(), LIMIT).unwrap()
        })
    };
    let here = watch(cluster.netns(0).clone(), TAPS[0], Some(frame));
    let there = watch(cluster.netns(1).clone(), TAPS[1], None);
    (here.await.unwrap(), there.await.unwrap())
}

fn seen(sightings: &[Sighting], device: &str, outgoing: bool, source: usize) -> bool {
    sightings.iter().any(|s| s.device == device && s.outgoing == outgoing && s.source == mac(source))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_marked_frame_is_seen_at_every_hop_up_to_where_it_is_lost() {
    let cluster = Cluster::new(2, &[0, 1]).await;
    let guest = tokio::spawn(answer_pings(cluster.tap(0).await));
    let _there = cluster.tap(1).await;
    cluster.until(0, |status| status.peers.iter().all(|peer| peer.alive == Some(true))).await;

    let (here, there) = followed(&cluster, "LOCOTRACEwhole").await;
    assert!(seen(&here, TAPS[0], true, 1), "the question: {here:?}");
    assert!(seen(&here, TAPS[0], false, 0), "the answer of the guest: {here:?}");
    assert!(seen(&here, TUNNEL, true, 0), "into the tunnel: {here:?}");
    assert!(seen(&there, TUNNEL, false, 0), "out of the tunnel: {there:?}");
    assert!(seen(&there, TAPS[1], true, 0), "to the other guest: {there:?}");
    // The question is for the asked guest alone.
    assert!(!seen(&here, TUNNEL, true, 1) && !seen(&there, TUNNEL, false, 1), "{here:?} {there:?}");

    // Cut between the nodes: it goes into the tunnel and does not come out.
    let cut = || Command::new("ip").args(["link", "set", "eth0", "down"]).status().unwrap();
    assert!(NetNs::run_at(cluster.underlay.node(1).path(), cut).unwrap().success());
    let (here, there) = followed(&cluster, "LOCOTRACEcut").await;
    assert!(seen(&here, TUNNEL, true, 0) && there.is_empty(), "{here:?} {there:?}");

    // A guest that does not answer: the question is all there is.
    guest.abort();
    let (here, _) = followed(&cluster, "LOCOTRACEdeaf").await;
    assert!(!seen(&here, TAPS[0], false, 0) && !seen(&here, TUNNEL, true, 0), "{here:?}");
}
