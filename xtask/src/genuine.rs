//! Programs of others as peers: Wine's DirectPlay and Samba's nmbd, from Debian trixie, on ports of a real LAN.
//!
//! They live in a folder of the cache that debootstrap makes once, from the mirror that apt uses here, and that no test
//! changes (`node-agent/tests/genuine/enter.sh`). Wine's own 64-bit DirectPlay reads sessions at places of its own, so
//! the folder is for i386, as the games are.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    closing::Count,
    dirs::Dirs,
    run::{self, Run as _},
    setup, tell,
    test::tests,
};

const SUITE: &str = "trixie";
const ARCHITECTURE: &str = "i386";
const PACKAGES: &str = "wine,wine32,samba,gcc-mingw-w64-i686-win32";
const PEER: &str = include_str!("../../node-agent/tests/genuine/peer.c");
const ENTER: &str = include_str!("../../node-agent/tests/genuine/enter.sh");
/// Whom the programs run as: nobody.
const NOBODY: &str = "65534";

/// Runs the tests with them.
pub(crate) fn run(dirs: &Dirs, count: &mut Count) -> Result<()> {
    ensure!(run::is_root(), "needs root: namespaces, and a Debian folder to change into");
    let folder = folder(dirs)?;
    crate::build::all(dirs)?;
    let mut cargo = run::cargo(dirs);
    cargo.env("LOCO_DEMO_KERNEL", dirs.demo_kernel()).env("LOCO_GENUINE_ROOT", folder);
    cargo.args(["test", "--package", "node-agent", "--test", "genuine", "--", "--ignored", "--test-threads=1"]);
    tests(&mut cargo, count)
}

/// The folder with everything in it; made where it is missing, with the test's own program as it is now.
fn folder(dirs: &Dirs) -> Result<PathBuf> {
    let home = dirs.cache().join("genuine");
    let folder = home.join(format!("{SUITE}-{ARCHITECTURE}"));
    if !folder.is_dir() {
        fs::create_dir_all(&home).with_context(|| format!("{}", home.display()))?;
        setup::add("debootstrap")?;
        let archive = setup::archive()?;
        // By another name until it is whole: who is interrupted begins anew.
        let unfinished = home.join("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).with_context(|| format!("{}", unfinished.display()))?;
        }
        tell(&format!("genuine peers: Debian {SUITE} with Wine and Samba into {} (once, 2.4 GB)", folder.display()));
        let mut debootstrap = Command::new("nice");
        debootstrap.args(["debootstrap", "--variant=minbase", &format!("--arch={ARCHITECTURE}")]);
        debootstrap.arg(format!("--include={PACKAGES}")).arg(SUITE).arg(&unfinished).arg(archive).run()?;
        let peer_home = unfinished.join("home/peer");
        fs::create_dir_all(&peer_home)?;
        std::os::unix::fs::chown(&peer_home, Some(65534), Some(65534))?;
        // Wine's folder of Windows, which takes it ten seconds.
        enter(&unfinished, NOBODY, "wineboot --init; wineserver --wait")?;
        fs::rename(&unfinished, &folder).with_context(|| format!("{}", folder.display()))?;
    }
    let source = folder.join("opt/peer.c");
    if fs::read_to_string(&source).is_ok_and(|text| text == PEER) && folder.join("opt/peer.exe").is_file() {
        return Ok(folder);
    }
    fs::write(&source, PEER).with_context(|| format!("{}", source.display()))?;
    let compile =
        "i686-w64-mingw32-gcc -municode -O1 -Wall -Wextra -Werror -o /opt/peer.exe /opt/peer.c -lole32 -ldxguid -luuid";
    let compiled = enter(&folder, "0", compile);
    if compiled.is_err() {
        // Else the next run would take the last program for this source's.
        fs::remove_file(&source)?;
    }
    compiled.map(|()| folder)
}

/// Runs a line of the shell in the folder, for good.
fn enter(folder: &Path, user: &str, line: &str) -> Result<()> {
    let mut unshare = Command::new("nice");
    unshare.args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "enter.sh", "keep"]);
    unshare.arg(folder).args([user, "sh", "-c", line]);
    // Its words hold a whole script, which nobody wants to read in front of each run.
    let output = unshare.output().context("cannot run unshare (Debian: util-linux)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{line}` in {} failed: {}\n{}", folder.display(), output.status, said.trim());
    Ok(())
}
