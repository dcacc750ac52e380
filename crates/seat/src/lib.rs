//! The protocol between an unprivileged guest-runner and its node's agent.
//!
//! One `SOCK_SEQPACKET` Unix socket per seat, one JSON message per packet, file descriptors beside it (`SCM_RIGHTS`):
//! no framing, and a message and its descriptors cannot be torn apart. The agent listens, the runner connects, and
//! connects again whenever the agent was away; the guest never notices.
//!
//! ```text
//! runner                                   agent
//!   | Hello {instance, has_port, …}          |   claims; the agent checks them against its snapshot
//!   | -------------------------------------> |
//!   | <------------------------------------- |   Welcome {identity…} [+ fd tap] [+ fd /dev/kvm]   (has_port: no fds)
//!   | Started {qemu_pid, …}                  |   or Refused {reason, remedy}: the runner waits and asks again
//!   | -------------------------------------> |
//!   | Cable + fd of the guest's cable        |   where the port is a socket: to each agent that comes
//!   | -------------------------------------> |
//!   | Qmp + fd input + fd poke               |   two connected QMP monitors, greeting unread
//!   | Display {guids} + fd bus + fd listener |   authenticated D-Bus connections (docs/adr/0006)
//!   | Audio {guid} + fd listener             |
//!   | -------------------------------------> |
//!   | <------------------------------------- |   Display / Audio again at any time: do the handshake once more
//!   | Exited {…}                             |   QEMU ended
//!   | AskPort -----------------------------> |   at any time: am I on the LAN, is my picture live?
//!   | <------------------------------------- |   Port {up, picture_live, …}
//!   | Storage {…} -------------------------> |   the disk is full, or another notice
//!   | <------------------------------------- |   Order {restart | reset}
//!   | Took {…}, Exited {comes_back, …} ----> |   then the connection ends, and a new Hello comes
//! ```
#![forbid(unsafe_code)]

mod message;
mod socket;

pub use message::{
    Exited, FromAgent, FromRunner, Hello, Order, PROTOCOL_VERSION, Port, PortKind, Started, Storage, Welcome,
};
pub use socket::{MESSAGE_BYTES_MAX, MESSAGE_FDS_MAX, SeatListener, SeatSocket, SocketError};
