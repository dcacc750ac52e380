//! What an overlay was made from, kept beside it; and whether a base is still that.
use std::{
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::StorageError;
use crate::overlay::{self, Base};

/// Read at once when a base is digested.
const CHUNK_BYTES: usize = 1 << 20;
/// A record is a few hundred bytes.
const RECORD_BYTES_MAX: u64 = 64 << 10;

/// What can be known of a base without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub format: String,
    pub bytes: u64,
    /// Last change of its contents, in nanoseconds since the epoch.
    pub modified_ns: i128,
}

/// SHA-256 of a base's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest(pub String);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// 1.
    version: u32,
    pub(super) base: Stamp,
    /// Where the base was: for people.
    path: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<Digest>,
    /// The pod that made it; without one there is no pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Same,
    /// Touched or copied: the contents decide.
    Compare(Digest),
    /// Why it is another.
    Other(String),
}

/// Whether a base with stamp `is` is what an overlay with this record was made from.
pub(super) fn judge(was: &Stamp, digest: Option<&Digest>, is: &Stamp) -> Verdict {
    if was.format != is.format {
        return Verdict::Other(format!("{} then, {} now", was.format, is.format));
    }
    if was.bytes != is.bytes {
        return Verdict::Other(format!("{} bytes then, {} now", was.bytes, is.bytes));
    }
    if was.modified_ns == is.modified_ns {
        return Verdict::Same;
    }
    match digest {
        Some(digest) => Verdict::Compare(digest.clone()),
        None => Verdict::Other("it was written or copied since, before its contents could be noted".to_owned()),
    }
}

impl Stamp {
    pub(super) fn of(base: &Base) -> io::Result<Self> {
        let metadata = base.file.metadata()?;
        Ok(Self {
            format: base.format.as_str().to_owned(),
            // A block device says 0; its size cannot change unnoticed, as the overlay's is fixed.
            bytes: metadata.len(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
        })
    }
}

impl Record {
    pub(super) fn new(path: &Path, base: Stamp, pod: Option<String>) -> Self {
        Self { version: 1, base, path: path.to_owned(), sha256: None, pod }
    }

    /// `None` if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, StorageError> {
        let failed = |source| StorageError::io("read", path, source);
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(file, RECORD_BYTES_MAX), &mut text).map_err(failed)?;
        let record: Self = serde_json::from_str(&text).map_err(|error| failed(error.into()))?;
        if record.version != 1 {
            let said = format!("it is of version {}; this program reads version 1", record.version);
            return Err(failed(io::Error::other(said)));
        }
        Ok(Some(record))
    }

    /// As a whole or not at all, and over a power cut.
    pub(super) fn write(&self, path: &Path) -> Result<(), StorageError> {
        let half = path.with_extension("json.new");
        let text = serde_json::to_string_pretty(self).expect("plain data with text keys");
        fs::write(&half, text + "\n")
            .and_then(|()| overlay::put_in_place(&half, path))
            .map_err(|source| StorageError::io("write", path, source))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) async fn digest(base: &Base) -> io::Result<Digest> {
    digest_of(base.file.try_clone()?, false).await
}

/// `gently`: half of the time is left to others, because a guest starts meanwhile.
pub(super) async fn digest_of(file: File, gently: bool) -> io::Result<Digest> {
    let read = move || -> io::Result<Digest> {
        let (mut hash, mut offset, mut chunk) = (Sha256::new(), 0, vec![0; CHUNK_BYTES]);
        loop {
            let began = Instant::now();
            // By offset: QEMU has a copy of this very descriptor.
            let count = file.read_at(&mut chunk, offset)?;
            if count == 0 {
                let mut text = String::new();
                for byte in hash.finalize() {
                    fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}")).map_err(io::Error::other)?;
                }
                return Ok(Digest(text));
            }
            hash.update(&chunk[..count]);
            offset += count as u64;
            if gently {
                std::thread::sleep(began.elapsed().min(Duration::from_secs(1)));
            }
        }
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}
