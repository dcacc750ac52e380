//! Writing pcapng (draft-ietf-opsawg-pcapng): the blocks that a capture of ports needs, in little-endian byte order.
//!
//! Each function appends whole blocks, so a file that is cut between two calls is whole. Times are nanoseconds.
use std::time::Duration;

use crate::read::LinkType;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

const OPTION_COMMENT: u16 = 1;
/// Longest text of an option that is written. The format has room for 65,535; nobody reads that.
const TEXT_BYTES_MAX: usize = 1024;

/// Which way a frame went, from the point of view of the interface it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the interface's owner: to the guest.
    Inbound,
    /// From the interface's owner: from the guest.
    Outbound,
}

/// What a section says of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Section<'a> {
    /// The program that wrote it, with its version.
    pub application: &'a str,
    pub comments: &'a [String],
}

/// What an interface says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Interface<'a> {
    pub name: &'a str,
    pub description: &'a str,
    pub mac: Option<[u8; 6]>,
    /// Octets to which frames are cut.
    pub snap_len: u32,
}

/// One frame, Ethernet.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Index of its interface, in the order in which they were described.
    pub interface: u32,
    /// Since the epoch.
    pub at: Duration,
    pub direction: Direction,
    pub wire_len: u32,
    pub bytes: &'a [u8],
    /// Frames lost between the one before and this one.
    pub dropped: u64,
    pub comments: &'a [String],
}

/// What is known of an interface when the capture ends.
#[derive(Debug, Clone, Copy, Default)]
pub struct Statistics<'a> {
    pub interface: u32,
    /// When the capture ended, since the epoch.
    pub at: Duration,
    /// First and last time that the capture covers.
    pub start: Duration,
    pub end: Duration,
    /// Frames that the interface had since it is captured.
    pub received: u64,
    /// Of them, those that the kernel could not hand over.
    pub dropped_by_system: u64,
    /// Frames in this file.
    pub delivered: u64,
    pub comments: &'a [String],
}

pub fn section(out: &mut Vec<u8>, section: &Section<'_>) {
    block(out, SECTION_HEADER, |out| {
        out.extend(BYTE_ORDER_MAGIC.to_le_bytes());
        out.extend(1_u16.to_le_bytes());
        out.extend(0_u16.to_le_bytes());
        // Length of the section: not known.
        out.extend(u64::MAX.to_le_bytes());
        comments(out, section.comments);
        text(out, 3, std::env::consts::OS);
        text(out, 4, section.application);
        end_of_options(out);
    });
}

pub fn interface(out: &mut Vec<u8>, interface: &Interface<'_>) {
    block(out, INTERFACE_DESCRIPTION, |out| {
        out.extend(LinkType::ETHERNET.0.to_le_bytes());
        out.extend(0_u16.to_le_bytes());
        out.extend(interface.snap_len.to_le_bytes());
        text(out, 2, interface.name);
        text(out, 3, interface.description);
        if let Some(mac) = interface.mac {
            option(out, 6, &mac);
        }
        // 10^-9 seconds.
        option(out, 9, &[9]);
        end_of_options(out);
    });
}

pub fn packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    block(out, ENHANCED_PACKET, |out| {
        out.extend(packet.interface.to_le_bytes());
        timestamp(out, packet.at);
        let len = u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX);
        out.extend(len.to_le_bytes());
        out.extend(packet.wire_len.max(len).to_le_bytes());
        out.extend(packet.bytes);
        pad(out, packet.bytes.len());
        comments(out, packet.comments);
        // Section 4.3.1: bits 0-1 are 01 inbound, 10 outbound.
        let flags: u32 = match packet.direction {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        };
        option(out, 2, &flags.to_le_bytes());
        if packet.dropped > 0 {
            option(out, 4, &packet.dropped.to_le_bytes());
        }
        end_of_options(out);
    });
}

pub fn statistics(out: &mut Vec<u8>, statistics: &Statistics<'_>) {
    block(out, INTERFACE_STATISTICS, |out| {
        out.extend(statistics.interface.to_le_bytes());
        timestamp(out, statistics.at);
        comments(out, statistics.comments);
        for (code, time) in [(2, statistics.start), (3, statistics.end)] {
            let mut value = Vec::with_capacity(8);
            timestamp(&mut value, time);
            option(out, code, &value);
        }
        for (code, count) in [(4, statistics.received), (7, statistics.dropped_by_system), (8, statistics.delivered)] {
            option(out, code, &count.to_le_bytes());
        }
        end_of_options(out);
    });
}

/// How many of `bytes`, which begin with a block of ours, are whole blocks: what may be written so that the file is whole.
/// `None`: these are not blocks.
pub fn whole_blocks(bytes: &[u8]) -> Option<usize> {
    let mut whole = 0;
    while let Some(len) = bytes.get(whole + 4..).and_then(<[u8]>::first_chunk::<4>) {
        let len = usize::try_from(u32::from_le_bytes(*len)).ok().filter(|len| *len >= 12 && len.is_multiple_of(4))?;
        match whole.checked_add(len).filter(|end| *end <= bytes.len()) {
            Some(end) => whole = end,
            None => break,
        }
    }
    Some(whole)
}

fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    let len = u32::try_from(out.len() - start + 4).expect("a frame and some texts").to_le_bytes();
    out.extend(len);
    if let Some(place) = out.get_mut(start + 4..start + 8) {
        place.copy_from_slice(&len);
    }
}

/// Two words, the upper first, whatever the byte order.
fn timestamp(out: &mut Vec<u8>, at: Duration) {
    let nanoseconds = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX).to_le_bytes();
    let [a, b, c, d, upper @ ..] = nanoseconds;
    out.extend(upper);
    out.extend([a, b, c, d]);
}

fn comments(out: &mut Vec<u8>, comments: &[String]) {
    for comment in comments {
        text(out, OPTION_COMMENT, comment);
    }
}

fn text(out: &mut Vec<u8>, code: u16, text: &str) {
    option(out, code, text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default().as_bytes());
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend(code.to_le_bytes());
    out.extend(u16::try_from(value.len()).expect("numbers, and texts that were cut").to_le_bytes());
    out.extend(value);
    pad(out, value.len());
}

fn end_of_options(out: &mut Vec<u8>) {
    option(out, 0, &[]);
}

fn pad(out: &mut Vec<u8>, len: usize) {
    out.resize(out.len() + len.next_multiple_of(4) - len, 0);
}
