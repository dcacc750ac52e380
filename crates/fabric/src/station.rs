//! A program of this node as a station of a LAN: frames in and out of a port of its own at the bridge.
//!
//! The bridge knows it like any guest: it learns the source addresses that the program uses, sends unicast for those to it
//! alone, and never gives a frame back to the port it came from. The kernel's queue of the tap (500 frames) is the buffer
//! towards the program; when it is full the kernel drops the newest.
use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, OwnedFd},
};

use nix::sys::uio::{readv, writev};
use tokio::io::{Interest, unix::AsyncFd};

use crate::FabricError;

/// `struct virtio_net_hdr`: precedes every frame, as all taps of the fabric are opened alike. All zero = an ordinary frame.
const VNET_HEADER_LEN: usize = 10;

/// Frames of the LAN, without check sum. Dropping it removes the port.
#[derive(Debug)]
pub struct Station {
    fd: AsyncFd<OwnedFd>,
}

impl Station {
    pub(crate) fn of(fd: OwnedFd) -> Result<Self, FabricError> {
        // SAFETY: the `AsyncFd` owns the open fd, and nothing replaces it while it does.
        #[expect(unsafe_code, reason = "tokio has no safe constructor any more")]
        let fd = unsafe { AsyncFd::register(fd) }
            .map_err(|source| FabricError::OpenTap { tap: "of a station".to_owned(), source: source.into() })?;
        Ok(Self { fd })
    }

    /// The next frame; what is longer than `buffer` is cut. Cancel safe.
    ///
    /// # Errors
    /// When the port is gone; open the station again.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // A port that was deleted is an error, and not readable.
            let mut guard = self.fd.ready(Interest::READABLE | Interest::ERROR).await?;
            let mut header = [0; VNET_HEADER_LEN];
            let read =
                guard.try_io(|fd| Ok(readv(fd.as_fd(), &mut [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)])?));
            if let Ok(result) = read {
                return result.map(|len| len.saturating_sub(VNET_HEADER_LEN));
            }
        }
    }

    /// Sends a frame into the LAN. Never waits.
    ///
    /// # Errors
    /// When the kernel does not take it, or the port is gone.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        writev(self.fd.get_ref(), &[IoSlice::new(&[0; VNET_HEADER_LEN]), IoSlice::new(frame)])?;
        Ok(())
    }
}
