//! `loco doctor [A] [B]`: why a seat does not see a game, from the gateway, in words or as JSON.
//!
//! Exit code 0: all is well; 1: something is wrong, or nobody could tell; 2: no such seat; 3: nothing runs.
use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result, bail};
use api::{
    lan::{Diagnosis, Doctor, Rung, RungResult},
    observe::Evidence,
    status::{Status, StatusInstance},
};
use clap::{Args, ValueEnum};

use crate::{paths::Paths, plan::Wall, state, status};

/// A diagnosis of 1,000 seats takes the gateway well under a second.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct DoctorFlags {
    /// The seat that does not see the game: `instance-3`, or its number as people say it: `4`
    a: Option<String>,
    /// The seat whose game it should see; any game when absent
    b: Option<String>,
    /// `json` for programs
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

/// What is to be printed, and whether all is well.
#[derive(Debug)]
pub(crate) enum Answer {
    NothingRuns,
    /// There is no such seat: what to say about it.
    NoSuchSeat(String),
    Said {
        text: String,
        ok: bool,
    },
}

pub(crate) async fn run(flags: &DoctorFlags, paths: &Paths) -> Result<Answer> {
    let Some(report) = status::read(paths).await? else { return Ok(Answer::NothingRuns) };
    let mut query = Vec::new();
    for (key, name) in [("from", &flags.a), ("to", &flags.b)] {
        let Some(name) = name else { continue };
        match seat(&report.status, name) {
            Ok(instance) => query.push((key, instance.id.clone())),
            Err(why) => return Ok(Answer::NoSuchSeat(why)),
        }
    }
    let wall: Wall = state::read_json(&paths.wall())?;
    let doctor = ask(&format!("{}/api/doctor", wall.base_url()), &query, &report.status.token).await?;
    let text = match flags.output {
        Form::Json => serde_json::to_string_pretty(&doctor)?,
        Form::Text => words(&doctor, &report.status),
    };
    Ok(Answer::Said { text, ok: doctor.ok })
}

async fn ask(url: &str, query: &[(&str, String)], token: &str) -> Result<Doctor> {
    let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
    // Ids are letters, digits and hyphens: nothing is to be escaped.
    let pairs: Vec<String> = query.iter().map(|(key, id)| format!("{key}={id}")).collect();
    let url = format!("{url}?{}", pairs.join("&"));
    let answer = client.get(&url).bearer_auth(token).send().await;
    let answer = answer.with_context(|| format!("{url} does not answer; `loco status` shows what runs"))?;
    if !answer.status().is_success() {
        bail!("{url} answers {}: {}", answer.status(), answer.text().await.unwrap_or_default());
    }
    answer.json().await.with_context(|| format!("{url} answered something else"))
}

/// By id, or by the number that is on the tile, where only one LAN has it.
pub(crate) fn seat<'a>(status: &'a Status, name: &str) -> Result<&'a StatusInstance, String> {
    if let Some(instance) = status.instances.iter().find(|instance| instance.id == name) {
        return Ok(instance);
    }
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    let plain = digits == name || name.to_ascii_lowercase().starts_with("seat");
    let number: Option<u16> = digits.parse().ok().filter(|_| plain);
    let found: Vec<_> =
        status.instances.iter().filter(|instance| Some(u16::from(instance.seat) + 1) == number).collect();
    match found[..] {
        [one] => Ok(one),
        [] => Err(format!("there is no seat `{name}`; `loco status` lists them")),
        _ => Err(format!("several LANs have a seat {name}; name it by its id, such as {}", found[0].id)),
    }
}

const fn rung(rung: Rung) -> &'static str {
    match rung {
        Rung::Link => "The cable is in",
        Rung::Frame => "It has sent a frame",
        Rung::Address => "It has an address",
        Rung::Asks => "It asks for games (UDP 47624)",
        Rung::Reaches => "Its question reaches the host",
        Rung::Answers => "The host answers (TCP 2300-2400)",
        Rung::SameGame => "Same game, same version",
        Rung::Free => "A station is free",
        Rung::Joined => "It has joined",
    }
}

const fn result(result: RungResult) -> &'static str {
    match result {
        RungResult::Passed => "passed",
        RungResult::Failed => "FAILED",
        RungResult::Unreached => "not reached",
        RungResult::Unknown => "not known",
    }
}

fn words(doctor: &Doctor, status: &Status) -> String {
    if doctor.diagnosis.is_empty() {
        return format!("All is well: nothing is wrong with {} seats.", status.instances.len());
    }
    let told: Vec<String> = doctor.diagnosis.iter().map(one).collect();
    told.join("\n\n")
}

fn one(diagnosis: &Diagnosis) -> String {
    let mut text = diagnosis.sentence.clone();
    if let Some(remedy) = &diagnosis.remedy {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "\n  To do: {remedy}");
    }
    for state in &diagnosis.ladder {
        let _infallible = write!(text, "\n  {:<34}{}", rung(state.rung), result(state.result));
        if let Some(evidence) = &state.evidence {
            let _infallible = write!(text, "  ({})", shown(evidence));
        }
    }
    text
}

/// Which frame, where, and what it says.
fn shown(evidence: &Evidence) -> String {
    let place = [&evidence.port, &evidence.node].into_iter().flatten().cloned().collect::<Vec<_>>().join(" on ");
    let at = if place.is_empty() { String::new() } else { format!(" at {place}") };
    format!("frame {}{at}: {}", evidence.frame, evidence.what)
}

#[cfg(test)]
mod tests {
    use api::{agent::State, lan::RungState};

    use super::*;

    fn status(seats: &[(&str, &str, u8)]) -> Status {
        let instances = seats.iter().map(|(id, lan, seat)| StatusInstance {
            id: (*id).to_owned(),
            name: String::new(),
            node: "node-a".into(),
            lan: (*lan).to_owned(),
            seat: *seat,
            mac: String::new(),
            ip: String::new(),
            state: State::Live,
            qemu_pid: None,
            runner_pid: None,
        });
        Status { url: String::new(), token: String::new(), nodes: Vec::new(), instances: instances.collect() }
    }

    #[test]
    fn a_seat_is_named_by_its_id_or_by_its_number() {
        let one = status(&[("instance-0", "party", 0), ("instance-3", "party", 3)]);
        for name in ["instance-3", "4", "seat 4", "Seat 4"] {
            assert_eq!(seat(&one, name).unwrap().id, "instance-3", "{name}");
        }
        for name in ["instance-4", "3", "", "x4", "0"] {
            assert!(seat(&one, name).unwrap_err().contains("there is no seat"), "{name}");
        }
        let two = status(&[("instance-0", "party", 0), ("instance-9", "other", 0)]);
        assert!(seat(&two, "1").unwrap_err().contains("several LANs"));
        assert_eq!(seat(&two, "instance-9").unwrap().id, "instance-9");
    }

    #[test]
    fn words_give_the_sentence_the_remedy_and_the_ladder() {
        let evidence = Evidence {
            at: 1.0,
            frame: 17,
            what: "ENUMSESSIONS".into(),
            node: Some("node-b".into()),
            port: Some("instance-3".into()),
        };
        let state = |rung, result, evidence| RungState { rung, result, evidence };
        let diagnosis = Diagnosis {
            from: "instance-3".into(),
            to: "instance-0".into(),
            rung: Rung::Reaches,
            ok: false,
            cause: "underlay-blocked".into(),
            sentence: "Seat 4 asks, and node-b to node-a loses it.".into(),
            evidence: None,
            remedy: Some("Open UDP 14789 between the nodes.".into()),
            ladder: vec![
                state(Rung::Asks, RungResult::Passed, Some(evidence)),
                state(Rung::Reaches, RungResult::Failed, None),
                state(Rung::Answers, RungResult::Unreached, None),
            ],
        };
        let doctor = Doctor { at: 1.0, ok: false, diagnosis: vec![diagnosis] };
        let want = "Seat 4 asks, and node-b to node-a loses it.\n  \
                    To do: Open UDP 14789 between the nodes.\n  \
                    It asks for games (UDP 47624)     passed  (frame 17 at instance-3 on node-b: ENUMSESSIONS)\n  \
                    Its question reaches the host     FAILED\n  \
                    The host answers (TCP 2300-2400)  not reached";
        assert_eq!(words(&doctor, &status(&[])), want);
        let well = Doctor { at: 1.0, ok: true, diagnosis: Vec::new() };
        assert_eq!(words(&well, &status(&[("a", "l", 0)])), "All is well: nothing is wrong with 1 seats.");
    }
}
