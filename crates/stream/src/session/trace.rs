//! From an input's number to the frame that shows its effect: pure bookkeeping.
use std::{
    collections::VecDeque,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{encoder::EncodedFrame, input::message::TraceReport};

/// Inputs that wait for their frame; the oldest is forgotten when more come.
const PENDING_MAX: usize = 256;
/// A picture may be faster than QMP's confirmation by this much, no more.
const CONFIRM_WITHIN: Duration = Duration::from_millis(50);
/// An input that changed nothing on the screen must not be blamed for a much later change.
const EFFECT_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Tracer {
    on: bool,
    pending: VecDeque<Pending>,
}

#[derive(Debug)]
struct Pending {
    n: u64,
    received: SystemTime,
    injected: Option<SystemTime>,
}

impl Tracer {
    pub(super) fn switch(&mut self, on: bool) {
        self.on = on;
        self.pending.clear();
    }

    pub(super) const fn is_on(&self) -> bool {
        self.on
    }

    pub(super) fn received(&mut self, n: u64, received: SystemTime) {
        if !self.on {
            return;
        }
        if self.pending.len() == PENDING_MAX {
            self.pending.pop_front();
        }
        self.pending.push_back(Pending { n, received, injected: None });
    }

    pub(super) fn injected(&mut self, n: u64, at: SystemTime) {
        if let Some(pending) = self.pending.iter_mut().rfind(|p| p.n == n) {
            pending.injected = Some(at);
        }
    }

    /// A frame has been packetised: the reports of all inputs whose effect it is the first to show.
    pub(super) fn sent(&mut self, frame: &EncodedFrame, rtp: u32, at: SystemTime) -> Vec<TraceReport> {
        let mut reports = Vec::new();
        self.pending.retain(|p| {
            let waited = |limit| at.duration_since(p.received).is_ok_and(|t| t > limit);
            let since = match p.injected {
                Some(injected) => injected,
                None if waited(CONFIRM_WITHIN) => p.received,
                None => return true,
            };
            let Some(damage) = frame.damage.iter().find(|d| **d >= since) else { return !waited(EFFECT_WITHIN) };
            reports.push(TraceReport {
                n: p.n,
                received: ms(p.received),
                injected: ms(since),
                damage: ms(*damage),
                encode_start: ms(frame.encode_start),
                encode_end: ms(frame.encode_end),
                sent: ms(at),
                rtp,
            });
            false
        });
        reports
    }
}

fn ms(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn at(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(ms)
    }

    fn frame(damage: &[u64]) -> EncodedFrame {
        EncodedFrame {
            payloads: vec![],
            bytes: 0,
            key: false,
            taken: Instant::now(),
            damage: damage.iter().map(|t| at(*t)).collect(),
            encode_start: at(20),
            encode_end: at(25),
        }
    }

    #[test]
    fn the_first_damage_after_the_input_ends_its_trace() {
        let mut t = Tracer::default();
        t.received(1, at(10));
        assert!(t.sent(&frame(&[12]), 0, at(26)).is_empty(), "not switched on");
        t.switch(true);
        t.received(1, at(10));
        t.received(2, at(14));
        t.injected(1, at(11));
        t.injected(2, at(15));
        assert!(t.sent(&frame(&[9]), 7, at(26)).is_empty(), "damage from before");
        let reports = t.sent(&frame(&[9, 13]), 7, at(26));
        let want = TraceReport {
            n: 1,
            received: 10.0,
            injected: 11.0,
            damage: 13.0,
            encode_start: 20.0,
            encode_end: 25.0,
            sent: 26.0,
            rtp: 7,
        };
        assert_eq!(reports, [want]);
        assert_eq!(t.sent(&frame(&[16]), 7, at(27)).len(), 1);
    }

    #[test]
    fn unconfirmed_and_ineffective_inputs_do_not_pile_up() {
        let mut t = Tracer::default();
        t.switch(true);
        t.received(1, at(10));
        assert!(t.sent(&frame(&[12]), 0, at(20)).is_empty(), "its confirmation may still come");
        assert_eq!(t.sent(&frame(&[61]), 0, at(61)).len(), 1);
        t.received(2, at(100));
        t.injected(2, at(101));
        assert!(t.sent(&frame(&[]), 0, at(2200)).is_empty());
        assert!(t.sent(&frame(&[2300]), 0, at(2300)).is_empty(), "forgotten");
        for n in 0..1000 {
            t.received(n, at(3000));
        }
        assert_eq!(t.pending.len(), PENDING_MAX);
    }
}
