//! The LAN's side: frames of IPX in four framings, the relay's mark on them, and who uses which.
//!
//! **The mark.** Behind the packet, where padding stands, each frame of a relay ends with `LOCO` and the relay's id. Length
//! fields leave it out, so every receiver takes it for padding. It says two things: "mine, it came back" to the relay that
//! wrote it, and "not a station's own framing" to the other relays, which would else keep each other's choice alive for
//! ever. A frame that is too long for the mark goes without.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use wire::{MacAddr, frame::FrameFormat, ipx};

use crate::Framing;

pub(crate) const FORMATS: [FrameFormat; 4] =
    [FrameFormat::EthernetII, FrameFormat::Raw8023, FrameFormat::Llc, FrameFormat::Snap];
/// Where nobody was heard: Windows 98's own default.
const UNHEARD: FrameFormat = FrameFormat::Llc;
/// Longest frame without check sum, and its shortest: shorter ones are padded.
pub(crate) const FRAME_LEN_MAX: usize = 1514;
const FRAME_LEN_MIN: usize = 60;
const MAC_LEN: usize = 12;
const MARK_LEN: usize = 8;
const MARK: [u8; 4] = *b"LOCO";

/// How long a station counts after it was last heard.
const STATION_AGE: Duration = Duration::from_mins(10);
/// Full: the one that was silent longest goes.
const STATIONS_MAX: usize = 512;

/// What stands between the MACs and the packet: type or length, and LLC.
fn header(format: FrameFormat, packet_len: usize) -> Option<([u8; 10], usize)> {
    let (llc, len): ([u8; 8], usize) = match format {
        FrameFormat::EthernetII | FrameFormat::Raw8023 => ([0; 8], 0),
        FrameFormat::Llc => ([0xe0, 0xe0, 3, 0, 0, 0, 0, 0], 3),
        FrameFormat::Snap => ([0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0x37], 8),
    };
    let kind = match format {
        FrameFormat::EthernetII => 0x8137,
        _ => u16::try_from(packet_len.checked_add(len)?).ok()?,
    };
    let ([k0, k1], [a, b, c, d, e, f, g, h]) = (kind.to_be_bytes(), llc);
    Some(([k0, k1, a, b, c, d, e, f, g, h], len + 2))
}

/// Writes a frame with the mark of relay `id`, and answers its length; `None` where the packet is too long for the framing.
pub(crate) fn write(
    buffer: &mut [u8; FRAME_LEN_MAX],
    format: FrameFormat,
    (to, from): (MacAddr, MacAddr),
    packet: &[u8],
    id: u32,
) -> Option<usize> {
    let (header, header_len) = header(format, packet.len())?;
    let content = to.0.iter().chain(&from.0).chain(header.get(..header_len)?).chain(packet);
    let end = MAC_LEN + header_len + packet.len();
    if end > FRAME_LEN_MAX {
        return None;
    }
    // Some receivers of raw 802.3 want an even number of bytes; the length field leaves the odd one out.
    let marked = (end + MARK_LEN).max(FRAME_LEN_MIN).next_multiple_of(2);
    let mark = MARK.into_iter().chain(id.to_be_bytes());
    let len = if marked <= FRAME_LEN_MAX { marked } else { end };
    buffer.iter_mut().zip(content).for_each(|(place, byte)| *place = *byte);
    if len == marked {
        let padding = buffer.get_mut(end..len)?;
        padding.fill(0);
        padding.iter_mut().rev().take(MARK_LEN).rev().zip(mark).for_each(|(place, byte)| *place = byte);
    }
    Some(len)
}

/// The id of the relay that wrote the frame, by its mark.
pub(crate) fn mark_of(frame: &[u8], format: FrameFormat, packet: &ipx::Packet<'_>) -> Option<u32> {
    let packet_len = ipx::HEADER_LEN + packet.payload.len();
    let (_, header_len) = header(format, packet_len)?;
    let mark = frame.get(MAC_LEN + header_len + packet_len..)?.last_chunk::<MARK_LEN>()?;
    let ([a, b, c, d], id) = mark.split_first_chunk::<4>().map(|(mark, id)| (*mark, id))?;
    ([a, b, c, d] == MARK).then(|| id.first_chunk().map(|id| u32::from_be_bytes(*id))).flatten()
}

#[derive(Debug, Clone, Copy)]
struct Station {
    /// Of the IPX it speaks itself.
    format: Option<FrameFormat>,
    heard: Instant,
}

/// Who was heard on the LAN.
#[derive(Debug, Default)]
pub(crate) struct Stations {
    by_mac: BTreeMap<MacAddr, Station>,
    /// The last framing heard, also when its station has gone.
    last: Option<FrameFormat>,
}

impl Stations {
    /// Notes a frame's source, and its framing where it is the station's own.
    pub(crate) fn hear(&mut self, mac: MacAddr, format: Option<FrameFormat>, now: Instant) {
        if mac.is_group() {
            return;
        }
        self.last = format.or(self.last);
        if let Some(station) = self.by_mac.get_mut(&mac) {
            station.heard = now;
            station.format = format.or(station.format);
            return;
        }
        if self.by_mac.len() >= STATIONS_MAX
            && let Some(oldest) = self.by_mac.iter().min_by_key(|(_, station)| station.heard).map(|(mac, _)| *mac)
        {
            self.by_mac.remove(&oldest);
        }
        self.by_mac.insert(mac, Station { format, heard: now });
    }

    pub(crate) fn knows(&self, mac: MacAddr) -> bool {
        self.by_mac.contains_key(&mac)
    }

    pub(crate) fn age(&mut self, now: Instant) {
        self.by_mac.retain(|_, station| now.saturating_duration_since(station.heard) < STATION_AGE);
    }

    /// In which framings a frame for `to` goes out; `None` = to all. At least one, each once.
    pub(crate) fn formats(&self, framing: Framing, to: Option<MacAddr>) -> impl Iterator<Item = FrameFormat> {
        let known = match framing {
            Framing::Only(format) => Some(format),
            Framing::Auto => to.and_then(|mac| self.by_mac.get(&mac)?.format),
        };
        let in_use = FORMATS.map(|format| match known {
            Some(known) => known == format,
            None => self.by_mac.values().any(|station| station.format == Some(format)),
        });
        let none = !in_use.contains(&true);
        let fallback = self.last.unwrap_or(UNHEARD);
        FORMATS
            .into_iter()
            .zip(in_use)
            .filter(move |(format, used)| *used || (none && *format == fallback))
            .map(|(f, _)| f)
    }
}

#[cfg(test)]
mod tests {
    use wire::{
        frame::{Class, Frame},
        ipx::{Address, Packet},
    };

    use super::*;

    const GUEST: MacAddr = MacAddr([2, 0x4c, 0, 0x10, 0x68, 0]);
    const CLIENT: MacAddr = MacAddr([10, 0, 0, 9, 0x80, 1]);

    fn packet(payload: &[u8]) -> Vec<u8> {
        let node = |node| Address { network: 0, node, socket: 0x5100 };
        let (destination, source) = (node(GUEST), node(CLIENT));
        let mut buffer = vec![0; 2000];
        let packet = Packet { checksum: 0xffff, hops: 0, packet_type: 4, destination, source, payload };
        let len = packet.write(&mut buffer).unwrap();
        buffer.truncate(len);
        buffer
    }

    #[test]
    fn a_frame_reads_back_in_each_framing_with_its_mark() {
        for format in FORMATS {
            for len in (0..80).chain(1400..=1500 - 30) {
                let (payload, mut buffer) = (vec![0x55; len], [0xee; FRAME_LEN_MAX]);
                let packet = packet(&payload);
                let Some(written) = write(&mut buffer, format, (GUEST, CLIENT), &packet, 0x0102_0304) else {
                    assert!(packet.len() > 1492, "{format:?} takes {}", packet.len());
                    continue;
                };
                let bytes = &buffer[..written];
                assert!(written >= FRAME_LEN_MIN);
                let frame = Frame::parse(bytes).unwrap();
                assert_eq!((frame.destination, frame.source, frame.class), (GUEST, CLIENT, Class::Ipx(format)));
                let read = frame.ipx().unwrap();
                assert_eq!(read.payload, payload);
                let fits = packet.len() <= 1480;
                let mark = mark_of(bytes, format, &read);
                assert!(mark == Some(0x0102_0304) || !fits, "{format:?} {len}");
                assert!(written % 2 == 0 || !fits);
            }
        }
    }

    #[test]
    fn a_payload_that_looks_like_the_mark_is_none() {
        let mut buffer = [0; FRAME_LEN_MAX];
        let packet = packet(&[&[0; 1440], b"LOCO\0\0\0\x07".as_slice()].concat());
        let len = write(&mut buffer, FrameFormat::Llc, (GUEST, CLIENT), &packet, 9).unwrap();
        let end = len - MARK_LEN;
        let read = Frame::parse(&buffer[..end]).unwrap().ipx().unwrap();
        assert_eq!(mark_of(&buffer[..end], FrameFormat::Llc, &read), None);
    }

    #[test]
    fn packets_that_no_frame_takes_are_refused() {
        let mut buffer = [0; FRAME_LEN_MAX];
        for (format, max) in [
            (FrameFormat::EthernetII, 1500),
            (FrameFormat::Raw8023, 1500),
            (FrameFormat::Llc, 1497),
            (FrameFormat::Snap, 1492),
        ] {
            let packet = packet(&vec![0; 1471]);
            assert!(write(&mut buffer, format, (GUEST, CLIENT), &packet[..max], 0).is_some());
            assert_eq!(write(&mut buffer, format, (GUEST, CLIENT), &packet[..=max], 0), None);
        }
    }

    #[track_caller]
    fn formats(stations: &Stations, framing: Framing, to: Option<MacAddr>, want: &[FrameFormat]) {
        assert_eq!(stations.formats(framing, to).collect::<Vec<_>>(), want);
    }

    #[test]
    fn framings_follow_what_is_heard() {
        let (start, mut stations) = (Instant::now(), Stations::default());
        let [guest, other] = [GUEST, MacAddr([2, 0x4c, 0, 0x10, 0x68, 1])];
        formats(&stations, Framing::Auto, None, &[FrameFormat::Llc]);
        stations.hear(guest, Some(FrameFormat::Raw8023), start);
        formats(&stations, Framing::Auto, None, &[FrameFormat::Raw8023]);
        stations.hear(other, Some(FrameFormat::EthernetII), start + STATION_AGE / 2);
        formats(&stations, Framing::Auto, None, &[FrameFormat::EthernetII, FrameFormat::Raw8023]);
        formats(&stations, Framing::Auto, Some(guest), &[FrameFormat::Raw8023]);
        formats(&stations, Framing::Auto, Some(CLIENT), &[FrameFormat::EthernetII, FrameFormat::Raw8023]);
        formats(&stations, Framing::Only(FrameFormat::Snap), Some(guest), &[FrameFormat::Snap]);
        // A guest that also speaks IP keeps its framing of IPX.
        stations.hear(other, None, start + STATION_AGE / 2);
        stations.age(start + STATION_AGE);
        formats(&stations, Framing::Auto, None, &[FrameFormat::EthernetII]);
        stations.age(start + STATION_AGE * 2);
        formats(&stations, Framing::Auto, None, &[FrameFormat::EthernetII]);
    }

    #[test]
    fn the_table_of_stations_is_bounded() {
        let (start, mut stations) = (Instant::now(), Stations::default());
        for n in 0..5000_u32 {
            let [_, a, b, c] = n.to_be_bytes();
            stations.hear(MacAddr([2, 0, 0, a, b, c]), None, start + Duration::from_millis(n.into()));
        }
        assert_eq!(stations.by_mac.len(), STATIONS_MAX);
        assert!(stations.knows(MacAddr([2, 0, 0, 0, 0x13, 0x87])) && !stations.knows(MacAddr([2, 0, 0, 0, 0, 0])));
    }
}
