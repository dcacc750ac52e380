//! The instances of this node: started when the directory places them here, ended when it does so no longer.
use std::{collections::BTreeMap, fs, io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use model::InstanceId;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    desired::SeatSpec,
    instance::{Instance, Shared, remove_seat},
};

/// Those that are here now. A reader's copy stays whole while the next one is made.
pub(crate) type Instances = Arc<BTreeMap<InstanceId, Arc<Instance>>>;

/// Owns all instances. One task calls [`Seats::reconcile`].
#[derive(Debug)]
pub(crate) struct Seats {
    shared: Shared,
    instances: watch::Sender<Instances>,
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
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared, instances: watch::Sender::new(Instances::default()) }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Instances> {
        self.instances.subscribe()
    }

    /// Makes the instances those of `desired`. One that changed its place on the LAN is ended and started anew: its
    /// identity is another. Seats that an earlier agent left and that are not wanted are closed.
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
        // Before the newcomers: one that changed its place uses the same socket.
        for instance in leaving {
            info!(instance = %instance.id, "no longer placed here");
            instance.leave().await;
        }
        for (id, spec) in desired {
            next.entry(id.clone()).or_insert_with(|| {
                info!(instance = %id, lan = %spec.lan, seat = spec.seat.0, "placed here");
                Arc::new(Instance::start(id.clone(), spec.clone(), self.shared.clone()))
            });
        }
        self.close_stale(desired);
        self.instances.send_replace(Arc::new(next));
        self.shared.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn close_stale(&self, desired: &BTreeMap<InstanceId, SeatSpec>) {
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
                info!(instance = %id, "closing the seat of an instance that is not placed here");
                remove_seat(&self.shared.seats_dir, &id);
            }
        }
    }

    /// Ends all sessions of viewers, at the end of the agent. Guests, taps and seat directories stay as they are.
    pub(crate) async fn close_sessions(&self) {
        let instances = Arc::clone(&self.instances.borrow());
        for instance in instances.values() {
            instance.close_sessions().await;
        }
    }
}
