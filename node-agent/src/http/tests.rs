//! Every status of the API, asked of the real router.
use std::time::Duration;

use axum::{body::Body, http::Request};
use directory::Directory;
use fabric::FabricStatus;
use prometheus::Registry;
use stream::{StreamConfig, Streams};
use tower::ServiceExt as _;

use super::*;
use crate::{
    desired::Desired,
    instance::{Cables, Shared, Taps},
    seats::Seats,
};

const SNAPSHOT: &str = r#"{"version":1,
  "lans":[{"name":"party","vni":4200,"mode":"vxlan","subnet":"10.98.0.0/24","seats":9}],
  "nodes":[{"name":"node-a","underlay_ip":"10.99.0.11","agent_url":"u"}],
  "instances":[{"id":"instance-0","lan":"party","seat":0,"node":"node-a"}]}"#;

/// An agent's API over one instance that has no runner.
pub(super) struct Rig {
    pub(super) router: Router,
    pub(super) switch: Arc<Switch>,
    published: watch::Sender<Arc<str>>,
    dir: PathBuf,
    _directory: watch::Sender<Directory>,
    _fabric: watch::Sender<FabricStatus>,
    _seats: Seats,
}

impl Rig {
    async fn new(name: &str) -> Self {
        Self::with(name, SNAPSHOT, 24912).await
    }

    /// `port`: of the switch's mesh, another one for each test that has a LAN of mode `socket`.
    pub(super) async fn with(name: &str, snapshot: &str, port: u16) -> Self {
        let dir = std::env::temp_dir().join(format!("loco-http-{}-{name}", std::process::id()));
        crate::seats::prepare(&dir).unwrap();
        let registry = Registry::new();
        let metrics = Metrics::register(&registry, "node-a").unwrap();
        let streams = StreamConfig { media_ip: "127.0.0.1".parse().unwrap(), ports: 24910..=24911 };
        let changed = Arc::new(watch::Sender::new(0));
        let shared = Shared {
            taps: Taps::new(|id| async move { Err(fabric::FabricError::NoPort(id)) }),
            cables: Cables::new(|_, _| async { Ok(()) }),
            fabric: watch::Sender::new(FabricStatus::default()).subscribe(),
            streams: Arc::new(Streams::new(streams, &registry).unwrap()),
            metrics: metrics.clone(),
            health: telemetry::Health::new(),
            changed: Arc::clone(&changed),
            seats_dir: dir.clone(),
            kvm: false,
        };
        let seats = Seats::new(shared, crate::seats::Entrance::ByInstance);
        let snapshot = Arc::new(api::snapshot::parse(snapshot).unwrap());
        seats.reconcile(&Desired::from_snapshot(&snapshot, &"node-a".parse().unwrap()).seats).await;
        let problem = Some("the file is torn".to_owned());
        let directory = watch::Sender::new(Directory {
            snapshot: Arc::clone(&snapshot),
            loaded_at: Some(1.0),
            problem,
            ..Directory::default()
        });
        let fabric =
            watch::Sender::new(FabricStatus { problems: vec!["no /dev/net/tun".into()], ..Default::default() });
        let config = switch::SwitchConfig { underlay: std::net::SocketAddrV4::new([127, 0, 0, 1].into(), port) };
        let switch = Arc::new(Switch::start(config, Box::new(())).await.unwrap());
        switch.set_spec(&fabric::FabricSpec::from_snapshot(&snapshot, &"node-a".parse().unwrap()));
        let source = Source {
            node: "node-a".parse().unwrap(),
            directory: directory.subscribe(),
            fabric: fabric.subscribe(),
            switch: switch.status(),
            instances: seats.watch(),
            seen: watch::Sender::default().subscribe(),
            changed: changed.subscribe(),
        };
        let (published, events) = watch::channel(Arc::<str>::from(r#"{"n":1}"#));
        let node = "node-a".parse().unwrap();
        let captures = Captures::start(node, Some(&dir), 0, fabric.subscribe(), &registry).unwrap();
        let token = Token::new("s3cret");
        let own_key = keys::Own { node: "node-a".parse().unwrap(), key: None };
        let router = router(Api {
            token,
            source,
            instances: seats.watch(),
            events,
            metrics,
            captures,
            netns: None,
            switch: Arc::clone(&switch),
            own_key,
        });
        Self { router, switch, published, dir, _directory: directory, _fabric: fabric, _seats: seats }
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> (StatusCode, String) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The answer must be an error of the one form, with this status and code.
#[track_caller]
fn refuses(status: u16, code: &str, answer: &(StatusCode, String)) {
    assert_eq!(answer.0.as_u16(), status, "{}", answer.1);
    let body: api::ErrorBody = serde_json::from_str(&answer.1).expect(&answer.1);
    assert_eq!(body.error.code, code, "{}", answer.1);
    assert!(!body.error.message.is_empty() && !body.error.remedy.is_empty());
}

impl Drop for Rig {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

const AUTH: (&str, &str) = ("authorization", "Bearer s3cret");
const SDP: (&str, &str) = ("content-type", "application/sdp");

#[tokio::test]
async fn nothing_is_said_without_the_token() {
    let rig = Rig::new("auth").await;
    for (method, path) in [
        ("GET", "/v1/status"),
        ("GET", "/v1/events"),
        ("GET", "/v1/instances/instance-0"),
        ("GET", "/v1/instances/nobody"),
        ("POST", "/v1/instances/instance-0/whep"),
        ("DELETE", "/v1/instances/instance-0/whep/x"),
        ("GET", "/v1/instances/instance-0/screenshot.png"),
        ("POST", "/v1/instances/instance-0/power"),
        ("GET", "/v1/nonsense"),
    ] {
        refuses(401, "unauthorized", &rig.ask(method, path, &[], "").await);
        let wrong = [("authorization", "Bearer s3cret2")];
        refuses(401, "unauthorized", &rig.ask(method, path, &wrong, "").await);
    }
}

#[tokio::test]
async fn the_status_has_what_is_known_and_what_is_wrong() {
    let rig = Rig::new("status").await;
    let (status, body) = rig.ask("GET", "/v1/status", &[AUTH], "").await;
    assert_eq!(status, StatusCode::OK);
    let status: AgentStatus = serde_json::from_str(&body).unwrap();
    assert_eq!(status.node, "node-a");
    assert_eq!(status.snapshot_problem.as_deref(), Some("the file is torn"));
    assert_eq!(status.fabric_problems, ["no /dev/net/tun"]);
    let [instance] = status.instances.as_slice() else { panic!("{body}") };
    assert_eq!((instance.id.as_str(), instance.state), ("instance-0", api::agent::State::Starting));
    assert!(instance.detail.as_ref().is_some_and(|d| d.contains("waiting for its runner")), "{body}");
    // Nothing that was not measured.
    assert_eq!((instance.link, instance.picture.as_ref(), instance.qemu_pid), (None, None, None));
    let (status, one) = rig.ask("GET", "/v1/instances/instance-0", &[AUTH], "").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(serde_json::from_str::<InstanceStatus>(&one).unwrap(), **instance);
}

#[tokio::test]
async fn what_does_not_exist_is_404_and_the_wrong_method_405() {
    let rig = Rig::new("unknown").await;
    for id in ["instance-7", "Nobody", "..%2f..%2fetc", &"x".repeat(500)] {
        for (method, rest) in [("GET", ""), ("POST", "/whep"), ("GET", "/screenshot.png"), ("POST", "/power")] {
            let path = format!("/v1/instances/{id}{rest}");
            refuses(404, "unknown-instance", &rig.ask(method, &path, &[AUTH, SDP], "v=0").await);
        }
    }
    refuses(404, "unknown-path", &rig.ask("GET", "/v1/nonsense", &[AUTH], "").await);
    for session in ["0".repeat(32), "x".to_owned()] {
        let path = format!("/v1/instances/instance-0/whep/{session}");
        refuses(404, "unknown-session", &rig.ask("DELETE", &path, &[AUTH], "").await);
    }
    refuses(405, "method-not-allowed", &rig.ask("PUT", "/v1/status", &[AUTH], "").await);
}

#[tokio::test]
async fn an_offer_that_cannot_be_used_is_named() {
    let rig = Rig::new("offer").await;
    let whep = "/v1/instances/instance-0/whep";
    let offer =
        async |path: &str, headers: &[(&str, &str)], body: &'static str| rig.ask("POST", path, headers, body).await;
    refuses(415, "not-sdp", &offer(whep, &[AUTH], "v=0").await);
    refuses(415, "not-sdp", &offer(whep, &[AUTH, ("content-type", "application/json")], "{}").await);
    let tier = format!("{whep}?tier=huge");
    refuses(400, "bad-request", &offer(&tier, &[AUTH, SDP], "v=0").await);
    refuses(400, "bad-request", &offer(&format!("{whep}?tier=full&tier=full"), &[AUTH, SDP], "v=0").await);
    refuses(400, "bad-request", &offer(whep, &[AUTH, SDP, ("x-loco-role", "king")], "v=0").await);
    for rubbish in ["", "rubbish", "v=0\r\n", "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=banana 9 X 0\r\n"] {
        refuses(400, "bad-offer", &offer(whep, &[AUTH, SDP, ("x-loco-role", "play")], rubbish).await);
    }
    let not_text = rig.ask("POST", whep, &[AUTH, SDP], vec![0xff, 0xfe]).await;
    refuses(400, "bad-offer", &not_text);
}

#[tokio::test]
async fn a_body_has_a_limit() {
    let rig = Rig::new("limit").await;
    for path in ["/v1/instances/instance-0/whep", "/v1/instances/instance-0/power"] {
        let long = rig.ask("POST", path, &[AUTH, SDP], vec![b'x'; BODY_BYTES_MAX + 1]).await;
        refuses(413, "body-too-large", &long);
    }
    let whole = rig.ask("POST", "/v1/instances/instance-0/whep", &[AUTH, SDP], vec![b'x'; BODY_BYTES_MAX]).await;
    refuses(400, "bad-offer", &whole);
}

#[tokio::test]
async fn power_and_pictures_say_when_there_is_no_guest() {
    let rig = Rig::new("power").await;
    let power = "/v1/instances/instance-0/power";
    for bad in ["", "{", r#"{"action":"explode"}"#, r#"{"action":"reset","twice":true}"#] {
        refuses(422, "bad-request", &rig.ask("POST", power, &[AUTH], bad).await);
    }
    refuses(503, "not-running", &rig.ask("POST", power, &[AUTH], r#"{"action":"reset"}"#).await);
    let picture = rig.ask("GET", "/v1/instances/instance-0/screenshot.png", &[AUTH], "").await;
    refuses(503, "no-picture", &picture);
}

#[tokio::test]
async fn a_capture_that_cannot_be_had_says_why() {
    let rig = Rig::new("pcap").await;
    let ask = async |query: &str| rig.ask("GET", &format!("/v1/instances/instance-0/pcap{query}"), &[AUTH], "").await;
    for bad in ["?last=soon", "?follow=maybe", "?last=1s&last=2s", "?file=x"] {
        refuses(400, "bad-request", &ask(bad).await);
    }
    let off = ask("?last=60s&follow=1").await;
    refuses(503, "no-capture", &off);
    assert!(off.1.contains("--capture-bytes 0"), "{}", off.1);
    let unknown = rig.ask("GET", "/v1/instances/instance-7/pcap", &[AUTH], "").await;
    refuses(404, "unknown-instance", &unknown);
    refuses(401, "unauthorized", &rig.ask("GET", "/v1/instances/instance-0/pcap", &[], "").await);
}

#[tokio::test]
async fn events_are_what_is_published_and_end_with_the_publisher() {
    let rig = Rig::new("events").await;
    let request = Request::get("/v1/events").header(AUTH.0, AUTH.1).body(Body::empty()).unwrap();
    let response = rig.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut body = response.into_body().into_data_stream();
    let mut next = async || tokio::time::timeout(Duration::from_secs(5), body.next()).await.unwrap();
    let text = |chunk: Option<Result<Bytes, axum::Error>>| String::from_utf8(chunk.unwrap().unwrap().to_vec()).unwrap();
    assert_eq!(text(next().await), "event: status\ndata: {\"n\":1}\n\n");
    rig.published.send_replace(r#"{"n":2}"#.into());
    assert_eq!(text(next().await), "event: status\ndata: {\"n\":2}\n\n");
    let (published, _) = watch::channel(Arc::<str>::from(""));
    let mut rig = rig;
    drop(std::mem::replace(&mut rig.published, published));
    assert!(next().await.is_none(), "a stream without an end would keep the agent from ending");
}
