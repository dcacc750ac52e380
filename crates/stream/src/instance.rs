//! All streams of a node, and of one instance.
use std::sync::Arc;

use model::{InstanceId, InstanceState};
use tokio::sync::mpsc;

use crate::{AudioTap, Injection, OfferError, Role, Screen, SessionId, StreamConfig, StreamError, Tier};

/// An accepted session.
#[derive(Debug, Clone)]
pub struct Answer {
    pub session: SessionId,
    pub sdp: String,
}

/// Everything the instances of one node share: media ports, metrics, GStreamer.
#[derive(Debug)]
pub struct Streams {
    config: StreamConfig,
}

impl Streams {
    pub fn new(config: StreamConfig, registry: &prometheus::Registry) -> Result<Self, StreamError> {
        let _ = registry;
        Ok(Self { config })
    }

    /// The streams of one instance. Its screen and tap may be attached to QEMU before or after, and again after a crash.
    pub fn instance(
        &self,
        id: InstanceId,
        screen: Arc<Screen>,
        audio: Arc<AudioTap>,
        injections: mpsc::Sender<Injection>,
    ) -> Arc<InstanceStream> {
        let _ = &self.config;
        Arc::new(InstanceStream { id, screen, audio, injections })
    }
}

/// The sessions of one instance.
#[derive(Debug)]
pub struct InstanceStream {
    id: InstanceId,
    screen: Arc<Screen>,
    audio: Arc<AudioTap>,
    injections: mpsc::Sender<Injection>,
}

impl InstanceStream {
    /// Answers a browser's offer. The session lives until the browser says bye, [`Self::close`], or it is gone for some seconds.
    pub async fn offer(&self, sdp: &str, tier: Tier, role: Role) -> Result<Answer, OfferError> {
        let _ = (sdp, tier, role, &self.id, &self.screen, &self.audio, &self.injections);
        Err(OfferError::Closed)
    }

    /// Ends one session; false if there is none of that name.
    pub async fn close(&self, session: &SessionId) -> bool {
        let _ = session;
        false
    }

    /// Ends all sessions.
    pub async fn close_all(&self) {}

    /// Sessions that are connected or connecting.
    pub fn viewers(&self) -> usize {
        0
    }

    /// Who holds the controls.
    pub fn lease(&self) -> Option<SessionId> {
        None
    }

    /// Tells all viewers the state of the instance; anything held is released when it is not `live`.
    pub fn set_state(&self, state: InstanceState) {
        let _ = state;
    }
}
