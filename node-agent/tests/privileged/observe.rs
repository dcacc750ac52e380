//! What an agent sees of its LAN, by its API: two seats that the test holds, on one node.
use std::{fs, process::Command};

use api::agent::AgentStatus;

use super::rig::{Rig, SOON};

const MAC_A: [u8; 6] = [2, 0x4c, 0, 0x10, 0x68, 1];

/// "Who has 10.98.0.2? Tell 10.98.0.1", to all.
fn arp() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(MAC_A);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(MAC_A);
    frame.extend([10, 98, 0, 1, 0, 0, 0, 0, 0, 0, 10, 98, 0, 2]);
    frame.resize(60, 0);
    frame
}

/// Asks until the status is as wanted; `each` is done before each question.
async fn until(rig: &Rig, mut each: impl AsyncFnMut(), want: impl Fn(&AgentStatus) -> bool) -> AgentStatus {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        each().await;
        let status = rig.status(0);
        if let Some(status) = status.as_ref().filter(|status| want(status)) {
            return status.clone();
        }
        assert!(std::time::Instant::now() < deadline, "{status:#?}\n{}", rig.logs());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn mounted(path: &str) -> bool {
    fs::read_to_string("/proc/self/mounts").unwrap().contains(path)
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn frames_are_counted_and_understood_and_uninstall_leaves_no_pin() {
    let rig = Rig::new(1);
    rig.place(&[0, 0]);
    let mut agent = rig.start_agent(0);
    let (a, _seat_a) = rig.take_seat(0, 0).await;
    let (_b, _seat_b) = rig.take_seat(0, 1).await;
    let watched = |status: &AgentStatus| status.observer.as_ref().is_some_and(|observer| observer.taps == 2);
    let status = until(&rig, async || (), watched).await;
    let observer = status.observer.unwrap();
    assert_eq!((observer.attach.as_deref(), observer.problem), (Some("tcx"), None));

    let seen = |status: &AgentStatus| {
        let machine = status.observed.get("party").and_then(|observed| {
            observed.machines.iter().find(|machine| machine.instance.as_deref() == Some("instance-0"))
        });
        let reached = |instance: &std::sync::Arc<api::agent::InstanceStatus>| {
            let from_a = instance.pairs.iter().find(|pair| pair.peer == "02:4c:00:10:68:01");
            instance.id == "instance-1" && from_a.is_some_and(|pair| pair.rx_broadcasts > 0)
        };
        machine.is_some_and(|machine| machine.ips == ["10.98.0.1"]) && status.instances.iter().any(reached)
    };
    let status = until(&rig, async || a.send(&arp()).await.unwrap(), seen).await;
    let sender = status.instances.iter().find(|instance| instance.id == "instance-0").unwrap();
    let before = sender.classes["arp"].tx_frames;
    assert!(before > 0);

    // A successor goes on with the same counts.
    agent.kill();
    a.send(&arp()).await.unwrap();
    let successor = rig.start_agent(0);
    let counted = |status: &AgentStatus| {
        let sender = status.instances.iter().find(|instance| instance.id == "instance-0");
        sender.and_then(|sender| sender.classes.get("arp")).is_some_and(|arp| arp.tx_frames > before)
    };
    until(&rig, async || (), counted).await;

    let bpffs = rig.run_dir(0).join("bpf").display().to_string();
    assert!(mounted(&bpffs));
    drop(successor);
    let uninstall = ["uninstall", "--run-dir"];
    let ended = Command::new(env!("CARGO_BIN_EXE_node-agent")).args(uninstall).arg(rig.run_dir(0)).status().unwrap();
    assert!(ended.success());
    assert!(!mounted(&bpffs));
}
