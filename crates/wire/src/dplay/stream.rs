//! Messages out of a TCP stream (protocols.md 1.7): several in a segment, one over many segments.
//!
//! ```text
//!           first 6 bytes are an envelope          whole message there
//!  Need(6) ------------------------------> Need(n) -------------------> Frame(n)
//!     ^                                                                     |
//!     +------ Resync(skip): they are not; leave out, look again <-----------+ what follows
//! ```
//!
//! **Invariant.** Which messages come out does not depend on how the stream was cut into segments.
use super::envelope::{ENVELOPE_LEN, NotAnEnvelope, begins};

/// What to do with the bytes of a stream that are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// Wait until there are this many bytes; always more than there are, at most [`super::MESSAGE_LEN_MAX`].
    Need(usize),
    /// The first `n` bytes are a message: give them to [`super::Packet::parse`].
    Frame(usize),
    /// The first `n` bytes (at least 1) are no message: leave them out and ask again.
    Resync(usize),
}

/// Looks at the start of what came over a TCP connection. Linear in the bytes it tells to leave out.
pub fn framing(bytes: &[u8]) -> Framing {
    match begins(bytes) {
        Ok(None) => Framing::Need(6),
        Ok(Some(size)) if size <= bytes.len() => Framing::Frame(size),
        Ok(Some(size)) => Framing::Need(size),
        Err(NotAnEnvelope) => {
            let next = (1..bytes.len()).find(|&at| bytes.get(at..).is_some_and(|rest| begins(rest).is_ok()));
            Framing::Resync(next.unwrap_or(bytes.len()))
        }
    }
}

/// Puts the messages of one direction of a TCP connection together, in `N` bytes.
///
/// **Full** cannot happen: a message longer than `N` is left out whole, as it comes, and counted. So is what is no
/// message.
#[derive(Clone)]
pub struct Reassembler<const N: usize> {
    buffer: [u8; N],
    len: usize,
    /// So many bytes of a message that is too long are still to come.
    skipping: usize,
    oversized: u32,
    garbage: u32,
}

impl<const N: usize> core::fmt::Debug for Reassembler<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Reassembler")
            .field("len", &self.len)
            .field("skipping", &self.skipping)
            .field("oversized", &self.oversized)
            .field("garbage", &self.garbage)
            .finish_non_exhaustive()
    }
}

impl<const N: usize> Default for Reassembler<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Reassembler<N> {
    /// Fails to compile for an `N` below 20, the shortest message.
    pub const fn new() -> Self {
        const { assert!(N >= ENVELOPE_LEN, "a message has 20 bytes at least") };
        Self { buffer: [0; N], len: 0, skipping: 0, oversized: 0, garbage: 0 }
    }

    /// Takes what arrived and hands every finished message, with its envelope, to `each`.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
        loop {
            let skip = self.skipping.min(bytes.len());
            self.skipping -= skip;
            bytes = bytes.get(skip..).unwrap_or(&[]);
            let room = self.buffer.get_mut(self.len..).unwrap_or(&mut []);
            let take = room.len().min(bytes.len());
            let (now, later) = bytes.split_at_checked(take).unwrap_or((bytes, &[]));
            for (place, byte) in room.iter_mut().zip(now) {
                *place = *byte;
            }
            self.len += take;
            bytes = later;
            if !self.step(&mut each) && bytes.is_empty() {
                return;
            }
        }
    }

    /// Does one thing with what is buffered; `false` when there is nothing to do without more bytes.
    fn step(&mut self, each: &mut impl FnMut(&[u8])) -> bool {
        let held = self.buffer.get(..self.len).unwrap_or(&[]);
        match framing(held) {
            Framing::Frame(size) => {
                each(held.get(..size).unwrap_or(held));
                self.drop_front(size);
                true
            }
            Framing::Resync(skip) => {
                self.garbage = self.garbage.saturating_add(u32::try_from(skip).unwrap_or(u32::MAX));
                self.drop_front(skip);
                skip > 0
            }
            Framing::Need(size) if size > N => {
                self.oversized = self.oversized.saturating_add(1);
                self.skipping = size - self.len;
                self.len = 0;
                true
            }
            Framing::Need(_) => false,
        }
    }

    fn drop_front(&mut self, count: usize) {
        let count = count.min(self.len);
        self.buffer.copy_within(count..self.len, 0);
        self.len -= count;
    }

    /// Messages left out because they are longer than `N`.
    pub const fn oversized(&self) -> u32 {
        self.oversized
    }

    /// Bytes left out because they are no message.
    pub const fn garbage(&self) -> u32 {
        self.garbage
    }
}
