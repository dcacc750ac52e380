//! The messages, and which descriptors travel with each.
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Raised when a message changes its meaning. An agent refuses another version in words.
pub const PROTOCOL_VERSION: u32 = 1;

/// From the runner. Unknown fields are ignored and unknown kinds refused, so that a newer runner can speak to an older agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum FromRunner {
    /// First message of a connection. No descriptors.
    Hello(Hello),
    /// One descriptor: the agent's end of the guest's cable, a `SOCK_SEQPACKET` pair of which QEMU has the other. Said after each
    /// Welcome whose port is [`PortKind::Socket`], and after each Welcome while the guest runs on such a cable; the runner keeps a
    /// copy, so frames wait in the cable while no agent is there.
    Cable,
    /// QEMU runs. No descriptors.
    Started(Started),
    /// Two descriptors: connected QMP sockets with the greeting unread. The first is for input and control, the
    /// second for refresh pokes, so that a slow poke never delays a key.
    Qmp,
    /// Two descriptors: the D-Bus client connection (server `bus_guid`) on which `RegisterListener` has been called,
    /// and the listener's connection. Both past `BEGIN`, nothing read after it.
    Display { bus_guid: String, listener_guid: String },
    /// One descriptor: the audio-out listener's connection, past `BEGIN`.
    Audio { listener_guid: String },
    /// QEMU ended. No descriptors.
    Exited(Exited),
    /// How is my port, and is my picture live? Answered at once by [`FromAgent::Port`]; for the runner's own readiness. At any
    /// time after the Welcome; the agent answers each one, so a runner asks when it is asked, or once a second. No descriptors.
    AskPort,
    /// What somebody should know of the guest's disk; replaces what was said before, and is said again after each Welcome.
    /// No descriptors.
    Storage(Storage),
    /// Answer to [`FromAgent::Order`]: taken, or why not. What follows is seen by `Exited` and a new `Hello`. No descriptors.
    Took {
        id: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
    },
}

/// The state of what a guest writes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// The guest stands still (or cannot start) until this is put right.
    pub held: bool,
    /// What is wrong, one sentence with the remedy; absent when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: u32,
    pub instance: String,
    pub runner_pid: u32,
    /// QEMU already runs on a tap from an earlier connection: send no new one.
    pub has_port: bool,
    /// `http://…/healthz` of this runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_url: Option<String>,
    /// The kinds of port that this runner can plug a guest into, as [`PortKind::as_str`] says them. Empty, as from a runner of
    /// before there were others: taps only. Words that an agent does not know are of a newer runner, and ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
}

impl Hello {
    /// Whether this runner can plug its guest into a port of that kind.
    pub fn takes(&self, kind: PortKind) -> bool {
        kind == PortKind::Tap || self.ports.iter().any(|known| known == kind.as_str())
    }
}

/// What a guest's card is plugged into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortKind {
    /// A tap that comes with the Welcome.
    #[default]
    Tap,
    /// A macvtap over the node's card that comes with the Welcome, and after it a descriptor that says that it is held: the runner
    /// keeps that open for as long as QEMU runs on the other.
    Macvtap,
    /// A pair of sockets that the runner makes; the agent's end goes to it by [`FromRunner::Cable`].
    Socket,
    /// QEMU's own network, in which nobody else is.
    User,
}

impl PortKind {
    pub const ALL: [Self; 4] = [Self::Tap, Self::Macvtap, Self::Socket, Self::User];

    /// As [`Hello::ports`] and the messages say it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Macvtap => "macvtap",
            Self::Socket => "socket",
            Self::User => "user",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    fn is_tap(&self) -> bool {
        *self == Self::Tap
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub qemu_pid: u32,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// What QEMU itself says that the guest's card is on: `tap`, `dgram` or `user`. Absent when it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netdev: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The last lines QEMU wrote to its standard error, at most 1 KiB.
    pub stderr_tail: String,
    /// The runner was asked to stop, so this is not a failure.
    pub asked: bool,
    /// The runner starts the guest again by itself, at once: it carries out an order.
    #[serde(default)]
    pub comes_back: bool,
}

/// From the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum FromAgent {
    /// Answer to `Hello`. Unless `has_port` was said: the tap if the port is one, for a macvtap its hold, and then, if `kvm`, an open
    /// `/dev/kvm`.
    Welcome(Welcome),
    /// Answer to `Hello`: not now. The runner waits a second and asks again.
    Refused { reason: String, remedy: String },
    /// Please do the display handshake (again).
    Display,
    /// Please do the audio handshake (again).
    Audio,
    /// Answer to `AskPort`: how it is now, as far as the agent knows.
    Port(Port),
    /// Please do this with the guest; answered by [`FromRunner::Took`] with the same `id`.
    Order { id: u64, order: Order },
}

/// What may be done with a guest beyond its own buttons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Switch it off in order and start it again, on the same disk.
    Restart,
    /// Likewise, on a fresh disk: what the guest wrote since it was made from the base is set aside.
    Reset,
}

/// What an agent knows of an instance, for the runner's readiness: ready is `up && picture_live`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The tap is plugged into the LAN and somebody (QEMU) holds it: the kernel's carrier, read at most a second ago.
    pub up: bool,
    /// The picture can be streamed: runner, monitors and display stand, and a first picture came.
    pub picture_live: bool,
    /// The instance's state in one word: `live`, `starting`, `recovering`, `failed`, `stopped`.
    pub state: String,
    /// Why it is not up or not live, one sentence with the remedy; absent when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub lan: String,
    pub seat: u8,
    pub mac: String,
    pub ip: Ipv4Addr,
    pub host_name: String,
    /// An open `/dev/kvm` comes with this message, and KVM was proven to run guests on this node.
    pub kvm: bool,
    /// Absent: a tap, which is all that earlier agents had.
    #[serde(default, skip_serializing_if = "PortKind::is_tap")]
    pub port: PortKind,
    /// The LAN's subnet, such as `10.98.0.0/24`, for a port of QEMU's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_form_on_the_wire() {
        let hello = FromRunner::Hello(Hello {
            version: 1,
            instance: "instance-0".into(),
            runner_pid: 7,
            has_port: false,
            health_url: None,
            ports: Vec::new(),
        });
        let text = serde_json::to_string(&hello).unwrap();
        assert_eq!(text, r#"{"kind":"hello","version":1,"instance":"instance-0","runner_pid":7,"has_port":false}"#);
        assert_eq!(serde_json::from_str::<FromRunner>(&text).unwrap(), hello);
        assert_eq!(serde_json::to_string(&FromAgent::Display).unwrap(), r#"{"kind":"display"}"#);
        assert_eq!(serde_json::to_string(&FromRunner::AskPort).unwrap(), r#"{"kind":"ask-port"}"#);
        let order = FromAgent::Order { id: 1, order: Order::Reset };
        assert_eq!(serde_json::to_string(&order).unwrap(), r#"{"kind":"order","id":1,"order":"reset"}"#);
        assert_eq!(serde_json::to_string(&FromRunner::Cable).unwrap(), r#"{"kind":"cable"}"#);
        // From an agent and a runner of before there were other ports than taps.
        let text = r#"{"lan":"party","seat":3,"mac":"02:4c:00:10:68:04","ip":"10.98.0.4","host_name":"x","kvm":false}"#;
        let welcome: Welcome = serde_json::from_str(text).unwrap();
        assert_eq!((welcome.port, &welcome.subnet), (PortKind::Tap, &None));
        assert_eq!(serde_json::to_string(&welcome).unwrap(), text);
        let FromRunner::Hello(old) = hello else { panic!("{hello:?}") };
        assert_eq!(PortKind::ALL.map(|kind| old.takes(kind)), [true, false, false, false]);
        let new = Hello { ports: vec!["socket".into(), "pigeon".into()], ..old };
        assert_eq!(PortKind::ALL.map(|kind| new.takes(kind)), [true, false, true, false]);
        // From a runner of before there were orders.
        let text = r#"{"kind":"exited","stderr_tail":"","asked":true}"#;
        let FromRunner::Exited(exited) = serde_json::from_str(text).unwrap() else { panic!("{text}") };
        assert!(exited.asked && !exited.comes_back);
        let port = FromAgent::Port(Port { up: true, picture_live: false, state: "starting".into(), detail: None });
        let text = serde_json::to_string(&port).unwrap();
        assert_eq!(text, r#"{"kind":"port","up":true,"picture_live":false,"state":"starting"}"#);
        assert_eq!(serde_json::from_str::<FromAgent>(&text).unwrap(), port);
    }
}
