//! The gateway beside a real API server: what the API says is what people see, and soon; an API that is away changes nothing.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod server;

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use directory::{Directory, Follower, KubernetesSource, Pace};
use gateway::{App, auth::Tokens};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, time};

use self::server::{ApiServer, NAMESPACE, end_pod, publish_agents, run_pod_at};

const VIEW: &str = "view-token-0123456789";
/// Under load, for what takes milliseconds.
const SOON: Duration = Duration::from_secs(30);

/// The kubelet's address of node `n`.
fn node_ip(node: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 77, 0, 10)) + u32::try_from(node).unwrap())
}

async fn run_pod(pods: &Api<Pod>, name: &str, lan: &str, node: usize) {
    run_pod_at(pods, name, lan, node, node_ip(node)).await;
}

fn lans(folder: &Path) -> PathBuf {
    let path = folder.join("lans.json");
    let lans = json!({"version": 1, "lans": [{"name": "party", "vni": 4200, "mode": "vxlan", "subnet": "10.98.0.0/24", "seats": 9}]});
    std::fs::write(&path, lans.to_string()).unwrap();
    path
}

fn source(server: &ApiServer) -> KubernetesSource {
    KubernetesSource {
        client: server.client(),
        url: server.url(),
        namespace: NAMESPACE.into(),
        agent_service: directory::AGENT_SERVICE.into(),
        lans: lans(server.folder()),
        last_known: Some(server.folder().join("last-known.json")),
        pace: Pace { probe: Duration::from_millis(500) },
    }
}

async fn until(watch: &mut watch::Receiver<Directory>, want: impl FnMut(&Directory) -> bool) -> Directory {
    let found = time::timeout(SOON, watch.wait_for(want)).await.map(|found| found.unwrap().clone());
    found.unwrap_or_else(|_| panic!("it stayed {:?}", watch.borrow()))
}

/// Where each instance is.
fn places(directory: &Directory) -> Vec<(String, String)> {
    directory.snapshot.instances().map(|i| (i.id.to_string(), i.node.to_string())).collect()
}

fn is(places: &[(String, String)], want: &[(&str, &str)]) -> bool {
    places.iter().map(|(id, node)| (id.as_str(), node.as_str())).eq(want.iter().copied())
}

/// A gateway as people see it: its page's stream of changes, put together again.
struct Page {
    answer: reqwest::Response,
    rest: String,
    nodes: std::collections::BTreeMap<String, String>,
    stale: bool,
}

impl Page {
    async fn open(base: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = http.get(format!("{base}/api/events?changes=1")).bearer_auth(VIEW).send().await.unwrap();
        let mut page = Self { answer, rest: String::new(), nodes: std::collections::BTreeMap::new(), stale: false };
        page.hear().await;
        page
    }

    async fn hear(&mut self) {
        loop {
            let Some(end) = self.rest.find("\n\n") else {
                self.rest.push_str(std::str::from_utf8(&self.answer.chunk().await.unwrap().unwrap()).unwrap());
                continue;
            };
            let event: String = self.rest.drain(..end + 2).collect();
            let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else { continue };
            let data: Value = serde_json::from_str(data).unwrap();
            if event.starts_with("event: wall") {
                self.nodes.clear();
            }
            for gone in data["gone"].as_array().into_iter().flatten() {
                self.nodes.remove(gone.as_str().unwrap());
            }
            for row in data["instances"].as_array().unwrap() {
                self.nodes.insert(row["id"].as_str().unwrap().into(), row["node"].as_str().unwrap().into());
            }
            self.stale = data["directory"]["stale_since"].is_number();
            return;
        }
    }

    /// How long it takes from `since` until the page shows it.
    async fn shows(&mut self, since: Instant, want: impl Fn(&Self) -> bool) -> Duration {
        let seen = async {
            while !want(self) {
                self.hear().await;
            }
        };
        assert!(time::timeout(SOON, seen).await.is_ok(), "the page stayed {:?}, stale {}", self.nodes, self.stale);
        since.elapsed()
    }
}

async fn gateway(follower: Follower) -> (App, String) {
    let app = App::with(follower, Tokens::parse(&format!("view {VIEW}\n")).unwrap(), "agent-token-0123456789".into())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = app.router();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (app, base)
}

async fn get(base: &str, path: &str) -> Value {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    http.get(format!("{base}{path}")).bearer_auth(VIEW).send().await.unwrap().json().await.unwrap()
}

/// By this name the privileged tier leaves them out: what is ignored here is the cluster tier's.
mod api_server {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "cluster: run by `cargo xtask test --cluster`"]
    async fn an_instance_that_appears_moves_or_ends_is_on_the_page_within_a_second() {
        let server = ApiServer::start().await;
        let pods = server.pods();
        run_pod(&pods, "instance-0", "party", 1).await;
        publish_agents(&server.client(), &[(1, node_ip(1), 9), (2, node_ip(2), 9)]).await;
        let (_app, base) = gateway(Follower::kubernetes(source(&server))).await;
        let mut page = Page::open(&base).await;
        page.shows(Instant::now(), |page| page.nodes.len() == 1).await;
        let mut worst = Duration::ZERO;
        for round in 0..5 {
            let began = Instant::now();
            run_pod(&pods, "instance-1", "party", 1).await;
            let appeared =
                page.shows(began, |page| page.nodes.get("instance-1").is_some_and(|node| node == "n1")).await;
            // The pod dies with its node and comes back on another: one name, two pods.
            end_pod(&pods, "instance-1").await;
            let began = Instant::now();
            run_pod(&pods, "instance-1", "party", 2).await;
            let moved = page.shows(began, |page| page.nodes.get("instance-1").is_some_and(|node| node == "n2")).await;
            let began = Instant::now();
            end_pod(&pods, "instance-1").await;
            let ended = page.shows(began, |page| !page.nodes.contains_key("instance-1")).await;
            eprintln!("round {round}: appeared {appeared:?}, moved {moved:?}, ended {ended:?}");
            worst = worst.max(appeared).max(moved).max(ended);
        }
        assert!(worst < Duration::from_secs(1), "the slowest change took {worst:?}");
        let info = get(&base, "/api/instances/discovery-info").await;
        assert_eq!((info["mode"].as_str(), info["usingAutoDiscovery"].as_bool()), (Some("kubernetes"), Some(true)));
        let kubernetes = &info["kubernetesDiscovery"];
        assert_eq!(
            (kubernetes["namespace"].as_str(), kubernetes["discoveryEnabled"].as_bool()),
            (Some(NAMESPACE), Some(true))
        );
        assert_eq!(kubernetes["watches"][0]["listings"], 1, "a change is told and not asked for: {kubernetes}");
        assert_eq!(get(&base, "/api/instances/live").await["mode"], "kubernetes");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "cluster: run by `cargo xtask test --cluster`"]
    async fn an_api_that_goes_away_leaves_everything_as_it_was_and_is_followed_again() {
        let mut server = ApiServer::start().await;
        let pods = server.pods();
        run_pod(&pods, "instance-0", "party", 1).await;
        run_pod(&pods, "instance-3", "nowhere", 1).await;
        let follower = Follower::kubernetes(source(&server));
        let (mut watch, stats) = (follower.watch(), follower.stats());
        let first = until(&mut watch, |d| d.loaded_at.is_some() && d.problem.is_none()).await;
        assert!(is(&places(&first), &[("instance-0", "n1")]));
        assert_eq!((first.problems.count, first.problems.first[0].subject.as_str()), (1, "instance-3"));
        let (_app, base) = gateway(follower).await;
        let mut page = Page::open(&base).await;

        let began = Instant::now();
        server.kill();
        let stale = page.shows(began, |page| page.stale).await;
        assert_eq!(page.nodes.len(), 1, "the last known state stays");
        eprintln!("stale after {stale:?}");
        let away = watch.borrow().clone();
        assert!(away.problem.as_ref().unwrap().contains("API") && away.stale_since.is_some(), "{away:?}");
        assert_eq!(get(&base, "/ready").await["status"], "degraded");

        let began = Instant::now();
        server.boot().await;
        page.shows(began, |page| !page.stale).await;
        run_pod(&server.pods(), "instance-1", "party", 2).await;
        page.shows(began, |page| page.nodes.len() == 2).await;
        eprintln!("followed again {:?} after the API was started", began.elapsed());
        let listings = stats.pods.listings();
        assert!(listings <= 2, "an API that comes back is not asked for everything by everybody: {listings} listings");

        // Away when a program starts: it goes by what was known last.
        let kept = source(&server).last_known.unwrap();
        let deadline = Instant::now() + SOON;
        while !std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("instance-1")) {
            assert!(Instant::now() < deadline, "what is known is not kept");
            time::sleep(Duration::from_millis(50)).await;
        }
        server.kill();
        let late = Follower::kubernetes(source(&server));
        let mut late_watch = late.watch();
        let known = until(&mut late_watch, |d| d.loaded_at.is_some()).await;
        assert!(is(&places(&known), &[("instance-0", "n1"), ("instance-1", "n2")]));
        assert!(known.problem.is_some() && known.stale_since.is_some());
        server.boot().await;
        end_pod(&server.pods(), "instance-0").await;
        until(&mut late_watch, |d| d.problem.is_none() && is(&places(d), &[("instance-1", "n2")])).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "cluster: run by `cargo xtask test --cluster`"]
    async fn lans_follow_their_file_and_a_refresh_lists_anew() {
        let server = ApiServer::start().await;
        let pods = server.pods();
        run_pod(&pods, "instance-0", "party", 1).await;
        run_pod(&pods, "instance-other-0", "other", 1).await;
        let source = source(&server);
        let path = source.lans.clone();
        let follower = Follower::kubernetes(source);
        let (mut watch, stats) = (follower.watch(), follower.stats());
        until(&mut watch, |d| is(&places(d), &[("instance-0", "n1")]) && d.problems.count == 1).await;
        let lans = std::fs::read_to_string(&path).unwrap();
        let other = r#"{"name":"other","vni":4201,"mode":"vxlan","subnet":"10.99.0.0/24","seats":4},"#;
        std::fs::write(&path, lans.replacen('[', &format!("[{other}"), 1)).unwrap();
        until(&mut watch, |d| d.snapshot.instances().count() == 2 && d.problems.count == 0).await;
        std::fs::write(&path, "{").unwrap();
        let broken = until(&mut watch, |d| d.problem.is_some()).await;
        assert_eq!((broken.snapshot.instances().count(), broken.snapshot.lans().count()), (2, 2));
        follower.refresher().refresh();
        let deadline = Instant::now() + SOON;
        while stats.pods.listings() < 2 || stats.endpoints.listings() < 2 {
            assert!(Instant::now() < deadline, "a refresh does not list anew");
            time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(watch.borrow().snapshot.instances().count(), 2);
    }
}
