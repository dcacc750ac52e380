//! pcapng: blocks of a type and a length each, in sections that have their own byte order and interfaces.
//!
//! A block whose frame is whole and whose content is not is passed over with [`ReadError::Block`]; one whose length cannot
//! be ends the file. Blocks that hold no packets are passed over without being held.
use std::{io::Read, time::Duration};

use super::{BLOCK_BYTES_MAX, INTERFACES_MAX, LinkType, ReadError, Record, Source};
use crate::bytes::{Cursor, Order};

/// Type of a Section Header Block: the same in both byte orders.
pub(super) const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const INTERFACE_DESCRIPTION: u32 = 1;
/// Obsolete, and still found in old files.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

const OPTION_END: u16 = 0;
const OPTION_TSRESOL: u16 = 9;
const OPTION_TSOFFSET: u16 = 14;

/// Bytes of a block around its body: type, length, and the length again.
const FRAME_BYTES: u32 = 12;
/// Type, length, byte-order magic, version, section length, and the length again.
const SECTION_HEADER_BYTES_MIN: u32 = 28;
const WHAT: &str = "a block";

/// What the blocks before said: of the section that is being read.
#[derive(Debug)]
pub(super) struct Section {
    order: Order,
    /// `None`: described by a block that could not be understood. The place is kept, for packets name them by index.
    interfaces: Vec<Option<Interface>>,
    /// Time of the last record, for those that have none.
    last: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Interface {
    link_type: LinkType,
    /// Bytes to which packets were cut; 0 if they were not.
    snap_len: u32,
    clock: Clock,
}

/// How an interface counts time.
#[derive(Debug, Clone, Copy)]
struct Clock {
    ticks_per_second: u64,
    offset_seconds: i64,
}

impl Section {
    /// `start`: where the block is whose type was read.
    pub(super) fn begin<R: Read>(source: &mut Source<R>, start: u64) -> Result<Self, ReadError> {
        const WHAT: &str = "a section's header";
        let len: [u8; 4] = source.array(start, WHAT)?;
        let order = match source.array(start, WHAT)? {
            [0x1a, 0x2b, 0x3c, 0x4d] => Order::Big,
            [0x4d, 0x3c, 0x2b, 0x1a] => Order::Little,
            _ => return Err(ReadError::Framing { at: start, what: "a section without its byte-order magic" }),
        };
        let len = order.u32(len);
        if len < SECTION_HEADER_BYTES_MIN {
            return Err(ReadError::Framing { at: start, what: "a section's header that is too short" });
        }
        let version = source.array::<4>(start, WHAT)?;
        // The minor version may grow (2 was used for 0 by some).
        if order.u16([version[0], version[1]]) != 1 {
            return Err(ReadError::Framing { at: start, what: "its version is not 1" });
        }
        // Section length, options: nothing that the blocks do not say themselves. Type, length, magic, version: 16 bytes.
        source.skip(start, len - 16 - 4, WHAT)?;
        closed(source, start, len, order)?;
        Ok(Self { order, interfaces: Vec::new(), last: Duration::ZERO })
    }

    /// The next packet, of this section or of one behind it.
    pub(super) fn next<R: Read>(&mut self, source: &mut Source<R>) -> Result<Option<Record>, ReadError> {
        loop {
            let start = source.at;
            let Some(kind) = source.array_or_end::<4>(WHAT)? else { return Ok(None) };
            if kind == SECTION_HEADER {
                let last = self.last;
                *self = Self { last, ..Self::begin(source, start)? };
                continue;
            }
            let kind = self.order.u32(kind);
            let len = self.order.u32(source.array(start, WHAT)?);
            if len < FRAME_BYTES || !len.is_multiple_of(4) {
                return Err(ReadError::Framing { at: start, what: "a length that no block can have" });
            }
            let body_len = len - FRAME_BYTES;
            if !matches!(kind, INTERFACE_DESCRIPTION | PACKET | SIMPLE_PACKET | ENHANCED_PACKET) {
                source.skip(start, body_len, WHAT)?;
                closed(source, start, len, self.order)?;
                continue;
            }
            if len > BLOCK_BYTES_MAX {
                return Err(ReadError::TooLong { at: start, len, what: WHAT });
            }
            let body = source.vec(start, body_len, WHAT)?;
            closed(source, start, len, self.order)?;
            let damaged = |what| ReadError::Block { at: start, what };
            let cursor = Cursor::new(&body, self.order);
            let record = match kind {
                INTERFACE_DESCRIPTION => {
                    if self.interfaces.len() >= INTERFACES_MAX {
                        return Err(ReadError::Framing { at: start, what: "more interfaces than are taken" });
                    }
                    let interface = interface(cursor);
                    self.interfaces.push(interface);
                    interface.ok_or_else(|| damaged("an interface whose description cannot be understood"))?;
                    continue;
                }
                SIMPLE_PACKET => self.simple(cursor),
                kind => self.enhanced(cursor, kind == PACKET),
            };
            let record = record.map_err(damaged)?;
            self.last = record.at;
            return Ok(Some(record));
        }
    }

    fn interface(&self, index: u32) -> Result<Interface, &'static str> {
        let interface = usize::try_from(index).ok().and_then(|index| self.interfaces.get(index));
        interface.copied().flatten().ok_or("a packet of an interface that was not described")
    }

    /// An Enhanced Packet Block (section 4.3), or the obsolete one that it replaced (appendix A): the index has 16 bits
    /// there, and a count of drops has the others.
    fn enhanced(&self, mut block: Cursor<'_>, obsolete: bool) -> Result<Record, &'static str> {
        const SHORT: &str = "a packet that is longer than its block";
        let index =
            if obsolete { block.u16().and_then(|index| block.u16().map(|_| index.into())) } else { block.u32() };
        let index = index.ok_or(SHORT)?;
        let mut word = || block.u32().ok_or(SHORT);
        let ticks = u64::from(word()?) << 32 | u64::from(word()?);
        let (len, wire_len) = (word()?, word()?);
        let interface = self.interface(index)?;
        let bytes = usize::try_from(len).ok().and_then(|len| block.take(len)).ok_or(SHORT)?;
        Ok(Record {
            at: interface.clock.time(ticks),
            wire_len: wire_len.max(len),
            link_type: interface.link_type,
            interface: index,
            bytes: bytes.to_vec(),
        })
    }

    /// A Simple Packet Block (section 4.4): of the first interface, without a time.
    fn simple(&self, mut block: Cursor<'_>) -> Result<Record, &'static str> {
        let interface = self.interface(0)?;
        let wire_len = block.u32().ok_or("a packet without a length")?;
        let cut = if interface.snap_len == 0 { wire_len } else { wire_len.min(interface.snap_len) };
        let bytes = usize::try_from(cut).ok().and_then(|len| block.take(len));
        let bytes = bytes.ok_or("a packet that is longer than its block")?.to_vec();
        Ok(Record { at: self.last, wire_len, link_type: interface.link_type, interface: 0, bytes })
    }
}

/// Reads a block's second length, which must be as the first.
fn closed<R: Read>(source: &mut Source<R>, start: u64, len: u32, order: Order) -> Result<(), ReadError> {
    if order.u32(source.array(start, WHAT)?) == len {
        Ok(())
    } else {
        Err(ReadError::Framing { at: start, what: "its two lengths differ" })
    }
}

/// An Interface Description Block (section 4.2). Options that are wrong or cut are as if they were not there: only
/// the two that the time depends on matter.
fn interface(mut block: Cursor<'_>) -> Option<Interface> {
    let link_type = LinkType(block.u16()?);
    let _reserved = block.u16()?;
    let snap_len = block.u32()?;
    let mut clock = Clock { ticks_per_second: 1_000_000, offset_seconds: 0 };
    while let (Some(code), Some(len)) = (block.u16(), block.u16()) {
        if code == OPTION_END {
            break;
        }
        let Some(value) = block.take_padded(len.into()) else { break };
        match (code, value) {
            (OPTION_TSRESOL, [resolution]) => clock.ticks_per_second = ticks_per_second(*resolution)?,
            (OPTION_TSOFFSET, value) => {
                if let Ok(value) = value.try_into() {
                    clock.offset_seconds = block.order().u64(value).cast_signed();
                }
            }
            _ => {}
        }
    }
    Some(Interface { link_type, snap_len, clock })
}

/// `if_tsresol`: a negative power of ten, or of two where the upper bit is set. `None` when no clock ticks that fast.
fn ticks_per_second(resolution: u8) -> Option<u64> {
    let power = u32::from(resolution & 0x7f);
    if resolution & 0x80 == 0 { 10_u64.checked_pow(power) } else { 2_u64.checked_pow(power) }
}

impl Clock {
    /// Since the epoch; what lies before it is at it.
    fn time(self, ticks: u64) -> Duration {
        let seconds = (ticks / self.ticks_per_second).saturating_add_signed(self.offset_seconds);
        let fraction = u128::from(ticks % self.ticks_per_second) * 1_000_000_000 / u128::from(self.ticks_per_second);
        // Less than a second's nanoseconds, for the remainder is less than a second's ticks.
        Duration::new(seconds, u32::try_from(fraction).unwrap_or(0))
    }
}
