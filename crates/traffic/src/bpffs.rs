//! Where maps and links are pinned, so that they outlive this process: a BPF file system of our own, below the agent's
//! run directory. It goes with [`uninstall`], and with it all that was attached.
//!
//! ```text
//! RUN_DIR/bpf/            mount, source "loco"
//!   v2/                   layout of the maps
//!     PORTS PAIRS LOST EVENTS
//!     links/port_instance-3_7_in    instance, number of the device, direction
//! ```
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::MapInfo;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::{TrafficError, abi};

/// Source of the mount, as `/proc/mounts` shows it.
const SOURCE: &str = "loco";

/// Name, bytes of a key, bytes of a value, rows: what a pinned map must be to be taken over.
const SHAPES: [(&str, usize, usize, u32); 6] = [
    ("PORTS", size_of::<abi::PortKey>(), size_of::<abi::PortRow>(), abi::PORTS_MAX),
    ("PAIRS", size_of::<abi::PairKey>(), size_of::<abi::Count>(), abi::PAIRS_MAX),
    ("LOST", 4, 8, abi::Loss::COUNT),
    ("GUARDS", 4, size_of::<abi::GuardRow>(), abi::GUARDS_MAX),
    ("REFUSED", 4, 8 * abi::REFUSALS_MAX, abi::GUARDS_MAX),
    ("EVENTS", 0, 0, abi::EVENTS_BYTES),
];

/// The folders of this layout.
#[derive(Debug, Clone)]
pub(crate) struct Pins {
    root: PathBuf,
    maps: PathBuf,
    links: PathBuf,
}

fn is_mounted(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC)
}

impl Pins {
    /// Finds or mounts the file system at `root`. Maps of another shape under the same version are thrown away: they
    /// cannot be ours.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        ensure(root)?;
        let maps = root.join(format!("v{}", abi::LAYOUT));
        let pins = Self { root: root.to_owned(), links: maps.join("links"), maps };
        if let Some(name) = pins.first_misshapen() {
            tracing::warn!(map = name, pins = %pins.maps.display(), "a pinned map has another shape; counting starts anew");
            fs::remove_dir_all(&pins.maps)?;
        }
        fs::create_dir_all(&pins.links)?;
        Ok(pins)
    }

    fn first_misshapen(&self) -> Option<&'static str> {
        let is_other = |(name, key, value, rows): &(&'static str, usize, usize, u32)| {
            let path = self.map(name);
            if !path.exists() {
                return false;
            }
            // One that cannot be opened is no map.
            MapInfo::from_pin(&path).map_or(true, |info| {
                let size = |size: u32| usize::try_from(size).unwrap_or(usize::MAX);
                size(info.key_size()) != *key || size(info.value_size()) != *value || info.max_entries() != *rows
            })
        };
        SHAPES.into_iter().find(is_other).map(|(name, ..)| name)
    }

    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        SHAPES.into_iter().map(|(name, ..)| name)
    }

    /// Makes the folders again, should somebody have unmounted the file system or removed them. Returns why it cannot.
    pub(crate) fn ensure(&self) -> io::Result<()> {
        if self.links.is_dir() {
            return Ok(());
        }
        ensure(&self.root)?;
        fs::create_dir_all(&self.links)
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps.join(name)
    }

    pub(crate) fn link(&self, name: &str) -> PathBuf {
        self.links.join(name)
    }

    /// Removes the links that `keep` does not want, and everything of other layouts: what they are attached to is let go.
    pub(crate) fn sweep(&self, keep: impl Fn(&str) -> bool) {
        let warn = |path: &Path, error: io::Error| {
            tracing::warn!(path = %path.display(), %error, "a pin that is no longer wanted stays");
        };
        for entry in fs::read_dir(&self.links).into_iter().flatten().flatten() {
            if !entry.file_name().to_str().is_some_and(&keep)
                && let Err(error) = fs::remove_file(entry.path())
            {
                warn(&entry.path(), error);
            }
        }
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if is_layout(&entry.path())
                && entry.path() != self.maps
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                warn(&entry.path(), error);
            }
        }
    }
}

/// The kernel puts files of its own into a new file system, which nobody can remove.
fn is_layout(path: &Path) -> bool {
    path.is_dir()
}

/// Mounts the file system at `root` unless it is there.
fn ensure(root: &Path) -> io::Result<()> {
    if is_mounted(root) {
        return Ok(());
    }
    fs::create_dir_all(root)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some(SOURCE), root, Some("bpf"), flags, Some("mode=0700"))?)
}

/// Mounts the file system at `root`, unless it is there; for a program with more rights than the agent that comes after it.
///
/// # Errors
/// When it cannot be mounted.
pub fn prepare(root: &Path) -> Result<(), TrafficError> {
    ensure(root).map_err(|source| TrafficError::Mount { path: root.to_owned(), source })
}

/// Unmounts the file system at `root`: what was pinned there is detached and forgotten. Nothing there is a success.
pub fn uninstall(root: &Path) -> Result<(), TrafficError> {
    let failed = |source| TrafficError::Uninstall { path: root.to_owned(), source };
    while is_mounted(root) {
        // Emptied first: who else has it mounted, by a copied namespace, must not keep the links alive.
        for entry in fs::read_dir(root).map_err(failed)?.flatten() {
            if is_layout(&entry.path()) {
                fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        umount2(root, MntFlags::MNT_DETACH).map_err(|errno| failed(errno.into()))?;
    }
    match fs::remove_dir(root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}
