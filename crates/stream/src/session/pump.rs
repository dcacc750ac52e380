//! Carries one session's pictures and sound from the encoders to its tracks.
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use prometheus::IntCounterVec;
use tokio::sync::{Notify, broadcast::error::RecvError, mpsc, watch};

use super::{meter::Meter, peer::Outgoing, trace::Tracer};
use crate::{
    Tier,
    audio::{OpusPacket, SoundSubscription},
    encoder::{EncodedFrame, Encoders, Subscription, Target},
    input::message::ToBrowser,
};

const STATS_EVERY: Duration = Duration::from_secs(1);

/// All that a pump works with. It runs until it is dropped, its connection is closed or its encoder panics.
pub(super) struct Pump {
    pub(super) instance: String,
    pub(super) encoders: Arc<Encoders>,
    pub(super) video: Outgoing,
    pub(super) sound: Option<(Outgoing, SoundSubscription)>,
    pub(super) target: Target,
    pub(super) tier: watch::Receiver<Option<Tier>>,
    /// The browser lost a picture, or says so.
    pub(super) key_frame: Arc<Notify>,
    pub(super) tracer: Arc<Mutex<Tracer>>,
    pub(super) to_browser: mpsc::Sender<ToBrowser>,
    pub(super) meter: Arc<Meter>,
    pub(super) dropped: IntCounterVec,
}

#[derive(Default)]
struct Second {
    frames: u64,
    bytes: u64,
}

impl Pump {
    pub(super) async fn run(mut self) {
        let began = Instant::now();
        let mut clock = VideoClock { began, offset: rand::random(), last: 0 };
        let sound_offset: u32 = rand::random();
        let mut second = Second::default();
        let mut stats = tokio::time::interval(STATS_EVERY);
        stats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut viewing = self.view();
        let mut needs_key = true;
        loop {
            tokio::select! {
                biased;
                changed = self.tier.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    viewing = self.view();
                    needs_key = true;
                }
                () = self.key_frame.notified() => {
                    if let Some(viewing) = &viewing {
                        viewing.request_key_frame();
                    }
                }
                packet = next_sound(&mut self.sound) => {
                    if let Err(error) = self.send_sound(&packet, sound_offset).await {
                        tracing::warn!(instance = self.instance, %error, "sound cannot be sent; the picture goes on");
                        self.sound = None;
                    }
                }
                frame = next_frame(&mut viewing) => match frame {
                    Ok(frame) if needs_key && !frame.key => {}
                    Ok(frame) => {
                        needs_key = false;
                        second.frames += 1;
                        second.bytes += frame.bytes as u64;
                        if self.send_frame(&frame, &mut clock).await.is_err() {
                            return;
                        }
                    }
                    Err(RecvError::Lagged(frames)) => {
                        // The oldest are gone; what follows cannot be decoded without them.
                        needs_key = true;
                        if let Some(viewing) = &viewing {
                            self.dropped.with_label_values(&[&self.instance, viewing.tier().as_str()]).inc_by(frames);
                            viewing.request_key_frame();
                        }
                    }
                    // The encoder lives as long as its subscription, so it has panicked.
                    Err(RecvError::Closed) => return,
                },
                _ = stats.tick() => {
                    if second.frames > 0 && let Some(viewing) = &viewing {
                        self.report(viewing.tier(), &second);
                    }
                    second = Second::default();
                }
            }
        }
    }

    fn view(&mut self) -> Option<Subscription> {
        let tier = *self.tier.borrow_and_update();
        tier.map(|tier| self.encoders.subscribe(tier, Arc::clone(&self.target)))
    }

    async fn send_frame(
        &mut self,
        frame: &EncodedFrame,
        clock: &mut VideoClock,
    ) -> Result<(), rtc::shared::error::Error> {
        let timestamp = clock.stamp(frame.taken);
        self.video.send(&frame.payloads, timestamp, true).await?;
        // The oldest change that it shows; a frame for a newcomer shows none.
        if let Some(took) = frame.damage.iter().min().and_then(|drawn| drawn.elapsed().ok()) {
            self.meter.made(took);
        }
        let reports = {
            let mut tracer = self.tracer.lock().unwrap_or_else(PoisonError::into_inner);
            if tracer.is_on() { tracer.sent(frame, timestamp, SystemTime::now()) } else { Vec::new() }
        };
        for report in reports {
            // A browser that does not read loses reports, not frames.
            self.to_browser.try_send(ToBrowser::Trace(report)).ok();
        }
        Ok(())
    }

    async fn send_sound(&mut self, packet: &OpusPacket, offset: u32) -> Result<(), rtc::shared::error::Error> {
        let Some((track, _)) = &mut self.sound else { return Ok(()) };
        let timestamp = packet.ticks.wrapping_add(offset);
        track.send(std::slice::from_ref(&packet.data), timestamp, packet.talk_spurt).await
    }

    fn report(&self, tier: Tier, second: &Second) {
        let target_bps = self.target.load(std::sync::atomic::Ordering::Relaxed);
        let stats =
            ToBrowser::Stats { tier: tier.as_str(), frames: second.frames, bitrate_bps: second.bytes * 8, target_bps };
        self.to_browser.try_send(stats).ok();
    }
}

/// Never resolves while nothing is watched.
async fn next_frame(viewing: &mut Option<Subscription>) -> Result<Arc<EncodedFrame>, RecvError> {
    match viewing {
        Some(viewing) => viewing.frames.recv().await,
        None => std::future::pending().await,
    }
}

/// Never resolves without sound; skips what was lost by being slow.
async fn next_sound(sound: &mut Option<(Outgoing, SoundSubscription)>) -> Arc<OpusPacket> {
    let Some((_, sound)) = sound else { return std::future::pending().await };
    loop {
        match sound.packets.recv().await {
            Ok(packet) => return packet,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// RTP time stamps at 90 kHz from the moments at which pictures were taken; always growing, also across encoders.
struct VideoClock {
    began: Instant,
    offset: u32,
    last: u64,
}

impl VideoClock {
    fn stamp(&mut self, taken: Instant) -> u32 {
        let ticks = taken.saturating_duration_since(self.began).as_nanos() * 9 / 100_000;
        self.last = u64::try_from(ticks).unwrap_or(u64::MAX).max(self.last + 1);
        #[expect(clippy::cast_possible_truncation, reason = "RTP time wraps around")]
        self.offset.wrapping_add(self.last as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn video_time_grows_whatever_encoders_say() {
        let began = Instant::now();
        let mut clock = VideoClock { began, offset: u32::MAX, last: 0 };
        assert_eq!(clock.stamp(began + Duration::from_millis(10)), 899);
        assert_eq!(clock.stamp(began + Duration::from_millis(9)), 900, "an encoder that was started earlier");
        assert_eq!(clock.stamp(began + Duration::from_millis(20)), 1799);
    }
}
