//! Proof that `/dev/kvm` runs guests here, by running one.
//!
//! That the device exists proves nothing: in some virtual machines KVM opens, makes a machine, and the first guest dies
//! with an internal error or takes QEMU down (seen with `kvm-pvm`). So the demo kernel is booted with `probe=1`: it
//! writes one value to QEMU's debug-exit port, and only that value, in time, counts. Anything else means TCG.
use std::{
    ffi::OsString,
    fmt,
    fs::{File, OpenOptions},
    io,
    os::fd::AsFd as _,
    path::Path,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    argv::{FD_KERNEL, FD_KVM},
    process, version,
};

/// How long the proof may take. Under KVM the kernel is up in 0.1 s.
pub const PROBE_LIMIT: Duration = Duration::from_secs(3);
/// What the probed kernel writes to port 0xf4.
pub const PROBE_VALUE: u8 = 0x10;
/// `isa-debug-exit` ends QEMU with twice the value plus one: never a status of QEMU's own.
const PROBE_STATUS: i32 = (PROBE_VALUE as i32) * 2 + 1;

/// Whether guests may be given KVM on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A guest ran, within this time.
    Proven { took: Duration },
    /// Not used, and why: one line for the log.
    NotProven { reason: String },
}

impl Proof {
    pub const fn is_proven(&self) -> bool {
        matches!(self, Self::Proven { .. })
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proven { took } => write!(f, "KVM ran a guest within {took:.1?}"),
            Self::NotProven { reason } => write!(f, "KVM is not used: {reason}"),
        }
    }
}

/// Opens `/dev/kvm` as guests are given it.
pub fn open_kvm() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/kvm")
}

/// Boots `kernel` under KVM. Never fails: whatever goes wrong is the reason for no proof. Leaves no process.
pub async fn prove_kvm(kernel: &Path) -> Proof {
    match probe(kernel).await {
        Ok(took) => Proof::Proven { took },
        Err(reason) => Proof::NotProven { reason },
    }
}

async fn probe(kernel: &Path) -> Result<Duration, String> {
    let kvm = open_kvm().map_err(|error| format!("/dev/kvm does not open: {error}"))?;
    let kernel_file = File::open(kernel).map_err(|error| format!("`{}` does not open: {error}", kernel.display()))?;
    let (qemu, _) = version::qemu().await.map_err(|error| error.to_string())?;
    let started = Instant::now();
    let fds = [(kvm.as_fd(), FD_KVM), (kernel_file.as_fd(), FD_KERNEL)];
    let child = process::spawn(&qemu, &argv(), &fds, false).map_err(|error| format!("QEMU does not start: {error}"))?;
    // Dropping the future at the limit drops the child, which kills it.
    let output = tokio::time::timeout(PROBE_LIMIT, child.wait_with_output())
        .await
        .map_err(|_| format!("the guest did not report within {PROBE_LIMIT:?}"))?
        .map_err(|error| format!("QEMU was lost: {error}"))?;
    if output.status.code() == Some(PROBE_STATUS) {
        return Ok(started.elapsed());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or("nothing").chars().take(200).collect::<String>();
    Err(format!("the guest did not run: QEMU ended with {}, and said: {said}", output.status))
}

fn argv() -> Vec<OsString> {
    let kvm = format!("fd={FD_KVM},set=2");
    let kernel = format!("/proc/self/fd/{FD_KERNEL}");
    let words = [
        "-name",
        "process=loco-kvm-probe",
        "-nodefaults",
        "-no-user-config",
        "-machine",
        "pc",
        "-m",
        "24",
        "-display",
        "none",
        "-add-fd",
        &kvm,
        "-accel",
        "kvm,device=/dev/fdset/2",
        "-device",
        "isa-debug-exit,iobase=0xf4,iosize=4",
        "-kernel",
        &kernel,
        "-append",
        "probe=1",
        // A guest that dies at once must not be started again and again until the limit.
        "-no-reboot",
    ];
    words.map(OsString::from).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs on every machine: without `/dev/kvm`, without a right to it, and with one that cannot run a guest alike.
    #[tokio::test]
    async fn what_is_no_kernel_is_no_proof() {
        let started = Instant::now();
        for kernel in ["/dev/null", "/nowhere"] {
            let proof = prove_kvm(Path::new(kernel)).await;
            let Proof::NotProven { reason } = proof else { panic!("{proof}") };
            assert!(!reason.is_empty());
        }
        assert!(started.elapsed() < PROBE_LIMIT * 2);
    }
}
