//! What a guest may send into its LAN. One guard per seat port.
//!
//! The rules are `wire::guard`'s, the same as at the taps of the kernel; the token bucket is here.
//!
//! **Invariant.** What is refused is counted by its reason; nothing is dropped silently.
use std::time::Duration;

use model::MacAddr;
pub use model::{Rate, Rules};
pub use wire::guard::Refusal;
use wire::guard::{is_group, length, server, source};

/// Judges the frames of one seat.
#[derive(Debug, Clone)]
pub struct Guard {
    card: MacAddr,
    rules: Rules,
    /// Tokens, in billionths, so that time needs no rounding.
    tokens: u64,
    filled: Duration,
    refused: [u64; Refusal::ALL.len()],
}

const BILLION: u64 = 1_000_000_000;

impl Guard {
    /// `now` is any monotonic time.
    pub fn new(card: MacAddr, rules: Rules, now: Duration) -> Self {
        let tokens = rules.broadcasts.map_or(0, |rate| u64::from(rate.burst) * BILLION);
        Self { card, rules, tokens, filled: now, refused: [0; Refusal::ALL.len()] }
    }

    /// From now on the frames must be from `card`; what was counted stays.
    pub const fn own(&mut self, card: MacAddr) {
        self.card = card;
        self.rules.own_source = true;
    }

    /// Whether `frame`, of the guest, goes into the LAN. Cheapest questions first.
    pub fn judge(&mut self, now: Duration, frame: &[u8]) -> Result<(), Refusal> {
        self.look(now, frame).inspect_err(|refusal| {
            let count = &mut self.refused[*refusal as usize];
            *count = count.wrapping_add(1);
        })
    }

    /// Frames that were refused since the port was made, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.into_iter().zip(self.refused)
    }

    fn look(&mut self, now: Duration, frame: &[u8]) -> Result<(), Refusal> {
        length(frame)?;
        if self.rules.own_source {
            source(frame, self.card.0)?;
        }
        if self.rules.no_servers {
            server(frame)?;
        }
        if is_group(frame) {
            self.take(now)?;
        }
        Ok(())
    }

    fn take(&mut self, now: Duration) -> Result<(), Refusal> {
        let Some(rate) = self.rules.broadcasts else { return Ok(()) };
        let elapsed = now.saturating_sub(self.filled);
        self.filled = self.filled.max(now);
        // A token every 1/rate s: in billionths that is elapsed nanoseconds times rate.
        let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let more = nanoseconds.saturating_mul(rate.per_second.into());
        self.tokens = self.tokens.saturating_add(more).min(u64::from(rate.burst) * BILLION);
        self.tokens = self.tokens.checked_sub(BILLION).ok_or(Refusal::Storm)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::FRAME_LEN_MAX;

    const CARD: MacAddr = MacAddr([2, 0x4c, 0, 0x10, 0x68, 1]);
    const NOW: Duration = Duration::from_secs(7);

    fn guard() -> Guard {
        Guard::new(CARD, Rules::default(), NOW)
    }

    fn frame(to: [u8; 6], from: MacAddr, rest: &[u8]) -> Vec<u8> {
        [&to[..], &from.0, rest].concat()
    }

    fn udp(source: u16, destination: u16) -> Vec<u8> {
        let mut packet =
            vec![0x08, 0x00, 0x45, 0, 0, 28 + 8, 0, 0, 0, 0, 64, 17, 0, 0, 10, 98, 0, 1, 255, 255, 255, 255];
        packet.extend(source.to_be_bytes());
        packet.extend(destination.to_be_bytes());
        packet.extend([0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        packet
    }

    #[track_caller]
    fn check(frame: &[u8], want: Result<(), Refusal>) {
        let mut guard = guard();
        assert_eq!(guard.judge(NOW, frame), want);
        for (refusal, count) in guard.refused() {
            assert_eq!(count, u64::from(want == Err(refusal)), "{}", refusal.name());
        }
    }

    #[test]
    fn lengths_are_those_of_ethernet() {
        check(&[0; 13], Err(Refusal::Runt));
        check(&frame([2; 6], CARD, &[0; 2]), Ok(()));
        check(&frame([2; 6], CARD, &[0; FRAME_LEN_MAX - 12]), Ok(()));
        check(&frame([2; 6], CARD, &[0; FRAME_LEN_MAX - 11]), Err(Refusal::TooLong));
    }

    #[test]
    fn only_the_seats_own_card_may_speak() {
        check(&frame([0xff; 6], MacAddr([2; 6]), &[0x08, 0x06]), Err(Refusal::ForeignSource));
        let mut free = Guard::new(CARD, Rules { own_source: false, ..Rules::default() }, NOW);
        assert_eq!(free.judge(NOW, &frame([0xff; 6], MacAddr([2; 6]), &[0x08, 0x06])), Ok(()));
    }

    #[test]
    fn guests_ask_for_addresses_and_do_not_give_them() {
        check(&frame([0xff; 6], CARD, &udp(68, 67)), Ok(()));
        check(&frame([0xff; 6], CARD, &udp(67, 68)), Err(Refusal::DhcpServer));
        let mut snap = vec![0, 44, 0xaa, 0xaa, 3, 0, 0, 0];
        snap.extend(udp(67, 68));
        check(&frame([0xff; 6], CARD, &snap), Err(Refusal::DhcpServer));
        let mut advertisement = vec![0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, 58, 255];
        advertisement.extend([0; 32]);
        advertisement.extend([134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        check(&frame([0x33, 0x33, 0, 0, 0, 1], CARD, &advertisement), Err(Refusal::RouterAdvertisement));
        let solicitation = {
            let mut other = advertisement;
            other[42] = 133;
            other
        };
        check(&frame([0x33, 0x33, 0, 0, 0, 2], CARD, &solicitation), Ok(()));
    }

    #[test]
    fn a_storm_is_cut_and_leaves_unicast_alone() {
        let mut guard = guard();
        let (all, one) = (frame([0xff; 6], CARD, &[0x08, 0x06]), frame([2; 6], CARD, &[0x08, 0x06]));
        let passed = |guard: &mut Guard, now| (0..10_000).filter(|_| guard.judge(now, &all).is_ok()).count();
        assert_eq!(passed(&mut guard, NOW), 4_000);
        assert_eq!(guard.judge(NOW, &one), Ok(()));
        assert_eq!(passed(&mut guard, NOW + Duration::from_millis(500)), 1_000);
        assert_eq!(passed(&mut guard, NOW), 0, "time that goes back gives nothing");
        assert_eq!(passed(&mut guard, NOW + Duration::from_hours(1)), 4_000);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..1600), at in any::<u64>()) {
            let mut guard = Guard::new(CARD, Rules { own_source: false, ..Rules::default() }, NOW);
            let judged = guard.judge(Duration::from_nanos(at), &bytes);
            prop_assert_eq!(guard.refused().map(|(_, count)| count).sum::<u64>(), u64::from(judged.is_err()));
        }
    }
}
