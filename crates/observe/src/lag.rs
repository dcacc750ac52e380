//! Round trips: TCP data and its acknowledgement at one point, DirectPlay's ping and answer in a capture.
//!
//! ```text
//!   A ──data──> port of A ····· segment ····· port of B ──> B
//!               FromGuest                     ToGuest
//!               │<────────── rtt ──────────>  │<─ guest ─>│      fabric = rtt - guest, where both were measured
//!   A <──ACK─── ToGuest                       FromGuest <── B
//! ```
//! **Invariants.** Only data that was sent once is measured (Karn), one piece at a time for each direction and point. What
//! was not measured is absent. A capture has one point: its round trip is at least the time from there on.
use std::time::Duration;

use api::observe::Lag;
use wire::tcp::{Flags, Segment};

use crate::{
    Limits, Point,
    dplay::Via,
    stamp::{Stamp, Station},
    table::Table,
    tcp::Flow,
};

/// Round trips of a pair that count.
const SAMPLES: usize = 32;
/// For how long one counts: a guest that was slow a minute ago need not be slow now.
const KEPT: Duration = Duration::from_mins(1);
/// Longer is no round trip but a loss.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    /// At the sender's port, or anywhere in a capture.
    Near,
    /// At the receiver's port.
    Far,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    /// Sequence number behind the last byte ever seen here.
    highest: u32,
    /// What is being measured: the number that acknowledges it, and since when.
    running: Option<(u32, Duration)>,
}

#[derive(Debug, Clone, Default)]
struct Ring {
    /// How long each took, and when it was measured.
    seconds: Vec<(f32, Duration)>,
    next: usize,
}

#[derive(Debug, Clone, Default)]
struct Pair {
    rtt: Ring,
    guest: Ring,
    samples: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Lags {
    pairs: Table<(Station, Station), Pair>,
    probes: Table<(Flow, Side), Probe>,
    pings: Table<(Station, Station, u32), Duration>,
}

impl Lags {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            pairs: Table::new(limits.pairs),
            probes: Table::new(limits.tcp_directions),
            pings: Table::new(limits.lines),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.pairs.len() + self.probes.len() + self.pings.len()
    }

    /// A segment of a connection between DirectPlay programs passed a point.
    pub(crate) fn segment(&mut self, flow: Flow, segment: &Segment<'_>, stamp: Stamp) {
        let (data, acknowledgement) = match stamp.point {
            Point::Wire => (Side::Near, Side::Near),
            Point::FromGuest(_) => (Side::Near, Side::Far),
            Point::ToGuest(_) => (Side::Far, Side::Near),
            Point::Overlay | Point::Edge | Point::Relay => return,
        };
        if segment.flags.contains(Flags::ACK) {
            self.acknowledged((flow.back(), acknowledgement), segment.acknowledgement, stamp.at);
        }
        if segment.payload.is_empty() || segment.flags.contains(Flags::SYN) {
            return;
        }
        let end = segment.sequence.wrapping_add(u32::try_from(segment.payload.len()).unwrap_or(0));
        let fresh = || Probe { highest: segment.sequence, running: None };
        let probe = self.probes.entry((flow, data), fresh);
        if segment.sequence.wrapping_sub(probe.highest).cast_signed() < 0 {
            // Sent again: whose acknowledgement comes cannot be told.
            probe.running = None;
            return;
        }
        probe.highest = end;
        if probe.running.is_none_or(|(_, at)| stamp.at.saturating_sub(at) > ROUND_TRIP_MAX) {
            probe.running = Some((end, stamp.at));
        }
    }

    fn acknowledged(&mut self, key: (Flow, Side), acknowledgement: u32, now: Duration) {
        let Some(probe) = self.probes.get_mut(&key) else { return };
        let Some((end, since)) = probe.running else { return };
        if acknowledgement.wrapping_sub(end).cast_signed() < 0 {
            return;
        }
        probe.running = None;
        let (flow, side) = key;
        self.sample(Station::Ip(*flow.from.ip()), Station::Ip(*flow.to.ip()), side, since, now);
    }

    fn sample(&mut self, from: Station, to: Station, side: Side, since: Duration, now: Duration) {
        let time = now.saturating_sub(since);
        if time > ROUND_TRIP_MAX {
            return;
        }
        let pair = self.pairs.entry((from, to), Pair::default);
        pair.samples += 1;
        match side {
            Side::Near => pair.rtt.add(time, now),
            Side::Far => pair.guest.add(time, now),
        }
    }

    /// A PING: only a capture sees it and its answer at one point.
    pub(crate) fn asks(&mut self, via: &Via, tick: u32) {
        if via.stamp().point == Point::Wire {
            self.pings.insert((via.from, via.to, tick), via.stamp().at);
        }
    }

    pub(crate) fn answers(&mut self, via: &Via, tick: u32) {
        if let Some(since) = self.pings.remove(&(via.to, via.from, tick)) {
            self.sample(via.to, via.from, Side::Near, since, via.stamp().at);
        }
    }

    pub(crate) fn report(&self, now: Duration) -> Vec<Lag> {
        let mut lags: Vec<_> = self
            .pairs
            .iter()
            .map(|((from, to), pair)| {
                let (rtt, guest) = (pair.rtt.quartiles(now), pair.guest.quartiles(now));
                let fabric = rtt.zip(guest).map(|(rtt, guest)| (rtt[1] - guest[1]).max(0.0));
                let spread = [rtt, guest].into_iter().flatten().map(|[low, _, high]| (high - low) / 2.0);
                Lag {
                    from: from.to_string(),
                    to: to.to_string(),
                    rtt_ms: rtt.map(|rtt| rtt[1]),
                    guest_ms: guest.map(|guest| guest[1]),
                    fabric_ms: fabric,
                    error_ms: spread.reduce(f64::max),
                    samples: pair.samples,
                }
            })
            .filter(|lag| lag.rtt_ms.is_some() || lag.guest_ms.is_some())
            .collect();
        lags.sort_by(|a, b| (&a.from, &a.to).cmp(&(&b.from, &b.to)));
        lags
    }
}

impl Ring {
    fn add(&mut self, time: Duration, now: Duration) {
        let sample = (time.as_secs_f32(), now);
        if self.seconds.len() < SAMPLES {
            self.seconds.push(sample);
        } else if let Some(oldest) = self.seconds.get_mut(self.next) {
            *oldest = sample;
        }
        self.next = (self.next + 1) % SAMPLES;
    }

    /// Lower quartile, median, upper quartile, in milliseconds.
    fn quartiles(&self, now: Duration) -> Option<[f64; 3]> {
        let fresh = self.seconds.iter().filter(|(_, at)| now.saturating_sub(*at) <= KEPT);
        let mut sorted: Vec<f32> = fresh.map(|(seconds, _)| *seconds).collect();
        sorted.sort_by(f32::total_cmp);
        let at = |quarter: usize| {
            let last = sorted.len().checked_sub(1)?;
            sorted.get(last * quarter / 4).map(|seconds| f64::from(*seconds) * 1000.0)
        };
        Some([at(1)?, at(2)?, at(3)?])
    }
}
