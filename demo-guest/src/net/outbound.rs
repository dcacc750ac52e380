//! What the game sends: a line (connection) per listener with a queue before it, and datagrams until smoltcp takes them.
//!
//! ```text
//! Free --tcp()--> Queued --pump()--> Connecting --> Open --reset, timeout--> Free, and the machine is reported broken
//!                                                     +---- hang_up() -----> Free
//! ```
//! **Full**: a queue that overflows means a machine that does not read: its line is cut and it is reported broken. With
//! all lines in use the one that was used longest ago is cut. Datagrams beyond the ring are dropped, as any may be.
use super::once;
use core::net::{Ipv4Addr, SocketAddrV4};
use demo_guest::session::Link;
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Duration;
use smoltcp::wire::IpEndpoint;
use wire::dplay::QUERY_PORT;

/// Eight machines and strangers who only ask.
pub const LINES: usize = 12;
const QUEUE: usize = 6144;
/// Nothing is received on these connections.
const RECEIVE: usize = 64;
const SEND: usize = 4096;
const DATAGRAMS: usize = 24;
const DATAGRAM: usize = 160;
/// So long without a packet from the other side cuts the line, whether something is unanswered or not (so smoltcp); hence
/// the keep-alive, without which every quiet line would be cut.
const TIMEOUT: Duration = Duration::from_secs(12);
const KEEP_ALIVE: Duration = Duration::from_secs(5);

struct Line {
    handle: SocketHandle,
    to: Option<SocketAddrV4>,
    connected: bool,
    /// To be reset at the next pump.
    cut: bool,
    used: u64,
    queue: [u8; QUEUE],
    queued: usize,
}

#[derive(Clone, Copy)]
struct Datagram {
    to: Option<SocketAddrV4>,
    bytes: [u8; DATAGRAM],
    len: usize,
}

const NO_DATAGRAM: Datagram = Datagram { to: None, bytes: [0; DATAGRAM], len: 0 };

pub struct Outbound {
    lines: &'static mut [Option<Line>; LINES],
    datagrams: &'static mut [Datagram; DATAGRAMS],
    waiting: usize,
    broken: [Option<Ipv4Addr>; LINES],
    uses: u64,
    port: u16,
}

impl Outbound {
    /// Call once: the buffers are static.
    pub fn start(sockets: &mut SocketSet<'static>, seed: u64) -> Self {
        let buffers = once!([([u8; RECEIVE], [u8; SEND]); LINES], [([0; RECEIVE], [0; SEND]); LINES]);
        let lines = once!([Option<Line>; LINES], [const { None }; LINES]);
        let datagrams = once!([Datagram; DATAGRAMS], [NO_DATAGRAM; DATAGRAMS]);
        for (line, (receive, send)) in lines.iter_mut().zip(buffers) {
            let mut socket =
                tcp::Socket::new(tcp::SocketBuffer::new(&mut receive[..]), tcp::SocketBuffer::new(&mut send[..]));
            socket.set_nagle_enabled(false);
            socket.set_timeout(Some(TIMEOUT));
            socket.set_keep_alive(Some(KEEP_ALIVE));
            let handle = sockets.add(socket);
            *line =
                Some(Line { handle, to: None, connected: false, cut: false, used: 0, queue: [0; QUEUE], queued: 0 });
        }
        // A fresh place in the ephemeral range at each boot, or old connections of the others would be hit.
        let port = 49_152 + (seed >> 8) as u16 % 15_000;
        Self { lines, datagrams, waiting: 0, broken: [None; LINES], uses: 0, port }
    }

    /// A machine whose connection broke, once.
    pub fn take_broken(&mut self) -> Option<Ipv4Addr> {
        self.broken.iter_mut().find_map(Option::take)
    }

    fn report(broken: &mut [Option<Ipv4Addr>; LINES], ip: Ipv4Addr) {
        let told = broken.contains(&Some(ip));
        if let Some(place) = broken.iter_mut().find(|b| !told && b.is_none()) {
            *place = Some(ip);
        }
    }

    /// Bytes that are queued or unconfirmed on any line.
    pub fn is_unsent(&self, sockets: &SocketSet<'static>) -> bool {
        self.lines.iter().flatten().any(|line| {
            line.to.is_some() && (line.queued > 0 || sockets.get::<tcp::Socket>(line.handle).send_queue() > 0)
        })
    }

    /// Moves queues into sockets. `true` if anything moved.
    pub fn pump(
        &mut self,
        sockets: &mut SocketSet<'static>,
        iface: &mut Interface,
        asking: SocketHandle,
        game: SocketHandle,
    ) -> bool {
        let mut moved = self.waiting > 0;
        for datagram in &mut self.datagrams[..self.waiting] {
            let Some(to) = datagram.to.take() else { continue };
            let handle = if to.ip().is_broadcast() { asking } else { game };
            let endpoint = IpEndpoint::new((*to.ip()).into(), to.port());
            // Full: dropped, as any datagram may be.
            sockets.get_mut::<udp::Socket>(handle).send_slice(&datagram.bytes[..datagram.len], endpoint).unwrap_or(());
        }
        self.waiting = 0;
        for line in self.lines.iter_mut().flatten() {
            let socket = sockets.get_mut::<tcp::Socket>(line.handle);
            if core::mem::take(&mut line.cut) {
                socket.abort();
                line.connected = false;
                moved = true;
                // The reset has to leave before the socket can be used again.
                continue;
            }
            let Some(to) = line.to else { continue };
            if !line.connected {
                if line.queued == 0 || socket.is_open() {
                    continue;
                }
                self.port = if self.port >= 64_000 { 49_152 } else { self.port + 1 };
                let endpoint = (*to.ip(), to.port());
                line.connected = socket.connect(iface.context(), endpoint, self.port).is_ok();
                moved = true;
            } else if !socket.is_open() || socket.state() == tcp::State::CloseWait {
                socket.abort();
                line.to = None;
                line.connected = false;
                line.queued = 0;
                Self::report(&mut self.broken, *to.ip());
            } else if line.queued > 0 && socket.can_send() {
                let sent = socket.send_slice(&line.queue[..line.queued]).unwrap_or(0);
                line.queue.copy_within(sent..line.queued, 0);
                line.queued -= sent;
                moved |= sent > 0;
            }
        }
        moved
    }

    fn datagram(&mut self, to: SocketAddrV4, bytes: &[u8]) {
        let Some(place) = self.datagrams.get_mut(self.waiting) else { return };
        let Some(buffer) = place.bytes.get_mut(..bytes.len()) else { return };
        buffer.copy_from_slice(bytes);
        place.len = bytes.len();
        place.to = Some(to);
        self.waiting += 1;
    }

    /// The line to a listener; a new one if there is none.
    fn line(&mut self, to: SocketAddrV4) -> Option<&mut Line> {
        let place = self.lines.iter().position(|l| l.as_ref().is_some_and(|l| l.to == Some(to)));
        let place = place.or_else(|| self.lines.iter().position(|l| l.as_ref().is_some_and(|l| l.to.is_none())));
        let place =
            place.or_else(|| (0..LINES).min_by_key(|i| self.lines[*i].as_ref().map_or(u64::MAX, |l| l.used)))?;
        let line = self.lines[place].as_mut()?;
        if line.to != Some(to) {
            line.clear();
            line.to = Some(to);
        }
        Some(line)
    }
}

impl Line {
    fn clear(&mut self) {
        self.cut |= self.connected;
        self.to = None;
        self.queued = 0;
    }
}

impl Link for Outbound {
    fn tcp(&mut self, to: SocketAddrV4, bytes: &[u8]) {
        self.uses += 1;
        let uses = self.uses;
        let Some(line) = self.line(to) else { return };
        line.used = uses;
        let Some(room) = line.queue.get_mut(line.queued..line.queued + bytes.len()) else {
            line.clear();
            Self::report(&mut self.broken, *to.ip());
            return;
        };
        room.copy_from_slice(bytes);
        line.queued += bytes.len();
    }

    fn udp(&mut self, to: SocketAddrV4, bytes: &[u8]) {
        self.datagram(to, bytes);
    }

    fn broadcast(&mut self, bytes: &[u8]) {
        self.datagram(SocketAddrV4::new(Ipv4Addr::BROADCAST, QUERY_PORT), bytes);
    }

    fn hang_up(&mut self, ip: Ipv4Addr) {
        for line in self.lines.iter_mut().flatten().filter(|l| l.to.is_some_and(|t| *t.ip() == ip)) {
            line.clear();
        }
    }
}
