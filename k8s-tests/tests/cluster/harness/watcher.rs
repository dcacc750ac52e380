//! The wall as a person sees it: real Chromium on the page, told to watch its tiles (`k8s-tests/browser/watch.mjs`).
use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::{LONG, Wall, commands::root};

/// A browser that watches.
#[derive(Debug)]
pub(crate) struct Watcher {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

/// What it saw since it was ready.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Seen {
    pub(crate) seconds: f64,
    pub(crate) tiles: Vec<Tile>,
    /// What the page wrote to its console as errors.
    pub(crate) errors: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tile {
    pub(crate) instance: String,
    pub(crate) state: String,
    /// Frames presented.
    pub(crate) frames: u64,
    /// The longest time without a new frame, in milliseconds.
    pub(crate) longest_gap_ms: f64,
    /// Times that the tile's state left `live`.
    pub(crate) left_live: u32,
    /// The longest time that it was away from `live`, in milliseconds: from the page's noticing to the next picture.
    pub(crate) longest_away_ms: f64,
}

impl Watcher {
    /// Opens the page and waits until `tiles` of it are live.
    pub(crate) async fn start(wall: &Wall, tiles: usize) -> Result<Self> {
        let mut command = Command::new("node");
        command.current_dir(root()).arg("k8s-tests/browser/watch.mjs");
        command.args(["--url", &wall.url, "--tiles", &tiles.to_string()]);
        command.env("LOCO_TOKEN", &wall.token).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("node")?;
        let stdin = child.stdin.take().context("no pipe")?;
        let mut lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
        let first = timeout(LONG, lines.next_line()).await.context("the page did not become live")??;
        ensure!(first.as_deref() == Some("ready"), "the browser said {first:?}");
        Ok(Self { child, stdin, lines })
    }

    /// Ends the watch.
    pub(crate) async fn seen(mut self) -> Result<Seen> {
        self.stdin.write_all(b"stop\n").await?;
        let line =
            timeout(Duration::from_mins(1), self.lines.next_line()).await.context("no word from the browser")??;
        drop(self.stdin);
        self.child.wait().await?;
        let line = line.context("the browser ended without a word")?;
        let seen: Seen = serde_json::from_str(&line).with_context(|| format!("the browser said {line}"))?;
        for error in &seen.errors {
            eprintln!("the page's console: {error}");
        }
        let still: Vec<&str> = seen.tiles.iter().filter(|t| t.frames == 0).map(|t| t.instance.as_str()).collect();
        ensure!(still.is_empty(), "no picture came of {still:?} in {:.1} s", seen.seconds);
        Ok(seen)
    }
}
