//! The trains of one town: who stands, who moves, who waits in a tunnel, and who has been handed on.
//!
//! ```text
//!             arrive()                        head at the stop
//!  neighbour ---------> Waiting ---> Moving in ---------------> Standing
//!      ^                  ^                                        | depart()
//!      |       refused,   |         tail out of sight              v
//!      +---- Handed <-----+------------------------------------ Moving out   (or a lap, back to Standing)
//!             | taken(): it is theirs now
//! ```
//!
//! **Invariants.** One train moves at a time and one stands at most, so trains never meet. A train is in one state only.
//! Waiting trains come in as soon as the platform is free; [`Depot::crowded`] says that someone should go.
use super::message::{TRAINS, Train};
use crate::art::canvas::SUB;
use crate::art::train::LENGTH;
use crate::board::Side;
use crate::track::{Journey, Route};

/// Pixels a second at full speed, and at the platform.
const FAST: i32 = 104;
const SLOW: i32 = 14;
/// A neighbour has this long to confirm a train, in ms.
const CONFIRM: u64 = 5000;

/// A train on its way.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub train: Train,
    pub journey: Journey,
    pub route: Route,
    /// First buffer, in 1/16000 of a pixel along the route, so that a millisecond at any speed counts.
    position: i64,
    handed: bool,
}

impl Run {
    fn new(train: Train, journey: Journey) -> Self {
        Self { train, journey, route: Route::of(journey), position: 0, handed: false }
    }

    /// First buffer, in sixteenths of a pixel along the route.
    pub fn head(&self) -> i32 {
        (self.position / 1000) as i32
    }

    /// Part of the way that is done, 0..=255.
    pub fn progress(&self) -> u8 {
        (self.head() * 255 / self.route.length().max(1)).clamp(0, 255) as u8
    }

    /// Speed in pixels a second: it starts and stops gently at the platform.
    fn speed(&self) -> i32 {
        let (gone, left) = (self.head() / SUB, (self.route.length() - self.head()) / SUB);
        let nearest = match self.journey {
            Journey::Out(_) => gone,
            Journey::In(_) => left,
            Journey::Lap => gone.min(left),
        };
        (SLOW + nearest.max(0) * 5 / 4).min(FAST)
    }
}

#[derive(Clone, Copy, Debug)]
struct Handed {
    train: Train,
    side: Side,
    since: u64,
}

/// What happened in a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// Its engine reaches the rim: tell the neighbour.
    Leaves(Train, Side),
    /// It stands at the platform, coming from there (`None`: it made a lap).
    Arrives(Train, Option<Side>),
    /// It begins to come out of the tunnel.
    Enters(Train, Side),
    /// Nobody took it: it comes back.
    Returns(Train, Side),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Depot {
    standing: Option<Train>,
    moving: Option<Run>,
    waiting: [Option<(Train, Side)>; TRAINS],
    handed: [Option<Handed>; TRAINS],
}

impl Depot {
    pub fn standing(&self) -> Option<Train> {
        self.standing
    }

    pub fn moving(&self) -> Option<&Run> {
        self.moving.as_ref()
    }

    /// Trains that this town answers for; those handed on but not yet confirmed are nobody's.
    pub fn trains(&self) -> [Option<Train>; TRAINS] {
        let mut list = [None; TRAINS];
        let moving = self.moving.filter(|r| !r.handed).map(|r| r.train);
        let all = self.standing.into_iter().chain(moving).chain(self.waiting.iter().flatten().map(|w| w.0));
        for (place, train) in list.iter_mut().zip(all) {
            *place = Some(train);
        }
        list
    }

    fn has(&self, home: u8) -> Option<Train> {
        self.trains().into_iter().flatten().find(|t| t.home == home)
    }

    /// Is it here, or on its way to a neighbour?
    pub fn knows(&self, home: u8) -> bool {
        self.has(home).is_some() || self.handed.iter().flatten().any(|h| h.train.home == home)
    }

    /// A train that waits for the platform to become free.
    pub fn crowded(&self) -> bool {
        self.moving.is_none() && self.standing.is_some() && self.waiting.iter().any(Option::is_some)
    }

    /// Puts a new train at the platform; `false` if that is not free.
    pub fn build(&mut self, train: Train) -> bool {
        let free = self.standing.is_none() && self.moving.is_none();
        if free {
            self.standing = Some(train);
        }
        free
    }

    /// Sends the standing train off; `false` if none stands or another one moves.
    pub fn depart(&mut self, journey: Journey) -> bool {
        if self.moving.is_some() || matches!(journey, Journey::In(_)) {
            return false;
        }
        let Some(mut train) = self.standing.take() else { return false };
        if matches!(journey, Journey::Out(_)) {
            train.hops = train.hops.wrapping_add(1);
        }
        self.moving = Some(Run::new(train, journey));
        true
    }

    /// A neighbour hands a train over. `false` if there is no room, which nine trains cannot bring about.
    pub fn arrive(&mut self, train: Train, side: Side) -> bool {
        if self.has(train.home).is_some_and(|t| t.hops >= train.hops) {
            // Said twice: we have it.
            return true;
        }
        self.disown(Train { hops: train.hops, ..train });
        let Some(place) = self.waiting.iter_mut().find(|w| w.is_none()) else { return false };
        *place = Some((train, side));
        true
    }

    /// The neighbour has it.
    pub fn taken(&mut self, train: Train) {
        for place in &mut self.handed {
            if place.is_some_and(|h| h.train == train) {
                *place = None;
            }
        }
    }

    /// Another town says that it has this train: if its word is newer, ours is a ghost. `true` if one went.
    pub fn disown(&mut self, claim: Train) -> bool {
        let older = |t: Train| t.home == claim.home && t.hops < claim.hops;
        let before = self.trains();
        self.standing = self.standing.filter(|t| !older(*t));
        self.moving = self.moving.filter(|r| r.handed || !older(r.train));
        self.waiting = self.waiting.map(|w| w.filter(|(t, _)| !older(*t)));
        self.handed = self.handed.map(|h| h.filter(|h| !older(h.train)));
        before != self.trains()
    }

    /// Trains handed towards a side where nobody is any more come back at once.
    pub fn neighbour_gone(&mut self, side: Side) {
        for handed in self.handed.iter_mut().flatten().filter(|h| h.side == side) {
            handed.since = 0;
        }
    }

    /// `elapsed` ms pass.
    pub fn tick(&mut self, now: u64, elapsed: u64, mut happened: impl FnMut(Happening)) {
        if let Some(run) = &mut self.moving {
            run.position += i64::from(run.speed() * SUB) * elapsed.min(200) as i64;
            let (head, length) = (run.head(), run.route.length());
            let train = run.train;
            match run.journey {
                Journey::Out(side) => {
                    if head >= length && !run.handed {
                        run.handed = true;
                        if let Some(place) = self.handed.iter_mut().find(|h| h.is_none()) {
                            *place = Some(Handed { train, side, since: now });
                        }
                        happened(Happening::Leaves(train, side));
                    }
                    if head >= length + LENGTH {
                        self.moving = None;
                    }
                }
                Journey::In(_) | Journey::Lap if head >= length => {
                    self.standing = Some(train);
                    let from = if let Journey::In(side) = run.journey { Some(side) } else { None };
                    self.moving = None;
                    happened(Happening::Arrives(train, from));
                }
                _ => {}
            }
        }
        for place in &mut self.handed {
            if let Some(Handed { train, side, .. }) = place.filter(|h| now > h.since + CONFIRM) {
                *place = None;
                // Two steps newer, should the neighbour have taken it after all.
                let train = Train { hops: train.hops.wrapping_add(2), ..train };
                if let Some(free) = self.waiting.iter_mut().find(|w| w.is_none()) {
                    *free = Some((train, side));
                    happened(Happening::Returns(train, side));
                }
            }
        }
        if self.moving.is_none()
            && self.standing.is_none()
            && let Some(place) = self.waiting.iter_mut().find(|w| w.is_some())
            && let Some((train, side)) = place.take()
        {
            self.moving = Some(Run::new(train, Journey::In(side)));
            happened(Happening::Enters(train, side));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Depot, Happening};
    use crate::board::Side;
    use crate::game::message::Train;
    use crate::track::Journey;

    const RED: Train = Train { home: 0, hops: 5 };
    const BLUE: Train = Train { home: 1, hops: 9 };

    fn run(depot: &mut Depot, from: u64, ms: u64) -> Vec<Happening> {
        let mut all = Vec::new();
        for now in (from..from + ms).step_by(40) {
            depot.tick(now, 40, |h| all.push(h));
        }
        all
    }

    #[test]
    fn a_train_goes_out_and_is_confirmed() {
        let mut depot = Depot::default();
        assert!(depot.build(RED) && depot.depart(Journey::Out(Side::East)));
        let train = Train { home: 0, hops: 6 };
        assert_eq!(run(&mut depot, 0, 11_000), [Happening::Leaves(train, Side::East)]);
        depot.taken(train);
        assert_eq!(run(&mut depot, 11_000, 20_000), []);
        assert!(!depot.knows(0) && depot.moving().is_none());
    }

    #[test]
    fn nobody_there_brings_it_back_to_the_platform() {
        let mut depot = Depot::default();
        depot.build(RED);
        depot.depart(Journey::Out(Side::West));
        let (out, back) = (Train { home: 0, hops: 6 }, Train { home: 0, hops: 8 });
        assert_eq!(
            run(&mut depot, 0, 60_000),
            [
                Happening::Leaves(out, Side::West),
                Happening::Returns(back, Side::West),
                Happening::Enters(back, Side::West),
                Happening::Arrives(back, Some(Side::West)),
            ]
        );
        assert_eq!(depot.standing(), Some(back));
    }

    #[test]
    fn a_train_waits_until_the_platform_is_free() {
        let mut depot = Depot::default();
        depot.build(RED);
        assert!(depot.arrive(BLUE, Side::North));
        assert_eq!(run(&mut depot, 0, 5000), []);
        assert!(depot.crowded());
        depot.depart(Journey::Out(Side::South));
        let all = run(&mut depot, 5000, 60_000);
        assert!(all.contains(&Happening::Arrives(BLUE, Some(Side::North))), "{all:?}");
    }

    #[test]
    fn a_lap_ends_where_it_began() {
        let mut depot = Depot::default();
        depot.build(RED);
        depot.depart(Journey::Lap);
        assert_eq!(run(&mut depot, 0, 40_000), [Happening::Arrives(RED, None)]);
    }

    #[test]
    fn a_train_said_twice_is_one_train_and_ghosts_go() {
        let mut depot = Depot::default();
        assert!(depot.arrive(BLUE, Side::North) && depot.arrive(BLUE, Side::North));
        run(&mut depot, 0, 60_000);
        assert_eq!(depot.trains().iter().flatten().count(), 1);
        assert!(!depot.disown(Train { hops: 9, ..BLUE }), "the same word is no newer");
        assert!(depot.disown(Train { hops: 10, ..BLUE }));
        assert_eq!(depot.trains().iter().flatten().count(), 0);
    }
}
