//! DOSBox's IPX tunnel, IPXNET: bare IPX packets in UDP (protocols.md 4.1; seen in the capture dosbox-ipxnet).
//!
//! ```text
//! client --registration: to 0.0.2, from 0.0.2, 30 bytes----------> server
//! client <-answer: to the client's node, socket 2, from network 1-- server
//! client --packet: to all or to a node--> server --> every other client, or the one that has the node
//! anyone --ping: to all, socket 2--> ...   each answers with a pong: to the pinger's node, socket 2
//! ```
//! A node is the UDP address of its client, four bytes IPv4 and two bytes port. There is no message for leaving.
//!
//! DOSBox, DOSBox-X and `IPXWrapper` differ only in the packet type of a registration (not initialised; 2), which means nothing.
use core::net::{Ipv4Addr, SocketAddrV4};

use crate::MacAddr;
use crate::ipx::{self, Address, HEADER_LEN};

/// Where servers listen unless told otherwise (UDP).
pub const PORT: u16 = 213;
/// Registration, ping and pong have it at both ends. Packets to it are the tunnel's own and never a game's.
pub const SOCKET: u16 = 2;
/// The network that an answer comes from in DOSBox and ipxbox; clients see and use 0 all the same.
pub const ANSWER_NETWORK: u32 = 1;
/// Length in bytes of the tunnel's own messages: a header, and nothing behind it.
pub const MESSAGE_LEN: usize = HEADER_LEN;

/// What a UDP payload of the tunnel is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// A client asks for a node. Also a sign of life: it asks again until it is answered.
    Registration,
    /// The server gives `node` to the client it sends to. `server` is 0.0.0.0 and its port in DOSBox, FF×6 in ipxbox.
    Answer { node: MacAddr, server: Address },
    /// "Who is there?", to all.
    Ping { from: MacAddr },
    /// "I am", to the node that pinged.
    Pong { from: MacAddr, to: MacAddr },
    /// Everything else: what the games say.
    Packet(ipx::Packet<'a>),
}

impl<'a> Message<'a> {
    /// `None` where the payload is no IPX packet. Bytes behind the packet's own length are left out.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        Some(Self::of(ipx::Packet::parse(bytes)?))
    }

    /// What a packet of the tunnel is.
    pub fn of(packet: ipx::Packet<'a>) -> Self {
        let (to, from) = (packet.destination, packet.source);
        if to.socket != SOCKET || !packet.payload.is_empty() {
            return Self::Packet(packet);
        }
        match (to.node, from.socket) {
            // What servers go by; clients do not agree on the source. A packet from a node is not a question for one.
            (MacAddr::ZERO, _) if from.node == MacAddr::ZERO => Self::Registration,
            (MacAddr::BROADCAST, SOCKET) if is_station(from.node) => Self::Ping { from: from.node },
            (_, SOCKET) if is_station(to.node) && (from.network != 0 || !is_station(from.node)) => {
                Self::Answer { node: to.node, server: from }
            }
            (_, SOCKET) if is_station(to.node) => Self::Pong { from: from.node, to: to.node },
            _ => Self::Packet(packet),
        }
    }

    /// Writes it and answers its length; `None` where `buffer` is too small.
    pub fn write(&self, buffer: &mut [u8]) -> Option<usize> {
        let own = |node| Address { network: 0, node, socket: SOCKET };
        let (destination, source) = match *self {
            Self::Registration => (own(MacAddr::ZERO), own(MacAddr::ZERO)),
            Self::Answer { node, server } => (own(node), server),
            Self::Ping { from } => (own(MacAddr::BROADCAST), own(from)),
            Self::Pong { from, to } => (own(to), own(from)),
            Self::Packet(packet) => return packet.write(buffer),
        };
        let message = ipx::Packet { checksum: 0xffff, hops: 0, packet_type: 0, destination, source, payload: &[] };
        message.write(buffer)
    }
}

/// One station's: neither "nobody" nor everyone.
const fn is_station(node: MacAddr) -> bool {
    !matches!(node, MacAddr::ZERO | MacAddr::BROADCAST)
}

/// The node of the client behind a UDP address.
pub const fn node_of(client: SocketAddrV4) -> MacAddr {
    let ([a, b, c, d], [e, f]) = (client.ip().octets(), client.port().to_be_bytes());
    MacAddr([a, b, c, d, e, f])
}

/// The UDP address that a DOSBox server's node stands for. Trap: other servers (ipxbox) draw nodes at random, and the
/// server's own machine is 127.0.0.1 and its port.
pub const fn endpoint_of(node: MacAddr) -> SocketAddrV4 {
    let [a, b, c, d, e, f] = node.0;
    SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([e, f]))
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, SocketAddrV4};

    use super::{ANSWER_NETWORK, MESSAGE_LEN, Message, SOCKET, endpoint_of, node_of};
    use crate::MacAddr;
    use crate::ipx::{Address, Packet};

    const NODE: MacAddr = MacAddr([0xc0, 0xa8, 0x62, 0x0c, 0x8f, 0xed]);

    #[track_caller]
    fn check(message: Message<'_>) {
        let mut buffer = [0; 64];
        let len = message.write(&mut buffer).unwrap();
        assert_eq!(Message::parse(&buffer[..len]), Some(message));
        assert_eq!(message.write(&mut buffer[..len - 1]), None);
    }

    #[test]
    fn each_message_is_read_as_it_was_written() {
        let other = MacAddr([0xc0, 0xa8, 0x62, 0x0d, 0xc9, 0xd2]);
        check(Message::Registration);
        for node in [MacAddr([0, 0, 0, 0, 0, 213]), MacAddr::BROADCAST] {
            let server = Address { network: ANSWER_NETWORK, node, socket: SOCKET };
            check(Message::Answer { node: NODE, server });
        }
        check(Message::Ping { from: NODE });
        check(Message::Pong { from: other, to: NODE });
    }

    /// A registration with everything in it that clients fill in differently.
    #[track_caller]
    fn registers(packet_type: u8, source_socket: u16, padding: usize) {
        let packet = Packet {
            checksum: 0xffff,
            hops: 0,
            packet_type,
            destination: Address { socket: SOCKET, ..Address::default() },
            source: Address { socket: source_socket, ..Address::default() },
            payload: &[],
        };
        let mut buffer = [0xee; 64];
        packet.write(&mut buffer).unwrap();
        assert_eq!(Message::parse(&buffer[..MESSAGE_LEN + padding]), Some(Message::Registration));
    }

    #[test]
    fn registrations_of_all_clients_are_known() {
        registers(0x7f, 2, 0); // DOSBox 0.74: whatever was on the stack
        registers(2, 2, 0); // IPXWrapper
        registers(0, 0, 0);
        registers(0, 2, 10);
    }

    #[test]
    fn what_games_send_is_no_message_of_the_tunnel() {
        let to = |node, socket| Address { network: 0, node, socket };
        let packet = |destination, source, payload| Packet {
            checksum: 0xffff,
            hops: 0,
            packet_type: 4,
            destination,
            source,
            payload,
        };
        for packet in [
            packet(to(MacAddr::BROADCAST, 0x5100), to(NODE, 0x5100), b"".as_slice()),
            packet(to(MacAddr::BROADCAST, SOCKET), to(NODE, SOCKET), b"x"),
            packet(to(MacAddr::BROADCAST, SOCKET), to(NODE, 0x5100), b""),
            packet(to(MacAddr::ZERO, SOCKET), to(NODE, SOCKET), b""),
        ] {
            assert_eq!(Message::of(packet), Message::Packet(packet));
        }
    }

    #[test]
    fn a_node_is_the_clients_udp_address() {
        let client = SocketAddrV4::new(Ipv4Addr::new(192, 168, 98, 12), 36845);
        assert_eq!(node_of(client), NODE);
        assert_eq!(endpoint_of(NODE), client);
    }
}
