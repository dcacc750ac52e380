//! One wall after the other, of each way to join guests over nodes: it plays, and says itself how it is joined.
use api::lan::LanStatus;

use crate::{alone, eventually, get, is_live, loco, mount_sys, nothing_is_left, says, status};

fn lan_status(token: &str) -> LanStatus {
    serde_json::from_slice(&get(8080, "/api/lan-status", token)).unwrap()
}

/// `flags` of `up`; what the wall must say of its LAN: mode and encryption.
fn plays(flags: &[&str], mode: &str, encryption: Option<&str>) {
    let up = loco(&[&["up", "--detach", "--nodes", "3", "--guests", "4"], flags].concat());
    says(&up, 0, "all 4 pictures are live");
    let wall = status();
    let last = eventually(|| {
        let now = lan_status(&wall.token);
        let as_asked = now.network_mode.as_deref() == Some(mode)
            && now.lans.iter().all(|lan| lan.encryption.as_deref() == encryption);
        // In the game each of four tells the three others what it does.
        let told = now.connectivity.iter().filter(|pair| pair.reachable && pair.frames.is_some_and(|sent| sent > 0));
        (as_asked && told.count() == 12 && now.diagnosis.is_empty()).then_some(now)
    });
    assert_eq!(last.lans.len(), 1);
    assert!(is_live(&status()));
    says(&loco(&["doctor"]), 0, "");
    says(&loco(&["down"]), 0, "the wall is down");
    nothing_is_left();
}

#[test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
fn guests_on_the_real_lan_play() {
    alone("modes::guests_on_the_real_lan_play", || {
        mount_sys();
        plays(&["--mode", "macvlan"], "macvlan", None);
    });
}

#[test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
fn guests_of_the_agents_own_switch_play() {
    alone("modes::guests_of_the_agents_own_switch_play", || {
        mount_sys();
        plays(&["--mode", "socket"], "socket", Some("none"));
    });
}

#[test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
fn guests_of_nodes_that_encrypt_play() {
    alone("modes::guests_of_nodes_that_encrypt_play", || {
        mount_sys();
        plays(&["--encryption", "wireguard"], "vxlan", Some("wireguard"));
    });
}
