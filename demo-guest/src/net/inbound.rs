//! Connections that others opened to our listener: each is one direction of one machine's guaranteed messages.
//!
//! **Full**: with all streams in use a further connection is reset, and the other side tries again. Dead ones are found
//! by keep-alive within 25 s, so a seat that is restarted over and over cannot use them up for longer.
use super::{Outbound, once};
use core::net::Ipv4Addr;
use demo_guest::game::Game;
use demo_guest::session::{MESSAGE, TCP_PORT};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Duration;
use smoltcp::wire::IpAddress;
use wire::dplay::Reassembler;

/// Eight machines, as many that begin anew at the same time, and the socket that listens.
pub const STREAMS: usize = 18;
const RECEIVE: usize = 2048;
/// Nothing is ever sent on these connections but acknowledgements.
const SEND: usize = 64;
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(25);

struct Stream {
    handle: SocketHandle,
    peer: Option<Ipv4Addr>,
    messages: Reassembler<MESSAGE>,
}

pub struct Inbound {
    streams: &'static mut [Option<Stream>; STREAMS],
}

impl Inbound {
    /// Call once: the buffers are static.
    pub fn start(sockets: &mut SocketSet<'static>) -> Self {
        let buffers = once!([([u8; RECEIVE], [u8; SEND]); STREAMS], [([0; RECEIVE], [0; SEND]); STREAMS]);
        let streams = once!([Option<Stream>; STREAMS], [const { None }; STREAMS]);
        for (stream, (receive, send)) in streams.iter_mut().zip(buffers) {
            let socket =
                tcp::Socket::new(tcp::SocketBuffer::new(&mut receive[..]), tcp::SocketBuffer::new(&mut send[..]));
            *stream = Some(Stream { handle: sockets.add(socket), peer: None, messages: Reassembler::new() });
        }
        Self { streams }
    }

    /// Hands what has arrived to the game, message by message, and listens again where a connection has ended.
    pub fn poll(&mut self, sockets: &mut SocketSet<'static>, game: &mut Game, link: &mut Outbound) {
        for index in 0..STREAMS {
            let Some(stream) = self.streams[index].as_mut() else { continue };
            let socket = sockets.get_mut::<tcp::Socket>(stream.handle);
            if stream.peer.is_none()
                && let Some(endpoint) = socket.remote_endpoint()
            {
                let IpAddress::Ipv4(ip) = endpoint.addr;
                stream.peer = Some(ip);
                stream.messages = Reassembler::new();
            }
            while socket.can_recv() {
                let mut buffer = [0; RECEIVE];
                let len = socket.recv_slice(&mut buffer).unwrap_or(0);
                if len == 0 {
                    break;
                }
                if let Some(from) = stream.peer {
                    stream.messages.push(&buffer[..len], |message| game.message(from, message, link));
                }
            }
            if socket.state() == tcp::State::CloseWait {
                socket.close();
            }
            if socket.is_open() {
                continue;
            }
            socket.set_keep_alive(Some(KEEP_ALIVE));
            socket.set_timeout(Some(TIMEOUT));
            socket.listen(TCP_PORT).unwrap_or(());
            if let Some(ip) = stream.peer.take() {
                // Another stream of the same machine means that it has begun anew, and is there.
                if !self.streams.iter().flatten().any(|s| s.peer == Some(ip)) {
                    game.lost(ip, link);
                }
            }
        }
    }
}
