//! Which frames a guest may not send into its LAN: everything about it that needs no memory. One meaning for the program at
//! the taps (`ebpf/`), which has the frame's front only, and for the switch in user space.
//!
//! | rule | why |
//! |---|---|
//! | length of an Ethernet frame | a longer one would be cut on the way, and the receiver blamed |
//! | source address is the seat's | the tables of all nodes follow the directory; a stranger's address would be unreachable, or somebody else's |
//! | no DHCP server, no router advertisement | the edge answers; a guest's answers would renumber its neighbours |
//! | broadcasts by a token bucket (not here: it remembers) | each costs every node and guest of the LAN |
//!
//! **Invariant.** As in [`crate::class`]: no loops, and every offset is a constant or one octet's multiple behind a constant.
use crate::class::{Octets, TrafficClass, classify};

/// Shortest Ethernet frame without check sum that a guest's card gives: the header. Cards pad on a cable, QEMU's need not.
pub const FRAME_LEN_MIN: usize = LEN_MIN as usize;
/// Longest Ethernet frame without check sum, with a VLAN tag (IEEE 802.3 3.2.7): 14 + 4 + 1500.
pub const FRAME_LEN_MAX: usize = LEN_MAX as usize;
const LEN_MIN: u32 = 14;
const LEN_MAX: u32 = 1518;

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// Shorter than an Ethernet header.
    Runt,
    /// Longer than [`FRAME_LEN_MAX`].
    TooLong,
    /// The source is not the seat's own card.
    ForeignSource,
    /// A DHCP server's answer.
    DhcpServer,
    /// An IPv6 router advertisement (RFC 4861 section 4.2).
    RouterAdvertisement,
    /// Too many broadcasts and multicasts.
    Storm,
}

impl Refusal {
    /// In the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Runt, Self::TooLong, Self::ForeignSource, Self::DhcpServer, Self::RouterAdvertisement, Self::Storm];

    /// As metrics and messages call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runt => "runt",
            Self::TooLong => "too_long",
            Self::ForeignSource => "foreign_source",
            Self::DhcpServer => "dhcp_server",
            Self::RouterAdvertisement => "router_advertisement",
            Self::Storm => "storm",
        }
    }
}

/// Whether the frame has a length of Ethernet. Always asked.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the verifier knows no calls")]
pub fn length<F: Octets + ?Sized>(frame: &F) -> Result<(), Refusal> {
    let len = frame.wire_len();
    if len < LEN_MIN {
        return Err(Refusal::Runt);
    }
    if len > LEN_MAX {
        return Err(Refusal::TooLong);
    }
    Ok(())
}

/// Whether the frame is from `card`.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the verifier knows no calls")]
pub fn source<F: Octets + ?Sized>(frame: &F, card: [u8; 6]) -> Result<(), Refusal> {
    if is_from(frame, card) == Some(true) { Ok(()) } else { Err(Refusal::ForeignSource) }
}

/// In two parts of a register's size each: what would be put together from six octets, the verifier cannot follow.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the verifier knows no calls")]
fn is_from<F: Octets + ?Sized>(frame: &F, [a, b, c, d, e, f]: [u8; 6]) -> Option<bool> {
    if frame.octets::<4>(6)? != [a, b, c, d] {
        return Some(false);
    }
    Some(frame.octets::<2>(10)? == [e, f])
}

/// Whether it is for more than one: what the token bucket is for.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the verifier knows no calls")]
pub fn is_group<F: Octets + ?Sized>(frame: &F) -> bool {
    frame.octets::<1>(0).is_some_and(|[first]| first & 1 != 0)
}

const ETHERNET_LEN: usize = 14;
const DHCP_SERVER_PORT: u16 = 67;
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const IPV6_LEN: usize = 40;
const ROUTER_ADVERTISEMENT: u8 = 134;

/// Whether the frame says what only a server of the network says.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the verifier knows no calls")]
pub fn server<F: Octets + ?Sized>(frame: &F) -> Result<(), Refusal> {
    if said_by_server(frame, classify(frame)) == Some(true) {
        return Err(Refusal::DhcpServer);
    }
    if is_advertisement(frame) == Some(true) {
        return Err(Refusal::RouterAdvertisement);
    }
    Ok(())
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "the verifier knows no calls")]
fn said_by_server<F: Octets + ?Sized>(frame: &F, class: TrafficClass) -> Option<bool> {
    if !matches!(class, TrafficClass::Dhcp) {
        return None;
    }
    // Ethernet II, or SNAP: `classify` knows no third way to IPv4.
    let ip = if frame.octets::<2>(12)? == [0x08, 0x00] { ETHERNET_LEN } else { ETHERNET_LEN + 8 };
    let [version] = frame.octets::<1>(ip)?;
    let source_port = frame.octets::<2>(ip + (version & 0x0f) as usize * 4)?;
    Some(u16::from_be_bytes(source_port) == DHCP_SERVER_PORT)
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "the verifier knows no calls")]
fn is_advertisement<F: Octets + ?Sized>(frame: &F) -> Option<bool> {
    if frame.octets::<2>(12)? != IPV6 {
        return None;
    }
    let [next] = frame.octets::<1>(ETHERNET_LEN + 6)?;
    let [kind] = frame.octets::<1>(ETHERNET_LEN + IPV6_LEN)?;
    Some(next == ICMPV6 && kind == ROUTER_ADVERTISEMENT)
}
