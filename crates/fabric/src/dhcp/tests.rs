use dhcproto::{
    Decodable as _,
    v4::{OptionCode, UnknownOption},
};
use proptest::{collection::vec, prelude::*};

use super::*;

fn seat() -> Reservation {
    Reservation {
        lan: "party".parse().unwrap(),
        mac: MacAddr([2, 0x4c, 0, 0x10, 0x68, 4]),
        ip: Ipv4Addr::new(10, 98, 0, 4),
        subnet: "10.98.0.0/24".parse().unwrap(),
        host_name: "LOCO1068-4".to_owned(),
        edge_mac: MacAddr([2, 0x4c, 0, 0x10, 0x68, 0xff]),
    }
}

/// A client's message, as a guest would put it on the wire.
struct Client {
    mac: MacAddr,
    ciaddr: Ipv4Addr,
    options: Vec<DhcpOption>,
    broadcast: bool,
    to: Ipv4Addr,
}

fn client(kind: MessageType) -> Client {
    Client {
        mac: seat().mac,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        options: vec![DhcpOption::MessageType(kind)],
        broadcast: false,
        to: Ipv4Addr::BROADCAST,
    }
}

impl Client {
    fn with(mut self, option: DhcpOption) -> Self {
        self.options.push(option);
        self
    }

    fn frame(&self) -> Vec<u8> {
        let mut message = Message::new_with_id(
            0x1234_5678,
            self.ciaddr,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            &self.mac.0,
        );
        if self.broadcast {
            message.set_flags(Flags::default().set_broadcast());
        }
        let mut body = Vec::new();
        let mut encoder = Encoder::new(&mut body);
        message.encode(&mut encoder).unwrap();
        for option in self.options.iter().chain([&DhcpOption::End]) {
            option.encode(&mut encoder).unwrap();
        }
        // The server's builder serves the client too, with the roles swapped afterwards.
        let mut frame = datagram(&body, &seat(), MacAddr::BROADCAST, self.to);
        frame[6..12].copy_from_slice(&self.mac.0);
        let mut ip = MutableIpv4Packet::new(&mut frame[ETHERNET_LEN..]).unwrap();
        ip.set_source(self.ciaddr);
        let mut udp = MutableUdpPacket::new(ip.payload_mut()).unwrap();
        udp.set_source(CLIENT_PORT);
        udp.set_destination(SERVER_PORT);
        frame
    }
}

/// A reply taken apart: destination MAC, destination IP, message.
#[track_caller]
fn open(frame: &[u8]) -> (MacAddr, Ipv4Addr, Message) {
    let ethernet = EthernetPacket::new(frame).unwrap();
    assert_eq!(mac_of(ethernet.get_source()), seat().edge_mac);
    let ip = Ipv4Packet::new(ethernet.payload()).unwrap();
    assert_eq!(ipv4::checksum(&ip), ip.get_checksum());
    assert_eq!(ip.get_source(), seat().edge_ip());
    let udp = UdpPacket::new(ip.payload()).unwrap();
    assert_eq!((udp.get_source(), udp.get_destination()), (67, 68));
    assert_eq!(udp::ipv4_checksum(&udp, &ip.get_source(), &ip.get_destination()), udp.get_checksum());
    assert!(udp.payload().len() >= 300);
    // The magic cookie, then the message type first: what old clients look for.
    assert_eq!(udp.payload()[236..242], [99, 130, 83, 99, 53, 1]);
    let message = Message::from_bytes(udp.payload()).unwrap();
    assert_eq!((message.opcode(), message.xid()), (Opcode::BootReply, 0x1234_5678));
    (mac_of(ethernet.get_destination()), ip.get_destination(), message)
}

#[track_caller]
fn reply(client: &Client) -> (MacAddr, Ipv4Addr, Message) {
    open(&answer(&client.frame(), &seat()).expect("an answer"))
}

#[test]
fn discover_is_offered_the_reserved_address_with_what_windows_98_asks_for() {
    let (mac, ip, message) = reply(&client(MessageType::Discover));
    assert_eq!((mac, ip, message.yiaddr()), (seat().mac, seat().ip, seat().ip));
    let option = |code| message.opts().get(code).cloned();
    assert_eq!(message.opts().msg_type(), Some(MessageType::Offer));
    assert_eq!(option(OptionCode::SubnetMask), Some(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0))));
    assert_eq!(option(OptionCode::NetBiosNodeType), Some(DhcpOption::NetBiosNodeType(NodeType::B)));
    assert_eq!(option(OptionCode::AddressLeaseTime), Some(DhcpOption::AddressLeaseTime(86_400)));
    assert_eq!(option(OptionCode::ServerIdentifier), Some(DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 98, 0, 254))));
    assert_eq!(option(OptionCode::Router), None);
    assert_eq!(option(OptionCode::DomainName), Some(DhcpOption::DomainName("party.loco".to_owned())));
}

#[test]
fn a_client_that_asks_for_broadcast_gets_broadcast() {
    let (mac, ip, _) = reply(&Client { broadcast: true, ..client(MessageType::Discover) });
    assert_eq!((mac, ip), (MacAddr::BROADCAST, Ipv4Addr::BROADCAST));
}

#[test]
fn request_for_the_reserved_address_is_acknowledged_in_every_state() {
    let ours = DhcpOption::ServerIdentifier(seat().edge_ip());
    let selecting = client(MessageType::Request).with(DhcpOption::RequestedIpAddress(seat().ip)).with(ours);
    let init_reboot = client(MessageType::Request).with(DhcpOption::RequestedIpAddress(seat().ip));
    let renewing = Client { ciaddr: seat().ip, to: seat().edge_ip(), ..client(MessageType::Request) };
    for request in [&selecting, &init_reboot, &renewing] {
        let (_, _, message) = reply(request);
        assert_eq!((message.opts().msg_type(), message.yiaddr()), (Some(MessageType::Ack), seat().ip));
        assert!(matches!(decide(&request.frame(), &seat()), Some(Decision::Acknowledge(_))));
    }
}

#[test]
fn request_for_another_address_is_refused_to_all() {
    let wrong = Ipv4Addr::new(192, 168, 1, 9);
    let (mac, ip, message) = reply(&client(MessageType::Request).with(DhcpOption::RequestedIpAddress(wrong)));
    assert_eq!(message.opts().msg_type(), Some(MessageType::Nak));
    assert_eq!((mac, ip, message.yiaddr()), (MacAddr::BROADCAST, Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED));
    let renewing = Client { ciaddr: wrong, ..client(MessageType::Request) };
    assert_eq!(reply(&renewing).2.opts().msg_type(), Some(MessageType::Nak));
}

#[test]
fn a_client_that_chose_another_server_is_left_alone() {
    let other = DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 98, 0, 200));
    let request = client(MessageType::Request).with(DhcpOption::RequestedIpAddress(seat().ip)).with(other);
    assert_eq!(decide(&request.frame(), &seat()), None);
}

#[test]
fn inform_is_given_settings_but_no_address_and_no_lease() {
    let own = Ipv4Addr::new(10, 98, 0, 77);
    let (_, ip, message) = reply(&Client { ciaddr: own, ..client(MessageType::Inform) });
    assert_eq!((ip, message.yiaddr()), (own, Ipv4Addr::UNSPECIFIED));
    assert!(message.opts().get(OptionCode::AddressLeaseTime).is_none());
    assert!(message.opts().get(OptionCode::SubnetMask).is_some());
}

#[test]
fn release_and_decline_are_heard_and_not_answered() {
    let frame = |kind| Client { ciaddr: seat().ip, to: seat().edge_ip(), ..client(kind) }.frame();
    assert_eq!(decide(&frame(MessageType::Release), &seat()), Some(Decision::Released));
    assert_eq!(decide(&frame(MessageType::Decline), &seat()), Some(Decision::Declined));
    assert_eq!(answer(&frame(MessageType::Release), &seat()), None);
}

#[test]
fn only_the_seats_own_mac_is_answered() {
    let stranger = Client { mac: MacAddr([2, 9, 9, 9, 9, 9]), ..client(MessageType::Discover) };
    assert_eq!(decide(&stranger.frame(), &seat()), None);
    // The outer sender is right, the inner one is not.
    let mut forged = stranger.frame();
    forged[6..12].copy_from_slice(&seat().mac.0);
    assert_eq!(decide(&forged, &seat()), None);
}

#[test]
fn hardware_address_lengths_beyond_the_field_are_refused() {
    let mut frame = client(MessageType::Discover).frame();
    for hlen in [0, 5, 7, 17, 255] {
        frame[ETHERNET_LEN + IPV4_LEN + UDP_LEN + 2] = hlen;
        assert_eq!(decide(&frame, &seat()), None, "hlen {hlen}");
    }
}

/// dhcproto, which once read requests here, decodes nothing behind an option whose length it does not like.
#[test]
fn options_of_no_concern_may_have_any_length() {
    for code in (1..=254).filter(|code| ![50, 53, 54].contains(code)) {
        for len in 0..=9 {
            let option = UnknownOption::new(code.into(), vec![1; len]);
            let mut asking = client(MessageType::Discover);
            asking.options.insert(0, DhcpOption::Unknown(option));
            assert!(decide(&asking.frame(), &seat()).is_some(), "option {code} of {len} octets");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..700)) {
        drop(decide(&bytes, &seat()));
    }

    /// Frames close to valid ones reach the depths of the parser.
    #[test]
    fn damaged_requests_are_survived_and_never_given_another_address(
        kind in 0u8..20,
        damage in vec((0usize..400, any::<u8>()), 0..6),
        tail in vec(any::<u8>(), 0..80),
        cut in 0usize..500,
    ) {
        let mut frame = client(MessageType::from(kind)).frame();
        frame.extend(tail);
        for (at, to) in damage {
            if let Some(octet) = frame.get_mut(at) {
                *octet = to;
            }
        }
        frame.truncate(cut.max(1));
        if let Some(reply) = answer(&frame, &seat()) {
            let ip = Ipv4Packet::new(&reply[ETHERNET_LEN..]).unwrap();
            let udp = UdpPacket::new(ip.payload()).unwrap();
            let message = Message::from_bytes(udp.payload()).unwrap();
            prop_assert!([seat().ip, Ipv4Addr::UNSPECIFIED].contains(&message.yiaddr()));
            prop_assert_eq!(message.chaddr(), &seat().mac.0);
        }
    }
}
