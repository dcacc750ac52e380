//! Which packages, for what, and how to see that they are there.
use std::collections::BTreeMap;

use super::For;

enum Probe {
    Program(&'static str),
    Library(&'static str),
    File(&'static str),
}

struct Package {
    name: &'static str,
    need: For,
    /// Oldest major version that will do.
    oldest: Option<u32>,
    /// What its version must begin with: the tool chain of the eBPF programs, of which each series is a decision.
    series: Option<&'static str>,
    /// What it brings, for machines without dpkg.
    probe: Probe,
}

const fn package(name: &'static str, need: For, probe: Probe) -> Package {
    Package { name, need, oldest: None, series: None, probe }
}

const PACKAGES: &[Package] = &[
    package("build-essential", For::Up, Probe::Program("cc")),
    package("pkg-config", For::Up, Probe::Program("pkg-config")),
    package("libgstreamer1.0-dev", For::Up, Probe::Library("gstreamer-1.0")),
    package("libgstreamer-plugins-base1.0-dev", For::Up, Probe::Library("gstreamer-video-1.0")),
    package("gstreamer1.0-plugins-base", For::Up, Probe::Library("gstreamer-plugins-base-1.0")),
    package("gstreamer1.0-plugins-good", For::Up, Probe::Library("gstreamer-plugins-good-1.0")),
    package("gstreamer1.0-plugins-bad", For::Up, Probe::Library("gstreamer-plugins-bad-1.0")),
    // x264, which no library of pkg-config's tells of.
    package("gstreamer1.0-plugins-ugly", For::Up, Probe::File("/usr/lib/gstreamer-1.0/libgstx264.so")),
    Package { oldest: Some(10), ..package("qemu-system-x86", For::Up, Probe::Program("qemu-system-x86_64")) },
    // The D-Bus display.
    package("qemu-system-modules-opengl", For::Up, Probe::File("/usr/lib/qemu/ui-dbus.so")),
    package("qemu-utils", For::Up, Probe::Program("qemu-img")),
    // The eBPF programs (docs/adr/0013); crates/traffic/build.rs asks for the same series.
    Package { series: Some("1.96."), ..package("rustc-web", For::Up, Probe::File("/usr/bin/rustc")) },
    package("libstd-rust-web-dev-bpf", For::Up, Probe::File("/usr/lib/rustlib/bpfel-unknown-none")),
    package("llvm-22-dev", For::Up, Probe::File("/usr/lib/llvm-22/bin/llvm-config")),
    package("chromium", For::Test, Probe::Program("chromium")),
    package("fonts-dejavu-core", For::Test, Probe::File("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")),
    package("memtest86+", For::Test, Probe::File("/boot/memtest86+x64.bin")),
    package("grub-rescue-pc", For::Test, Probe::File("/usr/lib/grub-rescue/grub-rescue-cdrom.iso")),
    package("curl", For::Test, Probe::Program("curl")),
    // What it reads in a packet is held against what `wire` reads (docs/observer-oracle.md).
    package("tshark", For::Test, Probe::Program("tshark")),
    package("iproute2", For::Test, Probe::Program("ip")),
    package("nftables", For::Test, Probe::Program("nft")),
    package("dosbox", For::Test, Probe::Program("dosbox")),
    package("vde2", For::Test, Probe::Program("vde_switch")),
    package("procps", For::Bench, Probe::Program("pgrep")),
    package("gstreamer1.0-tools", For::Bench, Probe::Program("gst-launch-1.0")),
    package("websockify", For::Bench, Probe::Program("websockify")),
    package("containerd", For::Cluster, Probe::Program("containerd")),
    package("runc", For::Cluster, Probe::Program("runc")),
    package("containernetworking-plugins", For::Cluster, Probe::File("/usr/lib/cni/bridge")),
    package("buildah", For::Cluster, Probe::Program("buildah")),
    package("conntrack", For::Cluster, Probe::Program("conntrack")),
    package("openssl", For::Cluster, Probe::Program("openssl")),
    package("procps", For::Cluster, Probe::Program("sysctl")),
    package(GO, For::Cluster, Probe::Program("go")),
];

/// Programs that tests call, of packages that are known by another one.
const BESIDE: [(&str, &str); 4] =
    [("as", "build-essential"), ("bridge", "iproute2"), ("ld", "build-essential"), ("vde_plug", "vde2")];

/// Whether set-up for tests brings this program.
pub(super) fn installs_for_tests(program: &str) -> bool {
    let name = BESIDE.iter().find(|(beside, _)| *beside == program).map(|(_, package)| *package);
    let brings = |package: &Package| match (name, &package.probe) {
        (Some(name), _) => package.name == name,
        (None, Probe::Program(known)) => *known == program,
        (None, _) => false,
    };
    PACKAGES.iter().any(|package| For::Test.includes(package.need) && brings(package))
}

/// Builds Kubernetes. Any newer one will do, and that is mostly not Debian's.
pub(super) const GO: &str = "golang-go";

/// What a machine has from another source is as good, for the cluster: containerd and runc come with Docker, for example.
pub(super) fn is_foreign(name: &str, program: impl Fn(&str) -> bool, file: impl Fn(&str) -> bool) -> bool {
    let there = |package: &Package| match package.probe {
        Probe::Program(name) => program(name),
        Probe::File(path) => file(path),
        Probe::Library(_) => false,
    };
    // A Go that is too old is not good.
    name != GO && PACKAGES.iter().any(|package| package.name == name && package.need == For::Cluster && there(package))
}

/// Packages that are there, with their versions where those are known.
#[derive(Debug, Default)]
pub(super) struct Installed(BTreeMap<String, Option<String>>);

impl Installed {
    /// Lines `PACKAGE STATUS VERSION` of dpkg-query.
    pub(super) fn from_dpkg(text: &str) -> Self {
        let row = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
            [name, "installed", version] => Some((name.to_owned(), Some(version.to_owned()))),
            _ => None,
        };
        Self(text.lines().filter_map(row).collect())
    }

    pub(super) fn by_probing(
        program: impl Fn(&str) -> bool,
        library: impl Fn(&str) -> bool,
        file: impl Fn(&str) -> bool,
    ) -> Self {
        let there = |package: &&Package| match package.probe {
            Probe::Program(name) => program(name),
            Probe::Library(name) => library(name),
            Probe::File(path) => file(path),
        };
        Self(PACKAGES.iter().filter(there).map(|package| (package.name.to_owned(), None)).collect())
    }
}

pub(super) fn names(need: For) -> Vec<&'static str> {
    PACKAGES.iter().filter(|package| need.includes(package.need)).map(|package| package.name).collect()
}

/// What `need` lacks: not there, or older than will do.
pub(super) fn missing(need: For, installed: &Installed) -> Vec<&'static str> {
    let lacks = |package: &&Package| match installed.0.get(package.name) {
        None => true,
        Some(None) => false,
        Some(Some(version)) => {
            package.oldest.is_some_and(|oldest| major(version).is_none_or(|major| major < oldest))
                || package.series.is_some_and(|series| !upstream(version).starts_with(series))
        }
    };
    PACKAGES.iter().filter(|package| need.includes(package.need)).filter(lacks).map(|package| package.name).collect()
}

/// A Debian version without its epoch.
fn upstream(version: &str) -> &str {
    version.split_once(':').map_or(version, |(_, rest)| rest)
}

/// From a Debian version, `EPOCH:MAJOR.…`.
fn major(version: &str) -> Option<u32> {
    upstream(version).split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(but: &str) -> String {
        let version = |name: &str| if name == "rustc-web" { "1.96.0+dfsg1-1~deb12u2" } else { "1:10.0.2+ds-2~bpo12+1" };
        let line = |name: &&str| format!("{name} installed {}\n", version(name));
        names(For::Bench).iter().filter(|name| **name != but).map(line).collect()
    }

    #[test]
    fn nothing_is_missing_where_all_is_there() {
        assert!(missing(For::Bench, &Installed::from_dpkg(&all(""))).is_empty());
    }

    #[test]
    fn what_is_absent_removed_or_too_old_is_missing() {
        assert_eq!(missing(For::Up, &Installed::from_dpkg(&all("qemu-utils"))), ["qemu-utils"]);
        let removed = all("qemu-utils") + "qemu-utils config-files 1:10.0.2\n";
        assert_eq!(missing(For::Up, &Installed::from_dpkg(&removed)), ["qemu-utils"]);
        let old = all("qemu-system-x86") + "qemu-system-x86 installed 1:7.2+dfsg-7+deb12u13\n";
        assert_eq!(missing(For::Up, &Installed::from_dpkg(&old)), ["qemu-system-x86"]);
        let other = all("rustc-web") + "rustc-web installed 1.85.0+dfsg3-1~deb12u3\n";
        assert_eq!(missing(For::Up, &Installed::from_dpkg(&other)), ["rustc-web"]);
    }

    #[test]
    fn what_the_cluster_needs_may_come_from_elsewhere_and_all_else_may_not() {
        let there = |_: &str| true;
        assert!(is_foreign("containerd", there, there) && is_foreign("containernetworking-plugins", there, there));
        assert!(!is_foreign("containerd", |_| false, there) && !is_foreign(GO, there, there));
        assert!(!is_foreign("qemu-utils", there, there));
    }

    #[test]
    fn a_need_includes_those_before_it_and_no_others() {
        let installed = Installed::from_dpkg(&all("chromium"));
        assert!(missing(For::Up, &installed).is_empty());
        assert_eq!(missing(For::Bench, &installed), ["chromium"]);
        let nothing = Installed::by_probing(|_| false, |_| false, |_| false);
        assert_eq!(missing(For::Test, &nothing), names(For::Test));
        let programs = Installed::by_probing(|_| true, |_| false, |_| true);
        assert_eq!(missing(For::Up, &programs).len(), 5);
    }
}
