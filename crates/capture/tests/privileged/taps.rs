//! Two guests on a bridge, in a namespace of their own; the test holds the taps in QEMU's place.
use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use capture::{Device, Limits, Snapshot, Source, write::Direction};
use testkit::{Frame, NetNs, Numbered, Tap, eventually};

use super::build::{PASSWORD, enum_sessions, udp, utf16};

const LIMITS: Limits = Limits { bytes: 4 << 20, age: Duration::from_mins(1) };
const WAIT: Duration = Duration::from_secs(5);
const A: [u8; 6] = [2, 0x4c, 0, 0x10, 0x68, 1];
const B: [u8; 6] = [2, 0x4c, 0, 0x10, 0x68, 2];

struct Lan {
    namespace: NetNs,
    source: Source,
}

impl Lan {
    fn new(limits: Limits) -> Self {
        let namespace = NetNs::new("capture").unwrap();
        let source = Source::start(namespace.path(), limits).unwrap();
        let ports = [("instance-0", "tap-a"), ("instance-1", "tap-b")];
        source.set_ports(ports.map(|(id, tap)| (id.to_owned(), Device { name: tap.to_owned(), turned: false })).into());
        Self { namespace, source }
    }

    /// Makes the tap, on the bridge, which is made with the first one.
    fn tap(&self, name: &'static str) -> std::os::fd::OwnedFd {
        let made = self.namespace.block_on(async move {
            let fd = Tap::open(name)?;
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            let index = |name: &str| nix::net::if_::if_nametoindex(name);
            if index("br").is_err() {
                handle.link().add(rtnetlink::LinkBridge::new("br").up().build()).execute().await?;
            }
            let message = rtnetlink::LinkUnspec::new_with_index(index(name)?).controller(index("br")?).up().build();
            handle.link().set(message).execute().await?;
            anyhow::Ok(fd)
        });
        let fd = made.unwrap().context("no tap").unwrap();
        self.source.wake();
        fd
    }

    fn snapshot(&self, port: &str) -> Option<Snapshot> {
        self.source.snapshot(port, None)
    }

    /// The port's frames that came from a test, once `enough` of them are there.
    async fn seen(&self, port: &str, enough: impl Fn(&[(Direction, Numbered)]) -> bool) -> Vec<(Direction, Numbered)> {
        let marked = || {
            let frames = self.snapshot(port)?.frames;
            let found = frames.iter().filter_map(|frame| Some((frame.direction, Numbered::find(&frame.bytes)?)));
            Some(found.collect::<Vec<_>>()).filter(|found| enough(found))
        };
        eventually(WAIT, marked).await.unwrap()
    }
}

/// Sends until the other end has one: a bridge's port forwards nothing for a moment.
async fn until_forwarded(from: &Tap, to: &Tap) {
    let probe = Frame::ethernet(B, A, Numbered { kind: 0, sender: 0, sequence: 0 }, 60);
    let deadline = tokio::time::Instant::now() + WAIT;
    loop {
        assert!(tokio::time::Instant::now() < deadline, "the bridge does not forward");
        from.send(&probe).await.unwrap();
        let frames = tokio::time::timeout(Duration::from_millis(50), to.receive()).await;
        if frames.is_ok_and(|frame| frame.is_ok_and(|frame| frame == probe)) {
            return;
        }
    }
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_frame_is_seen_leaving_one_guest_and_reaching_the_other() {
    let lan = Lan::new(LIMITS);
    let (a, b) = (Tap::from_fd(lan.tap("tap-a")).unwrap(), Tap::from_fd(lan.tap("tap-b")).unwrap());
    until_forwarded(&a, &b).await;
    eventually(WAIT, || lan.source.problems().is_empty().then_some(())).await.unwrap();
    let number = |sequence| Numbered { kind: 1, sender: 7, sequence };
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    for sequence in 0..50 {
        a.send(&Frame::ethernet(B, A, number(sequence), 100)).await.unwrap();
    }
    // A tag: the kernel takes it out of the frame, and the capture puts it back.
    let mut tagged = Frame::ethernet(B, A, number(50), 100);
    tagged.splice(12..12, [0x81, 0x00, 0x20, 0x07]);
    a.send(&tagged).await.unwrap();
    let ours = |found: &[(Direction, Numbered)]| found.iter().filter(|(_, n)| n.kind == 1).count() == 51;
    let left = lan.seen("instance-0", ours).await;
    let reached = lan.seen("instance-1", ours).await;
    for (seen, direction) in [(&left, Direction::Outbound), (&reached, Direction::Inbound)] {
        let ours: Vec<_> = seen.iter().filter(|(_, n)| n.kind == 1).collect();
        assert!(ours.iter().all(|(seen, _)| *seen == direction));
        assert!(ours.iter().map(|(_, n)| n.sequence).eq(0..51), "each once, in order");
    }
    for port in ["instance-0", "instance-1"] {
        let snapshot = lan.snapshot(port).unwrap();
        let frame = snapshot.frames.iter().find(|frame| frame.bytes[..] == tagged).expect("with its tag");
        assert_eq!(frame.wire_len as usize, tagged.len());
        assert!(frame.at >= before && frame.at <= snapshot.until, "stamped when it passed");
        assert_eq!(snapshot.dropped_by_system, 0);
    }
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_password_on_a_real_tap_is_not_kept() {
    let lan = Lan::new(LIMITS);
    let a = Tap::from_fd(lan.tap("tap-a")).unwrap();
    let (_, mut follow) = eventually(WAIT, || lan.source.follow("instance-0", None)).await.unwrap();
    let query = udp(47624, &enum_sessions(PASSWORD));
    a.send(&query).await.unwrap();
    let mut frames = Vec::new();
    let masked = loop {
        assert!(tokio::time::timeout(WAIT, follow.receive(&mut frames, 16)).await.unwrap() > 0);
        if let Some(frame) = frames.iter().map(|followed| &followed.frame).find(|frame| frame.is_masked) {
            break frame.clone();
        }
    };
    assert_eq!((masked.bytes.len(), &masked.bytes[..40]), (query.len(), &query[..40]));
    let secret = utf16(PASSWORD);
    let kept = lan.snapshot("instance-0").unwrap().frames;
    for frame in frames.iter().map(|followed| &followed.frame).chain(&kept) {
        assert!(!frame.bytes.windows(secret.len()).any(|window| window == secret));
    }
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn a_tap_that_is_made_again_is_captured_again_and_the_gap_is_told() {
    let lan = Lan::new(LIMITS);
    let first = Tap::from_fd(lan.tap("tap-a")).unwrap();
    eventually(WAIT, || lan.snapshot("instance-0")).await.unwrap();
    let number = |sequence| Numbered { kind: 2, sender: 0, sequence };
    first.send(&Frame::ethernet(B, A, number(0), 60)).await.unwrap();
    lan.seen("instance-0", |found| !found.is_empty()).await;
    drop(first);
    eventually(WAIT, || Some(lan.source.problems().get("instance-0")?.contains("tap-a")).filter(|told| *told))
        .await
        .unwrap();
    let second = Tap::from_fd(lan.tap("tap-a")).unwrap();
    eventually(WAIT, || (!lan.source.problems().contains_key("instance-0")).then_some(())).await.unwrap();
    second.send(&Frame::ethernet(B, A, number(1), 60)).await.unwrap();
    let found = lan.seen("instance-0", |found| found.len() == 2).await;
    assert_eq!(found.iter().map(|(_, n)| n.sequence).collect::<Vec<_>>(), [0, 1], "what was before is still there");
    assert_eq!(lan.snapshot("instance-0").unwrap().gaps.len(), 1);
    // Nobody wants it any more: it goes, with what it held.
    lan.source.set_ports(BTreeMap::new());
    eventually(WAIT, || lan.snapshot("instance-0").is_none().then_some(())).await.unwrap();
    assert_eq!(lan.source.counts().0, 0);
}

#[tokio::test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
async fn under_load_memory_is_bounded_and_every_frame_is_kept_or_counted() {
    const FRAMES: u32 = 20_000;
    let limits = Limits { bytes: 256 << 10, ..LIMITS };
    let lan = Lan::new(limits);
    let (a, b) = (Tap::from_fd(lan.tap("tap-a")).unwrap(), Tap::from_fd(lan.tap("tap-b")).unwrap());
    until_forwarded(&a, &b).await;
    eventually(WAIT, || lan.snapshot("instance-0")).await.unwrap();
    let (_, follow) = lan.source.follow("instance-0", None).unwrap();
    let start = lan.snapshot("instance-0").unwrap().received;
    for sequence in 0..FRAMES {
        a.send(&Frame::ethernet(B, A, Numbered { kind: 3, sender: 0, sequence }, 200)).await.unwrap();
        assert!(lan.source.counts().0 <= limits.bytes);
    }
    let received = || Some(lan.snapshot("instance-0")?.received - start).filter(|received| *received >= FRAMES.into());
    eventually(WAIT, received).await.unwrap();
    let snapshot = lan.snapshot("instance-0").unwrap();
    assert!(snapshot.is_cut && !snapshot.frames.is_empty());
    let kept: Vec<_> = snapshot.frames.iter().filter_map(|frame| Numbered::find(&frame.bytes)).collect();
    assert!(kept.is_sorted_by_key(|number| number.sequence) && kept[0].sequence > 0, "the oldest are those that went");
    let queued = u64::from(FRAMES) - snapshot.dropped_by_system - follow.dropped();
    assert!((1..4096).contains(&queued), "what a follower that sleeps did not lose is its queue: {queued}");
    // In the burst the kernel drops what finds its ring full, which may well be the very last frames. With the reader at
    // rest one more is kept for certain, in a ring that is full.
    a.send(&Frame::ethernet(B, A, Numbered { kind: 3, sender: 0, sequence: FRAMES }, 200)).await.unwrap();
    lan.seen("instance-0", |found| found.last().is_some_and(|(_, number)| number.sequence == FRAMES)).await;
    assert!(lan.source.counts().0 <= limits.bytes);
}
