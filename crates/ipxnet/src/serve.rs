//! The effect: a UDP socket, a station of the LAN, and the clock, moved by one task.
//!
//! Nothing is queued here. Full is the kernel's socket buffer or the tap's queue: then the newest is dropped and counted, as
//! on any network.
use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
    sync::Arc,
    time::{Duration, Instant},
};

use fabric::{Fabric, Station};
use model::LanName;
use tokio::{
    net::UdpSocket,
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{debug, info, warn};

use crate::{Drop, Outlet, Relay, Report, Settings};

/// How often clients are looked after, a report is made, and a missing port is asked for.
const TICK: Duration = Duration::from_secs(1);
/// Pause after a socket error, before the socket is used again.
const ERROR_PAUSE: Duration = Duration::from_millis(200);
/// Room for more than the longest frame: what fills it was longer, and cannot be IPX.
const BUFFER_LEN: usize = 2048;

/// Where the relay's output goes, and how much of it the kernel did not take.
struct Kernel<'a> {
    socket: &'a UdpSocket,
    station: Option<&'a Station>,
    lost: &'a mut u64,
}

impl Outlet for Kernel<'_> {
    fn datagram(&mut self, to: SocketAddrV4, packet: &[u8]) {
        if let Err(error) = self.socket.try_send_to(packet, to.into()) {
            debug!(%to, %error, "a packet for an IPX client was lost");
            *self.lost = self.lost.saturating_add(1);
        }
    }

    fn frame(&mut self, frame: &[u8]) {
        // Without a port there is no LAN to lose anything of.
        if let Some(Err(error)) = self.station.map(|station| station.send(frame)) {
            debug!(%error, "a frame of an IPX client was lost");
            *self.lost = self.lost.saturating_add(1);
        }
    }
}

/// Relays between the clients of `socket` and `lan`, for ever. Without a port in the LAN, which it has once an instance of
/// the LAN has its seat on this node, the clients meet each other only.
///
/// `socket` must be an IPv4 one: a client's node is its IPv4 address.
pub async fn serve(
    socket: UdpSocket,
    fabric: Arc<Fabric>,
    lan: LanName,
    settings: Settings,
    reports: watch::Sender<Report>,
) -> std::convert::Infallible {
    let mut relay = Relay::new(settings, Instant::now());
    let mut port = Port { fabric, lan, station: None, problem: None };
    let mut lost = 0;
    let (mut datagram, mut frame) = ([0; BUFFER_LEN], [0; BUFFER_LEN]);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let input = tokio::select! {
            received = socket.recv_from(&mut datagram) => Input::Datagram(received),
            received = receive(port.station.as_ref(), &mut frame) => Input::Frame(received),
            _ = tick.tick() => Input::Tick,
        };
        let now = Instant::now();
        let mut out = Kernel { socket: &socket, station: port.station.as_ref(), lost: &mut lost };
        match input {
            Input::Datagram(Ok((len, SocketAddr::V4(from)))) => {
                relay.datagram(from, datagram.get(..len).unwrap_or(&datagram), now, &mut out);
            }
            Input::Datagram(Ok((_, SocketAddr::V6(_)))) => {}
            Input::Datagram(Err(error)) => {
                debug!(%error, "the socket of the IPX relay failed; it is used again");
                sleep(ERROR_PAUSE).await;
            }
            Input::Frame(Ok(len)) => relay.frame(frame.get(..len).unwrap_or(&frame), now, &mut out),
            Input::Frame(Err(error)) => port.unplug(&error),
            Input::Tick => {
                relay.tick(now, &mut out);
                port.plug().await;
                let mut report = relay.report(now);
                report.drops.add(Drop::Lost, lost);
                report.plugged = port.station.is_some();
                reports.send_replace(report);
            }
        }
    }
}

enum Input {
    Datagram(io::Result<(usize, SocketAddr)>),
    Frame(io::Result<usize>),
    Tick,
}

/// Never ends without a station.
async fn receive(station: Option<&Station>, buffer: &mut [u8]) -> io::Result<usize> {
    match station {
        Some(station) => station.receive(buffer).await,
        None => std::future::pending().await,
    }
}

/// The relay's port in the LAN, or why there is none.
struct Port {
    fabric: Arc<Fabric>,
    lan: LanName,
    station: Option<Station>,
    /// As it was last logged.
    problem: Option<String>,
}

impl Port {
    async fn plug(&mut self) {
        if self.station.is_some() {
            return;
        }
        match self.fabric.open_station(&self.lan).await {
            Ok(station) => {
                info!(lan = %self.lan, "the IPX relay has its port in the LAN");
                self.station = Some(station);
                self.problem = None;
            }
            Err(error) => {
                let problem = error.to_string();
                if self.problem.as_ref() != Some(&problem) {
                    warn!(lan = %self.lan, problem, "the IPX relay has no port in the LAN; its clients meet each other only");
                    self.problem = Some(problem);
                }
            }
        }
    }

    fn unplug(&mut self, error: &io::Error) {
        warn!(lan = %self.lan, %error, "the IPX relay lost its port in the LAN; it is opened again");
        self.station = None;
    }
}
