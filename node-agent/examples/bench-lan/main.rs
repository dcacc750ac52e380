//! What passes between two guests' cards, and how fast: our modes, and what they could be compared with, in one run.
//!
//! ```text
//!  raw:        bench ─ tap or cable ─ <path> ─ tap or cable ─ bench                       what the path itself costs
//!  in QEMU:    bench ─ unix ─ QEMU hub ─ <netdev> … <netdev> ─ QEMU hub ─ unix ─ bench    the same two QEMUs for every netdev
//! ```
//! Latency: one frame is in flight at a time, and paths take turns in short rounds, so that a busy moment of the machine hits all of
//! them. Loss: one way, at rising rates. Prints one JSON object a line; with `--out DIR` it also writes them to `DIR/lan-DATE.jsonl`, and
//! tables to `DIR/lan-DATE.md`. Needs root, QEMU and vde2; `cargo xtask bench lan` runs it.
mod ours;
mod qemu;
mod rig;
mod route;

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::{
    qemu::QEMU,
    rig::Rig,
    route::{Figures, Route, Samples, flood, measure, warm},
};

const SAMPLES: usize = 2000;
const ROUNDS: usize = 10;
/// Lengths of the whole frame, without check sequence.
pub(crate) const FRAME_LENS: [usize; 2] = [60, 1400];
/// Frames a second.
const RATES: [u32; 5] = [1_000, 5_000, 20_000, 50_000, 100_000];
const FLOOD: Duration = Duration::from_millis(700);

/// The machine and the moment.
struct About {
    date: String,
    machine: String,
}

impl About {
    fn read() -> anyhow::Result<Self> {
        let output = |program: &str, argument: &str| -> anyhow::Result<String> {
            let output = Command::new(program).arg(argument).output().with_context(|| format!("run {program}"))?;
            Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
        };
        let file = |path: &str| std::fs::read_to_string(path).with_context(|| path.to_owned());
        let cpuinfo = file("/proc/cpuinfo")?;
        let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown CPU");
        let load = file("/proc/loadavg")?;
        Ok(Self {
            date: output("date", "+%F")?,
            machine: format!(
                "{} ({} cores), kernel {}, {}, load {} at the start",
                cpu.trim_start_matches([' ', '\t', ':']),
                thread::available_parallelism()?,
                file("/proc/sys/kernel/osrelease")?.trim(),
                output(QEMU, "--version")?,
                load.split(' ').next().unwrap_or_default(),
            ),
        })
    }

    fn json(&self) -> String {
        format!(r#"{{"bench":"lan","date":"{}","machine":"{}"}}"#, self.date, self.machine.replace('"', "'"))
    }
}

/// All rounds. Gives the lines of raw data and the rows of the table.
fn run(routes: &[Route]) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    // Warm: bridges learn, connections are made.
    for route in routes {
        warm(route)?;
    }
    let mut all = vec![vec![Samples::default(); FRAME_LENS.len()]; routes.len()];
    let mut raw = Vec::new();
    for round in 1..=ROUNDS {
        for (route, all) in routes.iter().zip(&mut all) {
            for (len, all) in FRAME_LENS.into_iter().zip(all) {
                let mut samples = Samples::default();
                measure(route, len, SAMPLES / ROUNDS, &mut samples)?;
                raw.push(Figures::of(route.name, &mut samples)?.json(route.name, len, &round.to_string()));
                all.one_way.extend(samples.one_way);
                all.round_trip.extend(samples.round_trip);
                all.lost += samples.lost;
            }
        }
        writeln!(io::stderr(), "round {round} of {ROUNDS}")?;
    }
    let mut rows = Vec::new();
    for (route, all) in routes.iter().zip(&mut all) {
        let mut row = format!("| {} |", route.name);
        for (len, samples) in FRAME_LENS.into_iter().zip(all) {
            let figures = Figures::of(route.name, samples)?;
            raw.push(figures.json(route.name, len, r#""all""#));
            row += &figures.cells();
        }
        rows.push(row);
    }
    Ok((raw, rows))
}

/// Each path at each rate: the lines of raw data and the rows of the table.
fn floods(routes: &[Route]) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let (mut raw, mut rows) = (Vec::new(), Vec::new());
    for route in routes {
        let mut row = format!("| {} |", route.name);
        for rate in RATES {
            let flood = flood(route, rate, FLOOD)?;
            let (lost, sent) = (flood.lost_percent(), flood.sent_rate);
            raw.push(format!(
                r#"{{"path":"{}","asked_rate":{rate},"sent_rate":{sent:.0},"sent":{},"arrived":{},"lost_percent":{lost:.3}}}"#,
                route.name, flood.sent, flood.arrived
            ));
            // Where the path held the sender back, what it took is told as well.
            let held =
                if sent < f64::from(rate) * 0.95 { format!(" of {:.0}k/s", sent / 1000.0) } else { String::new() };
            write!(row, " {lost:.1}{held} |")?;
        }
        rows.push(row);
        writeln!(io::stderr(), "flooded: {}", route.name)?;
    }
    Ok((raw, rows))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let out = match arguments.as_slice() {
        [] => None,
        [flag, directory] if flag == "--out" => Some(PathBuf::from(directory)),
        _ => bail!("usage: bench-lan [--out DIRECTORY]"),
    };
    let about = About::read()?;
    let rig = Rig::build().await?;
    let (mut raw, rows) = run(&rig.routes)?;
    let (flooded, flood_rows) = floods(&rig.routes)?;
    raw.extend(flooded);
    let raw = format!("{}\n{}\n", about.json(), raw.join("\n"));
    io::stdout().lock().write_all(raw.as_bytes())?;
    let Some(out) = out else { return Ok(()) };
    let name = format!("lan-{}", about.date);
    std::fs::write(out.join(format!("{name}.jsonl")), &raw)?;
    let rates = RATES.map(|rate| format!(" {}k/s |", rate / 1000)).concat();
    let table = format!(
        "# From card to card, {date}\n\nMachine: {machine}.\n\
         Command: `cargo xtask bench lan`. Raw data: `{name}.jsonl`.\n\
         Raw: the bench holds both ends, as QEMU would. In QEMU: the same two QEMUs with hubs for every netdev, so the difference is the netdev's.\n\
         Guard and observer: what an agent attaches to each tap and tunnel; without them it is the bridge and the tunnel alone. VDE has one switch,\n\
         so it is on one node.\n\n\
         ## Latency\n\n\
         Microseconds, p50 / p99 of {SAMPLES} frames each, one in flight, paths in turn.\n\n\
         | path | 60 octets: one way | round trip | lost | 1400 octets: one way | round trip | lost |\n|---|---|---|---|---|---|---|\n{rows}\n\n\
         ## Loss at rising rates\n\n\
         Percent of frames of 60 octets, one way, that did not arrive. `of N/s`: the path held its sender back, so no more were sent. One core sends and one\n\
         receives, and the path has what they leave.\n\n\
         | path |{rates}\n|---|---|---|---|---|---|\n{flood_rows}\n",
        date = about.date,
        machine = about.machine,
        rows = rows.join("\n"),
        flood_rows = flood_rows.join("\n"),
    );
    std::fs::write(out.join(format!("{name}.md")), table)?;
    Ok(())
}
