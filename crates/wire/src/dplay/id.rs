//! Player and group ids, the key they are mixed with, GUIDs (MC-DPL4CS 3.2.5.4; protocols.md 1.4).
use core::fmt;

/// The id of a player or group, unique in its session. Printed as 8 hex digits, as the DirectPlay API does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(pub u32);

impl Id {
    /// As a receiver: everyone. As a system id: none yet.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The session's id key, `reserved1` of its description: `id XOR key = counter << 16 | index`.
///
/// The host draws it at random. `index` is the place in the host's table of players and groups, `counter` tells reuses
/// of a place apart. Undoing the XOR gives small stable numbers and shows forged ids. Trap: Wine's own tests do not
/// follow the rule, so a stranger's id is no error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct IdKey(pub u32);

impl IdKey {
    /// The id for place `index` of the host's table, used for the `counter`th time.
    pub const fn make_id(self, counter: u16, index: u16) -> Id {
        Id((((counter as u32) << 16) | index as u32) ^ self.0)
    }

    /// The place in the host's table.
    pub const fn index(self, id: Id) -> u16 {
        ((id.0 ^ self.0) & 0xffff) as u16
    }

    /// How often that place had been used.
    pub const fn counter(self, id: Id) -> u16 {
        ((id.0 ^ self.0) >> 16) as u16
    }
}

impl fmt::Display for IdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for IdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A GUID as its 16 bytes stand on the wire (first three fields little-endian). Printed as 32 hex digits in that order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    pub const NULL: Self = Self([0; 16]);

    /// From the fields of `{aaaaaaaa-bbbb-cccc-dddd-dddddddddddd}`.
    pub const fn from_fields(a: u32, b: u16, c: u16, d: [u8; 8]) -> Self {
        let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        Self([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]])
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::{Guid, Id, IdKey};

    #[test]
    fn ids_and_guids_print_as_the_contracts_say() {
        assert_eq!(Id(0x5e41).to_string(), "00005e41");
        assert_eq!(IdKey(0xf).to_string(), "0000000f");
        // DirectPlay's own TCP/IP provider, {36E95EE0-8577-11cf-960C-0080C7534E82}, as Windows has it in memory.
        let guid = Guid::from_fields(0x36e9_5ee0, 0x8577, 0x11cf, [0x96, 0x0c, 0x00, 0x80, 0xc7, 0x53, 0x4e, 0x82]);
        assert_eq!(guid.to_string(), "e05ee9367785cf11960c0080c7534e82");
    }

    /// Ids of the genuine capture: the host's two, then Bob's.
    #[test]
    fn the_key_gives_small_numbers() {
        let key = IdKey(0x5e40_26f1);
        for (id, counter, index) in [(0x5e41_26ff, 1, 14), (0x5e42_26fe, 2, 15), (0x5e44_26e0, 4, 17)] {
            assert_eq!((key.counter(Id(id)), key.index(Id(id))), (counter, index));
            assert_eq!(key.make_id(counter, index), Id(id));
        }
    }
}
