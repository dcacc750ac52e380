//! An agent that dies and comes back: the LAN does not notice, and the kernel is not written to.
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use fabric::FabricError;
use testkit::{Frame, Numbered, Tap, eventually};

use crate::cluster::{Cluster, SOON, instance, mac};

/// Sends a numbered frame every 2 ms until told to stop; gives the number sent.
async fn flow(tap: Arc<Tap>, from: usize, to: usize, stop: Arc<AtomicBool>, sent: Arc<AtomicU32>) -> u32 {
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    let mut sequence = 0;
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        // Seat 1 never speaks, so frames for it are flooded: the kind says for whom a frame is.
        let number = Numbered { kind: u8::try_from(to).unwrap(), sender: u8::try_from(from).unwrap(), sequence };
        tap.send(&Frame::ethernet(mac(to).0, mac(from).0, number, 200)).await.unwrap();
        sequence += 1;
        sent.store(sequence, Ordering::Relaxed);
    }
    sequence
}

/// Collects the frames from `from` to `to`: the numbers, and how many came twice.
async fn sink(tap: Arc<Tap>, from: usize, to: usize, seen: Arc<std::sync::Mutex<(BTreeSet<u32>, u32)>>) {
    while let Ok(frame) = tap.receive().await {
        if let Some(number) =
            Numbered::find(&frame).filter(|number| usize::from(number.sender) == from && usize::from(number.kind) == to)
        {
            let mut seen = seen.lock().unwrap();
            if !seen.0.insert(number.sequence) {
                seen.1 += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_restart_loses_no_frame_and_writes_nothing() {
    let mut cluster = Cluster::new(2, &[0, 0, 1]).await;
    let mut taps = Vec::new();
    for seat in 0..3 {
        taps.push(Arc::new(cluster.tap(seat).await));
    }
    let stop = Arc::new(AtomicBool::new(false));
    // Over the tunnel, both ways, and between two taps of the node that restarts.
    let ways = [(0, 2), (2, 0), (0, 1)];
    let mut flows = Vec::new();
    let mut sinks = Vec::new();
    for (from, to) in ways {
        let sent = Arc::new(AtomicU32::new(0));
        let seen = Arc::new(std::sync::Mutex::new((BTreeSet::new(), 0)));
        sinks.push((Arc::clone(&seen), tokio::spawn(sink(Arc::clone(&taps[to]), from, to, seen))));
        let task = tokio::spawn(flow(Arc::clone(&taps[from]), from, to, Arc::clone(&stop), Arc::clone(&sent)));
        flows.push((sent, task));
    }
    let sent_by = |count: u32| {
        let sent: Vec<_> = flows.iter().map(|(sent, _)| Arc::clone(sent)).collect();
        eventually(SOON, move || sent.iter().all(|sent| sent.load(Ordering::Relaxed) >= count).then_some(()))
    };
    sent_by(200).await.unwrap();
    for restart in 1..=5 {
        // Dropping does no cleaning up: for the kernel it is what kill -9 is, all sockets closed at once.
        cluster.fabrics[0] = None;
        sent_by(200 + restart * 100).await.unwrap();
        cluster.start(0).await;
        cluster.set_spec(0).await;
        let status = cluster.status(0);
        assert_eq!((status.netlink_writes, status.problems.len()), (0, 0), "{status:#?}");
        assert!(status.passes > 0 && status.ports[&instance(0)].carrier == Some(true));
    }
    sent_by(1000).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    for ((_, flow), (seen, sink)) in flows.into_iter().zip(sinks) {
        let sent = flow.await.unwrap();
        let all = || (seen.lock().unwrap().0.len() >= usize::try_from(sent).unwrap()).then_some(());
        let arrived = eventually(SOON, all).await;
        sink.abort();
        let seen = seen.lock().unwrap();
        assert!(arrived.is_ok() && seen.1 == 0, "sent {sent}, came {}, doubled {}", seen.0.len(), seen.1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_tap_that_is_held_is_refused_and_free_after_its_holder() {
    let cluster = Cluster::new(1, &[0]).await;
    let held = cluster.fabric(0).open_tap(&instance(0)).await.unwrap();
    let error = cluster.fabric(0).open_tap(&instance(0)).await.unwrap_err();
    assert!(matches!(error, FabricError::TapBusy { .. }), "{error}");
    assert!(error.to_string().contains("QEMU of an earlier runner"));
    drop(held);
    cluster.fabric(0).open_tap(&instance(0)).await.unwrap();
    let error = cluster.fabric(0).open_tap(&instance(7)).await.unwrap_err();
    assert!(matches!(error, FabricError::NoPort(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_restart_before_the_directory_is_read_removes_nothing() {
    let mut cluster = Cluster::new(1, &[0, 0]).await;
    cluster.fabrics[0] = None;
    cluster.start(0).await;
    // No spec: no tap may be touched, and none can be asked for.
    assert!(matches!(cluster.fabric(0).open_tap(&instance(0)).await, Err(FabricError::NoPort(_))));
    cluster.set_spec(0).await;
    assert_eq!(cluster.status(0).netlink_writes, 0);
    cluster.fabric(0).open_tap(&instance(0)).await.unwrap();
}
