//! A town from above: meadow, hills, water, woods, houses, the railway and its tunnels. Drawn once per square and time of
//! day into the background; trains go on top of it.
use super::building;
use super::canvas::{Canvas, Point, Rect, SUB, at, mix, shade};
use crate::board::{Side, Square};
use crate::rng::Rng;
use crate::track::{self, ACROSS, BOTTOM, DOWN, Journey, LEFT, Piece, RIGHT, Route, TOP, TOWN_HEIGHT, cosine, sine};

/// The parts of the picture that trains show in: they vanish beyond the mouths of the tunnels.
pub const OPEN: Rect = Rect { x0: 30, y0: 40, x1: 610, y1: 418 };

/// Time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Light {
    #[default]
    Day,
    Night,
}

impl Light {
    /// A colour as it looks in this light. Moonlight is blue and leaves a half.
    pub fn on(self, colour: u32) -> u32 {
        match self {
            Self::Day => colour,
            Self::Night => {
                let (r, g, b) = (colour >> 16 & 255, colour >> 8 & 255, colour & 255);
                let grey = (r * 3 + g * 5 + b) / 9;
                let r = (r * 2 + grey) * 28 / 256;
                let g = (g * 2 + grey) * 36 / 256;
                let b = (b + grey * 2) * 51 / 256 + 12;
                r.min(255) << 16 | g.min(255) << 8 | b.min(255)
            }
        }
    }
}

/// What makes one town differ from the next.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    pub grass: [u32; 2],
    pub leaves: [u32; 3],
    pub roofs: [u32; 3],
    pub path: u32,
}

/// Meadow, heath, autumn, seaside, pines, orchard.
const PALETTES: [Palette; 5] = [
    Palette {
        grass: [0x86b859, 0x6fa34c],
        leaves: [0x4f8f3c, 0x3f7d3a, 0x6ba548],
        roofs: [0xc4553f, 0xa8443c, 0xd07a4a],
        path: 0xdcc79a,
    },
    Palette {
        grass: [0xa3b860, 0x8aa552],
        leaves: [0x5f8f44, 0x87993e, 0x4a7c44],
        roofs: [0x5d6f8e, 0x7a5a78, 0x4f7f86],
        path: 0xe0cfa6,
    },
    Palette {
        grass: [0xb9b45a, 0xa39c4b],
        leaves: [0xd08a36, 0xb9602f, 0xd9ab40],
        roofs: [0x8c4a3c, 0x6f5a50, 0xa65d3f],
        path: 0xd9c08e,
    },
    Palette {
        grass: [0x7fbb7a, 0x66a86c],
        leaves: [0x3d8a5a, 0x57a065, 0x2f7a58],
        roofs: [0xd9825b, 0xc96a5a, 0x4d86a8],
        path: 0xead9b0,
    },
    Palette {
        grass: [0x74a868, 0x5d935c],
        leaves: [0x2f6e4a, 0x3b7d52, 0x28603f],
        roofs: [0x7d4f3b, 0x96603f, 0x5c5f66],
        path: 0xcdbb93,
    },
];

/// Names of the nine towns.
pub const NAMES: [&str; 9] = [
    "Alder Halt",
    "Millbrook",
    "Gull Point",
    "Fernhill",
    "Crossway",
    "Saltmarsh",
    "Pinewood",
    "Orchard End",
    "Harbour Road",
];

pub fn palette(square: Square) -> Palette {
    PALETTES[square.index() * 3 % PALETTES.len()]
}

/// A place that is taken: circles are enough.
#[derive(Clone, Copy)]
struct Spot {
    x: i32,
    y: i32,
    r: i32,
}

const SPOTS: usize = 96;

/// Where things stand already.
struct Plan {
    spots: [Spot; SPOTS],
    count: usize,
}

impl Plan {
    fn free(&self, x: i32, y: i32, r: i32) -> bool {
        self.spots[..self.count].iter().all(|s| {
            let (dx, dy, reach) = (s.x - x, s.y - y, s.r + r);
            dx * dx + dy * dy >= reach * reach
        }) && !near_track(x, y, r + 15)
            && !near_track(x, y - 16, r + 8)
    }

    fn take(&mut self, x: i32, y: i32, r: i32) {
        if self.count < SPOTS {
            self.spots[self.count] = Spot { x, y, r };
            self.count += 1;
        }
    }
}

/// Is anything of the railway within `reach` pixels? All four branches count, so that a town never has to be replanned.
fn near_track(x: i32, y: i32, reach: i32) -> bool {
    let on_row = |row: i32, from: i32, to: i32| (y - row).abs() < reach && x > from - reach && x < to + reach;
    let on_column = |column: i32, from: i32, to: i32| (x - column).abs() < reach && y > from - reach && y < to + reach;
    let turn = track::TURN;
    on_row(TOP, LEFT, RIGHT)
        || on_row(BOTTOM, LEFT, RIGHT)
        || on_column(LEFT, TOP, BOTTOM)
        || on_column(RIGHT, TOP, BOTTOM)
        || on_row(ACROSS, 0, LEFT)
        || on_row(ACROSS, RIGHT, 640)
        || on_column(DOWN, 0, TOP)
        || on_column(DOWN, BOTTOM, TOWN_HEIGHT)
        // The triangles.
        || ((x - LEFT + turn / 2).abs() < turn / 2 + reach && (y - ACROSS).abs() < turn + reach / 2)
        || ((x - RIGHT - turn / 2).abs() < turn / 2 + reach && (y - ACROSS).abs() < turn + reach / 2)
        || ((y - TOP + turn / 2).abs() < turn / 2 + reach && (x - DOWN).abs() < turn + reach / 2)
        || ((y - BOTTOM - turn / 2).abs() < turn / 2 + reach && (x - DOWN).abs() < turn + reach / 2)
}

/// Draws the whole town (everything above the status bar).
pub fn draw(canvas: &mut Canvas, square: Square, light: Light) {
    let palette = palette(square);
    let mut rng = Rng::new(square.index() as u64 + 11);
    let mut plan = Plan { spots: [Spot { x: 0, y: 0, r: 0 }; SPOTS], count: 0 };
    meadow(canvas, &palette, square.index() as u32);
    hills(canvas, &palette, &mut rng);
    // The station, its forecourt and the name plate.
    plan.take(222, 318, 66);
    plan.take(150, 330, 26);
    plan.take(292, 330, 30);
    pond(canvas, &mut rng, &mut plan);
    fields(canvas, &mut rng, &mut plan);
    lane(canvas, palette.path, &mut plan);
    let sides = Side::ALL.map(|side| square.neighbour(side).is_some());
    railway(canvas, sides);
    let (landmark_x, landmark_y) = (rng.range(385, 430), rng.range(176, 200));
    plan.take(landmark_x, landmark_y, 48);
    plant(canvas, &palette, &mut rng, &mut plan, (landmark_x, landmark_y), square);
    building::station(canvas, &palette, NAMES[square.index()]);
    for side in Side::ALL.into_iter().filter(|side| sides[side.index()]) {
        tunnel(canvas, side, &palette);
    }
    if light == Light::Night {
        canvas.map(Rect::new(0, 0, 640, TOWN_HEIGHT), |_, _, colour| light.on(colour));
        building::lit_windows(canvas, square);
        building::lamps(canvas);
        building::station_board(canvas, NAMES[square.index()]);
    }
}

/// Cheap hash of a lattice point, 0..=255.
fn lattice(x: i32, y: i32, seed: u32) -> i32 {
    let mut h =
        (x as u32).wrapping_mul(0x9e37_79b1) ^ (y as u32).wrapping_mul(0x85eb_ca77) ^ seed.wrapping_mul(0xc2b2_ae3d);
    h ^= h >> 15;
    h = h.wrapping_mul(0x2c1b_3c6d);
    ((h >> 13) & 255) as i32
}

/// Grass: soft patches of two greens, mown stripes, and single blades.
fn meadow(canvas: &mut Canvas, palette: &Palette, seed: u32) {
    const CELL: i32 = 40;
    let [light, dark] = palette.grass;
    // One table of 256 tones between and beyond the two greens, instead of a mix per pixel.
    let mut tones = [0; 256];
    for (i, tone) in tones.iter_mut().enumerate() {
        *tone = shade(mix(light, dark, i as u32), 14 - i as i32 / 10);
    }
    let mut speckle = Rng::new(u64::from(seed) + 77);
    let mut noise = 0u32;
    let mut row = (i32::MIN, [0i32; 18], [0i32; 18]);
    canvas.map(Rect::new(0, 0, 640, TOWN_HEIGHT), |x, y, _| {
        let (cell_y, fy) = (y / CELL, y % CELL);
        if row.0 != y {
            // The lattice, interpolated down this row.
            row.0 = y;
            for (i, value) in row.1.iter_mut().enumerate() {
                let (a, b) = (lattice(i as i32, cell_y, seed), lattice(i as i32, cell_y + 1, seed));
                let smooth = fy * fy * (3 * CELL - 2 * fy) / (CELL * CELL);
                *value = a + (b - a) * smooth / CELL;
            }
        }
        let (cell, fx) = ((x / CELL) as usize, x % CELL);
        let (a, b) = (row.1[cell], row.1[cell + 1]);
        let patch = a + (b - a) * fx / CELL;
        if x % 8 == 0 {
            noise = speckle.draw();
        }
        noise = noise.rotate_left(4);
        let grain = (noise & 15) as i32 - 8;
        let stripe = if (x + y) / 24 % 2 == 0 { 8 } else { -8 };
        tones[(patch * 3 / 4 + 32 + grain + stripe).clamp(0, 255) as usize]
    });
    // Tufts and flowers.
    let mut rng = Rng::new(u64::from(seed) + 5);
    for i in 0..150 {
        let (x, y) = (rng.range(4, 636), rng.range(4, TOWN_HEIGHT - 4));
        if i % 4 == 0 {
            let petal = [0xf6f0d8, 0xf2d25c, 0xe59ab0, 0xffffff][(rng.draw() & 3) as usize];
            for (dx, dy) in [(0, 0), (4, 1), (-3, 3)] {
                canvas.disc((x * SUB + dx * SUB, (y + dy) * SUB), 20, petal);
            }
        } else {
            for dx in [-2, 0, 2] {
                canvas.line(at(x + dx / 2, y), at(x + dx, y - 4), 14, shade(dark, -50));
            }
        }
    }
}

/// Two or three soft mounds, lit from the upper left.
fn hills(canvas: &mut Canvas, palette: &Palette, rng: &mut Rng) {
    let places = [(40, 40), (600, 50), (50, 420), (596, 420), (470, 250), (200, 170)];
    for (x, y) in places {
        if rng.range(0, 5) == 0 {
            continue;
        }
        let (x, y) = (x + rng.range(-20, 20), y + rng.range(-14, 14));
        let (rx, ry) = (rng.range(60, 110) * SUB, rng.range(40, 64) * SUB);
        let (bright, dark) = (shade(palette.grass[0], 40), shade(palette.grass[1], -50));
        canvas.ellipse_with(at(x, y), rx, ry, |u, v| {
            let slope = u + 2 * v;
            let rim = (256 - ((u * u + v * v) >> 8)).clamp(0, 256);
            let colour = if slope < 0 { bright } else { dark };
            (colour, (slope.unsigned_abs() / 5).min(100) * rim.unsigned_abs() / 256)
        });
    }
}

fn pond(canvas: &mut Canvas, rng: &mut Rng, plan: &mut Plan) {
    let (x, y) = (rng.range(190, 240), rng.range(178, 196));
    let parts: [(i32, i32, i32, i32); 3] = [(0, 0, 52, 27), (32, 10, 34, 19), (-26, 8, 30, 18)];
    let layers = [(5, 0xd9c592, 1), (2, 0x9fc9c4, 0), (0, 0x4f95b8, 0), (-6, 0x5fa6c6, -1), (-14, 0x79bbd4, -3)];
    for (grow, colour, down) in layers {
        for (dx, dy, rx, ry) in parts {
            canvas.ellipse(at(x + dx, y + dy + down), (rx + grow) * SUB, (ry + grow * 2 / 3) * SUB, colour, 256);
        }
    }
    for (dx, dy, w) in [(-20, -8, 16), (8, 2, 22), (30, 12, 12), (-30, 8, 10), (-4, 14, 14)] {
        canvas.rounded(Rect::new(x + dx, y + dy, w, 2), 1, 0xd8f0f4, 120);
    }
    // Reeds and two lilies.
    for i in 0..7 {
        let (rx, ry) = (x - 58 + i * 3, y + 12 + i % 3 * 3);
        canvas.line(at(rx, ry), at(rx + i % 3 - 1, ry - 13), 18, 0x4f7d3a);
        canvas.rounded(Rect::new(rx + i % 3 - 2, ry - 16, 3, 6), 1, 0x7a4f2e, 256);
    }
    canvas.ellipse(at(x + 40, y + 16), 80, 48, 0x4d9a58, 256);
    canvas.disc(at(x + 41, y + 15), 28, 0xf5c6d6);
    plan.take(x - 20, y + 4, 44);
    plan.take(x + 30, y + 8, 42);
}

/// A ploughed field or an orchard plot where there is room.
fn fields(canvas: &mut Canvas, rng: &mut Rng, plan: &mut Plan) {
    let (x, y) = (rng.range(392, 420), rng.range(262, 276));
    let kind = rng.range(0, 3) as usize;
    let (soil, crop) = [(0xb98f5a, 0xe3c25f), (0x8f6b45, 0x6fae4a), (0xc7a86a, 0xf0dc7c)][kind];
    let (w, h) = (112, 62);
    let corner = |dx: i32, dy: i32| at(x + dx, y + dy);
    canvas.polygon(&[corner(8, 0), corner(w, 0), corner(w - 8, h), corner(0, h)], soil, 256);
    for row in 0..8 {
        let dy = 5 + row * 7;
        for column in 0..13 {
            let dx = 10 + column * 8 - dy / 8;
            canvas.ball(corner(dx, dy), 46, 40, shade(crop, rng.range(-20, 20)));
        }
    }
    // Fence.
    for i in 0..=11 {
        let dx = i * w / 11 - 1;
        canvas.fill(Rect::new(x + dx, y + h - 4, 3, 9), 0xf0e6cf);
        canvas.fill(Rect::new(x + dx + 2, y + h - 4, 1, 9), 0xb9a987);
    }
    canvas.fill(Rect::new(x, y + h - 2, w, 2), 0xf0e6cf);
    canvas.fill(Rect::new(x, y + h + 2, w, 2), 0xd8cbaa);
    plan.take(x + 28, y + 32, 40);
    plan.take(x + 84, y + 32, 40);
}

/// The sandy lane from the station up through the town, with a branch to the landmark.
fn lane(canvas: &mut Canvas, colour: u32, plan: &mut Plan) {
    let way: [(i32, i32); 10] = [
        (300, 352),
        (318, 330),
        (330, 300),
        (334, 270),
        (344, 244),
        (362, 226),
        (388, 214),
        (414, 212),
        (440, 206),
        (462, 190),
    ];
    for (grow, colour) in [(2, shade(colour, -40)), (0, colour), (-4, shade(colour, 50))] {
        for pair in way.windows(2) {
            let (a, b) = (at(pair[0].0, pair[0].1), at(pair[1].0, pair[1].1));
            canvas.line(a, b, (13 + grow) * SUB, colour);
            canvas.disc(b, (13 + grow) * SUB / 2, colour);
        }
    }
    for (x, y) in way {
        plan.take(x, y, 9);
    }
}

/// Ballast, sleepers, rails: first all ballast, then all sleepers, so that points look right.
fn railway(canvas: &mut Canvas, sides: [bool; 4]) {
    let lap = Route::of(Journey::Lap);
    let each = |canvas: &mut Canvas, draw: fn(&mut Canvas, &Piece)| {
        for piece in lap.pieces() {
            draw(canvas, piece);
        }
        for side in Side::ALL.into_iter().filter(|side| sides[side.index()]) {
            // A branch is the last two pieces of the way out, and the first two of the way in.
            let (out, back) = (Route::of(Journey::Out(side)), Route::of(Journey::In(side)));
            for piece in out.pieces()[out.pieces().len() - 2..].iter().chain(&back.pieces()[..2]) {
                draw(canvas, piece);
            }
        }
    };
    each(canvas, |c, p| steps(p, 8, |a, _| c.ellipse((a.0 + 2 * SUB, a.1 + 4 * SUB), 190, 170, 0x5c5a42, 40)));
    each(canvas, |c, p| steps(p, 5, |a, _| c.disc(a, 178, 0x8d8474)));
    each(canvas, |c, p| steps(p, 5, |a, _| c.disc(a, 150, 0xa79c88)));
    each(canvas, |c, p| {
        steps(p, 8, |a, heading| {
            let (nx, ny) = ((-sine(heading) * 112) >> 12, (cosine(heading) * 112) >> 12);
            c.line((a.0 + nx, a.1 + ny + 12), (a.0 - nx, a.1 - ny + 12), 60, 0x4a3526);
            c.line((a.0 + nx, a.1 + ny), (a.0 - nx, a.1 - ny), 56, 0x7b5a3f);
        });
    });
    for (offset, width, colour) in [(14, 40, 0x3c3a3c), (0, 30, 0x8f9299), (-6, 12, 0xe6eaee)] {
        for side in [-76, 76] {
            let rail = |c: &mut Canvas, p: &Piece| {
                let place = |(a, heading): (Point, i32)| {
                    (a.0 + ((-sine(heading) * side) >> 12), a.1 + ((cosine(heading) * side) >> 12) + offset)
                };
                let count = if matches!(p, Piece::Straight { .. }) { 1 } else { 10 };
                for i in 0..count {
                    let (from, to) = (p.length() * i / count, p.length() * (i + 1) / count);
                    c.line(place(p.at(from)), place(p.at(to)), width, colour);
                }
            };
            for piece in lap.pieces() {
                rail(canvas, piece);
            }
            for way in Side::ALL.into_iter().filter(|s| sides[s.index()]) {
                let (out, back) = (Route::of(Journey::Out(way)), Route::of(Journey::In(way)));
                for piece in out.pieces()[out.pieces().len() - 2..].iter().chain(&back.pieces()[1..2]) {
                    rail(canvas, piece);
                }
            }
        }
    }
}

/// Calls `f` every `step` pixels along a piece.
fn steps(piece: &Piece, step: i32, mut f: impl FnMut(Point, i32)) {
    let count = (piece.length() / (step * SUB)).max(1);
    for i in 0..=count {
        let (place, heading) = piece.at(piece.length() * i / count);
        f(place, heading);
    }
}

/// Houses and trees, drawn from the back to the front so that what stands lower covers what stands higher.
fn plant(canvas: &mut Canvas, palette: &Palette, rng: &mut Rng, plan: &mut Plan, mark: (i32, i32), square: Square) {
    #[derive(Clone, Copy)]
    enum Thing {
        House(u8),
        Tree(u8),
        Landmark,
    }
    let mut things = [(0, 0, Thing::Landmark); SPOTS];
    things[0] = (mark.0, mark.1 + 26, Thing::Landmark);
    let mut count = 1;
    let mut add = |x, y, thing| {
        if count < SPOTS {
            things[count] = (x, y, thing);
            count += 1;
        }
    };
    let (mut houses, mut trees) = (0, 0);
    for attempt in 0..700 {
        let wants_house = attempt < 160 && houses < 9;
        if wants_house {
            // Most houses inside the loop.
            let (x, y) = (rng.range(130, 510), rng.range(140, 330));
            if plan.free(x, y, 21) {
                plan.take(x, y, 21);
                add(x, y + 14, Thing::House(rng.draw() as u8));
                houses += 1;
            }
        } else if trees < 74 {
            let (x, y) = (rng.range(8, 632), rng.range(10, TOWN_HEIGHT - 6));
            let r = rng.range(8, 12);
            if plan.free(x, y, r - 2) {
                plan.take(x, y, r - 2);
                add(x, y + 5, Thing::Tree(rng.draw() as u8));
                trees += 1;
            }
        }
    }
    things[..count].sort_unstable_by_key(|t| t.1);
    for &(x, y, thing) in &things[..count] {
        match thing {
            Thing::House(kind) => building::house(canvas, x, y, palette, kind),
            Thing::Tree(kind) => building::tree(canvas, x, y, palette, kind),
            Thing::Landmark => building::landmark(canvas, x, y, palette, square.index()),
        }
    }
}

/// A wooded mound over the end of a track, with a stone mouth facing the town.
fn tunnel(canvas: &mut Canvas, side: Side, palette: &Palette) {
    let (x, y) = match side {
        Side::North => (DOWN, 8),
        Side::East => (634, ACROSS - 4),
        Side::South => (DOWN, TOWN_HEIGHT - 2),
        Side::West => (6, ACROSS - 4),
    };
    let upright = matches!(side, Side::North | Side::South);
    let (rx, ry) = if upright { (62, 36) } else { (42, 58) };
    let clip = canvas.clip();
    canvas.set_clip(clip.intersect(Rect::new(0, 0, 640, TOWN_HEIGHT)));
    canvas.ellipse(at(x + 3, y + 7), (rx + 3) * SUB, (ry + 2) * SUB, 0x203018, 80);
    let [bright, dark] = [shade(palette.grass[0], 44), shade(palette.grass[1], -70)];
    let turf = mix(palette.grass[0], palette.grass[1], 128);
    canvas.ellipse_with(at(x, y), rx * SUB, ry * SUB, |u, v| {
        let slope = (u + 2 * v) / 3;
        let part = (slope.unsigned_abs()).min(256) * 7 / 8;
        (mix(turf, if slope < 0 { bright } else { dark }, part), 256)
    });
    mouth(canvas, side);
    for (along, up, kind) in [(-40, 3, 3u8), (40, 1, 17), (-25, -13, 0x49), (23, -15, 0x51)] {
        match side {
            Side::North => building::tree(canvas, x + along * 5 / 4, y + up + 12, palette, kind),
            Side::South => building::tree(canvas, x + along * 5 / 4, y + up - 4, palette, kind),
            Side::East => building::tree(canvas, x - 6 - up / 2, y + 8 + along, palette, kind),
            Side::West => building::tree(canvas, x + 6 + up / 2, y + 8 + along, palette, kind),
        }
    }
    canvas.set_clip(clip);
}

/// The stone mouth of a tunnel: an arch where it is seen from the front, a coped wall where from the side.
fn mouth(canvas: &mut Canvas, side: Side) {
    let (stone, coping, dark) = (0xb5ab99, 0xe2dac9, 0x16120f);
    match side {
        Side::North => {
            // The arch with its wing walls; trains come out of it towards us.
            canvas.rounded(Rect::new(DOWN - 26, 10, 52, 34), 16, 0x857b6c, 256);
            canvas.rounded(Rect::new(DOWN - 25, 9, 50, 34), 16, coping, 256);
            canvas.rounded(Rect::new(DOWN - 22, 12, 44, 32), 14, stone, 256);
            for i in 0..4 {
                canvas.tint(Rect::new(DOWN - 22, 20 + i * 6, 44, 1), 0x5c5448, 90);
            }
            canvas.rounded(Rect::new(DOWN - 16, 17, 32, 40), 13, dark, 256);
            canvas.gradient(Rect::new(DOWN - 16, 30, 32, 12), dark, 0x4a4238);
            canvas.fill(Rect::new(DOWN - 26, 42, 10, 3), coping);
            canvas.fill(Rect::new(DOWN + 16, 42, 10, 3), coping);
        }
        Side::South => {
            // From behind: the top of the wall, and the dark that the track runs into.
            canvas.fill(Rect::new(DOWN - 16, 412, 32, 10), dark);
            canvas.gradient(Rect::new(DOWN - 16, 408, 32, 8), 0x4a4238, dark);
            canvas.rounded(Rect::new(DOWN - 27, 420, 54, 11), 4, 0x7d7365, 256);
            canvas.rounded(Rect::new(DOWN - 27, 418, 54, 9), 4, coping, 256);
            canvas.rounded(Rect::new(DOWN - 25, 420, 50, 5), 2, stone, 256);
        }
        Side::East | Side::West => {
            let x = if side == Side::East { 606 } else { 22 };
            let (open, shut) = if side == Side::East { (x, x + 6) } else { (x + 6, x) };
            canvas.rounded(Rect::new(x - 1, ACROSS - 33, 14, 62), 4, 0x7d7365, 256);
            canvas.rounded(Rect::new(x, ACROSS - 36, 12, 60), 4, coping, 256);
            canvas.rounded(Rect::new(x + 2, ACROSS - 34, 8, 56), 2, stone, 256);
            for i in 0..7 {
                canvas.tint(Rect::new(x + 2, ACROSS - 28 + i * 8, 8, 1), 0x5c5448, 90);
            }
            canvas.rounded(Rect::new(x, ACROSS - 24, 12, 38), 4, dark, 256);
            canvas.fill(Rect::new(open, ACROSS - 22, 6, 34), 0x2e2822);
            canvas.fill(Rect::new(shut, ACROSS - 22, 6, 34), dark);
        }
    }
}
