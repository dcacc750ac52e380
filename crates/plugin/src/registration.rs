//! Listens for the kubelet and registers with it, for as long as the agent lives.
//!
//! ```text
//!   Away ── kubelet.sock is there: listen at loco.sock, Register ──> Registered, not watched ── ListAndWatch ──> watched
//!    ^                                                                   │ 5 s without a watcher                  │
//!    └── kubelet.sock is another one, loco.sock is gone, no answer ──────┴─────────────────────────────────────────┘
//! ```
//! **Invariant.** Level-triggered: nothing hangs on one event. A kubelet that was restarted is known by its socket's inode and change
//! time; it removes the sockets of all plugins first, so ours may be the first to go. An agent that ends in order takes its socket
//! along, so that an uninstalled one leaves nothing; one that was killed leaves it for the next to replace.
use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::UnixListener,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::{
    Metrics, PluginError, RESOURCE,
    podresources::{connect, refused},
    proto::v1beta1::{
        RegisterRequest, device_plugin_server::DevicePluginServer, registration_client::RegistrationClient,
    },
    server::{OPTIONS, Service},
    slots::Doors,
};

/// The version of the API that the kubelet asks for.
const VERSION: &str = "v1beta1";
/// Our socket's name in the kubelet's directory of plugins.
const ENDPOINT: &str = "loco.sock";
/// How often the sockets are looked at: two `stat` calls.
const POLL: Duration = Duration::from_millis(250);
/// The kubelet answers a registration in milliseconds, and asks for the list within it or right after.
const REGISTER_LIMIT: Duration = Duration::from_secs(5);
/// A kubelet that registered us and does not watch has forgotten us, or is gone.
const UNWATCHED_LIMIT: Duration = Duration::from_secs(5);

/// Where the kubelet is, and where the slots' directories are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginConfig {
    /// Usually `/var/lib/kubelet`.
    pub kubelet_dir: PathBuf,
    /// Parent of the slots' directories, as the host calls it.
    pub seats_dir: PathBuf,
}

/// How it stands with the kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not registered: a sentence with the remedy.
    Away(String),
    /// Registered; the kubelet has not asked for the list yet, or no longer does.
    Unwatched,
    /// The kubelet knows the slots and hears of each change.
    Watched,
}

/// The device plugin. Nothing happens until [`Plugin::run`].
#[derive(Debug)]
pub struct Plugin {
    config: PluginConfig,
    doors: watch::Receiver<Doors>,
    metrics: Metrics,
    state: watch::Sender<State>,
}

impl Plugin {
    /// `doors`: the slots, each with whether it can be given away now; the kubelet hears of each change.
    pub fn new(config: PluginConfig, doors: watch::Receiver<Doors>, metrics: Metrics) -> Self {
        let state = watch::Sender::new(State::Away("not registered yet".to_owned()));
        Self { config, doors, metrics, state }
    }

    /// How it stands with the kubelet, from now on.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Runs until it is dropped; what fails is said in the state and tried again.
    pub async fn run(self) -> Infallible {
        loop {
            let why = match self.session().await {
                Ok(why) => why.to_owned(),
                Err(error) => chain(&error),
            };
            self.metrics.registered.set(0);
            let news = State::Away(why.clone());
            if *self.state.borrow() != news {
                tracing::warn!(reason = why, "the kubelet does not know the slots; registering anew");
            }
            self.state.send_replace(news);
            sleep(POLL).await;
        }
    }

    /// Listens, registers, and stays until that no longer holds; says why.
    async fn session(&self) -> Result<&'static str, PluginError> {
        let plugins = self.config.kubelet_dir.join("device-plugins");
        let (kubelet, ours) = (plugins.join("kubelet.sock"), plugins.join(ENDPOINT));
        let met = Identity::of(&kubelet).ok_or_else(|| PluginError::NoKubelet { path: kubelet.clone() })?;
        let listener = listen(&ours).map_err(|source| PluginError::Listen { path: ours.clone(), source })?;
        let made = Identity::of(&ours);
        let _removed = OwnSocket { path: ours.clone(), made };

        // Dropping `stop` ends the streams and, with them, the server: an aborted server would leave its connections behind.
        let (stop, mut stopped) = watch::channel(());
        let watchers = Arc::new(watch::Sender::new(0));
        let mut watching = watchers.subscribe();
        let service = Service {
            seats_dir: self.config.seats_dir.clone(),
            doors: self.doors.clone(),
            metrics: self.metrics.clone(),
            watchers,
            stop: stop.subscribe(),
        };
        let mut server =
            tokio::spawn(Server::builder().add_service(DevicePluginServer::new(service)).serve_with_incoming_shutdown(
                UnixListenerStream::new(listener),
                async move {
                    drop(stopped.changed().await);
                },
            ));
        register(&kubelet).await?;
        self.metrics.registrations.inc();
        tracing::info!(resource = RESOURCE, kubelet = %kubelet.display(), "registered with the kubelet");

        let mut watched_at = Instant::now();
        let mut doors = self.doors.clone();
        loop {
            let state = if *watching.borrow_and_update() > 0 { State::Watched } else { State::Unwatched };
            if state == State::Watched {
                watched_at = Instant::now();
            }
            self.metrics.registered.set(i64::from(state == State::Watched));
            let open = doors.borrow_and_update().values().filter(|open| **open).count();
            self.metrics.slots.set(i64::try_from(open).unwrap_or(i64::MAX));
            self.state.send_if_modified(|old| std::mem::replace(old, state.clone()) != state);
            if Identity::of(&kubelet) != Some(met) {
                return Ok("the kubelet was restarted");
            }
            if Identity::of(&ours) != made {
                return Ok("our socket was removed, as a kubelet that starts does");
            }
            if watched_at.elapsed() > UNWATCHED_LIMIT {
                return Ok("the kubelet does not ask for the slots");
            }
            tokio::select! {
                ended = &mut server => {
                    let source = match ended {
                        Ok(Ok(())) => None,
                        Ok(Err(error)) => Some(error.into()),
                        Err(error) => Some(error.into()),
                    };
                    return Err(PluginError::ServerEnded(source));
                }
                Ok(()) = watching.changed() => {}
                Ok(()) = doors.changed() => {}
                () = sleep(POLL) => {}
            }
        }
    }
}

/// A socket file, as far as another one at the same path differs from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    /// An inode's number is used again at once on tmpfs; its change time is not.
    changed: (i64, i64),
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::symlink_metadata(path).ok()?;
        Some(Self { device: meta.dev(), inode: meta.ino(), changed: (meta.ctime(), meta.ctime_nsec()) })
    }
}

/// Our socket, removed when this goes, unless another has taken its place.
struct OwnSocket {
    path: PathBuf,
    made: Option<Identity>,
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        if self.made.is_some() && Identity::of(&self.path) == self.made {
            // One that cannot be removed is replaced by the next agent.
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Takes the place of whatever an earlier agent left at `path`.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

async fn register(kubelet: &Path) -> Result<(), PluginError> {
    const CALL: &str = "Register";
    let request = RegisterRequest {
        version: VERSION.to_owned(),
        endpoint: ENDPOINT.to_owned(),
        resource_name: RESOURCE.to_owned(),
        options: Some(OPTIONS),
    };
    let ask = async {
        let mut client = RegistrationClient::new(connect(kubelet).await?);
        client.register(request).await.map_err(|status| refused(CALL, kubelet, status))
    };
    timeout(REGISTER_LIMIT, ask).await.map_err(|_| PluginError::Silent { call: CALL, limit: REGISTER_LIMIT })??;
    Ok(())
}

/// An error with its causes, in one line.
fn chain(error: &PluginError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
