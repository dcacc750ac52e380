//! Where a guest's disk lives, how long, and which base it belongs to.
//!
//! ```text
//! primary, fallback ──look, lock──> choose (pure) ──> a place ──> overlay there?   no ──> make one from the base
//!                                                                    │ yes
//!                                  record beside it + stamp of the base ──> judge (pure) ──> keep it │ compare contents │ refuse
//! ```
//!
//! **Invariants.** What a guest saved is in one place at a time, and is never hidden by a fresh disk without words: a place
//! that cannot be looked at is left for the fallback only if there is one, and then it is said. An overlay is used only over
//! the contents that it was made from. One runner at a time has a place (a lock that its death frees, also over NFS). Nothing
//! is removed but by order (a reset keeps one generation) or because its lifetime is over.
mod places;
mod record;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use places::{Choice, Lock, choose, look};
pub use places::{Found, MIN_ROOM_BYTES, Space, Where, space};
pub use record::{Digest, Stamp};
use record::{Record, Verdict, judge};

use crate::overlay::{self, Base, OverlayError};

/// The overlay in a place.
const OVERLAY: &str = "overlay.qcow2";
/// The one before it: kept by a reset, replaced by the next.
const PREVIOUS: &str = "overlay.previous.qcow2";
/// What it was made from.
const RECORD: &str = "overlay.json";
/// A place that does not answer in this time is one that is away: a server's mount hangs for ever.
pub const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// How long what a guest wrote is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until a reset: over restarts, deletions and moves of its pod.
    Persistent,
    /// As long as its pod, restarts of the container included; without a pod, as long as its runner.
    Ephemeral,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub primary: PathBuf,
    /// Used when the primary cannot be.
    pub fallback: Option<PathBuf>,
    pub lifetime: Lifetime,
    /// The pod's uid, which tells a restarted container from a new pod.
    pub pod: Option<String>,
}

/// A guest's disk, ready to be used, and held until this is dropped.
#[derive(Debug)]
pub struct Disk {
    pub overlay: PathBuf,
    pub place: Where,
    /// What somebody should know, one sentence with the remedy.
    pub notice: Option<String>,
    /// It was made just now.
    pub fresh: bool,
    record: PathBuf,
    /// The record lacks the base's digest.
    undigested: bool,
    _locks: Vec<Lock>,
}

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    #[error("another runner uses the disk in `{}`; it goes on here when that one has ended", dir.display())]
    InUse { dir: PathBuf },
    #[error("there is no place for the guest's disk: {0}")]
    NoPlace(String),
    #[error("the disk in `{}` was made from another base ({why}) and was left alone, as it would be garbage over this one: bring the \
             old base back, or reset the instance to start anew from the new one", dir.display())]
    OtherBase { dir: PathBuf, why: String },
    #[error("could not {doing} `{}`; check the volume and its permissions", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl StorageError {
    fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                OverlayError::DiskFull { path: path.to_owned() }.into()
            }
            _ => Self::Io { doing, path: path.to_owned(), source },
        }
    }
}

/// Finds the guest's disk or makes it. `reset`: what there is is set aside, and a fresh one is made.
///
/// # Errors
/// All are worth trying again: somebody may put things right, or the other runner end.
pub async fn prepare(base: &mut Base, wanted: &Wanted, reset: bool) -> Result<Disk, StorageError> {
    let (primary, primary_lock) = look(&wanted.primary).await?;
    let (fallback, fallback_lock) = match &wanted.fallback {
        Some(dir) => look(dir).await.map(|(found, lock)| (Some((dir, found)), lock))?,
        None => (None, None),
    };
    if reset {
        for (dir, found) in [(&wanted.primary, &primary)].into_iter().chain(fallback.as_ref().map(|(d, f)| (*d, f))) {
            if found.usable() {
                set_aside(dir, wanted.lifetime)?;
            }
        }
    }
    let seen = |found: &Found| if reset { found.emptied() } else { found.clone() };
    let Choice { place, strand_fallback, notice } =
        choose(&seen(&primary), fallback.as_ref().map(|(_, found)| seen(found)).as_ref())
            .map_err(StorageError::NoPlace)?;
    if strand_fallback && let Some((dir, _)) = &fallback {
        set_aside(dir, Lifetime::Persistent)?;
    }
    let dir = match (place, &wanted.fallback) {
        (Where::Fallback, Some(dir)) => dir,
        _ => &wanted.primary,
    };
    let (fresh, undigested) = keep_or_make(base, dir, wanted).await?;
    Ok(Disk {
        overlay: dir.join(OVERLAY),
        place,
        notice: notice.map(|why| why.sentence(&wanted.primary, dir)),
        fresh,
        record: dir.join(RECORD),
        undigested: undigested && wanted.lifetime == Lifetime::Persistent,
        _locks: primary_lock.into_iter().chain(fallback_lock).collect(),
    })
}

/// Whether the overlay was made just now, and whether its record lacks the digest.
async fn keep_or_make(base: &mut Base, dir: &Path, wanted: &Wanted) -> Result<(bool, bool), StorageError> {
    let (overlay, path) = (dir.join(OVERLAY), dir.join(RECORD));
    let stamp = Stamp::of(base).map_err(|source| StorageError::io("read", base.path(), source))?;
    let mut record = if overlay.exists() { Record::read(&path)? } else { None };
    let over = |record: &Option<Record>| {
        wanted.lifetime == Lifetime::Ephemeral
            && (wanted.pod.is_none() || record.as_ref().is_none_or(|record| record.pod != wanted.pod))
    };
    if overlay.exists() && over(&record) {
        remove(&overlay)?;
        record = None;
    }
    if !overlay.exists() {
        // The record first: an overlay is never without one that fits it.
        Record::new(base.path(), stamp, wanted.pod.clone()).write(&path)?;
        make(base, dir, &overlay).await?;
        return Ok((true, true));
    }
    let header = overlay::base_of(&overlay).await?;
    let other = |why: &str| StorageError::OtherBase { dir: dir.to_owned(), why: why.to_owned() };
    let Some(mut record) = record else {
        // Of a release that kept no records: the header's path is all that is known.
        if Path::new(&header) != base.path() {
            return Err(other(&format!("it says `{header}`")));
        }
        Record::new(base.path(), stamp, wanted.pod.clone()).write(&path)?;
        return Ok((false, true));
    };
    match judge(&record.base, record.sha256.as_ref(), &stamp) {
        Verdict::Same => {}
        Verdict::Other(why) => return Err(other(&why)),
        Verdict::Compare(was) => {
            tracing::info!(base = %base.path().display(), "the base was touched; comparing its contents");
            let is = record::digest(base).await.map_err(|source| StorageError::io("read", base.path(), source))?;
            if is != was {
                return Err(other("its contents have changed"));
            }
            record.base = stamp;
            record.write(&path)?;
        }
    }
    Ok((false, record.sha256.is_none()))
}

/// Makes the overlay; if there is no room even for an empty one, the one that a reset set aside makes it.
async fn make(base: &mut Base, dir: &Path, overlay: &Path) -> Result<(), StorageError> {
    match overlay::create(base, overlay).await {
        Err(OverlayError::DiskFull { .. }) if dir.join(PREVIOUS).exists() => {
            tracing::warn!(place = %dir.display(), "no room for a fresh disk; the one before is removed");
            remove(&dir.join(PREVIOUS))?;
            Ok(overlay::create(base, overlay).await?)
        }
        other => Ok(other?),
    }
}

/// Takes the overlay of `dir` out of use. One generation is kept, if its lifetime lets it be and there is room beside it.
fn set_aside(dir: &Path, lifetime: Lifetime) -> Result<(), StorageError> {
    let (overlay, previous) = (dir.join(OVERLAY), dir.join(PREVIOUS));
    if !overlay.exists() {
        return Ok(());
    }
    let room = space(dir).is_ok_and(|space| space.free_bytes >= MIN_ROOM_BYTES);
    if lifetime == Lifetime::Ephemeral || !room {
        tracing::info!(place = %dir.display(), room, "the disk is removed");
        return remove(&overlay);
    }
    tracing::info!(kept = %previous.display(), "the disk is set aside");
    fs::rename(&overlay, &previous).map_err(|source| StorageError::io("set aside", &overlay, source))?;
    overlay::sync_dir(&overlay).map_err(|source| StorageError::io("set aside", &overlay, source))
}

fn remove(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StorageError::io("remove", path, source)),
        _ => Ok(()),
    }
}

impl Disk {
    /// Reads the whole base in the background and notes its digest in the record, so that a base that was copied or touched
    /// later can be told from one that was changed. Nothing to do for a record that has one, or one that is not kept.
    pub fn note_digest(&self, base: &Base) -> Option<impl Future<Output = Result<(), StorageError>> + use<>> {
        if !self.undigested {
            return None;
        }
        let (file, path, record) = (base.file.try_clone(), base.path().to_owned(), self.record.clone());
        Some(async move {
            let failed = |source| StorageError::io("read", &path, source);
            let digest = record::digest_of(file.map_err(failed)?, true).await.map_err(failed)?;
            if let Some(mut known) = Record::read(&record)? {
                known.sha256 = Some(digest);
                known.write(&record)?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
