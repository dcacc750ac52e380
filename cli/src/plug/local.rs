//! The machine's end: a listener for QEMU, or a plug of a VDE switch.
use std::{convert::Infallible, net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{self, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::sleep,
};
use wire::framed::{LEN_MAX, Next, Prefix};

use crate::tell;

/// Pause after `accept` failed, which it does when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

pub(super) enum Local {
    Qemu {
        listener: TcpListener,
        /// It connected while another one was there.
        waiting: Option<TcpStream>,
        /// How long it waits for the one that is there: one that comes back may be accepted before it is read that it had gone, or while
        /// frames for it are still under way.
        wait: Duration,
    },
    Vde {
        path: PathBuf,
        plug: Option<Child>,
    },
}

impl Local {
    pub(super) async fn listen(address: SocketAddr, wait: Duration) -> Result<Self> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| {
            format!("cannot listen on {address}; if another `loco plug` does, give this one another port by --listen")
        })?;
        Ok(Self::Qemu { listener, waiting: None, wait })
    }

    pub(super) const fn vde(path: PathBuf) -> Self {
        Self::Vde { path, plug: None }
    }

    /// Where QEMU is to connect.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Qemu { listener, .. } => listener.local_addr().ok(),
            Self::Vde { .. } => None,
        }
    }

    /// The next machine.
    pub(super) async fn next(&mut self) -> Result<Machine> {
        match self {
            Self::Qemu { listener, waiting, .. } => {
                let stream = match waiting.take() {
                    Some(stream) => stream,
                    None => accept(listener).await,
                };
                // A game's frames are small and few; none may wait for the next one.
                stream.set_nodelay(true).ok();
                Ok(Machine::of(stream))
            }
            Self::Vde { path, plug } => {
                if plug.take().is_some() {
                    bail!("the VDE switch at {} has gone; start it again, then this", path.display());
                }
                let mut command = Command::new("vde_plug");
                command.arg(&*path).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
                let mut child = command.spawn().context("cannot run vde_plug; install vde2")?;
                let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
                    bail!("vde_plug has no standard input or output");
                };
                *plug = Some(child);
                Ok(Machine::of_vde(input, output))
            }
        }
    }

    /// Sends away who else connects meanwhile, unless the first one goes soon: then [`Local::next`] gives the other.
    pub(super) async fn refuse_others(&mut self) -> Infallible {
        let Self::Qemu { listener, waiting, wait } = self else { return std::future::pending().await };
        loop {
            if waiting.is_none() {
                *waiting = Some(accept(listener).await);
            }
            sleep(*wait).await;
            *waiting = None;
            tell(
                "loco: another machine was sent away: one at a time; run another `loco plug` with another --listen for it",
            );
        }
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// A machine's frames, both ways.
pub(super) struct Machine {
    pub(super) frames: Frames,
    pub(super) sink: FrameSink,
}

impl Machine {
    fn of(stream: TcpStream) -> Self {
        let (from, to) = stream.into_split();
        Self::new(Prefix::Qemu, Box::new(from), Box::new(to))
    }

    fn of_vde(input: ChildStdin, output: ChildStdout) -> Self {
        Self::new(Prefix::Vde, Box::new(output), Box::new(input))
    }

    pub(super) fn new(
        prefix: Prefix,
        from: Box<dyn AsyncRead + Unpin + Send>,
        to: Box<dyn AsyncWrite + Unpin + Send>,
    ) -> Self {
        let frames = Frames { prefix, from, held: vec![0; prefix.len() + LEN_MAX], begin: 0, end: 0 };
        Self { frames, sink: FrameSink { prefix, to, room: vec![0; prefix.len() + LEN_MAX] } }
    }
}

/// What a machine sends.
pub(super) struct Frames {
    prefix: Prefix,
    from: Box<dyn AsyncRead + Unpin + Send>,
    /// Room for the longest frame; `begin..end` of it has been read and not given out.
    held: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Frames {
    /// The next frame, never an empty one. Cancel safe: what was read stays.
    ///
    /// # Errors
    /// In words, when there will be none.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, String> {
        loop {
            let stream = self.held.get(self.begin..self.end).unwrap_or_default();
            match self.prefix.next(stream) {
                Next::Frame(frame, used) => {
                    let frame = frame.to_vec();
                    self.begin += used;
                    if !frame.is_empty() {
                        return Ok(frame);
                    }
                }
                Next::Lost(len) => {
                    return Err(format!(
                        "what connected does not speak QEMU's `-netdev stream`: it says that a frame has {len} octets"
                    ));
                }
                Next::Part => {
                    self.held.copy_within(self.begin..self.end, 0);
                    (self.begin, self.end) = (0, self.end - self.begin);
                    match self.from.read(self.held.get_mut(self.end..).unwrap_or_default()).await {
                        Ok(0) => return Err("the machine has gone".to_owned()),
                        Ok(len) => self.end += len,
                        Err(error) => return Err(format!("the machine has gone: {error}")),
                    }
                }
            }
        }
    }
}

/// Where frames for a machine go.
pub(super) struct FrameSink {
    prefix: Prefix,
    to: Box<dyn AsyncWrite + Unpin + Send>,
    room: Vec<u8>,
}

impl FrameSink {
    /// Must not be cancelled: half a frame would be written.
    pub(super) async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        // What is too long for its length is too long for any LAN.
        let Some(len) = self.prefix.write(frame, &mut self.room) else { return Ok(()) };
        self.to.write_all(self.room.get(..len).unwrap_or_default()).await
    }
}
