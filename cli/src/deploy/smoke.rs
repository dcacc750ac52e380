//! The page, as a person reaches it: through a forwarded port, with a token.
use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use api::{gateway::LiveInstances, lan::LanStatus};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::Instant,
};

use super::plan::Cmd;

/// For one answer of the gateway.
const ANSWER: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// For guests to send their first frame. A guest without a driver for its card never does, and is no failure here.
const HEARD_WITHIN: Duration = Duration::from_secs(15);

/// Waits until the page is served and `expected` guests are live, and says so.
pub(super) async fn smoke(forward: &Cmd, users: &str, expected: usize, patience: Duration) -> Result<String> {
    let token = token(users).context("the Secret has no line `admin TOKEN`, `play TOKEN` or `view TOKEN`")?;
    let (program, args) = forward.words.split_first().context("an empty command")?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let mut lines = BufReader::new(child.stdout.take().context("its output is piped")?).lines();
    let port = tokio::time::timeout(forward.limit, async {
        while let Some(line) = lines.next_line().await? {
            if let Some(port) = forwarded(&line) {
                return Ok(port);
            }
        }
        bail!("`{}` has ended without a port", forward.line())
    });
    let port = port.await.map_err(|_| anyhow!("`{}` names no port", forward.line()))??;
    let outcome = wait(&format!("http://127.0.0.1:{port}"), token, expected, patience).await;
    child.kill().await.ok();
    outcome
}

async fn wait(base: &str, token: &str, expected: usize, patience: Duration) -> Result<String> {
    let client = reqwest::Client::builder().timeout(ANSWER).no_proxy().build()?;
    let page = client.get(base).send().await.context("the page does not answer")?.error_for_status()?;
    let page = page.text().await.context("the page breaks off")?;
    ensure!(page.contains("<script"), "the gateway serves no page, but: {page:.80}");
    let end = Instant::now() + patience;
    loop {
        let live = live(&client, base, token).await;
        let (seen, why) = match &live {
            Ok(live) => (live.instances.len(), verdict(live, expected)),
            Err(error) => (0, Err(format!("{error:#}"))),
        };
        match why {
            Ok(()) => {
                // A picture may be that of a machine which found nothing to start.
                let heard = heard(&client, base, token, seen).await;
                return Ok(heard.map_or(format!("{seen} live"), |n| format!("{seen} live, {n} heard on the LAN")));
            }
            Err(why) if Instant::now() >= end => bail!("{why}, after {} s", patience.as_secs()),
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

async fn live(client: &reqwest::Client, base: &str, token: &str) -> Result<LiveInstances> {
    let answer = client.get(format!("{base}/api/instances/live")).bearer_auth(token).send().await;
    let answer = answer.context("the gateway does not answer")?.error_for_status()?;
    answer.json().await.context("the gateway's list cannot be read")
}

/// How many guests have sent a frame; asked again until all have, or for a while. `None`: the gateway does not tell.
async fn heard(client: &reqwest::Client, base: &str, token: &str, all: usize) -> Option<usize> {
    let end = Instant::now() + HEARD_WITHIN;
    loop {
        let answer = client.get(format!("{base}/api/lan-status")).bearer_auth(token).send().await.ok()?;
        let status: LanStatus = answer.error_for_status().ok()?.json().await.ok()?;
        let heard = status.instances.values().filter(|guest| guest.counters.is_some_and(|is| is.tx_frames > 0)).count();
        if heard >= all || Instant::now() >= end {
            return Some(heard);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn verdict(live: &LiveInstances, expected: usize) -> Result<(), String> {
    let mut not_live: Vec<String> = Vec::new();
    for instance in &live.instances {
        // What an agent said long ago is no picture.
        if instance.state != api::agent::State::Live || instance.agent_silent_for.is_some() {
            not_live.push(format!("{} is {}", instance.id, crate::status::word(instance.state)));
        }
    }
    if live.instances.len() < expected {
        return Err(format!("the gateway knows of {} of {expected} guests", live.instances.len()));
    }
    if not_live.is_empty() { Ok(()) } else { Err(not_live.join(", ")) }
}

/// `Forwarding from 127.0.0.1:40123 -> 8080`
fn forwarded(line: &str) -> Option<u16> {
    line.strip_prefix("Forwarding from 127.0.0.1:")?.split(' ').next()?.parse().ok()
}

/// One of the tokens, lines `ROLE TOKEN`: any role may see.
fn token(users: &str) -> Option<&str> {
    users.lines().find_map(|line| match line.split_once(' ') {
        Some(("admin" | "play" | "view", token)) if !token.trim().is_empty() => Some(token.trim()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubectl_and_the_secret_say() {
        assert_eq!(forwarded("Forwarding from 127.0.0.1:40123 -> 8080"), Some(40123));
        assert_eq!(forwarded("Forwarding from [::1]:40123 -> 8080"), None);
        assert_eq!(token("# people\nadmin abc\nview def\n"), Some("abc"));
        assert_eq!(token("guest abc\nadmin \n"), None);
    }

    #[test]
    fn only_what_is_live_now_counts() {
        let instance = |id: &str, state: &str, silent: Option<f64>| {
            serde_json::json!({ "id": id, "name": id, "lan": "party", "seat": 0, "node": "n1", "mac": "m", "ip": "i",
                "state": state, "agent_silent_for": silent })
        };
        let live = |instances: Vec<serde_json::Value>| -> LiveInstances {
            let stats = serde_json::json!({ "total": 0, "ready": 0, "degraded": 0, "notReady": 0 });
            serde_json::from_value(serde_json::json!({ "mode": "kubernetes", "stats": stats, "instances": instances }))
                .unwrap()
        };
        assert_eq!(verdict(&live(vec![instance("a", "live", None)]), 1), Ok(()));
        let error = verdict(&live(vec![instance("a", "live", None)]), 2).unwrap_err();
        assert_eq!(error, "the gateway knows of 1 of 2 guests");
        assert_eq!(verdict(&live(vec![instance("a", "starting", None)]), 1).unwrap_err(), "a is starting");
        assert!(verdict(&live(vec![instance("a", "live", Some(4.0))]), 1).is_err());
    }
}
