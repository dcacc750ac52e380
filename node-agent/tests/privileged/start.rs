//! Starts that must fail in words, the snapshot file's ways, and an end that leaves nothing.
use std::{
    net::SocketAddr,
    process::{Command, Stdio},
};

use crate::rig::{Rig, SOON};

/// Runs an agent that must not start: its exit code and what it said.
fn fails(rig: &Rig, mut command: Command, code: i32, words: &[&str]) {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = rig.underlay.node(0).run(move || command.output().unwrap()).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_start_that_cannot_work_says_why_and_disturbs_nobody() {
    let rig = Rig::new(1);
    fails(&rig, rig.agent_command(0), 1, &["--snapshot", "snapshot.json", "`loco up` writes it"]);
    rig.place(&[0]);
    let mut wrong = rig.agent_command(0);
    wrong.args(["--media-ports", "5-4"]);
    fails(&rig, wrong, 2, &["--media-ports", "FIRST-LAST"]);

    let mut without_right = Command::new("setpriv");
    without_right.arg("--bounding-set=-net_admin").arg(env!("CARGO_BIN_EXE_node-agent"));
    without_right.args(rig.agent_command(0).get_args());
    fails(&rig, without_right, 1, &["CAP_NET_ADMIN", "root"]);
    assert!(!rig.run_dir(0).exists(), "nothing was made by those that did not start");

    let _agent = rig.start_agent(0);
    let ready = |rig: &Rig| rig.status(0).filter(|status| status.fabric_problems.is_empty());
    testkit::eventually(SOON, || ready(&rig)).await.unwrap();
    fails(&rig, rig.agent_command(0), 1, &["--listen 10.99.0.11:14780", "ss -ltnp"]);
    // Elsewhere, so that only the directory is shared.
    let other = SocketAddr::from((Rig::address(0), 14790)).to_string();
    let mut args: Vec<_> = rig.agent_command(0).get_args().map(ToOwned::to_owned).collect();
    let listen = args.iter().position(|arg| arg == "--listen").unwrap();
    args[listen + 1] = other.into();
    let mut second = Command::new(env!("CARGO_BIN_EXE_node-agent"));
    second.args(args);
    fails(&rig, second, 1, &["--run-dir", "in use by another agent"]);
    assert!(ready(&rig).is_some(), "the one that runs was not disturbed");
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn the_snapshot_file_is_followed_and_rubbish_changes_nothing() {
    let rig = Rig::new(1);
    let file = rig.dir.join("snapshot.json");
    std::fs::write(&file, "{ rubbish").unwrap();
    let _agent = rig.start_agent(0);
    let status = testkit::eventually(SOON, || rig.status(0)).await.unwrap();
    assert!(status.snapshot_problem.is_some() && status.instances.is_empty(), "{status:?}");

    let ids = |count: usize| {
        let rig = &rig;
        move || rig.status(0).filter(|s| s.instances.len() == count && s.snapshot_problem.is_none())
    };
    rig.place(&[0, 0]);
    testkit::eventually(SOON, ids(2)).await.unwrap();
    let seats = || (rig.seat(0, 0).exists() && rig.seat(0, 1).exists()).then_some(());
    testkit::eventually(SOON, seats).await.unwrap();

    std::fs::write(&file, "").unwrap();
    let kept = testkit::eventually(SOON, || rig.status(0).filter(|s| s.snapshot_problem.is_some())).await.unwrap();
    assert_eq!(kept.instances.len(), 2, "the last good one stays in force");
    std::fs::remove_file(&file).unwrap();
    let gone = |text: &str| text.contains("cannot be read");
    testkit::eventually(SOON, || rig.status(0).filter(|s| s.snapshot_problem.as_deref().is_some_and(gone)))
        .await
        .unwrap();

    rig.place(&[0]);
    testkit::eventually(SOON, ids(1)).await.unwrap();
    assert!(!rig.seat(0, 1).parent().unwrap().exists());
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn uninstall_after_a_kill_leaves_nothing() {
    let rig = Rig::new(1);
    rig.place(&[0]);
    let mut agent = rig.start_agent(0);
    let (tap, _seat) = rig.take_seat(0, 0).await;
    let namespace = rig.run_dir(0).join("fabric.netns").display().to_string();
    let mounted = || std::fs::read_to_string("/proc/self/mounts").unwrap().contains(&namespace);
    assert!(mounted());
    agent.kill();
    drop(tap);
    for _twice in 0..2 {
        let uninstall = Command::new(env!("CARGO_BIN_EXE_node-agent"))
            .args(["uninstall", "--run-dir"])
            .arg(rig.run_dir(0))
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(uninstall.status.success(), "{}", String::from_utf8_lossy(&uninstall.stderr));
        assert!(!mounted() && !rig.run_dir(0).exists());
    }
}
