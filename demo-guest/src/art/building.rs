//! Houses, trees, the station and one landmark per town, seen from the front and a little above.
use super::canvas::{Canvas, Rect, SUB, at, mix, shade};
use super::font::{self, Style};
use super::town::Palette;
use crate::board::Square;
use crate::rng::Rng;

/// Lower left corner of the station's front wall, and its size.
const STATION: Rect = Rect { x0: 158, y0: 300, x1: 288, y1: 342 };
/// Lamps along the platform, and one at each end of the lane.
const LAMPS: [(i32, i32); 6] = [(140, 350), (180, 352), (266, 352), (306, 350), (352, 256), (430, 226)];

/// Soft shadow on the ground, to the lower right.
fn shadow(canvas: &mut Canvas, x: i32, y: i32, rx: i32, ry: i32) {
    canvas.ellipse(at(x + rx / 4, y), rx * SUB, ry * SUB, 0x18281c, 80);
}

/// `x`, `y` is the foot of the trunk.
pub fn tree(canvas: &mut Canvas, x: i32, y: i32, palette: &Palette, kind: u8) {
    let size = 9 + i32::from(kind >> 3 & 3);
    let leaves = palette.leaves[usize::from(kind % 3)];
    shadow(canvas, x + 4, y + 1, size + 2, size / 2);
    canvas.fill(Rect::new(x - 2, y - 6, 4, 7), 0x6b4a30);
    canvas.fill(Rect::new(x + 1, y - 6, 1, 7), 0x4a3220);
    if kind & 0x40 == 0 {
        // Broad-leaved: three balls, the front one brightest.
        canvas.ball(at(x - size / 2, y - 9), size * 11, size * 10, shade(leaves, -26));
        canvas.ball(at(x + size / 2, y - 10), size * 11, size * 10, shade(leaves, -16));
        canvas.ball(at(x, y - 8 - size / 2), size * 14, size * 13, leaves);
        if kind & 0xa0 == 0xa0 {
            for (dx, dy) in [(-4, -10), (3, -14), (5, -7), (-1, -6)] {
                canvas.disc(at(x + dx, y + dy), 24, 0xd9483b);
            }
        }
    } else {
        // Fir: three skirts.
        for (i, w) in [(0, size), (1, size - 2), (2, size - 5)] {
            let base = y - 4 - i * 7;
            let tip = base - 13;
            canvas.polygon(&[at(x - w, base), at(x, tip), at(x + w, base)], shade(leaves, -20 + i * 8), 256);
            canvas.polygon(&[at(x - w, base), at(x, tip), at(x - w / 4, base)], shade(leaves, 16 + i * 8), 256);
        }
    }
}

/// A house whose front wall's lower edge is centred on `x`, `y`.
pub fn house(canvas: &mut Canvas, x: i32, y: i32, palette: &Palette, kind: u8) {
    let wall = [0xf5e8cf, 0xf0d9c0, 0xe8e4da, 0xf3dca2, 0xdfe6e0][usize::from(kind % 5)];
    let roof = palette.roofs[usize::from(kind / 5 % 3)];
    let w = 17 + i32::from(kind >> 6);
    let h = 17;
    let top = y - h;
    shadow(canvas, x + 8, y, w + 6, 8);
    canvas.gradient(Rect::new(x - w, top, 2 * w, h), wall, shade(wall, -36));
    canvas.fill(Rect::new(x - w, y - 2, 2 * w, 2), shade(wall, -80));
    // Roof: a lit slope and its eaves.
    let (eave, ridge) = (top + 2, top - 14);
    canvas.polygon(&[at(x - w - 3, eave), at(x - w + 6, ridge), at(x + w - 6, ridge), at(x + w + 3, eave)], roof, 256);
    canvas.polygon(
        &[at(x - w + 6, ridge), at(x + w - 6, ridge), at(x + w - 4, ridge + 3), at(x - w + 4, ridge + 3)],
        shade(roof, 50),
        256,
    );
    for row in 1..4 {
        let ry = ridge + row * 4;
        canvas.line(at(x - w + 5 - row * 2, ry), at(x + w - 5 + row * 2, ry), 12, shade(roof, -36));
    }
    canvas.fill(Rect::new(x - w - 2, eave, 2 * w + 5, 2), shade(roof, -90));
    // Chimney, door, windows.
    let side = if kind & 1 == 0 { w / 2 } else { -w / 2 };
    canvas.fill(Rect::new(x + side - 3, ridge - 5, 6, 9), 0xa5614d);
    canvas.fill(Rect::new(x + side - 4, ridge - 6, 8, 2), 0x7d4638);
    let door = if kind & 2 == 0 { -5 } else { 1 };
    canvas.fill(Rect::new(x + door, y - 11, 6, 11), shade(roof, -110));
    canvas.fill(Rect::new(x + door + 1, y - 10, 4, 4), 0x9fc4d0);
    for dx in [-w + 4, w - 10] {
        canvas.fill(Rect::new(x + dx - 1, y - 13, 8, 8), 0xfffaf0);
        canvas.fill(Rect::new(x + dx, y - 12, 6, 6), WINDOW);
        canvas.fill(Rect::new(x + dx + 3, y - 12, 1, 6), 0xfffaf0);
    }
    if kind & 4 != 0 {
        for i in 0..4 {
            canvas.ball(at(x - w - 2 + i * 4, y), 40, 32, shade(palette.leaves[0], -10));
        }
    }
}

/// Glass by day; [`lit_windows`] finds it again by night.
const WINDOW: u32 = 0x8fb7c9;
const GLOW: u32 = 0xffd27a;

/// The station with platform and name plate.
pub fn station(canvas: &mut Canvas, palette: &Palette, name: &str) {
    let Rect { x0, y0, x1, y1 } = STATION;
    let middle = i32::midpoint(x0, x1);
    let roof = 0x3f5f6e;
    // Platform: paving with a bright edge towards the rails.
    canvas.rounded(Rect::new(128, 340, 190, 18), 3, 0x6f6656, 256);
    canvas.rounded(Rect::new(128, 338, 190, 16), 3, 0xd6cab2, 256);
    for i in 0..23 {
        canvas.fill(Rect::new(132 + i * 8, 339, 1, 12), 0xbfb298);
    }
    canvas.fill(Rect::new(130, 351, 186, 2), 0xf8f4e8);
    shadow(canvas, middle + 12, y1 + 1, 74, 9);
    let wall = 0xf6ead2;
    canvas.gradient(Rect::new(x0, y0, x1 - x0, y1 - y0), wall, shade(wall, -30));
    canvas.fill(Rect::new(x0, y1 - 6, x1 - x0, 6), 0xb07a5a);
    canvas.fill(Rect::new(x0, y1 - 6, x1 - x0, 1), 0xd8a684);
    // Side wings' roofs and the taller hall in the middle.
    for (a, b) in [(x0 - 5, middle - 22), (middle + 22, x1 + 5)] {
        canvas.polygon(&[at(a, y0 + 2), at(a + 8, y0 - 16), at(b - 4, y0 - 16), at(b, y0 + 2)], roof, 256);
        canvas.fill(Rect::new(a + 8, y0 - 17, b - a - 12, 2), shade(roof, 70));
        for row in 1..4 {
            canvas.line(at(a + 8 - row * 2, y0 - 16 + row * 5), at(b - 3, y0 - 16 + row * 5), 12, shade(roof, -40));
        }
        canvas.fill(Rect::new(a, y0 + 1, b - a, 3), shade(roof, -90));
    }
    let hall = Rect::new(middle - 25, y0 - 14, 50, y1 - y0 + 14);
    canvas.gradient(hall, shade(wall, 30), shade(wall, -24));
    canvas.fill(Rect::new(hall.x0, y1 - 6, 50, 6), 0xb07a5a);
    canvas.polygon(&[at(middle - 31, y0 - 12), at(middle, y0 - 36), at(middle + 31, y0 - 12)], roof, 256);
    canvas.polygon(&[at(middle - 22, y0 - 12), at(middle, y0 - 29), at(middle + 22, y0 - 12)], wall, 256);
    canvas.line(at(middle - 31, y0 - 12), at(middle, y0 - 36), 30, shade(roof, 50));
    canvas.line(at(middle, y0 - 36), at(middle + 31, y0 - 12), 30, shade(roof, -50));
    clock(canvas, middle, y0 - 15, palette);
    // Doors and windows.
    for dx in [-12, 3] {
        canvas.rounded(Rect::new(middle + dx - 1, y0 + 13, 11, 29), 4, 0xfffaf0, 256);
        canvas.rounded(Rect::new(middle + dx, y0 + 14, 9, 28), 4, 0x7a4b3a, 256);
        canvas.rounded(Rect::new(middle + dx + 2, y0 + 17, 5, 10), 2, WINDOW, 256);
    }
    for x in [x0 + 7, x0 + 24, x1 - 36, x1 - 19] {
        canvas.rounded(Rect::new(x - 1, y0 + 11, 14, 19), 4, 0xfffaf0, 256);
        canvas.rounded(Rect::new(x, y0 + 12, 12, 17), 3, WINDOW, 256);
        canvas.fill(Rect::new(x + 5, y0 + 12, 2, 17), 0xfffaf0);
        canvas.fill(Rect::new(x, y0 + 20, 12, 1), 0xfffaf0);
        canvas.fill(Rect::new(x - 2, y0 + 30, 16, 2), 0xd8c8a8);
        for i in 0..4 {
            canvas.disc(at(x + 1 + i * 3, y0 + 30), 26, [0xe0524a, 0xf2c14e, 0xe98ab0, 0x6fae4a][i as usize]);
        }
    }
    station_board(canvas, name);
    for (x, y) in LAMPS {
        lamp_post(canvas, x, y);
    }
    // A bench and two trunks wait on the platform.
    canvas.fill(Rect::new(298, 338, 16, 2), 0x8a5a3a);
    canvas.fill(Rect::new(298, 342, 16, 2), 0x9c6a46);
    canvas.fill(Rect::new(300, 344, 2, 4), 0x3a3a40);
    canvas.fill(Rect::new(310, 344, 2, 4), 0x3a3a40);
    canvas.rounded(Rect::new(146, 340, 10, 8), 1, 0x9a4f3c, 256);
    canvas.fill(Rect::new(146, 343, 10, 1), 0xe0b070);
    canvas.rounded(Rect::new(149, 335, 7, 6), 1, 0x4f6f8e, 256);
}

/// The board above the station's doors; lit at night, so it is drawn again then.
pub fn station_board(canvas: &mut Canvas, name: &str) {
    let Rect { x0, y0, x1, .. } = STATION;
    let middle = i32::midpoint(x0, x1);
    let style = Style::new(8, 22, 0xfdf8ea);
    let width = (font::width(name, style) + 18).max(70);
    let board = Rect::new(middle - width / 2, y0 - 1, width, 15);
    canvas.rounded(Rect::new(board.x0 + 1, board.y0 + 2, width, 15), 3, 0x102018, 100);
    canvas.frame(board, 3, 1, 0xfdf8ea, 0x14573f);
    font::centred(canvas, middle, y0 + 3, name, style);
}

fn clock(canvas: &mut Canvas, x: i32, y: i32, palette: &Palette) {
    canvas.disc(at(x, y), 8 * SUB, shade(palette.roofs[0], -60));
    canvas.disc(at(x, y), 104, 0xfffdf5);
    canvas.line(at(x, y), at(x, y - 5), 20, 0x283038);
    canvas.line(at(x, y), at(x + 4, y + 2), 20, 0x283038);
}

fn lamp_post(canvas: &mut Canvas, x: i32, y: i32) {
    canvas.fill(Rect::new(x, y - 20, 2, 20), 0x2f3b3a);
    canvas.fill(Rect::new(x - 2, y - 2, 6, 2), 0x2f3b3a);
    canvas.disc(at(x + 1, y - 22), 52, 0xfff3c4);
    canvas.fill(Rect::new(x - 2, y - 26, 6, 2), 0x2f3b3a);
}

/// Light around the lamps, after nightfall.
pub fn lamps(canvas: &mut Canvas) {
    for (x, y) in LAMPS {
        glow(canvas, x + 1, y - 14, 44, 34);
        canvas.disc(at(x + 1, y - 22), 60, 0xfff6d8);
    }
}

/// A warm pool of light that fades outwards.
pub fn glow(canvas: &mut Canvas, x: i32, y: i32, rx: i32, ry: i32) {
    canvas.ellipse_with(at(x, y), rx * SUB, ry * SUB, |u, v| {
        let fade = (256 - ((u * u + v * v) >> 8)).clamp(0, 256) as u32;
        (0xffc766, fade * fade / 560)
    });
}

/// All of the station's windows and two in three of the others are lit; found by their colour as it looks at night.
pub fn lit_windows(canvas: &mut Canvas, square: Square) {
    let dark = super::town::Light::Night.on(WINDOW);
    let mut rng = Rng::new(square.index() as u64);
    let dim = rng.range(0, 3);
    canvas.map(Rect::new(100, 110, 440, 240), |x, y, colour| {
        if colour == dark && (STATION.grow(16).contains(x, y) || (x / 24 + y / 20) % 3 != dim) {
            mix(GLOW, 0xfff2c0, (y & 7) as u32 * 20)
        } else {
            colour
        }
    });
}

/// The one building that a town is known by; its foot is at `x`, `y`.
pub fn landmark(canvas: &mut Canvas, x: i32, y: i32, palette: &Palette, index: usize) {
    match index % 5 {
        0 => church(canvas, x, y, palette),
        1 => windmill(canvas, x, y),
        2 => lighthouse(canvas, x, y),
        3 => water_tower(canvas, x, y),
        _ => clock_tower(canvas, x, y, palette),
    }
}

fn church(canvas: &mut Canvas, x: i32, y: i32, palette: &Palette) {
    let (wall, roof) = (0xf3efe4, palette.roofs[1]);
    shadow(canvas, x + 14, y, 46, 10);
    canvas.gradient(Rect::new(x - 8, y - 26, 44, 26), wall, shade(wall, -36));
    canvas.polygon(&[at(x - 10, y - 24), at(x - 4, y - 46), at(x + 34, y - 46), at(x + 40, y - 24)], roof, 256);
    for row in 1..5 {
        canvas.line(at(x - 4, y - 46 + row * 5), at(x + 34 + row, y - 46 + row * 5), 12, shade(roof, -36));
    }
    canvas.fill(Rect::new(x - 4, y - 47, 38, 2), shade(roof, 60));
    for i in 0..3 {
        canvas.rounded(Rect::new(x + 8 + i * 10, y - 20, 6, 13), 3, WINDOW, 256);
    }
    canvas.gradient(Rect::new(x - 28, y - 58, 22, 58), shade(wall, 20), shade(wall, -40));
    canvas.polygon(&[at(x - 31, y - 56), at(x - 17, y - 92), at(x - 3, y - 56)], roof, 256);
    canvas.polygon(&[at(x - 31, y - 56), at(x - 17, y - 92), at(x - 19, y - 56)], shade(roof, 46), 256);
    canvas.fill(Rect::new(x - 18, y - 102, 2, 12), 0xd9b04a);
    canvas.fill(Rect::new(x - 21, y - 99, 8, 2), 0xd9b04a);
    canvas.disc(at(x - 17, y - 44), 92, 0xfffdf5);
    canvas.line(at(x - 17, y - 44), at(x - 17, y - 48), 18, 0x283038);
    canvas.line(at(x - 17, y - 44), at(x - 14, y - 43), 18, 0x283038);
    canvas.rounded(Rect::new(x - 22, y - 16, 10, 16), 4, 0x6b4330, 256);
}

fn windmill(canvas: &mut Canvas, x: i32, y: i32) {
    shadow(canvas, x + 14, y, 36, 10);
    let wall = 0xf4e6cc;
    canvas.polygon(&[at(x - 20, y), at(x - 12, y - 58), at(x + 12, y - 58), at(x + 20, y)], wall, 256);
    canvas.polygon(&[at(x + 5, y), at(x + 4, y - 58), at(x + 12, y - 58), at(x + 20, y)], shade(wall, -50), 256);
    canvas.fill(Rect::new(x - 17, y - 24, 34, 3), 0xb98a5a);
    canvas.rounded(Rect::new(x - 5, y - 16, 10, 16), 4, 0x7a4b3a, 256);
    canvas.rounded(Rect::new(x - 4, y - 44, 8, 10), 3, WINDOW, 256);
    canvas.ball(at(x, y - 58), 16 * SUB, 14 * SUB, 0xa5493c);
    // Sails, a little off the upright.
    let hub = at(x, y - 56);
    for (dx, dy) in [(12, -38), (38, 12), (-12, 38), (-38, -12)] {
        let tip = (hub.0 + dx * SUB, hub.1 + dy * SUB);
        canvas.line(hub, tip, 36, 0x6b4a30);
        // The cloth hangs at the side of its spar.
        let (nx, ny) = (-dy * SUB / 4, dx * SUB / 4);
        let root = (hub.0 + dx * 4, hub.1 + dy * 4);
        canvas.polygon(&[root, tip, (tip.0 + nx, tip.1 + ny), (root.0 + nx, root.1 + ny)], 0xfdf6e6, 240);
        for i in 1..4 {
            let p = (root.0 + (tip.0 - root.0) * i / 4, root.1 + (tip.1 - root.1) * i / 4);
            canvas.line(p, (p.0 + nx, p.1 + ny), 12, 0xb39b78);
        }
    }
    canvas.disc(hub, 60, 0x4a3220);
}

fn lighthouse(canvas: &mut Canvas, x: i32, y: i32) {
    shadow(canvas, x + 14, y, 32, 9);
    for (i, colour) in [0xfaf5ea, 0xd6473c, 0xfaf5ea, 0xd6473c, 0xfaf5ea].into_iter().enumerate() {
        let i = i as i32;
        let (low, high) = (y - i * 14, y - i * 14 - 14);
        let (a, b) = (16 - i * 3 / 2, 16 - (i + 1) * 3 / 2);
        canvas.polygon(&[at(x - a, low), at(x - b, high), at(x + b, high), at(x + a, low)], colour, 256);
        canvas.polygon(
            &[at(x + a / 3, low), at(x + b / 3, high), at(x + b, high), at(x + a, low)],
            shade(colour, -56),
            256,
        );
    }
    canvas.fill(Rect::new(x - 12, y - 73, 24, 3), 0x39424a);
    canvas.fill(Rect::new(x - 7, y - 84, 14, 11), 0xffe9a0);
    canvas.fill(Rect::new(x - 1, y - 84, 2, 11), 0x39424a);
    canvas.polygon(&[at(x - 11, y - 83), at(x, y - 95), at(x + 11, y - 83)], 0xb83a32, 256);
    canvas.rounded(Rect::new(x - 4, y - 12, 8, 12), 3, 0x39424a, 256);
    canvas.rounded(Rect::new(x - 3, y - 36, 6, 8), 2, WINDOW, 256);
}

fn water_tower(canvas: &mut Canvas, x: i32, y: i32) {
    shadow(canvas, x + 16, y, 34, 9);
    for dx in [-18, 16] {
        canvas.fill(Rect::new(x + dx, y - 40, 4, 40), 0x7a5a3f);
    }
    canvas.fill(Rect::new(x - 3, y - 40, 4, 38), 0x5f4632);
    canvas.line(at(x - 17, y - 6), at(x + 18, y - 34), 36, 0x8d6a4a);
    canvas.line(at(x + 18, y - 6), at(x - 17, y - 34), 36, 0x8d6a4a);
    let tank = 0xb5714a;
    canvas.gradient(Rect::new(x - 24, y - 72, 48, 34), shade(tank, 10), shade(tank, -40));
    for i in 0..8 {
        canvas.tint(Rect::new(x - 24 + i * 6, y - 72, 1, 34), 0x4a2c1c, 110);
    }
    canvas.tint(Rect::new(x + 8, y - 72, 16, 34), 0x201018, 50);
    for dy in [-66, -46] {
        canvas.fill(Rect::new(x - 25, y + dy, 50, 3), 0x4a4f58);
    }
    canvas.polygon(&[at(x - 28, y - 70), at(x, y - 92), at(x + 28, y - 70)], 0x5c6b78, 256);
    canvas.polygon(&[at(x - 28, y - 70), at(x, y - 92), at(x - 4, y - 70)], 0x8797a4, 256);
    canvas.line(at(x + 20, y - 42), at(x + 34, y - 36), 60, 0x4a4f58);
}

fn clock_tower(canvas: &mut Canvas, x: i32, y: i32, palette: &Palette) {
    shadow(canvas, x + 14, y, 30, 9);
    let (wall, roof) = (0xd98f6a, palette.roofs[2]);
    canvas.gradient(Rect::new(x - 15, y - 66, 30, 66), shade(wall, 20), shade(wall, -40));
    canvas.tint(Rect::new(x + 6, y - 66, 9, 66), 0x301810, 50);
    for row in 0..10 {
        canvas.tint(Rect::new(x - 15, y - 6 - row * 6, 30, 1), 0x8a4a34, 90);
    }
    canvas.fill(Rect::new(x - 18, y - 40, 36, 3), 0xf6ead2);
    canvas.fill(Rect::new(x - 18, y - 68, 36, 4), 0xf6ead2);
    canvas.polygon(&[at(x - 20, y - 67), at(x, y - 96), at(x + 20, y - 67)], roof, 256);
    canvas.polygon(&[at(x - 20, y - 67), at(x, y - 96), at(x - 3, y - 67)], shade(roof, 46), 256);
    canvas.disc(at(x, y - 53), 9 * SUB, 0x4a3228);
    canvas.disc(at(x, y - 53), 120, 0xfffdf5);
    canvas.line(at(x, y - 53), at(x + 3, y - 57), 20, 0x283038);
    canvas.line(at(x, y - 53), at(x - 4, y - 52), 20, 0x283038);
    canvas.rounded(Rect::new(x - 5, y - 18, 10, 18), 5, 0x5a3a2c, 256);
    canvas.rounded(Rect::new(x - 4, y - 35, 8, 10), 3, WINDOW, 256);
}
