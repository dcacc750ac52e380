//! Whoever speaks WebSocket, at the real router with a real switch behind it.
use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use futures_util::{sink, stream};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use testkit::{Frame, Numbered, eventually};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message as Said, client::IntoClientRequest as _, protocol::CloseFrame as Closed},
};

use super::*;
use crate::http::tests::Rig;

const WAIT: Duration = Duration::from_secs(20);
const SNAPSHOT: &str = r#"{"version":1,
  "lans":[{"name":"party","vni":4200,"mode":"socket","subnet":"10.98.0.0/24","seats":9},
          {"name":"tunnel","vni":4201,"mode":"vxlan","subnet":"10.97.0.0/24","seats":9},
          {"name":"away","vni":4202,"mode":"socket","subnet":"10.96.0.0/24","seats":9}],
  "nodes":[{"name":"node-a","underlay_ip":"127.0.0.1","agent_url":"u"}],
  "instances":[{"id":"instance-0","lan":"party","seat":0,"node":"node-a"}]}"#;
const SEAT: [u8; 6] = [2, 0x4c, 0, 0x10, 0x68, 1];
const CARD: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

type Client = WebSocketStream<TcpStream>;

/// An agent's API on a port, and QEMU's end of the one guest's cable.
struct Agent {
    rig: Rig,
    address: SocketAddr,
    guest: OwnedFd,
}

impl Agent {
    async fn new(name: &str, port: u16) -> Self {
        let rig = Rig::with(name, SNAPSHOT, port).await;
        let (guest, cable) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        rig.switch.plug(&"instance-0".parse().unwrap(), cable).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = rig.router.clone().into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self { rig, address, guest }
    }

    async fn plug(&self, path: &str, token: &str) -> Result<Client, Error> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut request = format!("ws://{}/v1/lans/{path}", self.address).into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        client_async(request, stream).await.map(|(client, _)| client)
    }

    /// A machine that is on the LAN.
    async fn machine(&self, name: &str) -> Client {
        let mut client = self.plug(&format!("party/plug?machine={name}"), "s3cret").await.unwrap();
        let Said::Text(hello) = next(&mut client).await else { panic!("no hello") };
        let want = Plugged { node: "node-a".to_owned(), lan: "party".to_owned() };
        assert_eq!(serde_json::from_str::<Plugged>(&hello).unwrap(), want);
        client
    }

    fn heard(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        let len = recv(self.guest.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
        Some(buffer[..len].to_vec())
    }

    async fn hears(&self) -> Numbered {
        eventually(WAIT, || Numbered::find(&self.heard()?)).await.unwrap()
    }

    fn say(&self, frame: &[u8]) {
        assert_eq!(send(self.guest.as_raw_fd(), frame, MsgFlags::empty()).unwrap(), frame.len());
    }

    /// How many are plugged in, once it is `want`.
    async fn until_plugged(&self, want: usize) -> Vec<api::lan::ForeignMachine> {
        eventually(WAIT, || {
            Some(crate::status::foreign(&"node-a".parse().ok()?, &self.rig.switch.status().borrow()))
                .filter(|all| all.len() == want)
        })
        .await
        .unwrap()
    }
}

async fn next(client: &mut Client) -> Said {
    loop {
        match timeout(WAIT, client.next()).await.expect("the agent says something").unwrap().unwrap() {
            Said::Ping(_) | Said::Pong(_) => {}
            said => return said,
        }
    }
}

/// The next frame with a number.
async fn next_frame(client: &mut Client) -> Numbered {
    loop {
        let Said::Binary(frame) = next(client).await else { panic!("no frame") };
        if let Some(number) = Numbered::find(&frame) {
            return number;
        }
    }
}

async fn close(client: &mut Client) -> Closed {
    loop {
        match next(client).await {
            Said::Close(close) => return close.expect("a reason"),
            Said::Binary(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

const fn number(sequence: u32) -> Numbered {
    Numbered { kind: 4, sender: 0, sequence }
}

fn frame(to: [u8; 6], from: [u8; 6], sequence: u32) -> Said {
    Said::Binary(Frame::ethernet(to, from, number(sequence), 1500).into())
}

#[tokio::test]
async fn a_machine_is_a_port_of_the_lan_until_it_goes() {
    let agent = Agent::new("plug", 24913).await;
    let mut machine = agent.machine("pc00000001").await;
    machine.send(frame(SEAT, CARD, 1)).await.unwrap();
    assert_eq!(agent.hears().await, number(1));
    agent.say(&Frame::ethernet(CARD, SEAT, number(2), 1500));
    assert_eq!(next_frame(&mut machine).await, number(2));
    let told = agent.until_plugged(1).await;
    assert!(told[0].remote.starts_with("127.0.0.1:") && told[0].lan == "party", "{told:?}");
    // The same machine again: its old connection is told, and its card is its own.
    let mut again = agent.machine("pc00000001").await;
    assert_eq!(u16::from(close(&mut machine).await.code), CLOSE_AGAIN);
    again.send(frame(SEAT, CARD, 3)).await.unwrap();
    assert_eq!(agent.hears().await, number(3));
    // Gone without a goodbye.
    drop(again);
    agent.until_plugged(0).await;
}

#[tokio::test]
async fn nobody_gets_a_port_without_the_token_or_where_there_is_none() {
    let agent = Agent::new("plug-refused", 24914).await;
    let refused = async |path: &str, token: &str| {
        let Err(Error::Http(answer)) = agent.plug(path, token).await else { panic!("{path} is taken") };
        let body: api::ErrorBody = serde_json::from_slice(answer.body().as_deref().unwrap()).unwrap();
        assert!(!body.error.remedy.is_empty());
        (answer.status().as_u16(), body.error.code)
    };
    let answer = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(refused("party/plug?machine=pc00000001", "s3cret2").await, answer(401, "unauthorized"));
    assert_eq!(refused("party/plug?machine=pc00000001", "").await, answer(401, "unauthorized"));
    assert_eq!(refused("nowhere/plug?machine=pc00000001", "s3cret").await, answer(404, "unknown-lan"));
    assert_eq!(refused("tunnel/plug?machine=pc00000001", "s3cret").await, answer(501, "not-in-this-mode"));
    assert_eq!(refused("away/plug?machine=pc00000001", "s3cret").await, answer(409, "no-seat-here"));
    for bad in ["", "?machine=short", "?machine=pc00000001&x=1", "?machine=../../../etc"] {
        assert_eq!(refused(&format!("party/plug{bad}"), "s3cret").await, answer(400, "bad-request"));
    }
    let mut machines = Vec::new();
    for number in 0..switch::FOREIGN_MAX {
        machines.push(agent.machine(&format!("pc{number:08}")).await);
    }
    assert_eq!(refused("party/plug?machine=more00000", "s3cret").await, answer(503, "full"));
    drop(machines);
    agent.until_plugged(0).await;
    // Without an upgrade there is nothing to carry frames with.
    let plain = reqwest::Client::new().get(format!("http://{}/v1/lans/party/plug?machine=pc00000001", agent.address));
    assert_eq!(plain.bearer_auth("s3cret").send().await.unwrap().status(), StatusCode::UPGRADE_REQUIRED);
}

#[tokio::test]
async fn who_says_nonsense_harms_nobody() {
    let agent = Agent::new("plug-hostile", 24915).await;
    let mut neighbour = agent.machine("neighbour1").await;
    let second = [0x52, 0x54, 0, 0x12, 0x34, 0x57];
    neighbour.send(frame(SEAT, second, 0)).await.unwrap();
    assert_eq!(agent.hears().await, number(0));
    // Frames that are none, or of somebody else: counted, and nobody hears them.
    let mut hostile = agent.machine("hostile001").await;
    hostile.send(frame(SEAT, CARD, 1)).await.unwrap();
    for len in [0, 13, 1519, 60_000] {
        hostile.send(Said::Binary(vec![7; len].into())).await.unwrap();
    }
    hostile.send(frame(SEAT, SEAT, 2)).await.unwrap();
    hostile.send(frame(SEAT, CARD, 3)).await.unwrap();
    assert_eq!((agent.hears().await, agent.hears().await), (number(1), number(3)));
    let counted = |machine: &&api::lan::ForeignMachine| machine.refused.len() == 3;
    let refused = eventually(WAIT, || {
        let told = crate::status::foreign(&"node-a".parse().unwrap(), &agent.rig.switch.status().borrow());
        told.iter().find(counted).map(|machine| machine.refused.clone())
    });
    let want = [("runt", 1), ("too_long", 2), ("foreign_source", 1)].map(|(rule, count)| (rule.to_owned(), count));
    assert_eq!(refused.await.unwrap(), want.into());
    // What is no frame at all ends it.
    hostile.send(Said::Text("GET / HTTP/1.1".into())).await.unwrap();
    assert_eq!(u16::from(close(&mut hostile).await.code), CLOSE_FINAL);
    let mut huge = agent.machine("hostile002").await;
    // It may be gone before all of it was sent.
    drop(huge.send(Said::Binary(vec![7; 70_000].into())).await);
    agent.until_plugged(1).await;
    // A card that a seat has: told why.
    let mut thief = agent.machine("thief00001").await;
    thief.send(frame([0xff; 6], SEAT, 9)).await.unwrap();
    let told = close(&mut thief).await;
    assert!(u16::from(told.code) == CLOSE_FINAL && told.reason.contains("02:4c:00:10:68:01"), "{told:?}");
    // A stream that is no WebSocket after all.
    let mut garbage = agent.machine("garbage001").await;
    tokio::io::AsyncWriteExt::write_all(garbage.get_mut(), &[0xff; 4096]).await.unwrap();
    agent.until_plugged(1).await;
    neighbour.send(frame(SEAT, second, 10)).await.unwrap();
    assert_eq!(agent.hears().await, number(10));
}

#[tokio::test]
async fn who_does_not_read_loses_frames_and_keeps_nobody_waiting() {
    let agent = Agent::new("plug-slow", 24916).await;
    let mut slow = agent.machine("slow000001").await;
    slow.send(frame(SEAT, CARD, 0)).await.unwrap();
    assert_eq!(agent.hears().await, number(0));
    let mut quick = agent.machine("quick00001").await;
    let second = [0x52, 0x54, 0, 0x12, 0x34, 0x57];
    quick.send(frame(SEAT, second, 1)).await.unwrap();
    assert_eq!(agent.hears().await, number(1));
    // More than its queue, the sockets and TCP's buffers hold.
    let start = Instant::now();
    let mut sent = 0;
    let lost =
        || agent.rig.switch.status().borrow().lans.values().any(|lan| lan.foreign_totals.counters.rx_dropped > 0);
    while !lost() {
        agent.say(&Frame::ethernet(CARD, SEAT, number(sent), 1500));
        sent += 1;
        assert!(start.elapsed() < WAIT, "{sent} frames wait somewhere");
        if sent.is_multiple_of(64) {
            tokio::task::yield_now().await;
        }
    }
    agent.say(&Frame::ethernet(second, SEAT, number(7), 60));
    assert_eq!(next_frame(&mut quick).await, number(7));
    // Once it reads, it gets what waited, in order.
    for sequence in 0..100 {
        assert_eq!(next_frame(&mut slow).await, number(sequence));
    }
}

#[tokio::test]
async fn who_is_silent_or_reads_nothing_is_unplugged_after_a_while() {
    let ((cable, _theirs), silence) = (FrameSocket::pair().unwrap(), Duration::from_millis(50));
    let start = Instant::now();
    assert_eq!(inward(stream::pending(), &cable, silence).await, Why::Gone);
    assert!(start.elapsed() >= silence);
    // A connection that takes nothing: not even the question whether anybody is there.
    let mut stuck = Box::pin(sink::unfold((), |(), _: Message| std::future::pending::<Result<(), axum::Error>>()));
    assert_eq!(outward(&mut stuck, &cable, silence).await, Why::Gone);
    assert!(start.elapsed() >= silence * 2);
}
