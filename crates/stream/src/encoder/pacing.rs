//! When to encode: pure, with the time passed in.
//!
//! ```text
//!  damage ----> cap of the tier reached? --no--> settle 0.5 ms (large: 2 ms) --> encode
//!                 | yes: at the end of the interval -------------------------------^  ^  ^
//!  quiet for 150 ms after a frame that had to save bits: repeat, at most twice -------+  |
//!  quiet for 2 s: repeat, so that the browser does not ask for a key frame ---------------+
//!  key frame wanted: encode at once, but not two key frames within 200 ms
//! ```
//! Repeats do not count towards the cap: the next key press must not wait for them.
use std::time::{Duration, Instant};

use crate::Tier;

/// One refresh of QEMU comes as several updates. A picture taken after the first would be encoded twice, and the rest of
/// it would wait for the cap: 48 instead of 33 frames a second, and 3 ms more for a key press, measured.
const SETTLE: Duration = Duration::from_micros(500);
const SETTLE_LARGE: Duration = Duration::from_millis(2);
/// A part of the rows above which a change counts as large.
const LARGE: usize = 4;
const REPEAT_AFTER: Duration = Duration::from_millis(150);
const REPEATS: u8 = 2;
/// Chromium sends a PLI when no frame came for about 3 s, and a key frame costs more than a repeat.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// However many viewers ask, one key frame serves them all.
const KEY_INTERVAL: Duration = Duration::from_millis(200);

/// Shortest time between two frames that show something new.
pub(super) const fn min_interval(tier: Tier) -> Duration {
    match tier {
        Tier::Thumb => Duration::from_millis(100),
        Tier::Full => Duration::from_micros(16_667),
    }
}

/// What the encoder finds when it looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    pub(super) damaged_rows: usize,
    pub(super) rows: usize,
    pub(super) key_wanted: bool,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Sleep until then (damage may wake earlier) and look again.
    Wait(Instant),
    /// Sleep until then, whatever happens, and encode.
    EncodeAt(Instant),
    Encode {
        key: bool,
    },
}

#[derive(Debug)]
pub(super) struct Pacer {
    interval: Duration,
    last_new: Option<Instant>,
    last_any: Option<Instant>,
    last_key: Option<Instant>,
    repeats: u8,
}

impl Pacer {
    pub(super) const fn new(tier: Tier) -> Self {
        Self { interval: min_interval(tier), last_new: None, last_any: None, last_key: None, repeats: 0 }
    }

    pub(super) fn look(&self, sight: Sight, now: Instant) -> Action {
        let Some(last_any) = self.last_any else { return Action::Encode { key: true } };
        let key_due = self.last_key.map_or(now, |t| t + KEY_INTERVAL);
        if sight.key_wanted && key_due <= now {
            return Action::Encode { key: true };
        }
        if sight.damaged_rows > 0 {
            let due = self.last_new.map_or(now, |t| t + self.interval);
            if due > now {
                return Action::EncodeAt(due);
            }
            let large = sight.damaged_rows * LARGE >= sight.rows;
            return Action::EncodeAt(now + if large { SETTLE_LARGE } else { SETTLE });
        }
        let quiet = if self.repeats > 0 { REPEAT_AFTER } else { KEEP_ALIVE };
        let mut due = last_any + quiet;
        if due <= now {
            return Action::Encode { key: false };
        }
        if sight.key_wanted {
            due = due.min(key_due);
        }
        Action::Wait(due)
    }

    /// A frame was encoded. `starved`: it took about all the bits it could have, so what it shows is coarse.
    pub(super) const fn encoded(&mut self, now: Instant, new: bool, key: bool, starved: bool) {
        self.last_any = Some(now);
        if key {
            self.last_key = Some(now);
        }
        if new {
            self.last_new = Some(now);
            self.repeats = if starved { REPEATS } else { 0 };
        } else {
            self.repeats = self.repeats.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    const QUIET: Sight = Sight { damaged_rows: 0, rows: 480, key_wanted: false };
    const SMALL: Sight = Sight { damaged_rows: 16, rows: 480, key_wanted: false };
    const LARGE: Sight = Sight { damaged_rows: 300, rows: 480, key_wanted: false };
    const KEY: Sight = Sight { damaged_rows: 0, rows: 480, key_wanted: true };

    fn started(tier: Tier) -> (Pacer, Instant) {
        let (mut pacer, t) = (Pacer::new(tier), Instant::now());
        assert_eq!(pacer.look(QUIET, t), Action::Encode { key: true }, "the first frame is a key frame");
        pacer.encoded(t, true, true, false);
        (pacer, t)
    }

    #[test]
    fn changes_settle_according_to_their_size() {
        let (pacer, t) = started(Tier::Full);
        let later = t + ms(50);
        assert_eq!(pacer.look(SMALL, later), Action::EncodeAt(later + SETTLE));
        assert_eq!(pacer.look(LARGE, later), Action::EncodeAt(later + SETTLE_LARGE));
    }

    #[test]
    fn the_cap_delays_new_pictures_only() {
        for tier in Tier::ALL {
            let (mut pacer, t) = started(tier);
            assert_eq!(pacer.look(SMALL, t + ms(1)), Action::EncodeAt(t + min_interval(tier)));
            let later = t + min_interval(tier) * 2;
            pacer.encoded(later, false, false, false);
            assert_eq!(pacer.look(SMALL, later), Action::EncodeAt(later + SETTLE), "a repeat does not count");
        }
    }

    #[test]
    fn a_static_picture_is_repeated_every_two_seconds() {
        let (mut pacer, t) = started(Tier::Full);
        assert_eq!(pacer.look(QUIET, t + ms(10)), Action::Wait(t + KEEP_ALIVE));
        assert_eq!(pacer.look(QUIET, t + KEEP_ALIVE), Action::Encode { key: false });
        pacer.encoded(t + KEEP_ALIVE, false, false, false);
        assert_eq!(pacer.look(QUIET, t + KEEP_ALIVE), Action::Wait(t + 2 * KEEP_ALIVE));
    }

    #[test]
    fn a_coarse_picture_is_repeated_twice_when_it_rests() {
        let (mut pacer, t) = started(Tier::Full);
        pacer.encoded(t + ms(20), true, false, true);
        let mut at = t + ms(20);
        for _ in 0..2 {
            assert_eq!(pacer.look(QUIET, at), Action::Wait(at + REPEAT_AFTER));
            at += REPEAT_AFTER;
            assert_eq!(pacer.look(QUIET, at), Action::Encode { key: false });
            pacer.encoded(at, false, false, true);
        }
        assert_eq!(pacer.look(QUIET, at), Action::Wait(at + KEEP_ALIVE));
    }

    #[test]
    fn key_frames_are_prompt_but_not_a_flood() {
        let (mut pacer, t) = started(Tier::Thumb);
        assert_eq!(pacer.look(KEY, t + ms(10)), Action::Wait(t + KEY_INTERVAL));
        assert_eq!(pacer.look(KEY, t + KEY_INTERVAL), Action::Encode { key: true });
        pacer.encoded(t + KEY_INTERVAL, false, true, false);
        assert_eq!(pacer.look(QUIET, t + KEY_INTERVAL), Action::Wait(t + KEY_INTERVAL + KEEP_ALIVE));
    }
}
