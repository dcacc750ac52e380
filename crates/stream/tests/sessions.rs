//! Whole sessions: a WebRTC client on loopback, a guest's picture from a real QEMU, input as the agent would get it.
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "test code: a panic is the message, counters are whole")]
#[path = "support/client.rs"]
mod client;
mod support;

use std::{
    net::{Ipv4Addr, UdpSocket},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use crate::{
    client::{Client, offer},
    support::Qemu,
};
use model::InstanceState;
use prometheus::Registry;
use stream::{
    AudioTap, Injection, InputEvent, InstanceStream, MouseButton, OfferError, Role, Screen, StreamConfig, Streams, Tier,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

/// Without a guest: screens stay empty, which sessions must bear.
struct Bare {
    stream: Arc<InstanceStream>,
    injections: mpsc::Receiver<Injection>,
    registry: Registry,
}

static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);

/// As many free ports in a row; each test its own.
fn ports(count: u16) -> std::ops::RangeInclusive<u16> {
    let free = |port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let first = u16::try_from(20_000 + std::process::id() % 200 * 200).unwrap();
    loop {
        let start = first.wrapping_add(NEXT.fetch_add(count, std::sync::atomic::Ordering::Relaxed)).max(1024);
        if (start..start + count).all(free) {
            return start..=start + count - 1;
        }
    }
}

fn bare(port_count: u16) -> Bare {
    let registry = Registry::new();
    let config = StreamConfig { media_ip: Ipv4Addr::LOCALHOST.into(), ports: ports(port_count) };
    let (tx, injections) = mpsc::channel(256);
    let streams = Streams::new(config, &registry).unwrap();
    let stream = streams.instance("instance-0".parse().unwrap(), Screen::new(), AudioTap::new(), tx);
    Bare { stream, injections, registry }
}

/// With a guest that shows the text of its BIOS.
struct Live {
    qemu: Qemu,
    stream: Arc<InstanceStream>,
    registry: Registry,
}

async fn live(name: &str) -> Live {
    let dir = PathBuf::from(format!("{}/loco-t-{}-{name}", std::env::temp_dir().display(), std::process::id()));
    let qemu = Qemu::start(&dir, None).await.unwrap();
    let registry = Registry::new();
    let config = StreamConfig { media_ip: Ipv4Addr::LOCALHOST.into(), ports: ports(8) };
    let (tx, injections) = mpsc::channel(256);
    qemu.play(injections).await.unwrap();
    let streams = Streams::new(config, &registry).unwrap();
    let stream = streams.instance("instance-0".parse().unwrap(), qemu.screen.clone(), qemu.tap.clone(), tx);
    let mut size = qemu.screen.size();
    timeout(Duration::from_secs(10), size.wait_for(Option::is_some)).await.unwrap().unwrap();
    stream.set_state(InstanceState::Live);
    Live { qemu, stream, registry }
}

/// The value of a metric whose labels contain `label`.
fn metric(registry: &Registry, name: &str, label: &str) -> f64 {
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let line = text.lines().find(|l| l.starts_with(&format!("loco_stream_{name}")) && l.contains(label));
    line.and_then(|l| l.rsplit(' ').next()).map_or(0.0, |v| v.parse().unwrap())
}

async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < until, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QEMU 10 and GStreamer: run by `cargo xtask test --privileged`"]
async fn a_viewer_sees_plays_traces_and_switches_tiers() {
    let live = live("viewer").await;
    let mut client = Client::connect(&live.stream, Tier::Full, Role::Play).await;
    let hello = client.hear("hello").await;
    assert_eq!(hello["session"], client.answer.session.as_str());
    assert_eq!(hello["lease"], "free");
    assert_eq!(live.stream.lag(), None, "nobody plays");
    assert!(hello["width"].as_u64().unwrap() >= 640, "{hello}");
    assert_eq!(client.hear("state").await["state"], "live");
    let first = client.picture(|p| p.key).await;
    let full_sps = first.sps.expect("a key frame brings its parameters");

    client.say(r#"{"t":"take"}"#).await;
    assert_eq!(client.hear("lease").await["lease"], "you");
    assert_eq!(live.stream.lease().as_ref(), Some(&client.answer.session));
    eventually("the way to the player is measured", || live.stream.lag().is_some_and(|lag| lag.making.is_some())).await;
    let lag = live.stream.lag().unwrap();
    assert!(lag.round_trip < Duration::from_secs(1) && lag.making < Some(Duration::from_secs(5)), "{lag:?}");
    client.say(r#"{"t":"trace","on":true}"#).await;
    // Ctrl-Alt-Del restarts the BIOS, which clears the screen.
    for (n, code) in ["ControlLeft", "AltLeft", "Delete"].iter().enumerate() {
        client.say(&format!(r#"{{"t":"key","code":"{code}","down":true,"n":{n}}}"#)).await;
    }
    let trace = client.hear_where("trace", |m| m["n"] == 2).await;
    let stages = ["received", "injected", "damage", "encode_start", "encode_end", "sent"];
    let stamps = stages.map(|s| trace[s].as_f64().unwrap());
    assert!(stamps.is_sorted(), "{trace}");
    assert!(stamps[5] - stamps[0] < 5000.0, "{trace}");
    client.say(r#"{"t":"held","codes":[],"buttons":[]}"#).await;

    client.say(r#"{"t":"tier","tier":"thumb"}"#).await;
    let thumb = client.picture(|p| p.key && p.sps.as_ref().is_some_and(|sps| *sps != full_sps)).await;
    assert!(thumb.timestamp.wrapping_sub(first.timestamp) < 1 << 31, "time went back at the switch");
    client.hear_where("stats", |m| m["tier"] == "thumb").await;
    eventually("the full encoder ended", || metric(&live.registry, "encoders", "full") == 0.0).await;

    client.say(r#"{"t":"tier","tier":"none"}"#).await;
    eventually("the thumbnail encoder ended", || metric(&live.registry, "encoders", "thumb") == 0.0).await;
    while client.pictures.try_recv().is_ok() {}
    client.say(r#"{"t":"tier","tier":"full"}"#).await;
    assert!(client.pictures.recv().await.unwrap().key, "a resumed picture begins with a key frame");

    client.say(r#"{"t":"bye"}"#).await;
    assert_eq!(client.hear("bye").await["reason"], "the browser said bye");
    eventually("the session ended", || live.stream.viewers() == 0).await;
    assert_eq!(live.stream.lease(), None);
    live.qemu.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QEMU 10 and GStreamer: run by `cargo xtask test --privileged`"]
async fn viewers_share_one_encode_and_newcomers_start_with_a_key_frame() {
    let live = live("share").await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(&live.stream, Tier::Full, Role::View).await;
        assert!(client.picture(|_| true).await.key);
        clients.push(client);
    }
    assert_eq!(live.stream.viewers(), 3);
    assert!((metric(&live.registry, "encoders", "full") - 1.0).abs() < 0.1);
    // A still picture comes every two seconds, to all of them.
    for client in &mut clients {
        client.picture(|p| !p.key).await;
    }
    let keys = metric(&live.registry, "key_frames_total", "full");
    assert!((1.0..=4.0).contains(&keys), "{keys} key frames for three viewers");
    let session = clients[0].answer.session.clone();
    assert!(live.stream.close(&session).await);
    assert!(!live.stream.close(&session).await, "twice");
    assert_eq!(clients[0].hear("bye").await["reason"], "this session was closed");
    assert_eq!(live.stream.viewers(), 2);
    live.stream.close_all().await;
    assert_eq!(live.stream.viewers(), 0);
    assert!(matches!(live.stream.offer("v=0", Tier::Full, Role::View).await, Err(OfferError::Closed)));
    eventually("the encoder ended", || metric(&live.registry, "encoders", "full") == 0.0).await;
    live.qemu.kill().await;
}

/// Our display listener at one end, and this test in QEMU's place at the other.
struct Painter {
    listener: zbus::Connection,
    _bus: UnixStream,
    _display: stream::display::DisplayConnection,
}

impl Painter {
    async fn attach(screen: &Arc<Screen>) -> Self {
        const GUID: &str = "0123456789abcdef0123456789abcdef";
        let ((ours, theirs), (bus, their_bus)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let display = stream::display::attach(bus.into(), GUID, ours.into(), GUID, Arc::clone(screen)).await.unwrap();
        theirs.set_nonblocking(true).unwrap();
        let theirs = tokio::net::UnixStream::from_std(theirs).unwrap();
        let builder = zbus::connection::Builder::authenticated_socket(theirs, GUID).unwrap();
        Self { listener: builder.p2p().build().await.unwrap(), _bus: their_bus, _display: display }
    }

    async fn scanout(&self, width: u32, height: u32, colour: u32) {
        let data = serde_bytes::ByteBuf::from(colour.to_le_bytes().repeat((width * height) as usize));
        self.call("Scanout", &(width, height, width * 4, 0x2002_0888u32, data)).await;
    }

    async fn paint(&self, x: i32, y: i32, width: i32, height: i32, colour: u32) {
        let data = serde_bytes::ByteBuf::from(colour.to_le_bytes().repeat((width * height).unsigned_abs() as usize));
        self.call("Update", &(x, y, width, height, width.unsigned_abs() * 4, 0x2002_0888u32, data)).await;
    }

    async fn call<B: serde::Serialize + zbus::zvariant::DynamicType>(&self, member: &str, body: &B) {
        let interface = Some("org.qemu.Display1.Listener");
        self.listener.call_method(None::<&str>, "/org/qemu/Display1/Listener", interface, member, body).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QEMU 10 and GStreamer: run by `cargo xtask test --privileged`"]
async fn a_new_size_reaches_the_viewer_and_the_picture_goes_on() {
    let bare = bare(4);
    let painter = Painter::attach(bare.stream.screen()).await;
    let mut client = Client::connect(&bare.stream, Tier::Full, Role::View).await;
    client.hear("hello").await;
    let mut last = None;
    // Text, a game's mode, one of odd size, one smaller than a thumbnail.
    for (width, height) in [(720, 400), (640, 480), (801, 599), (64, 48)] {
        painter.scanout(width, height, 0x0020_4060).await;
        let screen = client.hear("screen").await;
        assert_eq!((&screen["width"], &screen["height"]), (&width.into(), &height.into()));
        let picture = client.picture(|p| p.key && p.sps.is_some() && p.sps != last).await;
        last = picture.sps;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QEMU 10 and GStreamer: run by `cargo xtask test --privileged`"]
async fn only_what_changed_is_converted_and_a_still_picture_is_hardly_sent() {
    let bare = bare(4);
    let painter = Painter::attach(bare.stream.screen()).await;
    painter.scanout(640, 480, 0).await;
    let rows = |tier| metric(&bare.registry, "converted_rows_total", tier);
    let frames = |tier| metric(&bare.registry, "frames_total", tier);
    let mut full = Client::connect(&bare.stream, Tier::Full, Role::View).await;
    let mut thumb = Client::connect(&bare.stream, Tier::Thumb, Role::View).await;
    full.picture(|p| p.key).await;
    thumb.picture(|p| p.key).await;
    assert_eq!((rows("full"), rows("thumb")), (480.0, 240.0));
    // One pixel in row 101: rows 100 and 101 of the full picture, 50 and 51 of the thumbnail.
    let before = frames("full");
    painter.paint(7, 101, 1, 1, 0x00ff_ffff).await;
    eventually("the pixel was encoded", || frames("full") > before).await;
    eventually("both tiers have it", || (rows("full"), rows("thumb")) == (482.0, 242.0)).await;
    // A card that sets its mode again sends all of the picture. One pixel of it is new the first time, none later.
    painter.scanout(640, 480, 0).await;
    eventually("the pixel is gone", || (rows("full"), rows("thumb")) == (484.0, 244.0)).await;
    let (start, began) = (frames("full"), Instant::now());
    while began.elapsed() < Duration::from_secs(5) {
        painter.scanout(640, 480, 0).await;
        full.picture(|p| !p.key).await;
    }
    let spent = frames("full") - start;
    assert!((2.0..=4.0).contains(&spent), "{spent} frames in 5 s; one each two seconds is what a still picture costs");
    assert_eq!(rows("full"), 484.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QEMU 10 and GStreamer: run by `cargo xtask test --privileged`"]
async fn the_picture_survives_its_qemu() {
    let live = live("crash").await;
    let mut client = Client::connect(&live.stream, Tier::Full, Role::View).await;
    client.picture(|p| p.key).await;
    let Live { qemu, stream, .. } = live;
    let Qemu { screen, display, .. } = &qemu;
    let (screen, generation) = (screen.clone(), screen.generation());
    assert!(generation > 0);
    let closed = async { timeout(Duration::from_secs(5), display.closed()).await.unwrap() };
    // QEMU is killed by its drop; here by hand, so that its connection is seen to end.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(qemu.pid().cast_signed()), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    closed.await;
    stream.set_state(InstanceState::Recovering);
    client.hear_where("state", |m| m["state"] == "recovering").await;
    assert!(screen.screenshot_png().await.is_some_and(|png| png.starts_with(b"\x89PNG")), "the last picture stays");
    client.picture(|_| true).await;
    qemu.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QEMU 10 and GStreamer: run by `cargo xtask test --privileged`"]
async fn the_lease_decides_who_plays_and_nothing_stays_down() {
    let mut bare = bare(8);
    let mut a = Client::connect(&bare.stream, Tier::Thumb, Role::Play).await;
    let mut b = Client::connect(&bare.stream, Tier::Thumb, Role::Play).await;
    let mut viewer = Client::connect(&bare.stream, Tier::Thumb, Role::View).await;
    for client in [&mut a, &mut b, &mut viewer] {
        assert_eq!(client.hear("hello").await["width"], 0, "no picture yet");
    }
    viewer.say(r#"{"t":"take"}"#).await;
    assert!(viewer.hear("error").await["message"].as_str().unwrap().contains("may watch"));
    a.say(r#"{"t":"take"}"#).await;
    a.hear_where("lease", |m| m["lease"] == "you").await;
    b.hear_where("lease", |m| m["lease"] == "other").await;
    b.say(r#"{"t":"take"}"#).await;
    assert!(b.hear("error").await["message"].as_str().unwrap().contains("somebody else"));

    let key = |code: &str, down| InputEvent::Key { code: code.into(), down };
    let began = Instant::now();
    a.say(r#"{"t":"key","code":"KeyW","down":true}"#).await;
    a.say(r#"{"t":"button","button":2,"down":true}"#).await;
    let mut next = async || timeout(Duration::from_secs(5), bare.injections.recv()).await.unwrap().unwrap().events;
    assert_eq!(next().await, [key("KeyW", true)]);
    assert_eq!(next().await, [InputEvent::Button { button: MouseButton::Right, down: true }]);
    // No `held` report follows: all of it comes up by itself.
    let released = next().await;
    assert!((1400..2500).contains(&began.elapsed().as_millis()), "released after {:?}", began.elapsed());
    assert_eq!(released, [key("KeyW", false), InputEvent::Button { button: MouseButton::Right, down: false }]);

    a.point(r#"{"t":"move","x":10,"y":-4,"s":1}"#).await;
    assert_eq!(next().await, [InputEvent::Move { dx: 10, dy: -4 }]);
    b.say(r#"{"t":"key","code":"KeyB","down":true}"#).await;
    a.say(r#"{"t":"nonsense"}"#).await;
    a.hear("error").await;
    a.say(r#"{"t":"key","code":"KeyQ","down":true}"#).await;
    assert_eq!(next().await, [key("KeyQ", true)], "and nothing of b");
    a.vanish().await;
    assert_eq!(next().await, [key("KeyQ", false)], "a browser that vanishes lets go");
    b.hear_where("lease", |m| m["lease"] == "free").await;
    assert!(metric(&bare.registry, "held_timeouts_total", "instance-0") >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QEMU 10 and GStreamer: run by `cargo xtask test --privileged`"]
async fn offers_that_cannot_be_served_are_refused_in_words_and_cost_nothing() {
    let bare = bare(2);
    let offered = offer().await;
    let sdp = &offered.sdp;
    let lines: Vec<&str> = sdp.split_inclusive('\n').collect();
    // Any line missing, any line cut short, any line twice, any byte turned over: an answer or an error, never a panic.
    let mut rubbish = vec![String::new(), "v=0".into(), "{}".into(), sdp.replace("H264", "VP8"), sdp.repeat(40)];
    for i in 0..lines.len() {
        let with = |line: &str| [&lines[..i].concat(), line, &lines[i + 1..].concat()].concat();
        rubbish.push(with(""));
        rubbish.push(with(&lines[i][..lines[i].len() / 2]));
        rubbish.push(with(&lines[i].repeat(2)));
        rubbish.push(with(&lines[i].replace([':', ' '], "\u{fffd}")));
        rubbish.push(with(&lines[i].replace(|c: char| c.is_ascii_digit(), "99999999999")));
    }
    let mut refused = 0;
    for text in &rubbish {
        match bare.stream.offer(text, Tier::Full, Role::View).await {
            Ok(answer) => assert!(bare.stream.close(&answer.session).await),
            Err(OfferError::Sdp(_)) => refused += 1,
            Err(other) => panic!("{other} for\n{text}"),
        }
    }
    assert!(refused > 20, "{refused} of {} refused", rubbish.len());
    assert_eq!(bare.stream.viewers(), 0);

    // Two ports: two sessions; a third is refused by name, and gets a port when one is back.
    let one = bare.stream.offer(sdp, Tier::Full, Role::View).await.unwrap();
    let two = bare.stream.offer(sdp, Tier::Full, Role::View).await.unwrap();
    let error = bare.stream.offer(sdp, Tier::Full, Role::View).await.unwrap_err();
    assert_eq!(error.code(), "no-media-port");
    assert!(bare.stream.close(&one.session).await);
    let three = bare.stream.offer(sdp, Tier::Full, Role::View).await.unwrap();
    assert_ne!(three.session, two.session);
    // Nobody connects to these: they end by themselves and give everything back.
    let began = Instant::now();
    eventually("both sessions ended", || bare.stream.viewers() == 0).await;
    assert!(began.elapsed() < Duration::from_secs(12));
    let client = offered.connect(&bare.stream, Tier::Full, Role::View).await.unwrap();
    client.vanish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QEMU 10 and GStreamer: run by `cargo xtask test --privileged`"]
async fn an_offer_that_nobody_waits_for_gives_its_port_back() {
    let bare = bare(1);
    let offered = offer().await;
    // Polled once, which begins the negotiation, and dropped: a browser that closed its request. On a busy machine the
    // other thread may have the answer before the poll returns; that one was not aborted, so it is ended and tried again.
    let mut tries = 0;
    loop {
        let early = tokio::select! {
            biased;
            answer = bare.stream.offer(&offered.sdp, Tier::Full, Role::View) => answer.unwrap(),
            () = std::future::ready(()) => break,
        };
        assert!(bare.stream.close(&early.session).await);
        tries += 1;
        assert!(tries < 100, "answered at once each time");
    }
    let until = Instant::now() + Duration::from_secs(8);
    // The only port: free in the pool and in the kernel.
    let answer = loop {
        match bare.stream.offer(&offered.sdp, Tier::Full, Role::View).await {
            Ok(answer) => break answer,
            Err(OfferError::NoPort { .. }) if Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert!(bare.stream.close(&answer.session).await);
    assert_eq!(bare.stream.viewers(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QEMU 10 and GStreamer: run by `cargo xtask test --privileged`"]
async fn an_instance_has_only_so_many_viewers() {
    let bare = bare(40);
    let offered = offer().await;
    for _ in 0..stream::VIEWERS_MAX {
        bare.stream.offer(&offered.sdp, Tier::Thumb, Role::View).await.unwrap();
    }
    let error = bare.stream.offer(&offered.sdp, Tier::Thumb, Role::View).await.unwrap_err();
    assert_eq!(error.to_string(), "this instance already has 32 viewers; close one of them");
    bare.stream.close_all().await;
    assert_eq!(bare.stream.viewers(), 0);
}
