//! What a guest's broadcast costs where it is sent: the kernel copies it for each node of the LAN (head-end replication).
use std::{
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use seat::{FromAgent, FromRunner, Hello, PROTOCOL_VERSION, SeatSocket};
use serde_json::{Value, json};

use crate::{
    LIMIT,
    directory::Case,
    world::{ETHERTYPE, World},
};

const FRAMES: usize = 500;
/// Well below what a guest may send, and what one core can receive for 250 nodes.
const PAUSE: Duration = Duration::from_millis(10);
/// `struct virtio_net_hdr`: precedes every frame of a guest's tap.
const VNET_HEADER_LEN: usize = 10;
/// Of seat 0 of LAN 0, as the guard wants it: 02:4c, the VNI, the seat's number.
const MAC: [u8; 6] = [0x02, 0x4c, 0x00, 0x10, 0x68, 0x01];

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

/// Microseconds for each call that hands a frame to the kernel: all copies are made within it. The other nodes are in the same
/// kernel, so their receiving is part of it.
pub(crate) fn measure(world: &World, door: &Path, instance: &str, case: &Case) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (tap, _seat) = runtime.block_on(sit(door, instance))?;
    let mut frame = vec![0; VNET_HEADER_LEN];
    frame.extend([[0xff; 6], MAC].concat());
    frame.extend(ETHERTYPE);
    frame.resize(VNET_HEADER_LEN + 60, 0);
    // The tap's carrier reaches the bridge some time after it was opened.
    let begin = Instant::now();
    while world.heard() == 0 {
        anyhow::ensure!(begin.elapsed() < LIMIT, "no broadcast gets out");
        nix::unistd::write(&tap, &frame)?;
        std::thread::sleep(PAUSE);
    }
    std::thread::sleep(PAUSE * 20);
    let before = world.heard();
    let mut micros = Vec::with_capacity(FRAMES);
    for _ in 0..FRAMES {
        let start = Instant::now();
        nix::unistd::write(&tap, &frame)?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
        std::thread::sleep(PAUSE);
    }
    std::thread::sleep(PAUSE * 20);
    micros.sort_by(f64::total_cmp);
    let copies = FRAMES * case.peers;
    Ok(json!({"frames": FRAMES, "copies": copies, "arrived": world.heard() - before,
              "p50_us": micros[FRAMES / 2], "p99_us": micros[FRAMES * 99 / 100]}))
}
