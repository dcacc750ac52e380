//! The thread: inside the fabric's namespace, it attaches, reads the ring, and counts.
//!
//! ```text
//! ring full to 1/16, or 20 ms ─> read ─> events (bounded; full = the newest is given up and counted)
//! wish, or 1 s ─> reconcile
//! 1 s ─> report
//! ```
use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};
use tokio::{
    io::unix::AsyncFd,
    runtime,
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval},
};

use crate::{
    Attach, Event, READ_EVERY, Report, TrafficError, Wanted,
    attachments::Attachments,
    bpffs::Pins,
    capability,
    events::{self, Places},
    programs::{Events, Programs},
    report::{LOST_CHANNEL, LOST_STALE},
};

/// Events that may wait for whoever takes them.
const EVENTS_MAX: usize = 16_384;
/// Devices are looked at this often although nobody said anything.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Records that are read at a time before anything else has its turn.
const READ_MAX: usize = 8192;

/// What the watcher is told.
#[derive(Debug, Clone)]
pub struct TrafficConfig {
    /// The fabric's namespace.
    pub netns: PathBuf,
    /// Where the BPF file system is, or is to be mounted.
    pub bpffs: PathBuf,
    /// How to attach; `None`: as the kernel can.
    pub attach: Option<Attach>,
}

/// Watching goes on until this is dropped; then the programs go on counting, if they are pinned.
#[derive(Debug)]
pub struct Traffic {
    report: watch::Receiver<Report>,
    /// Closed by the drop: the thread's sign to end.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Traffic {
    /// Loads the programs and starts the thread. Attaches nothing before `wanted` says what: until then it is `None`.
    pub async fn start(
        config: TrafficConfig,
        wanted: watch::Receiver<Option<Wanted>>,
    ) -> Result<(Self, mpsc::Receiver<Event>), TrafficError> {
        let (report_to, report) = watch::channel(Report::default());
        let (events_to, events) = mpsc::channel(EVENTS_MAX);
        let (stop, stopped) = mpsc::channel(1);
        let (ready, started) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("traffic".to_owned())
            .spawn(move || {
                let runtime = runtime::Builder::new_current_thread().enable_all().build();
                let opened = runtime.map_err(TrafficError::SpawnThread).and_then(|runtime| {
                    let _inside = runtime.enter();
                    let watcher = Watcher::open(&config, wanted, report_to, events_to)?;
                    Ok((watcher, runtime))
                });
                match opened {
                    Ok((watcher, runtime)) => {
                        // An asker that has gone ends the loop by its other channel.
                        drop(ready.send(Ok(())));
                        runtime.block_on(watcher.live(stopped));
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            })
            .map_err(TrafficError::SpawnThread)?;
        started.await.map_err(|_| TrafficError::Ended)??;
        Ok((Self { report, stop: Some(stop), thread: Some(thread) }, events))
    }

    /// The newest report. The channel closes when the thread has ended, which before the drop only a panic does.
    pub fn report(&self) -> watch::Receiver<Report> {
        self.report.clone()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the observer's thread had panicked");
        }
    }
}

struct Watcher {
    attachments: Attachments,
    ring: Events,
    /// A copy of the ring's, to be told when it fills.
    filling: AsyncFd<OwnedFd>,
    wanted: watch::Receiver<Option<Wanted>>,
    report: watch::Sender<Report>,
    events: mpsc::Sender<Event>,
    places: Places,
    epoch_offset: Duration,
    handed_over: u64,
    lost_channel: u64,
    lost_stale: u64,
    /// Of the start: nothing is pinned.
    unpinned: Option<String>,
    problems: Vec<String>,
}

impl Watcher {
    /// Leaves the calling thread inside the fabric's namespace.
    fn open(
        config: &TrafficConfig,
        wanted: watch::Receiver<Option<Wanted>>,
        report: watch::Sender<Report>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, TrafficError> {
        if let Some(name) = capability::missing() {
            return Err(TrafficError::Capability(name));
        }
        let enter = || {
            let namespace = File::open(&config.netns)?;
            setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
        };
        enter().map_err(|source| TrafficError::Namespace { path: config.netns.clone(), source })?;
        let (pins, unpinned) = match Pins::open(&config.bpffs) {
            Ok(pins) => (Some(pins), None),
            Err(error) => {
                let problem = format!(
                    "no BPF file system at {}: {error}; frames are counted only while this agent runs; mount one there \
                     (`mount -t bpf loco {}`)",
                    config.bpffs.display(),
                    config.bpffs.display()
                );
                tracing::warn!(problem, "nothing is pinned");
                (None, Some(problem))
            }
        };
        let (programs, maps, ring) = Programs::load(pins.as_ref(), config.attach)?;
        let filling = ring_fd(&ring).map_err(TrafficError::Ring)?;
        tracing::info!(attach = %programs.attach_mode(), pinned = pins.is_some(), "the observer's programs are loaded");
        Ok(Self {
            attachments: Attachments::new(programs, pins, maps),
            ring,
            filling,
            wanted,
            report,
            events,
            places: Places::new(),
            epoch_offset: events::epoch_offset().map_err(TrafficError::Ring)?,
            handed_over: 0,
            lost_channel: 0,
            lost_stale: 0,
            unpinned,
            problems: Vec::new(),
        })
    }

    async fn live(mut self, mut stopped: mpsc::Receiver<()>) {
        let ticker = |period| {
            let mut ticker = interval(period);
            ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticker
        };
        let (mut read, mut look, mut tell) = (ticker(READ_EVERY), ticker(LOOK_EVERY), ticker(REPORT_EVERY));
        loop {
            tokio::select! {
                // In this order: a ring that is always full must not keep the rest from its turn.
                biased;
                _ = stopped.recv() => return,
                Ok(()) = self.wanted.changed() => self.reconcile(),
                _ = look.tick() => self.reconcile(),
                _ = tell.tick() => self.tell(),
                _ = read.tick() => self.read(),
                Ok(mut filled) = self.filling.readable() => {
                    filled.clear_ready();
                    drop(filled);
                    self.read();
                }
            }
        }
    }

    fn reconcile(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        // Nobody has said yet what is wanted, which is not the same as nothing.
        let Some(wanted) = wanted else { return };
        // What waits in the ring belongs to the devices as they were.
        self.read();
        let problems = self.attachments.reconcile(&wanted);
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            tracing::warn!(problem, "the observer does not see all");
        }
        self.problems = problems;
        self.places = self.attachments.places();
        self.tell();
    }

    fn tell(&mut self) {
        // The clock of the day may be set, or pulled straight.
        if let Ok(offset) = events::epoch_offset() {
            self.epoch_offset = offset;
        }
        let mut report = self.attachments.report();
        report.lost.insert(LOST_CHANNEL, self.lost_channel);
        report.lost.insert(LOST_STALE, self.lost_stale);
        report.events = self.handed_over;
        report.problem = self.unpinned.iter().chain(&self.problems).next().cloned();
        self.report.send_if_modified(|old| {
            let differs = *old != report;
            *old = report;
            differs
        });
    }

    fn read(&mut self) {
        // Before the first look nobody knows whose the devices are; events of an earlier agent's time can wait.
        if self.wanted.borrow().is_none() || (self.places.is_empty() && self.handed_over == 0) {
            return;
        }
        for _ in 0..READ_MAX {
            let Some(record) = self.ring.next() else { return };
            let Some(event) = events::decode(&record, self.epoch_offset, &self.places) else {
                self.lost_stale += 1;
                continue;
            };
            drop(record);
            match self.events.try_send(event) {
                Ok(()) => self.handed_over += 1,
                Err(mpsc::error::TrySendError::Full(_) | mpsc::error::TrySendError::Closed(_)) => {
                    self.lost_channel += 1;
                }
            }
        }
    }
}

fn ring_fd(ring: &Events) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = ring.as_fd().try_clone_to_owned()?;
    // SAFETY: the `AsyncFd` owns the open fd, and nothing replaces it while it does.
    #[expect(unsafe_code, reason = "tokio has no safe constructor any more")]
    let fd = unsafe { AsyncFd::register(fd) }?;
    Ok(fd)
}
