//! What was counted, by the names that people know: instances and LANs, not numbers of devices.
use std::{
    collections::BTreeMap,
    fmt,
    ops::{AddAssign, Index},
};

use model::{InstanceId, LanName, MacAddr};
use wire::class::TrafficClass;

pub use crate::abi::Count;
use crate::abi::{CLASSES_MAX, Loss};

/// How the programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// Links of Linux 6.6: pinned, and replaced without a gap.
    Tcx,
    /// Filters of the `clsact` queue discipline: a replacement takes some frames' time in which nothing is counted.
    Clsact,
}

impl fmt::Display for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// Frames of one direction, by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassCounts(pub(crate) [Count; CLASSES_MAX]);

impl Index<TrafficClass> for ClassCounts {
    type Output = Count;

    fn index(&self, class: TrafficClass) -> &Count {
        self.0.get(class as usize).expect("the layout has room for every class")
    }
}

impl ClassCounts {
    /// The classes of which there was a frame.
    pub fn seen(&self) -> impl Iterator<Item = (TrafficClass, Count)> {
        TrafficClass::ALL.into_iter().map(|class| (class, self[class])).filter(|(_, count)| count.frames > 0)
    }

    pub fn total(&self) -> Count {
        let mut total = Count::default();
        self.0.iter().for_each(|count| total += *count);
        total
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.frames = self.frames.wrapping_add(other.frames);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

impl AddAssign<&Self> for Directions {
    fn add_assign(&mut self, other: &Self) {
        self.ingress += &other.ingress;
        self.egress += &other.egress;
    }
}

impl AddAssign<&Self> for ClassCounts {
    fn add_assign(&mut self, other: &Self) {
        for (mine, more) in self.0.iter_mut().zip(other.0) {
            *mine += more;
        }
    }
}

/// Both directions of one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Directions {
    /// Into the kernel: from the guest at a tap, from other nodes at a tunnel.
    pub ingress: ClassCounts,
    /// Out of the kernel: to the guest at a tap, to other nodes at a tunnel.
    pub egress: ClassCounts,
}

/// Frames between one port and one other card.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pair {
    pub from_guest: Count,
    /// Those to all among them.
    pub to_guest: Count,
    pub to_guest_broadcasts: u64,
}

/// One instance's port since the maps were made; a tap that was made anew goes on where the old one ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortReport {
    pub classes: Directions,
    /// By the other card; all ones is what the guest sent to all.
    pub pairs: BTreeMap<MacAddr, Pair>,
}

/// More other cards than this are not carried over when a tap is made anew: a LAN has hundreds, a forger has all.
pub(crate) const PAIRS_CARRIED_MAX: usize = 1024;

impl PortReport {
    /// Adds what an earlier tap of the same instance has counted.
    pub(crate) fn add(&mut self, earlier: &Self) {
        self.classes += &earlier.classes;
        for (peer, pair) in &earlier.pairs {
            if self.pairs.len() >= PAIRS_CARRIED_MAX && !self.pairs.contains_key(peer) {
                continue;
            }
            let mine = self.pairs.entry(*peer).or_default();
            mine.from_guest += pair.from_guest;
            mine.to_guest += pair.to_guest;
            mine.to_guest_broadcasts = mine.to_guest_broadcasts.wrapping_add(pair.to_guest_broadcasts);
        }
    }
}

/// Everything that is known now; published once a second.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// `None`: nothing is attached.
    pub attach: Option<Attach>,
    pub ports: BTreeMap<InstanceId, PortReport>,
    pub tunnels: BTreeMap<LanName, Directions>,
    /// Ingress: from clients of the IPX tunnel into the LAN.
    pub relays: BTreeMap<LanName, Directions>,
    /// Frames that the guard at an instance's tap dropped, by reason (`wire::guard::Refusal`); no entry: no guard is there.
    pub refused: BTreeMap<InstanceId, BTreeMap<&'static str, u64>>,
    /// Programs that somebody took off a device and that were put on again, since this agent started.
    pub repairs: u64,
    /// What could not be counted or shown, by reason; see [`Report::events_lost`].
    pub lost: BTreeMap<&'static str, u64>,
    /// Events that were handed over since this agent started.
    pub events: u64,
    /// Why not all is seen, with the remedy.
    pub problem: Option<String>,
}

/// Reasons for losses on this side of the ring, beside those of [`Loss`].
pub(crate) const LOST_CHANNEL: &str = "channel_full";
/// Events of devices that are no more: nobody knows whose they were.
pub(crate) const LOST_STALE: &str = "stale";

impl Report {
    /// Frames that were to be shown and were not.
    pub fn events_lost(&self) -> u64 {
        let uncounted = [Loss::NoRow.name(), Loss::NoPair.name()];
        self.lost.iter().filter(|(reason, _)| !uncounted.contains(reason)).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_made_anew_goes_on_counting() {
        let peer = MacAddr([2, 0, 0, 0, 0, 1]);
        let mut report = PortReport::default();
        report.classes.ingress.0[TrafficClass::Arp as usize] = Count { frames: 2, bytes: 120 };
        report.pairs.insert(peer, Pair { to_guest_broadcasts: 1, ..Pair::default() });
        let mut now = report.clone();
        now.add(&report);
        assert_eq!(now.classes.ingress[TrafficClass::Arp], Count { frames: 4, bytes: 240 });
        assert_eq!(now.classes.ingress.total().frames, 4);
        assert_eq!(now.classes.ingress.seen().count(), 1);
        assert_eq!(now.pairs[&peer].to_guest_broadcasts, 2);
    }

    #[test]
    fn what_was_counted_is_no_lost_event() {
        let lost = [("no_pair", 5), ("ring_full", 2), (LOST_CHANNEL, 1)].into();
        assert_eq!(Report { lost, ..Report::default() }.events_lost(), 3);
    }

    #[test]
    fn the_layout_has_room_for_every_class() {
        assert!(TrafficClass::ALL.len() <= CLASSES_MAX);
    }
}
