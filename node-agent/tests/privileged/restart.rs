//! What must not be noticed on the LAN, and what must come back.
use std::{sync::Arc, time::Duration};

use api::agent::State;
use nix::sys::signal::Signal;

use testkit::eventually;

use crate::{
    flow::Flow,
    rig::{Rig, SOON},
};

/// Pictures must be back this soon after an agent's restart (issue 3, "Must be true").
const PICTURES_BACK: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn an_agent_may_die_at_any_time() {
    let rig = Rig::new(2);
    rig.place(&[0, 1, 0, 1]);
    let mut agents = [rig.start_agent(0), rig.start_agent(1)];
    let _runner = rig.start_runner(0, 0);
    let (left, left_seat) = rig.take_seat(0, 2).await;
    let (right, _right_seat) = rig.take_seat(1, 3).await;
    let (left, right) = (Arc::new(left), Arc::new(right));
    let (before, _) = rig.until_live(0, 0);
    rig.until(0, 2, |status| status.link == Some(true));
    rig.until(1, 3, |status| status.link == Some(true));
    let there = Flow::start(2, Arc::clone(&left), 3, Arc::clone(&right));
    let back = Flow::start(3, right, 2, left);
    there.goes_on(200).await;
    back.goes_on(200).await;

    for (round, end) in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGKILL].into_iter().enumerate() {
        // As a new binary would be rolled out: the old one ends, the new one starts.
        agents[0].signal(end);
        agents[0].0.wait().unwrap();
        there.goes_on(100).await;
        let started = std::time::Instant::now();
        agents[0] = rig.start_agent(0);
        let (after, _) = rig.until_live(0, 0);
        let took = started.elapsed();
        println!("round {round}: {end} and restart, live again after {took:?}");
        assert!(took < PICTURES_BACK, "round {round}: {took:?}\n{}", rig.logs());
        assert_eq!(after.qemu_pid, before.qemu_pid, "QEMU was not touched");
        assert_eq!(after.link, Some(true), "and holds the same tap");
    }
    // The connection that the test held through it all ended with the first agent, and cost the tap nothing.
    drop(left_seat);
    agents[1].kill();
    there.goes_on(100).await;
    agents[1] = rig.start_agent(1);
    rig.until(1, 3, |status| status.link == Some(true));
    there.goes_on(200).await;
    let sent = [there.lost_nothing("there").await, back.lost_nothing("back").await];
    println!("there and back: {sent:?} frames, none lost, none doubled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_runner_or_guest_that_dies_is_said_and_comes_back() {
    let rig = Rig::new(1);
    rig.place(&[0]);
    let _agent = rig.start_agent(0);
    let mut runner = rig.start_runner(0, 0);
    let (first, _) = rig.until_live(0, 0);
    assert_eq!(first.accelerator.as_deref(), Some("tcg"));
    let size = first.picture.map(|picture| (picture.width, picture.height));
    assert!(size.is_some_and(|(width, height)| width >= 320 && height >= 200), "{size:?}");

    runner.kill();
    let (gone, _) = rig.until(0, 0, |status| status.state == State::Recovering && status.link == Some(false));
    assert!(gone.detail.is_some_and(|detail| detail.contains("runner is gone")));
    runner = rig.start_runner(0, 0);
    let (second, _) = rig.until_live(0, 0);
    assert_ne!(second.qemu_pid, first.qemu_pid, "QEMU ends with its runner");

    let qemu = nix::unistd::Pid::from_raw(i32::try_from(second.qemu_pid.unwrap()).unwrap());
    nix::sys::signal::kill(qemu, Signal::SIGKILL).unwrap();
    let (failed, _) = rig.until(0, 0, |status| status.state == State::Failed);
    assert!(failed.detail.is_some_and(|detail| detail.contains("signal 9")));
    assert!(!runner.0.wait().unwrap().success(), "whoever supervises the runner must start it again");
    runner = rig.start_runner(0, 0);
    rig.until_live(0, 0);
    // Nothing acts on it: this firmware has no ACPI, so the runner ends QEMU itself, on being asked.
    runner.signal(Signal::SIGTERM);
    let (stopped, _) = rig.until(0, 0, |status| status.state == State::Stopped);
    assert!(stopped.detail.is_some_and(|detail| detail.contains("asked to stop")));
}

/// Sets mode 13h (320x200, no cursor that blinks), clears the interrupts and halts: nothing on its screen ever changes.
const STANDS_STILL: [u8; 9] = [0xb8, 0x13, 0x00, 0xcd, 0x10, 0xfa, 0xf4, 0xeb, 0xfd];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_guest_that_draws_nothing_is_live_again_after_its_agent_hung() {
    let rig = Rig::new(1);
    rig.place(&[0]);
    rig.boots(&STANDS_STILL);
    let agent = rig.start_agent(0);
    let _runner = rig.start_runner(0, 0);
    rig.until(0, 0, |status| {
        status.state == State::Live
            && status.picture.as_ref().is_some_and(|picture| picture.changes > 0 && picture.still_for > 2.0)
    });
    agent.signal(Signal::SIGSTOP);
    let gave_up = || rig.logs().contains("the agent holds its connection and has not answered").then_some(());
    let noticed = eventually(SOON, gave_up).await;
    agent.signal(Signal::SIGCONT);
    noticed.unwrap_or_else(|error| panic!("{error}\n{}", rig.logs()));
    // The display that is connected anew brings the picture that the agent has already.
    rig.until(0, 0, |status| {
        status.picture.as_ref().is_some_and(|picture| picture.changes == 0) && status.state == State::Live
    });
}
