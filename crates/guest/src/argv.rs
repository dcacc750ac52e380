//! From a machine's description to QEMU's command line. Pure; golden-tested.
//!
//! **Invariants.** QEMU opens no path but those of its own work directory and its ROMs: kernel, disks, tap and KVM
//! come as descriptors, so an unprivileged QEMU may use what only root could open. A base disk comes read-only. A guest
//! that reboots stays (`-no-reboot` is never there: driver set-ups of Windows need several restarts).
use std::{
    ffi::OsString,
    fmt,
    os::fd::RawFd,
    path::{Path, PathBuf},
    str::FromStr,
};

use model::{InstanceId, MacAddr};

pub use crate::netdev::Netdev;
use crate::overlay::DiskFormat;

/// Descriptor numbers in QEMU. The KVM one is in an fd set, because QEMU opens it by name.
pub const FD_NET: RawFd = 3;
pub const FD_KVM: RawFd = 4;
pub const FD_KERNEL: RawFd = 5;
pub const FD_DISK: RawFd = 6;
pub const FD_CDROM: RawFd = 7;

/// Longest path of a Unix socket that the kernel takes, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Guest memory in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mebibytes(u32);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMachine {
    #[error("{0} MiB of memory is out of range; use 4 to 3072, and at most 512 for Windows 98")]
    Memory(u32),
    #[error("`{0}` is not a network card; use pcnet or ne2k_pci")]
    Nic(String),
    #[error("`{0}` is not a graphics card; use std, cirrus or vmware")]
    Video(String),
    #[error("work directory `{}` is too long: a socket in it would have {bytes} bytes, and a Unix socket's path has at \
             most {SOCKET_PATH_BYTES_MAX}; choose a shorter one", dir.display())]
    WorkDir { dir: PathBuf, bytes: usize },
}

impl Mebibytes {
    pub const fn new(mib: u32) -> Result<Self, InvalidMachine> {
        if mib < 4 || mib > 3072 { Err(InvalidMachine::Memory(mib)) } else { Ok(Self(mib)) }
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident, $error:ident, { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = InvalidMachine;
            fn from_str(text: &str) -> Result<Self, InvalidMachine> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    other => Err(InvalidMachine::$error(other.chars().take(40).collect())),
                }
            }
        }
    };
}

choice!(
    /// A network card that Windows 98 has a driver for.
    NicModel, Nic, {
        /// `Am79C970A`: 3 to 4 times the throughput of the other at half the CPU.
        Pcnet = "pcnet",
        /// RTL8029AS: what the prior images have set up.
        Ne2kPci = "ne2k_pci",
    }
);

choice!(
    /// What draws the picture.
    VideoCard, Video, {
        Std = "std",
        Cirrus = "cirrus",
        /// What the driver of `SoftGPU` wants.
        Vmware = "vmware",
    }
);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// QEMU's translator, on one thread: the prior art's guests hung early on several.
    Tcg,
    /// By the open descriptor [`FD_KVM`]: no device node, no group. Only where [`crate::prove_kvm`] said so.
    Kvm,
}

impl Accelerator {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }
}

/// What the machine starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// An ELF or bzImage as [`FD_KERNEL`], and the words it is given.
    Kernel { append: String },
    /// The Windows 98 machine: a base disk as [`FD_DISK`] under an overlay, a CD as [`FD_CDROM`].
    Disks { disk: Option<HardDisk>, cdrom: bool },
}

/// What is under the guest's first hard disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HardDisk {
    /// Of the base.
    pub format: DiskFormat,
    /// The base's file system takes locks, so that nobody can open it for writing while a guest runs from it.
    pub lock_base: bool,
    pub overlay: PathBuf,
    /// Each write is on the disk before the guest is told so: for guests that never flush (Windows 98 does not) and whose
    /// disk must outlive a power cut. Otherwise what was written since the last flush may be lost, and no more.
    pub write_through: bool,
}

/// A machine, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSpec {
    pub instance: InstanceId,
    /// Where the sockets and logs are.
    pub work_dir: PathBuf,
    pub memory: Mebibytes,
    pub boot: Boot,
    pub nic: NicModel,
    pub mac: MacAddr,
    pub netdev: Netdev,
    pub video: VideoCard,
    pub accelerator: Accelerator,
    /// A VNC server at [`WorkDir::vnc`] as well, for those who compare (`cargo xtask bench latency`).
    pub vnc: bool,
}

/// Sockets and files of one machine, all in its work directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkDir(PathBuf);

/// QEMU's monitors; each serves one client at a time, hence one for each user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Monitor {
    /// The runner's own: power, D-Bus handshakes, events.
    Runner,
    /// Its connected socket goes to the agent, for input and control.
    Input,
    /// Likewise, for refresh pokes alone: a slow poke must not delay a key.
    Poke,
}

impl Monitor {
    pub const ALL: [Self; 3] = [Self::Runner, Self::Input, Self::Poke];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Runner => "runner",
            Self::Input => "input",
            Self::Poke => "poke",
        }
    }
}

impl WorkDir {
    /// Refuses a directory whose sockets could not be bound.
    pub fn new(dir: &Path) -> Result<Self, InvalidMachine> {
        let this = Self(dir.to_owned());
        let bytes = Monitor::ALL.map(|monitor| this.monitor(monitor).as_os_str().len()).into_iter().max().unwrap_or(0);
        if bytes > SOCKET_PATH_BYTES_MAX {
            return Err(InvalidMachine::WorkDir { dir: dir.to_owned(), bytes });
        }
        Ok(this)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn monitor(&self, monitor: Monitor) -> PathBuf {
        self.0.join(format!("qmp-{}.sock", monitor.as_str()))
    }

    pub fn vnc(&self) -> PathBuf {
        self.0.join("vnc.sock")
    }

    /// What the guest writes to COM1: the last 256 KiB, the part before in `serial.log.1`.
    pub fn serial_log(&self) -> PathBuf {
        self.0.join("serial.log")
    }
}

impl MachineSpec {
    /// QEMU's arguments, without the program.
    pub fn argv(&self) -> Vec<OsString> {
        let mut argv = Argv::default();
        let work_dir = WorkDir(self.work_dir.clone());
        // `process=` is what `ps` and `pgrep` show: ours begin with `loco`.
        argv.put("-name", format!("guest={0},process=loco-{0},debug-threads=off", self.instance));
        argv.flag("-nodefaults").flag("-no-user-config");
        argv.put("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        argv.put("-machine", "pc");
        argv.put("-m", self.memory.0.to_string());
        argv.put("-smp", "1");
        match self.accelerator {
            Accelerator::Kvm => {
                argv.put("-add-fd", format!("fd={FD_KVM},set=2,opaque=kvm"));
                argv.put("-accel", "kvm,device=/dev/fdset/2");
            }
            Accelerator::Tcg => {
                // The translation cache grows to its limit: 32 MiB hold the demo, Windows needs more.
                let mib = if matches!(self.boot, Boot::Kernel { .. }) { 32 } else { 256 };
                argv.put("-accel", format!("tcg,thread=single,tb-size={mib}"));
            }
        }
        argv.put("-vga", self.video.as_str());
        argv.put("-display", "dbus,p2p=on,audiodev=snd0");
        // 48 kHz is Opus' own rate, so nothing is resampled twice. QEMU writes a buffer of 10 ms a tick and skips what a late
        // tick missed: with a tick each 10 ms a busy machine lost 3 to 15 of 100 packets, with 5 ms none.
        argv.put("-audiodev", "dbus,id=snd0,out.frequency=48000,timer-period=5000");
        argv.put("-device", "sb16,audiodev=snd0");
        argv.put("-netdev", self.netdev.arg());
        // Without its boot ROM: nobody boots from the network, and the start is faster.
        argv.put("-device", format!("{},netdev={},mac={},romfile=", self.nic, crate::netdev::ID, self.mac));
        for monitor in Monitor::ALL {
            let name = monitor.as_str();
            let mut value = OsString::from(format!("socket,id=qmp-{name},server=on,wait=off,path="));
            value.push(escaped(&work_dir.monitor(monitor)));
            argv.put("-chardev", value);
            argv.put("-mon", format!("chardev=qmp-{name},mode=control"));
        }
        // COM1 goes to standard output, a pipe to the runner, which keeps a bounded log. QEMU drops what a full pipe
        // does not take; it never waits for it.
        argv.put("-chardev", "file,id=com1,path=/proc/self/fd/1").put("-serial", "chardev:com1");
        if self.vnc {
            let mut value = OsString::from("unix:");
            value.push(escaped(&work_dir.vnc()));
            // By default a client that asks for the screen alone throws the others out.
            value.push(",share=force-shared");
            argv.put("-vnc", value);
        }
        match &self.boot {
            Boot::Kernel { append } => {
                argv.put("-kernel", format!("/proc/self/fd/{FD_KERNEL}"));
                argv.put("-append", append.as_str());
            }
            Boot::Disks { disk, cdrom } => argv.disks(disk.as_ref(), *cdrom),
        }
        argv.0
    }
}

#[derive(Default)]
struct Argv(Vec<OsString>);

impl Argv {
    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.into());
        self
    }

    fn put(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.0.push(name.into());
        self.0.push(value.into());
        self
    }

    /// The rest of the Windows 98 machine. `pc`, because `q35` has no drivers there; one processor and at most 512 MiB
    /// are all it can use; the clock is in local time; `sb16` and both network cards have drivers on its CD.
    fn disks(&mut self, disk: Option<&HardDisk>, cdrom: bool) {
        // SoftGPU's rasteriser needs SSE-class instructions; anything newer in CPUID confuses Windows 98.
        self.put("-cpu", "qemu32,+sse3,+ssse3,+sse4.1");
        self.put("-rtc", "base=localtime");
        if let Some(HardDisk { format, lock_base, overlay, write_through }) = disk {
            self.put("-add-fd", format!("fd={FD_DISK},set=1,opaque=base"));
            // QEMU takes a shared lock where it can: nine of them read one base, and none lets anybody write it.
            let locking = if *lock_base { "auto" } else { "off" };
            self.put(
                "-blockdev",
                format!(
                    "driver=file,node-name=base-file,filename=/dev/fdset/1,read-only=on,auto-read-only=off,\
                     locking={locking}"
                ),
            );
            self.put("-blockdev", format!("driver={format},node-name=base,file=base-file,read-only=on"));
            // Through the host's page cache, each flush of the guest honoured.
            let mut value = OsString::from("driver=file,node-name=overlay-file,cache.no-flush=off,filename=");
            value.push(escaped(overlay));
            self.put("-blockdev", value);
            // `backing` by node: the path in the overlay's header is for people, QEMU never follows it.
            self.put("-blockdev", "driver=qcow2,node-name=disk0,file=overlay-file,backing=base");
            // What goes wrong with the host's storage stops the guest, which can go on later, instead of breaking its file
            // system: a full disk, a quota, a server that is away.
            let write_cache = if *write_through { "off" } else { "on" };
            self.put(
                "-device",
                format!(
                    "ide-hd,drive=disk0,bus=ide.0,unit=0,bootindex=1,werror=stop,rerror=stop,write-cache={write_cache}"
                ),
            );
        }
        if cdrom {
            self.put("-add-fd", format!("fd={FD_CDROM},set=3,opaque=cdrom"));
            self.put(
                "-blockdev",
                "driver=file,node-name=cdrom-file,filename=/dev/fdset/3,read-only=on,auto-read-only=off",
            );
            self.put("-blockdev", "driver=raw,node-name=cdrom0,file=cdrom-file,read-only=on");
            // After the disk: an empty disk falls through to the CD, an installed one does not start its set-up again.
            self.put("-device", "ide-cd,drive=cdrom0,bus=ide.1,unit=0,bootindex=2");
        }
    }
}

/// A path as a value among QEMU's comma-separated ones.
fn escaped(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let mut bytes = Vec::with_capacity(path.as_os_str().len());
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn spec(boot: Boot) -> MachineSpec {
        MachineSpec {
            instance: "instance-3".parse().unwrap(),
            work_dir: "/run/loco/guests/instance-3".into(),
            memory: Mebibytes::new(24).unwrap(),
            boot,
            nic: NicModel::Pcnet,
            mac: MacAddr([2, 0x4c, 0, 0x10, 0x68, 4]),
            netdev: Netdev::Tap,
            video: VideoCard::Std,
            accelerator: Accelerator::Tcg,
            vnc: false,
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "expect![] is made where it is given")]
    #[track_caller]
    fn check(spec: &MachineSpec, want: Expect) {
        let mut text = String::new();
        for arg in spec.argv() {
            let arg = arg.into_string().unwrap();
            text.push_str(if arg.starts_with('-') { "\n" } else { " " });
            text.push_str(&arg);
        }
        want.assert_eq(text.trim_start());
    }

    #[test]
    fn demo_kernel() {
        check(
            &spec(Boot::Kernel { append: "seat=3 name=LOCO1068-4".into() }),
            expect![[r"
            -name guest=instance-3,process=loco-instance-3,debug-threads=off
            -nodefaults
            -no-user-config
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
            -machine pc
            -m 24
            -smp 1
            -accel tcg,thread=single,tb-size=32
            -vga std
            -display dbus,p2p=on,audiodev=snd0
            -audiodev dbus,id=snd0,out.frequency=48000,timer-period=5000
            -device sb16,audiodev=snd0
            -netdev tap,id=net0,fd=3
            -device pcnet,netdev=net0,mac=02:4c:00:10:68:04,romfile=
            -chardev socket,id=qmp-runner,server=on,wait=off,path=/run/loco/guests/instance-3/qmp-runner.sock
            -mon chardev=qmp-runner,mode=control
            -chardev socket,id=qmp-input,server=on,wait=off,path=/run/loco/guests/instance-3/qmp-input.sock
            -mon chardev=qmp-input,mode=control
            -chardev socket,id=qmp-poke,server=on,wait=off,path=/run/loco/guests/instance-3/qmp-poke.sock
            -mon chardev=qmp-poke,mode=control
            -chardev file,id=com1,path=/proc/self/fd/1
            -serial chardev:com1
            -kernel /proc/self/fd/5
            -append seat=3 name=LOCO1068-4"]],
        );
    }

    #[test]
    fn windows_98() {
        let overlay = "/claim/c,d/overlay.qcow2".into();
        let disk = HardDisk { format: DiskFormat::Qcow2, lock_base: true, overlay, write_through: true };
        let mut spec = spec(Boot::Disks { disk: Some(disk), cdrom: true });
        spec.memory = Mebibytes::new(512).unwrap();
        spec.nic = NicModel::Ne2kPci;
        spec.accelerator = Accelerator::Kvm;
        spec.work_dir = "/run/a,b".into();
        spec.vnc = true;
        check(
            &spec,
            expect![[r"
            -name guest=instance-3,process=loco-instance-3,debug-threads=off
            -nodefaults
            -no-user-config
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
            -machine pc
            -m 512
            -smp 1
            -add-fd fd=4,set=2,opaque=kvm
            -accel kvm,device=/dev/fdset/2
            -vga std
            -display dbus,p2p=on,audiodev=snd0
            -audiodev dbus,id=snd0,out.frequency=48000,timer-period=5000
            -device sb16,audiodev=snd0
            -netdev tap,id=net0,fd=3
            -device ne2k_pci,netdev=net0,mac=02:4c:00:10:68:04,romfile=
            -chardev socket,id=qmp-runner,server=on,wait=off,path=/run/a,,b/qmp-runner.sock
            -mon chardev=qmp-runner,mode=control
            -chardev socket,id=qmp-input,server=on,wait=off,path=/run/a,,b/qmp-input.sock
            -mon chardev=qmp-input,mode=control
            -chardev socket,id=qmp-poke,server=on,wait=off,path=/run/a,,b/qmp-poke.sock
            -mon chardev=qmp-poke,mode=control
            -chardev file,id=com1,path=/proc/self/fd/1
            -serial chardev:com1
            -vnc unix:/run/a,,b/vnc.sock,share=force-shared
            -cpu qemu32,+sse3,+ssse3,+sse4.1
            -rtc base=localtime
            -add-fd fd=6,set=1,opaque=base
            -blockdev driver=file,node-name=base-file,filename=/dev/fdset/1,read-only=on,auto-read-only=off,locking=auto
            -blockdev driver=qcow2,node-name=base,file=base-file,read-only=on
            -blockdev driver=file,node-name=overlay-file,cache.no-flush=off,filename=/claim/c,,d/overlay.qcow2
            -blockdev driver=qcow2,node-name=disk0,file=overlay-file,backing=base
            -device ide-hd,drive=disk0,bus=ide.0,unit=0,bootindex=1,werror=stop,rerror=stop,write-cache=off
            -add-fd fd=7,set=3,opaque=cdrom
            -blockdev driver=file,node-name=cdrom-file,filename=/dev/fdset/3,read-only=on,auto-read-only=off
            -blockdev driver=raw,node-name=cdrom0,file=cdrom-file,read-only=on
            -device ide-cd,drive=cdrom0,bus=ide.1,unit=0,bootindex=2"]],
        );
    }

    #[test]
    fn refuses_with_the_range() {
        assert_eq!(
            Mebibytes::new(4096).unwrap_err().to_string(),
            "4096 MiB of memory is out of range; use 4 to 3072, and at most 512 for Windows 98"
        );
        assert_eq!(
            "e1000".parse::<NicModel>().unwrap_err().to_string(),
            "`e1000` is not a network card; use pcnet or ne2k_pci"
        );
        let dir = PathBuf::from("/").join("x".repeat(100));
        assert!(WorkDir::new(&dir).unwrap_err().to_string().contains("choose a shorter one"));
        assert!(WorkDir::new(Path::new("/run/loco/guests/instance-3")).is_ok());
    }
}
