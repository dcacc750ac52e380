//! What keeps floods and loops small: a bucket of tokens, and a count of packets that are the same.
use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use wire::ipx::Packet;

use crate::Rate;

/// A token bucket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    rate: Rate,
    /// In thousandths of a token.
    left: u64,
    filled: Instant,
}

impl Bucket {
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, left: u64::from(rate.burst) * 1000, filled: now }
    }

    /// Takes `cost` tokens, or none.
    pub(crate) fn take(&mut self, cost: u32, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled);
        let gained = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).saturating_mul(self.rate.per_second.into());
        if gained > 0 {
            self.left = self.left.saturating_add(gained).min(u64::from(self.rate.burst) * 1000);
            // Only whole milliseconds were paid; the rest of the time counts at the next look.
            self.filled += Duration::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        }
        let cost = u64::from(cost) * 1000;
        let enough = self.left >= cost;
        if enough {
            self.left -= cost;
        }
        enough
    }
}

/// The same packet more often than this in a second goes in a circle: some games repeat themselves with each tick (70 a
/// second at most), a loop does it as fast as the path allows.
const SAME_PER_SECOND_MAX: u16 = 200;
/// Packets that are counted at a time.
const SLOTS: usize = 256;

/// Finds packets that go in a circle through a bridge between tunnel and LAN that is not ours and changes nothing in them.
#[derive(Debug)]
pub(crate) struct LoopGuard {
    keys: RandomState,
    slots: [(u64, u16); SLOTS],
    since: Instant,
}

impl LoopGuard {
    pub(crate) fn new(now: Instant) -> Self {
        Self { keys: RandomState::new(), slots: [(0, 0); SLOTS], since: now }
    }

    /// Whether this packet has passed too often in this second. Hops and checksum do not count: bridges may change them.
    pub(crate) fn circles(&mut self, packet: &Packet<'_>, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            self.slots = [(0, 0); SLOTS];
            self.since = now;
        }
        let hash = self.keys.hash_one((packet.packet_type, packet.destination, packet.source, packet.payload));
        let index = usize::try_from(hash % SLOTS as u64).expect("below 256");
        let Some((held, count)) = self.slots.get_mut(index) else { return false };
        // Two packets in one slot: the more frequent one keeps it.
        if *held == hash {
            *count = count.saturating_add(1);
        } else if *count > 0 {
            *count -= 1;
            return false;
        } else {
            (*held, *count) = (hash, 1);
        }
        *count > SAME_PER_SECOND_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(payload: &[u8], hops: u8) -> Packet<'_> {
        let address = wire::ipx::Address::default();
        Packet { checksum: 0xffff, hops, packet_type: 4, destination: address, source: address, payload }
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate { per_second: 100, burst: 20 }, start);
        let taken = |bucket: &mut Bucket, at| (0..1000).filter(|_| bucket.take(1, at)).count();
        assert_eq!(taken(&mut bucket, start), 20);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(50)), 5);
        assert_eq!(taken(&mut bucket, start + Duration::from_hours(1)), 20);
        assert!(!bucket.take(4, start + Duration::from_hours(1) + Duration::from_millis(39)));
        assert!(bucket.take(4, start + Duration::from_hours(1) + Duration::from_millis(40)));
    }

    /// Looks at every tenth of a millisecond lose no time between them.
    #[test]
    fn a_bucket_that_is_asked_often_fills_all_the_same() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate { per_second: 100, burst: 1 }, start);
        let looks = (0..10_000_u64).filter(|n| bucket.take(1, start + Duration::from_micros(100 * n))).count();
        assert!((99..=101).contains(&looks), "{looks} in a second");
    }

    #[test]
    fn the_same_packet_two_hundred_times_a_second_is_a_circle() {
        let start = Instant::now();
        let mut guard = LoopGuard::new(start);
        for n in 0..200 {
            assert!(!guard.circles(&packet(b"round", n % 16), start), "{n}");
            assert!(!guard.circles(&packet(&[n], 0), start), "another packet");
        }
        // A few rounds may not be counted, where another packet fell into the same slot.
        assert!((0..20).any(|_| guard.circles(&packet(b"round", 3), start)));
        assert!(!guard.circles(&packet(b"round", 3), start + Duration::from_secs(1)));
    }
}
