//! The fabric as a station of the LAN: DHCP and ARP at each tap of this node, and the questions who is there.
//!
//! ```text
//!  guest ── tap ──┬── bridge ── …          each tap: answers DHCP and ARP for the edge address, hears the guest's address
//!                 └ copy -> tap's task     each bridge: asks every guest of the LAN by ARP, every 2 s
//! ```
//! **Invariants.** Tasks live on the fabric's thread and are keyed by link index: a link that vanishes ends its task, a new one
//! starts another. What is said is decided in `desk`.
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use model::{InstanceId, LanName, Vni};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    FabricSpec,
    desk::{Books, Desk, Round},
    dhcp::Reservation,
    observed::{Observed, OurName},
    packet::{FRAME_LEN_MAX, PacketSocket, SERVICES},
};

/// How often every guest is asked.
const QUESTION_INTERVAL: Duration = Duration::from_secs(2);
/// Pause after a socket error, such as a link that is down, before it is used again.
const ERROR_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Default)]
pub(crate) struct SharedBooks(Arc<Mutex<Books>>);

impl SharedBooks {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Books> {
        // Books are counters: a panic between two of them leaves nothing that could not be used.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running task and what it was started for; it is replaced when that differs.
#[derive(Debug)]
struct Station<T> {
    index: u32,
    duty: T,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
pub(crate) struct Edge {
    taps: BTreeMap<InstanceId, Station<Reservation>>,
    bridges: BTreeMap<Vni, Station<Round>>,
    books: SharedBooks,
}

impl Edge {
    pub(crate) fn books(&self) -> &SharedBooks {
        &self.books
    }

    /// Starts and ends tasks so that each tap and bridge of ours that exists has one. Returns problems.
    pub(crate) fn follow(&mut self, spec: &FabricSpec, observed: &Observed) -> Vec<String> {
        let mut problems = Vec::new();
        let mut taps = BTreeMap::new();
        let mut bridges = BTreeMap::new();
        for lan in spec.lans.values().filter(|lan| lan.has_bridge()) {
            for port in lan.ports.values() {
                let name = OurName::port(lan, port);
                let duty = Reservation::new(&lan.name, &port.identity, lan.edge_mac);
                let old = self.taps.remove(&port.instance);
                if old.as_ref().is_some_and(|old| old.duty != duty) {
                    // It has another place on a LAN: what it was seen to use was in the old one.
                    self.books.lock().leave(&port.instance);
                }
                // At a tap that is still in the LAN which its guest is to leave, no address of this one is given.
                let Some(link) = observed.our(name).filter(|link| link.is_in(lan)) else { continue };
                let old = old.filter(|old| old.index == link.index && old.duty == duty);
                let start = |socket| tap_task(socket, port.instance.clone(), duty.clone(), self.books.clone());
                match old.map_or_else(|| station(link.index, duty.clone(), start), Ok) {
                    Ok(station) => drop(taps.insert(port.instance.clone(), station)),
                    Err(error) => problems.push(socket_problem(&name.text(), "DHCP is not answered there", &error)),
                }
            }
            let name = OurName::Bridge(lan.vni);
            let Some(link) = observed.our(name) else { continue };
            let duty = Round::of(lan);
            let old = self.bridges.remove(&lan.vni).filter(|old| old.index == link.index && old.duty == duty);
            let start = |socket| bridge_task(socket, duty.clone(), self.books.clone());
            match old.map_or_else(|| station(link.index, duty.clone(), start), Ok) {
                Ok(station) => drop(bridges.insert(lan.vni, station)),
                Err(error) => problems.push(socket_problem(&name.text(), "reachability is not measured", &error)),
            }
        }
        // What is left of the old ones ends here.
        self.taps = taps;
        self.bridges = bridges;
        self.forget(spec, observed);
        problems.extend(self.books.lock().problems());
        problems
    }

    /// Drops the pages of guests that the directory no longer lists, and addresses of taps that nobody holds.
    fn forget(&self, spec: &FabricSpec, observed: &Observed) {
        let is_plugged = |instance: &InstanceId| {
            spec.port(instance)
                .and_then(|(lan, _, port)| observed.our(OurName::port(lan, port)))
                .is_some_and(|link| link.carrier)
        };
        let is_asked =
            |lan: &LanName, instance: &InstanceId| self.bridges.values().any(|bridge| bridge.duty.asks(lan, instance));
        self.books.lock().forget(is_plugged, is_asked);
    }
}

fn station<T>(index: u32, duty: T, task: impl FnOnce(PacketSocket) -> AbortOnDropHandle<()>) -> io::Result<Station<T>> {
    Ok(Station { index, duty, _task: task(PacketSocket::open(index, &SERVICES)?) })
}

fn socket_problem(link: &str, effect: &str, error: &io::Error) -> String {
    format!("could not listen at `{link}`, so {effect}: {error}; the agent needs CAP_NET_RAW")
}

/// One tap: answers, and hears.
fn tap_task(
    socket: PacketSocket,
    instance: InstanceId,
    seat: Reservation,
    books: SharedBooks,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut buffer = [0; FRAME_LEN_MAX];
        let mut desk = Desk::with(instance.clone(), seat, Instant::now());
        loop {
            let Ok(len) = socket.receive(&mut buffer).await else {
                sleep(ERROR_PAUSE).await;
                continue;
            };
            let reply = desk.hear(&buffer[..len], Instant::now(), &mut books.lock());
            if let Some(reply) = reply
                && let Err(error) = socket.send(&reply)
            {
                tracing::debug!(%instance, %error, "an answer to the guest was lost; it will ask again");
            }
        }
    }))
}

/// One bridge: asks all guests of the LAN and notes the answers.
fn bridge_task(socket: PacketSocket, round: Round, books: SharedBooks) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut buffer = [0; FRAME_LEN_MAX];
        let mut tick = interval(QUESTION_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => round.ask(Instant::now(), &mut books.lock(), |frame| socket.send(frame).is_ok()),
                received = socket.receive(&mut buffer) => match received {
                    Ok(len) => round.note(&buffer[..len], Instant::now(), SystemTime::now(), &mut books.lock()),
                    Err(_) => sleep(ERROR_PAUSE).await,
                },
            }
        }
    }))
}
