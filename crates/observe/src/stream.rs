//! One direction of a TCP connection: segments in any order in, DirectPlay messages out (protocols.md 1.7).
//!
//! ```text
//!  segment ──in order──> feed ──> whole messages out; a rest waits in `buffer`
//!     └──ahead of a gap──> `ahead` ──gap closes──> feed
//!                             └──it stays open (time, bytes), or flush──> lost: the message that it cuts is left out,
//!                                 the next one is found by its size, or by the look of an envelope
//! ```
//! **Invariants.** Positions are of 64 bits and never wrap. Which messages come out does not depend on how the stream was
//! cut, on what was sent twice, or on an order that comes right before the gap is given up. `held` is at most
//! [`MESSAGE_LEN_MAX`] + one segment + the limit of what is ahead.
use std::{collections::BTreeMap, time::Duration};

use crate::fragments::PART;
use wire::{
    dplay::{Framing, MESSAGE_LEN_MAX, framing},
    tcp::Segment,
};

/// What came out of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Out<'a> {
    /// With its envelope.
    Message(&'a [u8]),
    /// Bytes that never came; the message around them is left out.
    Lost,
    /// Bytes that are no message, behind some that were.
    Garbage,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Stream {
    /// Position and sequence number of the next byte.
    next: Option<(u64, u32)>,
    buffer: Vec<u8>,
    /// So many bytes of a message that is left out are still to come.
    skipping: usize,
    /// By position.
    ahead: BTreeMap<u64, Vec<u8>>,
    ahead_bytes: usize,
    ahead_since: Duration,
    /// Position of the end, when it was announced.
    end: Option<u64>,
    /// A connection was seen to open, or a message was found: what is no message now is worth a word.
    synced: bool,
}

/// Positions begin here, so that what lies before the first segment has one, too.
const START: u64 = 1 << 32;
/// Farther away than any window of the time: another connection with the same ports.
const WINDOW: i64 = 1 << 24;
/// A buffer that was larger is given back when it is empty.
const KEEP: usize = 16 << 10;

impl Stream {
    /// A connection opens: `sequence` is that of its SYN.
    pub(crate) fn open(&mut self, sequence: u32) {
        let first = sequence.wrapping_add(1);
        // The same SYN again says nothing new.
        if self.next.is_some_and(|(position, next)| position == START && next == first) {
            return;
        }
        *self = Self { next: Some((START, first)), synced: true, ..Self::default() };
    }

    pub(crate) fn held(&self) -> usize {
        self.buffer.len() + self.ahead_bytes
    }

    /// All bytes up to the announced end came.
    pub(crate) fn is_at_end(&self) -> bool {
        self.end.is_some_and(|end| self.next.is_some_and(|(position, _)| position >= end))
    }

    /// Takes a segment; `fin`: it says that it is the last.
    pub(crate) fn segment(
        &mut self,
        (sequence, fin): (u32, bool),
        payload: &[u8],
        now: Duration,
        limits: (usize, Duration),
        each: &mut impl FnMut(Out<'_>),
    ) {
        if payload.is_empty() && !fin {
            return;
        }
        let (position, next) = *self.next.get_or_insert((START, sequence));
        // A signed distance: how far this segment is from what is expected.
        let distance = i64::from(sequence.wrapping_sub(next).cast_signed());
        if distance.abs() > WINDOW {
            *self = Self { next: Some((START, sequence)), ..Self::default() };
            return self.segment((sequence, fin), payload, now, limits, each);
        }
        let at = position.saturating_add_signed(distance);
        if fin {
            if self.ahead.is_empty() {
                self.ahead_since = now;
            }
            self.end = Some(at.saturating_add(payload.len() as u64));
        }
        if at <= position {
            let known = usize::try_from(position - at).unwrap_or(usize::MAX);
            if let Some(fresh) = payload.get(known..).filter(|fresh| !fresh.is_empty()) {
                self.advance(fresh, each);
            }
        } else if !payload.is_empty() {
            if self.ahead.is_empty() {
                self.ahead_since = now;
            }
            let kept = self.ahead.get(&at).map(Vec::len);
            if kept.is_none_or(|kept| kept < payload.len()) {
                self.ahead_bytes -= kept.map_or(0, |kept| kept + PART);
                self.ahead_bytes += payload.len() + PART;
                self.ahead.insert(at, payload.to_vec());
            }
        }
        self.join(each);
        let (bytes_max, gap_max) = limits;
        if self.ahead_bytes > bytes_max || !self.ahead.is_empty() && now.saturating_sub(self.ahead_since) > gap_max {
            self.give_up(now, each);
        }
    }

    /// The frames' time went on: a gap that is open for too long is given up.
    pub(crate) fn expire(&mut self, now: Duration, gap_max: Duration, each: &mut impl FnMut(Out<'_>)) {
        if !self.waits() || now.saturating_sub(self.ahead_since) <= gap_max {
            return;
        }
        if self.ahead.is_empty() { self.flush(now, each) } else { self.give_up(now, each) }
    }

    /// Nothing comes any more: all gaps are lost.
    pub(crate) fn flush(&mut self, now: Duration, each: &mut impl FnMut(Out<'_>)) {
        while !self.ahead.is_empty() {
            self.give_up(now, each);
        }
        if let (Some(end), Some((position, _))) = (self.end, self.next)
            && position < end
        {
            self.lose(end - position, each);
        }
    }

    /// Forgets what is held: there is no room for it.
    pub(crate) fn drop_held(&mut self) {
        if let Framing::Need(size) = framing(&self.buffer)
            && !self.buffer.is_empty()
        {
            self.skipping = size.saturating_sub(self.buffer.len());
        }
        self.buffer = Vec::new();
        self.ahead.clear();
        self.ahead_bytes = 0;
    }

    /// Bytes are known to be missing.
    pub(crate) fn waits(&self) -> bool {
        !self.ahead.is_empty() || self.end.is_some() && !self.is_at_end()
    }

    /// The receiver has bytes that did not come here, as it says by this acknowledgement.
    pub(crate) fn lacks(&self, acknowledgement: u32) -> bool {
        self.next.is_some_and(|(_, next)| acknowledgement.wrapping_sub(next).cast_signed() > 0)
    }

    /// The receiver has one byte more than there is, and no message is that short: it is the end, which did not come here.
    /// Answers whether it was taken for lost.
    pub(crate) fn take_end_for_lost(&mut self, acknowledgement: u32) -> bool {
        let Some((position, next)) = self.next else { return false };
        let between_messages = self.synced && self.held() == 0 && self.skipping == 0;
        if !between_messages || self.end.is_some() || acknowledgement != next.wrapping_add(1) {
            return false;
        }
        self.end = Some(position);
        true
    }

    /// Nothing is missing before this segment, nor in it.
    pub(crate) fn goes_on_at(&self, segment: &Segment<'_>) -> bool {
        self.next.is_none_or(|(_, next)| next == segment.next_sequence() || next == segment.sequence)
    }

    /// Takes in what is ahead and is not ahead any more.
    fn join(&mut self, each: &mut impl FnMut(Out<'_>)) {
        while let (Some((position, _)), Some(first)) = (self.next, self.ahead.first_entry()) {
            if *first.key() > position {
                break;
            }
            let known = usize::try_from(position - *first.key()).unwrap_or(usize::MAX);
            let payload = first.remove();
            self.ahead_bytes = self.ahead_bytes.saturating_sub(payload.len() + PART);
            if let Some(fresh) = payload.get(known..).filter(|fresh| !fresh.is_empty()) {
                self.advance(fresh, each);
            }
        }
    }

    /// The first gap is lost.
    fn give_up(&mut self, now: Duration, each: &mut impl FnMut(Out<'_>)) {
        if let (Some((position, _)), Some((&first, _))) = (self.next, self.ahead.first_key_value()) {
            self.lose(first.saturating_sub(position), each);
        }
        self.ahead_since = now;
        self.join(each);
    }

    fn lose(&mut self, gap: u64, each: &mut impl FnMut(Out<'_>)) {
        self.go_on(gap);
        let gap = usize::try_from(gap).unwrap_or(usize::MAX);
        // Of a message whose size is known, the end is known: what follows the gap may still be of it.
        if self.skipping == 0
            && !self.buffer.is_empty()
            && let Framing::Need(size) = framing(&self.buffer)
            && self.buffer.len() >= 6
        {
            self.skipping = size - self.buffer.len();
        }
        self.skipping = self.skipping.saturating_sub(gap);
        self.buffer.clear();
        each(Out::Lost);
    }

    fn go_on(&mut self, by: u64) {
        if let Some((position, sequence)) = &mut self.next {
            *position = position.saturating_add(by);
            // Sequence numbers count modulo 2^32.
            *sequence = sequence.wrapping_add((by & 0xffff_ffff) as u32);
        }
    }

    /// Takes the next bytes of the stream.
    fn advance(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Out<'_>)) {
        self.go_on(bytes.len() as u64);
        let skip = self.skipping.min(bytes.len());
        self.skipping -= skip;
        bytes = bytes.get(skip..).unwrap_or(&[]);
        if self.buffer.is_empty() {
            let rest = cut(bytes, &mut self.synced, each);
            self.buffer.extend_from_slice(rest);
        } else if !bytes.is_empty() {
            self.buffer.extend_from_slice(bytes);
            if matches!(framing(&self.buffer), Framing::Need(size) if size <= MESSAGE_LEN_MAX) {
                return;
            }
            let all = std::mem::take(&mut self.buffer);
            let rest = cut(&all, &mut self.synced, each);
            let start = all.len() - rest.len();
            self.buffer = all;
            self.buffer.drain(..start);
            if self.buffer.is_empty() && self.buffer.capacity() > KEEP {
                self.buffer = Vec::new();
            }
        }
    }
}

/// Hands out the messages at the start of `bytes` and answers the rest, which is not whole.
fn cut<'a>(mut bytes: &'a [u8], synced: &mut bool, each: &mut impl FnMut(Out<'_>)) -> &'a [u8] {
    while !bytes.is_empty() {
        let (taken, out) = match framing(bytes) {
            Framing::Need(_) => break,
            Framing::Frame(size) => {
                *synced = true;
                (size, Some(Out::Message(bytes.get(..size).unwrap_or(bytes))))
            }
            Framing::Resync(skip) => (skip, synced.then_some(Out::Garbage)),
        };
        if let Some(out) = out {
            each(out);
        }
        bytes = bytes.get(taken.max(1)..).unwrap_or(&[]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use wire::dplay::{Dialect, Id, Sender, UserMessage};

    use super::{Out, Stream};

    const LIMITS: (usize, Duration) = (1 << 18, Duration::from_secs(3));

    /// `count` user messages of growing length, and the stream that they make.
    fn messages(count: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
        let sender = Sender::new(2300, Dialect::DX6);
        let all: Vec<_> = (0..count)
            .map(|n| {
                let mut buffer = vec![0; 8192];
                let payload = vec![0x5a; n * 37 % 3000];
                let message = UserMessage { from: Id(u32::try_from(n).unwrap() + 1), to: Id(9), payload: &payload };
                let len = sender.user_guaranteed(&mut buffer, &message).unwrap();
                buffer.truncate(len);
                buffer
            })
            .collect();
        let stream = all.concat();
        (all, stream)
    }

    /// Whole messages, and how often something was lost.
    fn collect(stream: &mut Stream, segments: &[(u32, &[u8])], got: &mut Vec<Vec<u8>>) -> usize {
        let mut lost = 0;
        let mut each = |out: Out<'_>| match out {
            Out::Message(bytes) => got.push(bytes.to_vec()),
            Out::Lost | Out::Garbage => lost += 1,
        };
        for (sequence, payload) in segments {
            stream.segment((*sequence, false), payload, Duration::ZERO, LIMITS, &mut each);
        }
        stream.flush(Duration::ZERO, &mut each);
        lost
    }

    proptest! {
        /// Cut anywhere, sent twice, swapped with neighbours, and over the end of sequence numbers: the same messages.
        #[test]
        fn order_and_cuts_do_not_matter(
            cuts in proptest::collection::vec(1_usize..900, 1..60),
            shuffle in proptest::collection::vec(0_usize..8, 120),
            start in prop_oneof![Just(0_u32), Just(u32::MAX - 700), any::<u32>()],
        ) {
            let (want, bytes) = messages(12);
            let mut segments = Vec::new();
            let (mut at, mut sizes) = (0, cuts.iter().cycle());
            while at < bytes.len() {
                let end = (at + sizes.next().unwrap()).min(bytes.len());
                segments.push((start.wrapping_add(1).wrapping_add(u32::try_from(at).unwrap()), &bytes[at..end]));
                at = end;
            }
            for (index, by) in shuffle.iter().enumerate() {
                let other = (index + by).min(segments.len() - 1);
                if index < segments.len() {
                    segments.swap(index, other);
                    let twice = segments[other];
                    segments.insert(other, twice);
                }
            }
            let (mut stream, mut got) = (Stream::default(), Vec::new());
            stream.open(start);
            prop_assert_eq!(collect(&mut stream, &segments, &mut got), 0);
            prop_assert_eq!(got, want);
            prop_assert_eq!(stream.held(), 0);
        }

        /// One segment is lost: what it touches is missing, everything else is there.
        #[test]
        fn a_loss_costs_only_the_messages_it_touches(lost in 0_usize..30, size in 50_usize..1500) {
            let (want, bytes) = messages(12);
            let segments: Vec<_> = bytes
                .chunks(size)
                .enumerate()
                .map(|(n, chunk)| (1 + u32::try_from(n * size).unwrap(), chunk))
                .filter(|(sequence, _)| *sequence as usize != 1 + lost * size)
                .collect();
            let (mut stream, mut got) = (Stream::default(), Vec::new());
            stream.open(0);
            let noted = collect(&mut stream, &segments, &mut got);
            let (from, to) = (lost * size, (lost + 1) * size);
            let mut at = 0;
            let expected: Vec<_> = want
                .into_iter()
                .filter(|message| {
                    let (start, end) = (at, at + message.len());
                    at = end;
                    end <= from || start >= to
                })
                .collect();
            // Where the loss ends the stream nothing tells of it.
            prop_assert!(got == expected || from + size >= bytes.len(), "{} of {}", got.len(), expected.len());
            prop_assert!(noted > 0 || from + size >= bytes.len());
        }

        #[test]
        fn no_bytes_are_too_hostile(
            segments in proptest::collection::vec(
                (any::<u32>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..60),
        ) {
            let mut stream = Stream::default();
            for (sequence, fin, payload) in &segments {
                // Near each other, so that gaps are made and closed.
                stream.segment((sequence % 5000, *fin), payload, Duration::ZERO, (4096, LIMITS.1), &mut |_| {});
                prop_assert!(stream.held() <= (1 << 20) + 4096 + 300);
            }
            stream.flush(Duration::ZERO, &mut |_| {});
            prop_assert!(stream.ahead.is_empty() && stream.ahead_bytes == 0);
        }
    }
}
