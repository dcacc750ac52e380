//! One frame or more of every class of traffic, built by hand, with what the programs have to make of each.
use wire::class::TrafficClass as C;

/// What becomes of the frames of a shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shown {
    Each,
    Once,
    Never,
}

pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) class: C,
    pub(crate) shown: Shown,
    pub(crate) frame: Vec<u8>,
}

pub(crate) const GUEST_A: [u8; 6] = [0x02, 0x4c, 0, 0, 0, 0x0a];
pub(crate) const GUEST_B: [u8; 6] = [0x02, 0x4c, 0, 0, 0, 0x0b];
const ALL: [u8; 6] = [0xff; 6];

fn ethernet(to: [u8; 6], kind: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &GUEST_A, &kind.to_be_bytes(), body].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// IPv4 with `options` words of options.
fn ipv4(protocol: u8, options: u8, flags: u16, identification: u16, content: &[u8]) -> Vec<u8> {
    let header_len = 20 + usize::from(options) * 4;
    let mut packet = vec![0x45 + options, 0];
    packet.extend(u16::try_from(header_len + content.len()).unwrap().to_be_bytes());
    packet.extend(identification.to_be_bytes());
    packet.extend(flags.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 98, 0, 1, 10, 98, 0, 2]);
    packet.resize(header_len, 1);
    packet.extend(content);
    packet
}

fn udp(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + data.len()).unwrap();
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &len.to_be_bytes(), &[0, 0], data].concat()
}

fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let rest = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0];
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &rest].concat()
}

fn ipx(socket: u16) -> Vec<u8> {
    let mut packet = vec![0xff, 0xff, 0, 30, 0, 4];
    for node in [GUEST_B, GUEST_A] {
        packet.extend([0; 4]);
        packet.extend(node);
        packet.extend(socket.to_be_bytes());
    }
    packet
}

fn in_ip(packet: &[u8]) -> Vec<u8> {
    ethernet(GUEST_B, 0x0800, packet)
}

fn in_length(prefix: &[u8], packet: &[u8]) -> Vec<u8> {
    let body = [prefix, packet].concat();
    ethernet(GUEST_B, u16::try_from(body.len()).unwrap(), &body)
}

pub(crate) fn arp() -> Vec<u8> {
    ethernet(ALL, 0x0806, &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0x4c, 0, 0, 0, 10, 10, 98, 0, 1, 0, 0, 0, 0, 0, 0, 10, 98, 0, 2])
}

/// A frame of a flow that is not DirectPlay's.
pub(crate) fn other(number: u16, len: usize) -> Vec<u8> {
    let content = udp(5000 + number % 50, 9, &vec![0x5a; len]);
    in_ip(&ipv4(17, 0, 0, number, &content))
}

/// A short frame from another address for each number: a flow of its own.
pub(crate) fn stranger(number: u16) -> Vec<u8> {
    let mut frame = other(0, 8);
    // The source's last two bytes.
    frame[28..30].copy_from_slice(&number.to_be_bytes());
    frame
}

pub(crate) fn all() -> Vec<Shape> {
    use Shown::{Each, Never, Once};

    let mut shapes = Vec::new();
    let mut add = |name, class, shown, frame| shapes.push(Shape { name, class, shown, frame });
    let datagram = |from, to| in_ip(&ipv4(17, 0, 0, 7, &udp(from, to, b"data")));
    let segment = |from, to, flags| in_ip(&ipv4(6, 0, 0, 7, &tcp(from, to, flags)));
    add("ARP", C::Arp, Each, arp());
    add("DHCP discover", C::Dhcp, Each, ethernet(ALL, 0x0800, &ipv4(17, 0, 0, 7, &udp(68, 67, &[1; 300]))));
    add("NetBIOS name", C::NetbiosNs, Each, datagram(137, 137));
    add("NetBIOS datagram", C::NetbiosDgm, Each, datagram(138, 138));
    add("NetBIOS session, data", C::NetbiosSsn, Once, segment(1040, 139, 0x18));
    add("NetBIOS session, FIN", C::NetbiosSsn, Each, segment(1041, 139, 0x11));
    add("session query", C::DplayQuery, Each, datagram(2350, 47624));
    add("session query by TCP", C::DplayQuery, Each, segment(1050, 47624, 0x18));
    add("DirectPlay TCP, low edge", C::DplayTcp, Each, segment(1051, 2300, 0x18));
    add("DirectPlay TCP, high edge", C::DplayTcp, Each, segment(2400, 1051, 0x02));
    add("DirectPlay UDP", C::DplayUdp, Each, datagram(2300, 2400));
    add("DirectPlay UDP, long", C::DplayUdp, Each, in_ip(&ipv4(17, 0, 0, 7, &udp(2350, 2350, &[7; 1472]))));
    add("DirectPlay UDP, IP options", C::DplayUdp, Each, in_ip(&ipv4(17, 10, 0, 7, &udp(2301, 2301, &[7; 200]))));
    add("DirectPlay 8", C::Dplay8, Each, datagram(1060, 6073));
    add("IPXNET", C::Ipxnet, Each, datagram(213, 213));
    add("IPXWrapper", C::Ipxwrapper, Each, datagram(54792, 54792));
    add("echo", C::Icmp, Once, in_ip(&ipv4(1, 0, 0, 7, &[8, 0, 0, 0, 0, 1, 0, 1])));
    add("port unreachable", C::Icmp, Each, in_ip(&ipv4(1, 0, 0, 7, &[3, 3, 0, 0, 0, 0, 0, 0])));
    add("other TCP, data", C::TcpOther, Once, segment(1070, 2299, 0x18));
    add("other TCP, SYN", C::TcpOther, Each, segment(1071, 80, 0x02));
    add("other UDP", C::UdpOther, Once, datagram(2299, 2401));
    add("first fragment", C::DplayUdp, Each, in_ip(&ipv4(17, 0, 0x2000, 99, &udp(2302, 2302, &[7; 1400]))));
    add("fragment of it", C::IpFragment, Each, in_ip(&ipv4(17, 0, 0x00b0, 99, &[7; 100])));
    add("fragment of another", C::IpFragment, Never, in_ip(&ipv4(17, 0, 0x00b0, 98, &[7; 100])));
    add("IGMP", C::IpOther, Once, in_ip(&ipv4(2, 0, 0, 7, &[0x16; 8])));
    add("IPv6", C::Ipv6, Once, ethernet(GUEST_B, 0x86dd, &[0x60; 40]));
    add("IPX in Ethernet II", C::IpxEthernetII, Each, ethernet(GUEST_B, 0x8137, &ipx(47624)));
    add("IPX raw", C::IpxRaw8023, Each, in_length(&[], &ipx(0x0452)));
    add("IPX in LLC", C::IpxLlc, Each, in_length(&[0xe0, 0xe0, 3], &ipx(0x4002)));
    add("IPX in SNAP", C::IpxSnap, Each, in_length(&[0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0x37], &ipx(0x0455)));
    add("UDP in SNAP", C::DplayUdp, Each, {
        in_length(&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &ipv4(17, 0, 0, 7, &udp(2303, 2303, b"data")))
    });
    add("NetBEUI", C::Netbeui, Once, in_length(&[0xf0, 0xf0, 3], &[0x2c; 44]));
    add("802.1Q", C::Vlan, Once, ethernet(GUEST_B, 0x8100, &[0, 5, 0x88, 0xb5, 1, 2, 3]));
    add("unknown type", C::Other, Once, ethernet(GUEST_B, 0x88b5, &[1; 64]));
    add("length of no framing", C::Malformed, Once, ethernet(GUEST_B, 1501, &[1; 64]));
    shapes
}
