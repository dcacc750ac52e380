//! Reading captures: pcap (libpcap's format, both byte orders, micro- and nanoseconds) and pcapng
//! (draft-ietf-opsawg-pcapng), told apart by their first bytes.
//!
//! **Invariants.** Every whole record before the damage is given, then an error that says where and what; after a fatal
//! one nothing more comes. Memory is bounded by [`BLOCK_BYTES_MAX`] and [`INTERFACES_MAX`] whatever a file claims.
use std::{
    io::{self, Read},
    time::Duration,
};

use crate::bytes::Order;

mod ng;

/// Longest record or block that is taken into memory. Wireshark's and tcpdump's limit of a record is 262,144.
pub const BLOCK_BYTES_MAX: u32 = 1 << 20;
/// Most interfaces of one pcapng section.
pub const INTERFACES_MAX: usize = 4096;

/// What a record's bytes begin with: the registry of tcpdump.org ("LINKTYPE_…").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkType(pub u16);

impl LinkType {
    pub const ETHERNET: Self = Self(1);
    /// Linux cooked capture, version 1: `tcpdump -i any` of old.
    pub const LINUX_SLL: Self = Self(113);
    /// Linux cooked capture, version 2: `tcpdump -i any` of today.
    pub const LINUX_SLL2: Self = Self(276);
}

/// One captured frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Since the epoch, by the clock of who captured. A pcapng Simple Packet Block has no time: it gets that of the record
    /// before.
    pub at: Duration,
    /// Bytes that the frame had, before any cut; at least `bytes.len()`.
    pub wire_len: u32,
    pub link_type: LinkType,
    /// Index of the interface in its section; 0 in a pcap.
    pub interface: u32,
    pub bytes: Vec<u8>,
}

/// What is wrong with a file. `at` is an offset in bytes from the file's beginning.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the file is empty; capture again")]
    Empty,
    #[error("this is neither a pcap nor a pcapng file: it begins with {0:02x?}; a packed one must be unpacked first")]
    NotACapture([u8; 4]),
    #[error("could not read on at byte {at}: {source}")]
    Io { at: u64, source: io::Error },
    #[error("the file ends at byte {end} within {what}, which begins at byte {at}; what is before is whole")]
    Torn { at: u64, end: u64, what: &'static str },
    #[error("{what} at byte {at} claims {len} bytes, more than can be; the rest of the file cannot be read")]
    TooLong { at: u64, len: u32, what: &'static str },
    #[error("the block at byte {at} is damaged: {what}; the rest of the file cannot be read")]
    Framing { at: u64, what: &'static str },
    #[error("the block at byte {at} was passed over: {what}")]
    Block { at: u64, what: &'static str },
}

impl ReadError {
    /// Nothing comes after it. After another one, the records behind the damage do.
    pub const fn is_fatal(&self) -> bool {
        !matches!(self, Self::Block { .. })
    }
}

/// The records of one file, in the file's order. After a fatal error it has ended.
///
/// ```
/// # fn main() -> Result<(), capture::ReadError> {
/// let file: &[u8] = &[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, 0, 0];
/// for record in capture::Reader::new(file)? {
///     match record {
///         Ok(record) => println!("{:?} {} bytes", record.at, record.wire_len),
///         Err(error) => println!("{error}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Reader<R> {
    source: Source<R>,
    format: Format,
}

#[derive(Debug)]
enum Format {
    Pcap(Pcap),
    Ng(ng::Section),
    Ended,
}

impl<R: Read> Reader<R> {
    /// Reads the file's head. Give it something buffered.
    ///
    /// # Errors
    /// When the file is empty, cannot be read or is no capture, and [`ReadError::Torn`] when it ends in its head.
    pub fn new(source: R) -> Result<Self, ReadError> {
        let mut source = Source { source, at: 0 };
        let mut magic = [0; 4];
        match source.fill(&mut magic)? {
            0 => return Err(ReadError::Empty),
            4 => {}
            _ => return Err(ReadError::NotACapture(magic)),
        }
        let format = if magic == ng::SECTION_HEADER {
            Format::Ng(ng::Section::begin(&mut source, 0)?)
        } else {
            Format::Pcap(Pcap::begin(&mut source, magic)?)
        };
        Ok(Self { source, format })
    }

    /// Bytes of the file that were read so far.
    pub const fn offset(&self) -> u64 {
        self.source.at
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.source),
            Format::Ng(section) => section.next(&mut self.source),
            Format::Ended => return None,
        };
        if result.as_ref().map_or_else(ReadError::is_fatal, Option::is_none) {
            self.format = Format::Ended;
        }
        result.transpose()
    }
}

/// The caller's reader, and how far it is.
#[derive(Debug)]
struct Source<R> {
    source: R,
    at: u64,
}

impl<R: Read> Source<R> {
    /// Fills as much of `buffer` as the file has. Returns how much that is.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) => break,
                Ok(count) => {
                    filled += count;
                    self.at += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ReadError::Io { at: self.at, source }),
            }
        }
        Ok(filled)
    }

    /// The next `N` bytes of the thing that begins at `start`.
    fn array<const N: usize>(&mut self, start: u64, what: &'static str) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        if self.fill(&mut bytes)? < N { Err(self.torn(start, what)) } else { Ok(bytes) }
    }

    /// As [`Self::array`], or `None` when the file ends before the first one.
    fn array_or_end<const N: usize>(&mut self, what: &'static str) -> Result<Option<[u8; N]>, ReadError> {
        let (start, mut bytes) = (self.at, [0; N]);
        match self.fill(&mut bytes)? {
            0 => Ok(None),
            count if count < N => Err(self.torn(start, what)),
            _ => Ok(Some(bytes)),
        }
    }

    /// The next `len` bytes; memory is only taken for what the file really has.
    fn vec(&mut self, start: u64, len: u32, what: &'static str) -> Result<Vec<u8>, ReadError> {
        if len > BLOCK_BYTES_MAX {
            return Err(ReadError::TooLong { at: start, len, what });
        }
        let mut bytes = Vec::new();
        let read = (&mut self.source).take(len.into()).read_to_end(&mut bytes);
        self.at += bytes.len() as u64;
        read.map_err(|source| ReadError::Io { at: self.at, source })?;
        if bytes.len() as u64 == u64::from(len) { Ok(bytes) } else { Err(self.torn(start, what)) }
    }

    /// Passes over `len` bytes.
    fn skip(&mut self, start: u64, len: u32, what: &'static str) -> Result<(), ReadError> {
        let skipped = io::copy(&mut (&mut self.source).take(len.into()), &mut io::sink())
            .map_err(|source| ReadError::Io { at: self.at, source })?;
        self.at += skipped;
        if skipped == u64::from(len) { Ok(()) } else { Err(self.torn(start, what)) }
    }

    const fn torn(&self, at: u64, what: &'static str) -> ReadError {
        ReadError::Torn { at, end: self.at, what }
    }
}

/// State of a pcap file: its header's facts.
#[derive(Debug)]
struct Pcap {
    order: Order,
    /// Nanoseconds of one unit of a record's fraction.
    fraction: u64,
    /// Bytes of a record's header behind the four fields: 8 in Kuznetzov's variant.
    extra: u32,
    link_type: LinkType,
}

impl Pcap {
    /// `magic`: the first four bytes, already read.
    fn begin<R: Read>(source: &mut Source<R>, magic: [u8; 4]) -> Result<Self, ReadError> {
        let (order, fraction, extra) = match magic {
            [0xa1, 0xb2, 0xc3, 0xd4] => (Order::Big, 1000, 0),
            [0xd4, 0xc3, 0xb2, 0xa1] => (Order::Little, 1000, 0),
            [0xa1, 0xb2, 0x3c, 0x4d] => (Order::Big, 1, 0),
            [0x4d, 0x3c, 0xb2, 0xa1] => (Order::Little, 1, 0),
            [0xa1, 0xb2, 0xcd, 0x34] => (Order::Big, 1000, 8),
            [0x34, 0xcd, 0xb2, 0xa1] => (Order::Little, 1000, 8),
            _ => return Err(ReadError::NotACapture(magic)),
        };
        // Version, zone, accuracy and cut length say nothing that a record does not; the upper half of the last word is
        // the length of the frames' check sequence.
        let header: [u8; 20] = source.array(0, "the file's header")?;
        let [.., a, b, c, d] = header;
        let link_type = LinkType((order.u32([a, b, c, d]) & 0xffff) as u16);
        Ok(Self { order, fraction, extra, link_type })
    }

    fn next<R: Read>(&self, source: &mut Source<R>) -> Result<Option<Record>, ReadError> {
        const WHAT: &str = "a record";
        let start = source.at;
        let Some(header) = source.array_or_end::<16>(WHAT)? else { return Ok(None) };
        let word = |at: usize| {
            self.order.u32(*header.get(at..).and_then(<[u8]>::first_chunk).expect("four words in 16 bytes"))
        };
        let (seconds, fraction, len, wire_len) = (word(0), word(4), word(8), word(12));
        source.skip(start, self.extra, WHAT)?;
        let bytes = source.vec(start, len, WHAT)?;
        Ok(Some(Record {
            // A fraction of a second or more is wrong, and still tells the time.
            at: Duration::from_secs(seconds.into()) + Duration::from_nanos(u64::from(fraction) * self.fraction),
            wire_len: wire_len.max(len),
            link_type: self.link_type,
            interface: 0,
            bytes,
        }))
    }
}
