//! Rates: nothing uncounted, and no control frame lost while others storm.
use std::{
    thread,
    time::{Duration, Instant},
};

use model::InstanceId;
use traffic::Point;
use wire::class::TrafficClass;

use crate::{
    rig::{Rig, send, until},
    shapes,
};

const SECONDS: u32 = 2;
const OTHERS_PER_MS: u32 = 50;
const CONTROLS_PER_MS: u32 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn fifty_thousand_frames_a_second_are_counted_and_five_thousand_control_frames_shown() {
    let rig = Rig::new();
    let (traffic, mut events) = rig.watch(None).await;
    let tap = rig.taps["locota"].try_clone().unwrap();
    let rounds = SECONDS * 1000;
    let sender = thread::spawn(move || {
        let (arp, start) = (shapes::arp(), Instant::now());
        for round in 0..rounds {
            while start.elapsed() < Duration::from_millis(round.into()) {
                thread::sleep(Duration::from_micros(200));
            }
            for number in 0..OTHERS_PER_MS {
                // Each a flow of its own as far as ports go: the storm that first frames could be.
                let number = u16::try_from((round * OTHERS_PER_MS + number) % 60_000).unwrap();
                send(&tap, &shapes::stranger(number));
            }
            (0..CONTROLS_PER_MS).for_each(|_| send(&tap, &arp));
        }
        start.elapsed()
    });
    let (others, controls) = (u64::from(rounds * OTHERS_PER_MS), u64::from(rounds * CONTROLS_PER_MS));
    let (mut from, mut to) = (0, 0);
    let deadline = Instant::now() + crate::rig::SOON;
    while (from < controls || to < controls) && Instant::now() < deadline {
        if let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(100), events.recv()).await
            && event.class == TrafficClass::Arp
        {
            match event.point {
                Point::FromGuest(_) => from += 1,
                Point::ToGuest(_) => to += 1,
                Point::Overlay(_) | Point::Relay(_) => {}
            }
        }
    }
    let took = tokio::task::spawn_blocking(move || sender.join().unwrap()).await.unwrap();
    let rate = f64::from(rounds * (OTHERS_PER_MS + CONTROLS_PER_MS)) / took.as_secs_f64();
    let (a, b): (InstanceId, InstanceId) = ("a".parse().unwrap(), "b".parse().unwrap());
    let report = until(&traffic, |report| report.ports[&b].classes.egress.total().frames >= others + controls).await;
    println!("{rate:.0} frames/s for {took:?}; shown {} of them; lost {:?}", report.events, report.lost);
    let a = &report.ports[&a].classes.ingress;
    assert_eq!((a[TrafficClass::UdpOther].frames, a[TrafficClass::Arp].frames), (others, controls));
    assert_eq!(report.ports[&b].classes.egress[TrafficClass::UdpOther].frames, others);
    assert_eq!((from, to), (controls, controls), "{:?}", report.lost);
    assert!(report.lost["other_storm"] > 0, "the storm had its own bucket: {:?}", report.lost);
    assert_eq!((report.lost["control_storm"], report.lost["no_row"], report.lost["ring_full"]), (0, 0, 0));
}
