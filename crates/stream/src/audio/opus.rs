//! One Opus encoder per instance, made for the first listening session and gone with the last.
//!
//! 20 ms packets at 48 kHz stereo. **Full queue:** a session that lags by [`QUEUE`] packets loses the oldest.
//!
//! `our pad -> convert -> opusenc -> appsink`, as for pictures: the worker's own thread encodes, so nothing queues in
//! front of a slow encoder but the tap, which drops the oldest.
use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use model::InstanceId;
use prometheus::IntCounter;
use tokio::sync::broadcast;

use super::tap::{AudioTap, Chunk, SampleFormat};
use crate::metrics::Metrics;

/// 640 ms.
const QUEUE: usize = 32;
/// RTP ticks of one packet: 20 ms of 48 kHz. Packets of 10 ms cost twice as much of everything behind the encoder.
const PACKET_TICKS: u32 = 960;
const PACKET: Duration = Duration::from_millis(20);
/// A pause longer than this moves the time stamps on; shorter ones are jitter of QEMU's timer.
const GAP: Duration = Duration::from_millis(120);
const BITRATE_BPS: i32 = 96_000;

/// One Opus packet and its place in time.
#[derive(Debug)]
pub(crate) struct OpusPacket {
    pub(crate) data: Bytes,
    /// RTP time stamp, counted from the encoder's start.
    pub(crate) ticks: u32,
    /// The first one after silence: the receiver may adapt its jitter buffer here.
    pub(crate) talk_spurt: bool,
}

#[derive(Debug)]
pub(crate) struct SoundSubscription {
    pub(crate) packets: broadcast::Receiver<Arc<OpusPacket>>,
    _encoder: Arc<Running>,
}

/// The sound encoder of one instance.
#[derive(Debug)]
pub(crate) struct SoundEncoder {
    instance: InstanceId,
    tap: Arc<AudioTap>,
    metrics: Metrics,
    running: Mutex<Weak<Running>>,
}

impl SoundEncoder {
    pub(crate) fn new(instance: InstanceId, tap: Arc<AudioTap>, metrics: Metrics) -> Self {
        Self { instance, tap, metrics, running: Mutex::default() }
    }

    pub(crate) fn subscribe(&self) -> SoundSubscription {
        let mut slot = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let encoder = slot.upgrade().unwrap_or_else(|| {
            let running = Running::start(&self.instance, Arc::clone(&self.tap), &self.metrics);
            *slot = Arc::downgrade(&running);
            running
        });
        SoundSubscription { packets: encoder.packets.subscribe(), _encoder: encoder }
    }
}

#[derive(Debug)]
struct Running {
    packets: broadcast::Sender<Arc<OpusPacket>>,
    tap: Arc<AudioTap>,
    number: u64,
}

impl Running {
    fn start(instance: &InstanceId, tap: Arc<AudioTap>, metrics: &Metrics) -> Arc<Self> {
        let (packets, _) = broadcast::channel(QUEUE);
        let name = format!("au-{instance}");
        let counter = metrics.audio_packets.with_label_values(&[instance.as_str()]);
        let number = tap.open();
        let worker = Worker { name: name.clone(), tap: Arc::clone(&tap), number, packets: packets.clone(), counter };
        std::thread::Builder::new().name(name).spawn(move || worker.run()).expect("a thread can be started");
        Arc::new(Self { packets, tap, number })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tap.close(self.number);
    }
}

struct Worker {
    name: String,
    tap: Arc<AudioTap>,
    number: u64,
    packets: broadcast::Sender<Arc<OpusPacket>>,
    counter: IntCounter,
}

impl Worker {
    fn run(self) {
        let clock = Arc::new(Mutex::new(Clock::default()));
        let mut pipeline: Option<Pipeline> = None;
        while let Some(Chunk { format, data }) = self.tap.next(self.number) {
            if pipeline.as_ref().is_none_or(|p| p.format != format) {
                pipeline = match self.build(format, &clock) {
                    Ok(built) => Some(built),
                    Err(error) => {
                        tracing::error!(encoder = self.name, %error, "sound cannot be encoded");
                        None
                    }
                };
            }
            if let Some(p) = &mut pipeline
                && p.push(data).is_err()
            {
                pipeline = None;
            }
        }
    }

    fn build(&self, format: SampleFormat, clock: &Arc<Mutex<Clock>>) -> Result<Pipeline, gst::glib::BoolError> {
        let missing = || gst::glib::bool_error!("no such sample format");
        let caps = gst::Caps::builder("audio/x-raw")
            .field("format", format.gstreamer().ok_or_else(missing)?)
            .field("layout", "interleaved")
            .field("rate", i32::try_from(format.rate).map_err(|_| missing())?)
            .field("channels", i32::from(format.channels))
            .build();
        // Both pass the samples through untouched when QEMU was told to make 48 kHz stereo.
        let convert = gst::ElementFactory::make("audioconvert").build()?;
        let resample = gst::ElementFactory::make("audioresample").build()?;
        let target = gst::Caps::builder("audio/x-raw").field("rate", 48_000).field("channels", 2).build();
        let filter = gst::ElementFactory::make("capsfilter").property("caps", &target).build()?;
        let encoder = gst::ElementFactory::make("opusenc")
            .property("bitrate", BITRATE_BPS)
            .property_from_str("frame-size", "20")
            .property("complexity", 4i32)
            .build()?;
        let (packets, counter, clock) = (self.packets.clone(), self.counter.clone(), Arc::clone(clock));
        let sink = gst_app::AppSink::builder().sync(false).async_(false).max_buffers(8).build();
        sink.set_callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    let data = sample.buffer().and_then(|b| b.map_readable().ok()).ok_or(gst::FlowError::Error)?;
                    let (ticks, talk_spurt) = clock.lock().unwrap_or_else(PoisonError::into_inner).tick(Instant::now());
                    counter.inc();
                    packets.send(Arc::new(OpusPacket { data: Bytes::copy_from_slice(&data), ticks, talk_spurt })).ok();
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
        let pipeline = gst::Pipeline::new();
        let elements = [&convert, &resample, &filter, &encoder, sink.upcast_ref()];
        pipeline.add_many(elements)?;
        gst::Element::link_many(elements)?;
        let source = gst::Pad::builder(gst::PadDirection::Src).name(&self.name).build();
        let entry = convert.static_pad("sink").ok_or_else(|| gst::glib::bool_error!("audioconvert has no sink"))?;
        source.link(&entry).map_err(|e| gst::glib::bool_error!("{e}"))?;
        // Made before it is started, so that a start that fails is taken down, too.
        let pipeline = Pipeline { elements: pipeline, source, format, frames: 0 };
        pipeline.source.set_active(true)?;
        pipeline.elements.set_state(gst::State::Playing).map_err(|e| gst::glib::bool_error!("{e}"))?;
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        for event in
            [gst::event::StreamStart::new(&self.name), gst::event::Caps::new(&caps), gst::event::Segment::new(&segment)]
        {
            if !pipeline.source.push_event(event) {
                return Err(gst::glib::bool_error!("samples of {format:?} are refused"));
            }
        }
        Ok(pipeline)
    }
}

struct Pipeline {
    elements: gst::Pipeline,
    source: gst::Pad,
    format: SampleFormat,
    frames: u64,
}

impl Pipeline {
    /// Encodes at once: what is complete is with the viewers when this returns.
    fn push(&mut self, data: Vec<u8>) -> Result<(), gst::FlowError> {
        let time = |frames: u64| gst::ClockTime::from_nseconds(frames * 1_000_000_000 / u64::from(self.format.rate));
        let start = time(self.frames);
        self.frames += (data.len() / self.format.frame_bytes()) as u64;
        let mut buffer = gst::Buffer::from_mut_slice(data);
        let inner = buffer.get_mut().expect("nobody else has it yet");
        inner.set_pts(start);
        inner.set_duration(time(self.frames) - start);
        self.source.push(buffer).map(|_| ())
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.elements.set_state(gst::State::Null).ok();
        self.source.set_active(false).ok();
    }
}

/// RTP time: packet after packet while sound flows, and the wall clock over pauses.
#[derive(Debug, Default)]
struct Clock {
    ticks: u32,
    last: Option<Instant>,
}

impl Clock {
    fn tick(&mut self, now: Instant) -> (u32, bool) {
        let pause = self.last.map(|last| now.saturating_duration_since(last)).filter(|p| *p > GAP);
        if let Some(pause) = pause {
            let packets = u32::try_from(pause.as_millis() / PACKET.as_millis()).unwrap_or(u32::MAX).saturating_sub(1);
            self.ticks = self.ticks.wrapping_add(packets.wrapping_mul(PACKET_TICKS));
        }
        let first = self.last.is_none();
        self.last = Some(now);
        let ticks = self.ticks;
        self.ticks = self.ticks.wrapping_add(PACKET_TICKS);
        (ticks, first || pause.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_counts_packets_and_jumps_over_pauses() {
        let (mut clock, t) = (Clock::default(), Instant::now());
        assert_eq!(clock.tick(t), (0, true));
        assert_eq!(clock.tick(t + Duration::from_millis(35)), (960, false), "jitter is no pause");
        assert_eq!(clock.tick(t + Duration::from_millis(1035)), (1920 + 49 * 960, true));
        assert_eq!(clock.tick(t + Duration::from_millis(1055)), (1920 + 50 * 960, false));
    }

    #[test]
    #[ignore = "needs GStreamer: run by `cargo xtask test --privileged`"]
    fn sound_is_encoded_when_the_push_returns_so_that_nothing_can_queue() {
        gst::init().unwrap();
        let tap = AudioTap::new();
        let (packets, mut heard) = broadcast::channel(QUEUE);
        let counter = IntCounter::new("packets", "Packets").unwrap();
        let worker = Worker { name: "test".into(), number: tap.open(), tap, packets, counter };
        for rate in [48_000, 22_050] {
            let format = SampleFormat { bits: 16, signed: true, float: false, big_endian: false, rate, channels: 2 };
            let mut pipeline = worker.build(format, &Arc::default()).unwrap();
            // 200 ms of a saw-tooth in the pieces that QEMU writes.
            let piece: Vec<u8> = (0..rate / 100).flat_map(|i| [0, i.to_le_bytes()[0]].repeat(2)).collect();
            for _ in 0..20 {
                pipeline.push(piece.clone()).unwrap();
            }
            let count = std::iter::from_fn(|| heard.try_recv().ok()).inspect(|p| assert!(!p.data.is_empty())).count();
            assert!((9..=10).contains(&count), "{count} packets of 20 ms at {rate} Hz");
        }
    }
}
