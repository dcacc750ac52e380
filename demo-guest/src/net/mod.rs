//! The network: smoltcp over the card, and the sockets of DirectPlay.
//!
//! ```text
//! card <-> device.rs <-> smoltcp <-> inbound.rs   TCP 2300: streams of the others, cut into messages
//!                                    outbound.rs  connections that we opened, one per listener; datagrams waiting
//!                                    here         DHCP, UDP 47624 (questions), 2350 (game), 7 (echo)
//! ```
mod device;
mod inbound;
mod outbound;

use crate::nic::Nic;
use core::net::Ipv4Addr;
use demo_guest::game::Game;
use demo_guest::session::UDP_PORT;
use device::Port;
use inbound::Inbound;
pub use outbound::Outbound;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::{dhcpv4, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Cidr};
use wire::dplay::QUERY_PORT;

/// DHCP, four of UDP, and those of the two TCP modules.
const SOCKETS: usize = 5 + inbound::STREAMS + outbound::LINES;
/// Largest datagram that is taken.
const DATAGRAM: usize = 1472;

/// A static buffer, handed out once. One per place in the source: the macro must not be used in a loop, nor in a function
/// that is called twice.
macro_rules! once {
    ($type:ty, $value:expr) => {{
        static mut PLACE: $type = $value;
        #[expect(unsafe_code, reason = "a buffer for the life of the machine, without an allocator")]
        // SAFETY: `Net::start` is called once (it takes the card), and each use of this macro is a place of its own.
        unsafe {
            &mut *(&raw mut PLACE)
        }
    }};
}
pub(crate) use once;

/// A UDP socket with static buffers.
macro_rules! udp_socket {
    ($port:expr, $packets:expr, $bytes:expr) => {{
        let received = udp::PacketBuffer::new(
            &mut once!([udp::PacketMetadata; $packets], [udp::PacketMetadata::EMPTY; $packets])[..],
            &mut once!([u8; $bytes], [0; $bytes])[..],
        );
        let sent = udp::PacketBuffer::new(
            &mut once!([udp::PacketMetadata; $packets], [udp::PacketMetadata::EMPTY; $packets])[..],
            &mut once!([u8; $bytes], [0; $bytes])[..],
        );
        let mut socket = udp::Socket::new(received, sent);
        socket.bind($port).expect("a fresh socket and a port that is not 0");
        socket
    }};
}

/// See the module's documentation.
pub struct Net {
    port: Port,
    iface: Interface,
    sockets: SocketSet<'static>,
    dhcp: Option<SocketHandle>,
    queries: SocketHandle,
    asking: SocketHandle,
    game: SocketHandle,
    echo: SocketHandle,
    inbound: Inbound,
    pub outbound: Outbound,
    address: Option<Ipv4Addr>,
}

impl Net {
    /// With a fixed address, or DHCP. Call once: the buffers are static.
    pub fn start(nic: Nic, fixed: Option<(Ipv4Addr, u8)>, seed: u64, now: u64) -> Self {
        let mut config = Config::new(EthernetAddress(nic.mac()).into());
        config.random_seed = seed;
        let mut port = Port::new(nic);
        let mut iface = Interface::new(config, &mut port, instant(now));
        let storage = once!([SocketStorage<'static>; SOCKETS], [const { SocketStorage::EMPTY }; SOCKETS]);
        let mut sockets = SocketSet::new(&mut storage[..]);
        let dhcp = if let Some((ip, length)) = fixed {
            iface
                .update_ip_addrs(|list| list.push(IpCidr::Ipv4(Ipv4Cidr::new(ip, length))).expect("the list is empty"));
            None
        } else {
            Some(sockets.add(dhcpv4::Socket::new()))
        };
        let queries = sockets.add(udp_socket!(QUERY_PORT, 16, 2048));
        // "From an ephemeral port": the seed keeps two boots of a seat apart.
        let asking = sockets.add(udp_socket!(49_152 + (seed % 16_000) as u16, 4, 512));
        let game = sockets.add(udp_socket!(UDP_PORT, 32, 4096));
        let echo = sockets.add(udp_socket!(7, 16, 16_384));
        let inbound = Inbound::start(&mut sockets);
        let outbound = Outbound::start(&mut sockets, seed);
        let address = fixed.map(|(ip, _)| ip);
        port.set_address(address);
        Self { port, iface, sockets, dhcp, queries, asking, game, echo, inbound, outbound, address }
    }

    pub fn irq(&self) -> u8 {
        self.port.irq()
    }

    pub fn address(&self) -> Option<Ipv4Addr> {
        self.address
    }

    /// Takes in what the card has, hands it to the game, and sends what the game wants. `true` if there may be more.
    pub fn poll(&mut self, game: &mut Game, now: u64) -> bool {
        self.port.acknowledge();
        let moved = self.exchange(now);
        self.configure(game);
        self.datagrams(game);
        self.inbound.poll(&mut self.sockets, game, &mut self.outbound);
        let sent = self.flush(game);
        // A second round sends at once what was queued in this one.
        if sent { self.exchange(now) || moved } else { moved }
    }

    /// Moves what waits in our own queues into the sockets, and tells the game which connections broke.
    pub fn flush(&mut self, game: &mut Game) -> bool {
        let sent = self.outbound.pump(&mut self.sockets, &mut self.iface, self.asking, self.game);
        while let Some(ip) = self.outbound.take_broken() {
            game.lost(ip, &mut self.outbound);
        }
        sent
    }

    /// Once through smoltcp.
    pub fn exchange(&mut self, now: u64) -> bool {
        let before = self.port.frames();
        self.iface.poll(instant(now), &mut self.port, &mut self.sockets);
        self.port.frames() != before
    }

    fn configure(&mut self, game: &mut Game) {
        let Some(handle) = self.dhcp else { return };
        let address = match self.sockets.get_mut::<dhcpv4::Socket>(handle).poll() {
            None => return,
            Some(dhcpv4::Event::Configured(config)) => {
                self.iface.update_ip_addrs(|list| {
                    list.clear();
                    list.push(IpCidr::Ipv4(config.address)).expect("the list is empty");
                });
                // The game needs only the LAN: a router that finds no place is no loss.
                if let Some(Err(_)) = config.router.map(|r| self.iface.routes_mut().add_default_ipv4_route(r)) {
                    crate::say!("LOCO route table full");
                }
                Some(config.address.address())
            }
            Some(dhcpv4::Event::Deconfigured) => {
                self.iface.update_ip_addrs(|list| list.truncate(0));
                self.iface.routes_mut().remove_default_ipv4_route();
                None
            }
        };
        if address != self.address {
            if let Some(ip) = address {
                crate::say!("LOCO dhcp {ip}");
            } else {
                crate::say!("LOCO dhcp lost");
            }
            self.address = address;
            self.port.set_address(address);
        }
        game.set_address(address);
    }

    fn datagrams(&mut self, game: &mut Game) {
        let own = self.address;
        let socket = self.sockets.get_mut::<udp::Socket>(self.queries);
        while let Ok((bytes, meta)) = socket.recv() {
            let smoltcp::wire::IpAddress::Ipv4(from) = meta.endpoint.addr;
            if Some(from) != own {
                game.query(from, bytes, &mut self.outbound);
            }
        }
        let socket = self.sockets.get_mut::<udp::Socket>(self.game);
        while let Ok((bytes, meta)) = socket.recv() {
            let smoltcp::wire::IpAddress::Ipv4(from) = meta.endpoint.addr;
            game.datagram(from, bytes, &mut self.outbound);
        }
        let socket = self.sockets.get_mut::<udp::Socket>(self.asking);
        while socket.recv().is_ok() {}
        let socket = self.sockets.get_mut::<udp::Socket>(self.echo);
        while socket.can_recv() && socket.can_send() {
            let mut buffer = [0; DATAGRAM];
            if let Ok((len, meta)) = socket.recv_slice(&mut buffer) {
                // Full: the echo is lost, as the network may lose any datagram.
                socket.send_slice(&buffer[..len], meta.endpoint).unwrap_or(());
            }
        }
    }

    /// Are there bytes that the other side has not confirmed?
    pub fn is_unsent(&self) -> bool {
        self.outbound.is_unsent(&self.sockets)
    }
}

fn instant(ms: u64) -> Instant {
    Instant::from_millis(ms as i64)
}
