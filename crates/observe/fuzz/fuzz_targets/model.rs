//! libFuzzer on the whole model: any frame, in the middle of a game that it knows.
#![no_main]

use std::{sync::LazyLock, time::Duration};

use observe::{Frame, Limits, Observer, Point};

const GAME: &[u8] = include_bytes!("../../../wire/tests/captures/dplay4-3peer.pcap");

/// Frames 1 to 100: three peers play.
static BASE: LazyLock<Observer> = LazyLock::new(|| {
    let mut observer = Observer::new(Limits::default());
    let mut rest = GAME.get(24..).unwrap_or(&[]);
    for _ in 0..100 {
        let Some((head, behind)) = rest.split_first_chunk::<16>() else { break };
        let [.., a, b, c, d, _, _, _, _] = *head;
        let len = u32::from_le_bytes([a, b, c, d]);
        let Some((bytes, behind)) = behind.split_at_checked(len as usize) else { break };
        observer.frame(&Frame { at: Duration::from_secs(1), point: Point::Wire, bytes, wire_len: len });
        rest = behind;
    }
    observer
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut observer = BASE.clone();
    let wire_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    for seconds in 2..4 {
        observer.frame(&Frame { at: Duration::from_secs(seconds), point: Point::Wire, bytes, wire_len });
    }
    // One frame makes a few entries, whatever it says of its lengths: a list of players is the longest.
    assert!(observer.entries() < BASE.entries() + 2048 && observer.held_bytes() < 1 << 16);
    observer.finish();
    observer.observed();
});
