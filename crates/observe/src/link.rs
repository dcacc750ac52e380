//! A frame taken apart, layer by layer, and each layer's news handed to whoever keeps them.
use std::{
    borrow::Cow,
    net::{Ipv4Addr, SocketAddrV4},
};

use wire::{
    MacAddr, arp,
    class::{Head, classify},
    dhcp, dplay,
    dplay::{Content, Envelope, Packet},
    frame::{self, Class, FrameFormat},
    icmp, ipv4, ipx, ipxwrapper,
    netbios::{dgm, ns},
    tcp::{Flags, Segment},
    udp,
};

use crate::{
    Frame, Observer, Point,
    anomalies::{Kind, Who},
    dplay::{Notes, Transport, Via},
    machines::{Step, is_seat_or_edge},
    stamp::{Hop, Process, Stamp, Station},
    tcp::{Event, Flow, Tcp},
};

/// 802.1Q and 802.1ad.
const VLAN_TYPES: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
const VLAN_TAGS: usize = 2;

impl Observer {
    pub(crate) fn link(&mut self, frame: &Frame<'_>) {
        let stamp = Stamp { at: frame.at, frame: self.frames, point: frame.point };
        if !matches!(frame.point, Point::ToGuest(_)) {
            let class = classify(&Head { bytes: frame.bytes, wire_len: frame.wire_len });
            *self.classes.entry(class).or_default() += 1;
        }
        let bytes = without_vlan(frame.bytes);
        let Some(ethernet) = frame::Frame::parse(&bytes) else {
            self.anomalies.note(Kind::Truncated, Who::Nobody, stamp, || "a frame of less than 14 bytes");
            return;
        };
        let hop = Hop { stamp, source: ethernet.source, destination: ethernet.destination };
        if let Point::ToGuest(_) = frame.point {
            self.delivered(hop, &ethernet);
            return;
        }
        self.machines.sent(hop, &mut self.anomalies);
        match ethernet.class {
            Class::Arp => self.arp(hop, ethernet.payload),
            Class::Ipv4 { .. } => self.ipv4(hop, ethernet.payload),
            Class::Ipx(framing) => {
                self.stations.frame(framing);
                match ethernet.ipx() {
                    Some(packet) => self.ipx(hop, &packet, Some(framing)),
                    None => self.malformed(hop, "IPX"),
                }
            }
            Class::Malformed => self.malformed(hop, "Ethernet or IPv4"),
            Class::Ipv6 | Class::NetBeui | Class::OtherType(_) | Class::OtherLlc(_) => {}
        }
    }

    /// A frame at the port of its receiver: only its time is new.
    fn delivered(&mut self, hop: Hop, ethernet: &frame::Frame<'_>) {
        let Class::Ipv4 { protocol: ipv4::TCP } = ethernet.class else { return };
        if let Some(packet) = ipv4::Packet::parse(ethernet.payload).filter(|packet| !packet.is_fragment())
            && let Some(segment) = Segment::parse(packet.payload)
        {
            self.timed(&packet, &segment, hop.stamp);
        }
    }

    fn malformed(&mut self, hop: Hop, what: &'static str) {
        self.anomalies.note(Kind::Malformed, Who::Mac(hop.source), hop.stamp, || format!("{what} from {}", hop.source));
    }

    fn arp(&mut self, hop: Hop, payload: &[u8]) {
        let Some(packet) = arp::Packet::parse(payload) else { return self.malformed(hop, "ARP") };
        if !packet.is_request() && !packet.is_reply() || packet.sender_ip.is_unspecified() {
            return;
        }
        // Whoever's frame it is: the address is said to be the sender field's.
        let claimed = Hop { source: packet.sender_mac, ..hop };
        if packet.is_request() && asks_as_edge(hop, &packet) {
            self.machines.asks_as_edge(packet.sender_mac);
        }
        self.machines.uses_ip(claimed, packet.sender_ip, true, &mut self.anomalies);
        if packet.is_reply() && !packet.is_announcement() {
            self.machines.told_by_arp(hop.stamp, packet.target_mac, packet.sender_ip, packet.sender_mac);
            self.machines.told_by_arp(hop.stamp, packet.sender_mac, packet.target_ip, packet.target_mac);
        }
    }

    fn ipv4(&mut self, hop: Hop, payload: &[u8]) {
        let Some(packet) = ipv4::Packet::parse(payload) else { return self.malformed(hop, "IPv4") };
        let from = Station::Ip(packet.source);
        if packet.checksum != 0 && !packet.checksum_is_right() {
            self.anomalies.station(Kind::IpChecksum, from, hop.stamp, || {
                format!("the IPv4 check sum of {} is wrong; its receiver drops such packets", packet.source)
            });
        }
        if packet.is_cut() {
            self.anomalies.station(Kind::Truncated, from, hop.stamp, || {
                format!(
                    "a packet of {} has {} bytes less than it says",
                    packet.source,
                    usize::from(packet.payload_len()).saturating_sub(packet.payload.len())
                )
            });
        }
        self.machines.uses_ip(hop, packet.source, false, &mut self.anomalies);
        if !packet.is_fragment() {
            return self.transport(hop, &packet, packet.payload);
        }
        let at = usize::from(packet.fragment_offset);
        let end = at + packet.payload.len();
        if end > usize::from(u16::MAX) || packet.more_fragments && !packet.payload.len().is_multiple_of(8) {
            self.anomalies
                .station(Kind::Fragments, from, hop.stamp, || format!("impossible fragments of {}", packet.source));
            return;
        }
        let key = (packet.source, packet.destination, packet.protocol, packet.id);
        let total = (!packet.more_fragments && !packet.is_cut()).then_some(end);
        if let Some(whole) = self.fragments.add(key, at, packet.payload, total, hop.stamp.at) {
            self.transport(hop, &packet, &whole);
        }
    }

    /// The payload of a whole packet; `packet` is it, or its last fragment.
    fn transport(&mut self, hop: Hop, packet: &ipv4::Packet<'_>, payload: &[u8]) {
        match packet.protocol {
            ipv4::UDP => match udp::Datagram::parse(payload) {
                Some(datagram) if !datagram.is_cut() => self.udp(hop, packet, &datagram),
                // Cut by the capture, which was said; or by its sender.
                Some(_) if packet.is_cut() => {}
                _ => self.malformed(hop, "UDP"),
            },
            ipv4::TCP => match Segment::parse(payload) {
                Some(segment) => self.tcp(hop, packet, &segment),
                None => self.malformed(hop, "TCP"),
            },
            ipv4::ICMP => self.icmp(hop, packet, payload),
            _ => {}
        }
    }

    fn icmp(&mut self, hop: Hop, packet: &ipv4::Packet<'_>, payload: &[u8]) {
        let Some(message) = icmp::Message::parse(payload) else { return self.malformed(hop, "ICMP") };
        if (message.kind, message.code) != (icmp::UNREACHABLE, icmp::unreachable::PORT) {
            return;
        }
        let Some(quoted) = message.quoted() else { return };
        // Only the machine itself knows that nobody listens there.
        if quoted.packet.destination != packet.source {
            return;
        }
        if let Some((_, port)) = quoted.ports() {
            let tcp = quoted.packet.protocol == ipv4::TCP;
            if is_dplay_port(port) {
                self.machines.port(hop.source, quoted.packet.protocol, port, false);
            }
            self.games.not_listening(Station::Ip(packet.source), port, tcp, hop.stamp);
        }
    }

    fn udp(&mut self, hop: Hop, packet: &ipv4::Packet<'_>, datagram: &udp::Datagram<'_>) {
        let from = SocketAddrV4::new(packet.source, datagram.source_port);
        let to = SocketAddrV4::new(packet.destination, datagram.destination_port);
        let (source, destination) = (Station::Ip(packet.source), Station::Ip(packet.destination));
        match (from.port(), to.port()) {
            (dhcp::SERVER_PORT | dhcp::CLIENT_PORT, dhcp::SERVER_PORT | dhcp::CLIENT_PORT) => {
                return self.dhcp(hop, datagram.payload);
            }
            (_, ns::PORT) | (ns::PORT, _) => {
                return self.names.name_service(hop, source, destination, datagram.payload, &mut self.machines);
            }
            (_, dgm::PORT) => return self.names.datagram(source, datagram.payload),
            (_, ipxwrapper::PORT) => return self.ipxwrapper(hop, datagram.payload),
            _ => {}
        }
        if let Some(tunnelled) = self.tunnel.datagram((from, to), datagram.payload, hop.stamp, &mut self.anomalies) {
            if let Some(packet) = tunnelled {
                self.ipx(hop, &packet, None);
            }
            return;
        }
        let via = Via {
            hop,
            from: source,
            to: destination,
            transport: Transport::Udp,
            from_port: from.port(),
            to_port: to.port(),
            receiver: None,
        };
        let own = |station, port| self.games.is_datagram_port(station, port);
        let known = own(source, from.port()) || own(destination, to.port());
        if self.dplay8.datagram(from, to, datagram.payload, known) {
            return;
        }
        self.dplay_datagram(&via, datagram.payload, known || is_dplay_port(from.port()) || is_dplay_port(to.port()));
    }

    /// A datagram that may be DirectPlay 4's. `likely`: by its ports.
    fn dplay_datagram(&mut self, via: &Via, payload: &[u8], likely: bool) {
        let mut notes = Notes { anomalies: &mut self.anomalies, machines: &mut self.machines };
        let packet = Packet::from_datagram(payload);
        match (&packet.envelope, &packet.content) {
            // Anything may begin with four letters: without envelope the ports have to fit, or the transport.
            (Some(_), Content::System(_) | Content::Malformed(_)) => self.games.packet(via, &packet, &mut notes),
            (Some(_), Content::User(_)) if likely => self.games.packet(via, &packet, &mut notes),
            (None, Content::System(_) | Content::Malformed(_)) if likely || via.transport == Transport::Ipx => {
                self.games.packet(via, &packet, &mut notes);
            }
            (None, Content::User(_)) => {
                let size = Envelope::parse(payload).map(|(_, size)| size);
                if let Some(size) = size.filter(|_| likely) {
                    notes.anomalies.station(Kind::DplayMalformed, via.from, via.stamp(), || {
                        format!("a message from {} says {size} bytes and has {}", via.from, payload.len())
                    });
                } else {
                    self.games.bare_datagram(via, payload, &mut notes);
                }
            }
            _ => {}
        }
    }

    fn dhcp(&mut self, hop: Hop, payload: &[u8]) {
        let Some(message) = dhcp::Message::parse(payload) else { return };
        let Some(client) = message.client_mac else { return };
        match message.message_type() {
            Some(dhcp::MessageType::Discover | dhcp::MessageType::Request) if !message.is_reply => {
                self.machines.dhcp(client, hop.stamp, false);
            }
            Some(dhcp::MessageType::Ack) if message.is_reply && !message.your_ip.is_unspecified() => {
                self.machines.dhcp(client, hop.stamp, true);
            }
            _ => {}
        }
    }

    fn ipxwrapper(&mut self, hop: Hop, payload: &[u8]) {
        let Some(packet) = ipxwrapper::Packet::parse(payload) else { return };
        if packet.kind() == ipxwrapper::Kind::Ipx {
            let packet = ipx::Packet {
                checksum: 0xffff,
                hops: 0,
                packet_type: packet.packet_type,
                destination: packet.destination,
                source: packet.source,
                payload: packet.payload,
            };
            self.ipx(hop, &packet, None);
        }
    }

    fn ipx(&mut self, hop: Hop, packet: &ipx::Packet<'_>, framing: Option<FrameFormat>) {
        let outer = framing.map(|framing| (hop, framing));
        self.stations.packet(packet, outer, hop.stamp, &mut self.anomalies);
        if let Some(framing) = framing.filter(|_| hop.source == packet.source.node) {
            self.machines.uses_node(hop, packet.source.node, framing);
        }
        let sockets = [packet.source.socket, packet.destination.socket];
        if sockets.contains(&ipx::socket::NETBIOS) {
            return self.names.ipx(packet);
        }
        if sockets.iter().any(|socket| (ipx::socket::NCP..=ipx::socket::SERIALISATION).contains(socket))
            || packet.source.node == MacAddr::ZERO
        {
            return;
        }
        let via = Via {
            hop,
            from: Station::of_ipx(packet.source),
            to: Station::of_ipx(packet.destination),
            transport: Transport::Ipx,
            from_port: packet.source.socket,
            to_port: packet.destination.socket,
            receiver: None,
        };
        self.dplay_datagram(&via, packet.payload, false);
    }

    fn timed(&mut self, packet: &ipv4::Packet<'_>, segment: &Segment<'_>, stamp: Stamp) {
        let flow = Flow {
            from: SocketAddrV4::new(packet.source, segment.source_port),
            to: SocketAddrV4::new(packet.destination, segment.destination_port),
        };
        let listens =
            |end: SocketAddrV4| is_dplay_port(end.port()) || self.games.is_announced(process(*end.ip(), end.port()));
        if listens(flow.from) || listens(flow.to) {
            self.machines.lag.segment(flow, segment, stamp);
        }
    }

    fn tcp(&mut self, hop: Hop, packet: &ipv4::Packet<'_>, segment: &Segment<'_>) {
        self.timed(packet, segment, hop.stamp);
        let known = |ip, port| self.games.is_announced(process(ip, port));
        let announced =
            known(packet.source, segment.source_port) || known(packet.destination, segment.destination_port);
        let ends = (packet.source, packet.destination);
        // What this segment brings may be the other direction's, which its acknowledgement ended waiting for.
        let turned = Hop { source: hop.destination, destination: hop.source, ..hop };
        let hop_of = move |flow: Flow| if *flow.from.ip() == packet.source { hop } else { turned };
        self.each_event(hop_of, |tcp, each| {
            tcp.segment(ends, segment, announced, hop.stamp.at, &mut |event| each(event));
        });
        if segment.flags.contains(Flags::RST) && is_dplay_port(segment.source_port) && segment.sequence == 0 {
            self.machines.port(hop.source, ipv4::TCP, segment.source_port, false);
        }
    }

    /// Streams of all connections move on, without a frame.
    pub(crate) fn streams(&mut self, stamp: Stamp, act: impl FnOnce(&mut Tcp, &mut dyn FnMut(Event<'_>))) {
        let hop = Hop { stamp, source: MacAddr::ZERO, destination: MacAddr::ZERO };
        self.each_event(|_| hop, act);
    }

    fn each_event(&mut self, hop_of: impl Fn(Flow) -> Hop, act: impl FnOnce(&mut Tcp, &mut dyn FnMut(Event<'_>))) {
        let Self { tcp, games, machines, anomalies, .. } = self;
        let mut each = |event: Event<'_>| {
            let mut notes = Notes { anomalies, machines };
            match event {
                Event::Message { flow, to, bytes } => {
                    let hop = hop_of(flow);
                    let via = Via { receiver: to, ..via(flow, hop) };
                    match Packet::parse(bytes) {
                        Some(packet) => games.packet(&via, &packet, &mut notes),
                        None => notes.anomalies.station(Kind::DplayMalformed, via.from, hop.stamp, || "an envelope"),
                    }
                }
                Event::Closed { flow, from, to, end } => games.closed(from, to, end, hop_of(flow).stamp),
                Event::Accepted { flow, late } => {
                    let hop = hop_of(flow);
                    if is_dplay_port(flow.from.port()) {
                        notes.machines.port(hop.source, ipv4::TCP, flow.from.port(), true);
                    }
                    if late {
                        games.asker_took(process(*flow.from.ip(), flow.from.port()));
                    }
                    if games.is_host(process(*flow.from.ip(), flow.from.port())) {
                        notes.machines.step(hop.destination, Step::Linked, hop.stamp, "SYN-ACK of the host");
                    }
                }
                Event::Unanswered(flow) => games.asker_is_deaf(process(*flow.to.ip(), flow.to.port())),
                Event::Refused(flow) => {
                    let hop = hop_of(flow);
                    if is_dplay_port(flow.from.port()) {
                        notes.machines.port(hop.source, ipv4::TCP, flow.from.port(), false);
                    }
                    games.asker_refused(process(*flow.from.ip(), flow.from.port()));
                    games.not_listening(Station::Ip(*flow.from.ip()), flow.from.port(), true, hop.stamp);
                }
                Event::Lost(flow) => {
                    notes.anomalies.station(Kind::DplayLost, Station::Ip(*flow.from.ip()), hop_of(flow).stamp, || {
                        format!("bytes of {} to {} are not in the capture", flow.from, flow.to)
                    });
                }
                Event::Garbage(flow) => {
                    notes.anomalies.station(Kind::Resync, Station::Ip(*flow.from.ip()), hop_of(flow).stamp, || {
                        format!("{} sends {} what is no message; looking for the next one", flow.from, flow.to)
                    });
                }
                Event::Full(flow) => {
                    notes.anomalies.station(Kind::Full, Station::Ip(*flow.from.ip()), hop_of(flow).stamp, || {
                        format!("no room for what waits from {} to {}", flow.from, flow.to)
                    });
                }
            }
        };
        act(tcp, &mut each);
    }
}

/// The question of a node's edge whether a guest is there (`fabric::desk`): from the card of a node's bridge, `06:…`, to the
/// guest's card alone. Programs ask all, and a kernel that asks one card again names it as the target.
fn asks_as_edge(hop: Hop, question: &arp::Packet) -> bool {
    let own = question.sender_mac == hop.source && question.sender_mac.0[0] == 0x06;
    own && is_seat_or_edge(hop.destination) && question.target_mac == MacAddr::ZERO
}

const fn process(ip: Ipv4Addr, port: u16) -> Process {
    Process { station: Station::Ip(ip), port }
}

fn via(flow: Flow, hop: Hop) -> Via {
    Via {
        hop,
        from: Station::Ip(*flow.from.ip()),
        to: Station::Ip(*flow.to.ip()),
        transport: Transport::Tcp,
        from_port: flow.from.port(),
        to_port: flow.to.port(),
        receiver: None,
    }
}

fn is_dplay_port(port: u16) -> bool {
    dplay::TCP_PORTS.contains(&port) || port == dplay::QUERY_PORT
}

/// The frame without up to two VLAN tags.
fn without_vlan(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut bytes = Cow::Borrowed(bytes);
    for _ in 0..VLAN_TAGS {
        match bytes.get(12..14) {
            Some(kind) if VLAN_TYPES.iter().any(|vlan| kind == vlan) && bytes.len() >= 18 => {
                let mut inner = bytes.into_owned();
                inner.drain(12..16);
                bytes = Cow::Owned(inner);
            }
            _ => break,
        }
    }
    bytes
}
