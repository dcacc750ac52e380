//! A tier's view of the screen: which size it has, and the picture that is kept up to date for it.
use crate::{Size, Tier, frame::Frame};

use super::{i420::I420, scale::Scaler};

/// No thumbnail is smaller: below this Chromium decodes in software past its eighth decoder.
const THUMB: Size = Size { width: 320, height: 240 };

/// What one refresh did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Refresh {
    /// Rows of the picture that were converted anew, and of how many.
    pub(crate) rows: usize,
    pub(crate) of: usize,
}

/// A kept picture of the screen.
#[derive(Debug)]
pub(crate) struct View {
    source: Size,
    out: Size,
    seen: u64,
    picture: I420,
    scaler: Option<Scaler>,
    top: Vec<u32>,
    bottom: Vec<u32>,
}

impl View {
    pub(crate) fn new(tier: Tier, source: Size) -> Self {
        let out = even(match tier {
            Tier::Full => source,
            Tier::Thumb => thumb(source),
        });
        let (width, height) = (out.width as usize, out.height as usize);
        // A full picture of odd size is padded, not scaled: text would blur.
        let scaler = (tier == Tier::Thumb && out != source)
            .then(|| Scaler::new((source.width as usize, source.height as usize), (width, height)));
        let picture = I420::new(width, height);
        Self { source, out, seen: 0, picture, scaler, top: vec![0; width], bottom: vec![0; width] }
    }

    /// The size of the guest's picture that this was made for.
    pub(crate) const fn source(&self) -> Size {
        self.source
    }

    /// The size of the encoded picture; even.
    pub(crate) const fn out(&self) -> Size {
        self.out
    }

    /// The last generation that is in the picture.
    pub(crate) const fn seen(&self) -> u64 {
        self.seen
    }

    pub(crate) const fn picture(&self) -> &I420 {
        &self.picture
    }

    /// Brings the picture up to date. `frame` must have the size that this view was made for.
    pub(crate) fn refresh(&mut self, frame: &Frame) -> Refresh {
        assert_eq!(frame.size(), Some(self.source), "a view is made anew for a new size");
        let mut rows = 0;
        let mut scratch = Vec::new();
        let last = self.source.height as usize - 1;
        for pair in 0..self.out.height as usize / 2 {
            if let Some(scaler) = &mut self.scaler {
                let covers = scaler.covers(2 * pair).start..scaler.covers(2 * pair + 1).end;
                if !covers.into_iter().any(|y| frame.row_changed(y, self.seen)) {
                    continue;
                }
                for (y, out) in [(2 * pair, &mut self.top), (2 * pair + 1, &mut self.bottom)] {
                    scaler.row(y, out, |i, with| with(frame.row(i, &mut scratch)));
                }
                self.picture.set_pair(pair, &self.top, &self.bottom);
            } else {
                let (top, bottom) = ((2 * pair).min(last), (2 * pair + 1).min(last));
                if !frame.row_changed(top, self.seen) && !frame.row_changed(bottom, self.seen) {
                    continue;
                }
                pad(frame.row(top, &mut scratch), &mut self.top);
                pad(frame.row(bottom, &mut scratch), &mut self.bottom);
                self.picture.set_pair(pair, &self.top, &self.bottom);
            }
            rows += 2;
        }
        self.seen = frame.generation();
        Refresh { rows, of: self.out.height as usize }
    }
}

/// Copies a row and repeats its last pixel, if the picture is wider by one.
fn pad(row: &[u32], out: &mut [u32]) {
    let n = row.len().min(out.len());
    out[..n].copy_from_slice(&row[..n]);
    let edge = out[n - 1];
    out[n..].fill(edge);
}

const fn even(size: Size) -> Size {
    Size { width: size.width.next_multiple_of(2), height: size.height.next_multiple_of(2) }
}

/// The smallest size of the same shape that is at least 320x240.
fn thumb(source: Size) -> Size {
    let (w, h) = (u64::from(source.width), u64::from(source.height));
    // Compare 320/w with 240/h without dividing; the larger factor makes both sides long enough.
    let (numerator, denominator) = if u64::from(THUMB.width) * h >= u64::from(THUMB.height) * w {
        (u64::from(THUMB.width), w)
    } else {
        (u64::from(THUMB.height), h)
    };
    // A line of 4096x1 must not become a picture a million wide.
    let side =
        |s: u64| u32::try_from((s * numerator).div_ceil(denominator)).unwrap_or(u32::MAX).min(crate::frame::MAX_SIDE);
    Size { width: side(w), height: side(h) }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;
    use crate::frame::{Layout, Rect};

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    fn layout(size: Size) -> Layout {
        Layout::checked(size, size.width * 4, 0x2002_0888).unwrap()
    }

    fn noise(seed: u64, pixels: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut byte = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..pixels * 4).map(|_| byte()).collect()
    }

    #[test]
    fn thumbnails_keep_the_shape_and_are_large_enough() {
        for (from, to) in [
            ((640, 480), (320, 240)),
            ((800, 600), (320, 240)),
            ((1024, 768), (320, 240)),
            ((720, 400), (432, 240)),
            ((640, 350), (439, 240)),
            ((320, 200), (384, 240)),
            ((1280, 1024), (320, 256)),
        ] {
            assert_eq!(thumb(size(from.0, from.1)), size(to.0, to.1), "{from:?}");
        }
        assert_eq!(thumb(size(4096, 1)).width, 4096);
        assert_eq!(View::new(Tier::Thumb, size(640, 350)).out(), size(440, 240));
    }

    #[test]
    fn a_static_screen_converts_nothing() {
        let mut frame = Frame::new();
        let s = size(64, 48);
        frame.scanout(s, layout(s), &noise(1, 64 * 48), SystemTime::UNIX_EPOCH).unwrap();
        let mut view = View::new(Tier::Full, s);
        assert_eq!(view.refresh(&frame), Refresh { rows: 48, of: 48 });
        assert_eq!(view.refresh(&frame), Refresh { rows: 0, of: 48 });
        let rect = Rect { x: 3, y: 7, width: 2, height: 1 };
        frame.write(rect, layout(size(2, 1)), &noise(2, 2), SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(view.refresh(&frame), Refresh { rows: 2, of: 48 });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Whatever is drawn where, refreshing bit by bit ends with the picture that a fresh view makes.
        #[test]
        fn incremental_equals_whole(
            (w, h) in (1u32..420, 1u32..300),
            thumbnail: bool,
            steps in prop::collection::vec((any::<u64>(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1u32..60, 1u32..60, any::<bool>()), 1..8),
        ) {
            let tier = if thumbnail { Tier::Thumb } else { Tier::Full };
            let s = size(w, h);
            let mut frame = Frame::new();
            frame.scanout(s, layout(s), &noise(7, (w * h) as usize), SystemTime::UNIX_EPOCH).unwrap();
            frame.change_cursor(SystemTime::UNIX_EPOCH, |c| c.define(5, 4, 1, 1, &[0x90ff_00ff; 20]));
            let mut view = View::new(tier, s);
            view.refresh(&frame);
            for (seed, x, y, rw, rh, cursor) in steps {
                let (x, y) = (x.index(w as usize), y.index(h as usize));
                let part = size(rw.min(w - u32::try_from(x).unwrap()), rh.min(h - u32::try_from(y).unwrap()));
                let rect = Rect { x, y, width: part.width as usize, height: part.height as usize };
                frame.write(rect, layout(part), &noise(seed, rect.width * rect.height), SystemTime::UNIX_EPOCH).unwrap();
                if cursor {
                    frame.change_cursor(SystemTime::UNIX_EPOCH, |c| c.place(i32::try_from(x).unwrap(), i32::try_from(y).unwrap(), seed % 3 != 0));
                }
                view.refresh(&frame);
            }
            let mut fresh = View::new(tier, s);
            fresh.refresh(&frame);
            prop_assert_eq!(view.picture(), fresh.picture());
        }
    }
}
