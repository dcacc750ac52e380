//! "Signal": the game's own typeface, drawn as strokes with round ends, so one table serves every size and weight.
//!
//! A glyph is a few strokes on a grid: cap height 0..10, baseline 10, descender 13. In [`GLYPHS`] a point is two base-36
//! digits; `*` before a point makes it a control point of a quadratic curve, and two controls in a row imply the point
//! halfway, as in TrueType; a space starts the next stroke.
use super::canvas::{Canvas, Point, SUB};

/// Character, advance without the gap, strokes.
type Glyph = (char, u8, &'static str);

#[rustfmt::skip]
const GLYPHS: &[Glyph] = &[
    (' ', 2, ""),
    ('A', 6, "0a306a 1757"), ('B', 6, "0a0030*50*553505 35*65*6a3a0a"), ('C', 6, "62*5030*000406*0a3a*5a68"),
    ('D', 6, "0a0020*606466*6a2a0a"), ('E', 5, "50000a5a 0545"), ('F', 5, "50000a 0545"),
    ('G', 6, "62*5030*000406*0a3a*6a6636"), ('H', 6, "000a 606a 0565"), ('I', 0, "000a"), ('J', 4, "4047*4a2a*0a08"),
    ('K', 6, "000a 6006 246a"), ('L', 5, "000a5a"), ('M', 8, "0a0046808a"), ('N', 6, "0a006a60"),
    ('O', 7, "30*000406*0a3a4a*7a7674*704030"), ('P', 6, "0a0030*60*663606"),
    ('Q', 7, "30*000406*0a3a4a*7a7674*704030 477b"), ('R', 6, "0a0030*60*653505 356a"),
    ('S', 6, "62*5030*00*0535*65*6a3a*1a08"), ('T', 6, "0060 303a"), ('U', 6, "0006*0a3a*6a6660"), ('V', 6, "003a60"),
    ('W', 8, "002a426a80"), ('X', 6, "006a 600a"), ('Y', 6, "003560 353a"), ('Z', 6, "00600a6a"),
    ('a', 5, "535a 56*5323*030607*0a2a*5a57"), ('b', 5, "000a 06*0333*535657*5a3a*0a07"),
    ('c', 5, "54*4333*030607*0a3a*4a59"), ('d', 5, "505a 56*5323*030607*0a2a*5a57"),
    ('e', 5, "0656*533323*030607*0a3a*4a59"), ('f', 3, "40*10131a 0333"),
    ('g', 5, "535b*5d2d*1d0c 56*5323*030607*0a2a*5a57"), ('h', 5, "000a 06*0333*53565a"), ('i', 0, "030a 0000"),
    ('j', 2, "232b*2d0d 2020"), ('k', 5, "000a 5307 255a"), ('l', 1, "0008*0a1a"),
    ('m', 8, "030a 05*0323*43454a 45*4363*83858a"), ('n', 5, "030a 06*0333*53565a"),
    ('o', 5, "23*030607*0a2a3a*5a5756*533323"), ('p', 5, "030d 06*0333*535657*5a3a*0a07"),
    ('q', 5, "535d 56*5323*030607*0a2a*5a57"), ('r', 3, "030a 06*0333"), ('s', 4, "44*4323*03*0626*46*4a2a*0a09"),
    ('t', 3, "1118*1a3a 0333"), ('u', 5, "0307*0a2a*5a57 535a"), ('v', 4, "032a43"), ('w', 8, "032a446a83"),
    ('x', 4, "034a 430a"), ('y', 5, "032a 531d0d"), ('z', 4, "03430a4a"),
    ('0', 6, "30*000406*0a3a*6a6664*6030"), ('1', 3, "02303a"), ('2', 6, "03*0030*6063*650a6a"),
    ('3', 6, "01*1030*60*653525 35*65*6a3a*1a09"), ('4', 6, "4a400767"), ('5', 6, "501005*1434*6467*6a3a*1a09"),
    ('6', 6, "50*010607*0a3a*6a67*6434*0407"), ('7', 6, "00602a"), ('8', 6, "35*05*0030*60*6535*05*0a3a*6a*6535"),
    ('9', 6, "1a*696463*6030*0003*0636*6663"),
    ('.', 0, "0a0a"), (',', 1, "1a0c"), (':', 0, "0404 0a0a"), (';', 1, "1414 1a0c"), ('!', 0, "0006 0a0a"),
    ('?', 5, "02*0020*50*532527 2a2a"), ('\'', 0, "0002"), ('"', 2, "0002 2022"), ('-', 3, "0636"), ('_', 6, "0b6b"),
    ('+', 4, "0646 2428"), ('=', 4, "0545 0848"), ('/', 4, "400b"), ('(', 2, "20*0206*0a2c"), (')', 2, "00*2226*2a0c"),
    ('<', 4, "430649"), ('>', 4, "034609"), ('&', 7, "7a23*1030*5052*5425*0608*0a3a*5a76"),
    ('%', 7, "10*00*0313*23*2010 67*57*5a6a*7a*7767 600a"), ('*', 4, "2125 0244 4204"), ('#', 6, "2119 5149 0464 0767"),
    ('·', 0, "0606"), ('×', 4, "0549 4509"), ('→', 7, "0676 437679"), ('←', 7, "0676 330639"), ('↑', 6, "303a 043064"),
    ('↓', 6, "303a 063a66"),
];

/// Units of the grid between two letters.
const GAP: i32 = 3;
/// Straight pieces of one curve.
const PIECES: i32 = 6;
/// Side of the mask in which one glyph is assembled, in pixels.
const MASK: usize = 72;

/// How a text is set.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Cap height in pixels, up to 48.
    pub size: i32,
    /// Stroke width in sixteenths of a pixel.
    pub weight: i32,
    pub colour: u32,
}

impl Style {
    pub const fn new(size: i32, weight: i32, colour: u32) -> Self {
        Self { size, weight, colour }
    }

    #[must_use]
    pub const fn colour(self, colour: u32) -> Self {
        Self { colour, ..self }
    }
}

fn glyph(letter: char) -> &'static Glyph {
    // What has no glyph is shown as `?`: never an empty place.
    let find = |wanted| GLYPHS.iter().find(|(c, ..)| *c == wanted);
    find(letter).or_else(|| find('?')).unwrap_or(&GLYPHS[0])
}

fn advance(glyph: &Glyph, style: Style) -> i32 {
    (i32::from(glyph.1) + GAP) * style.size * SUB / 10
}

/// Width of a text in pixels, without the gap after its last letter.
pub fn width(text: &str, style: Style) -> i32 {
    let total: i32 = text.chars().map(|c| advance(glyph(c), style)).sum();
    ((total - GAP * style.size * SUB / 10).max(0) + style.weight) / SUB
}

/// Draws `text` with its cap line's upper left at pixel `x`, `y`; gives the x after it.
pub fn text(canvas: &mut Canvas, x: i32, y: i32, text: &str, style: Style) -> i32 {
    let mut pen = x * SUB + style.weight / 2;
    for letter in text.chars() {
        let glyph = glyph(letter);
        draw(canvas, pen, y, glyph.2, style);
        pen += advance(glyph, style);
    }
    pen / SUB
}

/// As [`text`], centred on `x`.
pub fn centred(canvas: &mut Canvas, x: i32, y: i32, words: &str, style: Style) {
    text(canvas, x - width(words, style) / 2, y, words, style);
}

/// As [`text`], ending at `x`.
pub fn right(canvas: &mut Canvas, x: i32, y: i32, words: &str, style: Style) {
    text(canvas, x - width(words, style), y, words, style);
}

/// Coverage is collected by maximum first and blended once, or the joints of a curve would show.
struct Mask {
    cells: [u8; MASK * MASK],
    radius: i32,
}

fn draw(canvas: &mut Canvas, pen: i32, y: i32, strokes: &str, style: Style) {
    let clip = canvas.clip();
    let left = pen.div_euclid(SUB) - 3;
    let top = y - 3;
    if left > clip.x1 || left + (MASK as i32) < clip.x0 || top > clip.y1 || top + (MASK as i32) < clip.y0 {
        return;
    }
    let mut mask = Mask { cells: [0; MASK * MASK], radius: style.weight / 2 };
    let origin = (pen - left * SUB, 3 * SUB + style.weight / 2);
    // The stroke's half width belongs to the cap height, so that a bold text is as high as a thin one.
    let scale = style.size * SUB - style.weight;
    for stroke in strokes.split(' ') {
        walk(stroke, |(gx, gy)| (origin.0 + gx * style.size * SUB / 80, origin.1 + gy * scale / 80), &mut mask);
    }
    for (row, cells) in mask.cells.chunks_exact(MASK).enumerate() {
        for (column, part) in cells.iter().enumerate().filter(|(_, part)| **part > 0) {
            canvas.blend(
                left + column as i32,
                top + row as i32,
                style.colour,
                u32::from(*part) + u32::from(*part >> 7),
            );
        }
    }
}

/// Flattens one stroke; grid points are given to `place` in eighths.
fn walk(stroke: &str, place: impl Fn(Point) -> Point, mask: &mut Mask) {
    let mut bytes = stroke.bytes();
    let mut last: Option<Point> = None;
    let mut control: Option<Point> = None;
    while let Some(byte) = bytes.next() {
        let is_control = byte == b'*';
        let x = if is_control { bytes.next() } else { Some(byte) };
        let (Some(x), Some(y)) = (x, bytes.next()) else { return };
        let point = (digit(x) * 8, digit(y) * 8);
        match (last, control) {
            (None, _) => last = Some(point),
            (Some(from), Some(via)) => {
                let to =
                    if is_control { (i32::midpoint(via.0, point.0), i32::midpoint(via.1, point.1)) } else { point };
                curve(from, via, to, &place, mask);
                last = Some(to);
            }
            (Some(from), None) if !is_control => {
                mask.segment(place(from), place(point));
                last = Some(point);
            }
            _ => {}
        }
        control = is_control.then_some(point);
    }
}

fn digit(byte: u8) -> i32 {
    char::from(byte).to_digit(36).unwrap_or(0) as i32
}

fn curve(a: Point, b: Point, c: Point, place: &impl Fn(Point) -> Point, mask: &mut Mask) {
    let (a, b, c) = (place(a), place(b), place(c));
    let at = |i: i32| {
        let (s, t) = (PIECES - i, i);
        let part = |a: i32, b: i32, c: i32| (a * s * s + 2 * b * s * t + c * t * t) / (PIECES * PIECES);
        (part(a.0, b.0, c.0), part(a.1, b.1, c.1))
    };
    for i in 0..PIECES {
        mask.segment(at(i), at(i + 1));
    }
}

impl Mask {
    /// A line with round ends; a point is a disc.
    fn segment(&mut self, a: Point, b: Point) {
        let reach = self.radius + SUB;
        let side = MASK as i32;
        let x0 = ((a.0.min(b.0) - reach) / SUB).clamp(0, side);
        let x1 = ((a.0.max(b.0) + reach) / SUB + 1).clamp(0, side);
        let y0 = ((a.1.min(b.1) - reach) / SUB).clamp(0, side);
        let y1 = ((a.1.max(b.1) + reach) / SUB + 1).clamp(0, side);
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let square = (dx * dx + dy * dy).max(1);
        for y in y0..y1 {
            for x in x0..x1 {
                let (px, py) = (x * SUB + SUB / 2 - a.0, y * SUB + SUB / 2 - a.1);
                let along = (px * dx + py * dy).clamp(0, square);
                let (ex, ey) = (px - dx * along / square, py - dy * along / square);
                let distance = (ex * ex + ey * ey).isqrt();
                let part = (self.radius + SUB / 2 - distance).clamp(0, SUB) * 255 / SUB;
                let cell = &mut self.cells[y as usize * MASK + x as usize];
                *cell = (*cell).max(part as u8);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{GLYPHS, Style, text, width};
    use crate::art::canvas::{Canvas, HEIGHT, WIDTH};

    #[test]
    fn every_printable_ascii_letter_has_strokes_of_whole_points() {
        for letter in 'A'..='Z' {
            let lower = letter.to_ascii_lowercase();
            assert!(GLYPHS.iter().any(|g| g.0 == letter) && GLYPHS.iter().any(|g| g.0 == lower), "{letter}");
        }
        for (letter, _, strokes) in GLYPHS {
            for stroke in strokes.split(' ') {
                let plain = stroke.replace('*', "");
                assert!(plain.len() % 2 == 0, "{letter}: {stroke}");
                assert!(!stroke.ends_with('*') && !stroke.starts_with('*'), "{letter}");
            }
        }
    }

    #[test]
    fn a_text_stays_within_its_width_and_height() {
        for size in [9, 14, 30] {
            let style = Style::new(size, size * 2, 0xffffff);
            let mut pixels = vec![0; WIDTH * HEIGHT];
            text(&mut Canvas::new(&mut pixels), 20, 20, "HONE 0258", style);
            let lit: Vec<_> = (0..pixels.len()).filter(|i| pixels[*i] > 0x202020).collect();
            let (left, right) =
                (lit.iter().map(|i| i % WIDTH).min().unwrap(), lit.iter().map(|i| i % WIDTH).max().unwrap());
            let (top, bottom) = (lit[0] / WIDTH, lit[lit.len() - 1] / WIDTH);
            assert!((19..=21).contains(&left), "{left}");
            assert!((right as i32 - 20 - width("HONE 0258", style)).abs() <= 2, "{right}");
            assert!((19..=21).contains(&top) && (bottom as i32 - 20 - size).abs() <= 1, "{top} {bottom} {size}");
        }
    }
}
