//! A port's file, read back by our own reader.
use std::{sync::Arc, time::Duration};

use capture::{
    LinkType, Reader, Snapshot,
    file::{About, PortFile},
    ring::Frame,
    write::{Direction, whole_blocks},
};
use proptest::{collection::vec, prelude::*};

pub(crate) fn about() -> About {
    About {
        application: "Loco 0.1.0".to_owned(),
        instance: "instance-3".to_owned(),
        description: "LAN party, seat 3, tap locot001068-3 on node-a; outbound is from the guest".to_owned(),
        mac: Some([2, 0x4c, 0, 0x10, 0x68, 4]),
    }
}

pub(crate) fn frame(at: Duration, direction: Direction, bytes: &[u8]) -> Frame {
    Frame { at, direction, wire_len: u32::try_from(bytes.len()).unwrap(), is_masked: false, bytes: Arc::from(bytes) }
}

pub(crate) fn whole(snapshot: &Snapshot, drops: &[u64]) -> Vec<u8> {
    let (mut file, mut bytes) = PortFile::begin(&about(), snapshot, false);
    for (index, frame) in snapshot.frames.iter().enumerate() {
        file.frame(&mut bytes, frame, drops.get(index).copied().unwrap_or(0));
    }
    bytes.extend(file.end(snapshot, drops.iter().sum()));
    bytes
}

#[test]
fn the_file_says_what_it_covers() {
    let snapshot = Snapshot {
        from: Duration::from_millis(1_795_383_615_250),
        until: Duration::from_secs(1_795_383_675),
        is_cut: true,
        gaps: vec![(Duration::from_secs(1_795_383_620), Duration::from_secs(1_795_383_621))],
        received: 10,
        dropped_by_system: 2,
        frames: Vec::new(),
    };
    let text = String::from_utf8_lossy(&whole(&snapshot, &[])).into_owned();
    for want in [
        "Frames of instance-3 from 2026-11-22 21:40:15.250 to 2026-11-22 21:41:15.000 UTC (59.750 s).",
        "Older frames had to go",
        "Not captured from 2026-11-22 21:40:20.000 to 2026-11-22 21:40:21.000",
        "2 of 10 frames since this port is captured were not seen",
        "Passwords of DirectPlay sessions are zero",
    ] {
        assert!(text.contains(want), "{want} is not in {text}");
    }
}

#[test]
fn only_whole_blocks_are_counted() {
    let file = whole(
        &Snapshot { frames: vec![frame(Duration::ZERO, Direction::Inbound, &[7; 61])], ..Snapshot::default() },
        &[],
    );
    let ends: Vec<_> = (0..=file.len()).map(|len| whole_blocks(&file[..len]).unwrap()).collect();
    assert!(ends.windows(2).all(|pair| pair[0] <= pair[1]));
    assert!(ends.iter().enumerate().all(|(len, end)| *end <= len));
    let mut distinct = ends.clone();
    distinct.dedup();
    assert_eq!((distinct.len(), ends.last()), (5, Some(&file.len())), "nothing, and after each of four blocks");
    assert_eq!(whole_blocks(b"not found at all"), None);
}

proptest! {
    #[test]
    fn what_is_written_is_read(frames in vec((0..u64::MAX / 2, any::<bool>(), 0..100_u32, vec(any::<u8>(), 0..200)), 0..20)) {
        let frames: Vec<_> = frames
            .into_iter()
            .map(|(at, out, more, bytes)| Frame {
                at: Duration::from_nanos(at),
                direction: if out { Direction::Outbound } else { Direction::Inbound },
                wire_len: u32::try_from(bytes.len()).unwrap() + more,
                is_masked: out,
                bytes: Arc::from(bytes),
            })
            .collect();
        let file = whole(&Snapshot { frames: frames.clone(), ..Snapshot::default() }, &[3]);
        let records: Vec<_> = Reader::new(&file[..]).unwrap().collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(records.len(), frames.len());
        for (record, frame) in records.iter().zip(&frames) {
            prop_assert_eq!((record.at, record.wire_len, record.link_type), (frame.at, frame.wire_len, LinkType::ETHERNET));
            prop_assert_eq!(&record.bytes[..], &frame.bytes[..]);
        }
    }
}
