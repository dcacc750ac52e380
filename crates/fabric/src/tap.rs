//! Taps, and the tunnel's TUN device, by `/dev/net/tun`: the kernel makes them in no other way (rtnetlink answers `EOPNOTSUPP` for kind `tun`).
//!
//! Every call acts in the calling thread's network namespace. The flags are those QEMU sets itself for a tap it opens, with
//! `IFF_VNET_HDR`: re-attaching with other flags would change the format of frames under a running guest.
use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
};

use nix::{errno::Errno, libc};

/// Why a tap could not be opened.
#[derive(Debug)]
pub(crate) enum TapError {
    NoTun(io::Error),
    Busy,
    Io(io::Error),
}

/// Two calls of `linux/if_tun.h` for which nix has no safe wrapper.
mod ioctl {
    nix::ioctl_write_ptr_bad!(
        /// `TUNSETIFF`
        set_iff,
        0x4004_54ca,
        nix::libc::ifreq
    );
    nix::ioctl_write_int_bad!(
        /// `TUNSETPERSIST`
        set_persist,
        0x4004_54cb
    );
}

/// What a device carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A tap: Ethernet frames, each after a virtio header.
    Frames,
    /// A TUN device: IP packets.
    Packets,
}

/// Attaches to the tap `name`, which is made if it does not exist.
pub(crate) fn attach(name: &str) -> Result<OwnedFd, TapError> {
    open(name, Shape::Frames)
}

fn open(name: &str, shape: Shape) -> Result<OwnedFd, TapError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(TapError::NoTun)?;
    match set_flags(&file, name, shape) {
        Ok(()) => Ok(file.into()),
        Err(Errno::EBUSY) => Err(TapError::Busy),
        Err(errno) => Err(TapError::Io(errno.into())),
    }
}

/// Attaches an open `/dev/net/tun` to `name`; the descriptor of a macvtap, which has its device already, is given the form of its frames.
pub(crate) fn set_flags(fd: &impl AsRawFd, name: &str, shape: Shape) -> Result<(), Errno> {
    let mut request =
        libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_ifindex: 0 } };
    if name.len() >= libc::IFNAMSIZ {
        return Err(Errno::ENAMETOOLONG);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = match shape {
        Shape::Frames => libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR,
        Shape::Packets => libc::IFF_TUN | libc::IFF_NO_PI,
    };
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).expect("the flags of if_tun.h have 16 bits");
    // SAFETY: TUNSETIFF reads one `ifreq`, which lives across the call, and the fd is open.
    #[expect(unsafe_code, reason = "ioctl")]
    unsafe { ioctl::set_iff(fd.as_raw_fd(), &raw const request) }.map(drop)
}

/// Makes the tap `name` and leaves it there, closed.
pub(crate) fn create(name: &str) -> Result<(), TapError> {
    open_persistent(name, Shape::Frames).map(drop)
}

/// Attaches to the device `name`, which is made if it does not exist, and stays there when it is closed.
pub(crate) fn open_persistent(name: &str, shape: Shape) -> Result<OwnedFd, TapError> {
    let fd = open(name, shape)?;
    // SAFETY: TUNSETPERSIST takes a plain int, and the fd is an attached tap.
    #[expect(unsafe_code, reason = "ioctl")]
    unsafe { ioctl::set_persist(fd.as_raw_fd(), 1) }.map_err(|errno| TapError::Io(errno.into()))?;
    Ok(fd)
}
