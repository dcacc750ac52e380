//! The first words with a runner: who speaks, and whether the claims fit the socket they came in by.
use std::time::Duration;

use model::InstanceId;
use seat::{FromAgent, FromRunner, Hello, PROTOCOL_VERSION, SeatListener, SeatSocket};
use tokio::{sync::mpsc, time};
use tracing::{debug, warn};

/// A runner says Hello at once; who connects and is silent is somebody else.
const HELLO_LIMIT: Duration = Duration::from_secs(2);
/// Runners whose Hello may wait for the actor. Full = the next one waits in the socket.
pub(crate) const CANDIDATES_MAX: usize = 4;
/// Pause after `accept` failed, which it does when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A runner that said a well-formed Hello.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) socket: SeatSocket,
    pub(crate) hello: Hello,
}

/// Why a runner is not welcomed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) remedy: String,
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: remedy.into() }
    }
}

/// Checks claims against the seat that the socket belongs to. `present` is the process id of the runner that is here.
pub(crate) fn check(hello: &Hello, seat: &InstanceId, present: Option<u32>) -> Result<(), Refusal> {
    if hello.version != PROTOCOL_VERSION {
        return Err(Refusal::new(
            format!(
                "the runner speaks version {} of the seat protocol, this agent version {PROTOCOL_VERSION}",
                hello.version
            ),
            "use a runner and an agent of one release",
        ));
    }
    if hello.instance != seat.as_str() {
        let said: String = hello.instance.chars().take(80).collect();
        return Err(Refusal::new(
            format!("this socket is the seat of {seat}, and the runner says that it is `{said}`"),
            "give the runner the socket of its own instance",
        ));
    }
    if let Some(pid) = present {
        return Err(Refusal::new(
            format!("{seat} already has a runner, process {pid}"),
            "end that one first; an instance has one runner",
        ));
    }
    Ok(())
}

/// Accepts connections for ever; each one that says Hello in time is handed on.
pub(crate) async fn accept(listener: SeatListener, instance: InstanceId, candidates: mpsc::Sender<Candidate>) {
    loop {
        match listener.accept().await {
            Ok(socket) => {
                // One at a time in here too: permits are taken before the Hello is read.
                let Ok(permit) = candidates.clone().reserve_owned().await else { return };
                let instance = instance.clone();
                tokio::spawn(async move {
                    if let Some(candidate) = hear(socket, &instance).await {
                        permit.send(candidate);
                    }
                });
            }
            Err(error) => {
                warn!(%instance, %error, "could not accept on the seat socket; raise the limit of open files if this stays");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Reads the Hello; anything else is refused in words.
async fn hear(socket: SeatSocket, instance: &InstanceId) -> Option<Candidate> {
    let refusal = match time::timeout(HELLO_LIMIT, socket.receive::<FromRunner>()).await {
        Ok(Ok((FromRunner::Hello(hello), _))) => return Some(Candidate { socket, hello }),
        Ok(Ok(_)) => Refusal::new("the first message must be Hello", "connect again and say Hello first"),
        Ok(Err(seat::SocketError::Closed)) => return None,
        Ok(Err(error)) => Refusal::new(error.to_string(), "speak the seat protocol"),
        Err(_) => {
            Refusal::new(format!("no Hello within {} s", HELLO_LIMIT.as_secs()), "connect again and say Hello at once")
        }
    };
    debug!(%instance, reason = refusal.reason, "a connection to the seat socket was refused");
    refuse(&socket, refusal).await;
    None
}

/// Says no. Whether it is heard does not matter: the connection ends.
pub(crate) async fn refuse(socket: &SeatSocket, refusal: Refusal) {
    let words = FromAgent::Refused { reason: refusal.reason, remedy: refusal.remedy };
    time::timeout(HELLO_LIMIT, socket.say(&words)).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(version: u32, instance: &str) -> Hello {
        Hello { version, instance: instance.into(), runner_pid: 7, has_port: false, health_url: None }
    }

    #[test]
    fn claims_must_fit_the_socket() {
        let seat: InstanceId = "instance-0".parse().unwrap();
        assert_eq!(check(&hello(PROTOCOL_VERSION, "instance-0"), &seat, None), Ok(()));
        let reason = |hello, present| check(&hello, &seat, present).unwrap_err().reason;
        assert!(reason(hello(99, "instance-0"), None).contains("version 99"));
        assert!(reason(hello(PROTOCOL_VERSION, "instance-1"), None).contains("`instance-1`"));
        assert!(reason(hello(PROTOCOL_VERSION, &"x".repeat(9999)), None).len() < 300);
        assert!(reason(hello(PROTOCOL_VERSION, "instance-0"), Some(7)).contains("process 7"));
    }
}
