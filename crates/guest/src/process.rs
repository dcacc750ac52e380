//! Starting QEMU with descriptors at fixed numbers.
//!
//! **Invariants.** The child has the descriptors it was given and no other of ours (all of ours are close-on-exec).
//! It has an empty environment but for `PATH`: no token can leak into it.
use std::{
    ffi::OsString,
    io,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
    process::Stdio,
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::{prctl, signal::Signal},
    unistd::{Pid, dup2_raw, getpid, getppid},
};
use tokio::process::{Child, Command};

/// First number that no descriptor of a child uses; sources are moved above it, so that placing one cannot overwrite
/// another that is still to be placed.
const ABOVE_TARGETS: RawFd = 32;

/// Starts `program`. Each descriptor of `fds` appears in it under the number beside it (3 to 31). Standard input is
/// empty, output and error are pipes; the caller must read them.
///
/// `dies_with_us`: the kernel kills the child when the thread that calls this ends. Only for threads that live as long
/// as the process.
pub fn spawn(
    program: &Path,
    args: &[OsString],
    fds: &[(BorrowedFd<'_>, RawFd)],
    dies_with_us: bool,
) -> io::Result<Child> {
    let mut placed: Vec<(OwnedFd, RawFd)> = Vec::with_capacity(fds.len());
    for (fd, target) in fds {
        assert!((3..ABOVE_TARGETS).contains(target), "descriptor numbers are constants of argv.rs");
        placed.push((moved_up(*fd)?, *target));
    }
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A Ctrl-C at our terminal is for us to handle; QEMU is ended in order.
        .process_group(0)
        .kill_on_drop(true);
    let parent = getpid();
    prepare(&mut command, placed, dies_with_us.then_some(parent));
    command.spawn()
}

#[expect(unsafe_code, reason = "placing descriptors and PR_SET_PDEATHSIG happen between fork and exec")]
fn prepare(command: &mut Command, placed: Vec<(OwnedFd, RawFd)>, dies_with: Option<Pid>) {
    let work = move || {
        if let Some(parent) = dies_with {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have ended before the line above.
            if getppid() != parent {
                return Err(io::Error::from(io::ErrorKind::BrokenPipe));
            }
        }
        for (source, target) in &placed {
            // SAFETY: `target` is a number that nothing in this fresh child owns; forgetting the result keeps it open
            // over exec, which is the purpose (dup2 clears close-on-exec).
            std::mem::forget(unsafe { dup2_raw(source, *target) }?);
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are made: prctl, getppid, dup2. Nothing allocates, no
    // lock is taken; the vector was made before the fork.
    unsafe { command.pre_exec(work) };
}

#[expect(unsafe_code, reason = "F_DUPFD_CLOEXEC returns a bare number")]
fn moved_up(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(ABOVE_TARGETS))?;
    // SAFETY: fcntl has just made it and nobody else has seen it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
