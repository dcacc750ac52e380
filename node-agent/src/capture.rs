//! The capture of this node's ports: which taps are captured, as whose, and how a port becomes a file.
//!
//! **Invariants.** What cannot be captured costs nothing else: the agent runs on, and says why when a capture is asked for.
//! Memory is bounded by `--capture-bytes` for what is held, and by [`READERS_MAX`] readers, each of which may keep what was
//! held when it began until it has read it.
use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use axum::body::Bytes;
use capture::{
    Device, Follow, Limits, Snapshot, Source,
    file::{About, PortFile},
    ring::Counts,
};
use fabric::FabricStatus;
use model::{InstanceId, NodeName};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time,
};
use tokio_stream::wrappers::ReceiverStream;

/// How long frames are kept, when there is room.
const AGE: Duration = Duration::from_mins(1);
/// Captures that are read at one time.
const READERS_MAX: usize = 8;
/// How often the metrics follow.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Bytes that are sent at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait for a reader; behind them its queue of frames fills.
const CHUNKS_MAX: usize = 4;
/// Frames of a follower that become one chunk.
const FRAMES_AT_ONCE: usize = 256;

/// Why there is no capture to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    #[error("this node captures nothing: {0}")]
    Off(String),
    #[error("{READERS_MAX} captures of this node are being read, which is as many as can be")]
    Busy,
}

/// Clones are the same capture.
#[derive(Debug, Clone)]
pub(crate) struct Captures {
    node: NodeName,
    /// Why there is none, when there is none.
    source: Result<Arc<Source>, Arc<str>>,
    fabric: watch::Receiver<FabricStatus>,
    readers: Arc<Semaphore>,
    metrics: Metrics,
}

/// A capture that was begun: where its bytes come from.
pub(crate) type Stream = ReceiverStream<Result<Bytes, Infallible>>;

impl Captures {
    /// Captures in the fabric's namespace, if there is one. `bytes` 0: not at all.
    ///
    /// # Errors
    /// When a metric's name is taken.
    pub(crate) fn start(
        node: NodeName,
        namespace: Option<&Path>,
        bytes: usize,
        fabric: watch::Receiver<FabricStatus>,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let source = if bytes == 0 {
            Err("it was started with --capture-bytes 0".into())
        } else {
            let limits = Limits { bytes, age: AGE };
            let started = namespace.map_or_else(|| Source::fed_only(limits), |path| Source::start(path, limits));
            started.map(Arc::new).map_err(|error| {
                tracing::warn!(%error, "ports are not captured");
                error.to_string().into()
            })
        };
        Ok(Self {
            node,
            source,
            fabric,
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            metrics: Metrics::register(registry)?,
        })
    }

    /// Where the agent's own switch brings its frames.
    pub(crate) fn feed(&self) -> Option<Arc<Source>> {
        self.source.as_ref().ok().cloned()
    }

    /// Keeps what is captured at what the fabric has. Ends only with the fabric.
    pub(crate) async fn run(self) -> anyhow::Error {
        let mut fabric = self.fabric.clone();
        let mut there = BTreeMap::new();
        let mut tick = time::interval(COUNT_EVERY);
        loop {
            if let Ok(source) = &self.source {
                let now = taps(&fabric.borrow_and_update());
                source.set_ports(now.iter().map(|(id, (device, _))| (id.clone(), device.clone())).collect());
                if there != now {
                    source.wake();
                    there = now;
                }
                self.metrics.follow(&source.counts().1);
            }
            tokio::select! {
                changed = fabric.changed() => if let Err(error) = changed.context("the fabric's thread has ended") {
                    return error;
                },
                _ = tick.tick() => {}
            }
        }
    }

    /// Begins a file of what the port of `instance` holds of the last `last`, and of what comes if `follows`.
    ///
    /// # Errors
    /// When nothing is captured here, or too many read.
    pub(crate) fn open(
        &self,
        instance: &InstanceId,
        last: Option<Duration>,
        follows: bool,
    ) -> Result<Stream, CaptureError> {
        let source = self.source.as_ref().map_err(|why| CaptureError::Off(why.to_string()))?;
        let permit = Arc::clone(&self.readers).try_acquire_owned().map_err(|_| CaptureError::Busy)?;
        let id = instance.as_str();
        let (snapshot, follow) = if follows {
            source.follow(id, last).map(|(snapshot, follow)| (snapshot, Some(follow)))
        } else {
            source.snapshot(id, last).map(|snapshot| (snapshot, None))
        }
        .ok_or_else(|| {
            let why = source.problems().remove(id);
            CaptureError::Off(why.unwrap_or_else(|| format!("the port of {id} has not been made yet")))
        })?;
        let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
        let writing = Writing { source: Arc::clone(source), about: self.about(instance), sender, _permit: permit };
        tokio::spawn(writing.run(snapshot, follow));
        Ok(ReceiverStream::new(receiver))
    }

    /// Ends the files of all who follow, so that they are whole.
    pub(crate) fn end_followers(&self) {
        if let Ok(source) = &self.source {
            source.end_followers();
        }
    }

    fn about(&self, instance: &InstanceId) -> About {
        let fabric = self.fabric.borrow();
        let port = fabric.ports.get(instance);
        let plugged = |tap: &str| if tap.is_empty() { "port of the switch".to_owned() } else { format!("tap {tap}") };
        let place = port.map(|port| format!("LAN {}, seat {}, {} on ", port.lan, port.seat.0, plugged(&port.tap)));
        About {
            application: concat!("Loco ", env!("CARGO_PKG_VERSION")).to_owned(),
            instance: instance.to_string(),
            description: format!("{}{}; outbound is from the guest", place.unwrap_or_default(), self.node),
            mac: port.map(|port| port.mac.0),
        }
    }
}

/// The taps and macvtaps of this node by instance, and whether they are there.
fn taps(fabric: &FabricStatus) -> BTreeMap<String, (Device, bool)> {
    let taps = fabric.ports.iter().filter(|(_, port)| !port.tap.is_empty());
    let device = |tap: &str| Device { name: tap.to_owned(), turned: fabric::is_macvtap(tap) };
    taps.map(|(id, port)| (id.to_string(), (device(&port.tap), port.exists))).collect()
}

/// One reader's file.
struct Writing {
    source: Arc<Source>,
    about: About,
    sender: mpsc::Sender<Result<Bytes, Infallible>>,
    _permit: OwnedSemaphorePermit,
}

impl Writing {
    /// Ends with the file, or when the reader has gone.
    async fn run(self, snapshot: Snapshot, follow: Option<Follow>) {
        // The reader has gone: nobody is left to be told.
        self.write(snapshot, follow).await.ok();
    }

    async fn write(self, mut snapshot: Snapshot, follow: Option<Follow>) -> Result<(), Gone> {
        let (mut file, mut out) = PortFile::begin(&self.about, &snapshot, follow.is_some());
        for frame in std::mem::take(&mut snapshot.frames) {
            file.frame(&mut out, &frame, 0);
            if out.len() >= CHUNK_BYTES {
                self.send(&mut out).await?;
            }
        }
        let mut dropped = 0;
        if let Some(mut follow) = follow {
            let mut frames = Vec::with_capacity(FRAMES_AT_ONCE);
            loop {
                self.send(&mut out).await?;
                let count = tokio::select! {
                    count = follow.receive(&mut frames, FRAMES_AT_ONCE) => count,
                    () = self.sender.closed() => return Err(Gone),
                };
                if count == 0 {
                    break;
                }
                for followed in frames.drain(..) {
                    file.frame(&mut out, &followed.frame, followed.dropped);
                }
            }
            dropped = follow.dropped();
            // Of now, where the port is still known.
            snapshot = self.source.snapshot(&self.about.instance, Some(Duration::ZERO)).unwrap_or(snapshot);
        }
        out.extend(file.end(&snapshot, dropped));
        self.send(&mut out).await
    }

    async fn send(&self, out: &mut Vec<u8>) -> Result<(), Gone> {
        self.sender.send(Ok(std::mem::take(out).into())).await.map_err(|_| Gone)
    }
}

/// The reader.
struct Gone;

#[derive(Debug, Clone)]
struct Metrics {
    ring_bytes: IntGaugeVec,
    frames: IntCounterVec,
    dropped: IntCounterVec,
    /// What the counters say already.
    told: Arc<Mutex<BTreeMap<String, Counts>>>,
}

impl Metrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let ring_bytes = IntGaugeVec::new(
            Opts::new("loco_capture_ring_bytes", "Memory that holds the port's last frames, in bytes."),
            &["instance"],
        )?;
        let frames = IntCounterVec::new(
            Opts::new("loco_capture_frames_total", "Frames of the port, both ways, that were to be captured."),
            &["instance"],
        )?;
        let dropped = IntCounterVec::new(
            Opts::new(
                "loco_capture_dropped_total",
                "Frames that a capture lacks: `system`, the agent was too slow; `reader`, one who followed was.",
            ),
            &["instance", "reason"],
        )?;
        registry.register(Box::new(ring_bytes.clone()))?;
        registry.register(Box::new(frames.clone()))?;
        registry.register(Box::new(dropped.clone()))?;
        Ok(Self { ring_bytes, frames, dropped, told: Arc::default() })
    }

    /// Makes the metrics those of `counts`. A port that went takes its series with it.
    fn follow(&self, counts: &[(String, Counts)]) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|id, _| {
            let stays = counts.iter().any(|(other, _)| other == id);
            if !stays {
                // Absent is as good as removed.
                self.ring_bytes.remove_label_values(&[id]).ok();
                self.frames.remove_label_values(&[id]).ok();
                for reason in ["system", "reader"] {
                    self.dropped.remove_label_values(&[id, reason]).ok();
                }
            }
            stays
        });
        for (id, now) in counts {
            let before = told.insert(id.clone(), *now).unwrap_or_default();
            self.ring_bytes.with_label_values(&[id]).set(i64::try_from(now.bytes).unwrap_or(i64::MAX));
            // A port that went and came in one beat counts anew.
            self.frames.with_label_values(&[id]).inc_by(now.received.saturating_sub(before.received));
            let system = now.dropped_by_system.saturating_sub(before.dropped_by_system);
            let reader = now.dropped_by_followers.saturating_sub(before.dropped_by_followers);
            for (reason, count) in [("system", system), ("reader", reader)] {
                self.dropped.with_label_values(&[id.as_str(), reason]).inc_by(count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_follow_and_a_port_that_went_leaves_no_series() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let counts = |bytes, received, system, followers| Counts {
            bytes,
            received,
            dropped_by_system: system,
            dropped_by_followers: followers,
        };
        let text = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        metrics.follow(&[("i-0".to_owned(), counts(700, 10, 1, 2))]);
        metrics.follow(&[("i-0".to_owned(), counts(500, 25, 1, 5))]);
        let now = text();
        for want in [
            r#"loco_capture_ring_bytes{instance="i-0"} 500"#,
            r#"loco_capture_frames_total{instance="i-0"} 25"#,
            r#"loco_capture_dropped_total{instance="i-0",reason="system"} 1"#,
            r#"loco_capture_dropped_total{instance="i-0",reason="reader"} 5"#,
        ] {
            assert!(now.contains(want), "{want} is not in {now}");
        }
        metrics.follow(&[]);
        assert!(!text().contains("i-0"));
    }
}
