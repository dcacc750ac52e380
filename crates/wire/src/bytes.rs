//! Checked reading and writing of fields: the only place where lengths and offsets are computed. Little-endian unless
//! the method's name says `be`.
//!
//! **Invariants.** [`Reader`] answers `None` past the end. [`Writer`] remembers that something did not fit and says so
//! once, in [`Writer::finish`]; until then it drops what does not fit, so that builders need no error path per field.
use core::net::Ipv4Addr;

use crate::MacAddr;

/// What stands before the first zero byte, or all.
pub(crate) fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(bytes)
}

/// Reads fields one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn be_u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn be_u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn mac(&mut self) -> Option<MacAddr> {
        self.array().map(MacAddr)
    }

    pub(crate) fn ipv4(&mut self) -> Option<Ipv4Addr> {
        self.array().map(Ipv4Addr::from_octets)
    }

    /// A `u32` that counts something in memory.
    pub(crate) fn len(&mut self) -> Option<usize> {
        usize::try_from(self.u32()?).ok()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(head)
    }

    /// Leaves out `count` bytes, or what there is.
    pub(crate) fn skip(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or(&[]);
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// Writes fields one after the other into a slice of the caller.
#[derive(Debug)]
pub(crate) struct Writer<'b> {
    buffer: &'b mut [u8],
    len: usize,
    /// Where offsets inside the message count from.
    origin: usize,
    failed: bool,
}

impl<'b> Writer<'b> {
    pub(crate) const fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, len: 0, origin: 0, failed: false }
    }

    /// Offsets count from here on.
    pub(crate) const fn set_origin(&mut self) {
        self.origin = self.len;
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        match self.buffer.get_mut(self.len..end) {
            Some(place) if !self.failed => {
                place.copy_from_slice(bytes);
                self.len = end;
            }
            _ => self.failed = true,
        }
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn words(&mut self, values: &[u32]) {
        for value in values {
            self.u32(*value);
        }
    }

    /// A length or count as `u32`.
    pub(crate) fn len(&mut self, value: usize) {
        match u32::try_from(value) {
            Ok(value) => self.u32(value),
            Err(_) => self.failed = true,
        }
    }

    /// Leaves room for a `u32` that is known later; see [`Self::patch`].
    pub(crate) fn hole(&mut self) -> Hole {
        let hole = Hole(self.len);
        self.u32(0);
        hole
    }

    pub(crate) fn patch(&mut self, hole: Hole, value: usize) {
        let Ok(value) = u32::try_from(value) else {
            self.failed = true;
            return;
        };
        // A hole that did not fit has already failed the whole message.
        if let Some(place) = self.buffer.get_mut(hole.0..hole.0.saturating_add(4)) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Fills `hole` with the offset of what is written next.
    pub(crate) fn patch_offset(&mut self, hole: Hole) {
        self.patch(hole, self.len - self.origin);
    }

    /// How many bytes were written, or `None` when something did not fit.
    pub(crate) const fn finish(self) -> Option<usize> {
        if self.failed { None } else { Some(self.len) }
    }
}

/// Where a `u32` is to be written later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hole(usize);
