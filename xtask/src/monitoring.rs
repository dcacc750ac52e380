//! Metrics, dashboards and alert rules: `docs/metrics.md` is made from a live wall, and no dashboard or rule names what no
//! process serves.
//!
//! ```text
//! live wall ── /metrics of each process ──> families ──> docs/metrics.md          (written by `cargo xtask metrics`)
//! browser tests: families of their wall  ⊆  docs/metrics.md
//! tidy:          names in charts/loco/dashboards and charts/loco/rules  ⊆  docs/metrics.md
//! ci:            promtool: rules are sound, and each alert fires on its fault (charts/loco/rules/tests)
//! ```
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{dirs::Dirs, run::Run as _, setup};

const DOCUMENT: &str = "docs/metrics.md";
const DASHBOARDS: &str = "charts/loco/dashboards";
const RULES: &str = "charts/loco/rules";

/// One metric as a process serves it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Family {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
    served_by: BTreeSet<String>,
}

type Families = BTreeMap<String, Family>;

/// `cargo xtask metrics`: writes the document from the wall that runs. What this wall does not serve and the document has
/// stays: a relay that is off counts nothing.
pub(crate) fn write(dirs: &Dirs, status: &serde_json::Value) -> Result<()> {
    let path = dirs.root().join(DOCUMENT);
    let mut families = if path.is_file() { documented(&path)? } else { Families::new() };
    for (name, family) in scrape(dirs, status)? {
        let known = families.entry(name).or_insert_with(|| family.clone());
        known.kind = family.kind;
        known.help = family.help;
        known.labels.extend(family.labels);
        known.served_by.extend(family.served_by);
    }
    fs::write(&path, document(&families)).with_context(|| format!("{}", path.display()))
}

/// Every family that the processes of a wall serve is documented, and Prometheus' own linter has nothing against them.
pub(crate) fn check_wall(dirs: &Dirs, status: &serde_json::Value) -> Result<()> {
    let documented = documented(&dirs.root().join(DOCUMENT))?;
    let live = scrape(dirs, status)?;
    let unknown: Vec<&String> = live.keys().filter(|name| !documented.contains_key(*name)).collect();
    ensure!(
        unknown.is_empty(),
        "served and not in {DOCUMENT}: {unknown:?}; start a wall, open its page, then `cargo xtask metrics`"
    );
    Ok(())
}

/// What dashboards and rules name must be documented, which is to say: was served once.
pub(crate) fn check_files(dirs: &Dirs) -> Result<Vec<String>> {
    let known = documented(&dirs.root().join(DOCUMENT))?;
    let mut problems = Vec::new();
    for path in files(dirs)? {
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let short = path.strip_prefix(dirs.root()).unwrap_or(&path).display().to_string();
        if path.extension().is_some_and(|extension| extension == "json") {
            serde_json::from_str::<serde_json::Value>(&text).with_context(|| short.clone())?;
        }
        for name in names(&text) {
            if !known.contains_key(base(&name)) && !known.contains_key(&name) {
                problems.push(format!("{short} uses `{name}`, which no process serves ({DOCUMENT})"));
            }
        }
    }
    let read = |dir: PathBuf| -> Result<String> {
        let entries = fs::read_dir(&dir).with_context(|| format!("{}", dir.display()))?;
        let texts =
            entries.flatten().filter(|entry| entry.path().is_file()).map(|entry| fs::read_to_string(entry.path()));
        Ok(texts.collect::<Result<String, _>>()?)
    };
    let rules = read(dirs.root().join(RULES))?;
    let tests = read(dirs.root().join(RULES).join("tests"))?;
    problems.extend(unseen(&rules, &tests));
    Ok(problems)
}

/// Alerts that no test expects to fire.
fn unseen(rules: &str, tests: &str) -> Vec<String> {
    let fires = |alert: &str| {
        tests
            .split("alertname: ")
            .skip(1)
            .any(|case| case.lines().next().is_some_and(|name| name.trim() == alert) && case.contains("exp_labels:"))
    };
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    alerts.filter(|alert| !fires(alert)).map(|alert| format!("{RULES}: no test sees the alert {alert} fire")).collect()
}

/// Rules are sound, and the tests beside them hold: each alert fires on its fault and not without it.
pub(crate) fn promtool(dirs: &Dirs) -> Result<()> {
    let tool = setup::promtool(dirs)?;
    let rules = dirs.root().join(RULES);
    let yaml = |dir: PathBuf| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&dir).with_context(|| format!("{}", dir.display()))?;
        let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|p| p.is_file()).collect();
        found.sort();
        Ok(found)
    };
    Command::new(&tool).args(["check", "rules"]).args(yaml(rules.clone())?).run()?;
    Command::new(&tool).args(["test", "rules"]).args(yaml(rules.join("tests"))?).run()
}

fn files(dirs: &Dirs) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for dir in [DASHBOARDS, RULES] {
        let dir = dirs.root().join(dir);
        let entries = fs::read_dir(&dir).with_context(|| format!("{}", dir.display()))?;
        found.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
    }
    found.sort();
    Ok(found)
}

/// Names of ours in a text of queries.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("loco_"))
        .map(ToOwned::to_owned)
        .collect()
}

/// Of a histogram's series, the family.
fn base(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// All processes of a wall, by `loco status -o json`.
fn scrape(dirs: &Dirs, status: &serde_json::Value) -> Result<Families> {
    let token = status["token"].as_str().context("`loco status` told no token")?;
    let page = status["url"].as_str().context("`loco status` told no URL")?;
    let origin = page.split_once("/#").map_or(page, |(origin, _)| origin);
    let mut families = Families::new();
    let mut read = |who: &str, url: &str| -> Result<()> {
        let text = get(url, token)?;
        lint(dirs, who, &text)?;
        collect(&mut families, who, &text);
        Ok(())
    };
    read("gateway", &format!("{origin}/metrics"))?;
    for node in status["nodes"].as_array().context("`loco status` told no nodes")? {
        read("node-agent", &format!("{}/metrics", node["agent_url"].as_str().context("a node without agent_url")?))?;
    }
    Ok(families)
}

fn get(url: &str, token: &str) -> Result<String> {
    let mut curl = Command::new("curl");
    // The token by standard input: a command line can be read by everybody.
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "10", "--header", "@-", url]);
    let mut child = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot run curl")?;
    writeln!(child.stdin.take().context("curl reads")?, "Authorization: Bearer {token}")?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "no metrics at {url}: {}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{url} is not text"))
}

fn lint(dirs: &Dirs, who: &str, text: &str) -> Result<()> {
    let mut tool = Command::new(setup::promtool(dirs)?);
    tool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tool.spawn().context("cannot run promtool")?;
    child.stdin.take().context("promtool reads")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.trim().is_empty(), "promtool on the metrics of {who}: {}", said.trim());
    Ok(())
}

/// Text format 0.0.4: `# HELP`, `# TYPE`, samples.
fn collect(families: &mut Families, who: &str, text: &str) {
    let mut help = "";
    let mut now = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let family = families.entry(name.to_owned()).or_insert_with(|| Family {
                kind: kind.to_owned(),
                help: help.to_owned(),
                labels: BTreeSet::new(),
                served_by: BTreeSet::new(),
            });
            family.served_by.insert(who.to_owned());
            now = Some(name.to_owned());
        } else if let (Some(name), Some((_, labels))) = (&now, line.split_once('{'))
            && let Some(family) = families.get_mut(name)
        {
            let labels = labels.rsplit_once('}').map_or(labels, |(labels, _)| labels);
            let keys = labels.split(',').filter_map(|pair| Some(pair.split_once("=\"")?.0.to_owned()));
            family.labels.extend(keys.filter(|key| key != "le"));
        }
    }
}

fn document(families: &Families) -> String {
    let mut text = "# Metrics\n\nMade by `cargo xtask metrics` from a running wall; rows of what that wall did not serve (a relay that is off, a drop that did not occur) were added by hand and stay. Text format of Prometheus at `/metrics` of the gateway and of each agent.\n\n\
                    | name | type | labels | served by | what |\n|---|---|---|---|---|\n"
        .to_owned();
    for (name, family) in families {
        let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
        let cells = [&format!("`{name}`"), &family.kind, &list(&family.labels), &list(&family.served_by), &family.help];
        text.push_str("| ");
        text.push_str(&cells.map(String::as_str).join(" | "));
        text.push_str(" |\n");
    }
    text
}

fn documented(path: &Path) -> Result<Families> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("{}; start a wall, open its page, then `cargo xtask metrics`", path.display()))?;
    Ok(parse_document(&text))
}

fn parse_document(text: &str) -> Families {
    let list = |cell: &str| cell.split(", ").filter(|word| !word.is_empty()).map(ToOwned::to_owned).collect();
    text.lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let name = cells.next()?.strip_suffix('`')?;
            let (kind, labels, served_by) = (cells.next()?, cells.next()?, cells.next()?);
            let help = cells.collect::<Vec<_>>().join(" | ");
            let family = Family {
                kind: kind.to_owned(),
                help: help.strip_suffix(" |").unwrap_or(&help).to_owned(),
                labels: list(labels),
                served_by: list(served_by),
            };
            Some((name.to_owned(), family))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVED: &str = "# HELP loco_x_total Things | counted.\n# TYPE loco_x_total counter\nloco_x_total{a=\"1\",b=\"x,y=\\\"2\"} 3\n\
        # HELP loco_h_seconds Time.\n# TYPE loco_h_seconds histogram\nloco_h_seconds_bucket{le=\"1\"} 2\nloco_h_seconds_count 2\n";

    #[test]
    fn what_is_served_is_documented_and_read_back() {
        let mut families = Families::new();
        collect(&mut families, "gateway", SERVED);
        collect(
            &mut families,
            "node-agent",
            "# HELP loco_x_total Things | counted.\n# TYPE loco_x_total counter\nloco_x_total 1\n",
        );
        let x = &families["loco_x_total"];
        assert_eq!((x.kind.as_str(), x.help.as_str()), ("counter", "Things | counted."));
        assert!(x.labels.contains("a") && x.labels.contains("b"), "{:?}", x.labels);
        assert_eq!(x.served_by.len(), 2);
        assert!(families["loco_h_seconds"].labels.is_empty(), "`le` belongs to every histogram");
        assert_eq!(parse_document(&document(&families)), families);
    }

    #[test]
    fn names_in_queries_are_found() {
        let found = names(r#"{"expr": "sum by (instance) (rate(loco_x_total{a=\"b\"}[5m])) / loco_h_seconds_bucket"}"#);
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["loco_h_seconds_bucket", "loco_x_total"]);
        assert_eq!((base("loco_h_seconds_bucket"), base("loco_x_total")), ("loco_h_seconds", "loco_x_total"));
    }

    #[test]
    fn an_alert_that_no_test_sees_fire_is_named() {
        let rules = "  - alert: A\n  - alert: B\n";
        let tests = "- alertname: A\n  exp_alerts:\n    - exp_labels:\n- alertname: B\n  exp_alerts: []\n";
        assert_eq!(unseen(rules, tests), ["charts/loco/rules: no test sees the alert B fire"]);
    }
}
