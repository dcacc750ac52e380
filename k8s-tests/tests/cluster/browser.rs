//! The page in real Chromium, reached as who has `kubectl` reaches it: by a forwarded port of this machine, which browsers take
//! for a secure place. Pictures come by UDP from the nodes themselves.
use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::harness::{
    LANS_SEATS, LONG, SOON, Wall,
    commands::{kubectl, root},
    peers, scenario, until,
};

/// `kubectl port-forward` to the gateway, for as long as this lives.
struct Forwarded {
    _kubectl: Child,
    url: String,
}

impl Forwarded {
    async fn to_the_gateway(wall: &Wall) -> Result<Self> {
        let mut command = kubectl();
        command.args(["-n", &wall.namespace, "port-forward", "--address=127.0.0.1", "service/loco-gateway", ":8080"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("kubectl")?;
        let mut lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
        let line = timeout(SOON, lines.next_line()).await.context("no port was forwarded")??;
        let line = line.context("kubectl ended without a word")?;
        let address = line.strip_prefix("Forwarding from ").and_then(|rest| rest.split(' ').next());
        let address = address.with_context(|| format!("kubectl said {line}"))?;
        let url = format!("http://{address}/#token={}", wall.token);
        // It tells of each connection, and would stop at a pipe that is full.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { _kubectl: child, url })
    }

    /// Runs one of the page's own tests against it; an error has the checks that failed.
    async fn passes(&self, script: &str, arguments: &[&str]) -> Result<()> {
        let mut node = Command::new("node");
        node.current_dir(root().join("gateway/ui")).arg(format!("tests/{script}")).args(["--url", &self.url]);
        node.args(["--seats", &LANS_SEATS.to_string()]).args(arguments).kill_on_drop(true).stdin(Stdio::null());
        let output = node.output().await.context("node")?;
        let (told, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        eprintln!("{told}");
        ensure!(output.status.success(), "{script}: {}: {told}{complained}", output.status);
        Ok(())
    }
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn the_page_shows_nine_tiles_of_three_nodes_through_a_forwarded_port() {
    scenario("browser", async |wall| {
        // Tiles of theirs show no picture.
        peers::none(wall).await?;
        peers::remove(wall, "mover-8").await?;
        until(LONG, "a wall of guests alone", async || {
            let others = wall.instances().await?.into_iter().filter(|instance| instance.lan != "party").count();
            ensure!(others == 0, "{others} are on other LANs");
            Ok(())
        })
        .await?;
        let nodes: std::collections::BTreeSet<String> = wall.live().await?.into_iter().map(|live| live.node).collect();
        ensure!(nodes.len() == wall.places().await?.len(), "guests play on {nodes:?} only");
        let forwarded = Forwarded::to_the_gateway(wall).await?;
        let screenshot = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wall.png");
        let screenshot = screenshot.to_str().context("the build's folder has another name than text")?;
        forwarded.passes("browser.mjs", &["--screenshot", screenshot]).await?;
        eprintln!("what the page showed: {screenshot}");
        // And where UDP cannot get through it says in words what is missing.
        forwarded.passes("forwarded.mjs", &[]).await
    })
    .await;
}
