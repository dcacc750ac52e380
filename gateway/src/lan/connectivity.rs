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

/// All taps. Bounded: 31 readings of a minute, each as long as what the agent said of one tap.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    taps: BTreeMap<String, Tap>,
}

fn mac(text: &str) -> u64 {
    text.split(':')
        .filter_map(|octet| u8::from_str_radix(octet, 16).ok())
        .fold(0, |mac, octet| mac << 8 | u64::from(octet))
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
        if at_most - at_least > BOUNDS_MAX {
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
