//! The task that owns an instance's state: it welcomes the runner, takes over what the runner hands it, and says what it sees.
//!
//! **Invariants.** At most one seat connection, one display, one audio connection. The connection in hand is always read before a new
//! runner is judged, so one that died is known to be dead by then. Whatever breaks is asked for again over the seat connection, or
//! by ending that connection: the runner connects anew and hands everything over once more.
use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, SystemTime},
};

use model::{InstanceId, InstanceState, NetworkMode};
use seat::{FromAgent, FromRunner, Hello, Order, Port, PortKind, SeatSocket, SocketError, Storage, Welcome};
use stream::{AudioTap, InstanceStream, Screen, audio::AudioConnection, display::DisplayConnection};
use switch::SwitchError;
use telemetry::chain;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{self, Instant, MissedTickBehavior},
};
use tracing::{info, warn};

use super::{
    Report, Shared,
    greet::{self, Candidate, Refusal},
    monitors::{self, What, Wish},
    orders::{OrderRequest, Pending},
    releases::Guest,
    state::{End, Fact, Facts},
};
use crate::{desired::SeatSpec, doors::DoorState};

/// The actor's own pulse.
const TICK: Duration = Duration::from_millis(250);
/// How late the pulse may be: the longest wait in here is for QEMU's greeting and for a tap, 5 s each.
const PULSE_LIMIT: Duration = Duration::from_secs(30);
/// How often a first picture is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// The fabric opens a tap in milliseconds; it makes a pass first if the tap is missing.
const TAP_LIMIT: Duration = Duration::from_secs(5);
/// The switch takes a cable between two frames.
const PLUG_LIMIT: Duration = Duration::from_secs(5);
/// A runner takes a message at once: the socket's buffer holds hundreds.
const SAY_LIMIT: Duration = Duration::from_secs(1);
/// How long a runner whose QEMU closed its monitor may take to say that QEMU ended.
const END_LIMIT: Duration = Duration::from_secs(2);
/// Pause between two requests for a new handshake of display or audio.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What an actor is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) id: InstanceId,
    pub(super) spec: SeatSpec,
    pub(super) shared: Shared,
    pub(super) screen: Arc<Screen>,
    pub(super) audio: Arc<AudioTap>,
    pub(super) stream: Arc<InstanceStream>,
    pub(super) control: watch::Sender<Arc<Wish>>,
    pub(super) poke: watch::Sender<Arc<Wish>>,
}

/// What reaches an actor.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) reports: mpsc::Receiver<monitors::Report>,
    pub(super) orders: mpsc::Receiver<OrderRequest>,
    /// Runners that came in and said Hello.
    pub(super) candidates: mpsc::Receiver<Candidate>,
    /// How the door stands, if the instance has one of its own.
    pub(super) door: Option<watch::Receiver<Option<DoorState>>>,
}

pub(super) struct Actor {
    parts: Parts,
    report: watch::Sender<Report>,
    facts: Facts,
    seat: Option<SeatSocket>,
    display: Option<DisplayConnection>,
    audio: Option<AudioConnection>,
    /// Which QEMU the seat leads to.
    guest: Guest,
    /// Number of the newest pair of monitors; reports on older ones are stale.
    epoch: u64,
    /// Which of the two monitors of this epoch are up: control, poke.
    up: u8,
    /// When to end the seat connection because QEMU's monitor closed and nobody said why.
    drop_at: Option<Instant>,
    ask_display_at: Option<Instant>,
    ask_audio_at: Option<Instant>,
    orders: Pending,
    generation: u64,
}

impl Actor {
    pub(super) fn new(parts: Parts) -> (Self, watch::Receiver<Report>) {
        let facts = Facts::default();
        let (report, watch) = watch::channel(Report {
            state: facts.state(),
            since: SystemTime::now(),
            detail: facts.detail(),
            accelerator: None,
            netdev: None,
            qemu_pid: None,
            qemu_since: None,
            runner_pid: None,
            picture_base: parts.screen.generation(),
            picture_changed: None,
            notice: None,
        });
        let generation = parts.screen.generation();
        parts.shared.metrics.set_state(parts.id.as_str(), facts.state());
        let actor = Self {
            parts,
            report,
            facts,
            seat: None,
            display: None,
            audio: None,
            guest: Guest::default(),
            epoch: 0,
            up: 0,
            drop_at: None,
            ask_display_at: None,
            ask_audio_at: None,
            orders: Pending::default(),
            generation,
        };
        (actor, watch)
    }

    /// Runs until it is aborted.
    pub(super) async fn run(mut self, inbox: Inbox) {
        let Inbox { mut reports, mut orders, mut candidates, mut door } = inbox;
        let heartbeat = self.parts.shared.health.heartbeat(format!("instance {}", self.parts.id), PULSE_LIMIT);
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let look = self.display.is_some() && self.facts.state() != InstanceState::Live;
            tokio::select! { biased;
                message = receive(self.seat.as_ref()) => match message {
                    Ok((message, fds)) => self.hear(message, fds).await,
                    Err(error) => self.seat_ended(&error),
                },
                Some(report) = reports.recv() => self.monitor(report),
                () = display_closed(self.display.as_ref()) => {
                    info!(instance = %self.parts.id, "display connection ended");
                    self.display = None;
                    self.ask_display_at = Some(Instant::now());
                    self.learn(Fact::DisplayLost);
                }
                () = audio_closed(self.audio.as_ref()) => {
                    self.audio = None;
                    self.ask_audio_at = Some(Instant::now() + ASK_AGAIN);
                }
                Some(candidate) = candidates.recv() => self.greet(candidate).await,
                state = door_news(&mut door) => match state {
                    DoorState::Open => self.learn(Fact::SocketUp),
                    DoorState::Shut(reason) => self.learn(Fact::RunnerRefused(reason)),
                },
                Some(OrderRequest { order, reply }) = orders.recv() => self.order(order, reply).await,
                _ = tick.tick() => {
                    // An instance whose tasks for QMP broke can take no input: that is no turn of its loop.
                    if !self.parts.control.is_closed() && !self.parts.poke.is_closed() {
                        heartbeat.tick();
                    }
                    self.look_after().await;
                }
                () = time::sleep(LOOK), if look => self.look(),
            }
        }
    }

    /// Takes a fact in and says what follows from it.
    fn learn(&mut self, fact: Fact) {
        self.facts.learn(fact);
        let (state, detail) = (self.facts.state(), self.facts.detail());
        let before = self.report.borrow().state;
        let changed = self.report.send_if_modified(|report| {
            if report.state == state && report.detail == detail {
                return false;
            }
            if report.state != state {
                report.state = state;
                report.since = SystemTime::now();
            }
            report.detail.clone_from(&detail);
            true
        });
        if before != state {
            info!(instance = %self.parts.id, from = %before, to = %state, detail = detail.as_deref(), "state");
            self.parts.shared.metrics.set_state(self.parts.id.as_str(), state);
            self.parts.stream.set_state(state);
        }
        if changed {
            self.parts.shared.announce();
        }
    }

    fn note(&self, change: impl FnOnce(&mut Report)) {
        self.report.send_modify(change);
        self.parts.shared.announce();
    }

    async fn hear(&mut self, message: FromRunner, fds: Vec<OwnedFd>) {
        match message {
            FromRunner::Hello(_) => {
                warn!(instance = %self.parts.id, "the runner said Hello twice");
                self.drop_seat("its runner said Hello twice");
            }
            FromRunner::Started(started) => {
                info!(instance = %self.parts.id, qemu_pid = started.qemu_pid, accelerator = started.accelerator, "QEMU runs");
                self.guest.started(started.qemu_pid);
                let since = self.guest.is_new().then(SystemTime::now);
                self.note(|report| {
                    report.qemu_pid = Some(started.qemu_pid);
                    report.qemu_since = since;
                    report.accelerator = Some(started.accelerator);
                    report.netdev = started.netdev;
                });
            }
            FromRunner::Cable => match <[OwnedFd; 1]>::try_from(fds) {
                Ok([cable]) => self.plug(cable).await,
                Err(fds) => self.wrong_fds("Cable", 1, fds.len()),
            },
            FromRunner::Qmp => match <[OwnedFd; 2]>::try_from(fds) {
                Ok([control, poke]) => {
                    self.epoch += 1;
                    self.up = 0;
                    self.drop_at = None;
                    let (epoch, guest) = (self.epoch, self.guest);
                    self.wish(Wish::to_use(control, epoch, guest), Wish::to_use(poke, epoch, guest));
                }
                Err(fds) => self.wrong_fds("Qmp", 2, fds.len()),
            },
            FromRunner::Display { bus_guid, listener_guid } => match <[OwnedFd; 2]>::try_from(fds) {
                Ok([bus, listener]) => self.attach_display(bus, &bus_guid, listener, &listener_guid).await,
                Err(fds) => self.wrong_fds("Display", 2, fds.len()),
            },
            FromRunner::Audio { listener_guid } => match <[OwnedFd; 1]>::try_from(fds) {
                Ok([listener]) => self.attach_audio(listener, &listener_guid).await,
                Err(fds) => self.wrong_fds("Audio", 1, fds.len()),
            },
            FromRunner::Exited(exited) => {
                let end = End {
                    code: exited.code,
                    signal: exited.signal,
                    stderr_tail: exited.stderr_tail,
                    asked: exited.asked,
                };
                info!(instance = %self.parts.id, ?end, "QEMU ended");
                self.drop_at = None;
                self.forget_guest();
                self.learn(if exited.comes_back { Fact::Restarting } else { Fact::Ended(end) });
            }
            FromRunner::Storage(Storage { held, text }) => {
                let (held, notice) = if held { (text, None) } else { (None, text) };
                if self.report.borrow().notice != notice {
                    self.note(|report| report.notice = notice);
                }
                self.learn(Fact::Held(held));
            }
            FromRunner::Took { id, refused } => self.orders.answered(id, refused),
            FromRunner::AskPort => {
                let port = FromAgent::Port(self.port());
                self.ask(&port).await;
            }
        }
    }

    /// Passes an order on to the runner, which answers by `Took`.
    async fn order(&mut self, order: Order, reply: oneshot::Sender<Result<(), String>>) {
        if self.seat.is_none() {
            let why = self.facts.detail().unwrap_or_default();
            // The asker may have gone away.
            reply.send(Err(format!("no runner is connected: {why}"))).ok();
            return;
        }
        if let Some(id) = self.orders.begin(reply) {
            info!(instance = %self.parts.id, ?order, "order passed on to the runner");
            self.ask(&FromAgent::Order { id, order }).await;
        }
    }

    /// What the runner may know of its own port and picture.
    fn port(&self) -> Port {
        let carrier = match self.parts.spec.mode {
            // Alone: its port is within QEMU, which says so.
            NetworkMode::User => Some(self.report.borrow().netdev.as_deref() == Some("user")),
            _ => self.parts.shared.fabric.borrow().ports.get(&self.parts.id).and_then(|port| port.carrier),
        };
        let state = self.facts.state();
        let unplugged = match carrier {
            Some(true) => None,
            Some(false) => Some("nobody is at its port of the LAN; if QEMU runs, restart its runner"),
            None => Some("it has no port on this node yet; look at the agent's fabric problems"),
        };
        Port {
            up: carrier == Some(true),
            picture_live: state == InstanceState::Live,
            state: state.to_string(),
            detail: unplugged.map(str::to_owned).or_else(|| self.facts.detail()),
        }
    }

    /// Takes the guest's end of the LAN's user-space switch over.
    async fn plug(&mut self, cable: OwnedFd) {
        let plugged = self.parts.shared.cables.plug(&self.parts.id, cable);
        match time::timeout(PLUG_LIMIT, plugged).await {
            Ok(Ok(())) => {}
            // Its guest runs on a port of the mode that the LAN had before; the status says that it is cut off.
            Ok(Err(error @ SwitchError::NoPort(_))) => {
                warn!(instance = %self.parts.id, error = chain(&error), "no port");
            }
            Ok(Err(error)) => self.drop_seat(&chain(&error)),
            Err(_) => self.drop_seat("the switch did not take the guest's cable in time"),
        }
    }

    async fn attach_display(&mut self, bus: OwnedFd, bus_guid: &str, listener: OwnedFd, listener_guid: &str) {
        self.display = None;
        self.ask_display_at = None;
        self.learn(Fact::DisplayLost);
        self.generation = self.parts.screen.generation();
        let base = self.generation;
        match stream::display::attach(bus, bus_guid, listener, listener_guid, Arc::clone(&self.parts.screen)).await {
            Ok(connection) => {
                self.display = Some(connection);
                self.note(|report| report.picture_base = base);
                self.learn(Fact::DisplayUp);
                self.look();
            }
            Err(error) => {
                warn!(instance = %self.parts.id, error = chain(&error), "display connection not usable");
                self.ask_display_at = Some(Instant::now() + ASK_AGAIN);
            }
        }
    }

    async fn attach_audio(&mut self, listener: OwnedFd, listener_guid: &str) {
        self.audio = None;
        self.ask_audio_at = None;
        match stream::audio::attach(listener, listener_guid, Arc::clone(&self.parts.audio)).await {
            Ok(connection) => self.audio = Some(connection),
            Err(error) => {
                // A guest without sound is still a guest: said in the log, asked for again, no state of its own.
                warn!(instance = %self.parts.id, error = chain(&error), "audio connection not usable");
                self.ask_audio_at = Some(Instant::now() + ASK_AGAIN);
            }
        }
    }

    fn wrong_fds(&mut self, message: &str, want: usize, got: usize) {
        warn!(instance = %self.parts.id, message, want, got, "the runner sent another number of descriptors than the message has");
        self.drop_seat("its runner broke the seat protocol");
    }

    fn monitor(&mut self, report: monitors::Report) {
        if report.epoch != self.epoch {
            return;
        }
        match report.what {
            What::Up => {
                self.up += 1;
                if self.up == 2 {
                    self.learn(Fact::MonitorsUp);
                }
            }
            What::Lost { reason, hung } => {
                // A monitor that QEMU closed mostly means that QEMU ended, which its runner is about to say; one that
                // hangs is asked for anew at once.
                let patience = if hung { Duration::ZERO } else { END_LIMIT };
                self.drop_at = self.seat.is_some().then(|| Instant::now() + patience);
                self.learn(Fact::MonitorsLost(reason));
            }
            What::GuestSwitchedOff => self.learn(Fact::GuestSwitchedOff),
        }
    }

    /// Judges a runner that said Hello.
    async fn greet(&mut self, Candidate { socket, hello }: Candidate) {
        let present = self.seat.is_some().then(|| self.report.borrow().runner_pid.unwrap_or_default());
        let verdict = match greet::check(&hello, &self.parts.id, present) {
            Ok(()) => self.welcome(&socket, &hello).await,
            Err(refusal) => Err(refusal),
        };
        let name = self.parts.id.as_str();
        match verdict {
            Ok(()) => {
                info!(instance = name, runner_pid = hello.runner_pid, has_port = hello.has_port, "runner welcomed");
                self.parts.shared.metrics.runner_connections.with_label_values(&[name]).inc();
                self.parts.shared.metrics.runner_connected.with_label_values(&[name]).set(1);
                self.forget_guest();
                self.guest.greeted(hello.has_port);
                self.seat = Some(socket);
                self.drop_at = None;
                self.note(|report| report.runner_pid = Some(hello.runner_pid));
                self.learn(Fact::RunnerCame { same_guest: hello.has_port });
            }
            Err(refusal) => {
                warn!(instance = name, runner_pid = hello.runner_pid, reason = refusal.reason, "runner refused");
                self.parts.shared.metrics.runner_refusals.with_label_values(&[name]).inc();
                if !self.facts.has_runner() {
                    self.learn(Fact::RunnerRefused(format!("{}; {}", refusal.reason, refusal.remedy)));
                }
                greet::refuse(&socket, refusal).await;
            }
        }
    }

    /// Opens what the runner needs and says Welcome.
    async fn welcome(&self, socket: &SeatSocket, hello: &Hello) -> Result<(), Refusal> {
        let port = self.parts.spec.port_kind();
        if !hello.takes(port) {
            return Err(Refusal::new(
                format!(
                    "LAN `{}` has the mode `{}`, which this runner does not know",
                    self.parts.spec.lan, self.parts.spec.mode
                ),
                "use a runner and an agent of one release, or give the LAN the mode `vxlan`",
            ));
        }
        let mut fds: Vec<OwnedFd> = Vec::new();
        let mut kvm = false;
        if !hello.has_port {
            if matches!(port, PortKind::Tap | PortKind::Macvtap) {
                let opened = time::timeout(TAP_LIMIT, self.parts.shared.taps.open(&self.parts.id)).await;
                let opened = opened
                    .map_err(|_| {
                        Refusal::new("the fabric did not open the tap in time", "look at the agent's fabric problems")
                    })?
                    .map_err(|error| Refusal::new(chain(&error), "the runner asks again in a second"))?;
                fds.push(opened.net);
                fds.extend(opened.hold);
            }
            if self.parts.shared.kvm {
                // Proven at the start; a device that is gone since then means a guest without KVM, not no guest.
                match guest::kvm::open_kvm() {
                    Ok(device) => {
                        kvm = true;
                        fds.push(device.into());
                    }
                    Err(error) => {
                        warn!(instance = %self.parts.id, %error, "/dev/kvm is gone; the guest runs without it");
                    }
                }
            }
        }
        let SeatSpec { lan, seat, identity, .. } = &self.parts.spec;
        let welcome = FromAgent::Welcome(Welcome {
            lan: lan.to_string(),
            seat: seat.0,
            mac: identity.mac.to_string(),
            ip: identity.ip,
            host_name: identity.host_name.clone(),
            kvm,
            port,
            subnet: (port == PortKind::User).then(|| identity.subnet.to_string()),
        });
        let fds: Vec<&OwnedFd> = fds.iter().collect();
        match time::timeout(SAY_LIMIT, socket.send(&welcome, &fds)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Refusal::new(chain(&error), "connect again")),
            Err(_) => Err(Refusal::new("the runner does not read its socket", "restart the runner")),
        }
    }

    fn seat_ended(&mut self, error: &SocketError) {
        info!(instance = %self.parts.id, reason = chain(error), "runner's connection ended");
        self.end_seat();
    }

    /// Ends the connection so that the runner comes back and hands everything over again.
    fn drop_seat(&mut self, reason: &str) {
        self.end_seat();
        self.learn(Fact::RunnerRefused(format!("{reason}; it is expected to connect again at once")));
    }

    fn end_seat(&mut self) {
        self.seat = None;
        self.drop_at = None;
        self.parts.shared.metrics.runner_connected.with_label_values(&[self.parts.id.as_str()]).set(0);
        self.forget_guest();
        self.orders.end(Err("its runner went away before it answered".to_owned()));
        self.note(|report| {
            report.runner_pid = None;
            report.notice = None;
        });
        self.learn(Fact::DisplayLost);
        self.learn(Fact::RunnerGone);
    }

    /// Closes all that leads to QEMU. QEMU takes a new display listener only when the old one is gone.
    fn forget_guest(&mut self) {
        self.display = None;
        self.audio = None;
        self.ask_display_at = None;
        self.ask_audio_at = None;
        self.epoch += 1;
        self.up = 0;
        self.wish(Wish::none(), Wish::none());
        self.note(|report| {
            report.qemu_pid = None;
            report.qemu_since = None;
            report.accelerator = None;
            report.netdev = None;
        });
    }

    fn wish(&self, control: Arc<Wish>, poke: Arc<Wish>) {
        self.parts.control.send_replace(control);
        self.parts.poke.send_replace(poke);
    }

    /// What is due by the clock.
    async fn look_after(&mut self) {
        self.look();
        let now = Instant::now();
        if self.drop_at.is_some_and(|at| at <= now) {
            warn!(instance = %self.parts.id, "a QMP monitor is lost; the runner is asked to connect again");
            let detail = self.facts.detail().unwrap_or_default();
            self.drop_seat(&detail);
            return;
        }
        if self.ask_display_at.is_some_and(|at| at <= now) {
            self.ask_display_at = Some(now + ASK_AGAIN);
            self.ask(&FromAgent::Display).await;
        }
        if self.ask_audio_at.is_some_and(|at| at <= now) {
            self.ask_audio_at = Some(now + ASK_AGAIN);
            self.ask(&FromAgent::Audio).await;
        }
    }

    async fn ask(&mut self, request: &FromAgent) {
        let Some(seat) = &self.seat else { return };
        match time::timeout(SAY_LIMIT, seat.say(request)).await {
            Ok(Ok(())) => {}
            // Why it went may stand unread: the end is heard where that is read.
            Ok(Err(error)) if error.is_gone() => {}
            Ok(Err(error)) => self.seat_ended(&error),
            Err(_) => self.drop_seat("its runner does not read its socket"),
        }
    }

    /// Looks whether the picture has changed.
    fn look(&mut self) {
        let generation = self.parts.screen.generation();
        if generation != self.generation {
            self.generation = generation;
            // No announcement: a moving picture is no news.
            self.report.send_modify(|report| report.picture_changed = Some(SystemTime::now()));
        }
        if self.display.as_ref().is_some_and(DisplayConnection::has_picture) {
            self.learn(Fact::Picture);
        }
    }
}

/// How the instance's own door stands, when that has changed; never where doors are the slots'.
async fn door_news(door: &mut Option<watch::Receiver<Option<DoorState>>>) -> DoorState {
    while let Some(receiver) = door {
        if receiver.changed().await.is_err() {
            *door = None;
        } else if let Some(state) = receiver.borrow_and_update().clone() {
            return state;
        }
    }
    std::future::pending().await
}

async fn receive(seat: Option<&SeatSocket>) -> Result<(FromRunner, Vec<OwnedFd>), SocketError> {
    match seat {
        Some(seat) => seat.receive().await,
        None => std::future::pending().await,
    }
}

async fn display_closed(connection: Option<&DisplayConnection>) {
    match connection {
        Some(connection) => connection.closed().await,
        None => std::future::pending().await,
    }
}

async fn audio_closed(connection: Option<&AudioConnection>) {
    match connection {
        Some(connection) => connection.closed().await,
        None => std::future::pending().await,
    }
}
