//! What this crate's parsers find in one frame, in tshark's names and notation.
use std::collections::BTreeMap;
use std::fmt::Display;

use wire::dplay::{Body, Content, Framing, Guid, Id, Packet, Player, SessionDescription, Text, Token, framing};
use wire::frame::{Class, Frame, FrameFormat};
use wire::netbios::browser::{Announcement, Message as Browser};
use wire::netbios::{Name, dgm, ns, ssn};
use wire::{dhcp, dplay8, icmp, ipv4, ipx, tcp, udp};

use crate::names::FIELDS;

#[derive(Default)]
struct Fields(BTreeMap<&'static str, Vec<String>>);

/// The values of each field that the frame has.
pub(crate) fn fields(bytes: &[u8]) -> BTreeMap<&'static str, Vec<String>> {
    let mut out = Fields::default();
    out.frame(&Frame::parse(bytes).expect("14 bytes"), u16::from_be_bytes([bytes[12], bytes[13]]));
    out.0
}

fn hex(value: u16) -> String {
    format!("{value:#06x}")
}

fn hex32(value: u32) -> String {
    format!("{value:#010x}")
}

/// Ids as their bytes stand in the packet.
fn id(id: Id) -> String {
    format!("{:08x}", id.0.swap_bytes())
}

fn guid(guid: Guid) -> String {
    let text = guid.to_string();
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

fn latin(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Fields {
    fn add(&mut self, field: &'static str, value: impl Display) {
        assert!(FIELDS.contains(&field), "{field} is compared");
        self.0.entry(field).or_default().push(value.to_string());
    }

    /// What tshark leaves out where it is empty.
    fn add_some(&mut self, field: &'static str, value: Option<impl Display>) {
        if let Some(value) = value.map(|value| value.to_string()).filter(|value| !value.is_empty()) {
            self.add(field, value);
        }
    }

    fn flag(&mut self, field: &'static str, value: bool) {
        self.add(field, u8::from(value));
    }

    /// `kind` is the type or length behind the MACs.
    fn frame(&mut self, frame: &Frame<'_>, kind: u16) {
        self.add("eth.dst", frame.destination);
        self.add("eth.src", frame.source);
        for (tag, outer) in [(frame.vlan, true), (frame.inner_vlan, false)] {
            let Some(tag) = tag else { continue };
            let provider = outer && kind == 0x88a8;
            self.add(if provider { "ieee8021ad.id" } else { "vlan.id" }, tag.id);
            self.add(if provider { "ieee8021ad.priority" } else { "vlan.priority" }, tag.priority);
        }
        match frame.class {
            Class::Ipx(FrameFormat::Llc) => self.add("llc.dsap", "0xe0"),
            Class::Arp | Class::Ipv4 { .. } if kind <= 1500 => self.add("llc.dsap", "0xaa"),
            Class::Ipx(FrameFormat::Snap) => self.add("llc.dsap", "0xaa"),
            Class::NetBeui => self.add("llc.dsap", "0xf0"),
            Class::OtherLlc(dsap) => self.add("llc.dsap", format!("{dsap:#04x}")),
            _ => {}
        }
        if let Some(packet) = frame.arp() {
            self.add("arp.opcode", packet.operation);
            self.add("arp.src.hw_mac", packet.sender_mac);
            self.add("arp.src.proto_ipv4", packet.sender_ip);
            self.add("arp.dst.hw_mac", packet.target_mac);
            self.add("arp.dst.proto_ipv4", packet.target_ip);
        }
        if let Some(packet) = frame.ipv4() {
            self.ip(&packet);
        }
        if let Some(packet) = frame.ipx() {
            self.ipx(&packet);
        }
    }

    fn ip(&mut self, packet: &ipv4::Packet<'_>) {
        self.add("ip.src", packet.source);
        self.add("ip.dst", packet.destination);
        self.add("ip.id", hex(packet.id));
        self.add("ip.len", packet.total_len);
        self.add("ip.hdr_len", packet.total_len - packet.payload_len());
        self.flag("ip.flags.df", packet.dont_fragment);
        self.flag("ip.flags.mf", packet.more_fragments);
        self.add("ip.frag_offset", packet.fragment_offset);
        self.add("ip.ttl", packet.ttl);
        self.add("ip.proto", packet.protocol);
        self.add("ip.checksum", hex(packet.checksum));
        if !packet.has_ports() {
            return;
        }
        match packet.protocol {
            ipv4::UDP => self.udp(&udp::Datagram::parse(packet.payload).expect("a header")),
            ipv4::TCP => self.tcp(&tcp::Segment::parse(packet.payload).expect("a header")),
            ipv4::ICMP => self.icmp(&icmp::Message::parse(packet.payload).expect("a header")),
            _ => {}
        }
    }

    fn icmp(&mut self, message: &icmp::Message<'_>) {
        self.add("icmp.type", message.kind);
        self.add("icmp.code", message.code);
        if let Some((ident, sequence)) = message.echo() {
            self.add("icmp.ident", ident);
            self.add("icmp.seq", sequence);
        }
        self.add_some("icmp.mtu", message.next_hop_mtu());
        if let Some(quoted) = message.quoted() {
            self.ip(&quoted.packet);
        }
    }

    fn udp(&mut self, datagram: &udp::Datagram<'_>) {
        let ports = [datagram.source_port, datagram.destination_port];
        self.add("udp.srcport", datagram.source_port);
        self.add("udp.dstport", datagram.destination_port);
        self.add("udp.length", datagram.length);
        self.add("udp.checksum", hex(datagram.checksum));
        let payload = datagram.payload;
        if ports.contains(&dhcp::SERVER_PORT) {
            self.dhcp(&dhcp::Message::parse(payload).expect("DHCP"));
        } else if ports.contains(&ns::PORT) {
            self.name_service(&ns::Message::parse(payload).expect("NetBIOS name service"));
        } else if ports.contains(&dgm::PORT) {
            let message = dgm::Message::parse(payload).expect("NetBIOS datagram service");
            self.datagram(message.datagram().expect("a datagram"));
        } else if ports.contains(&213) {
            self.ipx(&ipx::Packet::parse(payload).expect("IPXNET"));
        } else if ports.contains(&6073) {
            self.dplay8(&dplay8::Enumeration::parse(payload).expect("DirectPlay 8"));
        } else {
            self.dplay(&Packet::from_datagram(payload), payload);
        }
    }

    fn tcp(&mut self, segment: &tcp::Segment<'_>) {
        self.add("tcp.srcport", segment.source_port);
        self.add("tcp.dstport", segment.destination_port);
        self.add("tcp.seq_raw", segment.sequence);
        self.add("tcp.ack_raw", segment.acknowledgement);
        self.add("tcp.flags", hex(segment.flags.0.into()));
        self.add("tcp.window_size_value", segment.window);
        self.add("tcp.checksum", hex(segment.checksum));
        self.add("tcp.len", segment.payload.len());
        self.add_some("tcp.options.mss_val", segment.mss());
        self.add_some("tcp.options.wscale.shift", segment.window_scale());
        if let Some((value, echo)) = segment.timestamps() {
            self.add("tcp.options.timestamp.tsval", value);
            self.add("tcp.options.timestamp.tsecr", echo);
        }
        if [segment.source_port, segment.destination_port].contains(&ssn::PORT) {
            self.session(segment.payload);
        } else if let Framing::Frame(len) = framing(segment.payload) {
            // The first message; a segment is all that tshark has.
            if let Some(message) = segment.payload.get(..len) {
                self.dplay(&Packet::parse(message).expect("an envelope"), message);
            }
        }
    }

    fn dhcp(&mut self, message: &dhcp::Message<'_>) {
        self.add("dhcp.type", if message.is_reply { 2 } else { 1 });
        self.add("dhcp.id", hex32(message.transaction));
        self.add("dhcp.secs", message.seconds);
        self.flag("dhcp.flags.bc", message.broadcast);
        self.add("dhcp.ip.client", message.client_ip);
        self.add("dhcp.ip.your", message.your_ip);
        self.add("dhcp.ip.server", message.next_server);
        self.add("dhcp.ip.relay", message.relay);
        let kind = message.message_type().map(|kind| match kind {
            dhcp::MessageType::Discover => 1,
            dhcp::MessageType::Offer => 2,
            dhcp::MessageType::Request => 3,
            dhcp::MessageType::Decline => 4,
            dhcp::MessageType::Ack => 5,
            dhcp::MessageType::Nak => 6,
            dhcp::MessageType::Release => 7,
            dhcp::MessageType::Inform => 8,
            dhcp::MessageType::Other(kind) => kind,
        });
        self.add_some("dhcp.option.dhcp", kind);
        self.add_some("dhcp.option.requested_ip_address", message.requested_ip());
        self.add_some("dhcp.option.dhcp_server_id", message.server_id());
        self.add_some("dhcp.option.hostname", message.host_name().map(latin));
        self.add_some("dhcp.option.ip_address_lease_time", message.lease_seconds());
        self.add_some("dhcp.option.subnet_mask", message.subnet_mask());
        self.add_some("dhcp.option.router", message.router());
        self.add_some("dhcp.option.vendor_class_id", message.vendor_class().map(latin));
    }

    fn name_service(&mut self, message: &ns::Message<'_>) {
        let opcode = match message.operation {
            ns::Operation::Query => 0,
            ns::Operation::Registration => 5,
            ns::Operation::Release => 6,
            ns::Operation::Wait => 7,
            ns::Operation::Refresh => 8,
            ns::Operation::MultihomedRegistration => 15,
            ns::Operation::Other(opcode) => opcode,
        };
        self.add("nbns.id", hex(message.id));
        self.flag("nbns.flags.response", message.is_response);
        self.add("nbns.flags.opcode", opcode);
        self.flag("nbns.flags.truncated", message.flags.is_truncated());
        self.flag("nbns.flags.recdesired", message.flags.recursion_desired());
        self.flag("nbns.flags.broadcast", message.flags.is_broadcast());
        if message.is_response {
            self.flag("nbns.flags.authoritative", message.flags.is_authoritative());
            self.flag("nbns.flags.recavail", message.flags.recursion_available());
            self.add("nbns.flags.rcode", message.result);
        }
        for question in message.questions() {
            self.add("nbns.name", plain(question.name));
            self.add("nbns.type", question.kind);
        }
        for record in message.records() {
            let name = record.name;
            self.add("nbns.name", if record.kind == 10 { plain(name) } else { described(name) });
            self.add("nbns.type", record.kind);
            self.add("nbns.ttl", record.ttl);
            for (flags, ip) in record.addresses() {
                self.flag("nbns.nb_flags.group", flags.is_group());
                self.add("nbns.addr", ip);
            }
            let Some(status) = record.node_status() else { continue };
            self.add("nbns.unit_id", status.mac);
            for (name, flags) in status.names() {
                self.add("nbns.netbios_name", latin(name.text()));
                self.flag("nbns.name_flags.group", flags.is_group());
                self.flag("nbns.name_flags.act", flags.is_active());
            }
        }
    }

    fn datagram(&mut self, datagram: &dgm::Datagram<'_>) {
        let kind = match datagram.kind {
            dgm::Kind::DirectUnique => 16,
            dgm::Kind::DirectGroup => 17,
            dgm::Kind::Broadcast => 18,
        };
        self.add("nbdgm.type", kind);
        self.flag("nbdgm.next", datagram.more_fragments);
        self.add("nbdgm.dgram_id", hex(datagram.header.id));
        self.add("nbdgm.src.ip", datagram.header.source_ip);
        self.add("nbdgm.src.port", datagram.header.source_port);
        self.add("nbdgm.pkt_offset", datagram.fragment_offset);
        self.add("nbdgm.source_name", datagram.source);
        self.add("nbdgm.destination_name", datagram.destination);
        let Some(slot) = dgm::MailSlot::parse(datagram.data) else { return };
        self.add("mailslot.name", latin(slot.name));
        if slot.is_browse() {
            self.browser(&Browser::parse(slot.data).expect("a browser's message"), slot.data[0]);
        }
    }

    fn browser(&mut self, message: &Browser<'_>, command: u8) {
        self.add("browser.command", format!("{command:#04x}"));
        match *message {
            Browser::Host(it) | Browser::LocalMaster(it) => {
                self.announcement(&it);
                self.add_some("browser.comment", Some(latin(it.comment)));
            }
            Browser::Domain(it) => {
                self.announcement(&it);
                self.add("browser.mb_server", latin(it.comment));
            }
            Browser::AnnouncementRequest { responder } => {
                self.add("browser.response_computer_name", latin(responder));
            }
            Browser::Election { version, criteria, uptime_ms, server } => {
                self.add("browser.election.version", version);
                self.add("browser.election.criteria", hex32(criteria));
                self.add("browser.uptime", uptime_ms);
                self.add("browser.server", latin(server));
            }
            Browser::BackupListRequest { count, token } => {
                self.add("browser.backup.count", count);
                self.add("browser.backup.token", token);
            }
            ref other => panic!("nothing made or captured: {other:?}"),
        }
    }

    fn announcement(&mut self, it: &Announcement<'_>) {
        self.add("browser.update_count", it.update_count);
        self.add("browser.period", it.period_ms);
        self.add("browser.server", latin(it.name));
        self.add("browser.server_type", hex32(it.server_type.0));
        self.add("browser.os_major", it.os_major);
        self.add("browser.os_minor", it.os_minor);
    }

    fn session(&mut self, payload: &[u8]) {
        match ssn::Packet::parse(payload) {
            Some(ssn::Packet::Request { called, calling }) => {
                self.add("nbss.type", "0x81");
                self.add("nbss.called_name", plain(called));
                self.add("nbss.calling_name", plain(calling));
            }
            Some(ssn::Packet::PositiveResponse) => self.add("nbss.type", "0x82"),
            Some(ssn::Packet::NegativeResponse { code }) => {
                self.add("nbss.type", "0x83");
                self.add("nbss.error_code", format!("{code:#04x}"));
            }
            _ => {}
        }
    }

    fn ipx(&mut self, packet: &ipx::Packet<'_>) {
        self.add("ipx.checksum", hex(packet.checksum));
        self.add("ipx.len", packet.payload.len() + ipx::HEADER_LEN);
        self.add("ipx.hops", packet.hops);
        self.add("ipx.packet_type", format!("{:#04x}", packet.packet_type));
        let (to, from) = (packet.destination, packet.source);
        self.add("ipx.dst.net", hex32(to.network));
        self.add("ipx.dst.node", to.node);
        self.add("ipx.dst.socket", hex(to.socket));
        self.add("ipx.src.net", hex32(from.network));
        self.add("ipx.src.node", from.node);
        self.add("ipx.src.socket", hex(from.socket));
        if to.socket == ipx::socket::SAP {
            self.sap(&ipx::sap::Message::parse(packet.payload).expect("SAP"));
        } else if to.socket == ipx::socket::RIP {
            let message = ipx::rip::Message::parse(packet.payload).expect("RIP");
            self.add("ipxrip.packet_type", if message.is_response { 2 } else { 1 });
            for entry in message.entries() {
                self.add("ipxrip.route_vector", hex32(entry.network));
                self.add("ipxrip.hops", entry.hops);
                self.add("ipxrip.ticks", entry.ticks);
            }
        }
    }

    fn sap(&mut self, message: &ipx::sap::Message<'_>) {
        match *message {
            ipx::sap::Message::Query { nearest, server_type } => {
                self.add("ipxsap.packet_type", if nearest { 3 } else { 1 });
                self.add("ipxsap.server.type", hex(server_type));
            }
            ipx::sap::Message::Response { nearest, entries } => {
                self.add("ipxsap.packet_type", if nearest { 4 } else { 2 });
                for entry in entries.servers() {
                    self.add("ipxsap.server.type", hex(entry.server_type));
                    self.add("ipxsap.server.name", latin(entry.name));
                    self.add("ipxsap.server.network", hex32(entry.address.network));
                    self.add("ipxsap.server.node", entry.address.node);
                    self.add("ipxsap.server.socket", hex(entry.address.socket));
                    self.add("ipxsap.server.intermediate_networks", entry.hops);
                }
            }
        }
    }

    fn dplay(&mut self, packet: &Packet<'_>, bytes: &[u8]) {
        let Content::System(message) = packet.content else { return };
        let Some(envelope) = packet.envelope else { return };
        let token = match envelope.token {
            Token::Peer => 0xfab,
            Token::ToHelper => 0xcab,
            Token::FromHelper => 0xbab,
        };
        self.add("dplay.size", bytes.len());
        self.add("dplay.token", hex32(token));
        self.add("dplay.saddr.port", envelope.sender.port());
        self.add("dplay.saddr.ip", envelope.sender.ip());
        self.add("dplay.command", hex(message.body.command().0));
        self.add("dplay.dialect.version", hex(message.dialect.0));
        match message.body {
            Body::EnumSessionsReply(it) => {
                self.session_description(&it.session);
                self.add_some("dplay.type_01.game_name", it.name);
            }
            Body::EnumSessions(it) => {
                self.add("dplay.type02.game.guid", guid(it.application));
                self.add("dplay.type02.flags", hex32(it.flags.0));
            }
            Body::RequestPlayerId(it) => self.add("dplay.type_05.flags", hex32(it.flags.0)),
            Body::RequestPlayerReply(it) => {
                self.add("dplay.type_07.dpid", id(it.id));
                self.add("dplay.type_07.hresult", it.result.0);
            }
            Body::CreatePlayer(it) | Body::CreateGroup(it) | Body::AddForward(it) => {
                let group = matches!(message.body, Body::CreateGroup(_));
                let none = Id::NONE;
                self.multi(it.to, if group { none } else { it.player.id }, if group { it.player.id } else { none });
                self.packed(&it.player);
            }
            Body::DeletePlayer(it) | Body::AddPlayerToGroup(it) => self.multi(it.to, it.player, it.group),
            Body::AddForwardRequest(it) => {
                self.add("dplay.type_13.player_id", id(it.player.id));
                self.add("dplay.type_13.tick_count", format!("{:08x}", it.tick_count.swap_bytes()));
                self.packed(&it.player);
            }
            Body::SuperEnumPlayersReply(it) => {
                self.session_description(&it.session);
                self.add("dplay.type_29.player_count", it.players.iter().count());
                self.add_some("dplay.type_29.game_name", it.name);
                it.players.iter().for_each(|player| self.super_packed(&player));
            }
            Body::AddForwardAck(it) => self.add("dplay.type_29.id", id(it)),
            Body::Packet(it) | Body::Packet2Data(it) => {
                self.add("dplay.message.guid", guid(it.message));
                self.add("dplay.type_15.packet_idx", it.index);
                self.add("dplay.type_15.offset", it.offset);
                self.add("dplay.type_15.total_packets", it.total_pieces);
                self.add("dplay.type_15.message.size", it.message_len);
                self.add("dplay.type_15.data_size", it.data.len());
            }
            Body::Packet2Ack(it) => {
                self.add("dplay.message.guid", guid(it.message));
                self.add("dplay.type_15.packet_idx", it.index);
            }
            Body::Ping(it) | Body::PingReply(it) => {
                self.add("dplay.ping.id_from", id(it.from));
                self.add("dplay.ping.tick_count", it.tick_count);
            }
            Body::SessionDescChanged(it) => {
                self.add("dplay.type_1a.id_to", id(it.to));
                self.session_description(&it.session);
                self.add_some("dplay.type_1a.session_name", it.name);
            }
            _ => {}
        }
    }

    fn dplay8(&mut self, message: &dplay8::Enumeration<'_>) {
        self.add("dpnet.lead", 0);
        self.add("dpnet.payload", format!("{:#06x}", message.id()));
        match *message {
            dplay8::Enumeration::Query(it) => {
                self.add("dpnet.command", "0x02");
                self.add("dpnet.type", if it.application.is_some() { 1 } else { 2 });
                self.add_some("dpnet.application", it.application.map(guid));
            }
            dplay8::Enumeration::Response(it) => {
                self.add("dpnet.command", "0x03");
                self.add("dpnet.desc_flags", format!("{:#06x}", it.flags.0));
                self.add("dpnet.max_players", it.max_players);
                self.add("dpnet.current_players", it.current_players);
                self.add_some("dpnet.session_name", it.name);
                self.add("dpnet.instance", guid(it.instance));
                self.add("dpnet.application", guid(it.application));
            }
        }
    }

    fn multi(&mut self, to: Id, player: Id, group: Id) {
        self.add("dplay.multi.id_to", id(to));
        self.add("dplay.multi.player_id", id(player));
        self.add("dplay.multi.group_id", id(group));
    }

    fn session_description(&mut self, it: &SessionDescription) {
        self.add("dplay.flags", hex32(it.flags.0));
        self.add("dplay.instance.guid", guid(it.instance));
        self.add("dplay.game.guid", guid(it.application));
        self.add("dplay.sess_desc.max_players", it.max_players);
        self.add("dplay.sess_desc.curr_players", it.current_players);
        self.add("dplay.sess_desc.res_1", format!("{:08x}", it.id_key.0.swap_bytes()));
    }

    fn packed(&mut self, it: &Player<'_>) {
        self.add("dplay.pp.id", id(it.id));
        self.add("dplay.pp.flags", hex32(it.flags.0));
        self.names(["dplay.pp.short_name", "dplay.pp.long_name"], it);
        self.add("dplay.pp.sysplayer_id", id(it.system_id));
        self.add("dplay.pp.dialect", hex32(it.dialect.0.into()));
    }

    fn super_packed(&mut self, it: &Player<'_>) {
        self.add("dplay.spp.id", id(it.id));
        self.add("dplay.spp.flags", hex32(it.flags.0));
        self.names(["dplay.spp.short_name", "dplay.spp.long_name"], it);
        if it.is_system() {
            self.add("dplay.spp.dialect", hex32(it.dialect.0.into()));
        } else {
            self.add("dplay.spp.sysplayer_id", id(it.system_id));
        }
    }

    fn names(&mut self, [short, long]: [&'static str; 2], it: &Player<'_>) {
        let text = |text: Option<Text<'_>>| text.map(|text| text.to_string());
        self.add_some(short, text(it.short_name));
        self.add_some(long, text(it.long_name));
    }
}

/// A name, as tshark writes it: with the zeros of the wildcard.
fn plain(name: Name) -> String {
    if name == Name::WILDCARD { format!("*{}", "<00>".repeat(15)) } else { name.to_string() }
}

/// A record's name, as tshark writes it: with what its suffix means.
fn described(name: Name) -> String {
    let meaning = match name.suffix() {
        0x00 if name.text() != b"*" => " (Workstation/Redirector)",
        0x01 if name == Name::MSBROWSE => " (Browser)",
        0x03 => " (Messenger service/Main name)",
        0x1d => " (Local Master Browser)",
        0x1e => " (Browser Election Service)",
        0x20 => " (Server service)",
        _ => "",
    };
    plain(name) + meaning
}
