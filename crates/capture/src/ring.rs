//! The last seconds of every port of a node, in memory.
//!
//! ```text
//! frame -> masker -> ring of the port (bounded by age; by bytes together with the other ports) -> snapshot
//!                 └> followers (a bounded queue each; when one is full the frame is dropped for it and counted)
//! ```
//! **Invariants.** Pure: time comes with the frames. The rings hold at most [`Limits::bytes`], their own cost counted; when
//! that is full, the port that holds most loses its oldest frame, so that a loud guest does not cost a quiet one its past.
//! A snapshot tells what it covers: from when on nothing was thrown away. Passwords are zeroed before a frame is kept.
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{mask::Masker, write::Direction};

/// Frames that wait for one follower.
const FOLLOW_QUEUE_FRAMES: usize = 2048;
/// Times without capture that a port remembers.
const GAPS_MAX: usize = 16;
/// Cost of a frame beyond its octets: itself, the counts of its `Arc`, the allocator's share.
const FRAME_COST: usize = size_of::<Frame>() + 32;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of all ports together; 0: nothing is captured.
    pub bytes: usize,
    pub age: Duration,
}

/// One frame of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Since the epoch, by the kernel.
    pub at: Duration,
    pub direction: Direction,
    /// Octets that it had; `bytes` may be fewer.
    pub wire_len: u32,
    /// A password in it was made zero.
    pub is_masked: bool,
    pub bytes: Arc<[u8]>,
}

/// What a port holds, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub frames: Vec<Frame>,
    /// From here to `until`, all frames that the port had are in `frames`, but for gaps and what the kernel dropped.
    pub from: Duration,
    pub until: Duration,
    /// Frames from before `from` were there and had to go: for room, not for age.
    pub is_cut: bool,
    /// Times in which the port was not captured.
    pub gaps: Vec<(Duration, Duration)>,
    pub received: u64,
    pub dropped_by_system: u64,
}

/// Counts of one port since it was first captured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Held now, in memory.
    pub bytes: usize,
    pub received: u64,
    /// Frames that the kernel had no room for: this process was too slow.
    pub dropped_by_system: u64,
    /// Frames that followers were too slow for.
    pub dropped_by_followers: u64,
}

/// Frames as they come, from the moment of the snapshot that it came with.
#[derive(Debug)]
pub struct Follow {
    frames: mpsc::Receiver<Followed>,
    dropped: Arc<AtomicU64>,
}

/// A frame as a follower gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    pub frame: Frame,
    /// Frames that had to be dropped right before it, for the follower was too slow.
    pub dropped: u64,
}

impl Follow {
    /// Waits for frames and appends at most `limit` of them. 0: there will be no more.
    pub async fn receive(&mut self, frames: &mut Vec<Followed>, limit: usize) -> usize {
        self.frames.recv_many(frames, limit).await
    }

    /// Frames that were dropped because these were not taken fast enough, since the beginning; those that no frame has
    /// told yet are among them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The other end of a [`Follow`].
#[derive(Debug)]
struct Follower {
    frames: mpsc::Sender<Followed>,
    /// Dropped since the last one that went through.
    untold: u64,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Port {
    frames: VecDeque<Frame>,
    bytes: usize,
    masker: Masker,
    /// From here on nothing was thrown away.
    complete_from: Duration,
    was_cut: bool,
    /// When its tap went; `None` while it is there.
    gone_since: Option<Duration>,
    gaps: VecDeque<(Duration, Duration)>,
    followers: Vec<Follower>,
    counts: Counts,
}

impl Port {
    /// Throws the oldest frame away. Returns its cost.
    fn evict(&mut self, for_room: bool) -> Option<usize> {
        let frame = self.frames.pop_front()?;
        let cost = cost(&frame);
        self.bytes -= cost;
        self.complete_from = self.complete_from.max(frame.at + Duration::from_nanos(1));
        self.was_cut = for_room;
        Some(cost)
    }
}

fn cost(frame: &Frame) -> usize {
    frame.bytes.len() + FRAME_COST
}

/// All rings of a node, by the instance's id.
#[derive(Debug)]
pub struct Rings {
    limits: Limits,
    bytes: usize,
    ports: BTreeMap<String, Port>,
}

impl Rings {
    pub const fn new(limits: Limits) -> Self {
        Self { limits, bytes: 0, ports: BTreeMap::new() }
    }

    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// `port` is captured from now on.
    pub fn begin(&mut self, port: &str, now: Duration) {
        if let Some(known) = self.ports.get_mut(port) {
            if let Some(since) = known.gone_since.take() {
                if known.gaps.len() >= GAPS_MAX {
                    known.gaps.pop_front();
                }
                known.gaps.push_back((since, now));
            }
            return;
        }
        self.ports.insert(port.to_owned(), Port { complete_from: now, ..Port::default() });
    }

    /// `port` is not captured for now; what it holds stays until it is too old.
    pub fn pause(&mut self, port: &str, now: Duration) {
        if let Some(port) = self.ports.get_mut(port) {
            port.gone_since.get_or_insert(now);
        }
    }

    /// `port` is no more: its frames and counts go, and its followers' streams end.
    pub fn end(&mut self, port: &str) {
        if let Some(port) = self.ports.remove(port) {
            self.bytes -= port.bytes;
        }
    }

    /// Takes a frame in. `bytes` are masked in place first.
    pub fn push(&mut self, port: &str, at: Duration, direction: Direction, wire_len: u32, bytes: &mut [u8]) {
        let Some(ring) = self.ports.get_mut(port) else { return };
        ring.counts.received += 1;
        let is_masked = ring.masker.mask(bytes);
        let frame = Frame { at, direction, wire_len, is_masked, bytes: Arc::from(&*bytes) };
        let mut missed = 0;
        ring.followers.retain_mut(|follower| {
            match follower.frames.try_send(Followed { frame: frame.clone(), dropped: follower.untold }) {
                Ok(()) => follower.untold = 0,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    follower.untold += 1;
                    follower.dropped.fetch_add(1, Ordering::Relaxed);
                    missed += 1;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
            }
            true
        });
        ring.counts.dropped_by_followers += missed;
        let cost = cost(&frame);
        ring.bytes += cost;
        self.bytes += cost;
        ring.frames.push_back(frame);
        self.shrink();
    }

    /// Frames that the kernel dropped before they could be read.
    pub fn count_dropped_by_system(&mut self, port: &str, frames: u64) {
        if let Some(port) = self.ports.get_mut(port) {
            port.counts.dropped_by_system += frames;
            port.counts.received += frames;
        }
    }

    /// Throws away what is too old. To be called about once a second, for ports on which nothing comes.
    pub fn age(&mut self, now: Duration) {
        let oldest = now.saturating_sub(self.limits.age);
        for port in self.ports.values_mut() {
            while port.frames.front().is_some_and(|frame| frame.at < oldest) {
                self.bytes -= port.evict(false).unwrap_or(0);
            }
            port.gaps.retain(|(_, until)| *until >= oldest);
            port.followers.retain(|follower| !follower.frames.is_closed());
        }
    }

    fn shrink(&mut self) {
        while self.bytes > self.limits.bytes {
            let Some(largest) = self.ports.values_mut().max_by_key(|port| port.bytes) else { return };
            match largest.evict(true) {
                Some(cost) => self.bytes -= cost,
                None => return,
            }
        }
    }

    /// What `port` holds of the last `last`. `None`: it was never captured.
    pub fn snapshot(&self, port: &str, last: Option<Duration>, now: Duration) -> Option<Snapshot> {
        let port = self.ports.get(port)?;
        let wanted = now.saturating_sub(last.unwrap_or(self.limits.age).min(self.limits.age));
        let from = wanted.max(port.complete_from);
        let until = now.max(from);
        let mut gaps: Vec<_> = port.gaps.iter().copied().chain(port.gone_since.map(|since| (since, now))).collect();
        gaps.retain(|(_, until)| *until > from);
        Some(Snapshot {
            frames: port.frames.iter().filter(|frame| frame.at >= from).cloned().collect(),
            from,
            until,
            is_cut: port.was_cut && port.complete_from > wanted,
            gaps,
            received: port.counts.received,
            dropped_by_system: port.counts.dropped_by_system,
        })
    }

    /// As [`Self::snapshot`], and everything that comes after it, without a frame between lost or doubled.
    pub fn follow(&mut self, port: &str, last: Option<Duration>, now: Duration) -> Option<(Snapshot, Follow)> {
        let snapshot = self.snapshot(port, last, now)?;
        let (sender, frames) = mpsc::channel(FOLLOW_QUEUE_FRAMES);
        let dropped = Arc::new(AtomicU64::new(0));
        let follower = Follower { frames: sender, untold: 0, dropped: Arc::clone(&dropped) };
        self.ports.get_mut(port)?.followers.push(follower);
        Some((snapshot, Follow { frames, dropped }))
    }

    /// Ends the streams of all followers.
    pub fn end_followers(&mut self) {
        self.ports.values_mut().for_each(|port| port.followers.clear());
    }

    /// Bytes held by all ports.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn counts(&self) -> impl Iterator<Item = (&str, Counts)> {
        self.ports.iter().map(|(id, port)| (id.as_str(), Counts { bytes: port.bytes, ..port.counts }))
    }
}
