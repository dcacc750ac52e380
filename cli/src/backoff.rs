//! How long to wait before a child is started again.
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
/// A child that ran this long was well; its next end is a new story.
const HEALTHY: Duration = Duration::from_secs(10);

/// Doubles from 0.2 s to 5 s while a child keeps dying young.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    young_deaths: u32,
}

impl Backoff {
    /// The child ended after it ran for `ran`: how long to wait now.
    pub(crate) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= HEALTHY {
            self.young_deaths = 0;
        }
        let delay = FIRST.saturating_mul(1_u32.checked_shl(self.young_deaths).unwrap_or(u32::MAX)).min(LONGEST);
        self.young_deaths = self.young_deaths.saturating_add(1);
        delay
    }

    /// Ends in a row before the child got well.
    pub(crate) const fn young_deaths(self) -> u32 {
        self.young_deaths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn doubles_to_the_cap_and_forgives_after_ten_seconds() {
        let mut backoff = Backoff::default();
        let delays: Vec<u128> = (0..7).map(|_| backoff.after(Duration::from_secs(1)).as_millis()).collect();
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.young_deaths(), 7);
        assert_eq!(backoff.after(HEALTHY), FIRST);
        assert_eq!(backoff.young_deaths(), 1);
    }

    proptest! {
        #[test]
        fn never_spins_and_never_waits_longer_than_the_cap(ran in proptest::collection::vec(0_u64..30_000, 0..100)) {
            let mut backoff = Backoff::default();
            for ms in ran {
                let delay = backoff.after(Duration::from_millis(ms));
                prop_assert!((FIRST..=LONGEST).contains(&delay));
            }
        }
    }
}
