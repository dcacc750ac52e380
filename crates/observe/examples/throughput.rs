//! Frames a second and memory of the model at some hundred machines: the genuine capture of three peers, played by as many
//! trios at once, each with its own addresses and session.
//!
//! `cargo run -p observe --example throughput [MACHINES]` prints one JSON object.
use std::{
    env, fs,
    fs::File,
    io::{self, BufReader, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use observe::{Frame, Limits, Observer, Point};

fn main() -> io::Result<()> {
    let machines: usize = env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1000);
    let trios = machines.div_ceil(3).min(60_000);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire/tests/captures/dplay4-3peer.pcap");
    let reader = capture::Reader::new(BufReader::new(File::open(path)?)).map_err(io::Error::other)?;
    let mut frames = Vec::new();
    for record in reader {
        let record = record.map_err(io::Error::other)?;
        frames.push((record.at, record.ethernet().map(|view| view.bytes.into_owned()).unwrap_or_default()));
    }
    let limits = Limits { sessions: trios * 2, ..Limits::default() };
    let mut observer = Observer::new(limits);
    let before = resident();
    let (mut count, mut spent) = (0_u64, Duration::ZERO);
    for (at, bytes) in &frames {
        for trio in 0..trios {
            let bytes = of_trio(bytes, u16::try_from(trio).unwrap_or(u16::MAX));
            let wire_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let frame = Frame { at: *at, point: Point::Wire, bytes: &bytes, wire_len };
            let start = Instant::now();
            observer.frame(&frame);
            spent += start.elapsed();
            count += 1;
        }
    }
    let after = resident();
    let start = Instant::now();
    let state = observer.observed();
    let report = start.elapsed();
    writeln!(
        io::stdout(),
        "{{\"machines\":{},\"sessions\":{},\"players\":{},\"frames\":{count},\"ns_per_frame\":{},\"frames_per_second\":{:.0},\
         \"resident_before_kib\":{before},\"resident_after_kib\":{after},\"entries\":{},\"report_ms\":{:.1}}}",
        state.machines.len(),
        state.sessions.len(),
        state.players.len(),
        spent.as_nanos() / u128::from(count.max(1)),
        f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / spent.as_secs_f64(),
        observer.entries(),
        report.as_secs_f64() * 1000.0,
    )
}

/// The frame with other addresses (MAC 02:00:00:00:00:N, IPv4 192.168.99.N) and another session.
fn of_trio(bytes: &[u8], trio: u16) -> Vec<u8> {
    const SESSION: [u8; 4] = [0x65, 0x07, 0x1c, 0x1c];
    let mut made = bytes.to_vec();
    let [high, low] = trio.to_be_bytes();
    for at in 0..made.len().saturating_sub(6) {
        match &mut made[at..at + 6] {
            [2, 0, a @ 0, b @ 0, 0, 0x11..=0x13] => (*a, *b) = (high, low),
            [192, net @ 168, a @ 99, 0x0b..=0x0d, ..] => (*net, *a) = (high, low),
            [a, b, c, d, ..] if [*a, *b, *c, *d] == SESSION => (*a, *b) = (high, low),
            _ => {}
        }
    }
    // Neither of the check sums is right any more; 0 in IPv4 is "not computed".
    if made.get(12..14) == Some(&[8, 0]) {
        made[24..26].fill(0);
    }
    made
}

/// Memory of this process, in KiB.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok();
    pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok()).map_or(0, |pages| pages * 4)
}
