//! The hardware cursor of cards that have one (cirrus, vmware, virtio): drawn over the picture, never into it.
use std::ops::Range;

/// Larger cursors are ignored; QEMU's own limit is 512, but no guest of ours uses more than 64.
const MAX_SIDE: i32 = 256;

/// Shape and place of the cursor.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    width: i32,
    height: i32,
    hot_x: i32,
    hot_y: i32,
    x: i32,
    y: i32,
    shown: bool,
    /// `0xAARRGGBB`, not premultiplied.
    pixels: Vec<u32>,
}

impl Cursor {
    pub(crate) const fn new() -> Self {
        Self { width: 0, height: 0, hot_x: 0, hot_y: 0, x: 0, y: 0, shown: false, pixels: Vec::new() }
    }

    /// Sets the shape; an absurd one hides the cursor.
    pub(crate) fn define(&mut self, width: i32, height: i32, hot_x: i32, hot_y: i32, pixels: &[u32]) {
        let sane = (1..=MAX_SIDE).contains(&width)
            && (1..=MAX_SIDE).contains(&height)
            && i32::try_from(pixels.len()).is_ok_and(|n| n >= width * height);
        if !sane {
            (self.width, self.height) = (0, 0);
            return;
        }
        (self.width, self.height) = (width, height);
        (self.hot_x, self.hot_y) = (hot_x.clamp(0, width), hot_y.clamp(0, height));
        self.pixels.clear();
        self.pixels.extend_from_slice(pixels);
    }

    /// Moves it, and shows or hides it.
    pub(crate) fn place(&mut self, x: i32, y: i32, shown: bool) {
        let sane = -MAX_SIDE..=crate::frame::MAX_SIDE.cast_signed();
        self.shown = shown && sane.contains(&x) && sane.contains(&y);
        (self.x, self.y) = if self.shown { (x, y) } else { (0, 0) };
    }

    /// Rows of the picture that it covers; some may lie below the picture.
    pub(crate) fn rows(&self) -> Range<usize> {
        if !self.shown || self.width == 0 {
            return 0..0;
        }
        let top = self.y - self.hot_y;
        let clip = |y: i32| usize::try_from(y).unwrap_or(0);
        clip(top)..clip(top + self.height)
    }

    /// Draws the cursor's part of row `y` into `row`.
    pub(crate) fn blend(&self, y: usize, row: &mut [u32]) {
        let Some(line) =
            i32::try_from(y).ok().map(|y| y - (self.y - self.hot_y)).filter(|l| (0..self.height).contains(l))
        else {
            return;
        };
        let left = self.x - self.hot_x;
        for column in 0..self.width {
            let Some(pixel) = usize::try_from(left + column).ok().and_then(|x| row.get_mut(x)) else { continue };
            let source = self.pixels[usize::try_from(line * self.width + column).unwrap_or(0)];
            *pixel = over(source, *pixel);
        }
    }
}

fn over(source: u32, below: u32) -> u32 {
    let alpha = source >> 24;
    [16, 8, 0].iter().fold(0, |out, shift| {
        let (s, b) = (source >> shift & 0xff, below >> shift & 0xff);
        out | ((s * alpha + b * (255 - alpha) + 127) / 255) << shift
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_clipped_at_every_edge() {
        let mut c = Cursor::new();
        c.define(2, 2, 1, 1, &[0xff00_0001; 4]);
        for (x, y, row, want) in [(0, 0, 0, [1, 0, 0]), (3, 1, 0, [0, 0, 1]), (0, -5, 0, [0, 0, 0])] {
            let mut pixels = [0; 3];
            c.place(x, y, true);
            c.blend(row, &mut pixels);
            assert_eq!(pixels, want, "at {x},{y}");
        }
    }

    #[test]
    fn half_transparent_mixes_and_absurd_shapes_hide() {
        assert_eq!(over(0x80ff_0000, 0x0000_00ff), 0x0080_007f);
        let mut c = Cursor::new();
        c.place(1, 1, true);
        for (w, h, n) in [(0, 1, 1), (-1, 1, 1), (MAX_SIDE + 1, 1, 999), (2, 2, 3), (i32::MAX, i32::MAX, 4)] {
            c.define(w, h, 0, 0, &vec![0; n]);
            assert_eq!(c.rows(), 0..0, "{w}x{h}");
        }
        c.define(1, 1, 0, 0, &[1]);
        c.place(i32::MAX, i32::MIN, true);
        assert_eq!(c.rows(), 0..0);
    }
}
