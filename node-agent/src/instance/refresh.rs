//! When to make QEMU look at its guest's screen. Pure; the caller pokes.
//!
//! QEMU 10 looks every 30 ms by itself (`GUI_REFRESH_INTERVAL_DEFAULT`), which is the largest part of the way from a key
//! to a pixel. A poke makes it look now. It costs a round trip (`loco_poke_seconds`: 1.2 ms on a busy machine), so it is
//! spent only where a person can see the gain: after an input, and while somebody watches in full quality and the picture
//! moves.
//!
//! **Invariants.** An instance that nobody watches is never poked. At most one poke is under way: [`Plan::sent`] must be
//! followed by [`Plan::done`] before another is due, so a slow QEMU is asked less often, never in a heap.
use std::time::Duration;

use tokio::time::Instant;

/// After an input. Measured on the demo guest under TCG, key confirmed to damage seen, p50 of 100 keys on a busy machine:
/// looks at 1, 4, 12 ms 3.2 ms; at 0, 2, 5, 12 ms 2.1 ms; with QEMU's own looks alone 23 ms (docs/chain.md).
const AFTER_INPUT: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(2), Duration::from_millis(5), Duration::from_millis(12)];
/// One picture of a 60 Hz screen.
const STEADY: Duration = Duration::from_nanos(16_666_667);
/// A picture that has not changed for this long is still; QEMU's own look finds the next change.
const STILL_AFTER: Duration = Duration::from_millis(100);

/// What is known, and what follows: when the next poke is due.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Somebody watches, in whatever tier.
    watched: bool,
    /// Somebody watches in full quality.
    watched_in_full: bool,
    last_input: Option<Instant>,
    /// How many of `AFTER_INPUT` are spent for the last input.
    spent: usize,
    last_damage: Option<Instant>,
    last_poke: Option<Instant>,
    under_way: bool,
}

impl Plan {
    /// Who watches now.
    pub(crate) fn watched(&mut self, any: bool, in_full: bool) {
        self.watched = any || in_full;
        self.watched_in_full = in_full;
    }

    /// An input was given to the guest at `now`. It takes the place of an earlier one that still waits for its pokes.
    pub(crate) fn input(&mut self, now: Instant) {
        self.last_input = Some(now);
        self.spent = 0;
    }

    /// The guest changed its picture, as seen at `now`.
    pub(crate) fn damage(&mut self, now: Instant) {
        self.last_damage = Some(now);
    }

    /// When to poke next; `None`: not before something happens.
    pub(crate) fn due(&self) -> Option<Instant> {
        if !self.watched || self.under_way {
            return None;
        }
        [self.due_after_input(), self.due_steady()].into_iter().flatten().min()
    }

    /// A poke was sent at `now`. It serves every reason that was due by then.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.under_way = true;
        self.last_poke = Some(now);
        if let Some(input) = self.last_input {
            while AFTER_INPUT.get(self.spent).is_some_and(|offset| input + *offset <= now) {
                self.spent += 1;
            }
        }
    }

    /// The poke that was sent has been answered.
    pub(crate) fn done(&mut self) {
        self.under_way = false;
    }

    fn due_after_input(&self) -> Option<Instant> {
        Some(self.last_input? + *AFTER_INPUT.get(self.spent)?)
    }

    fn due_steady(&self) -> Option<Instant> {
        let damage = self.last_damage.filter(|_| self.watched_in_full)?;
        let due = self.last_poke.map_or(damage, |poke| (poke + STEADY).max(damage));
        (due < damage + STILL_AFTER).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Pokes until nothing is due before `end`; each is answered at once. Offsets from `start` in milliseconds.
    fn run(plan: &mut Plan, start: Instant, end: Duration) -> Vec<u128> {
        let mut at = Vec::new();
        while let Some(due) = plan.due().filter(|due| *due <= start + end) {
            at.push((due - start).as_millis());
            plan.sent(due);
            plan.done();
        }
        at
    }

    #[test]
    fn an_input_is_followed_by_four_looks_and_no_more() {
        let (mut plan, start) = (Plan::default(), Instant::now());
        plan.watched(true, false);
        plan.input(start);
        assert_eq!(run(&mut plan, start, ms(1000)), [0, 2, 5, 12]);
        plan.input(start + ms(1000));
        plan.input(start + ms(1002));
        assert_eq!(run(&mut plan, start, ms(2000)), [1002, 1004, 1007, 1014], "the later input takes over");
    }

    #[test]
    fn nobody_watching_means_no_poke() {
        let (mut plan, start) = (Plan::default(), Instant::now());
        plan.input(start);
        plan.damage(start);
        assert_eq!(plan.due(), None);
        plan.watched(true, false);
        assert_eq!(plan.due(), Some(start), "a thumbnail's viewer may be the one who typed");
    }

    #[test]
    fn a_moving_picture_is_looked_at_sixty_times_a_second_until_it_is_still() {
        let (mut plan, start) = (Plan::default(), Instant::now());
        plan.watched(false, true);
        plan.damage(start);
        assert_eq!(run(&mut plan, start, ms(1000)), [0, 16, 33, 50, 66, 83]);
        plan.damage(start + ms(500));
        assert_eq!(plan.due(), Some(start + ms(500)));
        plan.watched(true, false);
        assert_eq!(plan.due(), None, "thumbnails take what QEMU finds by itself");
    }

    #[test]
    fn one_poke_at_a_time_and_a_late_one_serves_all_that_was_due() {
        let (mut plan, start) = (Plan::default(), Instant::now());
        plan.watched(true, true);
        plan.input(start);
        plan.sent(start + ms(1));
        assert_eq!(plan.due(), None);
        plan.done();
        plan.sent(start + ms(20));
        plan.done();
        assert_eq!(plan.due(), None);
    }

    proptest! {
        /// However inputs and damage fall, pokes stay bounded: 4 per input and 60 a second.
        #[test]
        fn pokes_are_bounded(events in proptest::collection::vec((0u64..2000, any::<bool>()), 0..200)) {
            let (mut plan, start) = (Plan::default(), Instant::now());
            plan.watched(true, true);
            let mut events = events;
            events.sort_unstable();
            let (mut pokes, mut inputs) = (0, 0);
            for (at, is_input) in &events {
                pokes += run(&mut plan, start, ms(*at)).len();
                if *is_input { plan.input(start + ms(*at)); inputs += 1; } else { plan.damage(start + ms(*at)); }
            }
            pokes += run(&mut plan, start, ms(4000)).len();
            prop_assert!(pokes <= 4 * inputs + 2200 / 16 + 1, "{} pokes for {} inputs", pokes, inputs);
        }
    }
}
