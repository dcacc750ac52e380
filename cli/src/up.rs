//! `loco up`: checks, makes the underlay and the files, starts the supervisor, waits for the pictures.
//!
//! **Invariant.** An `up` that fails leaves nothing: whatever it made is removed before it returns.
use std::{
    fs::{self, File},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use api::agent::State as Word;
use flags::UpFlags;
use tokio::runtime::{self, Runtime};

use crate::{
    down, lock, logs,
    paths::{MARKER, Paths},
    plan::{Boot, Underlay, Wall},
    preflight, processes, secrets, siblings,
    state::{State, write_json},
    status,
    supervise::{self, Signals},
    underlay,
};

/// A process that ended this often in a row will not get well by waiting.
const HOPELESS: u32 = 5;

/// Told while `up` works, for standard error.
pub(crate) type Progress<'a> = &'a dyn Fn(&str);

/// Starts a wall. With `--detach`: returns the page's URL once every picture is live. Without: prints it by `live`
/// and returns `None` once the wall was told to end and has ended.
pub(crate) fn up(
    flags: &UpFlags,
    paths: &Paths,
    progress: Progress<'_>,
    live: impl Fn(&str),
) -> Result<Option<String>> {
    preflight::root()?;
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // Before anything is made: from here on an interrupt ends in an orderly way, and takes away what there is.
    let signals = {
        let _inside = runtime.enter();
        Signals::listen()?
    };
    let lock = claim(paths, progress)?;
    let ours = lock.metadata()?.ino();
    // From here on something is there to clean up.
    let result = start(flags, paths, lock, (&runtime, signals), progress, live);
    if result.is_err() || !flags.detach {
        // Unless somebody's `down` was quicker and another wall stands there by now: that one is not ours to end.
        let removed = if lock::is_that(paths, ours) { down::down(paths, |_| ()).map(|_| ()) } else { Ok(()) };
        return result.and_then(|url| removed.map(|()| url));
    }
    result
}

/// The machine's one wall is ours from here on, and nothing of an older one is left.
fn claim(paths: &Paths, progress: Progress<'_>) -> Result<File> {
    let taken = || match State::read(paths) {
        Ok(state) => format!(
            "a wall runs already (supervisor {}); one wall per machine: `loco down` first",
            state.supervisor_pid
        ),
        Err(_) => "another `up` is at work; one wall per machine: `loco down` first".to_owned(),
    };
    let Some(lock) = lock::take(paths)? else { bail!(taken()) };
    let strays = processes::of_wall(paths);
    ensure!(
        strays.is_empty(),
        "{} processes of a wall whose supervisor is gone still run; one wall per machine: `loco down` first",
        strays.len()
    );
    let only_the_lock = fs::read_dir(paths.run())?.count() == 1 && !paths.disks().exists();
    if only_the_lock {
        return Ok(lock);
    }
    progress("removing what a killed wall has left");
    down::remove(paths)?;
    lock::take(paths)?.with_context(taken)
}

fn start(
    flags: &UpFlags,
    paths: &Paths,
    lock: File,
    (runtime, mut signals): (&Runtime, Signals),
    progress: Progress<'_>,
    live: impl Fn(&str),
) -> Result<Option<String>> {
    preflight::check(flags, paths)?;
    let wall = plan(flags, paths)?;
    progress(&format!(
        "{} nodes, {} guests, {} LAN{}; underlay {}",
        wall.nodes.len(),
        wall.instances.len(),
        wall.lans.len(),
        if wall.lans.len() == 1 { "" } else { "s" },
        wall.underlay,
    ));
    write(&wall, paths)?;
    underlay::make(&wall, paths)?;
    let limit = Duration::from_secs(flags.timeout.into());
    if flags.detach {
        let mut daemon = daemon(paths, lock)?;
        return runtime.block_on(async {
            tokio::select! {
                waited = wait_until_live(&wall, paths, limit, progress, || daemon_ended(&mut daemon)) => waited.map(Some),
                () = signals.told_to_stop() => bail!("interrupted; the wall is ended again"),
            }
        });
    }
    runtime.block_on(async {
        let announced = async {
            match wait_until_live(&wall, paths, limit, progress, || None).await {
                Ok(url) => live(&url),
                // In the foreground somebody is looking, and processes are restarted for as long as it takes.
                Err(error) => progress(&format!("{error:#}")),
            }
            std::future::pending::<()>().await;
        };
        let stop = async {
            signals.told_to_stop().await;
            progress("ending the wall");
        };
        tokio::select! {
            ended = supervise::run(&wall, paths, stop) => ended,
            () = announced => Ok(()),
        }
    })?;
    // Held until the wall has ended.
    drop(lock);
    Ok(None)
}

fn plan(flags: &UpFlags, paths: &Paths) -> Result<Wall> {
    let table = fs::read_to_string("/proc/net/route").context("/proc/net/route")?;
    let underlay = Underlay::pick(&underlay::routed(&table)).context(
        "every network from 10.99.0.0/24 to 10.127.255.0/24 is routed on this machine; free one for the nodes",
    )?;
    let demo = siblings::demo_kernel();
    // Canonical, so that no link leads into what `down` removes.
    let absolute = |path: &Option<PathBuf>| -> Result<Option<PathBuf>> {
        let Some(path) = path else { return Ok(None) };
        let path = fs::canonicalize(path)?;
        for ours in [paths.run(), paths.disks()] {
            ensure!(
                !path.starts_with(ours),
                "{} lies in {}, which `loco down` removes; move it elsewhere",
                path.display(),
                ours.display()
            );
        }
        Ok(Some(path))
    };
    let mut boot = Boot {
        kernel: absolute(&flags.kernel)?,
        disk: absolute(&flags.disk)?,
        cdrom: absolute(&flags.cdrom)?,
        append: None,
        keep_disks: None,
        vnc: flags.vnc,
    };
    if boot.kernel.is_none() && boot.disk.is_none() && boot.cdrom.is_none() {
        let missing = "the demo game is not built; build it: `cargo xtask build`, or name a --kernel or --disk";
        boot.kernel = Some(demo.clone().context(missing)?);
    }
    // Other kernels take no notice of the word.
    boot.append = boot.kernel.is_some().then(|| format!("autoplay={}", u8::from(!flags.no_autoplay)));
    if let Some(dir) = &flags.keep_disks {
        fs::create_dir_all(dir).with_context(|| format!("--keep-disks: cannot make {}", dir.display()))?;
        boot.keep_disks = Some(kept_apart(&fs::canonicalize(dir)?, paths)?);
    }
    Ok(Wall::new(flags, underlay, boot, demo))
}

/// `down` removes its own directories whole: disks that are to be kept must lie neither in them nor around them.
fn kept_apart(dir: &Path, paths: &Paths) -> Result<PathBuf> {
    for ours in [paths.run(), paths.disks()] {
        ensure!(
            !dir.starts_with(ours) && !ours.starts_with(dir),
            "--keep-disks {} overlaps {}, which `loco down` removes; name a directory elsewhere, such as /var/lib/loco-disks",
            dir.display(),
            ours.display()
        );
    }
    Ok(dir.to_owned())
}

/// Everything that the processes read, before any of them starts.
fn write(wall: &Wall, paths: &Paths) -> Result<()> {
    let dir = |path: PathBuf, mode| {
        let made = fs::DirBuilder::new().recursive(true).mode(mode).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))
    };
    write_json(&paths.wall(), wall)?;
    write_json(&paths.snapshot(), &wall.snapshot())?;
    secrets::make(paths)?;
    dir(paths.logs(), 0o700)?;
    for node in &wall.nodes {
        dir(paths.node(&node.name), 0o711)?;
    }
    for instance in &wall.instances {
        let work = wall.work_dir(paths, &instance.id);
        // The guests' users pass through; only the directory itself is theirs.
        dir(work.parent().map(PathBuf::from).unwrap_or_default(), 0o711)?;
        dir(work.clone(), 0o700)?;
        std::os::unix::fs::chown(&work, Some(instance.uid), Some(instance.uid))
            .with_context(|| format!("cannot give {} to user {}", work.display(), instance.uid))?;
    }
    Ok(())
}

/// The supervisor as a process of its own session. It gets the lock as its standard input, which it never reads: so
/// the wall counts as running for exactly as long as the supervisor lives.
fn daemon(paths: &Paths, lock: File) -> Result<Child> {
    let log = logs::open(paths, "supervisor")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("supervise").env(MARKER, paths.run()).current_dir("/");
    command.stdin(Stdio::from(lock)).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("cannot start the supervisor")
}

fn daemon_ended(daemon: &mut Child) -> Option<String> {
    match daemon.try_wait() {
        Ok(None) => None,
        Ok(Some(status)) => Some(format!("the supervisor ended: {status}")),
        Err(error) => Some(format!("cannot look at the supervisor: {error}")),
    }
}

/// The page's URL once every instance is live; else why not, with the last words of whoever is to blame.
async fn wait_until_live(
    wall: &Wall,
    paths: &Paths,
    limit: Duration,
    progress: Progress<'_>,
    mut ended: impl FnMut() -> Option<String>,
) -> Result<String> {
    let token = secrets::read(paths)?;
    let began = Instant::now();
    let mut told = None;
    loop {
        if let Some(end) = ended() {
            bail!("{end}{}", last_words(paths, "supervisor"));
        }
        let state = State::read(paths).ok();
        if let Some(child) =
            state.iter().flat_map(|s| &s.children).find(|c| c.young_deaths >= HOPELESS && c.pid.is_none())
        {
            let name = child.role.name();
            let end = child.last_end.as_deref().unwrap_or("unknown");
            bail!("{name} ended {} times in a row ({end}){}", child.young_deaths, last_words(paths, &name));
        }
        let heard = status::live(wall, &token).await;
        let live = heard.as_ref().map_or(0, |l| l.instances.iter().filter(|i| i.state == Word::Live).count());
        if live == wall.instances.len() {
            progress(&format!("all {live} pictures are live after {:.1} s", began.elapsed().as_secs_f64()));
            return Ok(wall.page_url(&token));
        }
        if told != Some(live) {
            told = Some(live);
            progress(&format!("{live} of {} pictures are live", wall.instances.len()));
        }
        if began.elapsed() > limit {
            let why = match heard {
                Err(error) => format!("the gateway does not answer: {error:#}{}", last_words(paths, "gateway")),
                Ok(heard) => not_live(&heard, paths),
            };
            bail!(
                "{live} of {} pictures are live after {} s (--timeout)\n{why}",
                wall.instances.len(),
                limit.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One line for each of the first instances that are not live, and the last words of the first one's processes.
fn not_live(heard: &api::gateway::LiveInstances, paths: &Paths) -> String {
    let rest: Vec<_> = heard.instances.iter().filter(|i| i.state != Word::Live).collect();
    let mut lines: Vec<String> = rest
        .iter()
        .take(9)
        .map(|i| {
            let detail = i.status.as_ref().and_then(|s| s.detail.as_deref()).unwrap_or("no detail");
            format!("  {} on {}: {}: {detail}", i.id, i.node, status::word(i.state))
        })
        .collect();
    if let Some(first) = rest.first() {
        lines.push(last_words(paths, &format!("guest-runner-{}", first.id)));
        lines.push(last_words(paths, &format!("node-agent-{}", first.node)));
    }
    lines.join("\n")
}

/// The end of a log, indented; empty if it is.
fn last_words(paths: &Paths, name: &str) -> String {
    let lines = logs::tail(&paths.log(name), 8);
    if lines.is_empty() { String::new() } else { format!("\nlast words of {name}:\n  {}", lines.join("\n  ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_disks_lie_where_down_removes_nothing() {
        let paths = Paths::new("/run/loco", "/var/lib/loco");
        for bad in ["/var/lib/loco", "/var/lib/loco/keep", "/var/lib", "/", "/run/loco/x"] {
            let error = kept_apart(Path::new(bad), &paths).unwrap_err().to_string();
            assert!(error.contains("--keep-disks") && error.contains("elsewhere"), "{error}");
        }
        assert_eq!(kept_apart(Path::new("/var/lib/loco-disks"), &paths).unwrap(), Path::new("/var/lib/loco-disks"));
    }
}
