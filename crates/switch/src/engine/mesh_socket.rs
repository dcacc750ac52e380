//! The UDP socket between the nodes.
use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
    os::fd::{AsRawFd as _, RawFd},
};

use model::Vni;
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
};
use tokio::net::UdpSocket;

use crate::{FRAME_LEN_MAX, mesh};

/// Kernel memory for datagrams that were not read yet: a thousand full frames. A kernel that refuses so much (without
/// `CAP_NET_ADMIN`: more than `net.core.rmem_max`) gives what it may.
const RECEIVE_BYTES: usize = 4 << 20;
/// `SK_MEMINFO_DROPS` of `linux/sock_diag.h`.
const MEMINFO_DROPS: usize = 8;

#[derive(Debug)]
pub(super) struct MeshSocket(UdpSocket);

impl MeshSocket {
    /// Must be called within the thread's runtime.
    pub(super) fn bind(address: SocketAddrV4) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BYTES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BYTES)?;
        }
        setsockopt(&socket, sockopt::SndBuf, &RECEIVE_BYTES)?;
        Ok(Self(UdpSocket::from_std(socket)?))
    }

    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.recv_from(buffer).await
    }

    /// `false`: the kernel did not take it, as its queue is full or there is no way there.
    pub(super) fn send(&self, vni: Vni, to: SocketAddrV4, frame: &[u8]) -> bool {
        let mut datagram = [0; mesh::HEADER_LEN + FRAME_LEN_MAX];
        let Some(place) = datagram.get_mut(..mesh::HEADER_LEN + frame.len()) else { return false };
        let (header, body) = place.split_at_mut(mesh::HEADER_LEN);
        header.copy_from_slice(&mesh::header(vni));
        body.copy_from_slice(frame);
        match self.0.try_send_to(place, to.into()) {
            // An ICMP error of an earlier datagram is told by the next call, which did nothing: it is for this one to be sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.0.try_send_to(place, to.into()).is_ok()
            }
            outcome => outcome.is_ok(),
        }
    }

    /// Datagrams that the kernel had no room for, since the socket was made.
    pub(super) fn overruns(&self) -> u64 {
        meminfo(self.0.as_raw_fd()).map_or(0, |words| words[MEMINFO_DROPS].into())
    }
}

fn meminfo(fd: RawFd) -> Option<[u32; MEMINFO_DROPS + 1]> {
    let mut words = [0_u32; MEMINFO_DROPS + 1];
    let mut len = libc::socklen_t::try_from(size_of_val(&words)).ok()?;
    // SAFETY: the kernel writes at most `len` bytes to `words`, which lives across the call.
    #[expect(unsafe_code, reason = "nix has no SO_MEMINFO")]
    let outcome =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, words.as_mut_ptr().cast(), &raw mut len) };
    (outcome == 0 && usize::try_from(len).ok()? == size_of_val(&words)).then_some(words)
}
