//! Where an agent serves: its run directory and its API's address, which only one agent of a node has at a time.
//!
//! **Invariant.** An agent that stands by for another binds nothing until it has the lock; one that does not is refused in words, by
//! the address first, as that names who is in the way.
use std::{fs, io, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use telemetry::Health;
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{self, Instant},
};
use tracing::info;

use crate::{
    config::Config,
    seats,
    standby::{self, Lock, Phase, Teller},
};

/// How long an agent waits for what its predecessor held.
const SUCCESSION_LIMIT: Duration = Duration::from_secs(1);
const SUCCESSION_PAUSE: Duration = Duration::from_millis(10);

/// Where this agent is to serve.
pub(crate) enum Place {
    /// Nobody else does.
    Taken(TcpListener, Lock),
    /// Another agent serves from the run directory.
    Awaited,
}

impl Place {
    /// Makes the run directory and takes it for this process, with the API's address.
    ///
    /// # Errors
    /// When another agent has them and this one is not to stand by, or they cannot be had at all.
    pub(crate) async fn claim(config: &Config) -> anyhow::Result<Self> {
        if config.stand_by {
            make_run_dir(config)?;
            return match standby::try_lock(&standby::lock_file(&config.run_dir)) {
                Ok(lock) => Ok(Self::Taken(listen(config.listen).await?, lock)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Self::Awaited),
                Err(error) => Err(error).with_context(|| run_dir_unusable(config)),
            };
        }
        let listener = listen(config.listen).await?;
        make_run_dir(config)?;
        let path = standby::lock_file(&config.run_dir);
        let lock = succeed(io::ErrorKind::WouldBlock, async || standby::try_lock(&path)).await.with_context(|| {
            format!(
                "--run-dir {} is in use by another agent; end that one, or choose another directory",
                config.run_dir.display()
            )
        })?;
        Ok(Self::Taken(listener, lock))
    }

    /// Waits until it is ours.
    ///
    /// # Errors
    /// When it cannot be had although nobody has it.
    pub(crate) async fn take_over(
        self,
        config: &Config,
        phase: &watch::Sender<Phase>,
    ) -> anyhow::Result<(TcpListener, Lock)> {
        if let Self::Taken(listener, lock) = self {
            return Ok((listener, lock));
        }
        info!(run_dir = %config.run_dir.display(), "another agent serves here; standing by until it ends");
        phase.send_replace(Phase::StandsBy);
        let since = Instant::now();
        let lock =
            standby::wait(standby::lock_file(&config.run_dir)).await.with_context(|| run_dir_unusable(config))?;
        info!(stood_by = ?since.elapsed(), "the other agent let go; taking over");
        Ok((listen(config.listen).await?, lock))
    }
}

fn run_dir_unusable(config: &Config) -> String {
    format!("--run-dir {} cannot be used; free it or choose another", config.run_dir.display())
}

fn make_run_dir(config: &Config) -> anyhow::Result<()> {
    let made = fs::create_dir_all(&config.run_dir);
    let made = made.and_then(|()| seats::prepare(&config.run_dir));
    made.and_then(|()| seats::prepare(&config.run_dir.join("seats"))).with_context(|| run_dir_unusable(config))
}

pub(crate) fn open_teller(
    config: &Config,
    phase: &watch::Sender<Phase>,
    health: &Health,
) -> anyhow::Result<Option<Teller>> {
    let open = |path: &PathBuf| {
        Teller::open(path, phase.subscribe(), health.clone()).with_context(|| {
            format!("--probe-socket {} cannot be made; give a path in a directory that can be written", path.display())
        })
    };
    config.probe_socket.as_ref().map(open).transpose()
}

/// Tries `take` for a moment while it fails with `taken`: after a kill, a supervisor may be faster than the kernel is in
/// closing the sockets and locks of the dead.
pub(crate) async fn succeed<T>(taken: io::ErrorKind, mut take: impl AsyncFnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + SUCCESSION_LIMIT;
    loop {
        match take().await {
            Err(error) if error.kind() == taken && Instant::now() < deadline => time::sleep(SUCCESSION_PAUSE).await,
            outcome => return outcome,
        }
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    succeed(io::ErrorKind::AddrInUse, async || TcpListener::bind(address).await).await.map_err(|error| {
        let remedy = if error.kind() == io::ErrorKind::AddrInUse {
            "end what uses it (`ss -ltnp` shows it), or choose another port"
        } else {
            "give an address of this node and a port that this user may open"
        };
        anyhow::Error::new(error).context(format!("--listen {address} cannot be used; {remedy}"))
    })
}
