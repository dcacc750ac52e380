//! A disk of one instance: a private qcow2 layer over a base that many share and nobody writes.
//!
//! **Invariants.** The base is opened read-only, once, by whoever may; everything after works on that descriptor, so an
//! unprivileged QEMU can use a file that only root may open, and the file that was checked is the file that is used. An
//! overlay appears under its name only as a whole, and outlives a power cut from then on. Which overlay is used, and when a
//! new one is made, is decided in [`crate::storage`].
use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::fd::{AsFd as _, BorrowedFd, RawFd},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
};
use serde::Deserialize;

use crate::{
    argv::FD_DISK,
    process,
    version::{self, VersionError},
};

const QEMU_IMG: &str = "qemu-img";
/// Creating an overlay writes some 200 KB; a slow disk may take seconds, more is a fault.
const LIMIT: Duration = Duration::from_secs(30);
const SECTOR_BYTES: usize = 512;

/// Formats that QEMU is told to read. Never guessed by QEMU: a guest that writes a qcow2 header into its raw disk could
/// then name any file of the host as its backing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    Raw,
    Qcow2,
    Vmdk,
    Vdi,
    Vpc,
    Vhdx,
}

impl DiskFormat {
    /// QEMU's name of the driver.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Vpc => "vpc",
            Self::Vhdx => "vhdx",
        }
    }

    /// By the first and last sector and the length in bytes. Raw needs a sign that it is a disk: a boot sector's mark, or
    /// an empty first sector (a disk to be installed on).
    fn detect(first: &[u8; SECTOR_BYTES], last: &[u8; SECTOR_BYTES], bytes: u64) -> Option<Self> {
        if first.starts_with(b"QFI\xfb") {
            return Some(Self::Qcow2);
        }
        if first.starts_with(b"KDMV") || first.starts_with(b"COWD") {
            return Some(Self::Vmdk);
        }
        if first[0x40..0x44] == [0x7f, 0x10, 0xda, 0xbe] {
            return Some(Self::Vdi);
        }
        if first.starts_with(b"vhdxfile") {
            return Some(Self::Vhdx);
        }
        if first.starts_with(b"conectix") || last.starts_with(b"conectix") {
            return Some(Self::Vpc);
        }
        let whole_sectors = bytes > 0 && bytes.is_multiple_of(SECTOR_BYTES as u64);
        let disk = first.ends_with(&[0x55, 0xaa]) || first.iter().all(|byte| *byte == 0);
        (whole_sectors && disk).then_some(Self::Raw)
    }
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    #[error("there is no disk image `{}`; check --disk", path.display())]
    Missing { path: PathBuf },
    #[error("could not read disk image `{}`; it must be a file that this user may read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is not a disk image that is known here (qcow2, vmdk, vdi, vpc, vhdx, or raw with a boot sector); \
             convert it with `qemu-img convert -O qcow2`", path.display())]
    UnknownFormat { path: PathBuf },
    #[error("could not run qemu-img")]
    Tool(#[from] VersionError),
    #[error("could not start `{}`", program.display())]
    Start {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the disk that holds `{}` is full; free some space there or choose another place", path.display())]
    DiskFull { path: PathBuf },
    #[error("qemu-img could not {doing} `{}`: {said}", path.display())]
    Refused { doing: &'static str, path: PathBuf, said: String },
    #[error("qemu-img did not {doing} `{}` within {LIMIT:?}", path.display())]
    Timeout { doing: &'static str, path: PathBuf },
    #[error("overlay `{}` is damaged and was left alone; try `qemu-img check -r all` on it with the instance stopped, or \
             reset the instance to start anew from its base", path.display())]
    Damaged { path: PathBuf },
    #[error("disk image `{}` is itself an overlay over another file; make it whole with \
             `qemu-img convert -O qcow2 {} whole.qcow2` and use that", path.display(), path.display())]
    Chained { path: PathBuf },
}

impl OverlayError {
    /// What went wrong with a file, and a full disk by its name.
    pub(crate) fn io(doing: &'static str, path: &Path, source: &io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.to_owned() },
            _ => Self::Refused { doing, path: path.to_owned(), said: source.to_string() },
        }
    }
}

/// A base disk, open for reading.
#[derive(Debug)]
pub struct Base {
    pub file: File,
    pub format: DiskFormat,
    /// Its file system takes shared locks; see [`crate::argv::HardDisk::lock_base`].
    pub lockable: bool,
    path: PathBuf,
}

impl Base {
    /// Opens and recognises an image. The path is made absolute: overlays name it.
    pub fn open(path: &Path) -> Result<Self, OverlayError> {
        let unreadable = |source| OverlayError::Unreadable { path: path.to_owned(), source };
        let absolute = path.canonicalize().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => OverlayError::Missing { path: path.to_owned() },
            _ => unreadable(source),
        })?;
        let mut file = OpenOptions::new().read(true).open(&absolute).map_err(unreadable)?;
        let (first, last, bytes) = sectors(&mut file).map_err(unreadable)?;
        let format = DiskFormat::detect(&first, &last, bytes)
            .ok_or_else(|| OverlayError::UnknownFormat { path: absolute.clone() })?;
        // docs/interop/qcow2.rst: bytes 8 to 15 are the place of the backing file's name. QEMU would follow it.
        if format == DiskFormat::Qcow2 && first[8..16].iter().any(|byte| *byte != 0) {
            return Err(OverlayError::Chained { path: absolute });
        }
        let lockable = takes_locks(&file);
        Ok(Self { file, format, lockable, path: absolute })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the guest sees, in bytes.
    async fn virtual_bytes(&mut self) -> Result<u64, OverlayError> {
        let unreadable = |source| OverlayError::Unreadable { path: self.path.clone(), source };
        let (first, _, bytes) = sectors(&mut self.file).map_err(unreadable)?;
        match self.format {
            DiskFormat::Raw => Ok(bytes),
            // docs/interop/qcow2.rst: bytes 24 to 31, big-endian.
            DiskFormat::Qcow2 => {
                Ok(u64::from_be_bytes(*first[24..].first_chunk().expect("a sector has more than 32 bytes")))
            }
            // The others keep it in places of their own. `/proc/self/fd` asks for the file's own permission again.
            _ => {
                let name = format!("/proc/self/fd/{FD_DISK}");
                let fds = [(self.file.as_fd(), FD_DISK)];
                Ok(info(&self.path, name.as_ref(), self.format, &fds).await?.virtual_size)
            }
        }
    }
}

/// Whether QEMU's shared lock on a base can be had: some network file systems have none, and QEMU would not start.
fn takes_locks(file: &File) -> bool {
    let lock = |kind: libc::c_int| {
        let range = libc::flock {
            l_type: libc::c_short::try_from(kind).expect("F_RDLCK and F_UNLCK are 0 and 2"),
            l_whence: libc::c_short::try_from(libc::SEEK_SET).expect("SEEK_SET is 0"),
            // Beyond QEMU's own bytes (100 to 299): nobody is disturbed.
            l_start: 400,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(file, FcntlArg::F_OFD_SETLK(&range))
    };
    let taken = lock(libc::F_RDLCK).is_ok();
    if taken && let Err(error) = lock(libc::F_UNLCK) {
        tracing::debug!(%error, "a lock on the base is kept until it is closed");
    }
    taken
}

fn sectors(file: &mut File) -> io::Result<([u8; SECTOR_BYTES], [u8; SECTOR_BYTES], u64)> {
    let (mut first, mut last) = ([0; SECTOR_BYTES], [0; SECTOR_BYTES]);
    let bytes = file.seek(SeekFrom::End(0))?;
    if bytes >= SECTOR_BYTES as u64 {
        file.seek(SeekFrom::Start(bytes - SECTOR_BYTES as u64))?;
        file.read_exact(&mut last)?;
    }
    file.seek(SeekFrom::Start(0))?;
    let mut filled = 0;
    while filled < SECTOR_BYTES {
        match file.read(&mut first[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok((first, last, bytes))
}

/// Makes an empty overlay. It is on the disk when this returns, under its name only as a whole.
pub async fn create(base: &mut Base, overlay: &Path) -> Result<(), OverlayError> {
    let size = base.virtual_bytes().await?.to_string();
    // Made under another name first: half an overlay must not be adopted by the next start.
    let half = overlay.with_extension("new");
    // `-u`: qemu-img must not open the base, which this user may be unable to; its size has just been read.
    let mut args: Vec<OsString> =
        ["create", "-q", "-u", "-f", "qcow2", "-F", base.format.as_str(), "-b"].map(Into::into).into();
    args.extend([base.path.clone().into(), half.as_os_str().to_owned(), size.into()]);
    run(&args, &[], "create", overlay).await?;
    put_in_place(&half, overlay).map_err(|source| OverlayError::io("create", overlay, &source))
}

/// Gives a finished file its name so that a power cut leaves either the old state or the new one.
pub(crate) fn put_in_place(half: &Path, whole: &Path) -> io::Result<()> {
    File::open(half)?.sync_all()?;
    std::fs::rename(half, whole)?;
    sync_dir(whole)
}

/// Makes names in the directory of `file` outlive a power cut.
pub(crate) fn sync_dir(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// The path of the base that an overlay's header names, after a check that it can be used at all.
pub async fn base_of(overlay: &Path) -> Result<String, OverlayError> {
    let found = info(overlay, overlay.as_os_str(), DiskFormat::Qcow2, &[]).await?;
    if found.specific.is_some_and(|specific| specific.data.corrupt) {
        return Err(OverlayError::Damaged { path: overlay.to_owned() });
    }
    Ok(found.backing_filename.unwrap_or_default())
}

/// The part of `qemu-img info --output=json` that is used.
#[derive(Deserialize)]
struct Info {
    #[serde(rename = "virtual-size")]
    virtual_size: u64,
    #[serde(rename = "backing-filename")]
    backing_filename: Option<String>,
    #[serde(rename = "format-specific")]
    specific: Option<Specific>,
}

#[derive(Deserialize)]
struct Specific {
    #[serde(default)]
    data: SpecificData,
}

#[derive(Default, Deserialize)]
struct SpecificData {
    /// QEMU itself found the image inconsistent and opens it no more for writing.
    #[serde(default)]
    corrupt: bool,
}

async fn info(
    path: &Path,
    name: &OsStr,
    format: DiskFormat,
    fds: &[(BorrowedFd<'_>, RawFd)],
) -> Result<Info, OverlayError> {
    // `-U`: another QEMU may have the file open too.
    let mut args: Vec<OsString> = ["info", "-U", "--output=json", "-f", format.as_str()].map(Into::into).into();
    args.push(name.to_owned());
    let output = run(&args, fds, "read", path).await?;
    serde_json::from_slice(&output).map_err(|error| OverlayError::Refused {
        doing: "read",
        path: path.to_owned(),
        said: error.to_string(),
    })
}

/// Runs qemu-img to its end and gives its output.
async fn run(
    args: &[OsString],
    fds: &[(BorrowedFd<'_>, RawFd)],
    doing: &'static str,
    path: &Path,
) -> Result<Vec<u8>, OverlayError> {
    let program = version::find(QEMU_IMG)?;
    let start = |source| OverlayError::Start { program: program.clone(), source };
    let child = process::spawn(&program, args, fds, false).map_err(start)?;
    let output = tokio::time::timeout(LIMIT, child.wait_with_output())
        .await
        .map_err(|_| OverlayError::Timeout { doing, path: path.to_owned() })?
        .map_err(start)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(refusal(doing, path, &String::from_utf8_lossy(&output.stderr)))
}

fn refusal(doing: &'static str, path: &Path, said: &str) -> OverlayError {
    if said.contains("No space left on device") || said.contains("Disk quota exceeded") {
        return OverlayError::DiskFull { path: path.to_owned() };
    }
    OverlayError::Refused { doing, path: path.to_owned(), said: said.trim().chars().take(400).collect() }
}

#[cfg(test)]
mod tests;
