//! `loco_process_…`: what this process uses, read from `/proc/self` at each scrape.
use std::{
    collections::HashMap,
    fs,
    sync::{Mutex, PoisonError},
};

use prometheus::{
    Counter, Gauge, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// A registry that already holds the process metrics. Every other metric is registered by its owner.
pub fn registry() -> Registry {
    let registry = Registry::new();
    registry.register(Box::new(ProcessMetrics::new())).expect("the registry is empty, so no name is taken");
    registry
}

struct ProcessMetrics {
    cpu_seconds: Counter,
    resident_bytes: Gauge,
    open_fds: Gauge,
    start_time: Gauge,
    /// One scrape at a time: the counter is set by reset and add.
    scrape: Mutex<()>,
}

impl ProcessMetrics {
    fn new() -> Self {
        let gauge = |name: &str, help: &str| Gauge::new(name, help).expect("a constant, valid name");
        Self {
            cpu_seconds: Counter::new(
                "loco_process_cpu_seconds_total",
                "User and system time of all threads, in seconds.",
            )
            .expect("a constant, valid name"),
            resident_bytes: gauge("loco_process_resident_memory_bytes", "Resident set size, in bytes."),
            open_fds: gauge("loco_process_open_fds", "Open file descriptors."),
            start_time: gauge("loco_process_start_time_seconds", "Start of the process, seconds since the epoch."),
            scrape: Mutex::new(()),
        }
    }

    fn parts(&self) -> [&dyn Collector; 4] {
        [&self.cpu_seconds, &self.resident_bytes, &self.open_fds, &self.start_time]
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    /// What could not be read is left out: a number that was not measured is absent.
    fn collect(&self) -> Vec<MetricFamily> {
        let _one = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        let ticks = clock_ticks_per_second();
        let stat = fs::read_to_string("/proc/self/stat").ok();
        let stat = stat.as_deref().and_then(Stat::parse);
        let mut families = Vec::with_capacity(4);
        if let (Some(stat), Some(ticks)) = (&stat, ticks) {
            self.cpu_seconds.reset();
            self.cpu_seconds.inc_by(seconds(stat.cpu_ticks, ticks));
            families.extend(self.cpu_seconds.collect());
            let boot = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time);
            if let Some(boot) = boot {
                self.start_time.set(boot + seconds(stat.start_ticks, ticks));
                families.extend(self.start_time.collect());
            }
        }
        let status = fs::read_to_string("/proc/self/status").ok();
        if let Some(bytes) = status.as_deref().and_then(resident_bytes) {
            self.resident_bytes.set(bytes);
            families.extend(self.resident_bytes.collect());
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // One of the entries is the directory that is being read.
            let open = u32::try_from(entries.count().saturating_sub(1)).unwrap_or(u32::MAX);
            self.open_fds.set(f64::from(open));
            families.extend(self.open_fds.collect());
        }
        families
    }
}

/// The parts of `/proc/PID/stat` that are needed (proc(5): fields 14, 15 and 22, in clock ticks).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the name in parentheses and may hold blanks and parentheses itself: count from the last one.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self { cpu_ticks: field(14)? + field(15)?, start_ticks: field(22)? })
    }
}

#[expect(clippy::cast_precision_loss, reason = "ticks of one process stay far below 2^53")]
fn seconds(ticks: u64, per_second: u64) -> f64 {
    ticks as f64 / per_second as f64
}

fn boot_time(proc_stat: &str) -> Option<f64> {
    proc_stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

/// `AT_CLKTCK` of the auxiliary vector (getauxval(3)): pairs of native words, without a call into libc.
fn clock_ticks_per_second() -> Option<u64> {
    const AT_CLKTCK: usize = 17;
    const WORD: usize = size_of::<usize>();
    let raw = fs::read("/proc/self/auxv").ok()?;
    let words = raw.chunks_exact(WORD).map(|word| usize::from_ne_bytes(word.try_into().expect("chunks of one word")));
    let words: Vec<usize> = words.collect();
    let pairs: HashMap<usize, usize> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    pairs.get(&AT_CLKTCK).and_then(|ticks| u64::try_from(*ticks).ok()).filter(|ticks| *ticks > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 12345 1000 200";
        assert_eq!(Stat::parse(text), Some(Stat { cpu_ticks: 300, start_ticks: 12345 }));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn the_numbers_are_those_of_this_process() {
        let families = registry().gather();
        let value = |name: &str| {
            let family = families.iter().find(|f| f.name() == name).unwrap_or_else(|| panic!("{name} is missing"));
            let metric = &family.get_metric()[0];
            // The other kind's value is 0.
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("loco_process_start_time_seconds");
        assert!((-2.0..600.0).contains(&age), "started {age} s ago");
        assert!(value("loco_process_resident_memory_bytes") > 100_000.0);
        assert!(value("loco_process_open_fds") >= 3.0);
        assert!(value("loco_process_cpu_seconds_total") < 600.0);
    }
}
