//! Kubernetes' objects, as much of them as is used: the rest is passed over while it is read and never kept.
use std::{borrow::Cow, net::Ipv4Addr};

use api::MOVED_TO;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{core::v1::Pod, discovery::v1::EndpointSlice},
};
use kube::{Resource, core::ObjectMeta};
use serde::Deserialize;

use crate::assemble::{AGENT_PORT, AgentFact, PodFact};

const LAN_LABEL: &str = "loco.dev/lan";
/// Set by the `StatefulSet` controller from Kubernetes 1.28 on.
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
/// An annotation, and from 1.28 on a label too; set by the Job controller.
const JOB_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Name of the agents' port in their Service.
const PORT_NAME: &str = "http";

/// An object that is followed, and what is kept of it.
pub(crate) trait Thin: Resource<DynamicType = (), Scope = NamespaceResourceScope> {
    type Fact: PartialEq + Send + std::fmt::Debug;
    fn fact(self) -> Self::Fact;
}

macro_rules! resource_like {
    ($thin:ident, $thick:ident) => {
        impl Resource for $thin {
            type DynamicType = ();
            type Scope = NamespaceResourceScope;

            fn kind((): &()) -> Cow<'_, str> {
                $thick::kind(&())
            }

            fn group((): &()) -> Cow<'_, str> {
                $thick::group(&())
            }

            fn version((): &()) -> Cow<'_, str> {
                $thick::version(&())
            }

            fn plural((): &()) -> Cow<'_, str> {
                $thick::plural(&())
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ThinPod {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    #[serde(rename = "hostIPs")]
    host_ips: Vec<HostIp>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Deserialize)]
struct HostIp {
    #[serde(default)]
    ip: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    message: Option<String>,
}

resource_like!(ThinPod, Pod);

impl Thin for ThinPod {
    type Fact = PodFact;

    fn fact(self) -> PodFact {
        let Self { metadata, spec, status } = self;
        let mut labels = metadata.labels.unwrap_or_default();
        let mut annotations = metadata.annotations.unwrap_or_default();
        // A node with both families tells both; the underlay of Loco is IPv4.
        let host_ip = status.host_ips.iter().map(|host| &host.ip).chain(&status.host_ip).find_map(|ip| ip.parse().ok());
        let unscheduled = status
            .conditions
            .into_iter()
            .find(|c| c.kind == "PodScheduled" && c.status == "False")
            .map(|c| c.message.unwrap_or_else(|| "the scheduler does not say why".to_owned()));
        PodFact {
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            created: metadata.creation_timestamp.map_or(0, |time| time.0.as_second()),
            node: spec.node_name.filter(|name| !name.is_empty()),
            host_ip,
            lan: labels.remove(LAN_LABEL),
            moved_to: annotations.remove(MOVED_TO),
            seat: labels
                .remove(POD_INDEX)
                .or_else(|| labels.remove(JOB_INDEX))
                .or_else(|| annotations.remove(JOB_INDEX)),
            ended: matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")),
            unscheduled,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ThinSlice {
    metadata: ObjectMeta,
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    node_name: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Port {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    port: Option<u16>,
}

resource_like!(ThinSlice, EndpointSlice);

impl Thin for ThinSlice {
    type Fact = Vec<AgentFact>;

    fn fact(self) -> Vec<AgentFact> {
        if self.address_type != "IPv4" {
            return Vec::new();
        }
        let port = self.ports.unwrap_or_default().into_iter().find(|port| port.name.as_deref() == Some(PORT_NAME));
        let port = port.and_then(|port| port.port).unwrap_or(AGENT_PORT);
        // Ready or not: an agent that is not ready is one that answers why.
        let endpoints = self.endpoints.unwrap_or_default().into_iter();
        endpoints
            .filter_map(|endpoint| {
                let address: Ipv4Addr = endpoint.addresses.first()?.parse().ok()?;
                Some(AgentFact { node: endpoint.node_name?, address, port })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_read_as_far_as_it_is_used() {
        let pod: ThinPod = serde_json::from_str(
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"instance-3","uid":"u","creationTimestamp":"1970-01-01T00:01:40Z",
                "labels":{"loco.dev/lan":"party","apps.kubernetes.io/pod-index":"3"},
                "annotations":{"loco.dev/moved-to":"other/4"},"managedFields":[{"manager":"kubelet"}]},
                "spec":{"nodeName":"n1","containers":[{"name":"guest"}]},
                "status":{"phase":"Running","hostIP":"fd00::1","hostIPs":[{"ip":"fd00::1"},{"ip":"10.77.0.11"}],
                "conditions":[{"type":"PodScheduled","status":"True"}]}}"#,
        )
        .unwrap();
        let want = PodFact {
            name: "instance-3".into(),
            uid: "u".into(),
            created: 100,
            node: Some("n1".into()),
            host_ip: Some([10, 77, 0, 11].into()),
            lan: Some("party".into()),
            moved_to: Some("other/4".into()),
            seat: Some("3".into()),
            ended: false,
            unscheduled: None,
        };
        assert_eq!(pod.fact(), want);
    }

    #[test]
    fn a_pod_that_waits_tells_the_schedulers_word() {
        let pod: ThinPod = serde_json::from_str(
            r#"{"metadata":{"name":"instance-4","annotations":{"batch.kubernetes.io/job-completion-index":"2"}},"spec":{},
                "status":{"phase":"Pending","conditions":[{"type":"PodScheduled","status":"False","message":"no seat left"}]}}"#,
        )
        .unwrap();
        let fact = pod.fact();
        assert_eq!((fact.unscheduled.as_deref(), fact.seat.as_deref()), (Some("no seat left"), Some("2")));
    }

    #[test]
    fn a_slice_tells_its_agents_ready_or_not() {
        let slice: ThinSlice = serde_json::from_str(
            r#"{"metadata":{"name":"s"},"addressType":"IPv4","ports":[{"name":"x","port":1},{"name":"http","port":14780}],
                "endpoints":[{"addresses":["10.77.0.11"],"nodeName":"n1","conditions":{"ready":false}},
                {"addresses":["10.77.0.12"]},{"addresses":[],"nodeName":"n3"}]}"#,
        )
        .unwrap();
        assert_eq!(slice.fact(), [AgentFact { node: "n1".into(), address: [10, 77, 0, 11].into(), port: 14780 }]);
        let other: ThinSlice =
            serde_json::from_str(r#"{"metadata":{},"addressType":"IPv6","endpoints":null,"ports":null}"#).unwrap();
        assert_eq!(other.fact(), []);
    }
}
