//! What somebody removes or alters is back within 2 s and counted by its object; what cannot be mended is told in words.
use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use fabric::{Fabric, FabricConfig, FabricSpec};
use prometheus::Registry;
use testkit::{NetNs, eventually};

use crate::cluster::{Cluster, SOON, instance, mac, node_name, snapshot};

/// As the issue asks; the machine may be busy with other tests, so what is measured is printed and the limit is twice that.
const MENDED_WITHIN: Duration = Duration::from_secs(2);

/// iproute2 in a namespace.
#[track_caller]
fn ip(netns: &Path, words: &str) {
    let mut words = words.split(' ');
    let program = words.next().unwrap();
    let status = NetNs::run_at(netns, || Command::new(program).args(words).status().unwrap()).unwrap();
    assert!(status.success(), "{program}: {status}");
}

fn said(netns: &Path, words: &str) -> String {
    let mut words = words.split(' ');
    let program = words.next().unwrap();
    let output = NetNs::run_at(netns, || Command::new(program).args(words).output().unwrap()).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that matters, in the kernel's words, without what moves by itself.
fn state(netns: &Path) -> String {
    let devices = said(netns, "ip -d -o link");
    let mut lines: Vec<String> = devices
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |word: &str| words.iter().position(|found| *found == word).map(|at| words[at + 1]);
            let name = words[1].trim_end_matches(':').split('@').next().unwrap().to_owned();
            let up = words[2].contains(",UP") || words[2].contains("<UP");
            // A tap that is made anew has another MAC, and that is nobody's.
            let mac = if name.starts_with("locot") { None } else { after("link/ether") };
            format!(
                "{name} up {up} mtu {:?} master {:?} mac {mac:?} stp {:?} snooping {:?}",
                after("mtu"),
                after("master"),
                after("stp_state"),
                after("mcast_snooping")
            )
        })
        .collect();
    lines.sort();
    let mut fdb: Vec<String> = said(netns, "bridge fdb show dev locovx001068")
        .lines()
        .filter(|line| line.contains("dst"))
        .map(str::to_owned)
        .collect();
    fdb.sort();
    let sysctl = |name: &str| {
        NetNs::run_at(netns, || fs::read_to_string(format!("/proc/sys/net/{name}"))).unwrap().unwrap_or_default()
    };
    let sysctls = [sysctl("bridge/bridge-nf-call-iptables"), sysctl("ipv6/conf/all/disable_ipv6")];
    format!("{}\n{}\n{sysctls:?}", lines.join("\n"), fdb.join("\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn every_object_is_mended_within_two_seconds_and_counted() {
    let cluster = Cluster::new(2, &[0, 1]).await;
    let netns = cluster.netns(0).clone();
    let guest = mac(1);
    // A namespace is looked into by its mount, also while that mount is away.
    let window = NetNs::free_path("window");
    fs::write(&window, "").unwrap();
    nix::mount::mount(Some(&netns), &window, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>).unwrap();
    let good = state(&window);
    let flood = "bridge fdb del 00:00:00:00:00:00 dev locovx001068 dst 10.99.0.12 self";
    let unicast = format!("bridge fdb del {guest} dev locovx001068 dst 10.99.0.12 self");
    let stray = "bridge fdb append 02:00:00:00:00:99 dev locovx001068 dst 10.99.0.99 self permanent";
    let astray = format!("bridge fdb replace {guest} dev locovx001068 dst 10.99.0.99 self permanent");
    let proc = |name: &str, value: &str| {
        NetNs::run_at(&window, || fs::write(format!("/proc/sys/net/{name}"), value).unwrap()).unwrap();
    };
    let damages: [(&str, &str, &dyn Fn()); 16] = [
        ("link", "tunnel deleted", &|| ip(&window, "ip link del locovx001068")),
        ("link", "bridge deleted", &|| ip(&window, "ip link del locobr001068")),
        ("link", "tap deleted", &|| ip(&window, "ip link del locot001068-0")),
        ("link", "tap down", &|| ip(&window, "ip link set locot001068-0 down")),
        ("master", "tap unplugged", &|| ip(&window, "ip link set locot001068-0 nomaster")),
        ("master", "tunnel unplugged", &|| ip(&window, "ip link set locovx001068 nomaster")),
        ("mtu", "tap's MTU", &|| ip(&window, "ip link set locot001068-0 mtu 1400")),
        ("mac", "bridge's MAC", &|| ip(&window, "ip link set locobr001068 address 02:00:00:00:00:07")),
        ("bridge", "STP on", &|| ip(&window, "ip link set locobr001068 type bridge stp_state 1")),
        ("flood", "flood entry deleted", &|| ip(&window, flood)),
        ("unicast", "unicast entry deleted", &|| ip(&window, &unicast)),
        ("unicast", "a stray unicast entry", &|| ip(&window, stray)),
        ("unicast", "a unicast entry to another node", &|| ip(&window, &astray)),
        ("sysctl", "bridge-nf-call-iptables", &|| proc("bridge/bridge-nf-call-iptables", "1")),
        ("sysctl", "disable_ipv6", &|| proc("ipv6/conf/all/disable_ipv6", "0")),
        ("namespace", "unmounted", &|| {
            nix::mount::umount2(&netns, nix::mount::MntFlags::MNT_DETACH).unwrap();
            fs::remove_file(&netns).unwrap();
        }),
    ];
    for (object, what, damage) in damages {
        let repairs = cluster.fabric(0).repairs();
        let before = repairs.get(object);
        damage();
        let start = Instant::now();
        let mended = || (repairs.get(object) > before && state(&window) == good && netns.exists()).then_some(());
        eventually(MENDED_WITHIN * 2, mended).await.unwrap_or_else(|error| {
            panic!("{what}: {error}\n{}\ninstead of\n{good}\n{:#?}", state(&window), cluster.status(0))
        });
        println!("{what}: {:?}", start.elapsed());
        assert!(start.elapsed() < MENDED_WITHIN, "{what}: {:?}", start.elapsed());
        assert_eq!(cluster.status(0).problems, Vec::<String>::new(), "{what}");
    }
    // The mount that came back is the same namespace, and taps can be had by it.
    assert_eq!(state(&netns), good);
    cluster.fabric(0).open_tap(&instance(0)).await.unwrap();
    nix::mount::umount(&window).unwrap();
    fs::remove_file(&window).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn news_that_the_kernel_had_to_drop_lose_no_repair() {
    let cluster = Cluster::new(2, &[0, 1]).await;
    let netns = cluster.netns(0);
    let good = state(netns);
    ip(netns, "ip link add stranger type bridge");
    ip(netns, "ip link set stranger up");
    let batch = std::env::temp_dir().join(format!("loco-storm-{}", std::process::id()));
    let lines = (0..20_000).map(|n| {
        format!("neigh replace 10.1.{}.{} lladdr 02:00:00:00:00:01 dev stranger nud permanent\n", n / 250, n % 250 + 1)
    });
    fs::write(&batch, lines.collect::<String>()).unwrap();
    // Column `Drops` of this process's sockets: the receive buffer was full.
    let drops = || -> u64 {
        let table = NetNs::run_at(netns, || fs::read_to_string("/proc/thread-self/net/netlink").unwrap()).unwrap();
        let column = |line: &str| line.split_whitespace().nth(8)?.parse::<u64>().ok();
        table.lines().skip(1).filter_map(column).sum()
    };
    let mut rounds = 0;
    while drops() == 0 {
        ip(netns, &format!("ip -batch {}", batch.display()));
        ip(netns, "ip neigh flush dev stranger nud permanent");
        rounds += 1;
        assert!(rounds < 50, "the kernel dropped nothing in {rounds} storms");
    }
    println!("{} news dropped after {rounds} storms", drops());
    ip(netns, "ip link set locovx001068 nomaster");
    ip(netns, &format!("ip -batch {}", batch.display()));
    ip(netns, "ip link del stranger");
    fs::remove_file(&batch).unwrap();
    let start = Instant::now();
    eventually(SOON, || (state(netns) == good).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}: {}", state(netns)));
    println!("mended {:?} after the storm", start.elapsed());
    // And the news are still heard.
    let before = cluster.fabric(0).repairs().get("flood");
    ip(netns, "bridge fdb del 00:00:00:00:00:00 dev locovx001068 dst 10.99.0.12 self");
    eventually(SOON, || (cluster.fabric(0).repairs().get("flood") > before).then_some(())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn an_underlay_that_changes_is_told_and_a_small_one_is_measured() {
    let cluster = Cluster::new(2, &[0, 1]).await;
    let full = |want: Option<bool>| {
        cluster.until(0, move |status| status.peers.len() == 1 && status.peers[0].full_frames == want)
    };
    let status = full(Some(true)).await;
    assert_eq!(status.underlay.as_ref().map(|underlay| (underlay.link.as_str(), underlay.mtu)), Some(("eth0", 1500)));
    assert_eq!(status.problems, Vec::<String>::new(), "1500 works by fragments");
    // Smaller on both sides: more fragments, and it still works.
    for node in [0, 1] {
        ip(cluster.underlay.node(node).path(), "ip link set eth0 mtu 1300");
    }
    cluster.until(0, |status| status.underlay.as_ref().is_some_and(|underlay| underlay.mtu == 1300)).await;
    // Smaller on the way only: what this node sends whole is dropped there, and that is told in words.
    ip(cluster.underlay.node(0).path(), "ip link set eth0 mtu 1500");
    let status = cluster.fabric(0).status();
    let told = || {
        let status = status.borrow().clone();
        let told = status.problems.iter().any(|problem| problem.contains("node-1") && problem.contains("1550"));
        (told && status.peers[0].alive == Some(true)).then_some(())
    };
    eventually(Duration::from_secs(25), told).await.unwrap_or_else(|error| panic!("{error}: {:#?}", *status.borrow()));
    ip(cluster.underlay.node(1).path(), "ip link set eth0 mtu 1500");
    eventually(Duration::from_secs(15), || status.borrow().problems.is_empty().then_some(())).await.unwrap();

    // The address goes, and comes back.
    ip(cluster.underlay.node(0).path(), "ip addr del 10.99.0.11/24 dev eth0");
    let status = cluster.until(0, |status| !status.problems.is_empty()).await;
    assert!(status.problems[0].contains("no link of this node has the address 10.99.0.11"), "{status:#?}");
    assert_eq!(status.underlay, None);
    ip(cluster.underlay.node(0).path(), "ip addr add 10.99.0.11/24 dev eth0");
    cluster.until(0, |status| status.problems.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_second_fabric_on_a_node_is_refused_in_words_and_harms_nothing() {
    let cluster = Cluster::new(2, &[0, 1]).await;
    let good = state(cluster.netns(0));
    let config = FabricConfig { netns: NetNs::free_path("second"), ..cluster.configs[0].clone() };
    let second = Fabric::start(config.clone(), &Registry::new()).await.unwrap();
    second.set_spec(FabricSpec::from_snapshot(&snapshot(2, &[0, 1]), &node_name(0)));
    let status = second.status();
    let told =
        || status.borrow().problems.iter().find(|problem| problem.contains("already has a VXLAN device")).cloned();
    let told = eventually(SOON, told).await.unwrap_or_else(|error| panic!("{error}: {:#?}", *status.borrow()));
    assert!(told.contains("loco down"), "{told}");
    assert_eq!(state(cluster.netns(0)), good);
    drop(second);
    fabric::uninstall(&config).unwrap();
    assert_eq!(cluster.status(0).problems, Vec::<String>::new());
}
