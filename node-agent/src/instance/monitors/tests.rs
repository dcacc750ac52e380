//! What reaches a scripted QEMU when the monitor breaks while keys are down.
use stream::{InputEvent, MouseButton};

use super::{super::tests::qemu, *};

fn key(code: &str, down: bool) -> InputEvent {
    InputEvent::Key { code: code.into(), down }
}

/// As the control task does with an injection.
async fn inject(link: &Link, monitor: &mut Option<Monitor>, releases: &mut Releases, events: &[InputEvent]) {
    if !link.give(monitor, &input::batch(events).events).await {
        releases.owe(events);
    }
}

#[tokio::test]
async fn releases_that_found_no_monitor_come_first_on_the_next_one() {
    let (reports, mut told) = mpsc::channel(REPORTS_MAX);
    let link = Link { instance: "instance-0".parse().unwrap(), reports };
    let mut releases = Releases::default();
    let mut guest = Guest::default();
    guest.greeted(false);
    guest.started(7);
    let (log, mut asked) = mpsc::channel(64);
    let (fd, task) = qemu(log.clone());
    let mut monitor = link.open(fd, 1, guest).await;
    link.settle(&mut monitor, &mut releases).await;
    inject(&link, &mut monitor, &mut releases, &[key("ArrowUp", true)]).await;
    assert_eq!(asked.recv().await.unwrap(), "qmp_capabilities");
    assert!(asked.recv().await.unwrap().contains(r#""data":"up""#), "nothing was owed to a guest that starts");

    task.abort();
    assert!(task.await.is_err());
    let left = InputEvent::Button { button: MouseButton::Left, down: false };
    inject(&link, &mut monitor, &mut releases, &[key("ArrowUp", false)]).await;
    assert!(monitor.is_none());
    inject(&link, &mut monitor, &mut releases, &[left, key("KeyZ", true), InputEvent::Move { dx: 1, dy: 0 }]).await;

    // The runner connects again and hands over a new monitor of the same QEMU.
    guest.greeted(true);
    guest.started(7);
    let (fd, _task) = qemu(log);
    monitor = link.open(fd, 2, guest).await;
    assert!(link.settle(&mut monitor, &mut releases).await);
    inject(&link, &mut monitor, &mut releases, &[key("KeyQ", true)]).await;
    assert_eq!(asked.recv().await.unwrap(), "qmp_capabilities");
    let first = asked.recv().await.unwrap();
    assert!(first.contains(r#""data":"up""#) && first.contains(r#""button":"left""#), "{first}");
    assert!(!first.contains("true"), "nothing is pressed late: {first}");
    let then = asked.recv().await.unwrap();
    assert!(then.contains(r#""data":"q""#), "{then}");
    assert!(matches!(told.recv().await.unwrap().what, What::Up));
    assert!(matches!(told.recv().await.unwrap().what, What::Lost { .. }));
}
