//! The card as smoltcp wants it: one frame at a time, through one buffer each way.
//!
//! **Learning.** smoltcp asks for one unknown neighbour a second at most, so a host that eight machines greet at once
//! would need eight seconds to answer them all [measured: nine players together after 16 s; with this after 4]. So the
//! sender of each IPv4 frame from a new address is shown to smoltcp as an ARP reply first: what most systems learn from
//! traffic anyway.
use crate::nic::{FRAME, Nic};
use core::net::Ipv4Addr;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Ipv4Packet};

/// Whole 32-bit words, for the string moves of the ne2k.
#[repr(align(8))]
struct Buffer([u8; FRAME]);

/// Neighbours that are remembered: nine guests, the edge, some strangers. Full: the oldest is forgotten, and shown again.
const NEIGHBOURS: usize = 16;
/// smoltcp forgets a silent neighbour after 60 s.
const FRESH: Duration = Duration::from_secs(30);
const ARP_FRAME: usize = 42;

#[derive(Clone, Copy)]
struct Neighbour {
    ip: Ipv4Addr,
    mac: EthernetAddress,
    shown: Instant,
}

/// A card with its two buffers.
pub struct Port {
    nic: Nic,
    received: Buffer,
    /// A frame in `received` that waits behind its sender's ARP reply.
    held: Option<usize>,
    arp: [u8; ARP_FRAME],
    sending: Buffer,
    frames: u64,
    own: Option<Ipv4Addr>,
    neighbours: [Option<Neighbour>; NEIGHBOURS],
}

impl Port {
    pub fn new(nic: Nic) -> Self {
        Self {
            nic,
            received: Buffer([0; FRAME]),
            held: None,
            arp: [0; ARP_FRAME],
            sending: Buffer([0; FRAME]),
            frames: 0,
            own: None,
            neighbours: [None; NEIGHBOURS],
        }
    }

    pub fn irq(&self) -> u8 {
        self.nic.irq()
    }

    /// Frames received and sent so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// See [`Nic::acknowledge`].
    pub fn acknowledge(&mut self) {
        self.nic.acknowledge();
    }

    /// Our own address: ARP replies are for it.
    pub fn set_address(&mut self, own: Option<Ipv4Addr>) {
        self.own = own;
        self.neighbours = [None; NEIGHBOURS];
    }

    /// Remembers the sender of the received frame; `true` if smoltcp should hear of it first (in `arp`).
    fn learn(&mut self, len: usize, now: Instant) -> bool {
        let Some(own) = self.own else { return false };
        let Ok(frame) = EthernetFrame::new_checked(&self.received.0[..len]) else { return false };
        let mac = frame.src_addr();
        if frame.ethertype() != EthernetProtocol::Ipv4 || !mac.is_unicast() {
            return false;
        }
        let Ok(packet) = Ipv4Packet::new_checked(frame.payload()) else { return false };
        let ip = packet.src_addr();
        if ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() || ip == own {
            return false;
        }
        let place = self.neighbours.iter().position(|n| n.is_some_and(|n| n.ip == ip));
        let known = place.and_then(|p| self.neighbours[p]);
        if known.is_some_and(|n| n.mac == mac && now < n.shown + FRESH) {
            return false;
        }
        let place = place.or_else(|| self.neighbours.iter().position(Option::is_none));
        let oldest = || (0..NEIGHBOURS).min_by_key(|i| self.neighbours[*i].map(|n| n.shown)).unwrap_or(0);
        let place = place.unwrap_or_else(oldest);
        self.neighbours[place] = Some(Neighbour { ip, mac, shown: now });
        let us = EthernetAddress(self.nic.mac());
        let reply = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: mac,
            source_protocol_addr: ip,
            target_hardware_addr: us,
            target_protocol_addr: own,
        };
        let mut frame = EthernetFrame::new_unchecked(&mut self.arp[..]);
        frame.set_src_addr(mac);
        frame.set_dst_addr(us);
        frame.set_ethertype(EthernetProtocol::Arp);
        reply.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
        true
    }
}

pub struct Received<'a>(&'a [u8]);

pub struct Sending<'a> {
    nic: &'a mut Nic,
    buffer: &'a mut [u8; FRAME],
    frames: &'a mut u64,
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let result = f(&mut self.buffer[..len]);
        self.nic.send(self.buffer, len);
        *self.frames += 1;
        result
    }
}

impl Device for Port {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, now: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        let frame = if let Some(len) = self.held.take() {
            Some(len)
        } else {
            let len = self.nic.receive(&mut self.received.0)?;
            self.frames += 1;
            if self.learn(len, now) {
                self.held = Some(len);
                None
            } else {
                Some(len)
            }
        };
        let sending = Sending { nic: &mut self.nic, buffer: &mut self.sending.0, frames: &mut self.frames };
        let bytes = frame.map_or(&self.arp[..], |len| &self.received.0[..len]);
        Some((Received(bytes), sending))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending { nic: &mut self.nic, buffer: &mut self.sending.0, frames: &mut self.frames })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities.max_burst_size = self.nic.burst();
        capabilities
    }
}
