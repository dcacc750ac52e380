//! One WebRTC session, from its offer to its end.
//!
//! ```text
//!  offer -> negotiate -> connecting --10 s--> closed
//!                           | connected                       bye, DELETE, failed, agent stuck,
//!                           v                                 disconnected for 5 s
//!                        streaming (pump, data channels) --a task of it ended---------------------> closed
//! ```
//! **Invariant.** However it ends: held keys come up, the lease is free, the port is back in the pool, the peer
//! connection is closed.
mod channel;
mod meter;
mod peer;
mod ports;
mod pump;
mod trace;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{InstanceId, InstanceState};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use webrtc::{data_channel::DataChannel, peer_connection::RTCPeerConnectionState};

pub use self::meter::StreamLag;
use self::{
    channel::{Channels, Command},
    peer::{Negotiation, Peer, PeerEvents, Tracks},
    pump::Pump,
    trace::Tracer,
};
pub(crate) use self::{meter::Meter, ports::PortPool};
use crate::{
    OfferError, Role, Screen, SessionId, Tier,
    audio::SoundEncoder,
    encoder::Encoders,
    input::{
        desk::{Desk, Player},
        message::ToBrowser,
    },
    metrics::Metrics,
};

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const DISCONNECTED_FOR: Duration = Duration::from_secs(5);
/// What waits for the data channel; trace reports and statistics beyond it are dropped.
const TO_BROWSER_MAX: usize = 64;
/// How long the last message may take to leave.
const FAREWELL: Duration = Duration::from_millis(100);

/// What all sessions of an instance share.
#[derive(Debug)]
pub(crate) struct Studio {
    pub(crate) instance: InstanceId,
    pub(crate) screen: Arc<Screen>,
    pub(crate) encoders: Arc<Encoders>,
    pub(crate) sound: SoundEncoder,
    pub(crate) desk: Arc<Desk>,
    pub(crate) state: watch::Sender<InstanceState>,
    pub(crate) metrics: Metrics,
}

/// A session that has answered its offer and must now be run.
pub(crate) struct Session {
    studio: Arc<Studio>,
    id: SessionId,
    peer: Peer,
    events: PeerEvents,
    tier: Tier,
    player: Arc<Player>,
    meter: Arc<Meter>,
    stop: CancellationToken,
}

impl Session {
    /// Answers an offer. The caller runs what comes back.
    pub(crate) async fn negotiate(
        studio: Arc<Studio>,
        ports: &Arc<PortPool>,
        sdp: &str,
        tier: Tier,
        role: Role,
        stop: CancellationToken,
    ) -> Result<(Self, String), OfferError> {
        let id = SessionId::random();
        let internal = |reason: String| OfferError::Internal { session: id.clone(), reason };
        let shape = peer::shape(sdp).map_err(OfferError::Sdp)?;
        let port = ports.lease()?;
        let sdp = sdp.to_owned();
        let meter = Arc::new(Meter::default());
        let watched = Arc::clone(&meter);
        // A task of its own, because the stack parses a stranger's text: if that panics, only the task dies.
        let negotiation = tokio::spawn(async move { Box::pin(Peer::negotiate(&sdp, shape, port, watched)).await });
        let (peer, events, answer) = match negotiation.await {
            Ok(Ok(negotiated)) => negotiated,
            Ok(Err(Negotiation::Offer(error))) => return Err(OfferError::Sdp(error.to_string())),
            Ok(Err(error)) => return Err(internal(error.to_string())),
            Err(panic) => return Err(OfferError::Sdp(format!("the WebRTC stack could not digest it ({panic})"))),
        };
        let player = Player::new(&studio.desk, id.clone(), role);
        Ok((Self { studio, id, peer, events, tier, player, meter, stop }, answer))
    }

    pub(crate) const fn id(&self) -> &SessionId {
        &self.id
    }

    /// What it adds to its player's lag.
    pub(crate) fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// Runs it to its end.
    pub(crate) async fn run(mut self) {
        let why = match connected(&mut self.events.state, &self.stop).await {
            Ok(()) => self.perform().await,
            Err(why) => why,
        };
        self.player.give();
        self.peer.connection.close().await;
        tracing::info!(instance = %self.studio.instance, session = %self.id, why, "viewer gone");
    }

    /// Streams until something ends it; says what.
    async fn perform(&mut self) -> &'static str {
        let studio = &self.studio;
        let Some(Tracks { video, sound, target }) = self.peer.tracks.take() else { return "streamed already" };
        tracing::info!(instance = %studio.instance, session = %self.id, tier = %self.tier, "viewer connected");
        let (tier, tier_watch) = watch::channel(Some(self.tier));
        let (to_browser, outbox) = mpsc::channel(TO_BROWSER_MAX);
        let (commands, inbox) = mpsc::channel(TO_BROWSER_MAX);
        let (key_frame, tracer) = (Arc::new(Notify::new()), Arc::new(Mutex::new(Tracer::default())));
        let mut tasks = JoinSet::new();
        let (feedback, lost) = (video.feedback(), Arc::clone(&key_frame));
        tasks.spawn(async move {
            while feedback.picture_lost().await.is_some() {
                lost.notify_one();
            }
        });
        let pump = Pump {
            instance: studio.instance.to_string(),
            encoders: Arc::clone(&studio.encoders),
            video,
            sound: sound.map(|track| (track, studio.sound.subscribe())),
            target,
            tier: tier_watch,
            key_frame: Arc::clone(&key_frame),
            tracer: Arc::clone(&tracer),
            to_browser,
            meter: Arc::clone(&self.meter),
            dropped: studio.metrics.dropped.clone(),
        };
        tasks.spawn(pump.run());
        let (metrics, instance) = (studio.metrics.clone(), studio.instance.to_string());
        let channels = Channels::new(Arc::clone(&self.player), tracer, commands, metrics, instance);
        let stage = Stage { studio, id: &self.id, player: &self.player, tier, key_frame, channels, keys: None };
        // Its tasks end with the set.
        stage.direct(&mut self.events, inbox, outbox, &mut tasks, &self.stop).await
    }
}

/// Waits for DTLS; the reason why it did not come otherwise.
async fn connected(
    state: &mut watch::Receiver<RTCPeerConnectionState>,
    stop: &CancellationToken,
) -> Result<(), &'static str> {
    let ready = state.wait_for(|s| {
        matches!(s, RTCPeerConnectionState::Connected | RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed)
    });
    tokio::select! {
        () = stop.cancelled() => Err("closed while connecting"),
        state = tokio::time::timeout(CONNECT_WITHIN, ready) => match state {
            Ok(Ok(state)) if *state == RTCPeerConnectionState::Connected => Ok(()),
            Ok(_) => Err("could not connect"),
            Err(_) => Err("did not connect within 10 s"),
        },
    }
}

/// The talking part of a connected session.
struct Stage<'a> {
    studio: &'a Studio,
    id: &'a SessionId,
    player: &'a Player,
    tier: watch::Sender<Option<Tier>>,
    key_frame: Arc<Notify>,
    channels: Channels,
    keys: Option<Arc<dyn DataChannel>>,
}

impl Stage<'_> {
    /// Returns why the session ended.
    async fn direct(
        mut self,
        events: &mut PeerEvents,
        mut inbox: mpsc::Receiver<Command>,
        mut outbox: mpsc::Receiver<ToBrowser>,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> &'static str {
        let mut lease = self.studio.desk.lease_changes();
        let mut state = self.studio.state.subscribe();
        let mut size = self.studio.screen.size();
        let mut lost_at: Option<tokio::time::Instant> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.farewell("this session was closed").await;
                    return "closed";
                }
                () = until(lost_at) => return "disconnected",
                // Without pictures, or deaf to their loss, a session would only look connected.
                why = first_ended(tasks) => {
                    self.farewell(why).await;
                    return why;
                }
                changed = events.state.changed() => {
                    let now = if changed.is_ok() { *events.state.borrow_and_update() } else { RTCPeerConnectionState::Closed };
                    match now {
                        RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed => return "connection closed",
                        RTCPeerConnectionState::Disconnected => {
                            lost_at.get_or_insert_with(|| tokio::time::Instant::now() + DISCONNECTED_FOR);
                        }
                        _ => lost_at = None,
                    }
                }
                Some(channel) = events.channels.recv() => self.channels.listen(channel),
                Some(command) = inbox.recv() => match command {
                    Command::Opened(channel) => {
                        self.keys = Some(channel);
                        // Seen before it is said: a lease taken meanwhile is a change that must be told.
                        lease.mark_unchanged();
                        let (size, state) = (*size.borrow_and_update(), *state.borrow_and_update());
                        self.hello(size, state).await;
                    }
                    Command::Tier(tier) => {
                        self.tier.send_if_modified(|old| std::mem::replace(old, tier) != tier);
                    }
                    Command::KeyFrame => self.key_frame.notify_one(),
                    Command::Say(message) => self.say(&message).await,
                    Command::End(why) => {
                        self.farewell(why).await;
                        return why;
                    }
                },
                Some(message) = outbox.recv() => self.say(&message).await,
                Ok(()) = lease.changed() => self.say(&ToBrowser::Lease { lease: self.player.lease_word() }).await,
                Ok(()) = state.changed() => {
                    let state = state.borrow_and_update().as_str();
                    self.say(&ToBrowser::State { state }).await;
                }
                Ok(()) = size.changed() => {
                    let now = *size.borrow_and_update();
                    if let Some(s) = now {
                        self.say(&ToBrowser::Screen { width: s.width, height: s.height }).await;
                    }
                }
            }
        }
    }

    async fn hello(&self, size: Option<crate::Size>, state: InstanceState) {
        let (width, height) = size.map_or((0, 0), |s| (s.width, s.height));
        let session = self.id.to_string();
        self.say(&ToBrowser::Hello { session, lease: self.player.lease_word(), width, height }).await;
        self.say(&ToBrowser::State { state: state.as_str() }).await;
    }

    async fn say(&self, message: &ToBrowser) {
        if let Some(keys) = &self.keys {
            // Full or closed: what the browser does not read is not kept. If it is gone, the connection says so.
            keys.try_send_text(&message.text()).await.ok();
        }
    }

    async fn farewell(&self, why: &str) {
        self.say(&ToBrowser::Bye { reason: why.to_owned() }).await;
        tokio::time::sleep(FAREWELL).await;
    }
}

/// Waits for the first task to end, as they do when the connection is closed or their encoder is gone.
async fn first_ended(tasks: &mut JoinSet<()>) -> &'static str {
    match tasks.join_next().await {
        Some(Err(error)) => {
            tracing::error!(%error, "a session's task failed");
            "the stream failed"
        }
        Some(Ok(())) | None => "the stream ended",
    }
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_task_that_ends_or_panics_ends_the_session() {
        let mut tasks = JoinSet::new();
        tasks.spawn(std::future::pending());
        tasks.spawn(async {});
        assert_eq!(first_ended(&mut tasks).await, "the stream ended");
        tasks.spawn(async { panic!("as a defect would") });
        assert_eq!(first_ended(&mut tasks).await, "the stream failed");
    }
}
