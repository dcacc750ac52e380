//! Faults, injected one at a time into a LAN made of frames, and LANs that are well: the doctor must name the first rung
//! that fails and its cause, and must not cry wolf. The table goes to docs/benchmarks with `UPDATE_EXPECT=1`.
#![expect(clippy::unwrap_used, reason = "the helpers of a test end at the first surprise, as the test does")]
mod cases;
mod lab;

use std::{collections::BTreeSet, fmt::Write as _};

use api::lan::Rung;
use doctor::{diagnose, faults};

use self::{
    cases::{Fault, game, seat, way, well::WELL, with_game},
    lab::{Game, id},
};

#[test]
fn every_fault_is_found_and_no_lan_that_is_well_is_blamed() {
    let injected: Vec<&Fault> = seat::FAULTS.iter().chain(way::FAULTS).chain(game::FAULTS).collect();
    let mut table = String::new();
    let mut right = 0;
    let mut wrong = Vec::new();
    for fault in &injected {
        let (lab, from, to) = (fault.inject)();
        let facts = lab.facts();
        let shown = faults(&facts);
        let asked = if ["two-hosts", "guest-slow"].contains(&fault.cause) {
            shown.iter().find(|one| one.cause == fault.cause).cloned()
        } else {
            diagnose(&facts, &id(from), &id(to))
        };
        let Some(asked) = asked else {
            wrong.push(format!("{}: nothing found; shown {shown:?}", fault.name));
            continue;
        };
        let first_right = (asked.rung, asked.cause.as_str()) == (fault.rung, fault.cause) && !asked.ok;
        let causes: BTreeSet<&str> = shown.iter().map(|one| one.cause.as_str()).collect();
        // A host that hangs, or a node that is gone, is also wrong by itself.
        let by_itself = ["guest-silent", "guest-stopped", "agent-silent", "duplicate-mac", "duplicate-ip"];
        let stray = causes.iter().any(|cause| *cause != fault.cause && !by_itself.contains(cause));
        let shown_right = causes.contains(fault.cause) == fault.shown && !stray;
        if first_right && shown_right {
            right += 1;
        } else {
            wrong.push(format!(
                "{}: want {:?} {}, got {:?} {} “{}”; shown {causes:?}",
                fault.name, fault.rung, fault.cause, asked.rung, asked.cause, asked.sentence
            ));
        }
        let verdict = if first_right && shown_right { "yes" } else { "**no**" };
        writeln!(
            table,
            "| {} | {:?} | `{}` | {:?} | `{}` | {verdict} | {} |",
            fault.name, fault.rung, fault.cause, asked.rung, asked.cause, asked.sentence
        )
        .unwrap();
    }
    let mut alarms = Vec::new();
    let mut well = String::new();
    for lan in WELL {
        let found = faults(&(lan.make)().facts());
        writeln!(well, "| {} | {} |", lan.name, found.len()).unwrap();
        alarms.extend(found.into_iter().map(|one| format!("{}: {} “{}”", lan.name, one.cause, one.sentence)));
    }
    let share = f64::from(u32::try_from(right).unwrap()) / f64::from(u32::try_from(injected.len()).unwrap());
    let text = format!(
        "# The doctor against injected faults, 2026-11-22\n\n\
         {right} of {} faults: first failing rung and cause right, and shown without being asked where it is a fault. \
         {} false alarms on {} LANs that are well.\n\n\
         Method: `crates/doctor/tests/faults.rs`. Nine guests on three nodes, made of frames: each frame is built by `wire`, passes \
         bridges and tunnels that may lose it, is counted at each tap, and is looked at by each node's own `observe::Observer`; the \
         doctor gets what the agents would say. Command: `UPDATE_EXPECT=1 cargo test -p doctor --test faults`.\n\n\
         | fault | rung | cause | found: rung | cause | right | sentence |\n|---|---|---|---|---|---|---|\n{table}\n\
         | LAN that is well | alarms |\n|---|---|\n{well}",
        injected.len(),
        alarms.len(),
        WELL.len()
    );
    assert!(alarms.is_empty(), "false alarms:\n{}", alarms.join("\n"));
    assert!(share >= 0.95, "{right} of {}:\n{}", injected.len(), wrong.join("\n"));
    expect_test::expect_file!["../../../docs/benchmarks/doctor-2026-11-22.md"].assert_eq(&text);
}

#[test]
fn whoever_is_in_the_game_has_passed_every_rung() {
    let lab = with_game(&Game::new(1));
    let facts = lab.facts();
    let host = diagnose(&facts, &id(1), &id(1)).unwrap();
    assert_eq!((host.cause.as_str(), host.ok), ("hosts", true), "{}", host.sentence);
    let joined = diagnose(&facts, &id(2), &id(1)).unwrap();
    assert_eq!((joined.cause.as_str(), joined.ok, joined.rung), ("in-game", true, Rung::Joined));
    assert!(joined.ladder.iter().all(|state| state.result == api::lan::RungResult::Passed), "{:?}", joined.ladder);
    assert_eq!(diagnose(&facts, "instance-99", &id(1)), None);
}
