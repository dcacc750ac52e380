//! What holds whatever happens to a capture: cut, repeated, swapped, lost, hostile frames.
use std::time::Duration;

use api::observe::Observed;
use observe::{Limits, Observer};
use proptest::prelude::*;

use crate::support::{Taken, feed, frames, observed};

/// What a session is, without evidence, times and counts of frames.
fn facts(observed: &Observed) -> serde_json::Value {
    let mut all = serde_json::to_value(observed).unwrap();
    for key in ["frames", "classes", "machines", "timelines", "lags", "anomalies", "enumerations"] {
        all.as_object_mut().unwrap().remove(key);
    }
    without_evidence(&mut all);
    all
}

fn without_evidence(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(object) => {
            object.retain(|key, value| key != "evidence" || value.is_string());
            object.values_mut().for_each(without_evidence);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_evidence),
        _ => {}
    }
}

/// A TCP segment cut in two at `at` of its payload; anything else as it is.
fn cut(frame: &Taken, at: usize) -> Vec<Taken> {
    let bytes = &frame.bytes;
    let ip = 14;
    if bytes.get(12..14) != Some(&[8, 0]) || bytes.get(ip + 9) != Some(&6) {
        return vec![frame.clone()];
    }
    let tcp = ip + usize::from(bytes[ip] & 15) * 4;
    let payload = tcp + usize::from(bytes[tcp + 12] >> 4) * 4;
    let end = ip + usize::from(u16::from_be_bytes([bytes[ip + 2], bytes[ip + 3]]));
    if end - payload < 2 || bytes[tcp + 13] & 7 != 0 {
        return vec![frame.clone()];
    }
    let at = payload + 1 + at % (end - payload - 1);
    let part = |from: usize, to: usize| {
        let mut made = bytes[..payload].to_vec();
        made.extend(&bytes[from..to]);
        let total = u16::try_from(made.len() - ip).unwrap();
        made[ip + 2..ip + 4].copy_from_slice(&total.to_be_bytes());
        // Not computed again: 0 is "none" for the model.
        made[ip + 10..ip + 12].fill(0);
        let sequence = u32::from_be_bytes(bytes[tcp + 4..tcp + 8].try_into().unwrap());
        let sequence = sequence.wrapping_add(u32::try_from(from - payload).unwrap());
        made[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
        Taken { at: frame.at, bytes: made }
    };
    vec![part(payload, at), part(at, end)]
}

fn is_tcp(frame: &Taken) -> bool {
    frame.bytes.get(12..14) == Some(&[8, 0]) && frame.bytes.get(23) == Some(&6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Segments cut anywhere, twice, and swapped with the next one of TCP: the same sessions, players and messages.
    #[test]
    fn segmentation_repeats_and_order_change_nothing(seed in any::<u64>()) {
        let frames = frames("dplay4-3peer");
        let want = facts(&observed(&frames));
        let mut rng = seed | 1;
        let mut next = || { rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1); (rng >> 33) as usize };
        let mut made: Vec<_> = frames.iter().flat_map(|frame| {
            let parts = cut(frame, next());
            parts.iter().flat_map(|part| cut(part, next())).collect::<Vec<_>>()
        }).collect();
        let mut at = 0;
        while at + 1 < made.len() {
            let same = |a: &Taken, b: &Taken| a.bytes[26..38] == b.bytes[26..38] && a.at == b.at;
            if is_tcp(&made[at]) && is_tcp(&made[at + 1]) && same(&made[at], &made[at + 1]) {
                if next().is_multiple_of(2) {
                    made.swap(at, at + 1);
                }
                if next().is_multiple_of(4) {
                    let again = made[at].clone();
                    made.insert(at, again);
                    at += 1;
                }
            }
            at += 1;
        }
        let got = observed(&made);
        prop_assert_eq!(facts(&got), want);
        prop_assert!(!got.anomalies.iter().any(|anomaly| anomaly.kind.starts_with("dplay") || anomaly.kind == "resync"));
    }

    /// Frames are lost: no panic, and nothing is told that the whole capture does not hold.
    #[test]
    fn loss_invents_nothing(lost in proptest::collection::btree_set(0_usize..133, 0..40)) {
        let frames = frames("dplay4-3peer");
        let whole = observed(&frames);
        let rest: Vec<_> = frames.iter().enumerate().filter(|(n, _)| !lost.contains(n)).map(|(_, frame)| frame.clone()).collect();
        let mut part = observed(&rest);
        // Who of two has closed first is told by the first FIN alone: without it the other one is taken to have left.
        if lost.iter().any(|&n| is_tcp(&frames[n]) && frames[n].bytes[47] & 1 != 0) {
            part.leave_order.clear();
        }
        contradicts_nothing(&part, &whole)?;
    }

    #[test]
    fn random_frames_do_no_harm_and_stay_within_the_limits(
        seeds in proptest::collection::vec((0_usize..133, any::<u64>()), 1..400),
    ) {
        let frames = frames("dplay4-3peer");
        let limits = Limits {
            machines: 8, sessions: 4, players: 8, processes: 16, tcp_directions: 16, tcp_bytes: 8192, tcp_ahead_bytes: 4096,
            fragments: 4, fragment_bytes: 8192, pairs: 8, lines: 8, names: 8, anomalies: 8, ..Limits::default()
        };
        let mut observer = Observer::new(limits);
        for (index, seed) in seeds {
            let mut frame = frames[index].clone();
            let mut rng = seed | 1;
            for _ in 0..seed % 9 {
                rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let len = frame.bytes.len();
                let at = (rng >> 33) as usize % len;
                frame.bytes[at] = rng.to_le_bytes()[7];
                if rng % 97 == 0 {
                    frame.bytes.truncate(at.max(1));
                }
            }
            feed(&mut observer, &[frame]);
            prop_assert!(observer.held_bytes() <= 8192 * 3 + 2048, "{}", observer.held_bytes());
            // Each table by its limit; a session has four lists of players, commands are 49.
            let most = 4 * (1 + 4 * 8) + 49 + 8 * 30 + 16 * 6 + 4 * 8;
            prop_assert!(observer.entries() <= most, "{} entries", observer.entries());
        }
        observer.tick(Duration::from_mins(50_000_000));
        observer.finish();
        observer.observed();
    }
}

fn contradicts_nothing(part: &Observed, whole: &Observed) -> Result<(), TestCaseError> {
    for session in &part.sessions {
        let known = whole.sessions.iter().any(|other| {
            (session.name.is_none() || session.name == other.name)
                && (session.instance_guid_wire.is_none() || session.instance_guid_wire == other.instance_guid_wire)
                && (session.host_ip.is_none() || session.host_ip == other.host_ip)
                && (session.host_system_id.is_none() || session.host_system_id == other.host_system_id)
        });
        prop_assert!(known, "{session:?}");
    }
    prop_assert!(part.sessions.len() <= whole.sessions.len());
    for player in &part.players {
        let other = whole.players.iter().find(|other| other.id == player.id);
        prop_assert!(other.is_some(), "{player:?}");
        let other = other.unwrap();
        prop_assert!(player.name.is_none() || player.name == other.name, "{player:?}");
        prop_assert!(player.ip.is_none() || player.ip == other.ip, "{player:?}");
        prop_assert!(player.system_id.is_none() || player.system_id == other.system_id, "{player:?}");
    }
    for system in &part.system_players {
        prop_assert!(
            whole
                .system_players
                .iter()
                .any(|other| other.id == system.id && (system.ip.is_none() || system.ip == other.ip)),
            "{system:?}"
        );
    }
    for pair in &part.user_messages {
        let other = whole.user_messages.iter().find(|other| (&other.src, &other.dst) == (&pair.src, &pair.dst));
        prop_assert!(other.is_some_and(|other| pair.udp <= other.udp && pair.tcp <= other.tcp), "{pair:?}");
    }
    for left in &part.leave_order {
        prop_assert!(
            whole.leave_order.iter().any(|other| other.name == left.name) || left.name.starts_with("5e"),
            "{left:?}"
        );
    }
    Ok(())
}

/// Whoever looks in late, at any frame, sees less but nothing else.
#[test]
fn a_late_start_contradicts_nothing() {
    let frames = frames("dplay4-3peer");
    let whole = observed(&frames);
    for start in 0..frames.len() {
        let part = observed(&frames[start..]);
        contradicts_nothing(&part, &whole).unwrap_or_else(|error| panic!("from frame {}: {error}", start + 1));
    }
    // From the middle of the game: who plays, by what is sent, and Carol by the messages of her joining.
    let late = observed(&frames[60..]);
    let named: Vec<_> = late.players.iter().filter_map(|player| player.name.clone()).collect();
    assert_eq!(named, ["Alice", "Bob", "Carol"]);
    let later = observed(&frames[78..]);
    let ids: Vec<_> = later.players.iter().map(|player| player.id.as_str()).collect();
    assert_eq!(ids, ["5e4226fe", "5e4726e5"], "by their messages alone");
}
