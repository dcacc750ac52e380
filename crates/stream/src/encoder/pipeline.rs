//! x264 by GStreamer: I420 pictures in, one H.264 access unit out for each, at once.
//!
//! `our pad -> x264enc -> appsink`. With `appsrc` in front, the encoder would run on a thread of GStreamer's, and each
//! frame would wait for two more wake-ups, which are milliseconds on a busy machine. Pushed from a pad of our own, the
//! caller's thread encodes, and no queue can grow anywhere.
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use crate::{Size, Tier};

/// What a pipeline did not do.
#[derive(Debug, thiserror::Error)]
pub(super) enum PipelineError {
    #[error("the encoder could not be built")]
    Build(#[from] gst::glib::BoolError),
    #[error("the encoder did not start")]
    Start(#[from] gst::StateChangeError),
    #[error("the encoder refuses pictures of {0:?}")]
    Refused(Size),
    #[error("the encoder took no picture")]
    Push(#[from] gst::FlowError),
    #[error("the encoder gave no frame: {0}")]
    Mute(String),
}

/// One H.264 access unit in byte-stream format.
#[derive(Debug)]
pub(super) struct AccessUnit {
    pub(super) data: bytes::Bytes,
    pub(super) key: bool,
}

#[derive(Debug)]
pub(super) struct Pipeline {
    elements: gst::Pipeline,
    source: gst::Pad,
    encoder: gst::Element,
    sink: gst_app::AppSink,
    kbps: u32,
}

const fn frame_rate(tier: Tier) -> i32 {
    match tier {
        Tier::Thumb => 10,
        Tier::Full => 60,
    }
}

impl Pipeline {
    /// `name` is for GStreamer's own logs.
    pub(super) fn start(name: &str, tier: Tier, size: Size, kbps: u32) -> Result<Self, PipelineError> {
        let pixels = |n: u32| i32::try_from(n).expect("sides are bounded");
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", "I420")
            .field("width", pixels(size.width))
            .field("height", pixels(size.height))
            .field("framerate", gst::Fraction::new(frame_rate(tier), 1))
            .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
            .field("interlace-mode", "progressive")
            // Limited range, BT.601 matrix, BT.709 transfer and primaries: x264enc writes it into the VUI, so that no
            // browser has to guess by the size.
            .field("colorimetry", "2:4:5:1")
            .build();
        let encoder = gst::ElementFactory::make("x264enc")
            .property_from_str("tune", "zerolatency")
            .property_from_str("speed-preset", "ultrafast")
            .property("bitrate", kbps)
            .property("key-int-max", 3000u32)
            .property("vbv-buf-capacity", 120u32)
            .property("threads", 1u32)
            .property("sliced-threads", false)
            .property("byte-stream", true)
            .property("aud", false)
            .build()?;
        let h264 = gst::Caps::builder("video/x-h264")
            .field("profile", "constrained-baseline")
            .field("stream-format", "byte-stream")
            .field("alignment", "au")
            .build();
        let sink = gst_app::AppSink::builder().caps(&h264).sync(false).async_(false).max_buffers(4).build();
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([&encoder, sink.upcast_ref()])?;
        encoder.link(&sink)?;
        let source = gst::Pad::builder(gst::PadDirection::Src).name(name).build();
        let entry = encoder.static_pad("sink").expect("every encoder has a sink pad");
        source.link(&entry).map_err(|e| gst::glib::bool_error!("{e}"))?;
        source.set_active(true)?;
        pipeline.set_state(gst::State::Playing)?;
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        for event in
            [gst::event::StreamStart::new(name), gst::event::Caps::new(&caps), gst::event::Segment::new(&segment)]
        {
            if !source.push_event(event) {
                return Err(PipelineError::Refused(size));
            }
        }
        Ok(Self { elements: pipeline, source, encoder, sink, kbps })
    }

    /// Follows the congestion controller; small changes are not worth a new rate control state.
    pub(super) fn set_bitrate(&mut self, kbps: u32) {
        if kbps.abs_diff(self.kbps) * 20 > self.kbps {
            self.encoder.set_property("bitrate", kbps);
            self.kbps = kbps;
        }
    }

    pub(super) const fn kbps(&self) -> u32 {
        self.kbps
    }

    /// Encodes one picture. `at` is the time since the stream began and must grow.
    pub(super) fn encode(&self, picture: Vec<u8>, at: Duration, key: bool) -> Result<AccessUnit, PipelineError> {
        if key && let Some(pad) = self.encoder.static_pad("src") {
            // The next picture becomes the IDR, with its parameter sets.
            pad.send_event(gstreamer_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
        let mut buffer = gst::Buffer::from_mut_slice(picture);
        let pts = gst::ClockTime::from_nseconds(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX));
        buffer.get_mut().expect("nobody else has it yet").set_pts(pts);
        self.source.push(buffer)?;
        let mute = || PipelineError::Mute(self.complaint());
        // `zerolatency`: what went in is out when the push returns.
        let sample = self.sink.try_pull_sample(gst::ClockTime::ZERO).ok_or_else(mute)?;
        let buffer = sample.buffer().ok_or_else(mute)?;
        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let data = buffer.map_readable()?;
        Ok(AccessUnit { data: bytes::Bytes::copy_from_slice(&data), key })
    }

    /// What GStreamer has said on its bus.
    fn complaint(&self) -> String {
        let message = self.elements.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
        message.map_or_else(
            || "no reason given".to_owned(),
            |m| match m.view() {
                gst::MessageView::Error(e) => e.error().to_string(),
                _ => "no reason given".to_owned(),
            },
        )
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // Only then is the encoder's memory free. It cannot be refused on the way down.
        self.elements.set_state(gst::State::Null).ok();
        self.source.set_active(false).ok();
    }
}
