//! NetBIOS names: 15 characters and a suffix, and how they look on the wire (RFC 1001 14.1, RFC 1002 4.1).
//!
//! **Invariants.** A pointer may only go to a place before its own, and only four in a row: no name costs more than that,
//! whatever it points at. Of a scope (up to 14 labels) only its presence is known: nobody in a home has one.
use core::fmt;

use crate::bytes::Reader;

/// What the 16th byte says about a name (protocols.md 5).
pub mod suffix {
    /// Unique: a machine. Group: a workgroup.
    pub const WORKSTATION: u8 = 0x00;
    /// Messenger service: a machine or a user.
    pub const MESSENGER: u8 = 0x03;
    pub const DOMAIN_MASTER: u8 = 0x1b;
    pub const MASTER_BROWSER: u8 = 0x1d;
    /// Group: who takes part in elections of the workgroup.
    pub const ELECTION: u8 = 0x1e;
    pub const FILE_SERVER: u8 = 0x20;
}

const LABEL_LEN: u8 = 32;
const POINTER: u8 = 0xc0;
const POINTERS_MAX: usize = 4;
/// The name, its scope, pointers and the end: more than anybody uses, and cheap where every name of a hostile datagram
/// points at the same long one.
const LABELS_MAX: usize = 16;

/// A NetBIOS name: 15 bytes of the machine's code page, padded with spaces, and a suffix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub [u8; 16]);

impl Name {
    /// `*` with zeros: everybody, in node status requests (RFC 1002 4.2.17).
    pub const WILDCARD: Self = Self(*b"*\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    /// Where master browsers announce their workgroups.
    pub const MSBROWSE: Self = Self(*b"\x01\x02__MSBROWSE__\x02\x01");

    /// `None` where `text` has more than 15 bytes.
    pub fn new(text: &[u8], suffix: u8) -> Option<Self> {
        let mut bytes = [b' '; 16];
        let [label @ .., last] = &mut bytes;
        label.get_mut(..text.len())?.copy_from_slice(text);
        *last = suffix;
        Some(Self(bytes))
    }

    pub const fn suffix(&self) -> u8 {
        let [.., last] = self.0;
        last
    }

    /// Without padding and suffix. Bytes of the machine's code page: show them with care.
    pub fn text(&self) -> &[u8] {
        let [label @ .., _] = &self.0;
        let end = label.iter().rposition(|byte| !matches!(byte, b' ' | 0)).map_or(0, |last| last.saturating_add(1));
        label.get(..end).unwrap_or(label)
    }

    /// First-level decoding: two letters `A`-`P` for each byte.
    pub fn decode(letters: &[u8; 32]) -> Option<Self> {
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(letters.chunks_exact(2)) {
            let &[high @ b'A'..=b'P', low @ b'A'..=b'P'] = pair else { return None };
            *byte = (high - b'A') << 4 | (low - b'A');
        }
        Some(Self(bytes))
    }

    /// First-level encoding.
    pub fn encode(&self) -> [u8; 32] {
        let mut letters = [0; 32];
        for (pair, byte) in letters.chunks_exact_mut(2).zip(self.0) {
            if let [high, low] = pair {
                (*high, *low) = (b'A' + (byte >> 4), b'A' + (byte & 15));
            }
        }
        letters
    }
}

impl fmt::Display for Name {
    /// As in `LOCOHOST<20>`, `<01><02>__MSBROWSE__<02><01>`: what is not printable ASCII in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.text() {
            match byte {
                b' '..=b'~' => write!(f, "{}", char::from(*byte))?,
                _ => write!(f, "<{byte:02x}>")?,
            }
        }
        write!(f, "<{:02x}>", self.suffix())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A second-level encoded name, and whether it has a scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Encoded {
    pub(crate) name: Name,
    pub(crate) scoped: bool,
}

/// Reads the name at the front of `reader`, whose pointers count from the start of `message`, and leaves the reader
/// behind it.
pub(crate) fn read<'a>(message: &'a [u8], reader: &mut Reader<'a>) -> Option<Encoded> {
    let mut name = None;
    let mut scoped = false;
    // Behind the first pointer the rest of the name stands elsewhere: `reader` stays where it is.
    let mut elsewhere: Option<Reader<'_>> = None;
    let mut limit = message.len().checked_sub(reader.rest().len())?;
    let mut pointers = 0;
    for _ in 0..LABELS_MAX {
        let place = elsewhere.as_mut().unwrap_or(reader);
        match place.u8()? {
            0 => return Some(Encoded { name: name?, scoped }),
            LABEL_LEN if name.is_none() => name = Some(Name::decode(&place.array()?)?),
            len @ 1..=63 if name.is_some() => {
                place.bytes(len.into())?;
                scoped = true;
            }
            high @ POINTER.. => {
                let target = usize::from(u16::from_be_bytes([high & !POINTER, place.u8()?]));
                pointers += 1;
                // Only backwards: below where this name, or the last pointer's target, began.
                if target >= limit || pointers > POINTERS_MAX {
                    return None;
                }
                limit = target;
                elsewhere = Some(Reader::new(message.get(target..)?));
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{string::ToString, vec::Vec};

    use super::{Encoded, Name, read, suffix};
    use crate::bytes::Reader;

    fn host() -> Name {
        Name::new(b"LOCOHOST", suffix::FILE_SERVER).unwrap()
    }

    #[test]
    fn names_are_shown_as_in_the_facts() {
        assert_eq!(host().to_string(), "LOCOHOST<20>");
        assert_eq!(Name::MSBROWSE.to_string(), "<01><02>__MSBROWSE__<02><01>");
        assert_eq!((Name::WILDCARD.text(), Name::WILDCARD.suffix()), (&b"*"[..], 0));
        assert_eq!(Name::new(b"A B  ", 0).unwrap().text(), b"A B");
        assert_eq!(Name::new(b"", 3).unwrap().to_string(), "<03>");
        assert!(Name::new(b"FIFTEEN LETTERS", 0).is_some() && Name::new(b"SIXTEEN LETTERS!", 0).is_none());
    }

    #[test]
    fn first_level_encoding() {
        // RFC 1001 14.1: "FRED" with 12 spaces.
        let fred = Name(*b"FRED            ");
        assert_eq!(&fred.encode(), b"EGFCEFEECACACACACACACACACACACACA");
        assert_eq!(Name::decode(&fred.encode()), Some(fred));
        for (at, wrong) in [(0, b'@'), (31, b'Q'), (4, b'a')] {
            let mut letters = fred.encode();
            letters[at] = wrong;
            assert_eq!(Name::decode(&letters), None);
        }
    }

    /// `message` with the name at `at`, and what stands behind it.
    fn name_at(message: &[u8], at: usize) -> Option<(Encoded, &[u8])> {
        let mut reader = Reader::new(&message[at..]);
        read(message, &mut reader).map(|name| (name, reader.rest()))
    }

    fn whole() -> Vec<u8> {
        [&[32][..], &host().encode(), &[0]].concat()
    }

    #[test]
    fn pointers_go_back_and_end() {
        let plain = Encoded { name: host(), scoped: false };
        let mut message = whole();
        assert_eq!(name_at(&message, 0), Some((plain, &[][..])));
        for len in 0..message.len() {
            assert_eq!(name_at(&message[..len], 0), None, "{len}");
        }
        message.extend([0xc0, 0, 0xc0, 34, 0xc0, 36, 0xc0, 38, 0xc0, 40, 7]);
        assert_eq!(name_at(&message, 34).unwrap().0, plain);
        assert_eq!(name_at(&message, 40).unwrap().0, plain, "four pointers");
        assert_eq!(name_at(&message, 42), None, "five pointers");
        assert_eq!(name_at(&message, 34).unwrap().1[..2], [0xc0, 34]);

        // To itself, forwards, in a circle, without a name.
        for tail in [&[0xc0, 34][..], &[0xc0, 36, 0, 0], &[0xc0, 36, 0xc0, 34], &[0], &[0xff, 0xff]] {
            assert_eq!(name_at(&[&whole(), tail].concat(), 34), None, "{tail:x?}");
        }
    }

    #[test]
    fn a_scope_is_left_out() {
        let scoped = [&[32][..], &host().encode(), &[3, b'L', b'A', b'N', 2, b'D', b'E', 0, 9]].concat();
        assert_eq!(name_at(&scoped, 0), Some((Encoded { name: host(), scoped: true }, &[9][..])));
        assert_eq!(name_at(&scoped[..40], 0), None);
        let not_netbios = [3, b'W', b'W', b'W', 0];
        assert_eq!(name_at(&not_netbios, 0), None);
        let reserved = [&[32][..], &host().encode(), &[0x40, 0]].concat();
        assert_eq!(name_at(&reserved, 0), None);
    }
}
