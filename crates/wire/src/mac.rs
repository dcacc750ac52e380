//! IEEE 802 MAC address (EUI-48).
use core::fmt;

/// A MAC address, in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    pub const BROADCAST: Self = Self([0xff; 6]);
    pub const ZERO: Self = Self([0; 6]);

    /// Group bit (IEEE 802, first octet, least significant bit): broadcast and multicast.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Parses six hexadecimal octets, separated by `:`. Exactly two digits an octet.
    pub fn parse(text: &str) -> Option<Self> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next()?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            *octet = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(octets))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::MacAddr;

    #[test]
    fn parses_exactly_six_octets() {
        assert_eq!(MacAddr::parse("02:4c:00:00:2a:01"), Some(MacAddr([2, 0x4c, 0, 0, 0x2a, 1])));
        for bad in
            ["", "02:4c:00:00:2a", "02:4c:00:00:2a:01:02", "2:4c:0:0:2a:1", "02:4c:00:00:2a:0g", "+2:4c:00:00:2a:01"]
        {
            assert_eq!(MacAddr::parse(bad), None, "{bad}");
        }
    }
}
