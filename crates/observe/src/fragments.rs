//! Pieces put together: IPv4 fragments (RFC 791 3.2), and DirectPlay's PACKET and PACKET2 messages.
//!
//! **Invariants.** At most `count` wholes wait, holding at most `bytes` together; the oldest goes first. A whole comes out
//! once, when every byte of it is there. Bytes that came first stay: a later piece that overlaps adds only what is new.
use std::{collections::BTreeMap, hash::Hash, time::Duration};

use crate::table::Table;

/// What a part costs beside its bytes.
pub(crate) const PART: usize = 64;

#[derive(Debug, Clone)]
pub(crate) struct Pieces<K> {
    waiting: Table<K, Waiting>,
    held: usize,
    held_max: usize,
    age_max: Duration,
}

#[derive(Debug, Clone)]
struct Waiting {
    since: Duration,
    parts: BTreeMap<usize, Vec<u8>>,
    /// Bytes of the parts, and what they cost with their places in the map.
    bytes: usize,
    held: usize,
    total: Option<usize>,
}

impl<K: Copy + Eq + Hash> Pieces<K> {
    pub(crate) fn new(count: usize, held_max: usize, age_max: Duration) -> Self {
        Self { waiting: Table::new(count), held: 0, held_max, age_max }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) const fn held(&self) -> usize {
        self.held
    }

    /// Takes a piece; `total` is the length of the whole, where this piece tells it. The whole, when it is complete.
    pub(crate) fn add(
        &mut self,
        key: K,
        at: usize,
        bytes: &[u8],
        total: Option<usize>,
        now: Duration,
    ) -> Option<Vec<u8>> {
        if self.waiting.get(&key).is_some_and(|whole| now.saturating_sub(whole.since) > self.age_max) {
            self.forget(&key);
        }
        let cost = bytes.len() + PART;
        while self.held.saturating_add(cost) > self.held_max
            || !self.waiting.contains(&key) && self.waiting.len() > 0 && self.waiting.len() >= self.waiting.limit()
        {
            let oldest = *self.waiting.by_use().next()?;
            self.forget(&oldest);
        }
        let make = || Waiting { since: now, parts: BTreeMap::new(), bytes: 0, held: 0, total: None };
        let whole = self.waiting.entry(key, make);
        whole.total = whole.total.or(total);
        if !bytes.is_empty() && !whole.parts.contains_key(&at) {
            whole.parts.insert(at, bytes.to_vec());
            whole.bytes += bytes.len();
            whole.held += cost;
            self.held += cost;
        }
        let total = whole.total?;
        // Enough bytes are there, or not: the walk is worth it only then.
        if whole.bytes < total {
            return None;
        }
        let mut built: Vec<u8> = Vec::with_capacity(total.min(whole.bytes));
        for (start, part) in &whole.parts {
            let known = built.len().checked_sub(*start)?;
            built.extend_from_slice(part.get(known..).unwrap_or(&[]));
        }
        if built.len() < total {
            return None;
        }
        built.truncate(total);
        self.forget(&key);
        Some(built)
    }

    fn forget(&mut self, key: &K) {
        if let Some(whole) = self.waiting.remove(key) {
            self.held = self.held.saturating_sub(whole.held);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::Pieces;

    const AGE: Duration = Duration::from_secs(30);

    proptest! {
        #[test]
        fn pieces_make_the_whole_in_any_order(len in 1_usize..4000, size in 1_usize..700, seed in any::<u64>()) {
            let whole: Vec<u8> = (0_u32..u32::try_from(len).unwrap()).map(|n| n.to_le_bytes()[0]).collect();
            let mut pieces: Vec<_> = whole.chunks(size).enumerate().map(|(n, chunk)| (n * size, chunk)).collect();
            pieces.sort_by_key(|(at, _)| (*at as u64).wrapping_mul(seed | 1));
            let mut waiting = Pieces::new(4, 1 << 20, AGE);
            let mut made = Vec::new();
            for (at, chunk) in pieces {
                let total = (at + chunk.len() == len).then_some(len);
                made.extend(waiting.add((), at, chunk, total, Duration::ZERO));
            }
            prop_assert_eq!(made, [whole]);
            prop_assert_eq!((waiting.len(), waiting.held()), (0, 0));
        }

        #[test]
        fn hostile_pieces_hold_no_more_than_allowed(
            pieces in proptest::collection::vec((0_u8..20, 0_usize..70_000, 0_usize..900, any::<bool>()), 0..200),
        ) {
            let mut waiting = Pieces::new(6, 3000, AGE);
            for (key, at, len, last) in pieces {
                waiting.add(key, at, &vec![1; len], last.then_some(at + len), Duration::ZERO);
                prop_assert!(waiting.len() <= 6 && waiting.held() <= 3000);
            }
        }
    }

    #[test]
    fn what_waits_for_too_long_begins_anew() {
        let mut waiting = Pieces::new(4, 1 << 16, AGE);
        assert_eq!(waiting.add((), 0, b"old", None, Duration::ZERO), None);
        let later = AGE * 2;
        assert_eq!(waiting.add((), 3, b"new", Some(6), later), None);
        assert_eq!(waiting.add((), 0, b"its", None, later).as_deref(), Some(b"itsnew".as_slice()));
    }
}
