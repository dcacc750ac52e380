//! Which of two places a guest's disk is in. [`choose`] is pure; [`look`] asks the kernel.
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::statvfs::statvfs,
};
use tokio::time::timeout;

use super::{LOOK_LIMIT, OVERLAY, StorageError};

/// A fresh disk is not begun where less is free, in bytes: the guest would stand still within moments.
pub const MIN_ROOM_BYTES: u64 = 64 << 20;
/// Held by the runner that uses a place.
const LOCK: &str = "lock";

/// A place's lock; dropping it frees it.
pub(super) type Lock = Flock<File>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    Primary,
    Fallback,
}

/// What a look at a place gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It can be written.
    Usable {
        /// There is a disk in it.
        overlay: bool,
        free_bytes: u64,
    },
    /// Why not.
    Unusable(String),
}

/// Space on a file system, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// For us, who are not root.
    pub free_bytes: u64,
    pub total_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) place: Where,
    /// The fallback's disk is to be set aside: the primary's is back.
    pub(super) strand_fallback: bool,
    pub(super) notice: Option<Notice>,
}

/// Why a choice should be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// The primary cannot be used, because of this.
    FellBack(String),
    /// The disk was begun on the fallback and is there still; the primary is fine again.
    StaysOnFallback,
    /// Both had a disk; the fallback's was set aside.
    Returned,
}

impl Notice {
    /// In words; `used` is the place that is used.
    pub(super) fn sentence(&self, primary: &Path, used: &Path) -> String {
        let (primary, used) = (primary.display(), used.display());
        match self {
            Self::FellBack(why) => format!(
                "its disk is on the fallback `{used}`, because `{primary}` {why}; what it saves now is not seen on the primary: put that \
                 right and restart the instance"
            ),
            Self::StaysOnFallback => format!(
                "its disk was begun on the fallback `{used}` and stays there, although `{primary}` is fine again; reset the instance to \
                 begin anew on the primary"
            ),
            Self::Returned => format!(
                "its disk on the primary `{used}` is back; what was written on the fallback meanwhile is kept there as \
                 overlay.previous.qcow2"
            ),
        }
    }
}

impl Found {
    pub(super) const fn usable(&self) -> bool {
        matches!(self, Self::Usable { .. })
    }

    /// The same place after its disk was set aside.
    pub(super) fn emptied(&self) -> Self {
        match self {
            Self::Usable { free_bytes, .. } => Self::Usable { overlay: false, free_bytes: *free_bytes },
            Self::Unusable(why) => Self::Unusable(why.clone()),
        }
    }

    const fn has_overlay(&self) -> bool {
        matches!(self, Self::Usable { overlay: true, .. })
    }

    /// Why a fresh disk cannot be begun here.
    fn no_room(&self) -> Option<String> {
        match self {
            Self::Usable { free_bytes, .. } if *free_bytes < MIN_ROOM_BYTES => Some(format!(
                "has {} MiB free, and a disk is not begun below {}",
                free_bytes >> 20,
                MIN_ROOM_BYTES >> 20
            )),
            Self::Usable { .. } => None,
            Self::Unusable(why) => Some(why.clone()),
        }
    }
}

/// Where the guest's disk is, or is to be. `Err` = in neither place, in words.
pub(super) fn choose(primary: &Found, fallback: Option<&Found>) -> Result<Choice, String> {
    let at = |place, notice| Choice { place, strand_fallback: false, notice };
    if primary.has_overlay() {
        // Even if it is full: the guest waits in words, which is better than one that has forgotten everything.
        let strand_fallback = fallback.is_some_and(Found::has_overlay);
        return Ok(Choice { strand_fallback, ..at(Where::Primary, strand_fallback.then_some(Notice::Returned)) });
    }
    let primary_problem = primary.no_room();
    if let Some(fallback) = fallback {
        if fallback.has_overlay() {
            return Ok(at(Where::Fallback, Some(primary_problem.map_or(Notice::StaysOnFallback, Notice::FellBack))));
        }
        return match (primary_problem, fallback.no_room()) {
            (None, _) => Ok(at(Where::Primary, None)),
            (Some(why), None) => Ok(at(Where::Fallback, Some(Notice::FellBack(why)))),
            (Some(one), Some(other)) => {
                Err(format!("the primary {one}, and the fallback {other}; free some space or bring one of them back"))
            }
        };
    }
    match primary {
        Found::Unusable(why) => Err(format!("it {why}; check --work-dir, the volume and its permissions")),
        // Without a fallback the guest may as well try: it waits in words when it has no space.
        Found::Usable { .. } => Ok(at(Where::Primary, None)),
    }
}

/// Looks at a place, makes its directory if it is missing, and takes its lock.
///
/// # Errors
/// [`StorageError::InUse`] if somebody has the lock: that is no reason to go elsewhere.
pub(super) async fn look(dir: &Path) -> Result<(Found, Option<Lock>), StorageError> {
    let place = dir.to_owned();
    // On a thread of its own: a mount whose server is away hangs for ever, and must not take the runner with it.
    match timeout(LOOK_LIMIT, tokio::task::spawn_blocking(move || look_now(&place))).await {
        Ok(Ok(result)) => result,
        Ok(Err(panicked)) => Ok((Found::Unusable(format!("could not be looked at: {panicked}")), None)),
        Err(_) => Ok((Found::Unusable(format!("does not answer within {} s", LOOK_LIMIT.as_secs())), None)),
    }
}

fn look_now(dir: &Path) -> Result<(Found, Option<Lock>), StorageError> {
    let unusable = |error: io::Error| Ok((Found::Unusable(format!("cannot be used ({error})")), None));
    if let Err(error) = fs::create_dir_all(dir) {
        return unusable(error);
    }
    let file = match File::options().create(true).append(true).open(dir.join(LOCK)) {
        // No room for a name: the place is there all the same, and so may the disk be.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok((seen(dir), None)),
        Err(error) => return unusable(error),
        Ok(file) => file,
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok((seen(dir), Some(lock))),
        Err((_, Errno::EWOULDBLOCK)) => Err(StorageError::InUse { dir: PathBuf::from(dir) }),
        // A file system without locks: QEMU's own fails there too, and says so.
        Err((_, error)) => {
            tracing::warn!(place = %dir.display(), %error, "no lock can be had here; see that no other runner uses it");
            Ok((seen(dir), None))
        }
    }
}

fn seen(dir: &Path) -> Found {
    match space(dir) {
        Ok(space) => Found::Usable { overlay: dir.join(OVERLAY).exists(), free_bytes: space.free_bytes },
        Err(error) => Found::Unusable(format!("cannot be used ({error})")),
    }
}

/// Space on the file system of `dir`.
pub fn space(dir: &Path) -> io::Result<Space> {
    let stat = statvfs(dir)?;
    let unit = stat.fragment_size();
    Ok(Space { free_bytes: stat.blocks_available() * unit, total_bytes: stat.blocks() * unit })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: Found = Found::Usable { overlay: false, free_bytes: MIN_ROOM_BYTES };
    const FULL: Found = Found::Usable { overlay: false, free_bytes: MIN_ROOM_BYTES - 1 };
    const DISK: Found = Found::Usable { overlay: true, free_bytes: 0 };

    fn away() -> Found {
        Found::Unusable("is away".into())
    }

    #[test]
    fn each_case_has_one_answer() {
        let place = |primary: &Found, fallback: Option<&Found>| {
            let choice = choose(primary, fallback).unwrap();
            (choice.place, choice.strand_fallback, choice.notice)
        };
        assert_eq!(place(&ROOM, None), (Where::Primary, false, None));
        assert_eq!(place(&FULL, None), (Where::Primary, false, None));
        assert!(choose(&away(), None).unwrap_err().contains("it is away; check --work-dir"));
        assert_eq!(place(&ROOM, Some(&ROOM)), (Where::Primary, false, None));
        let fell = |why: &str| Some(Notice::FellBack(why.into()));
        assert_eq!(place(&away(), Some(&ROOM)), (Where::Fallback, false, fell("is away")));
        assert_eq!(place(&away(), Some(&DISK)), (Where::Fallback, false, fell("is away")));
        assert_eq!(
            place(&FULL, Some(&ROOM)),
            (Where::Fallback, false, fell("has 63 MiB free, and a disk is not begun below 64"))
        );
        // What the guest saved on the primary is never hidden by a fresh disk.
        assert_eq!(place(&DISK, Some(&ROOM)), (Where::Primary, false, None));
        assert_eq!(place(&DISK, Some(&DISK)), (Where::Primary, true, Some(Notice::Returned)));
        assert_eq!(place(&ROOM, Some(&DISK)), (Where::Fallback, false, Some(Notice::StaysOnFallback)));
        assert!(choose(&away(), Some(&FULL)).unwrap_err().contains("the primary is away, and the fallback has 63 MiB"));
    }

    fn any_found() -> impl Strategy<Value = Found> {
        prop_oneof![
            (any::<bool>(), 0..2 * MIN_ROOM_BYTES)
                .prop_map(|(overlay, free_bytes)| Found::Usable { overlay, free_bytes }),
            Just(away()),
        ]
    }

    proptest! {
        /// Whatever is found: a disk that can be seen is used, and the fallback is never used in silence.
        #[test]
        fn state_is_neither_hidden_nor_split(primary in any_found(), fallback in proptest::option::of(any_found())) {
            let seen = primary.has_overlay() || fallback.as_ref().is_some_and(Found::has_overlay);
            match choose(&primary, fallback.as_ref()) {
                Ok(choice) => {
                    let used = if choice.place == Where::Primary { &primary } else { fallback.as_ref().unwrap() };
                    prop_assert!(used.usable());
                    prop_assert!(used.has_overlay() || !seen);
                    prop_assert!(choice.notice.is_some() || (choice.place == Where::Primary && !choice.strand_fallback));
                }
                Err(words) => prop_assert!(!seen && !words.is_empty()),
            }
        }
    }
}
