//! Every frame is counted, in its class, in both directions, and those that matter are shown as they were.
use std::collections::BTreeMap;

use model::{InstanceId, MacAddr};
use traffic::{Attach, Count, Point};
use wire::class::{TrafficClass, classify};

use crate::{
    rig::{Rig, drain, until},
    shapes::{self, GUEST_A, GUEST_B, Shown},
};

/// Times that each shape is sent.
const TIMES: u64 = 3;

async fn every_shape(attach: Attach) {
    let rig = Rig::new();
    let (traffic, mut events) = rig.watch(Some(attach)).await;
    let shapes = shapes::all();
    let mut want: BTreeMap<TrafficClass, Count> = BTreeMap::new();
    for shape in &shapes {
        assert_eq!(classify(&*shape.frame), shape.class, "{}", shape.name);
        for _ in 0..TIMES {
            rig.send("locota", &shape.frame);
        }
        let count = want.entry(shape.class).or_default();
        count.frames += TIMES;
        count.bytes += TIMES * u64::try_from(shape.frame.len()).unwrap();
    }
    assert_eq!(want.len(), TrafficClass::ALL.len(), "a shape for every class");
    let (a, b): (InstanceId, InstanceId) = ("a".parse().unwrap(), "b".parse().unwrap());
    let total: u64 = want.values().map(|count| count.frames).sum();
    let report = until(&traffic, |report| report.ports[&b].classes.egress.total().frames >= total).await;
    assert_eq!(report.attach, Some(attach));
    assert_eq!(report.ports[&a].classes.ingress.seen().collect::<BTreeMap<_, _>>(), want);
    assert_eq!(report.ports[&b].classes.egress.seen().collect::<BTreeMap<_, _>>(), want);
    assert_eq!(report.ports[&b].classes.ingress.total().frames, 0);

    let to_all = 2 * TIMES;
    let from_a = &report.ports[&a].pairs;
    assert_eq!(from_a[&MacAddr([0xff; 6])].from_guest.frames, to_all);
    assert_eq!(from_a[&MacAddr(GUEST_B)].from_guest.frames, total - to_all);
    let at_b = &report.ports[&b].pairs[&MacAddr(GUEST_A)];
    assert_eq!((at_b.to_guest.frames, at_b.to_guest_broadcasts), (total, to_all));

    let events = drain(&mut events).await;
    for shape in &shapes {
        let shown = |point: fn(&Point) -> bool| {
            let same = events.iter().filter(|event| point(&event.point) && *event.bytes == *shape.frame);
            let same = same.inspect(|event| {
                assert_eq!(event.class, shape.class, "{}", shape.name);
                assert_eq!(usize::try_from(event.wire_len).unwrap(), shape.frame.len());
            });
            u64::try_from(same.count()).unwrap()
        };
        let want = match shape.shown {
            Shown::Each => TIMES,
            Shown::Once => 1,
            Shown::Never => 0,
        };
        assert_eq!(shown(|point| matches!(point, Point::FromGuest(_))), want, "{} from the guest", shape.name);
        assert_eq!(shown(|point| matches!(point, Point::ToGuest(_))), want, "{} to the guest", shape.name);
    }
    assert!(events.windows(2).all(|pair| pair[0].at <= pair[1].at), "in the order of time");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(events.iter().all(|event| event.at <= now && event.at + crate::rig::SOON > now));
    let report = until(&traffic, |report| report.events > 0).await;
    assert_eq!(report.events_lost(), 0, "{:?}", report.lost);
    assert_eq!(report.problem, None);
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn every_shape_is_counted_and_shown_by_tcx() {
    every_shape(Attach::Tcx).await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn every_shape_is_counted_and_shown_by_clsact() {
    every_shape(Attach::Clsact).await;
}

/// Frames out of a tunnel, or out of a relay, are events of theirs; frames into them are counted only.
#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn tunnels_and_relays_show_what_comes_from_elsewhere() {
    for relay in [false, true] {
        let rig = Rig::new();
        // What a VXLAN device is to the bridge, a tap is as well; here the test is the other node, or the relay.
        rig.wanted.send_modify(|wanted| {
            let wanted = wanted.as_mut().unwrap();
            let device = wanted.ports.remove(&"b".parse().unwrap()).unwrap();
            let devices = if relay { &mut wanted.relays } else { &mut wanted.tunnels };
            devices.insert("party".parse().unwrap(), device);
        });
        let counts = |report: &traffic::Report| {
            let counts = if relay { report.relays.values().next() } else { report.tunnels.values().next() };
            counts.map(|counts| (counts.ingress.total().frames, counts.egress.total().frames))
        };
        let (traffic, mut events) = traffic::Traffic::start(rig.config(None), rig.wanted.subscribe()).await.unwrap();
        until(&traffic, |report| report.ports.len() == 1 && counts(report).is_some()).await;
        rig.send("locotb", &shapes::arp());
        rig.send("locota", &shapes::all()[6].frame);
        until(&traffic, |report| counts(report) == Some((1, 1))).await;
        let points: Vec<_> = drain(&mut events).await.into_iter().map(|event| event.point).collect();
        let instance: std::sync::Arc<InstanceId> = std::sync::Arc::new("a".parse().unwrap());
        let lan = std::sync::Arc::new("party".parse().unwrap());
        let elsewhere = if relay { Point::Relay(lan) } else { Point::Overlay(lan) };
        assert_eq!(points, [elsewhere, Point::ToGuest(instance.clone()), Point::FromGuest(instance)]);
    }
}
