//! One port's frames, both ways: a raw packet socket (packet(7)) that is only read.
//!
//! pnet's datalink channel would do but for what a capture is about: it does not tell which way a frame went, when the kernel
//! saw it, how long it was before a cut, what VLAN tag the kernel took out of it, nor how many were dropped.
//!
//! The kernel's receive buffer is the queue; when it is full the kernel drops the newest copy and counts it. The LAN's own
//! frames are not touched by that.
use std::{
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrLike,
            bind, recvmmsg, setsockopt, socket, sockopt,
        },
        time::TimeSpec,
    },
};

use crate::write::Direction;

/// Octets to which a frame is cut. The LAN's are at most 1514, or 1518 with a tag.
pub const SNAP_LEN: usize = 9216;
/// Frames that are read at once.
const BATCH: usize = 32;
/// Kernel memory of one socket for frames that were not read yet.
const RECEIVE_BUFFER_BYTES: usize = 2 << 20;
/// Octets of destination and source: a tag stands behind them.
const TAG_AT: usize = 12;
const TAG_LEN: usize = 4;

/// Room for one batch, used for all taps in turn.
#[derive(Debug)]
pub(crate) struct Buffers(Vec<u8>);

impl Buffers {
    pub(crate) fn new() -> Self {
        Self(vec![0; BATCH * (SNAP_LEN + TAG_LEN)])
    }
}

/// A frame as it was read.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    pub(crate) at: Duration,
    pub(crate) direction: Direction,
    pub(crate) wire_len: u32,
    pub(crate) bytes: &'a mut [u8],
}

#[derive(Debug)]
pub(crate) struct TapSocket {
    fd: OwnedFd,
    index: u32,
    /// What leaves it comes from the guest: it is a macvtap.
    turned: bool,
}

impl TapSocket {
    /// Opens in the calling thread's network namespace, on the link with this index.
    pub(crate) fn open(index: u32, turned: bool) -> io::Result<Self> {
        // Without a protocol nothing is received before `bind`, so no frame of another link slips in.
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
        // More than net.core.rmem_max; a kernel that refuses leaves the usual size, which only drops sooner.
        setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).ok();
        set_auxdata(&fd)?;
        bind(fd.as_raw_fd(), &address(index)?)?;
        Ok(Self { fd, index, turned })
    }

    pub(crate) const fn index(&self) -> u32 {
        self.index
    }

    /// Reads one batch and hands over each frame. Returns how many there were; fewer than [`BATCH`] means that there are no more.
    pub(crate) fn receive(&self, buffers: &mut Buffers, mut each: impl FnMut(Received<'_>)) -> io::Result<bool> {
        let mut messages = Vec::with_capacity(BATCH);
        {
            // The first octets of each part are kept free, for a tag that must go back in.
            let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers
                .0
                .chunks_exact_mut(SNAP_LEN + TAG_LEN)
                .map(|part| [IoSliceMut::new(part.split_at_mut(TAG_LEN).1)])
                .collect();
            let space = cmsg_space!(TimeSpec, [u8; size_of::<libc::tpacket_auxdata>()]);
            let mut headers = MultiHeaders::<LinkAddr>::preallocate(BATCH, Some(space));
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            let results = match recvmmsg(self.fd.as_raw_fd(), &mut headers, &mut slices, flags, None) {
                Ok(results) => results,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            };
            for message in results {
                let is_outgoing = message.address.is_some_and(|address| address.pkttype() == PACKET_OUTGOING);
                let (mut at, mut tag) = (None, None);
                for control in message.cmsgs()? {
                    match control {
                        ControlMessageOwned::ScmTimestampns(time) => at = Some(Duration::from(time)),
                        ControlMessageOwned::Unknown(control) => tag = tag.or(vlan_tag(&control.data_bytes)),
                        _ => {}
                    }
                }
                // From a tap's side: what leaves it goes to the guest.
                let direction = if is_outgoing == self.turned { Direction::Outbound } else { Direction::Inbound };
                messages.push((message.bytes, direction, at, tag));
            }
        }
        let is_full = messages.len() == BATCH;
        for ((len, direction, at, tag), part) in
            messages.into_iter().zip(buffers.0.chunks_exact_mut(SNAP_LEN + TAG_LEN))
        {
            let mut wire_len = u32::try_from(len).unwrap_or(u32::MAX);
            let end = TAG_LEN + len.min(SNAP_LEN);
            let start = match tag {
                Some(tag) if end >= TAG_LEN + TAG_AT => {
                    part.copy_within(TAG_LEN..TAG_LEN + TAG_AT, 0);
                    if let Some(place) = part.get_mut(TAG_AT..TAG_AT + TAG_LEN) {
                        place.copy_from_slice(&tag);
                    }
                    wire_len = wire_len.saturating_add(4);
                    0
                }
                _ => TAG_LEN,
            };
            let Some(bytes) = part.get_mut(start..end) else { continue };
            // The kernel stamps every frame for whom asks it to.
            let at = at.unwrap_or_else(now);
            each(Received { at, direction, wire_len, bytes });
        }
        Ok(is_full)
    }

    /// Frames that found the kernel's buffer full, since the last call.
    pub(crate) fn take_dropped(&self) -> u32 {
        let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut len = size_of_u32::<libc::tpacket_stats>();
        // SAFETY: the kernel writes at most `len` bytes to `stats`, which has as many and lives across the call.
        #[expect(unsafe_code, reason = "nix has no PACKET_STATISTICS")]
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut len,
            )
        };
        if result == 0 { stats.tp_drops } else { 0 }
    }
}

impl AsFd for TapSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `PACKET_OUTGOING` of `linux/if_packet.h`.
const PACKET_OUTGOING: u8 = 4;

/// Time since the epoch. A clock before 1970 is at it.
pub(crate) fn now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// The tag that the kernel took out of the frame, as it stood there: `struct tpacket_auxdata` of `linux/if_packet.h`.
fn vlan_tag(auxdata: &[u8]) -> Option<[u8; TAG_LEN]> {
    const TCI_VALID: u32 = 1 << 4;
    const TPID_VALID: u32 = 1 << 6;
    let status = u32::from_ne_bytes(*auxdata.first_chunk()?);
    let word = |at: usize| Some(u16::from_ne_bytes(*auxdata.get(at..)?.first_chunk()?));
    let (tci, tpid) = (word(16)?, word(18)?);
    let tpid = if status & TPID_VALID == 0 { 0x8100 } else { tpid };
    let ([a, b], [c, d]) = (tpid.to_be_bytes(), tci.to_be_bytes());
    (status & TCI_VALID != 0).then_some([a, b, c, d])
}

fn address(index: u32) -> io::Result<LinkAddr> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?.to_be(),
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the pointer is to a `sockaddr_ll` of the length given, which is copied.
    #[expect(unsafe_code, reason = "nix has no other way to make a link-layer address")]
    let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(size_of_u32::<libc::sockaddr_ll>())) };
    address.ok_or_else(|| io::Error::other("the kernel's link-layer address is not nix's"))
}

fn set_auxdata(fd: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads the `c_int` given, which lives across the call.
    #[expect(unsafe_code, reason = "nix has no PACKET_AUXDATA")]
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_AUXDATA,
            (&raw const on).cast(),
            size_of_u32::<libc::c_int>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn size_of_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).expect("a small struct")
}
