//! Every kind of frame crosses between nodes, and on one node: all of them, once each, and to nobody else.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use testkit::{Frame, IpxFraming, Numbered, Tap, eventually};

use crate::cluster::{Cluster, SOON, mac};

const FRAMES_PER_KIND: u32 = 1000;
const BROADCAST: [u8; 6] = [0xff; 6];

const KIND_BROADCAST: u8 = 0;
const KIND_UNICAST: u8 = 1;
const KIND_FULL: u8 = 2;
/// And the next three: one for each framing of IPX.
const KIND_IPX: u8 = 3;
const KIND_HELLO: u8 = 99;

/// Frames of a receiver by number, with how often each came.
type Seen = Arc<std::sync::Mutex<BTreeMap<Numbered, u32>>>;

fn collect(tap: Arc<Tap>) -> (Seen, tokio::task::JoinHandle<()>) {
    let seen = Seen::default();
    let book = Arc::clone(&seen);
    let task = tokio::spawn(async move {
        while let Ok(frame) = tap.receive().await {
            if let Some(number) = Numbered::find(&frame) {
                *book.lock().unwrap().entry(number).or_default() += 1;
            }
        }
    });
    (seen, task)
}

/// All frames that one seat sends, in order; unicast ones to `to`.
async fn send_all(tap: &Tap, seat: usize, to: usize, burst: u32) {
    let (from, to) = (mac(seat).0, mac(to).0);
    let sender = u8::try_from(seat).unwrap();
    for sequence in 0..FRAMES_PER_KIND {
        let number = |kind| Numbered { kind, sender, sequence };
        tap.send(&Frame::ethernet(BROADCAST, from, number(KIND_BROADCAST), 46)).await.unwrap();
        tap.send(&Frame::ethernet(to, from, number(KIND_UNICAST), 46)).await.unwrap();
        tap.send(&Frame::ethernet(to, from, number(KIND_FULL), 1500)).await.unwrap();
        for (kind, framing) in (KIND_IPX..).zip(IpxFraming::ALL) {
            tap.send(&Frame::ipx(framing, BROADCAST, from, number(kind))).await.unwrap();
        }
        // The receivers are tasks of this process: let them empty their queues of 500 frames.
        if sequence % burst == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn every_kind_of_frame_crosses_once_between_nodes_and_on_one() {
    // Seats 0 and 3 share a node; 1 and 2 have one each.
    every_kind_crosses_once(&Cluster::new(3, &PLACES).await, 8).await;
}

/// Of the seats of the cluster for [`every_kind_crosses_once`].
pub(crate) const PLACES: [usize; 4] = [0, 1, 2, 0];

/// `burst`: seven times so many frames are sent at once, each way.
pub(crate) async fn every_kind_crosses_once(cluster: &Cluster, burst: u32) {
    let (mut taps, mut holds) = (Vec::new(), Vec::new());
    for seat in 0..4 {
        let port = cluster.port(seat).await;
        taps.push(Arc::new(Tap::from_fd(port.net).unwrap()));
        holds.push(port.hold);
    }
    let collectors: Vec<_> = taps.iter().map(|tap| collect(Arc::clone(tap))).collect();

    // Each is heard by all first, so that every bridge knows every address: from then on unicast goes to one only.
    // The first frames after a tap is opened may be lost, until the kernel's link watch has told the bridge of the carrier.
    for (seat, tap) in taps.iter().enumerate() {
        let mut sequence = 0;
        let all_heard = || {
            let others = collectors.iter().enumerate().filter(|(at, _)| *at != seat);
            others
                .map(|(_, (seen, _))| seen.lock().unwrap())
                .all(|seen| seen.keys().any(|number| number.kind == KIND_HELLO && usize::from(number.sender) == seat))
        };
        while !all_heard() {
            assert!(sequence < 100, "seat {seat} is not heard by all");
            let hello = Numbered { kind: KIND_HELLO, sender: u8::try_from(seat).unwrap(), sequence };
            tap.send(&Frame::ethernet(BROADCAST, mac(seat).0, hello, 46)).await.unwrap();
            sequence += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    // Both ways at once between nodes 0 and 1; then 2 to the one on node 0, and within node 0.
    for pairs in [[(0, 1), (1, 0)], [(2, 0), (0, 2)], [(3, 0), (0, 3)]] {
        for (seen, _) in &collectors {
            seen.lock().unwrap().clear();
        }
        tokio::join!(
            send_all(&taps[pairs[0].0], pairs[0].0, pairs[0].1, burst),
            send_all(&taps[pairs[1].0], pairs[1].0, pairs[1].1, burst),
        );
        for (seat, (seen, _)) in collectors.iter().enumerate() {
            let mut want = BTreeMap::new();
            for (from, to) in pairs {
                let kinds = KIND_BROADCAST..KIND_IPX + 4;
                let comes = |kind: u8| from != seat && (![KIND_UNICAST, KIND_FULL].contains(&kind) || to == seat);
                for (kind, sequence) in
                    kinds.filter(|kind| comes(*kind)).flat_map(|kind| (0..FRAMES_PER_KIND).map(move |n| (kind, n)))
                {
                    want.insert(Numbered { kind, sender: u8::try_from(from).unwrap(), sequence }, 1);
                }
            }
            let complete = || (seen.lock().unwrap().len() >= want.len()).then_some(());
            let arrived = eventually(SOON, complete).await;
            let seen = seen.lock().unwrap();
            let lost: Vec<_> = want.keys().filter(|number| !seen.contains_key(number)).take(5).collect();
            let strange: Vec<_> =
                seen.iter().filter(|(number, count)| want.get(number) != Some(count)).take(5).collect();
            assert!(
                arrived.is_ok() && lost.is_empty() && strange.is_empty(),
                "seat {seat}, {pairs:?}: {} of {} came; lost {lost:?}; doubled or astray {strange:?}",
                seen.len(),
                want.len()
            );
        }
    }
    for (_, task) in collectors {
        task.abort();
    }
    for index in 0..3 {
        assert_eq!(cluster.status(index).problems, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn counters_are_the_guests_and_carrier_is_qemus_hold() {
    let cluster = Cluster::new(2, &[0, 1]).await;
    let port = |status: &fabric::FabricStatus| status.ports[&crate::cluster::instance(0)].clone();
    let before = port(&cluster.until(0, |status| !status.ports.is_empty()).await);
    assert_eq!((before.exists, before.carrier), (true, Some(false)));
    let tap = cluster.tap(0).await;
    let before = cluster.until(0, |status| port(status).carrier == Some(true)).await;
    for sequence in 0..10 {
        let number = Numbered { kind: 0, sender: 0, sequence };
        tap.send(&Frame::ethernet(BROADCAST, mac(0).0, number, 100)).await.unwrap();
    }
    let sent = port(&before).counters.unwrap().tx_frames + 10;
    let after = cluster.until(0, |status| port(status).counters.unwrap().tx_frames >= sent).await;
    let (old, new) = (port(&before).counters.unwrap(), port(&after).counters.unwrap());
    assert_eq!((new.tx_frames - old.tx_frames, new.tx_bytes - old.tx_bytes), (10, 1140));
    assert_eq!(after.lans[&"party".parse().unwrap()].mode, Some(model::NetworkMode::Vxlan));
    drop(tap);
    cluster.until(0, |status| port(status).carrier == Some(false)).await;
}
