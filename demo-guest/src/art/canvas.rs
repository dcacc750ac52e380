//! A 640x480 picture in memory and the shapes drawn into it, with antialiased edges and a clip rectangle.
//!
//! **Invariants.** Integers only: TCG emulates floating point by function calls. Coordinates of shapes are in sixteenths of
//! a pixel ([`SUB`]), rectangles in pixels; everything is clipped, so no coordinate is out of range. Colours are
//! `0x00RRGGBB`.

pub const WIDTH: usize = 640;
pub const HEIGHT: usize = 480;
/// Fixed-point steps of a pixel.
pub const SUB: i32 = 16;

/// A rectangle in pixels: left and top inside, right and bottom outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    pub x0: i32,
    pub y0: i32,
    pub x1: i32,
    pub y1: i32,
}

impl Rect {
    /// The whole screen.
    pub const SCREEN: Self = Self { x0: 0, y0: 0, x1: WIDTH as i32, y1: HEIGHT as i32 };
    pub const EMPTY: Self = Self { x0: 0, y0: 0, x1: 0, y1: 0 };

    pub const fn new(x: i32, y: i32, w: i32, h: i32) -> Self {
        Self { x0: x, y0: y, x1: x + w, y1: y + h }
    }

    pub const fn is_empty(self) -> bool {
        self.x0 >= self.x1 || self.y0 >= self.y1
    }

    pub const fn contains(self, x: i32, y: i32) -> bool {
        x >= self.x0 && x < self.x1 && y >= self.y0 && y < self.y1
    }

    #[must_use]
    pub fn intersect(self, other: Self) -> Self {
        Self {
            x0: self.x0.max(other.x0),
            y0: self.y0.max(other.y0),
            x1: self.x1.min(other.x1),
            y1: self.y1.min(other.y1),
        }
    }

    /// The smallest rectangle around both; an empty one adds nothing.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        Self {
            x0: self.x0.min(other.x0),
            y0: self.y0.min(other.y0),
            x1: self.x1.max(other.x1),
            y1: self.y1.max(other.y1),
        }
    }

    pub fn overlaps(self, other: Self) -> bool {
        !self.intersect(other).is_empty()
    }

    #[must_use]
    pub const fn grow(self, by: i32) -> Self {
        Self { x0: self.x0 - by, y0: self.y0 - by, x1: self.x1 + by, y1: self.y1 + by }
    }

    pub const fn area(self) -> i32 {
        if self.is_empty() { 0 } else { (self.x1 - self.x0) * (self.y1 - self.y0) }
    }
}

/// `from` to `to` by `part` of 256.
#[inline]
pub const fn mix(from: u32, to: u32, part: u32) -> u32 {
    let (f, t) = (from & 0xff00ff, to & 0xff00ff);
    let red_blue = (f * (256 - part) + t * part) >> 8 & 0xff00ff;
    let (f, t) = (from & 0x00ff00, to & 0x00ff00);
    let green = (f * (256 - part) + t * part) >> 8 & 0x00ff00;
    red_blue | green
}

/// Lighter (positive) or darker (negative) by `amount` of 256.
pub const fn shade(colour: u32, amount: i32) -> u32 {
    if amount >= 0 { mix(colour, 0xffffff, amount as u32) } else { mix(colour, 0x0a1020, (-amount) as u32) }
}

/// A point in sixteenths of a pixel.
pub type Point = (i32, i32);

/// Whole pixels to a [`Point`].
pub const fn at(x: i32, y: i32) -> Point {
    (x * SUB, y * SUB)
}

/// Most points of a polygon.
const CORNERS: usize = 24;

/// The pixels and the part of them that may be changed.
#[derive(Debug)]
pub struct Canvas<'a> {
    pixels: &'a mut [u32],
    clip: Rect,
}

impl<'a> Canvas<'a> {
    /// # Panics
    /// If `pixels` is no whole screen: a programmer's error.
    pub fn new(pixels: &'a mut [u32]) -> Self {
        assert_eq!(pixels.len(), WIDTH * HEIGHT, "a canvas is a whole screen");
        Self { pixels, clip: Rect::SCREEN }
    }

    pub fn clip(&self) -> Rect {
        self.clip
    }

    /// Restricts drawing to a part of the screen.
    pub fn set_clip(&mut self, clip: Rect) {
        self.clip = clip.intersect(Rect::SCREEN);
    }

    pub fn pixels(&self) -> &[u32] {
        self.pixels
    }

    pub fn pixel(&self, x: i32, y: i32) -> u32 {
        if Rect::SCREEN.contains(x, y) { self.pixels[y as usize * WIDTH + x as usize] } else { 0 }
    }

    /// Copies a part of `from`, a picture of the same size.
    pub fn copy(&mut self, from: &[u32], part: Rect) {
        let part = part.intersect(self.clip);
        if part.is_empty() {
            return;
        }
        for y in part.y0..part.y1 {
            let row = y as usize * WIDTH;
            let (a, b) = (row + part.x0 as usize, row + part.x1 as usize);
            self.pixels[a..b].copy_from_slice(&from[a..b]);
        }
    }

    /// One row of the clip between two columns, for the shapes below; empty outside.
    #[inline]
    fn row(&mut self, y: i32, x0: i32, x1: i32) -> &mut [u32] {
        let (a, b) = (x0.max(self.clip.x0), x1.min(self.clip.x1));
        if y < self.clip.y0 || y >= self.clip.y1 || a >= b {
            return &mut [];
        }
        let row = y as usize * WIDTH;
        &mut self.pixels[row + a as usize..row + b as usize]
    }

    #[inline]
    pub fn blend(&mut self, x: i32, y: i32, colour: u32, part: u32) {
        if self.clip.contains(x, y) {
            let pixel = &mut self.pixels[y as usize * WIDTH + x as usize];
            *pixel = mix(*pixel, colour, part);
        }
    }

    pub fn fill(&mut self, rect: Rect, colour: u32) {
        for y in rect.y0.max(self.clip.y0)..rect.y1.min(self.clip.y1) {
            self.row(y, rect.x0, rect.x1).fill(colour);
        }
    }

    /// As [`fill`](Self::fill), `part` of 256 opaque.
    pub fn tint(&mut self, rect: Rect, colour: u32, part: u32) {
        for y in rect.y0.max(self.clip.y0)..rect.y1.min(self.clip.y1) {
            for pixel in self.row(y, rect.x0, rect.x1) {
                *pixel = mix(*pixel, colour, part);
            }
        }
    }

    /// Top to bottom from one colour to another.
    pub fn gradient(&mut self, rect: Rect, top: u32, bottom: u32) {
        let height = (rect.y1 - rect.y0).max(1);
        for y in rect.y0.max(self.clip.y0)..rect.y1.min(self.clip.y1) {
            let colour = mix(top, bottom, ((y - rect.y0) * 256 / height) as u32);
            self.row(y, rect.x0, rect.x1).fill(colour);
        }
    }

    /// Every pixel of `rect` from its place and its old value.
    pub fn map(&mut self, rect: Rect, mut f: impl FnMut(i32, i32, u32) -> u32) {
        let rect = rect.intersect(self.clip);
        for y in rect.y0..rect.y1 {
            for (i, pixel) in self.row(y, rect.x0, rect.x1).iter_mut().enumerate() {
                *pixel = f(rect.x0 + i as i32, y, *pixel);
            }
        }
    }

    /// An ellipse; `colour` gets the place inside it in 1/256 of the radii (-256..=256) and says colour and opacity.
    pub fn ellipse_with(&mut self, centre: Point, rx: i32, ry: i32, mut colour: impl FnMut(i32, i32) -> (u32, u32)) {
        if rx <= 0 || ry <= 0 {
            return;
        }
        let (cx, cy) = centre;
        let bounds = Rect {
            x0: (cx - rx).div_euclid(SUB),
            y0: (cy - ry).div_euclid(SUB),
            x1: (cx + rx).div_euclid(SUB) + 1,
            y1: (cy + ry).div_euclid(SUB) + 1,
        }
        .intersect(self.clip);
        // Distance from the edge, in pixels, of a point at u (256 = on the edge) is about (256 - u) / 256 * r.
        let small = rx.min(ry);
        // Reciprocals with 20 bits: exact to a pixel up to the width of the screen.
        let (across, down) = ((1 << 20) / rx, (1 << 20) / ry);
        for y in bounds.y0..bounds.y1 {
            let v = ((y * SUB + SUB / 2 - cy) * down) >> 12;
            let mut along = (bounds.x0 * SUB + SUB / 2 - cx) * across;
            for x in bounds.x0..bounds.x1 {
                let u = along >> 12;
                along += across * SUB;
                let square = u * u + v * v;
                // (65536 - square) / 512 ~ 256 - sqrt(square) near the edge; times r / SUB gives pixels * 256.
                let coverage = (((65536 - square) >> 9) * small / SUB + 128).clamp(0, 256) as u32;
                if coverage > 0 {
                    let (colour, opacity) = colour(u, v);
                    self.blend(x, y, colour, (coverage * opacity) >> 8);
                }
            }
        }
    }

    pub fn ellipse(&mut self, centre: Point, rx: i32, ry: i32, colour: u32, opacity: u32) {
        self.ellipse_with(centre, rx, ry, |_, _| (colour, opacity));
    }

    pub fn disc(&mut self, centre: Point, radius: i32, colour: u32) {
        self.ellipse(centre, radius, radius, colour, 256);
    }

    /// A ball lit from the upper left: tree tops, domes, chimney smoke.
    pub fn ball(&mut self, centre: Point, rx: i32, ry: i32, colour: u32) {
        let (light, dark) = (shade(colour, 70), shade(colour, -90));
        self.ellipse_with(centre, rx, ry, |u, v| {
            let lit = -(u + v * 2) / 3;
            let colour = if lit > 0 {
                mix(colour, light, lit.min(256) as u32)
            } else {
                mix(colour, dark, (-lit).min(256) as u32)
            };
            (colour, 256)
        });
    }

    /// A filled polygon, even-odd; four scan lines a pixel, sixteen columns.
    pub fn polygon(&mut self, points: &[Point], colour: u32, opacity: u32) {
        let points = &points[..points.len().min(CORNERS)];
        if points.len() < 3 {
            return;
        }
        let (mut left, mut right, mut top, mut bottom) = (i32::MAX, i32::MIN, i32::MAX, i32::MIN);
        for &(x, y) in points {
            left = left.min(x);
            right = right.max(x);
            top = top.min(y);
            bottom = bottom.max(y);
        }
        let x0 = left.div_euclid(SUB).max(self.clip.x0);
        let x1 = (right.div_euclid(SUB) + 1).min(self.clip.x1);
        if x0 >= x1 {
            return;
        }
        let span = (x1 - x0) as usize;
        let mut coverage = [0u8; WIDTH];
        for y in top.div_euclid(SUB).max(self.clip.y0)..(bottom.div_euclid(SUB) + 1).min(self.clip.y1) {
            coverage[..span].fill(0);
            for line in 0..4 {
                scan(points, y * SUB + line * 4 + 2, x0, &mut coverage[..span]);
            }
            for (pixel, part) in self.row(y, x0, x1).iter_mut().zip(&coverage[..span]) {
                match part {
                    0 => {}
                    64.. if opacity >= 256 => *pixel = colour,
                    part => *pixel = mix(*pixel, colour, (u32::from(*part) * 4 * opacity) >> 8),
                }
            }
        }
    }

    /// A thick line with square ends.
    pub fn line(&mut self, a: Point, b: Point, width: i32, colour: u32) {
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let len = (dx * dx + dy * dy).isqrt().max(1);
        let (nx, ny) = (-dy * width / (2 * len), dx * width / (2 * len));
        self.polygon(
            &[(a.0 + nx, a.1 + ny), (b.0 + nx, b.1 + ny), (b.0 - nx, b.1 - ny), (a.0 - nx, a.1 - ny)],
            colour,
            256,
        );
    }

    /// A rectangle with rounded corners.
    pub fn rounded(&mut self, rect: Rect, radius: i32, colour: u32, opacity: u32) {
        self.rounded_with(rect, radius, |_| (colour, opacity));
    }

    /// As [`rounded`](Self::rounded); `colour` gets the row's place from the top, 0..=256.
    pub fn rounded_with(&mut self, rect: Rect, radius: i32, mut colour: impl FnMut(i32) -> (u32, u32)) {
        let radius = radius.min((rect.x1 - rect.x0) / 2).min((rect.y1 - rect.y0) / 2);
        let height = (rect.y1 - rect.y0).max(1);
        for y in rect.y0.max(self.clip.y0)..rect.y1.min(self.clip.y1) {
            let (colour, opacity) = colour((y - rect.y0) * 256 / height);
            // Distance from the rows where the corners begin, twice, measured at the pixel's middle.
            let dy = ((rect.y0 + radius - y) * 2 - 1).max((y - rect.y1 + radius) * 2 + 1).max(0);
            if dy == 0 {
                for pixel in self.row(y, rect.x0, rect.x1) {
                    *pixel = mix(*pixel, colour, opacity);
                }
                continue;
            }
            for pixel in self.row(y, rect.x0 + radius, rect.x1 - radius) {
                *pixel = mix(*pixel, colour, opacity);
            }
            for i in 0..radius {
                let dx = (radius - i) * 2 - 1;
                let distance = ((dx * dx + dy * dy) * 64).isqrt();
                // In sixteenths of a pixel: inside by more than half a pixel is full.
                let part = (radius * SUB - distance + SUB / 2).clamp(0, SUB) as u32 * 16;
                self.blend(rect.x0 + i, y, colour, (part * opacity) >> 8);
                self.blend(rect.x1 - 1 - i, y, colour, (part * opacity) >> 8);
            }
        }
    }

    /// An outline of `width` pixels along the inside of a rounded rectangle.
    pub fn frame(&mut self, rect: Rect, radius: i32, width: i32, edge: u32, inside: u32) {
        self.rounded(rect, radius, edge, 256);
        self.rounded(rect.grow(-width), radius - width, inside, 256);
    }
}

/// Adds the coverage of one scan line: 16 for a pixel that it crosses wholly.
fn scan(points: &[Point], y: i32, x0: i32, coverage: &mut [u8]) {
    let mut crossings = [0i32; CORNERS];
    let mut count = 0;
    let mut a = points[points.len() - 1];
    for &b in points {
        if (a.1 <= y) != (b.1 <= y) {
            let x = a.0 + (b.0 - a.0) * (y - a.1) / (b.1 - a.1);
            let mut slot = count;
            while slot > 0 && crossings[slot - 1] > x {
                crossings[slot] = crossings[slot - 1];
                slot -= 1;
            }
            crossings[slot] = x;
            count += 1;
        }
        a = b;
    }
    let limit = coverage.len() as i32 * SUB;
    for pair in crossings[..count].chunks_exact(2) {
        let from = (pair[0] - x0 * SUB).clamp(0, limit);
        let to = (pair[1] - x0 * SUB).clamp(0, limit);
        if from >= to {
            continue;
        }
        let (first, last) = ((from / SUB) as usize, ((to - 1) / SUB) as usize);
        if first == last {
            coverage[first] += (to - from) as u8;
            continue;
        }
        coverage[first] += (SUB - from % SUB) as u8;
        for part in &mut coverage[first + 1..last] {
            *part += SUB as u8;
        }
        coverage[last] += (to - last as i32 * SUB) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::{Canvas, HEIGHT, Rect, WIDTH, at, mix};

    fn lit(draw: impl FnOnce(&mut Canvas)) -> (usize, u32) {
        let mut pixels = vec![0; WIDTH * HEIGHT];
        draw(&mut Canvas::new(&mut pixels));
        (pixels.iter().filter(|p| **p != 0).count(), pixels.iter().map(|p| p & 0xff).sum())
    }

    #[test]
    fn mixing_meets_both_ends() {
        for (a, b) in [(0x123456, 0xfedcba), (0, 0xffffff), (0xffffff, 0)] {
            assert_eq!(mix(a, b, 0), a);
            assert_eq!(mix(a, b, 256), b);
        }
    }

    #[test]
    fn areas_are_right_to_three_percent() {
        let area = |draw: fn(&mut Canvas)| f64::from(lit(draw).1) / 255.0;
        let close = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 0.03, "{got} for {want}");
        close(area(|c| c.disc(at(100, 100), 40 * 16, 0xffffff)), 40.0 * 40.0 * core::f64::consts::PI);
        close(area(|c| c.polygon(&[at(10, 10), at(110, 10), at(10, 110)], 0xffffff, 256)), 5000.0);
        close(area(|c| c.rounded(Rect::new(10, 10, 60, 40), 10, 0xffffff, 256)), 2400.0 - 400.0 + 314.0);
        close(area(|c| c.line(at(10, 10), at(110, 60), 64, 0xffffff)), 4.0 * 111.8);
    }

    #[test]
    fn shapes_off_the_screen_and_the_clip_change_nothing() {
        let (pixels, _) = lit(|c| {
            c.disc(at(-500, 100), 1000, 0xffffff);
            c.polygon(&[at(700, 0), at(900, 0), at(800, 600)], 0xffffff, 256);
            c.fill(Rect::new(-50, -50, 50, 50), 0xffffff);
            c.set_clip(Rect::new(10, 10, 5, 5));
            c.rounded(Rect::new(100, 100, 50, 50), 8, 0xffffff, 256);
        });
        assert_eq!(pixels, 0);
        let (pixels, _) = lit(|c| {
            c.set_clip(Rect::new(10, 10, 5, 5));
            c.disc(at(12, 12), 10_000, 0xffffff);
            c.polygon(&[at(-300, -300), at(900, -300), at(900, 900), at(-300, 900)], 0xffffff, 256);
        });
        assert_eq!(pixels, 25);
    }
}
