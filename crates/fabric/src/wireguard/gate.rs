//! What stands before the user-space tunnel: only WireGuard's four messages, only from nodes that are peers. All else is counted
//! and dropped before any cryptography. (The kernel's own WireGuard needs no such gate and has none.)
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use gotatun::{
    packet::{Packet, PacketBufPool},
    udp::{
        UdpRecv, UdpTransportFactory, UdpTransportFactoryParams,
        socket::{UdpSocket, UdpSocketFactory},
    },
};
use nix::sys::socket::{setsockopt, sockopt};

/// Datagrams that may wait for the tunnel's thread, in octets with the kernel's own around them: about 1,800 full ones. The usual 208
/// KiB hold 90, which is a millisecond of a busy wire.
const RECEIVE_BYTES: usize = 4 << 20;

/// Who may come in, and how much was turned away.
#[derive(Debug, Default)]
pub(super) struct Gate {
    peers: RwLock<BTreeSet<Ipv4Addr>>,
    strangers: AtomicU64,
    malformed: AtomicU64,
}

impl Gate {
    pub(super) fn admit(&self, peers: BTreeSet<Ipv4Addr>) {
        // A set is replaced whole: a panic leaves the old one.
        *self.peers.write().unwrap_or_else(PoisonError::into_inner) = peers;
    }

    fn passes(&self, from: SocketAddr, datagram: &[u8]) -> bool {
        let known = match from.ip() {
            IpAddr::V4(from) => self.peers.read().unwrap_or_else(PoisonError::into_inner).contains(&from),
            IpAddr::V6(_) => false,
        };
        let (passes, counter) =
            if known { (is_wireguard(datagram), &self.malformed) } else { (false, &self.strangers) };
        if !passes {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        passes
    }

    /// Datagrams that were dropped, by reason.
    pub(super) fn refused(&self) -> [(&'static str, u64); 2] {
        [("form", self.malformed.load(Ordering::Relaxed)), ("stranger", self.strangers.load(Ordering::Relaxed))]
    }
}

/// Whether it has the form of one of the four messages (whitepaper, 5.4): type, three zeros, and the length of that type.
fn is_wireguard(datagram: &[u8]) -> bool {
    match datagram {
        [1, 0, 0, 0, ..] => datagram.len() == 148,
        [2, 0, 0, 0, ..] => datagram.len() == 92,
        [3, 0, 0, 0, ..] => datagram.len() == 64,
        // Header 16, tag 16, and between them what is padded to a multiple of 16, or to the MTU.
        [4, 0, 0, 0, ..] => datagram.len() >= 32,
        _ => false,
    }
}

/// Makes the tunnel's socket, in the namespace of the thread that asks.
pub(super) struct Doors {
    pub(super) address: Ipv4Addr,
    pub(super) gate: Arc<Gate>,
}

impl UdpTransportFactory for Doors {
    type Send = UdpSocket;
    type Recv = Door;

    async fn bind(&mut self, params: &UdpTransportFactoryParams) -> io::Result<(UdpSocket, Door)> {
        let params = UdpTransportFactoryParams { addr: Some(self.address.into()), ..params.clone() };
        let (send, socket) = UdpSocketFactory::default().bind(&params).await?;
        // Beyond what `net.core.rmem_max` allows others: this process has CAP_NET_ADMIN.
        setsockopt(socket.socket(), sockopt::RcvBufForce, &RECEIVE_BYTES)?;
        Ok((send, Door { socket, gate: Arc::clone(&self.gate) }))
    }
}

/// The receiving end, behind the gate.
pub(super) struct Door {
    socket: UdpSocket,
    gate: Arc<Gate>,
}

impl UdpRecv for Door {
    type RecvManyBuf = <UdpSocket as UdpRecv>::RecvManyBuf;

    async fn recv_from(&mut self, pool: &mut PacketBufPool) -> io::Result<(Packet, SocketAddr)> {
        loop {
            let (packet, from) = self.socket.recv_from(pool).await?;
            if self.gate.passes(from, &packet) {
                return Ok((packet, from));
            }
        }
    }

    async fn recv_many_from(
        &mut self,
        buffers: &mut Self::RecvManyBuf,
        pool: &mut PacketBufPool,
        packets: &mut Vec<(Packet, SocketAddr)>,
    ) -> io::Result<()> {
        let before = packets.len();
        self.socket.recv_many_from(buffers, pool, packets).await?;
        let mut at = 0;
        packets.retain(|(packet, from)| {
            at += 1;
            at <= before || self.gate.passes(*from, packet)
        });
        Ok(())
    }

    fn enable_udp_gro(&self) -> io::Result<()> {
        self.socket.enable_udp_gro()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 12);

    fn gate() -> Gate {
        let gate = Gate::default();
        gate.admit([PEER].into());
        gate
    }

    #[test]
    fn the_four_messages_of_a_peer_pass_and_nothing_else() {
        let gate = gate();
        let message = |kind: u8, len: usize| [vec![kind, 0, 0, 0], vec![7; len - 4]].concat();
        let from = |ip: Ipv4Addr| SocketAddr::from((ip, 51820));
        for (kind, len) in [(1, 148), (2, 92), (3, 64), (4, 32), (4, 1472)] {
            assert!(gate.passes(from(PEER), &message(kind, len)), "{kind} of {len}");
            assert!(!gate.passes(from(Ipv4Addr::new(10, 99, 0, 13)), &message(kind, len)));
        }
        assert_eq!(gate.refused(), [("form", 0), ("stranger", 5)]);
        for (kind, len) in [(0, 148), (1, 147), (1, 149), (2, 148), (3, 32), (4, 31), (5, 148)] {
            assert!(!gate.passes(from(PEER), &message(kind, len)), "{kind} of {len}");
        }
        assert!(!gate.passes(from(PEER), &[4, 0, 1, 0, 0]) && !gate.passes(from(PEER), &[]));
        assert!(!gate.passes("[::ffff:10.99.0.12]:51820".parse().unwrap(), &message(4, 32)));
        assert_eq!(gate.refused(), [("form", 9), ("stranger", 6)]);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_everything_is_taken_or_counted(datagrams in prop::collection::vec((any::<[u8; 4]>(), prop::collection::vec(any::<u8>(), 0..200)), 0..40)) {
            let gate = gate();
            let passed = datagrams.iter().filter(|(ip, octets)| gate.passes((Ipv4Addr::from(*ip), 9).into(), octets)).count();
            let refused: u64 = gate.refused().iter().map(|(_, count)| count).sum();
            prop_assert_eq!(passed as u64 + refused, datagrams.len() as u64);
        }
    }
}
