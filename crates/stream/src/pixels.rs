//! Pixman formats of QEMU's surfaces, one row at a time, into our own: `0x00RRGGBB` words (in memory B, G, R, x).
//!
//! The codes are pixman's (`pixman.h`, `PIXMAN_FORMAT`): bits per pixel, type, then the widths of A, R, G, B.

/// A pixel format that we can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PixelFormat {
    /// `x8r8g8b8` and `a8r8g8b8`: what nearly every mode of QEMU's cards comes as.
    Xrgb8888,
    /// `x8b8g8r8` and `a8b8g8r8`.
    Xbgr8888,
    /// `b8g8r8x8` and `b8g8r8a8`.
    Bgrx8888,
    /// `r8g8b8`: three bytes B, G, R.
    Rgb888,
    /// `r5g6b5`: high colour of Windows 98.
    Rgb565,
    /// `x1r5g5b5` and `a1r5g5b5`.
    Xrgb1555,
}

impl PixelFormat {
    /// From pixman's code; `None` if we cannot read it.
    pub(crate) const fn from_pixman(code: u32) -> Option<Self> {
        Some(match code {
            0x2002_0888 | 0x2002_8888 => Self::Xrgb8888,
            0x2003_0888 | 0x2003_8888 => Self::Xbgr8888,
            0x2008_0888 | 0x2008_8888 => Self::Bgrx8888,
            0x1802_0888 => Self::Rgb888,
            0x1002_0565 => Self::Rgb565,
            0x1002_0555 | 0x1002_1555 => Self::Xrgb1555,
            _ => return None,
        })
    }

    pub(crate) const fn bytes_per_pixel(self) -> usize {
        match self {
            Self::Xrgb8888 | Self::Xbgr8888 | Self::Bgrx8888 => 4,
            Self::Rgb888 => 3,
            Self::Rgb565 | Self::Xrgb1555 => 2,
        }
    }

    /// Converts one row. `bytes` holds at least `out.len()` pixels.
    pub(crate) fn read_row(self, bytes: &[u8], out: &mut [u32]) {
        let bytes = &bytes[..out.len() * self.bytes_per_pixel()];
        match self {
            Self::Xrgb8888 => each4(bytes, out, |p| p & 0x00ff_ffff),
            Self::Xbgr8888 => each4(bytes, out, |p| p.swap_bytes() >> 8),
            Self::Bgrx8888 => each4(bytes, out, |p| p.swap_bytes() & 0x00ff_ffff),
            Self::Rgb888 => {
                for (o, p) in out.iter_mut().zip(bytes.chunks_exact(3)) {
                    *o = u32::from(p[0]) | u32::from(p[1]) << 8 | u32::from(p[2]) << 16;
                }
            }
            Self::Rgb565 => each2(bytes, out, |p| widen5(p >> 11) << 16 | widen6(p >> 5) << 8 | widen5(p)),
            Self::Xrgb1555 => each2(bytes, out, |p| widen5(p >> 10) << 16 | widen5(p >> 5) << 8 | widen5(p)),
        }
    }
}

/// Five bits to eight, so that 31 becomes 255.
const fn widen5(bits: u32) -> u32 {
    let b = bits & 0x1f;
    b << 3 | b >> 2
}

const fn widen6(bits: u32) -> u32 {
    let b = bits & 0x3f;
    b << 2 | b >> 4
}

#[inline]
fn each4(bytes: &[u8], out: &mut [u32], f: impl Fn(u32) -> u32) {
    for (o, p) in out.iter_mut().zip(bytes.chunks_exact(4)) {
        *o = f(u32::from_le_bytes([p[0], p[1], p[2], p[3]]));
    }
}

#[inline]
fn each2(bytes: &[u8], out: &mut [u32], f: impl Fn(u32) -> u32) {
    for (o, p) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *o = f(u32::from(u16::from_le_bytes([p[0], p[1]])));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(code: u32, bytes: &[u8], want: &[u32]) {
        let format = PixelFormat::from_pixman(code).unwrap();
        assert_eq!(bytes.len(), want.len() * format.bytes_per_pixel());
        let mut out = vec![0; want.len()];
        format.read_row(bytes, &mut out);
        assert_eq!(out, want, "{format:?}");
    }

    #[test]
    fn red_green_blue_in_every_format() {
        let want = [0x00ff_0000, 0x0000_ff00, 0x0000_00ff];
        reads(0x2002_0888, &[0, 0, 255, 9, 0, 255, 0, 9, 255, 0, 0, 9], &want);
        reads(0x2002_8888, &[0, 0, 255, 9, 0, 255, 0, 9, 255, 0, 0, 9], &want);
        reads(0x2003_0888, &[255, 0, 0, 9, 0, 255, 0, 9, 0, 0, 255, 9], &want);
        reads(0x2008_0888, &[9, 255, 0, 0, 9, 0, 255, 0, 9, 0, 0, 255], &want);
        reads(0x1802_0888, &[0, 0, 255, 0, 255, 0, 255, 0, 0], &want);
        reads(0x1002_0565, &[0x00, 0xf8, 0xe0, 0x07, 0x1f, 0x00], &want);
        reads(0x1002_0555, &[0x00, 0x7c, 0xe0, 0x03, 0x1f, 0x80], &want);
    }

    #[test]
    fn an_unknown_format_is_refused() {
        assert_eq!(PixelFormat::from_pixman(0x0801_0000), None);
    }
}
