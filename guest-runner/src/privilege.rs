//! From root to nobody, for good.
//!
//! **Invariants.** After [`drop_to`] there is no supplementary group, no capability in any set (the bounding set too),
//! and no way to get one back (no new privileges). Each step is checked by reading it back: a step that the kernel
//! ignored is an error, never a guest with rights.
use std::fs;

use anyhow::{Context as _, ensure};
use nix::{
    errno::Errno,
    libc,
    sys::prctl,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

use crate::config::Owner;

pub(crate) fn drop_to(owner: Owner) -> anyhow::Result<()> {
    if let Owner::Other { uid, gid } = owner {
        become_user(uid, gid).with_context(|| format!("could not become user {uid}, group {gid}"))?;
    }
    clear_capabilities().context("could not give up capabilities")?;
    prctl::set_no_new_privs().context("could not forbid new privileges")?;
    let status = fs::read_to_string("/proc/self/status").context("could not read /proc/self/status")?;
    check(&status, matches!(owner, Owner::Other { .. }))
}

fn become_user(uid: Uid, gid: Gid) -> anyhow::Result<()> {
    setgroups(&[])?;
    // The bounding set goes while CAP_SETPCAP is still there.
    for capability in 0.. {
        match drop_bound(capability) {
            Ok(()) => {}
            // Beyond the last capability of this kernel.
            Err(Errno::EINVAL) => break,
            Err(error) => {
                return Err(error).context(format!("could not drop capability {capability} from the bounding set"));
            }
        }
    }
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok(())
}

#[expect(unsafe_code, reason = "nix has no call for the bounding set")]
fn drop_bound(capability: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory.
    Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }).map(drop)
}

/// capset(2) with nothing in it, and no ambient capabilities (which capset clears as they must be permitted).
#[expect(unsafe_code, reason = "nix has no capset")]
fn clear_capabilities() -> Result<(), Errno> {
    /// linux/capability.h, `_LINUX_CAPABILITY_VERSION_3`: two words for each set.
    const VERSION_3: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [0u32; 6];
    // SAFETY: the kernel reads one header and, for version 3, two structs of three words; both live across the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) }).map(drop)
}

/// What the kernel says must be what was asked for. `dropped`: this process was root and gave up groups and bounding set;
/// one that never was root has those that it was given.
fn check(status: &str, dropped: bool) -> anyhow::Result<()> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let bounding: &[&str] = if dropped { &["CapBnd"] } else { &[] };
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"].iter().chain(bounding) {
        let value = field(set).with_context(|| format!("the kernel reports no {set}"))?;
        ensure!(value.bytes().all(|digit| digit == b'0'), "{set} is {value}, not empty");
    }
    let groups = field("Groups").unwrap_or_default();
    ensure!(!dropped || groups.is_empty(), "supplementary groups are left: {groups}");
    ensure!(field("NoNewPrivs") == Some("1"), "no_new_privs did not hold");
    let root = |name| field(name).is_some_and(|ids| ids.split_whitespace().any(|id| id == "0"));
    ensure!(!root("Uid") && !root("Gid"), "user or group is still root");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Name:\tguest-runner\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nGroups:\t\n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t0\n";

    #[test]
    fn any_right_that_is_left_is_noticed() {
        check(GOOD, true).unwrap();
        for (good, bad, want) in [
            ("CapEff:\t0000000000000000", "CapEff:\t0000000000001000", "CapEff is 0000000000001000"),
            ("CapInh:\t0000000000000000", "CapInh:\t0000000000000001", "CapInh"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "no_new_privs"),
            ("Uid:\t1000\t1000\t1000", "Uid:\t1000\t1000\t0", "still root"),
            ("CapAmb", "CapXyz", "the kernel reports no CapAmb"),
            ("CapBnd:\t0000000000000000", "CapBnd:\t000001ffffffffff", "CapBnd"),
            ("Groups:\t", "Groups:\t0 27", "supplementary groups are left: 0 27"),
        ] {
            let error = check(&GOOD.replace(good, bad), true).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
