//! A box filter from any size to any size: each pixel of the result is the mean of the area that it covers.
use std::ops::Range;

/// The weights of one axis, in 1/256 and summing up to exactly 256 per output pixel.
#[derive(Debug)]
struct Axis {
    /// First input pixel and the weights from there.
    taps: Vec<(usize, Vec<u16>)>,
}

impl Axis {
    fn new(input: usize, output: usize) -> Self {
        let taps = (0..output).map(|i| Self::tap(input, output, i)).collect();
        Self { taps }
    }

    /// Output pixel `i` covers `[i * input, (i + 1) * input)` in units of 1/output input pixels.
    fn tap(input: usize, output: usize, i: usize) -> (usize, Vec<u16>) {
        let (start, end) = (i * input, (i + 1) * input);
        let (first, last) = (start / output, (end - 1) / output);
        let mut sum = 0;
        let mut weights = Vec::with_capacity(last - first + 1);
        for pixel in first..=last {
            // Up to here the weights must sum up to this share of 256: rounding errors do not add up.
            let covered = end.min((pixel + 1) * output) - start;
            let share = (covered * 256 + input / 2) / input;
            weights.push(u16::try_from(share - sum).expect("a share is at most 256"));
            sum = share;
        }
        (first, weights)
    }

    fn covers(&self, i: usize) -> Range<usize> {
        let (first, weights) = &self.taps[i];
        *first..first + weights.len()
    }
}

#[derive(Debug)]
pub(super) struct Scaler {
    rows: Axis,
    columns: Axis,
    /// Twice as small in both directions, which is 640x480 to 320x240: a loop without weights.
    half: bool,
    /// Vertical sums of one output row, channel by channel.
    sums: Vec<u16>,
}

impl Scaler {
    pub(super) fn new(from: (usize, usize), to: (usize, usize)) -> Self {
        Self {
            rows: Axis::new(from.1, to.1),
            columns: Axis::new(from.0, to.0),
            half: from.0 == 2 * to.0 && from.1 == 2 * to.1,
            sums: vec![0; from.0 * 4],
        }
    }

    /// Input rows that output row `y` is made of.
    pub(super) fn covers(&self, y: usize) -> Range<usize> {
        self.rows.covers(y)
    }

    /// Makes output row `y`; `row` gives an input row to the function that it is handed.
    pub(super) fn row(&mut self, y: usize, out: &mut [u32], mut row: impl FnMut(usize, &mut dyn FnMut(&[u32]))) {
        let (first, weights) = &self.rows.taps[y];
        self.sums.fill(0);
        for (i, weight) in weights.iter().enumerate() {
            let sums = &mut self.sums;
            row(first + i, &mut |pixels| add(sums, pixels, *weight));
        }
        if self.half {
            halve(&self.sums, out);
        } else {
            reduce(&self.sums, &self.columns, out);
        }
    }
}

/// At most 256 * 255, because the weights of a row sum up to 256.
fn add(sums: &mut [u16], pixels: &[u32], weight: u16) {
    for (sum, pixel) in sums.chunks_exact_mut(4).zip(pixels) {
        for (sum, channel) in sum.iter_mut().zip(pixel.to_le_bytes()) {
            *sum += u16::from(channel) * weight;
        }
    }
}

fn halve(sums: &[u16], out: &mut [u32]) {
    for (out, pair) in out.iter_mut().zip(sums.chunks_exact(8)) {
        let channel = |c: usize| (u32::from(pair[c]) + u32::from(pair[c + 4]) + 256) >> 9;
        *out = channel(0) | channel(1) << 8 | channel(2) << 16;
    }
}

fn reduce(sums: &[u16], columns: &Axis, out: &mut [u32]) {
    for (out, (first, weights)) in out.iter_mut().zip(&columns.taps) {
        let mut total = [1u32 << 15; 4];
        for (pixel, weight) in sums[first * 4..].chunks_exact(4).zip(weights) {
            for (total, channel) in total.iter_mut().zip(pixel) {
                *total += u32::from(*channel) * u32::from(*weight);
            }
        }
        *out = total[0] >> 16 | total[1] >> 16 << 8 | total[2] >> 16 << 16;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scale(pixels: &[u32], from: (usize, usize), to: (usize, usize)) -> Vec<u32> {
        let mut scaler = Scaler::new(from, to);
        let mut out = vec![0; to.0 * to.1];
        for (y, row) in out.chunks_exact_mut(to.0).enumerate() {
            scaler.row(y, row, |i, with| with(&pixels[i * from.0..][..from.0]));
        }
        out
    }

    #[test]
    fn halves_are_means_of_four() {
        let out = scale(&[0x00_10, 0x00_20, 0x00_30, 0x00_40, 0, 0, 0, 0xff_ff_ff], (4, 2), (2, 1));
        assert_eq!(out, [0x0c, 0x40_40_5c]);
    }

    #[test]
    fn uneven_shares_are_weighted() {
        // 3 -> 2: the middle pixel goes half to each side.
        assert_eq!(scale(&[0, 90, 90], (3, 1), (2, 1)), [30, 90]);
        assert_eq!(scale(&[7, 9], (2, 1), (4, 1)), [7, 7, 9, 9], "enlarging repeats");
    }

    proptest! {
        #[test]
        fn a_plain_picture_stays_plain(from in (1usize..90, 1usize..70), to in (1usize..50, 1usize..40), colour in 0u32..0x0100_0000) {
            let out = scale(&vec![colour; from.0 * from.1], from, to);
            prop_assert!(out.iter().all(|p| *p == colour));
        }

        #[test]
        fn every_input_pixel_is_covered_and_shares_are_whole(input in 1usize..2000, output in 1usize..700) {
            let axis = Axis::new(input, output);
            let mut next = 0;
            for (first, weights) in &axis.taps {
                prop_assert!(*first <= next);
                prop_assert_eq!(weights.iter().map(|w| u32::from(*w)).sum::<u32>(), 256);
                next = first + weights.len();
            }
            prop_assert_eq!(next, input);
        }
    }
}
