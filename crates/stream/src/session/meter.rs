//! What the stream adds to a player's lag: the way to the browser and back, and the making of a picture.
//!
//! ```text
//! sender report ─────────────> browser        round trip = answered - sent - what the browser waited (RFC 3550 6.4.1)
//!               <───────────── receiver report, about once a second
//! the guest draws ──> the frame that shows it is handed to the network: making
//! ```
//! **Invariants.** Medians of the last [`KEPT`] values, with half the distance of their quartiles as the error, as the observer
//! does for round trips on the LAN. Nothing is told before it was measured. Memory is bounded: [`REPORTS`], [`KEPT`].
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rtc::rtcp::{receiver_report::ReceiverReport, reception_report::ReceptionReport, sender_report::SenderReport};

const KEPT: usize = 32;
/// Sender reports that wait for an answer: two tracks, one a second each; the oldest is forgotten.
const REPORTS: usize = 16;
/// Of a browser's delay, in 1/65536 s.
const TICKS_PER_S: u64 = 65_536;

/// What the stream adds to a player's lag, as far as it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLag {
    /// From the agent to the browser and back.
    pub round_trip: Duration,
    /// Half the distance of the round trips' quartiles.
    pub error: Duration,
    /// From the guest's change to its picture handed to the network; absent until something was drawn.
    pub making: Option<Duration>,
    /// Round trips that were measured since the session began.
    pub samples: u64,
}

/// Of one session. Written by its connection and its pump, read by whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    sent: VecDeque<Sent>,
    round_trips: VecDeque<Duration>,
    making: VecDeque<Duration>,
    samples: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    ssrc: u32,
    /// Middle 32 bits of the report's NTP time: what its answer names it by.
    name: u32,
    at: Instant,
}

impl Meter {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// RTCP that leaves.
    pub(super) fn leaves(&self, reports: &[Box<dyn rtc::rtcp::Packet>], at: Instant) {
        for report in reports.iter().filter_map(|report| report.as_any().downcast_ref::<SenderReport>()) {
            #[expect(clippy::cast_possible_truncation, reason = "the middle 32 bits are asked for")]
            let name = (report.ntp_time >> 16) as u32;
            let mut book = self.lock();
            keep(&mut book.sent, Sent { ssrc: report.ssrc, name, at }, REPORTS);
        }
    }

    /// RTCP that came.
    pub(super) fn comes(&self, reports: &[Box<dyn rtc::rtcp::Packet>], at: Instant) {
        for report in reports {
            let any = report.as_any();
            let blocks = any.downcast_ref::<ReceiverReport>().map(|report| &report.reports);
            let blocks = blocks.or_else(|| any.downcast_ref::<SenderReport>().map(|report| &report.reports));
            blocks.into_iter().flatten().for_each(|block| self.answered(block, at));
        }
    }

    fn answered(&self, block: &ReceptionReport, at: Instant) {
        let mut book = self.lock();
        // 0: it has had none yet.
        let names = |sent: &Sent| sent.name != 0 && (sent.ssrc, sent.name) == (block.ssrc, block.last_sender_report);
        // A browser names the last one again while none is newer; that is another round trip, not yet known to be worse.
        let Some(sent) = book.sent.iter().find(|sent| names(sent)).copied() else { return };
        let waited = Duration::from_nanos(u64::from(block.delay) * 1_000_000_000 / TICKS_PER_S);
        // A browser that says that it waited longer than the whole took has another idea of time.
        let Some(round_trip) = at.saturating_duration_since(sent.at).checked_sub(waited) else { return };
        keep(&mut book.round_trips, round_trip, KEPT);
        book.samples += 1;
    }

    /// A picture was handed to the network, so long after the guest drew it.
    pub(super) fn made(&self, took: Duration) {
        keep(&mut self.lock().making, took, KEPT);
    }

    /// `None` until a round trip was measured.
    pub(crate) fn lag(&self) -> Option<StreamLag> {
        let book = self.lock();
        let [low, round_trip, high] = quartiles(&book.round_trips)?;
        Some(StreamLag {
            round_trip,
            error: high.saturating_sub(low) / 2,
            making: quartiles(&book.making).map(|[_, median, _]| median),
            samples: book.samples,
        })
    }
}

fn keep<T>(values: &mut VecDeque<T>, value: T, most: usize) {
    if values.len() == most {
        values.pop_front();
    }
    values.push_back(value);
}

fn quartiles(values: &VecDeque<Duration>) -> Option<[Duration; 3]> {
    let mut sorted: Vec<Duration> = values.iter().copied().collect();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    Some([last / 4, last / 2, last - last / 4].map(|place| sorted[place]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sent(ssrc: u32, ntp_time: u64) -> Vec<Box<dyn rtc::rtcp::Packet>> {
        vec![Box::new(SenderReport { ssrc, ntp_time, ..SenderReport::default() })]
    }

    /// `delay`: what the browser says that it waited, in milliseconds.
    fn answer(ssrc: u32, last_sender_report: u32, delay: u32) -> Vec<Box<dyn rtc::rtcp::Packet>> {
        let delay = delay * 65_536 / 1000;
        let block = ReceptionReport { ssrc, last_sender_report, delay, ..ReceptionReport::default() };
        vec![Box::new(ReceiverReport { reports: vec![block], ..ReceiverReport::default() })]
    }

    #[test]
    fn a_round_trip_is_what_the_browser_did_not_wait() {
        let (meter, began) = (Meter::default(), Instant::now());
        meter.made(ms(9));
        assert_eq!(meter.lag(), None, "the way was not measured");
        meter.leaves(&sent(7, 0x0001_2345_6789_abcd), began);
        // Another stream, another report, and none at all.
        for (ssrc, name) in [(8, 0x2345_6789), (7, 0x2345_678a), (7, 0)] {
            meter.comes(&answer(ssrc, name, 0), began + ms(30));
        }
        assert_eq!(meter.lag(), None);
        meter.comes(&answer(7, 0x2345_6789, 500), began + ms(525));
        let lag = meter.lag().unwrap();
        assert!(lag.round_trip.abs_diff(ms(25)) < ms(1), "{lag:?}");
        assert_eq!((lag.making, lag.samples, lag.error), (Some(ms(9)), 1, Duration::ZERO));
        meter.comes(&answer(7, 0x2345_6789, 900), began + ms(525));
        assert_eq!(meter.lag().unwrap().samples, 1, "it waited longer than there was time");
    }

    #[test]
    fn the_newest_count_and_memory_is_bounded() {
        let (meter, began) = (Meter::default(), Instant::now());
        for n in 0..1000_u32 {
            meter.leaves(&sent(1, u64::from(n) << 16), began);
            meter.comes(&answer(1, n, 0), began + ms(if n < 900 { 100 } else { 10 + u64::from(n % 4) }));
            meter.made(ms(u64::from(n)));
        }
        let book = meter.lock();
        assert_eq!((book.sent.len(), book.round_trips.len(), book.making.len()), (REPORTS, KEPT, KEPT));
        drop(book);
        let lag = meter.lag().unwrap();
        assert_eq!((lag.round_trip, lag.error, lag.samples), (ms(11), ms(3) / 2, 999));
    }
}
