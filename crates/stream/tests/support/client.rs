//! A viewer without a browser: the same WebRTC crate at the other end.
#![allow(clippy::unwrap_used, reason = "test code: a panic is the message")]
use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rtc::{
    peer_connection::{
        configuration::{
            RTCConfigurationBuilder, interceptor_registry::register_default_interceptors, media_engine::MediaEngine,
        },
        sdp::RTCSessionDescription,
    },
    rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit, rtp_sender::RtpCodecKind},
};
use serde_json::Value;
use stream::{Answer, InstanceStream, OfferError, Role, Tier};
use tokio::sync::{mpsc, watch};
use webrtc::{
    data_channel::{DataChannel, DataChannelEvent, RTCDataChannelInit},
    media_stream::track_remote::{TrackRemote, TrackRemoteEvent},
    peer_connection::{
        PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState, Registry,
        SettingEngineBuilder,
    },
};

const PATIENCE: Duration = Duration::from_secs(15);

/// One access unit, put together from its packets.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(crate) timestamp: u32,
    pub(crate) key: bool,
    /// From the sequence parameter set, if the picture came with one.
    pub(crate) sps: Option<Bytes>,
}

pub(crate) struct Client {
    connection: Arc<dyn PeerConnection>,
    keys: Arc<dyn DataChannel>,
    pointer: Arc<dyn DataChannel>,
    pub(crate) pictures: mpsc::Receiver<Picture>,
    messages: mpsc::Receiver<Value>,
    kept: Vec<Value>,
    pub(crate) answer: Answer,
}

struct Handler {
    gathered: watch::Sender<bool>,
    pictures: mpsc::Sender<Picture>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.send_replace(true);
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let pictures = self.pictures.clone();
        tokio::spawn(async move {
            if track.kind().await != RtpCodecKind::Video {
                return;
            }
            let mut units = Units::default();
            while let Some(event) = track.poll().await {
                let TrackRemoteEvent::OnRtpPacket(packet) = event else { continue };
                if let Some(picture) = units.add(packet.header.timestamp, packet.header.marker, &packet.payload) {
                    pictures.try_send(picture).ok();
                }
            }
        });
    }
}

/// Puts RTP payloads together (RFC 6184): as much as tests look at.
#[derive(Default)]
struct Units {
    key: bool,
    sps: Option<Bytes>,
}

impl Units {
    fn add(&mut self, timestamp: u32, last: bool, payload: &Bytes) -> Option<Picture> {
        const IDR: u8 = 5;
        match payload.first().map(|b| b & 0x1f) {
            Some(IDR) => self.key = true,
            // FU-A: the type is in the second byte.
            Some(28) => self.key |= payload.get(1).is_some_and(|b| b & 0x1f == IDR),
            // STAP-A: the first unit of ours is the SPS.
            Some(24) if payload.len() > 4 => {
                let length = usize::from(payload[1]) << 8 | usize::from(payload[2]);
                if payload[3] & 0x1f == 7 && payload.len() >= 3 + length {
                    self.sps = Some(payload.slice(3..3 + length));
                }
            }
            _ => {}
        }
        last.then(|| {
            let done = std::mem::take(self);
            Picture { timestamp, key: done.key, sps: done.sps }
        })
    }
}

/// An offer as a browser makes it, and the connection that it belongs to.
pub(crate) struct Offered {
    connection: Arc<dyn PeerConnection>,
    keys: Arc<dyn DataChannel>,
    pointer: Arc<dyn DataChannel>,
    pictures: mpsc::Receiver<Picture>,
    pub(crate) sdp: String,
}

pub(crate) async fn offer() -> Offered {
    let mut engine = MediaEngine::default();
    engine.register_default_codecs().unwrap();
    let registry = register_default_interceptors(Registry::new(), &mut engine).unwrap();
    let (gathered_tx, mut gathered) = watch::channel(false);
    let (pictures_tx, pictures) = mpsc::channel(1024);
    let handler = Handler { gathered: gathered_tx, pictures: pictures_tx };
    let builder = PeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().build())
        .with_media_engine(engine)
        .with_interceptor_registry(registry)
        .with_setting_engine(
            SettingEngineBuilder::new()
                .with_include_loopback_candidate(true)
                // It would need a route for multicast, which a machine without a network has not.
                .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
                .build(),
        )
        .with_handler(Arc::new(handler))
        .with_udp_addrs(vec!["127.0.0.1:0".to_owned()]);
    let connection: Arc<dyn PeerConnection> = Arc::new(Box::pin(builder.build()).await.unwrap());
    for kind in [RtpCodecKind::Video, RtpCodecKind::Audio] {
        let receive = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Recvonly,
            ..RTCRtpTransceiverInit::default()
        };
        connection.add_transceiver_from_kind(kind, Some(receive)).await.unwrap();
    }
    let keys = connection.create_data_channel("keys", None).await.unwrap();
    let loose = RTCDataChannelInit { ordered: false, max_retransmits: Some(0), ..RTCDataChannelInit::default() };
    let pointer = connection.create_data_channel("pointer", Some(loose)).await.unwrap();
    let local = connection.create_offer(None).await.unwrap();
    connection.set_local_description(local).await.unwrap();
    tokio::time::timeout(PATIENCE, gathered.wait_for(|done| *done)).await.unwrap().unwrap();
    let sdp = connection.local_description().await.unwrap().sdp;
    Offered { connection, keys, pointer, pictures, sdp }
}

impl Offered {
    pub(crate) async fn connect(self, stream: &InstanceStream, tier: Tier, role: Role) -> Result<Client, OfferError> {
        let answer = match stream.offer(&self.sdp, tier, role).await {
            Ok(answer) => answer,
            Err(error) => {
                self.connection.close().await.ok();
                return Err(error);
            }
        };
        let description = RTCSessionDescription::answer(answer.sdp.clone()).unwrap();
        self.connection.set_remote_description(description).await.unwrap();
        let (tx, messages) = mpsc::channel(1024);
        let keys = Arc::clone(&self.keys);
        tokio::spawn(async move {
            while let Some(event) = keys.poll().await {
                if let DataChannelEvent::OnMessage(message) = event {
                    tx.try_send(serde_json::from_slice(&message.data).unwrap()).ok();
                }
            }
        });
        let Self { connection, keys, pointer, pictures, .. } = self;
        Ok(Client { connection, keys, pointer, pictures, messages, kept: Vec::new(), answer })
    }
}

impl Client {
    pub(crate) async fn connect(stream: &InstanceStream, tier: Tier, role: Role) -> Self {
        offer().await.connect(stream, tier, role).await.unwrap()
    }

    pub(crate) async fn say(&self, message: &str) {
        self.keys.send_text(message).await.unwrap();
    }

    pub(crate) async fn point(&self, message: &str) {
        self.pointer.send_text(message).await.unwrap();
    }

    /// The next message of that kind; others are kept for later.
    pub(crate) async fn hear(&mut self, kind: &str) -> Value {
        self.hear_where(kind, |_| true).await
    }

    pub(crate) async fn hear_where(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let fits = |m: &Value| m["t"] == kind && wanted(m);
        if let Some(at) = self.kept.iter().position(&fits) {
            return self.kept.remove(at);
        }
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let message = tokio::time::timeout_at(until, self.messages.recv()).await;
            let message =
                message.unwrap_or_else(|_| panic!("no `{kind}`; heard {:?}", self.kept)).expect("channel open");
            if fits(&message) {
                return message;
            }
            self.kept.push(message);
        }
    }

    pub(crate) async fn picture(&mut self, wanted: impl Fn(&Picture) -> bool) -> Picture {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let picture =
                tokio::time::timeout_at(until, self.pictures.recv()).await.expect("a picture in time").unwrap();
            if wanted(&picture) {
                return picture;
            }
        }
    }

    /// Vanishes without a word.
    pub(crate) async fn vanish(self) {
        self.connection.close().await.unwrap();
    }
}
