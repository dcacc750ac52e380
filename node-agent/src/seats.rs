//! The instances of this node: started when the directory places them here, ended when it does so no longer; and their doors.
//!
//! ```text
//!   by instance (`loco up`):  a door comes and goes with its instance
//!   by slot (Kubernetes):     the doors are made at the start and stay; a container has them mounted, whoever comes and goes
//! ```
use std::{collections::BTreeMap, fs, io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use model::InstanceId;
use plugin::{Slot, slots::Doors};
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
};
use tracing::{info, warn};

use crate::{
    desired::SeatSpec,
    doors::{self, Door, DoorState, Naming},
    instance::{Instance, Shared},
    proof::Prover,
};

/// Those that are here now. A reader's copy stays whole while the next one is made.
pub(crate) type Instances = Arc<BTreeMap<InstanceId, Arc<Instance>>>;

/// How runners come in.
#[derive(Debug, Clone)]
pub(crate) enum Entrance {
    /// By a directory of their instance's name.
    ByInstance,
    /// By the slot that the kubelet gave their pod: so many of them.
    BySlot { slots: u16, prover: Arc<Prover> },
}

/// Owns all instances. One task calls [`Seats::reconcile`].
#[derive(Debug)]
pub(crate) struct Seats {
    shared: Shared,
    instances: watch::Sender<Instances>,
    ways: Ways,
}

#[derive(Debug)]
enum Ways {
    ByInstance(Mutex<BTreeMap<InstanceId, OwnDoor>>),
    BySlot { doors: Mutex<Vec<Door>>, open: watch::Receiver<Doors> },
}

#[derive(Debug)]
struct OwnDoor {
    door: Door,
    state: watch::Receiver<Option<DoorState>>,
}

/// Makes the directory in which the seats' directories are: 0711, so that a seat is reached only by who knows or mounts it.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn prepare(seats_dir: &Path) -> io::Result<()> {
    fs::create_dir_all(seats_dir)?;
    fs::set_permissions(seats_dir, fs::Permissions::from_mode(0o711))
}

impl Seats {
    pub(crate) fn new(shared: Shared, entrance: Entrance) -> Self {
        let instances = watch::Sender::new(Instances::default());
        let ways = match entrance {
            Entrance::ByInstance => Ways::ByInstance(Mutex::default()),
            Entrance::BySlot { slots, prover } => open_slots(&shared.seats_dir, slots, &prover, &instances),
        };
        Self { shared, instances, ways }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Instances> {
        self.instances.subscribe()
    }

    /// The slots that are offered, each with whether its door is open; `None` when runners come in by instance.
    pub(crate) fn slots(&self) -> Option<watch::Receiver<Doors>> {
        match &self.ways {
            Ways::ByInstance(_) => None,
            Ways::BySlot { open, .. } => Some(open.clone()),
        }
    }

    /// Makes the instances those of `desired`. One that changed its place on the LAN is ended and started anew: its
    /// identity is another. Doors that an earlier agent left and that are not wanted are removed.
    pub(crate) async fn reconcile(&self, desired: &BTreeMap<InstanceId, SeatSpec>) {
        let current = Arc::clone(&self.instances.borrow());
        let mut next = BTreeMap::new();
        let mut leaving = Vec::new();
        for (id, instance) in current.iter() {
            if desired.get(id) == Some(&instance.spec) {
                next.insert(id.clone(), Arc::clone(instance));
            } else {
                leaving.push(Arc::clone(instance));
            }
        }
        // Before the newcomers: one that changed its place is another instance of the same name.
        for instance in leaving {
            info!(instance = %instance.id, "no longer placed here");
            instance.leave().await;
        }
        let doors = self.open_doors(desired).await;
        for (id, spec) in desired {
            next.entry(id.clone()).or_insert_with(|| {
                info!(instance = %id, lan = %spec.lan, seat = spec.seat.0, "placed here");
                Arc::new(Instance::start(id.clone(), spec.clone(), doors.get(id).cloned(), self.shared.clone()))
            });
        }
        self.instances.send_replace(Arc::new(next));
        self.shared.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Gives each instance its door and removes all others; how they stand. Nothing to do where the doors are the slots'.
    async fn open_doors(
        &self,
        desired: &BTreeMap<InstanceId, SeatSpec>,
    ) -> BTreeMap<InstanceId, watch::Receiver<Option<DoorState>>> {
        let Ways::ByInstance(doors) = &self.ways else { return BTreeMap::new() };
        let mut doors = doors.lock().await;
        let gone: Vec<_> = doors.keys().filter(|id| !desired.contains_key(id)).cloned().collect();
        for id in gone {
            if let Some(own) = doors.remove(&id) {
                own.door.shut().await;
                doors::remove(&self.shared.seats_dir.join(id.as_str()));
            }
        }
        self.remove_stale(desired);
        for id in desired.keys() {
            doors.entry(id.clone()).or_insert_with(|| {
                let (sender, state) = watch::channel(None);
                let tell = Box::new(move |state| drop(sender.send_replace(Some(state))));
                let folder = self.shared.seats_dir.join(id.as_str());
                let door = Door::keep(folder, Naming::Directory(id.clone()), self.instances.subscribe(), tell);
                OwnDoor { door, state }
            });
        }
        doors.iter().map(|(id, own)| (id.clone(), own.state.clone())).collect()
    }

    fn remove_stale(&self, desired: &BTreeMap<InstanceId, SeatSpec>) {
        let entries = match fs::read_dir(&self.shared.seats_dir) {
            Ok(entries) => entries,
            Err(error) => {
                warn!(folder = %self.shared.seats_dir.display(), %error, "seat directories cannot be listed");
                return;
            }
        };
        for entry in entries.flatten() {
            // A name that is no instance id is not ours to remove.
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<InstanceId>().ok()) else {
                continue;
            };
            if !desired.contains_key(&id) {
                info!(instance = %id, "removing the door of an instance that is not placed here");
                doors::remove(&entry.path());
            }
        }
    }

    /// Ends all sessions of viewers, at the end of the agent. Guests, taps and seat directories stay as they are.
    pub(crate) async fn close_sessions(&self) {
        let instances = Arc::clone(&self.instances.borrow());
        // All at once: every browser then starts to look for the next agent at the same moment.
        let mut closing = JoinSet::new();
        for instance in instances.values() {
            let instance = Arc::clone(instance);
            closing.spawn(async move { instance.close_sessions().await });
        }
        closing.join_all().await;
    }

    /// Shuts the doors and ends all instances here, for another agent to take them: their runners look for it at once. Guests,
    /// taps, seat directories and sockets stay as they are.
    pub(crate) async fn let_go(&self) {
        // The doors first: a runner that was let go must not come in here again.
        let doors: Vec<_> = match &self.ways {
            Ways::ByInstance(doors) => {
                std::mem::take(&mut *doors.lock().await).into_values().map(|own| own.door).collect()
            }
            Ways::BySlot { doors, .. } => std::mem::take(&mut *doors.lock().await),
        };
        for door in doors {
            door.shut().await;
        }
        let instances = Arc::clone(&self.instances.borrow());
        for instance in instances.values() {
            instance.let_go().await;
        }
    }
}

/// Opens the doors of all slots, and of those that an agent with more slots left: a pod that holds such a one keeps its agent, while
/// nobody is given it any more.
fn open_slots(seats_dir: &Path, slots: u16, prover: &Arc<Prover>, instances: &watch::Sender<Instances>) -> Ways {
    let offered: Vec<_> = (0..slots).map(Slot).collect();
    let left = fs::read_dir(seats_dir).into_iter().flatten().flatten();
    let left = left.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|slot| !offered.contains(slot));
    let all: Vec<Slot> = offered.iter().copied().chain(left).collect();
    let (sender, open) = watch::channel(offered.iter().map(|slot| (*slot, false)).collect::<Doors>());
    let sender = Arc::new(sender);
    let doors = all.into_iter().map(|slot| {
        let sender = Arc::clone(&sender);
        let tell = Box::new(move |state| {
            if let DoorState::Shut(reason) = &state {
                warn!(%slot, reason, "the door of a slot is shut");
            }
            sender.send_if_modified(|doors| {
                let open = state == DoorState::Open;
                doors.get_mut(&slot).is_some_and(|old| std::mem::replace(old, open) != open)
            });
        });
        let naming = Naming::Proof { slot, prover: Arc::clone(prover) };
        Door::keep(seats_dir.join(slot.to_string()), naming, instances.subscribe(), tell)
    });
    Ways::BySlot { doors: Mutex::new(doors.collect()), open }
}
