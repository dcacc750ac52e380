//! Whether another node is there, asked over the LAN's own tunnel: what a question met, a game's frame would meet.
//!
//! ```text
//!  ask(now) ── number ──> frame to the other node's bridge ──> answer: the same, turned around
//!     every 300 ms              └─ 3 in a row without an answer: not alive; one answer: alive
//! ```
//! A question is an Ethernet frame of the local experimental type (IEEE 802 Table 10), padded to the length that is
//! asked about: 1514 octets prove that a full frame gets through. Time is an argument; frames are the caller's to send.
use std::time::Duration;

use model::MacAddr;
use wire::probe::{ANSWER, ASK, ETHERTYPE, LEN, MAGIC};

/// How often a node is asked.
pub const INTERVAL: Duration = Duration::from_millis(300);
/// So many questions in a row without an answer mean that the node is away.
pub const MISSES_MAX: u32 = 3;
/// Every so many questions there is one of full length as well.
const FULL_EVERY: u32 = 10;
/// Marks the numbers of full questions: the two books count for themselves.
const FULL: u32 = 1 << 31;
/// Questions over which loss is told: the last 20 s.
const WINDOW: u32 = 64;

/// The longest frame of the LAN, without check sum: what is asked now and then, to prove that it gets through.
pub const FULL_LEN: usize = 1514;

/// A question or its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    pub to: MacAddr,
    pub from: MacAddr,
    pub is_answer: bool,
    pub number: u32,
}

impl Probe {
    /// As a frame of `len` octets without check sum, at least the 60 of the shortest on a cable.
    pub fn frame(&self, len: usize) -> Vec<u8> {
        let mut frame = Vec::with_capacity(len.max(60));
        frame.extend(self.to.0);
        frame.extend(self.from.0);
        frame.extend(ETHERTYPE);
        frame.extend(MAGIC);
        frame.extend([if self.is_answer { ANSWER } else { ASK }, 0, 0, 0]);
        frame.extend(self.number.to_be_bytes());
        frame.resize(len.max(60), 0);
        frame
    }

    /// `None`: not one of these.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let head = frame.first_chunk::<LEN>()?;
        let (to, rest) = head.split_first_chunk::<6>()?;
        let (from, rest) = rest.split_first_chunk::<6>()?;
        let (kind, rest) = rest.split_first_chunk::<2>()?;
        let (magic, rest) = rest.split_first_chunk::<4>()?;
        let (&[what, _, _, _], number) = rest.split_first_chunk::<4>()?;
        let number = u32::from_be_bytes(*number.first_chunk()?);
        let is_answer = match what {
            ASK => false,
            ANSWER => true,
            _ => return None,
        };
        (*kind == ETHERTYPE && *magic == MAGIC).then_some(Self {
            to: MacAddr(*to),
            from: MacAddr(*from),
            is_answer,
            number,
        })
    }

    /// What goes back to the asker.
    #[must_use]
    pub const fn answer(&self) -> Self {
        Self { to: self.from, from: self.to, is_answer: true, number: self.number }
    }
}

/// What is known about one node in one LAN, from short questions and from full ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    turn: u32,
    pub small: Liveness,
    pub full: Liveness,
}

impl Book {
    /// The questions that go out now: their numbers and lengths.
    pub fn ask(&mut self, now: Duration) -> impl Iterator<Item = (u32, usize)> + use<> {
        let small = (self.small.ask(now), 0);
        let full = self.turn.is_multiple_of(FULL_EVERY).then(|| (self.full.ask(now) | FULL, FULL_LEN));
        self.turn = self.turn.wrapping_add(1);
        std::iter::once(small).chain(full)
    }

    /// An answer came.
    pub fn hear(&mut self, number: u32, now: Duration) {
        if number & FULL != 0 {
            self.full.hear(number & !FULL, now);
        } else {
            self.small.hear(number, now);
        }
    }
}

/// How the answers to one kind of questions come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Liveness {
    number: u32,
    /// When the open question went out.
    open: Option<Duration>,
    missed: u32,
    rtt: Option<Duration>,
    /// One bit a question, the newest lowest: 1 was answered.
    answered: u64,
}

impl Liveness {
    /// A question goes out now: its number. One that is still open counts as missed.
    pub fn ask(&mut self, now: Duration) -> u32 {
        if self.open.replace(now).is_some() {
            self.missed = self.missed.saturating_add(1);
        }
        if self.number > 0 {
            self.answered <<= 1;
        }
        self.number = self.number.checked_add(1).unwrap_or(1);
        self.number
    }

    /// An answer came. One to another question than the open one is late or made up, and counts for nothing.
    pub fn hear(&mut self, number: u32, now: Duration) {
        if number != self.number {
            return;
        }
        let Some(asked) = self.open.take() else { return };
        self.rtt = Some(now.saturating_sub(asked));
        self.missed = 0;
        self.answered |= 1;
    }

    /// `None` until it is known: before the first answer, and before as many questions went unanswered.
    pub const fn is_alive(&self) -> Option<bool> {
        if self.missed >= MISSES_MAX {
            Some(false)
        } else if self.rtt.is_some() {
            Some(true)
        } else {
            None
        }
    }

    /// Of the last question that was answered.
    pub const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Share of the last questions (64 at most) that were not answered, the open one left out; 0 to 1. `None` before the first.
    pub fn loss(&self) -> Option<f64> {
        // The newest bit is the open question's: not judged yet.
        let open = u32::from(self.open.is_some());
        let asked = self.number.saturating_sub(open).min(WINDOW - open);
        let judged = self.answered.checked_shr(open).unwrap_or(0);
        let mask = if asked >= u64::BITS { u64::MAX } else { (1 << asked) - 1 };
        let heard = (judged & mask).count_ones();
        (asked > 0).then(|| 1.0 - f64::from(heard) / f64::from(asked))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: Duration = Duration::from_secs(100);

    #[test]
    fn an_answer_is_the_question_turned_around() {
        let probe = Probe { to: MacAddr([6; 6]), from: MacAddr([7; 6]), is_answer: false, number: 9 };
        for len in [0, 60, 1514] {
            let frame = probe.frame(len);
            assert_eq!((frame.len(), Probe::parse(&frame)), (len.max(60), Some(probe)));
        }
        let answer = probe.answer();
        assert_eq!((answer.to, answer.from, answer.is_answer, answer.number), (probe.from, probe.to, true, 9));
        assert_eq!(Probe::parse(&[0; 60]), None);
    }

    #[test]
    fn three_misses_in_a_row_are_away_and_one_answer_is_back() {
        let mut book = Liveness::default();
        assert_eq!(book.is_alive(), None);
        let first = book.ask(T);
        book.hear(first, T + Duration::from_millis(2));
        assert_eq!((book.is_alive(), book.rtt()), (Some(true), Some(Duration::from_millis(2))));
        for _ in 0..3 {
            book.ask(T);
            assert_eq!(book.is_alive(), Some(true));
        }
        let last = book.ask(T);
        assert_eq!(book.is_alive(), Some(false));
        book.hear(last - 1, T);
        assert_eq!(book.is_alive(), Some(false), "late");
        book.hear(last, T);
        assert_eq!(book.is_alive(), Some(true));
        assert_eq!(book.loss(), Some(3.0 / 5.0));
    }

    #[test]
    fn a_node_that_never_answered_is_away_after_three_misses() {
        let mut book = Liveness::default();
        for _ in 0..3 {
            book.ask(T);
        }
        assert_eq!((book.is_alive(), book.loss()), (None, Some(1.0)));
        book.ask(T);
        assert_eq!(book.is_alive(), Some(false));
    }

    #[test]
    fn full_frames_have_answers_of_their_own() {
        let mut book = Book::default();
        for turn in 0..40 {
            let questions: Vec<_> = book.ask(T).collect();
            assert_eq!(questions.iter().any(|(_, len)| *len == FULL_LEN), turn % 10 == 0, "{questions:?}");
            // Only the short ones get through.
            questions.iter().filter(|(_, len)| *len < FULL_LEN).for_each(|(number, _)| book.hear(*number, T));
        }
        assert_eq!((book.small.is_alive(), book.full.is_alive()), (Some(true), Some(false)));
        let questions: Vec<_> = book.ask(T).collect();
        for (number, _) in &questions {
            book.hear(*number, T);
        }
        assert_eq!(book.full.is_alive(), Some(true));
    }

    proptest! {
        #[test]
        fn loss_is_the_share_of_unanswered_questions(heard in proptest::collection::vec(any::<bool>(), 1..200)) {
            let mut book = Liveness::default();
            for answered in &heard {
                let number = book.ask(T);
                if *answered {
                    book.hear(number, T);
                }
            }
            let judged = if heard.last() == Some(&false) { &heard[..heard.len() - 1] } else { &heard[..] };
            let newest = &judged[judged.len().saturating_sub(if judged.len() == heard.len() { 64 } else { 63 })..];
            let lost = newest.iter().filter(|answered| !**answered).count();
            let count = |count: usize| f64::from(u32::try_from(count).unwrap());
            let want = (!newest.is_empty()).then(|| count(lost) / count(newest.len()));
            let close = match (book.loss(), want) {
                (Some(loss), Some(want)) => (loss - want).abs() < 1e-9,
                (loss, want) => loss == want,
            };
            prop_assert!(close);
        }

        #[test]
        fn any_bytes_are_parsed(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(probe) = Probe::parse(&bytes) {
                prop_assert_eq!(&probe.frame(bytes.len())[18], &bytes[18]);
            }
        }
    }
}
