//! The encrypted underlay on the real kernel: all that the plain one does, and nothing of it to be seen on the wire.
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fabric::{
    Encryption, FabricStatus,
    wireguard::{self, Datapath, KeyPair, Known, PeerKey},
};
use pnet::datalink::{self, Channel};
use testkit::{Frame, NetNs, Numbered, Underlay, eventually};

use crate::{
    cluster::{Cluster, SOON, VXLAN_PORT, mac},
    frames::{PLACES, every_kind_crosses_once},
};

/// What `Numbered` puts into each frame.
const MARKER: &[u8] = b"LOCOTEST";

#[track_caller]
fn ip(netns: &Path, words: &str) {
    let status = NetNs::run_at(netns, || Command::new("ip").args(words.split(' ')).status().unwrap()).unwrap();
    assert!(status.success(), "ip {words}: {status}");
}

/// All frames at a node's link, both ways, since the capture began.
struct Wiretap {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    end: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Wiretap {
    fn at(node: &NetNs) -> Self {
        let (frames, end) = (Arc::<Mutex<Vec<Vec<u8>>>>::default(), Arc::new(AtomicBool::new(false)));
        let open = || {
            let link = datalink::interfaces().into_iter().find(|link| link.name == "eth0").unwrap();
            let config =
                datalink::Config { read_timeout: Some(Duration::from_millis(20)), ..datalink::Config::default() };
            let Channel::Ethernet(_, receiver) = datalink::channel(&link, config).unwrap() else {
                panic!("no Ethernet")
            };
            receiver
        };
        let mut receiver = node.run(open).unwrap();
        let (book, ended) = (Arc::clone(&frames), Arc::clone(&end));
        let thread = thread::spawn(move || {
            // Until the end was said and nothing more waits: what has crossed has also come here.
            loop {
                match receiver.next() {
                    Ok(frame) => book.lock().unwrap().push(frame.to_vec()),
                    Err(_) if ended.load(Ordering::Relaxed) => break,
                    Err(_) => {}
                }
            }
        });
        Self { frames, end, thread }
    }

    fn stop(self) -> Vec<Vec<u8>> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        std::mem::take(&mut self.frames.lock().unwrap())
    }
}

/// What a frame of the underlay is, as far as it matters here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kinds {
    /// UDP to WireGuard's port.
    encrypted: usize,
    /// UDP to VXLAN's port.
    vxlan: usize,
    /// With a guest's payload that can be read.
    plain: usize,
    /// IPv4 fragments.
    fragments: usize,
    longest: usize,
}

fn kinds(frames: &[Vec<u8>]) -> Kinds {
    let mut kinds = Kinds::default();
    for frame in frames {
        kinds.longest = kinds.longest.max(frame.len());
        kinds.plain += usize::from(frame.windows(MARKER.len()).any(|window| window == MARKER));
        let is_ipv4 = frame.get(12..14) == Some(&[8, 0]) && frame.len() >= 38;
        if !is_ipv4 {
            continue;
        }
        let fragment = u16::from_be_bytes([frame[20], frame[21]]);
        let (more, offset) = (fragment & 0x2000 != 0, fragment & 0x1fff);
        kinds.fragments += usize::from(more || offset != 0);
        if frame[23] == 17 && offset == 0 {
            let port = u16::from_be_bytes([frame[36], frame[37]]);
            kinds.vxlan += usize::from(port == VXLAN_PORT);
            kinds.encrypted += usize::from(port == wireguard::PORT);
        }
    }
    kinds
}

fn all_alive(status: &FabricStatus) -> bool {
    !status.peers.is_empty() && status.peers.iter().all(|peer| peer.alive == Some(true))
}

fn encryption(status: &FabricStatus) -> Option<Encryption> {
    status.lans[&"party".parse().unwrap()].encryption
}

/// Whether a frame of seat 0 comes to seat 1 within `limit`; how long it took.
async fn crosses(cluster: &Cluster, limit: Duration) -> Option<Duration> {
    let (here, there) = (cluster.tap(0).await, cluster.tap(1).await);
    let start = Instant::now();
    for sequence in 0.. {
        let number = Numbered { kind: 1, sender: 0, sequence };
        here.send(&Frame::ethernet([0xff; 6], mac(0).0, number, 46)).await.unwrap();
        let heard = || there.drain().unwrap().iter().any(|frame| Numbered::find(frame).is_some()).then_some(());
        if eventually(Duration::from_millis(20), heard).await.is_ok() {
            return Some(start.elapsed());
        }
        if start.elapsed() > limit {
            return None;
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn every_kind_of_frame_crosses_and_the_underlay_shows_none() {
    let cluster = Cluster::encrypted(3, &PLACES).await;
    for index in 0..3 {
        let status = cluster.until(index, all_alive).await;
        assert_eq!(encryption(&status), Some(Encryption::Wireguard));
    }
    let wiretap = Wiretap::at(cluster.underlay.node(0));
    // In user space each frame waits for threads of this process, which may have to wait for a processor.
    every_kind_crosses_once(&cluster, 1).await;
    let seen = kinds(&wiretap.stop());
    println!("on the underlay: {seen:?}");
    assert!(seen.encrypted > 10_000, "the capture saw the traffic: {seen:?}");
    assert_eq!((seen.plain, seen.vxlan, seen.fragments), (0, 0, 0), "{seen:?}");
    assert_eq!(seen.longest, 1514, "full frames went in two packets that just fit");
    let status = cluster.until(0, |status| status.peers.iter().all(|peer| peer.full_frames == Some(true))).await;
    let tunnel = status.tunnel.unwrap();
    assert_eq!((tunnel.mtu, tunnel.peers.len()), (1440, 2));
    assert!(
        tunnel.peers.iter().all(|peer| peer.handshakes >= 1 && peer.tx_bytes > 1_000_000 && peer.handshake.is_some())
    );
    println!("refused: {:?}", tunnel.refused);
    if tunnel.datapath == Datapath::User {
        assert_eq!(tunnel.refused.values().sum::<u64>(), 0, "{tunnel:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn without_encryption_the_same_capture_shows_the_frames() {
    let cluster = Cluster::new(2, &[0, 1]).await;
    assert_eq!(encryption(&cluster.until(0, all_alive).await), Some(Encryption::None));
    let wiretap = Wiretap::at(cluster.underlay.node(0));
    crosses(&cluster, SOON).await.unwrap();
    let seen = kinds(&wiretap.stop());
    assert!(seen.plain > 0 && seen.vxlan > 0 && seen.encrypted == 0, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_smaller_underlay_carries_full_frames_too_and_the_device_follows_it() {
    let cluster = Cluster::encrypted(2, &[0, 1]).await;
    cluster.until(0, all_alive).await;
    for index in 0..2 {
        ip(cluster.underlay.node(index).path(), "link set eth0 mtu 1420");
    }
    for index in 0..2 {
        cluster.until(index, |status| status.tunnel.as_ref().is_some_and(|tunnel| tunnel.mtu == 1360)).await;
    }
    let wiretap = Wiretap::at(cluster.underlay.node(0));
    assert!(crosses(&cluster, SOON).await.is_some());
    let (here, there) = (cluster.tap(0).await, cluster.tap(1).await);
    let mut arrived = Vec::new();
    let start = Instant::now();
    for sequence in 0.. {
        let number = Numbered { kind: 2, sender: 0, sequence };
        here.send(&Frame::ethernet(mac(1).0, mac(0).0, number, 1500)).await.unwrap();
        let whole = || {
            there.drain().unwrap().into_iter().find(|frame| Numbered::find(frame).is_some_and(|found| found.kind == 2))
        };
        if let Ok(frame) = eventually(Duration::from_millis(50), whole).await {
            arrived = frame;
            break;
        }
        assert!(start.elapsed() < SOON, "no full frame crosses");
    }
    assert_eq!(arrived.len(), 1514);
    let seen = kinds(&wiretap.stop());
    assert_eq!((seen.plain, seen.vxlan, seen.fragments, seen.longest), (0, 0, 0, 1434), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_node_that_dies_is_out_within_two_seconds_and_back_within_one() {
    let cluster = Cluster::encrypted(2, &[0, 1]).await;
    cluster.until(0, all_alive).await;
    for _ in 0..2 {
        ip(cluster.underlay.node(1).path(), "link set eth0 down");
        let start = Instant::now();
        cluster.until(0, |status| status.peers[0].alive == Some(false)).await;
        let out = start.elapsed();
        ip(cluster.underlay.node(1).path(), "link set eth0 up");
        let start = Instant::now();
        cluster.until(0, all_alive).await;
        println!("pruned after {out:?}, back after {:?}", start.elapsed());
        assert!(out < Duration::from_secs(2) && start.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_wrong_key_lets_nothing_through_and_is_told() {
    let cluster = Cluster::encrypted(2, &[0, 1]).await;
    cluster.until(0, all_alive).await;
    let stranger = PeerKey { key: KeyPair::make().public(), port: wireguard::PORT };
    let (address, right) = (Underlay::address(1), cluster.known[0].borrow()[&Underlay::address(1)].clone());
    cluster.known[0].send_modify(|known| _ = known.insert(address, Known::Key { key: stranger, answers: true }));
    cluster.until(0, |status| status.peers[0].alive == Some(false)).await;
    assert_eq!(crosses(&cluster, Duration::from_millis(300)).await, None);
    let silent = |status: &FabricStatus| {
        status.problems.iter().any(|problem| problem.contains("no WireGuard handshake completes with node `node-1`"))
    };
    let watch = cluster.fabric(0).status();
    eventually(2 * SOON, || silent(&watch.borrow()).then_some(())).await.unwrap();
    // And the right one again: nothing has to be restarted.
    cluster.known[0].send_modify(|known| _ = known.insert(address, right));
    let start = Instant::now();
    cluster.until(0, all_alive).await;
    println!("alive {:?} after the right key came", start.elapsed());
    cluster.until(0, |status| status.problems.is_empty()).await;
    assert!(crosses(&cluster, SOON).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_peer_that_cannot_encrypt_gets_nothing_in_the_clear() {
    let cluster = Cluster::encrypted(2, &[0, 1]).await;
    cluster.until(0, all_alive).await;
    let wiretap = Wiretap::at(cluster.underlay.node(0));
    cluster.known[0].send_modify(|known| {
        known.insert(Underlay::address(1), Known::Wrong("node `node-1` does not encrypt".to_owned()));
    });
    cluster.until(0, |status| status.problems == ["node `node-1` does not encrypt"]).await;
    assert_eq!(crosses(&cluster, Duration::from_millis(500)).await, None);
    let seen = kinds(&wiretap.stop());
    assert_eq!((seen.plain, seen.vxlan), (0, 0), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn an_agent_that_is_replaced_and_one_with_a_new_key_are_taken_up() {
    let mut cluster = Cluster::encrypted(2, &[0, 1]).await;
    cluster.until(0, all_alive).await;
    let mut times = Vec::new();
    for new_key in [false, true, true] {
        let start = Instant::now();
        cluster.fabrics[1] = None;
        if new_key {
            cluster.new_key(1);
        }
        cluster.start(1).await;
        cluster.set_spec(1).await;
        let (up, writes) = (start.elapsed(), cluster.status(1).netlink_writes);
        let took = crosses(&cluster, SOON).await.expect("frames cross again");
        times.push((up, start.elapsed()));
        assert!(took < Duration::from_secs(2), "{took:?}");
        // The kernel's has to be told a new key, and nothing else.
        assert!(writes <= u64::from(new_key), "what the last one left was adopted: {writes} writes");
        cluster.until(0, all_alive).await;
    }
    println!("(first pass, first frame) after the end of the last agent: {times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn what_somebody_damages_is_put_right_and_counted() {
    let cluster = Cluster::encrypted(2, &[0, 1]).await;
    cluster.until(0, all_alive).await;
    let tunnels = {
        let mut name = cluster.netns(0).clone().into_os_string();
        name.push(".wireguard");
        std::path::PathBuf::from(name)
    };
    let repairs = cluster.fabric(0).repairs();
    assert_eq!(repairs.get("wireguard"), 0, "what was just made needs no repair");
    for damage in [
        "link set locowg0 down",
        "link set locowg0 mtu 1000",
        "address flush dev locowg0",
        "route del default",
        "link del locowg0",
    ] {
        let before = repairs.get("wireguard");
        ip(&tunnels, damage);
        let start = Instant::now();
        eventually(SOON, || (repairs.get("wireguard") > before).then_some(()))
            .await
            .unwrap_or_else(|error| panic!("{damage}: {error}"));
        cluster
            .until(0, |status| encryption(status) == Some(Encryption::Wireguard) && status.problems.is_empty())
            .await;
        println!("{damage}: put right after {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(3), "{damage}");
        assert!(crosses(&cluster, SOON).await.is_some(), "{damage}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn hostile_datagrams_are_counted_and_change_nothing() {
    let cluster = Cluster::encrypted(3, &[0, 1]).await;
    cluster.until(0, all_alive).await;
    let memory = || {
        std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
    };
    let target = SocketAddr::from((Underlay::address(0), wireguard::PORT));
    // Node 2 is no peer, as it has no seat; node 1 is one. Forms at random, and such as have the right one.
    let send = |from: u8, count: usize| {
        let node = cluster.underlay.node(usize::from(from));
        node.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            for number in 0..count {
                let len = [0, 1, 31, 32, 64, 92, 148, 1400][number % 8];
                let mut octets: Vec<u8> =
                    (0..len).map(|at| u8::try_from((number * 31 + at * 7) % 256).unwrap()).collect();
                if number % 2 == 0 && len >= 4 {
                    octets[..4].copy_from_slice(&[u8::try_from(number / 2 % 5).unwrap(), 0, 0, 0]);
                }
                // A full buffer is the receiver's affair.
                socket.send_to(&octets, target).ok();
            }
        })
        .unwrap();
    };
    send(2, 1000);
    send(1, 1000);
    let before = memory();
    send(2, 40_000);
    send(1, 40_000);
    let seen = |reason: &'static str| {
        move |status: &FabricStatus| status.tunnel.as_ref().is_some_and(|tunnel| tunnel.refused[reason] > 1000)
    };
    // The kernel's counts some of them only, and by no reason.
    if cluster.status(0).tunnel.is_some_and(|tunnel| tunnel.datapath == Datapath::User) {
        cluster.until(0, seen("stranger")).await;
        cluster.until(0, seen("form")).await;
    }
    assert!(crosses(&cluster, SOON).await.is_some());
    cluster.until(0, all_alive).await;
    let grown = memory().saturating_sub(before);
    println!("{:?}; {grown} kB more", cluster.status(0).tunnel.unwrap().refused);
    assert!(grown < 16_384, "{grown} kB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn encryption_turned_on_and_off_moves_the_tunnel_and_uninstall_leaves_nothing() {
    let mut cluster = Cluster::encrypted(2, &[0, 1]).await;
    cluster.until(0, all_alive).await;
    let with: Vec<_> = cluster.configs.iter().map(|config| config.encryption.clone()).collect();
    for encrypted in [false, true] {
        for (index, with) in with.iter().enumerate() {
            cluster.fabrics[index] = None;
            cluster.configs[index].encryption = with.clone().filter(|_| encrypted);
            cluster.start(index).await;
            cluster.set_spec(index).await;
        }
        let expected = if encrypted { Encryption::Wireguard } else { Encryption::None };
        let status = cluster.until(0, |status| all_alive(status) && encryption(status) == Some(expected)).await;
        assert_eq!(status.tunnel.is_some(), encrypted);
        assert!(crosses(&cluster, SOON).await.is_some());
    }
    let config = cluster.configs[0].clone();
    cluster.fabrics[0] = None;
    fabric::uninstall(&config).unwrap();
    let left: Vec<_> = std::fs::read_dir(config.netns.parent().unwrap())
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().starts_with(&*config.netns.to_string_lossy()))
        .collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_port_that_is_taken_is_told_and_taken_when_it_is_free() {
    let mut cluster = Cluster::encrypted(2, &[0, 1]).await;
    cluster.fabrics[0] = None;
    // The kernel's keeps its port without an agent.
    fabric::uninstall(&cluster.configs[0]).unwrap();
    let port = (Underlay::address(0), wireguard::PORT);
    let other = cluster.underlay.node(0).run(|| UdpSocket::bind(port).unwrap()).unwrap();
    cluster.start(0).await;
    cluster.set_spec(0).await;
    let status = cluster.until(0, |status| !status.problems.is_empty()).await;
    assert!(
        status.problems[0].contains("51820") && status.problems[0].contains("--wireguard-port"),
        "{:?}",
        status.problems
    );
    assert_eq!(encryption(&status), None, "nothing is claimed that is not there");
    drop(other);
    cluster.until(0, |status| all_alive(status) && status.problems.is_empty()).await;
}
