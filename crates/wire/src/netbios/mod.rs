//! NetBIOS over TCP/IP (RFC 1001, 1002; protocols.md 5): who is there, under which name, in which workgroup.
//!
//! | module | transport | format |
//! |---|---|---|
//! | [`ns`] | UDP 137 | name service: queries, registrations, node status |
//! | [`dgm`] | UDP 138 | datagrams to names, and the SMB mail slot inside |
//! | [`browser`] | mail slot `\MAILSLOT\BROWSE` | announcements and elections |
//! | [`ssn`] | TCP 139 | session service |
pub mod browser;
pub mod dgm;
mod name;
pub mod ns;
pub mod ssn;

pub use name::{Name, suffix};
