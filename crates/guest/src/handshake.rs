//! QEMU's display and sound over D-Bus, up to the first message that an agent must see (docs/adr/0006).
//!
//! QEMU refuses to authenticate a peer from another PID namespace, so the runner, which shares its own, does this part
//! and hands over descriptors. What it does is exactly what would stop QEMU's main loop (and with it the guest) if a
//! peer were slow; measured against QEMU 10.0.2:
//!
//! ```text
//! getfd, add_client @dbus-display     QMP; QEMU has ONE such client: a new one closes the bus of the one before,
//!                                     whose listeners stay
//! \0AUTH … NEGOTIATE_UNIX_FD, BEGIN   written in one piece, before anybody asks; answer: OK <guid>, AGREE_UNIX_FD
//! RegisterListener(fd)                QEMU now waits for: the same three lines on the listener   (else: no limit)
//!                                                         GetAll on each interface of it         (else: 25 s)
//! hand-over                           next message on the listener is ScanoutMap (QEMU waits 1 s), Scanout or Init
//! ```
//!
//! **Invariants.** Not one byte is read beyond the last `GetAll`, so whoever gets the descriptors misses nothing.
//! Everything together has [`HANDSHAKE_LIMIT`]; what is half made is dropped, which QEMU takes as a peer that left.
use std::{
    io::{self, IoSlice},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    time::Duration,
};

use nix::sys::socket::{ControlMessage, MsgFlags, UnixCredentials, sendmsg};
use qapi::qmp;
use tokio::{
    io::{AsyncReadExt, Interest},
    net::UnixStream,
    time::timeout,
};

use crate::{
    dbus,
    qmp::{Qmp, QmpError},
};

/// For one whole handshake. It takes 3 ms; QEMU stands still for most of it.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(2);

/// Interfaces that the listener's owner must serve beside `org.qemu.Display1.Listener`: the runner promises them.
pub const LISTENER_INTERFACES: &[&str] = &[MAP_INTERFACE];
const MAP_INTERFACE: &str = "org.qemu.Display1.Listener.Unix.Map";

#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("QEMU's monitor did not take the D-Bus client")]
    Monitor(#[from] QmpError),
    #[error("QEMU's D-Bus connection for {what} failed")]
    Io {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("QEMU closed the D-Bus connection for {what}; most likely an earlier listener is still registered")]
    Closed { what: &'static str },
    #[error("QEMU's D-Bus connection is gone; another client has taken its place")]
    BusGone {
        #[source]
        source: Box<HandshakeError>,
    },
    #[error("QEMU refused to authenticate the D-Bus connection for {what}: it said `{said}`")]
    Rejected { what: &'static str, said: String },
    #[error("QEMU sent something unforeseen on the D-Bus connection for {what}: {said}")]
    Unforeseen { what: &'static str, said: String },
    #[error("QEMU did not finish the D-Bus handshake for {what} within {HANDSHAKE_LIMIT:?}")]
    Timeout { what: &'static str },
}

/// A registered listener: authenticated, its properties told, its first call not yet read.
#[derive(Debug)]
pub struct Listener {
    pub fd: OwnedFd,
    /// From QEMU's `OK` line; whoever goes on needs it.
    pub guid: String,
}

/// What an agent needs to show the screen.
#[derive(Debug)]
pub struct DisplayFds {
    pub bus: OwnedFd,
    pub bus_guid: String,
    pub listener: OwnedFd,
    pub listener_guid: String,
}

/// The runner's end of QEMU's one D-Bus client connection. Replies on it are left to whoever gets a copy.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    guid: String,
    last_serial: u32,
}

impl Bus {
    /// Becomes QEMU's D-Bus client, in place of the one before.
    pub async fn open(qmp: &mut Qmp<UnixStream>) -> Result<Self, HandshakeError> {
        let what = "the bus";
        within(what, async {
            let (ours, theirs) = pair(what)?;
            // First, so that QEMU never waits for it.
            authenticate(what, &ours).await?;
            qmp.pass_fd("loco-dbus", &theirs).await?;
            qmp.execute(qmp::add_client {
                protocol: "@dbus-display".into(),
                fdname: "loco-dbus".into(),
                skipauth: None,
                tls: None,
            })
            .await?;
            drop(theirs);
            let mut stream = ours;
            let guid = welcome(what, &mut stream).await?;
            Ok(Self { stream, guid, last_serial: 0 })
        })
        .await
    }

    /// Registers a listener for the guest's screen.
    pub async fn display(&mut self) -> Result<DisplayFds, HandshakeError> {
        let listener = self
            .register(Registration {
                what: "the display listener",
                path: "/org/qemu/Display1/Console_0",
                interface: "org.qemu.Display1.Console",
                member: "RegisterListener",
                asked: &["org.qemu.Display1.Listener", MAP_INTERFACE],
                interfaces: LISTENER_INTERFACES,
            })
            .await?;
        let bus = self
            .stream
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| HandshakeError::Io { what: "the bus", source })?;
        Ok(DisplayFds { bus, bus_guid: self.guid.clone(), listener: listener.fd, listener_guid: listener.guid })
    }

    /// Registers a listener for the guest's sound. QEMU allows one at a time.
    ///
    /// # Errors
    /// [`HandshakeError::BusGone`] when QEMU has closed this bus; [`HandshakeError::Closed`] while QEMU has not yet noticed that the one before is gone.
    pub async fn audio(&mut self) -> Result<Listener, HandshakeError> {
        self.register(Registration {
            what: "the audio listener",
            path: "/org/qemu/Display1/Audio",
            interface: "org.qemu.Display1.Audio",
            member: "RegisterOutListener",
            asked: &["org.qemu.Display1.AudioOutListener"],
            interfaces: &[],
        })
        .await
    }

    async fn register(&mut self, registration: Registration) -> Result<Listener, HandshakeError> {
        let Registration { what, path, interface, member, asked, interfaces } = registration;
        within(what, async {
            let (mut ours, theirs) = pair(what)?;
            authenticate(what, &ours).await?;
            self.last_serial += 1;
            let call = dbus::call_with_fd(self.last_serial, path, interface, member);
            write_all(what, &self.stream, &call, &[ControlMessage::ScmRights(&[theirs.as_raw_fd()])])
                .await
                .map_err(|source| HandshakeError::BusGone { source: Box::new(source) })?;
            drop(theirs);
            let guid = welcome(what, &mut ours).await?;
            for (serial, interface) in (1..).zip(asked) {
                let call = get_all(what, &mut ours).await?;
                if call.interface != *interface {
                    return Err(HandshakeError::Unforeseen { what, said: format!("GetAll on `{}`", call.interface) });
                }
                // Only the main interface has the property; for the others the empty map is the whole truth.
                let reply = dbus::properties_reply(serial, call.serial, if serial == 1 { interfaces } else { &[] });
                write_all(what, &ours, &reply, &[]).await?;
            }
            let fd = ours.into_std().map_err(|source| HandshakeError::Io { what, source })?.into();
            Ok(Listener { fd, guid })
        })
        .await
    }
}

struct Registration {
    what: &'static str,
    path: &'static str,
    interface: &'static str,
    member: &'static str,
    /// Interfaces whose properties QEMU reads before it returns to its main loop, in this order.
    asked: &'static [&'static str],
    interfaces: &'static [&'static str],
}

async fn within<T>(
    what: &'static str,
    work: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    timeout(HANDSHAKE_LIMIT, work).await.map_err(|_| HandshakeError::Timeout { what })?
}

fn pair(what: &'static str) -> Result<(UnixStream, OwnedFd), HandshakeError> {
    let make = || {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((UnixStream::from_std(ours)?, OwnedFd::from(theirs)))
    };
    make().map_err(|source| HandshakeError::Io { what, source })
}

/// The client's whole part of SASL EXTERNAL in one write. The credentials go along explicitly: QEMU switches
/// `SO_PASSCRED` on only when it reads, and the kernel adds none of itself to what was written before.
async fn authenticate(what: &'static str, stream: &UnixStream) -> Result<(), HandshakeError> {
    let uid = nix::unistd::geteuid().to_string();
    // The digits' ASCII codes: 30 to 39.
    let hex: String = uid.chars().flat_map(|digit| ['3', digit]).collect();
    let lines = format!("\0AUTH EXTERNAL {hex}\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n");
    let credentials = UnixCredentials::new();
    write_all(what, stream, lines.as_bytes(), &[ControlMessage::ScmCredentials(&credentials)]).await
}

/// Reads the two lines of the answer, byte by byte: what follows them belongs to the next reader.
async fn welcome(what: &'static str, stream: &mut UnixStream) -> Result<String, HandshakeError> {
    let ok = line(what, stream).await?;
    let Some(guid) = ok.strip_prefix("OK ") else {
        return Err(HandshakeError::Rejected { what, said: ok });
    };
    let agree = line(what, stream).await?;
    if agree != "AGREE_UNIX_FD" {
        return Err(HandshakeError::Rejected { what, said: agree });
    }
    Ok(guid.to_owned())
}

async fn line(what: &'static str, stream: &mut UnixStream) -> Result<String, HandshakeError> {
    const LINE_MAX: usize = 256;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        if line.len() == LINE_MAX {
            return Err(HandshakeError::Unforeseen { what, said: "an endless line".into() });
        }
        line.push(stream.read_u8().await.map_err(|source| broken(what, source))?);
    }
    line.truncate(line.len() - 2);
    Ok(String::from_utf8_lossy(&line).into_owned())
}

async fn get_all(what: &'static str, stream: &mut UnixStream) -> Result<dbus::GetAll, HandshakeError> {
    let unforeseen = |error: dbus::Unforeseen| HandshakeError::Unforeseen { what, said: error.to_string() };
    let mut message = vec![0; dbus::FIXED_HEADER_BYTES];
    stream.read_exact(&mut message).await.map_err(|source| broken(what, source))?;
    let total = dbus::message_bytes(&message).map_err(unforeseen)?;
    message.resize(total, 0);
    stream.read_exact(&mut message[dbus::FIXED_HEADER_BYTES..]).await.map_err(|source| broken(what, source))?;
    dbus::parse_get_all(&message).map_err(unforeseen)
}

fn broken(what: &'static str, source: io::Error) -> HandshakeError {
    match source.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            HandshakeError::Closed { what }
        }
        _ => HandshakeError::Io { what, source },
    }
}

/// Writes all; `control` goes with the first byte.
async fn write_all(
    what: &'static str,
    stream: &UnixStream,
    bytes: &[u8],
    control: &[ControlMessage<'_>],
) -> Result<(), HandshakeError> {
    let mut sent = 0;
    while sent < bytes.len() {
        let control = if sent == 0 { control } else { &[] };
        sent += stream
            .async_io(Interest::WRITABLE, || {
                let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                Ok(sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&bytes[sent..])], control, flags, None)?)
            })
            .await
            .map_err(|source| broken(what, source))?;
    }
    Ok(())
}
