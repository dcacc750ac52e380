//! What must hold on this machine before anything is made: each refusal names the thing and the remedy.
use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use flags::UpFlags;
use nix::{sys::statvfs::statvfs, unistd::Uid};

use crate::{paths::Paths, siblings::Siblings};

const QEMU: &str = "qemu-system-x86_64";
const QEMU_OLDEST: u32 = 10;
const QEMU_REMEDY: &str = "on Debian bookworm with backports: `apt-get install -y --no-install-recommends -t bookworm-backports \
     qemu-system-x86 qemu-system-modules-opengl qemu-utils`, or let `cargo xtask setup` do it";
/// Logs, sockets and directories of a wall; overlays and logs grow later.
const ROOM: u64 = 16 << 20;
const ROOM_FOR_OVERLAYS: u64 = 256 << 20;

pub(crate) fn root() -> Result<()> {
    ensure!(Uid::effective().is_root(), "up makes network namespaces, so it needs root; run it as root or with sudo");
    Ok(())
}

pub(crate) fn check(flags: &UpFlags, paths: &Paths) -> Result<()> {
    ensure!(
        Path::new("/dev/net/tun").exists(),
        "/dev/net/tun is missing, so guests cannot be plugged in; load it: `modprobe tun`"
    );
    Siblings::find()?;
    qemu()?;
    port(flags.port)?;
    room(paths.run(), ROOM)?;
    if flags.disk.is_some() {
        room(flags.keep_disks.as_deref().unwrap_or(paths.disks()), ROOM_FOR_OVERLAYS)?;
    }
    Ok(())
}

fn port(port: u16) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_free) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            bail!("port {port} of 127.0.0.1 is in use; stop what listens there (`ss -ltnp`) or name another: --port N")
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen on 127.0.0.1:{port}; name another: --port N")),
    }
}

fn qemu() -> Result<()> {
    let output = |arg: &[&str]| Command::new(QEMU).args(arg).output();
    let version = match output(&["--version"]) {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => bail!("cannot run {QEMU} ({error}); {QEMU_REMEDY}"),
    };
    check_version(&version)?;
    let displays = output(&["-display", "help"])?;
    ensure!(
        String::from_utf8_lossy(&displays.stdout).lines().any(|line| line.trim() == "dbus"),
        "{QEMU} has no D-Bus display; {QEMU_REMEDY}"
    );
    Ok(())
}

fn check_version(text: &str) -> Result<()> {
    let first = text.lines().next().unwrap_or_default();
    match version(first) {
        Some(major) if major >= QEMU_OLDEST => Ok(()),
        Some(major) => bail!("{QEMU} is version {major}, and {QEMU_OLDEST} is needed; {QEMU_REMEDY}"),
        None => bail!("{QEMU} does not say its version (`{first}`); {QEMU_REMEDY}"),
    }
}

/// Major version from `QEMU emulator version 10.0.2 (…)`.
fn version(line: &str) -> Option<u32> {
    line.strip_prefix("QEMU emulator version ")?.split(['.', ' ']).next()?.parse().ok()
}

/// Free bytes where `dir` is or will be.
fn room(dir: &Path, need: u64) -> Result<()> {
    let there = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let stat = statvfs(there).with_context(|| format!("cannot look at {}", there.display()))?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    ensure!(
        free >= need,
        "{} has {} MiB free and {} MiB are needed; free some space there",
        there.display(),
        free >> 20,
        need >> 20
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_must_be_ten_or_newer() {
        check_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2)\nCopyright").unwrap();
        check_version("QEMU emulator version 11.1").unwrap();
        let refuses = |text: &str, want: &str| {
            let error = check_version(text).unwrap_err().to_string();
            assert!(error.contains(want) && error.contains("bookworm-backports"), "{error}");
        };
        refuses("QEMU emulator version 7.2.9 (Debian)", "is version 7, and 10 is needed");
        refuses("", "does not say its version");
    }

    #[test]
    fn a_port_in_use_is_named_with_the_remedy() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let number = held.local_addr().unwrap().port();
        let error = port(number).unwrap_err().to_string();
        assert!(
            error.contains(&format!("port {number} of 127.0.0.1 is in use")) && error.contains("--port"),
            "{error}"
        );
        // Any free one; the one just held may be another test's by now.
        port(0).unwrap();
    }

    #[test]
    fn no_room_is_named_with_the_path() {
        room(Path::new("/nonexistent/loco"), 0).unwrap();
        let error = room(Path::new("/proc/nonexistent"), 1 << 20).unwrap_err().to_string();
        assert!(error.starts_with("/proc has 0 MiB free and 1 MiB are needed"), "{error}");
    }
}
