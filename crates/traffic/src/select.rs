//! Which frames are shown to user space, and at whose cost. Pure, and like `wire::class` without loop or slice: the eBPF
//! programs run this file, too.
//!
//! | tier | frames | granted to each port, direction and CPU |
//! |---|---|---|
//! | control | ARP, DHCP, NetBIOS names and datagrams, session queries, IPX of those, ICMP errors, begin and end of DirectPlay's TCP | 10,000/s |
//! | game | all else of DirectPlay, IPX, IPXNET, `IPXWrapper` | 10,000/s |
//! | other | begin and end of other TCP, the first frame of any other flow | 1,000/s |
//!
//! Fragments of a datagram go with its first one; those that come before it are not shown.
use wire::class::{Octets, TrafficClass};

/// Who pays for an event. A storm in one empties its own bucket only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Tier {
    Control,
    Game,
    Other,
}

impl Tier {
    pub const COUNT: usize = 3;

    /// One event costs this much of the bucket's time, in ns.
    pub const fn interval_ns(self) -> u64 {
        match self {
            Self::Control | Self::Game => 100_000,
            Self::Other => 1_000_000,
        }
    }

    /// So much may be taken at once, in ns: one second's worth.
    pub const BURST_NS: u64 = 1_000_000_000;

    /// As maps have it.
    pub const fn from_u32(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Control),
            1 => Some(Self::Game),
            2 => Some(Self::Other),
            _ => None,
        }
    }
}

/// What tells one flow from another at a port; for frames without IPv4 the last four bytes of both MACs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FlowId {
    pub source: u32,
    pub destination: u32,
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
    pub class: u8,
    pub zero: u16,
}

/// The datagram that a fragment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub source: u32,
    pub destination: u32,
    pub identification: u16,
    pub protocol: u8,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    Show(Tier),
    /// First fragment of a datagram that is shown: those behind it are shown, too.
    ShowDatagram(Tier, Datagram),
    /// Shown if the first fragment was.
    Fragment(Datagram),
    /// Shown if it is the first of its flow.
    First(FlowId),
    /// Cannot be told apart: too short.
    Nothing,
}

const TCP_FIN_SYN_RST: u8 = 0x07;
const ICMP_ECHO_REPLY: u8 = 0;
const ICMP_ECHO: u8 = 8;
const MORE_FRAGMENTS: u8 = 0x20;
const UDP: u8 = 17;

/// Service sockets of IPX: SAP, RIP, NetBIOS, DirectPlay's session queries.
const IPX_CONTROL: [u16; 4] = [0x0452, 0x0453, 0x0455, 47624];

/// `class` is the frame's own, by `wire::class::classify`.
#[inline(always)]
pub fn select<F: Octets + ?Sized>(frame: &F, class: TrafficClass) -> Selection {
    use TrafficClass as C;
    match class {
        C::Arp => Selection::Show(Tier::Control),
        C::IpxEthernetII | C::IpxRaw8023 => Selection::Show(ipx_tier(frame, 14)),
        C::IpxLlc => Selection::Show(ipx_tier(frame, 17)),
        C::IpxSnap => Selection::Show(ipx_tier(frame, 22)),
        C::Ipv6 | C::Netbeui | C::Vlan | C::Other | C::Malformed => by_cards(frame, class),
        _ => ipv4(frame, class).unwrap_or(Selection::Nothing),
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "the verifier's: no calls")]
fn ipx_tier<F: Octets + ?Sized>(frame: &F, at: usize) -> Tier {
    let (Some(destination), Some(source)) = (frame.octets::<2>(at + 16), frame.octets::<2>(at + 28)) else {
        return Tier::Game;
    };
    let (destination, source) = (u16::from_be_bytes(destination), u16::from_be_bytes(source));
    let [sap, rip, netbios, query] = IPX_CONTROL;
    let control = |socket| socket == sap || socket == rip || socket == netbios || socket == query;
    if control(destination) || control(source) { Tier::Control } else { Tier::Game }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "the verifier's: no calls")]
fn by_cards<F: Octets + ?Sized>(frame: &F, class: TrafficClass) -> Selection {
    let (Some(destination), Some(source)) = (frame.octets::<4>(2), frame.octets::<4>(8)) else {
        return Selection::Nothing;
    };
    Selection::First(FlowId {
        source: u32::from_be_bytes(source),
        destination: u32::from_be_bytes(destination),
        source_port: 0,
        destination_port: 0,
        protocol: 0,
        class: class as u8,
        zero: 0,
    })
}

#[inline(always)]
fn ipv4<F: Octets + ?Sized>(frame: &F, class: TrafficClass) -> Option<Selection> {
    use TrafficClass as C;
    // Ethernet II, or SNAP: classify knows no third way to IPv4.
    let at = if frame.octets::<2>(12)? == [0x08, 0x00] { 14 } else { 22 };
    let [version, _, _, _, i0, i1, flags, _, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3]: [u8; 20] =
        frame.octets(at)?;
    let datagram = Datagram {
        source: u32::from_be_bytes([s0, s1, s2, s3]),
        destination: u32::from_be_bytes([d0, d1, d2, d3]),
        identification: u16::from_be_bytes([i0, i1]),
        protocol,
    };
    let payload = at + usize::from(version & 0x0f) * 4;
    let flow = |source_port, destination_port| {
        Selection::First(FlowId {
            source: datagram.source,
            destination: datagram.destination,
            source_port,
            destination_port,
            protocol,
            class: class as u8,
            zero: 0,
        })
    };
    let tier = match class {
        C::IpFragment => return Some(Selection::Fragment(datagram)),
        C::IpOther => return Some(flow(0, 0)),
        C::Icmp => match frame.octets::<1>(payload)? {
            // The rest asks for a mask, an address or the time.
            [ICMP_ECHO | ICMP_ECHO_REPLY | 13..] => return Some(flow(0, 0)),
            _ => Tier::Control,
        },
        C::DplayQuery if protocol != UDP => tcp_tier(frame, payload, Tier::Control)?,
        C::DplayTcp => tcp_tier(frame, payload, Tier::Game)?,
        C::TcpOther | C::NetbiosSsn => {
            let [a, b, c, d, _, _, _, _, _, _, _, _, _, tcp_flags]: [u8; 14] = frame.octets(payload)?;
            if tcp_flags & TCP_FIN_SYN_RST == 0 {
                return Some(flow(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
            }
            Tier::Other
        }
        C::UdpOther => {
            let [a, b, c, d]: [u8; 4] = frame.octets(payload)?;
            return Some(flow(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
        }
        C::DplayUdp | C::Ipxnet | C::Ipxwrapper => Tier::Game,
        _ => Tier::Control,
    };
    Some(if flags & MORE_FRAGMENTS == 0 { Selection::Show(tier) } else { Selection::ShowDatagram(tier, datagram) })
}

/// Begin and end of a connection are worth more than what is between.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the verifier's: no calls")]
fn tcp_tier<F: Octets + ?Sized>(frame: &F, at: usize, between: Tier) -> Option<Tier> {
    let [flags] = frame.octets(at + 13)?;
    Some(if flags & TCP_FIN_SYN_RST == 0 { between } else { Tier::Control })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wire::class::classify;

    use super::*;

    /// An IPv4 frame of Ethernet II.
    fn ip(protocol: u8, flags: u16, content: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 34];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[16..18].copy_from_slice(&u16::try_from(20 + content.len()).unwrap().to_be_bytes());
        frame[18..20].copy_from_slice(&[0, 99]);
        frame[20..22].copy_from_slice(&flags.to_be_bytes());
        frame[23] = protocol;
        frame[26..34].copy_from_slice(&[10, 98, 0, 1, 10, 98, 0, 2]);
        frame.extend(content);
        frame
    }

    fn of(frame: &[u8]) -> Selection {
        select(frame, classify(frame))
    }

    fn udp(from: u16, to: u16) -> [u8; 8] {
        let ([a, b], [c, d]) = (from.to_be_bytes(), to.to_be_bytes());
        [a, b, c, d, 0, 8, 0, 0]
    }

    #[test]
    fn a_fragment_belongs_to_the_datagram_of_the_first() {
        let Selection::ShowDatagram(tier, first) = of(&ip(17, 0x2000, &udp(2300, 2300))) else { panic!("first") };
        assert_eq!(tier, Tier::Game);
        assert_eq!(of(&ip(17, 0x00b0, &[0; 40])), Selection::Fragment(first));
        assert!(matches!(of(&ip(17, 0x2000, &udp(5000, 9))), Selection::First(_)), "others are not followed");
    }

    #[test]
    fn begin_and_end_of_a_connection_are_worth_more_than_what_is_between() {
        let tcp = |port: u16, flags: u8| {
            let [a, b] = port.to_be_bytes();
            ip(6, 0, &[a, b, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0])
        };
        for flags in [0x02, 0x11, 0x04] {
            assert_eq!(of(&tcp(2300, flags)), Selection::Show(Tier::Control));
            assert_eq!(of(&tcp(80, flags)), Selection::Show(Tier::Other));
        }
        assert_eq!(of(&tcp(2300, 0x18)), Selection::Show(Tier::Game));
        assert!(matches!(of(&tcp(80, 0x18)), Selection::First(FlowId { source_port: 80, destination_port: 1024, .. })));
    }

    #[test]
    fn questions_of_ipx_are_control() {
        let ipx = |socket: u16| {
            let mut frame = vec![0; 60];
            frame[12..18].copy_from_slice(&[0x81, 0x37, 0xff, 0xff, 0, 30]);
            frame[30..32].copy_from_slice(&socket.to_be_bytes());
            of(&frame)
        };
        assert_eq!(ipx(0x0452), Selection::Show(Tier::Control));
        assert_eq!(ipx(47624), Selection::Show(Tier::Control));
        assert_eq!(ipx(0x4002), Selection::Show(Tier::Game));
    }

    #[test]
    fn tiers_and_losses_keep_their_numbers() {
        for (number, tier) in (0..).zip([Tier::Control, Tier::Game, Tier::Other]) {
            assert_eq!((tier as u32, Tier::from_u32(number)), (number, Some(tier)));
        }
        assert_eq!(Tier::from_u32(3), None);
        for (number, loss) in (0..).zip(crate::abi::Loss::ALL) {
            assert_eq!(loss as u32, number);
        }
    }

    proptest! {
        #[test]
        fn any_frame_is_selected_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            of(&bytes);
        }
    }
}
