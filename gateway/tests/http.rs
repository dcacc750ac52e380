//! The gateway over real HTTP: a real listener, and an agent that is a real HTTP server speaking `api`'s bodies.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use axum::{
    Router,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, sse::Event},
    routing::{get, post},
};
use futures_util::StreamExt as _;
use gateway::{App, config::Config};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time};

const ADMIN: &str = "admin-token-0123456789";
const PLAY: &str = "play-token-0123456789";
const VIEW: &str = "view-token-0123456789";
const AGENT: &str = "agent-token-0123456789";

struct Rig {
    folder: PathBuf,
    base: String,
    http: Client,
    app: App,
}

impl Drop for Rig {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).expect("the test's folder can be removed");
    }
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

fn agent_status() -> Value {
    json!({"node":"node-a","pid":7,"version":"0","at":1.0,"lans":[{"name":"party","vni":4200,"mode":"vxlan","seats":9}],
        "reachability":[],"fabric_problems":[],
        "instances":[{"id":"instance-0","lan":"party","seat":0,"node":"node-a","mac":"02:4c:00:10:68:01","ip":"10.98.0.1",
            "host_name":"LOCO1068-1","state":"live","since":1.0,"link":true,"address_in_use":"10.98.0.1","viewers":{"thumb":0,"full":0}}]})
}

/// An agent that lives as long as the test: one status, and an offer endpoint that tells what it was given.
async fn agent() -> SocketAddr {
    serve(
        Router::new()
            .route(
                "/v1/events",
                get(|headers: HeaderMap| async move {
                    if headers.get(header::AUTHORIZATION).is_none_or(|v| v != &format!("Bearer {AGENT}")) {
                        return StatusCode::UNAUTHORIZED.into_response();
                    }
                    let beats = futures_util::stream::unfold((), |()| async {
                        let event = Event::default().event("status").json_data(agent_status()).unwrap();
                        Some((Ok::<_, std::convert::Infallible>(event), time::sleep(Duration::from_secs(1)).await))
                    });
                    axum::response::Sse::new(beats).into_response()
                }),
            )
            .route(
                "/v1/instances/instance-0/whep",
                post(|uri: axum::http::Uri, headers: HeaderMap, body: String| async move {
                    if !body.starts_with("v=0") {
                        let error = api::ErrorBody::new("malformed-sdp", "not SDP", "send SDP");
                        return (StatusCode::UNPROCESSABLE_ENTITY, axum::Json(error)).into_response();
                    }
                    let role = headers["x-loco-role"].to_str().unwrap().to_owned();
                    let place = "/v1/instances/instance-0/whep/s1".to_owned();
                    let head = [(header::LOCATION, place), (header::CONTENT_TYPE, "application/sdp".to_owned())];
                    (StatusCode::CREATED, head, format!("v=0 {role} {}", uri.query().unwrap_or(""))).into_response()
                }),
            )
            .route(
                "/v1/instances/instance-0/pcap",
                get(|uri: axum::http::Uri| async move {
                    let query = uri.query().unwrap_or("").to_owned();
                    if query.contains("last=7000ms") {
                        let error = api::ErrorBody::new("busy", "too many read", "wait");
                        return (StatusCode::SERVICE_UNAVAILABLE, axum::Json(error)).into_response();
                    }
                    // A first part, and then one each time that a follower takes one.
                    let parts = [query, " part".to_owned()].map(Ok::<_, std::convert::Infallible>);
                    let parts = futures_util::stream::iter(parts);
                    let endless = futures_util::stream::pending();
                    if uri.query().is_some_and(|query| query.contains("follow=1")) {
                        return axum::body::Body::from_stream(parts.chain(endless)).into_response();
                    }
                    axum::body::Body::from_stream(parts).into_response()
                }),
            ),
    )
    .await
}

async fn rig(agent_url: &str) -> Rig {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("loco-gateway-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let snapshot = json!({"version":1,"lans":[{"name":"party","vni":4200,"mode":"vxlan","subnet":"10.98.0.0/24","seats":9}],
        "nodes":[{"name":"node-a","underlay_ip":"10.99.0.11","agent_url":agent_url}],
        "instances":[{"id":"instance-0","lan":"party","seat":0,"node":"node-a"}]});
    std::fs::write(folder.join("snapshot.json"), snapshot.to_string()).unwrap();
    std::fs::write(folder.join("tokens"), format!("admin {ADMIN}\nplay {PLAY}\nview {VIEW}\n")).unwrap();
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
    let base = format!("http://{}", serve(app.router()).await);
    Rig { folder, base, http: Client::builder().no_proxy().build().unwrap(), app }
}

impl Rig {
    fn request(&self, method: Method, path: &str, token: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(token)
    }

    async fn get(&self, path: &str) -> Value {
        self.request(Method::GET, path, VIEW).send().await.unwrap().json().await.unwrap()
    }

    async fn until(&self, path: &str, want: impl Fn(&Value) -> bool) -> Value {
        let deadline = time::Instant::now() + Duration::from_secs(8);
        loop {
            let value = self.get(path).await;
            if want(&value) {
                return value;
            }
            assert!(time::Instant::now() < deadline, "{path} stayed {value}");
            time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[track_caller]
    fn check(answer: reqwest::Response, status: u16, code: &'static str) -> impl Future<Output = ()> {
        assert_eq!(answer.status().as_u16(), status);
        async move {
            let body: Value = answer.json().await.unwrap();
            assert_eq!(body["error"]["code"], code);
            for key in ["message", "remedy"] {
                assert!(body["error"][key].as_str().is_some_and(|text| !text.is_empty()), "{body}");
            }
        }
    }

    fn offer(&self, instance: &str, token: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.request(Method::POST, &format!("/api/whep/{instance}?tier=full"), token)
            .header(header::CONTENT_TYPE, "application/sdp")
            .body(body)
    }
}

#[tokio::test]
async fn everything_but_health_and_the_page_asks_for_a_token() {
    let rig = rig(&format!("http://{}", agent().await)).await;
    for path in [
        "/api/instances",
        "/api/lan-status",
        "/api/events",
        "/api/openapi.json",
        "/api/nothing",
        "/metrics",
        "/api/instances/instance-0/screenshot.png",
    ] {
        let answer = rig.http.get(format!("{}{path}", rig.base)).send().await.unwrap();
        Rig::check(answer, 401, "unauthorized").await;
        let answer = rig.request(Method::GET, path, "not-a-token-of-this-one").send().await.unwrap();
        Rig::check(answer, 401, "unauthorized").await;
    }
    let health = rig.http.get(format!("{}/health", rig.base)).send().await.unwrap();
    assert_eq!(health.status(), 200);
    assert_eq!(rig.request(Method::GET, "/metrics", VIEW).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn what_the_agent_says_is_shown() {
    let rig = rig(&format!("http://{}", agent().await)).await;
    let live = rig.until("/api/instances/live", |v| v["stats"]["ready"] == 1).await;
    assert_eq!(live["instances"][0]["id"], "instance-0");
    assert_eq!(live["instances"][0]["name"], "Seat 1");
    let lan = rig.get("/api/lan-status").await;
    assert_eq!(lan["networkMode"], "vxlan");
    assert_eq!(lan["instances"]["instance-0"]["link"], "up");
    assert_eq!(rig.get("/api/session").await["role"], "view");
    assert_eq!(rig.http.get(format!("{}/ready", rig.base)).send().await.unwrap().status(), 200);
    let mut events = rig.request(Method::GET, "/api/events", VIEW).send().await.unwrap();
    let first = String::from_utf8(events.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(first.starts_with("event: wall\ndata: {"), "{first}");
}

#[tokio::test]
async fn an_agent_that_is_away_is_said_to_be() {
    let rig = rig("http://127.0.0.1:1").await;
    let info = rig.until("/api/instances/discovery-info", |v| v["agents"][0]["problem"].is_string()).await;
    assert_eq!(info["agents"][0]["answers"], false);
    assert_eq!(rig.get("/api/instances").await[0]["state"], "starting");
    assert_eq!(rig.get("/api/lan-status").await.get("networkMode"), None);
    let answer = rig.offer("instance-0", VIEW, "v=0").send().await.unwrap();
    Rig::check(answer, 503, "agent-silent").await;
    // No other gateway could reach it either: the page is served, and says so.
    let ready = rig.http.get(format!("{}/ready", rig.base)).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    let ready: Value = ready.json().await.unwrap();
    assert_eq!((ready["status"].as_str(), ready["problems"].as_array().unwrap().len()), (Some("degraded"), 1));
}

#[tokio::test]
async fn offers_are_relayed_and_bad_ones_refused() {
    let rig = rig(&format!("http://{}", agent().await)).await;
    let answer = rig.offer("instance-0", PLAY, "v=0\r\n").send().await.unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["location"], "/api/whep/instance-0/s1");
    assert_eq!(answer.text().await.unwrap(), "v=0 play tier=full");

    Rig::check(rig.offer("instance-0", PLAY, "rubbish").send().await.unwrap(), 422, "malformed-sdp").await;
    Rig::check(rig.offer("instance-9", PLAY, "v=0").send().await.unwrap(), 404, "unknown-instance").await;
    Rig::check(rig.offer("..%2F..%2Fetc", PLAY, "v=0").send().await.unwrap(), 404, "unknown-instance").await;
    Rig::check(rig.offer("instance-0", PLAY, vec![b'v'; 64 * 1024 + 1]).send().await.unwrap(), 413, "too-large").await;
    let answer = rig.request(Method::POST, "/api/whep/instance-0", PLAY).body("v=0").send().await.unwrap();
    Rig::check(answer, 415, "not-sdp").await;
    for path in ["/api/whep/instance-0", "/api/instances/refresh"] {
        let answer = rig.request(Method::POST, path, PLAY).body(vec![b'x'; 70_000]).send().await.unwrap();
        Rig::check(answer, 413, "too-large").await;
    }
    let answer = rig.request(Method::POST, "/api/whep/instance-0?tier=huge", PLAY).body("v=0").send().await.unwrap();
    Rig::check(answer, 400, "bad-query").await;
    let answer = rig.request(Method::GET, "/api/whep/instance-0", PLAY).send().await.unwrap();
    Rig::check(answer, 405, "wrong-method").await;
}

#[tokio::test]
async fn roles_limit_what_may_be_done() {
    let rig = rig(&format!("http://{}", agent().await)).await;
    let power =
        |token, body: Value| rig.request(Method::POST, "/api/instances/instance-0/power", token).body(body.to_string());
    Rig::check(power(PLAY, json!({"action":"reset"})).send().await.unwrap(), 403, "forbidden").await;
    Rig::check(power(ADMIN, json!({"action":"explode"})).send().await.unwrap(), 422, "bad-body").await;
    let active =
        |token, ids: Value| rig.request(Method::POST, "/api/active", token).body(json!({"active": ids}).to_string());
    Rig::check(active(VIEW, json!(["instance-0"])).send().await.unwrap(), 403, "forbidden").await;
    Rig::check(active(PLAY, json!(["instance-7"])).send().await.unwrap(), 404, "unknown-instance").await;
    assert_eq!(active(PLAY, json!(["instance-0"])).send().await.unwrap().status(), 200);
    assert_eq!(rig.get("/api/active").await, json!({"active":["instance-0"]}));
}

#[tokio::test]
async fn captures_are_for_admins_and_come_as_a_stream() {
    let rig = rig(&format!("http://{}", agent().await)).await;
    let ask = |token, path: &str| rig.request(Method::GET, path, token).send();
    for token in [VIEW, PLAY] {
        Rig::check(ask(token, "/api/instances/instance-0/pcap").await.unwrap(), 403, "forbidden").await;
    }
    Rig::check(ask(ADMIN, "/api/instances/instance-7/pcap").await.unwrap(), 404, "unknown-instance").await;
    for query in ["last=soon", "follow=maybe", "last=1s&last=2s", "file=x"] {
        let path = format!("/api/instances/instance-0/pcap?{query}");
        Rig::check(ask(ADMIN, &path).await.unwrap(), 400, "bad-query").await;
    }
    Rig::check(ask(ADMIN, "/api/instances/instance-0/pcap?last=7").await.unwrap(), 503, "busy").await;
    let answer = ask(ADMIN, "/api/instances/instance-0/pcap?last=2m").await.unwrap();
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/x-pcapng");
    assert_eq!(answer.headers()[header::CONTENT_DISPOSITION], "attachment; filename=\"instance-0.pcapng\"");
    assert_eq!(answer.text().await.unwrap(), "follow=0&last=120000ms part");
    // What never ends arrives all the same, as it comes.
    let mut answer = ask(ADMIN, "/api/instances/instance-0/pcap?follow=1").await.unwrap();
    let mut text = Vec::new();
    while text.len() < "follow=1 part".len() {
        text.extend(time::timeout(Duration::from_secs(5), answer.chunk()).await.unwrap().unwrap().unwrap());
    }
    assert_eq!(text, b"follow=1 part");
}

#[tokio::test]
async fn a_changed_directory_is_followed_within_a_second_and_a_torn_one_is_kept_out() {
    let rig = rig("http://127.0.0.1:1").await;
    let path = rig.folder.join("snapshot.json");
    let good = std::fs::read_to_string(&path).unwrap();
    let started = time::Instant::now();
    std::fs::write(
        &path,
        good.replace(
            r#""instances":[{"#,
            r#""instances":[{"id":"instance-1","lan":"party","seat":1,"node":"node-a"},{"#,
        ),
    )
    .unwrap();
    rig.until("/api/instances", |v| v.as_array().is_some_and(|a| a.len() == 2)).await;
    assert!(started.elapsed() < Duration::from_secs(1), "took {:?}", started.elapsed());
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    let info = rig.until("/api/instances/discovery-info", |v| v["problem"].is_string()).await;
    assert_eq!(info["instanceCount"], 2);
    let refreshed: Value =
        rig.request(Method::POST, "/api/instances/refresh", VIEW).send().await.unwrap().json().await.unwrap();
    assert_eq!(refreshed["instanceCount"], 2);
}

#[tokio::test]
async fn the_doctor_answers_for_a_pair_for_a_seat_and_for_all() {
    let rig = rig(&format!("http://{}", agent().await)).await;
    rig.until("/api/instances/live", |v| v["stats"]["ready"] == 1).await;
    let pair = rig.get("/api/doctor?from=instance-0&to=instance-0").await;
    assert_eq!(pair["diagnosis"][0]["ladder"].as_array().unwrap().len(), 9, "{pair}");
    assert_eq!(pair["diagnosis"][0]["from"], "instance-0");
    assert_eq!(rig.get("/api/doctor?from=instance-0").await["diagnosis"].as_array().unwrap().len(), 1);
    let all = rig.get("/api/doctor").await;
    assert_eq!((&all["ok"], all["diagnosis"].as_array().unwrap().len()), (&json!(true), 0), "{all}");
    let ask = |path: &str| rig.request(Method::GET, path, VIEW).send();
    Rig::check(ask("/api/doctor?from=instance-7").await.unwrap(), 404, "unknown-instance").await;
    Rig::check(ask("/api/doctor?form=instance-0").await.unwrap(), 400, "bad-query").await;
}

#[tokio::test]
async fn the_last_hour_can_be_asked_for() {
    let rig = rig(&format!("http://{}", agent().await)).await;
    rig.until("/api/lan-status/history", |v| v["state"]["instances"]["instance-0"]["link"] == "up").await;
    let hour = rig.get("/api/lan-status/history").await;
    assert_eq!(hour["step"], 5.0);
    assert!(!hour["samples"].as_array().unwrap().is_empty(), "{hour}");
    let before = rig.get("/api/lan-status/history?from=1&to=2").await;
    assert_eq!((before.get("state"), &before["samples"]), (None, &json!([])));
    let answer = rig.request(Method::GET, "/api/lan-status/history?from=soon", VIEW).send().await.unwrap();
    Rig::check(answer, 400, "bad-query").await;
}

/// Events of a stream as they come: name and data.
struct Events {
    answer: reqwest::Response,
    rest: String,
}

impl Events {
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.rest.find("\n\n") {
                let event: String = self.rest.drain(..end + 2).collect();
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                if let (Some(name), Some(data)) = (field("event:"), field("data:")) {
                    return Some((name.to_owned(), serde_json::from_str(data).unwrap()));
                }
                continue;
            }
            let chunk = time::timeout(Duration::from_secs(10), self.answer.chunk()).await.expect("in time").unwrap()?;
            self.rest.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

#[tokio::test]
async fn changes_follow_the_first_wall_and_an_end_is_said() {
    let rig = rig(&format!("http://{}", agent().await)).await;
    rig.until("/api/instances/live", |live| live["stats"]["ready"] == 1).await;
    let answer = rig.request(Method::GET, "/api/events?changes=1", VIEW).send().await.unwrap();
    let mut events = Events { answer, rest: String::new() };
    let (name, wall) = events.next().await.unwrap();
    assert_eq!(name, "wall");
    assert_eq!(
        (wall["directory"]["mode"].as_str(), wall["instances"][0]["id"].as_str()),
        (Some("file"), Some("instance-0"))
    );
    let (name, change) = events.next().await.unwrap();
    assert_eq!(name, "change");
    assert!(change["at"].as_f64() >= wall["at"].as_f64());

    // The directory breaks: the wall stays, and says since when it is old.
    std::fs::write(rig.folder.join("snapshot.json"), "{").unwrap();
    let change = loop {
        let (name, change) = events.next().await.unwrap();
        assert_eq!(name, "change");
        if change["directory"]["stale_since"].is_number() {
            break change;
        }
    };
    assert!(change["directory"]["problem"].as_str().unwrap().contains("EOF"));
    assert_eq!(change.get("gone"), None);
    let ready = rig.http.get(format!("{}/ready", rig.base)).send().await.unwrap();
    assert_eq!(ready.status(), 200, "what was known last is in force");
    assert_eq!(ready.json::<Value>().await.unwrap()["status"], "degraded");

    rig.app.enter(gateway::Phase::Draining);
    assert_eq!(rig.http.get(format!("{}/ready", rig.base)).send().await.unwrap().status(), 503);
    assert_eq!(events.next().await.unwrap().0, "change", "streams go on while nothing new is sent here");
    rig.app.enter(gateway::Phase::Closing);
    let mut last = String::new();
    while let Some((name, _)) = events.next().await {
        last = name;
    }
    assert_eq!(last, "bye");
    Rig::check(rig.request(Method::GET, "/api/events?changes=2", VIEW).send().await.unwrap(), 400, "bad-query").await;
}
