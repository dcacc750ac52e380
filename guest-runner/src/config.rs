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
    storage::{Lifetime, Wanted},
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
    /// Directory for what the guest writes (an overlay over --disk); made if it is missing
    #[arg(long, env = "LOCO_WORK_DIR", value_name = "DIR")]
    work_dir: PathBuf,
    /// Used instead of --work-dir when that is away or full at the start; it is said wherever the instance is shown
    #[arg(long, env = "LOCO_FALLBACK_DIR", value_name = "DIR")]
    fallback_dir: Option<PathBuf>,
    /// Directory for sockets and logs; the work directory unless given, or one in /tmp if sockets cannot be made there
    #[arg(long, env = "LOCO_RUN_DIR", value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// How long what the guest writes is kept: `persistent`, until a reset; `ephemeral`, as long as the pod of --pod-uid
    #[arg(long, env = "LOCO_LIFETIME", default_value = "persistent")]
    lifetime: LifetimeArg,
    /// The pod's uid, which tells a restarted container from a new pod; without it, this process is all there is
    #[arg(long, env = "LOCO_POD_UID", value_name = "UID")]
    pod_uid: Option<String>,
    /// Put each write of the guest on the disk before the guest is told so: `on`, `off`, or `auto`: on if persistent
    #[arg(long, env = "LOCO_WRITE_THROUGH", default_value = "auto")]
    write_through: WriteThrough,
    /// Address for /healthz, /readyz, /startupz and /metrics
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
    /// How long QEMU may be silent before /healthz fails; raise it where processors are scarce
    #[arg(long, env = "LOCO_STUCK_AFTER", value_name = "SECONDS", default_value_t = 60)]
    stuck_after: u64,
    /// User to become; needed as root
    #[arg(long, env = "LOCO_UID", value_name = "N")]
    uid: Option<u32>,
    /// Group to become; needed as root
    #[arg(long, env = "LOCO_GID", value_name = "N")]
    gid: Option<u32>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LifetimeArg {
    Persistent,
    Ephemeral,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum WriteThrough {
    Auto,
    On,
    Off,
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
    /// Where the guest's disk is.
    pub(crate) storage: Wanted,
    pub(crate) write_through: bool,
    /// Where sockets and logs are, if that was said.
    pub(crate) run_dir: Option<PathBuf>,
    pub(crate) listen: SocketAddr,
    pub(crate) source: Source,
    pub(crate) memory: Mebibytes,
    pub(crate) nic: NicModel,
    pub(crate) video: VideoCard,
    pub(crate) vnc: bool,
    pub(crate) grace: Duration,
    pub(crate) stuck_after: Duration,
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
        let primary = absolute(&args.work_dir)?;
        // A chart says nothing with an empty value.
        let said = |dir: Option<PathBuf>| dir.filter(|dir| !dir.as_os_str().is_empty());
        let fallback = said(args.fallback_dir).as_deref().map(absolute).transpose()?;
        ensure!(fallback.as_ref() != Some(&primary), "--fallback-dir must be another directory than --work-dir");
        let run_dir = said(args.run_dir).as_deref().map(absolute).transpose()?;
        // Refused now: QEMU would refuse it later, in words of its own.
        WorkDir::new(run_dir.as_ref().unwrap_or(&primary)).context("sockets cannot be made there; see --run-dir")?;
        let lifetime = match args.lifetime {
            LifetimeArg::Persistent => Lifetime::Persistent,
            LifetimeArg::Ephemeral => Lifetime::Ephemeral,
        };
        // Without a pod this very process stands for it: a restart by order keeps the disk, a new process does not.
        let process = || format!("process {} of {:?}", std::process::id(), std::time::SystemTime::now());
        let pod = args.pod_uid.filter(|uid| !uid.is_empty()).or_else(|| Some(process()));
        Ok(Self {
            instance: args.instance,
            agent_socket: absolute(&args.agent_socket)?,
            storage: Wanted { primary, fallback, lifetime, pod },
            write_through: match args.write_through {
                WriteThrough::Auto => lifetime == Lifetime::Persistent,
                WriteThrough::On => true,
                WriteThrough::Off => false,
            },
            run_dir,
            listen: args.listen,
            source,
            memory: Mebibytes::new(memory).context("--memory cannot be used")?,
            nic: args.nic,
            video: args.video,
            vnc: args.vnc,
            grace: Duration::from_secs(args.grace),
            stuck_after: Duration::from_secs(args.stuck_after),
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
    fn storage_is_as_said() {
        let plain = parse("--kernel k").unwrap();
        assert!(plain.storage.lifetime == Lifetime::Persistent && plain.write_through && plain.run_dir.is_none());
        assert!(plain.storage.pod.is_some() && plain.storage.fallback.is_none());
        let said = parse("--kernel k --lifetime ephemeral --pod-uid u --fallback-dir /f --run-dir /r").unwrap();
        assert!(said.storage.lifetime == Lifetime::Ephemeral && !said.write_through);
        assert_eq!(said.storage.pod.as_deref(), Some("u"));
        assert_eq!((said.storage.fallback, said.run_dir), (Some("/f".into()), Some("/r".into())));
        assert!(parse("--kernel k --lifetime ephemeral --write-through on").unwrap().write_through);
        assert!(!parse("--kernel k --write-through off").unwrap().write_through);
        refused("--kernel k --fallback-dir /w", "must be another directory");
        refused(&format!("--kernel k --run-dir /{}", "x".repeat(120)), "see --run-dir");
        refused("--kernel k --lifetime forever", "persistent");
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
