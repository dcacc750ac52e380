//! What came: every numbered frame once, what lacks, what doubled. Pure.
//!
//! **Invariants.** A number is counted as a frame once, in any order of arrival, and as doubled from then on. Memory is
//! bounded: numbers from [`NUMBERS_MAX`] on are others' frames.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use k8s_tests::peer::{Epoch, Kind, Received};
use testkit::Numbered;

/// Numbers that are remembered for one kind of one sender: hours at 100 a second, half a megabyte.
const NUMBERS_MAX: u32 = 1 << 22;
/// Tags from here on are words of the exchange, not frames that are counted; epoch 15 leaves them alone.
const STAGES: u8 = 0xfb;

/// How far a seat is in an exchange; see [`crate::exchange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Here,
    HearsAll,
    SentAll,
    Judged,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Here, Self::HearsAll, Self::SentAll, Self::Judged];

    pub(crate) const fn tag(self) -> u8 {
        STAGES + self as u8
    }

    fn of(tag: u8) -> Option<Self> {
        Self::ALL.get(usize::from(tag.checked_sub(STAGES)?)).copied()
    }
}

#[derive(Debug, Default)]
struct Track {
    /// One bit for each number.
    seen: Vec<u64>,
    frames: u32,
    doubled: u32,
    last: u32,
    last_at: Option<Instant>,
    longest_gap: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    epoch: Epoch,
    tracks: BTreeMap<(Kind, u8), Track>,
    stages: BTreeMap<u8, Stage>,
    pub(crate) others: u64,
    pub(crate) strays: u64,
}

impl Ledger {
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self { epoch, ..Self::default() }
    }

    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Counts a frame that came to the card `mine` at `now`.
    pub(crate) fn count(&mut self, frame: &[u8], mine: [u8; 6], now: Instant) {
        let Some(number) = Numbered::find(frame) else {
            self.others += 1;
            return;
        };
        if let Some(stage) = Stage::of(number.kind) {
            let known = self.stages.entry(number.sender).or_insert(stage);
            *known = stage.max(*known);
            return;
        }
        let Some(kind) = self.epoch.kind(number.kind).filter(|_| number.sequence < NUMBERS_MAX) else {
            self.others += 1;
            return;
        };
        // A switch that has forgotten an address brings everybody everything; a card would not take it.
        if frame[0] & 1 == 0 && frame[..6] != mine {
            self.strays += 1;
            return;
        }
        self.tracks.entry((kind, number.sender)).or_default().count(number.sequence, now);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        let row = |(&(kind, sender), track): (&(Kind, u8), &Track)| Received {
            kind,
            sender,
            frames: track.frames,
            doubled: track.doubled,
            last: track.last,
            longest_gap_ms: u64::try_from(track.longest_gap.as_millis()).unwrap_or(u64::MAX),
        };
        self.tracks.iter().map(row).collect()
    }

    /// The furthest stage that a seat has said.
    pub(crate) fn stage(&self, seat: u8) -> Option<Stage> {
        self.stages.get(&seat).copied()
    }
}

impl Track {
    fn count(&mut self, sequence: u32, now: Instant) {
        let (word, bit) = ((sequence / 64) as usize, 1_u64 << (sequence % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.doubled += 1;
            return;
        }
        self.seen[word] |= bit;
        self.frames += 1;
        self.last = self.last.max(sequence);
        if let Some(before) = self.last_at {
            self.longest_gap = self.longest_gap.max(now.saturating_duration_since(before));
        }
        self.last_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use testkit::Frame;

    use super::*;

    const MINE: [u8; 6] = [2, 0x4c, 0, 0, 1, 1];

    fn frame(to: [u8; 6], tag: u8, sequence: u32) -> Vec<u8> {
        Frame::ethernet(to, [2; 6], Numbered { kind: tag, sender: 4, sequence }, 46)
    }

    #[test]
    fn others_strays_and_other_epochs_are_not_counted() {
        let mut ledger = Ledger::new(Epoch::new(2));
        let (now, tag) = (Instant::now(), Epoch::new(2).tag(Kind::Unicast));
        ledger.count(&frame(MINE, tag, 0), MINE, now);
        ledger.count(&frame([2, 9, 9, 9, 9, 9], tag, 1), MINE, now);
        ledger.count(&frame(MINE, Epoch::new(1).tag(Kind::Unicast), 2), MINE, now);
        ledger.count(&frame(MINE, tag, NUMBERS_MAX), MINE, now);
        ledger.count(&[0; 60], MINE, now);
        ledger.count(&[], MINE, now);
        let received = ledger.received();
        assert_eq!((received.len(), received[0].frames, received[0].sender), (1, 1, 4));
        assert_eq!((ledger.strays, ledger.others), (1, 4));
    }

    #[test]
    fn the_longest_gap_is_between_two_that_came() {
        let mut ledger = Ledger::new(Epoch::default());
        let (start, tag) = (Instant::now(), Epoch::default().tag(Kind::Broadcast));
        for (sequence, at) in [(0, 0), (1, 10), (2, 310), (3, 320)] {
            ledger.count(&frame([0xff; 6], tag, sequence), MINE, start + Duration::from_millis(at));
        }
        assert_eq!(ledger.received()[0].longest_gap_ms, 300);
    }

    #[test]
    fn stages_only_go_on() {
        let mut ledger = Ledger::new(Epoch::new(15));
        for stage in [Stage::HearsAll, Stage::Here, Stage::Judged, Stage::SentAll] {
            ledger.count(&frame([0xff; 6], stage.tag(), 0), MINE, Instant::now());
        }
        assert_eq!((ledger.stage(4), ledger.stage(5)), (Some(Stage::Judged), None));
        assert!(ledger.received().is_empty());
        // No kind shares a tag with a stage, in any epoch.
        for epoch in (0..16).map(Epoch::new) {
            assert!(Kind::ALL.iter().all(|kind| Stage::of(epoch.tag(*kind)).is_none()));
        }
    }

    proptest! {
        #[test]
        fn each_number_counts_once_in_any_order(numbers in prop::collection::vec(0_u32..300, 0..600)) {
            let mut ledger = Ledger::new(Epoch::new(1));
            let tag = Epoch::new(1).tag(Kind::IpxRaw);
            for number in &numbers {
                ledger.count(&frame([0xff; 6], tag, *number), MINE, Instant::now());
            }
            let different: std::collections::BTreeSet<_> = numbers.iter().collect();
            let (frames, doubled) = ledger.received().first().map_or((0, 0), |row| (row.frames, row.doubled));
            prop_assert_eq!(frames as usize, different.len());
            prop_assert_eq!((frames + doubled) as usize, numbers.len());
        }
    }
}
