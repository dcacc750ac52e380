//! What is injected, and what is well.
pub(crate) mod game;
pub(crate) mod seat;
pub(crate) mod way;
pub(crate) mod well;

use api::lan::Rung;
use wire::dplay::SessionFlags;

use crate::lab::{Game, Lab};

/// One fault. `from` and `to` are seats, from 1.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) rung: Rung,
    pub(crate) cause: &'static str,
    /// It is shown without being asked for; `false` where it is no fault by itself.
    pub(crate) shown: bool,
    pub(crate) inject: fn() -> (Lab, u16, u16),
}

/// Seat 1 hosts, seat 2 has joined: so the session is known to all.
pub(crate) fn with_game(game: &Game) -> Lab {
    let mut lab = Lab::booted();
    let (flags, application, dialect) = (game.flags, game.application, game.dialect);
    // The second seat knows the password and has the right game.
    lab.guest(2).application = application;
    lab.guest(2).dialect = dialect;
    lab.host(1, Game { flags: SessionFlags::NONE, refuses: 0, max: 9, ..game.clone() });
    assert!(lab.play(2, 1), "the second seat joins");
    lab.guest(1).game = Some(game.clone());
    if flags != SessionFlags::NONE || game.max != 9 {
        // The host tells it to the one that is in.
        lab.answer(1, 2, game);
    }
    lab
}

/// From now on nothing passes to or from the second node.
pub(crate) fn cut_off(lab: &mut Lab) {
    lab.mark();
    lab.cut_at = Some(lab.now);
    lab.underlay_loses = Box::new(|frame| frame.from_node == 1 || frame.to_node == 1);
    lab.edges_reach = Box::new(|from, to| from != 1 && to != 1);
}

pub(crate) fn ask_for_a_while(lab: &mut Lab, seat: u16) {
    for _ in 0..4 {
        lab.ask(seat);
    }
}
