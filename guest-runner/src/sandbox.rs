//! A system-call filter for this process and QEMU.
//!
//! A deny-list: QEMU loads modules by `dlopen`, starts threads and uses what the C library uses, so a list of all it
//! may do would break with each update of the distribution, and be widened until it means nothing. Denied is what
//! neither ever needs and what past escapes were made of: mounts, namespaces, other processes' memory, kernel code, keys,
//! clocks. A denied call fails with `EPERM`; it does not kill, so that a library that merely tries goes on. QEMU puts
//! its own, narrower filter on top (`-sandbox on`: no fork, no exec, no set-uid calls).
use std::collections::BTreeMap;

use anyhow::Context as _;
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Denied whatever the arguments are.
const DENIED: &[libc::c_long] = &[
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // Namespaces (with `clone` below).
    libc::SYS_setns,
    libc::SYS_unshare,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    // QEMU falls back to epoll and threads.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Keys, clocks, names.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
];

/// `clone` with any of these makes a namespace; threads and ordinary children have none of them.
const NEW_NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Puts the filter on; it holds for every thread and child made afterwards. Only before threads are started.
pub(crate) fn enter() -> anyhow::Result<()> {
    for program in programs()? {
        seccompiler::apply_filter(&program)
            .context("could not install the system-call filter; does the kernel have CONFIG_SECCOMP_FILTER?")?;
    }
    Ok(())
}

fn programs() -> anyhow::Result<[BpfProgram; 2]> {
    let mut denied: BTreeMap<i64, Vec<SeccompRule>> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    let mut namespaces = Vec::new();
    for flag in NEW_NAMESPACES {
        let flag = u64::from(flag.cast_unsigned());
        namespaces.push(SeccompRule::new(vec![SeccompCondition::new(
            0,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::MaskedEq(flag),
            flag,
        )?])?);
    }
    denied.insert(libc::SYS_clone, namespaces);
    // Pushing input into a terminal that somebody else reads.
    let push = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, libc::TIOCSTI)?;
    denied.insert(libc::SYS_ioctl, vec![SeccompRule::new(vec![push])?]);
    // The flags of `clone3` are in memory, where a filter cannot look; glibc takes `clone` when it is absent.
    let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok([filter(denied, libc::EPERM)?, filter(absent, libc::ENOSYS)?])
}

fn filter(calls: BTreeMap<i64, Vec<SeccompRule>>, errno: libc::c_int) -> anyhow::Result<BpfProgram> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().context("no system-call filter for this processor")?;
    let refused = SeccompAction::Errno(errno.cast_unsigned());
    Ok(SeccompFilter::new(calls, SeccompAction::Allow, refused, arch)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use nix::{errno::Errno, sched::CloneFlags, sched::unshare};

    use super::*;

    /// On a thread of its own: a filter holds for the thread that puts it on and cannot be taken off.
    #[test]
    fn refuses_what_it_lists_and_lets_threads_start() {
        std::thread::spawn(|| {
            enter().unwrap();
            assert_eq!(unshare(CloneFlags::CLONE_NEWUSER), Err(Errno::EPERM));
            assert_eq!(nix::unistd::chroot("/"), Err(Errno::EPERM));
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
            let status = std::process::Command::new("true").status().unwrap();
            assert!(status.success());
        })
        .join()
        .unwrap();
    }
}
