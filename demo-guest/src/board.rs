//! The station board: nine squares in three rows, one town each, and who is whose neighbour.
//!
//! ```text
//! 0 1 2      A train that leaves square 4 eastwards arrives at square 5 from the west.
//! 3 4 5      Beyond the rim there is nothing: no tunnel.
//! 6 7 8
//! ```

/// Squares on the board, and so the most players of a session.
pub const SQUARES: usize = 9;
const ROW: u8 = 3;

/// A square, 0 to 8, left to right and top to bottom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Square(u8);

impl Square {
    pub const fn new(index: u8) -> Option<Self> {
        if (index as usize) < SQUARES { Some(Self(index)) } else { None }
    }

    pub const fn index(self) -> usize {
        self.0 as usize
    }

    pub fn all() -> impl Iterator<Item = Self> {
        (0..SQUARES as u8).map(Self)
    }

    /// The square beyond `side`, if the board goes on there.
    pub const fn neighbour(self, side: Side) -> Option<Self> {
        let (column, row) = (self.0 % ROW, self.0 / ROW);
        match side {
            Side::North if row > 0 => Some(Self(self.0 - ROW)),
            Side::South if row < ROW - 1 => Some(Self(self.0 + ROW)),
            Side::West if column > 0 => Some(Self(self.0 - 1)),
            Side::East if column < ROW - 1 => Some(Self(self.0 + 1)),
            _ => None,
        }
    }
}

/// An edge of a town.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    North,
    East,
    South,
    West,
}

impl Side {
    pub const ALL: [Self; 4] = [Self::North, Self::East, Self::South, Self::West];

    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::North => Self::South,
            Self::East => Self::West,
            Self::South => Self::North,
            Self::West => Self::East,
        }
    }

    /// Its place in [`Side::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    pub const fn word(self) -> &'static str {
        match self {
            Self::North => "north",
            Self::East => "east",
            Self::South => "south",
            Self::West => "west",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Side, Square};

    #[test]
    fn neighbours_are_mutual_and_twelve_joints_join_nine_squares() {
        let mut joints = 0;
        for square in Square::all() {
            for side in Side::ALL {
                if let Some(other) = square.neighbour(side) {
                    assert_eq!(other.neighbour(side.opposite()), Some(square), "{square:?} {side:?}");
                    joints += 1;
                }
            }
        }
        assert_eq!(joints, 24);
    }

    #[test]
    fn corners_have_two_and_the_middle_four() {
        let count = |index| Side::ALL.iter().filter(|s| Square::new(index).unwrap().neighbour(**s).is_some()).count();
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 8].map(count), [2, 3, 2, 3, 4, 3, 2, 3, 2]);
        assert_eq!(Square::new(9), None);
    }
}
