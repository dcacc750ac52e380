//! The release under test, and the wall as its gateway and agents tell it.
use std::{collections::BTreeSet, env, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use api::{
    agent::{AgentStatus, State},
    gateway::{DiscoveryInfo, Instance},
    lan::{Doctor, LanStatus},
};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Node, Pod, Secret},
};
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use serde::de::DeserializeOwned;

use super::{
    LONG,
    commands::{helm, kubectl, root, run},
    measured, seeds, until,
};

/// Guests of the first LAN in `values.yaml`.
pub(crate) const LANS_SEATS: usize = 9;
const NODE_PORT: u16 = 30080;
const AGENT_PORT: u16 = 14780;
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct Wall {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// Tag of the images under test.
    pub(crate) tag: String,
    pub(crate) registry: String,
    /// `http://HOST:PORT` of the gateway, without a slash behind.
    pub(crate) url: String,
    /// A user's token, role admin.
    pub(crate) token: String,
    agent_token: String,
    http: reqwest::Client,
}

impl std::fmt::Debug for Wall {
    /// Without the tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wall({} at {})", self.namespace, self.url)
    }
}

/// A node with its underlay address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) ip: IpAddr,
}

pub(crate) fn namespace() -> String {
    env::var("LOCO_NAMESPACE").unwrap_or_else(|_| "loco".to_owned())
}

impl Wall {
    /// Makes the release what `values.yaml` says, and waits until all guests are live.
    pub(crate) async fn ready() -> Result<Self> {
        let wall = Self::installed().await?;
        wall.all_live(LONG).await?;
        Ok(wall)
    }

    /// Makes the release what `values.yaml` says, and waits for its objects only.
    pub(crate) async fn installed() -> Result<Self> {
        let client = Client::try_default().await.context("KUBECONFIG names no cluster that can be used")?;
        let namespace = namespace();
        uncordon(&client).await?;
        let (registry, tag) = image(&namespace).await?;
        upgrade(&namespace, &registry, &tag, &[], true).await?;
        let (token, agent_token) = tokens(&client, &namespace).await?;
        let http = reqwest::Client::builder().timeout(REQUEST_LIMIT).build()?;
        let url = match env::var("LOCO_TEST_URL") {
            Ok(url) => url.trim_end_matches('/').to_owned(),
            Err(_) => format!("http://{}:{NODE_PORT}", places(&client).await?.first().context("no node is ready")?.ip),
        };
        Ok(Self { client, namespace, tag, registry, url, token, agent_token, http })
    }

    /// `helm upgrade` with `--set` for each of `sets`, over `values.yaml`; waits for what it changes.
    pub(crate) async fn upgrade(&self, sets: &[&str]) -> Result<()> {
        upgrade(&self.namespace, &self.registry, &self.tag, sets, true).await
    }

    /// As [`Wall::upgrade`], without waiting: for what cannot succeed.
    pub(crate) async fn upgrade_in_vain(&self, sets: &[&str]) -> Result<()> {
        upgrade(&self.namespace, &self.registry, &self.tag, sets, false).await
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn stateful_sets(&self) -> Api<StatefulSet> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Pods of a component: `instance`, `node-agent`, `gateway`.
    pub(crate) async fn pods_of(&self, component: &str) -> Result<Vec<Pod>> {
        let selector = format!("app.kubernetes.io/component={component}");
        Ok(self.pods().list(&ListParams::default().labels(&selector)).await?.items)
    }

    /// Nodes that are ready and can be scheduled to, by name.
    pub(crate) async fn places(&self) -> Result<Vec<Place>> {
        places(&self.client).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let response = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.token).send().await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "{path}: {status}: {text}");
        serde_json::from_str(&text).with_context(|| format!("{path} said something else: {text:.300}"))
    }

    pub(crate) async fn instances(&self) -> Result<Vec<Instance>> {
        self.get("/api/instances").await
    }

    pub(crate) async fn lan_status(&self) -> Result<LanStatus> {
        self.get("/api/lan-status").await
    }

    pub(crate) async fn doctor(&self, query: &str) -> Result<Doctor> {
        self.get(&format!("/api/doctor{query}")).await
    }

    pub(crate) async fn discovery_info(&self) -> Result<DiscoveryInfo> {
        self.get("/api/instances/discovery-info").await
    }

    pub(crate) async fn agent_status(&self, place: &Place) -> Result<AgentStatus> {
        let url = format!("http://{}:{AGENT_PORT}/v1/status", place.ip);
        let response = self.http.get(&url).bearer_auth(&self.agent_token).send().await?.error_for_status()?;
        Ok(response.json().await?)
    }

    /// The text at `/metrics` of a node's agent.
    pub(crate) async fn agent_metrics(&self, place: &Place) -> Result<String> {
        let url = format!("http://{}:{AGENT_PORT}/metrics", place.ip);
        Ok(self.http.get(&url).send().await?.error_for_status()?.text().await?)
    }

    /// The text at `/metrics` of one gateway, through the API server.
    pub(crate) async fn pod_get(&self, pod: &str, port: u16, path: &str) -> Result<String> {
        let uri = format!("/api/v1/namespaces/{}/pods/{pod}:{port}/proxy{path}", self.namespace);
        Ok(self.client.request_text(http::Request::get(uri).body(Vec::new())?).await?)
    }

    /// The guests of the first LAN that are live, with an agent that answers.
    pub(crate) async fn live(&self) -> Result<Vec<Instance>> {
        let mut instances = self.instances().await?;
        instances.retain(|i| i.lan == "party" && i.state == State::Live && i.agent_silent_for.is_none());
        Ok(instances)
    }

    /// Waits until every guest of the first LAN is live.
    pub(crate) async fn all_live(&self, limit: Duration) -> Result<Vec<Instance>> {
        until(limit, "nine guests live", async || {
            let live = self.live().await?;
            if live.len() == LANS_SEATS {
                return Ok(live);
            }
            let all = self.instances().await?;
            let words = all.iter().filter(|i| i.lan == "party").map(|i| {
                let detail = i.status.as_ref().and_then(|status| status.detail.clone()).unwrap_or_default();
                format!("{} on {}: {:?} {detail}", i.id, i.node, i.state)
            });
            bail!("{} of {LANS_SEATS} live: {}", live.len(), words.collect::<Vec<_>>().join("; "))
        })
        .await
    }

    /// `kubectl rollout status` of everything of the release.
    pub(crate) async fn rolled_out(&self) -> Result<()> {
        for object in ["daemonset/loco-node-agent", "deployment/loco-gateway", "statefulset/instance"] {
            run(kubectl().args(["-n", &self.namespace, "rollout", "status", object, "--timeout=180s"])).await?;
        }
        Ok(())
    }
}

/// Registry and tag of the images: `LOCO_TEST_REGISTRY`, `LOCO_TEST_TAG`, else those of the release that is there.
async fn image(namespace: &str) -> Result<(String, String)> {
    let registry = env::var("LOCO_TEST_REGISTRY").unwrap_or_else(|_| "localhost".to_owned());
    if let Ok(tag) = env::var("LOCO_TEST_TAG") {
        return Ok((registry, tag));
    }
    let values = run(helm().args(["get", "values", "loco", "-n", namespace, "-o", "json"])).await;
    let values: serde_json::Value =
        serde_json::from_str(&values.context("set LOCO_TEST_TAG to the tag of the images")?)?;
    let tag = values["image"]["tag"].as_str().context("the release names no image.tag; set LOCO_TEST_TAG")?;
    Ok((values["image"]["registry"].as_str().unwrap_or(&registry).to_owned(), tag.to_owned()))
}

async fn upgrade(namespace: &str, registry: &str, tag: &str, sets: &[&str], wait: bool) -> Result<()> {
    let start = std::time::Instant::now();
    let values = root().join("k8s-tests/values.yaml");
    let mut command = helm();
    command.args(["upgrade", "--install", "loco"]).arg(seeds::chart()?);
    command.args(["-n", namespace, "--create-namespace"]);
    command.args(["--reset-values", "-f"]).arg(values);
    if wait {
        command.args(["--wait", "--timeout", "300s"]);
    }
    if let Some(more) = env::var_os("LOCO_TEST_VALUES") {
        command.arg("-f").arg(more);
    }
    command.args(["--set", &format!("image.registry={registry},image.tag={tag}")]);
    for set in seeds::sets(sets) {
        command.args(["--set", &set]);
    }
    run(&mut command).await?;
    measured("helm", &format!("upgrade {}", sets.join(",")), start.elapsed().as_secs_f64(), "s");
    Ok(())
}

/// An admin's token for the gateway, and the agents' token.
async fn tokens(client: &Client, namespace: &str) -> Result<(String, String)> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = secrets.get("loco-tokens").await?;
    let entry = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).with_context(|| format!("no key `{key}`"))
    };
    let users = entry("users")?;
    let admin = users.lines().find_map(|line| line.strip_prefix("admin ")).context("no admin among the users")?;
    Ok((admin.trim().to_owned(), entry("agent")?.trim().to_owned()))
}

async fn places(client: &Client) -> Result<Vec<Place>> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let place = |node: Node| {
        let ready = node.status.as_ref()?.conditions.as_ref()?.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        let away = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
        let addresses = node.status.as_ref()?.addresses.as_ref()?;
        let ip = addresses.iter().find(|a| a.type_ == "InternalIP")?.address.parse().ok()?;
        (ready && !away).then(|| Place { name: node.name_any(), ip })
    };
    let found: BTreeSet<Place> = nodes.into_iter().filter_map(place).collect();
    Ok(found.into_iter().collect())
}

/// A test that failed in a drain leaves a node that takes nothing.
async fn uncordon(client: &Client) -> Result<()> {
    for node in Api::<Node>::all(client.clone()).list(&ListParams::default()).await? {
        if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
            run(kubectl().args(["uncordon", &node.name_any()])).await?;
        }
    }
    Ok(())
}
