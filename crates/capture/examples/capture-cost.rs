//! What capturing costs: `cargo run -p capture --example capture-cost` as root. One JSON object a line.
//!
//! `push`: masking and keeping one frame, pure. `tap`: CPU time of the thread that captures, per frame, when a guest sends through
//! a real tap as fast as one thread can; the same frames are counted twice where two taps carry them.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measuring program: it prints, and stops at what it did not expect"
)]

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use capture::{Device, Limits, Source, ring::Rings, write::Direction};
use testkit::{NetNs, Tap, eventually};

const LIMITS: Limits = Limits { bytes: 16 << 20, age: Duration::from_mins(1) };
const FRAMES: u32 = 200_000;

/// UDP in IPv4, or TCP: what masking looks into.
fn frame(len: usize, protocol: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0x4c, 0, 0x10, 0x68, 1, 8, 0, 0x45, 0]);
    frame.extend(u16::try_from(len - 14).unwrap().to_be_bytes());
    frame.extend([0, 1, 0, 0, 128, protocol, 0, 0, 10, 98, 0, 1, 10, 98, 0, 2, 9, 0x2e, 9, 0x2e, 0, 0, 0, 0]);
    frame.extend([0, 0, 0, 0, 0x50, 0x10]);
    frame.resize(len, b'p');
    frame
}

fn push(len: usize, protocol: u8) {
    let mut rings = Rings::new(LIMITS);
    rings.begin("instance-0", Duration::ZERO);
    let frame = frame(len, protocol);
    let start = Instant::now();
    for n in 0..FRAMES {
        let at = Duration::from_micros(n.into());
        rings.push("instance-0", at, Direction::Outbound, 1, black_box(&mut frame.clone()));
    }
    let nanoseconds = start.elapsed().as_nanos() / u128::from(FRAMES);
    println!(r#"{{"what":"push","len":{len},"protocol":{protocol},"ns_per_frame":{nanoseconds}}}"#);
}

/// CPU time of the thread that captures: user and system, in ticks of 10 ms.
fn capture_ticks() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let stat = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    let stat = stat.into_iter().find(|stat| stat.contains("(capture)")).expect("the thread that captures");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

async fn tap(len: usize) {
    let namespace = NetNs::new("capture-cost").unwrap();
    let source = Source::start(namespace.path(), LIMITS).unwrap();
    source.set_ports([("instance-0".to_owned(), Device { name: "tap-a".to_owned(), turned: false })].into());
    let up = async {
        let fd = Tap::open("tap-a")?;
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let index = nix::net::if_::if_nametoindex("tap-a")?;
        handle.link().set(rtnetlink::LinkUnspec::new_with_index(index).up().build()).execute().await?;
        anyhow::Ok(fd)
    };
    let tap = Tap::from_fd(namespace.block_on(up).unwrap().unwrap()).unwrap();
    source.wake();
    let received = || source.snapshot("instance-0", Some(Duration::ZERO)).map(|snapshot| snapshot.received);
    let before = eventually(Duration::from_secs(5), received).await.unwrap();
    let (start, ticks, frame) = (Instant::now(), capture_ticks(), frame(len, 17));
    for _ in 0..FRAMES {
        tap.send(&frame).await.unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    let all = || received().filter(|received| received - before >= FRAMES.into());
    eventually(Duration::from_secs(5), all).await.unwrap();
    let ticks = capture_ticks() - ticks;
    let dropped = source.snapshot("instance-0", Some(Duration::ZERO)).unwrap().dropped_by_system;
    println!(
        r#"{{"what":"tap","len":{len},"frames_per_s":{:.0},"capture_us_per_frame":{:.2},"dropped_by_system":{dropped}}}"#,
        f64::from(FRAMES) / seconds,
        f64::from(u32::try_from(ticks).unwrap()) * 10_000.0 / f64::from(FRAMES),
    );
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for len in [64, 1500] {
        push(len, 17);
        push(len, 6);
    }
    for len in [64, 1500] {
        tap(len).await;
    }
}
