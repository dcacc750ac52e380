//! Whether a wall is at rest: what is wrong with it now, in words; nothing when all is as it was begun.
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use api::{
    agent::State,
    lan::{Doctor, LanRole, LanStatus},
    status::Status,
};

use super::{GUESTS, NODES, TUNNEL, fabric, node_name};
use crate::{loco, status, try_get};

/// Of what one guest sent to another in the last minute, the share that may be missing: after a burst, one may have been away for
/// seconds of it.
const LOST_MOST: f64 = 0.5;

/// Of `status` and the gateway, both asked now.
pub(super) fn wrong(underlay: &[String]) -> Vec<String> {
    let now = status();
    let mut wrong: Vec<String> = now.instances.iter().filter(|one| one.state != State::Live).map(dead).collect();
    wrong.extend(
        now.nodes.iter().filter(|node| node.agent_pid.is_none()).map(|node| format!("{} has no agent", node.name)),
    );
    if now.instances.len() != GUESTS {
        wrong.push(format!("{} guests of {GUESTS}", now.instances.len()));
    }
    match try_get(8080, "/api/lan-status", &now.token) {
        Ok(body) => wrong.extend(of_the_game(&serde_json::from_slice(&body).unwrap())),
        Err(why) => wrong.push(why),
    }
    wrong.extend((0..NODES).filter_map(|node| of_the_table(node, &now, underlay)));
    let doctor = loco(&["doctor", "-o", "json"]);
    match serde_json::from_slice::<Doctor>(&doctor.stdout) {
        Ok(said) => wrong.extend(said.diagnosis.into_iter().map(|told| format!("{}: {}", told.cause, told.sentence))),
        Err(_) => wrong.push(format!("no doctor: {}", String::from_utf8_lossy(&doctor.stderr).trim())),
    }
    wrong
}

fn dead(instance: &api::status::StatusInstance) -> String {
    format!("{} is {:?}, runner {:?}, QEMU {:?}", instance.id, instance.state, instance.runner_pid, instance.qemu_pid)
}

/// All play in one session with one host, and each hears of each other what it does.
fn of_the_game(lan: &LanStatus) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut sessions = BTreeMap::<&str, usize>::new();
    let mut hosts = 0;
    for (id, seat) in &lan.instances {
        let play = seat.directplay.as_ref();
        match play.map(|play| play.role) {
            Some(LanRole::Host) => hosts += 1,
            Some(LanRole::Joined) => {}
            other => wrong.push(format!("{id} is in no game: {other:?}")),
        }
        *sessions.entry(play.and_then(|play| play.session.as_deref()).unwrap_or("none")).or_default() += 1;
    }
    if hosts != 1 || sessions.len() != 1 {
        wrong.push(format!("{hosts} hosts, players by session: {sessions:?}"));
    }
    let talk = |from: &str, to: &str| {
        let pair = lan.connectivity.iter().find(|pair| pair.from == from && pair.to == to);
        // The rate is of what was sent; only the loss says whether it came.
        pair.is_some_and(|pair| {
            pair.reachable && pair.rate.is_some_and(|rate| rate > 0.0) && pair.loss.is_none_or(|loss| loss < LOST_MOST)
        })
    };
    let ids: Vec<&String> = lan.instances.keys().collect();
    let pairs = ids.iter().flat_map(|from| ids.iter().map(move |to| (*from, *to))).filter(|(from, to)| from != to);
    let silent: Vec<String> =
        pairs.filter(|(from, to)| !talk(from, to)).map(|(from, to)| format!("{from} to {to}")).collect();
    if !silent.is_empty() {
        wrong.push(format!("no frames from {}", silent.join(", ")));
    }
    wrong
}

/// The tunnel's table against the directory: a row for each guest elsewhere and a flood row for each other node, and none but the
/// other nodes' bridges besides.
fn of_the_table(node: usize, now: &Status, underlay: &[String]) -> Option<String> {
    let here = node_name(node);
    let mut want: BTreeSet<String> = BTreeSet::new();
    for other in (0..NODES).filter(|other| *other != node) {
        want.insert(format!("00:00:00:00:00:00 {}", underlay[other]));
        let there = node_name(other);
        want.extend(now.instances.iter().filter(|i| i.node == there).map(|i| format!("{} {}", i.mac, underlay[other])));
    }
    let mut shown = Command::new("nsenter");
    shown.arg(format!("--net={}", fabric(node))).args(["bridge", "fdb", "show", "dev", TUNNEL]);
    let output = shown.output().unwrap();
    if !output.status.success() {
        return Some(format!("{here}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let row = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let to = words.iter().position(|word| *word == "dst")?;
        Some(format!("{} {}", words[0], words[to + 1]))
    };
    // 06: is a bridge's.
    let (bridges, have): (BTreeSet<String>, BTreeSet<String>) =
        text.lines().filter_map(row).partition(|row| row.starts_with("06:"));
    (have != want || bridges.len() != NODES - 1)
        .then(|| format!("{here} has the rows {have:?} and not {want:?}, bridges {bridges:?}"))
}
