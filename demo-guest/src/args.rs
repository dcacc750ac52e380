//! The words of the kernel command line: `seat=N name=TEXT autoplay=0|1 ip=A.B.C.D/LEN probe=1`.
//!
//! A word that is missing or makes no sense has its default: a guest that does not start because of a typing error in a
//! word would be harder to understand than one that shows "Seat 1". Unknown words are left to whoever knows them.
use crate::text::Text;
use core::net::Ipv4Addr;

/// Everything that can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// 0 to 8.
    pub seat: u8,
    pub name: Text<24>,
    pub autoplay: bool,
    /// A fixed address; DHCP without.
    pub ip: Option<(Ipv4Addr, u8)>,
    /// Say READY and end QEMU (isa-debug-exit): the proof that an accelerator works.
    pub probe: bool,
}

const NAMES: [&str; 9] = ["Ana", "Bruno", "Chidi", "Dana", "Emil", "Farah", "Goro", "Hana", "Ivo"];

impl Arguments {
    pub fn parse(words: &str) -> Self {
        let find =
            |key: &str| words.split_ascii_whitespace().rev().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
        let seat = find("seat").and_then(|v| v.parse().ok()).filter(|s| *s < 9).unwrap_or(0);
        let name = find("name").filter(|n| !n.is_empty()).unwrap_or(NAMES[usize::from(seat)]);
        Self {
            seat,
            name: Text::of(name),
            autoplay: find("autoplay") == Some("1"),
            ip: find("ip").and_then(address),
            probe: find("probe") == Some("1"),
        }
    }
}

/// `A.B.C.D/LEN`; /24 without a length.
fn address(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (ip, length) = text.split_once('/').unwrap_or((text, "24"));
    Some((ip.parse().ok()?, length.parse().ok().filter(|l| *l <= 32)?))
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use core::net::Ipv4Addr;

    #[test]
    fn words() {
        let all = Arguments::parse("seat=3 name=Zoë autoplay=1 ip=10.98.0.4/16 nic=pcnet probe=0");
        assert_eq!((all.seat, all.name.as_str(), all.autoplay, all.probe), (3, "Zoë", true, false));
        assert_eq!(all.ip, Some((Ipv4Addr::new(10, 98, 0, 4), 16)));
    }

    #[test]
    fn defaults_and_nonsense() {
        let none = Arguments::parse("");
        assert_eq!((none.seat, none.name.as_str(), none.autoplay, none.ip, none.probe), (0, "Ana", false, None, false));
        let bad = Arguments::parse("seat=9 name= autoplay=yes ip=10.98.0.4/33 =");
        assert_eq!(bad, none);
        assert_eq!(Arguments::parse("seat=1 seat=2").seat, 2, "the last word counts");
        assert!(Arguments::parse("ip=10.1.2.3").ip.is_some_and(|(_, length)| length == 24));
    }
}
