//! A cluster of 1,000 nodes and 10,000 instances, without machines: what discovery costs the gateway, each agent and the API.
//!
//! The API server is real, and so is the gateway: the program itself, watched in `/proc`. Pods and endpoints are written by
//! this bench, as kubelets and controllers would; agents are one HTTP server that answers at every node's address and says
//! every 2 s what an agent says of its ten guests. A few directories, each with the code and the pace of an agent's, stand
//! for the thousand; what they cost the API is counted by the API server's own metrics.
//!
//! `cargo xtask bench cluster-scale` makes the API server, in a namespace in which 10.200.0.0/16 is local, and runs this.
#![expect(clippy::unwrap_used, reason = "a bench stops at the first surprise")]
use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::{ConnectInfo, connect_info::Connected},
    response::{Sse, sse::Event},
    routing::get,
    serve::IncomingStream,
};
use clap::Parser;
use directory::{Follower, KubernetesArgs, KubernetesSource, Pace};
use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time,
};

/// Where `cargo xtask bench` has it listen.
const API: &str = "127.0.0.1:6443";
const NAMESPACE: &str = "loco";
const TOKEN: &str = "view-token-0123456789";
const AGENT: &str = "agent-token-0123456789";
const SEATS: usize = 9;
/// Room for the pods that come and go while it is measured.
const SPARE: &str = "spare";
/// As the controller of endpoints cuts them.
const PER_SLICE: usize = 100;
/// Requests at once, as of a few busy controllers.
const AT_ONCE: usize = 16;
/// What a chart's pod has besides what is followed: containers, mounts, variables, who manages which field.
const FILLER: usize = 4000;
/// Names the file in which the API server notes requests that only read.
const AUDIT_LOG: &str = "LOCO_BENCH_AUDIT_LOG";
const LIMIT: Duration = Duration::from_mins(10);

#[derive(Debug, Parser)]
struct Args {
    /// The gateway's program
    #[arg(long)]
    gateway: PathBuf,
    /// Directory for the results
    #[arg(long)]
    out: Option<PathBuf>,
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    #[arg(long, default_value_t = 10_000)]
    instances: usize,
    /// Directories at an agent's pace that are really run
    #[arg(long, default_value_t = 20)]
    followers: usize,
    /// Pods that come and go, one after the other
    #[arg(long, default_value_t = 50)]
    changes: usize,
    /// Seconds in which nothing changes
    #[arg(long, default_value_t = 60)]
    quiet: u64,
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn node_name(node: usize) -> String {
    format!("node-{node}")
}

fn node_ip(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 200, u8::try_from(node / 250).unwrap(), u8::try_from(node % 250 + 1).unwrap())
}

fn node_of_ip(ip: IpAddr) -> usize {
    let IpAddr::V4(ip) = ip else { panic!("{ip} is nobody's here") };
    let [_, _, high, low] = ip.octets();
    usize::from(high) * 250 + usize::from(low) - 1
}

fn lan_file(instances: usize) -> Value {
    let lan = |name: &str, number: usize, seats: usize| {
        json!({"name": name, "vni": 4200 + number, "mode": "vxlan", "seats": seats,
               "subnet": format!("10.{}.{}.0/24", 98 + number / 256, number % 256)})
    };
    let count = instances.div_ceil(SEATS);
    let mut lans: Vec<Value> = (0..count).map(|number| lan(&format!("lan-{number}"), number, SEATS)).collect();
    lans.push(lan(SPARE, count, 200));
    json!({"version": 1, "lans": lans})
}

fn instance_name(instance: usize) -> String {
    format!("instance-lan-{}-{}", instance / SEATS, instance % SEATS)
}

struct Writer {
    pods: Api<Pod>,
}

impl Writer {
    /// A pod as it is once its kubelet has started it.
    async fn run(&self, name: &str, lan: &str, seat: usize, node: usize) {
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": {"bench/filler": "x".repeat(FILLER)}, "labels": {
                "app.kubernetes.io/component": "instance", "loco.dev/lan": lan,
                "apps.kubernetes.io/pod-index": seat.to_string()}},
            "spec": {"nodeName": node_name(node), "automountServiceAccountToken": false,
                     "containers": [{"name": "guest-runner", "image": "localhost/loco/guest-runner:bench"}]},
        }));
        self.pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap();
        let ip = node_ip(node).to_string();
        let status = json!({"status": {"phase": "Running", "hostIP": ip, "hostIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}]}});
        self.pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    async fn end(&self, name: &str) {
        self.pods.delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }
}

async fn publish_agents(client: &Client, nodes: usize) {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    for first in (0..nodes).step_by(PER_SLICE) {
        let endpoints: Vec<Value> = (first..nodes.min(first + PER_SLICE))
            .map(|node| json!({"addresses": [node_ip(node).to_string()], "nodeName": node_name(node), "conditions": {"ready": true}}))
            .collect();
        let slice = json!({
            "metadata": {"name": format!("loco-node-agent-{first}"), "labels": {"kubernetes.io/service-name": "loco-node-agent"}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 14780, "protocol": "TCP"}], "endpoints": endpoints});
        slices.create(&PostParams::default(), &serde_json::from_value(slice).unwrap()).await.unwrap();
    }
}

/// At which of its addresses the one server was asked: which agent it is to be.
#[derive(Clone, Copy)]
struct Asked(usize);

impl Connected<IncomingStream<'_, TcpListener>> for Asked {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(node_of_ip(stream.io().local_addr().unwrap().ip()))
    }
}

/// What an agent says of its guests at its `beat`th time: all are live, and each has a picture and counters.
fn status(node: usize, nodes: usize, instances: usize, beat: u64) -> Value {
    let guests: Vec<Value> = (node..instances)
        .step_by(nodes)
        .map(|instance| {
            let (lan, seat) = (instance / SEATS, instance % SEATS);
            let vni = 4200 + lan;
            let mac = format!("02:4c:{:02x}:{:02x}:{:02x}:{:02x}", vni >> 16 & 255, vni >> 8 & 255, vni & 255, seat + 1);
            let ip = format!("10.{}.{}.{}", 98 + lan / 256, lan % 256, seat + 1);
            json!({
                "id": instance_name(instance), "lan": format!("lan-{lan}"), "seat": seat, "node": node_name(node), "mac": mac,
                "ip": ip, "host_name": "LOCO", "state": "live", "since": 1_790_000_000.0, "link": true, "address_in_use": ip,
                "counters": {"tx_frames": 90 * beat, "tx_bytes": 9000 * beat, "rx_frames": 90 * beat, "rx_bytes": 9000 * beat,
                             "rx_dropped": 0},
                "picture": {"width": 640, "height": 480, "changes": 30 * beat, "still_for": 0.1},
                "viewers": {"thumb": 0, "full": 0}})
        })
        .collect();
    let lans: Vec<Value> = (node..instances)
        .step_by(nodes)
        .map(|instance| instance / SEATS)
        .map(|lan| json!({"name": format!("lan-{lan}"), "vni": 4200 + lan, "mode": "vxlan", "seats": SEATS}))
        .collect();
    json!({"node": node_name(node), "pid": 1, "version": "0", "at": now(), "instances": guests, "lans": lans, "reachability": [],
           "fabric_problems": []})
}

async fn agents(nodes: usize, instances: usize) {
    let handler = move |ConnectInfo(Asked(node)): ConnectInfo<Asked>| async move {
        let beats = stream::unfold(1u64, move |beat| async move {
            if beat > 1 {
                time::sleep(Duration::from_secs(2)).await;
            }
            let event = Event::default().event("status").json_data(status(node, nodes, instances, beat)).unwrap();
            Some((Ok::<_, std::convert::Infallible>(event), beat + 1))
        });
        Sse::new(beats)
    };
    let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 14780))).await.unwrap();
    let router = Router::new().route("/v1/events", get(handler)).into_make_service_with_connect_info::<Asked>();
    axum::serve(listener, router).await.unwrap();
}

struct Gateway {
    child: Child,
    base: String,
    http: reqwest::Client,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Gateway {
    fn start(program: &Path, folder: &Path, lans: &Path) -> Self {
        std::fs::write(folder.join("tokens"), format!("view {TOKEN}\n")).unwrap();
        std::fs::write(folder.join("agent-token"), AGENT).unwrap();
        let listen = "127.0.0.1:18080";
        let mut command = Command::new(program);
        command.args(["--listen", listen, "--kubernetes", "--namespace", NAMESPACE, "--lans"]).arg(lans);
        command.arg("--tokens-file").arg(folder.join("tokens"));
        command.arg("--agent-token-file").arg(folder.join("agent-token"));
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { child, base: format!("http://{listen}"), http }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let response = self.http.get(format!("{}{path}", self.base)).bearer_auth(TOKEN).send().await.ok()?;
        if response.status().is_success() { response.json().await.ok() } else { None }
    }

    /// Until the instance is there, or is not; milliseconds since `begin`.
    async fn shows(&self, name: &str, there: bool, begin: Instant) -> f64 {
        let path = format!("/api/instances/{name}");
        while self.get::<Value>(&path).await.is_some() != there {
            assert!(begin.elapsed() < LIMIT, "{name} there: {} after {LIMIT:?}", !there);
            time::sleep(Duration::from_millis(10)).await;
        }
        begin.elapsed().as_secs_f64() * 1e3
    }

    /// MiB that are resident, and were at most.
    fn memory(&self) -> (f64, f64) {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Seconds of processor time so far.
    fn cpu(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // USER_HZ is 100 on every Linux that people run.
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }
}

/// What passed between the directories that stand for agents and the API, through one port that copies and counts.
#[derive(Debug, Clone, Default)]
struct Meter {
    /// Octets from and to the API, with TLS and HTTP, without TCP and IP.
    octets: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

impl Meter {
    /// Listens before `api`; the address to go to instead of it.
    async fn before(api: SocketAddr) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (meter, address) = (Self::default(), listener.local_addr().unwrap());
        let counted = meter.clone();
        tokio::spawn(async move {
            loop {
                let (ours, _) = listener.accept().await.unwrap();
                counted.connections.fetch_add(1, Ordering::Relaxed);
                let (from, to) = ours.into_split();
                let (answers, questions) = TcpStream::connect(api).await.unwrap().into_split();
                tokio::spawn(copy(from, questions, Arc::clone(&counted.octets)));
                tokio::spawn(copy(answers, to, Arc::clone(&counted.octets)));
            }
        });
        (meter, address)
    }

    fn now(&self) -> [u64; 2] {
        [self.octets.load(Ordering::Relaxed), self.connections.load(Ordering::Relaxed)]
    }
}

/// Until either side ends it.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, octets: Arc<AtomicU64>) {
    let mut buffer = vec![0; 16384];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        octets.fetch_add(len as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}

/// What the API server counted.
#[derive(Debug, Clone, Copy, Default)]
struct ApiCost {
    /// LIST and GET of objects.
    reads: f64,
    /// Requests of any kind, as its own log has them: those that are answered at once when they are answered, watches when they begin.
    requests: f64,
    cpu: f64,
}

impl ApiCost {
    async fn now(client: &Client) -> Self {
        let text = client.request_text(http_get("/metrics")).await.unwrap();
        let sum = |name: &str, labels: &[&str]| {
            let of = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
            text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
        };
        let verb = |verb: &str| sum("apiserver_request_total{", &[&format!("verb=\"{verb}\"")]);
        let log = std::fs::read_to_string(std::env::var_os(AUDIT_LOG).unwrap()).unwrap();
        // Without our own questions for these numbers.
        let requests = log.lines().filter(|line| !line.contains(r#""requestURI":"/metrics""#)).count();
        let requests = f64::from(u32::try_from(requests).unwrap());
        Self { reads: verb("LIST") + verb("GET"), requests, cpu: sum("process_cpu_seconds_total", &[]) }
    }

    fn since(self, before: Self) -> Value {
        json!({"reads": self.reads - before.reads, "requests": self.requests - before.requests, "cpu_s": self.cpu - before.cpu})
    }
}

fn http_get(path: &str) -> axum::http::Request<Vec<u8>> {
    axum::http::Request::get(path).body(Vec::new()).unwrap()
}

fn percentiles(mut times: Vec<f64>) -> Value {
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    json!({"p50": at(50), "p95": at(95), "max": at(100), "all": times})
}

fn output(program: &str, argument: &str) -> String {
    String::from_utf8(Command::new(program).arg(argument).output().unwrap().stdout).unwrap().trim().to_owned()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args = Args::parse();
    let folder = std::env::temp_dir().join(format!("loco-bench-scale-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let rows = measure(&args, &folder).await;
    std::fs::remove_dir_all(&folder).unwrap();
    write(&args, &rows);
}

async fn measure(args: &Args, folder: &Path) -> Vec<Value> {
    let lans = folder.join("lans.json");
    std::fs::write(&lans, lan_file(args.instances).to_string()).unwrap();
    let client = Client::try_default().await.unwrap();
    let namespace = json!({"metadata": {"name": NAMESPACE}}).to_string().into_bytes();
    let request = axum::http::Request::post("/api/v1/namespaces").header("content-type", "application/json");
    client.request_text(request.body(namespace).unwrap()).await.unwrap();
    let writer = Writer { pods: Api::namespaced(client.clone(), NAMESPACE) };
    let begin = Instant::now();
    let created = stream::iter(0..args.instances).map(|instance| {
        let writer = &writer;
        async move {
            let lan = format!("lan-{}", instance / SEATS);
            writer.run(&instance_name(instance), &lan, instance % SEATS, instance % args.nodes).await;
        }
    });
    created.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    publish_agents(&client, args.nodes).await;
    let mut rows = vec![json!({"what": "written", "s": begin.elapsed().as_secs_f64()})];
    tokio::spawn(agents(args.nodes, args.instances));

    let before = ApiCost::now(&client).await;
    let begin = Instant::now();
    let gateway = Gateway::start(&args.gateway, folder, &lans);
    gateway_is_live(&gateway, args, begin).await;
    let (resident, most) = gateway.memory();
    rows.push(json!({"what": "gateway: all live", "s": begin.elapsed().as_secs_f64(), "resident_mib": resident, "most_mib": most,
                     "api": ApiCost::now(&client).await.since(before)}));

    // What the gateway alone asks, to be taken from what all ask.
    let (before, begin) = (ApiCost::now(&client).await, Instant::now());
    time::sleep(Duration::from_secs(args.quiet / 2)).await;
    rows.push(json!({"what": "gateway alone", "s": begin.elapsed().as_secs_f64(), "api": ApiCost::now(&client).await.since(before)}));

    let (meter, way) = Meter::before(API.parse().unwrap()).await;
    let before = ApiCost::now(&client).await;
    let begin = Instant::now();
    let mut followers = Vec::new();
    for _ in 0..args.followers {
        followers.push(follow(&lans, args.instances, way).await);
    }
    let [octets, connections] = meter.now();
    rows.push(
        json!({"what": "agents start", "agents": args.followers, "s": begin.elapsed().as_secs_f64(), "octets": octets,
                     "connections": connections, "api": ApiCost::now(&client).await.since(before)}),
    );

    let (before, cpu, begin) = (ApiCost::now(&client).await, gateway.cpu(), Instant::now());
    let [octets, _] = meter.now();
    time::sleep(Duration::from_secs(args.quiet)).await;
    let (resident, most) = gateway.memory();
    rows.push(json!({"what": "quiet", "agents": args.followers, "s": begin.elapsed().as_secs_f64(), "octets": meter.now()[0] - octets,
                     "gateway_cores": (gateway.cpu() - cpu) / begin.elapsed().as_secs_f64(), "resident_mib": resident, "most_mib": most,
                     "api": ApiCost::now(&client).await.since(before)}));

    let (before, begin, [octets, _]) = (ApiCost::now(&client).await, Instant::now(), meter.now());
    let (mut came, mut went) = (Vec::new(), Vec::new());
    for change in 0..args.changes {
        let name = format!("instance-{SPARE}-{change}");
        writer.run(&name, SPARE, change, change * 7 % args.nodes).await;
        came.push(gateway.shows(&name, true, Instant::now()).await);
        writer.end(&name).await;
        went.push(gateway.shows(&name, false, Instant::now()).await);
    }
    let (resident, most) = gateway.memory();
    rows.push(json!({"what": "changes", "agents": args.followers, "pods": args.changes, "s": begin.elapsed().as_secs_f64(), "octets": meter.now()[0] - octets,
                     "came_ms": percentiles(came), "went_ms": percentiles(went), "resident_mib": resident, "most_mib": most,
                     "api": ApiCost::now(&client).await.since(before)}));
    rows
}

/// Waits until the gateway has heard of every instance from its agent.
async fn gateway_is_live(gateway: &Gateway, args: &Args, begin: Instant) {
    // One of the last node's; then all, which is a large answer.
    loop {
        let all: Option<Vec<Value>> = gateway.get("/api/instances").await;
        let live = all.iter().flatten().filter(|instance| instance["state"] == "live").count();
        if live == args.instances {
            return;
        }
        assert!(begin.elapsed() < LIMIT, "{live} of {} are live", args.instances);
        time::sleep(Duration::from_millis(500)).await;
    }
}

/// A directory as an agent's, once it knows of all.
async fn follow(lans: &Path, instances: usize, api: SocketAddr) -> Follower {
    let args = KubernetesArgs {
        namespace: Some(NAMESPACE.into()),
        lans: lans.to_owned(),
        agent_service: directory::AGENT_SERVICE.into(),
        last_known: None,
    };
    let mut source = KubernetesSource::connect(&args, Pace::AGENT).await.unwrap();
    // The same, by the way that is metered.
    let mut config = kube::Config::infer().await.unwrap();
    config.cluster_url = format!("https://{api}").parse().unwrap();
    config.default_retry = false;
    source.client = Client::try_from(config).unwrap();
    let follower = Follower::kubernetes(source);
    let mut watch = follower.watch();
    let whole = watch.wait_for(|directory| directory.snapshot.instances().count() == instances);
    time::timeout(LIMIT, whole).await.unwrap().unwrap();
    follower
}

fn write(args: &Args, rows: &[Value]) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap().trim().to_owned();
    let date = output("date", "+%F");
    let head = json!({"bench": "cluster-scale", "date": date, "machine": format!("{cores} cores, kernel {}", output("uname", "-r")),
                      "load": load, "nodes": args.nodes, "instances": args.instances, "followers": args.followers});
    let raw = rows.iter().fold(format!("{head}\n"), |text, row| text + &format!("{row}\n"));
    std::io::stdout().write_all(raw.as_bytes()).unwrap();
    let Some(out) = &args.out else { return };
    let number = |row: usize, path: &str| rows[row].pointer(path).and_then(Value::as_f64).unwrap();
    let pods = f64::from(u32::try_from(args.changes).unwrap());
    // Requests a second, of all agents: what all asked without what the gateway asks.
    let asked = number(4, "/api/requests") / number(4, "/s") - number(2, "/api/requests") / number(2, "/s");
    let agents = f64::from(u32::try_from(args.followers).unwrap());
    let table = [
        ("gateway: from its start until all are live", format!("{:.1} s", number(1, "/s"))),
        (
            "gateway: memory at that moment (most so far)",
            format!("{:.0} MiB ({:.0})", number(1, "/resident_mib"), number(1, "/most_mib")),
        ),
        (
            "gateway: memory at the end (most so far)",
            format!("{:.0} MiB ({:.0})", number(5, "/resident_mib"), number(5, "/most_mib")),
        ),
        ("gateway: processor while nothing changes", format!("{:.2} cores", number(4, "/gateway_cores"))),
        (
            "pod comes, until the gateway shows it: p50, p95, max",
            format!(
                "{:.0}, {:.0}, {:.0} ms",
                number(5, "/came_ms/p50"),
                number(5, "/came_ms/p95"),
                number(5, "/came_ms/max")
            ),
        ),
        (
            "pod goes, until the gateway shows it: p50, p95, max",
            format!(
                "{:.0}, {:.0}, {:.0} ms",
                number(5, "/went_ms/p50"),
                number(5, "/went_ms/p95"),
                number(5, "/went_ms/max")
            ),
        ),
        ("each agent's start: requests to the API", format!("{:.1}", number(3, "/api/requests") / agents)),
        ("each agent's start: from and to the API", format!("{:.1} MB", number(3, "/octets") / agents / 1e6)),
        ("each agent's start: processor time of the API server", format!("{:.2} s", number(3, "/api/cpu_s") / agents)),
        ("each agent, nothing changes: requests a second", format!("{:.3}", asked / agents)),
        (
            "each agent, nothing changes: lists and gets of objects",
            format!("{:.0}", number(4, "/api/reads") / (agents + 1.0)),
        ),
        (
            "each agent, nothing changes: from and to the API",
            format!("{:.0} octets/s", number(4, "/octets") / agents / number(4, "/s")),
        ),
        (
            "each agent, for a pod that comes and goes: from and to the API",
            format!("{:.1} kB", number(5, "/octets") / agents / pods / 1e3),
        ),
    ];
    let lines = table.iter().fold(String::new(), |text, (what, value)| text + &format!("| {what} | {value} |\n"));
    let name = format!("cluster-scale-{date}");
    std::fs::write(out.join(format!("{name}.jsonl")), &raw).unwrap();
    let text = format!(
        "# {} nodes, {} instances, {date}\n\nMachine: {}; load after the run {load}.\nCommand: `cargo xtask bench cluster-scale`. Raw data: \
         `{name}.jsonl`.\nReal: etcd, API server, gateway, and {} directories with the code and pace of an agent's (the gateway is one more). \
         Played: kubelets, controllers, and the agents' HTTP, every 2 s with live guests that are counted and play with nobody. A pod that comes \
         or goes is created, gets its status, and is deleted: three events.\n\n| what | measured |\n|---|---|\n{lines}",
        args.nodes,
        args.instances,
        head["machine"].as_str().unwrap(),
        args.followers
    );
    std::fs::write(out.join(format!("{name}.md")), text).unwrap();
}
