//! The railway of a town: a loop that trains run clockwise, a triangle of points on each side that has a neighbour, and
//! a platform. Pure geometry in sixteenths of a pixel.
//!
//! ```text
//!             | north                A train leaves the platform westwards, runs the loop clockwise and turns left into
//!        /----^----\                 the tunnel it wants. One that arrives turns left out of the tunnel and runs on to
//!  west <           > east           the platform. All turns are left turns, so nothing ever has to reverse.
//!        \==---v---/
//!   platform   | south
//! ```
use crate::art::canvas::{Point, SUB, at};
use crate::board::Side;

/// Middle lines of the loop's four straights, in pixels.
pub const LEFT: i32 = 96;
pub const RIGHT: i32 = 544;
pub const TOP: i32 = 104;
pub const BOTTOM: i32 = 368;
/// Middle lines of the tracks to the neighbours: the same in each town, so that they meet on a wall of screens.
pub const ACROSS: i32 = 236;
pub const DOWN: i32 = 320;
/// Radius of the loop's corners and of the turns at a triangle.
pub const CORNER: i32 = 60;
pub const TURN: i32 = 40;
/// Where a standing train has its head.
pub const STOP: i32 = 168;
/// Height of the game's picture; the rest is the status bar.
pub const TOWN_HEIGHT: i32 = 446;

/// Directions are in 1/16384 of a full turn, clockwise from east: fine enough that a train on a bend does not jitter.
pub const FULL_TURN: i32 = 16384;
pub const QUARTER: i32 = FULL_TURN / 4;

/// Sine, 4096 = 1.
pub fn sine(angle: i32) -> i32 {
    let angle = angle.rem_euclid(FULL_TURN);
    let (fold, sign) = if angle >= 2 * QUARTER { (angle - 2 * QUARTER, -1) } else { (angle, 1) };
    let x = i64::from(if fold > QUARTER { 2 * QUARTER - fold } else { fold });
    // Taylor, four terms, in 1/4096; 6434 / 4096 = pi / 2.
    let x = x * 6434 / i64::from(QUARTER);
    let square = (x * x) >> 12;
    let value = x - ((x * square) >> 12) / 6 + ((((x * square) >> 12) * square) >> 12) / 120
        - ((((((x * square) >> 12) * square) >> 12) * square) >> 12) / 5040;
    sign * value as i32
}

pub fn cosine(angle: i32) -> i32 {
    sine(angle + QUARTER)
}

/// A piece of track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    Straight {
        from: Point,
        to: Point,
    },
    /// Around `centre`, from angle `start` by `sweep` (negative: against the clock).
    Bend {
        centre: Point,
        radius: i32,
        start: i32,
        sweep: i32,
    },
}

impl Piece {
    /// In sixteenths of a pixel.
    pub fn length(self) -> i32 {
        match self {
            Self::Straight { from, to } => (to.0 - from.0).abs() + (to.1 - from.1).abs(),
            // 2 pi / 16384 = 6434 / 2^24.
            Self::Bend { radius, sweep, .. } => ((i64::from(radius) * i64::from(sweep.abs()) * 6434) >> 24) as i32,
        }
    }

    /// Place and heading after `along` sixteenths of a pixel.
    pub fn at(self, along: i32) -> (Point, i32) {
        match self {
            Self::Straight { from, to } => {
                let (dx, dy) = ((to.0 - from.0).signum(), (to.1 - from.1).signum());
                ((from.0 + dx * along, from.1 + dy * along), angle_of((dx, dy)))
            }
            Self::Bend { centre, radius, start, sweep } => {
                let angle = start + (i64::from(sweep) * i64::from(along) / i64::from(self.length().max(1))) as i32;
                let place = (centre.0 + ((radius * cosine(angle)) >> 12), centre.1 + ((radius * sine(angle)) >> 12));
                (place, (angle + if sweep > 0 { QUARTER } else { 3 * QUARTER }).rem_euclid(FULL_TURN))
            }
        }
    }
}

/// Most pieces of a route: a full lap with both branches.
const PIECES: usize = 24;

/// A way through the town.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pieces: [Piece; PIECES],
    count: usize,
    length: i32,
}

/// What a train is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journey {
    /// From the platform into a tunnel.
    Out(Side),
    /// From a tunnel to the platform.
    In(Side),
    /// Once round the loop.
    Lap,
}

/// Point on the loop nearest to the middle of a side, and the outward step.
fn gate(side: Side) -> (Point, Point) {
    match side {
        Side::North => (at(DOWN, TOP), (0, -1)),
        Side::East => (at(RIGHT, ACROSS), (1, 0)),
        Side::South => (at(DOWN, BOTTOM), (0, 1)),
        Side::West => (at(LEFT, ACROSS), (-1, 0)),
    }
}

/// Where the track of a side ends: the screen's edge, or the status bar.
fn rim(side: Side) -> Point {
    match side {
        Side::North => at(DOWN, 0),
        Side::East => at(640, ACROSS),
        Side::South => at(DOWN, TOWN_HEIGHT),
        Side::West => at(0, ACROSS),
    }
}

const TURN_SUB: i32 = TURN * SUB;

impl Route {
    fn empty() -> Self {
        Self { pieces: [Piece::Straight { from: (0, 0), to: (0, 0) }; PIECES], count: 0, length: 0 }
    }

    fn push(&mut self, piece: Piece) {
        if self.count < PIECES && piece.length() > 0 {
            self.pieces[self.count] = piece;
            self.count += 1;
            self.length += piece.length();
        }
    }

    fn straight(&mut self, from: Point, to: Point) {
        self.push(Piece::Straight { from, to });
    }

    /// The way of a journey. Its length does not include the train's own.
    pub fn of(journey: Journey) -> Self {
        let mut route = Self::empty();
        let stop = at(STOP, BOTTOM);
        match journey {
            Journey::Lap => {
                route.along_loop(stop, Side::South, stop, Side::South, true);
            }
            Journey::Out(side) => {
                let (gate, out) = gate(side);
                // Travelling clockwise, the loop runs to the left of "outwards"; the turn begins before the gate.
                let onward = (-out.1, out.0);
                let begin = (gate.0 - onward.0 * TURN_SUB, gate.1 - onward.1 * TURN_SUB);
                route.along_loop(stop, Side::South, begin, side, true);
                let centre = (begin.0 + out.0 * TURN_SUB, begin.1 + out.1 * TURN_SUB);
                // From the point opposite to "outwards", a quarter against the clock.
                let start = angle_of((-out.0, -out.1));
                route.push(Piece::Bend { centre, radius: TURN_SUB, start, sweep: -QUARTER });
                let end = (gate.0 + out.0 * TURN_SUB, gate.1 + out.1 * TURN_SUB);
                route.straight(end, rim(side));
            }
            Journey::In(side) => {
                let (gate, out) = gate(side);
                let onward = (-out.1, out.0);
                let turn = (gate.0 + out.0 * TURN_SUB, gate.1 + out.1 * TURN_SUB);
                route.straight(rim(side), turn);
                let centre = (turn.0 + onward.0 * TURN_SUB, turn.1 + onward.1 * TURN_SUB);
                let start = angle_of((-onward.0, -onward.1));
                route.push(Piece::Bend { centre, radius: TURN_SUB, start, sweep: -QUARTER });
                let begin = (gate.0 + onward.0 * TURN_SUB, gate.1 + onward.1 * TURN_SUB);
                route.along_loop(begin, side, stop, Side::South, false);
            }
        }
        route
    }

    /// Clockwise from a point on one straight of the loop to a point on another; on the same straight the whole way
    /// round, if the goal is `behind` the start.
    fn along_loop(&mut self, from: Point, on: Side, to: Point, goal: Side, behind: bool) {
        let corners = [
            (Side::North, at(RIGHT - CORNER, TOP), at(RIGHT - CORNER, TOP + CORNER), 3 * QUARTER),
            (Side::East, at(RIGHT, BOTTOM - CORNER), at(RIGHT - CORNER, BOTTOM - CORNER), 0),
            (Side::South, at(LEFT + CORNER, BOTTOM), at(LEFT + CORNER, BOTTOM - CORNER), QUARTER),
            (Side::West, at(LEFT, TOP + CORNER), at(LEFT + CORNER, TOP + CORNER), 2 * QUARTER),
        ];
        let starts =
            [at(LEFT + CORNER, TOP), at(RIGHT, TOP + CORNER), at(RIGHT - CORNER, BOTTOM), at(LEFT, BOTTOM - CORNER)];
        let (mut side, mut place, mut first) = (on.index(), from, true);
        loop {
            if side == goal.index() && !(first && behind) {
                self.straight(place, to);
                return;
            }
            first = false;
            let (_, end, centre, start) = corners[side];
            self.straight(place, end);
            self.push(Piece::Bend { centre, radius: CORNER * SUB, start, sweep: QUARTER });
            side = (side + 1) % 4;
            place = starts[side];
        }
    }

    /// In sixteenths of a pixel.
    pub fn length(&self) -> i32 {
        self.length
    }

    pub fn pieces(&self) -> &[Piece] {
        &self.pieces[..self.count]
    }

    /// Place and heading at `along`; `None` before the beginning and beyond the end.
    pub fn at(&self, along: i32) -> Option<(Point, i32)> {
        let mut rest = along;
        if rest < 0 {
            return None;
        }
        for piece in self.pieces() {
            if rest <= piece.length() {
                return Some(piece.at(rest));
            }
            rest -= piece.length();
        }
        None
    }
}

fn angle_of(direction: Point) -> i32 {
    match direction {
        (1, _) => 0,
        (_, 1) => QUARTER,
        (-1, _) => 2 * QUARTER,
        _ => 3 * QUARTER,
    }
}

#[cfg(test)]
mod tests {
    use super::{FULL_TURN, Journey, QUARTER, Route, STOP, cosine, rim, sine};
    use crate::art::canvas::at;
    use crate::board::Side;

    #[test]
    fn sine_is_exact_to_a_thousandth() {
        for angle in (-20_000..20_000).step_by(7) {
            let want = (f64::from(angle) * core::f64::consts::TAU / 16384.0).sin() * 4096.0;
            assert!((f64::from(sine(angle)) - want).abs() < 4.0, "{angle}: {} for {want}", sine(angle));
        }
        assert_eq!((cosine(0), sine(0), sine(2 * QUARTER)), (sine(QUARTER), 0, 0));
    }

    /// No jump, no kink: each step of a pixel moves a pixel, and the heading follows.
    #[track_caller]
    fn smooth(journey: Journey) -> (super::Point, super::Point) {
        let route = Route::of(journey);
        let mut last = route.at(0).unwrap();
        let first = last.0;
        for along in (16..=route.length()).step_by(16) {
            let now = route.at(along).unwrap();
            let (dx, dy) = (now.0.0 - last.0.0, now.0.1 - last.0.1);
            let step = f64::from(dx * dx + dy * dy).sqrt();
            assert!((13.0..=19.0).contains(&step), "{journey:?} at {along}: a step of {step}");
            let turn = (now.1 - last.1).rem_euclid(FULL_TURN);
            assert!(turn <= 128 || turn >= FULL_TURN - 128, "{journey:?} at {along}: turned by {turn}");
            let (ahead_x, ahead_y) = (cosine(now.1) * dx, sine(now.1) * dy);
            assert!(ahead_x + ahead_y > 0, "{journey:?} at {along}: runs backwards");
            last = now;
        }
        (first, route.at(route.length()).unwrap().0)
    }

    #[test]
    fn every_journey_is_smooth_and_joins_platform_and_tunnel() {
        let stop = at(STOP, super::BOTTOM);
        let near =
            |a: super::Point, b: super::Point| assert!((a.0 - b.0).abs() + (a.1 - b.1).abs() <= 24, "{a:?} {b:?}");
        for side in Side::ALL {
            let (from, to) = smooth(Journey::Out(side));
            near(from, stop);
            near(to, rim(side));
            let (from, to) = smooth(Journey::In(side));
            near(from, rim(side));
            near(to, stop);
        }
        let (from, to) = smooth(Journey::Lap);
        near(from, stop);
        near(to, stop);
        assert!(Route::of(Journey::Lap).at(-1).is_none());
    }
}
