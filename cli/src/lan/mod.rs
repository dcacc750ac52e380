//! `loco lan`: what LANs there are, how a frame gets from one guest to another, whether this machine can be a node of one.
//!
//! | verb | from | exit code |
//! |---|---|---|
//! | `list`, `show` | the gateway's lan-status | 0; 2 no such LAN; 3 nothing runs |
//! | `trace` | the agents of the two guests, at the same time | 0 delivered, 1 not; 2 no such guest; 3 nothing runs |
//! | `check` | this machine alone | 0 fit, 1 not |
//! | `uninstall` | `node-agent uninstall` | 0; 1 something could not be removed |
mod check;
mod devices;
mod trace;

use std::{fmt::Write as _, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};
use api::lan::LanStatus;
use clap::{Args, Subcommand, ValueEnum};

use crate::{paths::Paths, pcap::sound, plan::Wall, secrets, siblings::Siblings, state, status};

#[derive(Debug, Subcommand)]
pub(crate) enum LanVerb {
    /// The LANs, with the mode that each node has read back
    List {
        #[command(flatten)]
        form: FormFlag,
    },
    /// One LAN: its guests, their addresses, and which node hears which
    Show {
        /// Name of the LAN; the only one when left out
        lan: Option<String>,
        #[command(flatten)]
        form: FormFlag,
    },
    /// Follow a marked frame from one guest to another, and say where it was seen
    ///
    /// A is asked by a ping that seems to come from B, so what is followed is a frame of A's own card.
    Trace(trace::TraceFlags),
    /// Say whether this machine can be a node: kernel and its devices, rights, sysctls, MTU, UDP port
    Check(check::CheckFlags),
    /// Remove what an agent left on this machine: namespaces, devices, programs. Its guests are cut off
    Uninstall {
        /// The agent's --run-dir
        #[arg(long, default_value = "/run/loco")]
        run_dir: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct FormFlag {
    /// `json` for programs
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    pub(crate) output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    Text,
    Json,
}

/// What is to be printed, and how it ends.
#[derive(Debug)]
pub(crate) enum Answer {
    NothingRuns,
    /// Called wrongly: what to say about it.
    Usage(String),
    Said {
        text: String,
        ok: bool,
    },
}

impl Answer {
    fn said<T: serde::Serialize>(form: Form, value: &T, ok: bool, words: impl FnOnce() -> String) -> Result<Self> {
        let text = match form {
            Form::Json => serde_json::to_string_pretty(value)?,
            Form::Text => words(),
        };
        Ok(Self::Said { text: text.trim_end().to_owned(), ok })
    }
}

pub(crate) async fn run(verb: &LanVerb, paths: &Paths) -> Result<Answer> {
    match verb {
        LanVerb::List { form } => list(form.output, paths).await,
        LanVerb::Show { lan, form } => show(lan.as_deref(), form.output, paths).await,
        LanVerb::Trace(flags) => trace::run(flags, paths).await,
        LanVerb::Check(flags) => check::run(flags),
        LanVerb::Uninstall { run_dir } => uninstall(run_dir, paths),
    }
}

/// `None`: nothing runs.
async fn lan_status(paths: &Paths) -> Result<Option<LanStatus>> {
    if !paths.wall().try_exists().with_context(|| format!("cannot look at {}", paths.wall().display()))? {
        return Ok(None);
    }
    let wall: Wall = state::read_json(&paths.wall())?;
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
    let request = client.get(format!("{}/api/lan-status", wall.base_url())).bearer_auth(secrets::read(paths)?);
    let answer = request.send().await.context("the gateway does not answer; `loco status` tells what runs")?;
    Ok(Some(sound(answer).await?.json().await.context("the gateway answered something else")?))
}

async fn list(form: Form, paths: &Paths) -> Result<Answer> {
    let Some(status) = lan_status(paths).await? else { return Ok(Answer::NothingRuns) };
    Answer::said(form, &status.lans, true, || table(&status))
}

fn table(status: &LanStatus) -> String {
    let mut text =
        format!("{:<16}{:>9}  {:<9}{:<12}{:>5}{:>8}\n", "LAN", "VNI", "MODE", "ENCRYPTION", "SEATS", "TAKEN");
    for lan in &status.lans {
        let taken = status.instances.values().filter(|instance| instance.lan == lan.name).count();
        let mode = lan.mode.as_deref().unwrap_or("-");
        let encryption = lan.encryption.as_deref().unwrap_or("-");
        // Writing to a String cannot fail.
        let _infallible =
            writeln!(text, "{:<16}{:>9}  {mode:<9}{encryption:<12}{:>5}{taken:>8}", lan.name, lan.vni, lan.seats);
    }
    text
}

async fn show(lan: Option<&str>, form: Form, paths: &Paths) -> Result<Answer> {
    let Some(status) = lan_status(paths).await? else { return Ok(Answer::NothingRuns) };
    let names: Vec<&str> = status.lans.iter().map(|lan| lan.name.as_str()).collect();
    let name = match (lan, &names[..]) {
        (Some(name), _) if names.contains(&name) => name.to_owned(),
        (None, [only]) => (*only).to_owned(),
        (Some(name), _) => {
            return Ok(Answer::Usage(format!("there is no LAN `{name}`; there are: {}", names.join(", "))));
        }
        (None, _) => return Ok(Answer::Usage(format!("there are several LANs, name one of: {}", names.join(", ")))),
    };
    let mut one = status;
    one.lans.retain(|lan| lan.name == name);
    one.instances.retain(|_, instance| instance.lan == name);
    one.foreign.retain(|machine| machine.lan == name);
    let instances = &one.instances;
    one.connectivity.retain(|pair| instances.contains_key(&pair.to) || instances.contains_key(&pair.from));
    Answer::said(form, &one, true, || page(&one))
}

fn page(status: &LanStatus) -> String {
    let mut text = table(status);
    let _infallible = writeln!(text, "\n{:<14}{:<12}{:<16}{:<19}{:<6}NAMES", "INSTANCE", "NODE", "IP", "MAC", "LINK");
    for (id, instance) in &status.instances {
        let link = instance.link.as_deref().unwrap_or("-");
        let ip = instance.ip.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
        let names = instance.names.join(" ");
        let _infallible = writeln!(text, "{id:<14}{:<12}{ip:<16}{:<19}{link:<6}{names}", instance.node, instance.mac);
    }
    if !status.foreign.is_empty() {
        let _infallible = writeln!(
            text,
            "\n{:<26}{:<12}{:<16}{:<19}{:>9}{:>9}{:>9}{:>9}",
            "PLUGGED IN FROM", "NODE", "IP", "MAC", "SENT", "HEARD", "LOST", "REFUSED"
        );
    }
    for machine in &status.foreign {
        let ip = machine.ip.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
        let (mac, counters) = (machine.mac.as_deref().unwrap_or("-"), machine.counters);
        let refused: u64 = machine.refused.values().sum();
        let _infallible = writeln!(
            text,
            "{:<26}{:<12}{ip:<16}{mac:<19}{:>9}{:>9}{:>9}{refused:>9}",
            machine.remote, machine.node, counters.tx_frames, counters.rx_frames, counters.rx_dropped
        );
    }
    text
}

fn uninstall(run_dir: &std::path::Path, paths: &Paths) -> Result<Answer> {
    if paths.wall().try_exists().unwrap_or(false) {
        return Ok(Answer::Usage(
            "a wall runs on this machine; `loco down` ends it and removes everything of it".to_owned(),
        ));
    }
    let agent = Siblings::find()?.node_agent;
    let status = Command::new(&agent).arg("uninstall").arg("--run-dir").arg(run_dir).status();
    let status = status.with_context(|| format!("cannot run {}", agent.display()))?;
    if !status.success() {
        bail!("node-agent could not remove everything below {}; what it says above names the rest", run_dir.display());
    }
    Ok(Answer::Said { text: format!("nothing of an agent is left below {}", run_dir.display()), ok: true })
}

/// The wall's agents by node, and the token for them. `None`: nothing runs.
async fn wall(paths: &Paths) -> Result<Option<(api::status::Status, String)>> {
    let Some(report) = status::read(paths).await? else { return Ok(None) };
    let path = paths.agent_token();
    let token =
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}; root is needed", path.display()))?;
    Ok(Some((report.status, token.trim().to_owned())))
}
