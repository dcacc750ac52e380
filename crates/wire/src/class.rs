//! The class of traffic that a frame is counted under: the same function runs in the eBPF programs and on the host.
//!
//! | frame | class |
//! |---|---|
//! | IPv4, not the first fragment | `ip_fragment` |
//! | UDP, TCP with a port of a known service at either end, else with one of 2300-2400 at either end | that service |
//! | IPX | its framing; the header has to be sound |
//! | 802.1Q, 802.1ad | `vlan`, whatever is inside |
//! | a type or service access point of nobody here | `other` |
//! | lengths that contradict each other | `malformed` |
//!
//! **Invariants.** No loop, no slice, no call that is not inlined: each access is a constant offset, or one of at most 60
//! plus a constant behind the IPv4 options, so that the kernel's verifier accepts it. [`HEAD_LEN`] bytes suffice.
//! Whoever has only a part of a frame says how long it was on the wire: lengths are held against that.
/// How many bytes from the front [`classify`] may look at: SNAP, an IPv4 header with all its options, a TCP header up
/// to its flags.
pub const HEAD_LEN: usize = 22 + 60 + 14;

/// Bytes of one frame, from the destination MAC on.
pub trait Octets {
    /// The `N` bytes at `at`, or `None` where the frame is shorter.
    fn octets<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// Length on the wire without the check sum, which may be more than there are bytes.
    fn wire_len(&self) -> u32;
}

/// A whole frame.
impl Octets for [u8] {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the module's invariant")]
    fn octets<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.get(at..)?.first_chunk::<N>().copied()
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the module's invariant")]
    fn wire_len(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }
}

/// The front of a frame that was longer on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub bytes: &'a [u8],
    /// Length on the wire, in bytes.
    pub wire_len: u32,
}

impl Octets for Head<'_> {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the module's invariant")]
    fn octets<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.octets(at)
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the module's invariant")]
    fn wire_len(&self) -> u32 {
        self.wire_len
    }
}

macro_rules! classes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What a frame is counted under.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum TrafficClass {
            $($(#[$doc])* $variant,)*
        }

        impl TrafficClass {
            /// All, in the order of their numbers: `ALL[class as usize] == class`.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// As counters and metrics call it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

classes! {
    Arp = "arp",
    /// UDP 67, 68.
    Dhcp = "dhcp",
    /// UDP 137.
    NetbiosNs = "netbios_ns",
    /// UDP 138.
    NetbiosDgm = "netbios_dgm",
    /// TCP 139.
    NetbiosSsn = "netbios_ssn",
    /// UDP, TCP 47624: session queries.
    DplayQuery = "dplay_query",
    /// TCP 2300-2400.
    DplayTcp = "dplay_tcp",
    /// UDP 2300-2400.
    DplayUdp = "dplay_udp",
    /// UDP 6073: `DirectPlay` 8 enumeration.
    Dplay8 = "dplay8",
    /// UDP 213: `DOSBox`.
    Ipxnet = "ipxnet",
    /// UDP 54792.
    Ipxwrapper = "ipxwrapper",
    Icmp = "icmp",
    TcpOther = "tcp_other",
    UdpOther = "udp_other",
    /// IPv4, not the first fragment: has no ports.
    IpFragment = "ip_fragment",
    IpOther = "ip_other",
    Ipv6 = "ipv6",
    IpxEthernetII = "ipx_ethernet_ii",
    IpxRaw8023 = "ipx_raw_802_3",
    IpxLlc = "ipx_llc",
    IpxSnap = "ipx_snap",
    /// LLC F0.
    Netbeui = "netbeui",
    /// 802.1Q or 802.1ad.
    Vlan = "vlan",
    Other = "other",
    Malformed = "malformed",
}

impl TrafficClass {
    /// The class with this number, as eBPF maps have it.
    pub fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }
}

const ETHERNET_LEN: u32 = 14;
/// AA AA 03, three bytes of OUI, the type.
const SNAP_LEN: u32 = 8;
const LLC_LEN: u32 = 3;
/// What stands between a tag's type and the type of what is inside.
const VLAN_LEN: u32 = 4;
const UDP_LEN: u16 = 8;
const TCP_LEN: u16 = 20;
const ICMP_LEN: u16 = 8;
const IPX_LEN: u32 = 30;
/// Where the content of a frame without tags begins.
const CONTENT: usize = ETHERNET_LEN as usize;
const BEHIND_LLC: usize = CONTENT + LLC_LEN as usize;
const BEHIND_SNAP: usize = CONTENT + SNAP_LEN as usize;
const ARP_LEN: u32 = 28;

/// The class of a frame. Never panics, whatever the bytes.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the module's invariant")]
pub fn classify<F: Octets + ?Sized>(frame: &F) -> TrafficClass {
    // A `match` and not `?`: a frame that is too short has a class, too.
    let Some(kind) = frame.octets::<2>(CONTENT - 2) else { return TrafficClass::Malformed };
    let body_len = frame.wire_len().saturating_sub(ETHERNET_LEN);
    match u16::from_be_bytes(kind) {
        kind @ 0x0600.. => by_type(frame, kind, CONTENT, body_len, TrafficClass::IpxEthernetII),
        length if length > 1500 || u32::from(length) > body_len => None,
        length => by_llc(frame, length),
    }
    .unwrap_or(TrafficClass::Malformed)
}

/// What an 802.3 frame with `length` bytes of content carries.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the module's invariant")]
fn by_llc<F: Octets + ?Sized>(frame: &F, length: u16) -> Option<TrafficClass> {
    let length_32 = u32::from(length);
    if length < 2 {
        return None;
    }
    let [dsap, ssap] = frame.octets(CONTENT)?;
    match (dsap, ssap) {
        (0xff, 0xff) => ipx(frame, CONTENT, length_32, TrafficClass::IpxRaw8023),
        _ if length < 3 => None,
        (0, 0) if length_32 >= IPX_LEN => {
            // ipxbox writes check sum 0 there (protocols.md 4.2): IPX where both lengths agree, but for an odd one's
            // padding. No station uses the null service access point for anything so long.
            let [hi, lo] = frame.octets(CONTENT + 2)?;
            let claimed = u32::from(u16::from_be_bytes([hi, lo]));
            if claimed >= IPX_LEN && (claimed == length_32 || claimed + 1 == length_32 && claimed & 1 == 1) {
                ipx(frame, CONTENT, length_32, TrafficClass::IpxRaw8023)
            } else {
                Some(TrafficClass::Other)
            }
        }
        (0xe0, 0xe0) => {
            let [control] = frame.octets(CONTENT + 2)?;
            if control != 3 {
                return Some(TrafficClass::Other);
            }
            ipx(frame, BEHIND_LLC, length_32 - LLC_LEN, TrafficClass::IpxLlc)
        }
        (0xaa, 0xaa) if length_32 >= SNAP_LEN => {
            let [_, _, control, oui @ .., hi, lo]: [u8; 8] = frame.octets(CONTENT)?;
            if control != 3 || oui != [0, 0, 0] {
                return Some(TrafficClass::Other);
            }
            let (at, left) = (BEHIND_SNAP, length_32 - SNAP_LEN);
            by_type(frame, u16::from_be_bytes([hi, lo]), at, left, TrafficClass::IpxSnap)
        }
        (0xf0, 0xf0 | 0xf1) => Some(TrafficClass::Netbeui),
        _ => Some(TrafficClass::Other),
    }
}

/// What the Ethernet type `kind` names, `left` bytes of it at `at`.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the module's invariant")]
fn by_type<F: Octets + ?Sized>(
    frame: &F,
    kind: u16,
    at: usize,
    left: u32,
    ipx_class: TrafficClass,
) -> Option<TrafficClass> {
    match kind {
        0x0800 => ipv4(frame, at, left),
        0x0806 => match frame.octets::<6>(at)? {
            // Ethernet or IEEE 802, IPv4: what crate::arp reads.
            [0, 1 | 6, 8, 0, 6, 4] if left >= ARP_LEN => Some(TrafficClass::Arp),
            _ => None,
        },
        0x8137 => ipx(frame, at, left, ipx_class),
        0x86dd => Some(TrafficClass::Ipv6),
        0x8100 | 0x88a8 | 0x9100 if at == CONTENT => (left >= VLAN_LEN).then_some(TrafficClass::Vlan),
        _ => Some(TrafficClass::Other),
    }
}

/// `class`, where the header at `at` is a sound one.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the module's invariant")]
fn ipx<F: Octets + ?Sized>(frame: &F, at: usize, left: u32, class: TrafficClass) -> Option<TrafficClass> {
    let length = u32::from(u16::from_be_bytes(frame.octets(at + 2)?));
    (length >= IPX_LEN && length <= left).then_some(class)
}

/// What the IPv4 packet at `at` carries, of which `left` bytes were on the wire.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the module's invariant")]
fn ipv4<F: Octets + ?Sized>(frame: &F, at: usize, left: u32) -> Option<TrafficClass> {
    let [version, _, t0, t1, _, _, f0, f1, _, protocol]: [u8; 10] = frame.octets(at)?;
    let header_len = u16::from(version & 0x0f) * 4;
    let total_len = u16::from_be_bytes([t0, t1]);
    if version >> 4 != 4 || header_len < 20 || total_len < header_len || u32::from(total_len) > left {
        return None;
    }
    let [offset, more] = [u16::from_be_bytes([f0 & 0x1f, f1]), u16::from(f0 & 0x20)];
    if offset != 0 {
        return Some(TrafficClass::IpFragment);
    }
    let (at, left) = (at + usize::from(header_len), total_len - header_len);
    match protocol {
        1 if left >= ICMP_LEN => Some(TrafficClass::Icmp),
        6 if left >= TCP_LEN => {
            let [s0, s1, d0, d1, _, _, _, _, _, _, _, _, data_offset]: [u8; 13] = frame.octets(at)?;
            let tcp_len = u16::from(data_offset >> 4) * 4;
            // Receivers take no first fragment that ends within the header, either (RFC 1858).
            if tcp_len < TCP_LEN || tcp_len > left {
                return None;
            }
            Some(tcp(u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
        }
        17 if left >= UDP_LEN => {
            let [s0, s1, d0, d1, l0, l1]: [u8; 6] = frame.octets(at)?;
            let udp_len = u16::from_be_bytes([l0, l1]);
            if udp_len < UDP_LEN || udp_len > left && more == 0 {
                return None;
            }
            Some(udp(u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
        }
        1 | 6 | 17 => None,
        _ => Some(TrafficClass::IpOther),
    }
}

/// A service's own port tells more than the range, in which the dynamic ports of Windows 9x lie, too.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the module's invariant")]
const fn udp(source: u16, destination: u16) -> TrafficClass {
    match (udp_service(destination), udp_service(source)) {
        (Some(class), _) | (None, Some(class)) => class,
        (None, None) if in_range(source) || in_range(destination) => TrafficClass::DplayUdp,
        (None, None) => TrafficClass::UdpOther,
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "the module's invariant")]
const fn tcp(source: u16, destination: u16) -> TrafficClass {
    match (tcp_service(destination), tcp_service(source)) {
        (Some(class), _) | (None, Some(class)) => class,
        (None, None) if in_range(source) || in_range(destination) => TrafficClass::DplayTcp,
        (None, None) => TrafficClass::TcpOther,
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "the module's invariant")]
const fn udp_service(port: u16) -> Option<TrafficClass> {
    match port {
        67 | 68 => Some(TrafficClass::Dhcp),
        137 => Some(TrafficClass::NetbiosNs),
        138 => Some(TrafficClass::NetbiosDgm),
        213 => Some(TrafficClass::Ipxnet),
        6073 => Some(TrafficClass::Dplay8),
        47624 => Some(TrafficClass::DplayQuery),
        54792 => Some(TrafficClass::Ipxwrapper),
        _ => None,
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "the module's invariant")]
const fn tcp_service(port: u16) -> Option<TrafficClass> {
    match port {
        139 => Some(TrafficClass::NetbiosSsn),
        47624 => Some(TrafficClass::DplayQuery),
        _ => None,
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "the module's invariant")]
const fn in_range(port: u16) -> bool {
    matches!(port, 2300..=2400)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{HEAD_LEN, Head, Octets, TrafficClass, classify};

    #[test]
    fn numbers_and_names_are_unambiguous() {
        for (index, class) in (0_u8..).zip(TrafficClass::ALL) {
            assert_eq!((class as u8, TrafficClass::from_index(index)), (index, Some(class)));
        }
        let len = TrafficClass::ALL.len();
        assert_eq!(TrafficClass::from_index(u8::try_from(len).unwrap()), None);
        let names: BTreeSet<_> = TrafficClass::ALL.map(TrafficClass::name).into();
        assert_eq!(names.len(), len);
        assert!(
            names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
        );
    }

    /// A frame of Ethernet II: IPv4 with `options` words of options, `protocol`, and `content`.
    fn ip(options: u8, protocol: u8, flags: u16, content: &[u8]) -> std::vec::Vec<u8> {
        let header_len = 20 + usize::from(options) * 4;
        let mut frame = std::vec![0; 14 + header_len];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45 + options;
        frame[16..18].copy_from_slice(&u16::try_from(header_len + content.len()).unwrap().to_be_bytes());
        frame[20..22].copy_from_slice(&flags.to_be_bytes());
        frame[23] = protocol;
        frame.extend_from_slice(content);
        frame
    }

    fn udp(source: u16, destination: u16) -> std::vec::Vec<u8> {
        let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
        ip(0, 17, 0, &[a, b, c, d, 0, 8, 0, 0])
    }

    fn tcp(source: u16, destination: u16) -> std::vec::Vec<u8> {
        let mut content = [0; 20];
        content[..2].copy_from_slice(&source.to_be_bytes());
        content[2..4].copy_from_slice(&destination.to_be_bytes());
        content[12] = 0x50;
        ip(10, 6, 0, &content)
    }

    #[test]
    fn ports_tell_the_service() {
        for (source, destination, class) in [
            (68, 67, TrafficClass::Dhcp),
            (137, 137, TrafficClass::NetbiosNs),
            (138, 138, TrafficClass::NetbiosDgm),
            (1025, 47624, TrafficClass::DplayQuery),
            (2350, 47624, TrafficClass::DplayQuery),
            (2299, 2300, TrafficClass::DplayUdp),
            (2400, 2401, TrafficClass::DplayUdp),
            (2299, 2401, TrafficClass::UdpOther),
            (6073, 2302, TrafficClass::Dplay8),
            (2302, 6073, TrafficClass::Dplay8),
            (213, 2301, TrafficClass::Ipxnet),
            (54792, 54792, TrafficClass::Ipxwrapper),
            (139, 1026, TrafficClass::UdpOther),
        ] {
            assert_eq!(classify(&*udp(source, destination)), class, "UDP {source} {destination}");
        }
        for (source, destination, class) in [
            (1025, 139, TrafficClass::NetbiosSsn),
            (1025, 2300, TrafficClass::DplayTcp),
            (2400, 1025, TrafficClass::DplayTcp),
            (47624, 1025, TrafficClass::DplayQuery),
            (2299, 2401, TrafficClass::TcpOther),
            (137, 6073, TrafficClass::TcpOther),
        ] {
            assert_eq!(classify(&*tcp(source, destination)), class, "TCP {source} {destination}");
        }
    }

    #[test]
    fn lengths_have_to_agree() {
        let sound = udp(1, 2);
        let classify_with = |at: usize, value: u8| {
            let mut frame = sound.clone();
            frame[at] = value;
            classify(&*frame)
        };
        assert_eq!(classify(&*sound), TrafficClass::UdpOther);
        assert_eq!(classify_with(14, 0x44), TrafficClass::Malformed, "header of 16 bytes");
        assert_eq!(classify_with(14, 0x65), TrafficClass::Malformed, "version 6");
        assert_eq!(classify_with(17, 19), TrafficClass::Malformed, "total shorter than the header");
        assert_eq!(classify_with(17, 29), TrafficClass::Malformed, "total longer than the frame");
        assert_eq!(classify_with(17, 27), TrafficClass::Malformed, "no room for UDP");
        assert_eq!(classify_with(39, 7), TrafficClass::Malformed, "UDP shorter than its header");
        assert_eq!(classify_with(39, 9), TrafficClass::Malformed, "UDP longer than the packet");
        assert_eq!(classify_with(21, 1), TrafficClass::IpFragment);
        assert_eq!(classify_with(20, 0x20), TrafficClass::UdpOther, "first fragment");
        // A first fragment ends before its datagram.
        let mut first = sound.clone();
        (first[20], first[39]) = (0x20, 200);
        assert_eq!(classify(&*first), TrafficClass::UdpOther);
        assert_eq!(classify(&*ip(0, 1, 0, &[0; 8])), TrafficClass::Icmp);
        assert_eq!(classify(&*ip(0, 1, 0, &[0; 7])), TrafficClass::Malformed);
        assert_eq!(classify(&*ip(0, 2, 0, &[])), TrafficClass::IpOther);
    }

    #[test]
    fn the_front_of_a_frame_suffices() {
        let mut frame = tcp(1025, 2300);
        frame.resize(1514, 0);
        let wire_len = frame.wire_len();
        let head = Head { bytes: &frame[..HEAD_LEN], wire_len };
        assert_eq!(classify(&head), TrafficClass::DplayTcp);
        assert_eq!(classify(&Head { wire_len: 70, ..head }), TrafficClass::Malformed, "total length beyond the wire");
    }

    /// Found by libFuzzer: nothing behind the length may be looked at.
    #[test]
    fn a_short_test_frame_is_no_ipx() {
        let mut frame = [0; 17];
        frame[13] = 3;
        assert_eq!(classify(&frame[..]), TrafficClass::Other);
    }

    #[test]
    fn framings_of_802_3() {
        let check = |length: u16, body: &[u8], want: TrafficClass| {
            let mut frame = std::vec![0; 60];
            frame[12..14].copy_from_slice(&length.to_be_bytes());
            frame[14..14 + body.len()].copy_from_slice(body);
            assert_eq!(classify(&*frame), want, "{length} {body:x?}");
        };
        check(30, &[0xff, 0xff, 0, 30], TrafficClass::IpxRaw8023);
        check(30, &[0xff, 0xff, 0, 29], TrafficClass::Malformed);
        check(30, &[0xff, 0xff, 0, 31], TrafficClass::Malformed);
        check(30, &[0, 0, 0, 30], TrafficClass::IpxRaw8023);
        check(32, &[0, 0, 0, 31], TrafficClass::IpxRaw8023);
        check(31, &[0, 0, 0, 30], TrafficClass::Other);
        check(30, &[0, 0, 0, 29], TrafficClass::Other);
        check(33, &[0xe0, 0xe0, 3, 0xff, 0xff, 0, 30], TrafficClass::IpxLlc);
        check(32, &[0xe0, 0xe0, 3, 0xff, 0xff, 0, 30], TrafficClass::Malformed);
        check(33, &[0xe0, 0xe0, 0x7f], TrafficClass::Other);
        check(38, &[0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0x37, 0, 0, 0, 30], TrafficClass::IpxSnap);
        check(38, &[0xaa, 0xaa, 3, 0, 0, 0xf8, 0x81, 0x37, 0, 0, 0, 30], TrafficClass::Other);
        check(46, &[0xf0, 0xf0, 3], TrafficClass::Netbeui);
        check(46, &[0x42, 0x42, 3], TrafficClass::Other);
        check(47, &[0x42, 0x42, 3], TrafficClass::Malformed);
        check(1501, &[0x42, 0x42, 3], TrafficClass::Malformed);
        check(1, &[0xff, 0xff, 0, 30], TrafficClass::Malformed);
        check(0x8100, &[], TrafficClass::Vlan);
        check(0x88a8, &[], TrafficClass::Vlan);
        check(0x86dd, &[], TrafficClass::Ipv6);
        check(0x88cc, &[], TrafficClass::Other);
        check(0x0806, &[0, 1, 8, 0, 6, 4], TrafficClass::Arp);
        check(0x0806, &[0, 1, 8, 0, 6, 16], TrafficClass::Malformed);
    }
}
