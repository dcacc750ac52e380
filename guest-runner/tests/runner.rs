//! The program as a whole: messages for what is wrong, and (privileged) a life with real QEMU and a tap.
#![expect(clippy::unwrap_used, reason = "helpers of tests; a rig that cannot be built ends its test")]
mod rig;

use std::{
    os::{fd::AsRawFd as _, unix::process::ExitStatusExt as _},
    path::Path,
    time::Duration,
};

use guest::handshake::HANDSHAKE_LIMIT;
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{MsgFlags, SockType, getsockopt, send, sockopt},
    },
    unistd::Pid,
};
use qapi::qmp;
use seat::{FromAgent, FromRunner, PortKind};
use testkit::eventually;

use rig::{Place, Rig, SOON, USER, alive, status_field};

/// Runs it to its end: exit code and standard error.
fn fails(place: &Place, flags: &[&str], path: Option<&Path>) -> (i32, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_guest-runner"));
    let (work, socket) = (place.join("work"), place.join("agent.sock"));
    if !flags.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command.args(["--instance", "instance-0", "--work-dir"]).arg(work).arg("--agent-socket").arg(socket).args(flags);
    if nix::unistd::geteuid().is_root() {
        command.args(["--uid", USER, "--gid", USER]);
    }
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[track_caller]
fn refused(place: &Place, flags: &[&str], code: i32, want: &str) {
    let (is, said) = fails(place, flags, None);
    assert_eq!(is, code, "{said}");
    assert!(said.contains(want), "{said}");
}

#[test]
fn what_is_wrong_is_said_with_the_remedy() {
    let place = Place::new("wrong");
    let text = place.file("letter.txt", b"dear all");
    refused(&place, &["--bogus"], 2, "--bogus");
    refused(&place, &["--kernel", "k", "--disk", "d"], 2, "--disk");
    refused(&place, &["--kernel", "k", "--nic", "e1000"], 2, "use pcnet or ne2k_pci");
    refused(&place, &[], 1, "nothing to start; give --kernel, --disk or --cdrom");
    refused(&place, &["--disk", "/nowhere.qcow2"], 1, "there is no disk image `/nowhere.qcow2`; check --disk");
    refused(&place, &["--disk", &text], 1, "not a disk image that is known here");
    refused(&place, &["--cdrom", "/nowhere.iso"], 1, "could not open the CD image `/nowhere.iso`; check --cdrom");
    refused(&place, &["--kernel", "/nowhere.elf"], 1, "could not open the kernel `/nowhere.elf`; check --kernel");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let want = format!("could not listen on {address}; choose another address or port with --listen");
    refused(&place, &["--kernel", &text, "--listen", &address], 1, &want);
}

#[test]
fn an_old_or_absent_qemu_is_named() {
    let place = Place::new("old");
    let kernel = place.file("kernel.elf", b"elf");
    let (code, said) = fails(&place, &["--kernel", &kernel], Some(&place.join("nothing")));
    assert!(code == 1 && said.contains("`qemu-system-x86_64` is not in PATH; apt-get install"), "{said}");
    place.program("qemu-system-x86_64", "#!/bin/sh\necho 'QEMU emulator version 7.2.17 (Debian)'\n");
    let (code, said) = fails(&place, &["--kernel", &kernel], Some(&place.join("")));
    assert!(code == 1 && said.contains("is QEMU 7.2, too old: 10.0 or newer is needed; apt-get install"), "{said}");
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn runs_without_rights_and_stays_while_agents_come_and_go() {
    let mut rig = Rig::start("life", &[]);
    let (hello, mut seat) = rig.greeted().await;
    assert!(!hello.has_port);
    let mut given = rig.welcome(&seat).await;
    let (runner, qemu) = (rig.pid(), given.started.qemu_pid);
    assert_eq!(hello.runner_pid, runner);
    for pid in [runner, qemu] {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status_field(pid, set), "0000000000000000", "{set} of {pid}");
        }
        assert_eq!(status_field(pid, "NoNewPrivs"), "1");
        assert_eq!(status_field(pid, "Seccomp"), "2");
        assert_eq!(status_field(pid, "Uid"), [USER; 4].join("\t"));
        assert_eq!(status_field(pid, "Gid"), [USER; 4].join("\t"));
        assert_eq!(status_field(pid, "Groups"), "");
    }
    assert_eq!(given.started.accelerator, "tcg");
    rig.becomes("/readyz", 200).await;
    assert_eq!(rig.get("/healthz").0, 200);

    for mut monitor in given.monitors().await {
        assert!(monitor.execute(qmp::query_status {}).await.unwrap().running);
    }

    // Display alone, sound alone, on request.
    seat.say(&FromAgent::Display).await;
    let (message, display) = rig.receive(&seat).await;
    assert!(matches!(message, FromRunner::Display { .. }) && display.len() == 2, "{message:?}");
    given.drop_audio();
    seat.say(&FromAgent::Audio).await;
    let (message, audio) = rig.receive(&seat).await;
    assert!(matches!(message, FromRunner::Audio { .. }) && audio.len() == 1, "{message:?}");
    drop((display, audio));

    for round in 0..3 {
        // The agent dies, and with it its connection and all it was given. Another one takes the socket over.
        drop((given, seat));
        rig.another_agent();
        let (hello, again) = rig.greeted().await;
        seat = again;
        assert!(hello.has_port, "the tap is in use and must not be opened again");
        let began = std::time::Instant::now();
        given = rig.welcome_back(&seat).await;
        println!("round {round}: hand-over took {:?}", began.elapsed());
        assert_eq!(given.started.qemu_pid, qemu, "QEMU is untouched");
        for mut monitor in given.monitors().await {
            monitor.execute(qmp::query_status {}).await.unwrap();
        }
    }
    rig.becomes("/readyz", 200).await;
    drop(seat);
    rig.becomes("/readyz", 503).await;
    assert_eq!(rig.get("/healthz").0, 200, "an agent that is away is no reason to restart the guest");
    rig.kill().await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_cable_is_handed_to_every_agent_and_qemu_says_what_its_card_is_on() {
    let mut rig = Rig::start("cable", &[]);
    let (hello, seat) = rig.greeted().await;
    assert_eq!(hello.ports, ["tap", "macvtap", "socket", "user"]);
    let given = rig.welcome_at(&seat, PortKind::Socket).await;
    let qemu = given.started.qemu_pid;
    assert_eq!(given.started.netdev.as_deref(), Some("dgram"));
    let cable = given.cable.as_ref().unwrap();
    assert_eq!(getsockopt(cable, sockopt::SockType).unwrap(), SockType::SeqPacket);
    // A frame for the guest is taken by QEMU while no agent is there: this end is not the only one.
    send(cable.as_raw_fd(), &[0xff; 60], MsgFlags::MSG_DONTWAIT).unwrap();
    drop((given, seat));
    rig.another_agent();
    let (hello, seat) = rig.greeted().await;
    assert!(hello.has_port);
    let given = rig.welcome_at(&seat, PortKind::Socket).await;
    assert_eq!((given.started.qemu_pid, given.cable.is_some()), (qemu, true));
    rig.kill().await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_guest_alone_has_no_cable() {
    let mut rig = Rig::start("alone", &[]);
    let (_, seat) = rig.greeted().await;
    let given = rig.welcome_at(&seat, PortKind::User).await;
    assert_eq!((given.started.netdev.as_deref(), given.cable.is_none()), (Some("user"), true));
    rig.kill().await;
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn sigterm_ends_in_order_and_says_so() {
    let mut rig = Rig::start("term", &["--grace", "1"]);
    let (_, seat) = rig.greeted().await;
    let given = rig.welcome(&seat).await;
    kill(Pid::from_raw(rig.pid().cast_signed()), Signal::SIGTERM).unwrap();
    let exited = rig.exited(&seat).await;
    assert!(exited.asked && exited.code == Some(0), "{exited:?}");
    assert_eq!(rig.end(SOON).await.code(), Some(143));
    assert!(!alive(given.started.qemu_pid));
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn sigterm_before_there_is_a_port_ends_at_once() {
    let mut rig = Rig::start("early", &[]);
    let (_, _seat) = rig.greeted().await;
    let (code, body) = rig.get("/readyz");
    assert_eq!(code, 503);
    assert!(body.contains("port") && body.contains("remedy"), "{body}");
    kill(Pid::from_raw(rig.pid().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(rig.end(HANDSHAKE_LIMIT).await.code(), Some(143));
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_killed_runner_takes_qemu_with_it() {
    let mut rig = Rig::start("killed", &[]);
    let (_, seat) = rig.greeted().await;
    let qemu = rig.welcome(&seat).await.started.qemu_pid;
    kill(Pid::from_raw(rig.pid().cast_signed()), Signal::SIGKILL).unwrap();
    assert_eq!(rig.end(SOON).await.signal(), Some(9));
    eventually(Duration::from_secs(2), || (!alive(qemu)).then_some(())).await.unwrap();
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_killed_qemu_is_a_failure_and_a_guest_that_ends_is_not() {
    let mut rig = Rig::start("crash", &[]);
    let (_, seat) = rig.greeted().await;
    let qemu = rig.welcome(&seat).await.started.qemu_pid;
    kill(Pid::from_raw(qemu.cast_signed()), Signal::SIGKILL).unwrap();
    let exited = rig.exited(&seat).await;
    assert_eq!((exited.signal, exited.asked), (Some(9), false));
    assert_eq!(rig.end(SOON).await.code(), Some(1));

    // Started again on the same work directory: the overlay is adopted.
    rig.start_again();
    let (hello, seat) = rig.greeted().await;
    assert!(!hello.has_port);
    let given = rig.welcome(&seat).await;
    let [mut input, _poke] = given.monitors().await;
    input.execute(qmp::quit {}).await.unwrap();
    let exited = rig.exited(&seat).await;
    assert_eq!((exited.code, exited.asked), (Some(0), false));
    assert_eq!(rig.end(SOON).await.code(), Some(0));
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_refusal_is_shown_and_asked_again() {
    let mut rig = Rig::start("refused", &[]);
    let (_, seat) = rig.greeted().await;
    let refused = FromAgent::Refused { reason: "no such seat".into(), remedy: "wait".into() };
    seat.say(&refused).await;
    drop(seat);
    let (_, seat) = rig.greeted().await;
    let (_, body) = rig.get("/readyz");
    assert!(body.contains("the agent refused: no such seat; wait"), "{body}");
    rig.welcome(&seat).await;
    rig.becomes("/readyz", 200).await;
    rig.kill().await;
}
