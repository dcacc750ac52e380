//! TCP connections, one direction at a time: what they carry, how they open and how they end.
//!
//! **Invariants.** A direction is followed if one of its ports is DirectPlay's, if somebody announced the port, or if what
//! it carries begins with an envelope. All directions together hold at most [`Limits::tcp_bytes`].
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use wire::{
    dplay::{Envelope, QUERY_PORT, TCP_PORTS},
    tcp::{Flags, Segment},
};

use crate::{
    Limits,
    stamp::{Process, Station},
    stream::{Out, Stream},
    table::Table,
};

/// For so long a gap may stay open that the receiver does not see: captures swap frames of different cards.
const ACKNOWLEDGED_GAP: Duration = Duration::from_millis(500);

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Flow {
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
}

impl Flow {
    pub(crate) const fn back(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

/// How a side ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
}

/// What a segment brought.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// With its envelope. `to`: the program that gets it, as far as known.
    Message {
        flow: Flow,
        to: Option<Process>,
        bytes: &'a [u8],
    },
    /// The side that the flow comes from ended the connection, before the other one did. `from` and `to` are the programs
    /// at its ends, as far as known.
    Closed {
        flow: Flow,
        from: Option<Process>,
        to: Option<Process>,
        end: End,
    },
    /// A SYN was answered: the flow comes from the listener. `late`: the SYN was told as unanswered before.
    Accepted {
        flow: Flow,
        late: bool,
    },
    /// A SYN had to be sent again: the flow comes from who connects. Told once for each connection.
    Unanswered(Flow),
    /// A SYN was refused by RST: the flow comes from the port where nobody listens.
    Refused(Flow),
    Lost(Flow),
    Garbage(Flow),
    /// There was no room for what the direction holds.
    Full(Flow),
}

#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "what was seen of it, each on its own")]
struct Direction {
    stream: Stream,
    /// A SYN without ACK came this way: its sender opened the connection.
    opened: bool,
    /// … and was sent again.
    unanswered: bool,
    accepted: bool,
    /// Its side ended it, and did so before the other one.
    ends_first: Option<bool>,
    /// It ended, and that was told.
    closed: bool,
    reset: bool,
    /// The listening port of who sends, from its envelopes.
    listener: Option<u16>,
    held: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Tcp {
    directions: Table<Flow, Direction>,
    /// Those that wait for bytes; some of them may be gone.
    waiting: BTreeSet<Flow>,
    held: usize,
    held_max: usize,
    ahead_max: usize,
    gap_max: Duration,
}

impl Tcp {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            directions: Table::new(limits.tcp_directions),
            waiting: BTreeSet::new(),
            held: 0,
            held_max: limits.tcp_bytes,
            ahead_max: limits.tcp_ahead_bytes,
            gap_max: limits.tcp_gap,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.directions.len() + self.waiting.len()
    }

    pub(crate) const fn held(&self) -> usize {
        self.held
    }

    /// Takes a segment. `announced`: somebody said that a DirectPlay program listens at one of the two ends.
    pub(crate) fn segment(
        &mut self,
        (source, destination): (Ipv4Addr, Ipv4Addr),
        segment: &Segment<'_>,
        announced: bool,
        now: Duration,
        each: &mut impl FnMut(Event<'_>),
    ) {
        let flow = Flow {
            from: SocketAddrV4::new(source, segment.source_port),
            to: SocketAddrV4::new(destination, segment.destination_port),
        };
        let known = self.directions.contains(&flow);
        if !known && !announced && !is_dplay(flow) && Envelope::parse(segment.payload).is_none() {
            return;
        }
        if segment.flags.contains(Flags::RST) || segment.flags.contains(Flags::FIN) {
            // By the order of the ends themselves: what one waits for may come after the other.
            let acknowledged = segment.acknowledgement;
            let first = self.directions.get(&flow.back()).is_none_or(|back| {
                back.ends_first.is_none() && !(segment.flags.contains(Flags::ACK) && back.stream.lacks(acknowledged))
            });
            if let Some(own) = self.directions.get_mut(&flow) {
                own.ends_first.get_or_insert(first);
            }
        }
        if segment.flags.contains(Flags::RST) {
            self.reset(flow, segment, now, each);
        } else {
            let (ahead_max, gap_max) = (self.ahead_max, self.gap_max);
            if segment.flags.contains(Flags::SYN) {
                self.opens(flow, segment, each);
            }
            let to = self.process(flow.back());
            let direction = self.directions.entry(flow, Direction::default);
            let first_byte = segment.sequence.wrapping_add(u32::from(segment.flags.contains(Flags::SYN)));
            let Direction { stream, listener, .. } = direction;
            stream.segment(
                (first_byte, segment.flags.contains(Flags::FIN)),
                segment.payload,
                now,
                (ahead_max, gap_max),
                &mut |out| tell((flow, to), &out, listener, each),
            );
            self.account(flow, each);
            self.acknowledged(flow.back(), segment, now, each);
        }
        self.ended(flow, each);
    }

    /// The receiver has what we have not: it will not come again. Its acknowledgement may have come to us too early only.
    fn acknowledged(&mut self, flow: Flow, segment: &Segment<'_>, now: Duration, each: &mut impl FnMut(Event<'_>)) {
        let to = self.process(flow.back());
        let Some(Direction { stream, listener, .. }) = self.directions.get_mut(&flow) else { return };
        if !segment.flags.contains(Flags::ACK) || segment.flags.contains(Flags::SYN) {
            return;
        }
        if stream.take_end_for_lost(segment.acknowledgement) {
            // Its own end was lost as well, or comes late: which was first cannot be told.
            let ambiguous = self.directions.get(&flow.back()).is_some_and(|own| !own.stream.goes_on_at(segment));
            if let Some(direction) = self.directions.get_mut(&flow).filter(|_| ambiguous) {
                direction.ends_first = Some(false);
            }
            return self.ended(flow, each);
        }
        if !stream.waits() {
            return;
        }
        let gap_max = if stream.lacks(segment.acknowledgement) { ACKNOWLEDGED_GAP } else { self.gap_max };
        stream.expire(now, gap_max, &mut |out| tell((flow, to), &out, listener, each));
        self.account(flow, each);
        self.ended(flow, each);
    }

    /// The frames' time went on.
    pub(crate) fn expire(&mut self, now: Duration, each: &mut impl FnMut(Event<'_>)) {
        let gap_max = self.gap_max;
        self.each_held(each, |stream, mut out| stream.expire(now, gap_max, &mut out));
    }

    /// The capture ended.
    pub(crate) fn flush(&mut self, now: Duration, each: &mut impl FnMut(Event<'_>)) {
        self.each_held(each, |stream, mut out| stream.flush(now, &mut out));
    }

    fn each_held<E: FnMut(Event<'_>)>(&mut self, each: &mut E, act: impl Fn(&mut Stream, &mut dyn FnMut(Out<'_>))) {
        let flows: Vec<_> = self.waiting.iter().copied().collect();
        for flow in flows {
            let to = self.process(flow.back());
            if let Some(Direction { stream, listener, .. }) = self.directions.get_mut(&flow) {
                act(stream, &mut |out| tell((flow, to), &out, listener, each));
            }
            self.account(flow, each);
            self.ended(flow, each);
        }
    }

    fn opens(&mut self, flow: Flow, segment: &Segment<'_>, each: &mut impl FnMut(Event<'_>)) {
        let direction = self.directions.entry(flow, Direction::default);
        // The ports are used again: what the old connection held is not the new one's.
        if direction.closed || direction.reset {
            self.held = self.held.saturating_sub(direction.held);
            *direction = Direction::default();
        }
        let again = direction.opened;
        direction.stream.open(segment.sequence);
        if segment.flags.is_syn() {
            direction.opened = true;
            let told = direction.unanswered;
            // A new connection: the other direction's state is the old one's, if it ended.
            let back = self.directions.get(&flow.back());
            let (ended, silent) = back.map_or((false, true), |back| (back.closed || back.reset, !back.accepted));
            if ended {
                let back = self.directions.remove(&flow.back());
                self.held = self.held.saturating_sub(back.map_or(0, |back| back.held));
            } else if again && silent && !told {
                if let Some(direction) = self.directions.get_mut(&flow) {
                    direction.unanswered = true;
                }
                each(Event::Unanswered(flow));
            }
        } else if !std::mem::replace(&mut direction.accepted, true) {
            let late = self.directions.get(&flow.back()).is_some_and(|back| back.unanswered);
            each(Event::Accepted { flow, late });
        }
    }

    fn reset(&mut self, flow: Flow, segment: &Segment<'_>, now: Duration, each: &mut impl FnMut(Event<'_>)) {
        let answers_syn = self.directions.get(&flow.back()).is_some_and(|back| back.opened)
            && self.directions.get(&flow).is_none_or(|own| !own.accepted && own.listener.is_none());
        if answers_syn && segment.flags.contains(Flags::ACK) {
            each(Event::Refused(flow));
            self.directions.entry(flow, Direction::default).reset = true;
            return;
        }
        let to = self.process(flow.back());
        if let Some(Direction { stream, listener, reset, .. }) = self.directions.get_mut(&flow) {
            *reset = true;
            stream.flush(now, &mut |out| tell((flow, to), &out, listener, each));
            self.account(flow, each);
        }
    }

    /// Says once that a side ended the connection, if the other one did not end it before.
    fn ended(&mut self, flow: Flow, each: &mut impl FnMut(Event<'_>)) {
        let Some(own) = self.directions.get(&flow) else { return };
        let end = match (own.closed, own.reset, own.stream.is_at_end()) {
            (true, ..) | (false, false, false) => return,
            (_, true, _) => End::Reset,
            _ => End::Fin,
        };
        let (from, to) = (self.process(flow), self.process(flow.back()));
        let other = self.directions.get(&flow.back()).is_some_and(|back| back.ends_first.is_some());
        let first = own.ends_first.unwrap_or(!other);
        if let Some(own) = self.directions.get_mut(&flow) {
            own.closed = true;
            own.ends_first.get_or_insert(first);
        }
        if first {
            each(Event::Closed { flow, from, to, end });
        }
    }

    /// The program that sends in this direction: by its envelopes, or by the port that it listens at.
    fn process(&self, flow: Flow) -> Option<Process> {
        let own = self.directions.get(&flow);
        let opener = |flow: &Flow| self.directions.get(flow).is_some_and(|it| it.opened);
        let port = own.and_then(|own| own.listener).or_else(|| {
            // The side that was connected to is a listener; so is one with a port of DirectPlay, if nothing was seen.
            let connected_to = opener(&flow.back()) || own.is_some_and(|own| own.accepted);
            let looks_so = TCP_PORTS.contains(&flow.from.port()) && !opener(&flow);
            (connected_to || looks_so).then_some(flow.from.port())
        })?;
        Some(Process { station: Station::Ip(*flow.from.ip()), port })
    }

    /// Keeps the sum of what is held, and the sum below its limit.
    fn account(&mut self, flow: Flow, each: &mut impl FnMut(Event<'_>)) {
        self.settle(flow);
        while self.held > self.held_max {
            let full = |flow: &&Flow| self.directions.get(flow).is_some_and(|it| it.held > 0);
            let Some(oldest) = self.directions.by_use().find(full).copied() else { break };
            if let Some(direction) = self.directions.get_mut(&oldest) {
                direction.stream.drop_held();
            }
            self.settle(oldest);
            each(Event::Full(oldest));
        }
    }

    fn settle(&mut self, flow: Flow) {
        if let Some(direction) = self.directions.get_mut(&flow) {
            let held = direction.stream.held();
            self.held = self.held.saturating_sub(direction.held).saturating_add(held);
            direction.held = held;
            if direction.stream.waits() {
                self.waiting.insert(flow);
                // Those that had to go from the table go from here, too, every now and then.
                if self.waiting.len() > self.directions.len() * 2 {
                    self.waiting.retain(|flow| self.directions.contains(flow));
                }
                return;
            }
        }
        self.waiting.remove(&flow);
    }
}

fn is_dplay(flow: Flow) -> bool {
    [flow.from.port(), flow.to.port()].iter().any(|port| TCP_PORTS.contains(port) || *port == QUERY_PORT)
}

fn tell(
    (flow, to): (Flow, Option<Process>),
    out: &Out<'_>,
    listener: &mut Option<u16>,
    each: &mut impl FnMut(Event<'_>),
) {
    each(match *out {
        Out::Message(bytes) => {
            if let Some((envelope, _)) = Envelope::parse(bytes) {
                *listener = Some(envelope.sender.port()).filter(|port| *port != 0);
            }
            Event::Message { flow, to, bytes }
        }
        Out::Lost => Event::Lost(flow),
        Out::Garbage => Event::Garbage(flow),
    });
}
