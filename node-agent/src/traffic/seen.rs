//! What was seen, as the status shows it.
use std::collections::BTreeMap;

use api::{
    agent::{ObserverHealth, PairCount},
    lan::ClassCount,
    observe::Observed,
};
use model::InstanceId;
use traffic::Report;

/// Other cards of one instance that the status lists: those with the most frames. A LAN has some hundred; who forges
/// addresses has all.
const PAIRS_MAX: usize = 512;

/// One moment of the eyes. Readers share it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Seen {
    /// By LAN.
    pub(crate) observed: BTreeMap<String, Observed>,
    pub(crate) report: Report,
}

impl Seen {
    pub(crate) const fn new(observed: BTreeMap<String, Observed>, report: Report) -> Self {
        Self { observed, report }
    }

    pub(crate) fn health(&self) -> ObserverHealth {
        ObserverHealth {
            // Ports that are watched without a device are the agent's own switch's.
            attach: self
                .report
                .attach
                .map(|attach| attach.to_string())
                .or_else(|| (!self.report.ports.is_empty()).then(|| "switch".to_owned())),
            taps: u32::try_from(self.report.ports.len()).unwrap_or(u32::MAX),
            events_lost: self.report.events_lost(),
            problem: self.report.problem.clone(),
        }
    }

    pub(crate) fn classes(&self, id: &InstanceId) -> BTreeMap<String, ClassCount> {
        let mut classes: BTreeMap<String, ClassCount> = BTreeMap::new();
        let Some(port) = self.report.ports.get(id) else { return classes };
        for (class, count) in port.classes.ingress.seen() {
            classes.entry(class.name().to_owned()).or_default().tx_frames = count.frames;
        }
        for (class, count) in port.classes.egress.seen() {
            classes.entry(class.name().to_owned()).or_default().rx_frames = count.frames;
        }
        classes
    }

    pub(crate) fn pairs(&self, id: &InstanceId) -> Vec<PairCount> {
        let Some(port) = self.report.ports.get(id) else { return Vec::new() };
        let mut pairs: Vec<_> = port.pairs.iter().collect();
        if pairs.len() > PAIRS_MAX {
            pairs.sort_by_key(|(_, pair)| std::cmp::Reverse(pair.from_guest.frames.max(pair.to_guest.frames)));
            pairs.truncate(PAIRS_MAX);
            pairs.sort_by_key(|(peer, _)| **peer);
        }
        let count = |(peer, pair): (&model::MacAddr, &traffic::Pair)| PairCount {
            peer: peer.to_string(),
            tx_frames: pair.from_guest.frames,
            tx_bytes: pair.from_guest.bytes,
            rx_frames: pair.to_guest.frames,
            rx_bytes: pair.to_guest.bytes,
            rx_broadcasts: pair.to_guest_broadcasts,
        };
        pairs.into_iter().map(count).collect()
    }
}

/// What of `observed` is news when it changes: not what moves with every frame.
pub(crate) fn still(observed: &mut Observed) {
    observed.frames = 0;
    observed.classes.clear();
    observed.dplay_commands.clear();
    observed.user_messages.clear();
    observed.lags.clear();
    observed.ipx.framings = api::observe::Framings::default();
    for machine in &mut observed.machines {
        (machine.frames, machine.broadcasts, machine.last_seen) = (0, 0, 0.0);
    }
    for enumeration in &mut observed.enumerations {
        enumeration.count = 0;
        enumeration.last = None;
    }
    for anomaly in &mut observed.anomalies {
        anomaly.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use api::observe::{Machine, Session};
    use model::MacAddr;
    use traffic::{Pair, PortReport};

    use super::*;

    #[test]
    fn frames_are_no_news_and_sessions_are() {
        let observed = |frames, name: &str| {
            let mut observed = Observed {
                frames,
                machines: vec![Machine { frames, ..Machine::default() }],
                sessions: vec![Session { name: Some(name.to_owned()), ..Session::default() }],
                ..Observed::default()
            };
            still(&mut observed);
            observed
        };
        assert_eq!(observed(1, "a"), observed(2, "a"));
        assert_ne!(observed(1, "a"), observed(1, "b"));
    }

    #[test]
    fn the_busiest_cards_are_listed() {
        let id: InstanceId = "i-0".parse().unwrap();
        let mac = |number: u16| {
            let [a, b] = number.to_be_bytes();
            MacAddr([2, 0, 0, 0, a, b])
        };
        let pair = |frames| {
            let mut pair = Pair::default();
            pair.to_guest.frames = frames;
            pair
        };
        let pairs = (0..600).map(|number| (mac(number), pair(number.into()))).collect();
        let ports = [(id.clone(), PortReport { pairs, ..PortReport::default() })].into();
        let seen = Seen::new(BTreeMap::new(), Report { ports, ..Report::default() });
        let pairs = seen.pairs(&id);
        assert_eq!((pairs.len(), pairs[0].rx_frames), (PAIRS_MAX, 88));
        assert!(pairs.is_sorted_by_key(|pair| pair.peer.clone()));
        assert!(seen.pairs(&"i-1".parse().unwrap()).is_empty());
        assert_eq!(seen.health().taps, 1);
    }
}
