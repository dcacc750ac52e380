//! All streams of a node, and of one instance.
use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::{InstanceId, InstanceState};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    AudioTap, Injection, OfferError, Role, Screen, SessionId, StreamConfig, StreamError, Tier,
    audio::SoundEncoder,
    encoder::Encoders,
    input::desk::Desk,
    metrics::Metrics,
    session::{Meter, PortPool, Session, StreamLag, Studio},
};

/// Viewers of one instance. Each costs its own encryption and a port, not an encode.
pub const VIEWERS_MAX: usize = 32;

/// An accepted session.
#[derive(Debug, Clone)]
pub struct Answer {
    pub session: SessionId,
    pub sdp: String,
    /// UDP ports of which any session here may get one: what has to be open for all of them to connect.
    pub ports: RangeInclusive<u16>,
}

/// Starts GStreamer and makes one of each element that is used, which loads its plug-in with all its libraries.
pub fn check_encoders() -> Result<(), StreamError> {
    gstreamer::init().map_err(StreamError::GStreamer)?;
    for (element, package) in [
        ("x264enc", "gstreamer1.0-plugins-ugly"),
        ("opusenc", "gstreamer1.0-plugins-base"),
        ("audioconvert", "gstreamer1.0-plugins-base"),
        ("audioresample", "gstreamer1.0-plugins-base"),
        ("capsfilter", "libgstreamer1.0-0"),
    ] {
        gstreamer::ElementFactory::make(element).build().map_err(|_| StreamError::NoElement(element, package))?;
    }
    Ok(())
}

/// Everything the instances of one node share: media ports, metrics, GStreamer.
#[derive(Debug)]
pub struct Streams {
    ports: Arc<PortPool>,
    metrics: Metrics,
}

impl Streams {
    /// Starts GStreamer and checks that its encoders are there, so that a missing package is named now and not when
    /// the first viewer comes.
    pub fn new(config: StreamConfig, registry: &prometheus::Registry) -> Result<Self, StreamError> {
        check_encoders()?;
        Ok(Self { ports: PortPool::new(config), metrics: Metrics::register(registry)? })
    }

    /// The streams of one instance. Its screen and tap may be attached to QEMU before or after, and again after a crash.
    pub fn instance(
        &self,
        id: InstanceId,
        screen: Arc<Screen>,
        audio: Arc<AudioTap>,
        injections: mpsc::Sender<Injection>,
    ) -> Arc<InstanceStream> {
        let studio = Studio {
            encoders: Arc::new(Encoders::new(id.clone(), Arc::clone(&screen), self.metrics.clone())),
            sound: SoundEncoder::new(id.clone(), audio, self.metrics.clone()),
            desk: Desk::new(injections, Arc::clone(&screen)),
            state: watch::Sender::new(InstanceState::Starting),
            metrics: self.metrics.clone(),
            instance: id,
            screen,
        };
        Arc::new(InstanceStream {
            studio: Arc::new(studio),
            ports: Arc::clone(&self.ports),
            sessions: Arc::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }
}

/// The sessions of one instance. Dropping it ends them.
#[derive(Debug)]
pub struct InstanceStream {
    studio: Arc<Studio>,
    ports: Arc<PortPool>,
    sessions: Arc<Sessions>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Sessions and those on their way: a place is taken before the long part of a negotiation.
#[derive(Debug, Default)]
struct Sessions {
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    taken: usize,
    running: BTreeMap<SessionId, Running>,
}

#[derive(Debug, Clone)]
struct Running {
    stop: CancellationToken,
    meter: Arc<Meter>,
    /// Cancelled when it has ended.
    ended: CancellationToken,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One viewer's place; given back when dropped.
struct Place {
    sessions: Arc<Sessions>,
    /// Who took it, once there is an answer.
    session: Option<SessionId>,
    gauge: prometheus::IntGauge,
}

impl Place {
    fn take(sessions: &Arc<Sessions>, gauge: prometheus::IntGauge) -> Result<Self, OfferError> {
        let mut places = sessions.lock();
        if places.taken >= VIEWERS_MAX {
            return Err(OfferError::Busy { limit: VIEWERS_MAX });
        }
        places.taken += 1;
        drop(places);
        gauge.inc();
        Ok(Self { sessions: Arc::clone(sessions), session: None, gauge })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.sessions.lock();
        places.taken -= 1;
        if let Some(session) = &self.session {
            places.running.remove(session);
        }
        drop(places);
        self.gauge.dec();
    }
}

impl InstanceStream {
    /// Answers a browser's offer. The session lives until the browser says bye, [`Self::close`], or it is gone for some
    /// seconds. Call it inside a tokio runtime that outlives the session.
    pub async fn offer(&self, sdp: &str, tier: Tier, role: Role) -> Result<Answer, OfferError> {
        let answer = self.answer(sdp, tier, role).await;
        let outcome = answer.as_ref().map_or_else(OfferError::code, |_| "answered");
        self.studio.metrics.offers.with_label_values(&[outcome]).inc();
        answer
    }

    async fn answer(&self, sdp: &str, tier: Tier, role: Role) -> Result<Answer, OfferError> {
        if self.stop.is_cancelled() {
            return Err(OfferError::Closed);
        }
        let instance = self.studio.instance.as_str();
        let mut place = Place::take(&self.sessions, self.studio.metrics.sessions.with_label_values(&[instance]))?;
        let stop = self.stop.child_token();
        let (session, sdp) =
            Session::negotiate(Arc::clone(&self.studio), &self.ports, sdp, tier, role, stop.clone()).await?;
        let id = session.id().clone();
        let running = Running { stop, meter: session.meter(), ended: CancellationToken::new() };
        self.sessions.lock().running.insert(id.clone(), running.clone());
        place.session = Some(id.clone());
        self.tasks.spawn(async move {
            // Also if it panics: whoever waits for its end must not wait for ever.
            let _ended = running.ended.drop_guard();
            let _place = place;
            session.run().await;
        });
        Ok(Answer { session: id, sdp, ports: self.ports.range() })
    }

    /// Ends one session, and waits for it; false if there is none of that name.
    pub async fn close(&self, session: &SessionId) -> bool {
        // Removed at once, so that a second DELETE finds nothing.
        let Some(running) = self.sessions.lock().running.remove(session) else { return false };
        running.stop.cancel();
        running.ended.cancelled().await;
        true
    }

    /// Ends all sessions, and waits for it. New offers are refused from then on.
    pub async fn close_all(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.studio.metrics.forget(self.studio.instance.as_str());
    }

    /// Sessions that take the pictures of `tier` now. A session that is paused or still connecting takes none.
    pub fn watching(&self, tier: Tier) -> usize {
        self.studio.encoders.watching(tier)
    }

    /// Sessions that are connected or connecting.
    pub fn viewers(&self) -> usize {
        self.sessions.lock().taken
    }

    /// Who holds the controls.
    pub fn lease(&self) -> Option<SessionId> {
        self.studio.desk.holder()
    }

    /// What the stream adds to the lag of who plays: of the session that has the controls, and of no onlooker. `None`: nobody
    /// has them, or nothing was measured yet.
    pub fn lag(&self) -> Option<StreamLag> {
        let holder = self.lease()?;
        let meter = Arc::clone(&self.sessions.lock().running.get(&holder)?.meter);
        meter.lag()
    }

    /// The screen that it shows.
    pub fn screen(&self) -> &Arc<Screen> {
        &self.studio.screen
    }

    /// Tells all viewers the state of the instance; anything held is released when it is not `live`.
    pub fn set_state(&self, state: InstanceState) {
        let changed = self.studio.state.send_if_modified(|old| std::mem::replace(old, state) != state);
        if changed && state != InstanceState::Live {
            self.studio.desk.release_all();
        }
    }
}

impl Drop for InstanceStream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
