//! `0x00RRGGBB` rows to I420, BT.601 limited range: what the H.264 stream's VUI says, so that browsers do not guess.
//!
//! The loops are written for the autovectoriser: fixed strides, 16-bit lanes, no branches.
use std::ops::Range;

/// A planar 4:2:0 picture in GStreamer's default layout (`gst_video_info_set_format`): strides are multiples of 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct I420 {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

impl I420 {
    /// A black picture. Both sides must be even: 4:2:0 has no half chroma samples.
    pub(crate) fn new(width: usize, height: usize) -> Self {
        assert!(width.is_multiple_of(2) && height.is_multiple_of(2), "{width}x{height} is not even");
        let mut picture = Self { width, height, data: Vec::new() };
        let luma = picture.luma_stride() * height;
        picture.data = vec![16; luma];
        picture.data.resize(luma + picture.chroma_stride() * height, 128);
        picture
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data
    }

    const fn luma_stride(&self) -> usize {
        self.width.next_multiple_of(4)
    }

    const fn chroma_stride(&self) -> usize {
        (self.width / 2).next_multiple_of(4)
    }

    fn chroma_row(&self, plane: usize, pair: usize) -> Range<usize> {
        let start = self.luma_stride() * self.height + self.chroma_stride() * (plane * self.height / 2 + pair);
        start..start + self.width / 2
    }

    /// Writes rows `2 * pair` and `2 * pair + 1`. Both rows have the picture's width.
    pub(crate) fn set_pair(&mut self, pair: usize, top: &[u32], bottom: &[u32]) {
        let stride = self.luma_stride();
        let (u, v) = (self.chroma_row(0, pair), self.chroma_row(1, pair));
        for (i, row) in [top, bottom].into_iter().enumerate() {
            let out = &mut self.data[(2 * pair + i) * stride..][..self.width];
            for (y, pixel) in out.iter_mut().zip(row) {
                *y = luma(*pixel);
            }
        }
        let (before, after) = self.data.split_at_mut(v.start);
        let (us, vs) = (&mut before[u], &mut after[..self.width / 2]);
        let pairs = top.chunks_exact(2).zip(bottom.chunks_exact(2));
        for ((u, v), (t, b)) in us.iter_mut().zip(vs).zip(pairs) {
            (*u, *v) = chroma(t[0], t[1], b[0], b[1]);
        }
    }
}

/// ITU-R BT.601: 16 + 65.481 R + 128.553 G + 24.966 B, in 1/256.
#[expect(clippy::cast_possible_truncation, reason = "channels are cut out of a word")]
#[inline]
const fn luma(pixel: u32) -> u8 {
    let (r, g, b) = ((pixel >> 16) as u8 as u16, (pixel >> 8) as u8 as u16, pixel as u8 as u16);
    // At most 220 * 255 + 128 + 4096 = 60324: sixteen bits are enough, and twice as many lanes fit a register.
    ((66 * r + 129 * g + 25 * b + 128 + (16 << 8)) >> 8) as u8
}

/// The mean of four pixels as Cb and Cr, in 1/1024 because the sum is not divided first.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the results lie between 16 and 240")]
#[inline]
const fn chroma(a: u32, b: u32, c: u32, d: u32) -> (u8, u8) {
    // Two channels of 8 bits are summed in one word: four times 255 needs 10 bits, and 16 are there.
    const RB: u32 = 0x00ff_00ff;
    let red_blue = (a & RB) + (b & RB) + (c & RB) + (d & RB);
    let (r, b_sum) = ((red_blue >> 16).cast_signed(), (red_blue & 0xffff).cast_signed());
    let g = ((a >> 8 & 0xff) + (b >> 8 & 0xff) + (c >> 8 & 0xff) + (d >> 8 & 0xff)).cast_signed();
    let u = (-38 * r - 74 * g + 112 * b_sum + 512 + (128 << 10)) >> 10;
    let v = (112 * r - 94 * g - 18 * b_sum + 512 + (128 << 10)) >> 10;
    (u as u8, v as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// BT.601 in real numbers.
    fn reference(pixel: u32) -> [f64; 3] {
        let [b, g, r, _] = pixel.to_le_bytes().map(|c| f64::from(c) / 255.0);
        [
            16.0 + 65.481 * r + 128.553 * g + 24.966 * b,
            128.0 - 37.797 * r - 74.203 * g + 112.0 * b,
            128.0 + 112.0 * r - 93.786 * g - 18.214 * b,
        ]
    }

    proptest! {
        #[test]
        fn within_one_step_of_the_standard(pixel in 0u32..0x0100_0000) {
            let mut picture = I420::new(2, 2);
            picture.set_pair(0, &[pixel; 2], &[pixel; 2]);
            let got = [picture.data[0], picture.data[8], picture.data[12]];
            for (got, want) in got.into_iter().zip(reference(pixel)) {
                prop_assert!((f64::from(got) - want).abs() <= 1.3, "{got} for {want:.2} of {pixel:#08x}");
            }
        }
    }

    #[test]
    fn planes_lie_where_gstreamer_expects_them() {
        // 6 wide: luma rows of 8, chroma rows of 4.
        let mut picture = I420::new(6, 4);
        assert_eq!(picture.bytes().len(), 8 * 4 + 2 * 4 * 2);
        picture.set_pair(1, &[0x00ff_ffff; 6], &[0x00ff_ffff; 6]);
        assert_eq!(&picture.bytes()[16..24], [235, 235, 235, 235, 235, 235, 16, 16]);
        picture.set_pair(1, &[0x00ff_0000; 6], &[0x00ff_0000; 6]);
        let (u, v) = (&picture.bytes()[32..40], &picture.bytes()[40..48]);
        assert_eq!(u, [128, 128, 128, 128, 90, 90, 90, 128]);
        assert_eq!(v, [128, 128, 128, 128, 240, 240, 240, 128]);
    }
}
