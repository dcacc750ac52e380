//! The guest in a real QEMU: nine of them on a real bridge, and one by one what a person or the machine does to them.
#![expect(clippy::unwrap_used, reason = "a test; clippy knows only functions marked as such")]

mod lan;

use lan::{Guest, Lan, eventually};

/// All of them say that so many play, counted from the given lines on.
#[track_caller]
fn all_play(guests: &[Guest], since: &[usize], players: usize, seconds: u64) {
    let wanted = format!("LOCO players={players}");
    eventually(&format!("{wanted} at all"), seconds, || {
        guests
            .iter()
            .zip(since)
            .all(|(g, since)| g.lines()[*since..].iter().rev().find(|l| l.contains("players=")) == Some(&wanted))
    });
}

fn marks(guests: &[Guest]) -> Vec<usize> {
    guests.iter().map(Guest::said).collect()
}

#[test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
fn nine_play_together_and_survive_resets() {
    let lan = Lan::new(9);
    let nic = |seat| if seat % 2 == 0 { "pcnet" } else { "ne2k_pci" };
    let mut guests: Vec<_> = (0..9).map(|seat| lan.guest(seat, nic(seat), "autoplay=1")).collect();
    all_play(&guests, &[0; 9], 9, 60);

    // They stay together, through quiet half minutes, too.
    let trains = |g: &Guest| g.lines().iter().filter(|l| l.contains("LOCO train")).count();
    eventually("forty movements of trains", 240, || guests.iter().map(trains).sum::<usize>() >= 40);
    assert!(guests.iter().all(|g| !g.has_said(0, "LOCO gone") && !g.has_said(0, "LOCO lost")));

    // A seat is reset: the others see it go and come, nobody else leaves.
    let before = marks(&guests);
    guests[3].qmp(r#"{"execute":"system_reset"}"#);
    eventually("seat 3 is back", 30, || guests[3].has_said(before[3], "LOCO players=9"));
    all_play(&guests, &before, 9, 30);
    assert!(guests.iter().zip(&before).all(|(g, since)| !g.has_said(*since, "LOCO lost")), "only seat 3 was reset");

    // The host is reset: all find it again.
    let before = marks(&guests);
    guests[0].qmp(r#"{"execute":"system_reset"}"#);
    eventually("the host is back", 30, || guests[0].has_said(before[0], "LOCO players=9"));
    all_play(&guests, &before, 9, 60);

    // The power button: a polite good-bye, and QEMU ends cleanly.
    let before = marks(&guests);
    guests[7].qmp(r#"{"execute":"system_powerdown"}"#);
    assert_eq!(guests[7].end(), Some(0));
    guests.remove(7);
    let before: Vec<_> = before.iter().enumerate().filter(|(i, _)| *i != 7).map(|(_, b)| *b).collect();
    all_play(&guests, &before, 8, 3);

    // A guest that dies without a word is given up.
    let before = marks(&guests);
    guests[5].kill();
    guests.remove(5);
    let before: Vec<_> = before.iter().enumerate().filter(|(i, _)| *i != 5).map(|(_, b)| *b).collect();
    all_play(&guests, &before, 7, 40);

    // All the while trains went from town to town.
    let some = |what: &str| guests.iter().any(|g| g.lines().iter().any(|l| l.contains("train") && l.contains(what)));
    eventually("a train goes out", 60, || some(" out "));
    eventually("a train comes in", 30, || some(" in "));
    assert!(guests.iter().all(|g| !g.has_said(0, "LOCO crash")));
}

#[test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
fn a_person_hosts_another_one_finds_and_joins() {
    let lan = Lan::new(2);
    let (host, guest) = (lan.guest(0, "pcnet", ""), lan.guest(1, "ne2k_pci", ""));
    eventually("both are up", 10, || [&host, &guest].iter().all(|g| g.has_said(0, "LOCO ready")));
    assert!(!host.has_said(0, "LOCO hosting"), "without autoplay nothing happens by itself");
    host.key("ret");
    eventually("hosting", 5, || host.has_said(0, "LOCO hosting"));
    guest.key("down");
    guest.key("ret");
    eventually("searching", 5, || guest.has_said(0, "LOCO searching"));
    // With the host's answer the session becomes the first line, and the chosen one.
    eventually("the session is listed", 10, || guest.has_said(0, "LOCO found 1"));
    guest.key("ret");
    eventually("joined", 10, || guest.has_said(0, "LOCO joined") && guest.has_said(0, "LOCO players=2"));
    let before = guest.said();
    host.key("right");
    eventually("the train crosses", 40, || guest.has_said(before, "LOCO train 0 in west"));
}

#[test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
fn the_mark_inverts_with_each_press_and_goes_without_a_trace() {
    let lan = Lan::new(1);
    let guest = lan.guest(4, "pcnet", "");
    eventually("it is up", 10, || guest.has_said(0, "LOCO ready"));
    let untouched = guest.picture();
    guest.key("f12");
    eventually("a black square", 2, || guest.picture().square_is(0));
    guest.key("f9");
    eventually("white after a key", 2, || guest.picture().square_is(255));
    let mut first = 0;
    eventually("a still picture", 3, || {
        guest.picture().frames() == std::mem::replace(&mut first, guest.picture().frames())
    });
    guest.button(true);
    eventually("black after a button", 2, || guest.picture().square_is(0));
    assert_eq!(guest.picture().frames(), first + 1, "one press, one frame");
    guest.button(false);
    assert!(guest.picture().square_is(0), "a release is no press");

    let still = guest.picture().frames();
    guest.key("f10");
    eventually("the box runs", 3, || guest.picture().frames() > still + 20);
    guest.key("f11");
    let (one, mut rows) = (guest.picture(), 0);
    eventually("every row moves", 3, || {
        let two = guest.picture();
        rows = (64..446).filter(|y| (0..640).any(|x| one.pixel(x, *y) != two.pixel(x, *y))).count();
        rows == 382
    });
    guest.key("f12");
    eventually("as before", 3, || guest.picture().same_as(&untouched));
}

#[test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
fn a_crash_is_seen_and_the_probe_ends_qemu() {
    let lan = Lan::new(2);
    let guest = lan.guest(0, "pcnet", "");
    eventually("it is up", 10, || guest.has_said(0, "LOCO ready"));
    guest.qmp(r#"{"execute":"inject-nmi"}"#);
    eventually("the line", 3, || guest.has_said(0, "LOCO crash Processor exception 2: NMI"));
    let [red, green, blue] = guest.picture().pixel(320, 20);
    assert!(red > 120 && green < 60 && blue < 60, "a red screen: {red} {green} {blue}");

    let mut probe = lan.guest(1, "pcnet", "probe=1");
    assert_eq!(probe.end(), Some(33));
    eventually("READY", 1, || probe.has_said(0, "READY"));
}
