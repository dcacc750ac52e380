//! One rung at a time: what the facts say of it.
//!
//! **Invariant.** A finding is made of evidence: `Passed` and `Failed` need a fact that shows it, all else is `Unknown`.
mod alone;
mod game;

use api::observe::Evidence;

pub(crate) use self::{
    alone::{address, frame, link, seats_in},
    game::{answers, asked_by_address, asks, cut, free, joined, reaches, refusal, refuses_joins, same_game},
};
use crate::cause::Cause;

#[derive(Debug, Clone)]
pub(crate) enum Finding {
    Passed(Option<Evidence>),
    Failed(Cause, Option<Evidence>),
    /// Not known, and why.
    Unknown(Cause),
    /// Nothing at all is known of the seat.
    Blind(Cause),
}
