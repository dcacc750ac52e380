//! The measuring mark and the scenes that benches ask for (F12, F9, F10, F11).
//!
//! Top left 64x64 pixels all black or all white, inverted by each press in the very next frame; to its right a counter of
//! drawn frames, 16 cells of 16x16 pixels, most significant first, white = 1. Nothing else is ever drawn over them.
use crate::art::canvas::{Canvas, Rect};
use crate::input::Key;

/// The square.
pub const SQUARE: Rect = Rect { x0: 0, y0: 0, x1: 64, y1: 64 };
/// The counter.
pub const COUNTER: Rect = Rect { x0: 64, y0: 0, x1: 64 + 16 * 16, y1: 16 };
/// Side of the box that runs about in [`Scene::Box`], in pixels.
const BOX: i32 = 48;

/// What moves while the mark is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Scene {
    /// The game goes on as always.
    #[default]
    Game,
    /// F9: nothing.
    Still,
    /// F10: a box of 48x48 pixels, 30 frames a second.
    Box,
    /// F11: every row of the picture below the mark, 30 frames a second.
    Full,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    on: bool,
    white: bool,
    frames: u16,
    scene: Scene,
    step: i32,
}

impl Mark {
    pub fn is_on(&self) -> bool {
        self.on
    }

    pub fn scene(&self) -> Scene {
        self.scene
    }

    /// A key or button went down: inverts the square. `true` if it is shown.
    pub fn press(&mut self) -> bool {
        self.white ^= self.on;
        self.on
    }

    /// F12 and, while the mark is shown, F9 to F11. `true` if the key was one of them.
    pub fn key(&mut self, key: Key) -> bool {
        match key {
            Key::Function(12) => *self = Self { on: !self.on, frames: self.frames, ..Self::default() },
            Key::Function(9) if self.on => self.scene = Scene::Still,
            Key::Function(10) if self.on => self.scene = Scene::Box,
            Key::Function(11) if self.on => self.scene = Scene::Full,
            _ => return false,
        }
        true
    }

    /// One frame is about to be drawn.
    pub fn count(&mut self) {
        self.frames = self.frames.wrapping_add(1);
    }

    pub fn draw(&self, canvas: &mut Canvas) {
        if !self.on {
            return;
        }
        canvas.fill(SQUARE, if self.white { 0xffffff } else { 0 });
        for bit in 0..16 {
            let lit = self.frames >> (15 - bit) & 1 == 1;
            canvas.fill(Rect::new(COUNTER.x0 + bit * 16, 0, 16, 16), if lit { 0xffffff } else { 0 });
        }
    }

    /// Moves the scene on by a frame.
    pub fn advance(&mut self) {
        self.step = self.step.wrapping_add(1) & 0xffff;
    }

    /// Where the box is: it bounces between the sides.
    pub fn box_rect(&self) -> Rect {
        let bounce = |step: i32, range: i32| {
            let at = step % (2 * range);
            if at < range { at } else { 2 * range - at }
        };
        Rect::new(bounce(self.step * 4, 640 - BOX), 100 + bounce(self.step, 280), BOX, BOX)
    }

    pub fn draw_box(&self, canvas: &mut Canvas) {
        let rect = self.box_rect();
        canvas.fill(rect, 0xfdf8ea);
        canvas.fill(rect.grow(-4), 0xc8372d);
        canvas.fill(rect.grow(-16), 0xfdf8ea);
    }

    /// By how many pixels the whole picture is shifted in [`Scene::Full`].
    pub fn shift(&self) -> usize {
        (self.step * 3).rem_euclid(640) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::{Mark, Scene};
    use crate::art::canvas::{Canvas, HEIGHT, Rect, WIDTH};
    use crate::input::Key;

    fn picture(mark: &Mark) -> Vec<u32> {
        let mut pixels = vec![0x123456; WIDTH * HEIGHT];
        mark.draw(&mut Canvas::new(&mut pixels));
        pixels
    }

    #[test]
    fn every_press_inverts_every_pixel_of_the_square() {
        let mut mark = Mark::default();
        assert!(!mark.press());
        assert!(picture(&mark).iter().all(|p| *p == 0x123456));
        assert!(mark.key(Key::Function(12)));
        for press in 0..5 {
            let want = if press % 2 == 0 { 0 } else { 0xffffff };
            let pixels = picture(&mark);
            assert!((0..64).all(|y| pixels[y * WIDTH..y * WIDTH + 64].iter().all(|p| *p == want)), "press {press}");
            assert!(mark.press());
        }
        assert!(mark.key(Key::Function(12)) && !mark.is_on());
    }

    #[test]
    fn the_counter_reads_as_binary() {
        let mut mark = Mark::default();
        mark.key(Key::Function(12));
        for _ in 0..0xa5 {
            mark.count();
        }
        let pixels = picture(&mark);
        let read = (0..16).fold(0u16, |n, bit| n << 1 | (pixels[8 * WIDTH + 64 + bit * 16 + 8] & 1) as u16);
        assert_eq!(read, 0xa5);
    }

    #[test]
    fn scenes_need_the_mark_and_the_box_stays_on_the_screen_below_it() {
        let mut mark = Mark::default();
        assert!(!mark.key(Key::Function(10)));
        mark.key(Key::Function(12));
        assert!(mark.key(Key::Function(10)) && mark.scene() == Scene::Box);
        for _ in 0..3000 {
            mark.advance();
            let rect = mark.box_rect();
            assert!(rect.intersect(Rect::new(0, 64, 640, 416)) == rect, "{rect:?}");
        }
    }
}
