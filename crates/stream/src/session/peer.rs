//! The WebRTC side of a session: negotiation, and two tracks to write to.
//!
//! The order in [`media_engine`] is what works with `webrtc` 0.21.1 and Chromium: congestion control, then the default
//! interceptors, and only then the playout-delay extension. Registered earlier, the browser decoded no frame.
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use rtc::{
    interceptor::{
        Attribute, BandwidthEstimator, CongestionControlBuilder, EstimatorStats, Gcc, Interceptor, PacerBuilder,
        Packet, PacketReport, Registry, Slot, StreamInfo, TaggedPacket, TwccReceiverBuilder, TwccSenderBuilder,
    },
    media_stream::MediaStreamTrack,
    peer_connection::{
        configuration::{
            RTCConfigurationBuilder,
            interceptor_registry::register_default_interceptors,
            media_engine::{MIME_TYPE_H264, MIME_TYPE_OPUS, MediaEngine},
        },
        sdp::RTCSessionDescription,
    },
    rtcp::payload_feedbacks::{full_intra_request::FullIntraRequest, picture_loss_indication::PictureLossIndication},
    rtp,
    rtp_transceiver::rtp_sender::{
        RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
        RTCRtpHeaderExtensionCapability, RtpCodecKind,
    },
    sansio::Protocol,
    shared::error::Error,
};
use tokio::sync::{mpsc, watch};
use webrtc::{
    data_channel::DataChannel,
    media_stream::track_local::{TrackLocal, TrackLocalEvent, static_rtp::TrackLocalStaticRTP},
    peer_connection::{
        PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
        RTCPeerConnectionState, SettingEngineBuilder,
    },
    rtp_transceiver::RtpSender,
};

use super::{meter::Meter, ports::PortLease};
use crate::encoder::Target;

const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const PLAYOUT_DELAY: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
/// Where the congestion controller starts: above what a full tier needs, so that the first seconds do not queue.
const START_BPS: f64 = 4e6;
const MIN_BPS: f64 = 2e5;
const MAX_BPS: f64 = 12e6;
/// What may leave at once, in bits: one key frame of a full picture. The mean is still what the controller grants.
const BURST_BITS: f64 = 40_000.0 * 8.0;
/// Behind the interceptors that consume RTCP.
const FORWARD_SLOT: usize = 14_000;
/// Before all of them, so that no pacer's queue counts as the way to the browser.
const WATCH_SLOT: usize = 500;
/// Only the addresses that we bind are gathered, so this is generous.
const GATHER_WITHIN: Duration = Duration::from_secs(3);
/// Bytes that may wait on a data channel; a browser that reads nothing must not take our memory.
const SEND_BUFFER: usize = 64 * 1024;
const OFFER_MAX: usize = 64 * 1024;
/// A browser opens two; more are ignored.
const CHANNELS_MAX: usize = 4;

/// What an offer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OfferShape {
    pub(super) sound: bool,
}

/// Looks at an offer before anything is allocated for it.
pub(super) fn shape(sdp: &str) -> Result<OfferShape, String> {
    if sdp.len() > OFFER_MAX {
        return Err(format!("{} bytes are more than {OFFER_MAX}", sdp.len()));
    }
    let has = |line: &str| sdp.lines().any(|l| l.trim_end().starts_with(line));
    if !sdp.starts_with("v=0") {
        return Err("it does not begin with `v=0`".to_owned());
    }
    if !has("m=video ") {
        return Err("it has no `m=video` section".to_owned());
    }
    if !sdp.lines().any(|l| l.starts_with("a=rtpmap:") && l.to_ascii_uppercase().contains(" H264/90000")) {
        return Err("it does not offer H264".to_owned());
    }
    if !has("a=ice-ufrag:") || !has("a=fingerprint:") {
        return Err("it has no ICE credentials or no DTLS fingerprint".to_owned());
    }
    Ok(OfferShape { sound: has("m=audio ") })
}

/// Hands picture-loss reports to the application; the default interceptors keep RTCP to themselves.
struct Forward {
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Forward {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, mut packet: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(reports) = &packet.message.packet {
            let about_loss = |p: &dyn rtc::rtcp::Packet| {
                p.as_any().is::<PictureLossIndication>() || p.as_any().is::<FullIntraRequest>()
            };
            let loss: Vec<_> = reports.iter().filter(|p| about_loss(&***p)).cloned().collect();
            if loss.is_empty() {
                return Ok(());
            }
            packet.message.packet = Packet::Rtcp(loss);
            packet.message.add(Attribute::DeliverToApplication);
        }
        self.read.push_back(packet);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.read.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        self.write.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.write.pop_front()
    }
}

impl Interceptor for Forward {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

/// Nearest to the wire: shows the meter the reports that leave and those that come, at the times at which they do.
struct Watch {
    meter: Arc<Meter>,
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Watch {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(reports) = &packet.message.packet {
            self.meter.comes(reports, packet.now);
        }
        self.read.push_back(packet);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.read.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(reports) = &packet.message.packet {
            self.meter.leaves(reports, packet.now);
        }
        self.write.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.write.pop_front()
    }
}

impl Interceptor for Watch {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

/// Google's congestion control, whose verdict is pushed out: the crate has no way to ask for it.
struct Estimator {
    gcc: Gcc,
    target: Target,
}

impl Estimator {
    fn publish(&self) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between MIN_BPS and MAX_BPS")]
        self.target.store(self.gcc.target_bitrate() as u64, Ordering::Relaxed);
    }
}

impl BandwidthEstimator for Estimator {
    fn on_reports(&mut self, now: Instant, reports: &[PacketReport]) {
        self.gcc.on_reports(now, reports);
        self.publish();
    }

    fn target_bitrate(&self) -> f64 {
        self.gcc.target_bitrate()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.gcc.handle_timeout(now);
        self.publish();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.gcc.poll_timeout()
    }

    fn stats(&self) -> EstimatorStats {
        self.gcc.stats()
    }
}

fn codecs() -> [(RtpCodecKind, RTCRtpCodecParameters); 2] {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback { typ: typ.into(), parameter: parameter.into() };
    let h264 = RTCRtpCodec {
        mime_type: MIME_TYPE_H264.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f".to_owned(),
        rtcp_feedback: vec![feedback("nack", ""), feedback("nack", "pli"), feedback("ccm", "fir")],
    };
    let opus = RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1".to_owned(),
        rtcp_feedback: vec![],
    };
    let parameters = |rtp_codec, payload_type| RTCRtpCodecParameters { rtp_codec, payload_type };
    [(RtpCodecKind::Video, parameters(h264, 102)), (RtpCodecKind::Audio, parameters(opus, 111))]
}

fn media_engine(target: &Target, meter: Arc<Meter>) -> Result<(MediaEngine, Registry), Error> {
    let mut engine = MediaEngine::default();
    for (kind, codec) in codecs() {
        engine.register_codec(codec, kind)?;
    }
    let estimator = Estimator { gcc: Gcc::new(START_BPS, MIN_BPS, MAX_BPS), target: Arc::clone(target) };
    for kind in [RtpCodecKind::Video, RtpCodecKind::Audio] {
        engine.register_feedback(RTCPFeedback { typ: "transport-cc".into(), parameter: String::new() }, kind);
        engine.register_header_extension(RTCRtpHeaderExtensionCapability { uri: TRANSPORT_CC.into() }, kind, None)?;
    }
    // What `configure_congestion_control` does, with another pacer: its own lets out a tenth of a second's worth at
    // once, which makes a key frame take 44 ms at 600 kbit/s.
    let pacer = PacerBuilder::new().with_target_bitrate(START_BPS).with_burst_bits(BURST_BITS).build();
    let registry = Registry::new()
        .with(Slot::CongestionControl, CongestionControlBuilder::new(estimator).build())
        .with(Slot::Pacer, pacer)
        .with(Slot::TwccSender, TwccSenderBuilder::new().build())
        .with(Slot::TwccReceiver, TwccReceiverBuilder::new().build());
    let registry = register_default_interceptors(registry, &mut engine)?;
    let playout_delay = RTCRtpHeaderExtensionCapability { uri: PLAYOUT_DELAY.into() };
    engine.register_header_extension(playout_delay, RtpCodecKind::Video, None)?;
    let forward = Forward { read: VecDeque::new(), write: VecDeque::new() };
    let watch = Watch { meter, read: VecDeque::new(), write: VecDeque::new() };
    Ok((engine, registry.with(Slot::from(FORWARD_SLOT), forward).with(Slot::from(WATCH_SLOT), watch)))
}

/// What the connection tells its session.
pub(super) struct PeerEvents {
    pub(super) state: watch::Receiver<RTCPeerConnectionState>,
    pub(super) channels: mpsc::Receiver<Arc<dyn DataChannel>>,
}

struct Handler {
    gathered: watch::Sender<bool>,
    state: watch::Sender<RTCPeerConnectionState>,
    channels: mpsc::Sender<Arc<dyn DataChannel>>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.send_replace(true);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state.send_replace(state);
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        // Full only if a client opens dozens of them: it gets none of those.
        self.channels.try_send(channel).ok();
    }
}

/// A negotiated connection and its tracks.
pub(super) struct Peer {
    pub(super) connection: PeerHandle,
    /// Taken by whoever streams.
    pub(super) tracks: Option<Tracks>,
}

/// Where pictures and sound go, and what the congestion controller grants for them.
pub(super) struct Tracks {
    pub(super) video: Outgoing,
    pub(super) sound: Option<Outgoing>,
    pub(super) target: Target,
}

/// What keeps a connection open.
///
/// **Invariant.** The port is back in the pool only when the connection is closed, however the handle ends: the crate's
/// own drop leaves its driver, and with it the socket, alive. So dropping this without [`Self::close`] (an offer that
/// nobody waits for any more, a panic) closes in a task of its own.
pub(super) struct PeerHandle {
    connection: Arc<dyn PeerConnection>,
    /// `None` once closed.
    port: Option<PortLease>,
    /// Remembered, because a drop may happen on any thread.
    runtime: tokio::runtime::Handle,
}

impl Peer {
    /// Answers `offer` on the port.
    pub(super) async fn negotiate(
        offer: &str,
        shape: OfferShape,
        port: PortLease,
        meter: Arc<Meter>,
    ) -> Result<(Self, PeerEvents, String), Negotiation> {
        let description = RTCSessionDescription::offer(offer.to_owned()).map_err(Negotiation::Offer)?;
        let target = Target::new(AtomicU64::new(0));
        let (engine, registry) = media_engine(&target, meter)?;
        let (gathered_tx, mut gathered) = watch::channel(false);
        let (state_tx, state) = watch::channel(RTCPeerConnectionState::New);
        let (channels_tx, channels) = mpsc::channel(CHANNELS_MAX);
        let handler = Handler { gathered: gathered_tx, state: state_tx, channels: channels_tx };
        // No multicast DNS: host candidates need no names, and a node without a route for multicast has no place for it.
        let settings = SettingEngineBuilder::new()
            .with_lite(true)
            .with_include_loopback_candidate(true)
            .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
            .build();
        let builder = PeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_media_engine(engine)
            .with_interceptor_registry(registry)
            .with_setting_engine(settings)
            .with_handler(Arc::new(handler))
            .with_data_channel_send_buffer_limit(SEND_BUFFER)
            .with_udp_addrs(vec![port.address()]);
        // Boxed: 20 kB of future would be copied around otherwise.
        let connection: Arc<dyn PeerConnection> = Arc::new(Box::pin(builder.build()).await?);
        let runtime = tokio::runtime::Handle::current();
        // From here on it is closed whatever happens, also if the stack panics over the offer.
        let mut handle = PeerHandle { connection: Arc::clone(&connection), port: Some(port), runtime };
        let tracks = async {
            let video = Outgoing::add(&*connection, RtpCodecKind::Video).await?;
            let sound = if shape.sound { Some(Outgoing::add(&*connection, RtpCodecKind::Audio).await?) } else { None };
            connection.set_remote_description(description).await.map_err(Negotiation::Offer)?;
            let answer = connection.create_answer(None).await.map_err(Negotiation::Offer)?;
            connection.set_local_description(answer).await.map_err(Negotiation::Offer)?;
            // What is gathered in time is in the answer; ICE-lite has nothing to add later.
            tokio::time::timeout(GATHER_WITHIN, gathered.wait_for(|done| *done)).await.ok();
            let answer = connection.local_description().await.ok_or(Negotiation::NoAnswer)?;
            Ok((video, sound, answer.sdp))
        };
        match tracks.await {
            Ok((video, sound, answer)) => {
                let tracks = Some(Tracks { video, sound, target });
                Ok((Self { connection: handle, tracks }, PeerEvents { state, channels }, answer))
            }
            Err(error) => {
                handle.close().await;
                Err(error)
            }
        }
    }
}

impl PeerHandle {
    pub(super) async fn close(&mut self) {
        close(&*self.connection).await;
        self.port = None;
    }
}

impl Drop for PeerHandle {
    fn drop(&mut self) {
        let Some(port) = self.port.take() else { return };
        let connection = Arc::clone(&self.connection);
        // A runtime that has ended takes no task, but neither does it run drivers.
        self.runtime.spawn(async move {
            close(&*connection).await;
            drop(port);
        });
    }
}

async fn close(connection: &dyn PeerConnection) {
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "peer connection did not close cleanly");
    }
}

/// Why a negotiation failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Negotiation {
    /// The offer is to blame.
    #[error("{0}")]
    Offer(Error),
    #[error("{0}")]
    Stack(#[from] Error),
    #[error("no answer came out")]
    NoAnswer,
}

/// One track towards the browser. Packets are made here, with our own clock: the crate's sample writer can only add
/// durations, which is one frame late when frames come on change.
pub(super) struct Outgoing {
    track: Arc<TrackLocalStaticRTP>,
    sender: Arc<dyn RtpSender>,
    ssrc: u32,
    sequence: u16,
    negotiated: Option<Negotiated>,
}

#[derive(Debug, Clone, Copy)]
struct Negotiated {
    payload_type: u8,
    playout_delay: Option<u8>,
}

impl Outgoing {
    async fn add(connection: &dyn PeerConnection, kind: RtpCodecKind) -> Result<Self, Error> {
        let (_, codec) = codecs().into_iter().find(|(k, _)| *k == kind).expect("both kinds are listed");
        let ssrc = rand::random::<u32>() | 1;
        let name = if kind == RtpCodecKind::Video { "picture" } else { "sound" };
        let coding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
            codec: codec.rtp_codec,
            ..Default::default()
        };
        // One stream id: the browser then plays picture and sound in step.
        let track = MediaStreamTrack::new("guest".into(), name.into(), name.into(), kind, vec![coding]);
        let track = Arc::new(TrackLocalStaticRTP::new(track));
        let sender = connection.add_track(Arc::clone(&track) as Arc<dyn TrackLocal>).await?;
        Ok(Self { track, sender, ssrc, sequence: rand::random(), negotiated: None })
    }

    /// A handle on which picture-loss reports arrive.
    pub(super) fn feedback(&self) -> Feedback {
        Feedback { track: Arc::clone(&self.track) }
    }

    /// The browser chose the numbers; ours were only proposals.
    async fn negotiated(&mut self) -> Result<Negotiated, Error> {
        if let Some(negotiated) = self.negotiated {
            return Ok(negotiated);
        }
        let parameters = self.sender.get_parameters().await?.rtp_parameters;
        let codec = parameters.codecs.first().ok_or(Error::CodecNotFound)?;
        let extension = parameters.header_extensions.iter().find(|e| e.uri == PLAYOUT_DELAY);
        let negotiated = Negotiated {
            payload_type: codec.payload_type,
            playout_delay: extension.and_then(|e| u8::try_from(e.id).ok()),
        };
        self.negotiated = Some(negotiated);
        Ok(negotiated)
    }

    /// Sends one frame; `marker_last`: the last packet of a picture carries the marker, for sound it begins a spurt.
    pub(super) async fn send(&mut self, payloads: &[Bytes], timestamp: u32, marker_last: bool) -> Result<(), Error> {
        let Negotiated { payload_type, playout_delay } = self.negotiated().await?;
        for (i, payload) in payloads.iter().enumerate() {
            let mut header = rtp::header::Header {
                version: 2,
                marker: marker_last && i + 1 == payloads.len(),
                payload_type,
                sequence_number: self.sequence,
                timestamp,
                ssrc: self.ssrc,
                ..Default::default()
            };
            if let Some(id) = playout_delay {
                // Minimum and maximum delay of 0: show it at once (40 -> 14 ms measured).
                header.set_extension(id, Bytes::from_static(&[0; 3]))?;
            }
            self.sequence = self.sequence.wrapping_add(1);
            self.track.write_rtp(rtp::Packet { header, payload: payload.clone() }).await?;
        }
        Ok(())
    }
}

/// Waits for the browser's complaints about one track.
pub(super) struct Feedback {
    track: Arc<TrackLocalStaticRTP>,
}

impl Feedback {
    /// Resolves at each picture-loss report, `None` when the connection is closed.
    pub(super) async fn picture_lost(&self) -> Option<()> {
        loop {
            if matches!(self.track.poll().await?, TrackLocalEvent::OnRtcpPacket(_)) {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "v=0\r\na=ice-ufrag:x\r\na=fingerprint:sha-256 00\r\nm=video 9 UDP/TLS/RTP/SAVPF 108\r\na=rtpmap:108 H264/90000\r\n";

    #[test]
    fn offers_are_looked_at_before_anything_is_allocated() {
        assert_eq!(shape(GOOD), Ok(OfferShape { sound: false }));
        assert_eq!(shape(&format!("{GOOD}m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n")), Ok(OfferShape { sound: true }));
        for (bad, why) in [
            (String::new(), "v=0"),
            ("{\"sdp\":\"v=0\"}".to_owned(), "v=0"),
            ("v=0\r\nm=audio 9\r\n".to_owned(), "m=video"),
            (GOOD.replace("H264", "VP8"), "H264"),
            (GOOD.replace("a=ice-ufrag", "a=nothing"), "ICE"),
            (format!("{GOOD}{}", "a=x\r\n".repeat(20_000)), "more than 65536"),
        ] {
            let error = shape(&bad).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
