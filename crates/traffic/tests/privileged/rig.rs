//! Two taps on a bridge, held by the test in QEMU's place, and a watcher on both.
use std::{
    collections::BTreeMap,
    fs,
    os::fd::OwnedFd,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use testkit::{NetNs, Tap, eventually};
use tokio::sync::{mpsc, watch};
use traffic::{Attach, Event, Report, Traffic, TrafficConfig, Wanted};

/// Long enough for a starved machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);
static NEXT: AtomicU32 = AtomicU32::new(0);
/// `struct virtio_net_hdr`, all zero, in front of each frame of a tap.
const VNET_HEADER_LEN: usize = 10;

pub(crate) struct Rig {
    pub(crate) netns: NetNs,
    pub(crate) bpffs: PathBuf,
    pub(crate) wanted: watch::Sender<Option<Wanted>>,
    pub(crate) taps: BTreeMap<&'static str, OwnedFd>,
}

impl Rig {
    /// `locota` of instance `a`, `locotb` of instance `b`.
    pub(crate) fn new() -> Self {
        let netns = NetNs::new("traffic").unwrap();
        netns
            .run(|| {
                ip("link add br0 type bridge stp_state 0 mcast_snooping 0");
                for path in [
                    "/proc/sys/net/ipv6/conf/all/disable_ipv6",
                    "/proc/sys/net/ipv6/conf/default/disable_ipv6",
                    "/proc/sys/net/ipv6/conf/br0/disable_ipv6",
                ] {
                    // A kernel without it sends no IPv6 either.
                    fs::write(path, "1").ok();
                }
                for path in ["iptables", "ip6tables", "arptables"] {
                    fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{path}"), "0").ok();
                }
                ip("link set br0 up");
            })
            .unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let bpffs = std::env::temp_dir().join(format!("loco-traffic-{}-{number}", std::process::id()));
        fs::create_dir_all(&bpffs).unwrap();
        let ports = [("a", "locota"), ("b", "locotb")].map(|(id, tap)| (id.parse().unwrap(), tap.to_owned()));
        let (wanted, _) = watch::channel(Some(Wanted { ports: ports.into(), ..Wanted::default() }));
        let mut rig = Self { netns, bpffs: bpffs.join("bpf"), wanted, taps: BTreeMap::new() };
        rig.make_tap("locota");
        rig.make_tap("locotb");
        rig
    }

    /// Makes a tap anew; the old one of this name goes.
    pub(crate) fn make_tap(&mut self, name: &'static str) {
        self.taps.remove(name);
        let tap = self.netns.run(|| {
            let tap = Tap::open(name).unwrap();
            ip(&format!("link set {name} master br0 up"));
            tap
        });
        self.taps.insert(name, tap.unwrap());
    }

    pub(crate) fn ifindex(&self, device: &str) -> u32 {
        self.netns.run(|| nix::net::if_::if_nametoindex(device).unwrap()).unwrap()
    }

    /// Where maps are pinned; the programs' links below it, in `links`.
    pub(crate) fn pins(&self) -> PathBuf {
        self.bpffs.join(format!("v{}", traffic::abi::LAYOUT))
    }

    pub(crate) fn config(&self, attach: Option<Attach>) -> TrafficConfig {
        TrafficConfig { netns: self.netns.path().to_owned(), bpffs: self.bpffs.clone(), attach }
    }

    /// A watcher that has attached.
    pub(crate) async fn watch(&self, attach: Option<Attach>) -> (Traffic, mpsc::Receiver<Event>) {
        let (traffic, events) = Traffic::start(self.config(attach), self.wanted.subscribe()).await.unwrap();
        until(&traffic, |report| report.ports.len() == 2).await;
        (traffic, events)
    }

    pub(crate) fn send(&self, tap: &str, frame: &[u8]) {
        send(&self.taps[tap], frame);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Err(error) = traffic::uninstall(&self.bpffs) {
            eprintln!("{error}");
        }
        fs::remove_dir_all(self.bpffs.parent().unwrap()).ok();
    }
}

/// Writes a frame as the guest. A tap takes it in the same call, so it is counted when this returns.
pub(crate) fn send(tap: &OwnedFd, frame: &[u8]) {
    let mut buffer = vec![0; VNET_HEADER_LEN];
    buffer.extend_from_slice(frame);
    assert_eq!(nix::unistd::write(tap, &buffer).unwrap(), buffer.len());
}

/// iproute2 in the calling thread's namespace.
pub(crate) fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}: {status}");
}

/// Waits for a report as wanted.
pub(crate) async fn until(traffic: &Traffic, want: impl Fn(&Report) -> bool) -> Report {
    let report = traffic.report();
    let found = eventually(SOON, || Some(report.borrow().clone()).filter(&want)).await;
    found.unwrap_or_else(|error| panic!("{error}: {:#?}", brief(&report.borrow())))
}

fn brief(report: &Report) -> String {
    let ports: Vec<_> = report
        .ports
        .iter()
        .map(|(id, port)| {
            let seen = |counts: &traffic::ClassCounts| {
                counts.seen().map(|(class, count)| format!("{}={}", class.name(), count.frames)).collect::<Vec<_>>()
            };
            format!("{id}: in {:?} out {:?}", seen(&port.classes.ingress), seen(&port.classes.egress))
        })
        .collect();
    format!("{ports:?} lost {:?} events {} problem {:?}", report.lost, report.events, report.problem)
}

/// Events that come until nothing came for a while.
pub(crate) async fn drain(events: &mut mpsc::Receiver<Event>) -> Vec<Event> {
    let mut all = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(500), events.recv()).await {
        all.push(event);
    }
    all
}
