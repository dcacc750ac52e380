//! What is said in a capture: IPv4 fragments put together, TCP streams in order. For tests only: trusts its input.
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};

use wire::dplay::Reassembler;
use wire::frame::{Class, Frame, IP_TCP, IP_UDP};

pub(crate) use crate::file::frames;
use crate::file::path;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// A UDP datagram, or a DirectPlay message that was cut out of a TCP stream.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) transport: Transport,
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn facts(name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path(&format!("{name}.json"))).unwrap()).unwrap()
}

/// UDP datagrams and the messages of TCP streams, in the order in which they were complete.
pub(crate) fn conversation(name: &str) -> Vec<Seen> {
    let (mut seen, mut fragments, mut streams) = (Vec::new(), HashMap::new(), HashMap::new());
    for bytes in frames(name) {
        let frame = Frame::parse(&bytes).unwrap();
        let Class::Ipv4 { protocol } = frame.class else { continue };
        let Some((from, to, datagram)) = defragment(&mut fragments, frame.payload) else { continue };
        let port = |at: usize| u16::from_be_bytes([datagram[at], datagram[at + 1]]);
        let (from, to) = (SocketAddrV4::new(from, port(0)), SocketAddrV4::new(to, port(2)));
        match protocol {
            IP_UDP => seen.push(Seen { transport: Transport::Udp, from, to, bytes: datagram[8..].to_vec() }),
            IP_TCP => {
                let stream: &mut Stream = streams.entry((from, to)).or_default();
                stream.segment(&datagram, |message| {
                    seen.push(Seen { transport: Transport::Tcp, from, to, bytes: message.to_vec() });
                });
            }
            _ => {}
        }
    }
    for (ends, stream) in streams {
        assert!(stream.ahead.is_empty(), "{name}: a gap in the stream {ends:?}");
        assert_eq!((stream.messages.garbage(), stream.messages.oversized()), (0, 0), "{name}: {ends:?}");
    }
    seen
}

type Fragments = HashMap<(Ipv4Addr, Ipv4Addr, [u8; 2]), (BTreeMap<usize, Vec<u8>>, Option<usize>)>;

/// The payload of an IPv4 packet when it is complete.
fn defragment(waiting: &mut Fragments, ip: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr, Vec<u8>)> {
    let word = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
    let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    let payload = ip[usize::from(ip[0] & 15) * 4..usize::from(word(2))].to_vec();
    let (from, to) = (address(12), address(16));
    let (more, offset) = (word(6) & 0x2000 != 0, usize::from(word(6) & 0x1fff) * 8);
    if !more && offset == 0 {
        return Some((from, to, payload));
    }
    let key = (from, to, [ip[4], ip[5]]);
    let (parts, total) = waiting.entry(key).or_default();
    if !more {
        *total = Some(offset + payload.len());
    }
    parts.insert(offset, payload);
    if *total != Some(parts.values().map(Vec::len).sum()) {
        return None;
    }
    let (parts, _) = waiting.remove(&key)?;
    Some((from, to, parts.into_values().flatten().collect()))
}

/// One direction of a TCP connection.
#[derive(Default)]
struct Stream {
    next: Option<u32>,
    ahead: BTreeMap<u32, Vec<u8>>,
    messages: Reassembler<8192>,
}

impl Stream {
    fn segment(&mut self, tcp: &[u8], mut each: impl FnMut(&[u8])) {
        let sequence = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
        let payload = &tcp[usize::from(tcp[12] >> 4) * 4..];
        let syn = tcp[13] & 2 != 0;
        let next = self.next.get_or_insert(sequence.wrapping_add(u32::from(syn)));
        if !payload.is_empty() {
            self.ahead.insert(sequence, payload.to_vec());
        }
        while let Some(payload) = self.ahead.remove(next) {
            *next = next.wrapping_add(u32::try_from(payload.len()).unwrap());
            self.messages.push(&payload, &mut each);
        }
    }
}
