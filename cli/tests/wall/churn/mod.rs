//! Whatever can happen to a wall that plays, again and again, by a seed: guests and agents are killed, nodes are parted, seats leave and
//! join, and what the agents made in the kernel is damaged ([`fault`]). After each burst everything must come to rest as it was
//! ([`rest`]), and hold no more of the machine than before ([`held`]).
//!
//! As a test it has a few bursts of a fixed seed, after the judge of a rest was put to the test itself ([`judge`]). `cargo xtask bench churn` runs it for minutes: `LOCO_CHURN_MINUTES` and `LOCO_CHURN_SEED`
//! say how long and what, `LOCO_CHURN_OUT` the directory of raw data and [`report`]. What is done follows from the seed alone, for as many
//! bursts as there is time for.
mod fault;
mod held;
mod judge;
mod report;
mod rest;

use std::{
    env, fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::json;

use crate::{alone, loco, mount_sys, says};

use self::{fault::Directory, held::Held, report::Report};

const NODES: usize = 3;
const GUESTS: usize = 9;
const SNAPSHOT: &str = "/run/loco/snapshot.json";
const BRIDGE: &str = "locobr001068";
const TUNNEL: &str = "locovx001068";
/// What is wrong for longer than this after the last step of a burst is wrong at rest. A guest boots in some seconds, joins in some more, and
/// the doctor judges by the last minute.
const REST_WITHIN: Duration = Duration::from_mins(3);
/// All must be well for so long, without a break: what has just died may not have been missed yet, and rates are of the last 10 s, which
/// must all lie after the burst.
const AT_REST_FOR: Duration = Duration::from_secs(12);
/// Of the test: agents, runners and guests killed, nodes parted, tables and links damaged.
const BURSTS: usize = 3;
const SEED: u64 = 1;

fn node_name(node: usize) -> String {
    ["node-a", "node-b", "node-c"][node].to_owned()
}

fn run_dir(node: usize) -> String {
    format!("/run/loco/{}", node_name(node))
}

fn fabric(node: usize) -> String {
    format!("{}/fabric.netns", run_dir(node))
}

fn node_netns(node: usize) -> String {
    format!("/run/loco/netns/loco-{}", node_name(node))
}

/// How long: as a bench is told, or as a test.
#[derive(Debug, Clone, Copy)]
enum Length {
    Bursts(usize),
    Time(Duration),
}

impl Length {
    fn is_over(self, bursts: usize, began: Instant) -> bool {
        match self {
            Self::Bursts(most) => bursts >= most,
            Self::Time(time) => began.elapsed() >= time,
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: write a number")))
}

/// Waits until nothing is wrong and nothing is held that was not held at `first`, for [`AT_REST_FOR`]. Returns how long that took, without
/// the watch at its end, and what is held.
fn come_to_rest(underlay: &[String], first: Option<&Held>) -> Result<(Duration, Held), Vec<String>> {
    let began = Instant::now();
    let mut well_since = None;
    loop {
        let asked = began.elapsed();
        let mut wrong = rest::wrong(underlay);
        let held = Held::now();
        match (&held, first) {
            (None, _) => wrong.push("a process has just ended".to_owned()),
            (Some(held), Some(first)) => wrong.extend(held.more_than(first)),
            (Some(_), None) => {}
        }
        match held {
            Some(held) if wrong.is_empty() => {
                let since = *well_since.get_or_insert(asked);
                if began.elapsed() >= since + AT_REST_FOR {
                    return Ok((since, held));
                }
            }
            _ => well_since = None,
        }
        if began.elapsed() >= REST_WITHIN && !wrong.is_empty() {
            return Err(wrong);
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// What the wall's processes said last: its logs go with this test's namespaces.
fn last_words() {
    let mut logs: Vec<_> =
        fs::read_dir("/run/loco/log").into_iter().flatten().flatten().map(|log| log.path()).collect();
    logs.sort();
    for log in logs.iter().filter(|log| log.extension().is_some_and(|extension| extension == "log")) {
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("== {}\n{}", log.display(), lines[lines.len().saturating_sub(30)..].join("\n"));
    }
}

#[test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
fn a_wall_comes_to_rest_after_whatever_happens_and_keeps_nothing() {
    alone("churn::a_wall_comes_to_rest_after_whatever_happens_and_keeps_nothing", || {
        mount_sys();
        let length =
            number("LOCO_CHURN_MINUTES").map_or(Length::Bursts(BURSTS), |m| Length::Time(Duration::from_mins(m)));
        let seed = number("LOCO_CHURN_SEED").unwrap_or(SEED);
        let mut report = Report::new(env::var_os("LOCO_CHURN_OUT").as_deref().map(Path::new), seed);
        says(&loco(&["up", "--detach", "--nodes", "3", "--guests", "9"]), 0, "all 9 pictures are live");
        let mut directory = Directory::read();
        let underlay = directory.underlay();
        let rests = |what: &str, first: Option<&Held>, report: &mut Report| {
            come_to_rest(&underlay, first).unwrap_or_else(|wrong| {
                report.note(&json!({"wrong": wrong}));
                last_words();
                panic!("seed {seed}, {what}: wrong at rest: {wrong:#?}");
            })
        };
        let (_, first) = rests("at first", None, &mut report);
        report.note(&json!({"first": first}));

        if matches!(length, Length::Bursts(_)) {
            judge::names_what_is_kept(&underlay, &first);
            judge::names_what_does_not_play(&underlay, &first, &mut directory);
            rests("after the judge's test", Some(&first), &mut report);
            // Nobody joins meanwhile, so all that is known of the game is what the agents before knew.
            let all_agents: Vec<_> = (0..NODES).map(|node| (0, fault::Step::KillAgent(node))).collect();
            assert!(fault::put_in(&all_agents, &mut directory).iter().all(|hit| *hit));
            rests("after all agents were killed at once", Some(&first), &mut report);
        }

        let mut dice = StdRng::seed_from_u64(seed);
        let began = Instant::now();
        let (mut bursts, mut series) = (0, Vec::new());
        while !length.is_over(bursts, began) {
            bursts += 1;
            let steps = fault::plan(&mut dice);
            let hits = fault::put_in(&steps, &mut directory);
            let (rested, held) = rests(&format!("after {steps:?}"), Some(&first), &mut report);
            report.burst(bursts, began.elapsed(), &steps, &hits, rested, &held);
            series.push(held);
        }
        let grown = held::grown(&series);
        report
            .note(&json!({"bursts": bursts, "seconds": began.elapsed().as_secs(), "wrong_at_rest": 0, "grown": grown}));
        report.write(&first, &series, began.elapsed());
        assert!(grown.is_empty(), "seed {seed}: {grown:#?}");
        says(&loco(&["down"]), 0, "the wall is down");
        crate::nothing_is_left();
    });
}
