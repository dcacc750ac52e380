//! One path between two guests' cards, and how long and how well frames pass it.
use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A frame that takes longer is lost.
const LOST_AFTER: Duration = Duration::from_millis(500);
/// Between two frames: a game's rate, not a flood.
const PAUSE: Duration = Duration::from_micros(300);
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const VNET_HEADER_LEN: usize = 10;

/// One end of a path: where a guest's card would be.
pub(crate) enum End {
    Tap(OwnedFd),
    /// QEMU's end of a hub, or of a cable of mode `socket`.
    Socket(UnixDatagram),
}

impl End {
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        match self {
            Self::Tap(fd) => {
                let mut whole = vec![0; VNET_HEADER_LEN];
                whole.extend_from_slice(frame);
                nix::unistd::write(fd, &whole)?;
            }
            Self::Socket(socket) => drop(socket.send(frame)?),
        }
        Ok(())
    }

    /// The next frame of this bench for `to` within `wait`; others (ARP questions, floods) are passed over.
    fn receive(&self, to: [u8; 6], buffer: &mut [u8; 4096], wait: Duration) -> io::Result<Option<usize>> {
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let millis = u16::try_from(left.as_millis()).unwrap_or(u16::MAX).saturating_add(1);
            let fd = match self {
                Self::Tap(fd) => fd.as_fd(),
                Self::Socket(socket) => socket.as_fd(),
            };
            poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(millis))?;
            let len = match self {
                Self::Tap(fd) => match nix::unistd::read(fd, buffer) {
                    Ok(len) => {
                        buffer.copy_within(VNET_HEADER_LEN..len, 0);
                        len - VNET_HEADER_LEN
                    }
                    Err(nix::errno::Errno::EAGAIN) => continue,
                    Err(errno) => return Err(errno.into()),
                },
                Self::Socket(socket) => match socket.recv(buffer) {
                    Ok(len) => len,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error),
                },
            };
            if len >= 30 && buffer[12..14] == ETHERTYPE && buffer[..6] == to {
                return Ok(Some(len));
            }
        }
    }
}

/// Octets 14 to 30 of a frame: number, and nanoseconds since the bench began.
fn frame([from, to]: [[u8; 6]; 2], len: usize, number: u64, at: Duration) -> Vec<u8> {
    let nanos = u64::try_from(at.as_nanos()).expect("a bench ends within centuries");
    let mut frame = [&to[..], &from, &ETHERTYPE, &number.to_be_bytes(), &nanos.to_be_bytes()].concat();
    frame.resize(len, 0x5a);
    frame
}

fn word(frame: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(frame[at..at + 8].try_into().expect("eight octets"))
}

pub(crate) struct Route {
    pub(crate) name: &'static str,
    pub(crate) near: End,
    pub(crate) far: Arc<End>,
    /// Of the near and the far end. Every route has its own: bridges of routes that share a LAN learn where they are.
    pub(crate) macs: [[u8; 6]; 2],
}

/// Addresses of a path that has no seats, by its name.
pub(crate) fn macs(name: &str) -> [[u8; 6]; 2] {
    let [.., a, b] =
        name.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())).to_be_bytes();
    [[0x02, 0xbe, 0, a, b, 1], [0x02, 0xbe, 0, a, b, 2]]
}

/// Microseconds.
#[derive(Default, Clone)]
pub(crate) struct Samples {
    pub(crate) one_way: Vec<f64>,
    pub(crate) round_trip: Vec<f64>,
    pub(crate) lost: usize,
}

/// Sends `count` frames, each answered by a thread at the far end, which also notes how long the way there took.
pub(crate) fn measure(route: &Route, len: usize, count: usize, samples: &mut Samples) -> anyhow::Result<()> {
    // A late frame of an earlier call has a lower number.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let first = NUMBER.fetch_add(count as u64, Ordering::Relaxed);
    let (epoch, macs @ [near_mac, far_mac]) = (Instant::now(), route.macs);
    let stop = Arc::new(AtomicBool::new(false));
    let echo = {
        let (far, stop) = (Arc::clone(&route.far), Arc::clone(&stop));
        thread::spawn(move || -> io::Result<Vec<f64>> {
            let mut buffer = [0; 4096];
            let mut one_way = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                if let Some(len) = far.receive(far_mac, &mut buffer, Duration::from_millis(50))? {
                    if word(&buffer, 14) < first {
                        continue;
                    }
                    let sent = Duration::from_nanos(word(&buffer, 22));
                    one_way.push(epoch.elapsed().saturating_sub(sent).as_secs_f64() * 1e6);
                    far.send(&frame([far_mac, near_mac], len, word(&buffer, 14), sent))?;
                }
            }
            Ok(one_way)
        })
    };
    let mut buffer = [0; 4096];
    for number in first..first + count as u64 {
        let start = epoch.elapsed();
        route.near.send(&frame(macs, len, number, start))?;
        loop {
            match route.near.receive(near_mac, &mut buffer, LOST_AFTER)? {
                Some(_) if word(&buffer, 14) == number => {
                    samples.round_trip.push(epoch.elapsed().saturating_sub(start).as_secs_f64() * 1e6);
                    break;
                }
                // A late answer to a frame that was given up.
                Some(_) => {}
                None => {
                    samples.lost += 1;
                    break;
                }
            }
        }
        thread::sleep(PAUSE);
    }
    stop.store(true, Ordering::Relaxed);
    samples.one_way.extend(echo.join().expect("the echo does not panic")?);
    Ok(())
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank within the samples"
    )]
    let rank = ((sorted.len() - 1) as f64 * q).round() as usize;
    sorted[rank]
}

/// 50th and 99th percentile, in microseconds.
pub(crate) struct Figures {
    samples: usize,
    lost: usize,
    one_way: (f64, f64),
    round_trip: (f64, f64),
}

impl Figures {
    pub(crate) fn of(name: &str, samples: &mut Samples) -> anyhow::Result<Self> {
        if samples.round_trip.is_empty() || samples.one_way.is_empty() {
            bail!("no frame came through: {name}");
        }
        let both = |list: &mut Vec<f64>| {
            list.sort_by(f64::total_cmp);
            (quantile(list, 0.5), quantile(list, 0.99))
        };
        Ok(Self {
            samples: samples.round_trip.len(),
            lost: samples.lost,
            one_way: both(&mut samples.one_way),
            round_trip: both(&mut samples.round_trip),
        })
    }

    pub(crate) fn json(&self, name: &str, len: usize, round: &str) -> String {
        let pair = |(p50, p99): (f64, f64)| format!(r#"{{"p50":{p50:.1},"p99":{p99:.1}}}"#);
        format!(
            r#"{{"path":"{name}","frame_octets":{len},"round":{round},"samples":{},"lost":{},"one_way_us":{},"round_trip_us":{}}}"#,
            self.samples,
            self.lost,
            pair(self.one_way),
            pair(self.round_trip),
        )
    }

    pub(crate) fn cells(&self) -> String {
        let pair = |(p50, p99): (f64, f64)| format!("{p50:.0} / {p99:.0}");
        format!(" {} | {} | {} |", pair(self.one_way), pair(self.round_trip), self.lost)
    }
}

/// Until a frame has come back: the carrier of a tap reaches its bridge some time after it was opened.
pub(crate) fn warm(route: &Route) -> anyhow::Result<()> {
    for _ in 0..20 {
        let mut samples = Samples::default();
        measure(route, crate::FRAME_LENS[0], 1, &mut samples)?;
        if samples.lost == 0 {
            return measure(route, crate::FRAME_LENS[0], 50, &mut Samples::default());
        }
    }
    bail!("no frame comes through: {}", route.name)
}

/// What came of frames that were sent as fast as asked, or as fast as the path took them.
pub(crate) struct Flood {
    /// Frames a second that were handed over.
    pub(crate) sent_rate: f64,
    pub(crate) sent: u64,
    pub(crate) arrived: u64,
}

impl Flood {
    pub(crate) fn lost_percent(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "thousands of frames")]
        let share = self.sent.saturating_sub(self.arrived) as f64 / self.sent as f64;
        share * 100.0
    }
}

/// Sends `rate` frames a second for `time`, in bursts of a millisecond's worth. An end that takes no more is tried again: then fewer
/// are sent, as a guest's card would be held back.
pub(crate) fn flood(route: &Route, rate: u32, time: Duration) -> anyhow::Result<Flood> {
    let [_, far_mac] = route.macs;
    let stop = Arc::new(AtomicBool::new(false));
    let arrived = Arc::new(AtomicU64::new(0));
    let reader = {
        let (far, stop, arrived) = (Arc::clone(&route.far), Arc::clone(&stop), Arc::clone(&arrived));
        thread::spawn(move || -> io::Result<()> {
            let mut buffer = [0; 4096];
            while !stop.load(Ordering::Relaxed) {
                if far.receive(far_mac, &mut buffer, Duration::from_millis(50))?.is_some() {
                    arrived.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        })
    };
    // Frames of earlier floods that are still on their way are not of this one.
    thread::sleep(Duration::from_millis(100));
    arrived.store(0, Ordering::Relaxed);
    let frame = frame(route.macs, crate::FRAME_LENS[0], u64::MAX, Duration::ZERO);
    let (begin, mut sent) = (Instant::now(), 0u64);
    while begin.elapsed() < time {
        let due = (begin.elapsed().as_secs_f64() + 1e-3) * f64::from(rate);
        #[expect(clippy::cast_precision_loss, reason = "thousands of frames")]
        while (sent as f64) < due {
            match route.near.send(&frame) {
                Ok(()) => sent += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => break,
                Err(error) => return Err(error.into()),
            }
        }
        thread::sleep(Duration::from_micros(500));
    }
    let took = begin.elapsed().as_secs_f64();
    // Until nothing has come for a while.
    let mut last = u64::MAX;
    while last != arrived.load(Ordering::Relaxed) {
        last = arrived.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(200));
    }
    stop.store(true, Ordering::Relaxed);
    reader.join().expect("the reader does not panic")?;
    #[expect(clippy::cast_precision_loss, reason = "thousands of frames")]
    let sent_rate = sent as f64 / took;
    Ok(Flood { sent_rate, sent, arrived: last })
}
