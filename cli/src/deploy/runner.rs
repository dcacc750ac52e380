//! Runs a plan: step after step, and no further than the first that fails.
use std::{
    fs::File,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::{process::Command, time::Instant};

use super::{
    judge::{self, judge},
    plan::{Act, Cmd, Probe, Step},
    smoke,
};

/// Between two looks at something that is not there yet.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Lines of a failed command's output that are shown.
const LAST_WORDS: usize = 12;

/// What a step has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was so before.
    Already(String),
    Done(String),
}

/// Runs all steps. `tell` gets a line before and after each. The error names step and remedy.
pub(crate) async fn run(steps: &[Step], tell: &dyn Fn(&str)) -> Result<()> {
    let width = steps.len().to_string().len();
    for (number, step) in steps.iter().enumerate() {
        let head = format!("[{:width$}/{}] {}", number + 1, steps.len(), step.says);
        let started = Instant::now();
        match one(step).await {
            Ok(Outcome::Already(note)) => tell(&format!("{head}: already{}", bracketed(&note))),
            Ok(Outcome::Done(note)) => {
                tell(&format!("{head}: done{}, {:.1} s", bracketed(&note), started.elapsed().as_secs_f64()));
            }
            Err(error) => bail!(
                "{head}: {error:#}\n  remedy: {}\n  then run the same command again: what is done stays done",
                step.remedy
            ),
        }
    }
    Ok(())
}

fn bracketed(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!(" ({note})") }
}

async fn one(step: &Step) -> Result<Outcome> {
    if let Some(done) = &step.done
        && let Ok(note) = look(done).await
    {
        return Ok(Outcome::Already(note));
    }
    let mut note = match &step.act {
        Act::Nothing => String::new(),
        Act::Run(cmd) => answer(cmd).await.map(|_| String::new())?,
        Act::Unstick { list, kubectl } => unstick(list, kubectl).await?,
        Act::Smoke { forward, users, expected, patience } => {
            let users = answer(users).await.context("the tokens cannot be read")?;
            let replicas = answer(expected).await?;
            let expected = replicas.split_whitespace().map(str::parse::<usize>).sum::<Result<usize, _>>();
            let expected = expected.with_context(|| format!("numbers of guests: {replicas:?}"))?;
            smoke::smoke(forward, &users, expected, Duration::from_secs(*patience)).await?
        }
    };
    if let Some(check) = &step.check {
        let is = look(check).await?;
        if note.is_empty() {
            note = is;
        }
    }
    Ok(Outcome::Done(note))
}

/// Asks until the answer is right, or patience ends; then says what was wrong with the last one.
async fn look(probe: &Probe) -> Result<String> {
    let end = Instant::now() + Duration::from_secs(probe.patience);
    loop {
        let seen = match answer(&probe.cmd).await {
            Ok(output) => judge(&probe.expect, &output).map_err(|why| anyhow!("{why} (by `{}`)", probe.cmd.line())),
            Err(error) => Err(error),
        };
        match seen {
            Ok(note) => return Ok(note),
            Err(error) if Instant::now() >= end => return Err(error),
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

async fn unstick(list: &Cmd, kubectl: &[String]) -> Result<String> {
    let pods = judge::stuck(&answer(list).await?).map_err(|why| anyhow!(why))?;
    if pods.is_empty() {
        return Ok(String::new());
    }
    let words = kubectl.iter().cloned().chain(["delete", "pod", "--wait=false"].map(str::to_owned));
    answer(&Cmd::new(words.chain(pods.iter().cloned()))).await?;
    Ok(format!("deleted {}", pods.join(", ")))
}

/// Standard output of a command that succeeds.
pub(crate) async fn answer(cmd: &Cmd) -> Result<String> {
    let (status, out, err) = output(cmd, Stdio::piped()).await?;
    ensure!(status.success(), "`{}` failed ({status}){}", cmd.line(), last_words(&err, &out));
    Ok(out)
}

/// The same, with what it tells shown while it runs.
pub(crate) async fn answer_aloud(cmd: &Cmd) -> Result<String> {
    let (status, out, _) = output(cmd, Stdio::inherit()).await?;
    ensure!(status.success(), "`{}` failed ({status}), see above", cmd.line());
    Ok(out)
}

fn last_words(err: &str, out: &str) -> String {
    let text = if err.trim().is_empty() { out } else { err };
    let lines: Vec<&str> = text.trim().lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_WORDS)..];
    [&[""], last].concat().join("\n    ")
}

async fn output(cmd: &Cmd, stderr: Stdio) -> Result<(ExitStatus, String, String)> {
    let (program, args) = cmd.words.split_first().context("an empty command")?;
    let stdin = match &cmd.stdin {
        Some(path) => File::open(path).with_context(|| format!("{}", path.display()))?.into(),
        None => Stdio::null(),
    };
    let mut command = Command::new(program);
    command.args(args).stdin(stdin).stdout(Stdio::piped()).stderr(stderr).kill_on_drop(true);
    let child = command.spawn().with_context(|| format!("cannot run {program}; is it installed?"))?;
    let output = tokio::time::timeout(cmd.limit, child.wait_with_output())
        .await
        .map_err(|_| anyhow!("`{}` has not ended within {} s", cmd.line(), cmd.limit.as_secs()))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status, text(&output.stdout), text(&output.stderr)))
}
