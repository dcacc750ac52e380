//! The first words with a runner: whether its claims fit the door it came in by (`crate::doors`).
use std::time::Duration;

use model::InstanceId;
use seat::{FromAgent, Hello, PROTOCOL_VERSION, SeatSocket};
use tokio::time;

/// A runner that is refused need not listen.
const REFUSE_LIMIT: Duration = Duration::from_secs(2);
/// Runners whose Hello may wait for the actor. Full = the next one waits at its door.
pub(crate) const CANDIDATES_MAX: usize = 4;

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

/// Checks claims against the instance that the door leads to. `present` is the process id of the runner that is here.
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
            "give the runner the socket, or the name, of its own instance",
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

/// Says no. Whether it is heard does not matter: the connection ends.
pub(crate) async fn refuse(socket: &SeatSocket, refusal: Refusal) {
    let words = FromAgent::Refused { reason: refusal.reason, remedy: refusal.remedy };
    time::timeout(REFUSE_LIMIT, socket.say(&words)).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(version: u32, instance: &str) -> Hello {
        Hello {
            version,
            instance: instance.into(),
            runner_pid: 7,
            has_port: false,
            health_url: None,
            ports: Vec::new(),
        }
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
