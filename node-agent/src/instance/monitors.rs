//! The two QMP monitors of one guest: one for input and control, one for refresh pokes, so that a slow poke never
//! delays a key.
//!
//! ```text
//! stream --Injection--> control task --input-send-event--> QEMU
//!                           └── time of the input ──> poke task --screendump--> QEMU (looks at the guest's screen)
//! actor  --Wish-------> control task, poke task;   both --Report--> actor
//! ```
//! **Invariants.** Both tasks live as long as the instance; monitors come and go beneath them. Without a monitor an
//! injection is counted as lost and dropped at once: a key must not be pressed when the guest is back a minute later. Only
//! its releases are kept ([`Releases`]): no key must stay down in a guest that ran on, so they come first on its next monitor.
//! A monitor that failed in any way is closed and reported once; this module never waits for a better one.
use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use guest::{Qmp, QmpError, qmp::Event};
use model::InstanceId;
use qapi::qmp::{query_status, system_powerdown, system_reset};
use stream::{Injection, InstanceStream, Screen, Tier};
use telemetry::chain;
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
    time::{self, Instant},
};
use tracing::{debug, info, warn};

use super::{
    input, refresh,
    releases::{Guest, Releases},
};
use crate::metrics::Metrics;

/// Reports that may wait for the actor, which never waits for these tasks. Full = the task waits.
pub(super) const REPORTS_MAX: usize = 8;
/// Power requests that may wait. Full = the asker waits.
pub(super) const POWER_MAX: usize = 2;
/// A monitor that nobody uses is asked for a sign of life this often.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// Pause after each few releases that were owed. QMP does not say when the guest has read its PS/2 queue; a guest that runs
/// does so within an interrupt.
const RELEASE_PAUSE: Duration = Duration::from_millis(5);
/// How often the picture is looked at for motion while somebody watches it in full quality.
const LOOK_FULL: Duration = Duration::from_millis(30);
/// How often else it is looked at whether somebody came to watch.
const LOOK_IDLE: Duration = Duration::from_millis(250);

/// Which monitor to use. The newest wish wins: a descriptor that was never taken is closed with its wish.
#[derive(Debug, Default)]
pub(super) struct Wish {
    /// Comes back in reports on this monitor.
    epoch: u64,
    guest: Guest,
    fd: Mutex<Option<OwnedFd>>,
}

impl Wish {
    /// A monitor of `guest` with its greeting unread.
    pub(super) fn to_use(fd: OwnedFd, epoch: u64, guest: Guest) -> Arc<Self> {
        Arc::new(Self { epoch, guest, fd: Mutex::new(Some(fd)) })
    }

    /// None: close the one in use.
    pub(super) fn none() -> Arc<Self> {
        Arc::default()
    }
}

/// Press the power button or the reset line; the answer says whether QEMU took it.
#[derive(Debug)]
pub(super) struct PowerRequest {
    pub(super) action: Power,
    pub(super) reply: oneshot::Sender<Result<(), String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    Shutdown,
    Reset,
}

/// What a monitor says by itself.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) epoch: u64,
    pub(super) what: What,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Greeted and ready.
    Up,
    /// Closed; `hung` when QEMU did not answer in time, rather than having closed it.
    Lost { reason: String, hung: bool },
    /// The guest asked its machine to power off.
    GuestSwitchedOff,
}

/// One monitor in use.
struct Monitor {
    qmp: Qmp<UnixStream>,
    epoch: u64,
    guest: Guest,
}

/// The end of a task's link to its actor, with what each report needs.
struct Link {
    instance: InstanceId,
    reports: mpsc::Sender<Report>,
}

/// Takes injections and control orders.
pub(super) struct Control {
    pub(super) instance: InstanceId,
    pub(super) wishes: watch::Receiver<Arc<Wish>>,
    pub(super) power: mpsc::Receiver<PowerRequest>,
    pub(super) injections: mpsc::Receiver<Injection>,
    pub(super) reports: mpsc::Sender<Report>,
    /// When the last input was confirmed by QEMU.
    pub(super) inputs: watch::Sender<Option<Instant>>,
    pub(super) metrics: Metrics,
}

impl Control {
    /// Runs until the actor is gone.
    pub(super) async fn run(self) {
        let Self { instance, mut wishes, mut power, mut injections, reports, inputs, metrics } = self;
        let link = Link { instance: instance.clone(), reports };
        let name = instance.as_str();
        let (given, lost) =
            (metrics.input_events.with_label_values(&[name]), metrics.input_lost.with_label_values(&[name]));
        let mut monitor: Option<Monitor> = None;
        let mut releases = Releases::default();
        loop {
            // Wishes first: a new monitor must be in place before what was typed after it.
            tokio::select! { biased;
                changed = wishes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    monitor = link.grant(&mut wishes).await;
                    if link.settle(&mut monitor, &mut releases).await {
                        inputs.send_replace(Some(Instant::now()));
                    }
                }
                Some(PowerRequest { action, reply }) = power.recv() => {
                    let outcome = press(&mut monitor, action).await;
                    let answer = link.keep(&mut monitor, outcome).await;
                    // The asker may have gone away; the button is pressed all the same.
                    reply.send(answer).ok();
                }
                Some(injection) = injections.recv() => {
                    let batch = input::batch(&injection.events);
                    if !batch.unknown.is_empty() {
                        debug!(instance = name, keys = ?batch.unknown, "keys without a place on a PC keyboard");
                        lost.inc_by(batch.unknown.len() as u64);
                    }
                    if batch.events.is_empty() {
                        continue;
                    }
                    if link.give(&mut monitor, &batch.events).await {
                        injection.injected();
                        inputs.send_replace(Some(Instant::now()));
                        given.inc_by(batch.events.len() as u64);
                    } else {
                        lost.inc_by(batch.events.len() as u64);
                        // QEMU's refusal leaves the monitor standing and is its answer: asking again changes nothing.
                        if monitor.is_none() {
                            releases.owe(&injection.events);
                        }
                    }
                },
                event = next_event(&mut monitor) => match event {
                    Ok(event) => link.tell(monitor.as_ref(), &event).await,
                    Err(error) => link.failed(&mut monitor, &error).await,
                },
                () = time::sleep(ALIVE_EVERY), if monitor.is_some() => {
                    if let Some(Err(error)) = alive(&mut monitor).await {
                        link.failed(&mut monitor, &error).await;
                    }
                }
            }
        }
    }
}

/// Pokes when the plan says so.
pub(super) struct Poke {
    pub(super) instance: InstanceId,
    pub(super) wishes: watch::Receiver<Arc<Wish>>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) inputs: watch::Receiver<Option<Instant>>,
    pub(super) screen: Arc<Screen>,
    pub(super) stream: Arc<InstanceStream>,
    pub(super) metrics: Metrics,
}

impl Poke {
    /// Runs until the actor is gone.
    pub(super) async fn run(self) {
        let Self { instance, mut wishes, reports, mut inputs, screen, stream, metrics } = self;
        let pokes = metrics.pokes.with_label_values(&[instance.as_str()]);
        let link = Link { instance, reports };
        let mut monitor: Option<Monitor> = None;
        let mut plan = refresh::Plan::default();
        let mut generation = screen.generation();
        loop {
            let in_full = stream.watching(Tier::Full) > 0;
            plan.watched(in_full || stream.watching(Tier::Thumb) > 0, in_full);
            let due = plan.due().filter(|_| monitor.is_some());
            let look = if in_full { LOOK_FULL } else { LOOK_IDLE };
            tokio::select! { biased;
                changed = wishes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    monitor = link.grant(&mut wishes).await;
                }
                Ok(()) = inputs.changed() => {
                    if let Some(at) = *inputs.borrow_and_update() {
                        plan.input(at);
                    }
                    continue;
                },
                () = sleep_until(due) => {
                    let Some(Monitor { qmp, .. }) = &mut monitor else { continue };
                    let start = Instant::now();
                    plan.sent(start);
                    let outcome = qmp.refresh_poke().await;
                    plan.done();
                    metrics.poke_seconds.observe(start.elapsed().as_secs_f64());
                    pokes.inc();
                    if let Err(error) = outcome {
                        link.failed(&mut monitor, &error).await;
                    }
                },
                event = next_event(&mut monitor) => match event {
                    // The control task has the same events. Taking them keeps QEMU's side from filling up.
                    Ok(event) => debug!(instance = %link.instance, event = event.name, "event on the poke monitor"),
                    Err(error) => link.failed(&mut monitor, &error).await,
                },
                () = time::sleep(look) => {}
            }
            let now = screen.generation();
            if now != generation {
                generation = now;
                plan.damage(Instant::now());
            }
        }
    }
}

impl Link {
    /// Carries out the newest wish.
    async fn grant(&self, wishes: &mut watch::Receiver<Arc<Wish>>) -> Option<Monitor> {
        let wish = Arc::clone(&wishes.borrow_and_update());
        let fd = wish.fd.lock().unwrap_or_else(PoisonError::into_inner).take();
        match fd {
            Some(fd) => self.open(fd, wish.epoch, wish.guest).await,
            None => None,
        }
    }

    async fn open(&self, fd: OwnedFd, epoch: u64, guest: Guest) -> Option<Monitor> {
        let opened = match tokio_stream_of(fd) {
            Ok(stream) => Qmp::connect(stream).await,
            Err(source) => Err(QmpError::Io { during: "greeting", source }),
        };
        let (what, monitor) = match opened {
            Ok(qmp) => (What::Up, Some(Monitor { qmp, epoch, guest })),
            Err(error) => {
                warn!(instance = %self.instance, error = chain(&error), "monitor not usable");
                (What::Lost { reason: chain(&error), hung: matches!(error, QmpError::Timeout { .. }) }, None)
            }
        };
        self.report(epoch, what).await;
        monitor
    }

    /// Gives events to the guest; whether it took them.
    async fn give(&self, monitor: &mut Option<Monitor>, events: &[guest::input::InputEvent]) -> bool {
        let Some(Monitor { qmp, .. }) = monitor else { return false };
        let outcome = qmp.send_input(events).await;
        if let Err(error) = &outcome {
            self.failed(monitor, error).await;
        }
        outcome.is_ok()
    }

    /// Gives the guest of a new monitor what it is owed; whether that was anything. What it does not take in time stays owed.
    async fn settle(&self, monitor: &mut Option<Monitor>, releases: &mut Releases) -> bool {
        let Some(Monitor { guest, .. }) = monitor else { return false };
        releases.lead_to(*guest);
        let any = !releases.next().is_empty();
        while monitor.is_some() && !releases.next().is_empty() {
            self.give(monitor, &input::batch(releases.next()).events).await;
            if monitor.is_some() {
                releases.given();
                time::sleep(RELEASE_PAUSE).await;
            }
        }
        any
    }

    /// Closes a monitor whose session is over and says so; a refusal is QEMU's answer and leaves the session standing.
    async fn failed(&self, monitor: &mut Option<Monitor>, error: &QmpError) {
        if let QmpError::Refused { .. } = error {
            warn!(instance = %self.instance, error = chain(error), "QEMU refused a command");
            return;
        }
        if let Some(Monitor { epoch, .. }) = monitor.take() {
            info!(instance = %self.instance, error = chain(error), "monitor closed");
            let hung = matches!(error, QmpError::Timeout { .. });
            self.report(epoch, What::Lost { reason: chain(error), hung }).await;
        }
    }

    /// As [`Self::failed`], for a command whose outcome somebody waits for.
    async fn keep(&self, monitor: &mut Option<Monitor>, outcome: Result<(), Option<QmpError>>) -> Result<(), String> {
        match outcome {
            Ok(()) => Ok(()),
            Err(None) => Err("QEMU is not connected".to_owned()),
            Err(Some(error)) => {
                self.failed(monitor, &error).await;
                Err(chain(&error))
            }
        }
    }

    async fn tell(&self, monitor: Option<&Monitor>, event: &Event) {
        debug!(instance = %self.instance, event = event.name, data = %event.data, "QEMU event");
        let by_guest = event.data.get("guest").and_then(serde_json::Value::as_bool) == Some(true);
        let reset = event.data.get("reason").and_then(serde_json::Value::as_str) == Some("guest-reset");
        if let Some(monitor) = monitor
            && event.name == "SHUTDOWN"
            && by_guest
            && !reset
        {
            self.report(monitor.epoch, What::GuestSwitchedOff).await;
        }
    }

    async fn report(&self, epoch: u64, what: What) {
        // The actor ended first: then nobody needs to know.
        self.reports.send(Report { epoch, what }).await.ok();
    }
}

async fn press(monitor: &mut Option<Monitor>, action: Power) -> Result<(), Option<QmpError>> {
    let Some(Monitor { qmp, .. }) = monitor else { return Err(None) };
    match action {
        Power::Shutdown => qmp.execute(system_powerdown {}).await.map(drop).map_err(Some),
        Power::Reset => qmp.execute(system_reset {}).await.map(drop).map_err(Some),
    }
}

async fn alive(monitor: &mut Option<Monitor>) -> Option<Result<(), QmpError>> {
    Some(monitor.as_mut()?.qmp.execute(query_status {}).await.map(drop))
}

/// The next event of the monitor in use; waits for ever without one.
async fn next_event(monitor: &mut Option<Monitor>) -> Result<Event, QmpError> {
    match monitor {
        Some(monitor) => monitor.qmp.event().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn tokio_stream_of(fd: OwnedFd) -> std::io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(fd);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

#[cfg(test)]
mod tests;
