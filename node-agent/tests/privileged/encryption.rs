//! Agents that encrypt between nodes: keys of their own, found by one another, and what an agent's absence costs.
use std::{
    os::unix::fs::PermissionsExt as _,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use api::agent::{AgentStatus, UnderlayKey};
use nix::sys::signal::Signal;
use seat::SeatSocket;
use testkit::{Tap, Underlay};

use crate::{
    flow::Flow,
    rig::{Process, Rig, SOON},
};

fn agent(rig: &Rig, node: u8, more: &[&str]) -> Process {
    let mut command: Command = rig.agent_command(node);
    command.args(more);
    rig.spawn(node, command)
}

const ENCRYPT: [&str; 2] = ["--encryption", "wireguard"];

/// Waits until an agent's status is as wanted.
#[track_caller]
fn until(rig: &Rig, node: u8, want: impl Fn(&AgentStatus) -> bool) -> AgentStatus {
    let start = Instant::now();
    let mut last = None;
    while start.elapsed() < SOON {
        last = rig.status(node);
        if let Some(status) = last.take_if(|status| want(status)) {
            return status;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("node {node} is {last:#?}\n{}", rig.logs());
}

fn is_whole(status: &AgentStatus) -> bool {
    let shaken = |tunnel: &api::agent::Tunnel| tunnel.peers.iter().any(|peer| peer.handshake_age.is_some());
    status.lans.iter().any(|lan| lan.encryption.as_deref() == Some("wireguard"))
        && status.tunnel.as_ref().is_some_and(shaken)
        && status.fabric_problems.is_empty()
}

async fn seats(rig: &Rig) -> ((Arc<Tap>, SeatSocket), (Arc<Tap>, SeatSocket)) {
    let ((a, keep_a), (b, keep_b)) = (rig.take_seat(0, 0).await, rig.take_seat(1, 1).await);
    ((Arc::new(a), keep_a), (Arc::new(b), keep_b))
}

/// Kills and replaces the agent of node 1 under numbered frames from node 0, each 2 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn agents_find_each_others_keys_and_frames_cross_again_when_one_is_replaced() {
    let rig = Rig::new(2);
    rig.place(&[0, 1]);
    let _first = agent(&rig, 0, &ENCRYPT);
    let mut second = agent(&rig, 1, &ENCRYPT);
    let ((a, _keep_a), (b, _keep_b)) = seats(&rig).await;
    until(&rig, 0, is_whole);
    let key = until(&rig, 1, is_whole).tunnel.unwrap().public_key;
    let file = rig.run_dir(1).join("wireguard.key");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(&file).unwrap();
    assert!(!rig.logs().contains(secret.trim()), "the private half is in a log");

    for case in ["killed", "told to end, with another that stands by", "new key"] {
        let flow = Flow::start(0, Arc::clone(&a), 1, Arc::clone(&b));
        flow.goes_on(250).await;
        match case {
            "killed" => {
                second.kill();
                second = agent(&rig, 1, &ENCRYPT);
            }
            "new key" => {
                second.kill();
                std::fs::remove_file(&file).unwrap();
                second = agent(&rig, 1, &ENCRYPT);
            }
            _ => {
                let next = agent(&rig, 1, &[ENCRYPT[0], ENCRYPT[1], "--stand-by"]);
                // It waits for the other's end; that it is ready to is not told outside of its container.
                flow.goes_on(1000).await;
                second.signal(Signal::SIGTERM);
                second = next;
            }
        }
        let start = Instant::now();
        until(&rig, 1, is_whole);
        let whole = start.elapsed();
        flow.goes_on(1500).await;
        let (sent, lost, doubled) = flow.end().await;
        println!("{case}: whole after {whole:?}; of {sent} frames, one each 2 ms, {lost} lost, {doubled} doubled");
        assert_eq!(doubled, 0);
        assert!(lost < sent - 1000, "{case}: frames cross again\n{}", rig.logs());
    }
    let status = until(&rig, 1, is_whole);
    assert_ne!(status.tunnel.unwrap().public_key, key, "the last one made a new key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_node_that_does_not_encrypt_is_told_and_hears_nothing() {
    let rig = Rig::new(2);
    rig.place(&[0, 1]);
    let _first = agent(&rig, 0, &ENCRYPT);
    let _second = agent(&rig, 1, &[]);
    let ((a, _keep_a), (b, _keep_b)) = seats(&rig).await;
    until(&rig, 0, |status| {
        status
            .fabric_problems
            .iter()
            .any(|problem| problem.contains("node `node-1` does not encrypt and this node does"))
    });
    let of_second = until(&rig, 1, |status| status.lans.iter().any(|lan| lan.encryption.is_some()));
    assert_eq!(of_second.lans[0].encryption.as_deref(), Some("none"));
    let flow = Flow::start(0, a, 1, b);
    flow.goes_on(300).await;
    let (sent, lost, _) = flow.end().await;
    assert_eq!(sent, lost, "a frame crossed in the clear");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn the_key_is_told_without_a_token_and_proven_by_it() {
    let rig = Rig::new(1);
    rig.place(&[0]);
    let _agent = agent(&rig, 0, &ENCRYPT);
    until(&rig, 0, |status| status.tunnel.is_some());
    let ask = |nonce: String| {
        let url = format!("http://{}:14780/underlay/key?nonce={nonce}", Underlay::address(0));
        let request = async move {
            let answer = reqwest::get(url).await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        rig.underlay.node(0).block_on(request).unwrap()
    };
    assert_eq!(ask("abc".to_owned()).0, 422);
    let ((status, one), (_, other)) = (ask("1".repeat(64)), ask("2".repeat(64)));
    assert_eq!(status, 200);
    let (one, other): (UnderlayKey, UnderlayKey) =
        (serde_json::from_str(&one).unwrap(), serde_json::from_str(&other).unwrap());
    assert_eq!((one.node.as_str(), one.port, &one.public_key), ("node-0", Some(51820), &other.public_key));
    assert_ne!(one.proof, other.proof, "each answer is to its question");
}
