//! A socket that keeps frames whole: of a guest, or of whoever brings a foreign machine's frames.
use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, getsockopt, recv, send, socketpair, sockopt},
};
use tokio::io::unix::AsyncFd;

/// One end of a pair; QEMU has the other, or the program that brings a foreign machine's frames.
#[derive(Debug)]
pub struct FrameSocket(AsyncFd<OwnedFd>);

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Taken,
    /// The socket's buffer is full; it will be writable again.
    Full,
    /// Nobody is there any more.
    Gone,
}

impl FrameSocket {
    /// A pair: an end for this program, and one for [`crate::Switch::plug_foreign`].
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self::new(ours)?, theirs))
    }

    /// # Errors
    /// When it is no socket that keeps frames whole and tells when its other end is gone.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        if getsockopt(&fd, sockopt::SockType)? != SockType::SeqPacket {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not SOCK_SEQPACKET"));
        }
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // SAFETY: the `AsyncFd` owns the open fd, and nothing replaces it while it does.
        #[expect(unsafe_code, reason = "tokio has no safe constructor any more")]
        let fd = unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)?;
        Ok(Self(fd))
    }

    /// The next frame; 0 when the other end is gone. Cancel safe.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut guard = self.0.readable().await?;
            let received = guard.try_io(|fd| Ok(recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?));
            if let Ok(result) = received {
                return result;
            }
        }
    }

    /// Sends a frame, and waits for room if there is none. `false`: the other end is gone. Cancel safe.
    pub async fn send_when_there_is_room(&self, frame: &[u8]) -> bool {
        let mut sent = Sent::Gone;
        let waited = self.when_writable(|socket| {
            sent = socket.send(frame);
            sent
        });
        waited.await.is_ok() && sent == Sent::Taken
    }

    pub(super) fn send(&self, frame: &[u8]) -> Sent {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.0.as_raw_fd(), frame, flags) {
            Ok(_) => Sent::Taken,
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR) => Sent::Full,
            Err(_) => Sent::Gone,
        }
    }

    /// Waits until there may be room, and lets `drain` use it: it says whether it met a full buffer again. Cancel safe.
    pub(super) async fn when_writable(&self, mut drain: impl FnMut(&Self) -> Sent) -> io::Result<()> {
        loop {
            let mut guard = self.0.writable().await?;
            match drain(self) {
                Sent::Full => guard.clear_ready(),
                Sent::Taken | Sent::Gone => return Ok(()),
            }
        }
    }
}
