//! The page and the raw data.
use std::{fs, path::Path, process::Command};

use anyhow::Context as _;
use serde_json::Value;

/// A number of a row, written with so many decimals; absent where it was not measured.
fn cell(row: &Value, path: &str, decimals: usize) -> String {
    row.pointer(path).and_then(Value::as_f64).map_or_else(|| "-".to_owned(), |number| format!("{number:.decimals$}"))
}

fn table(rows: &[&Value], lines: &[(&str, &str, usize)]) -> String {
    let line = |(what, path, decimals): &(&str, &str, usize)| {
        let cells: Vec<String> = rows.iter().map(|row| cell(row, path, *decimals)).collect();
        format!("| {what} | {} |\n", cells.join(" | "))
    };
    lines.iter().map(line).collect()
}

/// What is told of one agent among many.
const ONE: [(&str, &str, usize); 22] = [
    ("LANs", "/lans", 0),
    ("rows in the tunnels' tables", "/rows", 0),
    ("directory changes, until the kernel has all rows, ms", "/rows_ms", 0),
    ("… until every other node was heard, ms", "/heard_ms", 0),
    ("writes to the kernel for it", "/writes", 0),
    ("a node leaves the directory: its rows are gone after, ms", "/leaves_ms", 0),
    ("… writes", "/leaves_writes", 0),
    ("it joins: its rows are there after, ms", "/joins_ms", 0),
    ("… writes", "/joins_writes", 0),
    ("a node dies: out of the flood list after, ms (goal 2000)", "/dies_ms", 0),
    ("it returns: in again after, ms (goal 1000)", "/returns_ms", 0),
    ("agent is replaced, until every other node was heard, ms", "/restart_heard_ms", 0),
    ("… writes of the new one (goal 0)", "/restart_writes", 0),
    ("writes in 15 s in which nothing changes (goal 0)", "/quiet_writes", 0),
    ("processor meanwhile, cores", "/quiet_cores", 3),
    ("agent's memory before, MiB RSS", "/memory_alone_mib/rss", 1),
    ("agent's memory after all that, MiB RSS (goal 32)", "/memory_mib/rss", 1),
    ("… of it its own, not of files", "/memory_mib/own", 1),
    ("a broadcast of 60 octets, µs p50", "/broadcast/p50_us", 0),
    ("… p99", "/broadcast/p99_us", 0),
    ("… until the last copy came, µs p50", "/broadcast/all_p50_us", 0),
    ("… copies that arrived, of all", "/broadcast/arrived", 0),
];

const ALL: [(&str, &str, usize); 13] = [
    ("started one after the other within, s", "/started_s", 1),
    ("from the first start until every agent hears every other, s", "/joined_s", 1),
    ("writes to the kernel, each", "/writes_each", 0),
    ("writes of all in 20 s in which nothing changes (goal 0)", "/quiet_writes", 0),
    ("processor meanwhile, cores each", "/quiet_cores_each", 4),
    ("memory each, MiB RSS: median (goal 32)", "/rss_mib/median", 1),
    ("… most", "/rss_mib/most", 1),
    ("… its own, not of files: median", "/own_mib/median", 1),
    ("a guest's broadcast of 60 octets, µs p50", "/broadcast/p50_us", 0),
    ("… p99", "/broadcast/p99_us", 0),
    ("… until every other guest's port had it, µs p50", "/broadcast/all_p50_us", 0),
    ("… copies that arrived, of 500 for each other guest", "/broadcast/arrived", 0),
    ("a node's cable is pulled: out of all flood lists after, ms (goal 2000)", "/pruned_by_all_ms", 0),
];

pub(crate) fn write(dir: &Path, lines: &[Value]) -> anyhow::Result<()> {
    let date = String::from_utf8(Command::new("date").args(["-u", "+%F"]).output()?.stdout)?;
    let name = format!("scale-{}", date.trim());
    let raw = lines.iter().fold(String::new(), |text, line| text + &format!("{line}\n"));
    fs::write(dir.join(format!("{name}.jsonl")), raw)?;
    let of = |what: &str| lines.iter().filter(|line| line["what"] == what).collect::<Vec<_>>();
    let (one, all) = (of("one of many"), of("all of many"));
    let machine = lines.first().context("a run has a first line")?;
    let heads = |rows: &[&Value], of: &str, unit: &str| {
        let cells: Vec<String> = rows.iter().map(|row| format!("{} {unit}", row[of])).collect();
        format!("| | {} |\n|---{}|\n", cells.join(" | "), "|---".repeat(cells.len()))
    };
    let text = format!(
        "# How the fabric grows, {date}\n\n\
         Machine: {cpus} cores, kernel {kernel}, load {load} at the start. Command: `cargo xtask bench scale`. Raw data: `{name}.jsonl`.\n\n\
         ## One agent among many nodes\n\n\
         Real: the agent's process and its kernel. Played: the other nodes, a socket each, which answer the questions over the tunnel. A LAN has 253 seats at\n\
         most, so 250 is about the largest flood list there can be; with 512 there are 16 LANs of 32 nodes. A broadcast's time is that of the call which hands it to\n\
         the kernel; the others are in the same kernel, so their receiving is part of it.\n\n\
         {one_head}{rows}\n\
         ## Many agents, each in a namespace, all of one LAN\n\n\
         All real: a process for each node, a guest's seat on each. Every agent asks every other over the tunnel, so that questions grow with the square.\n\
         They know each other's MAC addresses from the start: one kernel learns 1,024 at most, for all its namespaces together.\n\n\
         {all_head}{all_rows}",
        date = date.trim(),
        cpus = machine["cpus"],
        kernel = machine["kernel"].as_str().unwrap_or_default(),
        load = machine["load"].as_str().unwrap_or_default(),
        one_head = heads(&one, "vteps", "VTEPs"),
        rows = table(&one, &ONE),
        all_head = heads(&all, "agents", "agents"),
        all_rows = table(&all, &ALL),
    );
    fs::write(dir.join(format!("{name}.md")), text)?;
    Ok(())
}
