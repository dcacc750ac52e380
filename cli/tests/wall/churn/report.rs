//! Raw data, a line of JSON for each rest, written at once; and the page that is made of them.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    fault::Step,
    held::{Held, Use},
};

pub(super) struct Report {
    /// Raw data, and where it is; `None` in the test.
    file: Option<(File, PathBuf)>,
    seed: u64,
    machine: Value,
    rests: Vec<f64>,
    steps: BTreeMap<&'static str, usize>,
}

fn said(program: &str, words: &[&str]) -> String {
    String::from_utf8(Command::new(program).args(words).output().unwrap().stdout).unwrap().trim().to_owned()
}

impl Report {
    pub(super) fn new(out: Option<&Path>, seed: u64) -> Self {
        let file = out.map(|dir| {
            let path = dir.join(format!("churn-{}.jsonl", said("date", &["-u", "+%F"])));
            (File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())), path)
        });
        let load = fs::read_to_string("/proc/loadavg").unwrap();
        let machine = json!({"bench": "churn", "seed": seed, "kernel": said("uname", &["-r"]), "cpus": said("nproc", &[]),
                             "load": load.split(' ').next()});
        let mut report = Self { file, seed, machine: machine.clone(), rests: Vec::new(), steps: BTreeMap::new() };
        report.note(&machine);
        report
    }

    pub(super) fn note(&mut self, line: &Value) {
        eprintln!("{line}");
        if let Some((file, path)) = &mut self.file {
            writeln!(file, "{line}").unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }

    pub(super) fn burst(
        &mut self,
        number: usize,
        at: Duration,
        steps: &[(u64, Step)],
        hits: &[bool],
        rested: Duration,
        held: &Held,
    ) {
        let hit = steps.iter().zip(hits).filter(|(_, hit)| **hit).filter_map(|((_, step), _)| step.kind());
        for kind in hit {
            *self.steps.entry(kind).or_default() += 1;
        }
        self.rests.push(rested.as_secs_f64());
        self.note(&json!({"burst": number, "at_s": at.as_secs(), "steps": steps, "hit": hits,
                         "rest_s": (rested.as_secs_f64() * 10.0).round() / 10.0, "held": held}));
    }

    /// The page beside the raw data.
    pub(super) fn write(&mut self, first: &Held, series: &[Held], took: Duration) {
        let Some((_, raw)) = &self.file else { return };
        let Some(last) = series.last() else { return };
        self.rests.sort_by(f64::total_cmp);
        let rest = |share: usize| self.rests[(self.rests.len() - 1) * share / 100];
        let steps: Vec<String> = self.steps.iter().map(|(kind, count)| format!("| {kind} | {count} |\n")).collect();
        let steps = steps.concat();
        let same = |what: &str, first: usize, last: usize| format!("| {what} | {first} | {last} |\n");
        let counts = [
            same("links, all namespaces", first.links.values().sum(), last.links.values().sum()),
            same("mounts", first.mounts, last.mounts),
            same("processes", first.processes, last.processes),
            same("pins of programs and maps", first.pins, last.pins),
        ];
        let name = raw.file_name().unwrap_or_default().display();
        let minutes = took.as_secs_f64() / 60.0;
        let text = format!(
            "# Churn under a game of nine, {date}\n\n\
             Machine: {cpus} cores, kernel {kernel}, load {load} at the start. Command: `cargo xtask bench churn -- --minutes {whole:.0} --seed {seed}`.\n\
             Raw data: `{name}`, a line for each rest: what was done when, whether it hit, how long until all was well, what is held.\n\n\
             {bursts} bursts in {minutes:.1} minutes. **Wrong at rest: 0.** At rest is: every picture live, all nine in one session with one host, frames in the last\n\
             ten seconds from each to each, the doctor without a word, every tunnel's table as the directory wants it, and nothing held that was not held at\n\
             first; for 12 s without a break, within 3 minutes. The run ends at the first burst after which it is not so.\n\n\
             | done | times |\n|---|---|\n{steps}\n\
             Damage is called after the object that the agent counts its repair as. A step counts where it hit: what an earlier one took away cannot be damaged.\n\n\
             From a burst's last step until all was well, s: p50 {p50:.1}, p95 {p95:.1}, most {most:.1}. A guest that was killed boots and joins anew meanwhile.\n\n\
             ## What is held\n\n| | at first | at last |\n|---|---|---|\n{counts}\n\
             | of a process | descriptors at first | at last | most | memory at first, MiB RSS | at last | most |\n|---|---|---|---|---|---|---|\n{uses}",
            date = said("date", &["-u", "+%F"]),
            cpus = self.machine["cpus"].as_str().unwrap_or_default(),
            kernel = self.machine["kernel"].as_str().unwrap_or_default(),
            load = self.machine["load"].as_str().unwrap_or_default(),
            whole = minutes.floor(),
            seed = self.seed,
            bursts = series.len(),
            p50 = rest(50),
            p95 = rest(95),
            most = rest(100),
            counts = counts.concat(),
            uses = first.of.keys().map(|process| uses(process, first, series)).collect::<String>(),
        );
        let page = raw.with_extension("md");
        fs::write(&page, text).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    }
}

fn uses(process: &str, first: &Held, series: &[Held]) -> String {
    let mib = |kib: u64| format!("{}.{}", kib / 1024, kib % 1024 * 10 / 1024);
    let most = |field: fn(&Use) -> u64| series.iter().map(|held| field(&held.of[process])).max().unwrap_or_default();
    let (then, last) = (first.of[process], series.last().map_or(first.of[process], |held| held.of[process]));
    format!(
        "| {process} | {} | {} | {} | {} | {} | {} |\n",
        then.fds,
        last.fds,
        most(|one| one.fds),
        mib(then.rss_kib),
        mib(last.rss_kib),
        mib(most(|one| one.rss_kib)),
    )
}
