//! A port's capture by the agent's API: two seats that the test holds, on one node.
use std::sync::mpsc;

use capture::{Reader, Record};
use nix::sys::signal::Signal;
use testkit::{Frame, Numbered};

use super::rig::{Rig, SOON, TOKEN};

const A: [u8; 6] = [2, 0x4c, 0, 0x10, 0x68, 1];

/// What `GET /v1/instances/{instance}/pcap{query}` gives, part by part, until it ends or `parts` has gone.
fn read(rig: &Rig, instance: &str, query: &str, parts: &mpsc::Sender<Vec<u8>>) -> u16 {
    let url = format!("http://{}:14780/v1/instances/{instance}/pcap{query}", Rig::address(0));
    let request = async move {
        let mut answer = reqwest::Client::new().get(url).bearer_auth(TOKEN).send().await.unwrap();
        let status = answer.status().as_u16();
        while let Some(part) = tokio::time::timeout(SOON, answer.chunk()).await.expect("the stream stalls").unwrap() {
            if parts.send(part.to_vec()).is_err() {
                break;
            }
        }
        status
    };
    rig.underlay.node(0).block_on(request).unwrap()
}

fn records(file: &[u8]) -> Vec<Record> {
    Reader::new(file).unwrap().collect::<Result<_, _>>().unwrap()
}

fn sequences(records: &[Record]) -> Vec<u32> {
    records.iter().filter_map(|record| Numbered::find(&record.bytes)).map(|number| number.sequence).collect()
}

fn numbered(sequence: u32) -> Vec<u8> {
    Frame::ethernet([0xff; 6], A, Numbered { kind: 1, sender: 0, sequence }, 60)
}

/// The whole file as it is now.
pub(crate) fn snapshot(rig: &Rig, instance: &str, query: &str) -> Vec<u8> {
    let (sender, parts) = mpsc::channel();
    assert_eq!(read(rig, instance, query, &sender), 200);
    drop(sender);
    parts.iter().flatten().collect()
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_port_is_captured_with_its_name_and_followed_until_the_agent_ends() {
    let rig = Rig::new(1);
    rig.place(&[0, 0]);
    let mut agent = rig.start_agent(0);
    let (a, _seat_a) = rig.take_seat(0, 0).await;
    let (b, _seat_b) = rig.take_seat(0, 1).await;
    rig.until(0, 1, |status| status.link == Some(true));
    let deadline = std::time::Instant::now() + SOON;
    // The bridge forwards when it has seen the carriers.
    while sequences(&records(&snapshot(&rig, "instance-1", ""))).is_empty() {
        assert!(std::time::Instant::now() < deadline, "{}", rig.logs());
        a.send(&numbered(0)).await.unwrap();
        b.drain().unwrap();
    }
    let file = snapshot(&rig, "instance-1", "?last=60s");
    let text = String::from_utf8_lossy(&file).into_owned();
    for want in [
        "instance-1",
        "LAN party, seat 1, tap locot",
        "on node-0; outbound is from the guest",
        "Frames of instance-1 from ",
    ] {
        assert!(text.contains(want), "{want} is not in {text}");
    }
    assert!(sequences(&records(&snapshot(&rig, "instance-1", "?last=0s"))).is_empty());
    let (sender, parts) = mpsc::channel();
    let rig = std::sync::Arc::new(rig);
    let reading = std::sync::Arc::clone(&rig);
    let reader = std::thread::spawn(move || read(&reading, "instance-0", "?last=0s&follow=1", &sender));
    // The head comes at once, also where nothing happens.
    let mut file = parts.recv_timeout(SOON).unwrap();
    for sequence in 1..=20 {
        a.send(&numbered(sequence)).await.unwrap();
    }
    while sequences(&records(&file)).last() != Some(&20) {
        file.extend(parts.recv_timeout(SOON).unwrap());
    }
    agent.signal(Signal::SIGTERM);
    file.extend(parts.iter().flatten());
    assert_eq!(reader.join().unwrap(), 200);
    assert_eq!(sequences(&records(&file)), (1..=20).collect::<Vec<_>>(), "whole to its last block");
    let statistics = [5_u32.to_le_bytes(), 0_u32.to_le_bytes()];
    assert!(file.windows(12).any(|w| w[..4] == statistics[0] && w[8..] == statistics[1]), "which tells the counts");
    assert!(agent.0.wait().unwrap().success());
}
