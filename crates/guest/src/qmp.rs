//! One QMP session over any byte stream: a Unix socket in production, a duplex pipe in tests.
//!
//! Commands, answers and events are the types of crate `qapi`. Its own async transport is not used, because it has
//! none of what a guest that stands still asks for: no limit on a line, no limit on an answer, an answer that comes
//! after its command was given up ends the session, an event newer than its schema does too, and no descriptor can
//! be sent (`getfd`).
//!
//! **Invariants.** One command at a time; each has an id, so a late answer is told from the awaited one. Events that
//! arrive meanwhile wait in a queue of [`EVENTS_MAX`]; when it is full the oldest is dropped and counted. Every
//! wait is cancel-safe for the session: a command that was cut while being written makes it [`QmpError::Torn`], never
//! silently wrong.
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::Path,
    time::Duration,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use qapi::{
    Command, ErrorClass,
    qmp::{self, QmpCommand, VersionInfo},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::UnixStream,
    time::{Instant, timeout_at},
};

/// How long QEMU may take to answer. Its main loop answers in a millisecond; seconds mean a starved machine.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(5);
/// A few bytes go into the socket's buffer at once.
const NUDGE_LIMIT: Duration = Duration::from_millis(100);
/// Longest line taken from QEMU, in bytes. `query-qmp-schema`, the longest answer there is, is a fifth of it.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Events kept while nobody asks for them.
pub const EVENTS_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    #[error("could not connect to QEMU's monitor {path}")]
    Connect {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("QEMU closed its monitor during `{during}`")]
    Closed { during: &'static str },
    #[error("QEMU's monitor failed during `{during}`")]
    Io {
        during: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("QEMU did not answer `{during}` within {limit:?}; its main loop stands still or the machine is starved")]
    Timeout { during: &'static str, limit: Duration },
    #[error("QEMU refused `{command}`: {description}")]
    Refused { command: &'static str, class: ErrorClass, description: String },
    #[error("QEMU's monitor sent what is not QMP during `{during}`")]
    Malformed {
        during: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("QEMU's monitor sent a line of more than {LINE_BYTES_MAX} bytes")]
    LineTooLong,
    #[error("an earlier command was given up half written; connect to the monitor anew")]
    Torn,
}

/// Something that happened in QEMU, such as `SHUTDOWN` or `RESET`.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

impl Event {
    /// The event as type `E`, if it is that event and has its form.
    pub fn typed<E: qapi::Event>(&self) -> Option<E> {
        if self.name != E::NAME {
            return None;
        }
        E::deserialize(&self.data).ok()
    }
}

/// One session: greeting taken, capabilities negotiated.
#[derive(Debug)]
pub struct Qmp<S> {
    stream: S,
    buffer: Vec<u8>,
    /// Bytes of `buffer` known to hold no line end.
    scanned: usize,
    events: VecDeque<Event>,
    events_dropped_total: u64,
    last_id: u64,
    writing: bool,
    heard_at: Instant,
    version: Option<VersionInfo>,
}

/// Any line of QMP; `id` is always a number of ours.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Greeting>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<Refusal>,
    id: Option<u64>,
}

#[derive(Deserialize)]
struct Greeting {
    version: VersionInfo,
}

#[derive(Deserialize)]
struct Refusal {
    class: ErrorClass,
    desc: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Qmp<S> {
    /// Takes the greeting and leaves negotiation mode.
    ///
    /// # Errors
    /// [`QmpError::Timeout`] if QEMU does not greet within [`COMMAND_LIMIT`]: a monitor serves one client at a time.
    pub async fn connect(stream: S) -> Result<Self, QmpError> {
        Self::connect_within(stream, COMMAND_LIMIT).await
    }

    /// As [`Self::connect`], with a limit of one's own for the greeting.
    pub async fn connect_within(stream: S, limit: Duration) -> Result<Self, QmpError> {
        let mut qmp = Self {
            stream,
            buffer: Vec::new(),
            scanned: 0,
            events: VecDeque::new(),
            events_dropped_total: 0,
            last_id: 0,
            writing: false,
            heard_at: Instant::now(),
            version: None,
        };
        let during = "greeting";
        let deadline = Instant::now() + limit;
        while qmp.version.is_none() {
            let line =
                timeout_at(deadline, qmp.line(during)).await.map_err(|_| QmpError::Timeout { during, limit })??;
            qmp.version = line.greeting.map(|greeting| greeting.version);
        }
        qmp.execute(qmp::qmp_capabilities { enable: None }).await?;
        Ok(qmp)
    }

    /// What the greeting said.
    pub fn version(&self) -> &VersionInfo {
        self.version.as_ref().expect("connect() returns only once the greeting has come")
    }

    /// Events lost because nobody took them.
    pub fn events_dropped_total(&self) -> u64 {
        self.events_dropped_total
    }

    /// When QEMU last said anything: a sign that its main loop turns.
    pub fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// Makes QEMU say something, without waiting for it: the answer is read by the next call of [`Self::event`] or any
    /// other. One at a time, or QEMU's input may fill up.
    pub async fn nudge(&mut self) -> Result<(), QmpError> {
        let during = qmp::query_status::NAME;
        let (_, bytes) = self.encode(qmp::query_status {});
        timeout_at(Instant::now() + NUDGE_LIMIT, self.write(during, &bytes))
            .await
            .map_err(|_| QmpError::Timeout { during, limit: NUDGE_LIMIT })?
    }

    /// Runs one command and gives its answer.
    pub async fn execute<C: QmpCommand>(&mut self, command: C) -> Result<C::Ok, QmpError> {
        self.execute_within(command, COMMAND_LIMIT).await
    }

    /// As [`Self::execute`], with a limit of one's own.
    pub async fn execute_within<C: QmpCommand>(&mut self, command: C, limit: Duration) -> Result<C::Ok, QmpError> {
        let deadline = Instant::now() + limit;
        let timeout = |_| QmpError::Timeout { during: C::NAME, limit };
        let (id, bytes) = self.encode(command);
        timeout_at(deadline, self.write(C::NAME, &bytes)).await.map_err(timeout)??;
        timeout_at(deadline, self.answer::<C>(id)).await.map_err(timeout)?
    }

    /// The next event, in order. Cancel-safe.
    pub async fn event(&mut self) -> Result<Event, QmpError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.line("event").await?;
        }
    }

    /// Makes QEMU look at the guest's screen now instead of at its next 30 ms tick, so that what changed goes to the
    /// display listener at once.
    ///
    /// `screendump` refreshes the console first and opens its file afterwards; a file that cannot be opened (`/dev/null`
    /// is no directory) leaves the refresh without the conversion to PPM, which would be nearly all of the cost.
    ///
    /// # Errors
    /// Every one but the refusal, which is what is asked for.
    pub async fn refresh_poke(&mut self) -> Result<(), QmpError> {
        let filename = "/dev/null/refresh".to_owned();
        match self.execute(qmp::screendump { device: None, head: None, format: None, filename }).await {
            Ok(_) | Err(QmpError::Refused { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    fn encode<C: QmpCommand>(&mut self, command: C) -> (u64, Vec<u8>) {
        self.last_id += 1;
        let mut bytes = serde_json::to_vec(&qapi::Execute::new(command, Some(self.last_id)))
            .expect("QAPI's types are plain data with text keys");
        bytes.push(b'\n');
        (self.last_id, bytes)
    }

    async fn write(&mut self, during: &'static str, bytes: &[u8]) -> Result<(), QmpError> {
        if self.writing {
            return Err(QmpError::Torn);
        }
        self.writing = true;
        self.stream.write_all(bytes).await.map_err(|source| QmpError::Io { during, source })?;
        self.writing = false;
        Ok(())
    }

    async fn answer<C: Command>(&mut self, id: u64) -> Result<C::Ok, QmpError> {
        loop {
            let line = self.line(C::NAME).await?;
            // Another id: the answer to a command that was given up.
            if line.id != Some(id) {
                continue;
            }
            return match (line.value, line.error) {
                (_, Some(refusal)) => {
                    Err(QmpError::Refused { command: C::NAME, class: refusal.class, description: refusal.desc })
                }
                (value, None) => serde_json::from_value(value.unwrap_or_default())
                    .map_err(|source| QmpError::Malformed { during: C::NAME, source }),
            };
        }
    }

    /// The next line. An event is put into the queue as well. Cancel-safe: bytes stay in the buffer.
    async fn line(&mut self, during: &'static str) -> Result<Line, QmpError> {
        let end = loop {
            if let Some(at) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
                break self.scanned + at;
            }
            self.scanned = self.buffer.len();
            if self.scanned > LINE_BYTES_MAX {
                return Err(QmpError::LineTooLong);
            }
            let count =
                self.stream.read_buf(&mut self.buffer).await.map_err(|source| QmpError::Io { during, source })?;
            if count == 0 {
                return Err(QmpError::Closed { during });
            }
        };
        let parsed = serde_json::from_slice::<Line>(&self.buffer[..end]);
        self.buffer.drain(..=end);
        self.scanned = 0;
        self.heard_at = Instant::now();
        let mut line = parsed.map_err(|source| QmpError::Malformed { during, source })?;
        if let Some(name) = line.event.take() {
            if self.events.len() == EVENTS_MAX {
                self.events.pop_front();
                self.events_dropped_total += 1;
            }
            self.events.push_back(Event { name, data: std::mem::take(&mut line.data) });
        }
        Ok(line)
    }
}

impl Qmp<UnixStream> {
    /// Connects to a monitor's socket.
    pub async fn open(path: &Path) -> Result<Self, QmpError> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| QmpError::Connect { path: path.display().to_string(), source })?;
        Self::connect(stream).await
    }

    /// Gives QEMU a copy of `fd` under `name`, for a later command such as `add_client`.
    pub async fn pass_fd(&mut self, name: &str, fd: impl AsFd) -> Result<(), QmpError> {
        let during = qmp::getfd::NAME;
        let timeout = |_| QmpError::Timeout { during, limit: COMMAND_LIMIT };
        let deadline = Instant::now() + COMMAND_LIMIT;
        let (id, bytes) = self.encode(qmp::getfd { fdname: name.to_owned() });
        timeout_at(deadline, self.write_with_fd(during, &bytes, fd.as_fd())).await.map_err(timeout)??;
        timeout_at(deadline, self.answer::<qmp::getfd>(id)).await.map_err(timeout)??;
        Ok(())
    }

    /// The descriptor goes with the first byte, so QEMU has it before it reads the command's end.
    async fn write_with_fd(&mut self, during: &'static str, bytes: &[u8], fd: BorrowedFd<'_>) -> Result<(), QmpError> {
        if self.writing {
            return Err(QmpError::Torn);
        }
        self.writing = true;
        let stream = &self.stream;
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                let fds = [fd.as_raw_fd()];
                let rights = [ControlMessage::ScmRights(&fds)];
                let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                Ok(sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(bytes)], &rights, flags, None)?)
            })
            .await
            .map_err(|source| QmpError::Io { during, source })?;
        self.stream.write_all(&bytes[sent..]).await.map_err(|source| QmpError::Io { during, source })?;
        self.writing = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
