//! Whether this process may load and attach eBPF programs, before it tries: the kernel says only "not permitted".
//! Bits of `capability.h`; what each lack looks like was measured (docs/adr/0013).
use std::fs;

const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
/// Capability, and the one that the kernel takes in its place.
const NEEDED: [(u32, Option<u32>, &str); 3] = [
    (39, Some(SYS_ADMIN), "CAP_BPF"),
    (38, Some(SYS_ADMIN), "CAP_PERFMON"),
    // Attaching asks for this one in the namespace; nothing stands in for it.
    (NET_ADMIN, None, "CAP_NET_ADMIN"),
];

/// The first capability that is lacking.
pub(crate) fn missing() -> Option<&'static str> {
    // Unreadable means a kernel without procfs: then the first call that is refused says it.
    of(&fs::read_to_string("/proc/thread-self/status").ok()?)
}

fn of(proc_status: &str) -> Option<&'static str> {
    let line = proc_status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(line.trim(), 16).ok()?;
    let has = |bit: u32| effective & (1 << bit) != 0;
    NEEDED.iter().find(|(bit, instead, _)| !has(*bit) && !instead.is_some_and(has)).map(|(_, _, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn the_missing_one_is_named() {
        let status = |bits: &[u32]| {
            let set = bits.iter().fold(0_u64, |set, bit| set | 1 << bit);
            format!("Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t{set:016x}\n")
        };
        assert_eq!(of(&status(&[12, 38, 39])), None);
        assert_eq!(of(&status(&[12, 21])), None, "CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON");
        assert_eq!(of(&status(&[12, 38])), Some("CAP_BPF"));
        assert_eq!(of(&status(&[12, 39])), Some("CAP_PERFMON"));
        assert_eq!(of(&status(&[21, 38, 39])), Some("CAP_NET_ADMIN"));
        assert_eq!(of("nothing"), None);
    }
}
