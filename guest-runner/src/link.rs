//! The connection to the node's agent: made again whenever it is gone.
//!
//! ```text
//! Away --connected, Hello said--> Greeting --Welcome--> Attached
//!   ^----- refused: 1 s ------------|                      |
//!   ^----- silent, gone: 200 ms ----+----------------------+
//! ```
use std::{os::fd::OwnedFd, path::PathBuf, time::Duration};

use seat::{FromAgent, FromRunner, Hello, PROTOCOL_VERSION, PortKind, SeatSocket, SocketError};
use tokio::time::{Instant, sleep_until, timeout};

/// Pause before the next attempt: the guest runs on meanwhile, and an agent that starts is found quickly.
const RETRY: Duration = Duration::from_millis(200);
/// Pause after the agent said no.
const REFUSED_RETRY: Duration = Duration::from_secs(1);
/// How long an agent may think about a Hello; it may have to make the tap first.
const WELCOME_LIMIT: Duration = Duration::from_secs(15);
/// How long the agent may leave a message unread.
const SEND_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug)]
enum State {
    Away { until: Instant },
    Greeting { socket: SeatSocket, until: Instant },
    Attached { socket: SeatSocket },
}

#[derive(Debug)]
pub(crate) struct Link {
    path: PathBuf,
    instance: String,
    health_url: String,
    state: State,
    /// The last reason for being away that was logged: each is said once, not five times a second.
    logged: Option<String>,
}

/// What the agent did.
#[derive(Debug)]
pub(crate) enum News {
    /// Time to call [`Link::dial`].
    Dial,
    Said(FromAgent, Vec<OwnedFd>),
    /// The connection is gone, for this reason; the next attempt is planned.
    Gone(String),
}

impl Link {
    pub(crate) fn new(path: PathBuf, instance: String, health_url: String) -> Self {
        Self { path, instance, health_url, state: State::Away { until: Instant::now() }, logged: None }
    }

    pub(crate) const fn is_attached(&self) -> bool {
        matches!(self.state, State::Attached { .. })
    }

    /// The next thing to do or to know. Cancel-safe.
    pub(crate) async fn news(&mut self) -> News {
        let result = match &self.state {
            State::Away { until } => {
                sleep_until(*until).await;
                return News::Dial;
            }
            State::Greeting { socket, until } => tokio::time::timeout_at(*until, socket.receive())
                .await
                .unwrap_or_else(|_| Err(silent("did not answer the greeting"))),
            State::Attached { socket } => socket.receive().await,
        };
        match result {
            Ok((message, fds)) => News::Said(message, fds),
            Err(error) => News::Gone(self.lose(&error)),
        }
    }

    /// Connects and says Hello; `Err` is why not.
    pub(crate) async fn dial(&mut self, has_port: bool) -> Result<(), String> {
        let hello = FromRunner::Hello(Hello {
            version: PROTOCOL_VERSION,
            instance: self.instance.clone(),
            runner_pid: std::process::id(),
            has_port,
            health_url: Some(self.health_url.clone()),
            ports: PortKind::ALL.map(|kind| kind.as_str().to_owned()).to_vec(),
        });
        let result = match SeatSocket::connect(&self.path) {
            Ok(socket) => send(&socket, &hello, &[]).await.map(|()| socket),
            Err(error) => Err(SocketError::Io(error)),
        };
        match result {
            Ok(socket) => {
                self.state = State::Greeting { socket, until: Instant::now() + WELCOME_LIMIT };
                Ok(())
            }
            Err(error) => Err(self.lose(&error)),
        }
    }

    /// The agent's Welcome has been understood.
    pub(crate) fn attach(&mut self) {
        let away = State::Away { until: Instant::now() };
        self.state = match std::mem::replace(&mut self.state, away) {
            State::Greeting { socket, .. } => State::Attached { socket },
            other => other,
        };
        self.logged = None;
    }

    /// The agent said no: ask again later.
    pub(crate) fn refused(&mut self, reason: &str) {
        self.away(REFUSED_RETRY, reason);
    }

    /// Ends the connection, for a reason of ours.
    pub(crate) fn drop_agent(&mut self, reason: &str) {
        self.away(RETRY, reason);
    }

    /// Ends the connection to ask for a port anew, at once.
    pub(crate) fn hang_up(&mut self) {
        self.state = State::Away { until: Instant::now() };
    }

    /// Says something, with descriptors. After an error the link is away.
    pub(crate) async fn send(&mut self, message: &FromRunner, fds: &[&OwnedFd]) -> Result<(), String> {
        let State::Attached { socket } = &self.state else {
            return Err("no agent is connected".to_owned());
        };
        match send(socket, message, fds).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lose(&error)),
        }
    }

    fn lose(&mut self, error: &SocketError) -> String {
        let reason = format!("{} ({})", telemetry::chain(error), self.path.display());
        self.away(RETRY, &reason);
        reason
    }

    fn away(&mut self, pause: Duration, reason: &str) {
        self.state = State::Away { until: Instant::now() + pause };
        if self.logged.as_deref() != Some(reason) {
            tracing::warn!(reason, "no agent; the guest is not affected, asking again");
            self.logged = Some(reason.to_owned());
        }
    }
}

async fn send(socket: &SeatSocket, message: &FromRunner, fds: &[&OwnedFd]) -> Result<(), SocketError> {
    timeout(SEND_LIMIT, socket.send(message, fds)).await.unwrap_or_else(|_| Err(silent("does not read its socket")))
}

fn silent(what: &str) -> SocketError {
    SocketError::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, format!("the agent {what}")))
}
