//! `SOCK_SEQPACKET` with descriptors, asynchronous.
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
        recvmsg, sendmsg, socket_with,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{Interest, unix::AsyncFd};

/// Larger than any message of the protocol; a longer packet is an error, never cut.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Descriptors that one message may carry.
pub const MESSAGE_FDS_MAX: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("the other side closed the seat socket")]
    Closed,
    #[error("seat socket failed")]
    Io(#[from] io::Error),
    #[error(
        "a message on the seat socket is longer than {MESSAGE_BYTES_MAX} bytes or carries more than {MESSAGE_FDS_MAX} descriptors"
    )]
    TooLarge,
    #[error("a message on the seat socket is not of the protocol: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl SocketError {
    /// The other side has gone. After a send that says so, [`SeatSocket::receive`] still gives what it said before it went, and
    /// then [`Self::Closed`].
    pub fn is_gone(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match self {
            Self::Closed => true,
            Self::Io(error) => matches!(error.kind(), BrokenPipe | ConnectionReset),
            _ => false,
        }
    }
}

/// One connection, either end.
#[derive(Debug)]
pub struct SeatSocket {
    fd: AsyncFd<OwnedFd>,
}

/// Where an agent waits for the runner of one seat.
#[derive(Debug)]
pub struct SeatListener {
    fd: AsyncFd<OwnedFd>,
}

fn seqpacket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sound here: the descriptor is owned, so it stays open and the same until the `AsyncFd` is dropped.
#[expect(
    deprecated,
    reason = "its successor is unsafe for the sake of types that can change their descriptor; OwnedFd cannot"
)]
fn registered(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

impl SeatSocket {
    /// Connects to the agent's socket. `ENOENT` and `ECONNREFUSED` mean that the agent is away: ask again later.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let fd = seqpacket()?;
        connect(&fd, &SocketAddrUnix::new(path)?)?;
        Ok(Self { fd: registered(fd)? })
    }

    /// Sends one message with its descriptors, which stay open here.
    pub async fn send(&self, message: &impl Serialize, fds: &[&(impl AsFd + ?Sized)]) -> Result<(), SocketError> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MESSAGE_BYTES_MAX || fds.len() > MESSAGE_FDS_MAX {
            return Err(SocketError::TooLarge);
        }
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        self.fd
            .async_io(Interest::WRITABLE, |socket| {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS_MAX))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !fds.is_empty() {
                    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)), "space is for MESSAGE_FDS_MAX");
                }
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                Ok(sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags)?)
            })
            .await?;
        Ok(())
    }

    /// Sends one message without descriptors.
    pub async fn say(&self, message: &impl Serialize) -> Result<(), SocketError> {
        self.send(message, &[] as &[&OwnedFd]).await
    }

    /// Receives one message. Cancel-safe: a packet is taken whole or not at all.
    pub async fn receive<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), SocketError> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let (len, flags, fds) = self
            .fd
            .async_io(Interest::READABLE, |socket| {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS_MAX))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
                let mut receive = || recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags);
                // The other side went with a message of ours unread. The kernel says so once (unix_release_sock, sock_error),
                // before it gives what that side had said.
                let got = match receive() {
                    Err(Errno::CONNRESET) => receive(),
                    other => other,
                }?;
                let mut fds = Vec::new();
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        fds.extend(rights);
                    }
                }
                Ok((got.bytes, got.flags, fds))
            })
            .await?;
        if flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(SocketError::TooLarge);
        }
        if len == 0 {
            return Err(SocketError::Closed);
        }
        Ok((serde_json::from_slice(&bytes[..len])?, fds))
    }
}

impl SeatListener {
    /// Binds `path`, replacing a socket that an earlier agent left. Mode 0666: who has the mount of the directory may
    /// speak, and every claim is checked (docs/adr/0005).
    pub fn bind(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let fd = seqpacket()?;
        bind(&fd, &SocketAddrUnix::new(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        listen(&fd, 8)?;
        Ok(Self { fd: registered(fd)? })
    }

    pub async fn accept(&self) -> io::Result<SeatSocket> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = self.fd.async_io(Interest::READABLE, |listener| Ok(accept_with(listener, flags)?)).await?;
        Ok(SeatSocket { fd: registered(fd)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FromAgent, FromRunner};

    fn place(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("loco-seat-{}-{name}.sock", std::process::id()))
    }

    #[tokio::test]
    async fn a_message_arrives_with_its_descriptors() {
        let path = place("fds");
        let listener = SeatListener::bind(&path).unwrap();
        let runner = SeatSocket::connect(&path).unwrap();
        let agent = listener.accept().await.unwrap();
        let (reader, writer) = io::pipe().unwrap();
        runner.send(&FromRunner::Qmp, &[&OwnedFd::from(reader), &OwnedFd::from(writer)]).await.unwrap();
        let (message, fds) = agent.receive::<FromRunner>().await.unwrap();
        assert_eq!(message, FromRunner::Qmp);
        let [reader, writer] = <[OwnedFd; 2]>::try_from(fds).unwrap();
        io::Write::write_all(&mut io::PipeWriter::from(writer), b"x").unwrap();
        let mut byte = [0];
        io::Read::read_exact(&mut io::PipeReader::from(reader), &mut byte).unwrap();
        assert_eq!(&byte, b"x");
        drop(runner);
        assert!(matches!(agent.receive::<FromRunner>().await, Err(SocketError::Closed)));
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn last_words_are_heard_from_one_that_went_with_an_answer_unread() {
        let path = place("last");
        let listener = SeatListener::bind(&path).unwrap();
        let runner = SeatSocket::connect(&path).unwrap();
        let agent = listener.accept().await.unwrap();
        agent.say(&FromAgent::Display).await.unwrap();
        runner.say(&FromRunner::AskPort).await.unwrap();
        drop(runner);
        assert_eq!(agent.receive::<FromRunner>().await.unwrap().0, FromRunner::AskPort);
        assert!(matches!(agent.receive::<FromRunner>().await, Err(SocketError::Closed)));

        let runner = SeatSocket::connect(&path).unwrap();
        let agent = listener.accept().await.unwrap();
        runner.say(&FromRunner::AskPort).await.unwrap();
        drop(runner);
        assert!(agent.say(&FromAgent::Display).await.unwrap_err().is_gone());
        assert_eq!(agent.receive::<FromRunner>().await.unwrap().0, FromRunner::AskPort);
        assert!(matches!(agent.receive::<FromRunner>().await, Err(SocketError::Closed)));
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn rubbish_is_named_and_a_new_agent_takes_the_path_over() {
        let path = place("rubbish");
        let _old = SeatListener::bind(&path).unwrap();
        let listener = SeatListener::bind(&path).unwrap();
        let runner = SeatSocket::connect(&path).unwrap();
        let agent = listener.accept().await.unwrap();
        runner.say(&"hello").await.unwrap();
        assert!(matches!(agent.receive::<FromRunner>().await, Err(SocketError::Malformed(_))));
        let too_long = FromAgent::Refused { reason: "x".repeat(MESSAGE_BYTES_MAX), remedy: String::new() };
        assert!(matches!(agent.say(&too_long).await, Err(SocketError::TooLarge)));
        std::fs::remove_file(path).unwrap();
    }
}
