//! What a guest may send into its LAN. One guard per seat port.
//!
//! | rule | why |
//! |---|---|
//! | length of an Ethernet frame | a longer one would be cut on the way, and the receiver blamed |
//! | source address is the seat's | the tables of all nodes follow the directory; a stranger's address would be unreachable, or somebody else's |
//! | no DHCP server, no router advertisement | the edge answers; a guest's answers would renumber its neighbours |
//! | broadcasts by a token bucket | each costs every node and guest of the LAN |
//!
//! **Invariant.** What is refused is counted by its reason; nothing is dropped silently.
use std::time::Duration;

use model::MacAddr;
use wire::class::{Octets as _, TrafficClass, classify};

use crate::{FRAME_LEN_MAX, FRAME_LEN_MIN};

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// Which rules hold in a LAN. Lengths always do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Only the seat's own source address.
    pub own_source: bool,
    /// No DHCP server and no router among the guests.
    pub no_servers: bool,
    /// Broadcasts and multicasts that a guest may send; `None`: any number.
    pub broadcasts: Option<Rate>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    /// At most so many at once.
    pub burst: u32,
}

impl Default for Rules {
    /// IPX games send every move to all: a few hundred frames a second. Ten times that is a storm.
    fn default() -> Self {
        Self { own_source: true, no_servers: true, broadcasts: Some(Rate { per_second: 2_000, burst: 4_000 }) }
    }
}

/// Judges the frames of one seat.
#[derive(Debug, Clone)]
pub struct Guard {
    card: MacAddr,
    rules: Rules,
    /// Tokens, in billionths, so that time needs no rounding.
    tokens: u64,
    filled: Duration,
    refused: [u64; Refusal::ALL.len()],
}

const BILLION: u64 = 1_000_000_000;

impl Guard {
    /// `now` is any monotonic time.
    pub fn new(card: MacAddr, rules: Rules, now: Duration) -> Self {
        let tokens = rules.broadcasts.map_or(0, |rate| u64::from(rate.burst) * BILLION);
        Self { card, rules, tokens, filled: now, refused: [0; Refusal::ALL.len()] }
    }

    /// Whether `frame`, of the guest, goes into the LAN. Cheapest questions first.
    pub fn judge(&mut self, now: Duration, frame: &[u8]) -> Result<(), Refusal> {
        self.look(now, frame).inspect_err(|refusal| {
            let count = &mut self.refused[*refusal as usize];
            *count = count.wrapping_add(1);
        })
    }

    /// Frames that were refused since the port was made, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.into_iter().zip(self.refused)
    }

    fn look(&mut self, now: Duration, frame: &[u8]) -> Result<(), Refusal> {
        if frame.len() < FRAME_LEN_MIN {
            return Err(Refusal::Runt);
        }
        if frame.len() > FRAME_LEN_MAX {
            return Err(Refusal::TooLong);
        }
        let card = |at| frame.octets::<6>(at).map(MacAddr);
        if self.rules.own_source && card(6) != Some(self.card) {
            return Err(Refusal::ForeignSource);
        }
        if self.rules.no_servers {
            server(frame).map_or(Ok(()), Err)?;
        }
        if card(0).is_some_and(MacAddr::is_group) {
            self.take(now)?;
        }
        Ok(())
    }

    fn take(&mut self, now: Duration) -> Result<(), Refusal> {
        let Some(rate) = self.rules.broadcasts else { return Ok(()) };
        let elapsed = now.saturating_sub(self.filled);
        self.filled = self.filled.max(now);
        // A token every 1/rate s: in billionths that is elapsed nanoseconds times rate.
        let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let more = nanoseconds.saturating_mul(rate.per_second.into());
        self.tokens = self.tokens.saturating_add(more).min(u64::from(rate.burst) * BILLION);
        self.tokens = self.tokens.checked_sub(BILLION).ok_or(Refusal::Storm)?;
        Ok(())
    }
}

const ETHERNET_LEN: usize = 14;
const DHCP_SERVER_PORT: u16 = 67;
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const IPV6_LEN: usize = 40;
const ROUTER_ADVERTISEMENT: u8 = 134;

/// What only a server of the network says.
fn server(frame: &[u8]) -> Option<Refusal> {
    let class = classify(frame);
    if class == TrafficClass::Dhcp {
        // Ethernet II, or SNAP: `classify` knows no third way to IPv4.
        let ip = if frame.octets::<2>(12)? == [0x08, 0x00] { ETHERNET_LEN } else { ETHERNET_LEN + 8 };
        let [version] = frame.octets::<1>(ip)?;
        let source_port = frame.octets::<2>(ip + usize::from(version & 0x0f) * 4)?;
        return (u16::from_be_bytes(source_port) == DHCP_SERVER_PORT).then_some(Refusal::DhcpServer);
    }
    if class == TrafficClass::Ipv6 && frame.octets::<2>(12)? == IPV6 {
        let [next] = frame.octets::<1>(ETHERNET_LEN + 6)?;
        let [kind] = frame.octets::<1>(ETHERNET_LEN + IPV6_LEN)?;
        return (next == ICMPV6 && kind == ROUTER_ADVERTISEMENT).then_some(Refusal::RouterAdvertisement);
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CARD: MacAddr = MacAddr([2, 0x4c, 0, 0x10, 0x68, 1]);
    const NOW: Duration = Duration::from_secs(7);

    fn guard() -> Guard {
        Guard::new(CARD, Rules::default(), NOW)
    }

    fn frame(to: [u8; 6], from: MacAddr, rest: &[u8]) -> Vec<u8> {
        [&to[..], &from.0, rest].concat()
    }

    fn udp(source: u16, destination: u16) -> Vec<u8> {
        let mut packet =
            vec![0x08, 0x00, 0x45, 0, 0, 28 + 8, 0, 0, 0, 0, 64, 17, 0, 0, 10, 98, 0, 1, 255, 255, 255, 255];
        packet.extend(source.to_be_bytes());
        packet.extend(destination.to_be_bytes());
        packet.extend([0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        packet
    }

    #[track_caller]
    fn check(frame: &[u8], want: Result<(), Refusal>) {
        let mut guard = guard();
        assert_eq!(guard.judge(NOW, frame), want);
        for (refusal, count) in guard.refused() {
            assert_eq!(count, u64::from(want == Err(refusal)), "{}", refusal.name());
        }
    }

    #[test]
    fn lengths_are_those_of_ethernet() {
        check(&[0; 13], Err(Refusal::Runt));
        check(&frame([2; 6], CARD, &[0; 2]), Ok(()));
        check(&frame([2; 6], CARD, &[0; FRAME_LEN_MAX - 12]), Ok(()));
        check(&frame([2; 6], CARD, &[0; FRAME_LEN_MAX - 11]), Err(Refusal::TooLong));
    }

    #[test]
    fn only_the_seats_own_card_may_speak() {
        check(&frame([0xff; 6], MacAddr([2; 6]), &[0x08, 0x06]), Err(Refusal::ForeignSource));
        let mut free = Guard::new(CARD, Rules { own_source: false, ..Rules::default() }, NOW);
        assert_eq!(free.judge(NOW, &frame([0xff; 6], MacAddr([2; 6]), &[0x08, 0x06])), Ok(()));
    }

    #[test]
    fn guests_ask_for_addresses_and_do_not_give_them() {
        check(&frame([0xff; 6], CARD, &udp(68, 67)), Ok(()));
        check(&frame([0xff; 6], CARD, &udp(67, 68)), Err(Refusal::DhcpServer));
        let mut snap = vec![0, 44, 0xaa, 0xaa, 3, 0, 0, 0];
        snap.extend(udp(67, 68));
        check(&frame([0xff; 6], CARD, &snap), Err(Refusal::DhcpServer));
        let mut advertisement = vec![0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, 58, 255];
        advertisement.extend([0; 32]);
        advertisement.extend([134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        check(&frame([0x33, 0x33, 0, 0, 0, 1], CARD, &advertisement), Err(Refusal::RouterAdvertisement));
        let solicitation = {
            let mut other = advertisement;
            other[42] = 133;
            other
        };
        check(&frame([0x33, 0x33, 0, 0, 0, 2], CARD, &solicitation), Ok(()));
    }

    #[test]
    fn a_storm_is_cut_and_leaves_unicast_alone() {
        let mut guard = guard();
        let (all, one) = (frame([0xff; 6], CARD, &[0x08, 0x06]), frame([2; 6], CARD, &[0x08, 0x06]));
        let passed = |guard: &mut Guard, now| (0..10_000).filter(|_| guard.judge(now, &all).is_ok()).count();
        assert_eq!(passed(&mut guard, NOW), 4_000);
        assert_eq!(guard.judge(NOW, &one), Ok(()));
        assert_eq!(passed(&mut guard, NOW + Duration::from_millis(500)), 1_000);
        assert_eq!(passed(&mut guard, NOW), 0, "time that goes back gives nothing");
        assert_eq!(passed(&mut guard, NOW + Duration::from_hours(1)), 4_000);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..1600), at in any::<u64>()) {
            let mut guard = Guard::new(CARD, Rules { own_source: false, ..Rules::default() }, NOW);
            let judged = guard.judge(Duration::from_nanos(at), &bytes);
            prop_assert_eq!(guard.refused().map(|(_, count)| count).sum::<u64>(), u64::from(judged.is_err()));
        }
    }
}
