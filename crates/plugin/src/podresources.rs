//! Asks the kubelet which pod holds which slot.
//!
//! A connection per question: it costs about a millisecond, and a kubelet that was restarted is met without further ado.
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use crate::{
    PluginError,
    holder::{Holding, read},
    proto::v1::{ListPodResourcesRequest, pod_resources_lister_client::PodResourcesListerClient},
};

/// Measured: 1 to 5 ms, 139 ms under load.
const LIST_LIMIT: Duration = Duration::from_secs(2);
/// A node has some hundred pods with some hundred bytes each; tonic's own limit of 4 MiB was met by nodes with many GPUs.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The pod-resources API of this node's kubelet.
#[derive(Debug, Clone)]
pub struct PodResources {
    socket: PathBuf,
}

impl PodResources {
    /// `kubelet_dir`: usually `/var/lib/kubelet`. Opens nothing yet.
    pub fn new(kubelet_dir: &Path) -> Self {
        Self { socket: kubelet_dir.join("pod-resources/kubelet.sock") }
    }

    /// All slots that are held on this node. Waits at most 2 s.
    ///
    /// # Errors
    /// When the kubelet cannot be reached, does not answer in time, or refuses.
    pub async fn holdings(&self) -> Result<Vec<Holding>, PluginError> {
        const CALL: &str = "List";
        let ask = async {
            let client = PodResourcesListerClient::new(connect(&self.socket).await?);
            let mut client = client.max_decoding_message_size(ANSWER_BYTES_MAX);
            client.list(ListPodResourcesRequest {}).await.map_err(|status| refused(CALL, &self.socket, status))
        };
        let answer =
            timeout(LIST_LIMIT, ask).await.map_err(|_| PluginError::Silent { call: CALL, limit: LIST_LIMIT })??;
        Ok(read(answer.into_inner().pod_resources))
    }
}

/// Opens a connection to a Unix socket of the kubelet's.
pub(crate) async fn connect(socket: &Path) -> Result<Channel, PluginError> {
    let failed = |source| PluginError::Connect { path: socket.to_owned(), source };
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).map_err(|error| failed(error.into()))?;
    endpoint.connect().await.map_err(|error| failed(error.into()))
}

/// A status is either the kubelet's own word or a connection that broke.
pub(crate) fn refused(call: &'static str, socket: &Path, status: tonic::Status) -> PluginError {
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled => {
            PluginError::Connect { path: socket.to_owned(), source: status.into() }
        }
        code => PluginError::Refused { call, message: format!("{code}: {}", status.message()) },
    }
}
