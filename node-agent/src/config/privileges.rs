//! What the kernel must let this process do, looked at before anything is touched. Judged by pure functions over /proc.
use std::path::Path;

use directory::Source;
use model::Lan;

use super::ConfigError;

/// A right, by its bit in `capability.h`, and what it is used for.
struct Need {
    bit: u32,
    name: &'static str,
    used_for: &'static str,
}

/// What every agent needs that makes LANs of the kernel's devices, in a container or not. `CAP_BPF` and `CAP_PERFMON` are not asked for: the kernel takes `CAP_SYS_ADMIN` for both,
/// and without the observer an agent still does its work.
const NEEDS: [Need; 3] = [
    Need { bit: 12, name: "CAP_NET_ADMIN", used_for: "make bridges, tunnels and taps" },
    Need { bit: 13, name: "CAP_NET_RAW", used_for: "answer DHCP, ask who is there and capture frames on the LANs" },
    Need {
        bit: 21,
        name: "CAP_SYS_ADMIN",
        used_for: "enter the LANs' network namespace, and load the observer's programs",
    },
];

/// How mounts made below a directory reach others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Propagation {
    /// They appear in the namespaces that share the mount: on the host.
    Shared,
    /// Only in this mount namespace, and end with it.
    Own,
}

/// Whether a LAN of the directory is made of the kernel's devices, as far as its file tells now: then an agent needs rights for them.
/// What cannot be read, or names no LAN, counts as one that is.
pub fn needs_kernel(source: &Source) -> bool {
    let modes = match source {
        Source::File(path) => std::fs::read_to_string(path).ok().and_then(|text| {
            let snapshot = api::snapshot::parse(&text).ok()?;
            Some(snapshot.lans().map(Lan::mode).collect::<Vec<_>>())
        }),
        Source::Kubernetes(args) => std::fs::read_to_string(&args.lans).ok().and_then(|text| {
            let lans = api::snapshot::parse_lans(&text).ok()?;
            Some(lans.iter().map(Lan::mode).collect())
        }),
    };
    modes.is_none_or(|modes| modes.is_empty() || modes.iter().any(|mode| mode.needs_kernel()))
}

/// Whether this process may do what an agent does, before anything is touched.
///
/// # Errors
/// The first right that is missing, with its use.
pub fn check_capabilities() -> Result<(), ConfigError> {
    // Unreadable means a kernel without procfs: then the first system call that is refused says it.
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return Ok(()) };
    missing(&status).map_or(Ok(()), |need| Err(ConfigError::Capability { name: need.name, used_for: need.used_for }))
}

fn missing(proc_status: &str) -> Option<&'static Need> {
    let line = proc_status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(line.trim(), 16).ok()?;
    NEEDS.iter().find(|need| effective & (1 << need.bit) == 0)
}

/// Whether what is mounted below `run_dir` outlives this container. Only asked in a cluster: elsewhere there is no container.
///
/// # Errors
/// When it would end with it.
pub fn check_mounts(run_dir: &Path) -> Result<(), ConfigError> {
    // Unreadable means that nothing is known, and the mount itself will tell.
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else { return Ok(()) };
    match propagation(&mounts, run_dir) {
        Some(Propagation::Own) => Err(ConfigError::Mount { run_dir: run_dir.to_owned() }),
        Some(Propagation::Shared) | None => Ok(()),
    }
}

/// How the mount that holds `path` passes on what is mounted in it; `None` when there is no such mount.
fn propagation(mountinfo: &str, path: &Path) -> Option<Propagation> {
    let mounts = mountinfo.lines().filter_map(|line| {
        // proc(5): id, parent, device, root, mount point, options, optional fields, `-`, …
        let mut fields = line.split(' ').skip(4);
        let point = Path::new(fields.next()?);
        let shared = fields.skip(1).take_while(|field| *field != "-").any(|field| field.starts_with("shared:"));
        Some((point, if shared { Propagation::Shared } else { Propagation::Own }))
    });
    // Of two at one place the later one is on top.
    mounts
        .filter(|(point, _)| path.starts_with(point))
        .max_by_key(|(point, _)| point.as_os_str().len())
        .map(|found| found.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_missing_right_is_named_with_its_use() {
        let missing = |set: &str| missing(&format!("Name:\tx\nCapEff:\t{set}\n")).map(|need| need.name);
        assert_eq!(missing("000001ffffffffff"), None);
        assert_eq!(missing("0000000000000000"), Some("CAP_NET_ADMIN"));
        assert_eq!(missing("0000000000001000"), Some("CAP_NET_RAW"));
        assert_eq!(missing("0000000000003000"), Some("CAP_SYS_ADMIN"));
        // What the chart grants without `privileged`: NET_ADMIN, NET_RAW, SYS_ADMIN, PERFMON, BPF.
        assert_eq!(missing("000000c000203000"), None);
    }

    #[test]
    fn rights_are_needed_where_a_lan_is_the_kernels_or_nothing_is_known() {
        let path = std::env::temp_dir().join(format!("loco-modes-{}", std::process::id()));
        let needs = |modes: &[&str]| {
            let lan = |(n, mode): (u8, &&str)| {
                format!(r#"{{"name":"lan-{n}","vni":{n},"mode":"{mode}","subnet":"10.{n}.0.0/24","seats":2}}"#)
            };
            let lans: Vec<_> = (1..).zip(modes).map(lan).collect();
            let text = format!(r#"{{"version":1,"lans":[{}],"nodes":[],"instances":[]}}"#, lans.join(","));
            std::fs::write(&path, text).unwrap();
            needs_kernel(&Source::File(path.clone()))
        };
        assert!(!needs(&["socket", "user"]));
        assert!(needs(&["socket", "vxlan"]) && needs(&["macvlan"]) && needs(&[]));
        std::fs::remove_file(&path).unwrap();
        assert!(needs_kernel(&Source::File(path)), "a file that is not there yet");
    }

    #[test]
    fn a_container_is_told_apart_from_its_host_by_what_its_mounts_pass_on() {
        let host = "21 1 0:19 / / rw,relatime shared:1 - ext4 /dev/sda rw\n\
                    30 21 0:25 / /run rw,nosuid shared:5 - tmpfs tmpfs rw\n";
        let place = Path::new("/run/loco");
        assert_eq!(propagation(host, place), Some(Propagation::Shared));
        let container = "900 800 0:99 / / ro,relatime - overlay overlay rw\n";
        assert_eq!(propagation(container, place), Some(Propagation::Own));
        let mounted = |how: &str| format!("{container}901 900 0:25 /loco /run/loco rw,nosuid {how}- tmpfs tmpfs rw\n");
        assert_eq!(propagation(&mounted("shared:5 "), place), Some(Propagation::Shared), "Bidirectional");
        assert_eq!(propagation(&mounted("master:5 "), place), Some(Propagation::Own), "HostToContainer");
        assert_eq!(propagation(&mounted(""), place), Some(Propagation::Own), "None");
        assert_eq!(propagation(&mounted("shared:7 master:5 "), place), Some(Propagation::Shared));
        assert_eq!(propagation(&mounted("shared:5 "), Path::new("/run/loco-other")), Some(Propagation::Own));
        assert_eq!(propagation("rubbish\n\n", place), None);
    }
}
