//! QEMUs without a machine: each joins a unix socket to one netdev by a hub, so that only the netdev differs.
use std::{
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use testkit::NetNs;

pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// Killed when they go out of scope: QEMUs, and what they are plugged into.
#[derive(Default)]
pub(crate) struct Qemus {
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

pub(crate) struct Scratch(pub(crate) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

impl Qemus {
    /// Starts one in the namespace; `netdev` is what is measured. Gives the bench's end.
    pub(crate) fn start(
        &mut self,
        netns: &NetNs,
        scratch: &Path,
        name: &str,
        netdev: &str,
        fd: Option<&OwnedFd>,
    ) -> anyhow::Result<UnixDatagram> {
        if let Some(fd) = fd {
            // QEMU inherits it under the same number.
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
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
        if let Some(fd) = fd {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        Ok(socket)
    }

    /// A switch of VDE in the namespace, at the directory `sock`.
    pub(crate) fn vde_switch(&mut self, netns: &NetNs, sock: &Path) -> anyhow::Result<()> {
        let mut command = Command::new("vde_switch");
        command.arg("-sock").arg(sock).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.children.push(
            netns.run(|| command.spawn())?.context("start vde_switch; `cargo xtask setup --for bench` installs it")?,
        );
        let deadline = Instant::now() + Duration::from_secs(10);
        while !sock.join("ctl").exists() {
            if Instant::now() > deadline {
                bail!("vde_switch did not open {}", sock.display());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

pub(crate) fn tap_netdev(tap: &OwnedFd) -> String {
    format!("tap,id=x,fd={}", tap.as_raw_fd())
}

/// As the runner plugs a guest of mode `socket` in.
pub(crate) fn cable_netdev(cable: &OwnedFd) -> String {
    format!("dgram,id=x,local.type=fd,local.str={}", cable.as_raw_fd())
}
