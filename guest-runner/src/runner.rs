//! The loop: facts into [`Lifecycle`], its actions into effects.
//!
//! **Invariants.** A guest is started when it has both, a port and its disk, in whichever order they come. Each branch of the
//! loop is cancel-safe, and none waits for QEMU, an agent or a volume without a limit: a SIGTERM is heard within seconds.
use std::{os::fd::OwnedFd, path::PathBuf, pin::Pin, process::ExitStatus, time::Duration};

use anyhow::Context as _;
use guest::{
    MachineSpec, Qmp, QmpError,
    argv::{Accelerator, Boot, HardDisk, Monitor, WorkDir},
    handshake::Bus,
    lifecycle::{Action, Fact, Lifecycle, QUIT_LIMIT, State},
    netdev,
    qmp::Event,
    version,
};
use qapi::qmp;
use seat::{Exited, FromAgent, FromRunner, Welcome};
use telemetry::{Heartbeat, chain};
use tokio::{
    net::UnixStream,
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout},
};

use crate::{
    cable::Cable,
    config::Config,
    files::{BootFiles, Files},
    handover::Owed,
    health::{self, Signs},
    link::{Link, News},
    port::{self, Granted, Kept, Plugged},
    qemu::{self, Qemu},
    storage::{self, Held, Storage},
    upkeep::{Asking, Pulse},
};

const TICK: Duration = Duration::from_secs(1);
/// `quit` is answered before QEMU flushes its disks.
const QUIT_ANSWER_LIMIT: Duration = Duration::from_secs(2);

type Opening = Pin<Box<dyn Future<Output = Result<Qmp<UnixStream>, QmpError>>>>;

/// Exit code after a SIGTERM that was obeyed, as shells count it; 0 means that the guest switched itself off.
const STOPPED: u8 = 128 + 15;
/// For events that QEMU wrote before it ended: they are there or never come.
const LAST_EVENTS_LIMIT: Duration = Duration::from_millis(100);

/// Runs the instance to its end; gives the exit code.
pub(crate) async fn run(config: Config, mut files: Files) -> anyhow::Result<u8> {
    // First of all: as process 1 of a container, a signal that has no handler yet is not heard.
    let signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let (program, version) = version::qemu().await?;
    tracing::info!(%version, instance = %config.instance, "QEMU found");
    let base = match &mut files.boot {
        BootFiles::Disks { disk, .. } => disk.take(),
        BootFiles::Kernel { .. } => None,
    };
    let health_url = format!("http://{}/healthz", files.health.local_addr().context("no health address")?);
    let signs = health::serve(files.health)?;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let runner = Runner {
        link: Link::new(config.agent_socket.clone(), config.instance.to_string(), health_url),
        signals,
        storage: Storage::new(config.storage.clone(), base),
        run_dir: files.run_dir,
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
        netdev: None,
        kept: Kept::Nothing,
        cable: Cable::default(),
        late_at: None,
        held: None,
        said: None,
        granted: None,
        resetting: false,
        asking: Asking::default(),
        pulse: Pulse::default(),
        qemu_beat: None,
        owed: Owed::default(),
        hand_over_at: Instant::now(),
        bus: None,
        hand_over_tries: 0,
        signalled: false,
        exit: None,
    };
    Ok(runner.run().await)
}

pub(crate) struct Runner {
    pub(crate) config: Config,
    pub(crate) run_dir: WorkDir,
    program: PathBuf,
    boot: BootFiles,
    pub(crate) signs: Signs,
    pub(crate) storage: Storage,
    signals: [Signal; 2],
    tick: Interval,
    pub(crate) life: Lifecycle,
    pub(crate) link: Link,
    pub(crate) qemu: Option<Qemu>,
    /// The monitor of a QEMU that is starting.
    opening: Option<Opening>,
    pub(crate) monitor: Option<Qmp<UnixStream>>,
    pub(crate) accelerator: Accelerator,
    /// What QEMU says that the guest's card is on.
    pub(crate) netdev: Option<String>,
    /// Of the guest's port, for as long as QEMU runs.
    kept: Kept,
    cable: Cable,
    /// When the current step of stopping is late.
    late_at: Option<Instant>,
    /// The guest stands still because of its disk.
    pub(crate) held: Option<Held>,
    /// What the agent was last told of the disk.
    pub(crate) said: Option<seat::Storage>,
    granted: Option<Granted>,
    /// The restart that is under way is for a fresh disk.
    pub(crate) resetting: bool,
    pub(crate) asking: Asking,
    pub(crate) pulse: Pulse,
    /// While its monitor stands.
    pub(crate) qemu_beat: Option<Heartbeat>,
    pub(crate) owed: Owed,
    pub(crate) hand_over_at: Instant,
    /// Our copy of the D-Bus connection that the agent has: sound is registered over it.
    pub(crate) bus: Option<Bus>,
    pub(crate) hand_over_tries: u32,
    /// QEMU was told to end by a signal from outside: nobody switched the guest off.
    pub(crate) signalled: bool,
    exit: Option<u8>,
}

#[derive(Debug)]
enum Happening {
    Tick,
    Stop,
    Agent(News),
    CableIn,
    HandOver,
    MonitorUp(Result<Qmp<UnixStream>, QmpError>),
    Event(Result<Event, QmpError>),
    Storage(storage::News),
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
            () = or_never(self.cable.due().map(sleep_until)) => Happening::CableIn,
            news = self.link.news() => Happening::Agent(news),
            news = self.storage.news() => Happening::Storage(news),
            () = or_never(hand_over.then(|| sleep_until(self.hand_over_at))) => Happening::HandOver,
            _ = self.tick.tick() => Happening::Tick,
        }
    }

    async fn handle(&mut self, happening: Happening) {
        match happening {
            Happening::Tick => self.look_after().await,
            Happening::Storage(news) => {
                self.storage_news(news).await;
                self.start_if_ready().await;
            }
            Happening::Stop => {
                tracing::info!("asked to stop");
                self.take(Fact::StopAsked).await;
            }
            Happening::Late => {
                self.late_at = None;
                self.take(Fact::Late).await;
            }
            Happening::CableIn => {
                let done = self.set_cable(true).await;
                self.cable.put_in(done, Instant::now());
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
            Happening::Event(Ok(event)) => self.event(&event).await,
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

    pub(crate) async fn take(&mut self, fact: Fact) {
        let Some(action) = self.life.take(fact) else { return };
        match action {
            // Only with a port's descriptors, in `welcome`.
            Action::StartQemu => {}
            Action::PressPower => {
                self.signs.qemu.fail("switching off");
                // One that its disk holds cannot switch itself off.
                let grace = if self.held.is_some() { Duration::ZERO } else { self.config.grace };
                self.late_at = Some(Instant::now() + grace);
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
            Action::Again => self.again(),
            // Who asked for the end knows of it; to all others it must not look as if the guest had switched itself off.
            Action::Exit(0) if self.life.asked() => self.exit = Some(STOPPED),
            Action::Exit(code) => self.exit = Some(code),
        }
    }

    async fn agent(&mut self, news: News) {
        match news {
            News::Dial => {
                if let Err(reason) = self.link.dial(self.life.has_port() || self.granted.is_some()).await {
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
            News::Said(FromAgent::Port(port), _) if self.link.is_attached() => self.port(port),
            News::Said(FromAgent::Order { id, order }, _) if self.link.is_attached() => self.order(id, order).await,
            News::Said(message, _) => {
                let reason = format!("the agent said {message:?} out of turn; are both of one release?");
                self.link.drop_agent(&reason);
                self.agent_gone(&reason);
            }
        }
    }

    pub(crate) fn agent_gone(&mut self, reason: &str) {
        self.asking = Asking::default();
        self.said = None;
        self.signs.picture.fail("no agent says so; see agent");
        self.signs.startup.waits_for_others();
        self.signs.agent.fail(format!("{reason}; it is asked again"));
        self.bus = None;
        self.owed = Owed::default();
    }

    /// After QEMU ended by order: the disk is looked for anew, and an agent asked for a port.
    fn again(&mut self) {
        self.storage.again(std::mem::take(&mut self.resetting));
        self.signs.qemu.fail("it is being started again");
        let reason = "the guest is started again by order";
        self.link.hang_up();
        self.agent_gone(reason);
    }

    fn owe(&mut self, owed: Owed) {
        self.owed = owed;
        self.hand_over_at = Instant::now();
        self.hand_over_tries = 0;
    }

    async fn welcome(&mut self, welcome: &Welcome, fds: Vec<OwnedFd>) {
        if !self.life.has_port() && self.granted.is_none() {
            match port::plug(welcome, fds) {
                Ok(Plugged { granted, kept }) => {
                    self.granted = Some(granted);
                    self.kept = kept;
                }
                Err(reason) => {
                    self.link.drop_agent(&reason);
                    self.agent_gone(&reason);
                    return;
                }
            }
        }
        tracing::info!(lan = welcome.lan, seat = welcome.seat, ip = %welcome.ip, "attached to the agent");
        self.link.attach();
        if self.cable.at(welcome, self.life.has_port(), Instant::now()) {
            self.set_cable(false).await;
        }
        self.signs.port.hold();
        self.signs.agent.fail("connected; display and control are being handed over");
        self.owe(Owed::ALL);
        // Before anything else: frames of the guest may have been waiting in it.
        if let Kept::Cable(cable) = &self.kept
            && let Err(reason) = self.link.send(&FromRunner::Cable, &[cable]).await
        {
            self.agent_gone(&reason);
            return;
        }
        if self.life.has_port() {
            self.signs.startup.our_turn();
        }
        self.tell_storage().await;
        self.start_if_ready().await;
    }

    /// Puts the guest's cable in, or pulls it; whether QEMU has taken it. There is no other way to tell a guest that it is elsewhere.
    async fn set_cable(&mut self, up: bool) -> bool {
        let Some(monitor) = &mut self.monitor else { return true };
        let done = monitor.execute(qmp::set_link { name: netdev::ID.to_owned(), up }).await;
        match &done {
            Ok(_) if up => tracing::info!("the guest's cable is in again"),
            Ok(_) => tracing::info!("the guest's port is in another place: its cable is pulled for a moment"),
            Err(error) => tracing::warn!(error = %chain(error), up, "QEMU did not move the guest's cable"),
        }
        done.is_ok()
    }

    /// Port and disk: the guest starts.
    async fn start_if_ready(&mut self) {
        if self.life.state() != State::WaitingPort || !self.storage.is_ready() {
            return;
        }
        let Some(granted) = self.granted.take() else { return };
        self.take(Fact::PortGranted).await;
        if let Err(error) = self.start(granted) {
            tracing::error!("{error:#}");
            self.take(Fact::StartFailed).await;
            self.take(Fact::QemuEnded { clean: false }).await;
        }
    }

    fn start(&mut self, Granted { welcome, mac, netdev, net, kvm }: Granted) -> anyhow::Result<()> {
        let disk = self.storage.disk();
        self.accelerator = if kvm.is_some() { Accelerator::Kvm } else { Accelerator::Tcg };
        let boot = match &self.boot {
            BootFiles::Kernel { append, .. } => {
                let more = append.as_deref().map(|words| format!(" {words}")).unwrap_or_default();
                let Welcome { seat, host_name, lan, .. } = &welcome;
                Boot::Kernel { append: format!("seat={seat} name={host_name} lan={lan}{more}") }
            }
            BootFiles::Disks { cdrom, .. } => {
                let disk = disk.map(|(base, disk)| HardDisk {
                    format: base.format,
                    lock_base: base.lockable,
                    overlay: disk.overlay.clone(),
                    write_through: self.config.write_through,
                });
                Boot::Disks { disk, cdrom: cdrom.is_some() }
            }
        };
        let spec = MachineSpec {
            instance: self.config.instance.clone(),
            work_dir: self.run_dir.path().to_owned(),
            memory: self.config.memory,
            boot,
            nic: self.config.nic,
            mac,
            netdev,
            video: self.config.video,
            accelerator: self.accelerator,
            vnc: self.config.vnc,
        };
        let log = self.run_dir.serial_log();
        let base = disk.map(|(base, _)| base);
        let qemu = Qemu::start(&self.program, &spec, log, &self.boot, base, net.as_ref(), kvm.as_ref())?;
        tracing::info!(pid = qemu.pid(), accelerator = self.accelerator.as_str(), "QEMU started");
        self.signs.qemu.fail("starting");
        self.signs.startup.our_turn();
        self.qemu = Some(qemu);
        self.opening = Some(Box::pin(qemu::monitor_up(self.run_dir.monitor(Monitor::Runner))));
        Ok(())
    }

    async fn monitor_up(&mut self, mut monitor: Qmp<UnixStream>) {
        // What runs, not what was asked for.
        match monitor.execute(qmp::query_kvm {}).await {
            Ok(kvm) => self.accelerator = if kvm.enabled { Accelerator::Kvm } else { Accelerator::Tcg },
            Err(error) => tracing::warn!(error = %chain(&error), "QEMU does not say what accelerates it"),
        }
        let ask = qmp::human_monitor_command { command_line: "info network".to_owned(), cpu_index: None };
        match monitor.execute(ask).await {
            Ok(said) => self.netdev = netdev::backend(&said).map(str::to_owned),
            Err(error) => tracing::warn!(error = %chain(&error), "QEMU does not say what the guest's card is on"),
        }
        self.monitor = Some(monitor);
        self.pulse = Pulse::default();
        self.qemu_beat = Some(self.signs.qemu_beat(self.config.stuck_after));
        self.signs.qemu.hold();
        self.take(Fact::MonitorUp).await;
    }

    async fn ended(&mut self, status: std::io::Result<ExitStatus>) {
        use std::os::unix::process::ExitStatusExt as _;
        let Some(mut qemu) = self.qemu.take() else { return };
        // Why it ended may stand unread; what was written before the end can be read after it.
        if let Some(mut monitor) = self.monitor.take() {
            while let Ok(Ok(event)) = timeout(LAST_EVENTS_LIMIT, monitor.event()).await {
                self.event(&event).await;
            }
        }
        self.qemu_beat = None;
        self.netdev = None;
        self.kept = Kept::Nothing;
        self.held = None;
        self.bus = None;
        self.opening = None;
        self.late_at = None;
        self.cable.gone();
        self.signs.qemu.fail("it ended");
        let (code, signal) = match &status {
            Ok(status) => (status.code(), status.signal()),
            Err(_) => (None, None),
        };
        let stderr_tail = qemu.last_words().await;
        let comes_back = self.life.comes_back();
        let asked = self.life.asked() || comes_back;
        if comes_back {
            self.tell_exit(Exited { code, signal, stderr_tail: stderr_tail.clone(), asked, comes_back }).await;
        }
        self.take(Fact::QemuEnded { clean: code == Some(0) && !self.signalled }).await;
        self.signalled = false;
        let failed = matches!(self.life.state(), State::Ended(code) if code != 0);
        if failed {
            tracing::error!(pid = qemu.pid(), ?code, ?signal, said = stderr_tail, "QEMU ended");
        } else {
            tracing::info!(pid = qemu.pid(), ?code, ?signal, asked, "QEMU ended");
        }
        if !comes_back {
            self.tell_exit(Exited { code, signal, stderr_tail, asked, comes_back }).await;
        }
    }

    async fn tell_exit(&mut self, exited: Exited) {
        if self.link.is_attached() {
            let exited = FromRunner::Exited(exited);
            if let Err(reason) = self.link.send(&exited, &[]).await {
                tracing::info!(reason, "the agent could not be told");
            }
        }
    }
}
