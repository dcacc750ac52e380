//! Signs and boards: the status bar, menu panels, buttons, the station board. Enamel green, cream, brass.
use super::canvas::{Canvas, Rect, SUB, at, mix, shade};
use super::font::{self, Style};
use super::train::livery;
use crate::board::{SQUARES, Square};

pub const GREEN: u32 = 0x14573f;
pub const DARK: u32 = 0x0e3c2c;
pub const CREAM: u32 = 0xfdf8ea;
pub const BRASS: u32 = 0xe0b04a;
pub const INK: u32 = 0x2b2a26;
pub const FADED: u32 = 0x6d675a;

/// The status bar under every town.
pub const BAR: Rect = Rect { x0: 0, y0: 446, x1: 640, y1: 480 };
/// The small station board at its right end.
pub const MINI_BOARD: Rect = Rect { x0: 598, y0: 449, x1: 634, y1: 477 };

/// What the status bar says.
#[derive(Clone, Copy, Debug)]
pub struct Status<'a> {
    /// Counted from 1, as people do.
    pub seat: u8,
    pub name: &'a str,
    pub address: &'a str,
    pub session: &'a str,
    /// Who is on which square; the value is the home of its livery.
    pub squares: [Option<u8>; SQUARES],
    pub own: Option<Square>,
}

pub fn bar(canvas: &mut Canvas, status: &Status) {
    canvas.gradient(BAR, GREEN, DARK);
    canvas.fill(Rect::new(0, BAR.y0, 640, 2), BRASS);
    canvas.fill(Rect::new(0, BAR.y0 + 2, 640, 1), shade(DARK, -60));
    plate(canvas, Rect::new(6, 451, 26, 26), status.seat);
    let y = 458;
    let mut x = font::text(canvas, 42, y, status.name, Style::new(12, 34, CREAM));
    x = font::text(canvas, x + 10, y + 1, "·", Style::new(10, 28, BRASS));
    x = font::text(canvas, x + 8, y + 1, status.address, Style::new(10, 22, 0xd5e5d8));
    x = font::text(canvas, x + 10, y + 1, "·", Style::new(10, 28, BRASS));
    font::text(canvas, x + 8, y + 1, status.session, Style::new(10, 22, 0xd5e5d8));
    for square in Square::all() {
        let index = square.index() as i32;
        let cell = Rect::new(MINI_BOARD.x0 + index % 3 * 12, MINI_BOARD.y0 + 1 + index / 3 * 9, 11, 8);
        let colour = status.squares[square.index()].map_or(shade(DARK, -50), |home| livery(usize::from(home)));
        if status.own == Some(square) {
            canvas.rounded(cell.grow(1), 2, CREAM, 256);
        }
        canvas.rounded(cell, 2, colour, 256);
    }
}

/// A seat's number on an enamel plate.
pub fn plate(canvas: &mut Canvas, rect: Rect, seat: u8) {
    let mut text = [0; 3];
    canvas.frame(rect, 5, 2, CREAM, GREEN);
    let size = (rect.y1 - rect.y0) / 2;
    let words = number(&mut text, seat);
    font::centred(
        canvas,
        i32::midpoint(rect.x0, rect.x1),
        rect.y0 + (rect.y1 - rect.y0 - size) / 2,
        words,
        Style::new(size, size * 3, CREAM),
    );
}

/// Decimal digits of a small number.
fn number(buffer: &mut [u8; 3], value: u8) -> &str {
    let mut start = 3;
    let mut rest = value;
    loop {
        start -= 1;
        buffer[start] = b'0' + rest % 10;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    core::str::from_utf8(&buffer[start..]).unwrap_or("?")
}

/// A cream board with a green head and a title; gives the part below the head.
pub fn sheet(canvas: &mut Canvas, rect: Rect, title: &str) -> Rect {
    for i in 1..5 {
        canvas.rounded(
            Rect { x0: rect.x0 - i, y0: rect.y0 + 4 - i, x1: rect.x1 + i, y1: rect.y1 + 5 + i },
            14 + i,
            0x081008,
            28,
        );
    }
    canvas.rounded(rect, 14, BRASS, 256);
    canvas.rounded(rect.grow(-2), 12, GREEN, 256);
    let inside = Rect { y0: rect.y0 + 42, ..rect.grow(-5) };
    canvas.rounded_with(inside, 9, |t| (mix(CREAM, 0xefe4c8, t as u32), 256));
    font::centred(canvas, i32::midpoint(rect.x0, rect.x1), rect.y0 + 14, title, Style::new(16, 44, CREAM));
    for x in [rect.x0 + 18, rect.x1 - 18] {
        canvas.disc(at(x, rect.y0 + 22), 3 * SUB, BRASS);
    }
    inside
}

/// A button; the chosen one is green and has an arrow.
pub fn button(canvas: &mut Canvas, rect: Rect, label: &str, chosen: bool) {
    let (edge, top, ink) = if chosen { (BRASS, GREEN, CREAM) } else { (0xcdbf9c, 0xfffdf5, INK) };
    canvas.rounded(Rect { y0: rect.y0 + 2, y1: rect.y1 + 2, ..rect }, 9, 0x4a4230, 70);
    canvas.rounded(rect, 9, edge, 256);
    canvas.rounded_with(rect.grow(-2), 7, |t| (shade(top, if chosen { 16 - t / 8 } else { -t / 24 }), 256));
    let middle = i32::midpoint(rect.y0, rect.y1);
    font::centred(canvas, i32::midpoint(rect.x0, rect.x1), middle - 6, label, Style::new(12, 30, ink));
    if chosen {
        let x = rect.x0 + 14;
        canvas.polygon(&[at(x, middle - 5), at(x + 8, middle), at(x, middle + 5)], BRASS, 256);
    }
}

/// A short line of text in a sheet.
pub fn words(canvas: &mut Canvas, x: i32, y: i32, text: &str, size: i32, colour: u32) {
    font::centred(canvas, x, y, text, Style::new(size, size * 9 / 4, colour));
}

/// The game's name, large, with a little track under it.
pub fn title(canvas: &mut Canvas, x: i32, y: i32) {
    let style = Style::new(40, 116, CREAM);
    for (dx, dy, colour) in [(3, 5, 0x0a2018), (0, 3, 0x7a2a20), (0, 0, CREAM)] {
        font::centred(canvas, x + dx, y + dy, "Little Junction", style.colour(colour));
    }
    let half = font::width("Little Junction", style) / 2 + 8;
    let base = y + 62;
    for i in 0..=(half / 6) {
        canvas.fill(Rect::new(x - half + i * 12, base - 3, 6, 10), 0x6b4a30);
    }
    canvas.fill(Rect::new(x - half - 4, base - 1, half * 2 + 14, 2), 0xdfe6ea);
    canvas.fill(Rect::new(x - half - 4, base + 3, half * 2 + 14, 2), 0xdfe6ea);
}

/// The mouse pointer: its tip is the place itself.
pub fn pointer(canvas: &mut Canvas, x: i32, y: i32) {
    let shape = |dx: i32, dy: i32| {
        [(0, 0), (0, 17), (4, 13), (7, 20), (10, 19), (7, 12), (12, 12)].map(|(px, py)| at(x + px + dx, y + py + dy))
    };
    canvas.polygon(&shape(1, 2), 0x000000, 80);
    canvas.polygon(&shape(0, 0), 0x20242a, 256);
    canvas.polygon(
        &[(1, 3), (1, 15), (4, 11), (7, 17), (8, 17), (6, 11), (10, 11)].map(|(px, py)| at(x + px, y + py)),
        CREAM,
        256,
    );
}

/// What [`pointer`] may touch.
pub fn pointer_bounds(x: i32, y: i32) -> Rect {
    Rect::new(x - 1, y - 1, 16, 25)
}
