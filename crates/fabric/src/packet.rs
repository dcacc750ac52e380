//! Raw packet sockets (packet(7)) on a tap or a bridge, filtered in the kernel to what its owner wants.
//!
//! The kernel's receive buffer is the queue, and it is bounded; when it is full the kernel drops the newest. That costs an
//! answer that the guest asks for again, never a frame of the LAN, since these are copies.
use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::{libc, sys::socket::LinkAddr};
use tokio::io::unix::AsyncFd;
use wire::probe;

/// Longest frame that matters: 1500 + Ethernet header, and room for a tag.
pub(crate) const FRAME_LEN_MAX: usize = 1600;

/// Instructions of classic BPF, as filter.h and bpf(4) of the BSDs have them.
mod bpf {
    pub(super) const ABS_W: u16 = 0x20;
    pub(super) const ABS_H: u16 = 0x28;
    pub(super) const ABS_B: u16 = 0x30;
    pub(super) const IND_H: u16 = 0x48;
    pub(super) const MSH: u16 = 0xb1;
    pub(super) const JEQ: u16 = 0x15;
    pub(super) const JSET: u16 = 0x45;
    pub(super) const RET: u16 = 0x06;
    /// `SKF_AD_OFF + SKF_AD_PKTTYPE`
    pub(super) const PACKET_TYPE: u32 = 0xffff_f004;
    pub(super) const PACKET_OUTGOING: u32 = 4;

    pub(super) const fn op(code: u16, jt: u8, jf: u8, k: u32) -> nix::libc::sock_filter {
        nix::libc::sock_filter { code, jt, jf, k }
    }
}

/// All frames, both ways.
pub(crate) static EVERYTHING: [libc::sock_filter; 1] = [bpf::op(bpf::RET, 0, 0, 0xffff)];

/// What came in and is a question or an answer of `wire::probe`.
pub(crate) static PROBES: [libc::sock_filter; 8] = {
    use bpf::{ABS_H, ABS_W, JEQ, PACKET_OUTGOING, PACKET_TYPE, RET, op};
    [
        op(ABS_W, 0, 0, PACKET_TYPE),
        op(JEQ, 5, 0, PACKET_OUTGOING), // -> drop
        op(ABS_H, 0, 0, 12),
        op(JEQ, 0, 3, u16::from_be_bytes(probe::ETHERTYPE) as u32), // not ours -> drop
        op(ABS_W, 0, 0, 14),
        op(JEQ, 0, 1, u32::from_be_bytes(probe::MAGIC)), // not ours -> drop
        op(RET, 0, 0, 0xffff),                           // accept
        op(RET, 0, 0, 0),                                // drop
    ]
};

/// Classic BPF: what came in (not what went out), and is ARP, or an unfragmented UDP datagram to port 67.
/// Offsets are of an Ethernet frame with IPv4; jumps (if true, if false) count from the next instruction.
pub(crate) static SERVICES: [libc::sock_filter; 14] = {
    use bpf::{ABS_B, ABS_H, ABS_W, IND_H, JEQ, JSET, MSH, PACKET_OUTGOING, PACKET_TYPE, RET, op};
    [
        op(ABS_W, 0, 0, PACKET_TYPE),
        op(JEQ, 11, 0, PACKET_OUTGOING), // -> drop
        op(ABS_H, 0, 0, 12),
        op(JEQ, 8, 0, 0x0806), // ARP -> accept
        op(JEQ, 0, 8, 0x0800), // not IPv4 -> drop
        op(ABS_B, 0, 0, 23),
        op(JEQ, 0, 6, 17), // not UDP -> drop
        op(ABS_H, 0, 0, 20),
        op(JSET, 4, 0, 0x3fff), // a fragment -> drop
        op(MSH, 0, 0, 14),
        op(IND_H, 0, 0, 16),
        op(JEQ, 0, 1, 67),     // not for a DHCP server -> drop
        op(RET, 0, 0, 0xffff), // accept
        op(RET, 0, 0, 0),      // drop
    ]
};

#[derive(Debug)]
pub(crate) struct PacketSocket {
    fd: AsyncFd<OwnedFd>,
}

impl PacketSocket {
    /// Opens in the calling thread's namespace, on the link with this index, for what `filter` accepts.
    pub(crate) fn open(index: u32, filter: &'static [libc::sock_filter]) -> io::Result<Self> {
        // Protocol 0 receives nothing until `bind`, so no frame slips in before the filter.
        // SAFETY: no pointers; the result is checked and then owned here alone.
        #[expect(unsafe_code, reason = "nix cannot ask for protocol 0 of AF_PACKET")]
        let fd = unsafe {
            let raw = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
            if raw < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(raw)
        };
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).expect("a dozen instructions"),
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel copies `len` instructions from `filter`, which is static, and writes nothing there.
        #[expect(unsafe_code, reason = "nix has no SO_ATTACH_FILTER")]
        let attached = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of_u32::<libc::sock_fprog>(),
            )
        };
        if attached != 0 {
            return Err(io::Error::last_os_error());
        }
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).expect("a small constant"),
            sll_protocol: u16::try_from(libc::ETH_P_ALL).expect("a small constant").to_be(),
            sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the address is a `sockaddr_ll` of the length given.
        #[expect(unsafe_code, reason = "nix cannot build a link-layer address")]
        let bound =
            unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_u32::<libc::sockaddr_ll>()) };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the `AsyncFd` owns the open fd, and nothing replaces it while it does.
        #[expect(unsafe_code, reason = "tokio has no safe constructor any more")]
        let fd = unsafe { AsyncFd::register(fd) }?;
        Ok(Self { fd })
    }

    /// The next frame. A link that goes down is an error once; the socket works again when it comes back.
    pub(crate) async fn receive(&self, buffer: &mut [u8; FRAME_LEN_MAX]) -> io::Result<usize> {
        loop {
            let mut guard = self.fd.readable().await?;
            if let Ok(result) = guard
                .try_io(|fd| Ok(nix::sys::socket::recv(fd.as_raw_fd(), buffer, nix::sys::socket::MsgFlags::empty())?))
            {
                return result;
            }
        }
    }

    /// The next frame of either way, and whether it went out.
    pub(crate) async fn receive_either(&self, buffer: &mut [u8; FRAME_LEN_MAX]) -> io::Result<(usize, bool)> {
        loop {
            let mut guard = self.fd.readable().await?;
            let received =
                guard.try_io(|fd| Ok(nix::sys::socket::recvfrom::<LinkAddr>(fd.as_raw_fd(), &mut buffer[..])?));
            if let Ok(result) = received {
                let (len, from) = result?;
                return Ok((len, from.is_some_and(|from| from.as_ref().sll_pkttype == libc::PACKET_OUTGOING)));
            }
        }
    }

    /// The next frame, if one waits already.
    pub(crate) fn try_receive(&self, buffer: &mut [u8; FRAME_LEN_MAX]) -> Option<usize> {
        let flags = nix::sys::socket::MsgFlags::MSG_DONTWAIT;
        nix::sys::socket::recv(self.fd.as_raw_fd(), buffer, flags).ok()
    }

    /// Sends out of the link: from a tap's socket to the guest. Never waits; a full queue is an error.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        nix::sys::socket::send(self.fd.as_raw_fd(), frame, nix::sys::socket::MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }
}

fn size_of_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).expect("a small struct")
}
