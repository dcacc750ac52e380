//! Latency of one frame from guest's card to guest's card, for our fabric and for what it could be compared with, in one run.
//!
//! ```text
//!  raw:        bench ─ tap ─ <path> ─ tap ─ bench                        what the path itself costs
//!  in QEMU:    bench ─ unix ─ QEMU hub ─ <netdev> … <netdev> ─ QEMU hub ─ unix ─ bench    the same two QEMUs for every netdev
//! ```
//! One frame is in flight at a time. The paths take turns in short rounds, so that a busy moment of the machine hits all of
//! them. Prints one JSON object a line (one for each round, then one for all); with `--out DIR` it also writes them to
//! `DIR/lan-DATE.jsonl`, and a table to `DIR/lan-DATE.md`. Needs root and QEMU; `cargo xtask bench lan` runs it.
use std::{
    io::{self, Write},
    net::Ipv4Addr,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use fabric::{Fabric, FabricConfig, FabricSpec};
use futures_util::TryStreamExt;
use model::{InstanceId, Lan, NetworkMode, Node, PlacedInstance, Seat, Snapshot, Vni};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVxlan};
use testkit::{NetNs, Tap, Underlay};

const SAMPLES: usize = 5000;
const ROUNDS: usize = 20;
/// Lengths of the whole frame, without check sequence.
const FRAME_LENS: [usize; 2] = [60, 1400];
/// A frame that takes longer is lost.
const LOST_AFTER: Duration = Duration::from_millis(500);
/// Between two frames: a game's rate, not a flood.
const PAUSE: Duration = Duration::from_micros(300);
const QEMU: &str = "qemu-system-x86_64";
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const VNET_HEADER_LEN: usize = 10;

/// One end of a path: where a guest's card would be.
enum End {
    Tap(OwnedFd),
    Socket(UnixDatagram),
}

impl End {
    fn send(&self, frame: &[u8]) -> io::Result<()> {
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

struct Route {
    name: &'static str,
    near: End,
    far: Arc<End>,
}

impl Route {
    /// MACs of the near and the far end. Every route has its own: bridges of routes that share a LAN learn where they are.
    fn macs(&self) -> [[u8; 6]; 2] {
        let [.., a, b] =
            self.name.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())).to_be_bytes();
        [[0x02, 0xbe, 0, a, b, 1], [0x02, 0xbe, 0, a, b, 2]]
    }
}

/// Microseconds.
#[derive(Default, Clone)]
struct Samples {
    one_way: Vec<f64>,
    round_trip: Vec<f64>,
    lost: usize,
}

/// Sends `count` frames, each answered by a thread at the far end, which also notes how long the way there took.
fn measure(route: &Route, len: usize, count: usize, samples: &mut Samples) -> anyhow::Result<()> {
    // A late frame of an earlier call has a lower number.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let first = NUMBER.fetch_add(count as u64, Ordering::Relaxed);
    let (epoch, macs @ [near_mac, far_mac]) = (Instant::now(), route.macs());
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
struct Figures {
    samples: usize,
    lost: usize,
    one_way: (f64, f64),
    round_trip: (f64, f64),
}

impl Figures {
    fn of(name: &str, samples: &mut Samples) -> anyhow::Result<Self> {
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

    fn json(&self, name: &str, len: usize, round: &str) -> String {
        let pair = |(p50, p99): (f64, f64)| format!(r#"{{"p50":{p50:.1},"p99":{p99:.1}}}"#);
        format!(
            r#"{{"path":"{name}","frame_octets":{len},"round":{round},"samples":{},"lost":{},"one_way_us":{},"round_trip_us":{}}}"#,
            self.samples,
            self.lost,
            pair(self.one_way),
            pair(self.round_trip),
        )
    }

    fn cells(&self) -> String {
        let pair = |(p50, p99): (f64, f64)| format!("{p50:.0} / {p99:.0}");
        format!(" {} | {} | {} |", pair(self.one_way), pair(self.round_trip), self.lost)
    }
}

/// The machine and the moment.
struct About {
    date: String,
    machine: String,
}

impl About {
    fn read() -> anyhow::Result<Self> {
        let output = |program: &str, argument: &str| -> anyhow::Result<String> {
            let output = Command::new(program).arg(argument).output().with_context(|| format!("run {program}"))?;
            Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
        };
        let file = |path: &str| std::fs::read_to_string(path).with_context(|| path.to_owned());
        let cpuinfo = file("/proc/cpuinfo")?;
        let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown CPU");
        let load = file("/proc/loadavg")?;
        Ok(Self {
            date: output("date", "+%F")?,
            machine: format!(
                "{} ({} cores), kernel {}, {}, load {} at the start",
                cpu.trim_start_matches([' ', '\t', ':']),
                thread::available_parallelism()?,
                file("/proc/sys/kernel/osrelease")?.trim(),
                output(QEMU, "--version")?,
                load.split(' ').next().unwrap_or_default(),
            ),
        })
    }

    fn json(&self) -> String {
        format!(r#"{{"bench":"lan","date":"{}","machine":"{}"}}"#, self.date, self.machine.replace('"', "'"))
    }
}

/// Our fabric on two nodes: seats 0 to 3 on the first, 4 and 5 on the second.
struct Ours {
    fabrics: Vec<Fabric>,
    configs: Vec<FabricConfig>,
}

const PLACES: [usize; 8] = [0, 0, 0, 1, 0, 0, 0, 1];

impl Ours {
    async fn new(underlay: &Underlay) -> anyhow::Result<Self> {
        let subnet = "10.98.0.0/24".parse()?;
        let lan = Lan::new("bench".parse()?, Vni::new(4200)?, NetworkMode::Vxlan, subnet, 9)?;
        let node = |index: u8| Node {
            name: format!("node-{index}").parse().expect("a name"),
            underlay_ip: Underlay::address(index),
            agent_url: String::new(),
        };
        let placed = (0u8..).zip(PLACES).map(|(seat, at)| PlacedInstance {
            id: instance(usize::from(seat)),
            lan: "bench".parse().expect("a name"),
            seat: Seat(seat),
            node: format!("node-{at}").parse().expect("a name"),
        });
        let snapshot = Snapshot::new([lan], [node(0), node(1)], placed)?;
        let mut ours = Self { fabrics: Vec::new(), configs: Vec::new() };
        for index in 0..2u8 {
            let config = FabricConfig {
                node: format!("node-{index}").parse()?,
                netns: NetNs::free_path(&format!("bench{index}")),
                underlay_ip: Underlay::address(index),
                vxlan_port: 14789,
                underlay_netns: Some(underlay.node(usize::from(index)).path().to_owned()),
                encryption: None,
            };
            ours.configs.push(config.clone());
            let fabric = Fabric::start(config.clone(), &prometheus::Registry::new()).await?;
            fabric.set_spec(FabricSpec::from_snapshot(&snapshot, &config.node));
            let mut status = fabric.status();
            let settled = status.wait_for(|status| status.spec_seen > 0).await?.clone();
            if !settled.problems.is_empty() {
                bail!("the fabric has problems: {}", settled.problems.join("; "));
            }
            ours.fabrics.push(fabric);
        }
        Ok(ours)
    }

    async fn tap(&self, seat: usize) -> anyhow::Result<OwnedFd> {
        Ok(self.fabrics[PLACES[seat]].open_tap(&instance(seat)).await?)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.fabrics.clear();
        for config in &self.configs {
            if let Err(error) = fabric::uninstall(config) {
                drop(writeln!(io::stderr(), "{error}"));
            }
        }
    }
}

fn instance(seat: usize) -> InstanceId {
    format!("instance-{seat}").parse().expect("a name")
}

async fn index(handle: &Handle, name: &str) -> anyhow::Result<u32> {
    let mut links = Box::pin(handle.link().get().match_name(name).execute());
    Ok(links.try_next().await?.with_context(|| format!("no link {name}"))?.header.index)
}

/// A bridge with taps in the calling thread's namespace, as `ip link` makes them, and a learning VXLAN device if asked for.
async fn bare(taps: &[&str], tunnel: Option<(Ipv4Addr, Ipv4Addr)>) -> anyhow::Result<Vec<OwnedFd>> {
    for family in ["iptables", "ip6tables", "arptables"] {
        let sysctl = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        if Path::new(&sysctl).exists() {
            std::fs::write(sysctl, "0")?;
        }
    }
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    handle.link().add(LinkBridge::new("br").up().build()).execute().await?;
    let bridge = index(&handle, "br").await?;
    let mut fds = Vec::new();
    let mut ports: Vec<String> = taps.iter().map(|name| (*name).to_owned()).collect();
    for name in taps {
        fds.push(Tap::open(name)?);
    }
    if let Some((local, remote)) = tunnel {
        handle
            .link()
            .add(LinkVxlan::new("vx", 77).local(local).remote(remote).port(4790).mtu(1500).build())
            .execute()
            .await?;
        ports.push("vx".to_owned());
    }
    for port in ports {
        let link = LinkUnspec::new_with_index(index(&handle, &port).await?).controller(bridge).up().build();
        handle.link().set(link).execute().await?;
    }
    Ok(fds)
}

/// Two QEMUs without a machine: each joins a unix socket to one netdev by a hub.
struct Qemus {
    children: Vec<Child>,
}

impl Drop for Qemus {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

impl Qemus {
    /// Starts one in the namespace; `netdev` is what is measured. Gives the bench's end.
    fn start(
        &mut self,
        netns: &NetNs,
        scratch: &Path,
        name: &str,
        netdev: &str,
        tap: Option<&OwnedFd>,
    ) -> anyhow::Result<UnixDatagram> {
        if let Some(tap) = tap {
            // QEMU inherits it under the same number.
            fcntl(tap, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        let (ours, theirs) = (scratch.join(format!("{name}.bench")), scratch.join(format!("{name}.qemu")));
        let socket = UnixDatagram::bind(&ours)?;
        let unix = format!(
            "dgram,id=u,local.type=unix,local.path={},remote.type=unix,remote.path={}",
            theirs.display(),
            ours.display()
        );
        let mut command = Command::new(QEMU);
        command
            .args(["-machine", "none", "-nodefaults", "-display", "none"])
            .args(["-netdev", &unix, "-netdev", "hubport,id=hu,hubid=0,netdev=u"])
            .args(["-netdev", netdev, "-netdev", "hubport,id=hx,hubid=0,netdev=x"])
            .stdin(Stdio::null());
        self.children.push(netns.run(|| command.spawn())?.with_context(|| format!("start {QEMU}"))?);
        let deadline = Instant::now() + Duration::from_secs(10);
        while socket.connect(&theirs).is_err() {
            if Instant::now() > deadline
                || self.children.last_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
            {
                bail!("QEMU for {name} did not open its socket");
            }
            thread::sleep(Duration::from_millis(10));
        }
        socket.set_nonblocking(true)?;
        if let Some(tap) = tap {
            fcntl(tap, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        Ok(socket)
    }
}

fn tap_netdev(tap: &OwnedFd) -> String {
    format!("tap,id=x,fd={}", tap.as_raw_fd())
}

/// Every path to measure. What must live as long as they are used comes with them.
struct Rig {
    routes: Vec<Route>,
    _qemus: Qemus,
    _scratch: Scratch,
    _ours: Ours,
    _namespaces: (NetNs, Underlay),
}

async fn build() -> anyhow::Result<Rig> {
    let underlay = Underlay::new(2)?;
    let ours = Ours::new(&underlay).await?;
    let (a, b) = (Underlay::address(0), Underlay::address(1));

    let bridge_ns = NetNs::new("bridge")?;
    let mut bridged = bridge_ns.block_on(bare(&["tap0", "tap1"], None))??;
    let mut near = underlay.node(0).block_on(bare(&["tap0"], Some((a, b))))??;
    let mut far = underlay.node(1).block_on(bare(&["tap0"], Some((b, a))))??;

    let taps = |name, near, far| Route { name, near: End::Tap(near), far: Arc::new(End::Tap(far)) };
    let mut routes = vec![
        taps("bare bridge", bridged.remove(0), bridged.remove(0)),
        taps("loco, same node", ours.tap(0).await?, ours.tap(1).await?),
        taps("bare VXLAN", near.remove(0), far.remove(0)),
        taps("loco, across nodes", ours.tap(2).await?, ours.tap(3).await?),
    ];

    let scratch = Scratch(std::env::temp_dir().join(format!("loco-bench-{}", std::process::id())));
    std::fs::create_dir_all(&scratch.0)?;
    let mut qemus = Qemus { children: Vec::new() };
    let dgram = |local: Ipv4Addr, remote: Ipv4Addr| {
        format!(
            "dgram,id=x,local.type=inet,local.host={local},local.port=7001,remote.type=inet,remote.host={remote},remote.port=7001"
        )
    };
    let stream = |server: &str| format!("stream,id=x,server={server},addr.type=inet,addr.host={a},addr.port=7002");
    let (t4, t5, t6, t7) = (ours.tap(4).await?, ours.tap(5).await?, ours.tap(6).await?, ours.tap(7).await?);
    let pairs = [
        ("in QEMU: loco, same node", 0, tap_netdev(&t4), Some(&t4), tap_netdev(&t5), Some(&t5)),
        ("in QEMU: loco, across nodes", 1, tap_netdev(&t6), Some(&t6), tap_netdev(&t7), Some(&t7)),
        ("in QEMU: netdev dgram, across nodes", 1, dgram(a, b), None, dgram(b, a), None),
        ("in QEMU: netdev stream, across nodes", 1, stream("on"), None, stream("off"), None),
    ];
    for (number, (name, far_node, near_dev, near_tap, far_dev, far_tap)) in pairs.into_iter().enumerate() {
        let near = qemus.start(underlay.node(0), &scratch.0, &format!("near{number}"), &near_dev, near_tap)?;
        let far = qemus.start(underlay.node(far_node), &scratch.0, &format!("far{number}"), &far_dev, far_tap)?;
        routes.push(Route { name, near: End::Socket(near), far: Arc::new(End::Socket(far)) });
    }
    Ok(Rig { routes, _qemus: qemus, _scratch: scratch, _ours: ours, _namespaces: (bridge_ns, underlay) })
}

/// All rounds. Gives the lines of raw data and the rows of the table.
fn run(routes: &[Route]) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    // Warm: bridges learn, connections are made.
    for route in routes {
        warm(route)?;
    }
    let mut all = vec![vec![Samples::default(); FRAME_LENS.len()]; routes.len()];
    let mut raw = Vec::new();
    for round in 1..=ROUNDS {
        for (route, all) in routes.iter().zip(&mut all) {
            for (len, all) in FRAME_LENS.into_iter().zip(all) {
                let mut samples = Samples::default();
                measure(route, len, SAMPLES / ROUNDS, &mut samples)?;
                raw.push(Figures::of(route.name, &mut samples)?.json(route.name, len, &round.to_string()));
                all.one_way.extend(samples.one_way);
                all.round_trip.extend(samples.round_trip);
                all.lost += samples.lost;
            }
        }
        writeln!(io::stderr(), "round {round} of {ROUNDS}")?;
    }
    let mut rows = Vec::new();
    for (route, all) in routes.iter().zip(&mut all) {
        let mut row = format!("| {} |", route.name);
        for (len, samples) in FRAME_LENS.into_iter().zip(all) {
            let figures = Figures::of(route.name, samples)?;
            raw.push(figures.json(route.name, len, r#""all""#));
            row += &figures.cells();
        }
        rows.push(row);
    }
    Ok((raw, rows))
}

/// Until a frame has come back: the carrier of a tap reaches its bridge some time after it was opened.
fn warm(route: &Route) -> anyhow::Result<()> {
    for _ in 0..20 {
        let mut samples = Samples::default();
        measure(route, FRAME_LENS[0], 1, &mut samples)?;
        if samples.lost == 0 {
            return measure(route, FRAME_LENS[0], 50, &mut Samples::default());
        }
    }
    bail!("no frame comes through: {}", route.name)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let out = match arguments.as_slice() {
        [] => None,
        [flag, directory] if flag == "--out" => Some(PathBuf::from(directory)),
        _ => bail!("usage: bench-lan [--out DIRECTORY]"),
    };
    let about = About::read()?;
    let rig = build().await?;
    let (raw, rows) = run(&rig.routes)?;
    let raw = format!("{}\n{}\n", about.json(), raw.join("\n"));
    io::stdout().lock().write_all(raw.as_bytes())?;
    if let Some(out) = out {
        let name = format!("lan-{}", about.date);
        std::fs::write(out.join(format!("{name}.jsonl")), &raw)?;
        let table = format!(
            "# From card to card, {date}\n\nMachine: {machine}.\n\
             Command: `cargo xtask bench lan`. Raw data: `{name}.jsonl`. Microseconds, p50 / p99 of {SAMPLES} frames each, one in flight, paths in turn.\n\
             Raw: the bench holds both taps, as QEMU would. In QEMU: the same two QEMUs with hubs for every netdev, so the difference is the netdev's.\n\n\
             | path | 60 octets: one way | round trip | lost | 1400 octets: one way | round trip | lost |\n|---|---|---|---|---|---|---|\n{rows}\n",
            date = about.date,
            machine = about.machine,
            rows = rows.join("\n"),
        );
        std::fs::write(out.join(format!("{name}.md")), table)?;
    }
    Ok(())
}
