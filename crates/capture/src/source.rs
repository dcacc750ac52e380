//! Capturing the taps of a node: one thread, in the namespace where they are.
//!
//! ```text
//! wanted ports --set_ports--> thread: poll(every tap's socket, wake-up pipe), each second: are these still the taps?
//!                                └─> Rings (locked once a batch) <── snapshots and followers of whoever has the handle
//! ```
//! **Invariants.** A tap that vanishes is let go and one that comes, also under the name of another, is captured within a second
//! (`LOOK_AGAIN`); the time between is a gap that snapshots tell. The thread ends with the handle. No frame is held up: these
//! are copies.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns},
};

use crate::{
    ring::{Counts, Follow, Limits, Rings, Snapshot},
    tap::{Buffers, TapSocket, now},
    write::Direction,
};

/// How often the taps are compared with the sockets, and old frames thrown away.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Batches that one tap may have before the others are looked at.
const BATCHES_IN_TURN: usize = 8;

/// Why ports cannot be captured.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("could not enter the namespace {path} to capture its taps: {source}; the agent needs CAP_SYS_ADMIN", path = path.display())]
    Namespace { path: PathBuf, source: io::Error },
    #[error("could not start the thread that captures: {0}; raise the limit of threads")]
    Thread(io::Error),
}

#[derive(Debug)]
struct Shared {
    rings: Mutex<Rings>,
    /// By instance id.
    wanted: Mutex<BTreeMap<String, Device>>,
    /// Ids of instances whose frames are fed.
    fed: Mutex<BTreeSet<String>>,
    /// Why the tap of an instance is not captured, as of the last look.
    problems: Mutex<BTreeMap<String, String>>,
}

/// Where a port's frames pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Name of a tap or macvtap.
    pub name: String,
    /// What the guest sends goes out of it, as it is a macvtap: the node's side of the guest's cable, where a tap is the guest's own.
    pub turned: bool,
}

/// The capture of a node. Dropping it ends the thread and the followers' streams.
#[derive(Debug)]
pub struct Source {
    shared: Arc<Shared>,
    /// A byte wakes the thread; its end ends it.
    wake: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Source {
    /// Captures taps of the namespace mounted at `namespace`, as [`Source::set_ports`] names them.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or no thread be started.
    pub fn start(namespace: &Path, limits: Limits) -> Result<Self, SourceError> {
        Self::begin(Some(namespace), limits)
    }

    /// Captures no taps: only what is fed.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn fed_only(limits: Limits) -> Result<Self, SourceError> {
        Self::begin(None, limits)
    }

    fn begin(namespace: Option<&Path>, limits: Limits) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Namespace { path: namespace.unwrap_or(Path::new("")).to_owned(), source };
        let file = namespace.map(File::open).transpose().map_err(failed)?;
        let (waken, wake) = io::pipe().map_err(SourceError::Thread)?;
        let shared = Arc::new(Shared {
            rings: Mutex::new(Rings::new(limits)),
            wanted: Mutex::default(),
            fed: Mutex::default(),
            problems: Mutex::default(),
        });
        let (entered, outcome) = std::sync::mpsc::sync_channel(1);
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || {
                let result = file.map_or(Ok(()), |file| setns(file, CloneFlags::CLONE_NEWNET));
                let is_inside = result.is_ok();
                // The starter waits for it.
                entered.send(result).ok();
                if is_inside {
                    Capturing::new(for_thread, waken).run();
                }
            })
            .map_err(SourceError::Thread)?;
        match outcome.recv() {
            Ok(Ok(())) => Ok(Self { shared, wake: Some(wake), thread: Some(thread) }),
            Ok(Err(errno)) => Err(failed(errno.into())),
            Err(_) => Err(SourceError::Thread(io::Error::other("it ended at once"))),
        }
    }

    /// The ports that are to be captured, by instance id. Others are forgotten, with their frames.
    pub fn set_ports(&self, ports: BTreeMap<String, Device>) {
        let mut wanted = lock(&self.shared.wanted);
        if *wanted != ports {
            *wanted = ports;
            drop(wanted);
            self.wake();
        }
    }

    /// The ports whose frames [`Source::feed`] brings, as there is no tap of theirs. Others are forgotten, with their frames.
    pub fn set_fed(&self, ports: BTreeSet<String>) {
        let mut fed = lock(&self.shared.fed);
        if *fed != ports {
            *fed = ports;
            drop(fed);
            self.wake();
        }
    }

    /// Takes a frame of a port that is fed. `bytes` are masked in place first.
    pub fn feed(&self, port: &str, at: Duration, direction: Direction, bytes: &mut [u8]) {
        let wire_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        lock(&self.shared.rings).push(port, at, direction, wire_len, bytes);
    }

    /// Looks at the taps now: something is said to have changed.
    pub fn wake(&self) {
        // A full pipe wakes as well.
        if let Some(wake) = &self.wake {
            (&mut &*wake).write_all(&[1]).ok();
        }
    }

    pub fn limits(&self) -> Limits {
        lock(&self.shared.rings).limits()
    }

    /// What a port holds. `None`: it is not captured, and never was.
    pub fn snapshot(&self, port: &str, last: Option<Duration>) -> Option<Snapshot> {
        lock(&self.shared.rings).snapshot(port, last, now())
    }

    /// What a port holds, and what comes.
    pub fn follow(&self, port: &str, last: Option<Duration>) -> Option<(Snapshot, Follow)> {
        lock(&self.shared.rings).follow(port, last, now())
    }

    /// Ends the streams of all followers: nothing more will come.
    pub fn end_followers(&self) {
        lock(&self.shared.rings).end_followers();
    }

    /// Bytes held by all rings, and counts by instance.
    pub fn counts(&self) -> (usize, Vec<(String, Counts)>) {
        let rings = lock(&self.shared.rings);
        (rings.bytes(), rings.counts().map(|(id, counts)| (id.to_owned(), counts)).collect())
    }

    /// Why instances are not captured, by id; empty when all are.
    pub fn problems(&self) -> BTreeMap<String, String> {
        lock(&self.shared.problems).clone()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // The thread ends at the pipe's end.
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // A panic of it was printed when it happened.
            thread.join().ok();
        }
        self.end_followers();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters and queues: a panic between two of them leaves nothing that could not be used.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's own state.
struct Capturing {
    shared: Arc<Shared>,
    wake: PipeReader,
    taps: BTreeMap<String, TapSocket>,
    buffers: Buffers,
}

impl Capturing {
    fn new(shared: Arc<Shared>, wake: PipeReader) -> Self {
        Self { shared, wake, taps: BTreeMap::new(), buffers: Buffers::new() }
    }

    fn run(mut self) {
        let mut looked = Instant::now();
        self.look();
        loop {
            let rest = LOOK_AGAIN.saturating_sub(looked.elapsed());
            let Some(ready) = self.wait(rest) else { return };
            for (port, is_broken) in ready.ports {
                self.read(&port);
                if is_broken {
                    // The link went down, or is no more: the look tells which.
                    looked = Instant::now();
                    self.look();
                }
            }
            if ready.is_woken || looked.elapsed() >= LOOK_AGAIN {
                looked = Instant::now();
                self.look();
            }
        }
    }

    /// Waits for frames, a wake-up or `rest`. `None`: it is over.
    fn wait(&mut self, rest: Duration) -> Option<Ready> {
        let milliseconds = u16::try_from(rest.as_millis() + 1).unwrap_or(u16::MAX);
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.taps.values().map(|tap| PollFd::new(tap.as_fd(), PollFlags::POLLIN)));
        // An interrupted wait is one in which nothing came.
        poll(&mut fds, PollTimeout::from(milliseconds)).ok();
        let events: Vec<_> = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        let (woken, taps) = events.split_first()?;
        let ready = self.taps.keys().zip(taps).filter(|(_, events)| !events.is_empty());
        let ports = ready.map(|(port, events)| (port.clone(), !(*events & !PollFlags::POLLIN).is_empty())).collect();
        let is_woken = !woken.is_empty();
        if is_woken {
            let mut bytes = [0; 64];
            match self.wake.read(&mut bytes) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return None,
            }
        }
        Some(Ready { ports, is_woken })
    }

    fn read(&mut self, port: &str) {
        let Some(tap) = self.taps.get(port) else { return };
        for _ in 0..BATCHES_IN_TURN {
            let mut rings = lock(&self.shared.rings);
            let more = tap.receive(&mut self.buffers, |frame| {
                rings.push(port, frame.at, frame.direction, frame.wire_len, frame.bytes);
            });
            match more {
                Ok(true) => {}
                // An error says that the link is down; asking for it has cleared it.
                Ok(false) | Err(_) => break,
            }
        }
    }

    /// Makes the sockets those of the taps that are there, counts what the kernel dropped, and lets the rings age.
    fn look(&mut self) {
        let wanted = lock(&self.shared.wanted).clone();
        let fed = lock(&self.shared.fed).clone();
        let mut problems = BTreeMap::new();
        let mut rings = lock(&self.shared.rings);
        let now = now();
        self.taps.retain(|port, tap| {
            rings.count_dropped_by_system(port, tap.take_dropped().into());
            let is_there =
                wanted.get(port).is_some_and(|device| if_nametoindex(device.name.as_str()) == Ok(tap.index()));
            if !is_there {
                rings.pause(port, now);
            }
            is_there
        });
        let is_gone = |id: &String| !wanted.contains_key(id) && !fed.contains(id);
        let gone: Vec<_> = rings.counts().map(|(id, _)| id.to_owned()).filter(is_gone).collect();
        for id in gone {
            rings.end(&id);
        }
        for port in &fed {
            rings.begin(port, now);
        }
        for (port, Device { name, turned }) in &wanted {
            if self.taps.contains_key(port) {
                continue;
            }
            match if_nametoindex(name.as_str())
                .map_err(io::Error::from)
                .and_then(|index| TapSocket::open(index, *turned))
            {
                Ok(tap) => {
                    rings.begin(port, now);
                    self.taps.insert(port.clone(), tap);
                }
                Err(error) => {
                    problems.insert(port.clone(), format!("tap `{name}` cannot be captured: {error}"));
                }
            }
        }
        rings.age(now);
        drop(rings);
        *lock(&self.shared.problems) = problems;
    }
}

struct Ready {
    /// Ports whose socket has something to say, and whether that is an error.
    ports: Vec<(String, bool)>,
    is_woken: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until the thread has looked, as it does when it is woken.
    fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "the thread did not look");
            thread::yield_now();
        }
    }

    #[test]
    fn ports_without_a_tap_are_fed_and_forgotten() {
        let source = Source::fed_only(Limits { bytes: 1 << 20, age: Duration::from_mins(1) }).unwrap();
        source.set_fed(["i-0".to_owned()].into());
        until(|| source.snapshot("i-0", None));
        source.feed("i-0", now(), Direction::Outbound, &mut [7; 60]);
        source.feed("i-9", now(), Direction::Outbound, &mut [7; 60]);
        let frames = source.snapshot("i-0", None).unwrap().frames;
        assert_eq!((frames.len(), frames[0].wire_len, frames[0].direction), (1, 60, Direction::Outbound));
        assert!(source.snapshot("i-9", None).is_none() && source.problems().is_empty());
        source.set_fed(BTreeSet::new());
        until(|| source.snapshot("i-0", None).is_none().then_some(()));
    }
}
