//! Macvtaps: the guest's end of one, and who holds it.
//!
//! ```text
//!  card of the node ── locom001068-0 (fabric's namespace) ── character device ── QEMU
//!                                                              socket `@loco/locom001068-0` ── runner: "it is held"
//! ```
//! **The character device.** Opening a macvtap is opening a character device with a number of its own (`drivers/net/tap.c`). `/dev` of a
//! container does not have it, and that of the machine names it by an interface number, which each namespace counts for itself. So
//! the number is read where it is true, in a sysfs of the device's namespace, and the node is made where nobody else looks: both on
//! mounts of one thread, which end with it. What stays is the descriptor.
//!
//! **Held or not.** A tap shows its holder by its carrier, and refuses a second one. A macvtap does neither: its carrier is its card's, and a
//! second descriptor would silently get a part of the guest's frames. Therefore whoever has the guest's end has a socket with
//! the device's name as well, of the namespace's abstract ones: a name that is there once, that everybody can see, and that goes
//! with its last descriptor, whatever becomes of the agent.
use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt as _,
        unix::{
            fs::OpenOptionsExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    thread,
};

use nix::{
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, SFlag, makedev, mknod},
};

use crate::tap::{self, Shape};

/// Of the names of the sockets that say that a macvtap is held.
const HOLD_PREFIX: &str = "loco/";
/// Where a thread of ours mounts what it needs: a directory that every system has.
const PRIVATE: &str = "/sys";

/// Why a macvtap could not be opened.
#[derive(Debug)]
pub(crate) enum MacvtapError {
    /// Somebody holds it.
    Busy,
    /// What could not be done.
    Io(&'static str, io::Error),
}

/// The guest's end of a macvtap.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) net: OwnedFd,
    /// To be kept open for as long as `net` is.
    pub(crate) hold: OwnedFd,
}

/// Opens the macvtap `name` of the calling thread's namespace, for frames as a tap of ours has them.
pub(crate) fn open(name: &str) -> Result<Opened, MacvtapError> {
    let hold = hold(name).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => MacvtapError::Busy,
        _ => MacvtapError::Io("bind the socket that tells who holds it", error),
    })?;
    let net = in_private_mounts(|| device(name))
        .unwrap_or_else(|error| Err(MacvtapError::Io("start a thread with mounts of its own", error)))?;
    tap::set_flags(&net, name, Shape::Frames)
        .map_err(|errno| MacvtapError::Io("set the form of its frames", errno.into()))?;
    Ok(Opened { net, hold })
}

/// The macvtaps of the calling thread's namespace that somebody holds, by name.
pub(crate) fn held() -> BTreeSet<String> {
    fs::read_to_string("/proc/thread-self/net/unix").map(|table| names(&table)).unwrap_or_default()
}

/// Of the text of `/proc/net/unix` (`proc_net_unix(5)`).
fn names(table: &str) -> BTreeSet<String> {
    let name =
        |line: &str| line.split_whitespace().nth(7)?.strip_prefix('@')?.strip_prefix(HOLD_PREFIX).map(str::to_owned);
    table.lines().filter_map(name).collect()
}

fn hold(name: &str) -> io::Result<OwnedFd> {
    let address = SocketAddr::from_abstract_name(format!("{HOLD_PREFIX}{name}"))?;
    UnixDatagram::bind_addr(&address).map(OwnedFd::from)
}

/// Needs mounts that nobody else sees.
fn device(name: &str) -> Result<OwnedFd, MacvtapError> {
    let failed = |what| move |error| MacvtapError::Io(what, error);
    mount_sysfs().map_err(failed("mount a sysfs"))?;
    let number = device_number(name).map_err(failed("find the number of its character device"))?;
    mount(Some("tmpfs"), PRIVATE, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some("size=4k"))
        .map_err(|errno| failed("mount a tmpfs")(errno.into()))?;
    let node = Path::new(PRIVATE).join("tap");
    mknod(&node, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, number)
        .map_err(|errno| failed("make the node of its character device")(errno.into()))?;
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(node);
    file.map(OwnedFd::from).map_err(failed("open its character device"))
}

/// As sysfs has it: `class/net/NAME/macvtap/tapN/dev`.
fn device_number(name: &str) -> io::Result<libc::dev_t> {
    let taps = Path::new(PRIVATE).join("class/net").join(name).join("macvtap");
    let tap = fs::read_dir(taps)?.next().ok_or(io::ErrorKind::NotFound)??;
    let text = fs::read_to_string(tap.path().join("dev"))?;
    let number =
        text.trim().split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let (major, minor) = number.ok_or_else(|| io::Error::other(format!("`{text}` is no device number")))?;
    Ok(makedev(major, minor))
}

/// Puts a sysfs of the calling thread's network namespace in the place of the machine's, for whoever has these mounts.
pub(crate) fn mount_sysfs() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
    Ok(mount(Some("sysfs"), PRIVATE, Some("sysfs"), flags, None::<&str>)?)
}

/// Runs `work` on a thread in the same namespaces but for its mounts, which are a copy that ends with it.
pub(crate) fn in_private_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let inside = || -> io::Result<T> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        Ok(work())
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("fabric-macvtap".to_owned()).spawn_scoped(scope, inside)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_macvtap_is_read_from_the_namespaces_sockets() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                     0000000000000000: 00000002 00000000 00000000 0002 01 31337 @loco/locom001068-0\n\
                     0000000000000000: 00000002 00000000 00000000 0002 01 31338 /run/loco/locom001068-1\n\
                     0000000000000000: 00000003 00000000 00000000 0001 03 31339\n\
                     0000000000000000: 00000002 00000000 00010000 0005 01 31340 @other\n";
        assert_eq!(names(table), BTreeSet::from(["locom001068-0".to_owned()]));
        assert!(names("").is_empty());
    }
}
