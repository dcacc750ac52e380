//! How fast the LAN's questions are answered, with 9 and with 1,000 instances.
//!
//! Agents here are real HTTP servers that say, each second, what agents of a busy wall say: nine seats a LAN, all in one
//! game, every pair with counters, timelines and round trips. The gateway is the real one, asked over HTTP, one question at
//! a time. Prints one JSON object a line; with `--out DIR` it also writes them to `DIR/lan-status-DATE.jsonl`, and a table
//! to `DIR/lan-status-DATE.md`. `cargo xtask bench lan-status` runs it.
#![expect(clippy::unwrap_used, reason = "a bench stops at the first surprise")]
use std::{
    collections::BTreeMap,
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use api::{
    agent::{AgentStatus, InstanceStatus, ObserverHealth, PairCount},
    lan::{ClassCount, Reachability},
    observe::{
        Certainty, Enumeration, Evidence, Lag, Machine, Observed, Player, Session, Step, SystemPlayer, Timeline,
        TimelineStep,
    },
};
use axum::{Router, response::sse::Event, routing::get};
use gateway::{App, config::Config};
use serde_json::json;
use tokio::{net::TcpListener, time};

const TOKEN: &str = "view-token-0123456789";
const AGENT: &str = "agent-token-0123456789";
const SEATS: usize = 9;
const SAMPLES: usize = 200;
/// LANs of one node: their seats are on it and on the next two, so that every LAN spans three nodes.
const LANS_PER_NODE: usize = 4;

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn mac(lan: usize, seat: usize) -> String {
    // As `model::Lan::identity` gives them: 02:4c, VNI, seat.
    let vni = 4200 + lan;
    format!("02:4c:{:02x}:{:02x}:{:02x}:{:02x}", vni >> 16 & 255, vni >> 8 & 255, vni & 255, seat + 1)
}

fn ip(lan: usize, seat: usize) -> String {
    format!("10.{}.{}.{}", 98 + lan / 256, lan % 256, seat + 1)
}

struct Shape {
    instances: usize,
    lans: usize,
    nodes: usize,
}

impl Shape {
    fn new(instances: usize) -> Self {
        let lans = instances.div_ceil(SEATS);
        Self { instances, lans, nodes: lans.div_ceil(LANS_PER_NODE).max(3) }
    }

    /// Node of a seat.
    fn node(&self, lan: usize, seat: usize) -> usize {
        (lan / LANS_PER_NODE + seat / 3) % self.nodes
    }

    fn seats(&self, lan: usize) -> usize {
        SEATS.min(self.instances - lan * SEATS)
    }

    fn snapshot(&self, urls: &[String]) -> serde_json::Value {
        let lans: Vec<_> = (0..self.lans)
            .map(|lan| {
                let subnet = ip(lan, 0).rsplit_once('.').unwrap().0.to_owned() + ".0/24";
                json!({"name": format!("lan-{lan}"), "vni": 4200 + lan, "mode": "vxlan", "subnet": subnet, "seats": SEATS})
            })
            .collect();
        let nodes: Vec<_> = urls
            .iter()
            .enumerate()
            .map(|(n, url)| {
                json!({"name": format!("node-{n}"), "underlay_ip": format!("10.99.{}.{}", n / 200, n % 200 + 1), "agent_url": url})
            })
            .collect();
        let instances: Vec<_> = (0..self.lans)
            .flat_map(|lan| (0..self.seats(lan)).map(move |seat| (lan, seat)))
            .map(|(lan, seat)| {
                json!({"id": format!("instance-{}", lan * SEATS + seat), "lan": format!("lan-{lan}"), "seat": seat,
                    "node": format!("node-{}", self.node(lan, seat))})
            })
            .collect();
        json!({"version": 1, "lans": lans, "nodes": nodes, "instances": instances})
    }

    /// What the agent of `node` says at its `beat`th second.
    fn status(&self, node: usize, beat: u64) -> AgentStatus {
        let (mut instances, mut observed, mut reachability) = (Vec::new(), BTreeMap::new(), Vec::new());
        for lan in 0..self.lans {
            let here: Vec<usize> = (0..self.seats(lan)).filter(|seat| self.node(lan, *seat) == node).collect();
            if here.is_empty() {
                continue;
            }
            observed.insert(format!("lan-{lan}"), self.observed(lan, beat));
            for seat in &here {
                instances.push(self.instance(lan, *seat, beat));
            }
            for seat in 0..self.seats(lan) {
                reachability.push(Reachability {
                    from: format!("node-{node}"),
                    to: format!("instance-{}", lan * SEATS + seat),
                    lan: format!("lan-{lan}"),
                    reachable: true,
                    rtt_ms: Some(0.4),
                    last_seen: Some(now()),
                    asked: beat,
                    answered: beat,
                });
            }
        }
        AgentStatus {
            node: format!("node-{node}"),
            pid: 1,
            version: "0".into(),
            at: now(),
            instances: instances.into_iter().map(Arc::new).collect(),
            lans: Vec::new(),
            reachability,
            fabric_problems: Vec::new(),
            tunnel: None,
            snapshot_problem: None,
            foreign: Vec::new(),
            observed,
            observer: Some(ObserverHealth { attach: Some("tcx".into()), taps: 9, events_lost: 0, problem: None }),
        }
    }

    fn instance(&self, lan: usize, seat: usize, beat: u64) -> InstanceStatus {
        let mut instance: InstanceStatus = serde_json::from_value(json!({
            "id": format!("instance-{}", lan * SEATS + seat), "lan": format!("lan-{lan}"), "seat": seat,
            "node": format!("node-{}", self.node(lan, seat)), "mac": mac(lan, seat), "ip": ip(lan, seat),
            "host_name": "LOCO", "state": "live", "since": now() - 600.0, "link": true, "address_in_use": ip(lan, seat),
            "counters": {"tx_frames": 90 * beat, "tx_bytes": 9000 * beat, "rx_frames": 90 * beat, "rx_bytes": 9000 * beat, "rx_dropped": 0},
            "picture": {"width": 640, "height": 480, "changes": 30 * beat, "still_for": 0.1}, "viewers": {"thumb": 1, "full": 0},
        }))
        .unwrap();
        for class in ["arp", "dhcp", "netbios_ns", "netbios_dgm", "dplay_query", "dplay_tcp", "dplay_udp", "udp_other"]
        {
            instance.classes.insert(class.into(), ClassCount { tx_frames: beat, rx_frames: beat });
        }
        let peers = (0..self.seats(lan)).filter(|other| *other != seat).map(|other| mac(lan, other));
        instance.pairs = peers
            .chain(["ff:ff:ff:ff:ff:ff".to_owned()])
            .map(|peer| PairCount {
                peer,
                tx_frames: 10 * beat,
                tx_bytes: 1000 * beat,
                rx_frames: 20 * beat,
                rx_bytes: 2000 * beat,
                rx_broadcasts: 10 * beat,
            })
            .collect();
        instance
    }

    #[expect(clippy::too_many_lines, reason = "one list of everything that an agent says of a LAN")]
    fn observed(&self, lan: usize, beat: u64) -> Observed {
        let evidence = |what: &str| {
            Some(Evidence {
                at: now() - 500.0,
                frame: beat,
                what: what.into(),
                node: None,
                port: Some("overlay".into()),
            })
        };
        let session = format!("Loco Party {lan}");
        let seats = 0..self.seats(lan);
        let steps = [
            Step::Power,
            Step::Frame,
            Step::Address,
            Step::Name,
            Step::Asks,
            Step::IsAnswered,
            Step::Linked,
            Step::PlayerId,
            Step::Joined,
            Step::Plays,
        ];
        Observed {
            frames: 900 * beat,
            sessions: vec![Session {
                name: Some(session.clone()),
                transport: "tcp".into(),
                instance_guid_wire: Some(format!("{lan:032x}")),
                app_guid_wire: Some("01".repeat(16)),
                max_players: Some(9),
                current_players: Some(9),
                host_ip: Some(ip(lan, 0)),
                host_system_id: Some("00000001".into()),
                certainty: Certainty::Announced,
                evidence: evidence("ENUMSESSIONSREPLY"),
                ..Session::default()
            }],
            enumerations: seats
                .clone()
                .skip(1)
                .map(|seat| Enumeration {
                    ip: ip(lan, seat),
                    count: 3,
                    reply_port: Some(2300),
                    answered_by: vec![session.clone()],
                    first: evidence("ENUMSESSIONS"),
                    last: evidence("ENUMSESSIONS"),
                    ..Enumeration::default()
                })
                .collect(),
            system_players: seats
                .clone()
                .map(|seat| SystemPlayer {
                    id: format!("{:08x}", seat + 1),
                    ip: Some(ip(lan, seat)),
                    session: Some(session.clone()),
                    host: seat == 0,
                    certainty: Certainty::Announced,
                    evidence: evidence("SUPERENUMPLAYERSREPLY"),
                    ..SystemPlayer::default()
                })
                .collect(),
            players: seats
                .clone()
                .map(|seat| Player {
                    id: format!("{:08x}", seat + 1001),
                    name: Some(format!("Player {seat}")),
                    system_id: Some(format!("{:08x}", seat + 1)),
                    session: Some(session.clone()),
                    certainty: Certainty::Announced,
                    evidence: evidence("CREATEPLAYER"),
                    ..Player::default()
                })
                .collect(),
            machines: seats
                .clone()
                .map(|seat| Machine {
                    mac: mac(lan, seat),
                    ips: vec![ip(lan, seat)],
                    name: Some(format!("LOCO-{seat}")),
                    frames: 90 * beat,
                    first_seen: now() - 600.0,
                    last_seen: now(),
                    arp: (0..SEATS).map(|other| (ip(lan, other), mac(lan, other))).collect(),
                    ports_open: vec!["tcp/2300".into(), "udp/47624".into()],
                    ..Machine::default()
                })
                .collect(),
            timelines: seats
                .clone()
                .map(|seat| Timeline {
                    mac: mac(lan, seat),
                    instance: None,
                    session: Some(session.clone()),
                    steps: steps
                        .iter()
                        .map(|step| TimelineStep { step: *step, evidence: evidence("a step").unwrap() })
                        .collect(),
                })
                .collect(),
            lags: seats
                .clone()
                .flat_map(|from| (0..SEATS).map(move |to| (from, to)))
                .filter(|(from, to)| from != to)
                .map(|(from, to)| Lag {
                    from: mac(lan, from),
                    to: mac(lan, to),
                    rtt_ms: Some(1.5),
                    guest_ms: Some(1.2),
                    fabric_ms: Some(0.3),
                    error_ms: Some(0.2),
                    samples: beat,
                })
                .collect(),
            ..Observed::default()
        }
    }
}

async fn agents(instances: usize) -> Vec<String> {
    let shape = Shape::new(instances);
    let mut urls = Vec::new();
    for node in 0..shape.nodes {
        let handler = move || async move {
            let beats = futures_util::stream::unfold((Shape::new(instances), 1u64), move |(shape, beat)| async move {
                let event = Event::default().event("status").json_data(shape.status(node, beat)).unwrap();
                if beat > 1 {
                    time::sleep(Duration::from_secs(1)).await;
                }
                Some((Ok::<_, std::convert::Infallible>(event), (shape, beat + 1)))
            });
            axum::response::Sse::new(beats)
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        tokio::spawn(
            async move { axum::serve(listener, Router::new().route("/v1/events", get(handler))).await.unwrap() },
        );
        urls.push(format!("http://{address}"));
    }
    urls
}

/// Milliseconds, sorted, and the size of the last answer.
async fn ask(http: &reqwest::Client, url: &str) -> (Vec<f64>, usize) {
    let (mut times, mut size) = (Vec::with_capacity(SAMPLES), 0);
    for _ in 0..SAMPLES {
        let begin = Instant::now();
        let answer = http.get(url).bearer_auth(TOKEN).send().await.unwrap();
        assert!(answer.status().is_success(), "{url}: {}", answer.status());
        size = answer.bytes().await.unwrap().len();
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        // Spread over the gateway's own work, which comes each second.
        time::sleep(Duration::from_millis(7)).await;
    }
    times.sort_by(f64::total_cmp);
    (times, size)
}

fn resident_mb() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

async fn bench(instances: usize, raw: &mut Vec<String>, rows: &mut Vec<String>) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let folder = std::env::temp_dir().join(format!(
        "loco-bench-{}-{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    ));
    std::fs::create_dir_all(&folder).unwrap();
    let urls = agents(instances).await;
    std::fs::write(folder.join("snapshot.json"), Shape::new(instances).snapshot(&urls).to_string()).unwrap();
    std::fs::write(folder.join("tokens"), format!("view {TOKEN}\n")).unwrap();
    std::fs::write(folder.join("agent-token"), AGENT).unwrap();
    let app = App::start(&Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        source: directory::Source::File(folder.join("snapshot.json")),
        tokens_file: folder.join("tokens"),
        agent_token_file: folder.join("agent-token"),
        drain: Duration::ZERO,
    })
    .await
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = app.router();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let status: api::lan::LanStatus =
            http.get(format!("{base}/api/lan-status")).bearer_auth(TOKEN).send().await.unwrap().json().await.unwrap();
        let rated = status.connectivity.iter().filter(|row| row.rate.is_some_and(|rate| rate > 0.0)).count();
        if rated >= instances * (SEATS - 1) * 9 / 10 {
            assert_eq!(status.diagnosis, [], "a wall that is well");
            break;
        }
        assert!(Instant::now() < deadline, "{rated} pairs have a rate, {:?}", status.diagnosis.first());
        time::sleep(Duration::from_millis(200)).await;
    }
    // A while more, so that there is a history and readings to compare.
    time::sleep(Duration::from_secs(20)).await;
    let at = now();
    for path in [
        "/api/lan-status".to_owned(),
        format!("/api/lan-status/history?from={at}&to={at}"),
        "/api/lan-status/history".to_owned(),
        "/api/doctor".to_owned(),
        "/api/doctor?from=instance-4&to=instance-0".to_owned(),
    ] {
        let (times, size) = ask(&http, &format!("{base}{path}")).await;
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        let name = path.split('?').next().unwrap();
        let name = if path.contains("from=instance") { "/api/doctor, one pair" } else { name };
        let name = if path.contains("from=1") || path.contains("from=2") {
            "/api/lan-status/history, one moment"
        } else {
            name
        };
        raw.push(json!({"instances": instances, "path": name, "ms": times, "bytes": size}).to_string());
        rows.push(format!("| {instances} | {name} | {:.1} | {:.1} | {:.1} | {size} |", at(50), at(95), at(100)));
    }
    let mut events = http.get(format!("{base}/api/events")).bearer_auth(TOKEN).send().await.unwrap();
    let (mut event, mut whole) = (0usize, Vec::new());
    while event == 0 {
        whole.extend_from_slice(&events.chunk().await.unwrap().unwrap());
        event = whole.windows(2).position(|pair| pair == b"\n\n").map_or(0, |end| end + 2);
    }
    let memory = resident_mb();
    raw.push(json!({"instances": instances, "event_bytes": event, "resident_mb": memory}).to_string());
    rows.push(format!("| {instances} | one event of /api/events | | | | {event} |"));
    rows.push(format!("| {instances} | memory of gateway, agents and bench together: {memory:.0} MB | | | | |"));
    std::fs::remove_dir_all(folder).unwrap();
}

fn output(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let out = match arguments.as_slice() {
        [] => None,
        [flag, directory] if flag == "--out" => Some(PathBuf::from(directory)),
        _ => {
            eprintln!("usage: bench-lan-status [--out DIRECTORY]");
            std::process::exit(2);
        }
    };
    let (mut raw, mut rows) = (Vec::new(), Vec::new());
    for instances in [9, 1000] {
        bench(instances, &mut raw, &mut rows).await;
    }
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let machine = format!("{cores} cores, kernel {}", output("uname", "-r"));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap().trim().to_owned();
    let date = output("date", "+%F");
    let head = json!({"bench": "lan-status", "date": date, "machine": machine, "load": load});
    let raw = format!("{head}\n{}\n", raw.join("\n"));
    std::io::stdout().write_all(raw.as_bytes()).unwrap();
    if let Some(out) = out {
        let name = format!("lan-status-{date}");
        std::fs::write(out.join(format!("{name}.jsonl")), &raw).unwrap();
        let table = format!(
            "# Questions about the LAN, {date}\n\nMachine: {machine}; load after the run {load}.\nCommand: `cargo xtask bench lan-status`. \
             Raw data: `{name}.jsonl`. {SAMPLES} questions each, one at a time, over HTTP, while every agent speaks once a second; nine \
             seats a LAN, all in one game, all pairs counted. Agents, gateway and asker are one process on the same cores.\n\n\
             | instances | question | p50 ms | p95 ms | max ms | bytes |\n|---|---|---|---|---|---|\n{}\n",
            rows.join("\n")
        );
        std::fs::write(out.join(format!("{name}.md")), table).unwrap();
    }
}
