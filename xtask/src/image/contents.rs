//! What is in each image. How it runs (user, entry point, labels that never change) is in `images/Containerfile`.

/// Something of ours that is built for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Product {
    /// A binary of this cargo package, as `/usr/bin/NAME`.
    Program { package: &'static str, name: &'static str },
    /// A binary that needs no loader, at this path.
    Static { package: &'static str, name: &'static str, path: &'static str },
    /// The demo game's kernel, at this path.
    DemoKernel { path: &'static str },
}

/// One image. Libraries are not listed: they follow from the programs.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) name: &'static str,
    pub(super) products: &'static [Product],
    /// Files of the system, by absolute path; `{lib}` is its directory of libraries.
    pub(super) system: &'static [&'static str],
    /// Ways to start it that must end well before it may leave this machine. The first word is the program.
    pub(super) trials: &'static [Trial],
}

/// One start of an image.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) argv: &'static [&'static str],
    pub(super) stdin: &'static str,
    /// What its output must contain.
    pub(super) says: &'static str,
}

const fn trial(argv: &'static [&'static str], says: &'static str) -> Trial {
    Trial { argv, stdin: "", says }
}

const fn program(name: &'static str) -> Product {
    Product::Program { package: name, name }
}

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// A machine as the runner starts it, with each card that it offers, that ends at once: modules, firmware, key map and the
/// system call filter are all there, or QEMU refuses.
macro_rules! qemu {
    ($vga:literal, $nic:literal) => {
        Trial {
            argv: &[
                QEMU,
                "-nodefaults",
                "-no-user-config",
                "-machine",
                "pc",
                "-m",
                "16",
                "-accel",
                "tcg",
                "-S",
                "-vga",
                $vga,
                "-sandbox",
                "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
                "-display",
                "dbus,p2p=on,audiodev=snd0",
                "-audiodev",
                "dbus,id=snd0",
                "-device",
                "sb16,audiodev=snd0",
                "-netdev",
                "hubport,id=net0,hubid=0",
                "-device",
                concat!($nic, ",netdev=net0,romfile="),
                "-vnc",
                "unix:/tmp/vnc.sock",
                "-qmp",
                "stdio",
            ],
            stdin: "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"quit\"}\n",
            says: "\"SHUTDOWN\"",
        }
    };
}

/// Every image, in the order in which they are built.
pub(super) const IMAGES: &[Image] = &[
    Image {
        name: "node-agent",
        // The demo kernel, and QEMU with its firmware, prove that KVM runs guests.
        products: &[program("node-agent"), Product::DemoKernel { path: "/usr/share/loco/demo-guest.elf" }],
        system: &[
            "{lib}/gstreamer-1.0/libgstaudioconvert.so",
            "{lib}/gstreamer-1.0/libgstaudioresample.so",
            "{lib}/gstreamer-1.0/libgstcoreelements.so",
            "{lib}/gstreamer-1.0/libgstopus.so",
            "{lib}/gstreamer-1.0/libgstx264.so",
            QEMU,
            "/usr/share/qemu/kvmvapic.bin",
            "/usr/share/qemu/linuxboot_dma.bin",
            "/usr/share/qemu/multiboot_dma.bin",
            "/usr/share/qemu/pvh.bin",
            "/usr/share/seabios/bios-256k.bin",
        ],
        trials: &[
            trial(&["/usr/bin/node-agent", "--version"], "node-agent"),
            trial(&["/usr/bin/node-agent", "check-encoders"], ""),
            trial(&[QEMU, "--version"], "version 1"),
        ],
    },
    Image {
        name: "gateway",
        products: &[program("gateway")],
        system: &[],
        trials: &[trial(&["/usr/bin/gateway", "--version"], "gateway")],
    },
    Image {
        name: "guest-runner",
        products: &[program("guest-runner")],
        // Cards are started without their boot ROMs (`romfile=`), so none of those is here.
        system: &[
            QEMU,
            "/usr/bin/qemu-img",
            "{lib}/qemu/audio-dbus.so",
            "{lib}/qemu/ui-dbus.so",
            "{lib}/qemu/ui-opengl.so",
            "/usr/share/qemu/keymaps/en-us",
            "/usr/share/qemu/kvmvapic.bin",
            "/usr/share/qemu/linuxboot_dma.bin",
            "/usr/share/qemu/multiboot_dma.bin",
            "/usr/share/qemu/pvh.bin",
            "/usr/share/seabios/bios-256k.bin",
            "/usr/share/seabios/vgabios-cirrus.bin",
            "/usr/share/seabios/vgabios-stdvga.bin",
            "/usr/share/seabios/vgabios-vmware.bin",
        ],
        trials: &[
            trial(&["/usr/bin/guest-runner", "--version"], "guest-runner"),
            trial(&["/usr/bin/qemu-img", "create", "-f", "qcow2", "/tmp/trial.qcow2", "1M"], "Formatting"),
            qemu!("std", "pcnet"),
            qemu!("cirrus", "ne2k_pci"),
            qemu!("vmware", "pcnet"),
        ],
    },
    Image {
        name: "demo-guest",
        products: &[
            Product::DemoKernel { path: "/demo-guest.elf" },
            Product::Static { package: "copy", name: "copy", path: "/copy" },
        ],
        system: &[],
        trials: &[trial(&["/copy", "/demo-guest.elf", "/tmp/copied.elf"], "copied /demo-guest.elf")],
    },
    Image {
        name: "test-peer",
        products: &[Product::Program { package: "k8s-tests", name: "test-peer" }],
        system: &[],
        trials: &[trial(&["/usr/bin/test-peer", "--help"], "test-peer")],
    },
];

/// The images called `names`; all if none is given.
pub(super) fn chosen(names: &[String]) -> Result<Vec<&'static Image>, String> {
    if let Some(unknown) = names.iter().find(|name| IMAGES.iter().all(|image| image.name != name.as_str())) {
        let known: Vec<_> = IMAGES.iter().map(|image| image.name).collect();
        return Err(format!("--only {unknown}: there is no such image; there are {}", known.join(", ")));
    }
    Ok(IMAGES.iter().filter(|image| names.is_empty() || names.iter().any(|name| name == image.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_chosen_by_name_in_a_fixed_order() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
            chosen(&only).map(|images| images.iter().map(|image| image.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), ["node-agent", "gateway", "guest-runner", "demo-guest", "test-peer"]);
        assert_eq!(names(&["demo-guest", "gateway"]).unwrap(), ["gateway", "demo-guest"]);
        assert!(names(&["gatewey"]).unwrap_err().contains("gatewey: there is no such image; there are node-agent,"));
    }

    /// Both halves of the definition name the same images, and each image is tried.
    #[test]
    fn the_containerfile_has_a_target_for_each_image_and_no_other() {
        let text = include_str!("../../../images/Containerfile");
        let targets: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("FROM scratch AS ")).collect();
        assert_eq!(targets, IMAGES.iter().map(|image| image.name).collect::<Vec<_>>());
        for image in IMAGES {
            assert!(text.contains(&format!("COPY --from=staged --chown=0:0 /{}/ /\n", image.name)), "{}", image.name);
            assert!(!image.trials.is_empty(), "{}", image.name);
        }
    }
}
