//! Processes of the cluster, found in `/proc` without anybody's memory of them.
//!
//! Whatever this program starts carries [`MARK`] in its environment, with the name of the part; containers do not inherit
//! it, but they live in a node's PID namespace and end with its first process.
use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::plan::STATE;

const MARK: &str = "LOCO_TEST_CLUSTER";
/// What was open in whoever called us must not stay open for as long as a cluster lives: a lock of theirs would stay taken.
const CLOSE_ALL: &str =
    r#"for fd in /proc/self/fd/*; do fd=${fd##*/}; if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi; done; exec "$@""#;
/// How often something is looked at again that nobody tells about.
const LOOK: Duration = Duration::from_millis(50);

/// A process that carries the mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) pid: i32,
    pub(crate) part: String,
    /// As the kernel names it (at most 15 bytes).
    pub(crate) process: String,
    /// The first of its PID namespace, which is one below ours.
    pub(crate) is_first: bool,
}

/// Starts `command` for as long as it likes to live: apart from this terminal, with a log of its own.
pub(crate) fn start(part: &str, command: &Command) -> Result<()> {
    let path = log(part);
    let dir = path.parent().context("a log lies in a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
    let log = File::options().create(true).append(true).open(&path);
    let log = log.with_context(|| format!("cannot write {}", path.display()))?;
    let mut closing = Command::new("bash");
    closing.args(["-c", CLOSE_ALL, "bash"]).arg(command.get_program()).args(command.get_args());
    closing.env(MARK, part).current_dir("/").process_group(0);
    closing.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let spawned = closing.spawn();
    // Nobody waits for it here: this program ends, and init does.
    spawned.map(drop).with_context(|| format!("cannot start {}", command.get_program().display()))
}

pub(crate) fn log(part: &str) -> PathBuf {
    Path::new(STATE).join("log").join(format!("{}.log", part.replace('/', "-")))
}

/// The last lines of a part's log, for an error message.
pub(crate) fn last_words(part: &str) -> String {
    let text = fs::read(log(part)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = &lines[lines.len().saturating_sub(12)..];
    format!("{}, last lines:\n  {}", log(part).display(), tail.join("\n  "))
}

/// All that carry the mark. Those of other users are only seen by root.
pub(crate) fn all() -> Vec<Marked> {
    let own = std::process::id().to_string();
    let names =
        fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| *name != own).filter_map(|name| marked(&name)).collect()
}

fn marked(pid: &str) -> Option<Marked> {
    let dir = Path::new("/proc").join(pid);
    let number = pid.parse().ok()?;
    let part = mark(&fs::read(dir.join("environ")).ok()?)?;
    let status = fs::read_to_string(dir.join("status")).ok()?;
    let (process, is_first) = read_status(&status)?;
    Some(Marked { pid: number, part, process, is_first })
}

fn mark(environ: &[u8]) -> Option<String> {
    let value =
        environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// Name, and whether it is the first of a PID namespace one below; `None` for one that has ended.
fn read_status(status: &str) -> Option<(String, bool)> {
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
    if value("State")?.starts_with('Z') {
        return None;
    }
    let pids: Vec<&str> = value("NSpid")?.split_whitespace().collect();
    Some((value("Name")?.to_owned(), pids.len() > 1 && pids.last() == Some(&"1")))
}

/// The processes of `part` that the kernel calls `process`.
pub(crate) fn of(part: &str, process: &str) -> Vec<i32> {
    let ours = |marked: &Marked| marked.part == part && marked.process == process;
    all().into_iter().filter(ours).map(|marked| marked.pid).collect()
}

/// The first process of a node's PID namespace; `None` while the node is off.
pub(crate) fn first_of(node: &str) -> Option<i32> {
    all().into_iter().find(|marked| marked.part == node && marked.is_first).map(|marked| marked.pid)
}

/// Ends them with `signal` and waits until they are gone; what is left after `grace` is killed.
pub(crate) fn end(pids: &[i32], how: Signal, grace: Duration) -> Result<()> {
    for pid in pids {
        signal(*pid, how)?;
    }
    if wait_gone(pids, grace) {
        return Ok(());
    }
    for pid in pids {
        signal(*pid, Signal::SIGKILL)?;
    }
    if !wait_gone(pids, Duration::from_secs(10)) {
        bail!("processes {pids:?} do not end, not even killed");
    }
    Ok(())
}

fn wait_gone(pids: &[i32], limit: Duration) -> bool {
    let gone = || pids.iter().all(|pid| !is_alive(*pid));
    until(limit, || Ok(gone().then_some(()))).is_ok()
}

fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| read_status(&status).is_some())
}

/// One that is gone already is as was wanted.
fn signal(pid: i32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(io::Error::from(error)).with_context(|| format!("cannot signal process {pid}")),
    }
}

/// Looks again and again until `look` finds something; an error after `limit`, which the caller puts into words.
pub(crate) fn until<T>(limit: Duration, look: impl Fn() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("not within {} s", limit.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn the_first_of_a_namespace_is_seen_and_what_has_ended_is_not() {
        let status = |state: &str, pids: &str| format!("Name:\tpause\nState:\t{state}\nNSpid:\t{pids}\n");
        assert_eq!(read_status(&status("S (sleeping)", "812\t1")), Some(("pause".to_owned(), true)));
        assert_eq!(read_status(&status("S (sleeping)", "813\t7")), Some(("pause".to_owned(), false)));
        // The machine's own first process is not a node's.
        assert_eq!(read_status(&status("S (sleeping)", "1")), Some(("pause".to_owned(), false)));
        assert_eq!(read_status(&status("Z (zombie)", "812\t1")), None);
    }

    #[test]
    fn the_mark_matches_whole() {
        assert_eq!(mark(b"A=1\0LOCO_TEST_CLUSTER=n1/kubelet\0").as_deref(), Some("n1/kubelet"));
        assert_eq!(mark(b"LOCO_TEST_CLUSTERS=n1\0XLOCO_TEST_CLUSTER=n1\0"), None);
    }

    #[test]
    fn waiting_has_an_end() {
        assert_eq!(until(Duration::from_secs(5), || Ok(Some(3))).unwrap(), 3);
        assert!(until::<()>(Duration::ZERO, || Ok(None)).unwrap_err().to_string().contains("not within"));
    }

    #[test]
    fn processes_are_ended_and_killed_if_they_will_not() {
        let mut deaf = Command::new("sh")
            .args(["-c", "trap '' TERM; echo; while :; do sleep 1; done"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Once it has said something it is deaf.
        io::BufRead::read_line(&mut io::BufReader::new(deaf.stdout.take().unwrap()), &mut String::new()).unwrap();
        let pid = i32::try_from(deaf.id()).unwrap();
        end(&[pid], Signal::SIGTERM, Duration::from_millis(100)).unwrap();
        assert_eq!(deaf.wait().unwrap().signal(), Some(9));
    }
}
