//! The fabric's thread: one loop that looks at the kernel, computes what to change, and changes it.
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
};

use crate::{
    FabricConfig, FabricError, FabricStatus,
    fabric::{OpenTap, Wish},
    netns,
};

pub(crate) fn run(
    config: FabricConfig,
    mut requests: mpsc::Receiver<OpenTap>,
    _wishes: watch::Receiver<Wish>,
    _status: &watch::Sender<FabricStatus>,
    ready: oneshot::Sender<Result<(), FabricError>>,
) {
    let opened = netns::ensure(&config.netns).and_then(|_| netns::enter(&config.netns));
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let (_ns, runtime) = match (opened, runtime) {
        (Ok(ns), Ok(runtime)) => (ns, runtime),
        (Err(error), _) => return drop(ready.send(Err(error))),
        (_, Err(error)) => return drop(ready.send(Err(FabricError::SpawnThread(error)))),
    };
    drop(ready.send(Ok(())));
    runtime.block_on(async {
        while let Some(OpenTap { instance, reply }) = requests.recv().await {
            drop(reply.send(Err(FabricError::NoPort(instance))));
        }
    });
}
