//! What a test and a test peer say to each other over HTTP, and how frames of one kind are told from another's.
//!
//! **Invariants.** A frame's number is unique per epoch, kind, sender and addressee, and without holes: what a receiver
//! lacks between 0 and what the sender sent is lost. Frames of another epoch are not counted at all, so a test begins by
//! raising the epoch everywhere and need not wait for the last frames of the test before.
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// What a frame looks like on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// 60 octets of the experimental Ethernet type, to all: not IP.
    Broadcast,
    /// The same, to one.
    Unicast,
    /// 1,514 octets, to one: the longest frame without tag that Ethernet carries.
    Full,
    /// ARP announcement, to all; the number is in the padding.
    Arp,
    /// UDP to port 2350 of one: DirectPlay's range.
    Udp,
    /// TCP, one segment, to port 2300 of one.
    Tcp,
    /// A DirectPlay session query to UDP port 47624 of all, which an observer understands.
    DirectPlay,
    /// IPX in Ethernet II, to all.
    IpxEthernetII,
    /// IPX in 802.3 without LLC, to all.
    IpxRaw,
    /// IPX in 802.3 with LLC, to all.
    IpxLlc,
    /// IPX in 802.3 with SNAP, to all.
    IpxSnap,
}

impl Kind {
    pub const ALL: [Self; 11] = [
        Self::Broadcast,
        Self::Unicast,
        Self::Full,
        Self::Arp,
        Self::Udp,
        Self::Tcp,
        Self::DirectPlay,
        Self::IpxEthernetII,
        Self::IpxRaw,
        Self::IpxLlc,
        Self::IpxSnap,
    ];

    /// Whether such a frame has one addressee; the others are for all.
    pub const fn is_unicast(self) -> bool {
        matches!(self, Self::Unicast | Self::Full | Self::Udp | Self::Tcp)
    }

    /// Below 16: it shares an octet with the epoch.
    pub fn number(self) -> u8 {
        let index = Self::ALL.iter().position(|kind| *kind == self).expect("ALL has all");
        u8::try_from(index).expect("there are 11")
    }

    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// Tells the frames of one test from those of the test before. Four bits go with each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(u8);

impl Epoch {
    /// Takes the number modulo 16.
    pub const fn new(number: u8) -> Self {
        Self(number & 0x0f)
    }

    /// The octet that a frame carries: kind below, epoch above.
    pub fn tag(self, kind: Kind) -> u8 {
        self.0 << 4 | kind.number()
    }

    /// The kind of a frame of this epoch; `None` for those of another.
    pub fn kind(self, tag: u8) -> Option<Kind> {
        (tag >> 4 == self.0).then(|| Kind::from_number(tag & 0x0f)).flatten()
    }
}

/// `POST /flows`: a stream of frames that begins now. It ends with `DELETE /flows`, or when `count` are sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    pub kind: Kind,
    /// The seat of the addressee; needed by kinds that have one, ignored by the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u8>,
    /// Frames a second.
    pub rate: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// `POST /reset`: all counts are 0 again, all flows end, and frames of another epoch are no longer counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    pub epoch: Epoch,
}

/// `GET /report`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub instance: String,
    pub epoch: Epoch,
    /// The agent's connection stands now.
    pub attached: bool,
    /// Times that an agent welcomed this peer.
    pub attachments: u32,
    /// Why it is not attached, as far as it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Absent before the first welcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// What the segment's DHCP gave; absent until it has acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    pub flows: usize,
    pub sent: Vec<Sent>,
    pub received: Vec<Received>,
    /// Frames without a number of this epoch: other machines' and the edge's.
    pub others: u64,
    /// Numbered frames whose addressee is another seat: what a hub would bring, and a switch should not.
    pub strays: u64,
}

/// What the agent said of the seat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub lan: String,
    pub seat: u8,
    pub mac: String,
    pub ip: Ipv4Addr,
    pub host_name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub ip: Ipv4Addr,
    pub server: Ipv4Addr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
}

/// Frames of one kind to one addressee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u8>,
    /// Frames that the tap took: their numbers are 0 to `frames` - 1.
    pub frames: u32,
    /// Frames that the tap refused; they have no number.
    pub refused: u32,
}

/// Frames of one kind from one sender, for this seat or for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    pub kind: Kind,
    pub sender: u8,
    /// Different numbers.
    pub frames: u32,
    /// Frames whose number had come before.
    pub doubled: u32,
    /// The highest number.
    pub last: u32,
    /// The longest time between two of them, in milliseconds.
    pub longest_gap_ms: u64,
}

/// Why two reports do not agree: one line for each kind that lacks or doubles frames. Empty = nothing lost.
pub fn losses(sender: &Report, receiver: &Report) -> Vec<String> {
    let (Some(from), Some(at)) = (&sender.port, &receiver.port) else {
        return vec![format!("{} or {} has no port", sender.instance, receiver.instance)];
    };
    let sent = sender.sent.iter().filter(|sent| !sent.kind.is_unicast() || sent.to == Some(at.seat));
    sent.filter_map(|sent| {
        let got = receiver.received.iter().find(|got| got.kind == sent.kind && got.sender == from.seat);
        let (frames, doubled) = got.map_or((0, 0), |got| (got.frames, got.doubled));
        (frames != sent.frames || doubled != 0).then(|| {
            format!(
                "{} to {}: {:?}: {} sent, {frames} arrived, {doubled} doubled",
                sender.instance, receiver.instance, sent.kind, sent.frames
            )
        })
    })
    .collect()
}

/// Frames that `receiver` lacks of `sender`'s, and how many it should have.
pub fn lost(sender: &Report, receiver: &Report) -> (u64, u64) {
    let (Some(from), Some(at)) = (&sender.port, &receiver.port) else { return (0, 0) };
    let sent = sender.sent.iter().filter(|sent| !sent.kind.is_unicast() || sent.to == Some(at.seat));
    sent.fold((0, 0), |(lost, all), sent| {
        let got = receiver.received.iter().find(|got| got.kind == sent.kind && got.sender == from.seat);
        let arrived = got.map_or(0, |got| got.frames);
        (lost + u64::from(sent.frames.saturating_sub(arrived)), all + u64::from(sent.frames))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_gives_its_kind_in_its_epoch_only() {
        for number in 0..=16 {
            let epoch = Epoch::new(number);
            for kind in Kind::ALL {
                assert_eq!(epoch.kind(epoch.tag(kind)), Some(kind));
                assert_eq!(Epoch::new(number + 1).kind(epoch.tag(kind)), None);
            }
        }
        assert_eq!(Epoch::new(3).kind(0x3f), None);
    }

    fn report(seat: u8) -> Report {
        let ip = Ipv4Addr::new(10, 98, 0, seat + 1);
        Report {
            instance: format!("peer-{seat}"),
            epoch: Epoch::new(1),
            attached: true,
            attachments: 1,
            problem: None,
            port: Some(Port { lan: "probe".into(), seat, mac: String::new(), ip, host_name: String::new() }),
            lease: None,
            flows: 0,
            sent: Vec::new(),
            received: Vec::new(),
            others: 0,
            strays: 0,
        }
    }

    #[test]
    fn every_frame_that_lacks_or_doubles_is_said() {
        let (mut a, mut b) = (report(0), report(1));
        let sent = |kind, to, frames| Sent { kind, to, frames, refused: 0 };
        a.sent = vec![sent(Kind::Broadcast, None, 5), sent(Kind::Unicast, Some(1), 4), sent(Kind::Unicast, Some(2), 9)];
        let got = |kind, frames, doubled| Received { kind, sender: 0, frames, doubled, last: 4, longest_gap_ms: 1 };
        b.received = vec![got(Kind::Broadcast, 5, 0), got(Kind::Unicast, 4, 0)];
        assert_eq!((losses(&a, &b), lost(&a, &b)), (vec![], (0, 9)));
        b.received = vec![got(Kind::Broadcast, 5, 1)];
        assert_eq!(
            losses(&a, &b),
            [
                "peer-0 to peer-1: Broadcast: 5 sent, 5 arrived, 1 doubled",
                "peer-0 to peer-1: Unicast: 4 sent, 0 arrived, 0 doubled"
            ]
        );
        assert_eq!(lost(&a, &b), (4, 9));
        a.port = None;
        assert_eq!(losses(&a, &b).len(), 1);
    }
}
