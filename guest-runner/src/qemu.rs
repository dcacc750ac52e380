//! The QEMU process: started once, watched, ended.
use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::Context as _;
use guest::{
    MachineSpec, Qmp, QmpError,
    argv::{FD_CDROM, FD_DISK, FD_KERNEL, FD_KVM, FD_NET},
    overlay::Base,
    process,
};
use tokio::{
    net::UnixStream,
    process::Child,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    files::BootFiles,
    tail::{self, Tail},
};

/// How long QEMU may take to answer on its monitor for the first time. It takes 0.1 s, on a starved machine some.
const MONITOR_LIMIT: Duration = Duration::from_secs(20);
const MONITOR_POLL: Duration = Duration::from_millis(10);
/// After QEMU's end its pipes close at once, unless somebody else holds them.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Qemu {
    child: Child,
    pid: u32,
    said: Tail,
    readers: Vec<JoinHandle<()>>,
}

impl Qemu {
    /// Starts the machine. The descriptors may be closed here afterwards.
    pub(crate) fn start(
        program: &Path,
        spec: &MachineSpec,
        serial_log: PathBuf,
        boot: &BootFiles,
        base: Option<&Base>,
        net: Option<&OwnedFd>,
        kvm: Option<&OwnedFd>,
    ) -> anyhow::Result<Self> {
        let mut fds: Vec<(BorrowedFd<'_>, RawFd)> = Vec::new();
        fds.extend(net.map(|fd| (fd.as_fd(), FD_NET)));
        fds.extend(kvm.map(|fd| (fd.as_fd(), FD_KVM)));
        match boot {
            BootFiles::Kernel { kernel, .. } => fds.push((kernel.as_fd(), FD_KERNEL)),
            BootFiles::Disks { cdrom, .. } => {
                fds.extend(base.map(|base| (base.file.as_fd(), FD_DISK)));
                fds.extend(cdrom.as_ref().map(|file| (file.as_fd(), FD_CDROM)));
            }
        }
        let mut child = process::spawn(program, &spec.argv(), &fds, true)
            .with_context(|| format!("could not start `{}`", program.display()))?;
        let pid = child.id().context("QEMU ended before it began")?;
        let said = Tail::default();
        let mut readers = Vec::new();
        if let Some(stream) = child.stderr.take() {
            readers.push(tokio::spawn(tail::errors(stream, said.clone())));
        }
        if let Some(stream) = child.stdout.take() {
            readers.push(tokio::spawn(tail::serial(stream, serial_log)));
        }
        Ok(Self { child, pid, said, readers })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the end. Cancel-safe.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    pub(crate) fn kill(&mut self) {
        if let Err(error) = self.child.start_kill() {
            tracing::warn!(pid = self.pid, %error, "could not kill QEMU");
        }
    }

    /// What it said last, after its end.
    pub(crate) async fn last_words(&mut self) -> String {
        for reader in self.readers.drain(..) {
            // Late: somebody else holds the pipe. What has been read so far must do.
            if timeout(LAST_WORDS_LIMIT, reader).await.is_err() {
                tracing::warn!("QEMU's output is still open after its end");
            }
        }
        self.said.text()
    }
}

/// Connects to a monitor of a QEMU that is just starting.
pub(crate) async fn monitor_up(socket: PathBuf) -> Result<Qmp<UnixStream>, QmpError> {
    let give_up_at = Instant::now() + MONITOR_LIMIT;
    loop {
        match Qmp::open(&socket).await {
            Err(QmpError::Connect { .. }) if Instant::now() < give_up_at => sleep(MONITOR_POLL).await,
            result => return result,
        }
    }
}
