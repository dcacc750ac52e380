//! Trains: an engine and its wagons, at any angle, each stacked from slices a pixel high (so they look solid from above).
use super::canvas::{Canvas, Point, Rect, SUB, mix, shade};
use super::town::Light;
use crate::track::{Route, cosine, sine};

/// One colour for each square, told apart also by brightness.
const LIVERIES: [u32; 9] = [0xc8372d, 0x2f6fb5, 0x2f8a4d, 0xe0a32e, 0x7c4f9e, 0x1f8f93, 0xd9662b, 0x8b2f4b, 0x44566b];

/// Colour of the trains that are at home on square `home`.
pub fn livery(home: usize) -> u32 {
    LIVERIES[home % LIVERIES.len()]
}

/// Half the length of the engine and of a wagon, and the gap between them, in sixteenths of a pixel.
const ENGINE: i32 = 19 * SUB;
const WAGON: i32 = 15 * SUB;
const GAP: i32 = 4 * SUB;
/// Wagons behind each engine.
pub const WAGONS: usize = 3;
/// From the first buffer to the last.
pub const LENGTH: i32 = 2 * ENGINE + WAGONS as i32 * (2 * WAGON + GAP);
/// Height of the tallest slice, in pixels.
const TALLEST: i32 = 18;

/// A vehicle on the ground.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vehicle {
    centre: Point,
    /// Forwards, 4096 long.
    ahead: Point,
    half: i32,
    kind: usize,
}

/// A train somewhere on its route: what is needed to draw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pose {
    vehicles: [Vehicle; WAGONS + 1],
    home: usize,
    pub light: Light,
}

/// Place on a route that goes straight on beyond both ends.
fn place(route: &Route, along: i32) -> Point {
    if let Some((point, _)) = route.at(along) {
        return point;
    }
    let (edge, over) = if along < 0 { (0, along) } else { (route.length(), along - route.length()) };
    let ((x, y), heading) = route.at(edge).unwrap_or(((-4096, -4096), 0));
    (x + ((cosine(heading) * over) >> 12), y + ((sine(heading) * over) >> 12))
}

impl Pose {
    /// With its first buffer at `head` sixteenths of a pixel along `route`.
    pub fn new(route: &Route, head: i32, home: usize, light: Light) -> Self {
        let mut front = head;
        let vehicles = core::array::from_fn(|i| {
            let half = if i == 0 { ENGINE } else { WAGON };
            // The axles are a little inside the buffers.
            let (a, b) = (place(route, front - half / 3), place(route, front - half * 5 / 3));
            let (dx, dy) = (a.0 - b.0, a.1 - b.1);
            let length = (dx * dx + dy * dy).isqrt().max(1);
            front -= 2 * half + GAP;
            Vehicle {
                centre: (i32::midpoint(a.0, b.0), i32::midpoint(a.1, b.1)),
                ahead: (dx * 4096 / length, dy * 4096 / length),
                half,
                kind: if i == 0 { 0 } else { 1 + (i + home) % 3 },
            }
        });
        Self { vehicles, home, light }
    }

    /// Where the chimney's top is.
    pub fn chimney(&self) -> Point {
        let engine = &self.vehicles[0];
        let (x, y) = engine.at(11 * SUB, 0);
        (x, y - TALLEST * SUB)
    }

    /// Rectangles that hold everything drawn, one per vehicle.
    pub fn bounds(&self) -> [Rect; WAGONS + 1] {
        self.vehicles.map(|v| {
            let (ux, uy) = (v.ahead.0.abs(), v.ahead.1.abs());
            let width = 8 * SUB;
            let (ex, ey) = (((ux * v.half + uy * width) >> 12) / SUB + 3, ((uy * v.half + ux * width) >> 12) / SUB + 2);
            let (x, y) = (v.centre.0 / SUB, v.centre.1 / SUB);
            // The glow of the head lamp reaches beyond the buffers.
            let glow = if v.kind == 0 && self.light == Light::Night { 4 } else { 0 };
            Rect { x0: x - ex - glow, y0: y - ey - TALLEST - 2, x1: x + ex + 4 + glow, y1: y + ey + 5 + glow }
        })
    }

    pub fn draw(&self, canvas: &mut Canvas) {
        let mut order: [usize; WAGONS + 1] = core::array::from_fn(|i| i);
        order.sort_unstable_by_key(|i| self.vehicles[*i].centre.1);
        for (vehicle, bounds) in order.map(|i| (&self.vehicles[i], self.bounds()[i])) {
            if bounds.overlaps(canvas.clip()) {
                let mut brush = Brush { canvas, vehicle, light: self.light };
                brush.shadow();
                match vehicle.kind {
                    0 => brush.engine(livery(self.home)),
                    1 => brush.coach(livery(self.home)),
                    2 => brush.timber(livery(self.home)),
                    _ => brush.van(livery(self.home)),
                }
            }
        }
    }
}

impl Vehicle {
    /// A point `along` and `across` from the middle.
    fn at(&self, along: i32, across: i32) -> Point {
        let (ux, uy) = self.ahead;
        (self.centre.0 + ((ux * along - uy * across) >> 12), self.centre.1 + ((uy * along + ux * across) >> 12))
    }
}

struct Brush<'c, 'p> {
    canvas: &'c mut Canvas<'p>,
    vehicle: &'c Vehicle,
    light: Light,
}

impl Brush<'_, '_> {
    /// One slice: from `back` to `front` along the vehicle (pixels from its middle), `half` wide, `z` above the rails.
    fn slice(&mut self, back: i32, front: i32, half: i32, z: i32, colour: u32) {
        let raised = |(x, y): Point| (x, y - z * SUB);
        let v = self.vehicle;
        let corners = [
            raised(v.at(back * SUB, -half)),
            raised(v.at(front * SUB, -half)),
            raised(v.at(front * SUB, half)),
            raised(v.at(back * SUB, half)),
        ];
        let colour = self.light.on(colour);
        self.canvas.polygon(&corners, colour, 256);
    }

    /// Slices from `low` up to `high`, all but the top a little darker: walls and a roof.
    fn block(&mut self, back: i32, front: i32, half: i32, low: i32, high: i32, colour: u32) {
        for z in low..high {
            self.slice(back, front, half, z, shade(colour, -60 + (z - low) * 30 / (high - low)));
        }
        self.slice(back, front, half, high, colour);
    }

    fn shadow(&mut self) {
        let v = self.vehicle;
        let moved = |(x, y): Point| (x + 4 * SUB, y + 4 * SUB);
        let corners = [
            moved(v.at(-v.half, -104)),
            moved(v.at(v.half, -104)),
            moved(v.at(v.half, 104)),
            moved(v.at(-v.half, 104)),
        ];
        self.canvas.polygon(&corners, 0x101810, 90);
    }

    fn disc(&mut self, along: i32, across: i32, z: i32, radius: i32, colour: u32) {
        let (x, y) = self.vehicle.at(along * SUB, across);
        let colour = self.light.on(colour);
        self.canvas.disc((x, y - z * SUB), radius, colour);
    }

    fn engine(&mut self, colour: u32) {
        self.block(-19, 18, 100, 0, 3, 0x33302f);
        self.slice(-19, 19, 110, 3, 0xa8322a);
        // Running plate, boiler with brass bands, smoke box.
        self.block(-5, 17, 74, 4, 8, colour);
        self.slice(-5, 17, 60, 9, shade(colour, 20));
        self.slice(-5, 17, 34, 10, shade(colour, 70));
        for band in [0, 8] {
            self.slice(band, band + 1, 66, 9, 0xf0cf6a);
            self.slice(band, band + 1, 36, 10, 0xfff0b0);
        }
        self.block(13, 18, 74, 4, 9, 0x2c2c30);
        self.slice(13, 18, 40, 10, 0x55555c);
        // Dome and chimney.
        for z in 10..13 {
            self.disc(4, 0, z, 44 - (z - 10) * 6, 0xe3b94c);
        }
        self.disc(4, 0, 13, 18, 0xfff0b8);
        for z in 9..16 {
            self.disc(13, 0, z, 34, 0x26262a);
        }
        self.disc(13, 0, 16, 44, 0x3c3c42);
        self.disc(13, 0, 17, 24, 0x111113);
        // Cab with windows in its sides and a rounded roof.
        self.block(-19, -5, 96, 4, 12, shade(colour, -30));
        for z in 8..11 {
            self.slice(-15, -9, 98, z, 0xbfe0ea);
        }
        self.slice(-20, -4, 108, 14, 0x2e3338);
        self.slice(-20, -4, 90, 15, 0x454c54);
        self.slice(-19, -5, 40, 16, 0x6a737d);
        // Lamps: they shine at night.
        for side in [-60, 60] {
            let (x, y) = self.vehicle.at(18 * SUB, side);
            self.canvas.disc((x, y - 5 * SUB), 26, 0xfff3c0);
        }
        if self.light == Light::Night {
            let (x, y) = self.vehicle.at(18 * SUB, 0);
            self.canvas.ellipse((x, y - 4 * SUB), 90, 80, 0xffe9a8, 110);
        }
    }

    fn coach(&mut self, colour: u32) {
        self.block(-15, 15, 88, 0, 2, 0x33302f);
        self.block(-15, 15, 96, 3, 6, colour);
        let glass = if self.light == Light::Night { 0xffd98a } else { 0xd7ecf0 };
        for z in 7..11 {
            self.slice(-15, 15, 96, z, shade(colour, -20));
            for window in [-12, -5, 2, 9] {
                let (back, front) = (window, window + 4);
                let v = self.vehicle;
                let raised = |(x, y): Point| (x, y - z * SUB);
                let corners = [
                    raised(v.at(back * SUB, -98)),
                    raised(v.at(front * SUB, -98)),
                    raised(v.at(front * SUB, 98)),
                    raised(v.at(back * SUB, 98)),
                ];
                self.canvas.polygon(&corners, glass, 256);
            }
        }
        self.slice(-15, 15, 96, 11, 0xf3e8cf);
        self.slice(-16, 16, 100, 12, 0x6e6a66);
        self.slice(-16, 16, 80, 13, 0x8b8681);
        self.slice(-15, 15, 40, 14, 0xa9a49e);
    }

    fn timber(&mut self, colour: u32) {
        self.block(-15, 15, 96, 0, 4, shade(colour, -50));
        self.slice(-15, 15, 96, 5, mix(colour, 0x6b5a48, 120));
        for end in [-14, 12] {
            self.block(end, end + 2, 96, 5, 10, 0x4a3526);
        }
        for (across, z) in [(-52, 6), (0, 6), (52, 6), (-26, 9), (26, 9)] {
            for (thick, colour) in [(28, 0x7a5232), (18, 0x96683f), (6, 0xb98a58)] {
                let v = self.vehicle;
                let raised = |(x, y): Point| (x, y - z * SUB - (28 - thick) / 2);
                let colour = self.light.on(colour);
                self.canvas.line(raised(v.at(-11 * SUB, across)), raised(v.at(12 * SUB, across)), thick * 2, colour);
            }
            self.disc(12, across, z, 26, 0xe0bd88);
        }
    }

    fn van(&mut self, colour: u32) {
        self.block(-15, 15, 88, 0, 2, 0x33302f);
        self.block(-15, 15, 96, 3, 11, mix(colour, 0xf0e0c0, 150));
        for z in 4..10 {
            self.slice(-4, 4, 98, z, shade(colour, -30));
        }
        self.slice(-16, 16, 100, 12, shade(colour, -60));
        self.slice(-16, 16, 76, 13, shade(colour, -20));
        self.slice(-15, 15, 36, 14, shade(colour, 30));
    }
}

/// A puff of steam, `age` 0 (dense) to 256 (gone).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Puff {
    pub place: Point,
    pub age: i32,
}

impl Puff {
    pub fn bounds(&self) -> Rect {
        let radius = self.radius() / SUB + 2;
        Rect::new(self.place.0 / SUB - radius, self.place.1 / SUB - radius, radius * 2, radius * 2)
    }

    fn radius(&self) -> i32 {
        3 * SUB + self.age * 5 * SUB / 256
    }

    pub fn draw(&self, canvas: &mut Canvas, light: Light) {
        let white = if light == Light::Night { 0x8f9bb8 } else { 0xffffff };
        let density = (256 - self.age).clamp(0, 256) * 3 / 4;
        canvas.ellipse_with(self.place, self.radius(), self.radius(), |u, v| {
            let shaded = if u + v * 2 > 120 { shade(white, -30) } else { white };
            (shaded, density as u32)
        });
    }
}
