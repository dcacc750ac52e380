//! The loop: facts into [`Lifecycle`], its actions into effects; and the hand-over to whichever agent is there.
//!
//! **Invariants.** QEMU is not touched when an agent comes or goes. What an agent still has to be given is kept as flags
//! ([`Owed`]) and tried until it is done, so no failure of one attempt loses anything.
use std::{os::fd::OwnedFd, path::PathBuf, pin::Pin, process::ExitStatus, time::Duration};

use anyhow::Context as _;
use guest::{
    MachineSpec, Qmp, QmpError,
    argv::{Accelerator, Boot, Monitor},
    handshake::{Bus, HandshakeError},
    lifecycle::{Action, Fact, Lifecycle, QUIT_LIMIT, State},
    overlay,
    qmp::Event,
    version,
};
use model::MacAddr;
use qapi::qmp;
use seat::{Exited, FromAgent, FromRunner, Started, Welcome};
use telemetry::chain;
use tokio::{
    net::UnixStream,
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout},
};

use crate::{
    config::Config,
    files::{BootFiles, Files},
    health::{self, Signs},
    link::{Link, News},
    qemu::{self, Qemu},
};

const TICK: Duration = Duration::from_secs(1);
/// Pause after a hand-over that did not succeed: QEMU may not have noticed yet that the agent before is gone.
const HAND_OVER_RETRY: Duration = Duration::from_millis(100);
/// After this many in a row the pause is longer: something else is wrong.
const HAND_OVER_QUICK_TRIES: u32 = 20;
const HAND_OVER_SLOW_RETRY: Duration = Duration::from_secs(2);
/// How often a guest that was stopped by a full disk is let go on.
const DISK_FULL_RETRY: Duration = Duration::from_secs(5);
/// `quit` is answered before QEMU flushes its disks.
const QUIT_ANSWER_LIMIT: Duration = Duration::from_secs(2);

type Opening = Pin<Box<dyn Future<Output = Result<Qmp<UnixStream>, QmpError>>>>;

/// Exit code after a SIGTERM that was obeyed, as shells count it; 0 means that the guest switched itself off.
const STOPPED: u8 = 128 + 15;
/// For events that QEMU wrote before it ended: they are there or never come.
const LAST_EVENTS_LIMIT: Duration = Duration::from_millis(100);

/// Runs the instance to its end; gives the exit code.
pub(crate) async fn run(config: Config, mut files: Files) -> anyhow::Result<u8> {
    let (program, version) = version::qemu().await?;
    tracing::info!(%version, instance = %config.instance, "QEMU found");
    if let BootFiles::Disks { disk: Some(base), .. } = &mut files.boot {
        overlay::prepare(base, &config.work_dir.overlay()).await?;
    }
    let health_url = format!("http://{}/healthz", files.health.local_addr().context("no health address")?);
    let signs = health::serve(files.health)?;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let runner = Runner {
        link: Link::new(config.agent_socket.clone(), config.instance.to_string(), health_url),
        signals: [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?],
        life: Lifecycle::default(),
        config,
        program,
        boot: files.boot,
        signs,
        tick,
        qemu: None,
        opening: None,
        monitor: None,
        accelerator: Accelerator::Tcg,
        late_at: None,
        resume_at: None,
        owed: Owed::default(),
        hand_over_at: Instant::now(),
        bus: None,
        hand_over_tries: 0,
        signalled: false,
        exit: None,
    };
    Ok(runner.run().await)
}

/// What the connected agent has not been given yet.
#[derive(Debug, Clone, Copy, Default)]
struct Owed {
    control: bool,
    display: bool,
    audio: bool,
}

impl Owed {
    const ALL: Self = Self { control: true, display: true, audio: true };

    const fn anything(self) -> bool {
        self.control || self.display || self.audio
    }
}

struct Runner {
    config: Config,
    program: PathBuf,
    boot: BootFiles,
    signs: Signs,
    signals: [Signal; 2],
    tick: Interval,
    life: Lifecycle,
    link: Link,
    qemu: Option<Qemu>,
    /// The monitor of a QEMU that is starting.
    opening: Option<Opening>,
    monitor: Option<Qmp<UnixStream>>,
    accelerator: Accelerator,
    /// When the current step of stopping is late.
    late_at: Option<Instant>,
    /// The guest waits for space on the disk; when it may try again.
    resume_at: Option<Instant>,
    owed: Owed,
    hand_over_at: Instant,
    /// Our copy of the D-Bus connection that the agent has: sound is registered over it.
    bus: Option<Bus>,
    hand_over_tries: u32,
    /// QEMU was told to end by a signal from outside: nobody switched the guest off.
    signalled: bool,
    exit: Option<u8>,
}

#[derive(Debug)]
enum Happening {
    Tick,
    Stop,
    Agent(News),
    HandOver,
    MonitorUp(Result<Qmp<UnixStream>, QmpError>),
    Event(Result<Event, QmpError>),
    Ended(std::io::Result<ExitStatus>),
    Late,
}

/// `future`, or never.
async fn or_never<T>(future: Option<impl Future<Output = T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

impl Runner {
    async fn run(mut self) -> u8 {
        loop {
            if let Some(code) = self.exit {
                return code;
            }
            let happening = self.next().await;
            self.signs.beat.tick();
            self.handle(happening).await;
        }
    }

    /// Waits for whatever comes first. Each branch is cancel-safe.
    async fn next(&mut self) -> Happening {
        let hand_over = self.link.is_attached() && self.monitor.is_some() && self.owed.anything();
        let [terminate, interrupt] = &mut self.signals;
        tokio::select! {
            status = or_never(self.qemu.as_mut().map(Qemu::ended)) => Happening::Ended(status),
            _ = terminate.recv() => Happening::Stop,
            _ = interrupt.recv() => Happening::Stop,
            result = or_never(self.opening.as_mut()) => Happening::MonitorUp(result),
            event = or_never(self.monitor.as_mut().map(Qmp::event)) => Happening::Event(event),
            () = or_never(self.late_at.map(sleep_until)) => Happening::Late,
            news = self.link.news() => Happening::Agent(news),
            () = or_never(hand_over.then(|| sleep_until(self.hand_over_at))) => Happening::HandOver,
            _ = self.tick.tick() => Happening::Tick,
        }
    }

    async fn handle(&mut self, happening: Happening) {
        match happening {
            Happening::Tick => self.resume_if_due().await,
            Happening::Stop => {
                tracing::info!("asked to stop");
                self.take(Fact::StopAsked).await;
            }
            Happening::Late => {
                self.late_at = None;
                self.take(Fact::Late).await;
            }
            Happening::Agent(news) => self.agent(news).await,
            Happening::HandOver => self.hand_over().await,
            Happening::MonitorUp(result) => {
                self.opening = None;
                match result {
                    Ok(monitor) => self.monitor_up(monitor).await,
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "QEMU's monitor did not come up");
                        self.take(Fact::StartFailed).await;
                    }
                }
            }
            Happening::Event(Ok(event)) => self.event(&event),
            Happening::Event(Err(error)) => {
                self.monitor = None;
                // Mostly it closes because QEMU ends, which the next turn says.
                tracing::info!(reason = %chain(&error), "QEMU's monitor is gone");
                self.signs.qemu.fail("its monitor is gone; it is being ended");
                self.monitor_lost().await;
            }
            Happening::Ended(status) => self.ended(status).await,
        }
    }

    /// QEMU closes its monitor a moment before it ends: only one that stays is without control.
    async fn monitor_lost(&mut self) {
        const END_LIMIT: Duration = Duration::from_secs(1);
        let end = async { or_never(self.qemu.as_mut().map(Qemu::ended)).await };
        match timeout(END_LIMIT, end).await {
            Ok(status) => self.ended(status).await,
            Err(_) => self.take(Fact::MonitorLost).await,
        }
    }

    async fn take(&mut self, fact: Fact) {
        let Some(action) = self.life.take(fact) else { return };
        match action {
            // Only with a port's descriptors, in `welcome`.
            Action::StartQemu => {}
            Action::PressPower => {
                self.signs.qemu.fail("switching off");
                self.late_at = Some(Instant::now() + self.config.grace);
                if let Some(monitor) = &mut self.monitor
                    && let Err(error) = monitor.execute(qmp::system_powerdown {}).await
                {
                    tracing::warn!(error = %chain(&error), "could not press the guest's power button");
                }
            }
            Action::Quit => {
                tracing::info!("the guest did not switch itself off; ending QEMU");
                self.late_at = Some(Instant::now() + QUIT_LIMIT);
                if let Some(monitor) = &mut self.monitor
                    && let Err(error) = monitor.execute_within(qmp::quit {}, QUIT_ANSWER_LIMIT).await
                {
                    tracing::warn!(error = %chain(&error), "could not ask QEMU to end");
                }
            }
            Action::Kill => {
                self.late_at = None;
                if let Some(qemu) = &mut self.qemu {
                    tracing::warn!(pid = qemu.pid(), "killing QEMU");
                    qemu.kill();
                }
            }
            // Who asked for the end knows of it; to all others it must not look as if the guest had switched itself off.
            Action::Exit(0) if self.life.asked() => self.exit = Some(STOPPED),
            Action::Exit(code) => self.exit = Some(code),
        }
    }

    async fn agent(&mut self, news: News) {
        match news {
            News::Dial => {
                if let Err(reason) = self.link.dial(self.life.has_port()).await {
                    self.signs.agent.fail(reason);
                }
            }
            News::Gone(reason) => self.agent_gone(&reason),
            News::Said(FromAgent::Welcome(welcome), fds) if !self.link.is_attached() => {
                self.welcome(&welcome, fds).await;
            }
            News::Said(FromAgent::Refused { reason, remedy }, _) => {
                let text = format!("the agent refused: {reason}; {remedy}");
                if !self.life.has_port() {
                    self.signs.port.fail(text.clone());
                }
                self.signs.agent.fail(text.clone());
                self.link.refused(&text);
            }
            News::Said(FromAgent::Display, _) if self.link.is_attached() => {
                self.owe(Owed { display: true, ..self.owed });
            }
            News::Said(FromAgent::Audio, _) if self.link.is_attached() => self.owe(Owed { audio: true, ..self.owed }),
            News::Said(message, _) => {
                let reason = format!("the agent said {message:?} out of turn; are both of one release?");
                self.link.drop_agent(&reason);
                self.agent_gone(&reason);
            }
        }
    }

    fn agent_gone(&mut self, reason: &str) {
        self.signs.agent.fail(format!("{reason}; it is asked again"));
        self.bus = None;
        self.owed = Owed::default();
    }

    fn owe(&mut self, owed: Owed) {
        self.owed = owed;
        self.hand_over_at = Instant::now();
        self.hand_over_tries = 0;
    }

    async fn welcome(&mut self, welcome: &Welcome, fds: Vec<OwnedFd>) {
        if !self.life.has_port() {
            let mut fds = fds.into_iter();
            let (tap, kvm) = (fds.next(), fds.next());
            let (Some(tap), Some(mac)) = (tap, MacAddr::parse(&welcome.mac)) else {
                let reason = "the agent's Welcome lacks a tap or a MAC address; are both of one release?";
                self.link.drop_agent(reason);
                self.agent_gone(reason);
                return;
            };
            self.take(Fact::PortGranted).await;
            if let Err(error) = self.start(welcome, mac, &tap, kvm.filter(|_| welcome.kvm).as_ref()) {
                tracing::error!("{error:#}");
                self.take(Fact::StartFailed).await;
                self.take(Fact::QemuEnded { clean: false }).await;
                return;
            }
        }
        tracing::info!(lan = welcome.lan, seat = welcome.seat, ip = %welcome.ip, "attached to the agent");
        self.link.attach();
        self.signs.port.hold();
        self.signs.agent.fail("connected; display and control are being handed over");
        self.owe(Owed::ALL);
    }

    fn start(&mut self, welcome: &Welcome, mac: MacAddr, tap: &OwnedFd, kvm: Option<&OwnedFd>) -> anyhow::Result<()> {
        self.accelerator = if kvm.is_some() { Accelerator::Kvm } else { Accelerator::Tcg };
        let boot = match &self.boot {
            BootFiles::Kernel { append, .. } => {
                let more = append.as_deref().map(|words| format!(" {words}")).unwrap_or_default();
                let Welcome { seat, host_name, lan, .. } = welcome;
                Boot::Kernel { append: format!("seat={seat} name={host_name} lan={lan}{more}") }
            }
            BootFiles::Disks { disk, cdrom } => {
                Boot::Disks { disk: disk.as_ref().map(|base| base.format), cdrom: cdrom.is_some() }
            }
        };
        let spec = MachineSpec {
            instance: self.config.instance.clone(),
            work_dir: self.config.work_dir.path().to_owned(),
            memory: self.config.memory,
            boot,
            nic: self.config.nic,
            mac,
            video: self.config.video,
            accelerator: self.accelerator,
            vnc: self.config.vnc,
        };
        let log = self.config.work_dir.serial_log();
        let qemu = Qemu::start(&self.program, &spec, log, &self.boot, tap, kvm)?;
        tracing::info!(pid = qemu.pid(), accelerator = self.accelerator.as_str(), "QEMU started");
        self.signs.qemu.fail("starting");
        self.qemu = Some(qemu);
        self.opening = Some(Box::pin(qemu::monitor_up(self.config.work_dir.monitor(Monitor::Runner))));
        Ok(())
    }

    async fn monitor_up(&mut self, mut monitor: Qmp<UnixStream>) {
        // What runs, not what was asked for.
        match monitor.execute(qmp::query_kvm {}).await {
            Ok(kvm) => self.accelerator = if kvm.enabled { Accelerator::Kvm } else { Accelerator::Tcg },
            Err(error) => tracing::warn!(error = %chain(&error), "QEMU does not say what accelerates it"),
        }
        self.monitor = Some(monitor);
        self.signs.qemu.hold();
        self.take(Fact::MonitorUp).await;
    }

    /// Gives the agent what it is owed: control, sound, picture.
    async fn hand_over(&mut self) {
        let result = self.try_hand_over().await;
        // A guest without sound is still a guest.
        if self.link.is_attached() && !self.owed.control && !self.owed.display {
            self.signs.agent.hold();
        }
        let Err(error) = result else {
            tracing::info!("control, display and sound handed over");
            self.hand_over_tries = 0;
            return;
        };
        self.hand_over_tries += 1;
        let reason = chain(&*error);
        if self.hand_over_tries == HAND_OVER_QUICK_TRIES {
            tracing::warn!(reason, owed = ?self.owed, "hand-over to the agent does not succeed; going on trying");
        }
        let pause = if self.hand_over_tries < HAND_OVER_QUICK_TRIES { HAND_OVER_RETRY } else { HAND_OVER_SLOW_RETRY };
        self.hand_over_at = Instant::now() + pause;
        if !self.link.is_attached() {
            self.agent_gone(&reason);
        }
    }

    async fn try_hand_over(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let (Some(monitor), Some(qemu)) = (&mut self.monitor, &self.qemu) else { return Ok(()) };
        if self.owed.control {
            let started = Started { qemu_pid: qemu.pid(), accelerator: self.accelerator.as_str().to_owned() };
            // Not blocking: a QEMU that accepts nobody must not stop this runner; full is an error, and tried again.
            let connect = async |which| -> std::io::Result<OwnedFd> {
                let stream = UnixStream::connect(self.config.work_dir.monitor(which)).await?.into_std()?;
                Ok(stream.into())
            };
            let (input, poke) = (connect(Monitor::Input).await?, connect(Monitor::Poke).await?);
            self.link.send(&FromRunner::Started(started), &[]).await?;
            self.link.send(&FromRunner::Qmp, &[&input, &poke]).await?;
            self.owed.control = false;
        }
        if self.owed.display || self.bus.is_none() {
            // A new bus replaces the one that QEMU had; a listener of sound is not touched by that.
            self.bus = None;
            self.bus = Some(Bus::open(monitor).await?);
            self.owed.display = true;
        }
        let Some(bus) = &mut self.bus else { return Ok(()) };
        // Sound before the picture: once it has a display listener QEMU calls it, and waits for the agent's answer.
        let mut no_sound = None;
        if self.owed.audio {
            match bus.audio().await {
                Ok(listener) => {
                    let message = FromRunner::Audio { listener_guid: listener.guid };
                    self.link.send(&message, &[&listener.fd]).await?;
                    self.owed.audio = false;
                }
                Err(error @ HandshakeError::BusGone { .. }) => {
                    self.bus = None;
                    return Err(error.into());
                }
                // Mostly: QEMU has not noticed yet that the listener before is gone. The picture must not wait for it.
                Err(error) => no_sound = Some(error),
            }
        }
        if self.owed.display {
            let fds = bus.display().await?;
            let (bus_guid, listener_guid) = (fds.bus_guid, fds.listener_guid);
            self.link.send(&FromRunner::Display { bus_guid, listener_guid }, &[&fds.bus, &fds.listener]).await?;
            self.owed.display = false;
        }
        no_sound.map_or(Ok(()), |error| Err(error.into()))
    }

    fn event(&mut self, event: &Event) {
        match event.name.as_str() {
            "SHUTDOWN" | "RESET" | "POWERDOWN" => {
                // qapi/run-state.json, ShutdownCause.
                self.signalled |= event.data["reason"] == "host-signal";
                tracing::info!(event = event.name, reason = %event.data["reason"], "guest");
            }
            "BLOCK_IO_ERROR" if event.data["nospace"] == true => {
                let place = self.config.work_dir.path().display();
                self.signs.qemu.fail(format!(
                    "the guest waits, because the disk that holds `{place}` is full; free some space there"
                ));
                tracing::error!(%place, "disk full; the guest waits and goes on by itself when there is space");
                self.resume_at = Some(Instant::now() + DISK_FULL_RETRY);
            }
            "STOP" if self.resume_at.is_none() => self.signs.qemu.fail("the guest is paused"),
            "RESUME" => self.signs.qemu.hold(),
            _ => {}
        }
    }

    async fn resume_if_due(&mut self) {
        if self.resume_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.resume_at = None;
        if let Some(monitor) = &mut self.monitor
            && let Err(error) = monitor.execute(qmp::cont {}).await
        {
            tracing::warn!(error = %chain(&error), "the guest could not be let go on");
        }
    }

    async fn ended(&mut self, status: std::io::Result<ExitStatus>) {
        use std::os::unix::process::ExitStatusExt as _;
        let Some(mut qemu) = self.qemu.take() else { return };
        // Why it ended may stand unread; what was written before the end can be read after it.
        if let Some(mut monitor) = self.monitor.take() {
            while let Ok(Ok(event)) = timeout(LAST_EVENTS_LIMIT, monitor.event()).await {
                self.event(&event);
            }
        }
        self.opening = None;
        self.late_at = None;
        self.signs.qemu.fail("it ended");
        let (code, signal) = match &status {
            Ok(status) => (status.code(), status.signal()),
            Err(_) => (None, None),
        };
        let stderr_tail = qemu.last_words().await;
        self.take(Fact::QemuEnded { clean: code == Some(0) && !self.signalled }).await;
        let asked = self.life.asked();
        let failed = matches!(self.life.state(), State::Ended(code) if code != 0);
        if failed {
            tracing::error!(pid = qemu.pid(), ?code, ?signal, said = stderr_tail, "QEMU ended");
        } else {
            tracing::info!(pid = qemu.pid(), ?code, ?signal, asked, "QEMU ended");
        }
        if self.link.is_attached() {
            let exited = FromRunner::Exited(Exited { code, signal, stderr_tail, asked });
            if let Err(reason) = self.link.send(&exited, &[]).await {
                tracing::info!(reason, "the agent could not be told");
            }
        }
    }
}
