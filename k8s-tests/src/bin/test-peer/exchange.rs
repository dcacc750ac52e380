//! One-shot mode: every seat sends the same number of frames of each kind to every other, and counts.
//!
//! ```text
//! Here       said until every other seat was heard
//! HearsAll   said until every other seat hears all; then the frames are sent
//! SentAll    said until every other seat has sent all and what is under way has arrived
//! Judged     said until every other seat has judged, so that nobody is left waiting for one that has gone
//! ```
use std::time::Duration;

use k8s_tests::peer::{Epoch, Kind};
use tokio::time::{Instant, sleep};

use crate::{
    frames,
    ledger::Stage,
    peer::{Peer, Plug},
};

/// How often the own stage is said.
const SAY: Duration = Duration::from_millis(50);
/// Between two frames of each kind: far below what a busy machine's queues hold.
const PACE: Duration = Duration::from_millis(5);
/// Frames under way arrive in milliseconds; a busy machine gets this long.
const SETTLE: Duration = Duration::from_secs(3);
/// How long one that has judged waits for the others to have judged.
const FAREWELL: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) frames: u32,
    pub(crate) seats: Vec<u8>,
    pub(crate) limit: Duration,
}

/// Whether nothing was lost. Says on standard output what was counted, and what lacks.
pub(crate) async fn run(peer: &Peer, plan: &Plan) -> bool {
    let outcome = tokio::time::timeout(plan.limit, exchange(peer, plan)).await;
    let report = peer.report().await;
    say(&serde_json::to_string(&report).expect("plain data"));
    let complaints = outcome.unwrap_or_else(|_| {
        let heard: Vec<_> = plan.seats.iter().map(|seat| format!("seat {seat}: {:?}", peer.stage(*seat))).collect();
        vec![format!(
            "not done within {:?}; attached: {} ({}); heard of {}",
            plan.limit,
            report.attached,
            report.problem.as_deref().unwrap_or("no problem"),
            heard.join(", ")
        )]
    });
    for complaint in &complaints {
        say(&format!("FAILED: {complaint}"));
    }
    if complaints.is_empty() {
        say(&format!("ok: {} frames of each of {} kinds, nothing lost", plan.frames, Kind::ALL.len()));
    }
    complaints.is_empty()
}

#[expect(clippy::print_stdout, reason = "what `kubectl logs` shows")]
fn say(line: &str) {
    println!("{line}");
}

async fn exchange(peer: &Peer, plan: &Plan) -> Vec<String> {
    let plug = peer.plugged().await;
    let mine = plug.card.seat;
    if !plan.seats.contains(&mine) {
        return vec![format!("this is seat {mine}, and PEER_SEATS names {:?}", plan.seats)];
    }
    let others: Vec<u8> = plan.seats.iter().copied().filter(|seat| *seat != mine).collect();
    peer.reset(Epoch::new(1)).await;
    until_all(peer, &plug, &others, Stage::Here, Stage::Here).await;
    until_all(peer, &plug, &others, Stage::HearsAll, Stage::HearsAll).await;
    for _ in 0..plan.frames {
        for kind in Kind::ALL {
            if kind.is_unicast() {
                for seat in &others {
                    peer.send(&plug, kind, Some(*seat)).await;
                }
            } else {
                peer.send(&plug, kind, None).await;
            }
        }
        sleep(PACE).await;
    }
    until_all(peer, &plug, &others, Stage::SentAll, Stage::SentAll).await;
    let settled = Instant::now() + SETTLE;
    let mut complaints = lacking(peer, plan.frames, &others).await;
    while !complaints.is_empty() && Instant::now() < settled {
        say_stage(&plug, Stage::SentAll).await;
        sleep(SAY).await;
        complaints = lacking(peer, plan.frames, &others).await;
    }
    // The last word may go unheard; the verdict stands.
    tokio::time::timeout(FAREWELL, until_all(peer, &plug, &others, Stage::Judged, Stage::Judged)).await.ok();
    say_stage(&plug, Stage::Judged).await;
    complaints
}

/// Says `own` until every other seat has said `wanted` or more, and once after that.
async fn until_all(peer: &Peer, plug: &Plug, others: &[u8], own: Stage, wanted: Stage) {
    loop {
        say_stage(plug, own).await;
        if others.iter().all(|seat| peer.stage(*seat) >= Some(wanted)) {
            return;
        }
        sleep(SAY).await;
    }
}

async fn say_stage(plug: &Plug, stage: Stage) {
    // Said again and again: a word that is lost costs 50 ms.
    plug.tap.send(&frames::word(stage.tag(), plug.card)).await.ok();
}

async fn lacking(peer: &Peer, frames: u32, others: &[u8]) -> Vec<String> {
    let report = peer.report().await;
    let mut complaints = Vec::new();
    for sender in others {
        for kind in Kind::ALL {
            let row = report.received.iter().find(|row| (row.kind, row.sender) == (kind, *sender));
            let (got, doubled) = row.map_or((0, 0), |row| (row.frames, row.doubled));
            if got != frames || doubled != 0 {
                complaints.push(format!("{kind:?} from seat {sender}: {got} of {frames} came, {doubled} doubled"));
            }
        }
    }
    complaints
}
