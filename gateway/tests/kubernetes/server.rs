//! A real API server with a real store, and nothing that acts on its objects: no scheduler, no kubelet. Tests are those.
use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    core::v1::{Namespace, Pod},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::time;

const TOKEN: &str = "a-token-of-this-test";
const ANSWER: Duration = Duration::from_secs(60);
pub(crate) const NAMESPACE: &str = "loco-test";

/// Where `cargo xtask test --cluster` has its programs: `kube`, and `etcd` beside it.
fn programs() -> PathBuf {
    let kube = std::env::var_os("LOCO_KUBE")
        .expect("LOCO_KUBE names the program of the cluster; see `cargo xtask test --cluster`");
    PathBuf::from(kube).parent().expect("a program is in a folder").to_owned()
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Its processes end with it.
pub(crate) struct ApiServer {
    folder: PathBuf,
    port: u16,
    etcd_port: u16,
    etcd: Child,
    server: Option<Child>,
    client: Option<Client>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.kill();
        self.etcd.kill().and_then(|()| self.etcd.wait()).expect("etcd can be ended");
        fs::remove_dir_all(&self.folder).expect("the test's folder can be removed");
    }
}

impl ApiServer {
    /// Up, with the namespace made.
    pub(crate) async fn start() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("loco-api-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let key =
            Command::new("openssl").args(["genrsa", "-out", "sa.key", "2048"]).current_dir(&folder).output().unwrap();
        assert!(key.status.success(), "{key:?}");
        fs::write(folder.join("tokens.csv"), format!("{TOKEN},admin,1,\"system:masters\"\n")).unwrap();
        let (port, etcd_port, peer_port) = (free_port(), free_port(), free_port());
        let (client, peer) = (format!("http://127.0.0.1:{etcd_port}"), format!("http://127.0.0.1:{peer_port}"));
        let etcd = Command::new(programs().join("etcd"))
            .args(["--unsafe-no-fsync", "--log-level=error", "--data-dir=etcd"])
            .args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")])
            .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
            .arg(format!("--initial-cluster=default={peer}"))
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { folder, port, etcd_port, etcd, server: None, client: None };
        server.client = Some(server.connect().await);
        server.boot().await;
        let namespaces: Api<Namespace> = Api::all(server.client());
        let metadata = ObjectMeta { name: Some(NAMESPACE.into()), ..ObjectMeta::default() };
        namespaces.create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() }).await.unwrap();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file for programs of their own.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let path = self.folder.join("kubeconfig");
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url(), "insecure-skip-tls-verify": true}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": NAMESPACE}}]});
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    async fn connect(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.proxy_url = None;
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(2));
        Client::try_from(config).unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone().expect("it was started")
    }

    /// Starts the API server on the store as it is, and waits for it.
    pub(crate) async fn boot(&mut self) {
        let child = Command::new(programs().join("kube"))
            .args(["kube-apiserver", "--bind-address=127.0.0.1", "--cert-dir=certs", "--allow-privileged"])
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
            .arg(format!("--secure-port={}", self.port))
            .args(["--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=sa.key"])
            .args(["--service-account-signing-key-file=sa.key", "--token-auth-file=tokens.csv"])
            .args(["--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24"])
            .args(["--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none"])
            .current_dir(&self.folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some(child);
        let deadline = Instant::now() + ANSWER;
        let namespaces: Api<Namespace> = Api::all(self.client());
        while let Err(error) = namespaces.get("default").await {
            assert!(Instant::now() < deadline, "the API server does not come up: {error}");
            time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// As a machine that loses its power.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.server.take() {
            child.kill().and_then(|()| child.wait()).expect("the API server can be ended");
        }
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client(), NAMESPACE)
    }
}

fn pod(name: &str, lan: &str, node: usize) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app.kubernetes.io/component": "instance", "loco.dev/lan": lan}},
        "spec": {"nodeName": format!("n{node}"), "containers": [{"name": "guest", "image": "none"}]},
    }))
    .unwrap()
}

fn running(ip: Ipv4Addr) -> Value {
    let ip = ip.to_string();
    json!({"status": {"phase": "Running", "hostIP": ip, "hostIPs": [{"ip": ip}]}})
}

/// What StatefulSet, scheduler and kubelet do together, on the node that has this address.
pub(crate) async fn run_pod_at(pods: &Api<Pod>, name: &str, lan: &str, node: usize, ip: Ipv4Addr) {
    pods.create(&PostParams::default(), &pod(name, lan, node)).await.unwrap();
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(running(ip))).await.unwrap();
}

/// What a kubelet does at the end of a pod.
pub(crate) async fn end_pod(pods: &Api<Pod>, name: &str) {
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete(name, &now).await.unwrap();
}

/// The endpoints of the agents' Service: node `n`, and the port of its agent.
pub(crate) async fn publish_agents(client: &Client, agents: &[(usize, Ipv4Addr, u16)]) {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    for (part, agents) in agents.chunks(100).enumerate() {
        let port = agents[0].2;
        assert!(agents.iter().all(|agent| agent.2 == port), "a slice has one port");
        let endpoints: Vec<Value> = agents
            .iter()
            .map(|(node, ip, _)| json!({"addresses": [ip.to_string()], "nodeName": format!("n{node}")}))
            .collect();
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": format!("agents-{part}"), "labels": {"kubernetes.io/service-name": "loco-node-agent"}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": port}], "endpoints": endpoints,
        }))
        .unwrap();
        slices.create(&PostParams::default(), &slice).await.unwrap();
    }
}
