//! QEMU's D-Bus display, as a listener.
use std::{os::fd::OwnedFd, sync::Arc};

use crate::{AttachError, Screen};

/// A standing display connection; dropping it ends it.
#[derive(Debug)]
pub struct DisplayConnection {
    bus: zbus::Connection,
}

impl DisplayConnection {
    /// Resolves when QEMU's end of either connection is gone.
    pub async fn closed(&self) {
        let _ = &self.bus;
    }
}

/// Serves the listener on connections that are past `BEGIN`; `RegisterListener` has been called on `bus`.
pub async fn attach(
    bus: OwnedFd,
    bus_guid: &str,
    listener: OwnedFd,
    listener_guid: &str,
    screen: Arc<Screen>,
) -> Result<DisplayConnection, AttachError> {
    let _ = (bus, bus_guid, listener, listener_guid, screen);
    Err(AttachError::DBus { what: "display", source: zbus::Error::InvalidGUID })
}
