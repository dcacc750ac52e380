//! The directory as the gateway shows it: its state for the API, the wall and the metrics.
use std::sync::Arc;

use api::gateway::{AgentLink, DiscoveryInfo, KubernetesDiscovery, LeftOut, WallDirectory, WatchLink};
use directory::{Directory, Follower, Info, Problems, Refresher, Stats};
use prometheus::{
    Registry,
    core::{Collector, Desc},
    proto::{self, MetricFamily},
};
use tokio::sync::watch;

use crate::agents::{AgentViews, now};

/// What is known of the directory, for questions.
#[derive(Debug)]
pub(crate) struct Discovery {
    pub(crate) directory: watch::Receiver<Directory>,
    info: Arc<Info>,
    stats: Arc<Stats>,
    pub(crate) refresher: Refresher,
    started: f64,
}

impl Discovery {
    pub(crate) fn new(follower: &Follower, registry: &Registry) -> prometheus::Result<Self> {
        let (directory, stats) = (follower.watch(), follower.stats());
        registry.register(Box::new(Metrics::new(directory.clone(), Arc::clone(&stats), follower.info().mode)?))?;
        Ok(Self { directory, info: follower.info(), stats, refresher: follower.refresher(), started: now() })
    }

    pub(crate) fn mode(&self) -> &'static str {
        self.info.mode
    }

    /// `/api/instances/discovery-info`.
    pub(crate) fn info(&self, agents: &AgentViews) -> DiscoveryInfo {
        let directory = self.directory.borrow().clone();
        let now = now();
        let agents = agents
            .iter()
            .map(|(node, view)| AgentLink {
                node: node.to_string(),
                url: view.url.clone(),
                answers: view.connected && view.silent_for(now).is_none(),
                silent_for: view.silent_for(now),
                problem: view.problem.clone(),
            })
            .collect();
        let instance_count = count(directory.snapshot.instances().count());
        let kubernetes = self.info.namespace.as_ref().map(|namespace| {
            let watches: Vec<WatchLink> = self
                .stats
                .all()
                .into_iter()
                .map(|(resource, stats)| WatchLink {
                    resource: resource.to_owned(),
                    connected: stats.connected(),
                    connections: stats.connections(),
                    failures: stats.failures(),
                    listings: stats.listings(),
                    events: stats.events(),
                })
                .collect();
            KubernetesDiscovery {
                namespace: namespace.clone(),
                selector: self.info.selector.clone().unwrap_or_default(),
                services: self.info.agent_service.iter().cloned().collect(),
                discovery_enabled: watches.iter().all(|watch| watch.connected),
                last_discovery: directory.loaded_at,
                cached_instances_count: instance_count,
                lans: self.info.lans.clone().unwrap_or_default(),
                last_known: self.info.last_known.clone(),
                watches,
            }
        });
        let listed = self.stats.pods.listings() > 0 && self.stats.endpoints.listings() > 0;
        DiscoveryInfo {
            mode: self.info.mode.to_owned(),
            source: self.info.source.clone(),
            last_discovery: directory.loaded_at,
            instance_count,
            stale_since: directory.stale_since,
            left_out: left_out(&directory.problems),
            left_out_count: count(directory.problems.count),
            using_auto_discovery: kubernetes.is_some(),
            fallback_to_static: kubernetes.is_some() && directory.loaded_at.is_some() && !listed,
            kubernetes_discovery: kubernetes,
            gateway_started: self.started,
            problem: directory.problem,
            agents,
        }
    }
}

/// What the wall says of the directory.
pub(crate) fn on_wall(directory: &Directory, mode: &str) -> WallDirectory {
    WallDirectory {
        mode: mode.to_owned(),
        stale_since: directory.stale_since,
        problem: directory.problem.clone(),
        left_out: left_out(&directory.problems),
        left_out_count: count(directory.problems.count),
    }
}

fn left_out(problems: &Problems) -> Vec<LeftOut> {
    let first = problems.first.iter();
    first.map(|problem| LeftOut { subject: problem.subject.clone(), text: problem.text.clone() }).collect()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Series of the directory, read when they are asked for.
#[derive(Debug)]
struct Metrics {
    directory: watch::Receiver<Directory>,
    stats: Arc<Stats>,
    mode: &'static str,
    descs: Vec<Desc>,
}

const NAMES: [(&str, &str, Option<&str>); 9] = [
    ("loco_gateway_directory_instances", "Instances in the directory", Some("mode")),
    ("loco_gateway_directory_nodes", "Nodes in the directory", None),
    (
        "loco_gateway_directory_loaded_timestamp_seconds",
        "When the directory changed last; absent before the first",
        None,
    ),
    (
        "loco_gateway_directory_stale_seconds",
        "For how long the source of the directory is not followed; 0 while it is",
        None,
    ),
    ("loco_gateway_directory_problems", "Pods and nodes that are left out of the directory", None),
    ("loco_gateway_directory_watch_connected", "1 while the watch of the Kubernetes API stands", Some("resource")),
    ("loco_gateway_directory_watch_restarts_total", "Watches that were taken up after the first", Some("resource")),
    ("loco_gateway_directory_watch_failures_total", "Watches and listings that failed", Some("resource")),
    ("loco_gateway_directory_listings_total", "Times that everything was listed", Some("resource")),
];

impl Metrics {
    fn new(directory: watch::Receiver<Directory>, stats: Arc<Stats>, mode: &'static str) -> prometheus::Result<Self> {
        let descs = NAMES
            .iter()
            .map(|(name, help, label)| {
                let labels = label.iter().map(|label| (*label).to_owned()).collect();
                Desc::new((*name).to_owned(), (*help).to_owned(), labels, std::collections::HashMap::new())
            })
            .collect::<prometheus::Result<_>>()?;
        Ok(Self { directory, stats, mode, descs })
    }
}

impl Collector for Metrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "counters are exact to 2^53")]
    fn collect(&self) -> Vec<MetricFamily> {
        let directory = self.directory.borrow().clone();
        let stale = directory.stale_since.map_or(0.0, |since| (now() - since).max(0.0));
        let watches = |value: fn(&directory::WatchStats) -> u64| {
            let all = if self.mode == "kubernetes" { self.stats.all().to_vec() } else { Vec::new() };
            all.into_iter().map(|(resource, stats)| (Some(resource), value(stats) as f64)).collect::<Vec<_>>()
        };
        let values: [Vec<(Option<&str>, f64)>; 9] = [
            vec![(Some(self.mode), directory.snapshot.instances().count() as f64)],
            vec![(None, directory.snapshot.nodes().count() as f64)],
            directory.loaded_at.iter().map(|at| (None, *at)).collect(),
            vec![(None, stale)],
            vec![(None, directory.problems.count as f64)],
            watches(|stats| u64::from(stats.connected())),
            watches(|stats| stats.connections().saturating_sub(1)),
            watches(directory::WatchStats::failures),
            watches(directory::WatchStats::listings),
        ];
        let rows = NAMES.iter().zip(values);
        rows.filter(|(_, values)| !values.is_empty())
            .map(|((name, help, label), values)| family(name, help, *label, &values))
            .collect()
    }
}

fn family(name: &str, help: &str, label: Option<&str>, values: &[(Option<&str>, f64)]) -> MetricFamily {
    let counter = name.ends_with("_total");
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(if counter { proto::MetricType::COUNTER } else { proto::MetricType::GAUGE });
    for (word, value) in values {
        let mut metric = proto::Metric::default();
        if let (Some(label), Some(word)) = (label, word) {
            let mut pair = proto::LabelPair::default();
            pair.set_name(label.to_owned());
            pair.set_value((*word).to_owned());
            metric.set_label(vec![pair]);
        }
        if counter {
            let mut counter = proto::Counter::default();
            counter.set_value(*value);
            metric.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(*value);
            metric.set_gauge(gauge);
        }
        family.mut_metric().push(metric);
    }
    family
}
