//! What the observer costs: nanoseconds of a program for one frame (`BPF_PROG_TEST_RUN`), and CPU time of one frame on its
//! way from tap to tap, with the programs and without, in turns.
//!
//! ```text
//!  bench ─ write ─> tap ─ [program] ─ bridge ─ [program] ─> tap ─> bench reads, outside of the measurement
//! ```
//! The whole way is made in the writing call, so its thread's CPU time is the frame's. Prints one JSON object a line; with
//! `--out DIR` it also writes them to `DIR/observer-DATE.jsonl`, and a table to `DIR/observer-DATE.md`. Needs root;
//! `cargo xtask bench observer` runs it.
use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    os::fd::OwnedFd,
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf},
    programs::{
        LinkOrder, SchedClassifier, TcAttachType, TestRun as _, TestRunOptions, links::FdLink, tc::TcAttachOptions,
    },
};
use nix::{
    net::if_::if_nametoindex,
    sys::{
        resource::{UsageWho, getrusage},
        time::TimeValLike as _,
    },
};
use testkit::{NetNs, Tap};
use traffic::abi::{EGRESS, FLAG_EVENTS, FLAG_PAIRS, INGRESS, Loss, PORT_ROW_WORDS};

const VNET_HEADER_LEN: usize = 10;
/// Frames that a tap keeps for its reader, and some to spare: a full queue would be another path.
const BATCH: usize = 400;
/// Of each way with each frame: as many as a port is granted events of at once, and some to spare.
const BATCHES: usize = 20;
const ROUNDS: usize = 14;
/// Buckets fill in this time.
const REFILL: Duration = Duration::from_millis(1100);
const RUNS: u32 = 2000;
const RUN_ROUNDS: usize = 15;
const STORM_RUNS: u32 = 300_000;

type Ports = PerCpuHashMap<MapData, [u32; 2], [u64; PORT_ROW_WORDS]>;

struct Programs {
    ebpf: Ebpf,
    ports: Ports,
    lost: PerCpuArray<MapData, u64>,
    ring: RingBuf<MapData>,
}

impl Programs {
    fn load() -> anyhow::Result<Self> {
        let mut ebpf = Ebpf::load(traffic::OBJECT)?;
        let mut map = |name| ebpf.take_map(name).with_context(|| format!("no map {name}"));
        let (ports, lost, ring) = (map("PORTS")?, map("LOST")?, map("EVENTS")?);
        let mut programs = Self {
            ports: Ports::try_from(ports)?,
            lost: PerCpuArray::try_from(lost)?,
            ring: RingBuf::try_from(ring)?,
            ebpf,
        };
        for name in ["loco_ingress", "loco_egress"] {
            programs.program(name)?.load()?;
        }
        Ok(programs)
    }

    fn program(&mut self, name: &str) -> anyhow::Result<&mut SchedClassifier> {
        Ok(self.ebpf.program_mut(name).context("no program")?.try_into()?)
    }

    /// A row for each direction of a device, as the agent makes them.
    fn rows(&mut self, ifindex: u32) -> anyhow::Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))?;
        for direction in [INGRESS, EGRESS] {
            let mut row = [0; PORT_ROW_WORDS];
            row[PORT_ROW_WORDS - 2] = FLAG_EVENTS | FLAG_PAIRS;
            let rows = PerCpuValues::try_from(vec![row; cpus])?;
            self.ports.insert([ifindex, direction.into()], rows, 0)?;
        }
        Ok(())
    }

    fn drain(&mut self) -> u64 {
        let mut count = 0;
        while self.ring.next().is_some() {
            count += 1;
        }
        count
    }

    fn lost(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for loss in Loss::ALL {
            sum += self.lost.get(&(loss as u32), 0)?.iter().sum::<u64>();
        }
        Ok(sum)
    }

    /// ns of the program alone, for one frame.
    fn run(&mut self, frame: &[u8], repeat: u32) -> anyhow::Result<f64> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = repeat;
        let result = self.program("loco_ingress")?.test_run(options)?;
        ensure!(result.return_value == u32::MAX, "the verdict was {}", result.return_value);
        Ok(result.duration.as_secs_f64() * 1e9)
    }

    fn attach(&mut self, device: &str) -> anyhow::Result<[FdLink; 2]> {
        let mut put = |name, kind| -> anyhow::Result<FdLink> {
            let program = self.program(name)?;
            let options = TcAttachOptions::TcxOrder(LinkOrder::default());
            let id = program.attach_with_options(device, kind, options)?;
            Ok(program.take_link(id)?.try_into()?)
        };
        Ok([put("loco_ingress", TcAttachType::Ingress)?, put("loco_egress", TcAttachType::Egress)?])
    }
}

struct Kind {
    name: &'static str,
    frame: Vec<u8>,
    /// Each is shown to user space.
    shown: bool,
}

fn kinds() -> Vec<Kind> {
    let udp = |port: u16, len: usize| {
        let total = u16::try_from(len - 14).expect("a frame");
        let mut frame = vec![0; len];
        frame[..14].copy_from_slice(&[2, 0x4c, 0, 0, 0, 0x0b, 2, 0x4c, 0, 0, 0, 0x0a, 8, 0]);
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[22..34].copy_from_slice(&[64, 17, 0, 0, 10, 98, 0, 1, 10, 98, 0, 2]);
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        frame[38..40].copy_from_slice(&(total - 20).to_be_bytes());
        frame
    };
    vec![
        Kind { name: "other UDP, 60 octets", frame: udp(5000, 60), shown: false },
        Kind { name: "DirectPlay UDP, 60 octets", frame: udp(2302, 60), shown: true },
        Kind { name: "DirectPlay UDP, 342 octets", frame: udp(2302, 342), shown: true },
        Kind { name: "DirectPlay UDP, 1514 octets", frame: udp(2302, 1514), shown: true },
    ]
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn ip(words: &str) -> anyhow::Result<()> {
    let status = Command::new("ip").args(words.split(' ')).status()?;
    ensure!(status.success(), "ip {words}: {status}");
    Ok(())
}

/// CPU time of the calling thread in ns, in the kernel and outside.
fn cpu() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(f64::from(i32::try_from(micros).context("a bench of half an hour")?) * 1000.0)
}

/// Writes a batch, and the CPU time of it in ns; what came out at the other end is read outside.
fn batch(from: &OwnedFd, to: &OwnedFd, whole: &[u8]) -> anyhow::Result<f64> {
    let before = cpu()?;
    for _ in 0..BATCH {
        nix::unistd::write(from, whole)?;
    }
    let spent = cpu()? - before;
    let mut buffer = [0; 2048];
    while let Ok(_len) = nix::unistd::read(to, &mut buffer) {}
    Ok(spent)
}

struct Output {
    lines: Vec<String>,
}

impl Output {
    fn line(&mut self, text: String) -> anyhow::Result<()> {
        writeln!(io::stdout(), "{text}")?;
        self.lines.push(text);
        Ok(())
    }
}

fn measure(out: &mut Output) -> anyhow::Result<String> {
    let mut table = String::from(
        "| frame | the program alone | tap to tap without | with both programs | one hook |\n|---|---|---|---|---|\n",
    );
    let mut programs = Programs::load()?;
    for of in ["all", "default"] {
        // Its own chatter at new links would be counted. Absent where the kernel has no IPv6.
        fs::write(format!("/proc/sys/net/ipv6/conf/{of}/disable_ipv6"), "1").ok();
    }
    for link in ["lo up", "br0 up"] {
        if link.starts_with("br0") {
            ip("link add br0 type bridge stp_state 0 mcast_snooping 0")?;
        }
        ip(&format!("link set {link}"))?;
    }
    for table in ["iptables", "ip6tables", "arptables"] {
        // As the fabric has it: bridged frames are nobody's business. Absent where the module is not loaded.
        fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{table}"), "0").ok();
    }
    let (from, to) = (Tap::open("locota")?, Tap::open("locotb")?);
    for tap in ["locota", "locotb"] {
        ip(&format!("link set {tap} master br0 up"))?;
        programs.rows(if_nametoindex(tap)?)?;
    }
    // Prog-run runs at the loopback device.
    programs.rows(if_nametoindex("lo")?)?;
    for kind in kinds() {
        programs.drain();
        let mut alone = Vec::new();
        for _ in 0..RUN_ROUNDS {
            let ns = programs.run(&kind.frame, RUNS)?;
            let events = programs.drain();
            ensure!(!kind.shown || events == RUNS.into(), "{events} events of {RUNS} frames");
            out.line(format!(r#"{{"measure":"prog-run","frame":"{}","ns":{ns:.0},"events":{events}}}"#, kind.name))?;
            alone.push(ns);
            if kind.shown {
                thread::sleep(REFILL / 5);
            }
        }
        let whole = [&[0; VNET_HEADER_LEN][..], &kind.frame].concat();
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS * 2 {
            let watched = round % 2 == 1;
            let links = if watched { Some([programs.attach("locota")?, programs.attach("locotb")?]) } else { None };
            let (mut spent, mut events) = (0.0, 0);
            for _ in 0..BATCHES {
                spent += batch(&from, &to, &whole)?;
                events += programs.drain();
            }
            drop(links);
            let frames = u32::try_from(BATCH * BATCHES)?;
            let all = watched && kind.shown;
            ensure!(!all || events == u64::from(frames) * 2, "{events} events of {frames} frames at two taps");
            let ns = spent / f64::from(frames);
            out.line(format!(
                r#"{{"measure":"in-situ","frame":"{}","programs":{watched},"cpu_ns":{ns:.0},"events":{events}}}"#,
                kind.name
            ))?;
            if watched {
                with.push(ns);
            } else {
                without.push(ns);
            }
            if all {
                thread::sleep(REFILL);
            }
        }
        let (alone, without, with) = (median(&mut alone), median(&mut without), median(&mut with));
        let hook = (with - without) / 2.0;
        out.line(format!(
            r#"{{"sum":"{}","prog_run_ns":{alone:.0},"without_ns":{without:.0},"with_ns":{with:.0},"hook_ns":{hook:.0}}}"#,
            kind.name
        ))?;
        let shown = if kind.shown { ", each shown" } else { "" };
        writeln!(table, "| {}{shown} | {alone:.0} | {without:.0} | {with:.0} | {hook:.0} |", kind.name)?;
    }
    let storm = programs.run(&kinds()[1].frame, STORM_RUNS)?;
    programs.drain();
    out.line(format!(r#"{{"sum":"DirectPlay UDP in a storm","prog_run_ns":{storm:.0},"lost":{}}}"#, programs.lost()?))?;
    writeln!(table, "| DirectPlay UDP, a storm beyond what a port is granted | {storm:.0} | | | |")?;
    Ok(table)
}

fn answer(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let out = match (arguments.next(), arguments.next()) {
        (None, None) => None,
        (Some(flag), Some(dir)) if flag == "--out" => Some(PathBuf::from(dir)),
        _ => bail!("usage: bench-observer [--out DIR]"),
    };
    let date = answer("date", &["-u", "+%F"])?;
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |(_, m)| m);
    let load = fs::read_to_string("/proc/loadavg")?;
    let machine = format!(
        "{model} ({} cores), kernel {}, load {} at the start",
        thread::available_parallelism()?,
        answer("uname", &["-r"])?,
        load.split(' ').next().unwrap_or("unknown")
    );
    let mut output = Output { lines: Vec::new() };
    output.line(format!(r#"{{"bench":"observer","date":"{date}","machine":"{machine}"}}"#))?;
    let table = NetNs::new("bench-observer")?.run(|| measure(&mut output))??;
    if let Some(dir) = out {
        let name = format!("observer-{date}");
        fs::write(dir.join(format!("{name}.jsonl")), output.lines.join("\n") + "\n")?;
        let text = format!(
            "# What the observer costs, {date}\n\nMachine: {machine}.\nCommand: `cargo xtask bench observer`. Raw data: \
             `{name}.jsonl`. Nanoseconds for one frame, medians: of {RUN_ROUNDS} prog-runs of {RUNS}, and of {ROUNDS} \
             rounds of {} frames each\nwith the programs and without, in turns. Without and with: CPU time of the whole \
             way of a frame, from the write at one tap over the bridge into the other tap.\nOne hook: half of the \
             difference. \"Shown\" includes the copy of the frame into the ring; the reader's own time is not in it.\n\n{table}",
            BATCH * BATCHES
        );
        fs::write(dir.join(format!("{name}.md")), text)?;
    }
    Ok(())
}
