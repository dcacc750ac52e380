//! What can go wrong, in words that name the thing and the remedy.
use std::{net::IpAddr, ops::RangeInclusive};

use crate::SessionId;

/// The streams of this node could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("GStreamer did not start; install gstreamer1.0-plugins-base and gstreamer1.0-plugins-ugly")]
    GStreamer(#[source] gstreamer::glib::Error),
    #[error("GStreamer has no element `{0}`; install the Debian package {1}")]
    NoElement(&'static str, &'static str),
    #[error("a metric could not be registered; are there two `Streams` on one registry?")]
    Metrics(#[from] prometheus::Error),
}

/// Why an offer was not answered.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// The client's fault: status 400.
    #[error(
        "the SDP offer cannot be used: {0}; send the `sdp` of an RTCPeerConnection offer that receives one H.264 video"
    )]
    Sdp(String),
    /// Status 503, try later: this instance has as many viewers as it may have.
    #[error("this instance already has {limit} viewers; close one of them")]
    Busy { limit: usize },
    /// Status 503: the node has no free media port.
    #[error("every media port of {ip}:{}-{} is in use; close a viewer or widen --media-ports", ports.start(), ports.end())]
    NoPort { ip: IpAddr, ports: RangeInclusive<u16> },
    /// Status 500: wrong address in the configuration, mostly.
    #[error("media address {ip} cannot be bound; is --media-ip an address of this node?")]
    MediaIp {
        ip: IpAddr,
        #[source]
        source: std::io::Error,
    },
    /// Status 503: the instance is being taken down.
    #[error("the instance is going away")]
    Closed,
    /// Status 500: a defect of ours or of the WebRTC stack.
    #[error("the WebRTC session {session} could not be made: {reason}")]
    Internal { session: SessionId, reason: String },
}

impl OfferError {
    /// Stable word for programs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Sdp(_) => "bad-offer",
            Self::Busy { .. } => "too-many-viewers",
            Self::NoPort { .. } => "no-media-port",
            Self::MediaIp { .. } => "media-address",
            Self::Closed => "instance-gone",
            Self::Internal { .. } => "internal",
        }
    }
}

/// A display or audio connection from QEMU could not be used.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("the socket of the {what} connection cannot be used")]
    Socket {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("the D-Bus {what} connection broke while it was set up; ask the runner for a new handshake")]
    DBus {
        what: &'static str,
        #[source]
        source: zbus::Error,
    },
}
