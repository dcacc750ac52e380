//! What is opened with the rights that the process was started with, before it gives them up.
use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    net::TcpListener,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown},
    path::Path,
};

use anyhow::{Context as _, ensure};
use guest::overlay::Base;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::config::{Config, Owner, Source};

/// Largest kernel that is taken, in bytes: it is copied into memory.
const KERNEL_BYTES_MAX: u64 = 256 << 20;

#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) health: TcpListener,
    pub(crate) boot: BootFiles,
}

#[derive(Debug)]
pub(crate) enum BootFiles {
    Kernel { kernel: File, append: Option<String> },
    Disks { disk: Option<Base>, cdrom: Option<File> },
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
        make_work_dir(config.work_dir.path(), config.owner)?;
        let health = TcpListener::bind(config.listen).with_context(|| {
            format!("could not listen on {}; choose another address or port with --listen", config.listen)
        })?;
        health.set_nonblocking(true)?;
        Ok(Self { health, boot })
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

/// The directory belongs to the guest's user alone: whoever can reach the monitor sockets owns the guest.
fn make_work_dir(dir: &Path, owner: Owner) -> anyhow::Result<()> {
    let failed = || format!("could not prepare the work directory `{}`; choose another with --work-dir", dir.display());
    fs::create_dir_all(dir).with_context(failed)?;
    // A container's volume may belong to another user and yet be writable.
    if let Owner::Other { uid, gid } = owner {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).with_context(failed)?;
        chown(dir, Some(uid.as_raw()), Some(gid.as_raw())).with_context(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
