//! What stays on a node when agents come and go: made ready before the first of them, removed after the last.
use std::{fs, io, path::PathBuf};

use anyhow::Context as _;
use fabric::FabricConfig;
use tracing::{info, warn};

use crate::{config, standby};

/// Makes what an agent with fewer rights only adopts: the fabric's namespace, its sysctls, the file system for pins.
///
/// # Errors
/// When one of them could not be made, or would end with this process's mounts.
pub fn prepare(run_dir: PathBuf) -> anyhow::Result<()> {
    let run_dir = config::checked_run_dir(run_dir)?;
    let netns = config::fabric_netns(&run_dir);
    if !fabric::is_prepared(&netns) {
        fs::create_dir_all(&run_dir).with_context(|| {
            format!("{} cannot be made; mount a writable directory of the host there", run_dir.display())
        })?;
        config::check_mounts(&run_dir)?;
    }
    for problem in fabric::prepare(&netns)? {
        warn!(problem, "the fabric's namespace is not as desired");
    }
    ::traffic::prepare(&config::bpffs(&run_dir))?;
    info!(run_dir = %run_dir.display(), "prepared: an agent without the right to mount can take it from here");
    Ok(())
}

/// Removes what agents of `run_dir` left: the fabric's namespace with all in it, what is pinned, the seats, the directory.
///
/// # Errors
/// When something could not be removed; what could be is gone then.
pub fn uninstall(run_dir: PathBuf) -> anyhow::Result<()> {
    let run_dir = config::checked_run_dir(run_dir)?;
    let seen = ::traffic::uninstall(&config::bpffs(&run_dir));
    let fabric = fabric::uninstall(&FabricConfig {
        node: "uninstall".parse().expect("a constant, valid name"),
        netns: config::fabric_netns(&run_dir),
        underlay_ip: std::net::Ipv4Addr::UNSPECIFIED,
        vxlan_port: 0,
        underlay_netns: None,
        macvlan_parent: None,
        encryption: None,
    });
    let own = remove_own(&run_dir);
    fabric?;
    seen?;
    own.with_context(|| format!("{} could not be removed; remove it by hand", run_dir.display()))
}

/// Removes what an agent makes below its run directory, and the directory if nothing else is in it.
fn remove_own(run_dir: &std::path::Path) -> io::Result<()> {
    let absent_is_fine = |outcome: io::Result<()>| match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    absent_is_fine(fs::remove_dir_all(run_dir.join("seats")))?;
    absent_is_fine(fs::remove_file(standby::lock_file(run_dir)))?;
    // And what was to replace it, when an agent was killed in between.
    let last_known = config::last_known(run_dir);
    let its_name = last_known.file_name().unwrap_or_default().as_encoded_bytes();
    let games = config::games(run_dir);
    for file in [games.with_extension("new"), games] {
        absent_is_fine(fs::remove_file(file))?;
    }
    for entry in fs::read_dir(run_dir).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(its_name) {
            absent_is_fine(fs::remove_file(entry.path()))?;
        }
    }
    absent_is_fine(fs::remove_file(config::kvm_proof(run_dir)))?;
    absent_is_fine(fs::remove_file(config::wireguard_key(run_dir)))?;
    absent_is_fine(fs::remove_file(config::fabric_netns(run_dir)))?;
    match fs::remove_dir(run_dir) {
        // Busy, or below a read-only root: a container has it mounted; the directory is the host's then.
        Err(error) if is_kept(error.kind()) => Ok(()),
        other => absent_is_fine(other),
    }
}

/// Whether a directory that cannot be removed for this reason may stay: somebody else's things are in it, or it is a mount.
const fn is_kept(reason: io::ErrorKind) -> bool {
    use io::ErrorKind::{DirectoryNotEmpty, ReadOnlyFilesystem, ResourceBusy};
    matches!(reason, DirectoryNotEmpty | ReadOnlyFilesystem | ResourceBusy)
}
