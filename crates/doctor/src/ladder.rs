//! The ladder: nine rungs, from the cable to the game, for one seat and one game.
//!
//! ```text
//! link ─ frame ─ address ─ asks ─ reaches ─ answers ─ same game ─ free ─ joined
//! the seat alone ────────┘  └─ the seat and a game's host ────────────────────┘
//! ```
//! Each rung is looked at by itself ([`crate::look`]); here they are put in order: what lies above a rung that failed was not
//! reached, and what lies below one that is known to have been passed was passed, too.
use api::{
    lan::{Diagnosis, Doctor, Rung, RungResult, RungState},
    observe::{Evidence, Session},
};

use crate::{
    cause::{Cause, Who},
    facts::{Facts, SeatFacts, Shown},
    faults::faults,
    look::{self, Finding},
};

pub(crate) const RUNGS: [Rung; 9] = [
    Rung::Link,
    Rung::Frame,
    Rung::Address,
    Rung::Asks,
    Rung::Reaches,
    Rung::Answers,
    Rung::SameGame,
    Rung::Free,
    Rung::Joined,
];

/// The game that a seat should see, and who has it.
#[derive(Debug, Clone)]
pub(crate) struct Target<'a> {
    pub(crate) game: Option<&'a Session>,
    /// The host's seat; or, where no game is open, the seat that was asked about.
    pub(crate) host: Option<&'a SeatFacts>,
    pub(crate) who: Who,
}

impl<'a> Target<'a> {
    pub(crate) fn game(facts: &'a Facts, game: &'a Session) -> Self {
        let host = game.host_instance.as_ref().and_then(|id| facts.seats.get(id));
        let who = host.map_or_else(|| Who::Other(crate::merged::host_address(game).to_owned()), who);
        Self { game: Some(game), host, who }
    }

    fn none(asked_about: &'a SeatFacts) -> Self {
        Self { game: None, host: Some(asked_about), who: who(asked_about) }
    }
}

pub(crate) fn who(seat: &SeatFacts) -> Who {
    Who::Seat(seat.place.number)
}

/// What was found on the way up.
#[derive(Debug)]
pub(crate) struct Climb {
    pub(crate) cause: Cause,
    evidence: Option<Evidence>,
    pub(crate) rung: Rung,
    pub(crate) ladder: Vec<RungState>,
}

/// Why `from` does not see the game of `to`; of a seat alone (`from` = `to`), why it sees none. `None`: no such seat.
pub fn diagnose(facts: &Facts, from: &str, to: &str) -> Option<Diagnosis> {
    let (a, b) = (facts.seats.get(from)?, facts.seats.get(to)?);
    if a.place.lan != b.place.lan {
        let lans = [a.place.lan.clone(), b.place.lan.clone()];
        let climb = stop(Rung::Link, Cause::OtherLan { lans }, None);
        return Some(put(a, to, &who(b), climb));
    }
    let target = if from == to { best(facts, a) } else { with(facts, b) };
    let climb = climb(facts, a, &target);
    Some(put(a, to, &target.who, climb))
}

/// The answer to `/api/doctor`. `None`: no such seat.
pub fn doctor(facts: &Facts, from: Option<&str>, to: Option<&str>) -> Option<Doctor> {
    let diagnosis = match (from, to) {
        (Some(from), Some(to)) => vec![diagnose(facts, from, to)?],
        (Some(alone), None) | (None, Some(alone)) => vec![diagnose(facts, alone, alone)?],
        (None, None) => faults(facts),
    };
    Some(Doctor { at: facts.at, ok: diagnosis.iter().all(|one| one.ok), diagnosis })
}

/// The game that `b` hosts or is in.
fn with<'a>(facts: &'a Facts, b: &'a SeatFacts) -> Target<'a> {
    let refusing = || facts.sought(&b.place.lan).find(|game| game.host_instance.as_ref() == Some(&b.place.id));
    facts.game_of(b).or_else(refusing).map_or_else(|| Target::none(b), |game| Target::game(facts, game))
}

/// The game that `a` is in; else, of those that are open, the one that it comes nearest to.
fn best<'a>(facts: &'a Facts, a: &'a SeatFacts) -> Target<'a> {
    if let Some(game) = facts.game_of(a) {
        return Target::game(facts, game);
    }
    facts
        .sought(&a.place.lan)
        .map(|game| Target::game(facts, game))
        .max_by_key(|target| {
            let climb = climb(facts, a, target);
            (climb.cause.is_well(), climb.rung)
        })
        .unwrap_or_else(|| Target::none(a))
}

/// What is wrong with one seat by itself: the first three rungs. `None`: nothing, or nothing that is known.
pub(crate) fn alone(facts: &Facts, a: &SeatFacts) -> Option<(Cause, Diagnosis)> {
    let looks = [look::link, look::frame, look::address];
    for (rung, look) in RUNGS.into_iter().zip(looks) {
        let (cause, climb) = match look(facts, a) {
            Finding::Passed(_) => continue,
            Finding::Unknown(_) => return None,
            Finding::Failed(cause, evidence) => (cause.clone(), stop(rung, cause, evidence)),
            Finding::Blind(cause) => (cause.clone(), blind(rung, cause)),
        };
        return Some((cause, put(a, &a.place.id, &who(a), climb)));
    }
    None
}

pub(crate) fn climb(facts: &Facts, a: &SeatFacts, target: &Target<'_>) -> Climb {
    // A cable that is out now ends every game, whatever was seen of it.
    let hard = look::link(facts, a);
    if let Finding::Blind(cause) = hard {
        return blind(Rung::Link, cause);
    }
    // Who is in a game is known by address: where two have one, nobody knows which of them it is.
    let twice =
        matches!(look::address(facts, a), Finding::Failed(Cause::DuplicateIp { .. } | Cause::DuplicateMac { .. }, _));
    let in_game = target.game.filter(|_| !twice).and_then(|game| {
        let hosts = game.host_instance.as_ref() == Some(&a.place.id);
        let name = game.name.clone().unwrap_or_default();
        if hosts {
            Some((Cause::Hosts { game: name }, game.evidence.clone()))
        } else {
            facts.joined(a, game).map(|Shown(evidence)| (Cause::InGame { game: name }, evidence))
        }
    });
    let rungs: [Box<dyn Fn() -> Finding + '_>; 9] = [
        Box::new(|| look::link(facts, a)),
        Box::new(|| look::frame(facts, a)),
        Box::new(|| look::address(facts, a)),
        Box::new(|| look::asks(facts, a, target)),
        Box::new(|| look::reaches(facts, a, target)),
        Box::new(|| look::answers(facts, a, target)),
        Box::new(|| look::same_game(facts, a, target)),
        Box::new(|| look::free(facts, a, target)),
        Box::new(|| look::joined(facts, a, target)),
    ];
    let mut ladder: Vec<RungState> = Vec::with_capacity(RUNGS.len());
    let mut doubt: Option<(Rung, Cause)> = None;
    for (rung, look) in RUNGS.into_iter().zip(rungs) {
        let finding = look();
        // In the game: whatever was missed on the way up was passed; only what broke since then counts.
        let finding = match (&in_game, finding) {
            (Some(_), Finding::Failed(cause, _))
                if rung > Rung::Frame && !breaks_a_game(&cause) || matches!(cause, Cause::NoDriver) =>
            {
                Finding::Passed(None)
            }
            (Some((_, evidence)), Finding::Passed(_) | Finding::Unknown(_)) if rung == Rung::Joined => {
                Finding::Passed(evidence.clone())
            }
            (Some(_), Finding::Unknown(_)) => Finding::Passed(None),
            (_, finding) => finding,
        };
        match finding {
            Finding::Passed(evidence) => ladder.push(RungState { rung, result: RungResult::Passed, evidence }),
            Finding::Unknown(cause) | Finding::Blind(cause) => {
                doubt.get_or_insert((rung, cause));
                ladder.push(RungState { rung, result: RungResult::Unknown, evidence: None });
            }
            Finding::Failed(cause, evidence) => {
                ladder.push(RungState { rung, result: RungResult::Failed, evidence: evidence.clone() });
                unreached(&mut ladder);
                return Climb { cause, evidence, rung, ladder };
            }
        }
        let passed = ladder.last().is_some_and(|state| state.result == RungResult::Passed);
        if passed && matches!(rung, Rung::Answers | Rung::Joined) {
            // An answer that came proves every rung under it.
            doubt = None;
            for state in &mut ladder {
                state.result = RungResult::Passed;
            }
        }
    }
    if let Some((cause, evidence)) = in_game {
        return Climb { cause, evidence, rung: Rung::Joined, ladder };
    }
    let (rung, cause) = doubt.unwrap_or((Rung::Joined, Cause::SeesGame));
    let evidence = ladder.iter().rev().find_map(|state| state.evidence.clone());
    Climb { cause, evidence, rung, ladder }
}

/// What ends a game that stood, although nobody has said so yet.
fn breaks_a_game(cause: &Cause) -> bool {
    matches!(cause, Cause::UnderlayBlocked { .. } | Cause::FloodMissing { .. } | Cause::NodeDead { .. })
}

fn unreached(ladder: &mut Vec<RungState>) {
    let missing = RUNGS.into_iter().skip(ladder.len());
    let states: Vec<_> =
        missing.map(|rung| RungState { rung, result: RungResult::Unreached, evidence: None }).collect();
    ladder.extend(states);
}

/// A ladder that ends at `rung`; those below it are passed.
pub(crate) fn stop(rung: Rung, cause: Cause, evidence: Option<Evidence>) -> Climb {
    let ladder = RUNGS
        .into_iter()
        .map(|at| {
            let result = match at.cmp(&rung) {
                std::cmp::Ordering::Less => RungResult::Passed,
                std::cmp::Ordering::Equal => RungResult::Failed,
                std::cmp::Ordering::Greater => RungResult::Unreached,
            };
            RungState { rung: at, result, evidence: evidence.clone().filter(|_| at == rung) }
        })
        .collect();
    Climb { cause, evidence, rung, ladder }
}

pub(crate) fn blind(rung: Rung, cause: Cause) -> Climb {
    let ladder =
        RUNGS.into_iter().map(|rung| RungState { rung, result: RungResult::Unknown, evidence: None }).collect();
    Climb { cause, evidence: None, rung, ladder }
}

pub(crate) fn put(a: &SeatFacts, to: &str, b: &Who, climb: Climb) -> Diagnosis {
    Diagnosis {
        from: a.place.id.clone(),
        to: to.to_owned(),
        rung: climb.rung,
        ok: climb.cause.is_well(),
        cause: climb.cause.name().to_owned(),
        sentence: climb.cause.sentence(&who(a), b),
        evidence: climb.evidence,
        remedy: climb.cause.remedy(&who(a), b),
        ladder: climb.ladder,
    }
}
