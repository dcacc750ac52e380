//! Rubbish from one guest: the others, its own later requests, and the fabric go on.
use std::time::Duration;

use dhcproto::v4::{DhcpOption, MessageType};
use testkit::{Frame, Numbered, eventually};

use crate::{
    cluster::{Cluster, SOON, mac},
    dhcp::{reply, request},
};

/// xorshift64: the same rubbish in every run.
struct Rubbish(u64);

impl Rubbish {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap()
    }

    fn octet(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn malformed_and_hostile_frames_harm_nothing() {
    let cluster = Cluster::new(2, &[0, 0, 1]).await;
    let (hostile, neighbour, remote) = (cluster.tap(0).await, cluster.tap(1).await, cluster.tap(2).await);
    let mut rubbish = Rubbish(0x10c0);
    let discover = request(mac(0), &[DhcpOption::MessageType(MessageType::Discover)]);
    let arp: Vec<u8> = [
        &[0xff; 6][..],
        &mac(0).0,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &mac(0).0,
        &[10, 98, 0, 254],
        &[0; 6],
        &[10, 98, 0, 254],
    ]
    .concat();

    for round in 0..20_000u32 {
        let mut frame = if round % 2 == 0 { discover.clone() } else { arp.clone() };
        for _ in 0..rubbish.next() % 8 {
            // Mostly behind the addresses, so that it is still this guest's frame for this service.
            let at = 12 + rubbish.next() % (frame.len() - 12);
            frame[at] = rubbish.octet();
        }
        if round % 3 == 0 {
            frame.truncate(14 + rubbish.next() % (frame.len() - 14));
        }
        hostile.send(&frame).await.unwrap();
        if round % 500 == 0 {
            hostile.drain().unwrap();
        }
    }
    hostile.drain().unwrap();

    // Guests beside it and far away still hear each other and get their addresses.
    let number = Numbered { kind: 1, sender: 1, sequence: 1 };
    remote.drain().unwrap();
    neighbour.send(&Frame::ethernet([0xff; 6], mac(1).0, number, 46)).await.unwrap();
    let heard = || remote.drain().unwrap().iter().any(|frame| Numbered::find(frame) == Some(number)).then_some(());
    eventually(SOON, heard).await.unwrap();
    neighbour.drain().unwrap();
    neighbour.send(&request(mac(1), &[DhcpOption::MessageType(MessageType::Discover)])).await.unwrap();
    assert!(reply(&neighbour, SOON).await.is_some(), "the neighbour is not served");

    // The hostile one too, once its answers of this second are used up and a new second has begun.
    let mut served = false;
    for _ in 0..10 {
        hostile.send(&discover).await.unwrap();
        served = reply(&hostile, Duration::from_millis(300)).await.is_some();
        if served {
            break;
        }
    }
    assert!(served, "the guest behind the tap is not served any more");
    cluster.set_spec(0).await;
    let problems = cluster.status(0).problems;
    // A decline among the rubbish is taken at its word, and told; nothing else may be wrong.
    assert!(problems.iter().all(|problem| problem.contains("in use by somebody else")), "{problems:?}");
}
