//! Output of QEMU, kept in bounds: the end of its errors in memory, the guest's serial line in two files.
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

/// Kept of what QEMU wrote to its standard error, in bytes; it goes into one message to the agent.
const ERRORS_BYTES_MAX: usize = 1024;
/// Longest line that is logged, in bytes.
const LINE_BYTES_MAX: u64 = 4096;
/// The serial log and the one before have at most this many bytes each.
const SERIAL_BYTES_MAX: u64 = 256 << 10;

/// The last bytes of a stream. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let excess = kept.len().saturating_sub(ERRORS_BYTES_MAX);
        kept.drain(..excess);
    }

    pub(crate) fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (a, b) = kept.as_slices();
        let text = String::from_utf8_lossy(&[a, b].concat()).into_owned();
        // A lossy character may be longer than the byte it stands for.
        text.chars()
            .filter(|c| !c.is_control() || *c == '\n')
            .take(ERRORS_BYTES_MAX)
            .collect::<String>()
            .trim()
            .to_owned()
    }
}

/// Logs QEMU's errors line by line and keeps the last of them, until it closes the stream.
pub(crate) async fn errors(stream: impl AsyncRead + Unpin, tail: Tail) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                tail.push(&line);
                tracing::warn!(said = %String::from_utf8_lossy(&line).trim_end(), "qemu");
            }
        }
    }
}

/// Writes the guest's serial line to `path`; the part before goes to `path.1`.
pub(crate) async fn serial(mut stream: impl AsyncRead + Unpin, path: PathBuf) {
    let mut log = match SerialLog::create(&path) {
        Ok(log) => Some(log),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "serial log cannot be written");
            None
        }
    };
    let mut buffer = vec![0; 4096];
    loop {
        let count = match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        // Without a log the stream is read all the same, so that the pipe is never full.
        if let Some(writer) = &mut log
            && let Err(error) = writer.write(&buffer[..count])
        {
            tracing::warn!(path = %path.display(), %error, "serial log ends here");
            log = None;
        }
    }
}

struct SerialLog {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl SerialLog {
    fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: File::create(path)?, bytes: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.bytes + bytes.len() as u64 > SERIAL_BYTES_MAX {
            let mut before = self.path.clone().into_os_string();
            before.push(".1");
            fs::rename(&self.path, before)?;
            *self = Self::create(&self.path)?;
        }
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_errors_are_kept() {
        let tail = Tail::default();
        let text = format!("{}\nqemu: the reason\n", "x".repeat(10_000));
        errors(text.as_bytes(), tail.clone()).await;
        assert_eq!(tail.text().len(), ERRORS_BYTES_MAX - 1);
        assert!(tail.text().ends_with("x\nqemu: the reason"));
    }

    #[tokio::test]
    async fn a_chatty_guest_fills_two_files_and_no_more() {
        let path = std::env::temp_dir().join(format!("loco-runner-{}-serial.log", std::process::id()));
        let before = path.with_extension("log.1");
        let mut text = vec![b'a'; 600 << 10];
        text.extend(b"the end");
        serial(&text[..], path.clone()).await;
        let (new, old) = (fs::read(&path).unwrap(), fs::read(&before).unwrap());
        assert!(new.ends_with(b"the end"));
        assert!(new.len() as u64 <= SERIAL_BYTES_MAX && old.len() as u64 <= SERIAL_BYTES_MAX);
        fs::remove_file(path).unwrap();
        fs::remove_file(before).unwrap();
    }
}
