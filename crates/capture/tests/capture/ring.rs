//! What is kept, and what is said of it.
use std::time::Duration;

use capture::{
    Limits,
    ring::{Followed, Rings, Snapshot},
    write::Direction,
};
use proptest::{collection::vec, prelude::*};

use super::build::{PASSWORD, enum_sessions, udp, utf16};

const LIMITS: Limits = Limits { bytes: 64 << 10, age: Duration::from_mins(1) };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(1_795_300_000 + seconds)
}

fn push(rings: &mut Rings, port: &str, when: Duration, len: usize) {
    rings.push(port, when, Direction::Outbound, u32::try_from(len).unwrap(), &mut vec![0; len]);
}

fn lens(snapshot: &Snapshot) -> Vec<usize> {
    snapshot.frames.iter().map(|frame| frame.bytes.len()).collect()
}

#[test]
fn a_port_holds_its_last_seconds() {
    let mut rings = Rings::new(LIMITS);
    rings.begin("instance-0", at(0));
    for second in 1..=100 {
        push(&mut rings, "instance-0", at(second), 60 + usize::try_from(second).unwrap());
    }
    rings.age(at(100));
    let all = rings.snapshot("instance-0", None, at(100)).unwrap();
    assert_eq!(lens(&all), (100..=160).collect::<Vec<_>>());
    assert_eq!((all.from, all.until, all.is_cut), (at(40), at(100), false));
    let last = rings.snapshot("instance-0", Some(Duration::from_secs(5)), at(100)).unwrap();
    assert_eq!((last.from, lens(&last)), (at(95), (155..=160).collect::<Vec<_>>()));
    // More than is kept was asked for.
    assert_eq!(rings.snapshot("instance-0", Some(Duration::MAX), at(100)).unwrap(), all);
    rings.age(at(1000));
    assert_eq!(rings.bytes(), 0, "also where nothing comes any more");
    assert_eq!(rings.snapshot("instance-1", None, at(100)), None);
}

#[test]
fn a_young_capture_does_not_claim_the_time_before_it() {
    let mut rings = Rings::new(LIMITS);
    rings.begin("instance-0", at(7));
    let snapshot = rings.snapshot("instance-0", None, at(9)).unwrap();
    assert_eq!((snapshot.from, snapshot.until, snapshot.is_cut), (at(7), at(9), false));
}

#[test]
fn a_loud_port_pays_for_itself() {
    let mut rings = Rings::new(LIMITS);
    rings.begin("quiet", at(0));
    rings.begin("loud", at(0));
    push(&mut rings, "quiet", at(1), 100);
    for n in 0..500 {
        push(&mut rings, "loud", at(2) + Duration::from_millis(n), 1500);
    }
    assert!(rings.bytes() <= LIMITS.bytes);
    assert_eq!(lens(&rings.snapshot("quiet", None, at(3)).unwrap()), [100]);
    let loud = rings.snapshot("loud", None, at(3)).unwrap();
    assert!(loud.is_cut && loud.from > at(2), "it says what it lacks: {:?}", loud.from);
    assert_eq!(loud.frames.first().unwrap().at, loud.from.max(loud.frames.first().unwrap().at));
    assert_eq!(loud.received, 500);
}

#[test]
fn a_tap_that_was_away_leaves_a_gap_that_is_told() {
    let mut rings = Rings::new(LIMITS);
    rings.begin("instance-0", at(0));
    push(&mut rings, "instance-0", at(1), 60);
    rings.pause("instance-0", at(2));
    rings.pause("instance-0", at(3));
    assert_eq!(rings.snapshot("instance-0", None, at(4)).unwrap().gaps, [(at(2), at(4))]);
    rings.begin("instance-0", at(5));
    push(&mut rings, "instance-0", at(6), 61);
    let snapshot = rings.snapshot("instance-0", None, at(7)).unwrap();
    assert_eq!((lens(&snapshot), snapshot.gaps.as_slice()), (vec![60, 61], &[(at(2), at(5))][..]));
    rings.end("instance-0");
    assert_eq!((rings.bytes(), rings.snapshot("instance-0", None, at(8))), (0, None));
}

#[test]
fn a_password_is_zero_before_it_is_kept_or_followed() {
    let mut rings = Rings::new(LIMITS);
    rings.begin("instance-0", at(0));
    let (_, mut follow) = rings.follow("instance-0", None, at(0)).unwrap();
    let mut frame = udp(47624, &enum_sessions(PASSWORD));
    let len = u32::try_from(frame.len()).unwrap();
    rings.push("instance-0", at(1), Direction::Inbound, len, &mut frame);
    let mut followed = Vec::new();
    assert_eq!(receive(&mut follow, &mut followed), 1);
    let kept = rings.snapshot("instance-0", None, at(2)).unwrap().frames;
    assert_eq!(kept, followed.into_iter().map(|followed| followed.frame).collect::<Vec<_>>());
    let secret = utf16(PASSWORD);
    assert!(kept[0].is_masked && !kept[0].bytes.windows(secret.len()).any(|window| window == secret));
}

fn receive(follow: &mut capture::Follow, frames: &mut Vec<Followed>) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(follow.receive(frames, usize::MAX))
}

#[test]
fn a_slow_follower_loses_frames_that_are_counted_and_holds_nobody_up() {
    let mut rings = Rings::new(LIMITS);
    rings.begin("instance-0", at(0));
    push(&mut rings, "instance-0", at(1), 60);
    let (snapshot, mut follow) = rings.follow("instance-0", None, at(1)).unwrap();
    assert_eq!(lens(&snapshot), [60], "what was there");
    for n in 0..5000 {
        push(&mut rings, "instance-0", at(2) + Duration::from_micros(n), 61);
    }
    let mut frames = Vec::new();
    let taken = receive(&mut follow, &mut frames);
    assert!((1..5000).contains(&taken));
    assert_eq!(taken as u64 + follow.dropped(), 5000, "every frame came or was counted");
    assert!(frames.iter().all(|followed| followed.dropped == 0), "the oldest are the ones that are kept");
    push(&mut rings, "instance-0", at(3), 62);
    assert_eq!(receive(&mut follow, &mut frames), 1);
    assert_eq!(frames.last().unwrap().dropped, follow.dropped(), "told where they are missing");
    let (_, counts) = rings.counts().next().unwrap();
    assert_eq!((counts.dropped_by_followers, counts.received), (follow.dropped(), 5002));
    rings.end_followers();
    assert_eq!(receive(&mut follow, &mut frames), 0);
}

proptest! {
    #[test]
    fn bounds_hold_and_a_snapshot_lacks_nothing_that_it_claims(
        steps in vec((0..4_usize, 0..3_u64, 14..1500_usize), 1..300), bytes in 0..40_000_usize, last in 0..80_u64,
    ) {
        let limits = Limits { bytes, age: Duration::from_secs(20) };
        let mut rings = Rings::new(limits);
        let mut all: Vec<(usize, Duration, usize)> = Vec::new();
        (0..4).for_each(|port| rings.begin(&port.to_string(), at(0)));
        let mut now = at(0);
        for (port, seconds, len) in steps {
            now += Duration::from_secs(seconds) + Duration::from_nanos(1);
            push(&mut rings, &port.to_string(), now, len);
            all.push((port, now, len));
            if seconds == 2 {
                rings.age(now);
            }
            prop_assert!(rings.bytes() <= limits.bytes);
        }
        let held: usize = rings.counts().map(|(_, counts)| counts.bytes).sum();
        prop_assert_eq!(held, rings.bytes());
        for port in 0..4 {
            let snapshot = rings.snapshot(&port.to_string(), Some(Duration::from_secs(last)), now).unwrap();
            let want: Vec<_> = all.iter().filter(|(of, at, _)| *of == port && *at >= snapshot.from).map(|(.., len)| *len).collect();
            prop_assert_eq!(lens(&snapshot), want);
            prop_assert!(snapshot.from <= snapshot.until && snapshot.from >= now.saturating_sub(Duration::from_secs(last.min(20))));
        }
    }
}
