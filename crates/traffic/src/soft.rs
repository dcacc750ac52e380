//! Counts and events of frames that a program of ours switches (`crates/switch`): the same classes, the same choice and the same
//! grants as at a tap, without a device and without eBPF. Pure but for the two channels that it fills.
//!
//! **Invariants.** One frame costs one classification and a few additions. Every table has a bound, and what it cannot hold is counted.
//! The channel of events never makes the switch wait: full = the newest is given up and counted as `channel_full`.
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use model::{InstanceId, LanName, MacAddr};
use tokio::sync::{mpsc, watch};
use wire::class::{TrafficClass, classify};

use crate::{
    Event, Point, Report,
    abi::{Count, DATAGRAMS_MAX, FLOW_IDLE_NS, FLOWS_MAX, FRAME_MAX, Loss},
    report::{ClassCounts, Directions, LOST_CHANNEL, PAIRS_CARRIED_MAX, PortReport},
    select::{Datagram, FlowId, Selection, Tier, select},
};

/// Events that may wait for whoever takes them.
const EVENTS_MAX: usize = 16_384;

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// Into the switch: from a guest, from another node.
    In,
    /// Out of it: to a guest, to another node.
    Out,
}

/// What one port has counted and may still show.
#[derive(Debug)]
struct Port {
    id: Arc<InstanceId>,
    report: PortReport,
    buckets: [Buckets; 2],
}

#[derive(Debug)]
struct Tunnel {
    lan: Arc<LanName>,
    counts: Directions,
    buckets: Buckets,
}

/// When the bucket of each tier will be full again, in ns (generic cell rate algorithm, ITU-T I.371).
#[derive(Debug, Clone, Copy, Default)]
struct Buckets([u64; Tier::COUNT]);

impl Buckets {
    fn take(&mut self, now: u64, tier: Tier) -> Result<(), Loss> {
        let Some(full_at) = self.0.get_mut(tier as usize) else { return Ok(()) };
        let from = (*full_at).max(now);
        if from - now > Tier::BURST_NS {
            return Err(Loss::storm(tier));
        }
        *full_at = from + tier.interval_ns();
        Ok(())
    }
}

/// Where a frame was: a port or a tunnel by its number here, and the way it went.
type Where = (u32, Way);

/// The eyes of one switch.
#[derive(Debug)]
pub struct SoftTraffic {
    ports: HashMap<InstanceId, (u32, Port)>,
    tunnels: HashMap<LanName, (u32, Tunnel)>,
    next: u32,
    flows: HashMap<(Where, FlowKey), u64>,
    datagrams: HashMap<(Where, [u8; 11]), Tier>,
    lost: HashMap<&'static str, u64>,
    shown: u64,
    events: mpsc::Sender<Event>,
    report: watch::Sender<Report>,
}

/// [`FlowId`] as a key of a map.
type FlowKey = (u32, u32, u16, u16, u8, u8);

const fn flow_key(flow: &FlowId) -> FlowKey {
    (flow.source, flow.destination, flow.source_port, flow.destination_port, flow.protocol, flow.class)
}

fn datagram_key(datagram: &Datagram) -> [u8; 11] {
    let ([a, b, c, d], [e, f, g, h]) = (datagram.source.to_be_bytes(), datagram.destination.to_be_bytes());
    let [i, j] = datagram.identification.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, datagram.protocol]
}

impl SoftTraffic {
    /// The eyes, the events that they hand over, and what they counted, as of the last [`Self::publish`].
    pub fn new() -> (Self, mpsc::Receiver<Event>, watch::Receiver<Report>) {
        let (events, events_rx) = mpsc::channel(EVENTS_MAX);
        let (report, report_rx) = watch::channel(Report::default());
        let this = Self {
            ports: HashMap::new(),
            tunnels: HashMap::new(),
            next: 0,
            flows: HashMap::new(),
            datagrams: HashMap::new(),
            lost: HashMap::new(),
            shown: 0,
            events,
            report,
        };
        (this, events_rx, report_rx)
    }

    /// The ports and LANs that there are. Counts of others are forgotten; new ones begin at 0.
    pub fn keep(&mut self, ports: &BTreeSet<InstanceId>, lans: &BTreeSet<LanName>) {
        self.ports.retain(|id, _| ports.contains(id));
        self.tunnels.retain(|lan, _| lans.contains(lan));
        for id in ports {
            self.ports.entry(id.clone()).or_insert_with(|| {
                self.next = self.next.wrapping_add(1);
                let buckets = [Buckets::default(); 2];
                (self.next, Port { id: Arc::new(id.clone()), report: PortReport::default(), buckets })
            });
        }
        for lan in lans {
            self.tunnels.entry(lan.clone()).or_insert_with(|| {
                self.next = self.next.wrapping_add(1);
                let (lan, counts, buckets) = (Arc::new(lan.clone()), Directions::default(), Buckets::default());
                (self.next, Tunnel { lan, counts, buckets })
            });
        }
    }

    /// A frame at the port of a guest. `at`: since the epoch.
    pub fn guest(&mut self, at: Duration, id: &InstanceId, way: Way, frame: &[u8]) {
        let Some((number, port)) = self.ports.get_mut(id) else { return };
        let class = classify(frame);
        let counts = match way {
            Way::In => &mut port.report.classes.ingress,
            Way::Out => &mut port.report.classes.egress,
        };
        count(counts, class, frame);
        if !pair(&mut port.report, way, frame) {
            *self.lost.entry(Loss::NoPair.name()).or_default() += 1;
        }
        let (place, buckets) = ((*number, way), &mut port.buckets[way as usize]);
        let point = match way {
            Way::In => Point::FromGuest(Arc::clone(&port.id)),
            Way::Out => Point::ToGuest(Arc::clone(&port.id)),
        };
        let mut choice = Choice { flows: &mut self.flows, datagrams: &mut self.datagrams };
        match choice.judge(at, place, buckets, class, frame) {
            Ok(true) => self.show(at, point, class, frame),
            Ok(false) => {}
            Err(loss) => *self.lost.entry(loss.name()).or_default() += 1,
        }
    }

    /// A frame from or to another node. What goes out came in somewhere else here, and was shown there.
    pub fn node(&mut self, at: Duration, lan: &LanName, way: Way, frame: &[u8]) {
        let Some((number, tunnel)) = self.tunnels.get_mut(lan) else { return };
        let class = classify(frame);
        if way == Way::Out {
            return count(&mut tunnel.counts.egress, class, frame);
        }
        count(&mut tunnel.counts.ingress, class, frame);
        let point = Point::Overlay(Arc::clone(&tunnel.lan));
        let mut choice = Choice { flows: &mut self.flows, datagrams: &mut self.datagrams };
        match choice.judge(at, (*number, way), &mut tunnel.buckets, class, frame) {
            Ok(true) => self.show(at, point, class, frame),
            Ok(false) => {}
            Err(loss) => *self.lost.entry(loss.name()).or_default() += 1,
        }
    }

    /// Makes the report that of now.
    pub fn publish(&self) {
        let report = Report {
            ports: self.ports.iter().map(|(id, (_, port))| (id.clone(), port.report.clone())).collect(),
            tunnels: self.tunnels.iter().map(|(lan, (_, tunnel))| (lan.clone(), tunnel.counts)).collect(),
            lost: self.lost.iter().map(|(reason, count)| (*reason, *count)).collect(),
            events: self.shown,
            ..Report::default()
        };
        self.report.send_if_modified(|old| {
            let differs = *old != report;
            *old = report;
            differs
        });
    }

    fn show(&mut self, at: Duration, point: Point, class: TrafficClass, frame: &[u8]) {
        let bytes = frame.get(..FRAME_MAX).unwrap_or(frame).into();
        let event = Event { at, point, class, wire_len: wire_len(frame), bytes };
        if self.events.try_send(event).is_ok() {
            self.shown += 1;
        } else {
            *self.lost.entry(LOST_CHANNEL).or_default() += 1;
        }
    }
}

fn wire_len(frame: &[u8]) -> u32 {
    u32::try_from(frame.len()).unwrap_or(u32::MAX)
}

fn count(counts: &mut ClassCounts, class: TrafficClass, frame: &[u8]) {
    if let Some(count) = counts.0.get_mut(class as usize) {
        *count += Count { frames: 1, bytes: wire_len(frame).into() };
    }
}

/// Counts by the other card. `false`: there was no room for it.
fn pair(report: &mut PortReport, way: Way, frame: &[u8]) -> bool {
    let Some((destination, rest)) = frame.split_first_chunk::<6>() else { return true };
    let Some(source) = rest.first_chunk::<6>() else { return true };
    let is_group = MacAddr(*destination).is_group();
    let peer = match way {
        Way::Out => MacAddr(*source),
        Way::In if is_group => MacAddr::BROADCAST,
        Way::In => MacAddr(*destination),
    };
    if report.pairs.len() >= PAIRS_CARRIED_MAX && !report.pairs.contains_key(&peer) {
        return false;
    }
    let pair = report.pairs.entry(peer).or_default();
    let one = Count { frames: 1, bytes: wire_len(frame).into() };
    match way {
        Way::In => pair.from_guest += one,
        Way::Out => {
            pair.to_guest += one;
            pair.to_guest_broadcasts += u64::from(is_group);
        }
    }
    true
}

/// Which frames are shown.
struct Choice<'a> {
    flows: &'a mut HashMap<(Where, FlowKey), u64>,
    datagrams: &'a mut HashMap<(Where, [u8; 11]), Tier>,
}

impl Choice<'_> {
    /// Whether to show the frame; `Err`: it was to be shown, and its port has shown too many.
    fn judge(
        &mut self,
        at: Duration,
        place: Where,
        buckets: &mut Buckets,
        class: TrafficClass,
        frame: &[u8],
    ) -> Result<bool, Loss> {
        let now = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        let tier = match select(frame, class) {
            Selection::Show(tier) => Some(tier),
            Selection::ShowDatagram(tier, datagram) => {
                if self.datagrams.len() >= DATAGRAMS_MAX as usize {
                    self.datagrams.clear();
                }
                self.datagrams.insert((place, datagram_key(&datagram)), tier);
                Some(tier)
            }
            Selection::Fragment(datagram) => self.datagrams.get(&(place, datagram_key(&datagram))).copied(),
            Selection::First(flow) => self.is_first(now, (place, flow_key(&flow))).then_some(Tier::Other),
            Selection::Nothing => None,
        };
        tier.map_or(Ok(false), |tier| buckets.take(now, tier).map(|()| true))
    }

    fn is_first(&mut self, now: u64, key: (Where, FlowKey)) -> bool {
        let is_old = |last: u64| now.saturating_sub(last) > FLOW_IDLE_NS;
        if self.flows.len() >= FLOWS_MAX as usize && !self.flows.contains_key(&key) {
            self.flows.retain(|_, last| !is_old(*last));
            // Still full: all are shown once more, which the buckets bound.
            if self.flows.len() >= FLOWS_MAX as usize {
                self.flows.clear();
            }
        }
        self.flows.insert(key, now).is_none_or(is_old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_hours(500_000);

    fn id() -> InstanceId {
        "i-0".parse().unwrap()
    }

    fn lan() -> LanName {
        "party".parse().unwrap()
    }

    fn eyes() -> (SoftTraffic, mpsc::Receiver<Event>, watch::Receiver<Report>) {
        let mut eyes = SoftTraffic::new();
        eyes.0.keep(&[id()].into(), &[lan()].into());
        eyes
    }

    /// `kind`: the Ethernet type. Sixty octets.
    fn frame(to: [u8; 6], kind: [u8; 2]) -> Vec<u8> {
        // The head of ARP behind the type, which others do not look at.
        let mut frame = [&to[..], &[2, 0, 0, 0, 0, 9], &kind, &[0, 1, 8, 0, 6, 4, 0, 1]].concat();
        frame.resize(60, 0);
        frame
    }

    #[test]
    fn frames_are_counted_by_class_way_and_card_and_shown_where_they_are() {
        let (mut eyes, mut events, report) = eyes();
        let arp = frame([0xff; 6], [8, 6]);
        eyes.guest(NOW, &id(), Way::In, &arp);
        eyes.guest(NOW, &id(), Way::Out, &arp);
        eyes.node(NOW, &lan(), Way::In, &arp);
        eyes.node(NOW, &lan(), Way::Out, &arp);
        eyes.guest(NOW, &"i-9".parse().unwrap(), Way::In, &arp);
        eyes.publish();
        let report = report.borrow().clone();
        let port = &report.ports[&id()];
        let one = Count { frames: 1, bytes: 60 };
        assert_eq!((port.classes.ingress[TrafficClass::Arp], port.classes.egress[TrafficClass::Arp]), (one, one));
        assert_eq!(port.pairs[&MacAddr::BROADCAST].from_guest, one);
        assert_eq!(port.pairs[&MacAddr([2, 0, 0, 0, 0, 9])].to_guest_broadcasts, 1);
        assert_eq!(report.tunnels[&lan()].egress[TrafficClass::Arp], one);
        let points: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).map(|event| event.point).collect();
        let (guest, overlay) = (Arc::new(id()), Point::Overlay(Arc::new(lan())));
        assert_eq!(points, [Point::FromGuest(Arc::clone(&guest)), Point::ToGuest(guest), overlay]);
        assert_eq!((report.events, report.attach), (3, None));
    }

    #[test]
    fn a_storm_empties_its_own_bucket_and_is_counted() {
        let (mut eyes, mut events, report) = eyes();
        let arp = frame([0xff; 6], [8, 6]);
        (0..12_000).for_each(|_| eyes.guest(NOW, &id(), Way::In, &arp));
        eyes.guest(NOW, &id(), Way::Out, &arp);
        eyes.publish();
        assert_eq!(report.borrow().lost["control_storm"], 12_000 - 10_001);
        assert_eq!(report.borrow().ports[&id()].classes.ingress.total().frames, 12_000, "counted all the same");
        assert!(matches!(std::iter::from_fn(|| events.try_recv().ok()).last().unwrap().point, Point::ToGuest(_)));
    }

    #[test]
    fn of_other_flows_the_first_frame_is_shown_and_again_after_silence() {
        let (mut eyes, mut events, _report) = eyes();
        let strange = frame([2, 0, 0, 0, 0, 1], [0x12, 0x34]);
        let mut shown = |at| {
            eyes.guest(at, &id(), Way::In, &strange);
            events.try_recv().is_ok()
        };
        assert_eq!([shown(NOW), shown(NOW), shown(NOW + Duration::from_secs(30))], [true, false, false]);
        assert!(shown(NOW + Duration::from_secs(91)));
    }

    #[test]
    fn a_full_channel_and_a_full_table_are_counted() {
        let (mut eyes, _events, report) = eyes();
        for number in 0..20_000_u32 {
            let [_, a, b, c] = number.to_be_bytes();
            let at = NOW + Duration::from_millis(number.into());
            eyes.guest(at, &id(), Way::In, &frame([2, 1, 0, a, b, c], [8, 6]));
        }
        eyes.publish();
        let report = report.borrow();
        assert_eq!(report.lost["channel_full"], 20_000 - EVENTS_MAX as u64);
        assert_eq!(report.lost["no_pair"], 20_000 - PAIRS_CARRIED_MAX as u64);
        assert_eq!(report.ports[&id()].pairs.len(), PAIRS_CARRIED_MAX);
    }
}
