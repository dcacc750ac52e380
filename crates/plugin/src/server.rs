//! What the kubelet asks of a device plugin: from its messages to the decisions in [`crate::slots`] and back.
use std::{path::PathBuf, sync::Arc};

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    CONTAINER_DIR, Metrics, Refused,
    proto::v1beta1::{
        AllocateRequest, AllocateResponse, ContainerAllocateResponse, ContainerPreferredAllocationResponse, Device,
        DevicePluginOptions, Empty, ListAndWatchResponse, Mount, PreStartContainerRequest, PreStartContainerResponse,
        PreferredAllocationRequest, PreferredAllocationResponse, device_plugin_server::DevicePlugin,
    },
    slots::{Doors, grant, prefer},
};

/// Lists that may wait for the kubelet. Full = the next one waits, and is then the newest: lists in between are skipped.
const LISTS_MAX: usize = 1;

/// What was registered: the kubelet need not ask before a container starts (a start that needs an agent would fail while it is
/// being replaced, and proves nothing that the runner's connection does not prove), and does ask which slot is preferred.
pub(crate) const OPTIONS: DevicePluginOptions =
    DevicePluginOptions { pre_start_required: false, get_preferred_allocation_available: true };

/// One listening plugin.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) seats_dir: PathBuf,
    pub(crate) doors: watch::Receiver<Doors>,
    pub(crate) metrics: Metrics,
    /// How many streams of lists are open.
    pub(crate) watchers: Arc<watch::Sender<usize>>,
    /// Ends, with its sender, all streams of lists.
    pub(crate) stop: watch::Receiver<()>,
}

/// Counts a stream for as long as it is open.
struct Watcher(Arc<watch::Sender<usize>>);

impl Watcher {
    fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(Arc::clone(count))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

fn list(doors: &Doors) -> ListAndWatchResponse {
    let device = |(slot, open): (&crate::Slot, &bool)| Device {
        id: slot.to_string(),
        health: if *open { "Healthy" } else { "Unhealthy" }.to_owned(),
    };
    ListAndWatchResponse { devices: doors.iter().map(device).collect() }
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    type ListAndWatchStream = ReceiverStream<Result<ListAndWatchResponse, Status>>;

    async fn get_device_plugin_options(&self, _: Request<Empty>) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(OPTIONS))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let (sender, stream) = mpsc::channel(LISTS_MAX);
        let (mut doors, mut stop) = (self.doors.clone(), self.stop.clone());
        let watcher = Watcher::new(&self.watchers);
        tokio::spawn(async move {
            let _counted = watcher;
            loop {
                let lists = list(&doors.borrow_and_update());
                tracing::debug!(devices = lists.devices.len(), "telling the kubelet the slots");
                let next = async {
                    sender.send(Ok(lists)).await.ok()?;
                    doors.changed().await.ok()
                };
                tokio::select! {
                    next = next => if next.is_none() { return },
                    () = sender.closed() => return,
                    // An error is the end of the sender, which is how it is said.
                    _ = stop.changed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let requests = request.into_inner().container_requests.into_iter();
        let container_responses = requests.map(|request| {
            let size = usize::try_from(request.allocation_size).unwrap_or_default();
            let device_ids = prefer(&request.available_device_ids, &request.must_include_device_ids, size);
            ContainerPreferredAllocationResponse { device_ids }
        });
        Ok(Response::new(PreferredAllocationResponse { container_responses: container_responses.collect() }))
    }

    async fn allocate(&self, request: Request<AllocateRequest>) -> Result<Response<AllocateResponse>, Status> {
        let mut container_responses = Vec::new();
        for container in request.into_inner().container_requests {
            let granted = grant(&container.devices_ids, &self.doors.borrow(), &self.seats_dir);
            let granted = granted.map_err(|refusal| {
                tracing::warn!(reason = %refusal, "a container gets no slot");
                self.metrics.refused(Refused::Allocation);
                Status::failed_precondition(refusal.to_string())
            })?;
            tracing::info!(slot = %granted.slot, "slot given to a container");
            self.metrics.allocations.inc();
            container_responses.push(ContainerAllocateResponse {
                envs: granted.envs.into_iter().collect(),
                mounts: vec![Mount {
                    container_path: CONTAINER_DIR.to_owned(),
                    host_path: granted.host_dir.display().to_string(),
                    read_only: true,
                }],
            });
        }
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        // Not asked for in the options; a kubelet that asks all the same is not kept from starting its container.
        Ok(Response::new(PreStartContainerResponse {}))
    }
}
