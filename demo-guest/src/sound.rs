//! Short effects, synthesised when they are needed: unsigned 8-bit samples, 11025 a second.
use crate::rng::Rng;
use crate::track::{FULL_TURN, sine};

/// Samples a second.
pub const RATE: i32 = 11_025;

/// What can be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A train departs.
    Whistle,
    /// A train arrives.
    Bell,
    /// A person has chosen something.
    Click,
}

/// Writes the samples; how many.
pub fn fill(effect: Effect, samples: &mut [u8]) -> usize {
    let len = match effect {
        Effect::Whistle => RATE * 11 / 10,
        Effect::Bell => RATE * 7 / 10,
        Effect::Click => RATE / 25,
    } as usize;
    let len = len.min(samples.len());
    let mut rng = Rng::new(len as u64);
    for (i, sample) in samples[..len].iter_mut().enumerate() {
        let (t, left) = (i as i32, (len - i) as i32);
        let level = match effect {
            Effect::Whistle => whistle(t, left, &mut rng),
            Effect::Bell => bell(t, left),
            Effect::Click => tone(t, 1500) * left / (RATE / 25) / 4,
        };
        *sample = (128 + (level >> 5)).clamp(0, 255) as u8;
    }
    len
}

/// A sine of `hertz` at sample `t`, 4096 = full.
fn tone(t: i32, hertz: i32) -> i32 {
    sine((i64::from(t) * i64::from(hertz) * i64::from(FULL_TURN) / i64::from(RATE)) as i32)
}

/// Two blasts of a three-note steam whistle.
fn whistle(t: i32, left: i32, rng: &mut Rng) -> i32 {
    let (start, stop, second) = (0, RATE * 3 / 10, RATE * 4 / 10);
    let (since, until) = if t < stop { (t - start, stop - t) } else { (t - second, left) };
    if since < 0 {
        return 0;
    }
    // 30 ms up, 120 ms down.
    let envelope = (since * 256 / 330).min(256).min(until * 256 / 1300);
    let wobble = tone(t, 6) / 700;
    let chord = tone(t, 620 + wobble) + tone(t, 780 + wobble) + tone(t, 932 + wobble);
    let hiss = rng.range(-350, 350);
    (chord * 7 / 25 + hiss) * envelope / 256
}

/// The station bell: a strike that fades.
fn bell(t: i32, left: i32) -> i32 {
    let fade = left * 256 / (RATE * 7 / 10);
    let fade = fade * fade / 256;
    (tone(t, 1320) * 5 + tone(t, 2640) * 2 + tone(t, 3570)) / 9 * fade / 256
}

#[cfg(test)]
mod tests {
    use super::{Effect, fill};

    #[test]
    fn effects_are_heard_and_end_in_silence() {
        for effect in [Effect::Whistle, Effect::Bell, Effect::Click] {
            let mut samples = [0; 16_384];
            let len = fill(effect, &mut samples);
            assert!(len > 400 && len < samples.len());
            let loudest = samples[..len].iter().map(|s| s.abs_diff(128)).max().unwrap();
            assert!((20..=127).contains(&loudest), "{effect:?}: {loudest}");
            let last = samples[len - 20..len].iter().map(|s| s.abs_diff(128)).max().unwrap();
            assert!(last <= 8, "{effect:?} ends at {last}");
            assert_eq!(fill(effect, &mut samples[..100]), 100);
        }
    }
}
