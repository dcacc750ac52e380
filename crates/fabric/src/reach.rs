//! Books of questions and answers, one page per guest of a LAN. Pure: time is an argument.
//!
//! ```text
//!  ask(now) ── outstanding ── answer(now) in time ──> rtt, answered + 1
//!                   └─ next ask(now): missed + 1; after 3 in a row the guest is not reachable
//! ```
use std::time::{Duration, Instant, SystemTime};

/// Questions in a row without an answer after which a guest is called unreachable.
const MISSES_MAX: u32 = 3;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) rtt: Option<Duration>,
    pub(crate) last_seen: Option<SystemTime>,
    outstanding: Option<Instant>,
    missed: u32,
}

impl Page {
    /// A question goes out now; one that is still open counts as missed.
    pub(crate) fn ask(&mut self, now: Instant) {
        if self.outstanding.replace(now).is_some() {
            self.missed = self.missed.saturating_add(1);
        }
        self.asked += 1;
    }

    /// An answer came. Without an open question it counts for nothing: it is late, doubled or made up.
    pub(crate) fn answer(&mut self, now: Instant, wall_clock: SystemTime) {
        let Some(asked_at) = self.outstanding.take() else { return };
        self.rtt = Some(now.saturating_duration_since(asked_at));
        self.last_seen = Some(wall_clock);
        self.answered += 1;
        self.missed = 0;
    }

    pub(crate) fn reachable(&self) -> bool {
        self.answered > 0 && self.missed < MISSES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_gives_the_round_trip_time_once() {
        let (mut page, start) = (Page::default(), Instant::now());
        page.ask(start);
        assert!(!page.reachable());
        let later = start + Duration::from_millis(3);
        page.answer(later, SystemTime::UNIX_EPOCH);
        page.answer(later, SystemTime::UNIX_EPOCH);
        assert_eq!((page.asked, page.answered, page.rtt), (1, 1, Some(Duration::from_millis(3))));
        assert!(page.reachable());
    }

    #[test]
    fn three_misses_in_a_row_make_it_unreachable_and_one_answer_reachable_again() {
        let (mut page, now) = (Page::default(), Instant::now());
        page.ask(now);
        page.answer(now, SystemTime::UNIX_EPOCH);
        for misses in 0..3 {
            assert!(page.reachable(), "after {misses}");
            page.ask(now);
        }
        page.ask(now);
        assert!(!page.reachable());
        page.answer(now, SystemTime::UNIX_EPOCH);
        assert!(page.reachable());
        assert_eq!((page.asked, page.answered), (5, 2));
    }
}
