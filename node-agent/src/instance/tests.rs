//! A scripted runner over a real seat socket, with a scripted QEMU behind its monitors.
use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use model::InstanceState;
use seat::{Exited, FromAgent, FromRunner, Hello, PROTOCOL_VERSION, PortKind, SeatSocket, Started, Welcome};
use stream::StreamConfig;
use testkit::eventually;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::*;
use crate::{
    desired::Desired,
    seats::{Entrance, Seats},
};

const SOON: Duration = Duration::from_secs(5);

/// A node with seats in a directory of its own.
struct Node {
    seats: Seats,
    dir: PathBuf,
}

impl Node {
    /// `tap`: whether the fabric has a port to give.
    fn new(name: &str, tap: bool) -> Self {
        let dir = std::env::temp_dir().join(format!("loco-broker-{}-{name}", std::process::id()));
        crate::seats::prepare(&dir).unwrap();
        let registry = prometheus::Registry::new();
        let streams = StreamConfig { media_ip: "127.0.0.1".parse().unwrap(), ports: 24900..=24901 };
        let taps = Taps::new(move |id| async move {
            let (reader, _) = std::io::pipe().unwrap();
            if tap { Ok(OpenPort { net: reader.into(), hold: None }) } else { Err(FabricError::NoPort(id)) }
        });
        let shared = Shared {
            taps,
            cables: Cables::new(|_, _| async { Ok(()) }),
            fabric: watch::Sender::new(FabricStatus::default()).subscribe(),
            streams: Arc::new(Streams::new(streams, &registry).unwrap()),
            metrics: Metrics::register(&registry, "node-a").unwrap(),
            health: telemetry::Health::new(),
            changed: Arc::new(watch::Sender::new(0)),
            seats_dir: dir.clone(),
            kvm: false,
        };
        Self { seats: Seats::new(shared, Entrance::ByInstance), dir }
    }

    /// Places `instances` here, in seats of that order.
    async fn place(&self, instances: &[&str]) {
        let listed: Vec<_> = instances
            .iter()
            .enumerate()
            .map(|(seat, id)| format!(r#"{{"id":"{id}","lan":"party","seat":{seat},"node":"node-a"}}"#))
            .collect();
        let text = format!(
            r#"{{"version":1,"lans":[{{"name":"party","vni":4200,"mode":"vxlan","subnet":"10.98.0.0/24","seats":9}}],
            "nodes":[{{"name":"node-a","underlay_ip":"10.99.0.11","agent_url":"u"}}],"instances":[{}]}}"#,
            listed.join(",")
        );
        let snapshot = api::snapshot::parse(&text).unwrap();
        self.seats.reconcile(&Desired::from_snapshot(&snapshot, &"node-a".parse().unwrap()).seats).await;
    }

    fn instance(&self, id: &str) -> Arc<Instance> {
        Arc::clone(&self.seats.watch().borrow()[&id.parse::<InstanceId>().unwrap()])
    }

    async fn connect(&self, id: &str) -> SeatSocket {
        let path = self.dir.join(id).join("agent.sock");
        eventually(SOON, || SeatSocket::connect(&path).ok()).await.unwrap()
    }

    /// A runner that says Hello; the answer and its descriptors.
    async fn hello(&self, id: &str, hello: Hello) -> (SeatSocket, FromAgent, Vec<OwnedFd>) {
        let socket = self.connect(id).await;
        socket.say(&FromRunner::Hello(hello)).await.unwrap();
        let (answer, fds) = tokio::time::timeout(SOON, socket.receive()).await.unwrap().unwrap();
        (socket, answer, fds)
    }

    async fn until(&self, id: &str, state: InstanceState, detail: &str) -> Report {
        let instance = self.instance(id);
        let matches =
            |report: &Report| report.state == state && report.detail.as_deref().unwrap_or_default().contains(detail);
        let mut watch = instance.report.clone();
        match tokio::time::timeout(SOON, watch.wait_for(matches)).await {
            Ok(report) => report.unwrap().clone(),
            Err(elapsed) => panic!("wanted {state} `{detail}` ({elapsed}), got {:?}", instance.report()),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

fn hello(instance: &str, has_port: bool) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        instance: instance.into(),
        runner_pid: 7,
        has_port,
        health_url: None,
        ports: Vec::new(),
    }
}

fn refusal(answer: FromAgent) -> String {
    match answer {
        FromAgent::Refused { reason, remedy } => {
            assert!(!remedy.is_empty());
            reason
        }
        other => panic!("{other:?}"),
    }
}

/// One monitor as QEMU has it: greets, answers every command with an empty object, and notes what it was asked: the
/// command's name, and what follows it if that is input.
pub(super) fn qemu(log: mpsc::Sender<String>) -> (OwnedFd, tokio::task::JoinHandle<()>) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut stream = BufReader::new(tokio::net::UnixStream::from_std(ours).unwrap());
    let task = tokio::spawn(async move {
        let greeting =
            r#"{"QMP":{"version":{"qemu":{"micro":2,"minor":0,"major":10},"package":""},"capabilities":[]}}"#;
        stream.write_all(format!("{greeting}\n").as_bytes()).await.unwrap();
        let mut line = String::new();
        while stream.read_line(&mut line).await.is_ok_and(|count| count > 0) {
            let command: serde_json::Value = serde_json::from_str(&line).unwrap();
            let name = command["execute"].as_str().unwrap().to_owned();
            let value = if name == "query-status" { r#"{"running":true,"status":"running"}"# } else { "{}" };
            let answer = format!("{{\"return\":{value},\"id\":{}}}\n", command["id"]);
            let note = if name == "input-send-event" { format!("{name} {}", command["arguments"]) } else { name };
            if log.send(note).await.is_err() || stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            line.clear();
        }
    });
    (theirs.into(), task)
}

async fn send_monitors(socket: &SeatSocket) -> (mpsc::Receiver<String>, [tokio::task::JoinHandle<()>; 2]) {
    let (log, asked) = mpsc::channel(64);
    let ((control, a), (poke, b)) = (qemu(log.clone()), qemu(log));
    socket.send(&FromRunner::Qmp, &[&control.as_fd(), &poke.as_fd()]).await.unwrap();
    (asked, [a, b])
}

#[tokio::test]
async fn a_runner_gets_its_identity_and_a_tap_once() {
    let node = Node::new("welcome", true);
    node.place(&["instance-0", "instance-1"]).await;
    let (socket, answer, fds) = node.hello("instance-1", hello("instance-1", false)).await;
    let want = Welcome {
        lan: "party".into(),
        seat: 1,
        mac: "02:4c:00:10:68:02".into(),
        ip: "10.98.0.2".parse().unwrap(),
        host_name: "LOCO1068-2".into(),
        kvm: false,
        port: PortKind::Tap,
        subnet: None,
    };
    assert_eq!(answer, FromAgent::Welcome(want));
    assert_eq!(fds.len(), 1);
    node.until("instance-1", InstanceState::Starting, "waiting for QEMU").await;
    node.until("instance-0", InstanceState::Starting, "waiting for its runner").await;

    socket.say(&FromRunner::Started(Started { qemu_pid: 42, accelerator: "tcg".into(), netdev: None })).await.unwrap();
    let instance = node.instance("instance-1");
    eventually(SOON, || (instance.report().qemu_pid == Some(42)).then_some(())).await.unwrap();

    let (_second, answer, fds) = node.hello("instance-1", hello("instance-1", false)).await;
    assert!(refusal(answer).contains("already has a runner, process 7"));
    assert!(fds.is_empty());
    assert_eq!(instance.report().runner_pid, Some(7), "the first one is not disturbed");

    drop(socket);
    // At once: the connection that died is noticed before the new one is judged.
    let (_again, answer, fds) = node.hello("instance-1", hello("instance-1", true)).await;
    assert!(matches!(answer, FromAgent::Welcome(_)), "{answer:?}");
    assert!(fds.is_empty(), "a guest that has its tap gets no second one");
}

#[tokio::test]
async fn who_does_not_fit_is_refused_in_words_and_disturbs_nobody() {
    let node = Node::new("refuse", false);
    node.place(&["instance-0"]).await;
    let (_, answer, _) = node.hello("instance-0", hello("instance-5", false)).await;
    assert!(refusal(answer).contains("`instance-5`"));
    let (_, answer, _) = node.hello("instance-0", Hello { version: 0, ..hello("instance-0", false) }).await;
    assert!(refusal(answer).contains("version 0"));
    let socket = node.connect("instance-0").await;
    socket.say(&FromRunner::Qmp).await.unwrap();
    assert!(refusal(socket.receive().await.unwrap().0).contains("Hello"));
    let socket = node.connect("instance-0").await;
    socket.say(&"rubbish").await.unwrap();
    assert!(refusal(socket.receive().await.unwrap().0).contains("not of the protocol"));
    // A fit one without a port hears why, and so does everybody who looks.
    let (_, answer, _) = node.hello("instance-0", hello("instance-0", false)).await;
    assert!(refusal(answer).contains("no port on this node"));
    node.until("instance-0", InstanceState::Starting, "no port on this node").await;
}

#[tokio::test]
async fn monitors_take_power_requests_and_their_loss_asks_the_runner_again() {
    let node = Node::new("monitors", true);
    node.place(&["instance-0"]).await;
    let instance = node.instance("instance-0");
    let error = instance.power(Power::Reset).await.unwrap_err().to_string();
    assert!(error.contains("QEMU is not connected"), "{error}");

    let (socket, ..) = node.hello("instance-0", hello("instance-0", false)).await;
    let (mut asked, qemu) = send_monitors(&socket).await;
    node.until("instance-0", InstanceState::Starting, "waiting for its display").await;
    instance.power(Power::Shutdown).await.unwrap();
    let mut names = Vec::new();
    while names.last().is_none_or(|name| name != "system_powerdown") {
        names.push(tokio::time::timeout(SOON, asked.recv()).await.unwrap().unwrap());
    }
    assert_eq!(names.iter().filter(|name| *name == "qmp_capabilities").count(), 2, "{names:?}");

    // QEMU's side closes and its runner does not say why: the connection ends, so that the runner comes anew.
    qemu.iter().for_each(tokio::task::JoinHandle::abort);
    node.until("instance-0", InstanceState::Starting, "no QMP monitor").await;
    let ended = tokio::time::timeout(SOON, socket.receive::<FromAgent>()).await.unwrap();
    assert!(matches!(ended, Err(seat::SocketError::Closed)), "{ended:?}");
    let (socket, answer, _) = node.hello("instance-0", hello("instance-0", true)).await;
    assert!(matches!(answer, FromAgent::Welcome(_)));
    let (_asked, _qemu) = send_monitors(&socket).await;
    node.until("instance-0", InstanceState::Starting, "waiting for its display").await;
}

#[tokio::test]
async fn a_guest_that_ran_before_this_agent_is_rid_of_held_keys_once() {
    let node = Node::new("adopted", true);
    node.place(&["instance-0"]).await;
    let instance = node.instance("instance-0");
    let started = || FromRunner::Started(Started { qemu_pid: 42, accelerator: "tcg".into(), netdev: None });
    for first in [true, false] {
        let (socket, answer, _) = node.hello("instance-0", hello("instance-0", true)).await;
        assert!(matches!(answer, FromAgent::Welcome(_)));
        socket.say(&started()).await.unwrap();
        let (mut asked, _qemu) = send_monitors(&socket).await;
        node.until("instance-0", InstanceState::Starting, "waiting for its display").await;
        // The control task does one thing after the other, so this comes after the releases.
        instance.power(Power::Shutdown).await.unwrap();
        let mut inputs = Vec::new();
        loop {
            let told = tokio::time::timeout(SOON, asked.recv()).await.unwrap().unwrap();
            if told == "system_powerdown" {
                break;
            }
            inputs.extend(told.strip_prefix("input-send-event").map(str::to_owned));
        }
        let text = inputs.concat();
        assert!(!text.contains(r#""down":true"#), "{text}");
        for key in ["up", "ctrl", "spc", "a", "0", "esc", "ret"] {
            assert_eq!(text.contains(&format!(r#""data":"{key}""#)), first, "{key}: {text}");
        }
        assert_eq!(text.contains(r#""button":"right""#), first, "{text}");
        assert_eq!(instance.report().accelerator.as_deref(), Some("tcg"));
        drop(socket);
        eventually(SOON, || instance.report().runner_pid.is_none().then_some(())).await.unwrap();
        let report = instance.report();
        assert_eq!((report.qemu_pid, report.accelerator), (None, None), "of a guest that is not in hand");
    }
}

#[tokio::test]
async fn an_end_is_told_apart_and_stays_said_after_the_runner_left() {
    let node = Node::new("ends", true);
    node.place(&["instance-0"]).await;
    let exited = |code, asked| {
        FromRunner::Exited(Exited {
            code: Some(code),
            signal: None,
            stderr_tail: "qemu: no disk\n".into(),
            asked,
            comes_back: false,
        })
    };
    for (message, state, detail) in [
        (exited(1, false), InstanceState::Failed, "exit code 1: qemu: no disk"),
        (exited(0, false), InstanceState::Stopped, "switched itself off"),
        (exited(0, true), InstanceState::Stopped, "asked to stop"),
    ] {
        let (socket, answer, _) = node.hello("instance-0", hello("instance-0", false)).await;
        assert!(matches!(answer, FromAgent::Welcome(_)), "{answer:?}");
        let (_asked, _qemu) = send_monitors(&socket).await;
        node.until("instance-0", InstanceState::Starting, "waiting for its display").await;
        socket.say(&message).await.unwrap();
        node.until("instance-0", state, detail).await;
        drop(socket);
        let instance = node.instance("instance-0");
        eventually(SOON, || instance.report().runner_pid.is_none().then_some(())).await.unwrap();
        node.until("instance-0", state, detail).await;
    }
}

#[tokio::test]
async fn a_wrong_number_of_descriptors_ends_the_connection_and_nothing_else() {
    let node = Node::new("descriptors", true);
    node.place(&["instance-0"]).await;
    let bad = [
        FromRunner::Qmp,
        FromRunner::Audio { listener_guid: "x".into() },
        FromRunner::Display { bus_guid: "x".into(), listener_guid: "y".into() },
        FromRunner::Hello(hello("instance-0", true)),
    ];
    for message in bad {
        let (socket, answer, _) = node.hello("instance-0", hello("instance-0", false)).await;
        assert!(matches!(answer, FromAgent::Welcome(_)), "{answer:?}");
        socket.say(&message).await.unwrap();
        let ended = tokio::time::timeout(SOON, socket.receive::<FromAgent>()).await.unwrap();
        assert!(matches!(ended, Err(seat::SocketError::Closed)), "{message:?}: {ended:?}");
    }
}

#[tokio::test]
async fn seats_come_and_go_with_the_directory() {
    let node = Node::new("come-and-go", true);
    // Left by an earlier agent, and something that is not ours.
    std::fs::create_dir(node.dir.join("instance-8")).unwrap();
    std::fs::write(node.dir.join("instance-8/agent.sock"), "").unwrap();
    std::fs::create_dir(node.dir.join("Not An Instance")).unwrap();
    node.place(&["instance-0", "instance-1"]).await;
    assert!(!node.dir.join("instance-8").exists());
    assert!(node.dir.join("Not An Instance").exists());
    let (stays, ..) = node.hello("instance-0", hello("instance-0", false)).await;
    let (goes, ..) = node.hello("instance-1", hello("instance-1", false)).await;
    let before = node.instance("instance-0");

    node.place(&["instance-0"]).await;
    assert!(matches!(goes.receive::<FromAgent>().await, Err(seat::SocketError::Closed)));
    assert!(!node.dir.join("instance-1").exists());
    assert!(Arc::ptr_eq(&before, &node.instance("instance-0")), "the one that stays is not touched");
    assert_eq!(before.report().runner_pid, Some(7));
    drop(stays);

    // Another seat is another identity: ended and started anew under the same socket.
    node.place(&["instance-9", "instance-0"]).await;
    let (_socket, answer, _) = node.hello("instance-0", hello("instance-0", false)).await;
    assert!(matches!(answer, FromAgent::Welcome(Welcome { seat: 1, .. })), "{answer:?}");
}

#[tokio::test]
async fn a_seat_socket_that_was_removed_comes_back() {
    let node = Node::new("removed", true);
    node.place(&["instance-0"]).await;
    drop(node.connect("instance-0").await);
    std::fs::remove_dir_all(node.dir.join("instance-0")).unwrap();
    let (_socket, answer, _) = node.hello("instance-0", hello("instance-0", false)).await;
    assert!(matches!(answer, FromAgent::Welcome(_)));
}

#[tokio::test]
async fn an_order_reaches_the_runner_and_its_answer_comes_back() {
    let node = Node::new("orders", true);
    node.place(&["instance-0"]).await;
    let instance = node.instance("instance-0");
    let refused = instance.order(seat::Order::Reset).await.unwrap_err().to_string();
    assert!(refused.contains("no runner is connected"), "{refused}");
    let (socket, ..) = node.hello("instance-0", hello("instance-0", false)).await;
    eventually(SOON, || instance.report().runner_pid.map(drop)).await.unwrap();
    for refused in [None, Some("it is being started already".to_owned())] {
        let ordered = tokio::spawn({
            let instance = Arc::clone(&instance);
            async move { instance.order(seat::Order::Reset).await }
        });
        let (message, _) = tokio::time::timeout(SOON, socket.receive()).await.unwrap().unwrap();
        let FromAgent::Order { id, order: seat::Order::Reset } = message else { panic!("{message:?}") };
        socket.say(&FromRunner::Took { id, refused: refused.clone() }).await.unwrap();
        let outcome = ordered.await.unwrap().map_err(|error| error.to_string());
        assert_eq!(outcome.is_ok(), refused.is_none());
        assert!(refused.is_none_or(|words| outcome.unwrap_err().contains(&words)));
    }
    let ordered = tokio::spawn({
        let instance = Arc::clone(&instance);
        async move { instance.order(seat::Order::Restart).await }
    });
    tokio::time::timeout(SOON, socket.receive::<FromAgent>()).await.unwrap().unwrap();
    drop(socket);
    let refused = ordered.await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("went away before it answered"), "{refused}");
}

#[tokio::test]
async fn what_a_runner_says_of_its_disk_is_shown() {
    let node = Node::new("disk", true);
    node.place(&["instance-0"]).await;
    let (socket, ..) = node.hello("instance-0", hello("instance-0", false)).await;
    let say = async |held: bool, text: Option<&str>| {
        let storage = seat::Storage { held, text: text.map(str::to_owned) };
        socket.say(&FromRunner::Storage(storage)).await.unwrap();
    };
    say(true, Some("the disk is full; free some space")).await;
    node.until("instance-0", InstanceState::Failed, "free some space").await;
    say(false, Some("the disk is nearly full")).await;
    node.until("instance-0", InstanceState::Starting, "waiting for QEMU").await;
    let instance = node.instance("instance-0");
    let notice = || instance.report().notice;
    eventually(SOON, || notice().filter(|notice| notice == "the disk is nearly full").map(drop)).await.unwrap();
    say(false, None).await;
    eventually(SOON, || notice().is_none().then_some(())).await.unwrap();
}
