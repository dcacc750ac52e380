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
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub qemu_pid: u32,
    /// `kvm` or `tcg`.
    pub accelerator: String,
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
}

/// From the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum FromAgent {
    /// Answer to `Hello`. Unless `has_port` was said: first descriptor the tap, and if `kvm`, second an open `/dev/kvm`.
    Welcome(Welcome),
    /// Answer to `Hello`: not now. The runner waits a second and asks again.
    Refused { reason: String, remedy: String },
    /// Please do the display handshake (again).
    Display,
    /// Please do the audio handshake (again).
    Audio,
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
        });
        let text = serde_json::to_string(&hello).unwrap();
        assert_eq!(text, r#"{"kind":"hello","version":1,"instance":"instance-0","runner_pid":7,"has_port":false}"#);
        assert_eq!(serde_json::from_str::<FromRunner>(&text).unwrap(), hello);
        assert_eq!(serde_json::to_string(&FromAgent::Display).unwrap(), r#"{"kind":"display"}"#);
    }
}
