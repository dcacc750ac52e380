//! What is on its way to one guest. Pure but for the sends.
//!
//! | state of the guest | a frame for it |
//! |---|---|
//! | its socket takes it | is there |
//! | the socket is full, its guest does not read just now | waits, and goes when there is room |
//! | nobody is plugged in yet, and its cable may come: the switch has just been started | waits |
//! | nobody is plugged in | goes nowhere, as on a cable without a card |
//! | so many wait already | is lost, and counted |
use std::{collections::VecDeque, rc::Rc, time::Duration};

use super::port::{FrameSocket, Sent};

/// Frames that wait for one guest, besides those in its socket. Full = the newest is lost and counted: an old one may be the answer
/// to a question, and the guest will ask for what came later again.
pub(super) const WAITING_MAX: usize = 1024;
/// A runner looks for its next agent five times a second, so its cable comes well within this time.
pub(super) const PLUG_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Outlet {
    waiting: VecDeque<Box<[u8]>>,
    /// Until when a guest that is not plugged in is expected.
    expected_until: Duration,
}

/// What became of a frame for a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gave {
    /// It is in the guest's socket.
    There,
    /// It waits; what waits must be driven by [`Outlet::drain`].
    Waits,
    Lost,
    /// Nobody is there.
    Nowhere,
}

impl Outlet {
    pub(super) fn new(now: Duration) -> Self {
        Self { waiting: VecDeque::new(), expected_until: now + PLUG_PATIENCE }
    }

    pub(super) fn give(&mut self, now: Duration, socket: Option<&FrameSocket>, frame: &[u8]) -> Gave {
        let Some(socket) = socket else {
            return if now < self.expected_until { self.wait(frame) } else { Gave::Nowhere };
        };
        // Behind those that wait: frames keep their order.
        if !self.waiting.is_empty() {
            return self.wait(frame);
        }
        match socket.send(frame) {
            Sent::Taken => Gave::There,
            Sent::Full => self.wait(frame),
            Sent::Gone => Gave::Nowhere,
        }
    }

    /// The guest is there: from now on it is expected no more once it goes.
    pub(super) fn plugged(&mut self) {
        self.expected_until = Duration::ZERO;
    }

    /// It has gone, and what waited for it is nobody's.
    pub(super) fn unplugged(&mut self) {
        self.waiting.clear();
    }

    /// Sends what waits, as far as there is room; how many bytes each had that went. `Full`: there is more.
    pub(super) fn drain(&mut self, socket: &FrameSocket, mut went: impl FnMut(usize)) -> Sent {
        while let Some(frame) = self.waiting.front() {
            match socket.send(frame) {
                Sent::Taken => {
                    went(frame.len());
                    self.waiting.pop_front();
                }
                other => return other,
            }
        }
        Sent::Taken
    }

    fn wait(&mut self, frame: &[u8]) -> Gave {
        if self.waiting.len() >= WAITING_MAX {
            return Gave::Lost;
        }
        self.waiting.push_back(frame.into());
        Gave::Waits
    }
}

/// The task that drives an [`Outlet`] is woken by this.
pub(super) type Wake = Rc<tokio::sync::Notify>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_waited_for_once_and_not_for_ever() {
        let mut outlet = Outlet::new(Duration::ZERO);
        let frame = [1; 60];
        assert_eq!(outlet.give(Duration::ZERO, None, &frame), Gave::Waits);
        assert_eq!(outlet.give(PLUG_PATIENCE, None, &frame), Gave::Nowhere);
        for _ in 1..WAITING_MAX {
            assert_eq!(outlet.give(Duration::ZERO, None, &frame), Gave::Waits);
        }
        assert_eq!(outlet.give(Duration::ZERO, None, &frame), Gave::Lost);
        outlet.plugged();
        assert_eq!(outlet.give(Duration::ZERO, None, &frame), Gave::Nowhere);
    }
}
