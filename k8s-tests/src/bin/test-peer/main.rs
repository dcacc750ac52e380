//! A machine on the LAN that counts: in guest-runner's place, with a seat's tap and without QEMU.
//!
//! It takes the seat through the seat socket, asks DHCP for its address, answers ARP, sends numbered frames as it is
//! told, and reports what came. It holds its tap while agents come and go, as QEMU does.
//!
//! # Environment
//!
//! | variable | meaning |
//! |---|---|
//! | `LOCO_INSTANCE` | name of the pod; as for guest-runner |
//! | `LOCO_AGENT_SOCKET` | `/run/loco-seat/agent.sock`; as for guest-runner |
//! | `LOCO_LISTEN` | `0.0.0.0:14790` (default): `/report`, `/reset`, `/flows`, `/healthz`, `/readyz`, `/startupz`; `off` = no HTTP |
//! | `PEER_EXCHANGE` | N: one-shot mode. Exchange N frames of each kind with the other seats, print what was counted, end with 0 (nothing lost) or 1 |
//! | `PEER_SEATS` | one-shot: the seats that take part, `0,1` (default); its own must be among them |
//! | `PEER_DEADLINE` | one-shot: seconds after which it gives up, from its start; 90 |
//! | `PEER_DHCP` | `0` = asks for no lease (default 1) |
//!
//! In one-shot mode the seat is not told: the agent says it at the welcome. A Job with `completionMode: Indexed`,
//! `completions: 2`, `parallelism: 2`, the label `loco.dev/lan` and `app.kubernetes.io/component: instance` on its pods
//! and one `loco.dev/seat` each sits on seats 0 and 1 of that LAN, so that LAN should have no guests of its own.
//! The container needs no capability, no root, no writable file system.
mod dhcp;
mod exchange;
mod frames;
mod http;
mod ledger;
mod link;
mod peer;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::peer::Peer;

#[derive(Debug, Parser)]
#[command(version, about = "Sits on a seat of the LAN and counts numbered frames")]
struct Args {
    #[arg(long, env = "LOCO_INSTANCE")]
    instance: String,
    #[arg(long, env = "LOCO_AGENT_SOCKET", default_value = "/run/loco-seat/agent.sock")]
    agent_socket: PathBuf,
    /// Address of its HTTP, or `off`
    #[arg(long, env = "LOCO_LISTEN", default_value = "0.0.0.0:14790")]
    listen: String,
    /// Frames of each kind to exchange, then end
    #[arg(long, env = "PEER_EXCHANGE")]
    exchange: Option<u32>,
    #[arg(long, env = "PEER_SEATS", default_value = "0,1", value_delimiter = ',')]
    seats: Vec<u8>,
    /// Seconds
    #[arg(long, env = "PEER_DEADLINE", default_value_t = 90)]
    deadline: u64,
    #[arg(long, env = "PEER_DHCP", default_value_t = 1)]
    dhcp: u8,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    // As process 1 of a container it would ignore the signal otherwise.
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let peer = Arc::new(Peer::new(args.instance.clone()));
    tokio::spawn(link::keep(Arc::clone(&peer), args.agent_socket.clone(), args.dhcp != 0));
    if args.listen != "off" {
        let address: SocketAddr = args.listen.parse().context("LOCO_LISTEN is IP:PORT, or off")?;
        let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
        tokio::spawn(axum::serve(listener, http::router(Arc::clone(&peer))).into_future());
    }
    let work = async {
        match args.exchange {
            None => std::future::pending().await,
            Some(frames) => {
                let limit = Duration::from_secs(args.deadline);
                exchange::run(&peer, &exchange::Plan { frames, seats: args.seats.clone(), limit }).await
            }
        }
    };
    tokio::select! {
        passed = work => Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        _ = terminated.recv() => Ok(ExitCode::SUCCESS),
    }
}
