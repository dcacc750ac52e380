//! What is opened with the rights that the process was started with, before it gives them up.
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Seek as _, Write as _},
    net::TcpListener,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use guest::{argv::WorkDir, overlay::Base, storage::Wanted};
use nix::{
    sys::memfd::{MFdFlags, memfd_create},
    unistd::{Gid, Uid},
};

use crate::config::{Config, Owner, Source};

/// Largest kernel that is taken, in bytes: it is copied into memory.
const KERNEL_BYTES_MAX: u64 = 256 << 20;

#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) health: TcpListener,
    pub(crate) boot: BootFiles,
    pub(crate) run_dir: WorkDir,
}

#[derive(Debug)]
pub(crate) enum BootFiles {
    Kernel {
        kernel: File,
        append: Option<String>,
    },
    /// The disk is taken from here by the storage, which finds its overlay.
    Disks {
        disk: Option<Base>,
        cdrom: Option<File>,
    },
}

impl Files {
    pub(crate) fn open(config: &Config) -> anyhow::Result<Self> {
        let boot = match &config.source {
            Source::Kernel { kernel, append } => {
                BootFiles::Kernel { kernel: in_memory(kernel)?, append: append.clone() }
            }
            Source::Disks { disk, cdrom } => BootFiles::Disks {
                disk: disk.as_deref().map(Base::open).transpose()?,
                cdrom: cdrom.as_deref().map(|path| open(path, "CD image", "--cdrom")).transpose()?,
            },
        };
        let run_dir = make_dirs(config)?;
        let health = TcpListener::bind(config.listen).with_context(|| {
            format!("could not listen on {}; choose another address or port with --listen", config.listen)
        })?;
        health.set_nonblocking(true)?;
        Ok(Self { health, boot, run_dir })
    }
}

fn open(path: &Path, what: &str, flag: &str) -> anyhow::Result<File> {
    let file =
        File::open(path).with_context(|| format!("could not open the {what} `{}`; check {flag}", path.display()))?;
    let kind = file.metadata()?.file_type();
    ensure!(
        kind.is_file() || kind.is_block_device(),
        "the {what} `{}` is neither a file nor a block device; check {flag}",
        path.display()
    );
    Ok(file)
}

/// A copy of the kernel that QEMU can open by `/proc/self/fd` as whoever it is: such an opening asks for the file's own
/// permission again, and the original may be root's alone.
fn in_memory(path: &Path) -> anyhow::Result<File> {
    let mut source = open(path, "kernel", "--kernel")?.take(KERNEL_BYTES_MAX + 1);
    let mut copy = || -> io::Result<(u64, File)> {
        let mut memory = File::from(memfd_create(c"loco-kernel", MFdFlags::MFD_CLOEXEC)?);
        let bytes = io::copy(&mut source, &mut memory)?;
        memory.flush()?;
        memory.rewind()?;
        Ok((bytes, memory))
    };
    let (bytes, memory) = copy().with_context(|| format!("could not read the kernel `{}`", path.display()))?;
    ensure!(bytes > 0, "the kernel `{}` is empty; build it again", path.display());
    ensure!(bytes <= KERNEL_BYTES_MAX, "the kernel `{}` has more than {} MiB", path.display(), KERNEL_BYTES_MAX >> 20);
    Ok(memory)
}

/// Makes what needs our rights, and gives the directory of the sockets.
fn make_dirs(config: &Config) -> anyhow::Result<WorkDir> {
    let Wanted { primary, fallback, .. } = &config.storage;
    let run_dir = config.run_dir.as_ref();
    if let Owner::Other { uid, gid } = config.owner {
        let made = give_dir(primary, uid, gid).with_context(|| not_prepared(primary, "--work-dir"));
        if let (Err(error), Some(_)) = (&made, fallback) {
            tracing::warn!("{error:#}");
        } else {
            made?;
        }
        for (dir, flag) in
            fallback.iter().map(|dir| (dir, "--fallback-dir")).chain(run_dir.map(|dir| (dir, "--run-dir")))
        {
            give_dir(dir, uid, gid).with_context(|| not_prepared(dir, flag))?;
        }
        return Ok(WorkDir::new(run_dir.unwrap_or(primary))?);
    }
    // As whoever we are: places for the disk are made when they are looked at, with a limit of time.
    let dir = match run_dir {
        Some(dir) => {
            fs::create_dir_all(dir).with_context(|| not_prepared(dir, "--run-dir"))?;
            dir.clone()
        }
        // With a fallback, nothing but the disk may depend on the primary.
        None if fallback.is_none() && holds_sockets(primary) => primary.clone(),
        None => own_dir(&std::env::temp_dir().join(format!("loco-{}", config.instance)))?,
    };
    Ok(WorkDir::new(&dir)?)
}

fn not_prepared(dir: &Path, flag: &str) -> String {
    format!("could not prepare the directory `{}`; choose another with {flag}", dir.display())
}

/// The directory belongs to the guest's user alone: whoever can reach the monitor sockets owns the guest.
fn give_dir(dir: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    chown(dir, Some(uid.as_raw()), Some(gid.as_raw()))
}

/// Some file systems have no sockets, and some volumes are for reading.
fn holds_sockets(dir: &Path) -> bool {
    let probe = dir.join("qmp-probe.sock");
    let remove = || fs::remove_file(&probe);
    let outcome = fs::create_dir_all(dir).and_then(|()| {
        match remove() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        UnixListener::bind(&probe).and_then(|_| remove())
    });
    if let Err(error) = &outcome {
        tracing::info!(dir = %dir.display(), %error, "no sockets can be made here; they go to /tmp");
    }
    outcome.is_ok()
}

/// A directory where others may have been before us: ours alone, or it is not used.
fn own_dir(dir: &Path) -> anyhow::Result<PathBuf> {
    let failed = || not_prepared(dir, "--run-dir");
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error).with_context(failed),
        _ => {}
    }
    let metadata = fs::symlink_metadata(dir).with_context(failed)?;
    let ours = metadata.is_dir() && metadata.uid() == Uid::effective().as_raw() && metadata.mode() & 0o022 == 0;
    ensure!(ours, "the directory `{}` is not ours alone; remove it, or choose another with --run-dir", dir.display());
    Ok(dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_go_where_they_can_be_made_and_nobody_else_is() {
        let dir = std::env::temp_dir().join(format!("loco-runner-{}-sockets", std::process::id()));
        assert!(holds_sockets(&dir) && fs::read_dir(&dir).unwrap().next().is_none());
        assert!(!holds_sockets(Path::new("/proc/self")));
        fs::remove_dir(&dir).unwrap();
        assert_eq!(own_dir(&dir).unwrap(), dir);
        assert_eq!(own_dir(&dir).unwrap(), dir, "after a restart of the container");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(own_dir(&dir).unwrap_err().to_string().contains("is not ours alone; remove it"));
        fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let message = |path: &str| format!("{:#}", in_memory(Path::new(path)).unwrap_err());
        assert!(message("/nowhere/kernel").starts_with("could not open the kernel `/nowhere/kernel`; check --kernel"));
        assert!(message("/tmp").contains("is neither a file nor a block device"));
        let empty = std::env::temp_dir().join(format!("loco-runner-{}-empty", std::process::id()));
        File::create(&empty).unwrap();
        assert!(message(empty.to_str().unwrap()).contains("is empty"));
        fs::write(&empty, "elf").unwrap();
        let mut text = String::new();
        in_memory(&empty).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "elf");
        fs::remove_file(empty).unwrap();
    }
}
