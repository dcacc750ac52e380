//! One encoder per (instance, tier), made for the first viewer and gone with the last.
//!
//! A thread of its own: it waits for damage, converts what changed, encodes, cuts the frame into RTP payloads once and
//! hands it to all viewers. Newest picture only and one frame in flight, so a starved machine shows fewer pictures but
//! no old ones. **Full queue:** a viewer that lags by [`QUEUE`] frames loses the oldest and continues with a key frame.
mod pacing;
mod pipeline;

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use model::InstanceId;
use rtc::rtp::{codec::h264::H264Payloader, packetizer::Payloader};
use tokio::sync::broadcast;

use self::{
    pacing::{Action, Pacer, Sight},
    pipeline::{Pipeline, PipelineError},
};
use crate::{Screen, Tier, metrics::Metrics, picture::View};

/// Frames that wait for a slow viewer.
const QUEUE: usize = 8;
/// Payload of one RTP packet: 1200 bytes fit every path, 12 are the header and some are extensions and the SRTP tag.
const PAYLOAD_MAX: usize = 1200 - 12;
/// The rest of what the congestion controller grants pays for headers, sound and repairs; at the full rate its pacer
/// would queue (980 ms measured).
const SHARE: f64 = 0.8;
/// How often the bitrate follows.
const FOLLOW: Duration = Duration::from_millis(200);

/// Bounds of an encoder's bitrate in kbit/s.
const fn kbps(tier: Tier) -> (u32, u32) {
    match tier {
        Tier::Thumb => (80, 300),
        Tier::Full => (250, 4000),
    }
}

/// One encoded frame, shared by all viewers.
#[derive(Debug)]
pub(crate) struct EncodedFrame {
    pub(crate) payloads: Vec<Bytes>,
    pub(crate) bytes: usize,
    pub(crate) key: bool,
    /// When its picture was taken: the RTP time stamp.
    pub(crate) taken: Instant,
    /// When the changes in it came from QEMU; empty for a repeat.
    pub(crate) damage: Vec<SystemTime>,
    pub(crate) encode_start: SystemTime,
    pub(crate) encode_end: SystemTime,
}

/// What a viewer's congestion controller grants, in bit/s; 0 until it has said something.
pub(crate) type Target = Arc<AtomicU64>;

/// A place among the viewers of one encoder. Dropping the last one ends the encoder.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) frames: Frames,
    encoder: Arc<Encoder>,
    target: Target,
}

impl Subscription {
    pub(crate) fn request_key_frame(&self) {
        self.encoder.shared.key_wanted.store(true, Ordering::Release);
        self.encoder.screen.wake();
    }

    pub(crate) fn tier(&self) -> Tier {
        self.encoder.tier
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.encoder.shared.targets().retain(|t| !Arc::ptr_eq(t, &self.target));
    }
}

/// The encoders of one instance.
#[derive(Debug)]
pub(crate) struct Encoders {
    instance: InstanceId,
    screen: Arc<Screen>,
    metrics: Metrics,
    running: Mutex<[Weak<Encoder>; 2]>,
}

impl Encoders {
    pub(crate) fn new(instance: InstanceId, screen: Arc<Screen>, metrics: Metrics) -> Self {
        Self { instance, screen, metrics, running: Mutex::default() }
    }

    /// Joins the encoder of `tier`, starting it if nobody watches yet. A key frame for the newcomer is on its way.
    pub(crate) fn subscribe(&self, tier: Tier, target: Target) -> Subscription {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut running[tier.index()];
        // One whose worker has panicked is still held by its viewers, but has no frames to give.
        let joined = slot.upgrade().and_then(|encoder| Some((encoder.frames.upgrade()?.subscribe(), encoder)));
        let (frames, encoder) = joined.unwrap_or_else(|| {
            let (frames, encoder) =
                Encoder::start(&self.instance, tier, Arc::clone(&self.screen), self.metrics.clone());
            *slot = Arc::downgrade(&encoder);
            (frames, encoder)
        });
        drop(running);
        encoder.shared.targets().push(Arc::clone(&target));
        let subscription = Subscription { frames, encoder, target };
        subscription.request_key_frame();
        subscription
    }

    /// Sessions that take the frames of `tier` now.
    pub(crate) fn watching(&self, tier: Tier) -> usize {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let encoder = running[tier.index()].upgrade();
        drop(running);
        encoder.map_or(0, |encoder| encoder.shared.targets().len())
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    key_wanted: AtomicBool,
    targets: Mutex<Vec<Target>>,
}

impl Shared {
    fn targets(&self) -> std::sync::MutexGuard<'_, Vec<Target>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slowest viewer decides: all see the same frames.
    fn bitrate(&self, tier: Tier) -> u32 {
        let granted = self.targets().iter().map(|t| t.load(Ordering::Relaxed)).filter(|bps| *bps > 0).min();
        let (min, max) = kbps(tier);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 4000"
        )]
        granted.map_or(max, |bps| (bps as f64 * SHARE / 1e3).min(f64::from(max)) as u32).clamp(min, max)
    }
}

#[derive(Debug)]
struct Encoder {
    tier: Tier,
    screen: Arc<Screen>,
    shared: Arc<Shared>,
    /// Weak: only the worker holds it, so that its end, however it comes, closes the channel.
    frames: broadcast::WeakSender<Arc<EncodedFrame>>,
}

type Frames = broadcast::Receiver<Arc<EncodedFrame>>;

impl Encoder {
    fn start(instance: &InstanceId, tier: Tier, screen: Arc<Screen>, metrics: Metrics) -> (Frames, Arc<Self>) {
        let (sender, receiver) = broadcast::channel(QUEUE);
        let frames = sender.downgrade();
        let shared = Arc::new(Shared::default());
        // The kernel keeps 15 bytes of a thread's name.
        let name = format!("{}-{instance}", &tier.as_str()[..2]);
        let worker = Worker {
            instance: instance.to_string(),
            name: name.clone(),
            tier,
            screen: Arc::clone(&screen),
            shared: Arc::clone(&shared),
            frames: sender,
            metrics,
            began: Instant::now(),
        };
        worker.metrics.encoders.with_label_values(&[tier.as_str()]).inc();
        std::thread::Builder::new().name(name).spawn(move || worker.run()).expect("a thread can be started");
        (receiver, Arc::new(Self { tier, screen, shared, frames }))
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.screen.wake();
    }
}

struct Worker {
    instance: String,
    name: String,
    tier: Tier,
    screen: Arc<Screen>,
    shared: Arc<Shared>,
    frames: broadcast::Sender<Arc<EncodedFrame>>,
    metrics: Metrics,
    began: Instant,
}

impl Drop for Worker {
    /// Also after a panic.
    fn drop(&mut self) {
        // Removed and not set to 0: the instance may have been forgotten meanwhile. An error says that it was.
        self.metrics.target.remove_label_values(&[&self.instance, self.tier.as_str()]).ok();
        self.metrics.encoders.with_label_values(&[self.tier.as_str()]).dec();
        tracing::info!(instance = self.instance, tier = %self.tier, "encoder ended");
    }
}

impl Worker {
    fn run(self) {
        tracing::info!(instance = self.instance, tier = %self.tier, "encoder started");
        while !self.stopped() {
            // Returns on a new size, too: that needs a new view and a new pipeline.
            if let Err(error) = self.encode_one_size() {
                tracing::error!(instance = self.instance, tier = %self.tier, error = &error as &dyn std::error::Error, "encoder failed; starting it again");
                self.pause(Duration::from_secs(1));
            }
        }
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    fn pause(&self, time: Duration) {
        drop(self.screen.wait(Some(Instant::now() + time), |_| self.stopped()));
    }

    fn encode_one_size(&self) -> Result<(), PipelineError> {
        let Some(size) = self.screen.wait(None, |f| f.size().is_some() || self.stopped()).size() else { return Ok(()) };
        let mut view = View::new(self.tier, size);
        let mut pipeline = Pipeline::start(&self.name, self.tier, view.out(), self.shared.bitrate(self.tier))?;
        let mut pacer = Pacer::new(self.tier);
        let mut payloader = H264Payloader::default();
        let mut followed = Instant::now();
        while let Some(key) = self.wait_for_reason(&pacer, &view) {
            if followed.elapsed() >= FOLLOW {
                pipeline.set_bitrate(self.shared.bitrate(self.tier));
                followed = Instant::now();
            }
            if key {
                self.shared.key_wanted.store(false, Ordering::Release);
            }
            let Some(frame) = self.encode(&mut view, &pipeline, &mut payloader, key)? else { return Ok(()) };
            let budget = pipeline.kbps() as usize * 1000 / 8
                * usize::try_from(pacing::min_interval(self.tier).as_micros()).unwrap_or(0)
                / 1_000_000;
            pacer.encoded(frame.taken, !frame.damage.is_empty(), frame.key, frame.bytes * 2 > budget);
            // Nobody listening is no error: the last viewer is just leaving.
            self.frames.send(Arc::new(frame)).ok();
        }
        Ok(())
    }

    /// Sleeps until there is something to encode and says whether a key frame is wanted; `None`: stop, or a new size.
    fn wait_for_reason(&self, pacer: &Pacer, view: &View) -> Option<bool> {
        let wanted = || self.shared.key_wanted.load(Ordering::Acquire);
        let mut deadline = Some(Instant::now());
        let mut ignored_key = false;
        let mut settled = false;
        loop {
            let seen = view.seen();
            let frame = self.screen.wait(deadline, |f| {
                self.stopped() || (!settled && (f.generation() > seen || (wanted() && !ignored_key)))
            });
            if self.stopped() || frame.size() != Some(view.source()) {
                return None;
            }
            let key_wanted = wanted();
            let sight =
                Sight { damaged_rows: frame.rows_changed(seen), rows: view.source().height as usize, key_wanted };
            drop(frame);
            match pacer.look(sight, Instant::now()) {
                Action::Encode { key } => return Some(key),
                Action::EncodeAt(_) if settled => return Some(false),
                Action::EncodeAt(at) => {
                    deadline = Some(at);
                    settled = true;
                }
                Action::Wait(at) => {
                    deadline = Some(at);
                    // It waits for its turn now; waking up for it again at once would spin.
                    ignored_key = key_wanted;
                    settled = false;
                }
            }
        }
    }

    fn encode(
        &self,
        view: &mut View,
        pipeline: &Pipeline,
        payloader: &mut H264Payloader,
        key: bool,
    ) -> Result<Option<EncodedFrame>, PipelineError> {
        let labels = [self.instance.as_str(), self.tier.as_str()];
        let (taken, encode_start) = (Instant::now(), SystemTime::now());
        let (damage, refreshed) = {
            let frame = self.screen.lock();
            if frame.size() != Some(view.source()) {
                return Ok(None);
            }
            (frame.damage_times(view.seen()).collect::<Vec<_>>(), view.refresh(&frame))
        };
        self.metrics.encode_busy.with_label_values(&labels).inc_by(taken.elapsed().as_secs_f64());
        let picture = view.picture().bytes().to_vec();
        let unit = pipeline.encode(picture, taken - self.began, key)?;
        let encode_end = SystemTime::now();
        let bytes = unit.data.len();
        let payloads = payloader
            .payload(PAYLOAD_MAX, &unit.data)
            .map_err(|e| PipelineError::Mute(format!("its frame cannot be cut into packets: {e}")))?;
        self.metrics.frames.with_label_values(&labels).inc();
        self.metrics.bytes.with_label_values(&labels).inc_by(bytes as u64);
        self.metrics.rows.with_label_values(&labels).inc_by(refreshed.rows as u64);
        self.metrics.encode_seconds.with_label_values(&labels).observe(taken.elapsed().as_secs_f64());
        self.metrics.target.with_label_values(&labels).set(i64::from(pipeline.kbps()) * 1000);
        if unit.key {
            self.metrics.key_frames.with_label_values(&labels).inc();
        }
        Ok(Some(EncodedFrame { payloads, bytes, key: unit.key, taken, damage, encode_start, encode_end }))
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    fn encoders() -> Encoders {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        Encoders::new("instance-0".parse().unwrap(), Screen::new(), metrics)
    }

    #[tokio::test]
    async fn a_worker_that_is_gone_closes_its_channel_and_the_next_viewer_gets_another() {
        let encoders = encoders();
        let mut old = encoders.subscribe(Tier::Full, Target::default());
        assert_eq!(old.encoder.frames.strong_count(), 1, "the worker's, and nobody else's");
        let second = encoders.subscribe(Tier::Full, Target::default());
        assert!(Arc::ptr_eq(&old.encoder, &second.encoder));
        // What a panic leaves: a worker that has ended while viewers still hold its encoder.
        old.encoder.shared.stop.store(true, Ordering::Release);
        encoders.screen.wake();
        assert!(matches!(old.frames.recv().await, Err(broadcast::error::RecvError::Closed)));
        let new = encoders.subscribe(Tier::Full, Target::default());
        assert!(!Arc::ptr_eq(&old.encoder, &new.encoder));
        assert_eq!((new.encoder.frames.strong_count(), encoders.watching(Tier::Full)), (1, 1));
    }

    #[tokio::test]
    async fn an_encoder_that_ends_after_its_instance_was_forgotten_leaves_no_series() {
        let encoders = encoders();
        let mut viewer = encoders.subscribe(Tier::Thumb, Target::default());
        encoders.metrics.target.with_label_values(&["instance-0", "thumb"]).set(300_000);
        encoders.metrics.forget("instance-0");
        viewer.encoder.shared.stop.store(true, Ordering::Release);
        encoders.screen.wake();
        assert!(matches!(viewer.frames.recv().await, Err(broadcast::error::RecvError::Closed)));
        let families = prometheus::core::Collector::collect(&encoders.metrics.target);
        assert!(families.iter().all(|family| family.get_metric().is_empty()), "{families:?}");
        assert_eq!(encoders.metrics.encoders.with_label_values(&["thumb"]).get(), 0);
    }
}
