//! Test peers: pods on the LAN `probe` that send and count numbered frames, one a node.
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Pod};
use k8s_tests::peer::{Epoch, Flow, Kind, Report, Reset, losses, lost};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{LONG, SOON, Wall, until};

pub(crate) const PORT: u16 = 14790;
/// Frames a second of each kind and addressee: many enough that a cut of 100 ms shows, few enough that no queue fills.
pub(crate) const RATE: f64 = 20.0;
/// What is under way arrives in milliseconds; a busy machine gets this long.
const SETTLE: Duration = Duration::from_secs(5);

static NEXT_EPOCH: AtomicU8 = AtomicU8::new(1);

#[derive(Debug)]
pub(crate) struct Peers<'a> {
    pub(crate) wall: &'a Wall,
    pub(crate) names: Vec<String>,
}

/// A pod that sits on a seat of the LAN `probe`: what `StatefulSet` and single pods have in common.
pub(crate) fn pod_spec(wall: &Wall) -> serde_json::Value {
    json!({
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 2,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 10001, "runAsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "test-peer",
            "image": format!("{}/loco/test-peer:{}", wall.registry, wall.tag),
            "env": [
                {"name": "LOCO_INSTANCE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "LOCO_AGENT_SOCKET", "value": "/run/loco-seat/agent.sock"},
            ],
            "ports": [{"name": "http", "containerPort": PORT}],
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1},
            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "128Mi", "loco.dev/seat": 1}},
        }],
    })
}

/// Labels by which the directory takes a pod for an instance.
pub(crate) fn labels() -> serde_json::Value {
    json!({"app.kubernetes.io/component": "instance", "loco.dev/lan": "probe", "loco.dev/test": "peer"})
}

impl<'a> Peers<'a> {
    /// One peer on each node, attached, with a lease; counts at 0.
    pub(crate) async fn on_each_node(wall: &'a Wall) -> Result<Self> {
        let count = wall.places().await?.len();
        ensure!(count >= 2, "frames cross nodes only where there are two; this cluster has {count} ready");
        let mut spec = pod_spec(wall);
        spec["topologySpreadConstraints"] = json!([{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"loco.dev/test": "peer"}},
        }]);
        let set: StatefulSet = serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "peer"},
            "spec": {
                "replicas": count, "serviceName": "loco-instances", "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": {"loco.dev/test": "peer"}},
                "template": {"metadata": {"labels": labels()}, "spec": spec},
            },
        }))?;
        let sets = wall.stateful_sets();
        sets.patch("peer", &PatchParams::apply("k8s-tests").force(), &Patch::Apply(&set)).await?;
        let peers = Self { wall, names: (0..count).map(|index| format!("peer-{index}")).collect() };
        peers.attached(LONG).await?;
        peers.reset().await?;
        Ok(peers)
    }

    /// Waits until every peer has its agent, its port and its lease, each from its own pod under test.
    pub(crate) async fn attached(&self, limit: Duration) -> Result<()> {
        until(limit, "test peers attached", async || {
            for name in &self.names {
                let report = self.report(name).await.with_context(|| name.clone())?;
                ensure!(report.attached, "{name} is not attached: {}", report.problem.unwrap_or_default());
                ensure!(report.lease.is_some(), "{name} has no lease");
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn report(&self, name: &str) -> Result<Report> {
        let text = self.wall.pod_get(name, PORT, "/report").await?;
        serde_json::from_str(&text).with_context(|| format!("{name} said {text:.300}"))
    }

    pub(crate) async fn reports(&self) -> Result<Vec<Report>> {
        let mut reports = Vec::new();
        for name in &self.names {
            reports.push(self.report(name).await?);
        }
        Ok(reports)
    }

    async fn call(&self, name: &str, method: http::Method, path: &str, body: Vec<u8>) -> Result<()> {
        let uri = format!("/api/v1/namespaces/{}/pods/{name}:{PORT}/proxy{path}", self.wall.namespace);
        let request =
            http::Request::builder().method(method).uri(uri).header("Content-Type", "application/json").body(body)?;
        self.wall.client.request_text(request).await.with_context(|| format!("{name}{path}"))?;
        Ok(())
    }

    /// All counts are 0 again, and frames that are under way count no more.
    pub(crate) async fn reset(&self) -> Result<()> {
        let epoch = Epoch::new(NEXT_EPOCH.fetch_add(1, Ordering::Relaxed));
        for name in &self.names {
            self.call(name, http::Method::POST, "/reset", serde_json::to_vec(&Reset { epoch })?).await?;
        }
        Ok(())
    }

    /// Every peer begins to send every kind, to everybody.
    pub(crate) async fn flow(&self, rate: f64) -> Result<()> {
        let seats: Vec<u8> = (0..).take(self.names.len()).collect();
        for (name, mine) in self.names.iter().zip(&seats) {
            let mut flows = Vec::new();
            for kind in Kind::ALL {
                if kind.is_unicast() {
                    let others = seats.iter().filter(|seat| *seat != mine);
                    flows.extend(others.map(|seat| Flow { kind, to: Some(*seat), rate, count: None }));
                } else {
                    flows.push(Flow { kind, to: None, rate, count: None });
                }
            }
            self.call(name, http::Method::POST, "/flows", serde_json::to_vec(&flows)?).await?;
        }
        Ok(())
    }

    /// Waits until every peer has heard every other: the flows cross, so that what is lost from here on was lost to the fault.
    pub(crate) async fn crossing(&self) -> Result<()> {
        until(SOON, "frames of every peer at every other", async || {
            for report in self.reports().await? {
                let seat = report.port.as_ref().context("no port")?.seat;
                let heard: BTreeSet<u8> = report.received.iter().map(|row| row.sender).collect();
                let missing: Vec<u8> =
                    (0..).take(self.names.len()).filter(|s| *s != seat && !heard.contains(s)).collect();
                ensure!(missing.is_empty(), "{} has not heard seats {missing:?}", report.instance);
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn stop(&self) -> Result<()> {
        for name in &self.names {
            self.call(name, http::Method::DELETE, "/flows", Vec::new()).await?;
        }
        Ok(())
    }

    /// Stops all flows and waits for what is under way; what lacks or doubled, and (frames lost, frames sent).
    pub(crate) async fn account(&self) -> Result<(Vec<String>, u64, u64)> {
        self.stop().await?;
        let start = Instant::now();
        loop {
            let reports = self.reports().await?;
            let pairs = || {
                reports
                    .iter()
                    .flat_map(|a| reports.iter().map(move |b| (a, b)))
                    .filter(|(a, b)| a.instance != b.instance)
            };
            let complaints: Vec<String> = pairs().flat_map(|(a, b)| losses(a, b)).collect();
            let (gone, all) =
                pairs().map(|(a, b)| lost(a, b)).fold((0, 0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
            if complaints.is_empty() || start.elapsed() > SETTLE {
                return Ok((complaints, gone, all));
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// As [`Peers::account`], and nothing may lack.
    pub(crate) async fn nothing_lost(&self) -> Result<u64> {
        let (complaints, _, all) = self.account().await?;
        ensure!(complaints.is_empty(), "frames were lost:\n{}", complaints.join("\n"));
        ensure!(all > 0, "no frame was sent: nothing was tested");
        Ok(all)
    }

    /// The longest time that anybody heard nothing of one kind from one sender, in milliseconds.
    pub(crate) async fn longest_gap_ms(&self) -> Result<u64> {
        let reports = self.reports().await?;
        Ok(reports.iter().flat_map(|report| report.received.iter().map(|row| row.longest_gap_ms)).max().unwrap_or(0))
    }
}

/// Ends the peers, and waits until their pods are gone.
pub(crate) async fn none(wall: &Wall) -> Result<()> {
    match wall.stateful_sets().delete("peer", &DeleteParams::default()).await {
        Err(kube::Error::Api(error)) if error.code == 404 => {}
        other => drop(other?),
    }
    until(LONG, "no test peer", async || {
        let pods = wall.pods().list(&ListParams::default().labels("loco.dev/test=peer")).await?;
        ensure!(pods.items.is_empty(), "{} are left", pods.items.len());
        Ok(())
    })
    .await
}

/// Makes a pod on seat `seat` of the LAN `probe`, on `node`.
pub(crate) async fn place(wall: &Wall, name: &str, node: &str) -> Result<()> {
    let mut spec = pod_spec(wall);
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    let mut labels = labels();
    // Not one of the StatefulSet's.
    labels["loco.dev/test"] = json!("single");
    let pod: Pod = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec,
    }))?;
    wall.pods().create(&kube::api::PostParams::default(), &pod).await?;
    Ok(())
}

/// Removes a pod and waits until it is gone.
pub(crate) async fn remove(wall: &Wall, name: &str) -> Result<()> {
    let pods: Api<Pod> = wall.pods();
    match pods.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(error)) if error.code == 404 => return Ok(()),
        other => other?,
    };
    until(LONG, "pod gone", async || match pods.get_opt(name).await? {
        None => Ok(()),
        Some(pod) => bail!("{} is still there", pod.name_any()),
    })
    .await
}
