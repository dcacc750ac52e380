//! One peer-to-peer D-Bus connection on which QEMU calls us, served in order.
//!
//! This is no `zbus::interface`: that one runs each call in a task of its own, so two updates of a picture could swap,
//! and it copies pixels once more. Here one task takes one message at a time and borrows the pixels from it.
use std::os::fd::{AsFd, OwnedFd};

use futures_util::StreamExt;
use zbus::{
    Connection, Message, MessageStream,
    message::{Flags, Header, Type},
    zvariant::Value,
};

use crate::AttachError;

/// What QEMU calls. Errors go back as D-Bus errors; QEMU prints them and goes on.
pub(crate) trait Serve: Send + 'static {
    /// For logs.
    const WHAT: &'static str;
    /// The value of the property `Interfaces`: optional interfaces that QEMU may use.
    const INTERFACES: &'static [&'static str];

    fn call(&mut self, interface: &str, member: &str, message: &Message) -> Result<(), CallError>;

    /// The connection has ended.
    fn gone(&mut self) {}
}

/// Why a call was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no such method")]
    Unknown,
    #[error("the arguments cannot be read: {0}")]
    Arguments(#[from] zbus::Error),
    #[error("{0}")]
    Refused(String),
}

/// Takes over a socket that is past `BEGIN`, and its descriptor passing.
pub(crate) async fn connect(
    what: &'static str,
    socket: OwnedFd,
    guid: &str,
) -> Result<(Connection, MessageStream), AttachError> {
    let dbus = |source| AttachError::DBus { what, source };
    let io = |source| AttachError::Socket { what, source };
    // `UnixStream` answers `ENOTSOCK` and such only later, in words that name nothing.
    nix::sys::socket::getsockname::<nix::sys::socket::UnixAddr>(std::os::fd::AsRawFd::as_raw_fd(&socket.as_fd()))
        .map_err(|errno| io(errno.into()))?;
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true).map_err(io)?;
    let socket = tokio::net::UnixStream::from_std(socket).map_err(io)?;
    let stream = zbus::connection::Builder::authenticated_socket(socket, guid)
        .map_err(dbus)?
        .p2p()
        .build_message_stream()
        .await
        .map_err(dbus)?;
    Ok((Connection::from(&stream), stream))
}

/// Serves until the connection ends. Message after message: the order of a picture's updates is its meaning.
pub(crate) async fn serve<S: Serve>(connection: Connection, mut stream: MessageStream, mut service: S) {
    let mut refused = 0u64;
    while let Some(message) = stream.next().await {
        let Ok(message) = message else { break };
        if message.message_type() != Type::MethodCall {
            continue;
        }
        let header = message.header();
        let answer = answer(&mut service, &header, &message);
        let unwanted = header.primary().flags().contains(Flags::NoReplyExpected);
        let sent = match answer {
            Ok(_) if unwanted => Ok(()),
            Ok(Reply::Empty) => connection.reply(&header, &()).await,
            Ok(Reply::Property) => connection.reply(&header, &(Value::from(S::INTERFACES),)).await,
            Ok(Reply::Properties) => {
                let all = std::collections::HashMap::from([("Interfaces", Value::from(S::INTERFACES))]);
                connection.reply(&header, &all).await
            }
            Err(error) => {
                // Powers of two: enough to notice, and a guest in an odd mode does not flood the log.
                refused += 1;
                if refused.is_power_of_two() {
                    tracing::warn!(what = S::WHAT, member = ?header.member(), %error, refused, "call from QEMU refused");
                }
                let name = zbus::names::ErrorName::from_static_str_unchecked("org.freedesktop.DBus.Error.InvalidArgs");
                connection.reply_error(&header, name, &error.to_string()).await
            }
        };
        if sent.is_err() {
            break;
        }
    }
    service.gone();
    tracing::info!(what = S::WHAT, "connection from QEMU ended");
}

enum Reply {
    Empty,
    Property,
    Properties,
}

fn answer<S: Serve>(service: &mut S, header: &Header<'_>, message: &Message) -> Result<Reply, CallError> {
    let interface = header.interface().map_or("", |i| i.as_str());
    let member = header.member().map_or("", |m| m.as_str());
    match (interface, member) {
        ("org.freedesktop.DBus.Properties", "GetAll") => Ok(Reply::Properties),
        ("org.freedesktop.DBus.Properties", "Get") => Ok(Reply::Property),
        ("org.freedesktop.DBus.Peer", "Ping") => Ok(Reply::Empty),
        _ => service.call(interface, member, message).map(|()| Reply::Empty),
    }
}
