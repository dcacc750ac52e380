//! Agents come and go, taps are made anew, pins are lost: counting goes on.
use std::{
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use aya::programs::{SchedClassifier, TcAttachType};
use model::InstanceId;
use traffic::{Attach, Traffic, TrafficConfig, TrafficError, uninstall};
use wire::class::TrafficClass;

use crate::{
    rig::{Rig, ip, send, until},
    shapes,
};

/// So many at least go through while agents come and go, and so many agents while they do.
const FRAMES: u64 = 40_000;
const AGENTS: u32 = 5;

fn ids() -> (InstanceId, InstanceId) {
    ("a".parse().unwrap(), "b".parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn agents_that_follow_each_other_under_traffic_lose_no_count() {
    let rig = Rig::new();
    let (first, events) = rig.watch(None).await;
    let tap = rig.taps["locota"].try_clone().unwrap();
    let sent = Arc::new((AtomicU64::new(0), AtomicBool::new(false)));
    let book = Arc::clone(&sent);
    let sender = thread::spawn(move || {
        let (sent, end) = &*book;
        while !end.load(Ordering::Relaxed) {
            let number = sent.fetch_add(1, Ordering::Relaxed);
            send(&tap, &shapes::other(u16::try_from(number % 1000).unwrap(), 100));
            if number % 20 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    drop((first, events));
    let mut agents = 1;
    while agents < AGENTS || sent.0.load(Ordering::Relaxed) < FRAMES {
        drop(rig.watch(None).await);
        agents += 1;
    }
    sent.1.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    let frames = sent.0.load(Ordering::Relaxed);
    let (last, _events) = rig.watch(None).await;
    let (a, b) = ids();
    let report = until(&last, |report| report.ports[&b].classes.egress.total().frames >= frames).await;
    println!("{agents} agents while {frames} frames went through");
    let class = TrafficClass::UdpOther;
    assert_eq!(report.ports[&a].classes.ingress[class].frames, frames);
    assert_eq!(report.ports[&b].classes.egress[class].frames, frames);
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn frames_while_no_agent_runs_are_counted_and_their_events_wait() {
    let rig = Rig::new();
    drop(rig.watch(None).await);
    (0..10).for_each(|_| rig.send("locota", &shapes::arp()));
    let (traffic, mut events) = rig.watch(None).await;
    let (a, _) = ids();
    until(&traffic, |report| report.ports[&a].classes.ingress[TrafficClass::Arp].frames == 10).await;
    assert_eq!(crate::rig::drain(&mut events).await.len(), 20, "ten at each tap");
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_tap_made_anew_is_watched_again_and_its_instance_goes_on_counting() {
    let mut rig = Rig::new();
    let (traffic, _events) = rig.watch(None).await;
    let (a, b) = ids();
    rig.send("locota", &shapes::arp());
    until(&traffic, |report| report.ports[&a].classes.ingress.total().frames == 1).await;
    let before = rig.ifindex("locota");
    rig.make_tap("locota");
    let after = rig.ifindex("locota");
    assert_ne!(before, after);
    let links = rig.pins().join("links");
    testkit::eventually(crate::rig::SOON, || links.join(format!("port_a_{after}_in")).exists().then_some(()))
        .await
        .unwrap();
    rig.send("locota", &shapes::arp());
    let report = until(&traffic, |report| report.ports[&a].classes.ingress.total().frames == 2).await;
    assert_eq!(report.ports[&b].classes.egress.total().frames, 2);
    assert!(!links.join(format!("port_a_{before}_in")).exists(), "the severed link's pin is gone");
    // And once more while no agent runs: the new one finds the severed link by itself.
    drop(traffic);
    rig.make_tap("locota");
    let (traffic, _events) = rig.watch(None).await;
    rig.send("locota", &shapes::arp());
    until(&traffic, |report| report.ports[&b].classes.egress.total().frames == 3).await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_severed_link_under_the_same_number_is_replaced() {
    let mut rig = Rig::new();
    drop(rig.watch(None).await);
    // The number comes again, as in a namespace made anew: the pin is found, and leads nowhere.
    let number = rig.ifindex("locota");
    rig.taps.remove("locota");
    let veth = || {
        ip(&format!("link add locota index {number} type veth peer name elsewhere"));
        ip("link set elsewhere up");
        ip("link set locota master br0 up");
    };
    rig.netns.run(veth).unwrap();
    assert_eq!(rig.ifindex("locota"), number);
    let (traffic, _events) = rig.watch(None).await;
    rig.send("locotb", &shapes::arp());
    let (a, _) = ids();
    until(&traffic, |report| report.ports[&a].classes.egress[TrafficClass::Arp].frames == 1).await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_program_that_somebody_took_off_is_put_on_again() {
    let rig = Rig::new();
    let (traffic, _events) = rig.watch(None).await;
    let (a, _) = ids();
    for entry in fs::read_dir(rig.pins().join("links")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let links = rig.pins().join("links");
    testkit::eventually(crate::rig::SOON, || (fs::read_dir(&links).unwrap().count() == 4).then_some(())).await.unwrap();
    rig.send("locota", &shapes::arp());
    until(&traffic, |report| report.ports[&a].classes.ingress.total().frames == 1).await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn filters_of_an_earlier_agent_do_not_count_twice() {
    let rig = Rig::new();
    drop(rig.watch(Some(Attach::Clsact)).await);
    let (traffic, _events) = rig.watch(Some(Attach::Clsact)).await;
    rig.send("locota", &shapes::arp());
    let (_, b) = ids();
    let report = until(&traffic, |report| report.ports[&b].classes.egress.total().frames > 0).await;
    assert_eq!(report.ports[&b].classes.egress.total().frames, 1);
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn without_a_bpf_file_system_it_counts_and_says_so() {
    let rig = Rig::new();
    // A file where the folder should be: nothing can be mounted there.
    fs::write(&rig.bpffs, "").unwrap();
    let (traffic, _events) = rig.watch(None).await;
    rig.send("locota", &shapes::arp());
    let (a, _) = ids();
    let report = until(&traffic, |report| report.ports[&a].classes.ingress.total().frames == 1).await;
    assert!(report.problem.is_some_and(|problem| problem.contains("mount -t bpf")));
    fs::remove_file(&rig.bpffs).unwrap();
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn pinned_maps_of_another_shape_are_not_taken_over() {
    let rig = Rig::new();
    drop(rig.watch(None).await);
    let maps = rig.pins();
    // LOST has other sizes than PORTS.
    fs::remove_file(maps.join("PORTS")).unwrap();
    fs::rename(maps.join("LOST"), maps.join("PORTS")).unwrap();
    let (traffic, _events) = rig.watch(None).await;
    rig.send("locota", &shapes::arp());
    let (a, _) = ids();
    until(&traffic, |report| report.ports[&a].classes.ingress.total().frames == 1).await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn uninstalling_leaves_no_mount_no_pin_and_nothing_attached() {
    let rig = Rig::new();
    drop(rig.watch(None).await);
    let mounted = || fs::read_to_string("/proc/self/mounts").unwrap().contains(rig.bpffs.to_str().unwrap());
    let attached = || {
        let query = || SchedClassifier::query_tcx("locota", TcAttachType::Ingress).unwrap().1.len();
        rig.netns.run(query).unwrap()
    };
    assert_eq!((mounted(), attached()), (true, 1));
    uninstall(&rig.bpffs).unwrap();
    assert!(!mounted() && !rig.bpffs.exists());
    testkit::eventually(crate::rig::SOON, || (attached() == 0).then_some(())).await.unwrap();
    uninstall(&rig.bpffs).unwrap();
}

/// Set for a child of this very test: which capability it was started without.
const LACKING: &str = "LOCO_TEST_LACKING";

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_missing_capability_is_named() {
    if let Ok(name) = std::env::var(LACKING) {
        let nowhere = TrafficConfig { netns: "/proc/self/ns/net".into(), bpffs: "/nonexistent".into(), attach: None };
        let (_, wanted) = tokio::sync::watch::channel(None);
        let error = Traffic::start(nowhere, wanted).await.err().unwrap();
        assert!(matches!(&error, TrafficError::Capability(missing) if *missing == name), "{error}");
        println!("named {name}");
        return;
    }
    for (name, dropped) in
        [("CAP_BPF", "-bpf,-sys_admin"), ("CAP_PERFMON", "-perfmon,-sys_admin"), ("CAP_NET_ADMIN", "-net_admin")]
    {
        let child = Command::new("setpriv")
            .arg(format!("--bounding-set={dropped}"))
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "lifecycle::a_missing_capability_is_named"])
            .env(LACKING, name)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success() && text.contains(&format!("named {name}")), "{text}");
    }
}
