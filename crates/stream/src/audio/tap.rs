//! What QEMU wrote and the encoder has not taken yet.
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// How a stream's samples lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SampleFormat {
    pub(crate) bits: u8,
    pub(crate) signed: bool,
    pub(crate) float: bool,
    pub(crate) big_endian: bool,
    pub(crate) rate: u32,
    pub(crate) channels: u8,
}

impl SampleFormat {
    /// GStreamer's name of it; `None` for what no sound card has.
    pub(crate) const fn gstreamer(&self) -> Option<&'static str> {
        if !matches!(self.rate, 4000..=192_000) || !matches!(self.channels, 1..=2) {
            return None;
        }
        Some(match (self.float, self.signed, self.bits, self.big_endian) {
            (true, _, 32, false) => "F32LE",
            (true, _, 32, true) => "F32BE",
            (false, true, 16, false) => "S16LE",
            (false, true, 16, true) => "S16BE",
            (false, false, 16, false) => "U16LE",
            (false, false, 16, true) => "U16BE",
            (false, true, 32, false) => "S32LE",
            (false, true, 32, true) => "S32BE",
            (false, true, 8, _) => "S8",
            (false, false, 8, _) => "U8",
            _ => return None,
        })
    }

    pub(crate) fn frame_bytes(&self) -> usize {
        usize::from(self.bits / 8) * usize::from(self.channels)
    }

    fn bytes_per_second(&self) -> usize {
        self.frame_bytes() * self.rate as usize
    }
}

/// Samples of one format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) format: SampleFormat,
    pub(crate) data: Vec<u8>,
}

/// A guest's sound.
#[derive(Debug, Default)]
pub struct AudioTap {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The stream that plays: the last one enabled.
    stream: Option<(u64, SampleFormat)>,
    volume: Volume,
    /// Which encoder wants sound: a counter, because the next may begin before the last has ended.
    wanted: Option<u64>,
    encoders: u64,
    queue: VecDeque<Chunk>,
    queued: usize,
}

#[derive(Debug, Clone, Copy)]
struct Volume {
    mute: bool,
    left: u8,
    right: u8,
}

impl Default for Volume {
    fn default() -> Self {
        Self { mute: false, left: 255, right: 255 }
    }
}

impl AudioTap {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enabled(&self, id: u64, format: SampleFormat) {
        self.lock().stream = Some((id, format));
    }

    pub(super) fn disabled(&self, id: u64) {
        let mut state = self.lock();
        if state.stream.is_some_and(|(playing, _)| playing == id) {
            state.stream = None;
        }
    }

    pub(super) fn volume(&self, mute: bool, channels: &[u8]) {
        let left = channels.first().copied().unwrap_or(255);
        self.lock().volume = Volume { mute, left, right: channels.get(1).copied().unwrap_or(left) };
    }

    /// Takes samples; drops them if nobody listens, and the oldest if the encoder lags by 200 ms.
    pub(super) fn write(&self, id: u64, data: &[u8]) {
        let mut state = self.lock();
        let Some((_, format)) = state.stream.filter(|(playing, _)| *playing == id) else { return };
        let whole = data.len() / format.frame_bytes().max(1) * format.frame_bytes();
        if state.wanted.is_none() || whole == 0 || data[..whole].iter().all(|b| *b == 0) || state.volume.mute {
            return;
        }
        let mut data = data[..whole].to_vec();
        state.volume.apply(format, &mut data);
        state.queued += data.len();
        state.queue.push_back(Chunk { format, data });
        while state.queued > format.bytes_per_second() / 5
            && let Some(old) = state.queue.pop_front()
        {
            state.queued -= old.data.len();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Somebody listens. The number is for [`Self::next`] and [`Self::close`]; an earlier one is no longer served.
    pub(super) fn open(&self) -> u64 {
        let mut state = self.lock();
        state.encoders += 1;
        state.wanted = Some(state.encoders);
        state.encoders
    }

    pub(super) fn close(&self, encoder: u64) {
        let mut state = self.lock();
        if state.wanted == Some(encoder) {
            state.wanted = None;
            state.queue.clear();
            state.queued = 0;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The next samples; blocks until there are some, `None` once `encoder` is closed or followed by another.
    pub(super) fn next(&self, encoder: u64) -> Option<Chunk> {
        let mut state = self.lock();
        loop {
            if state.wanted != Some(encoder) {
                return None;
            }
            if let Some(chunk) = state.queue.pop_front() {
                state.queued -= chunk.data.len();
                return Some(chunk);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Volume {
    /// QEMU leaves the mixing of its volume to us. Only the format that it uses by default is worth it.
    fn apply(self, format: SampleFormat, data: &mut [u8]) {
        if (self.left, self.right) == (255, 255) || format.gstreamer() != Some("S16LE") || format.channels != 2 {
            return;
        }
        for frame in data.chunks_exact_mut(4) {
            for (sample, volume) in frame.chunks_exact_mut(2).zip([self.left, self.right]) {
                let scaled = i32::from(i16::from_le_bytes([sample[0], sample[1]])) * i32::from(volume) / 255;
                sample.copy_from_slice(&i16::try_from(scaled).expect("no louder than before").to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CD: SampleFormat =
        SampleFormat { bits: 16, signed: true, float: false, big_endian: false, rate: 48_000, channels: 2 };

    fn playing() -> Arc<AudioTap> {
        let tap = AudioTap::new();
        tap.enabled(1, CD);
        assert_eq!(tap.open(), 1);
        tap
    }

    #[test]
    fn only_sound_of_the_playing_stream_is_kept() {
        let tap = playing();
        tap.write(2, &[1; 4]);
        tap.write(1, &[0; 400]);
        tap.write(1, &[5, 0, 6, 0, 9]);
        assert_eq!(tap.next(1), Some(Chunk { format: CD, data: vec![5, 0, 6, 0] }), "whole frames");
        tap.disabled(2);
        tap.write(1, &[1; 4]);
        assert!(tap.next(1).is_some(), "another stream was disabled");
        tap.disabled(1);
        tap.write(1, &[1; 4]);
        assert_eq!(tap.lock().queue.len(), 0);
    }

    #[test]
    fn a_slow_encoder_loses_the_oldest_and_nobody_listening_all() {
        let tap = playing();
        for i in 1..=30u8 {
            tap.write(1, &[i; 1920]);
        }
        assert_eq!(tap.lock().queue.len(), 20, "200 ms");
        assert_eq!(tap.next(1).unwrap().data[0], 11);
        assert_eq!(tap.open(), 2);
        tap.close(1);
        tap.write(1, &[1; 4]);
        assert_eq!((tap.next(1), tap.next(2).is_some()), (None, true), "the next encoder is not closed by the last");
        tap.close(2);
        tap.write(1, &[1; 4]);
        assert_eq!((tap.next(2), tap.lock().queue.len()), (None, 0));
    }

    #[test]
    fn volume_and_mute_are_applied() {
        let tap = playing();
        tap.volume(false, &[0, 255]);
        tap.write(1, &[0, 0x40, 0, 0x40]);
        assert_eq!(tap.next(1).unwrap().data, [0, 0, 0, 0x40]);
        tap.volume(true, &[255, 255]);
        tap.write(1, &[1; 4]);
        assert_eq!(tap.lock().queue.len(), 0);
    }

    #[test]
    fn odd_formats_have_no_name() {
        assert_eq!(CD.gstreamer(), Some("S16LE"));
        for bad in [SampleFormat { bits: 24, ..CD }, SampleFormat { rate: 0, ..CD }, SampleFormat { channels: 9, ..CD }]
        {
            assert_eq!(bad.gstreamer(), None, "{bad:?}");
        }
    }
}
