//! One picture and what changed in it, without any I/O.
//!
//! Every change makes a new *generation*, and every row remembers the generation in which it last changed. So any
//! number of encoders can ask "which rows changed since the generation I have seen" without anybody keeping a list for
//! them. Rows are compared before they count as damage, because QEMU reports whole widths, whole screens after a mode
//! is set again, and rows that a guest drew over with the same pixels.
use std::{collections::VecDeque, time::SystemTime};

use crate::{cursor::Cursor, pixels::PixelFormat, screen::Size};

/// Larger pictures are refused: no card we start QEMU with has more, and a hostile size must not take our memory.
pub(crate) const MAX_SIDE: u32 = 4096;
/// Bytes after the last pixel of a row.
const PADDING_MAX: usize = 4096;
/// How many generations keep their time. An encoder that lags further behind only loses trace stamps.
const STAMPS_MAX: usize = 64;

/// Why a picture from QEMU was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPicture {
    #[error("a picture of {width}x{height} is outside 1x1 to {MAX_SIDE}x{MAX_SIDE}")]
    Size { width: u32, height: u32 },
    #[error("pixman format {0:#010x} is not one that can be read")]
    Format(u32),
    #[error("rows of {stride} bytes are too short or too long for {width} pixels")]
    Stride { stride: u32, width: u32 },
    #[error("{got} bytes of pixels came where {want} were announced")]
    Short { got: usize, want: usize },
    #[error("an update of {width}x{height} at {x},{y} lies outside the picture")]
    Outside { x: i32, y: i32, width: i32, height: i32 },
    #[error("an update came before any picture")]
    NoPicture,
}

/// A part of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rect {
    pub(crate) x: usize,
    pub(crate) y: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// How rows lie in a block of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) format: PixelFormat,
    pub(crate) stride: usize,
}

impl Layout {
    /// Checks what QEMU says about a picture of `size`.
    pub(crate) fn checked(size: Size, stride: u32, format: u32) -> Result<Self, BadPicture> {
        let Size { width, height } = size;
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(BadPicture::Size { width, height });
        }
        let format = PixelFormat::from_pixman(format).ok_or(BadPicture::Format(format))?;
        let row = width as usize * format.bytes_per_pixel();
        // A page is more than any alignment of rows needs, and keeps what is read for a picture near what it shows.
        if !(row..=row + PADDING_MAX).contains(&(stride as usize)) {
            return Err(BadPicture::Stride { stride, width });
        }
        Ok(Self { format, stride: stride as usize })
    }

    /// Bytes that `rows` rows of `width` pixels span; the last row needs no padding.
    pub(crate) const fn span(&self, width: usize, rows: usize) -> usize {
        (rows - 1) * self.stride + width * self.format.bytes_per_pixel()
    }
}

/// The picture of one guest.
#[derive(Debug)]
pub(crate) struct Frame {
    size: Option<Size>,
    pixels: Vec<u32>,
    row_generation: Vec<u64>,
    generation: u64,
    stamps: VecDeque<(u64, SystemTime)>,
    cursor: Cursor,
    scratch: Vec<u32>,
}

impl Frame {
    pub(crate) const fn new() -> Self {
        Self {
            size: None,
            pixels: Vec::new(),
            row_generation: Vec::new(),
            generation: 0,
            stamps: VecDeque::new(),
            cursor: Cursor::new(),
            scratch: Vec::new(),
        }
    }

    pub(crate) const fn size(&self) -> Option<Size> {
        self.size
    }

    /// Grows with every change; 0 before the first picture.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// When the generations after `seen` came, oldest first.
    pub(crate) fn damage_times(&self, seen: u64) -> impl Iterator<Item = SystemTime> + '_ {
        self.stamps.iter().filter(move |(generation, _)| *generation > seen).map(|(_, at)| *at)
    }

    /// Whether row `y` changed after generation `seen`.
    pub(crate) fn row_changed(&self, y: usize, seen: u64) -> bool {
        self.row_generation[y] > seen
    }

    /// Rows that changed after generation `seen`.
    pub(crate) fn rows_changed(&self, seen: u64) -> usize {
        self.row_generation.iter().filter(|g| **g > seen).count()
    }

    /// Row `y` as it is shown: with the hardware cursor over it, if one is on. `scratch` is used only then.
    pub(crate) fn row<'a>(&'a self, y: usize, scratch: &'a mut Vec<u32>) -> &'a [u32] {
        let width = self.size.map_or(0, |s| s.width as usize);
        let row = &self.pixels[y * width..][..width];
        if !self.cursor.rows().contains(&y) {
            return row;
        }
        scratch.clear();
        scratch.extend_from_slice(row);
        self.cursor.blend(y, scratch);
        scratch
    }

    /// A whole picture. One of the same size is compared row by row: a card that sets its mode again sends all of it.
    /// Returns whether anything changed.
    pub(crate) fn scanout(
        &mut self,
        size: Size,
        layout: Layout,
        bytes: &[u8],
        now: SystemTime,
    ) -> Result<bool, BadPicture> {
        let (width, height) = (size.width as usize, size.height as usize);
        check_length(bytes, layout.span(width, height))?;
        let all = Rect { x: 0, y: 0, width, height };
        if self.size == Some(size) {
            return self.write(all, layout, bytes, now);
        }
        self.size = Some(size);
        self.pixels = vec![0; width * height];
        self.row_generation = vec![self.generation + 1; height];
        for (y, row) in self.pixels.chunks_exact_mut(width).enumerate() {
            layout.format.read_row(&bytes[y * layout.stride..], row);
        }
        self.advance(now);
        Ok(true)
    }

    /// A part of the picture; `bytes` begins with its first row. Returns whether anything changed.
    pub(crate) fn write(
        &mut self,
        rect: Rect,
        layout: Layout,
        bytes: &[u8],
        now: SystemTime,
    ) -> Result<bool, BadPicture> {
        if rect.width == 0 || rect.height == 0 {
            return Ok(false);
        }
        check_length(bytes, layout.span(rect.width, rect.height))?;
        let full_width = self.size.ok_or(BadPicture::NoPicture)?.width as usize;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(rect.width, 0);
        let mut changed = false;
        for i in 0..rect.height {
            layout.format.read_row(&bytes[i * layout.stride..], &mut scratch);
            let row = &mut self.pixels[(rect.y + i) * full_width + rect.x..][..rect.width];
            if *row != *scratch {
                row.copy_from_slice(&scratch);
                self.row_generation[rect.y + i] = self.generation + 1;
                changed = true;
            }
        }
        self.scratch = scratch;
        if changed {
            self.advance(now);
        }
        Ok(changed)
    }

    /// Checks a rectangle from QEMU against the picture.
    pub(crate) fn rect(&self, x: i32, y: i32, width: i32, height: i32) -> Result<Rect, BadPicture> {
        let size = self.size.ok_or(BadPicture::NoPicture)?;
        let inside = |start: i32, length: i32, side: u32| {
            let (start, length) = (usize::try_from(start).ok()?, usize::try_from(length).ok()?);
            (start + length <= side as usize).then_some((start, length))
        };
        match (inside(x, width, size.width), inside(y, height, size.height)) {
            (Some((x, width)), Some((y, height))) => Ok(Rect { x, y, width, height }),
            _ => Err(BadPicture::Outside { x, y, width, height }),
        }
    }

    /// Changes the hardware cursor; the rows under the old and the new one count as damage. Returns whether any did.
    pub(crate) fn change_cursor(&mut self, now: SystemTime, change: impl FnOnce(&mut Cursor)) -> bool {
        let before = self.cursor.rows();
        change(&mut self.cursor);
        let after = self.cursor.rows();
        let height = self.row_generation.len();
        let mut changed = false;
        for y in before.chain(after).filter(|y| *y < height) {
            self.row_generation[y] = self.generation + 1;
            changed = true;
        }
        if changed {
            self.advance(now);
        }
        changed
    }

    fn advance(&mut self, now: SystemTime) {
        self.generation += 1;
        if self.stamps.len() == STAMPS_MAX {
            self.stamps.pop_front();
        }
        self.stamps.push_back((self.generation, now));
    }
}

const fn check_length(bytes: &[u8], want: usize) -> Result<(), BadPicture> {
    if bytes.len() < want { Err(BadPicture::Short { got: bytes.len(), want }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XRGB: u32 = 0x2002_0888;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(ms)
    }

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    fn plain(colour: u32, pixels: usize) -> Vec<u8> {
        colour.to_le_bytes().repeat(pixels)
    }

    fn frame(width: u32, height: u32) -> Frame {
        let mut f = Frame::new();
        let layout = Layout::checked(size(width, height), width * 4, XRGB).unwrap();
        assert!(f.scanout(size(width, height), layout, &plain(1, (width * height) as usize), at(1)).unwrap());
        f
    }

    #[test]
    fn only_rows_that_differ_are_damage() {
        let mut f = frame(8, 6);
        let layout = Layout::checked(size(8, 6), 32, XRGB).unwrap();
        let seen = f.generation();
        assert_eq!(f.rows_changed(0), 6);
        assert!(!f.scanout(size(8, 6), layout, &plain(1, 48), at(2)).unwrap(), "the same picture again");
        assert_eq!((f.generation(), f.rows_changed(seen)), (seen, 0));

        let mut bytes = plain(1, 48);
        bytes[3 * 32..3 * 32 + 4].copy_from_slice(&7u32.to_le_bytes());
        assert!(f.scanout(size(8, 6), layout, &bytes, at(3)).unwrap());
        assert_eq!((0..6).filter(|y| f.row_changed(*y, seen)).collect::<Vec<_>>(), [3]);
        assert_eq!(f.row(3, &mut vec![])[..2], [7, 1]);
        assert_eq!(f.damage_times(seen).collect::<Vec<_>>(), [at(3)]);
    }

    #[test]
    fn an_update_lands_where_it_says() {
        let mut f = frame(8, 6);
        let seen = f.generation();
        let rect = f.rect(2, 1, 3, 2).unwrap();
        let layout = Layout::checked(size(3, 2), 20, XRGB).unwrap(); // two pixels of padding a row
        let mut bytes = plain(9, 5);
        bytes.extend(plain(9, 3));
        assert!(f.write(rect, layout, &bytes, at(2)).unwrap());
        assert_eq!(f.row(1, &mut vec![]), [1, 1, 9, 9, 9, 1, 1, 1]);
        assert_eq!(f.row(2, &mut vec![]), [1, 1, 9, 9, 9, 1, 1, 1]);
        assert_eq!((0..6).filter(|y| f.row_changed(*y, seen)).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn hostile_geometry_is_refused() {
        let f = frame(8, 6);
        for (x, y, w, h) in [(-1, 0, 1, 1), (0, 0, 9, 1), (8, 0, 1, 1), (0, i32::MAX, 1, i32::MAX), (0, 0, 1, -1)] {
            assert!(f.rect(x, y, w, h).is_err(), "{x},{y} {w}x{h}");
        }
        assert_eq!(Frame::new().rect(0, 0, 1, 1), Err(BadPicture::NoPicture));
        assert!(matches!(Layout::checked(size(0, 1), 4, XRGB), Err(BadPicture::Size { .. })));
        assert!(matches!(Layout::checked(size(1, MAX_SIDE + 1), 4, XRGB), Err(BadPicture::Size { .. })));
        assert!(matches!(Layout::checked(size(2, 2), 7, XRGB), Err(BadPicture::Stride { .. })));
        assert!(Layout::checked(size(2, 2), 8 + 4096, XRGB).is_ok());
        for stride in [8 + 4097, u32::MAX] {
            assert!(matches!(Layout::checked(size(2, 2), stride, XRGB), Err(BadPicture::Stride { .. })));
        }
        assert!(matches!(Layout::checked(size(2, 2), 8, 0), Err(BadPicture::Format(0))));
        let layout = Layout::checked(size(8, 6), 32, XRGB).unwrap();
        let short = Frame::new().scanout(size(8, 6), layout, &[0; 191], at(1));
        assert_eq!(short, Err(BadPicture::Short { got: 191, want: 192 }));
    }

    #[test]
    fn a_new_size_is_all_damage() {
        let mut f = frame(8, 6);
        let seen = f.generation();
        let layout = Layout::checked(size(4, 2), 16, XRGB).unwrap();
        assert!(f.scanout(size(4, 2), layout, &plain(1, 8), at(2)).unwrap());
        assert_eq!((f.size(), f.rows_changed(seen)), (Some(size(4, 2)), 2));
    }

    #[test]
    fn a_cursor_damages_the_rows_it_leaves_and_enters() {
        let mut f = frame(8, 6);
        assert!(!f.change_cursor(at(2), |c| c.define(2, 1, 0, 0, &[0xff00_0005, 0x0000_0006])), "not shown yet");
        let seen = f.generation();
        assert!(f.change_cursor(at(3), |c| c.place(3, 1, true)));
        assert_eq!(f.row(1, &mut vec![]), [1, 1, 1, 5, 1, 1, 1, 1]);
        let placed = f.generation();
        assert!(f.change_cursor(at(4), |c| c.place(0, 4, true)));
        assert_eq!(f.row(1, &mut vec![]), [1; 8]);
        assert_eq!((0..6).filter(|y| f.row_changed(*y, placed)).collect::<Vec<_>>(), [1, 4]);
        assert_eq!((0..6).filter(|y| f.row_changed(*y, seen)).collect::<Vec<_>>(), [1, 4]);
    }
}
