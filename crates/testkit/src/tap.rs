//! The guest's end of a tap, held by a test in QEMU's place.
use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
};

use nix::{errno::Errno, libc};
use tokio::io::unix::AsyncFd;

/// `struct virtio_net_hdr`: precedes every frame of a tap opened with `IFF_VNET_HDR`. All zero = an ordinary frame.
const VNET_HEADER_LEN: usize = 10;
/// The longest frame a test sends, with room to notice longer ones.
const FRAME_LEN_MAX: usize = 4096;

/// A call of `linux/if_tun.h` for which nix has no safe wrapper.
mod ioctl {
    nix::ioctl_write_ptr_bad!(set_iff, 0x4004_54ca, nix::libc::ifreq);
}

#[derive(Debug)]
pub struct Tap {
    fd: AsyncFd<OwnedFd>,
}

impl Tap {
    /// Takes over a tap that was opened with `IFF_VNET_HDR` and `O_NONBLOCK`. Needs a tokio runtime.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: the `AsyncFd` owns the open fd, and nothing replaces it while it does.
        #[expect(unsafe_code, reason = "tokio has no safe constructor any more")]
        let fd = unsafe { AsyncFd::register(fd) }?;
        Ok(Self { fd })
    }

    /// Makes a tap in the calling thread's namespace; it goes with the last copy of the fd.
    pub fn open(name: &str) -> io::Result<OwnedFd> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")?;
        let mut request =
            libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_ifindex: 0 } };
        for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).expect("the flags of if_tun.h have 16 bits");
        // SAFETY: TUNSETIFF reads one `ifreq`, which lives across the call, and the fd is open.
        #[expect(unsafe_code, reason = "ioctl")]
        unsafe { ioctl::set_iff(file.as_raw_fd(), &raw const request) }?;
        Ok(file.into())
    }

    /// Sends a frame as the guest.
    pub async fn send(&self, frame: &[u8]) -> io::Result<()> {
        let mut buffer = vec![0; VNET_HEADER_LEN];
        buffer.extend_from_slice(frame);
        loop {
            let mut guard = self.fd.writable().await?;
            if let Ok(result) = guard.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), &buffer)?)) {
                return result.map(drop);
            }
        }
    }

    /// The next frame for the guest.
    pub async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; FRAME_LEN_MAX];
        loop {
            let mut guard = self.fd.readable().await?;
            let read = guard.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), &mut buffer)?));
            match read {
                Ok(Ok(len)) => {
                    buffer.truncate(len);
                    return Ok(buffer.split_off(VNET_HEADER_LEN.min(len)));
                }
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }

    /// All frames that wait now.
    pub fn drain(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; FRAME_LEN_MAX];
        loop {
            match nix::unistd::read(self.fd.get_ref(), &mut buffer) {
                Ok(len) => frames.push(buffer[VNET_HEADER_LEN.min(len)..len].to_vec()),
                Err(Errno::EAGAIN) => return Ok(frames),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
