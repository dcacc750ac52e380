//! Who reaches whom: the taps' counters over time, as rates and losses for each pair of seats.
//!
//! A counter alone says how much there ever was. Two readings give a rate; readings at both ends give a loss. The ends are
//! read at different moments, so a loss is known only within bounds: what the other end had counted a little before and a
//! little after. Within one tenth the estimate between them is given; else what is proven, which never blames a burst.
use std::collections::{BTreeMap, VecDeque};

use api::{
    agent::{AgentStatus, PairCount},
    lan::Connectivity,
    observe::Lag,
};
use doctor::Facts;

use super::MANY;
use crate::agents::AgentViews;

/// Readings are kept for this long, in seconds: a loss is that of this time.
const WINDOW_S: f64 = 60.0;
/// Two readings that are kept are at least this far apart, in seconds.
const GAP_S: f64 = 2.0;
/// A rate is that of the last so many seconds.
const RATE_S: f64 = 10.0;
/// How far the bounds of a loss may be apart for an estimate.
const BOUNDS_MAX: f64 = 0.1;
/// Rows of one status; of more pairs, those with the highest rates are kept.
const ROWS_MAX: usize = 16_384;
/// Readings that span less say nothing of "lately", in seconds.
const RECENT_MIN_S: f64 = 20.0;
const TO_ALL: &str = "ff:ff:ff:ff:ff:ff";

/// One reading of one tap.
#[derive(Debug, Clone)]
struct Reading {
    at: f64,
    /// Sorted by peer.
    pairs: Vec<Count>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    peer: u64,
    tx: u64,
    rx: u64,
    rx_broadcasts: u64,
    tx_bytes: u64,
    rx_bytes: u64,
}

impl Reading {
    fn count(&self, peer: u64) -> Option<&Count> {
        self.pairs.binary_search_by_key(&peer, |count| count.peer).ok().and_then(|at| self.pairs.get(at))
    }

    fn sent(&self, peer: u64) -> u64 {
        self.count(peer).map_or(0, |count| count.tx)
    }

    fn came(&self, peer: u64) -> u64 {
        self.count(peer).map_or(0, |count| count.rx)
    }
}

/// The readings of one tap, oldest first, of one epoch of its counters.
#[derive(Debug, Clone, Default)]
struct Tap {
    readings: VecDeque<Reading>,
    /// When frames to a peer were last seen to grow.
    last_sent: BTreeMap<u64, f64>,
}

/// All taps. Bounded: at most 40 readings of a minute, each as long as what the agent said of one tap.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    taps: BTreeMap<String, Tap>,
}

fn mac(text: &str) -> u64 {
    text.split(':')
        .filter_map(|octet| u8::from_str_radix(octet, 16).ok())
        .fold(0, |mac, octet| mac << 8 | u64::from(octet))
}

fn text(mac: u64) -> String {
    let [_, _, a, b, c, d, e, f] = mac.to_be_bytes();
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

impl Meter {
    /// Takes what the agents that answer say now. The times are those at which the gateway heard it, so that the nodes'
    /// clocks need not agree.
    pub fn read(&mut self, agents: &AgentViews, now: f64) {
        let mut spoken = Vec::new();
        for view in agents.values().filter(|view| view.silent_for(now).is_none()) {
            let (Some(status), Some(at)) = (&view.status, view.heard_at) else { continue };
            for instance in status.instances.iter().filter(|instance| !instance.pairs.is_empty()) {
                spoken.push(instance.id.as_str());
                // Looked up first: a key is made only for a new tap.
                if !self.taps.contains_key(&instance.id) {
                    self.taps.insert(instance.id.clone(), Tap::default());
                }
                if let Some(tap) = self.taps.get_mut(&instance.id) {
                    tap.take(at, &instance.pairs);
                }
            }
        }
        spoken.sort_unstable();
        self.taps.retain(|id, _| spoken.binary_search(&id.as_str()).is_ok());
    }

    /// What the tap counted in the last minute; `None` until readings span a while.
    pub fn recent(&self, instance: &str) -> Option<Vec<PairCount>> {
        let tap = self.taps.get(instance)?;
        let (first, last) = (tap.readings.front()?, tap.readings.back()?);
        if last.at - first.at < RECENT_MIN_S {
            return None;
        }
        let pairs = last.pairs.iter().map(|now| {
            let was = first.count(now.peer);
            let grown = |of: fn(&Count) -> u64| of(now).saturating_sub(was.map_or(0, of));
            PairCount {
                peer: text(now.peer),
                tx_frames: grown(|count| count.tx),
                tx_bytes: grown(|count| count.tx_bytes),
                rx_frames: grown(|count| count.rx),
                rx_bytes: grown(|count| count.rx_bytes),
                rx_broadcasts: grown(|count| count.rx_broadcasts),
            }
        });
        Some(pairs.collect())
    }

    pub fn rows(&self, facts: &Facts, answering: &[&AgentStatus]) -> Vec<Connectivity> {
        let mut rows: Vec<Connectivity> = answering
            .iter()
            .flat_map(|status| &status.reachability)
            .map(|r| Connectivity {
                from: r.from.clone(),
                to: r.to.clone(),
                reachable: r.reachable,
                rtt_ms: r.rtt_ms,
                loss: share(r.asked.saturating_sub(r.answered), r.asked),
                last_seen: r.last_seen,
                ..Connectivity::default()
            })
            .collect();
        let many = facts.seats.len() > MANY;
        for lan in facts.lans.values() {
            let lags: BTreeMap<(&str, &str), &Lag> =
                lan.seen.lags.iter().map(|lag| ((lag.from.as_str(), lag.to.as_str()), lag)).collect();
            for from in &lan.seats {
                let Some(tap) = self.taps.get(from) else { continue };
                for to in lan.seats.iter().filter(|to| *to != from) {
                    let (Some(a), Some(b)) = (facts.seats.get(from), facts.seats.get(to)) else { continue };
                    let lag = lags.get(&(from.as_str(), to.as_str())).and_then(|lag| lag.rtt_ms);
                    let row = tap.row((from, mac(&a.place.mac)), (to, mac(&b.place.mac)), self.taps.get(to), lag);
                    if !many || row.rate.is_some_and(|rate| rate > 0.0) || row.rtt_ms.is_some() {
                        rows.push(row);
                    }
                }
            }
        }
        if rows.len() > ROWS_MAX {
            rows.sort_by(|a, b| b.rate.unwrap_or(0.0).total_cmp(&a.rate.unwrap_or(0.0)));
            rows.truncate(ROWS_MAX);
        }
        rows
    }
}

impl Tap {
    fn take(&mut self, at: f64, pairs: &[PairCount]) {
        if self.readings.back().is_some_and(|last| last.at >= at) {
            return;
        }
        let mut counts: Vec<Count> = pairs
            .iter()
            .map(|pair| Count {
                peer: mac(&pair.peer),
                tx: pair.tx_frames,
                rx: pair.rx_frames,
                rx_broadcasts: pair.rx_broadcasts,
                tx_bytes: pair.tx_bytes,
                rx_bytes: pair.rx_bytes,
            })
            .collect();
        counts.sort_unstable_by_key(|count| count.peer);
        let reading = Reading { at, pairs: counts };
        if let Some(last) = self.readings.back() {
            // Counters only grow. If one has shrunk, the maps were made anew, and what was before says nothing.
            if last.pairs.iter().any(|old| reading.sent(old.peer) < old.tx || reading.came(old.peer) < old.rx) {
                self.readings.clear();
            }
        }
        if let Some(last) = self.readings.back() {
            for count in &reading.pairs {
                if count.tx > last.sent(count.peer) {
                    self.last_sent.insert(count.peer, at);
                }
            }
            self.last_sent.retain(|peer, _| reading.count(*peer).is_some());
        }
        let before_last = self.readings.len().checked_sub(2).and_then(|index| self.readings.get(index));
        if before_last.is_some_and(|before| at - before.at < GAP_S) {
            self.readings.pop_back();
        }
        self.readings.push_back(reading);
        // The first one stays that is as old as the window, so that the window is whole.
        while self.readings.get(1).is_some_and(|second| at - second.at >= WINDOW_S) {
            self.readings.pop_front();
        }
    }

    fn row(&self, from: (&str, u64), to: (&str, u64), other: Option<&Self>, rtt_ms: Option<f64>) -> Connectivity {
        let mut row = Connectivity { from: from.0.to_owned(), to: to.0.to_owned(), rtt_ms, ..Connectivity::default() };
        let Some(last) = self.readings.back() else { return row };
        let all = mac(TO_ALL);
        row.frames = Some(last.sent(to.1));
        row.rate = self.rate(to.1);
        row.last_seen = self.last_sent.get(&to.1).copied();
        let sent: u64 = last.pairs.iter().map(|count| count.tx).sum();
        row.broadcast_share = share(last.sent(all), sent);
        let Some(there) = other.and_then(|other| other.readings.back()) else { return row };
        row.reachable = there.came(from.1) > 0;
        row.broadcast_seen =
            (last.sent(all) > 0).then(|| there.count(from.1).is_some_and(|count| count.rx_broadcasts > 0));
        row.loss = other.and_then(|other| self.loss(to.1, other, from.1));
        row
    }

    /// Frames a second to `peer`, of the last seconds; absent until there are two readings.
    fn rate(&self, peer: u64) -> Option<f64> {
        let last = self.readings.back()?;
        let first = self.readings.iter().find(|reading| last.at - reading.at <= RATE_S)?;
        let seconds = last.at - first.at;
        let grown = last.sent(peer).saturating_sub(first.sent(peer));
        (seconds > 0.0).then(|| float(grown) / seconds)
    }

    /// Share of the frames to `to` (and to all) that did not come to its tap `other`, in the time for which both are known.
    fn loss(&self, to: u64, other: &Self, from: u64) -> Option<f64> {
        let (begin, end) = (other.readings.front()?.at, other.readings.back()?.at);
        let first = self.readings.iter().find(|reading| reading.at >= begin)?;
        let last = self.readings.iter().rev().find(|reading| reading.at <= end)?;
        if last.at <= first.at {
            return None;
        }
        let all = mac(TO_ALL);
        let sent = |reading: &Reading| reading.sent(to).saturating_add(reading.sent(all));
        let sent = sent(last).saturating_sub(sent(first));
        if sent == 0 {
            return None;
        }
        let came = |reading: &Reading| reading.came(from);
        let before = |at: f64| other.readings.iter().rev().find(|reading| reading.at <= at);
        let after = |at: f64| other.readings.iter().find(|reading| reading.at >= at);
        let came_most = came(after(last.at)?).saturating_sub(came(before(first.at)?));
        let came_least = came(before(last.at)?).saturating_sub(came(after(first.at)?));
        let at_least = lost(came_most, sent);
        let at_most = lost(came_least, sent);
        // What may be none is none: between two readings of busy taps there are always frames on their way.
        if at_least == 0.0 || at_most - at_least > BOUNDS_MAX {
            return Some(at_least);
        }
        let between = |at: f64| -> Option<f64> {
            let (low, high) = (before(at)?, after(at)?);
            let part = if high.at > low.at { (at - low.at) / (high.at - low.at) } else { 0.0 };
            Some(float(came(low)) + part * (float(came(high)) - float(came(low))))
        };
        let estimate = 1.0 - (between(last.at)? - between(first.at)?) / float(sent);
        Some(estimate.clamp(at_least, at_most))
    }
}

fn lost(came: u64, sent: u64) -> f64 {
    (1.0 - float(came) / float(sent)).max(0.0)
}

fn share(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| float(part.min(of)) / float(of))
}

#[expect(clippy::cast_precision_loss, reason = "counts of frames stay far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "02:4c:00:10:68:01";
    const B: &str = "02:4c:00:10:68:02";

    fn count(peer: &str, tx: u64, rx: u64, rx_broadcasts: u64) -> PairCount {
        PairCount {
            peer: peer.into(),
            tx_frames: tx,
            tx_bytes: 100 * tx,
            rx_frames: rx,
            rx_bytes: 100 * rx,
            rx_broadcasts,
        }
    }

    /// Row from A to B out of readings (time, frames sent by A | time, frames that came to B).
    fn row(sent: &[(f64, u64)], came: &[(f64, u64)]) -> Connectivity {
        let (mut a, mut b) = (Tap::default(), Tap::default());
        for (at, frames) in sent {
            a.take(*at, &[count(B, *frames, 0, 0)]);
        }
        for (at, frames) in came {
            b.take(*at, &[count(A, 0, *frames, 0)]);
        }
        a.row(("a", mac(A)), ("b", mac(B)), Some(&b), Some(1.5))
    }

    #[test]
    fn one_reading_gives_no_rate_and_two_do() {
        let one = row(&[(0.0, 10)], &[(0.0, 10)]);
        assert_eq!((one.frames, one.rate, one.loss, one.reachable), (Some(10), None, None, true));
        let two = row(&[(0.0, 10), (5.0, 60)], &[(0.0, 10), (5.0, 60)]);
        assert_eq!((two.rate, two.loss, two.last_seen), (Some(10.0), Some(0.0), Some(5.0)));
        let still = row(&[(0.0, 10), (5.0, 10)], &[(0.0, 10), (5.0, 10)]);
        assert_eq!((still.rate, still.loss, still.last_seen), (Some(0.0), None, None), "nothing sent, nothing lost");
    }

    #[test]
    fn half_of_a_steady_stream_lost_is_a_half() {
        // The other end is read a second later.
        let sent: Vec<_> = (0..30).map(|n| (f64::from(n) * 2.0, u64::try_from(n).unwrap() * 200)).collect();
        let came: Vec<_> = (0..30).map(|n| (f64::from(n) * 2.0 + 1.0, u64::try_from(n).unwrap() * 100)).collect();
        let loss = row(&sent, &came).loss.unwrap();
        assert!((loss - 0.5).abs() < 0.02, "{loss}");
    }

    #[test]
    fn a_burst_that_is_still_on_its_way_is_not_lost() {
        let loss = row(&[(0.0, 0), (4.0, 50)], &[(0.0, 0), (3.9, 0), (5.0, 50)]).loss;
        assert_eq!(loss, Some(0.0));
        // Not known yet at the other end: the time for which both are known ends before the burst.
        assert_eq!(row(&[(0.0, 0), (4.0, 50)], &[(0.0, 0), (3.9, 0)]).loss, None);
    }

    #[test]
    fn counters_that_begin_anew_are_no_loss_and_no_rate() {
        let new = row(&[(0.0, 1000), (5.0, 1100), (10.0, 3)], &[(0.0, 1000), (5.0, 1100), (10.0, 1103)]);
        assert_eq!((new.rate, new.loss, new.frames), (None, None, Some(3)));
        let other_end = row(&[(0.0, 1000), (5.0, 1100), (10.0, 1200)], &[(0.0, 1000), (10.0, 2)]);
        assert_eq!((other_end.loss, other_end.rate), (None, Some(20.0)));
    }

    #[test]
    fn broadcasts_count_for_everybody() {
        let (mut a, mut b) = (Tap::default(), Tap::default());
        for (at, n) in [(0.0, 0), (5.0, 10)] {
            a.take(at, &[count(TO_ALL, 3 * n, 0, 0), count(B, n, 0, 0)]);
            b.take(at, &[count(A, 0, 4 * n, 3 * n)]);
        }
        let row = a.row(("a", mac(A)), ("b", mac(B)), Some(&b), None);
        assert_eq!((row.broadcast_share, row.broadcast_seen, row.loss), (Some(0.75), Some(true), Some(0.0)));
        let alone = a.row(("a", mac(A)), ("b", mac(B)), None, None);
        assert_eq!((alone.broadcast_seen, alone.loss, alone.reachable), (None, None, false));
    }

    #[test]
    fn readings_are_of_the_last_minute_and_few() {
        let mut tap = Tap::default();
        for n in 0..5000u64 {
            tap.take(float(n) * 0.2, &[count(B, n, n, 0)]);
        }
        assert!(tap.readings.len() <= 40, "{}", tap.readings.len());
        let (first, last) = (tap.readings.front().unwrap().at, tap.readings.back().unwrap().at);
        assert!((58.0..=64.0).contains(&(last - first)), "{first} to {last}");
        assert!((tap.rate(mac(B)).unwrap() - 5.0).abs() < 0.1);
    }

    #[test]
    fn a_mac_is_read_as_it_is_written() {
        for mac_text in [A, B, TO_ALL] {
            assert_eq!(text(mac(mac_text)), mac_text);
        }
    }
}
