//! The IPX relay as the flags ask for it: a client outside, the guest's tap inside, and what `/metrics` says.
use std::{net::UdpSocket, time::Duration};

use crate::rig::{Rig, SOON};

/// An IPX packet of 30 bytes and `payload`, in network 0.
fn packet(to: [u8; 6], from: [u8; 6], socket: u16, payload: &[u8]) -> Vec<u8> {
    let [len, socket] = [u16::try_from(30 + payload.len()).unwrap(), socket].map(u16::to_be_bytes);
    [&[0xff, 0xff], &len[..], &[0, 2], &[0; 4], &to, &socket, &[0; 4], &from, &socket, payload].concat()
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn an_agent_that_is_told_to_relays_ipx() {
    let rig = Rig::new(2);
    rig.place(&[0]);
    let mut command = rig.agent_command(0);
    command.args(["--ipx-relay", "10.99.0.11:213", "--ipx-relay-lan", "party"]);
    let _agent = rig.spawn(0, command);
    let (tap, _seat) = rig.take_seat(0, 0).await;

    let socket = rig.underlay.node(1).run(|| UdpSocket::bind("10.99.0.12:40000").unwrap()).unwrap();
    socket.connect("10.99.0.11:213").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.send(&packet([0; 6], [0; 6], 2, b"")).unwrap();
    let mut answer = [0; 64];
    assert_eq!(socket.recv(&mut answer).unwrap(), 30);
    let node = [10, 99, 0, 12, 0x9c, 0x40];
    assert_eq!(answer[10..16], node, "the client's own address");

    // The relay's port comes within a second of the LAN's bridge; until then what is said is lost.
    let hello = packet([0xff; 6], node, 0x5100, b"hello");
    let heard = async {
        loop {
            socket.send(&hello).unwrap();
            let frame = tokio::time::timeout(Duration::from_millis(200), tap.receive()).await;
            let frame = frame.map(Result::unwrap).unwrap_or_default();
            if frame.windows(hello.len()).any(|part| part == hello) {
                return frame;
            }
        }
    };
    let frame = tokio::time::timeout(SOON, heard).await.unwrap_or_else(|_| panic!("{}", rig.logs()));
    assert_eq!(
        (&frame[6..12], &frame[14..17]),
        (node.as_slice(), [0xe0, 0xe0, 3].as_slice()),
        "802.2, nobody was heard"
    );

    let metrics = || {
        let request = async { reqwest::get("http://10.99.0.11:14780/metrics").await.ok()?.text().await.ok() };
        rig.underlay.node(0).block_on(request).unwrap().filter(|text| {
            text.contains("loco_ipx_relay_clients 1") && text.contains(r#"client="0a:63:00:0c:9c:40",direction="tx""#)
        })
    };
    testkit::eventually(SOON, metrics).await.unwrap();
}
