//! Flags and environment, checked as a whole before anything is opened.
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use guest::{
    argv::{Mebibytes, NicModel, VideoCard, WorkDir},
    lifecycle::POWER_LIMIT,
};
use model::InstanceId;
use nix::unistd::{Gid, Uid};

/// Memory of the demo guest, in MiB.
const KERNEL_MEMORY: u32 = 24;
/// What Windows 98 can use: above, it hangs at boot or reports VCACHE errors.
const DISK_MEMORY: u32 = 512;

/// Runs one guest in QEMU on a port of its node's agent.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Name of the instance, such as instance-0
    #[arg(long, env = "LOCO_INSTANCE")]
    instance: InstanceId,
    /// Unix socket of this instance's seat
    #[arg(long, env = "LOCO_AGENT_SOCKET", value_name = "PATH")]
    agent_socket: PathBuf,
    /// Directory for the overlay disk, sockets and logs; made if it is missing
    #[arg(long, env = "LOCO_WORK_DIR", value_name = "DIR")]
    work_dir: PathBuf,
    /// Address for /healthz, /readyz and /metrics
    #[arg(long, env = "LOCO_LISTEN", value_name = "IP:PORT")]
    listen: SocketAddr,
    /// Kernel to boot (ELF or bzImage)
    #[arg(long, env = "LOCO_KERNEL", value_name = "FILE", conflicts_with_all = ["disk", "cdrom"])]
    kernel: Option<PathBuf>,
    /// More words for the kernel, after those of the seat
    #[arg(long, env = "LOCO_APPEND", value_name = "TEXT", conflicts_with_all = ["disk", "cdrom"])]
    append: Option<String>,
    /// Disk image to start from; it is never written, changes go to an overlay in the work directory
    #[arg(long, env = "LOCO_DISK", value_name = "FILE")]
    disk: Option<PathBuf>,
    /// CD image; started from if there is no disk or an empty one
    #[arg(long, env = "LOCO_CDROM", value_name = "FILE")]
    cdrom: Option<PathBuf>,
    /// Guest memory; 24 with --kernel, else 512
    #[arg(long, env = "LOCO_MEMORY", value_name = "MIB")]
    memory: Option<u32>,
    /// Network card: `pcnet` or `ne2k_pci`
    #[arg(long, env = "LOCO_NIC", default_value = "pcnet")]
    nic: NicModel,
    /// Graphics card: `std`, `cirrus` or `vmware`
    #[arg(long, env = "LOCO_VIDEO", default_value = "std")]
    video: VideoCard,
    /// Serve VNC as well, at vnc.sock in the work directory
    #[arg(long, env = "LOCO_VNC")]
    vnc: bool,
    /// Time for the guest to switch itself off at SIGTERM, before QEMU is ended
    #[arg(long, env = "LOCO_GRACE", value_name = "SECONDS", default_value_t = POWER_LIMIT.as_secs())]
    grace: u64,
    /// User to become; needed as root
    #[arg(long, env = "LOCO_UID", value_name = "N")]
    uid: Option<u32>,
    /// Group to become; needed as root
    #[arg(long, env = "LOCO_GID", value_name = "N")]
    gid: Option<u32>,
}

/// Who this process is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Already somebody without rights: nothing to become.
    Self_,
    Other {
        uid: Uid,
        gid: Gid,
    },
}

#[derive(Debug)]
pub(crate) enum Source {
    Kernel { kernel: PathBuf, append: Option<String> },
    Disks { disk: Option<PathBuf>, cdrom: Option<PathBuf> },
}

#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) instance: InstanceId,
    pub(crate) agent_socket: PathBuf,
    pub(crate) work_dir: WorkDir,
    pub(crate) listen: SocketAddr,
    pub(crate) source: Source,
    pub(crate) memory: Mebibytes,
    pub(crate) nic: NicModel,
    pub(crate) video: VideoCard,
    pub(crate) vnc: bool,
    pub(crate) grace: Duration,
    pub(crate) owner: Owner,
}

impl TryFrom<Args> for Config {
    type Error = anyhow::Error;

    fn try_from(args: Args) -> anyhow::Result<Self> {
        let source = match (args.kernel, args.disk, args.cdrom) {
            (Some(kernel), ..) => Source::Kernel { kernel, append: args.append },
            (None, None, None) => bail!("nothing to start; give --kernel, --disk or --cdrom"),
            (None, disk, cdrom) => Source::Disks { disk, cdrom },
        };
        let memory = args.memory.unwrap_or(match source {
            Source::Kernel { .. } => KERNEL_MEMORY,
            Source::Disks { .. } => DISK_MEMORY,
        });
        // QEMU's arguments name files in it, and QEMU may be given another working directory.
        let work_dir = absolute(&args.work_dir)?;
        Ok(Self {
            instance: args.instance,
            agent_socket: absolute(&args.agent_socket)?,
            work_dir: WorkDir::new(&work_dir).context("--work-dir cannot be used")?,
            listen: args.listen,
            source,
            memory: Mebibytes::new(memory).context("--memory cannot be used")?,
            nic: args.nic,
            video: args.video,
            vnc: args.vnc,
            grace: Duration::from_secs(args.grace),
            owner: owner(args.uid, args.gid, Uid::effective(), Gid::effective())?,
        })
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("`{}` is not a path", path.display()))
}

fn owner(uid: Option<u32>, gid: Option<u32>, own_user: Uid, own_group: Gid) -> anyhow::Result<Owner> {
    if own_user.is_root() {
        let (Some(uid), Some(gid)) = (uid, gid) else {
            bail!("a guest never runs as root; give --uid and --gid of a user of its own");
        };
        ensure!(uid != 0 && gid != 0, "a guest never runs as root; --uid and --gid must not be 0");
        return Ok(Owner::Other { uid: uid.into(), gid: gid.into() });
    }
    let same = |flag: &str, want: Option<u32>, is: u32| {
        ensure!(
            want.is_none_or(|want| want == is),
            "only root can become another {flag}; this is {is}: leave --{flag} out"
        );
        Ok(())
    };
    same("uid", uid, own_user.as_raw())?;
    same("gid", gid, own_group.as_raw())?;
    Ok(Owner::Self_)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &str) -> anyhow::Result<Config> {
        let common = "guest-runner --instance instance-0 --agent-socket /a --work-dir /w --listen 127.0.0.1:0 \
                      --uid 1000 --gid 1000";
        let args = Args::try_parse_from(common.split_whitespace().chain(flags.split_whitespace()))?;
        let config = Config::try_from(Args { uid: None, gid: None, ..args });
        // These tests run as whoever they run as.
        config.or_else(
            |error| if error.to_string().contains("--uid and --gid") { parse_as_root(flags) } else { Err(error) },
        )
    }

    fn parse_as_root(flags: &str) -> anyhow::Result<Config> {
        let common = "guest-runner --instance instance-0 --agent-socket /a --work-dir /w --listen 127.0.0.1:0 \
                      --uid 1000 --gid 1000";
        Config::try_from(Args::try_parse_from(common.split_whitespace().chain(flags.split_whitespace()))?)
    }

    #[track_caller]
    fn refused(flags: &str, want: &str) {
        let error = format!("{:#}", parse(flags).unwrap_err());
        assert!(error.contains(want), "{error}");
    }

    #[test]
    fn wrong_flags_are_named() {
        refused("", "nothing to start; give --kernel, --disk or --cdrom");
        refused("--kernel k --disk d", "--disk");
        refused("--disk d --append x", "--append");
        refused("--kernel k --memory 2", "--memory cannot be used: 2 MiB of memory is out of range");
        refused("--kernel k --nic e1000", "use pcnet or ne2k_pci");
        assert!(parse("--kernel k --append seat").is_ok() && parse("--disk d --cdrom c").is_ok());
    }

    #[test]
    fn memory_follows_what_is_started() {
        assert_eq!(parse("--kernel k").unwrap().memory, Mebibytes::new(24).unwrap());
        assert_eq!(parse("--cdrom c").unwrap().memory, Mebibytes::new(512).unwrap());
        assert_eq!(parse("--cdrom c --memory 64").unwrap().memory, Mebibytes::new(64).unwrap());
    }

    #[test]
    fn nobody_runs_as_root_or_as_another() {
        let (root, zero) = (Uid::from_raw(0), Gid::from_raw(0));
        let (user, group) = (Uid::from_raw(1000), Gid::from_raw(1000));
        let become_user = Owner::Other { uid: user, gid: group };
        assert_eq!(owner(Some(1000), Some(1000), root, zero).unwrap(), become_user);
        for (uid, gid) in [(None, None), (Some(1000), None), (Some(0), Some(1000)), (Some(1000), Some(0))] {
            assert!(owner(uid, gid, root, zero).is_err());
        }
        assert_eq!(owner(None, Some(1000), user, group).unwrap(), Owner::Self_);
        let error = owner(Some(1001), None, user, group).unwrap_err().to_string();
        assert_eq!(error, "only root can become another uid; this is 1000: leave --uid out");
    }
}
