//! Relays of two nodes on one LAN, and a port that survives its bridge.
use std::time::Duration;

use ipxnet::{Drop, Settings};
use testkit::{NetNs, eventually};
use wire::{MacAddr, frame::FrameFormat, ipxnet::node_of};

use crate::rig::{Client, Heard, Rig, SOON, Station};

fn relay(id: u8) -> Settings {
    Settings { id: id.into(), ..Settings::default() }
}

fn all(from: MacAddr, text: &[u8]) -> Heard {
    Heard { from, to: MacAddr::BROADCAST, text: text.to_vec() }
}

/// Until the bridges know of the taps' carriers, first frames may be lost.
async fn greet(station: &Station, client: &mut Client) {
    let hello = all(station.mac, b"first");
    loop {
        station.say(MacAddr::BROADCAST, b"first").await;
        if tokio::time::timeout(Duration::from_millis(100), client.hear()).await.is_ok_and(|heard| heard == hello) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn two_relays_on_one_lan_join_all_and_repeat_nothing() {
    let rig = Rig::new(3, 2, relay).await;
    let [station, far] = [rig.station(0, FrameFormat::Raw8023).await, rig.station(1, FrameFormat::Raw8023).await];
    // Both clients are on a machine without LAN, one with each relay.
    let mut a = Client::connect(rig.socket(2, 40001), Rig::relay(0)).await;
    let mut b = Client::connect(rig.socket(2, 40002), Rig::relay(1)).await;
    assert_eq!(a.node, node_of("10.99.0.13:40001".parse().unwrap()));
    greet(&station, &mut a).await;
    greet(&far, &mut b).await;
    // What is left of the greetings goes by; from here on, each thing said is heard once by each other, in order.
    a.say(MacAddr::BROADCAST, b"mark a").await;
    b.say(MacAddr::BROADCAST, b"mark b").await;
    for station in [&station, &far] {
        let mut missing = vec![all(a.node, b"mark a"), all(b.node, b"mark b")];
        while !missing.is_empty() {
            let heard = station.hear().await;
            missing.retain(|wanted| *wanted != heard);
        }
    }
    while a.hear().await != all(b.node, b"mark b") {}
    while b.hear().await != all(a.node, b"mark a") {}

    for n in 0..100_u8 {
        a.say(MacAddr::BROADCAST, &[n, b'a']).await;
        assert_eq!(b.hear().await, all(a.node, &[n, b'a']));
        b.say(a.node, &[n, b'b']).await;
        assert_eq!(a.hear().await, Heard { from: b.node, to: a.node, text: vec![n, b'b'] });
        for station in [&station, &far] {
            assert_eq!(station.hear().await, all(a.node, &[n, b'a']));
        }
    }
    station.say(MacAddr::BROADCAST, b"end").await;
    assert_eq!(a.hear().await, all(station.mac, b"end"));
    assert_eq!(b.hear().await, all(station.mac, b"end"));
    assert_eq!(far.hear().await, all(station.mac, b"end"));
    for node in [0, 1] {
        let report = rig.until(node, |report| report.framings == [FrameFormat::Raw8023]).await;
        assert_eq!(Drop::ALL.map(|reason| report.drops.of(reason)), [0; 12], "relay {node}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn the_port_is_plugged_in_again_and_opened_again() {
    let rig = Rig::new(2, 1, relay).await;
    let station = rig.station(0, FrameFormat::Llc).await;
    let mut client = Client::connect(rig.socket(1, 40001), Rig::relay(0)).await;
    greet(&station, &mut client).await;
    let ip = |command: &'static str| {
        let run = || std::process::Command::new("ip").args(command.split(' ')).output();
        let output = NetNs::run_at(rig.netns(0), run).unwrap().unwrap();
        assert!(output.status.success(), "ip {command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let plugged =
        || ip("-o link show").lines().any(|l| l.contains("locoix001068") && l.contains("master locobr001068"));
    assert!(plugged());
    // The bridge goes, and the fabric makes another.
    ip("link del locobr001068");
    eventually(SOON, || plugged().then_some(())).await.unwrap();
    greet(&station, &mut client).await;
    // The port itself goes.
    ip("link del locoix001068");
    eventually(SOON, || plugged().then_some(())).await.unwrap();
    greet(&station, &mut client).await;
}
