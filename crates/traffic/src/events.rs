//! Frames out of the ring: bytes of the kernel's to events.
use std::{
    collections::HashMap,
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use model::{InstanceId, LanName};
use nix::libc;
use wire::class::TrafficClass;

use crate::abi::{EGRESS, EVENT_HEADER_LEN, EventHeader};

/// Where a frame was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    FromGuest(Arc<InstanceId>),
    ToGuest(Arc<InstanceId>),
    /// It came from another node, in the LAN's tunnel.
    Overlay(Arc<LanName>),
    /// It came from a client of the LAN's IPX relay on this node.
    Relay(Arc<LanName>),
}

/// One frame that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Since the epoch.
    pub at: Duration,
    pub point: Point,
    pub class: TrafficClass,
    /// In bytes, without check sum.
    pub wire_len: u32,
    /// From the destination MAC on, up to 1,514.
    pub bytes: Box<[u8]>,
}

/// What a device is, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Port(Arc<InstanceId>),
    Tunnel(Arc<LanName>),
    Relay(Arc<LanName>),
}

impl Place {
    /// Name for pins: instances and LANs have separate ones. Both kinds of names hold nothing that bpffs refuses.
    pub(crate) fn word(&self) -> String {
        match self {
            Self::Port(instance) => format!("port_{instance}"),
            Self::Tunnel(lan) => format!("lan_{lan}"),
            Self::Relay(lan) => format!("relay_{lan}"),
        }
    }
}

/// Devices by their numbers.
pub(crate) type Places = HashMap<u32, Place>;

/// Takes a record apart. `None`: its device is none of ours any more, or the record is not one.
pub(crate) fn decode(record: &[u8], epoch_offset: Duration, places: &Places) -> Option<Event> {
    let (header, bytes) = header(record)?;
    let point = match (places.get(&header.ifindex)?, header.direction) {
        (Place::Port(instance), EGRESS) => Point::ToGuest(Arc::clone(instance)),
        (Place::Port(instance), _) => Point::FromGuest(Arc::clone(instance)),
        (Place::Tunnel(lan), _) => Point::Overlay(Arc::clone(lan)),
        (Place::Relay(lan), _) => Point::Relay(Arc::clone(lan)),
    };
    let frame = bytes.get(..usize::from(header.captured))?;
    let bytes = match frame.split_at_checked(12) {
        // The kernel took the tag out; on the wire it is behind the MACs (IEEE 802.1Q 9.3).
        Some((cards, rest)) if header.vlan_type != 0 => {
            [cards, &header.vlan_type.to_ne_bytes(), &header.vlan_tci.to_be_bytes(), rest].concat().into()
        }
        _ => frame.into(),
    };
    Some(Event {
        at: epoch_offset + Duration::from_nanos(header.at_ns),
        point,
        class: TrafficClass::from_index(header.class)?,
        wire_len: header.wire_len,
        bytes,
    })
}

fn header(record: &[u8]) -> Option<(EventHeader, &[u8])> {
    let (head, bytes) = record.split_first_chunk::<EVENT_HEADER_LEN>()?;
    let (at_ns, rest) = head.split_first_chunk::<8>()?;
    let (ifindex, rest) = rest.split_first_chunk::<4>()?;
    let (wire_len, rest) = rest.split_first_chunk::<4>()?;
    let &[c0, c1, direction, class, i0, i1, t0, t1] = rest.first_chunk::<8>()?;
    let header = EventHeader {
        at_ns: u64::from_ne_bytes(*at_ns),
        ifindex: u32::from_ne_bytes(*ifindex),
        wire_len: u32::from_ne_bytes(*wire_len),
        captured: u16::from_ne_bytes([c0, c1]),
        direction,
        class,
        vlan_tci: u16::from_ne_bytes([i0, i1]),
        vlan_type: u16::from_ne_bytes([t0, t1]),
    };
    Some((header, bytes))
}

/// What is to be added to `CLOCK_MONOTONIC` to get the time since the epoch.
pub(crate) fn epoch_offset() -> io::Result<Duration> {
    let mut monotonic = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec, which lives across the call.
    #[expect(unsafe_code, reason = "the kernel stamps with this clock, and std does not show it")]
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut monotonic) };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = |value: i64| u64::try_from(value).unwrap_or_default();
    let since_boot = Duration::from_secs(number(monotonic.tv_sec)) + Duration::from_nanos(number(monotonic.tv_nsec));
    Ok(now.saturating_sub(since_boot))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places() -> Places {
        let instance = Arc::new("instance-3".parse().unwrap());
        let lan = Arc::new("party".parse().unwrap());
        [(7, Place::Port(instance)), (8, Place::Tunnel(Arc::clone(&lan))), (10, Place::Relay(lan))].into()
    }

    /// A record as the kernel writes it, with room behind the frame.
    fn record(ifindex: u32, direction: u8, vlan_type: [u8; 2], frame: &[u8]) -> Vec<u8> {
        let mut record = 1_500_000_000_u64.to_ne_bytes().to_vec();
        record.extend(ifindex.to_ne_bytes());
        record.extend(1514_u32.to_ne_bytes());
        record.extend(u16::try_from(frame.len()).unwrap().to_ne_bytes());
        record.extend([direction, TrafficClass::Arp as u8]);
        record.extend(5_u16.to_ne_bytes());
        record.extend(vlan_type);
        record.extend(frame);
        record.resize(EVENT_HEADER_LEN + 96, 0xee);
        record
    }

    #[test]
    fn a_record_is_an_event_of_its_place() {
        let frame: Vec<u8> = (0..60).collect();
        let event =
            |ifindex, direction| decode(&record(ifindex, direction, [0; 2], &frame), Duration::from_secs(9), &places());
        let instance = Arc::new("instance-3".parse().unwrap());
        let from = event(7, 0).unwrap();
        assert_eq!(from.point, Point::FromGuest(Arc::clone(&instance)));
        assert_eq!((from.at, from.wire_len, &*from.bytes), (Duration::from_millis(10_500), 1514, &*frame));
        assert_eq!(event(7, 1).unwrap().point, Point::ToGuest(instance));
        assert!(matches!(event(8, 0).unwrap().point, Point::Overlay(_)));
        assert!(matches!(event(10, 0).unwrap().point, Point::Relay(_)));
        assert_eq!(event(9, 0), None, "a device that is gone");
    }

    #[test]
    fn a_tag_is_put_back_where_it_was() {
        let frame: Vec<u8> = (0..60).collect();
        let event = decode(&record(7, 0, [0x81, 0], &frame), Duration::ZERO, &places()).unwrap();
        assert_eq!(event.bytes[10..18], [10, 11, 0x81, 0, 0, 5, 12, 13]);
        assert_eq!(event.bytes.len(), 64);
    }

    #[test]
    fn the_clocks_meet() {
        let (before, after) = (epoch_offset().unwrap(), epoch_offset().unwrap());
        assert!(before.abs_diff(after) < Duration::from_secs(1), "{before:?} {after:?}");
        assert!(before > Duration::from_secs(1_700_000_000));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            decode(&bytes, Duration::ZERO, &places());
        }
    }
}
