//! What a guest's broadcast costs where it is sent: the kernel copies it for each node of the LAN (head-end replication).
use std::{
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use seat::{FromAgent, FromRunner, Hello, PROTOCOL_VERSION, SeatSocket};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::LIMIT;

/// IEEE 802's for local experiments.
pub(crate) const ETHERTYPE: [u8; 2] = [0x88, 0xb6];
const FRAMES: usize = 500;
/// Well below what a guest may send, and what one core can receive for 250 nodes.
const PAUSE: Duration = Duration::from_millis(10);
/// A copy that has not come by then is lost.
const LOST_AFTER: Duration = Duration::from_millis(250);
/// `struct virtio_net_hdr`: precedes every frame of a guest's tap.
const VNET_HEADER_LEN: usize = 10;
const FRAME_LEN_MAX: usize = 2048;
/// Of seat 0 of LAN 0, as the guard wants it: 02:4c, the VNI, the seat's number.
const MAC: [u8; 6] = [0x02, 0x4c, 0x00, 0x10, 0x68, 0x01];

/// A seat that is taken in a guest's place; its port has carrier while this lives.
pub(crate) struct Seat {
    tap: OwnedFd,
    _socket: SeatSocket,
    // The socket is registered with it.
    _runtime: std::sync::Arc<Runtime>,
}

pub(crate) fn runtime() -> anyhow::Result<std::sync::Arc<Runtime>> {
    Ok(std::sync::Arc::new(tokio::runtime::Builder::new_current_thread().enable_all().build()?))
}

impl Seat {
    pub(crate) fn take(runtime: &std::sync::Arc<Runtime>, door: &Path, instance: &str) -> anyhow::Result<Self> {
        let (tap, socket) = runtime.block_on(sit(door, instance))?;
        nix::fcntl::fcntl(&tap, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        Ok(Self { tap, _socket: socket, _runtime: std::sync::Arc::clone(runtime) })
    }

    /// Broadcasts of the bench that have come to it since it was last asked.
    pub(crate) fn heard(&self) -> u64 {
        let mut buffer = [0; FRAME_LEN_MAX];
        let mut heard = 0;
        while let Ok(len) = nix::unistd::read(&self.tap, &mut buffer) {
            let ethertype = buffer[..len].get(VNET_HEADER_LEN + 12..VNET_HEADER_LEN + 14);
            heard += u64::from(ethertype == Some(&ETHERTYPE));
        }
        heard
    }
}

/// Sits down at the seat of `instance`; its tap, and the connection that must stay open meanwhile.
async fn sit(door: &Path, instance: &str) -> anyhow::Result<(OwnedFd, SeatSocket)> {
    let begin = Instant::now();
    loop {
        if let Ok(socket) = SeatSocket::connect(door) {
            let hello = Hello {
                version: PROTOCOL_VERSION,
                instance: instance.to_owned(),
                runner_pid: std::process::id(),
                has_port: false,
                health_url: None,
                ports: Vec::new(),
            };
            socket.say(&FromRunner::Hello(hello)).await?;
            if let Ok((FromAgent::Welcome(_), fds)) = socket.receive().await {
                return Ok((fds.into_iter().next().context("a tap comes with the welcome")?, socket));
            }
        }
        if begin.elapsed() > LIMIT {
            bail!("no seat at {}", door.display());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Microseconds for each call that hands a frame of seat 0 to the kernel, in which all copies are made, and until the last of `copies` has
/// come. The other nodes are in the same kernel, so their receiving is part of the call. `heard`: copies so far, by all others together.
pub(crate) fn measure(from: &Seat, copies: usize, mut heard: impl FnMut() -> u64) -> anyhow::Result<Value> {
    let mut frame = vec![0; VNET_HEADER_LEN];
    frame.extend([[0xff; 6], MAC].concat());
    frame.extend(ETHERTYPE);
    frame.resize(VNET_HEADER_LEN + 60, 0);
    let copies = u64::try_from(copies)?;
    // The carrier of a tap reaches its bridge some time after it was opened: until one broadcast has come to all.
    let begin = Instant::now();
    loop {
        let before = heard();
        nix::unistd::write(&from.tap, &frame)?;
        std::thread::sleep(PAUSE * 10);
        if heard() - before >= copies {
            break;
        }
        anyhow::ensure!(begin.elapsed() < LIMIT, "no broadcast gets to all {copies}");
    }
    std::thread::sleep(PAUSE * 20);
    let first = heard();
    let (mut calls, mut arrivals) = (Vec::with_capacity(FRAMES), Vec::with_capacity(FRAMES));
    for _ in 0..FRAMES {
        let before = heard();
        let start = Instant::now();
        nix::unistd::write(&from.tap, &frame)?;
        calls.push(start.elapsed().as_secs_f64() * 1e6);
        while heard() - before < copies && start.elapsed() < LOST_AFTER {}
        arrivals.push(start.elapsed().as_secs_f64() * 1e6);
        std::thread::sleep(PAUSE);
    }
    std::thread::sleep(PAUSE * 20);
    calls.sort_by(f64::total_cmp);
    arrivals.sort_by(f64::total_cmp);
    Ok(json!({"frames": FRAMES, "copies": FRAMES as u64 * copies, "arrived": heard() - first,
              "p50_us": calls[FRAMES / 2], "p99_us": calls[FRAMES * 99 / 100],
              "all_p50_us": arrivals[FRAMES / 2], "all_p99_us": arrivals[FRAMES * 99 / 100]}))
}
