//! Which QEMU is installed, and whether it is new enough.
use std::{fmt, io, path::PathBuf, process::Stdio, time::Duration};

use tokio::process::Command;

/// The system emulator's name; found by `PATH`.
pub const QEMU_SYSTEM: &str = "qemu-system-x86_64";
/// The oldest QEMU that was tried: its D-Bus display has `ScanoutMap` over `p2p`.
pub const OLDEST: QemuVersion = QemuVersion { major: 10, minor: 0 };
/// What to type on Debian bookworm, whose own QEMU is 7.2.
pub const REMEDY: &str = "apt-get install -t bookworm-backports qemu-system-x86 qemu-system-modules-opengl qemu-utils";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QemuVersion {
    pub major: u32,
    pub minor: u32,
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    #[error("`{program}` is not in PATH; {REMEDY}")]
    Missing { program: &'static str },
    #[error("could not ask `{}` for its version", program.display())]
    Run {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{} --version` says `{said}`, which names no version; {REMEDY}", program.display())]
    Unreadable { program: PathBuf, said: String },
    #[error("`{}` is QEMU {found}, too old: {OLDEST} or newer is needed; {REMEDY}", program.display())]
    TooOld { program: PathBuf, found: QemuVersion },
}

/// Finds a program as the shell would.
pub fn find(program: &'static str) -> Result<PathBuf, VersionError> {
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .map(|dir| dir.join(program))
        .find(|path| nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file())
        .ok_or(VersionError::Missing { program })
}

/// The installed emulator's path, checked to be [`OLDEST`] or newer.
pub async fn qemu() -> Result<(PathBuf, QemuVersion), VersionError> {
    let program = find(QEMU_SYSTEM)?;
    let mut command = Command::new(&program);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let run = |source| VersionError::Run { program: program.clone(), source };
    let output = tokio::time::timeout(Duration::from_secs(10), command.output())
        .await
        .map_err(|_| run(io::Error::from(io::ErrorKind::TimedOut)))?
        .map_err(run)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let found = parse(&said).ok_or_else(|| VersionError::Unreadable {
        program: program.clone(),
        said: said.lines().next().unwrap_or_default().chars().take(80).collect(),
    })?;
    if found < OLDEST { Err(VersionError::TooOld { program, found }) } else { Ok((program, found)) }
}

/// `QEMU emulator version 10.0.2 (Debian …)`.
fn parse(said: &str) -> Option<QemuVersion> {
    let mut parts = said.split_once("version ")?.1.split(|c: char| !c.is_ascii_digit());
    Some(QemuVersion { major: parts.next()?.parse().ok()?, minor: parts.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        let version = |said| parse(said).map(|v| v.to_string());
        assert_eq!(version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\n"), Some("10.0".into()));
        assert_eq!(version("QEMU emulator version 7.2.17"), Some("7.2".into()));
        assert!(parse("QEMU emulator version 7.2.17").unwrap() < OLDEST);
        assert!(parse("QEMU emulator version 10.1.0-rc1").unwrap() > OLDEST);
        for other in ["", "version", "version x.y", "QEMU 10"] {
            assert_eq!(version(other), None, "{other}");
        }
    }
}
