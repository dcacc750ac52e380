//! The agent beside a kubelet: the kubelet's end of the wire is the tests', everything else is real.
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use api::agent::State;
use plugin::{Slot, peer::Kubelet};
use seat::{FromAgent, FromRunner, Hello, PROTOCOL_VERSION, Port, SeatSocket};
use testkit::eventually;

use crate::rig::{Process, Rig, SOON};

/// Where the tests' kubelet is.
fn kubelet_dir(rig: &Rig) -> PathBuf {
    rig.dir.join("kubelet")
}

fn door(rig: &Rig, slot: u16) -> PathBuf {
    rig.run_dir(0).join(format!("seats/{}/agent.sock", Slot(slot)))
}

/// The agent of node 0, with two slots.
fn command(rig: &Rig) -> Command {
    let mut command = rig.agent_command(0);
    command.args(["--slots", "2", "--namespace", "loco", "--kubelet-dir"]).arg(kubelet_dir(rig));
    command
}

/// Starts it in mounts as a container with mountPropagation Bidirectional has them: what it mounts in its run directory stays.
fn start(rig: &Rig) -> Process {
    let netns = rig.run_dir(0).join("fabric.netns");
    if !netns.exists() {
        prepare(rig);
    }
    rig.spawn(0, command(rig))
}

/// `node-agent prepare` in such mounts, seen by everybody.
fn prepare(rig: &Rig) {
    let dir = rig.run_dir(0);
    std::fs::create_dir_all(&dir).unwrap();
    let shared = "mount --bind \"$1\" \"$1\" && mount --make-shared \"$1\"";
    let ended = Command::new("sh").args(["-ec", shared, "sh"]).arg(&dir).status().unwrap();
    assert!(ended.success(), "{shared}");
    let ended =
        Command::new(env!("CARGO_BIN_EXE_node-agent")).args(["prepare", "--run-dir"]).arg(&dir).status().unwrap();
    assert!(ended.success(), "prepare");
}

/// Takes the mount of [`prepare`] away again, whatever happens.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let uninstall =
            Command::new(env!("CARGO_BIN_EXE_node-agent")).args(["uninstall", "--run-dir"]).arg(&self.0).output();
        let umount = Command::new("umount").arg("--lazy").arg(&self.0).status();
        eprintln!("{uninstall:?}, umount: {umount:?}");
    }
}

async fn hello(door: &Path, instance: &str, has_port: bool) -> (SeatSocket, FromAgent) {
    let socket = eventually(SOON, || SeatSocket::connect(door).ok()).await.unwrap();
    let hello = Hello {
        version: PROTOCOL_VERSION,
        instance: instance.into(),
        runner_pid: 1,
        has_port,
        health_url: None,
        ports: Vec::new(),
    };
    socket.say(&FromRunner::Hello(hello)).await.unwrap();
    let (answer, _) = tokio::time::timeout(SOON, socket.receive()).await.unwrap().unwrap();
    (socket, answer)
}

fn refusal(answer: FromAgent) -> String {
    match answer {
        FromAgent::Refused { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

fn metrics(rig: &Rig) -> String {
    let url = format!("http://{}:14780/metrics", Rig::address(0));
    let node = rig.underlay.node(0);
    node.block_on(async move { reqwest::get(url).await?.text().await }).unwrap().unwrap()
}

/// Waits until the kubelet watches the slots; the stream must be held.
async fn watched(kubelet: &mut Kubelet) -> plugin::peer::Lists {
    let registered = tokio::time::timeout(SOON, kubelet.registered()).await.unwrap().unwrap();
    let mut lists = kubelet.call(&registered.endpoint).await.unwrap().watch().await.unwrap();
    loop {
        let list = tokio::time::timeout(SOON, lists.next()).await.unwrap().unwrap();
        if list == [("slot-0".to_owned(), true), ("slot-1".to_owned(), true)] {
            return lists;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn who_holds_a_slot_plays_and_nobody_else() {
    let rig = Rig::new(2);
    let _mounted = Mounted(rig.run_dir(0));
    rig.place(&[0, 0]);
    let mut kubelet = Kubelet::start(&kubelet_dir(&rig)).unwrap();
    let mut agent = start(&rig);
    let lists = watched(&mut kubelet).await;

    // Nobody holds it yet; a pod of another namespace; a claim that is not the pod's name.
    let (_, answer) = hello(&door(&rig, 1), "instance-0", false).await;
    assert!(refusal(answer).contains("no pod that holds slot-1"));
    kubelet.give(Slot(1), "other", "instance-0");
    let (_, answer) = hello(&door(&rig, 1), "instance-0", false).await;
    assert!(refusal(answer).contains("held by pod other/instance-0"));
    kubelet.take(Slot(1));
    kubelet.give(Slot(1), "loco", "instance-0");
    let (_, answer) = hello(&door(&rig, 1), "instance-1", false).await;
    assert!(refusal(answer).contains("seat of instance-0"));
    let (_, answer) = hello(&door(&rig, 0), "instance-0", false).await;
    assert!(refusal(answer).contains("no pod that holds slot-0"));

    let mut runner = rig.start_runner_at(0, 0, &door(&rig, 1));
    let (first, _) = rig.until_live(0, 0);
    let text = metrics(&rig);
    for line in [
        "loco_plugin_registered 1",
        "loco_plugin_slots 2",
        "loco_plugin_slots_held 1",
        r#"loco_plugin_refusals_total{reason="namespace"} 1"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }

    // A new pod of the same name, in the other slot, while the old one still plays: never two of one name.
    kubelet.give(Slot(0), "loco", "instance-0");
    let (_, answer) = hello(&door(&rig, 0), "instance-0", false).await;
    assert!(refusal(answer).contains("already has a runner"));
    kubelet.take(Slot(0));

    // The container restarts: the same slot, no new allocation.
    runner.kill();
    rig.until(0, 0, |status| status.state == State::Recovering);
    runner = rig.start_runner_at(0, 0, &door(&rig, 1));
    let (second, _) = rig.until_live(0, 0);
    assert_eq!(second.mac, first.mac);

    // The agent is replaced: same QEMU, same tap, and the kubelet hears of the slots again.
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    let asked = std::time::Instant::now();
    agent.0.wait().unwrap();
    println!("the agent ended {:?} after SIGTERM", asked.elapsed());
    drop(lists);
    assert!(door(&rig, 0).parent().unwrap().exists(), "a container has it mounted");
    let started = std::time::Instant::now();
    agent = start(&rig);
    let (third, _) = rig.until_live(0, 0);
    println!("live again {:?} after the start", started.elapsed());
    assert_eq!((third.qemu_pid, third.link), (second.qemu_pid, Some(true)));
    let _lists = watched(&mut kubelet).await;

    // The ordinal moves to another node: the guest that still plays is not cut off; when it ends, its tap goes.
    rig.place(&[1, 0]);
    let problem = |text: &String| text.contains("does not place here");
    eventually(SOON, || rig.status(0).filter(|status| status.fabric_problems.iter().any(problem))).await.unwrap();
    let (_, answer) = hello(&door(&rig, 1), "instance-0", true).await;
    assert!(refusal(answer).contains("does not place instance-0"));
    runner.kill();
    eventually(SOON, || rig.status(0).filter(|status| !status.fabric_problems.iter().any(problem))).await.unwrap();
    drop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_runner_hears_how_its_port_and_picture_are() {
    let rig = Rig::new(1);
    rig.place(&[0]);
    let _agent = rig.start_agent(0);
    let (tap, socket) = rig.take_seat(0, 0).await;
    let ask = async || {
        socket.say(&FromRunner::AskPort).await.unwrap();
        match tokio::time::timeout(SOON, socket.receive()).await.unwrap().unwrap().0 {
            FromAgent::Port(port) => port,
            other => panic!("{other:?}"),
        }
    };
    let deadline = std::time::Instant::now() + SOON;
    let port = loop {
        let port = ask().await;
        if port.up || std::time::Instant::now() > deadline {
            break port;
        }
    };
    let want = Port { up: true, picture_live: false, state: "starting".into(), detail: port.detail.clone() };
    assert_eq!(port, want);
    assert!(port.detail.is_some_and(|detail| detail.contains("waiting for QEMU")));
    drop(tap);
    loop {
        let port = ask().await;
        if !port.up {
            assert!(port.detail.is_some_and(|detail| detail.contains("nobody is at its port of the LAN")));
            break;
        }
        assert!(std::time::Instant::now() < deadline + SOON);
    }
}

/// An agent with the chart's few rights, in mounts that pass nothing on: what a privileged one prepared is enough, and nothing is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn an_agent_with_few_rights_takes_over_what_was_prepared() {
    let rig = Rig::new(1);
    rig.place(&[0]);
    let few = |rig: &Rig| {
        // As a container runtime does: mounts that only receive, /proc/sys read-only, and five capabilities.
        let script = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec setpriv \
            --bounding-set=-all,+net_admin,+net_raw,+sys_admin,+bpf,+perfmon --inh-caps=-all --no-new-privs \"$@\"";
        let mut few = Command::new("unshare");
        few.args(["--mount", "--propagation", "slave", "sh", "-ec", script, "sh", env!("CARGO_BIN_EXE_node-agent")]);
        few.args(command(rig).get_args());
        few
    };
    let mut unprepared = few(&rig);
    unprepared.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = rig.underlay.node(0).run(move || unprepared.output().unwrap()).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("node-agent prepare"), "{said}");

    let _mounted = Mounted(rig.run_dir(0));
    prepare(&rig);
    let mut kubelet = Kubelet::start(&kubelet_dir(&rig)).unwrap();
    let mut agent = rig.spawn(0, few(&rig));
    let _lists = watched(&mut kubelet).await;
    kubelet.give(Slot(0), "loco", "instance-0");
    let (tap, _socket) = rig.take_seat_at(&door(&rig, 0), 0).await;
    let (status, _) = rig.until(0, 0, |status| status.link == Some(true));
    assert_eq!(status.link, Some(true));
    let node = rig.status(0).unwrap();
    assert_eq!(node.fabric_problems, Vec::<String>::new());
    assert_eq!(node.observer.and_then(|observer| observer.problem), None, "the observer is loaded and pinned, too");
    // Whoever comes after it finds the same: nothing ended with its mounts.
    agent.kill();
    let _agent = rig.spawn(0, few(&rig));
    rig.until(0, 0, |status| status.link == Some(true));
    drop(tap);
}
