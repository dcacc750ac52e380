//! The supervisor: starts the wall's processes, restarts whichever ends, and writes down what runs.
//!
//! ```text
//!            spawn                    ends                        0.2 s … 5 s
//!  ──> starting ──> running ──────────────────────> waiting ──────────────────> starting
//!                      │  a runner ends with 0: its guest switched itself off
//!                      ├──────────────────────────> off (until the wall ends)
//!                      │  the wall ends: TERM, after a grace KILL
//!                      └──────────────────────────> ended
//! ```
//! **Invariants.** One task per child owns it. No child dies with another, nor with the supervisor. The wall ends in
//! order: guests first (they power off cleanly and their agents still serve them), then agents, then the gateway.
use std::{ffi::OsString, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, interval, timeout},
};
use tracing::{error, info, warn};

use crate::{
    argv,
    backoff::Backoff,
    logs, netns,
    paths::{MARKER, Paths},
    plan::Wall,
    processes,
    siblings::Siblings,
    state::{ChildState, Role, State},
};

/// The longest that an orderly end of the wall takes.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(40);
const LOG_LOOK: Duration = Duration::from_secs(5);

/// A process to keep running.
#[derive(Debug, Clone)]
struct Spec {
    role: Role,
    program: PathBuf,
    argv: Vec<OsString>,
    namespace: Option<PathBuf>,
}

/// What ends now; everything of a lower stage has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    Guests,
    Agents,
    Gateway,
}

/// Time for a guest to power off, between TERM and KILL of its runner.
pub(crate) const RUNNER_GRACE: Duration = Duration::from_secs(20);

impl Role {
    const fn ends_at(&self) -> Stage {
        match self {
            Self::Runner(_) => Stage::Guests,
            Self::Agent(_) => Stage::Agents,
            Self::Gateway => Stage::Gateway,
        }
    }

    /// Between TERM and KILL.
    const fn grace(&self) -> Duration {
        match self {
            Self::Runner(_) => RUNNER_GRACE,
            Self::Agent(_) | Self::Gateway => Duration::from_secs(5),
        }
    }
}

fn specs(wall: &Wall, paths: &Paths, siblings: &Siblings) -> Vec<Spec> {
    let agents = wall.nodes.iter().map(|node| Spec {
        role: Role::Agent(node.name.clone()),
        program: siblings.node_agent.clone(),
        argv: argv::agent(wall, paths, node),
        namespace: Some(paths.namespace(&node.name)),
    });
    let gateway = Spec {
        role: Role::Gateway,
        program: siblings.gateway.clone(),
        argv: argv::gateway(wall, paths),
        namespace: None,
    };
    let runners = wall.instances.iter().map(|instance| Spec {
        role: Role::Runner(instance.id.clone()),
        program: siblings.guest_runner.clone(),
        argv: argv::runner(wall, paths, instance, &wall.work_dir(paths, &instance.id)),
        namespace: Some(paths.namespace(&instance.node)),
    });
    agents.chain([gateway]).chain(runners).collect()
}

/// Runs the wall until `stop` resolves, then ends it in order.
pub(crate) async fn run(wall: &Wall, paths: &Paths, stop: impl Future<Output = ()>) -> Result<()> {
    let siblings = Siblings::find()?;
    let (phase, phases) = watch::channel(Stage::Running);
    // Bounded: a child cannot report faster than it is restarted, and waits when this is full.
    let (reports, mut reported) = mpsc::channel(64);
    let mut keepers = JoinSet::new();
    let mut state = State { supervisor_pid: std::process::id(), children: Vec::new() };
    for spec in specs(wall, paths, &siblings) {
        state.children.push(ChildState::new(spec.role.clone()));
        keepers.spawn(keep(spec, paths.clone(), phases.clone(), reports.clone()));
    }
    drop(reports);
    state.write(paths)?;
    let mut look = interval(LOG_LOOK);
    tokio::pin!(stop);
    let mut stopping = false;
    loop {
        tokio::select! {
            child = reported.recv() => match child {
                Some(child) => note(&mut state, child, paths, &phase),
                None => break,
            },
            () = &mut stop, if !stopping => {
                info!("the wall ends");
                stopping = true;
                phase.send_replace(Stage::Guests);
                advance(&state, &phase);
            }
            _ = look.tick() => {
                if let Err(error) = logs::rotate(&paths.logs(), logs::CAP) {
                    warn!(error = format!("{error:#}"), "cannot rotate logs");
                }
            }
        }
    }
    while let Some(ended) = keepers.join_next().await {
        ended.context("a keeper of a process panicked")?;
    }
    Ok(())
}

fn note(state: &mut State, child: ChildState, paths: &Paths, phase: &watch::Sender<Stage>) {
    if let Some(old) = state.children.iter_mut().find(|old| old.role == child.role) {
        *old = child;
    }
    advance(state, phase);
    if let Err(error) = state.write(paths) {
        error!(error = format!("{error:#}"), "cannot write down what runs");
    }
}

/// Moves on once everything of the present stage has ended.
fn advance(state: &State, phase: &watch::Sender<Stage>) {
    let runs = |at: Stage| state.children.iter().any(|child| child.role.ends_at() == at && child.pid.is_some());
    loop {
        let now = *phase.borrow();
        let next = match now {
            Stage::Guests if !runs(now) => Stage::Agents,
            Stage::Agents if !runs(now) => Stage::Gateway,
            _ => return,
        };
        phase.send_replace(next);
    }
}

/// Owns one child until its stage ends.
async fn keep(spec: Spec, paths: Paths, mut phase: watch::Receiver<Stage>, reports: mpsc::Sender<ChildState>) {
    let name = spec.role.name();
    let ends = spec.role.ends_at();
    let mut backoff = Backoff::default();
    let mut state = ChildState::new(spec.role.clone());
    while *phase.borrow() < ends {
        let began = Instant::now();
        let end = match spawn(&spec, &paths) {
            Err(error) => format!("could not be started: {error:#}"),
            Ok(mut child) => {
                state.pid = child.id();
                state.starts += 1;
                info!(name, pid = state.pid, starts = state.starts, "started");
                report(&reports, &state).await;
                let ended = tokio::select! {
                    ended = child.wait() => Some(ended),
                    () = reached(&mut phase, ends) => None,
                };
                match ended {
                    None => {
                        stop(&mut child, &spec.role, &name).await;
                        state.pid = None;
                        return report(&reports, &state).await;
                    }
                    Some(Err(error)) => error.to_string(),
                    Some(Ok(status)) => {
                        state.off = status.success() && matches!(spec.role, Role::Runner(_));
                        status.to_string()
                    }
                }
            }
        };
        state.pid = None;
        let delay = backoff.after(began.elapsed());
        state.young_deaths = backoff.young_deaths();
        report(&reports, &ChildState { last_end: Some(end.clone()), ..state.clone() }).await;
        if state.off {
            info!(name, "its guest switched itself off");
            return reached(&mut phase, ends).await;
        }
        warn!(name, end, again_in_ms = delay.as_millis(), "ended");
        state.last_end = Some(end);
        // Either way the loop looks at the phase.
        timeout(delay, reached(&mut phase, ends)).await.ok();
    }
}

/// Resolves once the phase is `ends` or later; also if the supervisor is gone, as then nobody is kept alive for it.
async fn reached(phase: &mut watch::Receiver<Stage>, ends: Stage) {
    phase.wait_for(|now| *now >= ends).await.map(|_| ()).ok();
}

/// The receiver only goes away with the supervisor.
async fn report(reports: &mpsc::Sender<ChildState>, state: &ChildState) {
    if reports.send(state.clone()).await.is_err() {
        warn!("nobody listens to reports any more");
    }
}

async fn stop(child: &mut Child, role: &Role, name: &str) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok())
        && let Err(error) = processes::signal(pid, nix::sys::signal::Signal::SIGTERM)
    {
        warn!(name, error = format!("{error:#}"), "cannot ask it to end");
    }
    match timeout(role.grace(), child.wait()).await {
        Ok(Ok(status)) => info!(name, end = status.to_string(), "ended"),
        Ok(Err(error)) => warn!(name, error = error.to_string(), "cannot wait for it"),
        Err(_) => {
            warn!(name, grace_s = role.grace().as_secs(), "did not end; killed");
            if let Err(error) = child.kill().await {
                warn!(name, error = error.to_string(), "cannot kill it");
            }
        }
    }
}

fn spawn(spec: &Spec, paths: &Paths) -> Result<Child> {
    let log = logs::open(paths, &spec.role.name())?;
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.argv)
        .env(MARKER, paths.run())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C in the terminal is for the supervisor, which then ends the others in order.
        .process_group(0)
        .kill_on_drop(false);
    let runtime = tokio::runtime::Handle::current();
    let mut start = || {
        let _inside = runtime.enter();
        command.spawn().with_context(|| format!("cannot run {}", spec.program.display()))
    };
    match &spec.namespace {
        Some(namespace) => netns::inside(namespace, start),
        None => start(),
    }
}

/// SIGTERM, SIGINT and SIGHUP, caught from [`Signals::listen`] on: one that comes before somebody waits is not lost, and does
/// not end the process halfway.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Within a runtime.
    pub(crate) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Resolves once one has come.
    pub(crate) async fn told_to_stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
