//! The namespace: adopted when it is there, gone after `uninstall`, and clear words when it cannot be made.
use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use fabric::{Fabric, FabricConfig};
use futures_util::TryStreamExt;
use netlink_packet_route::link::LinkAttribute;
use prometheus::Registry;
use testkit::{NetNs, Underlay};

use crate::cluster::{Cluster, VXLAN_PORT, instance, netlink, node_name};

fn links(netns: &std::path::Path) -> Vec<String> {
    netlink::inside(netns, async |handle| {
        let links: Vec<_> = handle.link().get().execute().try_collect().await.unwrap();
        let name = |attribute: &LinkAttribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        };
        links.iter().filter_map(|link| link.attributes.iter().find_map(name)).collect()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_namespace_that_is_there_is_adopted() {
    let mut cluster = Cluster::new(1, &[0]).await;
    let inode = fs::metadata(cluster.netns(0)).unwrap().ino();
    cluster.fabrics[0] = None;
    cluster.start(0).await;
    assert_eq!(fs::metadata(cluster.netns(0)).unwrap().ino(), inode);
    // Somebody mounted another one there (an init container does): the fabric settles in it.
    cluster.fabrics[0] = None;
    fabric::uninstall(&cluster.configs[0]).unwrap();
    let foreign = NetNs::new("foreign").unwrap();
    cluster.configs[0].netns = foreign.path().to_owned();
    cluster.start(0).await;
    cluster.set_spec(0).await;
    cluster.fabric(0).open_tap(&instance(0)).await.unwrap();
    assert!(links(foreign.path()).contains(&"locobr001068".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn uninstall_leaves_nothing_even_while_a_tap_is_held() {
    let mut cluster = Cluster::new(2, &[0, 1]).await;
    let held = cluster.fabric(0).open_tap(&instance(0)).await.unwrap();
    let netns = cluster.netns(0).clone();
    // A second mount keeps the namespace visible, so that one can look into it afterwards.
    let window = NetNs::free_path("window");
    fs::write(&window, "").unwrap();
    nix::mount::mount(Some(&netns), &window, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>).unwrap();
    cluster.fabrics[0] = None;
    fabric::uninstall(&cluster.configs[0]).unwrap();
    assert!(!netns.exists());
    let left = links(&window);
    nix::mount::umount(&window).unwrap();
    fs::remove_file(&window).unwrap();
    assert_eq!(left, ["lo"]);
    drop(held);
    // A second time there is nothing to do, and that is fine. The VNI is free on the node again.
    fabric::uninstall(&cluster.configs[0]).unwrap();
    cluster.start(0).await;
    cluster.set_spec(0).await;
    assert_eq!(cluster.status(0).problems, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_namespace_that_cannot_be_made_is_told_with_the_remedy() {
    let config = FabricConfig {
        node: node_name(0),
        netns: PathBuf::from("/proc/no/such/place"),
        underlay_ip: Underlay::address(0),
        vxlan_port: VXLAN_PORT,
        underlay_netns: None,
        macvlan_parent: None,
        encryption: None,
    };
    let error = Fabric::start(config.clone(), &Registry::new()).await.unwrap_err().to_string();
    assert!(error.contains("/proc/no/such/place") && error.contains("CAP_SYS_ADMIN"), "{error}");
    let no_underlay =
        FabricConfig { netns: NetNs::free_path("lonely"), underlay_netns: Some(PathBuf::from("/dev/null")), ..config };
    let error = Fabric::start(no_underlay.clone(), &Registry::new()).await.unwrap_err().to_string();
    assert!(error.contains("/dev/null"), "{error}");
    fabric::uninstall(&no_underlay).unwrap();
}
