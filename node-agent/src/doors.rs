//! Where runners come in: one door per seat directory, one way through each.
//!
//! ```text
//!   seats/instance-3/agent.sock   without a kubelet: the directory's name says whose door it is
//!   seats/slot-2/agent.sock       with one: the kubelet says which pod holds slot-2
//!          │ accept; Hello within 2 s
//!          v
//!   whose is it? ──> placed here? ──> Candidate ──> the instance's actor, which checks the claims and welcomes or refuses
//! ```
//! **Invariants.** Who speaks is known by the door, never by what is said: a Hello is a claim. A door whose socket somebody removed is
//! made anew; its directory is reused and never replaced, as a container has it mounted. What waits in here is bounded; who comes
//! beyond that waits in the socket.
use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::InstanceId;
use plugin::{Refused, SOCKET, Slot};
use seat::{FromRunner, Hello, SeatListener, SeatSocket, SocketError};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{self, MissedTickBehavior},
};
use tracing::{debug, warn};

use crate::{
    instance::{Candidate, Instance, Refusal, refuse},
    proof::Prover,
    seats::Instances,
};

/// How often a door is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// A runner says Hello at once; who connects and is silent is somebody else.
const HELLO_LIMIT: Duration = Duration::from_secs(2);
/// How long a runner is kept waiting for the directory to place it here: its container may start before the agent has read of it.
const PLACED_LIMIT: Duration = Duration::from_secs(5);
/// Runners at one door. Full = the next one waits in the socket.
const CALLERS_MAX: usize = 4;
/// Pause after `accept` failed, which it does when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How a door stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DoorState {
    Open,
    /// Its socket could not be made: a sentence with the remedy. It is tried again.
    Shut(String),
}

/// How it is known who speaks at a door.
#[derive(Debug, Clone)]
pub(crate) enum Naming {
    /// It is the door of that instance alone.
    Directory(InstanceId),
    /// It is whoever the kubelet gave the slot to.
    Proof { slot: Slot, prover: Arc<Prover> },
}

/// Hears how a door stands, at each change.
pub(crate) type Tell = Box<dyn Fn(DoorState) + Send + Sync>;

/// A door that is kept open until it is dropped. Its directory and socket stay.
#[derive(Debug)]
pub(crate) struct Door(Task);

/// A task that ends when this is dropped.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Door {
    /// Keeps `folder` open: who comes in is brought to the instance among `instances`.
    pub(crate) fn keep(folder: PathBuf, naming: Naming, instances: watch::Receiver<Instances>, tell: Tell) -> Self {
        Self(Task(tokio::spawn(keep(folder, Usher { naming, instances }, tell))))
    }

    /// Stops keeping it; its socket is not made again when this returns.
    pub(crate) async fn shut(mut self) {
        self.0.0.abort();
        // Aborted is what it is meant to be.
        (&mut self.0.0).await.ok();
    }
}

async fn keep(folder: PathBuf, usher: Usher, tell: Tell) {
    let mut tick = time::interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut acceptor: Option<Task> = None;
    let mut told = None;
    loop {
        tick.tick().await;
        // A socket that somebody removed leaves a listener that nobody can reach.
        if acceptor.as_ref().is_some_and(|task| !task.0.is_finished()) && folder.join(SOCKET).exists() {
            continue;
        }
        acceptor = None;
        let state = match open(&folder) {
            Ok(listener) => {
                acceptor = Some(Task(tokio::spawn(accept(listener, usher.clone()))));
                DoorState::Open
            }
            Err(error) => DoorState::Shut(format!(
                "its seat socket in {} could not be made: {error}; free the place or choose a shorter --run-dir",
                folder.display()
            )),
        };
        if told.as_ref() != Some(&state) {
            tell(state.clone());
            told = Some(state);
        }
    }
}

/// Directory 0755 and socket 0666: who has the mount of the directory may speak, and every claim is checked (docs/adr/0005).
fn open(folder: &Path) -> io::Result<SeatListener> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    SeatListener::bind(&folder.join(SOCKET))
}

/// Removes the door of an instance that is not placed here (any more). A directory that holds something else stays.
pub(crate) fn remove(folder: &Path) {
    for outcome in [fs::remove_file(folder.join(SOCKET)), fs::remove_dir(folder)] {
        if let Err(error) = outcome
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(folder = %folder.display(), %error, "a seat's directory was left");
        }
    }
}

/// Accepts connections for ever.
async fn accept(listener: SeatListener, usher: Usher) {
    let mut callers = JoinSet::new();
    loop {
        while callers.len() >= CALLERS_MAX {
            callers.join_next().await;
        }
        match listener.accept().await {
            Ok(socket) => {
                let usher = usher.clone();
                callers.spawn(async move { usher.receive(socket).await });
            }
            Err(error) => {
                warn!(naming = ?usher.naming, %error, "could not accept on the seat socket; raise the limit of open files if this stays");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while callers.try_join_next().is_some() {}
    }
}

/// Brings who comes in to where they belong.
#[derive(Debug, Clone)]
struct Usher {
    naming: Naming,
    instances: watch::Receiver<Instances>,
}

impl Usher {
    async fn receive(&self, socket: SeatSocket) {
        let refusal = match hear(&socket).await {
            Ok(Some(hello)) => match self.find().await {
                // An instance that is being taken down drops the candidate, which ends the connection: it comes again.
                Ok(instance) => return instance.meet(Candidate { socket, hello }).await,
                Err(refusal) => {
                    warn!(door = ?self.naming, claims = hello.instance, reason = refusal.reason, "runner refused");
                    refusal
                }
            },
            Ok(None) => return,
            Err(refusal) => {
                debug!(door = ?self.naming, reason = refusal.reason, "a connection to the seat socket was refused");
                refusal
            }
        };
        refuse(&socket, refusal).await;
    }

    /// The instance that this door leads to now.
    async fn find(&self) -> Result<Arc<Instance>, Refusal> {
        let id = match &self.naming {
            Naming::Directory(id) => id.clone(),
            Naming::Proof { slot, prover } => prover.prove(*slot).await?,
        };
        let mut instances = self.instances.clone();
        let placed = time::timeout(PLACED_LIMIT, instances.wait_for(|here| here.contains_key(&id))).await;
        if let Ok(Ok(here)) = placed
            && let Some(instance) = here.get(&id)
        {
            return Ok(Arc::clone(instance));
        }
        if let Naming::Proof { prover, .. } = &self.naming {
            prover.refused(Refused::NotPlaced);
        }
        Err(Refusal::new(
            format!("the directory does not place {id} on this node"),
            "wait; if this stays, look at the agent's problems, and whether another pod has its seat",
        ))
    }
}

/// Reads the Hello; `None` when the caller has left. Anything else is refused in words.
async fn hear(socket: &SeatSocket) -> Result<Option<Hello>, Refusal> {
    match time::timeout(HELLO_LIMIT, socket.receive::<FromRunner>()).await {
        Ok(Ok((FromRunner::Hello(hello), _))) => Ok(Some(hello)),
        Ok(Ok(_)) => Err(Refusal::new("the first message must be Hello", "connect again and say Hello first")),
        Ok(Err(SocketError::Closed)) => Ok(None),
        Ok(Err(error)) => Err(Refusal::new(error.to_string(), "speak the seat protocol")),
        Err(_) => Err(Refusal::new(
            format!("no Hello within {} s", HELLO_LIMIT.as_secs()),
            "connect again and say Hello at once",
        )),
    }
}
