//! DHCP (RFC 2131) for one seat: a frame in, perhaps a frame out. Pure; `edge` has the sockets.
//!
//! **Invariants.** Only the seat's own MAC is answered, always with the seat's reserved address: there is no pool and no
//! state, so a restart forgets nothing and two nodes can never disagree. No router is given: the LAN leads nowhere.
use std::net::Ipv4Addr;

use dhcproto::{
    Encodable, Encoder,
    v4::{DhcpOption, Flags, Message, MessageType, NodeType, Opcode},
};
use model::{Identity, LanName, MacAddr, Subnet};
use pnet::packet::{
    MutablePacket, Packet,
    ethernet::{EtherTypes, EthernetPacket, MutableEthernetPacket},
    ip::IpNextHeaderProtocols,
    ipv4::{self, Ipv4Packet, MutableIpv4Packet},
    udp::{self, MutableUdpPacket, UdpPacket},
};
use wire::dhcp::{Message as Request, MessageType as Asked};

use crate::arp::{mac_of, pnet_mac};

pub(crate) const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// The address is the seat's for good. A day lets a guest outlive any restart of its agent and still notice a renumbering.
const LEASE_SECONDS: u32 = 86_400;
/// Smallest BOOTP message (RFC 1542 section 2.1); old clients drop shorter ones.
const MESSAGE_LEN_MIN: usize = 300;
const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const UDP_LEN: usize = 8;

/// What one seat is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub(crate) lan: LanName,
    pub(crate) mac: MacAddr,
    pub(crate) ip: Ipv4Addr,
    pub(crate) subnet: Subnet,
    pub(crate) host_name: String,
    pub(crate) edge_mac: MacAddr,
}

impl Reservation {
    pub(crate) fn new(lan: &LanName, identity: &Identity, edge_mac: MacAddr) -> Self {
        Self {
            lan: lan.clone(),
            mac: identity.mac,
            ip: identity.ip,
            subnet: identity.subnet,
            host_name: identity.host_name.clone(),
            edge_mac,
        }
    }

    pub(crate) fn edge_ip(&self) -> Ipv4Addr {
        self.subnet.edge()
    }
}

/// What a request leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Send this frame; the guest does not use the address yet, or must not.
    Reply(Vec<u8>),
    /// Send this frame; the guest uses the reserved address from now on.
    Acknowledge(Vec<u8>),
    /// The guest gave its address back.
    Released,
    /// The guest found its address in use by somebody else (RFC 2131 section 3.1.5).
    Declined,
}

/// The frame to send for `request`, if any.
#[cfg(test)]
pub(crate) fn answer(request: &[u8], reservation: &Reservation) -> Option<Vec<u8>> {
    match decide(request, reservation)? {
        Decision::Reply(frame) | Decision::Acknowledge(frame) => Some(frame),
        Decision::Released | Decision::Declined => None,
    }
}

/// Judges an Ethernet frame that the guest sent. `None`: not DHCP, not from the seat's MAC, or not for us.
pub(crate) fn decide(request: &[u8], reservation: &Reservation) -> Option<Decision> {
    let body = body(request, reservation)?;
    // By `wire`, as the observer does, and not by dhcproto: that one asserts the lengths of options which a guest chose.
    let request = Request::parse(&body).filter(|it| !it.is_reply && it.client_mac == Some(reservation.mac))?;
    if request.server_id().is_some_and(|server| server != reservation.edge_ip()) {
        return None;
    }
    let asked = request.message_type()?;
    let build = |kind| frame(kind, asked, &request, reservation);
    match asked {
        Asked::Discover => Some(Decision::Reply(build(MessageType::Offer)?)),
        Asked::Request => {
            // Selecting and init-reboot name the address in an option; renewing and rebinding in `ciaddr`.
            let wants = request.requested_ip().unwrap_or(request.client_ip);
            if wants == reservation.ip {
                Some(Decision::Acknowledge(build(MessageType::Ack)?))
            } else {
                Some(Decision::Reply(build(MessageType::Nak)?))
            }
        }
        Asked::Inform if request.client_ip == reservation.ip => Some(Decision::Acknowledge(build(MessageType::Ack)?)),
        // A guest with an address of its own choice: it gets the settings, and stays as it is.
        Asked::Inform => Some(Decision::Reply(build(MessageType::Ack)?)),
        Asked::Release => Some(Decision::Released),
        Asked::Decline => Some(Decision::Declined),
        Asked::Offer | Asked::Ack | Asked::Nak | Asked::Other(_) => None,
    }
}

/// What the seat's MAC sends to the server's port, if `frame` is that.
fn body(frame: &[u8], reservation: &Reservation) -> Option<Vec<u8>> {
    let ethernet = EthernetPacket::new(frame)?;
    if ethernet.get_ethertype() != EtherTypes::Ipv4 || mac_of(ethernet.get_source()) != reservation.mac {
        return None;
    }
    let ip = Ipv4Packet::new(ethernet.payload())?;
    let whole = ip.get_fragment_offset() == 0 && ip.get_flags() & ipv4::Ipv4Flags::MoreFragments == 0;
    let ours = [Ipv4Addr::BROADCAST, reservation.subnet.broadcast(), reservation.edge_ip()];
    if ip.get_version() != 4
        || ip.get_header_length() < 5
        || ip.get_next_level_protocol() != IpNextHeaderProtocols::Udp
        || !whole
        || !ours.contains(&ip.get_destination())
    {
        return None;
    }
    let udp = UdpPacket::new(ip.payload())?;
    (udp.get_destination() == SERVER_PORT).then(|| udp.payload().to_vec())
}

fn frame(kind: MessageType, asked: Asked, request: &Request<'_>, seat: &Reservation) -> Option<Vec<u8>> {
    let inform = asked == Asked::Inform;
    let offered = if inform || kind == MessageType::Nak { Ipv4Addr::UNSPECIFIED } else { seat.ip };
    let client = if kind == MessageType::Nak { Ipv4Addr::UNSPECIFIED } else { request.client_ip };
    let mut message =
        Message::new_with_id(request.transaction, client, offered, Ipv4Addr::UNSPECIFIED, request.relay, &seat.mac.0);
    // A NAK goes to everybody (RFC 2131 section 4.3.2): the client has no address that could be trusted.
    let broadcast = request.broadcast || kind == MessageType::Nak;
    let flags = if broadcast { Flags::default().set_broadcast() } else { Flags::default() };
    message.set_opcode(Opcode::BootReply).set_flags(flags);

    let mut body = Vec::with_capacity(MESSAGE_LEN_MIN);
    let mut encoder = Encoder::new(&mut body);
    message.encode(&mut encoder).ok()?;
    // One by one: dhcproto keeps options in a hash map, and old clients want the message type first.
    for option in options(kind, inform, seat) {
        option.encode(&mut encoder).ok()?;
    }
    DhcpOption::End.encode(&mut encoder).ok()?;
    body.resize(body.len().max(MESSAGE_LEN_MIN), 0);

    let (mac, ip) = match (broadcast, client) {
        (true, _) => (MacAddr::BROADCAST, Ipv4Addr::BROADCAST),
        (false, Ipv4Addr::UNSPECIFIED) => (seat.mac, seat.ip),
        (false, client) => (seat.mac, client),
    };
    Some(datagram(&body, seat, mac, ip))
}

fn options(kind: MessageType, inform: bool, seat: &Reservation) -> Vec<DhcpOption> {
    let mut options = vec![DhcpOption::MessageType(kind), DhcpOption::ServerIdentifier(seat.edge_ip())];
    if kind == MessageType::Nak {
        return options;
    }
    if !inform {
        options.extend([
            DhcpOption::AddressLeaseTime(LEASE_SECONDS),
            DhcpOption::Renewal(LEASE_SECONDS / 2),
            DhcpOption::Rebinding(LEASE_SECONDS / 8 * 7),
        ]);
    }
    options.extend([
        DhcpOption::SubnetMask(seat.subnet.netmask()),
        DhcpOption::BroadcastAddr(seat.subnet.broadcast()),
        // B-node: names by broadcast only, as there is no WINS server (RFC 1001 section 10).
        DhcpOption::NetBiosNodeType(NodeType::B),
        DhcpOption::Hostname(seat.host_name.clone()),
        // A name of no network that there is: Windows 98 asks for one, and looks nothing up without a name server.
        DhcpOption::DomainName(format!("{}.loco", seat.lan)),
    ]);
    options
}

fn datagram(body: &[u8], seat: &Reservation, mac: MacAddr, ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET_LEN + IPV4_LEN + UDP_LEN + body.len()];
    let len = |octets: usize| u16::try_from(octets).expect("a DHCP message is a few hundred octets");
    let mut ethernet = MutableEthernetPacket::new(&mut frame).expect("the buffer holds an Ethernet header");
    ethernet.set_destination(pnet_mac(mac));
    ethernet.set_source(pnet_mac(seat.edge_mac));
    ethernet.set_ethertype(EtherTypes::Ipv4);
    let mut packet = MutableIpv4Packet::new(ethernet.payload_mut()).expect("the buffer holds an IPv4 header");
    packet.set_version(4);
    packet.set_header_length(5);
    packet.set_total_length(len(IPV4_LEN + UDP_LEN + body.len()));
    packet.set_ttl(64);
    packet.set_next_level_protocol(IpNextHeaderProtocols::Udp);
    packet.set_source(seat.edge_ip());
    packet.set_destination(ip);
    packet.set_checksum(ipv4::checksum(&packet.to_immutable()));
    let mut datagram = MutableUdpPacket::new(packet.payload_mut()).expect("the buffer holds a UDP header");
    datagram.set_source(SERVER_PORT);
    datagram.set_destination(CLIENT_PORT);
    datagram.set_length(len(UDP_LEN + body.len()));
    datagram.set_payload(body);
    datagram.set_checksum(udp::ipv4_checksum(&datagram.to_immutable(), &seat.edge_ip(), &ip));
    frame
}

#[cfg(test)]
mod tests;
