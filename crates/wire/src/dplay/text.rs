//! UTF-16LE strings (MC-DPL4CS 2.2; protocols.md 1.2, 1.7).
use core::fmt;

use crate::bytes::{Reader, Writer};

/// A string of the wire, or one to be written; compares by its characters.
///
/// Never fails: an unpaired surrogate shows as U+FFFD, an odd last byte is dropped.
#[derive(Clone, Copy)]
pub struct Text<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// UTF-16LE, without the terminator.
    Wire(&'a [u8]),
    Str(&'a str),
}

impl<'a> Text<'a> {
    pub const EMPTY: Self = Self(Source::Str(""));

    /// A string for a message that is to be written. Ends at its first NUL, as it would on the wire.
    pub fn new(text: &'a str) -> Self {
        Self(Source::Str(text.split('\0').next().unwrap_or("")))
    }

    /// Reads UTF-16LE up to the zero word, or to the end where there is none.
    pub fn from_wire(bytes: &'a [u8]) -> Self {
        let (words, _) = bytes.as_chunks::<2>();
        let end = words.iter().position(|word| *word == [0, 0]).unwrap_or(words.len());
        Self(Source::Wire(bytes.get(..end * 2).unwrap_or(&[])))
    }

    /// Takes a string with its terminator; everything where there is none.
    pub(crate) fn read(r: &mut Reader<'a>) -> Self {
        let text = Self::from_wire(r.rest());
        let len = text.wire_len().min(r.rest().len());
        r.skip(len);
        text
    }

    /// The characters; U+FFFD for what is no character.
    pub fn chars(self) -> impl Iterator<Item = char> + 'a {
        char::decode_utf16(self.units()).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    /// The UTF-16 code units, without the terminator.
    pub fn units(self) -> Units<'a> {
        match self.0 {
            Source::Wire(bytes) => Units::Wire(bytes.as_chunks::<2>().0.iter()),
            Source::Str(text) => Units::Str(text.encode_utf16()),
        }
    }

    /// Length on the wire in bytes, with the zero word.
    pub fn wire_len(self) -> usize {
        (self.units().count() + 1) * 2
    }

    pub fn is_empty(self) -> bool {
        self.units().next().is_none()
    }

    pub(crate) fn write(self, to: &mut Writer<'_>) {
        self.units().for_each(|unit| to.u16(unit));
        to.u16(0);
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self::new(text)
    }
}

/// See [`Text::units`].
#[derive(Clone, Debug)]
pub enum Units<'a> {
    Wire(core::slice::Iter<'a, [u8; 2]>),
    Str(core::str::EncodeUtf16<'a>),
}

impl Iterator for Units<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        match self {
            Self::Wire(units) => units.next().copied().map(u16::from_le_bytes),
            Self::Str(units) => units.next(),
        }
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.units().eq(other.units())
    }
}

impl Eq for Text<'_> {}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        self.units().eq(other.encode_utf16())
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chars().try_for_each(|c| fmt::Write::write_char(f, c))
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A string by offset: 0 is absent, past the end is malformed (`None`).
#[expect(clippy::option_option, reason = "malformed ends the parser with `?`, absent is a value of the message")]
pub(crate) fn text_at(message: &[u8], offset: u32) -> Option<Option<Text<'_>>> {
    if offset == 0 {
        return Some(None);
    }
    Some(Some(Text::from_wire(message.get(usize::try_from(offset).ok()?..)?)))
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::{Text, text_at};

    #[track_caller]
    fn check(wire: &[u8], want: &str, wire_len: usize) {
        let text = Text::from_wire(wire);
        assert_eq!((text.to_string().as_str(), text.wire_len()), (want, wire_len));
    }

    #[test]
    fn strings_end_at_the_zero_word_or_where_the_bytes_do() {
        check(b"B\0o\0\0\0x\0", "Bo", 6);
        check(b"B\0o\0", "Bo", 6);
        check(b"B\0o", "B", 4);
        check(b"", "", 2);
        check(b"\0\x01A\0\0\0", "\u{100}A", 6);
        check(b"\x3d\xd8\x82\xde", "\u{1f682}", 6);
        check(b"\x3d\xd8A\0", "\u{fffd}A", 6);
    }

    #[test]
    fn both_sources_compare_and_end_alike() {
        assert_eq!(Text::from_wire(b"A\0\0\0"), Text::new("A"));
        assert_eq!(Text::new("A\0B"), "A");
        assert_ne!(Text::from_wire(b"A\0\0\0"), Text::new("B"));
        assert!(Text::EMPTY.is_empty() && !Text::new("A").is_empty());
    }

    #[test]
    fn offsets_past_the_end_are_malformed_and_zero_is_absent() {
        assert_eq!(text_at(b"play", 0), Some(None));
        assert_eq!(text_at(b"play", 4), Some(Some(Text::EMPTY)));
        assert_eq!(text_at(b"play", 5), None);
        assert_eq!(text_at(b"play", u32::MAX), None);
    }
}
