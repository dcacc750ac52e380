//! The kubelet's side of both protocols, over real Unix sockets in a directory of the test's: it takes registrations, calls the
//! plugin back, and lists what it gave to which pod. Not the kubelet's logic, only its end of the wire.
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
};
use tokio_stream::{StreamExt as _, wrappers::UnixListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Endpoint, Server},
};

use crate::{
    RESOURCE, Slot,
    proto::{
        v1::{
            ContainerDevices, ContainerResources, ListPodResourcesRequest, ListPodResourcesResponse, PodResources,
            pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer},
        },
        v1beta1::{
            AllocateRequest, ContainerAllocateRequest, ContainerPreferredAllocationRequest, Empty,
            ListAndWatchResponse, PreferredAllocationRequest, RegisterRequest,
            device_plugin_client::DevicePluginClient,
            registration_server::{Registration, RegistrationServer},
        },
    },
};

/// Registrations that may wait to be looked at. Full = the plugin waits for its answer.
const REGISTRATIONS_MAX: usize = 16;

/// What a plugin said when it registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    pub version: String,
    pub endpoint: String,
    pub resource: String,
    pub pre_start_required: bool,
}

/// What a container was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    pub envs: std::collections::BTreeMap<String, String>,
    /// Path on the host, path in the container, whether it is read-only.
    pub mounts: Vec<(String, String, bool)>,
}

/// Who holds what: slot, namespace, pod.
type Book = Arc<Mutex<Vec<(Slot, String, String)>>>;

/// A kubelet that runs in `dir` until it is dropped.
#[derive(Debug)]
pub struct Kubelet {
    dir: PathBuf,
    registrations: mpsc::Receiver<Registered>,
    book: Book,
    stop: watch::Sender<()>,
}

struct Desk(mpsc::Sender<Registered>);
struct Lister(Book);

#[tonic::async_trait]
impl Registration for Desk {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        if request.version != "v1beta1" {
            return Err(Status::invalid_argument("unsupported version"));
        }
        let registered = Registered {
            version: request.version,
            endpoint: request.endpoint,
            resource: request.resource_name,
            pre_start_required: request.options.is_some_and(|options| options.pre_start_required),
        };
        self.0.send(registered).await.map_err(|_| Status::unavailable("the kubelet ends"))?;
        Ok(Response::new(Empty {}))
    }
}

#[tonic::async_trait]
impl PodResourcesLister for Lister {
    async fn list(&self, _: Request<ListPodResourcesRequest>) -> Result<Response<ListPodResourcesResponse>, Status> {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pod_resources = book.iter().map(|(slot, namespace, name)| PodResources {
            name: name.clone(),
            namespace: namespace.clone(),
            containers: vec![ContainerResources {
                name: "runner".to_owned(),
                devices: vec![ContainerDevices {
                    resource_name: RESOURCE.to_owned(),
                    device_ids: vec![slot.to_string()],
                }],
            }],
        });
        Ok(Response::new(ListPodResourcesResponse { pod_resources: pod_resources.collect() }))
    }
}

impl Kubelet {
    /// Starts as a kubelet does: it makes its directories, removes every socket in the one of the plugins, and listens.
    ///
    /// # Errors
    /// When a socket cannot be made in `dir`.
    pub fn start(dir: &Path) -> io::Result<Self> {
        let (plugins, pods) = (dir.join("device-plugins"), dir.join("pod-resources"));
        fs::create_dir_all(&plugins)?;
        fs::create_dir_all(&pods)?;
        for entry in fs::read_dir(&plugins)? {
            fs::remove_file(entry?.path())?;
        }
        match fs::remove_file(pods.join("kubelet.sock")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (sender, registrations) = mpsc::channel(REGISTRATIONS_MAX);
        let (stop, stopped) = watch::channel(());
        let book = Book::default();
        let end = |mut stopped: watch::Receiver<()>| async move {
            drop(stopped.changed().await);
        };
        let desk = UnixListener::bind(plugins.join("kubelet.sock"))?;
        let server = Server::builder().add_service(RegistrationServer::new(Desk(sender)));
        tokio::spawn(server.serve_with_incoming_shutdown(UnixListenerStream::new(desk), end(stopped.clone())));
        let lister = UnixListener::bind(pods.join("kubelet.sock"))?;
        let server = Server::builder().add_service(PodResourcesListerServer::new(Lister(Arc::clone(&book))));
        tokio::spawn(server.serve_with_incoming_shutdown(UnixListenerStream::new(lister), end(stopped)));
        Ok(Self { dir: dir.to_owned(), registrations, book, stop })
    }

    /// The next plugin that registers.
    pub async fn registered(&mut self) -> Option<Registered> {
        self.registrations.recv().await
    }

    /// Registrations that nobody looked at yet.
    pub fn waiting(&self) -> usize {
        self.registrations.len()
    }

    /// Calls a registered plugin.
    ///
    /// # Errors
    /// When it does not listen.
    pub async fn call(&self, endpoint: &str) -> Result<Caller, tonic::transport::Error> {
        let socket = self.dir.join("device-plugins").join(endpoint);
        let channel = Endpoint::from_shared(format!("unix:{}", socket.display()))?.connect().await?;
        Ok(Caller { client: DevicePluginClient::new(channel) })
    }

    /// From now on `pod` of `namespace` is listed to hold `slot`.
    pub fn give(&self, slot: Slot, namespace: &str, pod: &str) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.push((slot, namespace.to_owned(), pod.to_owned()));
    }

    /// Nobody holds `slot` any more.
    pub fn take(&self, slot: Slot) {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).retain(|(held, ..)| *held != slot);
    }

    /// Ends as a kubelet does that is killed: its sockets stay as files.
    pub fn stop(self) {
        drop(self.stop);
    }
}

/// A connection of the kubelet's to a plugin.
#[derive(Debug)]
pub struct Caller {
    client: DevicePluginClient<tonic::transport::Channel>,
}

/// The lists of one `ListAndWatch`.
#[derive(Debug)]
pub struct Lists(Streaming<ListAndWatchResponse>);

impl Lists {
    /// The next list: the names of the devices, each with whether it is healthy. `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Vec<(String, bool)>> {
        let list = self.0.next().await?.ok()?;
        Some(list.devices.into_iter().map(|device| (device.id, device.health == "Healthy")).collect())
    }
}

impl Caller {
    /// # Errors
    /// The plugin's word.
    pub async fn watch(&mut self) -> Result<Lists, Status> {
        Ok(Lists(self.client.list_and_watch(Empty {}).await?.into_inner()))
    }

    /// Which `size` of `available` the plugin would take.
    ///
    /// # Errors
    /// The plugin's word.
    pub async fn prefer(&mut self, available: &[&str], size: i32) -> Result<Vec<String>, Status> {
        let request = ContainerPreferredAllocationRequest {
            available_device_ids: available.iter().map(|id| (*id).to_owned()).collect(),
            must_include_device_ids: Vec::new(),
            allocation_size: size,
        };
        let request = PreferredAllocationRequest { container_requests: vec![request] };
        let answer = self.client.get_preferred_allocation(request).await?.into_inner();
        Ok(answer.container_responses.into_iter().flat_map(|response| response.device_ids).collect())
    }

    /// Gives devices to one container.
    ///
    /// # Errors
    /// The plugin's word.
    pub async fn allocate(&mut self, ids: &[&str]) -> Result<Given, Status> {
        let request = ContainerAllocateRequest { devices_ids: ids.iter().map(|id| (*id).to_owned()).collect() };
        let answer = self.client.allocate(AllocateRequest { container_requests: vec![request] }).await?.into_inner();
        let [response] = <[_; 1]>::try_from(answer.container_responses)
            .map_err(|responses| Status::internal(format!("{} answers for one container", responses.len())))?;
        Ok(Given {
            envs: response.envs.into_iter().collect(),
            mounts: response.mounts.into_iter().map(|m| (m.host_path, m.container_path, m.read_only)).collect(),
        })
    }
}
