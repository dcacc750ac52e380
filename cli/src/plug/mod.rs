//! `loco plug`: a machine outside of the cluster, on one of its LANs.
//!
//! ```text
//!  QEMU ── TCP on this machine, 4 octets of length and a frame ──┐
//!                                                                ├─ here ══ WebSocket, with the token ══ agent (or gateway) ── LAN
//!  86Box, Bochs, … ── VDE switch ── vde_plug, 2 octets ─────────┘
//! ```
//! **Invariants.** The token stays here: the machine knows nothing of it. Who can connect to the listener is on the LAN, so it listens
//! on this machine's own addresses only, and takes one machine at a time. What ends on the way to the cluster is tried again for as
//! long as the machine is there; what would be refused again is not.
mod link;
mod local;
#[cfg(test)]
mod tests;

use std::{fmt::Write as _, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use model::LanName;
use rand::{TryRngCore as _, rngs::OsRng};

use self::{
    link::{End, Link, Server},
    local::Local,
};
use crate::{backoff::Backoff, paths::Paths, plan::Wall, print, secrets, state, tell};

/// Longer than a busy machine takes to read that a stream has ended.
const WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct PlugFlags {
    /// The LAN; it must have the mode `socket`
    #[arg(long, value_name = "NAME")]
    lan: LanName,
    /// The gateway, such as <https://loco.example.org>; that of the wall on this machine when left out
    #[arg(long, value_name = "URL", conflicts_with = "agent")]
    gateway: Option<String>,
    /// Past the gateway, straight to the agent of a node with a seat in the LAN, such as <http://10.0.0.5:14780>
    #[arg(long, value_name = "URL")]
    agent: Option<String>,
    /// File with the token: one that may play, for the gateway; the agents' own, for an agent
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Where QEMU is to connect; an address of this machine alone, as nobody is asked for a token there
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:14798")]
    listen: SocketAddr,
    /// Instead: a VDE switch's directory, for 86Box, Bochs and others that speak VDE; needs `vde_plug` of vde2
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    vde: Option<PathBuf>,
}

impl PlugFlags {
    /// # Errors
    /// What cannot be meant.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.listen.ip().is_loopback(),
            "--listen {} could be reached from other machines, and whoever connects is on the LAN; use 127.0.0.1, and run `loco plug` where \
             the machine runs",
            self.listen
        );
        if self.gateway.is_some() || self.agent.is_some() {
            ensure!(self.token.is_some(), "--token FILE is missing: the token for {}", self.url());
        }
        Ok(())
    }

    fn url(&self) -> &str {
        self.gateway.as_deref().or(self.agent.as_deref()).unwrap_or("the wall on this machine")
    }

    /// `None`: no URL was given, and nothing runs here.
    fn server(&self, paths: &Paths, machine: &str) -> Result<Option<Server>> {
        let token = |file: &PathBuf| {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            Ok::<_, anyhow::Error>(text.trim().to_owned())
        };
        let (base, token, api) = match (&self.gateway, &self.agent, &self.token) {
            (Some(url), _, Some(file)) => (url.clone(), token(file)?, "api"),
            (_, Some(url), Some(file)) => (url.clone(), token(file)?, "v1"),
            (given, straight, file) => {
                if given.is_some() || straight.is_some() {
                    bail!("--token FILE is missing");
                }
                if !paths.wall().try_exists().with_context(|| format!("cannot look at {}", paths.wall().display()))? {
                    return Ok(None);
                }
                let wall: Wall = state::read_json(&paths.wall())?;
                (wall.base_url(), file.as_ref().map_or_else(|| secrets::read(paths), token)?, "api")
            }
        };
        Server::new(&base, api, self.lan.as_str(), machine, &token).map(Some)
    }
}

/// Runs until Ctrl-C, or until something cannot be helped by waiting. `false`: nothing runs here.
pub(crate) async fn run(flags: &PlugFlags, paths: &Paths) -> Result<bool> {
    let mut octets = [0; 8];
    OsRng.try_fill_bytes(&mut octets).context("the system gives no random bytes")?;
    let mut machine = String::new();
    octets.iter().try_for_each(|octet| write!(machine, "{octet:02x}"))?;
    let Some(server) = flags.server(paths, &machine)? else { return Ok(false) };
    let mut local = match &flags.vde {
        Some(path) => Local::vde(path.clone()),
        None => Local::listen(flags.listen, WAIT).await?,
    };
    // A wrong token or LAN is told now, and not when the machine comes.
    let plugged = server.connect().await?.plugged;
    tell(&format!("loco: LAN {} at node {} has a port for this machine", plugged.lan, plugged.node));
    if let Some(address) = local.address() {
        print(&qemu(address, octets));
    }
    tokio::select! {
        outcome = carry_all(&server, &mut local) => outcome.map(|()| true),
        stopped = tokio::signal::ctrl_c() => stopped.context("cannot listen for Ctrl-C").map(|()| true),
    }
}

/// The part of QEMU's command line that plugs it in. Two machines with QEMU's usual card could not be on one LAN.
fn qemu(address: SocketAddr, [a, b, c, ..]: [u8; 8]) -> String {
    let (host, port) = (address.ip(), address.port());
    format!(
        "-netdev stream,id=loco,server=off,addr.type=inet,addr.host={host},addr.port={port} \
         -device pcnet,netdev=loco,mac=52:54:00:{a:02x}:{b:02x}:{c:02x}"
    )
}

/// One machine after the other.
async fn carry_all(server: &Server, local: &mut Local) -> Result<()> {
    loop {
        let mut machine = local.next().await?;
        tell("loco: the machine is there");
        let mut backoff = Backoff::default();
        loop {
            let start = tokio::time::Instant::now();
            let end = match server.connect().await {
                Ok(link) => {
                    tell(&format!("loco: plugged into LAN {} at node {}", link.plugged.lan, link.plugged.node));
                    carry(link, local, &mut machine).await
                }
                Err(error) if link::is_final(&error) => return Err(error),
                Err(error) => End::Again(format!("{error:#}")),
            };
            match end {
                End::Machine(why) => {
                    tell(&format!("loco: {why}"));
                    break;
                }
                End::Final(why) => bail!(why),
                End::Again(why) => {
                    let pause = backoff.after(start.elapsed());
                    tell(&format!("loco: {why}; trying again in {} ms", pause.as_millis()));
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

async fn carry(link: Link, local: &mut Local, machine: &mut local::Machine) -> End {
    tokio::select! {
        end = link.carry(machine) => end,
        never = local.refuse_others() => match never {},
    }
}
